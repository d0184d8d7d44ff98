"""Makes any value fit to print: no secret in it, no line break, no terminal escape, not too long.

What is recognised as secret: the settings' own secrets wherever they appear; passwords in URLs;
`password=…` and its relatives in text; fields with such a name. What is not: a secret that
is nobody's setting, in free text, without such a name beside it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, SecretStr

from cortex_stream.settings.tree import Settings

MASK: Final = "***"
TEXT_CHARS: Final = 8192  # a traceback fits; a megabyte that somebody sent as a key does not

# A shorter literal would mask everyday words; such a password is found by name or URL only.
_MIN_SECRET_CHARS: Final = 4
_NAME: Final = r"(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|credentials?)"
_SECRET_NAME: Final = re.compile(rf"(?:{_NAME}|authorization)$", re.IGNORECASE)
_URL_CREDENTIALS: Final = re.compile(r"://[^\s/]*@")
_BEARER: Final = re.compile(r"\b(bearer)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_AUTHORIZATION: Final = re.compile(
    r"(authorization[\"']?\s*[=:]\s*[\"']?(?:\w+\s+)?)[^\s\"',;]+", re.IGNORECASE
)
_ASSIGNED: Final = re.compile(
    rf"({_NAME}[\"']?\s*[=:]\s*)(?:\"[^\"]*\"|'[^']*'|[^\s\"',;&)\]}}]+)", re.IGNORECASE
)
# C0, DEL, C1, line and paragraph separators, direction overrides, lone surrogates.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class Redactor:
    """Knows the secrets of one settings tree. Immutable, hence usable from every thread."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {v for s in secrets if len(s) >= _MIN_SECRET_CHARS for v in _spellings(s)}
        longest_first = sorted(known, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if known else None

    def text(self, text: str) -> str:
        """Return `text` without secrets, and without its middle if it is longer than TEXT_CHARS."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        text = _cut(text)
        text = _URL_CREDENTIALS.sub(f"://{MASK}@", text)
        text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
        text = _BEARER.sub(rf"\1 {MASK}", text)
        return _ASSIGNED.sub(rf"\1{MASK}", text)

    def value(self, value: Any) -> Any:
        """Return `value` as JSON-like data without secrets; unknown objects become their `repr`."""
        match value:
            case float() if not isfinite(value):
                return repr(value)  # JSON has no word for it
            case None | bool() | int() | float():
                return value
            case str():
                return self.text(value)
            case Mapping():
                return {self.text(str(k)): self.field(str(k), v) for k, v in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self.value(item) for item in value]
            case _:
                return self.text(repr(value))

    def field(self, name: str, value: Any) -> Any:
        """Return the `value` of a field: masked whole when its `name` says that it is secret."""
        return MASK if _SECRET_NAME.search(name) else self.value(value)


def escape_unprintable(text: str) -> str:
    r"""Return `text` with control and direction characters spelt out as `\u000a`.

    That is JSON's own spelling, so a line of JSON stays JSON.
    """
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def secrets_of(settings: Settings) -> Iterator[str]:
    """Yield every secret of the tree: whole values, and the passwords inside URLs."""
    security = settings.kafka.security
    if security.password_file is not None and security.password_file.is_file():
        yield security.sasl_password()
    for text in _secret_values(settings):
        if "://" not in text:
            yield text
        elif "@" in text:
            yield text
            yield from _url_passwords(text)


def _secret_values(section: BaseModel) -> Iterator[str]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        elif isinstance(value, BaseModel):
            yield from _secret_values(value)


def _url_passwords(url: str) -> Iterator[str]:
    try:
        password = urlsplit(url).password
    except ValueError:  # not a URL that anything could use; whoever uses it will say so
        return
    if password:
        yield password
        yield unquote(password)


def _spellings(secret: str) -> set[str]:
    """Return how a secret looks inside a `repr`, in JSON and in a URL."""
    return {
        secret,
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret),
        quote(secret, safe=""),
    }


def _cut(text: str) -> str:
    if len(text) <= TEXT_CHARS:
        return text
    half = TEXT_CHARS // 2 - 16
    return f"{text[:half]} …{len(text) - 2 * half} cut… {text[-half:]}"
