"""Odd bodies, documents, methods, headers and targets get the answers that GraphQL over HTTP and RFC 9110 ask for."""

import asyncio
import gzip
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import quote

import pytest
from conftest import Databases
from pgbouncer import free_port, until

OK, BAD, LIMIT, INVALID = (
    (200, None),
    (400, "BAD_REQUEST"),
    (400, "LIMIT_EXCEEDED"),
    (400, "GRAPHQL_VALIDATION_FAILED"),
)
UNPARSED, ARGUMENT, UNRESOLVED = (
    (400, "GRAPHQL_PARSE_FAILED"),
    (400, "INVALID_ARGUMENT"),
    (400, "OPERATION_RESOLUTION_FAILURE"),
)
# beside data, in which the field is null
UNKNOWN_GROUP, INVALID_KEY, BAD_CURSOR, KEY_LIMIT = (
    (200, "UNKNOWN_GROUP"),
    (200, "INVALID_KEY"),
    (200, "BAD_CURSOR"),
    (200, "LIMIT_EXCEEDED"),
)
TYPENAME = b'{"query":"{__typename}"}'
GRAPHQL = "application/graphql-response+json"


class Response(NamedTuple):
    """A response of the server."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> tuple[int, str | None]:
        """The status, and the code of the first error of a GraphQL response."""
        if not self.headers.get("content-type", "").startswith(("application/json", GRAPHQL)) or not self.body:
            return self.status, None
        errors = json.loads(self.body).get("errors")
        return self.status, errors[0]["extensions"]["code"] if errors else None


class Server:
    """A `stockgraph serve` on the small market."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def send(self, request: bytes) -> list[Response]:
        """Send bytes on a connection of their own; all that comes until the server is done with it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            responses = []
            async with asyncio.timeout(20):
                while head := await self._head(reader):
                    lines = head.decode("latin-1").split("\r\n")
                    headers = {
                        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
                    }
                    status = int(lines[0].split()[1])
                    length = int(headers.get("content-length", 0))
                    bodiless = status < 200 or request.startswith(b"HEAD")
                    body = b"" if bodiless else await reader.readexactly(length)
                    responses.append(Response(status, headers, body))
                    if status >= 200 and b"connection: close" not in request.lower():
                        break
            return responses
        finally:
            writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return b""

    async def post(self, body: bytes, *headers: str, content_type: str = "application/json") -> Response:
        lines = [
            "POST /graphql HTTP/1.1",
            "Host: 127.0.0.1",
            f"Accept: {GRAPHQL}",
            "Connection: close",
            f"Content-Length: {len(body)}",
            *([f"Content-Type: {content_type}"] if content_type else []),
            *headers,
        ]
        (response,) = await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return response

    async def request(self, target: str, *headers: str, method: str = "GET") -> Response:
        lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *headers]
        (response,) = await self.send("\r\n".join(lines).encode() + b"\r\n\r\n")
        return response


@contextmanager
def serving(database_url: str) -> Iterator[Server]:
    """A server process with the options of the command."""
    port = free_port()
    ours = ("STOCKGRAPH", "DATABASE", "CACHE", "PG")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    with subprocess.Popen(
        [sys.executable, "-m", "graph", "serve", "--port", str(port)],
        env={**kept, "DATABASE_URL": database_url},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        while "docs" not in process.stderr.readline():
            assert process.poll() is None, "it does not start"

        def listens() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        until(listens)
        yield Server(port)
        process.terminate()
        # nothing that is sent here is a fault of the server
        assert "Internal error" not in process.stderr.read()
        assert process.wait(30) == 0


@pytest.fixture(scope="module")
async def server(databases: Databases, priced_template: str) -> AsyncIterator[Server]:
    """A server of the small market with prices."""
    with serving(await databases.make(priced_template)) as made:
        yield made


def query(document: str, **variables: object) -> bytes:
    return json.dumps({"query": document, **({"variables": variables} if variables else {})}).encode()


def with_text(literal: bytes) -> bytes:
    """A body with a variable that is written as it is."""
    return b'{"query":"query($s:String!){stock(symbol:$s){symbol}}","variables":{"s":' + literal + b"}}"


def with_number(literal: bytes) -> bytes:
    document = b'query($t:Float!){thresholdBars(universe:\\"BIG\\",threshold:$t){members}}'
    return b'{"query":"' + document + b'","variables":{"t":' + literal + b"}}"


BODIES = {
    "null": (b"null", BAD),
    "a number": (b"123", BAD),
    "a string": (b'"x"', BAD),
    "nothing": (b"", BAD),
    "a batch": (b"[" + TYPENAME + b"]", BAD),
    "not UTF-8": (b'{"query":"\xff\xfe{__typename}"}', BAD),
    "a byte order mark": (b"\xef\xbb\xbf" + TYPENAME, BAD),
    "UTF-16": (TYPENAME.decode().encode("utf-16"), BAD),
    "NUL before": (b"\0" + TYPENAME, BAD),
    "NUL in the document": (rb'{"query":"{__typename}\u0000"}', UNPARSED),
    "half a pair in the document": (rb'{"query":"{__typename #\ud800}"}', BAD),
    "half a pair in a literal": (query(r'{stock(symbol:"\ud800"){symbol}}'), UNPARSED),
    "half a pair in a variable": (with_text(rb'"\ud800"'), BAD),
    "NUL in a variable": (with_text(rb'"\u0000"'), (200, "INVALID_ARGUMENT")),
    "NUL in a key": (query("query($s:String!){universe(key:$s){size}}", s="A\0B"), UNKNOWN_GROUP),
    "two queries": (b'{"query":"{nope}","query":"{__typename}"}', OK),
    "two variables": (b'{"query":"{__typename}","variables":{"a":1},"variables":null}', OK),
    "arrays, 100,000 deep": (b"[" * 100_000 + b"]" * 100_000, BAD),
    "objects, 50,000 deep": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, BAD),
    "variables, 1,000 deep": (
        b'{"query":"{__typename}","variables":{"a":' + b"[" * 1000 + b"]" * 1000 + b"}}",
        LIMIT,
    ),
    "variables, 250 deep": (b'{"query":"{__typename}","variables":{"a":' + b"[" * 250 + b"]" * 250 + b"}}", OK),
    "an integer of 4,000 digits": (with_number(b"9" * 4000), BAD),
    "an integer literal of 4,000 digits": (query(f"{{groups(first:{'9' * 4000}){{totalCount}}}}"), INVALID),
    "2^31": (query("{groups(first:2147483648){totalCount}}"), INVALID),
    "1e999": (with_number(b"1e999"), BAD),
    "NaN": (with_number(b"NaN"), BAD),
    "the literal 1e400": (query('{thresholdBars(universe:"BIG",threshold:1e400){members}}'), (200, "INVALID_ARGUMENT")),
    "variables are an array": (b'{"query":"{__typename}","variables":[1]}', BAD),
    "operationName is a number": (b'{"query":"{__typename}","operationName":7}', BAD),
    "extensions are a string": (b'{"query":"{__typename}","extensions":"x"}', BAD),
    "query is a number": (b'{"query":1}', BAD),
    "400 kB of variables": (query("{__typename}", a="x" * 400_000), OK),
    "600 kB": (query("{__typename}", a="x" * 600_000), (413, "LIMIT_EXCEEDED")),
    "40,000 variables": (
        b'{"query":"{__typename}","variables":{' + b",".join(b'"k%d":1' % each for each in range(40_000)) + b"}}",
        LIMIT,
    ),
    "names of prototypes": (b'{"query":"{__typename}","__proto__":{"a":1},"constructor":{}}', OK),
}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
async def test_bodies(server: Server, body: bytes, expected: tuple[int, str | None]):
    assert (await server.post(body)).told == expected


UNSUPPORTED = (415, "BAD_REQUEST")


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/x-www-form-urlencoded", UNSUPPORTED),
        ("multipart/form-data; boundary=x", UNSUPPORTED),
        ("text/plain", UNSUPPORTED),
        ("application/graphql", UNSUPPORTED),
        ("", UNSUPPORTED),
        ("application/json; charset=utf-16", UNSUPPORTED),
        ("application/json, text/plain", UNSUPPORTED),
        ('application/json;charset="UTF-8"', OK),
        ("APPLICATION/JSON", OK),
    ],
)
async def test_content_types(server: Server, content_type: str, expected: tuple[int, str | None]):
    assert (await server.post(TYPENAME, content_type=content_type)).told == expected


async def test_bodies_are_never_unpacked(server: Server):
    bomb = gzip.compress(b'{"query":"{__typename}","x":"' + b"a" * 10_000_000 + b'"}')
    assert (await server.post(bomb, "Content-Encoding: gzip")).told == BAD
    assert (await server.post(TYPENAME, "Content-Encoding: deflate")).told == OK


def chain(fragments: int) -> str:
    """Fragments each of which spreads the next one twice."""
    links = [f"fragment F{each} on Query{{...F{each + 1} ...F{each + 1}}}" for each in range(fragments)]
    return f"{{...F0}} {' '.join(links)} fragment F{fragments} on Query{{__typename}}"


def aliases(count: int) -> str:
    return "{" + " ".join(f"a{each}:__typename" for each in range(count)) + "}"


def universe(key: str) -> str:
    return f"{{universe(key:{json.dumps(key)}){{size}}}}"


DOCUMENTS = {
    "fragments that double 30 times": (chain(30), OK),
    "a cycle of fragments": ("{...A} fragment A on Query{...B} fragment B on Query{...A}", INVALID),
    "a fragment in itself": ("{...A} fragment A on Query{...A __typename}", INVALID),
    "an unknown fragment": ("{...Nope}", INVALID),
    "inline fragments, 1,000 deep": ("{" + "...{" * 1000 + "__typename" + "}" * 1000 + "}", LIMIT),
    "5,000 aliases of a field": (
        "{" + " ".join(f'a{each}:stock(symbol:"A"){{symbol}}' for each in range(5000)) + "}",
        LIMIT,
    ),
    "100 aliases": (aliases(100), OK),
    "101 aliases": (aliases(101), LIMIT),
    "a field 4,000 times": ("{" + "__typename " * 4000 + "}", LIMIT),
    "a field 40,000 times": ("{" + "__typename " * 40_000 + "}", LIMIT),
    "fields, 100 deep": (
        "{" + "groups{nodes{members{nodes{stock{" * 20 + "__typename" + "}}}}}" * 20 + "}",
        LIMIT,
    ),
    "500 unknown directives": ("{__typename" + " @x" * 500 + "}", INVALID),
    "300 known directives": ("{__typename" + " @skip(if:false)" * 300 + "}", LIMIT),
    "24,000 comments": ("{__typename}" + "#\n" * 24_000, LIMIT),
    "a comment of 49 kB": ("{__typename}#" + "x" * 49_000, OK),
    "49,000 commas": ("{__typename}" + "," * 49_000, OK),
    "a list, 900 deep": ("{stocks(symbols:" + "[" * 900 + "]" * 900 + "){symbol}}", LIMIT),
    "a list of 1,900": ("{stocks(symbols:[" + '"A"' * 1900 + "]){symbol}}", OK),
    "an object, 400 deep": ("{stocks(symbols:" + "{a:" * 400 + "1" + "}" * 400 + "){symbol}}", LIMIT),
    "500 variables that are not used": (
        "query(" + "".join(f"$a{each}:Int " for each in range(500)) + "){__typename}",
        LIMIT,
    ),
    "20 operations of one name": ("query A{__typename} " * 20, INVALID),
    "two operations": ("query A{__typename} query B{__typename}", UNRESOLVED),
    "200 operations": ("".join(f"query A{each}{{__typename}} " for each in range(200)), LIMIT),
    "a string without an end": ('{stock(symbol:"' + "x" * 40_000, UNPARSED),
    "a block string without an end": ('{stock(symbol:"""' + "x" * 40_000, UNPARSED),
    "a name of wide letters": ("{\uff47roups}", UNPARSED),
    "an emoji": ("{😀}", UNPARSED),
    "a mark of direction": ("{\u202egroups}", UNPARSED),
    "a subscription": ("subscription{x}", UNRESOLVED),
    "a mutation": ("mutation{x}", INVALID),
    "@defer": ("{groups{...@defer{nodes{name}}}}", INVALID),
    "@stream": ("{groups{nodes@stream{name}}}", INVALID),
    "a type": ("type A{a:Int}", UNRESOLVED),
    "nothing selected": ("{}", OK),
    "a script as a name": (universe("<script>alert(1)</script>"), INVALID_KEY),
    "a line of its own in a name": (universe('"A\nERROR: forged"'), UNKNOWN_GROUP),
    "a name of 10 kB": (universe("Z" * 10_000), KEY_LIMIT),
    "a key of 5,000 parts": (universe(":".join(["BIG"] * 5000)), KEY_LIMIT),
    "a key of unknown parts": (universe(":".join(f"N{each}" for each in range(700))), KEY_LIMIT),
    "a key of 20,000 parentheses": (universe("(" * 20_000 + "BIG" + ")" * 20_000), KEY_LIMIT),
    "a key of 6,000 minuses": (universe("BIG" + "-TECH" * 6000), KEY_LIMIT),
    "a search of 40 kB": (f'{{search(text:"{"a" * 40_000}"){{__typename}}}}', OK),
    "a search for wild cards": ('{search(text:"%_%"){__typename}}', OK),
    "a cursor of 9 kB": (f'{{groups(first:1,after:"{"A" * 9000}"){{totalCount}}}}', BAD_CURSOR),
    "an id of 9 kB": (f'{{node(id:"{"A" * 9000}"){{id}}}}', OK),
}


@pytest.mark.parametrize(("document", "expected"), DOCUMENTS.values(), ids=DOCUMENTS)
async def test_documents(server: Server, document: str, expected: tuple[int, str | None]):
    assert (await server.post(query(document))).told == expected


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "PROPFIND"])
async def test_methods_that_are_not_answered(server: Server, method: str):
    response = await server.request("/graphql", method=method)
    assert (response.told, response.headers["allow"]) == ((405, "BAD_REQUEST"), "GET, HEAD, POST")


async def test_a_method_that_nobody_knows(server: Server):
    assert (await server.request("/graphql", method="BREW")).status == 400


async def test_head_has_no_body(server: Server):
    response = await server.request(f"/graphql?query={quote('{__typename}')}", method="HEAD")
    assert (response.status, response.body, response.headers["content-length"]) == (200, b"", "31")


async def test_another_site_may_not_read(server: Server):
    preflight = await server.request(
        "/graphql",
        "Origin: https://evil.example",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: content-type",
        method="OPTIONS",
    )
    get = await server.request(f"/graphql?query={quote('{__typename}')}", "Origin: https://evil.example")
    for response, status in ((preflight, 405), (get, 200)):
        assert response.status == status
        assert [name for name in response.headers if name.startswith("access-control-")] == []


# the request line and headers of a request, and what is answered
HEADS = {
    "HTTP/1.0": (b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n", 200),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (bytes.fromhex("16030100c8010000c40303") + b"x" * 190, 400),
    "another target than a path": (b"GET graphql HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
    "a query without a path": (b"GET ?query=%7B__typename%7D HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
    "bytes in the target": (b"GET /gr\xc3\xa4 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 404),
    "CONNECT": (b"CONNECT a.example:443 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
    "NUL in a header": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nA: b\0c\r\n\r\n", 400),
    "a folded header": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nA: b\r\n c\r\n\r\n", 400),
    "a space before the colon": (b"GET /healthz HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n", 400),
    "lines that end with LF": (b"GET /healthz HTTP/1.1\nHost: 127.0.0.1\n\n", 400),
}


@pytest.mark.parametrize(("head", "status"), HEADS.values(), ids=HEADS)
async def test_heads(server: Server, head: bytes, status: int):
    (response,) = await server.send(head)
    assert response.status == status


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Accept: image/png", OK),
        ("Accept-Encoding: " + ",".join(["gzip;q=0.1"] * 1_000), OK),
        ("Expect: 200-maybe", OK),
        ("Upgrade: h2c", OK),
        ("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", OK),
        ("X-HTTP-Method-Override: DELETE", OK),
        ("X-Forwarded-Host: evil.example", OK),
    ],
    ids=lambda each: each[:40] if isinstance(each, str) else "",
)
async def test_headers(server: Server, header: str, expected: tuple[int, str | None]):
    assert (await server.post(TYPENAME, header)).told == expected


async def test_what_is_accepted_is_read_up_to_a_limit(server: Server):
    for accept, status in (("image/png", 406), (",".join(["a/b;q=0.1"] * 1_000), 406), ("image/png, */*;q=0.1", 200)):
        response = await server.request(f"/graphql?query={quote('{__typename}')}", f"Accept: {accept}")
        assert response.status == status


async def test_a_body_that_is_expected_is_asked_for(server: Server):
    head = "POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
    request = f"{head}Content-Length: {len(TYPENAME)}\r\n\r\n".encode() + TYPENAME
    assert [response.status for response in await server.send(request)] == [100, 200]


@pytest.mark.parametrize(
    "target",
    [
        "/graphql/assets/../../../../etc/passwd",
        "/graphql/assets/%2e%2e/%2e%2e/index.html",
        "/graphql/assets/..%2f..%2findex.html",
        "/graphql/assets/..\\..\\index.html",
        "/graphql/assets//etc/passwd",
        "/graphql/assets/%00",
        "/graphql/assets/%ff%fe",
        "/graphql/assets/" + "a" * 5000,
        "/graphql/assets/",
        "//graphql",
        "/Graphql",
        "/.git/config",
    ],
    ids=lambda target: target[:44],
)
async def test_targets_that_lead_nowhere(server: Server, target: str):
    response = await server.request(target)
    assert (response.status, response.body) == (404, b"Not Found")
