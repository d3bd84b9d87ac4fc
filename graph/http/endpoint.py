"""GraphQL over HTTP as its draft has it: GET for queries, POST for mutations too, a page for browsers, at one address.

An ASGI application of its own rather than Strawberry's view, of which little would be left once Accept, status codes,
limits and time-outs are right; and what a request does not pass through costs it nothing.
"""

import asyncio
import json
import logging
import re
import uuid
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, cast
from urllib.parse import parse_qsl

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from strawberry import Schema
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types.graphql import OperationType

from graph.caching.response_cache import CachedResponse, ResponseCache
from graph.errors import GraphError, LimitExceeded

JSON = "application/json"
GRAPHQL = "application/graphql-response+json"
HTML = "text/html"
METHODS = {
    "GET": {OperationType.QUERY},
    "HEAD": {OperationType.QUERY},
    "POST": {OperationType.QUERY, OperationType.MUTATION},
}
OPTIONAL = (("operationName", str, "a string"), ("variables", dict, "an object"), ("extensions", dict, "an object"))
UTF_8 = ("utf-8", "utf8")
SERVER_FAILED = {"INTERNAL": 500, "DATABASE_UNAVAILABLE": 503}
NOT_MODIFIED = 304
_CONTENT = 4
"""Where the headers of a kept answer begin to tell of its body, which there is none of with a 304."""
UNWATCHED_SECONDS = 0.1
"""How long an operation runs before somebody watches for its client's going."""
QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")

logger = logging.getLogger(__name__)

Payload = dict[str, Any]
ExecuteFromCache: TypeAlias = Callable[[str, dict[str, Any] | None, str | None, Any], dict[str, Any] | None]
"""From a document, its variables, the operation's name and a context to the data; None where it is to be executed."""


class _Refused(Exception):
    """A request that holds no GraphQL operation, or none that its method may carry."""

    def __init__(self, status: int, message: str, code: str = "BAD_REQUEST", allow: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.payload = _error(message, code)
        self.headers = [(b"allow", allow.encode())] if allow else []


class _Disconnected(Exception):
    """The client has gone, and there is nobody to answer."""


class _Expired(Exception):
    """An operation whose time is up."""


class _Operation(NamedTuple):
    query: str
    name: str | None
    variables: dict[str, Any] | None


class GraphQLEndpoint:
    """Answers at one address: `starlette.routing.Route("/graphql", GraphQLEndpoint(...))`.

    `make_context` makes the context of each operation; `page` answers a browser that brings no query; `at_once` gives
    the data of what need not be executed. Bodies and query strings over `max_body` bytes are refused. An operation is
    cancelled when it has run for `time_limit` seconds, or when its client disconnects. Status 500 is a fault of the
    server alone, in the log under the id that the answer has.
    """

    def __init__(
        self,
        schema: Schema,
        make_context: Callable[[], Any],
        page: Callable[[], Response],
        answers: Callable[[], ResponseCache] | None = None,
        execute_from_cache: ExecuteFromCache | None = None,
        *,
        max_body: int = 512 * 1024,
        time_limit: float = 30.0,
    ) -> None:
        self._schema = schema
        self._make_context = make_context
        self._page = page
        self._answers = answers
        self._execute_from_cache = execute_from_cache
        self._max_body = max_body
        self._time_limit = time_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        method = scope["method"]
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers[name] = headers[name] + b"," + value if name in headers else value
        page = method in ("GET", "HEAD") and b"query=" not in scope["query_string"]
        accepted = _negotiate(headers.get(b"accept", b"")[:1000], page=page)
        if accepted == HTML:
            await self._page()(scope, receive, send)
            return
        media_type = GRAPHQL if accepted == GRAPHQL else JSON
        more_headers: list[tuple[bytes, bytes]] = []
        try:
            request = await self._request(scope, headers, receive, acceptable=accepted is not None)
            answers = self._answers() if self._answers else None
            key = (
                answers.key(b"%s %s" % (b"POST" if method == "POST" else b"GET", media_type.encode()), request)
                if answers
                else b""
            )
            kept = answers.get(key) if answers else None
            again = kept is not None
            if kept is None:
                operation = _read(request, method)
                payload, context = self._from_memory(operation) or await self._execute(operation, method, receive)
                status, body = _status(payload, media_type), _encode(payload)
                if answers and context is not None and "errors" not in payload:
                    kept = answers.store(key, body, context.validity)
        except _Disconnected:
            return
        except _Refused as refused:
            kept, status, body, more_headers = None, refused.status, _encode(refused.payload), refused.headers
        except Exception:
            kept, error_id = None, uuid.uuid4().hex
            logger.exception("Internal error %s", error_id)
            message = f"Internal error; the log has it under id {error_id}."
            status, body = 500, _encode(_error(message, "INTERNAL", id=error_id))
        if kept:
            await _send_kept(send, kept, headers, method, media_type, zip_it=again)
            return
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", f"{media_type}; charset=utf-8".encode()),
                    (b"content-length", str(len(body)).encode()),
                    (b"vary", b"accept"),
                    (b"cache-control", b"no-store"),
                    (b"x-content-type-options", b"nosniff"),
                    *more_headers,
                ],
            }
        )
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

    async def _request(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, *, acceptable: bool) -> bytes:
        """Give the body, or the query string of a method that has none."""
        method = scope["method"]
        if method not in METHODS:
            raise _Refused(
                405, f"{method} is not answered here; use POST, or GET for queries.", allow=", ".join(METHODS)
            )
        if not acceptable:
            raise _Refused(406, f"Nothing that Accept names can be sent; {GRAPHQL} and {JSON} can.")
        if method == "POST":
            # A page of another site can have a browser post forms and plain text here, but not JSON.
            if not _is_json(headers.get(b"content-type", b"")[:1000]):
                raise _Refused(415, f"Send the parameters as {JSON} in UTF-8.")
            return await self._body(receive)
        query_string: bytes = scope["query_string"]
        if len(query_string) > self._max_body:
            raise _Refused(414, f"The query string is longer than {self._max_body} bytes.", LimitExceeded.code)
        return query_string

    async def _body(self, receive: Receive) -> bytes:
        def late() -> Exception:
            return _Refused(408, f"The body took longer than {self._time_limit:g} seconds to arrive.")

        body = bytearray()
        more = True
        with RequestGuard(self._time_limit, late):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Disconnected
                body += message.get("body", b"")
                if len(body) > self._max_body:
                    raise _Refused(413, f"The body is longer than {self._max_body} bytes.", LimitExceeded.code)
                more = message.get("more_body", False)
        return bytes(body)

    def _from_memory(self, operation: _Operation) -> tuple[Payload, Any] | None:
        """Answer with what is kept, if that is all of it: nobody need watch over what does not wait."""
        if self._execute_from_cache is None:
            return None
        context = self._make_context()
        data = self._execute_from_cache(operation.query, operation.variables, operation.name, context)
        return None if data is None else ({"data": data}, context)

    async def _execute(self, operation: _Operation, method: str, receive: Receive) -> tuple[Payload, Any]:
        """Run the operation for as long as it may take and its client waits."""
        try:
            with RequestGuard(self._time_limit, _Expired, receive):
                return await self._run(operation, method)
        except _Expired:
            message = f"The operation was stopped after {self._time_limit:g} seconds; ask for less at a time."
            return _error(message, LimitExceeded.code), None

    async def _run(self, operation: _Operation, method: str) -> tuple[Payload, Any]:
        """Give the answer, and the context if it is that of a query that was executed."""
        allowed: set[OperationType] = {OperationType.QUERY}
        while True:
            try:
                context = self._make_context()
                result = await self._schema.execute(
                    operation.query,
                    variable_values=operation.variables,
                    context_value=context,
                    operation_name=operation.name,
                    allowed_operation_types=allowed,
                )
            except CannotGetOperationTypeError:
                found = "no operation" if operation.name is None else f"no operation named {operation.name!r}"
                return _error(f"The document has {found}.", "OPERATION_RESOLUTION_FAILURE"), None
            except InvalidOperationTypeError as error:
                kind = error.operation_type
                if kind in METHODS[method] - allowed:
                    allowed = METHODS[method]
                    continue
                if method == "POST":
                    return _error(f"A {kind.value} is not answered over HTTP.", "OPERATION_RESOLUTION_FAILURE"), None
                message = f"A {kind.value} is not answered by {method}; use POST."
                raise _Refused(405, message, allow="POST") from error
            except GraphError as error:
                return {"errors": [{"message": str(error), "extensions": error.extensions}]}, None
            break
        payload: Payload = {}
        # Errors of fields have a path; without one nothing was executed, and then there is no `data` in the answer.
        if result.data is not None or any(error.path for error in result.errors or ()):
            payload["data"] = result.data
        if result.errors:
            payload["errors"] = [error.formatted for error in result.errors]
        if result.extensions:
            payload["extensions"] = result.extensions
        return payload, context if allowed == {OperationType.QUERY} else None


async def _send_kept(
    send: Send, kept: CachedResponse, headers: dict[bytes, bytes], method: str, media_type: str, *, zip_it: bool
) -> None:
    accepted = headers.get(b"accept-encoding")
    zipped = await kept.zipped() if zip_it and accepted and _accepts_gzip(accepted[:1000]) else None
    body = zipped or kept.body
    form = media_type, zipped is not None
    sent = kept.headers.get(form)
    if sent is None:
        # another ETag for each form that it is sent in
        sent = kept.headers[form] = [
            (b"etag", b'"%s%s%s"' % (kept.tag, b"-g" if media_type == GRAPHQL else b"", b"-gzip" if zipped else b"")),
            (b"vary", b"accept, accept-encoding"),
            (b"cache-control", b"private, no-cache"),
            (b"x-content-type-options", b"nosniff"),
            (b"content-type", f"{media_type}; charset=utf-8".encode()),
            (b"content-length", str(len(body)).encode()),
            *([(b"content-encoding", b"gzip")] if zipped else []),
        ]
    status = 200
    if method != "POST":
        known, (_, etag) = headers.get(b"if-none-match", b"").strip(), sent[0]
        if known and (known == b"*" or etag in (each.strip().removeprefix(b"W/") for each in known.split(b","))):
            status, sent = NOT_MODIFIED, sent[:_CONTENT]
    await send({"type": "http.response.start", "status": status, "headers": [*sent]})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" or status == NOT_MODIFIED else body})


@lru_cache(maxsize=64)
def _accepts_gzip(accept_encoding: bytes) -> bool:
    """Tell whether gzip is accepted, by its name or as anything, and not at a quality of nothing."""
    qualities: dict[str, str] = {}
    for coding in accept_encoding.decode("latin-1").split(","):
        name, parameters = _media_type(coding)
        qualities[name] = parameters.get("q", "1")
    quality = qualities.get("gzip", qualities.get("*", "0"))
    return bool(QUALITY.fullmatch(quality)) and float(quality) > 0


def _error(message: str, code: str, **details: str) -> Payload:
    return {"errors": [{"message": message, "extensions": {"code": code, **details}}]}


def _status(payload: Payload, media_type: str) -> int:
    """In `application/json`, which servers of any kind send, a status other than 200 would not tell who failed."""
    if "data" in payload:
        return 200
    codes = (error.get("extensions", {}).get("code") for error in payload["errors"])
    client = 200 if media_type == JSON else 400
    return max(SERVER_FAILED.get(code, client) for code in codes)


def _encode(payload: Payload) -> bytes:
    try:
        return orjson.dumps(payload)
    except TypeError:
        # It writes neither integers over 64 bits nor more than 254 levels, of which a scalar such as JSON may be.
        return json.dumps(payload, separators=(",", ":")).encode()


def _decode(text: bytes | str, what: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _Refused(400, f"The {what} is not JSON: {error}.") from error


def _read(request: bytes, method: str) -> _Operation:
    """Read the parameters from where the method has them."""
    if method == "POST":
        return _check(_decode(request, "body"))
    try:
        given: dict[str, object] = dict(parse_qsl(request.decode(), keep_blank_values=True, errors="strict"))
    except UnicodeDecodeError as error:
        raise _Refused(400, "The query string is not UTF-8.") from error
    for name in ("variables", "extensions"):
        if text := given.pop(name, ""):
            given[name] = _decode(str(text), name)
    return _check(given)


def _check(parameters: object) -> _Operation:
    if isinstance(parameters, list):
        raise _Refused(400, "Batches are not answered; send each operation in a request of its own.")
    if not isinstance(parameters, dict):
        raise _Refused(400, "The body must be a JSON object that has the document as its `query`.")
    query = parameters.get("query")
    if not isinstance(query, str) or not query:
        raise _Refused(400, "The parameter `query` must be the text of a GraphQL document.")
    for name, kind, noun in OPTIONAL:
        if not isinstance(parameters.get(name), kind | None):
            raise _Refused(400, f"The parameter `{name}` must be {noun} or null.")
    variables = parameters.get("variables")
    try:
        orjson.dumps(variables)
    except TypeError as error:  # it reads 1024 levels and writes 254
        raise _Refused(400, "The variables are nested more than 250 levels deep.", LimitExceeded.code) from error
    # An empty name in a query string is no name.
    return _Operation(query, parameters.get("operationName") or None, variables)


def _media_type(text: str) -> tuple[str, dict[str, str]]:
    """Split `text/html; Charset="UTF-8"` into `text/html` and its parameters, all in lower case."""
    name, *parameters = text.lower().split(";")
    pairs = (parameter.partition("=") for parameter in parameters)
    return name.strip(), {key.strip(): value.strip().strip('"') for key, _, value in pairs}


@lru_cache(maxsize=64)
def _is_json(content_type: bytes) -> bool:
    media_type, parameters = _media_type(content_type.decode("latin-1"))
    return media_type == JSON and parameters.get("charset", "utf-8") in UTF_8


@lru_cache(maxsize=64)
def _negotiate(accept: bytes, *, page: bool) -> str | None:
    """Choose the media type that the header Accept likes best, or None where it likes none; HTML only if `page`."""
    qualities: dict[str, float] = {}
    for media_range in (accept.decode("latin-1") or "*/*").split(","):
        name, parameters = _media_type(media_range)
        quality = parameters.get("q", "1")
        if parameters.get("charset", "utf-8") in UTF_8 and QUALITY.fullmatch(quality):
            qualities[name] = float(quality)

    def rank(media_type: str) -> tuple[float, int, bool]:
        for distance, name in enumerate((media_type, re.sub("/.*", "/*", media_type), "*/*")):
            if name in qualities:
                # Who accepts anything gets `application/json`, who names both of equal quality the other.
                return qualities[name], -distance, distance == 0 and media_type == GRAPHQL
        return 0, 0, False

    best = max((JSON, GRAPHQL, HTML) if page else (JSON, GRAPHQL), key=rank)
    return best if rank(best)[0] else None


class RequestGuard:
    """Stops what is within when its time is up, or its client goes where that is to be watched, and raises why."""

    # `asyncio.timeout`, or a task of its own for what is within, would take three times as long

    def __init__(self, seconds: float, late: Callable[[], Exception], receive: Receive | None = None) -> None:
        self._seconds = seconds
        self._timeout_error = late
        self._receive = receive
        self._reasons: list[Exception] = []
        self._listening: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = cast("asyncio.Task[None]", asyncio.current_task(self._loop))
        self._before = self._task.cancelling()
        # one timer, since most end before it
        first = self._seconds if self._receive is None else min(UNWATCHED_SECONDS, self._seconds)
        self._timer = self._loop.call_later(first, self._on_timer)

    def _on_timer(self) -> None:
        if self._receive and not self._listening:
            self._listening = self._loop.create_task(self._listen(self._receive))
            self._timer = self._loop.call_later(self._seconds - UNWATCHED_SECONDS, self._on_timer)
        else:
            self._stop(self._timeout_error())

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stop(_Disconnected())

    def _stop(self, reason: Exception) -> None:
        self._reasons.append(reason)
        self._task.cancel()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._timer.cancel()
        if self._listening:
            self._listening.cancel()
        for _ in self._reasons:
            self._task.uncancel()
        if isinstance(error, asyncio.CancelledError) and self._task.cancelling() <= self._before:
            raise self._reasons[0] if self._reasons else RuntimeError("Something within cancelled it") from error
