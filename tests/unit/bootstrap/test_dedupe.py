import pytest
from pydantic import SecretStr

from cortex_stream.bootstrap.dedupe import Dedupe
from cortex_stream.clock import ManualClock
from cortex_stream.errors import OperatorError
from cortex_stream.settings.sections import DedupeSettings
from cortex_stream.settings.stages import WorkerSettings
from cortex_stream.settings.tree import Settings

URL = SecretStr("redis://127.0.0.1:6379/0")


def dedupe(settings: Settings) -> Dedupe:
    return Dedupe(settings, clock=ManualClock())


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (Settings(redis_url=None), "REDIS_URL is not set"),
        (Settings(redis_url=URL, dedupe=DedupeSettings(window_s=0)), "CORTEX_DEDUPE__WINDOW_S"),
        (Settings(redis_url=URL, worker=WorkerSettings(stages=("embedding",))), "other workers"),
    ],
)
async def test_a_window_that_the_settings_leave_out_says_why_and_costs_nothing(
    settings: Settings, why: str
) -> None:
    left_out = dedupe(settings)

    assert left_out.window is None
    assert not left_out.status().on
    assert why in left_out.status().detail
    await left_out.run()  # ends at once


def test_with_an_address_the_window_is_on() -> None:
    on = dedupe(Settings(redis_url=URL))

    assert on.window is not None
    assert on.status().on
    assert "3600 s" in on.status().detail


async def test_an_open_circuit_says_for_how_long_nobody_asks() -> None:
    off = dedupe(Settings(redis_url=SecretStr("redis://127.0.0.1:1/0")))
    for _ in range(3):
        with pytest.raises(ConnectionError), off._circuit:
            raise ConnectionError("refused")

    assert not off.status().on
    assert off.status().detail == "circuit open for 5 s more: refused"


@pytest.mark.parametrize("url", ["http://u:geheim@h", "redis://u:geheim@h:port/0", "geheim"])
def test_an_address_that_cannot_be_read_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(OperatorError, match="REDIS_URL") as refused:
        dedupe(Settings(redis_url=SecretStr(url)))

    assert "geheim" not in str(refused.value)
    assert refused.value.repair is not None
