"""What a request costs, in calls of functions: the same on every machine, so that a slow-down shows where it is made.

Calls of Python's and of C's functions are counted, not time. A figure may grow by a tenth before somebody has to look.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import pytest

from graph.app import create_app
from graph.settings import Settings

ALLOWANCE = 1.1
HOLDERS = "stock(symbol: {}) {{ memberships(type: ETF) {{ group {{ name description }} weight }} }}"
QUERIES: dict[str, tuple[str, dict[str, str]]] = {
    "members": (
        ("query ($n: String!) { group(name: $n, type: ETF) { members { nodes { symbol weight } } } }"),
        {"n": "RSP"},
    ),
    "holders": (f"query ($s: String!) {{ {HOLDERS.format('$s')} }}", {"s": "AAPL"}),
    "page": (
        (
            "query ($n: String!) { group(name: $n, type: ETF) { members(first: 10)"
            " { nodes { weight stock { symbol groups(type: ETF) { name } } } } } }"
        ),
        {"n": "RSP"},
    ),
    "sectors": ("{ groups(type: SECTOR) { nodes { name memberCount } } }", {}),
    "attribution": (
        (
            "query ($n: String!) { group(name: $n, type: ETF) { members"
            " { nodes { symbol weight stock { groups(type: SECTOR) { name } } } } } }"
        ),
        {"n": "RSP"},
    ),
    "dashboard": (
        (
            "query ($a: String!, $b: String!, $n: String!) {"
            f" a: {HOLDERS.format('$a')} b: {HOLDERS.format('$b')} sectors: groups(type: SECTOR) {{ nodes {{ name memberCount }} }}"
            " page: group(name: $n, type: ETF) { members(first: 30) { nodes { symbol weight } } } }"
        ),
        {"a": "AAPL", "b": "JPM", "n": "RSP"},
    ),
}
MODES: list[dict[str, Any]] = [{}, {"response_cache": "off"}, {"response_cache": "off", "data_cache": "off"}]
# calls of a request of the 503 members of RSP and the like, in each mode: answered again, from kept columns, nothing kept
CALLS = {
    "members": (60, 178, 1_150),
    "holders": (60, 182, 1_169),
    "page": (60, 218, 2_104),
    "sectors": (60, 146, 1_141),
    "attribution": (60, 218, 8_772),
    "dashboard": (60, 376, 3_320),
}


class Calls:
    """Counts the functions that are called within, by whatever runs."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def _note(self, _: object, event: str, __: object) -> None:
        self.count += event in ("call", "c_call")

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


@pytest.fixture(params=MODES, ids=["again", "first", "nothing kept"])
async def cost(request: pytest.FixtureRequest, demo_url: str) -> AsyncIterator[Callable[[str], Any]]:
    """Make a function that gives the calls of a query that was asked before, and the mode it was asked in."""
    app = create_app(Settings(database_url=demo_url, **request.param))

    async def ask(name: str) -> tuple[int, int]:
        query, variables = QUERIES[name]
        status = json.dumps({"query": "{ status { listener { mode } } }"}).encode()
        body = status
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/graphql",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        }
        sent: list[Any] = []
        received: list[bytes] = []

        async def receive() -> dict[str, Any]:
            if not received:
                received.append(body)
                return {"type": "http.request", "body": body}
            await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        # nothing is cached before changes are followed
        while not sent or b'"OFF"' in sent[1]["body"]:
            sent.clear()
            received.clear()
            await app(dict(scope), receive, send)
        body = json.dumps({"query": query, "variables": variables}).encode()
        found = []
        for _ in range(20):
            sent.clear()
            received.clear()
            with Calls() as calls:
                await app(dict(scope), receive, send)
            assert sent[0]["status"] == 200
            assert b'"errors"' not in sent[1]["body"]
            found.append(calls.count)
        # where the database takes its time the event loop comes round more often, and first ones are planned and read
        return min(found), MODES.index(request.param)

    async with app.router.lifespan_context(app):
        yield ask


@pytest.mark.parametrize("name", QUERIES)
async def test_a_request_costs_what_it_did(cost: Callable[[str], Any], name: str) -> None:
    found, mode = await cost(name)
    assert found <= CALLS[name][mode] * ALLOWANCE
