"""From the bytes of a record to the attributes and data of a CloudEvent.

Catches by stage: size before decoding, depth and duplicate keys before validating, so that no
input costs more than its size and none escapes as an unexpected exception.

Source: CloudEvents 1.0.2, JSON event format and Kafka protocol binding.
"""

import gc
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import orjson
from pydantic import ValidationError

from cortex_stream.errors import (
    DuplicateKey,
    EmptyRecord,
    InvalidEnvelope,
    InvalidField,
    InvalidJson,
    RecordTooLarge,
    TooDeep,
)
from cortex_stream.record import RecordSource
from cortex_stream.settings.sections import LimitsSettings
from cortex_stream.values import value
from schemas.contract import Payload
from schemas.requests import RequestAttributes

UNIQUE_KEYS: Final = ("id", "type", "data")
_QUOTED_KEYS: Final = tuple(f'"{key}"'.encode() for key in UNIQUE_KEYS)

BINARY_ID_HEADER: Final = "ce_id"
BINARY_TYPE_HEADER: Final = "ce_type"

_LEADING_ID: Final = re.compile(
    rb'\s*\{(?:\s*"[^"\\]*"\s*:\s*"[^"\\]*"\s*,){0,16}?\s*"id"\s*:\s*"([^"\\\x00-\x1f]{1,256})"\s*[,}]'
)
_LEADING_BYTES: Final = 4096
_MANY_OBJECTS_BYTES: Final = (
    16 << 10
)  # from here on JSON may hold enough to wake the collector often
_SHOWN_CHARS: Final = 64
_MISSPELT_DEADLINES: Final = frozenset(
    ("deadlineMs", "deadlineMS", "DeadlineMs", "DEADLINEMS", "deadline_ms", "deadline-ms")
)
_IDENTIFIER: Final = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
_ONE_KIND_OF_BRACKET: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))

P = TypeVar("P", bound=Payload)


@value()
class Envelope:
    """A decoded CloudEvent.

    Attributes:
        raw: all attributes as they came; `data` too in structured mode.
        data: the payload as it came.
    """

    raw: Mapping[str, Any]
    data: Any


def decode(value: bytes | None, source: RecordSource, *, limits: LimitsSettings) -> Envelope:
    """Return the CloudEvent in a record, structured or binary (`ce_*` headers).

    Raises:
        EmptyRecord: there is no value.
        RecordTooLarge: the value is larger than a request may be.
        InvalidJson: the value is not one JSON object in UTF-8.
        TooDeep: it is nested deeper than allowed.
        DuplicateKey: `id`, `type` or `data` stands twice.
    """
    if not value:
        raise EmptyRecord("the record has no value; send one JSON object")
    if len(value) > limits.request_bytes:
        raise RecordTooLarge(
            f"the record has {len(value)} bytes, a request may have {limits.request_bytes};"
            " send fewer texts in each request"
        )
    binary = binary_attributes(source)
    decoded = _loads(value)
    _check_depth(value, max_depth=limits.json_depth)
    if binary is not None:
        return Envelope(binary, decoded)
    if not isinstance(decoded, dict):
        raise InvalidJson(f"the value is a JSON {_json_type(decoded)}, wanted a JSON object")
    _check_unique_keys(value)
    return Envelope(decoded, decoded.get("data"))


def read_attributes(envelope: Envelope) -> RequestAttributes:
    """Return the validated attributes.

    Raises:
        InvalidEnvelope: an attribute is missing or wrong; names the first such. A deadline that is
            misspelt as CloudEvents allows no attribute to be spelt is wrong, too.
    """
    for name in envelope.raw.keys() & _MISSPELT_DEADLINES:
        raise InvalidEnvelope(f"{name}: no such attribute; write deadlinems", field=name)
    try:
        attributes = RequestAttributes.model_validate(envelope.raw)
    except ValidationError as error:
        field, problem = _first_problem(error)
        raise InvalidEnvelope(problem, field=field) from None
    if envelope.data is None:
        raise InvalidEnvelope("data: Field required", field="data")
    return attributes


def read_data(model: type[P], data: Any) -> P:
    """Return the validated `data` of a request or an event.

    Raises:
        InvalidField: a field is missing, wrong or unknown; names the first such.
    """
    if not isinstance(data, dict):
        raise InvalidField(
            f"data: is a JSON {_json_type(data)}, wanted a JSON object", field="data"
        )
    known = model.__pydantic_fields__
    for name in data:  # pydantic would build an error of each: 0.4 s for 1 MiB of unknown fields
        if name not in known:
            field = f"data.{name[:_SHOWN_CHARS]}"
            raise InvalidField(f"{field}: no such field; there are {', '.join(known)}", field=field)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        field, problem = _first_problem(error, "data")
        raise InvalidField(problem, field=field) from None


def _first_problem(error: ValidationError, root: str = "") -> tuple[str, str]:
    """Return the path of the first wrong field, as `data.texts[3]`, and what is wrong with it."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = root
    for part in first["loc"]:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else str(part)
    return field, f"{field}: {first['msg']}"


def readable_id(
    value: bytes | None, source: RecordSource, envelope: Envelope | None
) -> tuple[str | None, str | None]:
    """Return the request id and source of a record that is refused, as far as they can be read.

    Where the JSON cannot be decoded, an id that comes first, or after other plain strings, is
    still found, unless a second `"id"` makes it doubtful; so put `id` first.
    """
    raw = envelope.raw if envelope is not None else binary_attributes(source)
    if raw is not None:
        return _identifier(raw.get("id")), _identifier(raw.get("source"))
    if value is None or value.count(b'"id"') != 1:
        return None, None
    match = _LEADING_ID.match(value[:_LEADING_BYTES])
    if match is None:
        return None, None
    return _identifier(match.group(1).decode(errors="replace")), None


def binary_attributes(source: RecordSource) -> dict[str, Any] | None:
    """Return the attributes of a binary-mode CloudEvent, or None for a structured one.

    Headers are bytes; a header that is not UTF-8 is left out, so that its absence is reported.
    """
    attributes: dict[str, Any] = {}
    for name, data in source.headers:
        if name.startswith("ce_") and data is not None:
            try:
                attributes[name[3:]] = data.decode()
            except UnicodeDecodeError:
                continue
    if "id" not in attributes and "type" not in attributes:
        return None
    budget = attributes.get("deadlinems")
    if isinstance(budget, str) and budget.isascii() and budget.isdigit():
        attributes["deadlinems"] = int(budget[:20])
    return attributes


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep the collector from running over and over: 1 MiB of small lists took 150 ms, not 15.

    It always runs again afterwards: whether it ran before may be the doing of another thread here.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _loads(value: bytes) -> Any:
    try:
        if len(value) < _MANY_OBJECTS_BYTES:
            return orjson.loads(value)
        with _no_garbage_collection():
            return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        if "depth limit" in str(error):
            raise TooDeep("the JSON is nested more than 1000 levels deep") from None
        raise InvalidJson(f"the value is not JSON in UTF-8: {error}") from None


def _check_depth(value: bytes, *, max_depth: int) -> None:
    """Refuse what is nested too deep. `value` is valid JSON.

    Works on the bytes, in a few passes of C code: walking 350,000 tiny lists takes 30 ms.
    """
    if value.count(b"[") + value.count(b"{") <= max_depth:
        return
    # What is left without `\\`, then without `\"`, has quotes around strings and nowhere else.
    unescaped = value.replace(rb"\\", b"").replace(rb"\"", b"")
    outside_strings = b"".join(unescaped.split(b'"')[::2])
    brackets = outside_strings.translate(_ONE_KIND_OF_BRACKET, _NO_BRACKETS)
    for _ in range(max_depth):
        brackets = brackets.replace(b"[]", b"")  # the innermost level
    if brackets:
        raise TooDeep(f"the JSON is nested more than {max_depth} levels deep")


def _check_unique_keys(value: bytes) -> None:
    """Refuse an object that says twice what it asks: readers would disagree on which counts."""
    if b"\\u" not in value and all(value.count(quoted) < 2 for quoted in _QUOTED_KEYS):  # noqa: PLR2004
        return
    names = _top_level_keys(value)
    for key in UNIQUE_KEYS:
        if names.count(key) > 1:
            raise DuplicateKey(f"the key {key!r} stands {names.count(key)} times", field=key)


def _top_level_keys(value: bytes) -> list[str]:
    """Return the keys of the outermost object, repeated ones too. `value` is a JSON object."""
    names: list[str] = []

    def remember(pairs: list[tuple[str, object]]) -> None:
        names[:] = [name for name, _ in pairs]

    with _no_garbage_collection():
        json.loads(value, object_pairs_hook=remember)  # the outermost object comes last
    return names


def _identifier(value: object) -> str | None:
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else None


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
    return names.get(type(value), "value")
