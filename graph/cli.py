"""The `stockgraph` command."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from decimal import Decimal
from importlib import import_module
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, NoReturn

import asyncpg
import orjson
import uvicorn
from cyclopts import App, CycloptsError, Parameter, validators
from rich.console import Console
from rich.progress import Progress

from graph.app import create_app, open_runtime
from graph.checks import Finding
from graph.checks import check as find_faults
from graph.context import Operation
from graph.database import Database, answered
from graph.embedded import default_home, embedded_postgres
from graph.errors import DatabaseUnavailable, StockgraphError
from graph.holdings import GroupHoldings, Reading, Unit, read_paths
from graph.loading import GroupDiff, LoadReport, load_groups
from graph.nodes import GroupType
from graph.schema import make_schema
from graph.settings import Settings, drop_empty_variables
from graph.tables import make_tables, mend_history

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130

err = Console(stderr=True, highlight=False, soft_wrap=True)

app = App(
    name="stockgraph",
    help="Serve stocks and the groups that hold them (ETFs, sectors, themes, universes) as GraphQL over PostgreSQL. "
    "Begin with `stockgraph serve`: it needs nothing else.",
    help_format="markdown",
    version=lambda: version("stockgraph"),
)


@app.command
def serve(
    *,
    host: Annotated[
        str, Parameter(help="The address to listen on; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port to listen on.")] = 8000,
    workers: Annotated[int, Parameter(help="How many server processes.", validator=validators.Number(gte=1))] = 1,
    demo: Annotated[bool, Parameter(help="Fill an empty embedded database with real groups.")] = True,
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> None:
    """Serve GraphQL at /graphql, and GraphiQL to a browser there, until Ctrl-C.

    Without DATABASE_URL an embedded PostgreSQL runs as long as the server does. A database that is named is never
    altered by this command: `stockgraph init` makes what it lacks.
    """
    signal.signal(signal.SIGTERM, _stop)
    _refuse_taken(host, port)
    with _database(settings) as url:
        asyncio.run(_look_over(url) if settings.database_url else _furnish(url, settings, demo=demo))
        served = replace(settings, database_url=url)
        err.print(f"[bold]stockgraph[/] serves http://{host}:{port}/graphql  (Ctrl-C stops it)")
        options: dict[str, Any] = {
            "host": host,
            "port": port,
            "access_log": False,
            "log_level": "warning",
            "server_header": False,
            "timeout_graceful_shutdown": 5,
            "limit_concurrency": 1_000,
        }
        if workers == 1:
            uvicorn.run(create_app(served), **options)
        else:
            served.to_environment()
            uvicorn.run("graph.app:from_environment", factory=True, workers=workers, **options)


@app.command
def init(*, settings: Settings = Settings()) -> None:  # noqa: B008 - frozen
    """Make the tables, indexes and triggers that a database lacks; what is there stays as it is.

    Where the history of groups was not kept for a while, it is mended, so that it ends in what is there.
    """

    async def run(url: str) -> tuple[list[str], int]:
        async with _connected(url) as connection:
            return await make_tables(connection), await mend_history(connection)

    with _database(settings) as url:
        made, mended = asyncio.run(run(url))
    done = [f"made {each}" for each in made] + ([f"mended {mended:,} rows of the history"] if mended else [])
    print("\n".join(done) or "Nothing was missing.")


@app.command
def load(
    paths: list[Path],
    /,
    *,
    type: Annotated[
        GroupType | None, Parameter(help="The type of the group in one file, where its name does not tell.")
    ] = None,
    name: Annotated[
        str | None, Parameter(help="The name of the group in one file, where its name does not tell.")
    ] = None,
    weights: Annotated[
        Unit | None, Parameter(help="The unit of the weights, where their sum (near 1, or near 100) does not tell.")
    ] = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Show what would change, and change nothing.")] = False,
    json: Annotated[bool, Parameter(negative="", help="Print what changed as JSON.")] = False,
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> None:
    """Load files of holdings, each group replaced whole, and show what that changed.

    Files as iShares, State Street, Invesco, Vanguard and ARK publish them are known by their content. Others are known
    by their names: `etf_SPY.csv`, `theme_airlines.csv`, `universe_dow30.csv`, `segment_...`, `custom_...` with the
    columns `symbol,name,weight`, and `sectors.csv` with `symbol,sector,industry`. In a folder with a `groups.csv`
    (columns `name,type,description,file`) only what it lists is loaded. A file with a bad row changes nothing.

        stockgraph load holdings/
        stockgraph load etf_SPY.csv --dry-run
        stockgraph load top.csv --type THEME --name top

    Args:
        paths: Files and folders.

    """
    reading = read_paths(paths, group_type=type, name=name, weights=weights)

    async def run(url: str) -> LoadReport:
        async with _connected(url) as connection:
            if settings.database_url is None:
                await make_tables(connection)
            with _progress("Loading", len(reading.groups)) as advance:
                return await load_groups(
                    connection, reading.groups, environment=settings.environment, dry_run=dry_run, on_group=advance
                )

    with _database(settings) as url:
        report = asyncio.run(run(url))
    failures = [*reading.errors, *report.errors]
    if json:
        errors = [str(failure) for failure in failures]
        sources = [
            {"type": group.type, "name": group.name, "as_of": group.as_of, "left_out": group.left_out}
            for group in reading.groups
        ]
        changes = {"groups": report.groups, "sources": sources, "notes": reading.notes, "errors": errors}
        print(orjson.dumps(changes, default=float).decode())
    else:
        _show(reading, report, dry_run=dry_run)
    for failure in failures:
        _fail(failure)
    if failures:
        sys.exit(FAILED)


def _show(reading: Reading, report: LoadReport, *, dry_run: bool) -> None:
    for group in reading.groups:
        if group.left_out:
            rows = [f"{row.ticker or row.name or '-'} ({row.reason})" for row in group.left_out]
            print(f"{group.type} {group.name}: {len(rows):,} rows that are no members left out: {_few(rows)}")
    for note in reading.notes:
        err.print(f"note: {note}", markup=False)
    if not report.groups:
        return
    for diff in report.groups:
        changes = [
            f"{len(symbols):,} {what} ({_few(symbols)})"
            for what, symbols in (
                ("added", diff.added),
                ("removed", diff.removed),
                (
                    "reweighted",
                    [f"{each.symbol} {_weight(each.old)} -> {_weight(each.new)}" for each in diff.reweighted],
                ),
                ("weights too small for this database, now zero", diff.zeroed),
            )
            if symbols
        ]
        if diff.redescribed:
            changes.append("described anew")
        changes.append(f"{diff.unchanged:,} unchanged")
        print(f"{diff.type} {diff.name}: {'; '.join(changes)}")
    changed = sum(diff.changed for diff in report.groups)
    would = "would change" if dry_run else "changed"
    print(f"{len(report.groups)} groups read, {changed} {would}{'; a dry run, nothing was written' if dry_run else ''}")


def _weight(weight: Decimal | None) -> str:
    return "unknown" if weight is None else str(weight)


def _few(texts: Sequence[str], most: int = 4) -> str:
    return ", ".join(texts[:most]) + (" ..." if len(texts) > most else "")


@app.command
def query(
    text: str,
    /,
    *,
    json: Annotated[bool, Parameter(negative="", help="Print JSON on one line.")] = False,
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> None:
    """Print the symbols of a universe key, one a line, or the answer to a GraphQL query.

    In a key `:` is union, `&` intersection and `-` difference:

        stockgraph query 'SPY:QQQ'          # what is in either
        stockgraph query 'SPY&QQQ-dow30'    # what is in both, and not in the third
        stockgraph query '{ groups(type: SECTOR) { nodes { name memberCount } } }'

    Args:
        text: A universe key, or a GraphQL query: a text that holds a brace is one.

    """
    graphql = "{" in text

    async def run(url: str) -> dict[str, Any]:
        async with open_runtime(replace(settings, database_url=url), listen=False) as runtime:
            result = await make_schema().execute(
                text if graphql else "query ($key: String!) { universe(key: $key) { key size symbols } }",
                variable_values=None if graphql else {"key": text},
                context_value=Operation(runtime),
            )
        if result.errors and (result.data is None or not graphql):
            raise StockgraphError("\n       ".join(error.message for error in result.errors))
        answer: dict[str, Any] = {"data": result.data}
        return answer if not result.errors else {**answer, "errors": [error.formatted for error in result.errors]}

    with _database(settings) as url:
        answer = asyncio.run(run(url))
    if graphql:
        print(orjson.dumps(answer, option=0 if json else orjson.OPT_INDENT_2).decode())
    elif json:
        print(orjson.dumps(answer["data"]["universe"]).decode())
    else:
        for symbol in answer["data"]["universe"]["symbols"]:
            print(symbol)
    if "errors" in answer:
        sys.exit(FAILED)


@app.command
def check(*, settings: Settings = Settings()) -> None:  # noqa: B008 - frozen
    """Look for faults in the data; exit with 1 where there is one.

    Faults: a stock in two sectors, a group without members, ETF weights that do not sum to 0.95-1.05, a negative
    weight.
    A warning: members of an ETF that are in no sector.
    """

    async def run(url: str) -> list[Finding]:
        async with Database(url) as database, database.snapshot() as connection:
            with answered():
                return await find_faults(connection, settings.environment)

    with _database(settings) as url:
        findings = asyncio.run(run(url))
    for finding in findings:
        print(f"{finding.severity}: {finding.message}")
    faults = sum(finding.severity == "fault" for finding in findings)
    print(f"{faults} faults, {len(findings) - faults} warnings")
    if faults:
        sys.exit(FAILED)


@app.command
def export_schema() -> None:
    """Print the schema of the API, in GraphQL's schema language."""
    print(make_schema().as_str())


@contextmanager
def _database(settings: Settings) -> Iterator[str]:
    """Give the URL of the database to work on: the one that is named, or the embedded one, run meanwhile."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    with embedded_postgres(settings.home or default_home()) as url:
        yield url


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await Database(url).connect(statement_seconds=None)
    try:
        with answered():
            yield connection
    finally:
        connection.terminate()


async def _furnish(url: str, settings: Settings, *, demo: bool) -> None:
    """Make the tables of the embedded database, and fill them where there is nothing yet."""
    async with _connected(url) as connection:
        await make_tables(connection)
        if not demo or await connection.fetchval("SELECT EXISTS (SELECT FROM definition_groups)"):
            return
        err.print("The database is empty and gets demo data: real sectors, indexes, funds and themes.")
        # in a process of its own, since what reads the data takes memory that a server should not keep
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as reader:
            groups = await asyncio.wrap_future(reader.submit(_read_demo))
        with _progress("Filling", len(groups)) as advance:
            # all or nothing: half a demo would pass for a database that has been filled
            async with connection.transaction():
                report = await load_groups(connection, groups, environment=settings.environment, on_group=advance)
        for refused in report.errors:
            raise refused


def _read_demo() -> list[GroupHoldings]:
    groups: list[GroupHoldings] = import_module("graph.demo").demo_groups()
    return groups


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[GroupDiff], None]]:
    """Draw a bar, where there is a terminal to draw on; what it gives is called for each group."""
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda diff: progress.update(task, advance=1, description=f"{what} {diff.type} {diff.name}")


async def _look_over(url: str) -> None:
    """Refuse a database without tables; one that does not answer yet may come."""
    try:
        async with Database(url) as database:
            reading = await database.fetch("tracking", stamped=False)
    except DatabaseUnavailable as error:
        logging.getLogger(__name__).warning("%s Serving DATABASE_UNAVAILABLE until then.", error)
        return
    if not reading.rows[0]["complete"]:
        raise DatabaseUnavailable("The database of DATABASE_URL lacks tables; `stockgraph init` makes them.")


def _refuse_taken(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, OverflowError) as error:
        raise StockgraphError(
            f"Cannot listen on {host} port {port}: {error}; choose others with --host, --port."
        ) from error


def _stop(_: int, __: object) -> NoReturn:
    sys.exit(0)


def main() -> None:
    """Run the command; one line on standard error and a non-zero exit for whatever a person can mend."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        drop_empty_variables()
        app(exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(f"{' '.join(str(error).split())} `stockgraph --help` tells more.")
        sys.exit(WRONG_USAGE)
    except StockgraphError as error:
        _fail(error)
        sys.exit(FAILED)
    except asyncpg.PostgresError as error:
        _fail(f"PostgreSQL: {str(error).splitlines()[0]}")
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # whoever read has read enough; Python would complain once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(reason: object) -> None:
    err.print("[bold red]error:[/]", end=" ")
    err.print(str(reason), markup=False)
