"""A file of prices -> checked bars. Pure: files in, bars out, no database, and one row at a time in memory.

The format is detected by column names: `symbol,date,open,high,low,close,volume` in any order, or the downloads of one
stock from Yahoo and Nasdaq, whose file name has the symbol.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from math import inf
from pathlib import Path
from typing import NamedTuple

from graph.loading.files import FileErrors, FileFingerprint, Progress, TextRow, columns_of, quoted, read_rows
from graph.loading.holdings import check_symbol
from graph.loading.vendors import normalize_ticker, shape_error, with_dotted_class

OPTIONAL = ("open", "high", "low", "volume")
"""Columns that a file of prices may lack."""
MAX_VOLUME = 2**63 - 1
"""Maximum volume in shares, the largest bigint."""
FIRST_DAY = date(1900, 1, 1)
"""Earliest day; one before it is a mistake."""

# the same columns by other names
_ALIASES = {"ticker": "symbol", "close/last": "close"}
_NOTHING = ("", "null", "n/a")
_NUMBER = re.compile(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_AMERICAN = re.compile(r"\$?([0-9]{1,3}(,[0-9]{3})+|[0-9]+)(\.[0-9]*)?")
_ISO_DAY = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_AMERICAN_DAY = re.compile(r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})")
_NO_SYMBOL = (
    "(?!(?:bars|daily|data|export|file|hist|index|market|nasdaq|ohlcv?|prices?|quotes?|stocks?|table|test|yahoo)[._-])"
)
_SYMBOL_FILE = re.compile(
    rf"(?:(?:alpaca|nasdaq|yahoo)[_-])?{_NO_SYMBOL}(\^?[A-Z0-9]{{1,6}}(?:[.-][A-Z]{{1,4}})?)"
    r"(?:[_-]\d{4}-?\d\d-?\d\d){0,2}\.(?:csv|xlsx)(?:\.gz)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class PriceFile:
    """A file of bars, of which only the header was read."""

    path: Path
    fingerprint: FileFingerprint | None
    """Fingerprint of the file when its header was read; it must not differ when the bars are read."""
    columns: Mapping[str, int]
    """Index of each present column among symbol, date, open, high, low, close, volume."""
    width: int
    """Number of fields of a row."""
    symbol: str | None
    """Symbol of all the bars; None if there is a column of symbols."""


class BarRow(NamedTuple):
    """Prices of a stock in a session as a row of a file states them; None if it does not."""

    line: int
    symbol: str
    day: date
    open: str | None
    """Price as written, since the table determines how it is rounded."""
    high: str | None
    low: str | None
    close: str
    volume: int | None
    """Volume in shares."""


def holds_prices(header: Sequence[str]) -> bool:
    """Return true if a header is that of prices; one with weights too is that of holdings."""
    names = _names(header)
    return {"date", "close"} <= set(names) and not any("weight" in name for name in names)


def find_prices(
    errors: FileErrors, line: int, header: Sequence[str], rows: Iterator[TextRow], name: str | None = None
) -> PriceFile:
    """Find the columns of a file of prices by its header; `name` states the symbol of a file of one stock."""
    columns = columns_of(errors, line, _names(header))
    present = {role: columns[role] for role in ("symbol", "date", "close", *OPTIONAL) if role in columns}
    if name and "symbol" in present:
        raise errors.error("has a column of symbols, so it takes no --name", line)
    symbol = None if "symbol" in present else _file_symbol(errors, name)
    if next(rows, None) is None:
        raise errors.error("has a header and no rows")
    return PriceFile(errors.path, errors.fingerprint, present, max(columns.values()) + 1, symbol)


def _names(header: Sequence[str]) -> list[str]:
    return [_ALIASES.get(name.lower(), name.lower()) for name in header]


def _file_symbol(errors: FileErrors, name: str | None) -> str:
    """Return the symbol of a file of one stock: the stated one, else the one in the file's name."""
    found = _SYMBOL_FILE.fullmatch(errors.path.name)
    if not name and not found:
        reason = "its name does not tell whose prices it holds; give --name, or name it as AAPL.csv or yahoo_AAPL.csv"
        raise errors.error(reason)
    symbol = normalize_ticker((name or (found[1] if found else "")).strip().upper())[0]
    try:
        check_symbol(symbol)
    except ValueError as error:
        raise errors.error(str(error)) from error
    return symbol


class BarReader:
    """Lazily read and checked bars of a file; bad rows are added to `errors`."""

    def __init__(self, errors: FileErrors, file: PriceFile, progress: Progress | None = None) -> None:
        self.errors, self.file, self.progress = errors, file, progress
        self.count = 0
        """Number of bars yielded."""
        self.left_out = 0
        """Number of rows without a close."""

    def __iter__(self) -> Iterator[BarRow]:
        """Yield the bars; raise InputFileError if the file cannot be read any further."""
        columns, width, file_symbol = self.file.columns, self.file.width, self.file.symbol
        symbol_at, date_at, close_at = columns.get("symbol", 0), columns["date"], columns["close"]
        open_at, high_at, low_at, volume_at = (columns.get(role) for role in OPTIONAL)
        latest = datetime.now(UTC).date() + timedelta(days=1)
        for line, fields in islice(read_rows(self.errors, self.progress), 1, None):
            if len(fields) != width and (reason := shape_error(fields, width)):
                self.errors.add(line, reason)
                continue
            if fields[close_at].lower() in _NOTHING:
                self.left_out += 1
                continue
            try:
                symbol = file_symbol or _symbol(fields[symbol_at])
                day = _day(fields[date_at], latest, file_symbol)
                opened = None if open_at is None else _price("open", fields[open_at], file_symbol)
                high = None if high_at is None else _price("high", fields[high_at], file_symbol)
                low = None if low_at is None else _price("low", fields[low_at], file_symbol)
                close = _price("close", fields[close_at], file_symbol) or ""
                volume = None if volume_at is None else _volume(fields[volume_at], file_symbol)
                if high and low and float(high) < float(low):
                    raise ValueError(f"high {high} is below low {low}")  # noqa: TRY301 - as the others
            except ValueError as error:
                self.errors.add(line, str(error))
                continue
            self.count += 1
            yield BarRow(line, symbol, day, opened, high, low, close, volume)


@lru_cache(maxsize=20_000)
def _symbol(written: str) -> str:
    symbol = with_dotted_class(written.upper())
    check_symbol(symbol)
    return symbol


@lru_cache(maxsize=10_000)
def _day(written: str, latest: date, file_symbol: str | None) -> date:
    """Parse a date; one with slashes, which only a file of one stock may have, begins with the month."""
    try:
        if found := _ISO_DAY.fullmatch(written):
            day = date(int(found[1]), int(found[2]), int(found[3]))
        elif file_symbol and (found := _AMERICAN_DAY.fullmatch(written)):
            day = date(int(found[3]), int(found[1]), int(found[2]))
        else:
            raise ValueError  # noqa: TRY301 - as a day that no month has
    except ValueError:
        raise ValueError(f"date {quoted(written)} is not a day such as 2024-03-01") from None
    if not FIRST_DAY <= day <= latest:
        raise ValueError(f"date {day} is not between {FIRST_DAY} and tomorrow")
    return day


def _price(name: str, written: str, file_symbol: str | None) -> str | None:
    number = _number(written, file_symbol)
    if not number and written.lower() in _NOTHING:
        return None
    if not number or not 0 < float(number) < inf:
        raise ValueError(f"{name} {quoted(written)} is not a price above 0 such as 179.66")
    return number


def _volume(written: str, file_symbol: str | None) -> int | None:
    if written.isdecimal() and written.isascii() and len(written) < len(str(MAX_VOLUME)):
        return int(written)
    number = _number(written, file_symbol)
    if not number and written.lower() in _NOTHING:
        return None
    if not number or Decimal(number) > MAX_VOLUME or Decimal(number) % 1:
        raise ValueError(f"volume {quoted(written)} is not a whole number from 0 to {MAX_VOLUME}")
    return int(Decimal(number))


def _number(written: str, file_symbol: str | None) -> str:
    """Return a number that is not negative, without the dollar sign and commas of a file of one stock; else empty."""
    if _NUMBER.fullmatch(written):
        return written
    return written.replace("$", "").replace(",", "") if file_symbol and _AMERICAN.fullmatch(written) else ""
