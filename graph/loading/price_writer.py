"""Checked bars -> one transaction -> the table of prices: all files of a load together.

The rows are streamed into a temporary table and merged from there, so that however many they are, none of this keeps
more than a few thousand of them in memory.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date

import asyncpg

from graph.errors import DatabaseUnavailable, InputFileError, StockgraphError
from graph.loading.files import MAX_ERRORS, FileErrors, Progress, printable
from graph.loading.group_writer import LISTED, Listed, copied, refusal
from graph.loading.price_files import OPTIONAL, Bars, PriceFile
from graph.postgres.database import Connection
from graph.postgres.statements import read_statements

_ROWS_BETWEEN = 2_000  # two messages to the database
_NULL = "\\N"
_SQL = read_statements("graph.loading", "price_writer.sql")


class PricesRefused(StockgraphError):
    """Prices that this database does not take; none of the load was written."""


@dataclass(frozen=True, slots=True)
class PricesDiff:
    """What a load changed in the table of prices."""

    files: int
    """That were loaded."""
    rows: int
    """Bars in them; what several files have alike counts in each."""
    symbols: Listed[str]
    """Whose bars they are, so that a file's name that was taken for one is seen."""
    first: date | None
    last: date | None
    """The days of the bars; None where there is none."""
    added: int
    changed: int
    unchanged: int
    left_out: int
    """Rows without a close."""


async def load_bars(
    connection: Connection, files: Sequence[PriceFile], *, dry_run: bool = False, progress: Progress | None = None
) -> tuple[PricesDiff, tuple[InputFileError, ...]]:
    """Bring the bars of files to the table in one transaction, and tell what changed and what is wrong with the files.

    A file with an error changes nothing, while others load. What a file says of a symbol and day replaces what is
    there, but for columns that the file does not have. Rows that are right already are not written. A dry run tells
    the same and writes nothing.
    """
    async with AsyncExitStack() as stack:
        if dry_run:
            transaction = connection.transaction(isolation="read_committed")
            await transaction.start()
            stack.push_async_callback(transaction.rollback)
        try:
            async with connection.transaction(isolation="read_committed"):
                return await _load(connection, files, progress)
        except asyncpg.UndefinedColumnError as error:
            raise PricesRefused(f"Prices: the table ohlcv_daily is another than ours ({error.message}).") from error
        except asyncpg.PostgresError as error:
            if reason := refusal(error):
                raise PricesRefused(f"Prices: {reason}.") from error
            raise


class _Incoming:
    """A file on its way into the database."""

    def __init__(self, number: int, file: PriceFile, progress: Progress | None) -> None:
        self.number = number
        self.errors = FileErrors(file.path, file.state)
        self.bars = Bars(self.errors, file, progress)
        self.told = sum(2**place for place, role in enumerate(OPTIONAL) if role in file.columns)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the bars as COPY reads them, until there is an error; from then on only what else is wrong is read."""
        lines: list[str] = []
        begin, end = f"{self.number}\t", f"\t{self.told}\n"
        try:
            for line, symbol, day, open_, high, low, close, volume in self.bars:
                if self.errors:
                    continue
                escaped = symbol.replace("\\", "\\\\")
                prices = f"{open_ or _NULL}\t{high or _NULL}\t{low or _NULL}\t{close}"
                traded = _NULL if volume is None else volume
                lines.append(f"{begin}{line}\t{escaped}\t{day!s}\t{prices}\t{traded}{end}")
                if len(lines) == _ROWS_BETWEEN:
                    yield "".join(lines).encode()
                    lines.clear()
                    # a lost connection and a Ctrl-C want to be heard
                    await asyncio.sleep(0)
        except InputFileError as error:
            # not out of here, since asyncpg would cancel what runs on the connection by then
            self.errors.end(error)
        yield "".join(lines).encode()

    async def copy(self, connection: Connection) -> bool:
        """Bring the bars to the database, all or none, and tell whether they are there."""
        try:
            async with connection.transaction():
                copy = connection.copy_to_table("stockgraph_bars", schema_name="pg_temp", source=self.lines())
                await copied(connection, copy)
                if self.errors:
                    # takes back what was copied
                    raise self.errors.error("is not loaded")
        except InputFileError:
            return False
        except asyncpg.DataError as error:
            where = re.search(r"column .*", str(error.context or ""))
            reason = f"the database cannot hold it ({error.message}{f'; {where[0]}' if where else ''})"
            self.errors.end(self.errors.error(reason))
            return False
        return True


async def _load(
    connection: Connection, files: Sequence[PriceFile], progress: Progress | None
) -> tuple[PricesDiff, tuple[InputFileError, ...]]:
    if await connection.fetchval(_SQL["is_table_missing"]):
        raise DatabaseUnavailable("The database lacks tables (ohlcv_daily); `stockgraph init` makes what is missing.")
    await connection.execute(_SQL["create_incoming"])
    incoming = [_Incoming(number, file, progress) for number, file in enumerate(files)]
    kept = {each.number: each for each in incoming if await each.copy(connection)}
    if progress:
        progress("Sorting prices", 0, None)
    while not await _all_differ(connection):
        if clashing := await _find_clashes(connection, kept):
            await connection.execute(_SQL["delete_files"], clashing)
            kept = {number: each for number, each in kept.items() if number not in clashing}
        else:
            await connection.execute(_SQL["merge_duplicates"])
    changed = added = 0
    # where there is nothing to merge nobody waits
    if kept:
        if progress:
            progress("Merging prices", 0, None)
        await connection.execute(_SQL["analyze_incoming"])
        await connection.execute(_SQL["lock_prices"])
        changed, added = [
            int((await connection.execute(_SQL[merge])).split()[-1]) for merge in ("update_bars", "insert_bars")
        ]
    (span,) = await connection.fetch(_SQL["incoming_span"])
    rows = sum(each.bars.count for each in kept.values())
    diff = PricesDiff(
        files=len(kept),
        rows=rows,
        symbols=Listed(len(span["symbols"]), tuple(span["symbols"][:LISTED])),
        first=span["first"],
        last=span["last"],
        added=added,
        changed=changed,
        unchanged=rows - added - changed,
        left_out=sum(each.bars.left_out for each in kept.values()),
    )
    return diff, tuple(error for each in incoming for error in each.errors.all())


async def _all_differ(connection: Connection) -> bool:
    """Index the bars, which fails where two are of one symbol and day."""
    try:
        async with connection.transaction():
            await connection.execute(_SQL["index_incoming"])
    except asyncpg.UniqueViolationError:
        return False
    return True


async def _find_clashes(connection: Connection, files: Mapping[int, _Incoming]) -> set[int]:
    """Give the files that cannot be loaded for what they or others say twice; the first of two that differ stays."""
    rows = await connection.fetch(_SQL["find_clashes"], MAX_ERRORS)
    clashing = {row["file"] for row in rows if row["file"] == row["other"]}
    for number, other, line, other_line, symbol, day, total, place in rows:
        errors = files[number].errors
        if number == other:
            errors.add(line, f"{symbol} {day} is on line {other_line} too")
            if place == MAX_ERRORS:
                errors.more += total - place
    if clashing or not rows:
        return clashing
    # whoever is before all that differ from somebody stays; of the others it is told when these are gone
    certain = min(row["file"] for row in rows)
    for number, other, line, _, symbol, day, _, _ in rows:
        if other < certain and number not in clashing:
            clashing.add(number)
            reason = f"{symbol} {day} is in {printable(files[other].errors.path)} too, with other prices; keep one"
            files[number].errors.add(line, reason)
    return clashing
