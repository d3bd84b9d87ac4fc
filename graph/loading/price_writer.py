"""Checked bars -> one transaction -> the table of prices: all files of a load together.

The rows are streamed into a temporary table and merged from there, so that at most a few thousand are in memory.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date

import asyncpg

from graph.errors import DatabaseUnavailable, InputFileError, StockgraphError
from graph.loading.files import MAX_ERRORS, FileErrors, Progress
from graph.loading.group_writer import LISTED, Listed, copied, refusal
from graph.loading.price_files import OPTIONAL, BarReader, PriceFile
from graph.postgres.database import Connection
from graph.postgres.statements import read_statements

_CHUNK_ROWS = 2_000  # rows of one message to the database
_NULL = "\\N"
_SQL = read_statements("graph.loading", "price_writer.sql")


class PricesRefused(StockgraphError):
    """The database does not accept prices; none of the load was written."""


@dataclass(frozen=True, slots=True)
class PricesDiff:
    """Changes that a load made to the table of prices."""

    files: int
    """Number of files that were loaded."""
    rows: int
    """Number of bars in them; one that several files have counts in each."""
    symbols: Listed[str]
    """Symbols of the bars, so that a file name mistaken for a symbol is noticed."""
    first: date | None
    last: date | None
    """First and last day of the bars; None if there is none."""
    added: int
    changed: int
    unchanged: int
    left_out: int
    """Number of rows without a close."""


async def load_bars(
    connection: Connection, files: Sequence[PriceFile], *, dry_run: bool = False, progress: Progress | None = None
) -> tuple[PricesDiff, tuple[InputFileError, ...]]:
    """Write the bars of files to the table in one transaction; return the changes and the errors of the files.

    A file with an error changes nothing, while the others are loaded. The bar of a symbol and day replaces the present
    one, except in columns that the file does not have. Rows that do not differ are not written. A dry run returns the
    same and writes nothing.
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


class _IncomingFile:
    """A file on its way into the database."""

    def __init__(self, number: int, file: PriceFile, progress: Progress | None) -> None:
        self.number = number
        self.errors = FileErrors(file.path, file.fingerprint)
        self.bars = BarReader(self.errors, file, progress)
        self.present = sum(2**index for index, role in enumerate(OPTIONAL) if role in file.columns)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the bars in the format of COPY until there is an error; then only search for further errors."""
        lines: list[str] = []
        begin, end = f"{self.number}\t", f"\t{self.present}\n"
        try:
            for line, symbol, day, open_, high, low, close, volume in self.bars:
                if self.errors:
                    continue
                escaped = symbol.replace("\\", "\\\\")
                prices = f"{open_ or _NULL}\t{high or _NULL}\t{low or _NULL}\t{close}"
                traded = _NULL if volume is None else volume
                lines.append(f"{begin}{line}\t{escaped}\t{day!s}\t{prices}\t{traded}{end}")
                if len(lines) == _CHUNK_ROWS:
                    yield "".join(lines).encode()
                    lines.clear()
                    # lets a lost connection or a Ctrl-C be noticed
                    await asyncio.sleep(0)
        except InputFileError as error:
            # not raised here, since asyncpg would cancel a later statement of the connection
            self.errors.end(error)
        yield "".join(lines).encode()

    async def copy(self, connection: Connection) -> bool:
        """Copy the bars to the database, all or none; return true if they were copied."""
        try:
            async with connection.transaction():
                copy = connection.copy_to_table("stockgraph_bars", schema_name="pg_temp", source=self.lines())
                await copied(connection, copy)
                if self.errors:
                    # rolls back the copied rows
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
    incoming = [_IncomingFile(number, file, progress) for number, file in enumerate(files)]
    kept = {each.number: each for each in incoming if await each.copy(connection)}
    if progress:
        progress("Sorting prices", 0, None)
    while not await _index_incoming(connection):
        if clashing := await _find_clashes(connection, kept):
            await connection.execute(_SQL["delete_files"], clashing)
            kept = {number: each for number, each in kept.items() if number not in clashing}
        else:
            await connection.execute(_SQL["merge_duplicates"])
    changed = added = 0
    # without anything to merge, no lock is taken
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


async def _index_incoming(connection: Connection) -> bool:
    """Index the bars; return false if two have the same symbol and day."""
    try:
        async with connection.transaction():
            await connection.execute(_SQL["index_incoming"])
    except asyncpg.UniqueViolationError:
        return False
    return True


async def _find_clashes(connection: Connection, files: Mapping[int, _IncomingFile]) -> set[int]:
    """Return the numbers of files with duplicate or contradicting bars; of two that differ, the first file stays."""
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
    # files before all contradicting ones stay; later contradictions are found once these are removed
    certain = min(row["file"] for row in rows)
    for number, other, line, _, symbol, day, _, _ in rows:
        if other < certain and number not in clashing:
            clashing.add(number)
            reason = f"{symbol} {day} is in {files[other].errors.path} too, with other prices; keep one"
            files[number].errors.add(line, reason)
    return clashing
