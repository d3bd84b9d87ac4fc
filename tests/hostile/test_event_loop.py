"""The event loop: no callback of a request holds it for long, whatever is asked; measured in processor time of its thread."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import orjson
import pytest
from conftest import Databases

from graph.app import create_app
from graph.settings import Settings

HELD = 0.02 if sys.gettrace() is None else 0.1
"""Seconds of processor that a callback may take; measuring coverage takes more than half of it."""
HELD_AROUND_ERRORS = 0.2
"""The same where graphql-core completes a long answer around an error: it gathers the fields of a list in one turn."""

FUNDS = """
INSERT INTO definition_groups (name, type, environment)
SELECT 'Vanguard Core Large Cap Growth Index Fund Series ' || n, 'ETF', 'DEFAULT' FROM generate_series(1, 5000) AS n;
INSERT INTO definition_groups (name, type, environment) VALUES ('WIDE', 'ETF', 'DEFAULT');
INSERT INTO group_memberships (group_id, symbol, weight)
SELECT g.id, 'S' || n, 0.0002 FROM definition_groups AS g, generate_series(1, 3400) AS n WHERE g.name = 'WIDE';
INSERT INTO group_memberships (group_id, symbol, weight)
SELECT g.id, 'S' || (g.id * 7 + n) % 3400 + 1, 0.1 FROM definition_groups AS g, generate_series(1, 10) AS n
WHERE g.name LIKE 'Vanguard%';
ANALYZE;
"""

Ask = Callable[..., Awaitable[tuple[int, dict[str, Any]]]]


@pytest.fixture(scope="module")
async def ask(databases: Databases, empty_template: str) -> AsyncIterator[Ask]:
    """Ask an application over a market of 5,000 funds, one of them of 3,400 stocks."""
    url = await databases.make(empty_template)
    connection = await asyncpg.connect(url)
    await connection.execute(FUNDS)
    await connection.close()
    app = create_app(Settings(database_url=url))

    async def ask(query: str, **variables: object) -> tuple[int, dict[str, Any]]:
        body = orjson.dumps({"query": query, "variables": variables})
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/graphql",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
        }
        messages = [{"type": "http.request", "body": body}]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return sent[0]["status"], orjson.loads(b"".join(message.get("body", b"") for message in sent[1:]))

    async with app.router.lifespan_context(app):
        await ask("{ groups { nodes { name } } }")
        yield ask


@contextmanager
def longest_callback() -> Iterator[list[float]]:
    """Collect the processor time of the longest callback."""
    longest = [0.0]
    run = asyncio.Handle._run  # noqa: SLF001 - what the event loop calls

    def measure(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        longest[0] = max(longest[0], time.thread_time() - began)

    asyncio.Handle._run = measure  # type: ignore[method-assign] # noqa: SLF001
    try:
        yield longest
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign] # noqa: SLF001


TYPO = '"Vanguard Core Large Cap Growth Index Fund Series x"'
ALIASES = " ".join(f"a{number}: id" for number in range(90))
LEVELS = "{ symbol name industry sector { name } groups(type: ETF) { name memberCount } }"


@pytest.mark.parametrize(
    ("query", "variables", "status", "code"),
    [
        pytest.param(
            "query ($v: [String!]!) { stocks(symbols: $v) { symbol } }",
            {"v": list(range(9_000))},
            200,
            "INVALID_ARGUMENT",
            id="wrong variables",
        ),
        pytest.param(
            "query ($v: [String!]!) { stocks(symbols: $v) { symbol } }",
            {"v": list(range(80_000))},
            400,
            "LIMIT_EXCEEDED",
            id="many variables",
        ),
        pytest.param(
            "query ($v: [String!]!) { stocks(symbols: $v) { symbol } }",
            {"v": [f"S{number}" for number in range(5_000)]},
            200,
            None,
            id="many stocks",
        ),
        pytest.param(
            "query ($k: String!) { " + " ".join(f"a{n}: universe(key: $k) {{ size }}" for n in range(90)) + " }",
            {"k": TYPO},
            200,
            "UNKNOWN_GROUP",
            id="typing errors",
        ),
        pytest.param("{ groups { nodes { name memberCount } } }", {}, 200, None, id="many groups"),
        pytest.param(
            f"{{ groups {{ nodes {{ members {{ nodes {{ stock {{ {ALIASES} }} }} }} }} }} }}",
            {},
            200,
            "LIMIT_EXCEEDED",
            id="an answer of 50 MB",
        ),
        pytest.param(
            f'{{ group(name: "WIDE") {{ members {{ nodes {{ stock {{ {ALIASES} }} }} }} }} }}',
            {},
            200,
            None,
            id="an answer of 10 MB",
        ),
        pytest.param(
            "{ "
            + " ".join(f"a{n}: __schema {{ types {{ fields {{ name type {{ name }} }} }} }}" for n in range(3))
            + " }",
            {},
            200,
            None,
            id="introspection",
        ),
        pytest.param(
            "{ " + " ".join(f'a{number}: stock(symbol: "S{number}") {LEVELS}' for number in range(60)) + " }",
            {},
            200,
            None,
            id="a long document",
        ),
        pytest.param(
            "{ " + " ".join(f'a{number}: stock(symbol: "S{number}") {LEVELS}' for number in range(60)) + " wrong }",
            {},
            200,
            "GRAPHQL_VALIDATION_FAILED",
            id="a long wrong document",
        ),
        pytest.param(
            "{ groups { nodes {"
            f' changes(since: "2999-01-01") {{ since }} members {{ nodes {{ stock {{ {ALIASES} }} }} }} }} }} }}',
            {},
            200,
            "LIMIT_EXCEEDED",
            id="errors within an answer of 50 MB",
        ),
        pytest.param(
            "{ " + " ".join(f'a{n}: group(name: "WIDE") {{ symbols }}' for n in range(90)) + " }",
            {},
            200,
            "LIMIT_EXCEEDED",
            id="many fields of some length",
        ),
        pytest.param(
            '{ group(name: "WIDE") { members { nodes { weight stock { symbol name } } } changes(since: "1990-01-01") { since } } }',
            {},
            200,
            "NO_HISTORY",
            id="an error within a long answer",
        ),
    ],
)
async def test_nothing_holds_the_event_loop(
    ask: Ask, query: str, variables: dict[str, object], status: int, code: str | None
) -> None:
    held = []
    for attempt in range(3):
        # another text each time, so that nothing is answered as before
        with longest_callback() as longest:
            answer = await ask(f"{query} # {attempt}", **variables)
        assert answer[0] == status
        assert {error["extensions"]["code"] for error in answer[1].get("errors", [])} == ({code} if code else set())
        held += longest
    assert min(held) < (HELD_AROUND_ERRORS if "changes" in query else HELD)
