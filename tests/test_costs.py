"""What a request costs, in calls of functions: the same on every machine, so that a slow-down shows where it is made.

Calls of Python's and of C's functions are counted, not time. A figure may grow by a tenth before somebody has to look.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

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
# calls of a request of the 503 members of RSP and the like: answered again, and from columns that are kept
CALLS = {
    "members": (64, 192),
    "holders": (62, 193),
    "page": (62, 232),
    "sectors": (64, 154),
    "attribution": (64, 232),
    "dashboard": (62, 402),
}


def calls(run: Callable[[], Any]) -> int | None:
    """How many functions a coroutine calls that waits for nothing; None where it does wait."""
    count = 0

    def counted(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    running = run()
    sys.setprofile(counted)
    try:
        running.send(None)
    except StopIteration:
        return count
    finally:
        sys.setprofile(None)
        running.close()
    return None


@pytest.fixture(params=["again", "first"])
async def cost(request: pytest.FixtureRequest, demo_url: str) -> AsyncIterator[Callable[[str], Any]]:
    """Make a function that gives the calls of a query that was asked before; its answer is kept, or its columns are."""
    app = create_app(Settings(database_url=demo_url, answers="on" if request.param == "again" else "off"))

    async def ask(name: str) -> tuple[int, int]:
        query, variables = QUERIES[name]
        body = json.dumps({"query": query, "variables": variables}).encode()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/graphql",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
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

        for attempt in range(20):
            sent.clear()
            received.clear()
            await app(dict(scope), receive, send)
            assert sent[0]["status"] == 200
            assert b'"errors"' not in sent[1]["body"]
            received.clear()
            # where this process got no time the generation is not known for a moment, and then it is executed
            if attempt > 1 and (count := calls(lambda: app(dict(scope), receive, send))) is not None:
                return count, request.param == "first"
        raise AssertionError("it is executed each time")

    async with app.router.lifespan_context(app):
        yield ask


@pytest.mark.parametrize("name", QUERIES)
async def test_a_request_costs_what_it_did(cost: Callable[[str], Any], name: str) -> None:
    found, column = await cost(name)
    assert found <= CALLS[name][column] * ALLOWANCE
