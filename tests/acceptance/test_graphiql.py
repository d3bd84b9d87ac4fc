"""GraphiQL as a person meets it, in headless Chromium with every other host blocked, and the headers it comes with."""

import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest
from conftest import ROOT
from graphql import OperationDefinitionNode, parse
from playwright.async_api import Browser, ConsoleMessage, Page, Route, WebError, async_playwright, expect
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from graph.http import assets as pages

WEB = ROOT / "graph" / "web"
EXAMPLES = (WEB / "examples.graphql").read_text().split("\n\n")
NAMES = ["Universe", "Holdings", "WhoHolds", "AllGroups", "SectorCounts", "Attribution", "Rotation", "Page"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--proxy-server=127.0.0.1:9",  # nobody listens there, and only loopback addresses are asked without a proxy
]


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("GraphiQL was not opened: no chromium, chromium-browser or google-chrome on the PATH")
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS) as running,
    ):
        yield running


@pytest.fixture
async def page(site_url: str, browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context(color_scheme="light", viewport={"width": 1400, "height": 900})
    other_hosts: list[str] = []
    complaints: list[str] = []

    async def guard(route: Route) -> None:
        if urlsplit(route.request.url).netloc == urlsplit(site_url).netloc:
            await route.continue_()
        else:
            other_hosts.append(route.request.url)
            await route.abort()

    def listen(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    def catch(error: WebError) -> None:
        complaints.append(str(error.error))

    await context.route("**/*", guard)
    context.on("console", listen)
    context.on("weberror", catch)
    page = await context.new_page()
    await page.goto(f"{site_url}/graphql")
    await expect(page.locator(".graphiql-query-editor .view-line").first).to_be_visible()
    yield page
    await context.close()
    assert other_hosts == []
    assert complaints == []


def ask(site_url: str, query: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx2.post(f"{site_url}/graphql", json={"query": query}).json()
    return answer


async def text(page: Page, name: str) -> str:
    """Wait for a text in an editor, whole; the page itself draws no more than the lines in view."""
    found = await page.wait_for_function(
        "name => globalThis.__MONACO?.editor.getModels().find(model => model.uri.path.endsWith(name))?.getValue()",
        arg=name,
    )
    return str(await found.json_value())


async def run(page: Page) -> dict[str, Any]:
    await page.get_by_role("button", name="Execute query").click()
    answer: dict[str, Any] = json.loads(await text(page, "response.json"))
    return answer


async def test_a_first_visitor_runs_an_example_by_clicking(page: Page, site_url: str) -> None:
    assert await page.title() == "stockgraph"
    await expect(page.get_by_role("tab")).to_have_text(NAMES, use_inner_text=True)
    await page.get_by_role("tab", name="WhoHolds").click()
    # a moment later than the text of a tab it knows what is to be executed, which it writes down
    state = "localStorage['stockgraph:graphiql:tabState'] ?? '{}'"
    await page.wait_for_function(f"() => JSON.parse({state}).activeTabIndex === 2")
    answer = await run(page)
    assert answer == ask(site_url, EXAMPLES[2])
    weight = answer["data"]["stock"]["memberships"][0]["weight"]
    await expect(page.locator(".result-window")).to_contain_text(f'"weight":\N{NO-BREAK SPACE}{weight}')
    if "SCREENSHOT" in os.environ:
        await page.get_by_role("button", name="Show GraphiQL Explorer").click()
        await expect(page.locator(".graphiql-explorer-root")).to_contain_text("memberships")
        await page.evaluate("document.activeElement.blur()")
        await page.screenshot(path=os.environ["SCREENSHOT"])


async def test_the_explorer_adds_a_field_and_the_history_keeps_the_query(page: Page, site_url: str) -> None:
    await page.get_by_role("button", name="Show GraphiQL Explorer").click()
    await page.locator(".graphiql-explorer-root").get_by_text("key", exact=True).click()
    await expect(page.locator(".graphiql-query-editor .view-lines")).to_contain_text("symbols\N{NO-BREAK SPACE}key")
    asked = 'query Universe { universe(key: "sp500:nasdaq100:dow30") { size symbols key } }'
    assert await run(page) == ask(site_url, asked)
    await page.get_by_role("button", name="Show History").click()
    await expect(page.get_by_role("button", name="Set active").first).to_have_text("Universe")


async def test_the_documentation_leads_from_the_query_type_to_an_argument(page: Page) -> None:
    await page.get_by_role("button", name="Show Documentation Explorer").click()
    documentation = page.locator(".graphiql-doc-explorer")
    await documentation.get_by_role("link", name="Query").click()
    await documentation.get_by_role("link", name="universe", exact=True).click()
    await expect(documentation).to_contain_text("key: String!")


async def test_a_tab_of_ones_own_is_prettified_and_there_after_a_reload(page: Page) -> None:
    await page.get_by_role("button", name="New tab").click()
    await page.locator(".graphiql-query-editor .monaco-editor").click()
    await page.keyboard.insert_text('query Mine{stock(symbol:"AAPL"){symbol}}')
    await page.get_by_role("button", name="Prettify query").click()
    pretty = 'query Mine {\n  stock(symbol: "AAPL") {\n    symbol\n  }\n}\n'
    await page.wait_for_function("pretty => localStorage['stockgraph:graphiql:query'] === pretty", arg=pretty)
    await page.wait_for_function("() => localStorage['stockgraph:graphiql:tabState'].includes('query Mine {')")
    await page.reload()
    await expect(page.get_by_role("tab")).to_have_text([*NAMES, "Mine"], use_inner_text=True)
    assert await text(page, "operation.graphql") == pretty


def test_every_example_is_one_named_operation_under_its_comment_and_answers(site_url: str) -> None:
    names = []
    for example in EXAMPLES:
        (operation,) = parse(example).definitions
        assert isinstance(operation, OperationDefinitionNode)
        assert operation.name
        names.append(operation.name.value)
        assert example.startswith("# ")
        answer = ask(site_url, example)
        assert list(answer) == ["data"]
        assert None not in answer["data"].values()
    assert names == NAMES


def test_the_page_comes_with_a_strict_policy() -> None:
    page = pages.graphiql_page()
    assert page.status_code == 200
    assert dict(page.headers) == {
        "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-cache",
        "vary": "Accept",
        "content-type": "text/html; charset=utf-8",
        "content-length": str(len(page.body)),
    }
    assert page.body == (pages.DIST / "index.html").read_bytes()


def test_all_that_the_page_names_is_found_under_any_prefix_and_kept_by_the_browser() -> None:
    client = TestClient(Starlette(routes=[Mount("/market", routes=pages.page_routes())]))
    named = re.findall(r'(?:src|href)="([^"]+)"', (pages.DIST / "index.html").read_text())
    assert len(named) == 4
    for name in named:
        address = urljoin("http://testserver/market/graphql", name)
        response = client.get(address)
        assert response.status_code == 200
        assert response.content == (pages.DIST / name).read_bytes()
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["content-security-policy"] == pages.graphiql_page().headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        again = client.get(address, headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_assets_are_compressed_for_those_who_can_read_it() -> None:
    client = TestClient(Starlette(routes=pages.page_routes()))
    asset = max((pages.DIST / "graphql" / "assets").iterdir(), key=lambda path: path.stat().st_size)
    plain = client.get(f"/graphql/assets/{asset.name}", headers={"Accept-Encoding": "identity"})
    packed = client.get(f"/graphql/assets/{asset.name}", headers={"Accept-Encoding": "gzip"})
    assert plain.content == packed.content == asset.read_bytes()
    assert plain.headers["content-length"] == str(asset.stat().st_size)
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert packed.num_bytes_downloaded < asset.stat().st_size / 3


@pytest.mark.parametrize(
    "path",
    ["", ".", "nothing.js", "%2e%2e/%2e%2e/index.html", "..%2f..%2findex.html", "%2fetc%2fpasswd", "%00", "x" * 5000],
)
def test_nothing_but_assets_is_served(path: str) -> None:
    client = TestClient(Starlette(routes=pages.page_routes()))
    assert client.get(f"/graphql/assets/{path}").status_code == 404


def test_a_checkout_that_was_not_built_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "DIST", tmp_path)
    page = pages.graphiql_page()
    assert page.status_code == 200
    assert b"install it again" in page.body
    assert pages.page_routes() == []


def test_the_lock_file_pins_by_hash_and_names_no_registry() -> None:
    root, *packages = json.loads((WEB / "package-lock.json").read_text())["packages"].values()
    assert all(re.fullmatch(r"[0-9.]+", version) for version in root["dependencies"].values())
    assert all("integrity" in package and "resolved" not in package for package in packages)
