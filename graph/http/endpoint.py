"""GraphQL over HTTP, as the GraphQL-over-HTTP draft specifies it: GET for queries, POST for mutations too.

An ASGI application of its own: Strawberry's view would leave Accept, status codes, limits, time-outs and the response
cache to be written over it, and cost each request more.
"""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from strawberry import Schema
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError

from graph.caching.response_cache import ResponseCache
from graph.errors import ErrorCode, GraphError
from graph.http.cancellation import ClientDisconnected, RequestGuard
from graph.http.negotiation import CONTENT_TYPES, GRAPHQL, HTML, JSON, is_json, negotiate
from graph.http.requests import (
    METHODS,
    GraphQLRequest,
    RequestCheck,
    RequestCount,
    RequestError,
    RequestHead,
    parse_request,
)
from graph.http.responses import (
    Headers,
    Payload,
    encode,
    error_payload,
    retry_headers,
    send_cached_response,
    send_response,
    status_of,
)
from graph.model import ANONYMOUS, Caller
from graph.telemetry import Observer

log = logging.getLogger(__name__)

INLINE_BYTES = 500_000
"""Bytes of an answer that are encoded on the event loop; more take over half a millisecond."""

ExecuteFromCache: TypeAlias = Callable[[str, dict[str, Any] | None, str | None, Any], dict[str, Any] | None]
"""A function from document, variables, operation name and context to the data, or None if it has to be executed."""


class _OperationTimeout(Exception):
    """The operation ran longer than its time limit."""


def observed(app: ASGIApp, observer: Observer) -> ASGIApp:
    """Return an application whose requests an observer is told of."""

    async def observe(scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.monotonic(), 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await app(scope, receive, send_noting)
        finally:
            observer.request(status, time.monotonic() - started)

    return observe


class GraphQLEndpoint:
    """ASGI application for one address: `starlette.routing.Route("/graphql", GraphQLEndpoint(...))`.

    `identify` tells who the caller is; without it all are anonymous. `count` counts a request and each of `checks` may
    refuse it, before its body is read and before the response cache. `make_context` makes the context of an operation
    for a caller and an address, `page` the response to a browser that sends no query, and `execute_from_cache` the data
    of queries that need not be executed. Bodies and query strings over `max_body` bytes are refused. An operation is
    cancelled after `time_limit` seconds, or when its client disconnects. Status 500 means a fault of the server, which
    is in the log under the id in the response.
    """

    def __init__(
        self,
        schema: Schema,
        make_context: Callable[[Caller, str], Any],
        page: Callable[[], Response],
        response_cache: Callable[[], ResponseCache] | None = None,
        execute_from_cache: ExecuteFromCache | None = None,
        *,
        identify: Callable[[RequestHead], Caller] | None = None,
        checks: Sequence[RequestCheck] = (),
        count: RequestCount | None = None,
        max_body: int = 512 * 1024,
        time_limit: float = 30.0,
    ) -> None:
        self._schema = schema
        self._make_context = make_context
        self._page = page
        self._response_cache = response_cache
        self._execute_from_cache = execute_from_cache
        self._identify = identify
        self._checks = checks
        self._count = count
        self._max_body = max_body
        self._time_limit = time_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        method = scope["method"]
        headers: Headers = {}
        for name, value in scope["headers"]:
            headers[name] = headers[name] + b"," + value if name in headers else value
        html = method in ("GET", "HEAD") and b"query=" not in scope["query_string"]
        accepted = negotiate(headers.get(b"accept", b"")[:1000], html=html)
        if accepted == HTML:
            await self._page()(scope, receive, send)
            return
        media_type = GRAPHQL if accepted == GRAPHQL else JSON
        more_headers: list[tuple[bytes, bytes]] = []
        try:
            caller, text = await self._read(scope, headers, receive, more_headers, acceptable=accepted is not None)
            cache = self._response_cache() if self._response_cache else None
            key, cached = b"", None
            if cache:
                key = cache.key(
                    b"%s %s" % (b"POST" if method == "POST" else b"GET", CONTENT_TYPES[media_type]), text, caller
                )
                cached = cache.get(key)
            hit = cached is not None
            if not hit:
                request = parse_request(text, method)
                address = (scope.get("client") or ("",))[0]
                answer = self._answer_from_cache(request, caller, address)  # which does not wait, and needs no guard
                payload, context, body = answer or await self._execute_guarded(
                    request, caller, address, method, receive
                )
                status = status_of(payload, media_type)
                more_headers += retry_headers(payload)
                if cache and context is not None and "errors" not in payload:
                    cached = cache.store(key, body, context.validity)
        except ClientDisconnected:
            return
        except RequestError as error:
            cached, status = None, error.status
            more_headers += error.headers
            body = encode(error_payload(str(error), error.code))
        except Exception:
            error_id = uuid.uuid4().hex
            log.exception("Internal error %s", error_id)
            message = f"Internal error; the log has it under id {error_id}."
            cached, status = None, ErrorCode.INTERNAL.status
            body = encode(error_payload(message, ErrorCode.INTERNAL, id=error_id))
        if cached:
            await send_cached_response(send, cached, headers, media_type, method, more_headers, compress=hit)
        else:
            await send_response(send, status, body, media_type, method, more_headers)

    async def _admit(self, head: RequestHead, more_headers: list[tuple[bytes, bytes]]) -> Caller:
        """Return the caller of a request that is neither one too many nor refused by a check."""
        caller = self._identify(head) if self._identify else ANONYMOUS
        if self._count:
            more_headers += await self._count(head, caller)
        for check in self._checks:
            check(head, caller)
        return caller

    async def _read(
        self,
        scope: Scope,
        headers: Headers,
        receive: Receive,
        more_headers: list[tuple[bytes, bytes]],
        *,
        acceptable: bool,
    ) -> tuple[Caller, bytes]:
        """Return the caller, and the body or the query string of a method that has none."""
        method = scope["method"]
        caller = ANONYMOUS
        if self._identify or self._checks or self._count:
            head = RequestHead(method, headers, (scope.get("client") or (None,))[0])
            caller = await self._admit(head, more_headers)
        if method not in METHODS:
            raise RequestError(
                405, f"{method} is not answered here; use POST, or GET for queries.", allow=", ".join(METHODS)
            )
        if not acceptable:
            raise RequestError(406, f"Nothing that Accept names can be sent; {GRAPHQL} and {JSON} can.")
        if method == "POST":
            # a page of another site can make a browser post forms and plain text here, but not JSON
            if not is_json(headers.get(b"content-type", b"")[:1000]):
                raise RequestError(415, f"Send the parameters as {JSON} in UTF-8.")
            return caller, await self._read_body(receive)
        query_string: bytes = scope["query_string"]
        if len(query_string) > self._max_body:
            raise RequestError(
                414, f"The query string is longer than {self._max_body} bytes.", ErrorCode.LIMIT_EXCEEDED
            )
        return caller, query_string

    async def _read_body(self, receive: Receive) -> bytes:
        def timeout_error() -> Exception:
            return RequestError(408, f"The body took longer than {self._time_limit:g} seconds to arrive.", close=True)

        body = bytearray()
        more = True
        with RequestGuard(self._time_limit, timeout_error):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected
                body += message.get("body", b"")
                if len(body) > self._max_body:
                    raise RequestError(
                        413, f"The body is longer than {self._max_body} bytes.", ErrorCode.LIMIT_EXCEEDED, close=True
                    )
                more = message.get("more_body", False)
        return bytes(body)

    def _answer_from_cache(
        self, request: GraphQLRequest, caller: Caller, address: str
    ) -> tuple[Payload, Any, bytes] | None:
        """Return the payload, context and body of a query whose data are all cached, or None."""
        if self._execute_from_cache is None or request.extensions:
            return None
        context = self._make_context(caller, address)
        data = self._execute_from_cache(request.query, request.variables, request.operation_name, context)
        if data is None:
            return None
        payload: Payload = {"data": data}
        return payload, context, encode(payload)

    async def _execute_guarded(
        self, request: GraphQLRequest, caller: Caller, address: str, method: str, receive: Receive
    ) -> tuple[Payload, Any, bytes]:
        """Execute the operation and encode its answer, within its time limit and while the client stays connected."""
        try:
            with RequestGuard(self._time_limit, _OperationTimeout, receive):
                payload, context = await self._execute(request, caller, address, method)
                if getattr(context, "answer_bytes", 0) > INLINE_BYTES:
                    return payload, context, await context.run_in_lane(encode, payload)
        except _OperationTimeout:
            message = f"The operation was stopped after {self._time_limit:g} seconds; ask for less at a time."
            payload, context = error_payload(message, ErrorCode.LIMIT_EXCEEDED), None
        return payload, context, encode(payload)

    async def _execute(self, request: GraphQLRequest, caller: Caller, address: str, method: str) -> tuple[Payload, Any]:
        """Return the payload, and the context if the operation was executed."""
        allowed = METHODS[method]
        try:
            context = self._make_context(caller, address)
            result = await self._schema.execute(
                request.query,
                variable_values=request.variables,
                context_value=context,
                operation_name=request.operation_name,
                allowed_operation_types=allowed,
                operation_extensions=request.extensions,
            )
        except CannotGetOperationTypeError:
            name = request.operation_name
            found = "no operation" if name is None else f"no operation named {name!r}"
            return error_payload(f"The document has {found}.", ErrorCode.OPERATION_RESOLUTION_FAILURE), None
        except InvalidOperationTypeError as error:
            kind = error.operation_type.value
            if method == "POST":
                message = f"A {kind} is not answered over HTTP."
                return error_payload(message, ErrorCode.OPERATION_RESOLUTION_FAILURE), None
            raise RequestError(405, f"A {kind} is not answered by {method}; use POST.", allow="POST") from error
        except GraphError as error:
            return {"errors": [{"message": str(error), "extensions": error.extensions}]}, None
        payload: Payload = {}
        # errors of fields have a path; without any nothing was executed, and the response must have no `data`
        if result.data is not None or any(error.path for error in result.errors or ()):
            payload["data"] = result.data
        if result.errors:
            payload["errors"] = [error.formatted for error in result.errors]
        if result.extensions:
            payload["extensions"] = result.extensions
        return payload, context
