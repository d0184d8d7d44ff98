from pathlib import Path

import pytest

from cortex_stream.errors import OperatorError
from cortex_stream.settings.kafka import KafkaSecurity
from cortex_stream.settings.tree import load_settings


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BROKERS", "nowhere")
    monkeypatch.setenv("CORTEX_LIMITS__TEXTS", "-1")

    with pytest.raises(OperatorError) as refused:
        load_settings()

    assert "KAFKA_BROKERS" in str(refused.value)
    assert "CORTEX_LIMITS__TEXTS" in str(refused.value)


@pytest.mark.parametrize("brokers", ["http://127.0.0.1:9092", "kafka:9092,other", ":9092"])
def test_brokers_are_host_and_port_alone(brokers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BROKERS", brokers)

    with pytest.raises(OperatorError, match=r"KAFKA_BROKERS: '[^']+' is not host:port"):
        load_settings()


@pytest.mark.parametrize("name", ["CORTEX_KAKFA__TOPIC_PREFIX", "CORTEX_KAFKA__TOPIC_PREFX"])
def test_a_misspelt_variable_is_named_and_not_ignored(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")

    with pytest.raises(OperatorError, match=name):
        load_settings()


def test_a_list_that_is_no_json_says_how_to_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTEX_MODELS__SERVE", "minilm")

    with pytest.raises(OperatorError, match=r"\["):
        load_settings()


def test_a_password_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    junk = tmp_path / "password"
    junk.write_bytes(b"\xff\xfe")
    for path in (junk, tmp_path / "absent"):
        security = KafkaSecurity(protocol="SASL_SSL", username="cortex", password_file=path)

        with pytest.raises(OperatorError, match=path.name):
            security.sasl_password()


@pytest.mark.parametrize(
    "variable", ["CORTEX_LIMITS__ERROR_MESSAGE_BYTES", "CORTEX_LIMITS__OUTCOME_BYTES"]
)
def test_a_limit_beyond_what_a_topic_takes_is_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "9000000")

    with pytest.raises(OperatorError, match=variable):
        load_settings()
