"""GraphiQL for browsers, from the files that the build of the wheel puts into `web/dist`."""

import asyncio
import gzip
from collections.abc import Iterable
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from graph.http.negotiation import accepts_gzip
from graph.http.responses import SECURITY_HEADERS

DIST = Path(__file__).parents[1] / "web" / "dist"
NOT_BUILT = (
    "<!doctype html><title>stockgraph</title><p>GraphiQL is not here, since npm could not be reached when stockgraph "
    "was built: install it again where it can, and start the server again. The API answers here without it."
)
PAGE_HEADERS = {name.decode(): value.decode() for name, value in SECURITY_HEADERS} | {
    # the editor (Monaco) sets styles on its elements
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "cross-origin-opener-policy": "same-origin",
}


def graphiql_page() -> HTMLResponse:
    """Return GraphiQL for a browser at the address of the API, or a page that says how to build it."""
    index = DIST / "index.html"
    return HTMLResponse(
        index.read_bytes() if index.exists() else NOT_BUILT,
        headers={**PAGE_HEADERS, "Cache-Control": "no-cache", "Vary": "Accept"},
    )


class Assets:
    """Files named by a hash of their contents, so that browsers may cache them for ever; each is compressed once."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = {file.name: file for file in files}
        self._compressed: dict[str, bytes] = {}
        self._compressing = asyncio.Lock()

    async def respond(self, request: Request) -> Response:
        """Return a file with the headers of the page, since a worker's script follows its own policy."""
        name = request.path_params["name"]
        if name not in self._files:
            raise HTTPException(404)
        zipped = accepts_gzip(request.headers.get("accept-encoding", "").encode("latin-1")[:1000])
        headers = {
            **PAGE_HEADERS,
            "cache-control": "public, max-age=31536000, immutable",
            "vary": "Accept-Encoding",
            "etag": f'"{name}{"-gzip" if zipped else ""}"',
        }
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        response = FileResponse(self._files[name], headers=headers)
        if not zipped:
            return response
        return Response(await self._compress(name), 200, {**headers, "content-encoding": "gzip"}, response.media_type)

    async def _compress(self, name: str) -> bytes:
        async with self._compressing:
            if name not in self._compressed:
                self._compressed[name] = await asyncio.to_thread(gzip.compress, self._files[name].read_bytes(), mtime=0)
        return self._compressed[name]


def page_routes() -> list[BaseRoute]:
    """Return the routes to the files that the page refers to; none if GraphiQL was not built."""
    assets = DIST / "graphql" / "assets"
    return [Route("/graphql/assets/{name}", Assets(assets.iterdir()).respond)] if assets.exists() else []
