"""The commands of `stockgraph`, and its entry point."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import orjson
from cyclopts import App, CycloptsError, Parameter

from graph.cli.connections import connected
from graph.cli.explain import explain, query_of
from graph.cli.output import (
    JsonReport,
    TextReport,
    configure_logging,
    open_streams,
    print_error,
    print_lines,
    progress_bar,
)
from graph.cli.serving import serve
from graph.errors import StockgraphError
from graph.execution.operation import Operation
from graph.execution.runtime import open_runtime
from graph.loading.checks import Finding
from graph.loading.checks import check as find_faults
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
from graph.postgres.embedded import database_url
from graph.schema import make_schema
from graph.settings import Settings, normalize_variables, rename_deprecated_options

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130

app = App(
    name="stockgraph",
    help="Serve stocks and the groups that hold them (ETFs, sectors, themes, universes) as GraphQL over PostgreSQL. "
    "Start with `stockgraph serve`: it needs nothing else.",
    help_format="markdown",
    version=lambda: version("stockgraph"),
)


app.command(serve)
app.command(explain)


@app.command
def init(*, settings: Settings = Settings()) -> None:  # noqa: B008 - frozen
    """Make the tables, indexes and triggers that a database lacks; existing ones stay as they are.

    If changes were made without the triggers, the history of groups is mended: it then ends in the current groups.
    """

    async def run(url: str) -> tuple[list[str], int]:
        async with connected(url) as connection:
            return await make_tables(connection), await mend_history(connection)

    with database_url(settings) as url:
        made, mended = asyncio.run(run(url))
    done = [f"made {each}" for each in made] + ([f"mended {mended:,} rows of the history"] if mended else [])
    print_lines(*done or ["Nothing was missing."])


@app.command
def load(
    paths: list[Path],
    /,
    *,
    type: Annotated[
        GroupType | None, Parameter(help="The type of the group in a file, if the file's name does not tell it.")
    ] = None,
    name: Annotated[
        str | None,
        Parameter(
            help="The name of the group in a file, or the symbol of its prices, if the file's name does not tell it."
        ),
    ] = None,
    weights: Annotated[
        Unit | None, Parameter(help="The unit of the weights, if their sum (near 1, or near 100) does not tell it.")
    ] = None,
    as_of: Annotated[
        date | None, Parameter(help="The day that the holdings are of, if the files tell none or another.")
    ] = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Show what would change, and change nothing.")] = False,
    json: Annotated[bool, Parameter(negative="", help="Print what changed as JSON.")] = False,
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> None:
    """Load files of holdings and of daily prices, and print what changed. Holdings replace the whole group.

    Files from iShares, State Street, Invesco, Vanguard and ARK are recognized by their content. Your own files are
    recognized by their names: `etf_SPY.csv`, `theme_airlines.csv`, `universe_dow30.csv`, `segment_...`, `custom_...`
    with the columns `symbol,name,weight`, and `sectors.csv` with `symbol,sector,industry`. In a folder with a
    `groups.csv` (columns `name,type,description,as_of,file`) only the holdings that it lists are loaded. A file with a
    bad row changes nothing.

    Prices have the columns `symbol,date,open,high,low,close,volume`, or are those of one stock as downloaded from Yahoo
    or Nasdaq (`AAPL.csv`, `yahoo_AAPL.csv`); in a folder they are found by their content. A bar replaces the one of the
    same symbol and day. Closes should be adjusted for splits, but not for dividends.

    Holdings are of the day that `--as-of`, the file, the index or the file's name tells, else of today. Holdings older
    than those of a group are refused, and several files of one fund are loaded in the order of their days.

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
        async with connected(url) as connection:
            if settings.database_url is None:
                await make_tables(connection)
            with progress_bar() as progress:
                outcomes = load_groups(
                    connection, reading.groups, environment=settings.environment, dry_run=dry_run, progress=progress
                )
                await _report_groups(outcomes, reading.groups, report, failures)
                if reading.prices:
                    report.prices, errors = await load_bars(
                        connection, reading.prices, dry_run=dry_run, progress=progress
                    )
                    failures.extend(errors)

    try:
        if reading.groups or reading.prices:
            with database_url(settings) as url:
                asyncio.run(run(url))
    except StockgraphError as error:
        failures.append(error)
    finally:
        report.end(reading.notes, failures, dry_run=dry_run)
    for failure in failures:
        print_error(failure)
    if failures:
        sys.exit(FAILED)


async def _report_groups(
    outcomes: AsyncGenerator[GroupDiff | GroupRefused, None],
    groups: Sequence[GroupHoldings],
    report: JsonReport | TextReport,
    failures: list[StockgraphError],
) -> None:
    """Report each group as it is written, and add those that were refused to `failures`."""
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
    """Print the symbols of a universe key, one per line, or the response to a GraphQL query.

    In a key `:` is union, `&` intersection and `-` difference:

        stockgraph query 'SPY:QQQ'          # in either
        stockgraph query 'SPY&QQQ-dow30'    # in both, and not in the third
        stockgraph query '{ groups(type: SECTOR) { nodes { name memberCount } } }'

    Args:
        text: A universe key, or a GraphQL query, recognized by a brace.

    """
    graphql, variables = query_of(text)

    async def run(url: str) -> dict[str, Any]:
        async with open_runtime(replace(settings, database_url=url), listen=False) as runtime:
            result = await make_schema().execute(graphql, variable_values=variables, context_value=Operation(runtime))
        if result.errors and (result.data is None or variables):
            raise StockgraphError(*(error.message for error in result.errors))
        answer: dict[str, Any] = {"data": result.data}
        return answer if not result.errors else {**answer, "errors": [error.formatted for error in result.errors]}

    with database_url(settings) as url:
        answer = asyncio.run(run(url))
    if not variables:
        print_lines(*orjson.dumps(answer, option=0 if json else orjson.OPT_INDENT_2).decode().split("\n"))
    elif json:
        print_lines(orjson.dumps(answer["data"]["universe"]).decode())
    elif answer["data"]["universe"]["size"]:  # an empty universe prints nothing, not an empty line
        print_lines(*answer["data"]["universe"]["symbols"])
    if "errors" in answer:
        sys.exit(FAILED)


@app.command
def check(*, settings: Settings = Settings()) -> None:  # noqa: B008 - frozen
    """Check the data for faults and warnings, and exit with 1 if there is a fault.

    Faults: a stock in two sectors, a group without members, ETF weights that do not sum to 0.95-1.05, a negative
    weight, a close that is not a price, prices of future days.
    Warnings: members of an ETF that are in no sector, jumps of closes by a split for which earlier prices are not
    adjusted.
    """

    async def run(url: str) -> list[Finding]:
        async with Database(url) as database, database.snapshot() as connection:
            with translated_errors():
                return await find_faults(connection, settings.environment)

    with database_url(settings) as url:
        findings = asyncio.run(run(url))
    for finding in findings:
        print_lines(f"{finding.severity}: {finding.message}")
    faults = sum(finding.severity == "fault" for finding in findings)
    print_lines(f"{faults} faults, {len(findings) - faults} warnings")
    if faults:
        sys.exit(FAILED)


@app.command
def migrate_cache_entries(
    source: str | None = None,
    /,
    *,
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> None:
    """Move groups here from TickStock's old table `cache_entries`, and print what moved, what did not, and why.

    A group that exists here and has members stays as it is: running this again changes nothing, and groups that were
    loaded since are not lost. The exit code is 1 if an entry that holds a group could not be moved.

        stockgraph migrate-cache-entries postgresql://user:password@host/tickstock
        stockgraph migrate-cache-entries entries.json

    Args:
        source: The old database, or a JSON file of its entries, as written by
            `psql -At -c 'SELECT json_agg(t) FROM cache_entries AS t'`, or of the form `{type: {key: value}}`;
            by default the database that is written to.

    """
    entries = None if source is None or "://" in source else read_file(Path(source))

    async def run(url: str) -> tuple[MigrationPlan, MigrationResult]:
        found = await read_table(source or url) if entries is None else entries
        plan = plan_migration(found, environment=settings.environment)
        async with connected(url) as connection:
            if settings.database_url is None:
                await make_tables(connection)
            return plan, await migrate(connection, plan.groups)

    with database_url(settings) as url:
        plan, result = asyncio.run(run(url))
    for planned in result.migrated:
        print_lines(f"{group_label(planned)}: {len(planned.group.holdings):,} members moved from {planned.entry}")
        for note in planned.notes:
            print_lines(f"    {note}")
    for planned in result.present:
        print_lines(f"{group_label(planned)}: here already, with the members of {planned.entry}")
    skipped = (*plan.skipped, *result.skipped)
    for entry, reason in skipped:
        print_lines(f"left: {entry}: {reason}")
    for kind, count in sorted(plan.other_types.items()):
        print_lines(f"left: {count:,} of type {quoted(kind)}, which holds no groups")
    counts = f"{len(result.migrated):,} moved, {len(result.present):,} here already, {len(skipped):,} left"
    print_lines(f"{counts}, {sum(plan.other_types.values()):,} of other types")
    if skipped:
        sys.exit(FAILED)


@app.command
def export_schema() -> None:
    """Print the schema of the API in GraphQL's schema definition language."""
    print_lines(*make_schema().as_str().split("\n"))


def main() -> None:
    """Run the command line; an error that its user can correct is one line on standard error and a non-zero exit."""
    output = open_streams()
    configure_logging()
    code: str | int | None
    try:
        code = _run_command()
    except SystemExit as end:
        code = end.code
    if output.failure:
        print_error(f"Standard output is incomplete: {output.failure.strerror}.")
        code = code or FAILED
    sys.exit(code)


def _run_command() -> int:
    """Run the command that was typed, and return its exit code."""
    try:
        normalize_variables()
        app(rename_deprecated_options(sys.argv[1:]), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print_error(f"{' '.join(str(error).split())} `stockgraph --help` tells more.")
        return WRONG_USAGE
    except StockgraphError as error:
        print_error(*error.args)
        return FAILED
    except asyncpg.PostgresError as error:
        print_error(f"PostgreSQL: {str(error).splitlines()[0]}")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
