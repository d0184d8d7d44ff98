"""Whole HTML pages from templates: no script, nothing from elsewhere, and a policy that says so."""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Self

import jinja2
from aiohttp import web

from cortex_stream.telemetry.redaction import escape_unprintable
from cortex_stream.web import figures


@dataclass(frozen=True, slots=True)
class Style:
    """A style sheet, which stands in the page, and the policy that allows it and no other.

    An injected tag would do nothing. Pictures may only come from the page itself.
    """

    css: str
    policy: str

    @classmethod
    def of(cls, *names: str, forms: bool = False) -> Self:
        """Return the style sheets of these names as one; `forms` may be sent to this server."""
        folder = files("cortex_stream.web") / "templates"
        css = "".join((folder / name).read_text("utf-8") for name in names)
        digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
        return cls(
            css,
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
            f"form-action '{'self' if forms else 'none'}'; frame-ancestors 'none'",
        )

    def response(self, html: str, *, status: int = 200) -> web.Response:
        """Answer with a page that was rendered with this style sheet."""
        headers = {"Content-Security-Policy": self.policy}
        return web.Response(
            text=html, status=status, content_type="text/html", charset="utf-8", headers=headers
        )


def environment() -> jinja2.Environment:
    """Return the templates, with our filters; whatever they show is escaped."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("cortex_stream.web", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: tuple[Callable[..., object], ...] = (
        figures.count,
        figures.rate,
        figures.percent,
        figures.duration,
        figures.mebibytes,
        figures.short_digest,
        figures.sparkline,
        escape_unprintable,
    )
    found.filters |= {fn.__name__: fn for fn in filters}
    return found
