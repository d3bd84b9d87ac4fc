"""The `serve` command: its checks before the start, what it prints, and the server that it runs."""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from importlib.metadata import metadata, version
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

import uvicorn
from cyclopts import Parameter, validators
from starlette.applications import Starlette

from graph.app import create_app, from_environment
from graph.cli.connections import connected
from graph.cli.output import configure_logging, print_note, progress_bar
from graph.errors import DatabaseUnavailable, StockgraphError
from graph.http.assets import DIST
from graph.http.origins import listening_hosts
from graph.loading.demo import demo_groups
from graph.loading.group_writer import GroupRefused, load_groups
from graph.model import GroupType
from graph.postgres.database import Database
from graph.postgres.ddl import has_been_used, make_tables
from graph.postgres.embedded import database_url, default_home
from graph.settings import Settings

UVICORN_OPTIONS: dict[str, Any] = {
    "access_log": False,
    "log_config": None,
    "proxy_headers": False,  # any program of this machine could write X-Forwarded-For, and so pass for others
    "log_level": "warning",
    "server_header": False,
    "timeout_graceful_shutdown": 5,
    "http": "graph.http.protocol:Connection",
}


def serve(
    *,
    host: Annotated[
        str, Parameter(help="The address to listen on; 0.0.0.0 stands for all addresses of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port to listen on.")] = 8000,
    workers: Annotated[int, Parameter(help="The number of server processes.", validator=validators.Number(gte=1))] = 1,
    demo: Annotated[bool, Parameter(help="Fill an empty embedded database with real groups.")] = True,
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> None:
    """Serve GraphQL at /graphql, and GraphiQL to a browser there, until Ctrl-C.

    Without DATABASE_URL an embedded PostgreSQL runs as long as the server does. This command never alters a database
    that DATABASE_URL names: `stockgraph init` makes the tables that it lacks.
    """
    signal.signal(signal.SIGTERM, _exit)
    _check_port_free(host, port)
    with database_url(settings) as url:
        if settings.database_url is None:
            asyncio.run(_prepare_embedded(url, settings, demo=demo))
        served = replace(settings, database_url=url, allow_host=(*settings.allow_host, *listening_hosts(host)))
        contents = asyncio.run(_check_tables(served))
        _print_start(host, port, settings, contents)
        if workers == 1:
            uvicorn.run(create_app(served), host=host, port=port, **UVICORN_OPTIONS)
        else:
            # without the URL of the embedded database, which each worker uses by itself
            replace(served, database_url=settings.database_url).to_environment()
            app = "graph.cli.serving:worker_app"
            uvicorn.run(app, factory=True, workers=workers, host=host, port=port, **UVICORN_OPTIONS)


def worker_app() -> Starlette:
    """Make the application of a worker process, which ends with its parent."""
    configure_logging()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    return from_environment()


def _end_with_parent() -> None:
    """Stop this process gracefully once its parent has ended."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        # an event loop that hangs would hold the port for ever
        time.sleep(2 * UVICORN_OPTIONS["timeout_graceful_shutdown"])
        os.kill(os.getpid(), signal.SIGKILL)


def _exit(_: int, __: object) -> NoReturn:
    sys.exit(0)


def _check_port_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, OverflowError) as error:
        raise StockgraphError(
            f"Cannot listen on {host} port {port}: {error}; choose others with --host, --port."
        ) from error


async def _prepare_embedded(url: str, settings: Settings, *, demo: bool) -> None:
    """Make the tables of the embedded database, and load the demo into a new one."""
    async with connected(url) as connection:
        await make_tables(connection)
        if not demo or await has_been_used(connection):
            return
        print_note("The database is empty and gets demo data: real sectors, indexes, funds and themes.")
        groups = demo_groups()
        with progress_bar() as progress:
            # in one transaction, since half a demo would pass for a used database at the next start
            async with connection.transaction():
                done = 0
                async for outcome in load_groups(connection, groups, environment=settings.environment):
                    if isinstance(outcome, GroupRefused):
                        raise outcome
                    done += 1
                    progress(f"Filling {outcome.type} {outcome.name}", done, len(groups))


async def _check_tables(settings: Settings) -> str | None:
    """Return a description of the database's contents, or None with a warning if it does not answer yet.

    DatabaseUnavailable if it lacks tables.
    """
    try:
        async with Database(settings.database_url or "") as database:
            (tracking,) = (await database.fetch("tracking", with_generation=False)).rows
            contents = await _describe_contents(database, settings) if tracking["complete"] else None
    except DatabaseUnavailable as error:
        logging.getLogger(__name__).warning("%s Serving DATABASE_UNAVAILABLE until then.", error)
        return None
    if contents is None:
        raise DatabaseUnavailable("The database of DATABASE_URL lacks tables; `stockgraph init` makes them.")
    return contents


async def _describe_contents(database: Database, settings: Settings) -> str:
    rows = (await database.fetch("contents", settings.environment, with_generation=False)).rows
    (prices,) = (await database.fetch("price_table", with_generation=False)).rows
    day = (await database.fetch("last_price_day", with_generation=False)).rows[0]["day"] if prices["there"] else None
    return _contents_text({row["kind"]: row["total"] for row in rows}, day)


def _contents_text(counts: Mapping[str, int], last_price_day: date | None) -> str:
    """Describe the numbers of groups by type and of stocks, or the command that loads some."""
    groups = {kind: counts[kind] for kind in GroupType if counts.get(kind)}
    if not groups:
        return "no groups yet; `stockgraph load FILE` brings them"
    types = ", ".join(f"{count:,} {kind}" for kind, count in groups.items())
    prices = f"prices until {last_price_day}" if last_price_day else "no prices (`stockgraph load FILE` brings them)"
    return f"{sum(groups.values()):,} groups ({types}); {counts['STOCK']:,} stocks; {prices}"


def _print_start(host: str, port: int, settings: Settings, contents: str | None) -> None:
    """Print the addresses of the server, the place and contents of its data, and the address of its documentation."""
    pages = "GraphiQL in a browser, the API to programs"
    if not DIST.exists():
        pages = "the API; GraphiQL was not built, since npm could not be reached when stockgraph was installed"
    links = [each.split(", ", 1)[1] for each in metadata("stockgraph").get_all("Project-URL", [])]
    lines = [
        ("serves", f"{' and '.join(_addresses(host, port))}  {pages}"),
        ("data", _describe_place(settings)),
        ("holds", contents),
        ("docs", next((link for link in links if link.endswith("#readme")), None)),
    ]
    print_note("  (Ctrl-C stops it)", mark=f"stockgraph {version('stockgraph')}")
    for name, text in lines:
        if text:
            print_note(f"  {name:7} {text}")


def _addresses(host: str, port: int) -> list[str]:
    """Return the URLs for a browser here and, if the server listens on all addresses, for other machines."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104 - compared with
        return [f"http://[{host}]:{port}/graphql" if ":" in host else f"http://{host}:{port}/graphql"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward, suppress(OSError):
        outward.connect(("192.0.2.1", 9))  # reserved for documentation (RFC 5737); nothing is sent to it
        return [f"http://{each}:{port}/graphql" for each in dict.fromkeys(("127.0.0.1", outward.getsockname()[0]))]
    return [f"http://127.0.0.1:{port}/graphql"]


def _describe_place(settings: Settings) -> str:
    """Describe the place of the data, without a password."""
    if settings.database_url is None:
        return f"{settings.home or default_home()} (a PostgreSQL of its own)"
    parts = urlsplit(settings.database_url)
    return f"{parts.path.lstrip('/') or 'the database'} on {parts.hostname or 'this machine'}"
