"""What may be printed."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from cortex_stream.settings.kafka import KafkaSecurity, KafkaSettings
from cortex_stream.settings.sections import WebSettings
from cortex_stream.settings.tree import Settings
from cortex_stream.telemetry.redaction import (
    TEXT_CHARS,
    Redactor,
    escape_unprintable,
    secrets_of,
)

_CANARY = 'Ca"na\\ry-ü7 x'


@pytest.mark.parametrize(
    "text",
    [
        "connecting to postgresql://cortex:canary77@db/cortex failed",
        "redis://:canary77@redis:6379/0",
        "https://user:can@ary77@host/path",
        "sasl_plain_password='canary77', mechanism=PLAIN",
        'sent {"password": "canary77"}',
        "api_key=canary77&x=1",
        "API-KEY: canary77",
        "client_secret = canary77",
        "access_token=canary77",
        "Authorization: Basic canary77",
        "authorization=canary77",
        "header Bearer canary77.abc-def",
    ],
)
def test_what_looks_like_a_password_is_masked(text: str) -> None:
    shown = Redactor().text(text)

    assert "ary77" not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    [
        "tokens=128 batch_tokens=256",
        "see https://example.org/a@b for the basic rules",
        "the bearer of this is a token of thanks",
        "cortex.requests.high[2]@1204",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert Redactor().text(text) == text


@pytest.mark.parametrize("spelling", [_CANARY, repr(_CANARY), json.dumps(_CANARY)])
def test_a_secret_of_the_settings_is_found_in_every_spelling(spelling: str) -> None:
    shown = Redactor([_CANARY]).text(f"unexpected: {spelling}.")

    assert "ry-" not in shown
    assert "***" in shown


def test_fields_are_masked_by_name_at_any_depth() -> None:
    value = {"sasl": [{"password": "a", "user": "b"}], "token": 5, "tokens": 5}

    shown = Redactor().value(value)

    assert shown == {"sasl": [{"password": "***", "user": "b"}], "token": "***", "tokens": 5}


def test_a_megabyte_that_somebody_sent_is_cut_in_the_middle() -> None:
    shown = Redactor().text("start " + "x" * 1_000_000 + " end")

    assert len(shown) <= TEXT_CHARS
    assert shown.startswith("start ")
    assert shown.endswith(" end")


def test_a_cut_cannot_leave_half_a_secret() -> None:
    secret = "c4n4ry" * 50

    shown = Redactor([secret]).text("x" * (TEXT_CHARS // 2 - 100) + secret + "y" * TEXT_CHARS)

    assert "c4n4ry" not in shown


@given(st.text())
def test_no_character_that_moves_a_terminal_survives(text: str) -> None:
    shown = escape_unprintable(text + "\x1b[2J\r\n\u202e\x9b")

    assert shown.isprintable() or all(c.isprintable() or ord(c) > 0x9F for c in shown)
    assert not set(shown) & set("\x1b\r\n\u2028\u2029\u202e\x9b")


def test_every_secret_of_the_settings_is_known(tmp_path: Path) -> None:
    file = tmp_path / "sasl"
    file.write_text("from-a-file\n")
    settings = Settings(
        redis_url=SecretStr("redis://:re%40dis@h:1/0"),
        postgres_url=SecretStr("postgresql://u:post@h/db"),
        kafka=KafkaSettings(
            security=KafkaSecurity(
                protocol="SASL_SSL", username="u", password=SecretStr("ka"), password_file=file
            )
        ),
        web=WebSettings(token=SecretStr("web-token")),
    )

    found = set(secrets_of(settings))

    assert {"from-a-file", "re%40dis", "re@dis", "post", "ka", "web-token"} <= found


def test_a_url_without_credentials_is_no_secret() -> None:
    settings = Settings(
        redis_url=SecretStr("redis://127.0.0.1:6379/0"), postgres_url=SecretStr("postgresql://h/d")
    )

    assert list(secrets_of(settings)) == []
