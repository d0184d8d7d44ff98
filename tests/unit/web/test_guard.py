"""Who may read the pages."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr, ValidationError

from cortex_stream.settings.sections import WebSettings
from cortex_stream.web.pages import build_app, routes
from cortex_stream.web.status import StatusSnapshot
from tests.unit.web import snapshots

_LOOPBACK = WebSettings()
_OPEN = WebSettings(host="0.0.0.0", token=SecretStr("s3cret-tökén"))  # noqa: S104
_PROBES = {"/livez", "/readyz"}
_PATHS = [route.path for route in routes(snapshots.fresh(), _LOOPBACK)]

Client = TestClient[web.Request, web.Application]


@asynccontextmanager
async def _serving(
    settings: WebSettings, source: snapshots.FixedSource | None = None
) -> AsyncIterator[Client]:
    app = build_app(source or snapshots.fresh(), settings)
    async with TestClient(TestServer(app)) as client:
        yield client


async def _code(response: ClientResponse) -> str:
    body: Mapping[str, Mapping[str, str]] = await response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    return body["error"]["code"]


@pytest.mark.parametrize("path", _PATHS)
@pytest.mark.parametrize("host", ["127.0.0.1:6066", "localhost", "LOCALHOST:1", "[::1]:6066"])
async def test_this_machine_reads_every_page_without_a_token(path: str, host: str) -> None:
    async with _serving(_LOOPBACK) as client:
        response = await client.get(path, headers={"Host": host})

        assert response.status == 200


@pytest.mark.parametrize("path", _PATHS)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:6066",
        "user@127.0.0.1",
        "127.0.0.1:6066@evil.example",
        "127.0.0.2",
        "0.0.0.0",  # noqa: S104
        "::1",
        "",
    ],
)
async def test_a_name_that_was_rebound_to_this_machine_is_refused(path: str, host: str) -> None:
    async with _serving(_LOOPBACK) as client:
        response = await client.get(path, headers={"Host": host})

        assert response.status == 421
        assert await _code(response) == "wrong_host"


@pytest.mark.parametrize("path", [path for path in _PATHS if path not in _PROBES])
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer s3cret",
        "Bearer s3cret-tökén2",
        "Basic s3cret-tökén",
        "s3cret-tökén",
        "Bearer \udcff\udcfe",
    ],
)
async def test_elsewhere_a_page_needs_the_token(path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with _serving(_OPEN) as client:
        response = await client.get(path, headers=_sendable(headers))

        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert await _code(response) == "token_needed"


@pytest.mark.parametrize("path", _PATHS)
async def test_the_token_opens_every_page_under_any_name(path: str) -> None:
    headers = {"Authorization": "bearer s3cret-tökén", "Host": "worker-0.internal:6066"}
    async with _serving(_OPEN) as client:
        response = await client.get(path, headers=headers)

        assert response.status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "worker-0"])  # noqa: S104
def test_listening_elsewhere_without_a_token_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="CORTEX_WEB__TOKEN"):
        WebSettings(host=host)


async def test_an_empty_token_opens_nothing() -> None:
    settings = WebSettings(host="0.0.0.0", token=SecretStr(""))  # noqa: S104
    async with _serving(settings) as client:
        response = await client.get("/", headers={"Authorization": "Bearer "})

        assert response.status == 401


@pytest.mark.parametrize("path", sorted(_PROBES))
async def test_probes_need_no_token(path: str) -> None:
    async with _serving(_OPEN) as client:
        response = await client.get(path)

        assert response.status == 200


@pytest.mark.parametrize("path", _PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_nothing_but_reading_is_allowed(path: str, method: str) -> None:
    async with _serving(_LOOPBACK) as client:
        response = await client.request(method, path, headers={"Origin": "https://evil.example"})

        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("path", _PATHS)
async def test_head_answers_without_a_body(path: str) -> None:
    async with _serving(_LOOPBACK) as client:
        response = await client.head(path)

        assert response.status == 200
        assert await response.read() == b""


@pytest.mark.parametrize("path", _PATHS)
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
async def test_every_answer_and_every_refusal_is_locked_down(path: str, host: str) -> None:
    async with _serving(_LOOPBACK) as client:
        response = await client.get(path, headers={"Host": host})

        headers = response.headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"] == "cortex-stream"


async def test_a_page_that_fails_says_so_without_saying_why() -> None:
    class Broken(snapshots.FixedSource):
        def snapshot(self) -> StatusSnapshot:
            raise RuntimeError("postgres://u:pw@db is away")

    fresh = snapshots.fresh()
    async with _serving(_LOOPBACK, Broken(fresh.status, fresh.is_ready)) as client:
        response = await client.get("/status.json")

        assert response.status == 500
        assert "postgres" not in await response.text()
        assert await _code(response) == "internal"


def _sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Return `headers` as a client can send them: lone surrogates stand for raw bytes."""
    return {
        k: v.encode("utf-8", "surrogateescape").decode("latin-1") if "\udcff" in v else v
        for k, v in headers.items()
    }
