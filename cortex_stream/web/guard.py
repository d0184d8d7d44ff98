"""Who may read a page, and what a browser may do with it.

Every handler is wrapped on its own, because Faust owns the application and its middlewares.

- GET and HEAD change nothing. A page with a form also takes a POST; that needs the token everywhere,
  on loopback too, in the form or as a bearer token, and must come from this very server.
- On loopback the `Host` header must name this machine, so that a web site whose name was re-bound
  to 127.0.0.1 cannot read the pages through its visitor's browser.
- Elsewhere a bearer token is demanded for everything but the two probes.
"""

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import orjson
import structlog
from aiohttp import hdrs, web

from cortex_stream.settings.sections import WebSettings

Handler = Callable[[web.Request], Awaitable[web.Response]]
Form = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FormActions:
    """What a POST does.

    Attributes:
        carry_out: called only for who knows the token.
        show_again: called with what is wrong, and the status of the answer, instead; shows the form
            as it was filled in, as far as it could be read.
    """

    carry_out: Callable[[web.Request, Form], Awaitable[web.Response]]
    show_again: Callable[[web.Request, Form, str, int], Awaitable[web.Response]]


TOKEN_FIELD: Final = "token"  # noqa: S105 (the name of a field)

_LOOPBACK_HOST: Final = re.compile(
    r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE
)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "cortex-stream",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_TOO_LARGE: Final = (
    "Nothing was sent: as a form the payload may have 1 MiB, in which a line break or a letter such as"
    " é takes six bytes. Your browser's way back leads to what you wrote; from a terminal there is no"
    " such limit."
)
_log: Final = structlog.stdlib.get_logger(__name__)


def guarded(
    handler: Handler,
    settings: WebSettings,
    *,
    probe: bool = False,
    form: FormActions | None = None,
) -> Handler:
    """Return `handler` behind the rules above; a `probe` is answered without a token.

    A POST goes to `form`; without one it is refused.

    Every answer carries the protective headers, where the handler has not set a stricter or wider
    one itself. A handler that raises is logged and answered 500 without a word about why.
    """

    async def answer(request: web.Request) -> web.Response:
        response = _refusal(request, settings, probe=probe, takes_forms=form is not None)
        if response is None:
            try:
                if form is not None and request.method == hdrs.METH_POST:
                    response = await _post(request, settings, form)
                else:
                    response = await handler(request)
            except Exception:  # noqa: BLE001 (the edge of the process; it is logged)
                _log.exception("page.failed", path=request.path)
                response = error_response(500, "internal", "This page failed; the log says why.")
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return answer


def json_response(body: object, *, status: int = 200) -> web.Response:
    """Answer with `body` as JSON; dataclasses and enum keys are understood."""
    return web.Response(
        body=orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS),
        status=status,
        content_type="application/json",
        charset="utf-8",
    )


def error_response(status: int, code: str, message: str) -> web.Response:
    """Answer with the one shape that every refusal has."""
    return json_response({"error": {"code": code, "message": message}}, status=status)


def _refusal(
    request: web.Request, settings: WebSettings, *, probe: bool, takes_forms: bool
) -> web.Response | None:
    allowed = ("GET", "HEAD", "POST") if takes_forms else ("GET", "HEAD")
    if request.method not in allowed:
        refusal = error_response(405, "method_not_allowed", "These pages are read only: use GET.")
        refusal.headers[hdrs.ALLOW] = ", ".join(allowed)
        return refusal
    if settings.loopback:
        # Not request.host: without the header that is this machine's own name.
        if not _LOOPBACK_HOST.fullmatch(request.headers.get(hdrs.HOST, "")):
            return error_response(
                421, "wrong_host", "Open this page as 127.0.0.1, localhost or [::1]."
            )
        return None
    if probe or _knows_token(request, settings):
        return None
    refusal = error_response(
        401, "token_needed", "Send the header: Authorization: Bearer <CORTEX_WEB__TOKEN>."
    )
    refusal.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    return refusal


def _knows_token(request: web.Request, settings: WebSettings) -> bool:
    scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return scheme.lower() == "bearer" and _is_token(given, settings)


def _is_token(given: str, settings: WebSettings) -> bool:
    wanted = "" if settings.token is None else settings.token.get_secret_value()
    # An empty token would open everything to `Authorization: Bearer `.
    return bool(wanted) and hmac.compare_digest(
        given.encode("utf-8", "surrogateescape"), wanted.encode()
    )


async def _post(request: web.Request, settings: WebSettings, form: FormActions) -> web.Response:
    """Answer a POST that may read this page: from here, small, and by who knows the token."""
    if not _from_here(request):
        return error_response(403, "wrong_origin", "Send the form from the page that shows it.")
    if settings.token is None or not settings.token.get_secret_value():
        return error_response(
            403, "token_unset", "Changes need a token: set CORTEX_WEB__TOKEN and start again."
        )
    if request.content_type != "application/x-www-form-urlencoded":
        return error_response(415, "not_a_form", "Send application/x-www-form-urlencoded.")
    try:
        posted = await request.post()
    except web.HTTPRequestEntityTooLarge:
        return await form.show_again(request, {}, _TOO_LARGE, 413)
    fields = {name: value for name, value in posted.items() if isinstance(value, str)}
    given = fields.pop(TOKEN_FIELD, "")
    if _is_token(given, settings) or _knows_token(request, settings):
        return await form.carry_out(request, fields)
    return await form.show_again(
        request, fields, "This is not the token of CORTEX_WEB__TOKEN.", 401
    )


def _from_here(request: web.Request) -> bool:
    """Tell whether a browser sent the form from a page of this server, or no browser did."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return False
    origin = request.headers.get(hdrs.ORIGIN)
    return origin is None or origin.partition("://")[2].lower() == request.host.lower()
