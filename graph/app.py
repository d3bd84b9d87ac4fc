"""The ASGI application: its routes, and the runtime that its lifespan opens and closes."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.caching.memory import share_of
from graph.errors import DatabaseUnavailable, ErrorCode
from graph.execution.documents import Documents
from graph.execution.operation import Operation
from graph.execution.runtime import Runtime, open_runtime
from graph.http.assets import graphiql_page, page_routes
from graph.http.endpoint import GraphQLEndpoint, observed
from graph.http.origins import ORIGIN_HEADERS, Hosts, Origins
from graph.http.requests import METHODS
from graph.postgres.embedded import database_url
from graph.schema import make_schema
from graph.settings import Settings
from graph.telemetry import Observer

GRAPHQL_PATH = "/graphql"


class Application(Starlette):
    """A Starlette application that passes GraphQL requests on before its middleware and routes.

    These take a tenth of the time of a cached answer. `origins` looks at all requests but those that no browser sent.
    """

    def __init__(self, endpoint: ASGIApp, origins: Origins, observer: Observer | None, **options: Any) -> None:
        super().__init__(**options)
        # a redirect of Starlette's own repeats the host of the request
        self.router.redirect_slashes = False
        self._origins = origins
        self._endpoint, self._guarded_endpoint = endpoint, cast("ASGIApp", partial(origins.serve, endpoint))
        if observer:
            self._endpoint = observed(self._endpoint, observer)
            self._guarded_endpoint = observed(self._guarded_endpoint, observer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the endpoint or the routes."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        elif scope["path"] != GRAPHQL_PATH:
            await self._origins.serve(super().__call__, scope, receive, send)
        else:
            endpoint, host = self._guarded_endpoint, b""
            # a loop, since the calls of a function would show in the time of a cached answer
            for name, value in scope["headers"]:
                if name in ORIGIN_HEADERS:
                    if host or name != b"host":
                        break
                    host = value
            else:
                if self._origins.hosts[host] and (scope["method"] == "POST" or not self._origins.cors):
                    endpoint = self._endpoint
            await endpoint(scope, receive, send)


def create_app(settings: Settings, observer: Observer | None = None) -> Starlette:
    """Make the application; its lifespan opens and closes the runtime. An observer is told of all that it does."""
    runtime: Runtime
    limiter = None
    if settings.rate:
        # a module that takes 25 ms to import, which servers without a limit need not wait for
        from graph.http.rates import RateLimiter  # noqa: PLC0415

        limiter = RateLimiter(settings.rate, settings.cache_url)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        nonlocal runtime
        with database_url(settings) as url:
            async with open_runtime(
                replace(settings, database_url=url), observer=observer, documents=schema.documents
            ) as runtime:
                # objects made by now live as long as the process, and need no garbage collection
                gc.collect()
                gc.freeze()
                thresholds = gc.get_threshold()
                # a response is hundreds of objects, which reference counting frees before a collection is due
                gc.set_threshold(20_000, *thresholds[1:])
                try:
                    yield
                finally:
                    gc.set_threshold(*thresholds)
                    gc.unfreeze()
                    if limiter:
                        await limiter.close()

    async def alive(_: Request) -> Response:
        """Answer `ok` as long as the process runs."""
        return PlainTextResponse("ok\n")

    unavailable = ErrorCode.DATABASE_UNAVAILABLE.status

    async def ready(_: Request) -> Response:
        """Answer 200 if the database answers and has the tables, else 503 with the reason."""
        try:
            reading = await runtime.database.fetch("tracking", with_generation=False)
        except DatabaseUnavailable as error:
            return JSONResponse({"ready": False, "reason": str(error)}, status_code=unavailable)
        if not reading.rows[0]["complete"]:
            reason = "The database lacks tables; `stockgraph init` makes what is missing."
            return JSONResponse({"ready": False, "reason": reason}, status_code=unavailable)
        return JSONResponse({"ready": True})

    async def without_slash(request: Request) -> Response:
        """Redirect to the address of the API, relative to this one, so that no host is named."""
        return RedirectResponse(f"..{GRAPHQL_PATH}?{request.url.query}".removesuffix("?"))

    health = {"/healthz": alive, "/readyz": ready}
    schema = make_schema(documents=Documents(share_of(settings.memory_bytes, "documents")))
    endpoint = GraphQLEndpoint(
        schema,
        lambda caller, address: Operation(runtime, caller, address),
        graphiql_page,
        None if settings.response_cache == "off" else lambda: runtime.response_cache,
        schema.execute_from_cache,
        count=limiter.count if limiter else None,
    )
    return Application(
        endpoint,
        Origins(Hosts(settings.allow_host), settings.cors, any_host=health),
        observer,
        lifespan=lifespan,
        routes=[
            Route(GRAPHQL_PATH, endpoint),
            Route(f"{GRAPHQL_PATH}/", without_slash, methods=[*METHODS]),
            *(Route(path, answer) for path, answer in health.items()),
            *page_routes(),
        ],
    )


def from_environment() -> Starlette:
    """Make the application with the settings of the environment variables, for any ASGI server."""
    return create_app(Settings.from_environment())
