"""Who may read a page, and what a browser may do with it.

Every handler is wrapped on its own, because Faust owns the application and its middlewares.

- Only GET and HEAD: nothing here changes state.
- On loopback the `Host` header must name this machine, so that a web site whose name was re-bound
  to 127.0.0.1 cannot read the pages through its visitor's browser.
- Elsewhere a bearer token is demanded for everything but the two probes.
"""

import hmac
import re
from collections.abc import Awaitable, Callable
from typing import Final

import orjson
import structlog
from aiohttp import hdrs, web

from cortex_stream.settings.sections import WebSettings

Handler = Callable[[web.Request], Awaitable[web.Response]]

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
_log: Final = structlog.stdlib.get_logger(__name__)


def guarded(handler: Handler, settings: WebSettings, *, probe: bool = False) -> Handler:
    """Return `handler` behind the rules above; a `probe` is answered without a token.

    Every answer carries the protective headers, where the handler has not set a stricter or wider
    one itself. A handler that raises is logged and answered 500 without a word about why.
    """

    async def answer(request: web.Request) -> web.Response:
        response = _refusal(request, settings, probe=probe)
        if response is None:
            try:
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


def _refusal(request: web.Request, settings: WebSettings, *, probe: bool) -> web.Response | None:
    if request.method not in {hdrs.METH_GET, hdrs.METH_HEAD}:
        refusal = error_response(405, "method_not_allowed", "These pages are read only: use GET.")
        refusal.headers[hdrs.ALLOW] = "GET, HEAD"
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
    if scheme.lower() != "bearer" or settings.token is None:
        return False
    wanted = settings.token.get_secret_value().encode()
    # An empty token would open everything to `Authorization: Bearer `.
    return bool(wanted) and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted)
