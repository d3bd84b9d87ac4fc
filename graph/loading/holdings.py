"""A file of holdings -> checked rows. Pure: rows of text in, holdings out, no database.

A file is told by its content: what a fund company publishes (vendors.py), or a plain form: `symbol,name,weight` holds
one group, `symbol,sector,industry` a group for each sector.
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
from graph.loading.files import FileErrors, NotHoldings, Progress, Row, columns_of, printable, quoted, read_rows
from graph.loading.vendors import HEADER_WITHIN, Entry, dotted, find_table, shape_error
from graph.model import GroupType

MAX_SYMBOL = 50
MAX_NAME = 100
MAX_KEPT = 100_000
"""Rows that are kept in memory, of one table that must be read whole, and of all the files of a load: the holdings of
further files are read from them again when they are needed. Some 60,000 stocks are listed in the world."""

Unit = Literal["fraction", "percent"]

_TICKER = re.compile(r"[A-Z0-9.]{1,10}")
_FORMS = "symbol,name,weight; symbol,sector,industry; or as iShares, SSGA, Invesco, Vanguard and ARK publish holdings"
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
    """A fraction of the group (0.0650 = 6.5 %); None where it is not known."""
    name: str | None = None
    """The company's, for the table of symbols."""
    industry: str | None = None


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row of a vendor's file that is no member of the group."""

    line: int
    ticker: str
    """As the vendor writes it; empty or a dash where there is none."""
    name: str | None
    weight: Decimal | None
    """A fraction of the fund."""
    reason: str
    """Such as cash, futures, no ticker."""


class MembershipPeriod(NamedTuple):
    """Days on end on which a stock was a member."""

    symbol: str
    valid_from: date
    """The first of them."""
    valid_to: date | None
    """The first day after them; None where it is a member still."""


@dataclass(frozen=True, slots=True)
class GroupHoldings:
    """A group as a source gives it, whole: what is not in `holdings` is not in the group."""

    type: str
    name: str
    holdings: Collection[Holding] = field(repr=False)
    """A tuple, or what reads them anew each time: InputFileError where their file has changed since."""
    description: str | None = None
    """None leaves the description that the group has."""
    as_of: date | None = None
    """The day of the holdings: the one that is stated, else the file's own, else the index's, else that of the file's
    name; None where none says, which is today."""
    left_out: tuple[SkippedRow, ...] = field(default=(), repr=False)
    """In the order of the file."""
    metadata: Mapping[str, Any] | None = None
    """What the source says of the group beside its members; keys that are not here stay as the group has them."""
    liquidity_filter: Any = None
    """The filter that its members passed; None leaves the one that the group has."""
    past: tuple[MembershipPeriod, ...] = field(default=(), repr=False)
    """Who was a member when, up to `as_of`, where the source knows; spells without an end are those of `holdings`."""


_PlainRow = tuple[int, str, Decimal | None, str | None]
"""The line, symbol, weight and name in a row of the plain form, the weight as it is written."""


class Members(NamedTuple):
    """What a file of one group holds."""

    holdings: Collection[Holding]
    left_out: tuple[SkippedRow, ...] = ()
    as_of: date | None = None
    fund: str | None = None  # its ticker, as the content has it
    of_fund: bool = False  # what funds publish
    notes: tuple[str, ...] = ()


class Load:
    """What a load is told, and how many rows it may keep yet."""

    def __init__(self, unit: Unit | None = None, progress: Progress | None = None) -> None:
        self.unit = unit
        self.progress = progress
        self.room = MAX_KEPT

    def keep(
        self, errors: FileErrors, holdings: Sequence[Holding], anew: Callable[[FileErrors], Iterable[Holding]]
    ) -> Collection[Holding]:
        """Give the holdings while there is room for them, and then what reads them anew."""
        if len(holdings) > self.room:
            return RereadHoldings(errors, len(holdings), anew)
        self.room -= len(holdings)
        return tuple(holdings)


class RereadHoldings(Collection[Holding]):
    """Holdings that are too many to keep: each time they are read from their file again."""

    def __init__(self, errors: FileErrors, count: int, read: Callable[[FileErrors], Iterable[Holding]]) -> None:
        self._path, self._state, self._count, self._read = errors.path, errors.state, count, read

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Holding]:
        yield from self._read(FileErrors(self._path, self._state))

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
    errors: FileErrors, line: int, header: Sequence[str], rows: Iterator[Row], load: Load
) -> Members | dict[str, GroupHoldings]:
    """Read the holdings of a group, or sectors by name, from the first row of a file and the others.

    InputFileError says why the file cannot be read on; where it has bad rows, what this gives is not whole.
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


def _parse_members(errors: FileErrors, rows: Iterable[Row], columns: Mapping[str, int], load: Load) -> Members:
    """Read the plain form, of any length: what is too long to keep is read again by whoever needs its rows."""
    kept: list[_PlainRow] = []
    signs: set[bool] = set()
    count, total, largest = 0, Decimal(0), Decimal(0)
    for row in _written(errors, rows, columns, signs):
        count += 1
        if count <= load.room:
            kept.append(row)
        if (weight := row[2]) is not None:
            total += weight
            largest = max(largest, weight.copy_abs())
    if errors:
        return Members(())
    unit = detect_unit(errors, total, signs, load.unit)
    whole = count == len(kept)
    if largest >= _WEIGHT_LIMITS[unit]:
        for line, _, weight, _ in kept if whole else _reread(FileErrors(errors.path, errors.state)):
            if reason := weight_error(weight, unit):
                errors.add(line, reason)
    if whole:
        load.room -= count
        return Members(tuple(_holdings(kept, unit)))
    return Members(RereadHoldings(errors, count, lambda again: _holdings(_reread(again), unit)))


def _reread(errors: FileErrors) -> Iterator[_PlainRow]:
    """Read a plain file that was right before."""
    rows = read_rows(errors)
    return _written(errors, rows, columns_of(errors, *next(rows)), set())


def _written(
    errors: FileErrors, rows: Iterable[Row], columns: Mapping[str, int], signs: set[bool]
) -> Iterator[_PlainRow]:
    """Yield the rows of the plain form."""
    weight_at, name_at = columns["weight"], columns.get("name")
    for line, symbol, fields in _members(errors, rows, columns):
        try:
            weight = parse_weight(fields[weight_at], signs)
        except ValueError as error:
            errors.add(line, str(error))
            continue
        yield line, symbol, weight, None if name_at is None else " ".join(fields[name_at].split()) or None


def _holdings(rows: Iterable[_PlainRow], unit: Unit) -> Iterator[Holding]:
    return (Holding(symbol, as_fraction(weight, unit), name) for _, symbol, weight, name in rows)


def _parse_vendor(errors: FileErrors, rows: Iterator[Row], load: Load) -> Members:
    """Read a table that a fund company publishes, wherever in the file it begins."""
    head = list(islice(rows, HEADER_WITHIN))
    found = find_table(errors, head)
    if found is None:
        raise _unknown_form(errors, head)
    table, first = found
    entries: list[tuple[Entry, Decimal | None]] = []
    signs: set[bool] = set()
    for entry in table.entries(whole(errors, chain(first, rows))):
        weight = None
        try:
            weight = parse_weight(entry.weight, signs)
            check_symbol(entry.symbol)
        except ValueError as error:
            # of what is left out anyway nothing needs to be right
            if not entry.reason:
                errors.add(entry.line, str(error))
        entries.append((entry, weight))
    if errors:
        return Members(())
    total = total_of(weight for _, weight in entries)
    unit = detect_unit(errors, total, signs, load.unit, header_percent=table.percent, vendor_percent=table.form.percent)
    kept, left_out = _split_skipped(errors, entries, unit)
    if left_out and not kept:
        reasons = Counter(each.reason for each in left_out)
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        raise errors.error(f"holds no stocks; all rows were left out: {counts}")
    notes = list(table.notes)
    share = as_fraction(total, unit)
    if signs and share is not None and not _WHOLE_SUM[0] <= share <= _WHOLE_SUM[1]:
        notes.append(f"the weights sum to {share.scaleb(2):.4g} %; see that the file is whole")
    return Members(
        load.keep(errors, kept, lambda again: _parse_vendor(again, read_rows(again), Load(load.unit)).holdings),
        tuple(left_out),
        table.as_of,
        table.fund if table.fund and _TICKER.fullmatch(table.fund) else None,
        table.form.weight is not None,
        tuple(f"{printable(errors.path)}: {note}." for note in notes),
    )


def _split_skipped(
    errors: FileErrors, entries: Iterable[tuple[Entry, Decimal | None]], unit: Unit
) -> tuple[list[Holding], list[SkippedRow]]:
    """Part the stocks, each symbol once and with its heaviest row, from what is left out."""
    heaviest: dict[str, tuple[Entry, Decimal | None]] = {}
    out: list[tuple[Entry, Decimal | None]] = []
    for entry, weight in entries:
        if entry.reason:
            out.append((entry, weight))
            continue
        if reason := weight_error(weight, unit):
            errors.add(entry.line, reason)
        known = heaviest.setdefault(entry.symbol, (entry, weight))
        if known[0] is not entry:
            lighter = (entry, weight)
            if weight is not None and (known[1] is None or weight > known[1]):
                heaviest[entry.symbol], lighter = lighter, known
            other = heaviest[entry.symbol][0].line
            out.append(
                (lighter[0]._replace(reason=f"{entry.symbol} is on line {other} too, and not lighter"), lighter[1])
            )
    holdings = [
        Holding(symbol, as_fraction(weight, unit), entry.name, entry.industry)
        for symbol, (entry, weight) in heaviest.items()
    ]
    left_out = [
        SkippedRow(entry.line, entry.ticker, entry.name, as_fraction(weight, unit), entry.reason)
        for entry, weight in sorted(out, key=lambda each: each[0].line)
    ]
    return holdings, left_out


def _unknown_form(errors: FileErrors, head: Sequence[Row]) -> InputFileError:
    line, header = max(head, key=lambda row: sum(map(bool, row[1])), default=(0, []))
    if not header:
        return errors.error("is empty")
    names = {name.lower() for name in header}
    if {"open", "high", "low"} <= names:
        reason = "holds prices without the columns date and close"
    elif {"asset class", "cusip"} <= names or {"asset class", "isin"} <= names:
        reason = "lists bonds or the like, without tickers; only stocks are loaded"
    else:
        reason = f"the columns {quoted(','.join(header))} are none of {_FORMS}"
    return errors.error(reason, line, NotHoldings)


def parse_weight(written: str, signs: set[bool]) -> Decimal | None:
    """Read a weight, None where there is none, and keep whether it has a percent sign; ValueError says what it is."""
    if not written:
        return None
    number = written.removesuffix("%").rstrip()
    if not _NUMBER.fullmatch(number):
        raise ValueError(f"weight {quoted(written)} is not a number such as 0.065, 6.5 or 6.5%")
    signs.add(written != number)
    return Decimal(number)


def total_of(weights: Iterable[Decimal | None]) -> Decimal:
    """Sum the weights that are known."""
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
    """Tell fractions from percent: as stated, as the signs or the header say, by the sum, as the vendor means."""
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
    errors: FileErrors, rows: Iterable[Row], columns: Mapping[str, int], load: Load
) -> dict[str, GroupHoldings]:
    held: dict[str, list[Holding]] = {}
    written: dict[str, str] = {}
    for line, symbol, fields in _members(errors, whole(errors, rows), columns):
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
            "SECTOR", name, load.keep(errors, holdings, partial(_reread_sector, name)), description=written[name]
        )
        for name, holdings in sorted(held.items())
    }


def _reread_sector(name: str, errors: FileErrors) -> Iterable[Holding]:
    """Read a sector in a file that was right before."""
    rows = read_rows(errors)
    return _parse_sectors(errors, rows, columns_of(errors, *next(rows)), Load())[name].holdings


def whole(errors: FileErrors, rows: Iterable[Row]) -> Iterator[Row]:
    """Pass on the rows of a file that can only be kept whole."""
    for number, row in enumerate(rows):
        if number == MAX_KEPT:
            reason = f"is the last of more than {MAX_KEPT:,} rows, which only a file of symbol,name,weight may have"
            raise errors.error(reason, row[0])
        yield row


def _members(
    errors: FileErrors, rows: Iterable[Row], columns: Mapping[str, int]
) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the rows that have their fields and a symbol of their own."""
    width, symbol_at = max(columns.values()) + 1, columns["symbol"]
    lines: dict[str, int] = {}
    for line, fields in rows:
        if reason := shape_error(fields, width):
            errors.add(line, reason)
            continue
        symbol = dotted(fields[symbol_at].upper())
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
    """Raise a ValueError that says what is wrong with a symbol."""
    if not 0 < len(symbol) <= MAX_SYMBOL or not symbol.isprintable() or " " in symbol:
        raise ValueError(f"symbol {quoted(symbol)} is not 1 to {MAX_SYMBOL} characters without white space")
