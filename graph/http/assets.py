"""GraphiQL for browsers, from the files that the build of the wheel puts into `web/dist`."""

from pathlib import Path

from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

DIST = Path(__file__).parents[1] / "web" / "dist"
NOT_BUILT = (
    "<!doctype html><title>stockgraph</title><p>GraphiQL is not here, since npm could not be reached when stockgraph "
    "was built: install it again where it can, and start the server again. The API answers here without it."
)
SECURITY_HEADERS = {
    # the editor (Monaco) sets styles on its elements
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def graphiql_page() -> HTMLResponse:
    """Return GraphiQL for a browser at the address of the API, or a page that says how to build it."""
    index = DIST / "index.html"
    return HTMLResponse(
        index.read_bytes() if index.exists() else NOT_BUILT,
        headers={**SECURITY_HEADERS, "Cache-Control": "no-cache", "Vary": "Accept"},
    )


class Assets(StaticFiles):
    """Static files named by a hash of their contents, so that browsers may cache them for ever."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file with the security headers, since a worker's script follows its own policy, not the page's."""
        response = await super().get_response(path, scope)
        response.headers.update({**SECURITY_HEADERS, "Cache-Control": "public, max-age=31536000, immutable"})
        return response


def page_routes() -> list[BaseRoute]:
    """Return the routes to the files that the page refers to; none if GraphiQL was not built."""
    assets = DIST / "graphql" / "assets"
    if not assets.exists():
        return []
    # level 9 takes twice the CPU time for 5 % fewer bytes
    return [Mount("/graphql/assets", GZipMiddleware(Assets(directory=assets), compresslevel=4))]
