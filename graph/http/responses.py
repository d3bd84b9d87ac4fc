"""GraphQL responses: their status, headers and bytes, sent from a payload or from the response cache."""

import json
from collections.abc import Iterable
from typing import Any, TypeAlias

import orjson
from starlette.types import Send

from graph.caching.response_cache import CachedResponse
from graph.errors import ErrorCode
from graph.http.negotiation import CONTENT_TYPES, GRAPHQL, JSON, accepts_gzip

Payload: TypeAlias = dict[str, Any]
Headers: TypeAlias = dict[bytes, bytes]

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
)
"""Headers of every response: no page of another site may show, embed or guess at it."""

_STATUS_BY_CODE = {code.value: code.status for code in ErrorCode}
_SERVER_ERROR = 500
_NOT_MODIFIED = 304
_NOT_MODIFIED_HEADERS = 3 + len(SECURITY_HEADERS)
"""Number of a cached response's headers that a 304 has too; those that follow describe a body."""


def error_payload(message: str, code: ErrorCode, **details: str | int) -> Payload:
    """Return the payload of a request that failed with one error."""
    return {"errors": [{"message": message, "extensions": {"code": code.value, **details}}]}


def status_of(payload: Payload, media_type: str) -> int:
    """Return the HTTP status of a payload.

    In `application/json` a client's error has status 200, since any intermediary may send other statuses in that type.
    """
    if "data" in payload:
        return 200
    codes = (error.get("extensions", {}).get("code") for error in payload["errors"])
    status = max(_STATUS_BY_CODE.get(code, 400) for code in codes)
    return 200 if media_type == JSON and status < _SERVER_ERROR else status


def retry_headers(payload: Payload) -> list[tuple[bytes, bytes]]:
    """Return the header that says when to ask again, of a payload with an error that says so."""
    for error in payload.get("errors", ()):
        if seconds := error.get("extensions", {}).get("retryAfter"):
            return [(b"retry-after", b"%d" % seconds)]
    return []


def encode(payload: Payload) -> bytes:
    """Encode a payload as JSON."""
    try:
        return orjson.dumps(payload)
    except TypeError:
        # orjson writes neither integers over 64 bits nor more than 254 levels, both of which a JSON scalar may have
        return json.dumps(payload, separators=(",", ":")).encode()


async def send_response(
    send: Send,
    status: int,
    body: bytes,
    media_type: str,
    method: str,
    more_headers: Iterable[tuple[bytes, bytes]],
) -> None:
    """Send a response that no cache may store."""
    headers = [
        (b"content-type", CONTENT_TYPES[media_type]),
        (b"content-length", str(len(body)).encode()),
        (b"vary", b"accept"),
        (b"cache-control", b"no-store"),
        *SECURITY_HEADERS,
        *more_headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


async def send_cached_response(
    send: Send,
    cached: CachedResponse,
    request_headers: Headers,
    media_type: str,
    method: str,
    more_headers: Iterable[tuple[bytes, bytes]],
    *,
    compress: bool,
) -> None:
    """Send a cached response, with gzip if `compress` and the client accepts it, or a 304 if the client has it."""
    accept_encoding = request_headers.get(b"accept-encoding")
    zipped = await cached.zipped() if compress and accept_encoding and accepts_gzip(accept_encoding[:1000]) else None
    body = zipped or cached.body
    representation = media_type, zipped is not None
    headers = cached.headers.get(representation)
    if headers is None:
        # each representation needs an ETag of its own
        suffix = (b"-g" if media_type == GRAPHQL else b"") + (b"-gzip" if zipped else b"")
        headers = cached.headers[representation] = [
            (b"etag", b'"%s%s"' % (cached.tag, suffix)),
            (b"vary", b"accept, accept-encoding"),
            (b"cache-control", b"private, no-cache"),
            *SECURITY_HEADERS,
            (b"content-type", CONTENT_TYPES[media_type]),
            (b"content-length", str(len(body)).encode()),
            *([(b"content-encoding", b"gzip")] if zipped else []),
        ]
    status = 200
    if method == "POST":
        headers = headers[1:]  # nothing can be asked by an ETag of it
    else:
        known, (_, etag) = request_headers.get(b"if-none-match", b"").strip(), headers[0]
        if known and (known == b"*" or etag in (each.strip().removeprefix(b"W/") for each in known.split(b","))):
            status, headers = _NOT_MODIFIED, headers[:_NOT_MODIFIED_HEADERS]
    # a copy, since a server or middleware may add its own
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *more_headers]})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" or status == _NOT_MODIFIED else body})
