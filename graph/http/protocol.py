"""HTTP connections of a server process: uvicorn's protocol, bounded in time, in bytes and in number.

uvicorn 0.54 has no options for that. Its parser httptools takes a head of any length for any time, and copies a long
header again with each part of it; its other one, h11, bounds heads but is far slower. `limit_concurrency` counts idle
connections, so that these shut everybody out, `timeout_keep_alive` ends with the first byte of a request, and nothing
ends a response that its client does not read.
"""

import asyncio
import logging
import resource
from collections import Counter, deque
from collections.abc import Callable
from http import HTTPStatus
from socket import IPPROTO_TCP, TCP_NOTSENT_LOWAT
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import httptools
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from graph.errors import ErrorCode
from graph.http.negotiation import CONTENT_TYPES, JSON
from graph.http.responses import encode, error_payload, retry_headers, send_response

MAX_CONNECTIONS = 1_000
"""Open connections of a process; fewer if the system lets it open few files.

Half as many requests may be in progress, and a quarter wait for their bodies.
"""
RESERVED_FILES = 100
"""Open files that connections leave to the rest of the process; half of all that it may open if those are few."""
MAX_HEAD = 64 * 1024
"""Bytes of the head of a request, of its target, and of what comes between two parts of its body or after the last."""
MAX_HEADERS = 256
"""Number of headers of a request."""
HEAD_SECONDS = 10.0
"""Seconds in which a head must arrive, from the opening of the connection or the first byte of a further request."""
DISCARD_SECONDS = 3.0
"""Seconds for which the rest of an answered request is read and thrown away, so that its client comes to the answer."""
MAX_DISCARDED = 1024 * 1024
"""Bytes of a connection that are thrown away so."""
STALL_SECONDS = 30.0
"""Seconds without any progress after which a client that does not read its response is dropped."""
MIN_RATE = 8_000
"""Bytes per second at which a client must read a response, once STALL_SECONDS have gone by."""
MAX_UNSENT = 128 * 1024 * 1024
"""Bytes of all responses that wait for their clients; past it those that have not read for longest are dropped."""
WRITE = 256 * 1024
"""Bytes of a response that are given to the transport at a time; the rest can be let go at once."""
MAX_UNSENT_IN_KERNEL = 128 * 1024
"""Bytes of a response that the kernel takes before it can send them; if it took megabytes, progress would not show."""
SLICE = 4 * 1024
"""Bytes that are parsed at a time. All requests in them are queued, and no more are parsed until these are answered."""
SWEEP_SECONDS = 1.0
"""Seconds between two looks for connections whose time is up, and at least between two lines of a kind in the log."""
RETRY_SECONDS = 1
"""Seconds after which a client is asked to try again if too many requests are in progress."""
HEALTH_CHECKS = (b"/healthz", b"/readyz")
"""Paths that are answered even then."""

log = logging.getLogger(__name__)


class _Refusal(Exception):
    """A request that is refused, with the status of the response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Unsent:
    """A response that waits for its client."""

    def __init__(self, size: int, now: float) -> None:
        self.size = self.left = size
        self.began = self.progressed = now

    def update(self, left: int, now: float) -> None:
        """Note how many bytes are left."""
        if left < self.left:
            self.progressed = now
        self.size += max(0, left - self.left)
        self.left = left

    def is_late(self, now: float) -> bool:
        """Return whether the client reads too slowly."""
        seconds = now - self.began
        slow = seconds > STALL_SECONDS and self.size - self.left < MIN_RATE * seconds
        return slow or now - self.progressed > STALL_SECONDS


class ConnectionPool:
    """The open connections of a server process, in queues by what they wait for; each tells since when."""

    def __init__(self, connection: "Connection") -> None:
        self._loop = connection.loop
        self._open = connection.connections
        self._tasks = connection.tasks
        self._keep_alive_seconds = connection.timeout_keep_alive
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        unlimited = files == resource.RLIM_INFINITY
        self._max_open = MAX_CONNECTIONS if unlimited else min(MAX_CONNECTIONS, max(files // 2, files - RESERVED_FILES))
        self.heads: dict[Connection, float] = {}
        self.bodies: dict[Connection, float] = {}
        self.idle: dict[Connection, float] = {}
        self.discarding: dict[Connection, float] = {}
        """Connections that have their response, though the request has not ended."""
        self.unsent: dict[Connection, _Unsent] = {}
        self._events: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def is_busy(self) -> bool:
        """Return whether too many requests are in progress, besides those that wait for their clients."""
        return len(self._tasks) - len(self.bodies) - len(self.unsent) >= self._max_open // 2

    def note(self, event: str) -> None:
        """Count an event, of which the log will have one line for all within a second."""
        self._events[event] += 1
        self._schedule_sweep()

    def make_room(self, newcomer: "Connection") -> None:
        """Drop the connection that has waited longest if too many are open, requests in progress last of all."""
        self._schedule_sweep()
        if len(self._open) <= self._max_open:
            return
        first = [next(iter(queue.items())) for queue in (self.discarding, self.heads, self.idle) if queue]
        longest, _ = min(first, key=lambda item: item[1])
        if longest is newcomer and self.unsent:
            longest = self._slowest_reader()
        longest.drop("Connections dropped, the longest idle ones first, since the process may have no more")

    def bound_bodies(self) -> None:
        """Drop the request that has waited longest for its body if too many do."""
        if len(self.bodies) > self._max_open // 4:
            next(iter(self.bodies)).drop("Requests dropped, since too many wait for their bodies")

    def await_reader(self, connection: "Connection") -> None:
        """Watch that a client reads its response, which waits for it."""
        if connection not in self.unsent:
            self.unsent[connection] = _Unsent(connection.unsent(), self._loop.time())
        while len(self.unsent) > 1 and sum(each.size for each in self.unsent.values()) > MAX_UNSENT:
            self._slowest_reader().drop("Clients dropped, since too many bytes wait for them to read")

    def _slowest_reader(self) -> "Connection":
        now = self._loop.time()
        for connection, unsent in self.unsent.items():
            unsent.update(connection.unsent(), now)
        return min(self.unsent, key=lambda each: self.unsent[each].progressed)

    def _schedule_sweep(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close the connections whose time is up, and log what happened."""
        now = self._loop.time()
        limits = (self.heads, HEAD_SECONDS), (self.idle, self._keep_alive_seconds), (self.discarding, DISCARD_SECONDS)
        for queue, limit in limits:
            for connection, since in [*queue.items()]:
                if now - since < limit:
                    break
                connection.expire()
        for connection, unsent in [*self.unsent.items()]:
            unsent.update(connection.unsent(), now)
            if unsent.is_late(now):
                connection.drop("Clients dropped, since they do not read their responses")
        for event, count in self._events.items():
            log.warning("%s: %d.", event, count)
        self._events.clear()
        self._timer = None
        if self._open:
            self._schedule_sweep()


_pools: WeakKeyDictionary[ServerState, ConnectionPool] = WeakKeyDictionary()


class _Flow(FlowControl):
    """The flow of a connection, which is not read from while a request waits for another or bytes for the parser."""

    def __init__(self, connection: "Connection") -> None:
        super().__init__(connection.transport)
        self._connection = connection

    def resume_reading(self) -> None:
        if self.read_paused and not self._connection.pipeline:
            self.read_paused = False
            self._connection.loop.call_soon(
                self._connection.read_on
            )  # later, since a callback of the parser calls this


async def _answer_overloaded(scope: Scope, _: Receive, send: Send) -> None:
    message = f"Too many requests are in progress; ask again in {RETRY_SECONDS} s."
    payload = error_payload(message, ErrorCode.OVERLOADED, retryAfter=RETRY_SECONDS)
    headers = [*retry_headers(payload), (b"connection", b"close")]
    await send_response(send, ErrorCode.OVERLOADED.status, encode(payload), JSON, scope["method"], headers)


class Connection(HttpToolsProtocol):
    """A connection from a client, which sends one request after another."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pool = _pools.get(self.server_state) or _pools.setdefault(self.server_state, ConnectionPool(self))
        self._queue: dict[Connection, float] | None = None
        self._application = self.app
        self._unparsed: memoryview | None = None
        self._in_head = self._in_body = self._ended = False
        self._framing = 0
        """Bytes since the head began, or since the last part of the body: of headers, chunk extensions or trailers."""
        self._discarded = 0
        self._unsent: deque[memoryview] = deque()
        self._start = b""
        """The start of a response, which is written together with what follows at once: each write takes a packet."""
        self._is_full = False
        self._when_sent: Callable[[], None] | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.flow = _Flow(self)
        transport.get_extra_info("socket").setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, MAX_UNSENT_IN_KERNEL)
        # the transport of responses, which uvicorn closes after the last one
        self._responses: Any = SimpleNamespace(write=self._write, is_closing=transport.is_closing, close=self._end)
        self._move_to(self._pool.heads)
        self._pool.make_room(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the pool."""
        self._leave()
        super().connection_lost(exc)

    def drop(self, event: str) -> None:
        """Close the connection at once, whatever it does, and note why."""
        self._leave()
        self.connections.discard(self)
        self.transport.abort()
        self._pool.note(event)

    def expire(self) -> None:
        """Close the connection since it has waited too long."""
        if self._queue is self._pool.discarding:
            self._leave()
            self.transport.abort()
        else:
            self._close()

    def shutdown(self) -> None:
        """Close the connection after the response in progress, since the server stops."""
        if self.cycle is None or self.cycle.response_complete:
            self._close()
        else:
            self.cycle.keep_alive = False

    def _close(self) -> None:
        """Close the connection once its client has read what was sent."""
        self._flush()
        self._move_to(None)
        self._ended = True
        self._unparsed = None
        if self._unsent:
            self._when_sent = self._close
            return
        self.transport.close()
        if self.unsent():
            self._pool.await_reader(self)

    def _end(self) -> None:
        """Close the connection after its last response."""
        if not self._in_head and not self._in_body:
            self._close()
            return
        self._flush()
        # if it were closed with bytes unread the client would get a reset, and perhaps never see the response
        self._ended = True
        self._unparsed = None
        self._move_to(self._pool.discarding)
        if self._unsent:
            self._when_sent = self.transport.write_eof
        else:
            self.transport.write_eof()
        self.transport.resume_reading()

    def _leave(self) -> None:
        self._move_to(None)
        self._pool.unsent.pop(self, None)
        self._unparsed = None
        self._unsent.clear()
        self._start = b""

    def _move_to(self, queue: "dict[Connection, float] | None") -> None:
        if queue is not self._queue:
            if self._queue is not None:
                del self._queue[self]
            if queue is not None:
                queue[self] = self.loop.time()
            self._queue = queue

    def _wait(self) -> None:
        """Move to the queue of what the connection waits for."""
        pool, cycle = self._pool, self.cycle
        if cycle is None:
            self._move_to(pool.heads)
        elif not cycle.response_complete:
            self._move_to(pool.bodies if self._in_body else None)
            if self._in_body:
                pool.bound_bodies()
        elif self._in_body:
            self._move_to(pool.discarding)
        else:
            self._move_to(pool.heads if self._in_head else pool.idle)

    def data_received(self, data: bytes) -> None:
        """Parse what came, in slices if it is long."""
        if self._queue is self._pool.discarding:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED:
                self.expire()
                return
        if self._ended:
            return
        if len(data) <= SLICE:
            self._parse(data)
        else:
            self._unparsed = memoryview(data)
            self.read_on()

    def read_on(self) -> None:
        """Parse what has come as far as the flow lets it, and then have more read."""
        while self._unparsed and not self.flow.read_paused:
            part, self._unparsed = self._unparsed[:SLICE], self._unparsed[SLICE:]
            self._parse(part)
        if not self.flow.read_paused and not self.transport.is_closing():
            self._unparsed = None
            self.transport.resume_reading()

    def _parse(self, data: bytes | memoryview) -> None:
        continued = self._in_head or self._in_body
        try:
            self.parser.feed_data(data)
            if self._in_head or self._in_body:
                if continued:
                    self._framing += len(data)
                self._check_size()
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except _Refusal as refusal:
            self._refuse(refusal)
        except httptools.HttpParserError as error:
            reason = error.__context__
            self._refuse(reason if isinstance(reason, _Refusal) else _Refusal(400, "The request is not HTTP/1.1."))
        else:
            self._wait()

    def on_message_begin(self) -> None:
        """Begin the head of a request."""
        self._in_head = True
        self._framing = self._discarded = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin to answer a request, unless its head or the load forbids it."""
        names = [name for name, _ in self.headers]
        if self._framing or len(names) > MAX_HEADERS:
            self._check_size()
        hosts = names.count(b"host")
        if hosts != 1 and (hosts or self.parser.get_http_version() != "1.0"):
            raise _Refusal(400, "A request must have exactly one header Host.")
        if b"transfer-encoding" in names:
            self._check_encoding(names)
        self._in_head, self._in_body = False, True
        self._framing = 0
        if self._pool.is_busy() and self.url.partition(b"?")[0] not in HEALTH_CHECKS:
            self._pool.note("Requests answered with 503, since too many are in progress")
            self.app = _answer_overloaded
        else:
            self.app = self._application
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = self._responses

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._framing = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._in_body = False
        super().on_message_complete()

    def _check_size(self) -> None:
        if len(self.url) > MAX_HEAD:
            raise _Refusal(414, f"The target is longer than {MAX_HEAD} bytes.")
        if len(self.headers) > MAX_HEADERS or self._framing > MAX_HEAD:
            raise _Refusal(431, f"The head is longer than {MAX_HEAD} bytes, or has more than {MAX_HEADERS} headers.")

    def _check_encoding(self, names: list[bytes]) -> None:
        """Refuse a body whose end another server might see elsewhere (RFC 9112, section 6.1)."""
        if self.parser.get_http_version() != "1.1" or b"content-length" in names:
            raise _Refusal(400, "Transfer-Encoding belongs to HTTP/1.1, and excludes Content-Length.")
        encodings = [value.strip(b" \t").lower() for name, value in self.headers if name == b"transfer-encoding"]
        if encodings != [b"chunked"]:
            raise _Refusal(501, "The only Transfer-Encoding that is understood is chunked.")

    def _upgrade(self) -> None:
        if self._should_upgrade() and not self._unsent:
            self._leave()
            self.handle_websocket_upgrade()
            return
        # the parser has taken the head for the whole request, and would take a body for the next one
        self._pool.note("Requests that ask for a protocol other than HTTP/1.1")
        self._ended = self._in_body = True
        self._unparsed = None
        self.cycle.keep_alive = False
        self._move_to(None)

    def _refuse(self, refusal: _Refusal) -> None:
        """Answer what is not a request, unless the answer would be taken for that to another one, and close."""
        self._pool.note(f"Requests refused with {refusal.status} {HTTPStatus(refusal.status).phrase}")
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if self.pipeline or not self._in_body or cycle.response_started:
                self._close()
                return
        body = encode(error_payload(str(refusal), ErrorCode.BAD_REQUEST))
        head = b"content-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (CONTENT_TYPES[JSON], len(body))
        self._write(STATUS_LINE[refusal.status] + head + body)
        self._in_body = True
        self._end()

    def on_response_complete(self) -> None:
        """Begin with the next request, or wait for one."""
        self._flush()
        self.server_state.total_requests += 1
        if self._ended or self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        self.flow.resume_reading()
        self._wait()

    def unsent(self) -> int:
        """Return the number of bytes that wait for the client."""
        return sum(map(len, self._unsent)) + self.transport.get_write_buffer_size()

    def _write(self, data: bytes) -> None:
        start, self._start = self._start, b""
        if not start and data[:5] == b"HTTP/":
            self._start = data
            self.loop.call_soon(self._flush)
        elif len(data) <= WRITE and not self._unsent:
            self._send(start + data)
        else:
            self._unsent += (memoryview(start), memoryview(data)) if start else (memoryview(data),)
            self._write_on()

    def _flush(self) -> None:
        if self._start:
            self._write(b"")

    def _send(self, data: bytes | memoryview) -> None:
        if self.parser is not None:  # it is None once the connection is lost
            self.transport.write(data)

    def _write_on(self) -> None:
        """Write what waits as far as the transport takes it."""
        while self._unsent and not self._is_full:
            part = self._unsent.popleft()
            if len(part) > WRITE:
                self._unsent.appendleft(part[WRITE:])
            self._send(part[:WRITE])

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        self._is_full = True
        super().pause_writing()
        self._pool.await_reader(self)

    def resume_writing(self) -> None:
        """Go on, since the client has read."""
        self._is_full = False
        self._write_on()
        if self._is_full:
            return
        super().resume_writing()
        if not self.transport.is_closing():
            self._pool.unsent.pop(self, None)
            if self._when_sent:
                self._when_sent()
