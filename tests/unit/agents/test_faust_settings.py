"""What Faust is told."""

import ssl
from pathlib import Path

import pytest

from agents.faust_settings import FaustSettings, faust_settings
from cortex_stream.settings.kafka import KafkaSecurity, KafkaSettings
from cortex_stream.settings.tree import Settings


def _credentials(security: KafkaSecurity) -> tuple[object, ...]:
    credentials = faust_settings(Settings(kafka=KafkaSettings(security=security)))[
        "broker_credentials"
    ]
    return credentials.protocol.value, credentials


def test_every_broker_is_named() -> None:
    settings = faust_settings(Settings(kafka_brokers="a:1,b:2"))

    assert [str(url) for url in settings["broker"]] == ["kafka://a:1", "kafka://b:2"]


def test_membership_is_dynamic_unless_an_instance_is_named_and_the_group_has_the_prefix() -> None:
    default = Settings()
    static = Settings(kafka=KafkaSettings(instance_id="worker-0", topic_prefix="staging"))

    dynamic, named = (
        FaustSettings(each.group, **faust_settings(each)) for each in (default, static)
    )

    assert dynamic.id == "cortex-stream"
    assert not dynamic.consumer_group_instance_id
    assert (named.id, named.consumer_group_instance_id) == ("staging.cortex-stream", "worker-0")


def test_the_environment_of_faust_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_URL", "kafka://elsewhere:1")
    monkeypatch.setenv("BROKER_COMMIT_INTERVAL", "3600")
    monkeypatch.setenv("PROCESSING_GUARANTEE", "exactly_once")

    settings = FaustSettings("group", **faust_settings(Settings(kafka_brokers="here:1")))

    assert [str(url) for url in settings.broker] == ["kafka://here:1"]
    assert settings.broker_commit_interval == 1.0
    assert "at_least_once" in str(settings.processing_guarantee).lower()


def test_without_security_there_are_no_credentials() -> None:
    assert faust_settings(Settings())["broker_credentials"] is None


def test_a_password_travels_inside_tls_with_its_mechanism(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    security = KafkaSecurity(protocol="SASL_SSL", username="me", password_file=password)

    protocol, credentials = _credentials(security)

    assert protocol == "SASL_SSL"
    assert vars(credentials)["username"] == "me"
    assert vars(credentials)["password"] == "secret"  # noqa: S105 (what the file above holds)
    assert vars(credentials)["mechanism"].value == "SCRAM-SHA-512"
    assert vars(credentials)["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert "secret" not in repr(credentials)


def test_tls_alone_checks_the_broker() -> None:
    protocol, credentials = _credentials(KafkaSecurity(protocol="SSL"))

    assert protocol == "SSL"
    assert vars(credentials)["context"].check_hostname
