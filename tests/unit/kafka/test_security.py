import ssl
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from cortex_stream.devstack.tls import write_certificates
from cortex_stream.errors import OperatorError
from cortex_stream.kafka.connection import connection_arguments
from cortex_stream.kafka.security import security_arguments
from cortex_stream.settings.kafka import KafkaSecurity, KafkaSettings
from cortex_stream.settings.tree import Settings


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Path, Path]:
    authority, server = tmp_path / "ca.pem", tmp_path / "server.pem"
    write_certificates(authority_file=authority, server_file=server)
    return authority, server


def test_plaintext_needs_nothing_else() -> None:
    assert security_arguments(KafkaSecurity()) == {"security_protocol": "PLAINTEXT"}


def test_tls_checks_the_brokers_name_against_the_given_authority(
    certificates: tuple[Path, Path],
) -> None:
    authority, _ = certificates

    arguments = security_arguments(KafkaSecurity(protocol="SSL", ca_file=authority))

    context = arguments["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1
    assert arguments.keys() == {"security_protocol", "ssl_context"}


def test_tls_without_a_file_trusts_the_systems_authorities() -> None:
    arguments = security_arguments(KafkaSecurity(protocol="SSL"))

    assert isinstance(arguments["ssl_context"], ssl.SSLContext)


def test_a_client_certificate_and_its_key_may_share_a_file(
    certificates: tuple[Path, Path],
) -> None:
    authority, both = certificates

    arguments = security_arguments(KafkaSecurity(protocol="SSL", ca_file=authority, cert_file=both))

    assert isinstance(arguments["ssl_context"], ssl.SSLContext)


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_sasl_carries_user_password_and_mechanism(protocol: str) -> None:
    security = KafkaSecurity.model_validate(
        {"protocol": protocol, "username": "cortex", "password": "s3cret"}
    )

    arguments = security_arguments(security)

    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert arguments["sasl_plain_username"] == "cortex"
    assert arguments["sasl_plain_password"] == "s3cret"  # noqa: S105 (made up)
    assert ("ssl_context" in arguments) == (protocol == "SASL_SSL")


def test_a_password_file_wins_and_its_line_end_is_not_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from-file\n", encoding="utf-8")
    security = KafkaSecurity(
        protocol="SASL_PLAINTEXT",
        username="cortex",
        password=SecretStr("other"),
        password_file=file,
    )

    assert security_arguments(security)["sasl_plain_password"] == "from-file"  # noqa: S105 (made up)


def test_a_missing_certificate_names_the_file_and_the_setting(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.pem"

    with pytest.raises(OperatorError) as caught:
        security_arguments(KafkaSecurity(protocol="SSL", ca_file=missing))

    assert str(missing) in str(caught.value)
    assert "CORTEX_KAFKA__SECURITY__" in str(caught.value.repair)


def test_a_file_that_is_no_certificate_is_told_apart_from_a_broker_that_is_down(
    tmp_path: Path,
) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("not a certificate", encoding="utf-8")

    with pytest.raises(OperatorError, match="reading the certificates"):
        security_arguments(KafkaSecurity(protocol="SSL", ca_file=file))


def test_a_missing_password_file_is_an_error_of_ours(tmp_path: Path) -> None:
    security = KafkaSecurity(
        protocol="SASL_PLAINTEXT", username="cortex", password_file=tmp_path / "nowhere"
    )

    with pytest.raises(OperatorError, match="reading the SASL password"):
        security_arguments(security)


def test_every_client_gets_addresses_and_identity() -> None:
    settings = Settings(
        kafka_brokers="a:1,b:2",
        kafka=KafkaSettings(
            security=KafkaSecurity(
                protocol="SASL_PLAINTEXT", username="cortex", password=SecretStr("p")
            )
        ),
    )

    arguments = connection_arguments(settings)

    assert arguments["bootstrap_servers"] == "a:1,b:2"
    assert arguments["security_protocol"] == "SASL_PLAINTEXT"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"protocol": "PLAINTEXT", "username": "cortex"}, "proves no user"),
        ({"protocol": "SSL", "password": "s3cret"}, "proves no user"),
        ({"protocol": "SSL", "password_file": "/run/secrets/kafka"}, "proves no user"),
        ({"protocol": "PLAINTEXT", "ca_file": "/etc/ca.pem"}, "encrypts nothing"),
        (
            {
                "protocol": "SASL_PLAINTEXT",
                "username": "cortex",
                "password": "s3cret",
                "cert_file": "/run/tls.crt",
            },
            "encrypts nothing",
        ),
        ({"protocol": "SSL", "key_file": "/run/tls.key"}, "key_file needs cert_file"),
    ],
)
def test_what_the_protocol_would_ignore_is_refused(given: dict[str, str], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        KafkaSecurity.model_validate(given)


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    names = ("ca_file", "cert_file", "key_file", "username", "password", "password_file")

    assert KafkaSecurity.model_validate(dict.fromkeys(names, "")) == KafkaSecurity()
