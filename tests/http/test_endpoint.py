import asyncio
import itertools
import json
import logging
import shutil
import socket
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
import strawberry
import uvicorn
from conftest import ROOT, seconds_until
from graphql import GraphQLError
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.types import Message
from strawberry.extensions import SchemaExtension
from strawberry.scalars import JSON

from graph.errors import DatabaseUnavailable
from graph.execution.limits import Limits, code_errors
from graph.http.cancellation import DISCONNECT_WATCH_DELAY
from graph.http.endpoint import GraphQLEndpoint

PLAIN = "application/json"
GRAPHQL = "application/graphql-response+json"
AUDIT = ROOT / "tests" / "audit"


@dataclass
class Wait:
    """What has become of a field that never ends by itself."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    lingers: bool = False
    """Whether it has to be told twice."""


waits: dict[str, Wait] = {}


@strawberry.type
class Thing:
    name: str

    @strawberry.field
    async def length(self) -> int:
        await asyncio.sleep(0)
        return len(self.name)


@strawberry.type
class Query:
    @strawberry.field
    async def hello(self, name: str = "world") -> str:
        await asyncio.sleep(0)
        return f"hello {name}"

    @strawberry.field
    def things(self, names: list[str]) -> list[Thing]:
        return [Thing(name=name) for name in names]

    @strawberry.field
    def echo(self, value: JSON) -> JSON:
        return value

    @strawberry.field
    def operation(self, info: strawberry.Info) -> int:
        return int(info.context)

    @strawberry.field
    async def wait(self, name: str) -> str:
        waits[name].started.set()
        try:
            return await asyncio.Future()
        finally:
            waits[name].ended.set()
            if waits[name].lingers:
                await asyncio.Future()

    @strawberry.field
    async def broken(self) -> str | None:
        raise LookupError("broken")

    @strawberry.field
    async def required(self) -> str:
        raise LookupError("required")

    @strawberry.field
    async def cancelled(self) -> str:
        raise asyncio.CancelledError

    @strawberry.field
    def unwritable(self) -> JSON:
        return JSON({"a": object()})


@strawberry.type
class Mutation:
    @strawberry.mutation
    def rename(self, name: str) -> str:
        return name


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self) -> AsyncIterator[int]:
        yield 1


class Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: object = None) -> None:
        """Log nothing."""
        del execution_context
        code_errors(errors)


class Cost(SchemaExtension):
    def get_results(self) -> dict[str, Any]:
        return {"cost": 2} if self.execution_context.query == "{hello}#cost" else {}


schema = Schema(Query, Mutation, Subscription, extensions=[Limits, Cost])


def make_endpoint(max_body: int = 100_000, time_limit: float = 30.0) -> GraphQLEndpoint:
    contexts = itertools.count(1)
    return GraphQLEndpoint(
        schema,
        make_context=lambda *_: next(contexts),
        page=lambda: HTMLResponse("<p>page", headers={"Vary": "Accept"}),
        max_body=max_body,
        time_limit=time_limit,
    )


async def call(
    endpoint: GraphQLEndpoint, body: bytes = b"", query: bytes = b"", method: str = "POST", **headers: bytes
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Call the endpoint as a server would, for a client that stays until it has its answer."""
    sent: list[Message] = []
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return waiting.pop() if waiting else await asyncio.Future()

    async def send(message: Message) -> None:
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    await endpoint({"type": "http", "method": method, "headers": pairs, "query_string": query}, receive, send)
    start, end = sent
    return start["status"], dict(start["headers"]), end["body"]


@asynccontextmanager
async def serving(endpoint: GraphQLEndpoint) -> AsyncIterator[str]:
    """Serve on a free port of the loopback interface; requests sent before the server runs wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        app = Starlette(routes=[Route("/graphql", endpoint)])
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, lifespan="off", http="graph.http.protocol:Connection")
        )
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/graphql"
        server.should_exit = True
        await serving


@pytest.fixture(scope="session")
async def graphql_url() -> AsyncIterator[str]:
    async with serving(make_endpoint()) as url:
        yield url


@pytest.fixture(scope="session")
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(timeout=10) as client:
        yield client


Send = Callable[..., Awaitable[httpx2.Response]]


@pytest.fixture
def post(client: httpx2.AsyncClient, graphql_url: str) -> Send:
    async def post(body: bytes | dict[str, Any], accept: str = PLAIN, content_type: str = PLAIN) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"accept": accept, "content-type": content_type}
        return await client.post(graphql_url, content=content, headers=headers)

    return post


@pytest.fixture
def get(client: httpx2.AsyncClient, graphql_url: str) -> Send:
    async def get(query: str = "", accept: str = PLAIN, method: str = "GET") -> httpx2.Response:
        return await client.request(method, f"{graphql_url}?{query}", headers={"accept": accept})

    return get


def error(message: str, code: str = "BAD_REQUEST") -> dict[str, Any]:
    return {"errors": [{"message": message, "extensions": {"code": code}}]}


async def test_post(post: Send):
    document = "query Q($name:String!){hello(name:$name) things(names:[$name]){name length}} query Other{operation}"
    response = await post({"query": document, "operationName": "Q", "variables": {"name": "Łódź 🏃"}})
    assert response.status_code == 200
    assert response.json() == {"data": {"hello": "hello Łódź 🏃", "things": [{"name": "Łódź 🏃", "length": 6}]}}
    headers = dict(response.headers)
    assert headers.pop("date")
    assert headers == {
        "server": "uvicorn",
        "content-type": "application/json; charset=utf-8",
        "content-length": str(len(response.content)),
        "vary": "accept",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "content-security-policy": "frame-ancestors 'none'",
    }


async def test_get_and_head(get: Send):
    query = urlencode({"query": "query($n:String!){hello(name:$n)}", "variables": '{"n":"+ &é"}', "operationName": ""})
    response = await get(query)
    assert (response.status_code, response.json()) == (200, {"data": {"hello": "hello + &é"}})
    head = await get(query, method="HEAD")
    assert head.content == b""
    del response.headers["date"], head.headers["date"]
    assert (head.status_code, head.headers) == (200, response.headers)
    status, headers, content = await call(make_endpoint(), query=b"query={hello}", method="HEAD")
    assert (status, headers[b"content-length"], content) == (200, b"32", b"")
    empty = await get(urlencode({"query": "{hello}", "variables": "", "extensions": ""}))
    assert empty.json() == {"data": {"hello": "hello world"}}


async def test_each_operation_has_a_context_of_its_own(post: Send):
    first, second = [(await post({"query": "{operation again:operation}"})).json()["data"] for _ in range(2)]
    assert first["operation"] == first["again"] < second["operation"] == second["again"]


async def test_many_at_once(post: Send):
    async def hello(number: int) -> str:
        response = await post({"query": "query($n:String!){hello(name:$n)}", "variables": {"n": str(number)}})
        return str(response.json()["data"]["hello"])

    assert await asyncio.gather(*map(hello, range(50))) == [f"hello {number}" for number in range(50)]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("application/*", PLAIN),
        ("text/html, application/*;q=0.5", PLAIN),
        (PLAIN, PLAIN),
        (GRAPHQL, GRAPHQL),
        ("Application/GraphQL-Response+JSON; Charset=UTF-8", GRAPHQL),
        (f"{GRAPHQL}, {PLAIN}", GRAPHQL),
        (f"{PLAIN}, {GRAPHQL}", GRAPHQL),
        (f"{PLAIN}, {GRAPHQL};q=0.9", PLAIN),
        (f"{PLAIN};q=0.9, */*", GRAPHQL),
        (f"{PLAIN};q=0, */*", GRAPHQL),
        (f"{GRAPHQL}, application/graphql+json, {PLAIN}, text/event-stream, multipart/mixed", GRAPHQL),
        (f"{GRAPHQL}; charset=latin-1, {PLAIN}", PLAIN),
        (f"{GRAPHQL};q=, {PLAIN}", PLAIN),
        (f"{GRAPHQL};q=2, {PLAIN}", PLAIN),
        ("*/*" + ", text/plain" * 4_000, PLAIN),
    ],
)
async def test_accept_chooses_the_media_type(post: Send, accept: str, chosen: str):
    response = await post({"query": "{hello}"}, accept=accept)
    assert (response.status_code, response.headers["content-type"]) == (200, f"{chosen}; charset=utf-8")


@pytest.mark.parametrize(
    "accept",
    ["text/html", "image/*", f"{PLAIN};q=0", f"{GRAPHQL};q=0.0, text/*", ";", "json", "text/plain," * 100 + PLAIN],
)
async def test_what_cannot_be_accepted(post: Send, accept: str):
    response = await post({"query": 'mutation{rename(name:"x")}'}, accept=accept)
    assert (response.status_code, response.headers["content-type"]) == (406, "application/json; charset=utf-8")
    assert response.json() == error(
        "Nothing that Accept names can be sent; application/graphql-response+json and application/json can."
    )


async def test_several_accept_headers_are_one(client: httpx2.AsyncClient, graphql_url: str):
    headers = [("accept", "text/plain"), ("accept", GRAPHQL), ("content-type", PLAIN)]
    response = await client.post(graphql_url, content=b'{"query":"{hello}"}', headers=headers)
    assert response.headers["content-type"] == f"{GRAPHQL}; charset=utf-8"


FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


async def test_a_browser_gets_the_page(get: Send):
    for accept in (FIREFOX, "text/html", "text/*"):
        response = await get(accept=accept)
        assert (response.status_code, response.text) == (200, "<p>page")
        assert response.headers["vary"] == "Accept"
    head = await get(accept=FIREFOX, method="HEAD")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "7")


async def test_a_browser_that_brings_a_query_gets_its_answer(get: Send):
    response = await get("query={hello}", accept=FIREFOX)
    assert response.json() == {"data": {"hello": "hello world"}}
    assert (await get("query={hello}", accept="text/html")).status_code == 406


async def test_who_likes_json_as_much_as_the_page_gets_json(get: Send):
    for accept in ("*/*", f"text/html, {PLAIN}"):
        response = await get(accept=accept)
        assert response.status_code == 400
        assert response.json() == error("The parameter `query` must be the text of a GraphQL document.")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "QUERY"])
async def test_other_methods(get: Send, method: str):
    response = await get(method=method, accept="text/html")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD, POST")
    assert response.json() == error(f"{method} is not answered here; use POST, or GET for queries.")


async def test_only_queries_by_get(get: Send, post: Send):
    mutation = 'mutation{rename(name:"x")}'
    for accept in (PLAIN, GRAPHQL):
        response = await get(urlencode({"query": mutation}), accept=accept)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        assert response.json() == error("A mutation is not answered by GET; use POST.")
    assert (await get(urlencode({"query": mutation}), method="HEAD")).status_code == 405
    assert (await get(urlencode({"query": "subscription{ticks}"}))).status_code == 405
    assert (await post({"query": mutation})).json() == {"data": {"rename": "x"}}


OBJECT = "The body must be a JSON object that has the document as its `query`."
QUERY = "The parameter `query` must be the text of a GraphQL document."
NAME = "The parameter `operationName` must be a string or null."
VARIABLES = "The parameter `variables` must be an object or null."
EXTENSIONS = "The parameter `extensions` must be an object or null."


@pytest.mark.parametrize("accept", [PLAIN, GRAPHQL])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"null", OBJECT),
        (b"123", OBJECT),
        (b'"{hello}"', OBJECT),
        (b"true", OBJECT),
        (b"{}", QUERY),
        (b'{"query":null}', QUERY),
        (b'{"query":""}', QUERY),
        (b'{"query":1}', QUERY),
        (b'{"query":["{hello}"]}', QUERY),
        (b'{"query":"{hello}","query":null}', QUERY),
        (b'{"query":"{hello}","operationName":1}', NAME),
        (b'{"query":"{hello}","operationName":["Q"]}', NAME),
        (b'{"query":"{hello}","variables":[]}', VARIABLES),
        (b'{"query":"{hello}","variables":"{}"}', VARIABLES),
        (b'{"query":"{hello}","variables":false}', VARIABLES),
        (b'{"query":"{hello}","extensions":0}', EXTENSIONS),
        (b"[]", "Batches are not answered; send each operation in a request of its own."),
        (b'[{"query":"{hello}"}]', "Batches are not answered; send each operation in a request of its own."),
    ],
)
async def test_bodies_that_are_no_operation(post: Send, accept: str, body: bytes, message: str):
    response = await post(body, accept=accept)
    assert (response.status_code, response.headers["content-type"]) == (400, f"{accept}; charset=utf-8")
    assert response.json() == error(message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"query":"\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"query":"{hello}"}',
        b'{"query":"{hello}"}{}',
        b'{"query":"{hello}\x00"}',
        b'{"query":"{hello}","variables":{"a":NaN}}',
        b'{"query":"{hello}","variables":{"a":1e999}}',
        b'{"query":"{hello}","variables":{"a":' + b"9" * 5000 + b"}}",
        b'{"query":"{hello}","variables":{"a":"\\ud800"}}',
        b'{"query":"\\ud800"}',
        b"[" * 50_000,
        b'{"a":' * 15_000,
    ],
)
async def test_bodies_that_are_no_json(post: Send, body: bytes):
    response = await post(body)
    assert response.status_code == 400
    (only,) = response.json()["errors"]
    assert only["message"].startswith("The body is not JSON: ")
    assert only["extensions"] == {"code": "BAD_REQUEST"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", QUERY),
        ("query=", QUERY),
        ("quer=%7Bhello%7D", QUERY),
        ("query={hello}&variables=[]", VARIABLES),
        ("query={hello}&extensions=1", EXTENSIONS),
        ("query={hello}&variables={", "The variables is not JSON: "),
        ("query={hello}&variables={%22a%22:%22%5Cud800%22}", "The variables is not JSON: "),
        ("query=%ff", "The query string is not UTF-8."),
        ("query=%ed%a0%80", "The query string is not UTF-8."),
    ],
)
async def test_query_strings_that_are_no_operation(get: Send, query: str, message: str):
    response = await get(query)
    assert response.status_code == 400
    (only,) = response.json()["errors"]
    assert only["message"].startswith(message)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/graphql",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
    ],
)
async def test_content_types_that_a_form_can_post_and_others(post: Send, content_type: str):
    response = await post({"query": 'mutation{rename(name:"x")}'}, content_type=content_type)
    assert response.status_code == 415
    assert response.json() == error("Send the parameters as application/json in UTF-8.")


@pytest.mark.parametrize("content_type", ['APPLICATION/JSON;charset="UTF-8"', "application/json ; charset=utf8; a=b"])
async def test_content_types_that_are_json(post: Send, content_type: str):
    assert (await post({"query": "{hello}"}, content_type=content_type)).status_code == 200


FAILURES = [
    ({"query": "{"}, error("Syntax Error: Expected Name, found <EOF>.", "GRAPHQL_PARSE_FAILED")),
    ({"query": " "}, error("Syntax Error: Unexpected <EOF>.", "GRAPHQL_PARSE_FAILED")),
    ({"query": "{xyz}"}, error("Cannot query field 'xyz' on type 'Query'.", "GRAPHQL_VALIDATION_FAILED")),
    (
        {"query": "fragment A on Query{hello}"},
        error("The document has no operation.", "OPERATION_RESOLUTION_FAILURE"),
    ),
    (
        {"query": "query A{hello} query B{hello}"},
        error(
            "The document holds 2 operations; name one of them as operationName: A, B.", "OPERATION_RESOLUTION_FAILURE"
        ),
    ),
    (
        {"query": "query A{hello} query B{hello}", "operationName": "C"},
        error("The document has no operation named 'C'.", "OPERATION_RESOLUTION_FAILURE"),
    ),
    (
        {"query": "subscription{ticks}"},
        error("A subscription is not answered over HTTP.", "OPERATION_RESOLUTION_FAILURE"),
    ),
    (
        {"query": "query($a:Int!){hello}"},
        error("Variable '$a' is never used.", "GRAPHQL_VALIDATION_FAILED"),
    ),
    (
        {"query": "query($a:[String!]!){things(names:$a){name}}", "variables": {"a": None}},
        error(
            "Variable '$a' has invalid value: Expected value of non-null type '[String!]!' not to be None.",
            "INVALID_ARGUMENT",
        ),
    ),
    (
        {"query": "{hello " + "h:hello " * 21 + "}"},
        error("The field 'h' is selected 21 times in one place, and 20 are allowed; select it once.", "LIMIT_EXCEEDED"),
    ),
]


@pytest.mark.parametrize(("body", "answer"), FAILURES)
async def test_failures_before_execution_have_no_data(post: Send, body: dict[str, Any], answer: dict[str, Any]):
    for accept, status in ((PLAIN, 200), (GRAPHQL, 400)):
        response = await post(body, accept=accept)
        found = response.json()
        for one in found["errors"]:
            one.pop("locations", None)
        assert (response.status_code, found) == (status, answer)


@pytest.mark.parametrize("accept", [PLAIN, GRAPHQL])
async def test_failures_of_fields_are_beside_the_data(post: Send, accept: str):
    response = await post({"query": "{hello broken}"}, accept=accept)
    assert (response.status_code, response.json()) == (
        200,
        {
            "data": {"hello": "hello world", "broken": None},
            "errors": [{"message": "broken", "locations": [{"line": 1, "column": 8}], "path": ["broken"]}],
        },
    )
    response = await post({"query": "{hello required}"}, accept=accept)
    assert (response.status_code, response.json()) == (
        200,
        {
            "data": None,
            "errors": [{"message": "required", "locations": [{"line": 1, "column": 8}], "path": ["required"]}],
        },
    )


async def test_extensions_of_the_result_are_sent(post: Send):
    response = await post({"query": "{hello}#cost"})
    assert response.json() == {"data": {"hello": "hello world"}, "extensions": {"cost": 2}}


@pytest.mark.parametrize("name", ["unwritable", "cancelled"])
async def test_what_was_not_foreseen_is_in_the_log(post: Send, caplog: pytest.LogCaptureFixture, name: str):
    for accept in (PLAIN, GRAPHQL):
        caplog.clear()
        response = await post({"query": f"{{{name}}}"}, accept=accept)
        assert (response.status_code, response.headers["content-type"]) == (500, f"{accept}; charset=utf-8")
        (record,) = [record for record in caplog.records if record.name == "graph.http.endpoint"]
        assert (record.levelno, record.msg, bool(record.exc_info)) == (logging.ERROR, "Internal error %s", True)
        (error_id,) = record.args or ()
        assert response.json() == {
            "errors": [
                {
                    "message": f"Internal error; the log has it under id {error_id}.",
                    "extensions": {"code": "INTERNAL", "id": error_id},
                }
            ]
        }


async def test_values_that_are_hard_to_write(post: Send):
    query = "query($v:JSON!){echo(value:$v)}"
    values: list[Any] = ["\x00\u2028\U0001f600", 2**63, -(2**63), 1e308, 0.1, [[], {}, None, True], {"": ""}]
    for value in values:
        response = await post({"query": query, "variables": {"v": value}})
        assert (response.status_code, response.json()) == (200, {"data": {"echo": value}})
    deep: Any = 0
    for _ in range(250):
        deep = [deep]
    assert (await post({"query": query, "variables": {"v": deep}})).json() == {"data": {"echo": deep}}
    response = await post({"query": query, "variables": {"v": [[[[[deep]]]]]}})
    assert response.status_code == 400
    assert response.json() == error("The variables are nested more than 250 levels deep.", "LIMIT_EXCEEDED")
    response = await post({"query": "{echo(value:123456789012345678901234567890)}"})
    assert response.json() == {"data": {"echo": 123456789012345678901234567890}}
    response = await post({"query": '{echo(value:"\\ud83d\\ude00\\u0000")}'})
    assert response.json() == {"data": {"echo": "\U0001f600\x00"}}


async def test_a_database_that_is_away_is_told_by_the_status():
    def make_context(*_: object) -> object:
        raise DatabaseUnavailable("The database does not answer.", since="12:00")

    for accept in (PLAIN, GRAPHQL):
        endpoint = GraphQLEndpoint(schema, make_context, HTMLResponse)
        status, _, body = await call(
            endpoint, b'{"query":"{hello}"}', accept=accept.encode(), content_type=PLAIN.encode()
        )
        extensions = {"code": "DATABASE_UNAVAILABLE", "since": "12:00"}
        answer = {"errors": [{"message": "The database does not answer.", "extensions": extensions}]}
        assert (status, json.loads(body)) == (503, answer)


async def test_a_failure_that_the_schema_masked_is_one_of_the_server(caplog: pytest.LogCaptureFixture):
    class Masking(Schema):
        def process_errors(self, errors: list[GraphQLError], execution_context: object = None) -> None:
            super().process_errors(errors, execution_context)
            for one in errors:
                one.message, one.extensions = "masked", {"code": "INTERNAL", "id": "7"}

    endpoint = GraphQLEndpoint(Masking(Query), lambda *_: object(), HTMLResponse)
    status, _, body = await call(endpoint, b'{"query":"{xyz}"}', content_type=PLAIN.encode())
    assert (status, json.loads(body)) == (
        500,
        {
            "errors": [
                {
                    "message": "masked",
                    "locations": [{"line": 1, "column": 2}],
                    "extensions": {"code": "INTERNAL", "id": "7"},
                }
            ]
        },
    )
    assert caplog.records == []


TOO_LONG = error("The body is longer than 100000 bytes.", "LIMIT_EXCEEDED")


async def test_bodies_up_to_the_limit(post: Send):
    body = b'{"query":"{hello}"}'
    assert (await post(body + b" " * (100_000 - len(body)))).status_code == 200
    response = await post(body + b" " * (100_001 - len(body)))
    assert (response.status_code, response.json()) == (413, TOO_LONG)
    response = await post(b" " * 1_000_000)
    assert (response.status_code, response.json()) == (413, TOO_LONG)


async def test_query_strings_up_to_the_limit():
    endpoint = make_endpoint(max_body=50)
    assert (await call(endpoint, query=b"query={hello}".ljust(50, b"&"), method="GET"))[0] == 200
    status, _, body = await call(endpoint, query=b"query={hello}".ljust(51, b"&"), method="GET")
    message = "The query string is longer than 50 bytes."
    assert (status, json.loads(body)) == (414, error(message, "LIMIT_EXCEEDED"))


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx2.URL(url).port)
    try:
        yield reader, writer
    finally:
        writer.close()


HEAD = b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length: ")[1].split()[0])
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


async def test_a_body_in_chunks(graphql_url: str):
    async with connection(graphql_url) as (reader, writer):
        writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        for byte in b'{"query":"{hello}"}':
            writer.write(b"1\r\n%c\r\n" % byte)
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        assert await read_answer(reader) == (200, {"data": {"hello": "hello world"}})


async def test_an_endless_body_is_refused_while_it_comes_in(graphql_url: str):
    async with connection(graphql_url) as (reader, writer):
        writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        answer = asyncio.create_task(read_answer(reader))
        while not answer.done():
            writer.write(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)
        assert await answer == (413, TOO_LONG)


async def test_a_body_shorter_than_its_length_says(graphql_url: str):
    async with connection(graphql_url) as (reader, writer):
        writer.write(HEAD + b'content-length: 1000\r\n\r\n{"query":"{hello}"}')
        writer.write_eof()
        assert await reader.read() == b""


async def test_a_body_that_does_not_arrive():
    async with serving(make_endpoint(time_limit=0.2)) as url, connection(url) as (reader, writer):
        writer.write(HEAD + b"content-length: 10\r\n\r\n{")
        message = "The body took longer than 0.2 seconds to arrive."
        assert await asyncio.wait_for(read_answer(reader), 10) == (408, error(message))


async def ended(name: str) -> None:
    await asyncio.wait_for(waits[name].ended.wait(), 10)


async def test_an_operation_that_takes_too_long_is_stopped():
    waits["long"] = Wait()
    message = "The operation was stopped after 0.2 seconds; ask for less at a time."
    async with serving(make_endpoint(time_limit=0.2)) as url, httpx2.AsyncClient(timeout=10) as client:
        for accept, status in ((PLAIN, 200), (GRAPHQL, 400)):
            waits["long"].ended.clear()
            headers = {"accept": accept}
            response = await client.post(url, json={"query": '{hello wait(name:"long")}'}, headers=headers)
            assert (response.status_code, response.json()) == (status, error(message, "LIMIT_EXCEEDED"))
            await ended("long")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_operation_ends_with_its_client(graphql_url: str, method: str, caplog: pytest.LogCaptureFixture):
    waits["client"] = Wait()
    body = b'{"query":"{wait(name:\\"client\\")}"}'
    query = urlencode({"query": '{wait(name:"client")}'}).encode()
    async with connection(graphql_url) as (_, writer):
        if method == "POST":
            writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        else:
            writer.write(b"GET /graphql?" + query + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.wait_for(waits["client"].started.wait(), 10)
        assert not waits["client"].ended.is_set()
    await ended("client")
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_client_that_has_gone_leaves_the_task_as_it_was():
    body = b'{"query":"{wait(name:\\"gone\\")}"}'
    waits["gone"] = Wait()
    sent: list[Message] = []
    waiting: list[Message] = [{"type": "http.disconnect"}, {"type": "http.request", "body": body}]

    async def receive() -> Message:
        return waiting.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", PLAIN.encode())], "query_string": b""}
    await make_endpoint()(scope, receive, send)
    task = asyncio.current_task()
    assert task
    assert (sent, task.cancelling(), waits["gone"].ended.is_set()) == ([], 0, True)


async def test_nobody_watches_over_what_has_ended():
    waits["watched"] = Wait()
    before = asyncio.all_tasks()
    answering = asyncio.create_task(
        call(
            make_endpoint(time_limit=2 * DISCONNECT_WATCH_DELAY),
            b'{"query":"{wait(name:\\"watched\\")}"}',
            content_type=PLAIN.encode(),
        )
    )
    await asyncio.wait_for(waits["watched"].started.wait(), 10)
    status, _, body = await answering
    assert (status, json.loads(body)["errors"][0]["extensions"]["code"]) == (200, "LIMIT_EXCEEDED")
    # its listener was told to end, and does
    await seconds_until(lambda: all_ended(before))


async def all_ended(before: set[asyncio.Task[Any]]) -> bool:
    return asyncio.all_tasks() <= before


async def test_a_body_on_its_way_ends_with_the_server():
    asked = asyncio.Event()

    async def receive() -> Message:
        asked.set()
        return await asyncio.Future()

    async def send(_: Message) -> None:
        raise AssertionError("there is nothing to send")

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", PLAIN.encode())], "query_string": b""}
    answering = asyncio.create_task(make_endpoint()(scope, receive, send))
    await asyncio.wait_for(asked.wait(), 10)
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert answering.cancelling() == 1


async def test_an_operation_ends_with_the_server():
    waits["server"] = Wait()
    body = b'{"query":"{wait(name:\\"server\\")}"}'
    answering = asyncio.create_task(call(make_endpoint(), body, content_type=PLAIN.encode()))
    await asyncio.wait_for(waits["server"].started.wait(), 10)
    answering.cancel()
    await ended("server")
    with pytest.raises(asyncio.CancelledError):
        await answering


async def test_an_operation_whose_time_is_up_ends_with_the_server_too():
    waits["both"] = Wait(lingers=True)
    body = b'{"query":"{wait(name:\\"both\\")}"}'
    answering = asyncio.create_task(call(make_endpoint(time_limit=0.05), body, content_type=PLAIN.encode()))
    await ended("both")
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert answering.cancelling() == 1


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
queries = st.sampled_from(
    ["{hello}", "query A{hello} query B{hello}", "query($v:JSON){echo(value:$v)}", "{", "mutation A{rename(name:1)}"]
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "query": queries | values,
        "operationName": st.sampled_from(["A", "B", ""]) | values,
        "variables": st.dictionaries(st.sampled_from("vw"), values) | values,
        "extensions": st.dictionaries(st.text(), values, max_size=2) | values,
    },
).map(lambda body: json.dumps(body).encode())


@settings(deadline=None)
@given(st.binary() | values.map(lambda value: json.dumps(value).encode()) | bodies, st.sampled_from([PLAIN, GRAPHQL]))
async def test_any_body_is_answered(body: bytes, accept: str):
    status, headers, content = await call(make_endpoint(), body, accept=accept.encode(), content_type=PLAIN.encode())
    assert headers[b"content-type"] == f"{accept}; charset=utf-8".encode()
    found = json.loads(content)
    if "data" in found:
        assert status == 200
    else:
        codes = {one["extensions"]["code"] for one in found["errors"]}
        assert status == (200 if accept == PLAIN and "BAD_REQUEST" not in codes else 400)
        assert codes <= {
            "BAD_REQUEST",
            "GRAPHQL_PARSE_FAILED",
            "GRAPHQL_VALIDATION_FAILED",
            "INVALID_ARGUMENT",
            "OPERATION_RESOLUTION_FAILURE",
        }


@settings(deadline=None)
@given(st.binary(), st.binary(), st.binary(), st.sampled_from(["GET", "POST", "PUT"]))
async def test_any_head_is_answered(query: bytes, accept: bytes, content_type: bytes, method: str):
    status, _, content = await call(
        make_endpoint(), b'{"query":"{hello}"}', query, method, accept=accept, content_type=content_type
    )
    assert status in {"GET": (200, 400, 406), "POST": (200, 406, 415), "PUT": (405,)}[method]
    assert content == b"<p>page" or json.loads(content)


@pytest.fixture(scope="session")
async def audits(site_url: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("the audits of GraphQL over HTTP need node and npm on the PATH")
    folder = tmp_path_factory.mktemp("audit")
    for name in ("package.json", "package-lock.json", ".npmrc", "audit.mjs"):
        shutil.copy(AUDIT / name, folder)
    await run(npm, "ci", folder=folder)
    audits: list[dict[str, str]] = json.loads(await run(node, "audit.mjs", f"{site_url}/graphql", folder=folder))
    return audits


async def run(*command: str, folder: Path) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=PIPE, stderr=PIPE)
    output, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()
    return output


async def test_the_audits_of_graphql_over_http_pass(audits: list[dict[str, str]]):
    assert [audit for audit in audits if audit["status"] != "ok"] == []
    assert Counter(audit["name"].split()[0] for audit in audits) == {"MUST": 13, "SHOULD": 23, "MAY": 25}
