"""Libraries that shout."""

import logging

import pytest

from cortex_stream.clock import ManualClock
from cortex_stream.telemetry.noise import Quiet


def _record(name: str, message: str, *, line: int = 1) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "conn.py", line, message, (), None)


def test_a_repeating_line_is_written_once_in_ten_seconds_with_the_number_left_out() -> None:
    clock = ManualClock()
    quiet = Quiet(clock)

    written = [quiet.filter(_record("aiokafka.conn", f"no node {n}")) for n in range(110)]
    clock.advance_s(10)
    later = _record("aiokafka.conn", "no node 111")

    assert sum(written) == 1
    assert quiet.filter(later)
    assert vars(later)["suppressed"] == 109


def test_another_line_of_code_is_another_message() -> None:
    quiet = Quiet(ManualClock())

    first = quiet.filter(_record("aiokafka.conn", "away", line=1))
    second = quiet.filter(_record("aiokafka.conn", "away", line=2))

    assert (first, second) == (True, True)


@pytest.mark.parametrize("name", ["cortex_stream.engine", "aiohttp.server", "faust.app"])
def test_other_loggers_are_never_left_out(name: str) -> None:
    quiet = Quiet(ManualClock())

    assert all(quiet.filter(_record(name, "same")) for _ in range(50))


@pytest.mark.parametrize(
    "message",
    [
        "[^--Consumer]: Has not committed %r (last commit %s).",
        "[^--Consumer]: Stream stopped processing, or is slow for %r (last inbound %s).",
        "[^--Consumer]: Stream has not started processing %r (started %s).",
    ],
)
def test_a_known_false_alarm_is_a_debug_line(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = Quiet(ManualClock())
    alarm = _record("faust.transport.consumer", message)
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
    logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]

    written = quiet.filter(alarm)

    assert not written
    assert alarm.levelname == "DEBUG"
