"""The pages: status for people, the same as JSON, two probes, and metrics.

The status page is whole HTML from here: no script, nothing from elsewhere. It renews itself with a
`<meta>` refresh, which `/?pause` leaves out.
"""

from datetime import UTC, datetime
from typing import Final

import jinja2
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from cortex_stream.settings.sections import WebSettings
from cortex_stream.telemetry.metrics import REGISTRY
from cortex_stream.web import figures
from cortex_stream.web.guard import guarded, json_response
from cortex_stream.web.html import Style, environment
from cortex_stream.web.status import DedupeStatus, StatusSnapshot, StatusSource
from schemas.outcomes import OutcomeKind

_REFRESH_S: Final = 5
_STYLE: Final = Style.of("status.css")
_OUTCOME_WORDS: Final = {
    OutcomeKind.RESULT: "results",
    OutcomeKind.REJECTED: "rejected",
    OutcomeKind.EXPIRED: "expired",
    OutcomeKind.DEAD_LETTER: "dead letters",
}


def routes(source: StatusSource, settings: WebSettings) -> list[web.RouteDef]:
    """Return every page, guarded, ready for `app.add_routes`. All methods arrive at the guard."""
    page = environment().get_template("status.html")

    async def status_page(request: web.Request) -> web.Response:
        return _STYLE.response(_render(page, source, paused="pause" in request.query))

    async def status_json(_: web.Request) -> web.Response:
        return json_response(source.snapshot())

    async def livez(_: web.Request) -> web.Response:
        live = source.live()
        return json_response({"live": live}, status=200 if live else 503)

    async def readyz(_: web.Request) -> web.Response:
        readiness = source.readiness()
        return json_response(readiness, status=200 if readiness.ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=generate_latest(REGISTRY), headers=headers)

    return [
        web.route("*", "/", guarded(status_page, settings)),
        web.route("*", "/status.json", guarded(status_json, settings)),
        web.route("*", "/metrics", guarded(metrics, settings)),
        web.route("*", "/livez", guarded(livez, settings, probe=True)),
        web.route("*", "/readyz", guarded(readyz, settings, probe=True)),
    ]


def build_app(source: StatusSource, settings: WebSettings) -> web.Application:
    """Return an application of these pages alone, for a process without Faust."""
    app = web.Application()
    app.add_routes(routes(source, settings))
    return app


def _render(page: jinja2.Template, source: StatusSource, *, paused: bool) -> str:
    snapshot = source.snapshot()
    service = snapshot.service
    title, subtitle = figures.headline(snapshot)
    return page.render(
        snapshot=snapshot,
        service=service,
        headline=title,
        subtitle=subtitle,
        reasons=source.readiness().reasons,
        started=_utc(service.started_unix_ms),
        outcomes=_outcomes(snapshot),
        topics=figures.by_topic(snapshot.partitions),
        errors=[
            (error, _utc(error.at_unix_ms), _age_s(snapshot, error.at_unix_ms))
            for error in snapshot.errors
        ],
        dedupe_off_since=_off_since(snapshot.dedupe),
        share=figures.share,
        refresh_s=None if paused else _REFRESH_S,
        css=_STYLE.css,
    )


def _outcomes(snapshot: StatusSnapshot) -> list[tuple[str, str, int, float, float]]:
    """Return (class, word, count, share, sum of the shares before it) of each kind."""
    total = sum(snapshot.outcomes.values())
    rows, before = [], 0.0
    for kind, word in _OUTCOME_WORDS.items():
        number = snapshot.outcomes.get(kind, 0)
        part = figures.share(number, total)
        rows.append((kind.value, word, number, part, before))
        before += part
    return rows


def _age_s(snapshot: StatusSnapshot, at_unix_ms: int) -> float:
    now_ms = snapshot.service.started_unix_ms + snapshot.service.uptime_s * 1000
    return max(0.0, (now_ms - at_unix_ms) / 1000)


def _off_since(dedupe: DedupeStatus | None) -> str:
    since_unix_ms = None if dedupe is None else dedupe.off_since_unix_ms
    return "" if since_unix_ms is None else f" since {_utc(since_unix_ms)}"


def _utc(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
