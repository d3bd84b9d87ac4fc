"""Pages of other sites, in a real Chromium and as plain requests: they have nothing executed, and read nothing."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import pytest
from conftest import Databases, seconds_until, serving
from playwright.async_api import Browser, Page, async_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from graph.app import create_app
from graph.http.assets import DIST, page_routes
from graph.http.origins import Hosts, listening_hosts
from graph.settings import Settings
from graph.telemetry import CacheEvent, Observer

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    # DNS as its owner would set it; no other name exists
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
QUERY = '{ group(name: "top3") { symbols } }'
DATA = {"data": {"group": {"symbols": ["AAPL", "MSFT", "NVDA"]}}}
SECURE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
CROSS_SITE = (
    "Pages of other sites are not answered here; let those of one with `serve --cors ORIGIN`, and let them fetch with"
    " CORS."
)


def error(message: str) -> dict[str, Any]:
    return {"errors": [{"message": message, "extensions": {"code": "BAD_REQUEST"}}]}


def wrong_host(name: str) -> dict[str, Any]:
    return error(f"This server does not answer for the host {name!r}; let it with `serve --allow-host NAME`.")


@dataclass
class Seen(Observer):
    """The statuses of requests, and how often an answer was looked for: what got past the door."""

    statuses: list[int] = field(default_factory=list)
    lookups: int = 0

    def forget(self) -> None:
        self.statuses.clear()
        self.lookups = 0

    def request(self, status: int, seconds: float) -> None:
        del seconds
        self.statuses.append(status)

    def cache(self, name: str, event: CacheEvent, count: int) -> None:
        del event, count
        self.lookups += name == "responses"


@dataclass
class Site:
    """A server, and what it was asked."""

    url: str
    seen: Seen

    @property
    def get_url(self) -> str:
        return f"{self.url}/graphql?query={quote(QUERY)}"

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0


@pytest.fixture(scope="module")
async def other_port() -> AsyncIterator[int]:
    """The port of another server, which has an empty page everywhere."""

    async def page(_: Request) -> Response:
        return HTMLResponse("<!doctype html><title>other</title><link rel=icon href=data:>")

    with serving(Starlette(routes=[Route("/{path:path}", page)])) as url:
        yield urlsplit(url).port or 0


@pytest.fixture(scope="module")
async def quiet_url(databases: Databases, market_template: str) -> str:
    """A market that no test writes to."""
    return await databases.make(market_template)


@pytest.fixture(scope="module")
def closed(quiet_url: str) -> Iterator[Site]:
    seen = Seen()
    with serving(create_app(Settings(database_url=quiet_url), seen)) as url:
        yield Site(url, seen)


async def ready(site: Site) -> Site:
    """The server, once its response cache has the answer, and as if nothing had been asked."""
    async with httpx2.AsyncClient() as client:

        async def is_cached() -> bool:
            return "etag" in (await client.get(site.get_url)).headers

        await seconds_until(is_cached)
    site.seen.forget()
    return site


@pytest.fixture
async def site(closed: Site) -> Site:
    """A server as it is by default."""
    return await ready(closed)


@pytest.fixture(scope="module")
def opened(quiet_url: str, other_port: int) -> Iterator[Site]:
    seen = Seen()
    settings = Settings(database_url=quiet_url, cors=("https://dash.example", f"http://Dash.test:{other_port}"))
    with serving(create_app(settings, seen)) as url:
        yield Site(url, seen)


@pytest.fixture
async def open_site(opened: Site) -> Site:
    """A server whose owner lets the pages of two origins ask."""
    return await ready(opened)


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no page of another site was opened: no chromium, chromium-browser or google-chrome on the PATH")
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS) as running,
    ):
        yield running


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


WAYS = {
    "image": (403, "url => new Promise(end => { const it = new Image(); it.onload = it.onerror = end; it.src = url })"),
    "script": (
        403,
        (
            "url => new Promise(end => { const it = document.createElement('script'); it.onload = it.onerror = end;"
            " it.src = url; document.body.append(it) })"
        ),
    ),
    "frame": (
        403,
        (
            "url => new Promise(end => { const it = document.createElement('iframe'); it.onload = it.onerror = end;"
            " it.src = url; document.body.append(it) })"
        ),
    ),
    "fetch without CORS": (403, "url => fetch(url, {mode: 'no-cors'}).then(told => told.text(), () => '')"),
    "fetch": (403, "url => fetch(url).then(told => told.text(), () => '')"),
    "fetch that keeps its referrer": (
        403,
        "url => fetch(url, {referrerPolicy: 'unsafe-url', credentials: 'include'}).then(told => told.text(), () => '')",
    ),
    "post of text": (
        415,
        "url => fetch(url, {method: 'POST', mode: 'no-cors', body: 'BODY'}).then(told => told.text(), () => '')",
    ),
    "post of JSON": (
        405,
        (
            "url => fetch(url, {method: 'POST', headers: {'content-type': 'application/json'}, body: 'BODY'})"
            ".then(told => told.text(), () => '')"
        ),
    ),
    "beacon of JSON": (
        405,
        (
            "async url => { navigator.sendBeacon(url, new Blob(['BODY'], {type: 'application/json'}));"
            " await fetch(url, {method: 'PUT'}).catch(() => 0) }"
        ),
    ),
}


@pytest.mark.parametrize("host", ["127.0.0.1", "evil.test"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_page_of_another_site_has_nothing_executed(
    page: Page, site: Site, other_port: int, host: str, way: str
) -> None:
    status, script = WAYS[way]
    requests = 2 if "beacon" in way else 1  # and one more, which ends when that has been sent
    await page.goto(f"http://{host}:{other_port}/")
    read = await page.evaluate(script.replace("BODY", json.dumps({"query": QUERY})), site.get_url)
    assert not isinstance(read, str) or read == ""

    async def asked() -> bool:
        return len(site.seen.statuses) == requests

    await seconds_until(asked)
    assert (site.seen.statuses, site.seen.lookups) == ([status] * requests, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "evil.test"])
async def test_a_form_of_another_site_has_nothing_executed(page: Page, site: Site, other_port: int, host: str) -> None:
    await page.goto(f"http://{host}:{other_port}/")
    form = f"""<form method=post enctype=text/plain action="{site.url}/graphql">
        <input name='{json.dumps({"query": QUERY})[:-1]}, "x": "' value='"}}'><button>go</button></form>"""
    await page.set_content(form)
    await page.get_by_role("button").click()
    await page.wait_for_url("**/graphql")
    assert await page.locator("body").inner_text() == json.dumps(
        error("Send the parameters as application/json in UTF-8."), separators=(",", ":")
    )
    assert (site.seen.statuses, site.seen.lookups) == ([415], 0)


async def test_a_link_of_another_site_leads_here(page: Page, site: Site, other_port: int) -> None:
    await page.goto(f"http://evil.test:{other_port}/")
    for address, shown in ((site.get_url, json.dumps(DATA, separators=(",", ":"))), (f"{site.url}/graphql", "")):
        await page.set_content(f"<a href='{address}'>go</a>")
        async with page.expect_navigation() as navigation:
            await page.get_by_role("link").click()
        response = await navigation.value
        assert response
        assert response.status == 200
        assert not shown or await page.locator("body").inner_text() == shown
        await page.goto(f"http://evil.test:{other_port}/")


async def test_a_name_that_was_bound_to_this_address_later_reads_nothing(page: Page, site: Site) -> None:
    """A page of evil.test, once its name is that of this machine, is of one origin with the server."""
    await page.goto(f"http://evil.test:{site.port}/healthz")
    read = await page.evaluate(
        "body => fetch('/graphql', {method: 'POST', headers: {'content-type': 'application/json'}, body})"
        ".then(async told => [told.status, await told.json()])",
        json.dumps({"query": QUERY}),
    )
    assert read == [421, wrong_host(f"evil.test:{site.port}")]
    shown = await page.goto(f"http://evil.test:{site.port}/graphql")
    assert shown
    assert (shown.status, await shown.json()) == (421, wrong_host(f"evil.test:{site.port}"))
    assert site.seen.lookups == 0


FETCH = (
    "([url, body]) => fetch(url, {method: 'POST', headers: {'content-type': 'application/json'}, body})"
    ".then(told => told.json(), failure => failure.message)"
)


async def test_the_pages_of_an_origin_that_is_let_in_read_everything(
    page: Page, open_site: Site, other_port: int
) -> None:
    await page.goto(f"http://dash.test:{other_port}/")
    body = json.dumps({"query": QUERY})
    for _ in range(2):
        assert await page.evaluate(FETCH, [f"{open_site.url}/graphql", body]) == DATA
        assert await page.evaluate("url => fetch(url).then(told => told.json())", open_site.get_url) == DATA
    wrong = [f"{open_site.url}/graphql", "{}"]
    assert await page.evaluate(FETCH, wrong) == error("The parameter `query` must be the text of a GraphQL document.")
    # one preflight is enough for a while, and what the browser has still holds
    assert open_site.seen.statuses == [204, 200, 200, 200, 304, 400]
    # an image says nothing of its origin, and cannot read
    await page.evaluate(WAYS["image"][1], open_site.get_url)
    assert open_site.seen.statuses[6:] == [403]


async def test_the_pages_of_others_stay_out_where_one_is_let_in(page: Page, open_site: Site, other_port: int) -> None:
    for host in ("evil.test", "127.0.0.1", "x.dash.test"):
        await page.goto(f"http://{host}:{other_port}/")
        assert (
            await page.evaluate(FETCH, [f"{open_site.url}/graphql", json.dumps({"query": QUERY})]) == "Failed to fetch"
        )
        assert await page.evaluate(WAYS["fetch"][1], open_site.get_url) == ""
    assert open_site.seen.statuses == [405, 403] * 3
    assert open_site.seen.lookups == 0


async def test_a_preflight_names_what_is_allowed_and_no_more(open_site: Site, site: Site) -> None:
    asking = {"access-control-request-method": "POST", "access-control-request-headers": "content-type, x-secret"}
    async with httpx2.AsyncClient() as client:
        allowed = await client.options(f"{open_site.url}/graphql", headers={"origin": "https://dash.example", **asking})
        assert allowed.status_code == 204
        assert {name: text for name, text in allowed.headers.items() if name not in ("date", "server")} == {
            "vary": "origin",
            "access-control-allow-origin": "https://dash.example",
            "access-control-allow-methods": "GET, HEAD, POST",
            "access-control-allow-headers": "content-type",
            "access-control-max-age": "600",
            **SECURE,
            "content-security-policy": "frame-ancestors 'none'",
        }
        for url, origin in (
            (open_site.url, "https://dash.example:8443"),
            (open_site.url, "http://dash.example"),
            (open_site.url, "https://dash.example.evil.test"),
            (open_site.url, "null"),
            (site.url, "https://dash.example"),
            (site.url, site.url),
        ):
            refused = await client.options(f"{url}/graphql", headers={"origin": origin, **asking})
            assert refused.status_code == 405
            assert [name for name in refused.headers if name.startswith("access-control")] == []
        # a cache that has an answer for one must not give it to another
        for origin in ({}, {"origin": "https://dash.example"}):
            told = await client.get(open_site.get_url, headers=origin)
            assert (told.json(), "origin" in told.headers["vary"]) == (DATA, True)
            assert told.headers.get("access-control-allow-origin") == origin.get("origin")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "document"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": ""}, 403),
        # browsers that do not know Sec-Fetch-Site
        ({"origin": "SITE"}, 200),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "https://evil.test"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
    ],
)
async def test_a_read_is_answered_to_pages_of_this_server_and_to_programs(
    site: Site, headers: dict[str, str], status: int
) -> None:
    async with httpx2.AsyncClient() as client:
        sent = {name: text.replace("SITE", site.url) for name, text in headers.items()}
        for method in ("GET", "HEAD"):
            told = await client.request(method, site.get_url, headers=sent)
            body = json.dumps(DATA if status == 200 else error(CROSS_SITE), separators=(",", ":")).encode()
            assert (told.status_code, told.content) == (status, body if method == "GET" else b"")
        assert site.seen.lookups == (2 if status == 200 else 0)
        posted = await client.post(f"{site.url}/graphql", json={"query": QUERY}, headers=sent)
        assert (posted.status_code, posted.json()) == (200, DATA)


LOOPBACK = [b"localhost", b"LocalHost.", b"a.localhost:80", b"127.0.0.1", b"127.255.0.3:8000", b"[::1]", b"[::1]:8000"]
LOOPBACK += [b"[0:0:0:0:0:0:0:1]", b"[::ffff:127.0.0.1]", b"localhost:"]
ADDRESSES = [b"192.0.2.1", b"10.0.0.1:8000", b"[2001:db8::1]:8000", b"0.0.0.0:8000", b"[::]"]
STRANGERS = [
    b"evil.test",
    b"localhost.evil.test",
    b"evil-localhost",
    b"127.0.0.1.evil.test",
    b"127.1",
    b"2130706433",
    b"0x7f.0.0.1",
    b"evil.test:80",
    b"localhost:80x",
    b"localhost@evil.test",
    b"localhost/evil.test",
    b"localhost evil.test",
    b"localhost, evil.test",
    b"::1",
    b"[::1",
    b"\xff",
    b"",
    b"a." * 150 + b"localhost",
    b"localhost..",
]


@pytest.mark.parametrize(
    ("names", "allowed", "refused"),
    [
        ((), LOOPBACK, [*ADDRESSES, *STRANGERS]),
        (
            ("Stocks.Example.com", "192.0.2.1", "2001:DB8:0::1"),
            [*LOOPBACK, b"stocks.example.COM.:8000", b"192.0.2.1:1", b"[2001:db8::1]:8000"],
            [*STRANGERS, b"x.stocks.example.com", b"10.0.0.1:8000", b"stocks.example.com.evil.test"],
        ),
        (("0.0.0.0",), [*LOOPBACK, *ADDRESSES], STRANGERS),
        (("::",), [*LOOPBACK, *ADDRESSES], STRANGERS),
        (("*",), [*LOOPBACK, *ADDRESSES, b"evil.test:8000"], [b"", b"localhost, evil.test", b"\xff"]),
    ],
)
def test_hosts(names: tuple[str, ...], allowed: list[bytes], refused: list[bytes]) -> None:
    hosts = Hosts(names)
    for _ in range(2):
        assert [host for host in allowed if not hosts[host]] == []
        assert [host for host in refused if hosts[host]] == []
    assert hosts.keys() == set(allowed)


def test_hosts_that_were_looked_into_are_bounded() -> None:
    hosts = Hosts(())
    assert all(hosts[b"a%d.localhost" % number] for number in range(5_000))
    assert len(hosts) <= 1_000


def test_who_listens_on_more_than_loopback_is_asked_by_address_and_by_the_name_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Desk.example.com")
    for address in ("127.0.0.1", "127.0.0.2", "localhost", "::1"):
        assert listening_hosts(address) == ()
    assert listening_hosts("0.0.0.0") == ("0.0.0.0", "Desk.example.com", "Desk")
    assert listening_hosts("192.0.2.1") == ("0.0.0.0", "192.0.2.1", "Desk.example.com", "Desk")
    hosts = Hosts(listening_hosts("::"))
    asked = (b"localhost:8000", b"desk:8000", b"desk.example.com", b"10.1.2.3", b"example.com", b"desk.evil.test")
    assert [hosts[host] for host in asked] == [True, True, True, True, False, False]


async def raw(site: Site, target: str, *lines: str, method: str = "GET", version: str = "1.1") -> tuple[int, str, str]:
    """Send a request as it is; status, head and body of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write("\r\n".join((f"{method} {target} HTTP/{version}", *lines, "connection: close", "", "")).encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), head, body


async def test_the_host_is_the_one_of_the_header_alone(site: Site) -> None:
    path = f"/graphql?query={quote(QUERY)}"
    absolute = f"http://localhost{path}"
    one = error("A request must have exactly one header Host.")
    evil = wrong_host("evil.test")
    for target, lines, version, expected in (
        (path, ("host: localhost",), "1.1", (200, DATA)),
        (path, ("host: evil.test",), "1.1", (421, evil)),
        (path, ("host: evil.test", "x-forwarded-host: localhost", "forwarded: host=localhost"), "1.1", (421, evil)),
        (path, ("host: localhost", "x-forwarded-host: evil.test"), "1.1", (200, DATA)),
        (absolute, ("host: localhost",), "1.1", (200, DATA)),
        (absolute, ("host: evil.test",), "1.1", (421, evil)),
        (path, ("host: localhost", "host: localhost"), "1.1", (400, one)),
        (path, ("host: localhost", "host: evil.test"), "1.1", (400, one)),
        (path, (), "1.1", (400, one)),
        (path, (), "1.0", (400, error("A request must have one Host header, with the name that it asks."))),
    ):
        status, _, body = await raw(site, target, *lines, version=version)
        assert (status, json.loads(body)) == expected
    # what an orchestrator asks, by whatever name
    for health in ("/healthz", "/readyz"):
        for line in ("host: evil.test", "host: 10.0.0.1:8000", "x: a"):
            assert (await raw(site, health, line, version="1.0"))[0] == 200
    for target in ("/", "/graphql/", "/graphql/assets/x.js", "/elsewhere"):
        for method in ("GET", "POST"):
            status, _, body = await raw(site, target, "host: evil.test", method=method)
            assert (status, json.loads(body)) == (421, evil)


async def test_a_slash_too_many_is_redirected_without_a_host(site: Site, page: Page) -> None:
    for method in ("GET", "POST"):
        for query in ("", "?query=%7Ba%7D"):
            status, head, _ = await raw(site, f"/graphql/{query}", "host: localhost", method=method)
            location = next(line for line in head.split("\r\n") if line.lower().startswith("location:"))
            assert (status, location) == (307, f"location: ../graphql{query}")
    shown = await page.goto(f"{site.url}/graphql/")
    assert (shown and shown.status, page.url) == (200, f"{site.url}/graphql")
    assert (await raw(site, "/healthz/", "host: localhost"))[0] == 404


async def test_every_answer_has_the_headers_that_keep_others_out(quiet_url: str) -> None:
    async def broken(_: Request) -> Response:
        raise LookupError

    app = create_app(Settings(database_url=quiet_url))
    app.router.routes.append(Route("/broken", broken))
    asset = next((DIST / "graphql" / "assets").iterdir()).name
    with serving(app) as url:
        await ready(Site(url, Seen()))
        async with httpx2.AsyncClient(base_url=url) as client:
            graphql = f"/graphql?query={quote(QUERY)}"
            tag = (await client.get(graphql)).headers["etag"]
            for status, method, path, headers in (
                (200, "GET", graphql, {}),
                (200, "HEAD", graphql, {}),
                (304, "GET", graphql, {"if-none-match": tag}),
                (200, "GET", "/graphql?query={status{generation}}", {}),
                (400, "GET", "/graphql", {}),
                (403, "GET", graphql, {"sec-fetch-site": "cross-site"}),
                (405, "PUT", "/graphql", {}),
                (406, "POST", "/graphql", {"accept": "image/png"}),
                (415, "POST", "/graphql", {}),
                (421, "POST", "/graphql", {"host": "evil.test"}),
                (307, "GET", "/graphql/", {}),
                (200, "GET", "/healthz", {}),
                (200, "GET", "/readyz", {"host": "evil.test"}),
                (405, "POST", "/readyz", {}),
                (404, "GET", "/elsewhere", {}),
                (404, "GET", "/graphql/assets/elsewhere.js", {}),
                # the server closes the connection after that
                (500, "GET", "/broken", {"connection": "close"}),
            ):
                told = await client.request(method, path, headers=headers)
                assert (told.status_code, path) == (status, path)
                assert {name: told.headers.get(name) for name in SECURE} == SECURE
                assert told.headers.get_list("content-security-policy") == ["frame-ancestors 'none'"]
            for path in ("/graphql", f"/graphql/assets/{asset}"):
                told = await client.get(path, headers={"accept": "text/html"})
                assert told.status_code == 200
                assert {name: told.headers.get_list(name) for name in SECURE} == {k: [v] for k, v in SECURE.items()}
                assert told.headers["cross-origin-opener-policy"] == "same-origin"
                (policy,) = told.headers.get_list("content-security-policy")
                assert "default-src 'self'" in policy
                assert "frame-ancestors 'none'" in policy


async def test_only_reads_have_an_etag(site: Site) -> None:
    async with httpx2.AsyncClient() as client:
        for _ in range(2):
            tags = [(await client.request(method, site.get_url)).headers["etag"] for method in ("GET", "HEAD")]
            assert tags == [tags[0]] * 2
            posted = await client.post(f"{site.url}/graphql", json={"query": QUERY}, headers={"if-none-match": tags[0]})
            assert (posted.status_code, posted.json(), "etag" in posted.headers) == (200, DATA, False)


async def test_an_asset_is_compressed_once() -> None:
    path = f"/graphql/assets/{max((DIST / 'graphql' / 'assets').iterdir(), key=lambda file: file.stat().st_size).name}"
    compressions = 0

    def note(_: object, event: str, function: object) -> None:
        nonlocal compressions
        compressions += event == "c_call" and "compress" in getattr(function, "__name__", "")

    transport = httpx2.ASGITransport(app=Starlette(routes=page_routes()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://here") as client:

        async def packed() -> bytes:
            async with client.stream("GET", path, headers={"accept-encoding": "gzip"}) as response:
                assert response.headers["content-encoding"] == "gzip"
                return b"".join([part async for part in response.aiter_raw()])

        first = await packed()
        sys.setprofile(note)
        try:
            again = await packed()
        finally:
            sys.setprofile(None)
    assert (again, compressions) == (first, 0)
