"""The names that the platform fixed keep working, and mean what they say."""

import pytest

from cortex_stream.settings.tree import Settings, load_settings


def test_every_name_of_the_platform_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BROKERS", "kafka-1:9092,kafka-2:9092")
    monkeypatch.setenv("REDIS_URL", "redis://cache:6379/1")
    monkeypatch.setenv("POSTGRES_URL", "postgresql://cortex@db/cortex")
    monkeypatch.setenv("MODEL_CACHE_SIZE", "3GB")
    monkeypatch.setenv("MAX_BATCH_SIZE", "16")

    settings = load_settings()

    assert settings.kafka_brokers == "kafka-1:9092,kafka-2:9092"
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://cache:6379/1"
    assert settings.postgres_url.get_secret_value() == "postgresql://cortex@db/cortex"
    assert settings.model_cache_size == 3_000_000_000
    assert settings.max_batch_size == 16


def test_the_platform_s_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODEL_CACHE_SIZE", "MAX_BATCH_SIZE"):
        monkeypatch.delenv(name, raising=False)

    settings = load_settings()

    assert settings.model_cache_size == 2_000_000_000
    assert settings.max_batch_size == 32


def test_a_section_s_field_is_read_under_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTEX_KAFKA__TOPIC_PREFIX", "staging")

    settings = load_settings()

    assert settings.topic("cortex.results") == "staging.cortex.results"
    assert settings.group == "staging.cortex-stream"


def test_passwords_in_addresses_are_never_shown() -> None:
    settings = Settings.model_validate(
        {"REDIS_URL": "redis://:hunter2@cache", "POSTGRES_URL": "postgresql://u:hunter2@db"}
    )

    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()


@pytest.mark.parametrize("value", [None, ""])
def test_an_address_of_redis_that_is_unset_or_empty_is_none(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv("REDIS_URL", raising=False)
    else:
        monkeypatch.setenv("REDIS_URL", value)

    assert load_settings().redis_url is None
