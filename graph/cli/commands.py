"""The `stockgraph` command."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

import asyncpg
import orjson
import uvicorn
from cyclopts import App, CycloptsError, Parameter, validators

from graph.app import create_app
from graph.cli.output import (
    JsonReport,
    TextReport,
    contents_as_text,
    err,
    fail,
    greet,
    open_streams,
    progress_bar,
)
from graph.errors import DatabaseUnavailable, StockgraphError
from graph.execution.operation import Operation
from graph.execution.runtime import open_runtime
from graph.loading.checks import Finding
from graph.loading.checks import check as find_faults
from graph.loading.demo import demo_groups
from graph.loading.discovery import read_paths
from graph.loading.files import quoted
from graph.loading.group_writer import GroupDiff, GroupRefused, load_groups
from graph.loading.holdings import GroupHoldings, Unit
from graph.loading.migration import MigrationResult, migrate
from graph.loading.price_writer import load_bars
from graph.loading.tickstock import MigrationPlan, group_label, plan_migration
from graph.loading.tickstock_entries import read_file, read_table
from graph.model import GroupType
from graph.postgres.database import Database, translated_errors
from graph.postgres.ddl import make_tables, mend_history
from graph.postgres.embedded import default_home, embedded_postgres
from graph.schema import make_schema
from graph.settings import Settings, drop_empty_variables

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130

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
    _check_port_free(host, port)
    with _database(settings) as url:
        if settings.database_url is None:
            asyncio.run(_prepare_embedded(url, settings, demo=demo))
        served = replace(settings, database_url=url)
        contents = asyncio.run(_check_tables(served))
        greet(_addresses(host, port), _place(settings), contents)
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
        str | None,
        Parameter(help="The name of the group in one file, or the symbol of its prices, where its name does not tell."),
    ] = None,
    weights: Annotated[
        Unit | None, Parameter(help="The unit of the weights, where their sum (near 1, or near 100) does not tell.")
    ] = None,
    as_of: Annotated[
        date | None, Parameter(help="The day as of which the groups are so, where the files tell none or another.")
    ] = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Show what would change, and change nothing.")] = False,
    json: Annotated[bool, Parameter(negative="", help="Print what changed as JSON.")] = False,
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> None:
    """Load files of holdings, each group replaced whole, and of daily prices, and show what that changed.

    Files as iShares, State Street, Invesco, Vanguard and ARK publish them are known by their content. Others are known
    by their names: `etf_SPY.csv`, `theme_airlines.csv`, `universe_dow30.csv`, `segment_...`, `custom_...` with the
    columns `symbol,name,weight`, and `sectors.csv` with `symbol,sector,industry`. In a folder with a `groups.csv`
    (columns `name,type,description,as_of,file`) only the holdings that it lists are loaded. A file with a bad row
    changes nothing.

    Prices have the columns `symbol,date,open,high,low,close,volume`, or are of one stock as Yahoo and Nasdaq let
    download them (`AAPL.csv`, `yahoo_AAPL.csv`); in a folder they are found by their content. What a file says of a
    symbol and day replaces what is there. Closes should be adjusted for splits, and not for dividends.

    Holdings are of the day that `--as-of`, the file, the index or the file's name tells, else of today; what is older
    than a group is not loaded over it. Files of one fund are loaded day after day.

        stockgraph load holdings/
        stockgraph load etf_SPY.csv --dry-run
        stockgraph load qqq_2025-06-05.csv qqq_2025-10-04.csv
        stockgraph load top.csv --type THEME --name top --as-of 2025-10-04
        stockgraph load ohlcv.csv.gz yahoo_AAPL.csv

    Args:
        paths: Files and folders.

    """
    with progress_bar() as progress:
        reading = read_paths(paths, group_type=type, name=name, weights=weights, as_of=as_of, progress=progress)
    report = JsonReport() if json else TextReport()
    failures: list[StockgraphError] = list(reading.errors)

    async def run(url: str) -> None:
        async with _connected(url) as connection:
            if settings.database_url is None:
                await make_tables(connection)
            with progress_bar() as progress:
                outcomes = load_groups(
                    connection, reading.groups, environment=settings.environment, dry_run=dry_run, progress=progress
                )
                await _report(outcomes, reading.groups, report, failures)
                if reading.prices:
                    report.prices, errors = await load_bars(
                        connection, reading.prices, dry_run=dry_run, progress=progress
                    )
                    failures.extend(errors)

    try:
        if reading.groups or reading.prices:
            with _database(settings) as url:
                asyncio.run(run(url))
    except StockgraphError as error:
        failures.append(error)
    finally:
        report.end(reading.notes, failures, dry_run=dry_run)
    for failure in failures:
        fail(failure)
    if failures:
        sys.exit(FAILED)


async def _report(
    outcomes: AsyncGenerator[GroupDiff | GroupRefused, None],
    groups: Sequence[GroupHoldings],
    report: JsonReport | TextReport,
    failures: list[StockgraphError],
) -> None:
    """Print what became of each group as it is written, and keep why some were refused."""
    async with aclosing(outcomes):
        for group in groups:
            outcome = await anext(outcomes)
            if isinstance(outcome, GroupRefused):
                failures.append(outcome)
                continue
            report.add(outcome, group)


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
        # nothing for nobody, and not an empty line
        print(*answer["data"]["universe"]["symbols"], sep="\n", end="\n" * bool(answer["data"]["universe"]["size"]))
    if "errors" in answer:
        sys.exit(FAILED)


@app.command
def check(*, settings: Settings = Settings()) -> None:  # noqa: B008 - frozen
    """Look for faults in the data; exit with 1 where there is one.

    Faults: a stock in two sectors, a group without members, ETF weights that do not sum to 0.95-1.05, a negative
    weight, a close that is no price, prices of days to come.
    Warnings: members of an ETF that are in no sector, closes as by a split that earlier prices are not adjusted for.
    """

    async def run(url: str) -> list[Finding]:
        async with Database(url) as database, database.snapshot() as connection:
            with translated_errors():
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
def migrate_cache_entries(
    source: str | None = None,
    /,
    *,
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> None:
    """Move the groups of TickStock's old table `cache_entries` here, and say what moved and what could not, and why.

    A group that is here already and has members stays as it is, so that running this again changes nothing, and nothing
    that was loaded since is lost. The exit code is 1 where an entry that holds a group stayed behind.

        stockgraph migrate-cache-entries postgresql://user:password@host/tickstock
        stockgraph migrate-cache-entries entries.json

    Args:
        source: The old database, or a JSON file of its entries, as written by
            `psql -At -c 'SELECT json_agg(t) FROM cache_entries AS t'`, or of the form `{type: {key: value}}`.
            Without it, the database that is written to.

    """
    entries = None if source is None or "://" in source else read_file(Path(source))

    async def run(url: str) -> tuple[MigrationPlan, MigrationResult]:
        found = await read_table(source or url) if entries is None else entries
        plan = plan_migration(found, environment=settings.environment)
        async with _connected(url) as connection:
            if settings.database_url is None:
                await make_tables(connection)
            return plan, await migrate(connection, plan.groups)

    with _database(settings) as url:
        plan, result = asyncio.run(run(url))
    for planned in result.migrated:
        print(f"{group_label(planned)}: {len(planned.group.holdings):,} members moved from {planned.entry}")
        for note in planned.notes:
            print(f"    {note}")
    for planned in result.present:
        print(f"{group_label(planned)}: here already, with the members of {planned.entry}")
    skipped = (*plan.skipped, *result.skipped)
    for entry, reason in skipped:
        print(f"left: {entry}: {reason}")
    for kind, count in sorted(plan.other_types.items()):
        print(f"left: {count:,} of type {quoted(kind)}, which holds no groups")
    counts = f"{len(result.migrated):,} moved, {len(result.present):,} here already, {len(skipped):,} left"
    print(f"{counts}, {sum(plan.other_types.values()):,} of other types")
    if skipped:
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
        with translated_errors():
            yield connection
    finally:
        connection.terminate()


async def _prepare_embedded(url: str, settings: Settings, *, demo: bool) -> None:
    """Make the tables of the embedded database, and fill them where there is nothing yet."""
    async with _connected(url) as connection:
        await make_tables(connection)
        # a database whose groups somebody has removed is no new one
        used = "SELECT EXISTS (SELECT FROM definition_groups) OR EXISTS (SELECT FROM group_history)"
        if not demo or await connection.fetchval(used):
            return
        err.print("The database is empty and gets demo data: real sectors, indexes, funds and themes.")
        groups = demo_groups()
        with progress_bar() as progress:
            # all or nothing: half a demo would pass for a database that has been filled
            async with connection.transaction():
                done = 0
                async for outcome in load_groups(connection, groups, environment=settings.environment):
                    if isinstance(outcome, GroupRefused):
                        raise outcome
                    done += 1
                    progress(f"Filling {outcome.type} {outcome.name}", done, len(groups))


async def _check_tables(settings: Settings) -> str | None:
    """Refuse a database without tables, and tell what is in it; one that does not answer yet may come."""
    try:
        async with Database(settings.database_url or "") as database:
            (tracking,) = (await database.fetch("tracking", with_generation=False)).rows
            contents = await _contents(database, settings) if tracking["complete"] else None
    except DatabaseUnavailable as error:
        logging.getLogger(__name__).warning("%s Serving DATABASE_UNAVAILABLE until then.", error)
        return None
    if contents is None:
        raise DatabaseUnavailable("The database of DATABASE_URL lacks tables; `stockgraph init` makes them.")
    return contents


async def _contents(database: Database, settings: Settings) -> str:
    counts = (await database.fetch("contents", settings.environment, with_generation=False)).rows
    (prices,) = (await database.fetch("price_table", with_generation=False)).rows
    day = (await database.fetch("last_price_day", with_generation=False)).rows[0]["day"] if prices["there"] else None
    return contents_as_text({row["kind"]: row["total"] for row in counts}, day)


def _check_port_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, OverflowError) as error:
        raise StockgraphError(
            f"Cannot listen on {host} port {port}: {error}; choose others with --host, --port."
        ) from error


def _addresses(host: str, port: int) -> list[str]:
    """Give what can be clicked here and, where every address is listened on, from elsewhere."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104 - compared with
        return [f"http://[{host}]:{port}/graphql" if ":" in host else f"http://{host}:{port}/graphql"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward, suppress(OSError):
        outward.connect(("192.0.2.1", 9))  # an address of nobody's, and nothing is sent
        return [f"http://{each}:{port}/graphql" for each in dict.fromkeys(("127.0.0.1", outward.getsockname()[0]))]
    return [f"http://127.0.0.1:{port}/graphql"]


def _place(settings: Settings) -> str:
    """Tell where the data are, without a password."""
    if settings.database_url is None:
        return f"{settings.home or default_home()} (a PostgreSQL of its own)"
    parts = urlsplit(settings.database_url)
    return f"{parts.path.lstrip('/') or 'the database'} on {parts.hostname or 'this machine'}"


def _stop(_: int, __: object) -> NoReturn:
    sys.exit(0)


def main() -> None:
    """Run the command; one line on standard error and a non-zero exit for whatever a person can mend."""
    output = open_streams()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    code: str | int | None
    try:
        code = _run()
    except SystemExit as end:
        code = end.code
    if output.failure:
        fail(f"Standard output is incomplete: {output.failure.strerror}.")
        code = code or FAILED
    sys.exit(code)


def _run() -> int:
    try:
        drop_empty_variables()
        app(exit_on_error=False, print_error=False)
    except CycloptsError as error:
        fail(f"{' '.join(str(error).split())} `stockgraph --help` tells more.")
        return WRONG_USAGE
    except StockgraphError as error:
        fail(error)
        return FAILED
    except asyncpg.PostgresError as error:
        fail(f"PostgreSQL: {str(error).splitlines()[0]}")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
