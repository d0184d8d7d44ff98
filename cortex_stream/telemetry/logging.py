"""Every line this process logs, ours or a library's, in one form (Stream: standard error).

Our code logs an event name and fields: `structlog.stdlib.get_logger(__name__).info(
"request.rejected", code=…)`. Everything goes through the standard library's root logger, so Faust,
aiokafka, warnings and crashes look the same.

Invariants: one event is one line (on a console, a traceback follows it, indented behind a bar);
no secret of the settings and no control character from a message reaches the stream.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from cortex_stream.clock import Clock, SystemClock
from cortex_stream.settings.tree import Settings
from cortex_stream.telemetry.noise import Quiet
from cortex_stream.telemetry.redaction import Redactor, escape_unprintable, secrets_of

_TRACEPARENT: Final = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_PLAIN: Final = re.compile(r"[^\s\"'=\[\]{}]+")
_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
# Libraries speak one level quieter than we do, or thirty lines about starting services hide ours.
_LIBRARIES: Final = ("aiokafka", "asyncio", "faust", "mode")


def configure_logging(settings: Settings, *, clock: Clock | None = None) -> None:
    """Make the root logger write as `settings.log` says; calling it again replaces what it did.

    Faust must be told to keep its hands off: `faust.Worker(app, override_logging=False)`.
    """
    on_terminal = sys.stderr.isatty()
    as_json = settings.log.format == "json" or (settings.log.format == "auto" and not on_terminal)
    redactor = Redactor(secrets_of(settings))
    render: Processor = _JsonLines(redactor) if as_json else _Console(redactor, on_terminal)

    handler = _handler(clock or SystemClock(), render)
    root = logging.getLogger()
    for former in [h for h in root.handlers if isinstance(h, _Stream)]:
        root.removeHandler(former)
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[settings.log.level.upper()]
    root.setLevel(level)
    for name in _LIBRARIES:
        library_level = logging.INFO if level == logging.DEBUG else max(level, logging.WARNING)
        logging.getLogger(name).setLevel(library_level)
    # Probes read /livez every second.
    logging.getLogger("aiohttp.access").setLevel(max(level, logging.WARNING))

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash


@contextmanager
def request_context(*, request_id: str | None, traceparent: str | None = None) -> Iterator[None]:
    """Put the request's id, and the trace id of a W3C `traceparent`, on every line logged inside.

    Follows the task: tasks started inside inherit it. Values that are missing or not a
    traceparent add no field.
    """
    fields = {"request_id": request_id, "trace_id": trace_id_or_none(traceparent)}
    with structlog.contextvars.bound_contextvars(**{k: v for k, v in fields.items() if v}):
        yield


def trace_id_or_none(traceparent: str | None) -> str | None:
    """Return the 32 hex digits of the trace id; None unless it is valid and not all zero."""
    found = _TRACEPARENT.match(traceparent or "")
    return found[1] if found and found[1].strip("0") else None


class _Stream(logging.StreamHandler[Any]):
    """Our handler, told apart from other people's by its class."""


def _handler(clock: Clock, render: Processor) -> logging.Handler:
    handler = _Stream(sys.stderr)
    handler.addFilter(Quiet(clock))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.ExtraAdder(),
            ],
            processors=[structlog.processors.format_exc_info, render],
        )
    )
    return handler


def _head(event_dict: EventDict) -> dict[str, str]:
    """Take what every line begins with out of `event_dict`."""
    record: logging.LogRecord = event_dict.pop("_record")
    del event_dict["_from_structlog"]
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return {
        "time": at.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": str(event_dict.pop("event", "")),
    }


class _JsonLines:
    """One JSON object per line. A field named like one of the first four gives way to it."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, _: WrappedLogger, __: str, event_dict: EventDict) -> str:
        head = _head(event_dict)
        line = self._redactor.value(head | dict(event_dict) | head)
        return escape_unprintable(json.dumps(line, ensure_ascii=False, separators=(",", ":")))


class _Console:
    """For people: time, level, event, fields; values with spaces or signs are quoted."""

    def __init__(self, redactor: Redactor, colours: bool) -> None:  # noqa: FBT001 (private)
        self._redactor = redactor
        self._colours = colours

    def __call__(self, _: WrappedLogger, __: str, event_dict: EventDict) -> str:
        head = _head(event_dict)
        traceback = str(event_dict.pop("exception", ""))
        level = f"{head['level']:<8}"
        if self._colours:
            level = f"\x1b[{_COLOURS.get(head['level'], '0')}m{level}\x1b[0m"
        event = self._redactor.text(head["event"]).strip()
        said = escape_unprintable(f"{event}{self._fields(event_dict)}")
        line = f"{head['time'][11:-1]} {level} {said}"
        for part in self._redactor.text(traceback).split("\n") if traceback else ():
            line += f"\n{'│':>14} {escape_unprintable(part)}"
        return line

    def _fields(self, event_dict: Mapping[str, Any]) -> str:
        shown = ((k, self._redactor.field(k, v)) for k, v in sorted(event_dict.items()))
        return "".join(f" {k}={_quoted(v)}" for k, v in shown)


def _quoted(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _log_crash(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    logging.getLogger("cortex_stream").critical(
        "process.crashed", exc_info=(kind, error, traceback)
    )


def _log_thread_crash(crash: threading.ExceptHookArgs) -> None:
    if crash.exc_value is not None and not isinstance(crash.exc_value, SystemExit):
        logging.getLogger("cortex_stream").critical(
            "thread.crashed",
            exc_info=(crash.exc_type, crash.exc_value, crash.exc_traceback),
            extra={"thread_name": crash.thread.name if crash.thread else None},
        )
