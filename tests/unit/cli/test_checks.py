import errno
import os
import socket
from importlib import metadata

import pytest
from pydantic import SecretStr

from cortex_stream.cli import checks
from cortex_stream.settings.sections import WebSettings
from cortex_stream.settings.tree import Settings


def test_an_address_is_shown_without_user_password_and_database() -> None:
    url = SecretStr("postgresql://user:geheim@db.example:5432/cortex?x=geheim")

    assert checks._place(url) == "db.example:5432"


@pytest.mark.parametrize("text", ["wrong: redis://u:geheim@h:1/0", "bad password 'geheim'"])
def test_an_error_that_quotes_the_address_or_its_password_is_not_shown(text: str) -> None:
    url = SecretStr("redis://u:geheim@h:1/0")

    assert checks._reason(ValueError(text), url) == "ValueError"


def test_an_address_that_cannot_be_read_does_not_break_the_check() -> None:
    url = SecretStr("redis://[geheim")

    assert "geheim" not in checks._place(url)
    assert checks._reason(OSError("refused"), url) == "refused"


async def test_a_nonsensical_address_fails_the_check_and_is_not_quoted() -> None:
    redis = await checks._redis(SecretStr("nonsense://user:geheim@host/1"))
    postgres = await checks._postgres(SecretStr("nonsense://user:geheim@host/1"))

    for check in (redis, postgres):
        assert not check.ok
        assert "geheim" not in check.detail
    assert redis.failed
    assert redis.repair is not None


async def test_what_the_settings_do_not_use_is_a_note_and_no_failure() -> None:
    redis = await checks._redis(None)
    postgres = await checks._postgres(SecretStr("postgresql://nobody@127.0.0.1:1/none"))

    assert [(check.ok, check.failed) for check in (redis, postgres)] == [(False, False)] * 2
    assert "REDIS_URL is not set" in redis.detail
    assert "workers do not use it yet" in postgres.detail


def test_our_packages_are_found_in_this_repository() -> None:
    found = checks._packages()

    assert found.ok, found.detail


def test_a_package_of_ours_that_comes_from_elsewhere_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_OURS", ("agents", "rich", "no_such_package"))

    found = checks._packages()

    assert not found.ok
    assert "rich comes from" in found.detail
    assert "no_such_package comes from nowhere" in found.detail


def test_both_builds_of_onnxruntime_at_once_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "1.0")

    found = checks._onnxruntime()

    assert not found.ok
    assert found.detail == "both onnxruntime 1.0 and onnxruntime-gpu 1.0"


def test_a_taken_web_port_is_told_with_the_one_that_will_be_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        found = checks._web(Settings(web=WebSettings(port=port)))

    assert found.ok
    assert f"{port} is taken" in found.detail


def test_an_address_that_is_not_of_this_machine_fails() -> None:
    web = WebSettings(host="192.0.2.1", token=SecretStr("t"))  # TEST-NET-1: nobody's

    found = checks._web(Settings(web=web))

    assert found == checks.Check(
        "web port",
        ok=False,
        detail=f"listening on 192.0.2.1:6066: {os.strerror(errno.EADDRNOTAVAIL)}",
        repair="export CORTEX_WEB__HOST=127.0.0.1",
    )
