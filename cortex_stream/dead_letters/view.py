"""How a letter reads, for people and for programs. Pure."""

import base64
import itertools
import re
from typing import Any, Final

import orjson

from cortex_stream.dead_letters.letter import Letter
from cortex_stream.dead_letters.redrive import Turns
from cortex_stream.delivery.outcome import rfc3339
from cortex_stream.telemetry.redaction import escape_unprintable

MOST_INDENTED_BYTES: Final = 1 << 20
"""A larger value is shown as it came; it is none that a worker would have decoded."""


_MOST_INDENTS: Final = 32
_PIECE: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[][{},:]|[^][{},:"\s]+')
_OPENING: Final = ("{", "[")
_CLOSING: Final = ("}", "]")


def moment(unix_ms: int | None) -> str | None:
    """Return the moment as RFC 3339, or None where no calendar has it."""
    try:
        return None if unix_ms is None or unix_ms < 0 else rfc3339(unix_ms)
    except (OverflowError, ValueError, OSError):
        return None


def readable(value: bytes | None, *, parse: bool = True) -> str:
    r"""Return bytes as text for people: JSON indented, nothing that a terminal would obey.

    Without `parse` JSON stays as it came: of a letter that may end whoever reads it.

    Control and direction characters are spelt as `\u001b`, bytes that are not UTF-8 as `\xff`. Text
    of JSON stays the same JSON.
    """
    text = (value or b"").decode(errors="backslashreplace")
    if parse and value and len(value) <= MOST_INDENTED_BYTES and _is_json(value):
        text = _indented(text)
    return "\n".join(escape_unprintable(line) for line in text.split("\n"))


def redriven(turns: Turns) -> str:
    """Return in a word or two how often the letter was redriven."""
    if turns.cut:
        return "interrupted"
    return f"{turns.done} times" if turns.done > 1 else "once" if turns.done else "no"


def described(letter: Letter, turns: Turns) -> dict[str, Any]:
    """Return what a list says of a letter, as JSON-like data."""
    origin, asked = letter.origin, letter.asked
    return {
        "letter": str(letter.place),
        "written": moment(letter.written_ms),
        "code": letter.code,
        "message": letter.message,
        "class": letter.error_class,
        "stage": letter.stage,
        "worker": letter.worker,
        "model": letter.model or None,
        "attempts": letter.attempts,
        "first": moment(letter.first_ms),
        "last": moment(letter.last_ms),
        "original": None if origin is None else origin._asdict(),
        "request_id": asked.request_id,
        "type": asked.type,
        "source": asked.source,
        "tenant": asked.tenant,
        "size_bytes": letter.size_bytes,
        "truncated": letter.truncated,
        "redrives": letter.redrives,
        "redriven": redriven(turns),
    }


def exported(letter: Letter, turns: Turns) -> dict[str, Any]:
    """Return all of a letter: key, value and headers in base64, byte for byte."""
    return {
        **described(letter, turns),
        "key": _base64(letter.key),
        "value": _base64(letter.value),
        "headers": [[name, _base64(data)] for name, data in letter.original_headers],
    }


def _is_json(value: bytes) -> bool:
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True


def _indented(text: str) -> str:
    """Return JSON on lines of its own: every token as it came, repeated keys and long numbers too."""
    pieces = _PIECE.findall(text)
    depth, shown = 0, list[str]()
    for piece, following in itertools.pairwise([*pieces, ""]):
        if piece in _OPENING:
            empty = following in _CLOSING
            depth += 1
            shown.append(piece if empty else piece + _new_line(depth))
        elif piece in _CLOSING:
            depth -= 1
            empty = shown[-1] in _OPENING
            shown.append(piece if empty else _new_line(depth) + piece)
        elif piece == ",":
            shown.append(piece + _new_line(depth))
        else:
            shown.append(": " if piece == ":" else piece)
    return "".join(shown)


def _new_line(depth: int) -> str:
    return "\n" + "  " * min(depth, _MOST_INDENTS)


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
