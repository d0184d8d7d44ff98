"""Who may change something through a page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from cortex_stream.settings.sections import WebSettings
from cortex_stream.web.guard import Form, FormActions, guarded

TOKEN = "s3cret-tökén"  # noqa: S105
HERE = WebSettings(token=SecretStr(TOKEN))
ELSEWHERE = WebSettings(host="0.0.0.0", token=SecretStr(TOKEN))  # noqa: S104
FILLED_IN = {"token": TOKEN, "payload": "x"}

Client = TestClient[web.Request, web.Application]


class Page:
    """A page with a form that remembers what it was made to do."""

    def __init__(self) -> None:
        self.done: list[dict[str, str]] = []

    async def show(self, _: web.Request) -> web.Response:
        return web.Response(text="the form")

    async def carry_out(self, _: web.Request, form: Form) -> web.Response:
        self.done.append(dict(form))
        return web.Response(text="done")

    async def show_again(
        self, _: web.Request, form: Form, problem: str, status: int
    ) -> web.Response:
        return web.Response(text=f"{problem} {form.get('payload')}", status=status)


@asynccontextmanager
async def serving(settings: WebSettings) -> AsyncIterator[tuple[Client, Page]]:
    page = Page()
    form = FormActions(carry_out=page.carry_out, show_again=page.show_again)
    app = web.Application()
    app.add_routes([web.route("*", "/form", guarded(page.show, settings, form=form))])
    async with TestClient(TestServer(app)) as client:
        yield client, page


async def test_who_knows_the_token_changes_things_and_the_handler_never_sees_it() -> None:
    async with serving(HERE) as (client, page):
        in_the_form = await client.post("/form", data=FILLED_IN)
        as_bearer = await client.post(
            "/form",
            data={"payload": "y"},
            headers={"Authorization": f"Bearer {TOKEN}"},
        )

        assert (in_the_form.status, as_bearer.status) == (200, 200)
        assert page.done == [{"payload": "x"}, {"payload": "y"}]


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x"])
async def test_without_the_token_the_form_is_shown_again_as_it_was_filled_in(token: str) -> None:
    async with serving(HERE) as (client, page):
        response = await client.post("/form", data={"token": token, "payload": "my edits"})

        assert response.status == 401
        assert "my edits" in await response.text()
        assert page.done == []


@pytest.mark.parametrize("settings", [WebSettings(), WebSettings(token=SecretStr(""))])
async def test_where_no_token_is_set_nothing_can_be_changed_and_the_setting_is_named(
    settings: WebSettings,
) -> None:
    async with serving(settings) as (client, page):
        response = await client.post("/form", data={"token": "", "payload": "x"})

        assert response.status == 403
        assert "CORTEX_WEB__TOKEN" in await response.text()
        assert page.done == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
async def test_a_form_of_another_site_is_refused_even_with_the_token(
    headers: dict[str, str],
) -> None:
    async with serving(HERE) as (client, page):
        response = await client.post("/form", data=FILLED_IN, headers=headers)

        assert response.status == 403
        assert page.done == []


async def test_a_form_of_this_site_is_taken() -> None:
    async with serving(HERE) as (client, page):
        address = client.make_url("/")
        headers = {"Origin": f"http://{address.authority}", "Sec-Fetch-Site": "same-origin"}
        response = await client.post("/form", data=FILLED_IN, headers=headers)

        assert response.status == 200
        assert page.done == [{"payload": "x"}]


async def test_a_name_that_was_rebound_to_this_machine_is_refused() -> None:
    async with serving(HERE) as (client, page):
        headers = {"Host": "evil.example", "Origin": "http://evil.example"}
        response = await client.post("/form", data=FILLED_IN, headers=headers)

        assert response.status == 421
        assert page.done == []


async def test_elsewhere_even_the_form_needs_the_bearer_token() -> None:
    async with serving(ELSEWHERE) as (client, page):
        response = await client.post("/form", data=FILLED_IN)

        assert response.status == 401
        assert page.done == []


async def test_what_is_no_form_or_too_large_is_refused() -> None:
    async with serving(HERE) as (client, page):
        as_json = await client.post("/form", json=FILLED_IN)
        large = await client.post(
            "/form",
            data=BytesIO(b"payload=" + b"x" * (2 << 20)),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )

        assert (as_json.status, large.status) == (415, 413)
        assert "as a form the payload may have 1 MiB" in await large.text()
        assert page.done == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_only_a_post_carries_a_form(method: str) -> None:
    async with serving(HERE) as (client, page):
        response = await client.request(method, "/form", data=FILLED_IN)

        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD, POST"
        assert page.done == []


async def test_reading_the_page_of_a_form_changes_nothing() -> None:
    async with serving(HERE) as (client, page):
        response = await client.get("/form", params=FILLED_IN)

        assert await response.text() == "the form"
        assert page.done == []
