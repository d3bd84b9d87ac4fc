"""The ASGI application: its routes, and the runtime that its lifespan opens and closes."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.caching.memory import share_of
from graph.errors import DatabaseUnavailable, ErrorCode
from graph.execution.documents import Documents
from graph.execution.operation import Operation
from graph.execution.runtime import Runtime, open_runtime
from graph.http.assets import graphiql_page, page_routes
from graph.http.endpoint import GraphQLEndpoint, observed
from graph.schema import make_schema
from graph.settings import Settings
from graph.telemetry import Observer

GRAPHQL_PATH = "/graphql"


class Application(Starlette):
    """A Starlette application that passes GraphQL requests on before its middleware and routes.

    These take a tenth of the time of a cached answer.
    """

    def __init__(self, endpoint: ASGIApp, **options: Any) -> None:
        super().__init__(**options)
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the endpoint or the routes."""
        if scope["type"] == "http" and scope["path"] == GRAPHQL_PATH:
            await self._endpoint(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings, observer: Observer | None = None) -> Starlette:
    """Make the application; its lifespan opens and closes the runtime. An observer is told of all that it does."""
    runtime: Runtime

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        nonlocal runtime
        async with open_runtime(settings, observer=observer, documents=schema.documents) as runtime:
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

    schema = make_schema(documents=Documents(share_of(settings.memory_bytes, "documents")))
    endpoint = GraphQLEndpoint(
        schema,
        lambda caller, address: Operation(runtime, caller, address),
        graphiql_page,
        None if settings.response_cache == "off" else lambda: runtime.response_cache,
        schema.execute_from_cache,
    )
    return Application(
        observed(endpoint, observer) if observer else endpoint,
        lifespan=lifespan,
        routes=[
            Route(GRAPHQL_PATH, endpoint),
            Route("/healthz", alive),
            Route("/readyz", ready),
            *page_routes(),
        ],
    )


def from_environment() -> Starlette:
    """Make the application of a worker process, with the settings of its environment variables."""
    return create_app(Settings.from_environment())
