"""Clients that send without end, do not read, or hold connections: nobody else waits for them, and no memory is theirs."""

import asyncio
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import strawberry
import uvicorn
from conftest import seconds_until
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from graph.cli.serving import UVICORN_OPTIONS
from graph.http import protocol
from graph.http.endpoint import GraphQLEndpoint
from graph.http.responses import SECURITY_HEADERS

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b'{"query":"{__typename}"}'
POST = b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
MB = 1024 * 1024
PROGRAM = """
import resource, sys, uvicorn
from graph.cli.serving import UVICORN_OPTIONS
from test_connections import app
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
uvicorn.run(app, port=int(sys.argv[1]), **UVICORN_OPTIONS)
"""


async def big(request: Request) -> Response:
    """A response of as many bytes as asked for."""
    return Response(b"a" * int(request.path_params["size"]))


@strawberry.type
class Query:
    """What is asked for here is __typename."""

    hello: str = "hello"


released = threading.Event()


async def held(_: Request) -> Response:
    """A response that is there once the test says so."""
    await asyncio.to_thread(released.wait)
    return PlainTextResponse("released")


app = Starlette(
    routes=[
        Route(
            "/graphql",
            GraphQLEndpoint(strawberry.Schema(Query), lambda *_: None, lambda: PlainTextResponse("page"), time_limit=1),
        ),
        Route("/healthz", lambda _: PlainTextResponse("ok\n")),
        Route("/bytes/{size}", big),
        Route("/held", held),
    ]
)


class Server:
    """A server process at a port."""

    def __init__(self, port: int, process: "subprocess.Popen[str] | None" = None, log: Path | None = None) -> None:
        self.port = port
        self._process = process
        self._log = log

    def connect(self, **options: int) -> socket.socket:
        client = socket.socket()
        client.settimeout(20)
        for name, value in options.items():
            client.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        try:
            client.connect(("127.0.0.1", self.port))
        except OSError:
            client.close()
            raise
        return client

    def ask(self, data: bytes) -> bytes:
        """All that comes until the server closes the connection, which is sent to in the meantime."""
        with self.connect() as client:
            sender = threading.Thread(target=send, args=(client, data))
            sender.start()
            got = read(client)
            sender.join()
            return got

    def healthy(self) -> float:
        """Ask for health over a new connection; the seconds until the answer."""
        start = time.perf_counter()
        with self.connect() as client:
            client.sendall(HEALTH)
            assert one_response(client)[0] == 200
        return time.perf_counter() - start

    def memory(self) -> float:
        """MB that the process has in memory."""
        assert self._process
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def log(self) -> str:
        assert self._log
        return self._log.read_text()


def send(client: socket.socket, data: bytes) -> int:
    """Send as much as the server takes; how much."""
    sent = 0
    with suppress(OSError):
        while sent < len(data):
            sent += client.send(data[sent : sent + 65536])
    return sent


def read(client: socket.socket) -> bytes:
    """All bytes until the connection is closed."""
    got = bytearray()
    with suppress(ConnectionError):
        while part := client.recv(MB):
            got += part
    return bytes(got)


def one_response(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers without the date, and the body of the next response of a connection that stays open."""
    got = b""
    while b"\r\n\r\n" not in got:
        part = client.recv(1)
        assert part, f"closed after {got!r}"
        got += part
    status, headers = head_of(got)
    body = b""
    while len(body) < int(headers["content-length"]):
        part = client.recv(int(headers["content-length"]) - len(body))
        assert part
        body += part
    return status, headers, body


def head_of(got: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = got.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    headers.pop("date", None)
    return int(first.split()[1]), headers


def refusal(status: str, message: str) -> bytes:
    """The whole response to what is no request."""
    body = json.dumps({"errors": [{"message": message, "extensions": {"code": "BAD_REQUEST"}}]}, separators=(",", ":"))
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return (head + body).encode()


NOT_HTTP = refusal("400 Bad Request", "The request is not HTTP/1.1.")
HOST = refusal("400 Bad Request", "A request must have exactly one header Host.")
TE = refusal("400 Bad Request", "Transfer-Encoding belongs to HTTP/1.1, and excludes Content-Length.")
CODING = refusal("501 Not Implemented", "The only Transfer-Encoding that is understood is chunked.")
TOO_LONG = refusal(
    "431 Request Header Fields Too Large", "The head is longer than 65536 bytes, or has more than 256 headers."
)
TARGET = refusal("414 Request-URI Too Long", "The target is longer than 65536 bytes.")


@contextmanager
def process(folder: Path, files: int = 4096) -> Iterator[Server]:
    """Serve the application above as `serve` does, in a process that may open so many files."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    log = folder / "log"
    with log.open("w") as output:
        running = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(port), str(files)],
            stdout=output,
            stderr=output,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([".", "tests", "tests/hostile"])},
        )
    server = Server(port, running, log)
    try:
        deadline = time.monotonic() + 30
        while True:
            with suppress(OSError):
                server.healthy()
                break
            assert running.poll() is None, server.log()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield server
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with process(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
async def here(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Server]]:
    """Make a server in a thread of this process, with limits of the test's own."""
    with ExitStack() as stack:

        def start(app: Any = app, ws: Any = "none", **limits: float) -> Server:
            monkeypatch.setattr(protocol, "SWEEP_SECONDS", 0.05)
            for name, limit in limits.items():
                monkeypatch.setattr(protocol, name, limit)
            options = {**UVICORN_OPTIONS, "log_config": None, "ws": ws, "timeout_keep_alive": 1}
            running = uvicorn.Server(uvicorn.Config(app, **options))
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(lambda: setattr(running, "should_exit", True))
            return Server(listener.getsockname()[1])

        yield start


# heads


@pytest.mark.parametrize(
    ("start", "part", "answer"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"X: a\r\n", TOO_LONG),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"X: " + b"a" * 1000 + b"\r\n", TOO_LONG),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", b"a", TOO_LONG),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"a", TOO_LONG),
        (b"GET /", b"a", TARGET),
        (CHUNKED + b"0\r\n", b"X: a\r\n", TOO_LONG),
        (CHUNKED + b"1;a=", b"b", TOO_LONG),
    ],
    ids=["headers", "long headers", "a value", "a name", "a target", "trailers", "a chunk's extension"],
)
def test_what_never_ends_is_refused_and_no_memory_is_used_for_it(
    server: Server, start: bytes, part: bytes, answer: bytes
) -> None:
    before = server.memory()
    got = server.ask(start + part * (30 * MB // len(part)))
    assert got == answer
    assert server.memory() < before + 5


def test_a_long_head_that_ends_is_answered(server: Server) -> None:
    headers = b"".join(b"X%d: %s\r\n" % (n, b"a" * 240) for n in range(200))
    got = server.ask(HEALTH[:-2] + headers + b"Connection: close\r\n\r\n")
    assert (head_of(got)[0], got[-3:]) == (200, b"ok\n")
    got = server.ask(b"GET /healthz?" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (head_of(got)[0], got[-3:]) == (200, b"ok\n")


@pytest.mark.parametrize(
    "head",
    [
        HEALTH[:-2] + b"".join(b"X%d: a\r\n" % n for n in range(256)) + b"\r\n",
        HEALTH[:-2] + b"X: " + b"a" * 80_000 + b"\r\n\r\n",
    ],
    ids=["headers", "bytes"],
)
def test_a_head_over_a_limit_is_refused_though_it_ends(server: Server, head: bytes) -> None:
    assert server.ask(head) == TOO_LONG


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nX: ", b"a"),
        (b"", b"\r\n"),
        (HEALTH, b"\r\n"),
        ((HEALTH * 2)[:-2] + b"X: ", b"a"),
    ],
    ids=["nothing", "a head", "empty lines", "empty lines after a request", "a second head"],
)
def test_a_head_has_a_time(here: Callable[..., Server], first: bytes, drip: bytes) -> None:
    server = here(HEAD_SECONDS=1)
    with server.connect() as client:
        client.sendall(first)
        if first.startswith(HEALTH):
            assert one_response(client)[2] == b"ok\n"
        client.settimeout(0.05)
        start = time.monotonic()
        while True:
            with suppress(TimeoutError):
                with suppress(ConnectionError):
                    assert client.recv(1) == b""
                break
            with suppress(ConnectionError):
                client.sendall(drip)
            assert time.monotonic() - start < 5
        assert 0.9 < time.monotonic() - start < 3


# bodies


def test_a_body_without_end_is_refused_and_not_read(server: Server) -> None:
    with server.connect() as client:
        sent: list[int] = []
        chunk = b"10000\r\n" + b"a" * 65536 + b"\r\n"
        sender = threading.Thread(target=lambda: sent.append(send(client, CHUNKED + chunk * 1600)))
        sender.start()
        status, headers, body = one_response(client)
        assert read(client) == b""
        sender.join()
    assert (status, headers["connection"]) == (413, "close")
    message = "The body is longer than 524288 bytes."
    assert json.loads(body) == {"errors": [{"message": message, "extensions": {"code": "LIMIT_EXCEEDED"}}]}
    assert sent[0] < 30 * MB  # what the kernel holds included


def test_a_client_that_first_sends_all_reads_that_its_body_is_too_long(server: Server) -> None:
    with server.connect() as client:
        client.sendall(POST + b"Content-Length: 1000000\r\n\r\n" + b"a" * 1_000_000)
        assert one_response(client)[0] == 413
        assert read(client) == b""


def test_a_body_without_end_that_nobody_asked_for_is_not_read(server: Server) -> None:
    with server.connect() as client:
        sent: list[int] = []
        head = HEALTH[:-2] + b"Content-Length: 100000000\r\n\r\n"
        sender = threading.Thread(target=lambda: sent.append(send(client, head + bytes(100_000_000))))
        sender.start()
        assert one_response(client)[0] == 200
        assert read(client) == b""
        sender.join()
    assert sent[0] < 30 * MB


def test_a_body_that_does_not_arrive_in_time_ends_the_connection(here: Callable[..., Server]) -> None:
    server = here(DISCARD_SECONDS=0.5)
    with server.connect() as client:
        start = time.monotonic()
        client.sendall(POST + b"Content-Length: 1000\r\n\r\n{")
        status, headers, body = one_response(client)
        assert (status, headers["connection"]) == (408, "close")
        message = "The body took longer than 1 seconds to arrive."
        assert json.loads(body) == {"errors": [{"message": message, "extensions": {"code": "BAD_REQUEST"}}]}
        assert client.recv(1) == b""
        while send(client, b" "):
            time.sleep(0.05)
        assert 1 <= time.monotonic() - start < 5


def test_the_rest_of_a_body_after_its_answer_is_no_request(server: Server) -> None:
    with server.connect() as client:
        client.sendall(POST.replace(b"application/json", b"text/plain") + b"Content-Length: %d\r\n\r\n" % len(HEALTH))
        assert one_response(client)[0] == 415
        client.sendall(HEALTH)
        client.sendall(HEALTH)
        assert one_response(client)[2] == b"ok\n"
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)


# responses


def ask_for(client: socket.socket, size: int) -> None:
    client.sendall(b"GET /bytes/%d HTTP/1.1\r\nHost: x\r\n\r\n" % size)


def test_what_slow_readers_hold_is_bounded(server: Server) -> None:
    before = server.memory()
    with ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(server.connect(SO_RCVBUF=4096))
            ask_for(client, 16 * MB)
            server.healthy()
        assert server.memory() - before < 200
        late = server.connect()
        ask_for(late, 16 * MB)
        assert len(one_response(late)[2]) == 16 * MB
        late.close()


async def test_who_reads_nothing_or_hardly_anything_is_dropped_and_who_reads_slowly_is_not(
    here: Callable[..., Server],
) -> None:
    server = here(STALL_SECONDS=1, MIN_RATE=100_000)

    def receive(buffer: int, size: int, close: str = "") -> int:
        """Read so much ten times a second, for three seconds, and then all that there is; the bytes of it all."""
        with server.connect(SO_RCVBUF=buffer) as client:
            client.sendall(f"GET /bytes/{3 * MB} HTTP/1.1\r\nHost: x\r\n{close}\r\n".encode())
            got = 0
            for _ in range(30):
                time.sleep(0.1)
                got += len(client.recv(size)) if size else 0
            return got + len(read(client))

    nothing, closing, crawling, slow = await asyncio.gather(
        asyncio.to_thread(receive, 4096, 0),
        asyncio.to_thread(receive, 4096, 0, "Connection: close\r\n"),
        asyncio.to_thread(receive, 4096, 1000),
        asyncio.to_thread(receive, 65536, 65536),
    )
    assert max(nothing, closing, crawling) < 3 * MB < slow


def test_small_responses_that_are_not_read_do_not_keep_a_connection(here: Callable[..., Server]) -> None:
    server = here(STALL_SECONDS=1)
    with server.connect(SO_RCVBUF=4096) as client:
        client.settimeout(0.5)
        with suppress(OSError):
            for _ in range(100_000):
                client.sendall(b"GET /bytes/20000 HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        time.sleep(4)
        with pytest.raises(ConnectionError):
            client.send(b"a")


# numbers


def test_idle_and_slow_connections_keep_nobody_out(server: Server) -> None:
    with ExitStack() as stack:
        kept = stack.enter_context(server.connect())
        kept.sendall(HEALTH)
        assert one_response(kept)[0] == 200
        for _ in range(1000):
            stack.enter_context(server.connect())
        slow = [stack.enter_context(server.connect()) for _ in range(200)]
        for client in slow:
            client.sendall(POST + b"Content-Length: 1000\r\n\r\n{")
        seconds = sorted(server.healthy() for _ in range(50))
    assert seconds[25] < 0.1
    assert seconds[-1] < 5


def test_the_longest_idle_make_room(here: Callable[..., Server]) -> None:
    server = here(MAX_CONNECTIONS=10)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(10)]
        clients[1].sendall(HEALTH)
        assert one_response(clients[1])[0] == 200
        for _ in range(3):
            server.healthy()
        open_ones = []
        for client in clients:
            client.settimeout(0.1)
            try:
                open_ones.append(bool(client.recv(1)))
            except TimeoutError:
                open_ones.append(True)
        # the connections of the health checks have been closed by then, so one made room for all of them
        assert open_ones == [False, *[True] * 9]


def test_requests_in_progress_are_bounded_and_health_is_told_all_the_same(here: Callable[..., Server]) -> None:
    server = here(MAX_CONNECTIONS=20)
    released.clear()
    with ExitStack() as stack:
        stack.callback(released.set)
        clients = [stack.enter_context(server.connect()) for _ in range(10)]
        for client in clients:
            client.sendall(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        server.healthy()
        with server.connect() as late:
            late.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            status, headers, body = one_response(late)
            assert late.recv(1) == b""
        assert (status, headers) == (
            503,
            {
                "content-type": "application/json; charset=utf-8",
                "content-length": str(len(body)),
                "vary": "accept",
                "cache-control": "no-store",
                **{name.decode(): value.decode() for name, value in SECURITY_HEADERS},
                "retry-after": "1",
                "connection": "close",
            },
        )
        message = "Too many requests are in progress; ask again in 1 s."
        assert json.loads(body) == {
            "errors": [{"message": message, "extensions": {"code": "OVERLOADED", "retryAfter": 1}}]
        }
        server.healthy()
        released.set()
        assert [one_response(client)[2] for client in clients] == [b"released"] * 10
        with server.connect() as late:
            late.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            assert one_response(late)[2] == b'{"data":{"__typename":"Query"}}'


def test_those_that_wait_longest_for_their_bodies_make_room_for_others(here: Callable[..., Server]) -> None:
    server = here(MAX_CONNECTIONS=20)
    with ExitStack() as stack:
        clients = []
        for _ in range(8):
            clients.append(stack.enter_context(server.connect()))
            clients[-1].sendall(POST + b"Content-Length: %d\r\n\r\n{" % len(BODY))
            server.healthy()
        with suppress(ConnectionError):
            assert [client.recv(1) for client in clients[:3]] == [b""] * 3
        for client in clients[3:]:
            client.sendall(BODY[1:])
            assert one_response(client)[2] == b'{"data":{"__typename":"Query"}}'


def test_few_files_suffice(tmp_path: Path) -> None:
    with process(tmp_path, files=200) as server, ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(server.connect())
        for _ in range(10):
            server.healthy()
        assert "Too many open files" not in server.log()


# framing


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (POST + b"Content-Length: 24\r\nTransfer-Encoding: chunked\r\n\r\n18\r\n" + BODY + b"\r\n0\r\n\r\n", NOT_HTTP),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 24\r\n\r\n18\r\n" + BODY + b"\r\n0\r\n\r\n", NOT_HTTP),
        (POST + b"Content-Length: 24\r\nContent-Length: 0\r\n\r\n" + BODY, NOT_HTTP),
        (POST + b"Content-Length: 24\r\nContent-Length: 24\r\n\r\n" + BODY, NOT_HTTP),
        (POST + b"Content-Length: 24, 24\r\n\r\n" + BODY, NOT_HTTP),
        (POST + b"Content-Length: +24\r\n\r\n" + BODY, NOT_HTTP),
        (POST + b"Content-Length: 0x18\r\n\r\n" + BODY, NOT_HTTP),
        (POST + b"Content-Length: -1\r\n\r\n" + BODY, NOT_HTTP),
        (POST + b"Content-Length: 18446744073709551616\r\n\r\n" + BODY, NOT_HTTP),
        (POST + b"Transfer-Encoding : chunked\r\n\r\n", NOT_HTTP),
        (POST + b"Transfer-Encoding: chunked\r\n chunked\r\n\r\n", NOT_HTTP),
        (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n", NOT_HTTP),
        (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n", NOT_HTTP),
        (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", NOT_HTTP),
        (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", NOT_HTTP),
        (POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n", CODING),
        (POST + b"Transfer-Encoding: identity, chunked\r\n\r\n", CODING),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", CODING),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n", CODING),
        (POST + b'Transfer-Encoding: "chunked"\r\n\r\n', CODING),
        (POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n18\r\n" + BODY + b"\r\n0\r\n\r\n", TE),
        (CHUNKED + b"18\n" + BODY + b"\n0\n\n", NOT_HTTP),
        (CHUNKED + b"FFFFFFFFFFFFFFFFF\r\n" + BODY, NOT_HTTP),
        (CHUNKED + b"-1\r\n" + BODY, NOT_HTTP),
        (CHUNKED + b"18\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\n\r\n", NOT_HTTP),
        (b"GET /healthz HTTP/1.1\r\n\r\n", HOST),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", HOST),
        (b"GET /healthz HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", HOST),
        (b"GET /healthz HTTP/1.1\nHost: x\n\n", NOT_HTTP),
        (b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03", NOT_HTTP),
    ],
)
def test_what_others_may_read_otherwise_is_refused(server: Server, data: bytes, answer: bytes) -> None:
    # nothing of what follows is answered
    assert server.ask(data + HEALTH) == answer


@pytest.mark.parametrize("encoding", [b"chunked", b"Chunked", b" chunked "])
def test_chunked_bodies_are_taken(server: Server, encoding: bytes) -> None:
    head = POST + b"Connection: close\r\nTransfer-Encoding: " + encoding + b"\r\n\r\n"
    for body in (b"18\r\n" + BODY + b"\r\n", b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in BODY)):
        got = server.ask(head + body + b"0\r\nX: a\r\n\r\n")
        assert (head_of(got)[0], got.partition(b"\r\n\r\n")[2]) == (200, b'{"data":{"__typename":"Query"}}')


def test_http_1_0_needs_no_host(server: Server) -> None:
    got = server.ask(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert (head_of(got)[0], got[-3:]) == (200, b"ok\n")


def test_a_body_after_an_upgrade_that_is_not_made_is_no_request(server: Server) -> None:
    with server.connect() as client:
        upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(HEALTH)
        client.sendall(POST + upgrade)
        assert one_response(client)[1]["connection"] == "close"
        send(client, HEALTH)
        assert read(client) == b""


def test_requests_over_one_connection(server: Server) -> None:
    body = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with server.connect() as client:
        for _ in range(20):
            client.sendall(HEALTH)
            assert one_response(client)[2] == b"ok\n"
            client.sendall(body[:30])
            client.sendall(body[30:])
            assert one_response(client)[2] == b'{"data":{"__typename":"Query"}}'
        # and many at once, whose answers are read in the meantime
        sender = threading.Thread(target=send, args=(client, (HEALTH + body) * 2000))
        sender.start()
        answers = b"".join(one_response(client)[2] for _ in range(4000))
        sender.join()
    assert answers == (b"ok\n" + b'{"data":{"__typename":"Query"}}') * 2000


def test_a_long_body_arrives_whole(server: Server) -> None:
    query = json.dumps({"query": "{__typename}", "variables": {"a": "x" * 500_000}}).encode()
    with server.connect() as client:
        for _ in range(3):
            client.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(query) + query + HEALTH)
            assert one_response(client)[2] == b'{"data":{"__typename":"Query"}}'
            assert one_response(client)[2] == b"ok\n"


def test_what_is_wrong_behind_a_request_is_not_its_answer(here: Callable[..., Server]) -> None:
    server = here()
    released.clear()
    assert server.ask(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n") == b""
    released.set()


def test_queued_requests_are_few(server: Server) -> None:
    before = server.memory()
    with ExitStack() as stack:
        for _ in range(50):
            client = stack.enter_context(server.connect(SO_RCVBUF=4096))
            client.settimeout(0.2)
            ask_for(client, 400_000)
            send(client, b"GET /bytes/0 HTTP/1.1\r\nHost: x\r\n\r\n" * 6000)
        server.healthy()
        assert server.memory() - before < 80


class Upgraded(asyncio.Protocol):
    """What takes over a connection as WebSocket."""

    def __init__(self, **_: Any) -> None:
        self.got = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data
        if self.got.endswith(b"end"):
            self.transport.write(self.got)
            self.transport.close()


def test_a_websocket_is_handed_over(here: Callable[..., Server]) -> None:
    server = here(ws=Upgraded, HEAD_SECONDS=0.2)
    head = b"GET /live HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    with server.connect() as client:
        client.sendall(head)
        time.sleep(1)  # longer than any limit of a request
        client.sendall(b"the end")
        assert read(client) == head + b"the end"


# the log


async def test_the_log_has_a_line_a_second(here: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    server = here(SWEEP_SECONDS=1)
    for _ in range(300):
        assert server.ask(b"nonsense\r\n\r\n") == NOT_HTTP

    def counts() -> list[int]:
        lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        found = [re.fullmatch(r"Requests refused with 400 Bad Request: (\d+)\.", line) for line in lines]
        return [int(each[1]) for each in found if each] if all(found) else [-1]

    async def all_told() -> bool:
        return sum(counts()) == 300

    await seconds_until(all_told)
    assert len(counts()) <= 5
