"""Origins: the hosts that requests may name, and the other sites whose pages may send them.

A page of another site can make its visitor's browser send requests here, and by DNS rebinding it can give this server a
name of its own. Browsers say both in headers: which host was meant, and which site asks.
"""

import re
import socket
from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.http.negotiation import JSON
from graph.http.requests import METHODS, RequestError
from graph.http.responses import SECURITY_HEADERS, encode, error_payload, send_response

ORIGIN_HEADERS = frozenset((b"host", b"origin", b"sec-fetch-site"))
"""Headers that decide about the origin of a request."""
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - compared with
"""The address that stands for all, as it does in `--host`."""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(:[0-9]*)?", re.ASCII)
_MAX_HOST = 300
_MAX_KNOWN = 1_000
_PREFLIGHT_SECONDS = 600


def listening_hosts(address: str) -> tuple[str, ...]:
    """Return the hosts that clients of a server on an address may name, beside those of loopback."""
    if _is_loopback(_normalize(address)):
        return ()
    # the resolver might be asked for more names, but may not answer for long
    machine = socket.gethostname()
    return tuple(dict.fromkeys((ALL_ADDRESSES, address, machine, machine.partition(".")[0])))


class Hosts(dict[bytes, bool]):
    """Host headers with whether they are allowed, each worked out once.

    Allowed are `localhost`, names below it, loopback addresses and `names`. Among these `*` stands for every host, and
    0.0.0.0 or :: for every IP address: DNS cannot make a page's name into one.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self._names = frozenset(map(_normalize, names))
        self._every_host = "*" in self._names
        self._every_address = not self._names.isdisjoint((ALL_ADDRESSES, "::"))

    def allowed(self, header: bytes) -> bool:
        """Return whether a Host header, with or without a port, names an allowed host."""
        match = len(header) <= _MAX_HOST and _HOST.fullmatch(header.decode("latin-1").lower())
        if not match:
            return False
        host = _normalize(match[1])
        return (
            self._every_host
            or _is_loopback(host)
            or host in self._names
            or (self._every_address and _address(host) is not None)
        )

    def __missing__(self, header: bytes) -> bool:
        allowed = self.allowed(header)
        if allowed:
            if len(self) >= _MAX_KNOWN:
                self.clear()
            self[header] = allowed
        return allowed


def _normalize(host: str) -> str:
    host = host.lower().removesuffix(".").strip("[]")
    return str(_address(host) or host)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host == "localhost" or host.endswith(".localhost")


class Origins:
    """Refuses requests to hosts that are not allowed, and reads by pages of other sites than those in `cors`.

    A page of a site in `cors` may send and read what this server's own pages may (CORS, without credentials). The paths
    `any_host` are answered to everybody: whoever watches over a process may know no name of it.
    """

    def __init__(self, hosts: Hosts, cors: Iterable[str], any_host: Collection[str]) -> None:
        self.hosts = hosts
        self.cors = frozenset(origin.lower().encode() for origin in cors)
        self._any_host = any_host

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an HTTP request on to an application, unless it is refused or a preflight of CORS."""
        method, headers = scope["method"], dict[bytes, bytes]()
        for name, value in scope["headers"]:
            headers[name] = headers[name] + b", " + value if name in headers else value
        more_headers: list[tuple[bytes, bytes]] = [(b"vary", b"origin")] if self.cors else []
        readable = headers.get(b"origin", b"") in self.cors
        if readable:
            more_headers.append((b"access-control-allow-origin", headers[b"origin"]))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                secure = [header for header in SECURITY_HEADERS if header[0] not in given]
                message["headers"] = [*message["headers"], *secure, *more_headers]
            await send(message)

        try:
            if scope["path"] not in self._any_host:
                self._check(method, headers, readable=readable)
        except RequestError as error:
            body = encode(error_payload(str(error), error.code))
            await send_response(send_with_headers, error.status, body, JSON, method, error.headers)
            return
        if readable and method == "OPTIONS" and b"access-control-request-method" in headers:
            more_headers += [
                (b"access-control-allow-methods", ", ".join(METHODS).encode()),
                (b"access-control-allow-headers", b"content-type"),
                (b"access-control-max-age", b"%d" % _PREFLIGHT_SECONDS),
            ]
            await send_with_headers({"type": "http.response.start", "status": 204, "headers": []})
            await send_with_headers({"type": "http.response.body"})
            return
        await app(scope, receive, send_with_headers)

    def _check(self, method: str, headers: Mapping[bytes, bytes], *, readable: bool) -> None:
        host = headers.get(b"host", b"")
        if not host or b"," in host:
            raise RequestError(400, "A request must have one Host header, with the name that it asks.")
        if not self.hosts[host]:
            name = host[:100].decode("latin-1")
            raise RequestError(
                421, f"This server does not answer for the host {name!r}; let it with `serve --allow-host NAME`."
            )
        # a POST of another site needs a preflight, since it must be JSON
        if method in ("GET", "HEAD") and not readable and _is_cross_site(headers):
            raise RequestError(
                403,
                "Pages of other sites are not answered here; let those of one with `serve --cors ORIGIN`, and let them "
                "fetch with CORS.",
            )


def _is_cross_site(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a browser reads for a page of another site; to go here by a link is no such reading."""
    site = headers.get(b"sec-fetch-site")
    if site is None:
        # not sent by old browsers, nor to hosts other than loopback over plain HTTP
        origin = headers.get(b"origin")
        return origin is not None and origin.partition(b"://")[2] != headers[b"host"]
    navigates = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
    return site not in (b"same-origin", b"none") and not navigates
