"""The pages for a browser: GraphiQL, as the build of the wheel left it in `web/dist`."""

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
    # Monaco, the editor, sets styles on its elements.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def graphiql_page() -> HTMLResponse:
    """Answer a browser that opens the address of the API: GraphiQL, or one line on how to build it."""
    index = DIST / "index.html"
    return HTMLResponse(
        index.read_bytes() if index.exists() else NOT_BUILT,
        headers={**SECURITY_HEADERS, "Cache-Control": "no-cache", "Vary": "Accept"},
    )


class Assets(StaticFiles):
    """Files named after their contents, which a browser therefore asks for only once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Add the headers; a worker's script is held to the policy that comes with it, not to the page's."""
        response = await super().get_response(path, scope)
        response.headers.update({**SECURITY_HEADERS, "Cache-Control": "public, max-age=31536000, immutable"})
        return response


def page_routes() -> list[BaseRoute]:
    """Route what the page names, relative to its address, to the files of the build; nothing where there is none."""
    assets = DIST / "graphql" / "assets"
    if not assets.exists():
        return []
    # Level 9 would take twice the processor time for a twentieth less.
    return [Mount("/graphql/assets", GZipMiddleware(Assets(directory=assets), compresslevel=4))]
