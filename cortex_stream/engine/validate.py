"""From attributes and data to a request: types, limits, sanitised texts."""

import hashlib
import re
import unicodedata
from typing import Any, Final

import orjson

from cortex_stream.engine.parse import read_data
from cortex_stream.errors import InvalidField, LimitExceeded
from cortex_stream.routing.request import Request
from cortex_stream.routing.route import unknown_type
from cortex_stream.settings.sections import LimitsSettings
from schemas.requests import DATA_BY_TYPE, ClassifyData, RequestAttributes, RequestData

_CONTROL: Final = re.compile(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""C0 and C1 control characters but tab, newline and carriage return; NUL is refused before."""

_MARKS: Final = re.compile(r"[^\w\s\x00-\x7f]{31,}")
"""Where more than 30 combining marks may follow each other: none of them is a \\w or \\s."""
_MAX_MARKS: Final = 30
_MARKS_OF_CLASS_0: Final = "\u0f73\u0f75\u0f81"  # that decompose to marks nevertheless
_JOINER: Final = "\u034f"

MAX_UTF8_BYTES: Final = 4


def validate(attributes: RequestAttributes, data: Any, *, limits: LimitsSettings) -> Request:
    """Return the request that `attributes` ask for with `data`, as it came.

    Raises:
        UnknownType: this release answers no such type.
        InvalidField: a field of `data` is missing, wrong, or has a NUL character.
        LimitExceeded: more or longer texts than allowed.
    """
    model = DATA_BY_TYPE.get(attributes.type)
    if model is None:
        raise unknown_type(attributes.type)
    payload = read_data(model, data)
    _check_limits(payload, limits)
    return Request(
        attributes=attributes,
        data=_sanitised(payload),
        payload_digest=payload_digest(attributes.type, data),
    )


def payload_digest(request_type: str, data: Any) -> bytes:
    """Return the sha256 of what is asked, the same for any spelling of the same JSON."""
    digest = hashlib.sha256(request_type.encode())
    digest.update(b"\0")
    digest.update(orjson.dumps(data, option=orjson.OPT_SORT_KEYS))
    return digest.digest()


def sanitise(text: str, *, field: str) -> str:
    """Return `text` in Unicode NFC, with control characters as spaces.

    Tab, newline and carriage return stay.

    Raises:
        InvalidField: the text has a NUL character, which no text means.
    """
    if "\x00" in text:
        raise InvalidField(f"{field}: has a NUL character at {text.index(chr(0))}", field=field)
    if not text.isascii():
        text = unicodedata.normalize("NFC", _MARKS.sub(_joined, text))
    return _CONTROL.sub(" ", text)


def _joined(marks: re.Match[str]) -> str:
    """Return `marks` with an invisible joiner after 30 in a row.

    Normalising takes time with the square of a run's length: 13 s for 1 MiB of marks.

    Source: Unicode Standard Annex 15, section 13, "Stream-Safe Text Format".
    """
    joined: list[str] = []
    run = 0
    for char in marks.group():
        run = run + 1 if unicodedata.combining(char) or char in _MARKS_OF_CLASS_0 else 0
        if run > _MAX_MARKS:
            joined.append(_JOINER)
            run = 1
        joined.append(char)
    return "".join(joined)


def _check_limits(data: RequestData, limits: LimitsSettings) -> None:
    if len(data.texts) > limits.texts:
        raise LimitExceeded(
            f"data.texts: {len(data.texts)} texts, a request may have {limits.texts};"
            " send them in several requests",
            field="data.texts",
        )
    for index, text in enumerate(data.texts):
        _check_length(text, f"data.texts[{index}]", limits)
    if isinstance(data, ClassifyData) and data.labels is not None:
        if len(data.labels) > limits.labels:
            raise LimitExceeded(
                f"data.labels: {len(data.labels)} labels, a request may have {limits.labels}",
                field="data.labels",
            )
        for index, label in enumerate(data.labels):
            _check_length(label, f"data.labels[{index}]", limits)


def _check_length(text: str, field: str, limits: LimitsSettings) -> None:
    if len(text) * MAX_UTF8_BYTES <= limits.text_bytes:
        return
    size_bytes = len(text.encode())
    if size_bytes > limits.text_bytes:
        raise LimitExceeded(
            f"{field}: {size_bytes} bytes, a text may have {limits.text_bytes}; split it",
            field=field,
        )


def _sanitised(data: RequestData) -> RequestData:
    texts = [sanitise(text, field=f"data.texts[{index}]") for index, text in enumerate(data.texts)]
    if isinstance(data, ClassifyData) and data.labels is not None:
        return data.model_copy(update={"texts": texts, "labels": _sanitised_labels(data.labels)})
    return data if texts == data.texts else data.model_copy(update={"texts": texts})


def _sanitised_labels(labels: list[str]) -> list[str]:
    sanitised: list[str] = []
    for index, label in enumerate(labels):
        field = f"data.labels[{index}]"
        name = sanitise(label, field=field)
        if name in sanitised:
            raise InvalidField(f"{field}: repeats the label {name[:64]!r}", field=field)
        sanitised.append(name)
    return sanitised
