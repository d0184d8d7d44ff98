"""Lines as they leave the process."""

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import mode.utils.logging
import pytest
import structlog
from pydantic import SecretStr

from cortex_stream.clock import ManualClock
from cortex_stream.settings.sections import LogSettings
from cortex_stream.settings.tree import Settings
from cortex_stream.telemetry.logging import (
    configure_logging,
    request_context,
    trace_id_or_none,
)

_TRACEPARENT = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
_HOSTILE = "x\r\n12:00:00.000 error    forged \x1b[31mred\u202e\u2028"

Configure = Callable[..., io.StringIO]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """Configure logging into a text; whatever it changed is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    stream = io.StringIO()

    def start(
        line_format: Literal["console", "json"] = "json",
        level: Literal["debug", "info"] = "info",
    ) -> io.StringIO:
        settings = Settings(
            redis_url=SecretStr("redis://:hunter2hunter2@h:1/0"),
            log=LogSettings(format=line_format, level=level),
        )
        monkeypatch.setattr(sys, "stderr", stream)
        configure_logging(settings, clock=ManualClock())
        return stream

    yield start
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _fail(message: str, *, because: Exception | None = None) -> None:
    raise ValueError(message) from because


def test_an_event_is_one_json_object_with_its_fields(configure: Configure) -> None:
    stream = configure("json")

    structlog.stdlib.get_logger("cortex.engine").info("request.rejected", code="unknown_type", n=3)

    (line,) = _lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "cortex.engine",
        "event": "request.rejected",
        "code": "unknown_type",
        "n": 3,
    }


def test_library_lines_look_like_ours_and_know_the_request(configure: Configure) -> None:
    stream = configure("json")

    with request_context(request_id="r-1", traceparent=_TRACEPARENT):
        structlog.stdlib.get_logger("ours").info("a.happened")
        logging.getLogger("faust.app").warning("b %s", 2, extra={"data": {"k": 1}})
    logging.getLogger("faust.app").warning("c")

    ours, theirs, after = _lines(stream)
    assert ours["request_id"] == theirs["request_id"] == "r-1"
    assert ours["trace_id"] == theirs["trace_id"] == "ab" * 16
    assert (theirs["event"], theirs["data"]) == ("b 2", {"k": 1})
    assert "request_id" not in after


@pytest.mark.parametrize("line_format", ["json", "console"])
def test_hostile_text_stays_inside_its_one_line(
    configure: Configure, line_format: Literal["json", "console"]
) -> None:
    stream = configure(line_format)

    structlog.stdlib.get_logger("ours").info("request.rejected", id=_HOSTILE, **{_HOSTILE: "key"})
    logging.getLogger("aiokafka.x").error("from %s", _HOSTILE)

    written = stream.getvalue()
    assert written.count("\n") == 2
    assert not set(written) & set("\r\x1b\u202e\u2028")


def test_a_field_cannot_pose_as_another_on_the_console(configure: Configure) -> None:
    stream = configure("console")

    structlog.stdlib.get_logger("ours").info("a.happened", id="x level=error")

    assert 'id="x level=error"' in stream.getvalue()


@pytest.mark.filterwarnings("always:hunter2")
@pytest.mark.parametrize("line_format", ["json", "console"])
def test_no_secret_reaches_the_stream_by_any_way(
    configure: Configure, line_format: Literal["json", "console"]
) -> None:
    stream = configure(line_format)
    log = structlog.stdlib.get_logger("ours")

    log.info("hunter2hunter2", url="redis://:hunter2hunter2@h", deep=[{"k": ("hunter2hunter2",)}])
    logging.getLogger("aiokafka").error("auth failed: %s", "hunter2hunter2")
    try:
        _fail("hunter2hunter2", because=KeyError("postgres://u:hunter2hunter2@h"))
    except ValueError as error:
        log.exception("a.failed", error=error)
        sys.excepthook(type(error), error, error.__traceback__)
        crash = threading.ExceptHookArgs((type(error), error, error.__traceback__, None))
        threading.excepthook(crash)
    warnings.warn("hunter2hunter2", stacklevel=1, category=UserWarning)

    written = stream.getvalue()
    assert "hunter2" not in written
    assert written.count("Traceback") == 3
    assert "UserWarning" in written
    assert "process.crashed" in written
    assert "thread.crashed" in written


def test_a_traceback_on_the_console_cannot_look_like_another_event(configure: Configure) -> None:
    stream = configure("console")

    try:
        _fail(_HOSTILE)
    except ValueError:
        structlog.stdlib.get_logger("ours").exception("a.failed")

    first, *rest = stream.getvalue().splitlines()
    assert "a.failed" in first
    assert rest
    assert all(line.startswith("             │ ") for line in rest)


def test_configuring_twice_writes_every_line_once(configure: Configure) -> None:
    configure("json")
    stream = configure("json")

    structlog.stdlib.get_logger("ours").info("a.happened")

    assert len(_lines(stream)) == 1


def test_debug_shows_our_details_but_not_the_libraries_chatter(configure: Configure) -> None:
    stream = configure("json", level="debug")

    structlog.stdlib.get_logger("ours").debug("a.happened")
    logging.getLogger("aiokafka.consumer.fetcher").debug("one line per fetch")

    assert [line["event"] for line in _lines(stream)] == ["a.happened"]


def test_what_json_cannot_say_is_written_as_text(configure: Configure) -> None:
    stream = configure("json")

    structlog.stdlib.get_logger("ours").info("a.b", nan=float("nan"), obj=object, bad="\ud800")

    (line,) = _lines(stream)
    assert line["nan"] == "nan"
    assert line["obj"] == "<class 'object'>"


def test_a_field_does_not_replace_time_level_or_logger(configure: Configure) -> None:
    stream = configure("json")

    structlog.stdlib.get_logger("ours").info("a.b", level="critical", logger="x", time="never")

    (line,) = _lines(stream)
    assert (line["level"], line["logger"]) == ("info", "ours")
    assert line["time"] != "never"


def test_mode_keeps_our_handler_when_it_is_given_an_incremental_configuration(
    configure: Configure,
) -> None:
    stream = configure("json")

    mode.utils.logging.setup_logging(
        loglevel="INFO",
        logging_config={"version": 1, "incremental": True},
        loghandlers=logging.getLogger().handlers[:],
    )
    logging.getLogger("faust.app").warning("started")

    assert [line["event"] for line in _lines(stream)] == ["started"]


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (_TRACEPARENT, "ab" * 16),
        (None, None),
        ("", None),
        ("00-" + "0" * 32 + "-" + "cd" * 8 + "-01", None),
        ("00-" + "AB" * 16 + "-" + "cd" * 8 + "-01", None),
        ("x" * 10_000, None),
    ],
)
def test_only_a_valid_traceparent_names_a_trace(
    traceparent: str | None, trace_id: str | None
) -> None:
    assert trace_id_or_none(traceparent) == trace_id
