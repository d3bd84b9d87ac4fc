"""A file of holdings -> checked holdings. Pure: rows of text in, holdings out, no database.

The format is detected by content: a vendor's (vendors.py), or a plain one. `symbol,name,weight` holds one group,
`symbol,sector,industry` a group for each sector.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import partial
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

from graph.errors import InputFileError
from graph.loading.files import FileErrors, NotHoldings, Progress, TextRow, columns_of, quoted, read_rows
from graph.loading.vendors import HEADER_WITHIN, VendorRow, find_table, shape_error, with_dotted_class
from graph.model import GroupType

MAX_SYMBOL = 50
MAX_NAME = 100
MAX_KEPT = 100_000
"""Maximum rows held in memory, of a table that must be complete and of all files of a load together; the holdings of
further files are read again when they are needed. Some 60,000 stocks are listed in the world."""

Unit = Literal["fraction", "percent"]

_TICKER = re.compile(r"[A-Z0-9.]{1,10}")
_FORMATS = "symbol,name,weight; symbol,sector,industry; or as iShares, SSGA, Invesco, Vanguard and ARK publish holdings"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII)
_FRACTION_SUM = (Decimal("0.5"), Decimal("1.5"))
_PERCENT_SUM = (Decimal(50), Decimal(150))
_WHOLE_SUM = (Decimal("0.9"), Decimal("1.1"))
_WEIGHT_LIMITS: Mapping[Unit, int] = {"fraction": 10, "percent": 1_000}  # what numeric(9,8) and numeric(5,4) hold


@dataclass(frozen=True, slots=True)
class Holding:
    """One member of a group."""

    symbol: str
    weight: Decimal | None = None
    """Fraction of the group (0.0650 = 6.5 %); None if unknown."""
    name: str | None = None
    """Name of the company, for the table of symbols."""
    industry: str | None = None


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row of a vendor's file that is no member of the group."""

    line: int
    ticker: str
    """Ticker as the vendor writes it; empty or a dash if there is none."""
    name: str | None
    weight: Decimal | None
    """Fraction of the fund."""
    reason: str
    """Reason, such as cash, futures, no ticker."""


class MembershipPeriod(NamedTuple):
    """Consecutive days on which a stock was a member."""

    symbol: str
    valid_from: date
    """First day."""
    valid_to: date | None
    """First day after the period; None if it has not ended."""


@dataclass(frozen=True, slots=True)
class GroupHoldings:
    """A group as a source states it, with all of its members."""

    type: str
    name: str
    holdings: Collection[Holding] = field(repr=False)
    """A tuple, or a collection that reads its file at each iteration; InputFileError if the file has changed."""
    description: str | None = None
    """Description; None leaves the present one."""
    as_of: date | None = None
    """Day of the holdings: the stated one, else that of the file's content, of the index, or of the file's name; None,
    if none of them has one, means today."""
    left_out: tuple[SkippedRow, ...] = field(default=(), repr=False)
    """Rows that are no members, in the order of the file."""
    metadata: Mapping[str, Any] | None = None
    """Further facts about the group; present keys that are not among these stay."""
    liquidity_filter: Any = None
    """Filter that its members passed; None leaves the present one."""
    past: tuple[MembershipPeriod, ...] = field(default=(), repr=False)
    """Membership periods up to `as_of`, if the source has them; those without an end are the members in `holdings`."""


_PlainRow = tuple[int, str, Decimal | None, str | None]
"""Line, symbol, weight as written, and name of a row of the plain format."""


class Members(NamedTuple):
    """Members of the one group of a file."""

    holdings: Collection[Holding]
    left_out: tuple[SkippedRow, ...] = ()
    as_of: date | None = None
    fund: str | None = None
    """Ticker of the fund, if the content has it."""
    of_fund: bool = False
    """True if the format is one that funds publish."""
    notes: tuple[str, ...] = ()


class LoadContext:
    """Options of a load, and the number of rows that it may still hold in memory."""

    def __init__(self, unit: Unit | None = None, progress: Progress | None = None) -> None:
        self.unit = unit
        self.progress = progress
        self.room = MAX_KEPT

    def hold(
        self, errors: FileErrors, holdings: Sequence[Holding], reread: Callable[[FileErrors], Iterable[Holding]]
    ) -> Collection[Holding]:
        """Return the holdings as a tuple if there is room for them, else as a collection that rereads its file."""
        if len(holdings) > self.room:
            return RereadHoldings(errors, len(holdings), reread)
        self.room -= len(holdings)
        return tuple(holdings)


class RereadHoldings(Collection[Holding]):
    """Holdings too many to hold in memory: each iteration reads them from their file again."""

    def __init__(self, errors: FileErrors, count: int, read: Callable[[FileErrors], Iterable[Holding]]) -> None:
        self._path, self._fingerprint, self._count, self._read = errors.path, errors.fingerprint, count, read

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Holding]:
        yield from self._read(FileErrors(self._path, self._fingerprint))

    def __contains__(self, holding: object) -> bool:
        return any(holding == each for each in self)


def normalize_group(group_type: str, name: str) -> tuple[str, str]:
    """Return a type and a name as the database holds them; raise ValueError if one is invalid."""
    if group_type.upper() not in list(GroupType):
        raise ValueError(f"type {quoted(group_type)} is none of {', '.join(GroupType)}")
    normalized = name.strip()
    if group_type.upper() in (GroupType.SECTOR, GroupType.THEME):
        normalized = re.sub(r"[\W_]+", "_", normalized.lower()).strip("_")
    if not 0 < len(normalized) <= MAX_NAME or not normalized.isprintable():
        raise ValueError(f"name {quoted(name)} is not 1 to {MAX_NAME} printable characters")
    return group_type.upper(), normalized


def read_holdings(
    errors: FileErrors, line: int, header: Sequence[str], rows: Iterator[TextRow], load: LoadContext
) -> Members | dict[str, GroupHoldings]:
    """Read the holdings of one group, or sectors by name, from the header of a file and its further rows.

    Raises InputFileError if the file cannot be read any further. If rows are bad, the result is incomplete.
    """
    names = {name.lower() for name in header}
    content: Members | dict[str, GroupHoldings]
    if {"symbol", "weight"} <= names:
        content = _parse_members(errors, rows, columns_of(errors, line, header), load)
    elif {"symbol", "sector"} <= names:
        content = _parse_sectors(errors, rows, columns_of(errors, line, header), load)
    else:
        content = _parse_vendor(errors, chain([(line, list(header))] if header else [], rows), load)
    if not errors and not (content.holdings if isinstance(content, Members) else content):
        raise errors.error("has a header and no rows; an empty file does not empty a group")
    return content


def _parse_members(
    errors: FileErrors, rows: Iterable[TextRow], columns: Mapping[str, int], load: LoadContext
) -> Members:
    """Read the plain format, of any length; the rows of a file too long for memory are read again when needed."""
    kept: list[_PlainRow] = []
    signs: set[bool] = set()
    count, total, largest = 0, Decimal(0), Decimal(0)
    for row in _plain_rows(errors, rows, columns, signs):
        count += 1
        if count <= load.room:
            kept.append(row)
        if (weight := row[2]) is not None:
            total += weight
            largest = max(largest, weight.copy_abs())
    if errors:
        return Members(())
    unit = detect_unit(errors, total, signs, load.unit)
    complete = count == len(kept)
    if largest >= _WEIGHT_LIMITS[unit]:
        for line, _, weight, _ in kept if complete else _reread(FileErrors(errors.path, errors.fingerprint)):
            if reason := weight_error(weight, unit):
                errors.add(line, reason)
    if complete:
        load.room -= count
        return Members(tuple(_holdings(kept, unit)))
    return Members(RereadHoldings(errors, count, lambda again: _holdings(_reread(again), unit)))


def _reread(errors: FileErrors) -> Iterator[_PlainRow]:
    """Read the rows of a plain file that was read without errors before."""
    rows = read_rows(errors)
    return _plain_rows(errors, rows, columns_of(errors, *next(rows)), set())


def _plain_rows(
    errors: FileErrors, rows: Iterable[TextRow], columns: Mapping[str, int], signs: set[bool]
) -> Iterator[_PlainRow]:
    """Yield the rows of the plain format."""
    weight_at, name_at = columns["weight"], columns.get("name")
    for line, symbol, fields in _rows_with_symbols(errors, rows, columns):
        try:
            weight = parse_weight(fields[weight_at], signs)
        except ValueError as error:
            errors.add(line, str(error))
            continue
        yield line, symbol, weight, None if name_at is None else " ".join(fields[name_at].split()) or None


def _holdings(rows: Iterable[_PlainRow], unit: Unit) -> Iterator[Holding]:
    return (Holding(symbol, as_fraction(weight, unit), name) for _, symbol, weight, name in rows)


def _parse_vendor(errors: FileErrors, rows: Iterator[TextRow], load: LoadContext) -> Members:
    """Read a table that a fund company publishes, wherever in the file it begins."""
    head = list(islice(rows, HEADER_WITHIN))
    found = find_table(errors, head)
    if found is None:
        raise _unknown_format(errors, head)
    table, first = found
    vendor_rows: list[tuple[VendorRow, Decimal | None]] = []
    signs: set[bool] = set()
    for row in table.vendor_rows(bounded_rows(errors, chain(first, rows))):
        weight = None
        try:
            weight = parse_weight(row.weight, signs)
            check_symbol(row.symbol)
        except ValueError as error:
            # rows that are skipped anyway may be invalid
            if not row.reason:
                errors.add(row.line, str(error))
        vendor_rows.append((row, weight))
    if errors:
        return Members(())
    total = total_of(weight for _, weight in vendor_rows)
    unit = detect_unit(
        errors, total, signs, load.unit, header_percent=table.percent, vendor_percent=table.format.percent
    )
    kept, left_out = _split_skipped(errors, vendor_rows, unit)
    if left_out and not kept:
        reasons = Counter(each.reason for each in left_out)
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        raise errors.error(f"holds no stocks; all rows were left out: {counts}")
    notes = list(table.notes)
    share = as_fraction(total, unit)
    if signs and share is not None and not _WHOLE_SUM[0] <= share <= _WHOLE_SUM[1]:
        notes.append(f"the weights sum to {share.scaleb(2):.4g} %; see that the file is whole")
    return Members(
        load.hold(errors, kept, lambda again: _parse_vendor(again, read_rows(again), LoadContext(load.unit)).holdings),
        tuple(left_out),
        table.as_of,
        table.fund if table.fund and _TICKER.fullmatch(table.fund) else None,
        table.format.weight is not None,
        tuple(f"{errors.path}: {note}." for note in notes),
    )


def _split_skipped(
    errors: FileErrors, vendor_rows: Iterable[tuple[VendorRow, Decimal | None]], unit: Unit
) -> tuple[list[Holding], list[SkippedRow]]:
    """Separate the stocks, each symbol once with its heaviest row, from the rows that are skipped."""
    heaviest: dict[str, tuple[VendorRow, Decimal | None]] = {}
    out: list[tuple[VendorRow, Decimal | None]] = []
    for row, weight in vendor_rows:
        if row.reason:
            out.append((row, weight))
            continue
        if reason := weight_error(weight, unit):
            errors.add(row.line, reason)
        known = heaviest.setdefault(row.symbol, (row, weight))
        if known[0] is not row:
            lighter = (row, weight)
            if weight is not None and (known[1] is None or weight > known[1]):
                heaviest[row.symbol], lighter = lighter, known
            other = heaviest[row.symbol][0].line
            out.append(
                (lighter[0]._replace(reason=f"{row.symbol} is on line {other} too, and not lighter"), lighter[1])
            )
    holdings = [
        Holding(symbol, as_fraction(weight, unit), row.name, row.industry) for symbol, (row, weight) in heaviest.items()
    ]
    left_out = [
        SkippedRow(row.line, row.ticker, row.name, as_fraction(weight, unit), row.reason)
        for row, weight in sorted(out, key=lambda each: each[0].line)
    ]
    return holdings, left_out


def _unknown_format(errors: FileErrors, head: Sequence[TextRow]) -> InputFileError:
    line, header = max(head, key=lambda row: sum(map(bool, row[1])), default=(0, []))
    if not header:
        return errors.error("is empty")
    names = {name.lower() for name in header}
    if {"open", "high", "low"} <= names:
        reason = "holds prices without the columns date and close"
    elif {"asset class", "cusip"} <= names or {"asset class", "isin"} <= names:
        reason = "lists bonds or the like, without tickers; only stocks are loaded"
    else:
        reason = f"the columns {quoted(','.join(header))} are none of {_FORMATS}"
    return errors.error(reason, line, NotHoldings)


def parse_weight(written: str, signs: set[bool]) -> Decimal | None:
    """Parse a weight, None if empty; add to `signs` if it has a percent sign. Raise ValueError if invalid."""
    if not written:
        return None
    number = written.removesuffix("%").rstrip()
    if not _NUMBER.fullmatch(number):
        raise ValueError(f"weight {quoted(written)} is not a number such as 0.065, 6.5 or 6.5%")
    signs.add(written != number)
    return Decimal(number)


def total_of(weights: Iterable[Decimal | None]) -> Decimal:
    """Return the sum of the known weights."""
    return sum((weight for weight in weights if weight is not None), Decimal(0))


def detect_unit(
    errors: FileErrors,
    total: Decimal,
    signs: set[bool],
    stated: Unit | None,
    *,
    header_percent: bool = False,
    vendor_percent: bool = False,
) -> Unit:
    """Return the unit of weights: the stated one, else by percent signs, the header, their sum, or the vendor."""
    if len(signs) > 1:
        raise errors.error("some weights have a percent sign and others have none")
    if stated == "fraction" and True in signs:
        raise errors.error("the weights have percent signs, so they are no fractions; leave out --weights")
    if stated or not signs:
        return stated or "fraction"
    if True in signs or header_percent or _PERCENT_SUM[0] <= total <= _PERCENT_SUM[1]:
        return "percent"
    if _FRACTION_SUM[0] <= total <= _FRACTION_SUM[1]:
        return "fraction"
    if vendor_percent:
        return "percent"
    both = "--weights fraction or --weights percent"
    raise errors.error(f"the weights sum to {total:.6g}, neither near 1 nor near 100; say which they are with {both}")


def weight_error(weight: Decimal | None, unit: Unit) -> str:
    """Say what is wrong with a weight that the database cannot hold; empty if nothing is."""
    limit = _WEIGHT_LIMITS[unit]
    if weight is None or weight.copy_abs() < limit:
        return ""
    return f"weight {weight} is not between -{limit} and {limit}{' percent' if unit == 'percent' else ''}"


def as_fraction(weight: Decimal | None, unit: Unit) -> Decimal | None:
    """Return a weight as a fraction of the group."""
    return weight.scaleb(-2) if unit == "percent" and weight is not None else weight


def _parse_sectors(
    errors: FileErrors, rows: Iterable[TextRow], columns: Mapping[str, int], load: LoadContext
) -> dict[str, GroupHoldings]:
    held: dict[str, list[Holding]] = {}
    written: dict[str, str] = {}
    for line, symbol, fields in _rows_with_symbols(errors, bounded_rows(errors, rows), columns):
        label = " ".join(fields[columns["sector"]].split())
        try:
            name = normalize_group(GroupType.SECTOR, label)[1]
        except ValueError:
            errors.add(line, f"sector {quoted(label)} is not a name of 1 to {MAX_NAME} characters")
            continue
        industry = " ".join(fields[columns["industry"]].split()) if "industry" in columns else ""
        written.setdefault(name, label)
        held.setdefault(name, []).append(Holding(symbol, industry=industry or None))
    return {
        name: GroupHoldings(
            GroupType.SECTOR,
            name,
            load.hold(errors, holdings, partial(_reread_sector, name)),
            description=written[name],
        )
        for name, holdings in sorted(held.items())
    }


def _reread_sector(name: str, errors: FileErrors) -> Iterable[Holding]:
    """Read a sector of a file that was read without errors before."""
    rows = read_rows(errors)
    return _parse_sectors(errors, rows, columns_of(errors, *next(rows)), LoadContext())[name].holdings


def bounded_rows(errors: FileErrors, rows: Iterable[TextRow]) -> Iterator[TextRow]:
    """Yield rows; raise InputFileError if there are more than MAX_KEPT."""
    for number, row in enumerate(rows):
        if number == MAX_KEPT:
            reason = f"is the last of more than {MAX_KEPT:,} rows, which only a file of symbol,name,weight may have"
            raise errors.error(reason, row[0])
        yield row


def _rows_with_symbols(
    errors: FileErrors, rows: Iterable[TextRow], columns: Mapping[str, int]
) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line, symbol and fields of the rows that have all fields and a valid symbol, each symbol once."""
    width, symbol_at = max(columns.values()) + 1, columns["symbol"]
    lines: dict[str, int] = {}
    for line, fields in rows:
        if reason := shape_error(fields, width):
            errors.add(line, reason)
            continue
        symbol = with_dotted_class(fields[symbol_at].upper())
        try:
            check_symbol(symbol)
        except ValueError as error:
            errors.add(line, str(error))
            continue
        if symbol in lines:
            errors.add(line, f"symbol {symbol} is on line {lines[symbol]} too")
            continue
        if len(lines) < MAX_KEPT:
            lines[symbol] = line
        yield line, symbol, fields


def check_symbol(symbol: str) -> None:
    """Raise ValueError if a symbol is invalid."""
    if not 0 < len(symbol) <= MAX_SYMBOL or not symbol.isprintable() or " " in symbol:
        raise ValueError(f"symbol {quoted(symbol)} is not 1 to {MAX_SYMBOL} characters without white space")
