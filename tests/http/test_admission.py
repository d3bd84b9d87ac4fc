"""Callers and checks: both are decided before the response cache, and callers never see each other's answers."""

from collections.abc import Awaitable, Callable

import orjson
import pytest
import strawberry
from conftest import Live
from starlette.responses import HTMLResponse

from graph.errors import ErrorCode
from graph.execution.operation import Info, Operation
from graph.execution.plans import batch_field
from graph.http.endpoint import GraphQLEndpoint
from graph.http.requests import RequestError, RequestHead
from graph.model import Caller
from graph.schema import make_schema

Send = Callable[..., Awaitable[tuple[int, bytes]]]
refused: set[str] = set()
heads: list[tuple[RequestHead, Caller]] = []


def identify(head: RequestHead) -> Caller:
    return Caller(head.headers.get(b"authorization", b"").decode())


def check(head: RequestHead, caller: Caller) -> None:
    heads.append((head, caller))
    if caller.key in refused:
        raise RequestError(403, "You may not ask.", ErrorCode.BAD_REQUEST)


@pytest.fixture
async def ask(live: Live) -> Send:
    """Ask an endpoint whose callers are told by a header."""
    schema = make_schema()
    refused.clear()
    heads.clear()
    endpoint = GraphQLEndpoint(
        schema,
        lambda *asker: Operation(live.runtime, *asker),
        HTMLResponse,
        lambda: live.runtime.response_cache,
        schema.execute_from_cache,
        identify=identify,
        checks=[check],
    )

    async def send(caller: str, text: str) -> tuple[int, bytes]:
        messages: list[dict[str, object]] = []
        body = orjson.dumps({"query": text})

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body}

        async def take(message: dict[str, object]) -> None:
            messages.append(message)

        headers = [(b"content-type", b"application/json"), (b"authorization", caller.encode())]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/graphql",
            "query_string": b"",
            "headers": headers,
            "client": ("192.0.2.7", 1234),
        }
        await endpoint(scope, receive, take)  # type: ignore[arg-type]
        return int(str(messages[0]["status"])), bytes(messages[1]["body"])  # type: ignore[call-overload]

    return send


async def test_a_check_refuses_before_a_cached_response_is_served(ask: Send, live: Live) -> None:
    text = '{ universe(key: "top3") { size } }'
    answer = (200, b'{"data":{"universe":{"size":3}}}')
    assert [await ask("ann", text) for _ in range(2)] == [answer] * 2
    hits = live.runtime.response_cache.stats().hits
    assert hits == 1
    refused.add("ann")
    message = b'{"errors":[{"message":"You may not ask.","extensions":{"code":"BAD_REQUEST"}}]}'
    assert await ask("ann", text) == (403, message)
    assert live.runtime.response_cache.stats().hits == hits
    assert await ask("bob", text) == answer
    assert {(head.method, head.client, caller.key) for head, caller in heads} == {
        ("POST", "192.0.2.7", "ann"),
        ("POST", "192.0.2.7", "bob"),
    }


async def test_callers_never_share_responses_or_columns(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    @strawberry.type
    class Thing:
        name: str

        @batch_field
        @staticmethod
        async def seen_by(things: "list[Thing]", operation: Operation) -> list[str]:
            return [f"{thing.name} by {operation.caller.key}" for thing in things]

    @strawberry.type
    class Things:
        @strawberry.field
        async def things(self, info: Info) -> list[Thing]:
            loaded.append(info.context.caller.key)
            return [Thing(name="a"), Thing(name="b")]

    loaded: list[str] = []
    monkeypatch.setattr("graph.schema.Query", Things)
    schema = make_schema()

    async def seen(caller: str) -> list[str]:
        result = await schema.execute("{ things { seenBy } }", context_value=Operation(live.runtime, Caller(caller)))
        assert (result.data, result.errors) != (None, None)
        return [thing["seenBy"] for thing in (result.data or {})["things"]]

    for caller in ("ann", "bob", "", "ann", "bob", ""):
        assert await seen(caller) == [f"a by {caller}", f"b by {caller}"]
    # each of them was loaded once, and came from the cache the second time
    assert loaded == ["ann", "bob", ""]
