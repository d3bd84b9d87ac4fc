"""Files of holdings -> checked rows. Pure: files in, rows out, no database.

A file is told by its content: what a fund company publishes (vendors.py), or a plain form: `symbol,name,weight` holds
one group, `symbol,sector,industry` a group for each sector. The type and name of a group are stated, or the file's name
tells them (`etf_SPY.csv`), or its content does. A folder's `groups.csv` says which of its files count.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from graph.errors import InputFileError
from graph.sheets import Errors, NotHoldings, Progress, Row, quoted, read_rows, shown
from graph.vendors import HEADER_WITHIN, Entry, find_table, misfit, read_day

TYPES = ("ETF", "THEME", "SECTOR", "SEGMENT", "CUSTOM", "UNIVERSE")
INDEX = "groups.csv"
"""The file that says which files of its folder count."""
MAX_SYMBOL = 50
MAX_NAME = 100
MAX_KEPT = 100_000
"""Rows that are kept in memory, of one table that must be read whole, and of all the files of a load: the holdings of
further files are read from them again when they are needed. Some 60,000 stocks are listed in the world."""

Unit = Literal["fraction", "percent"]

_SUFFIX = r"\.(?:csv|xlsx)(?:\.gz)?"
_DAY = r"(?:[_-]\d{4}-\d\d-\d\d)?"
_FILE = re.compile(rf"({'|'.join(TYPES)})_(.+?){_DAY}{_SUFFIX}", re.IGNORECASE)
_SECTORS_FILE = re.compile(rf"sectors{_DAY}{_SUFFIX}", re.IGNORECASE)
_PRICES_FILE = re.compile(rf"ohlcv.*{_SUFFIX}", re.IGNORECASE)
_DATA_FILE = re.compile(rf".*{_SUFFIX}", re.IGNORECASE)
# as vendors name what they let download, and as people name it who keep a file for each day
_NO_FUND = "(?!(?:all|ark|daily|data|etf|export|file|full|fund|index|list|my|nasdaq|spdr|ssga|stocks|top)[_-])"
_FUND_FILES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"holdings-daily-[a-z]{2}-[a-z]{2}-([a-z0-9]+)(?![a-z0-9]).*",
        rf"(?:.*[_-])?{_NO_FUND}([a-z]{{1,6}})[_-]holdings?(?![a-z]).*",
        rf"{_NO_FUND}([a-z]{{1,6}})[_-]\d{{4}}-?\d\d-?\d\d\b.*",
    )
)
_FILE_DAY = re.compile(r"(?<!\d)((?:19|20)\d\d)-?(\d\d)-?(\d\d)(?!\d)")
_TICKER = re.compile(r"[A-Z0-9.]{1,10}")
_FORMS = "symbol,name,weight; symbol,sector,industry; or as iShares, SSGA, Invesco, Vanguard and ARK publish holdings"
_FILE_NAMES = "etf_<NAME>.csv (theme_, universe_, segment_, custom_, sector_ likewise) or sectors.csv"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII)
_FRACTION_SUM = (Decimal("0.5"), Decimal("1.5"))
_PERCENT_SUM = (Decimal(50), Decimal(150))
_WHOLE_SUM = (Decimal("0.9"), Decimal("1.1"))
_MAX_WEIGHT = 10  # what numeric(9,8) and numeric(5,4) hold


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
class LeftOut:
    """A row of a vendor's file that is no member of the group."""

    line: int
    ticker: str
    """As the vendor writes it; empty or a dash where there is none."""
    name: str | None
    weight: Decimal | None
    """A fraction of the fund."""
    reason: str
    """Such as cash, futures, no ticker."""


class Spell(NamedTuple):
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
    left_out: tuple[LeftOut, ...] = field(default=(), repr=False)
    """In the order of the file."""
    metadata: Mapping[str, Any] | None = None
    """What the source says of the group beside its members; keys that are not here stay as the group has them."""
    liquidity_filter: Any = None
    """The filter that its members passed; None leaves the one that the group has."""
    past: tuple[Spell, ...] = field(default=(), repr=False)
    """Who was a member when, up to `as_of`, where the source knows; spells without an end are those of `holdings`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What files hold: whole groups, and what kept others out."""

    groups: tuple[GroupHoldings, ...] = ()
    """In the order of the index, or of the files' names; one that is there for several days in their order."""
    errors: tuple[InputFileError, ...] = ()
    """One line each. Of a file with an error no group is here."""
    notes: tuple[str, ...] = ()
    """Files that were left out, sectors that the index does not list, counts that differ from it. Nothing failed."""


class _Named(NamedTuple):
    """A group to be found in a file."""

    type: str
    name: str
    description: str | None
    members: str  # as groups.csv counts them
    as_of: date | None
    line: int  # of groups.csv


_PlainRow = tuple[int, str, Decimal | None, str | None]
"""The line, symbol, weight and name in a row of the plain form, the weight as it is written."""


class _Members(NamedTuple):
    """What a file of one group holds."""

    holdings: Collection[Holding]
    left_out: tuple[LeftOut, ...] = ()
    as_of: date | None = None
    fund: str | None = None  # its ticker, as the content has it
    of_fund: bool = False  # what funds publish
    notes: tuple[str, ...] = ()


class _Load:
    """What a load is told, and how many rows it may keep yet."""

    def __init__(self, unit: Unit | None = None, progress: Progress | None = None) -> None:
        self.unit = unit
        self.progress = progress
        self.room = MAX_KEPT

    def keep(
        self, errors: Errors, holdings: Sequence[Holding], anew: Callable[[Errors], Iterable[Holding]]
    ) -> Collection[Holding]:
        """Give the holdings while there is room for them, and then what reads them anew."""
        if len(holdings) > self.room:
            return _Anew(errors, len(holdings), anew)
        self.room -= len(holdings)
        return tuple(holdings)


class _Anew(Collection[Holding]):
    """Holdings that are too many to keep: each time they are read from their file again."""

    def __init__(self, errors: Errors, count: int, read: Callable[[Errors], Iterable[Holding]]) -> None:
        self._path, self._state, self._count, self._read = errors.path, errors.state, count, read

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Holding]:
        yield from self._read(Errors(self._path, self._state))

    def __contains__(self, holding: object) -> bool:
        return any(holding == each for each in self)


def read_paths(
    paths: Sequence[Path],
    *,
    group_type: str | None = None,
    name: str | None = None,
    weights: Unit | None = None,
    as_of: date | None = None,
    progress: Progress | None = None,
) -> Reading:
    """Read files and folders, everything checked; what is wrong with them is in the answer's `errors`.

    `group_type` and `name` replace what one file tells of itself, `as_of` what any tells of its day. `weights` states
    the unit where neither a percent sign nor the vendor does and the sum does not tell: 0.5 to 1.5 is fractions, 50 to
    150 percent. Symbols come in upper case, classes of shares as in BRK.B, names of sectors and themes in snake_case.
    Subfolders are not entered. Files of one group may be of several days. That a symbol is there twice is found among
    the first MAX_KEPT of a file.
    """
    if (group_type or name) and len(paths) > 1:
        return Reading(errors=(InputFileError("--type and --name tell what one file holds; load that file alone."),))
    load = _Load(weights, progress)
    found: dict[tuple[str, str], dict[date | None, tuple[Path, GroupHoldings]]] = {}
    errors: list[InputFileError] = []
    notes: list[str] = []
    for path in paths:
        for source, reading in _readings(path, group_type, name, load):
            errors += reading.errors
            notes += reading.notes
            for group in reading.groups:
                day = as_of or group.as_of
                days = found.setdefault((group.type, group.name), {})
                others = [first for other, (first, _) in days.items() if other == day or None in (other, day)]
                if others:
                    reason = f"{group.type} {group.name} is in {shown(others[0])} too; keep one"
                    errors.append(Errors(source).error(reason))
                else:
                    days[day] = (source, replace(group, as_of=day))
    if not found and not errors:
        where = ", ".join(map(shown, paths)) or "No path was given"
        errors.append(InputFileError(f"{where}: nothing to load; files are told by their names: {_FILE_NAMES}."))
    groups = (days[day][1] for days in found.values() for day in sorted(days, key=lambda day: day or date.min))
    return Reading(tuple(groups), tuple(errors), tuple(notes))


def _readings(path: Path, group_type: str | None, name: str | None, load: _Load) -> Iterator[tuple[Path, Reading]]:
    try:
        if not path.is_dir():
            yield path, _read_file(path, group_type, name, load)
        elif group_type or name:
            reason = "is a folder; --type and --name tell what one file holds"
            yield path, Reading(errors=(Errors(path).error(reason),))
        elif (path / INDEX).exists():
            yield from _read_indexed(path, load)
        else:
            yield from _read_unindexed(path, load)
    except OSError as error:
        yield path, Reading(errors=(Errors(path).error(f"cannot be read: {error.strerror}"),))


def _read_unindexed(folder: Path, load: _Load) -> Iterator[tuple[Path, Reading]]:
    for path in _visible(folder):
        if _FILE.fullmatch(path.name) or _SECTORS_FILE.fullmatch(path.name):
            yield path, _read_file(path, None, None, load)
        elif _PRICES_FILE.fullmatch(path.name) or not _DATA_FILE.fullmatch(path.name) or path.is_dir():
            yield path, Reading(notes=(_left_out(path, "its name does not tell a group"),))
        else:
            reading = _read_file(path, None, None, load)
            other = [error for error in reading.errors if isinstance(error, NotHoldings)]
            yield path, Reading(notes=tuple(f"{error} Left out." for error in other)) if other else reading


def _read_indexed(folder: Path, load: _Load) -> Iterator[tuple[Path, Reading]]:
    index = Errors(folder / INDEX)
    try:
        listed = _read_index(index)
    except InputFileError as error:
        index.end(error)
        yield index.path, Reading(errors=index.all())
        return
    for file, named in listed.items():
        path = folder / file
        if path.exists():
            yield path, _read_listed(path, named, load, index)
        else:
            index.add(named[0].line, f"there is no file {file!r} in the folder")
    yield index.path, Reading(errors=index.all())
    reason = f"{INDEX} does not list it" + (" in a row without errors" if index else "")
    for path in _visible(folder):
        if path.name != INDEX and path.name not in listed:
            yield path, Reading(notes=(_left_out(path, reason),))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _left_out(path: Path, reason: str) -> str:
    if _PRICES_FILE.fullmatch(path.name):
        reason = "it holds prices, which come elsewhere"
    return f"{shown(path)}: left out; {reason}."


def _read_index(index: Errors) -> dict[str, list[_Named]]:
    """Read groups.csv: the groups of each file it names."""
    rows = _whole(index, read_rows(index))
    line, header = next(rows, (0, []))
    columns = _columns(index, line, header)
    if not {"name", "type", "file"} <= columns.keys():
        raise index.error("an index has the columns name,type,description,as_of,members,file", line)
    listed: dict[str, list[_Named]] = {}
    lines: dict[tuple[object, ...], int] = {}
    for line, fields in rows:
        try:
            file, named = _read_index_row(line, fields, columns)
        except ValueError as error:
            index.add(line, str(error))
            continue
        first = lines.setdefault((named.type, named.name, named.as_of, file), line)
        if first == line:
            listed.setdefault(file, []).append(named)
        else:
            index.add(line, f"{named.type} {named.name} is on line {first} too")
    return listed


def _read_index_row(line: int, fields: Sequence[str], columns: Mapping[str, int]) -> tuple[str, _Named]:
    """Give the file that a row names and the group in it; ValueError says what is wrong."""
    if reason := misfit(fields, max(columns.values()) + 1):
        raise ValueError(reason)
    row = {column: fields[place] for column, place in columns.items()}
    if not row["file"] or Path(row["file"]).name != row["file"]:
        raise ValueError(f"file {quoted(row['file'])} is not the name of a file in this folder")
    written = row.get("as_of", "")
    as_of = read_day(written)
    if written and as_of is None:
        raise ValueError(f"as_of {quoted(written)} is not a date such as 2025-11-18")
    description = " ".join(row.get("description", "").split()) or None
    return row["file"], _Named(*check_group(row["type"], row["name"]), description, row.get("members", ""), as_of, line)


def _read_listed(path: Path, listed: Sequence[_Named], load: _Load, index: Errors) -> Reading:
    """Read the groups that the index lists for a file."""
    errors = Errors(path)
    content = _parse(errors, load)
    if content is None:
        return Reading(errors=errors.all())
    groups, notes = [], []
    for named in listed:
        if isinstance(content, _Members):
            members = content
        elif named.type != "SECTOR":
            index.add(named.line, f"{path.name} holds sectors, so no {named.type}")
            continue
        elif named.name not in content:
            index.add(named.line, f"{path.name} holds no sector {named.name}")
            continue
        else:
            members = _Members(content[named.name].holdings)
        if named.members and named.members != str(len(members.holdings)):
            held = f"{path.name} holds {len(members.holdings)}"
            notes.append(f"{shown(index.path)}, line {named.line}: says {quoted(named.members)} members; {held}.")
        groups.append(_as_group(path, named.type, named.name, members, named.description, named.as_of))
    if isinstance(content, _Members):
        notes += content.notes
    else:
        names = {named.name for named in listed}
        notes += [
            f"{shown(path)}: sector {group.description} left out; {INDEX} does not list it."
            for group in content.values()
            if group.name not in names
        ]
    return Reading(tuple(groups), notes=tuple(notes))


def _read_file(path: Path, group_type: str | None, name: str | None, load: _Load) -> Reading:
    """Read a file of which what is stated, its own name or its content tells the group."""
    errors = Errors(path)
    content = _parse(errors, load)
    if content is None:
        return Reading(errors=errors.all())
    told = _FILE.fullmatch(path.name)
    told_type, told_name = (told[1].upper(), told[2]) if told else (None, None)
    try:
        if isinstance(content, _Members):
            stated = group_type or name or told_type != "ETF"
            if content.fund and not stated and content.fund != str(told_name).upper():
                raise errors.error(
                    f"is named as {told_name}, and its content as {content.fund}; --name says which it is"
                )
            named = _tell(errors, content, group_type or told_type, name or told_name)
            return Reading((_as_group(path, *named, content),), notes=content.notes)
        group_type, name = (group_type or told_type or "SECTOR").upper(), name or told_name or ""
        if name or group_type != "SECTOR":
            reason = f"holds a group for each sector, so it is no {group_type} {name}".rstrip()
            raise errors.error(f"{reason}; name it sectors.csv, and give no --name")
    except InputFileError as error:
        return Reading(errors=(error,))
    return Reading(tuple(replace(group, as_of=_file_day(path)) for group in content.values()))


def _tell(errors: Errors, content: _Members, group_type: str | None, name: str | None) -> tuple[str, str]:
    """Give the type and the name of a file's group; what a fund publishes tells them, or the name of its file does."""
    if content.of_fund:
        named = (pattern.fullmatch(errors.path.name) for pattern in _FUND_FILES)
        group_type = group_type or "ETF"
        name = name or content.fund or next((found[1].upper() for found in named if found), None)
    if not group_type or not name:
        reason = f"its name does not tell what it holds; give --type and --name, or name it as one of {_FILE_NAMES}"
        raise errors.error(reason, kind=NotHoldings)
    try:
        return check_group(group_type, name)
    except ValueError as error:
        raise errors.error(str(error)) from error


def _as_group(
    path: Path,
    group_type: str,
    name: str,
    members: _Members,
    description: str | None = None,
    as_of: date | None = None,
) -> GroupHoldings:
    as_of = members.as_of or as_of or _file_day(path)
    return GroupHoldings(group_type, name, members.holdings, description, as_of, members.left_out)


def _file_day(path: Path) -> date | None:
    """Give the day that the name of a file tells."""
    return next((day for found in _FILE_DAY.findall(path.name) if (day := read_day("-".join(found)))), None)


def check_group(group_type: str, name: str) -> tuple[str, str]:
    """Check a type and a name, and write them as the database holds them; ValueError says what is wrong."""
    if group_type.upper() not in TYPES:
        raise ValueError(f"type {quoted(group_type)} is none of {', '.join(TYPES)}")
    named = name.strip()
    if group_type.upper() in ("SECTOR", "THEME"):
        named = re.sub(r"[\W_]+", "_", named.lower()).strip("_")
    if not 0 < len(named) <= MAX_NAME or not named.isprintable():
        raise ValueError(f"name {quoted(name)} is not 1 to {MAX_NAME} printable characters")
    return group_type.upper(), named


def _parse(errors: Errors, load: _Load) -> _Members | dict[str, GroupHoldings] | None:
    """Read the holdings of a group, or sectors by name; None when the file has errors."""
    try:
        rows = read_rows(errors, load.progress)
        line, header = next(rows, (0, []))
        names = {name.lower() for name in header}
        content: _Members | dict[str, GroupHoldings]
        if {"symbol", "weight"} <= names:
            content = _parse_members(errors, rows, _columns(errors, line, header), load)
        elif {"symbol", "sector"} <= names:
            content = _parse_sectors(errors, rows, _columns(errors, line, header), load)
        else:
            content = _parse_vendor(errors, chain([(line, header)] if header else [], rows), load)
        if not errors and not (content.holdings if isinstance(content, _Members) else content):
            raise errors.error("has a header and no rows; an empty file does not empty a group")
    except InputFileError as error:
        errors.end(error)
    return None if errors else content


def _columns(errors: Errors, line: int, header: Sequence[str]) -> dict[str, int]:
    """Where each column is, by its name in lower case."""
    if not header:
        raise errors.error("is empty")
    columns: dict[str, int] = {}
    for place, name in enumerate(header):
        if name and columns.setdefault(name.lower(), place) != place:
            raise errors.error(f"the column {quoted(name)} is there twice", line)
    return columns


def _parse_members(errors: Errors, rows: Iterable[Row], columns: Mapping[str, int], load: _Load) -> _Members:
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
        return _Members(())
    limit = limit_of(tell_unit(errors, total, signs, load.unit))
    whole = count == len(kept)
    if largest >= limit:
        for line, _, weight, _ in kept if whole else _reread(Errors(errors.path, errors.state)):
            if fault := out_of_range(weight, limit):
                errors.add(line, fault)
    if whole:
        load.room -= count
        return _Members(tuple(_holdings(kept, limit)))
    return _Members(_Anew(errors, count, lambda again: _holdings(_reread(again), limit)))


def _reread(errors: Errors) -> Iterator[_PlainRow]:
    """Read a plain file that was right before."""
    rows = read_rows(errors)
    return _written(errors, rows, _columns(errors, *next(rows)), set())


def _written(errors: Errors, rows: Iterable[Row], columns: Mapping[str, int], signs: set[bool]) -> Iterator[_PlainRow]:
    """Yield the rows of the plain form."""
    weight_at, name_at = columns["weight"], columns.get("name")
    for line, symbol, fields in _members(errors, rows, columns):
        try:
            weight = read_number(fields[weight_at], signs)
        except ValueError as error:
            errors.add(line, str(error))
            continue
        yield line, symbol, weight, None if name_at is None else " ".join(fields[name_at].split()) or None


def _holdings(rows: Iterable[_PlainRow], limit: int) -> Iterator[Holding]:
    return (Holding(symbol, as_fraction(weight, limit), name) for _, symbol, weight, name in rows)


def _parse_vendor(errors: Errors, rows: Iterator[Row], load: _Load) -> _Members:
    """Read a table that a fund company publishes, wherever in the file it begins."""
    head = list(islice(rows, HEADER_WITHIN))
    found = find_table(errors, head)
    if found is None:
        raise _unknown_form(errors, head)
    table, first = found
    entries: list[tuple[Entry, Decimal | None]] = []
    signs: set[bool] = set()
    for entry in table.entries(_whole(errors, chain(first, rows))):
        weight = None
        try:
            weight = read_number(entry.weight, signs)
            check_symbol(entry.symbol)
        except ValueError as error:
            # of what is left out anyway nothing needs to be right
            if not entry.reason:
                errors.add(entry.line, str(error))
        entries.append((entry, weight))
    if errors:
        return _Members(())
    total = total_of(weight for _, weight in entries)
    limit = limit_of(tell_unit(errors, total, signs, load.unit, says=table.percent, means=table.form.percent))
    kept, left_out = _kept(errors, entries, limit)
    if left_out and not kept:
        reasons = Counter(each.reason for each in left_out)
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        raise errors.error(f"holds no stocks; all rows were left out: {counts}")
    notes = list(table.notes)
    share = as_fraction(total, limit)
    if signs and share is not None and not _WHOLE_SUM[0] <= share <= _WHOLE_SUM[1]:
        notes.append(f"the weights sum to {share.scaleb(2):.4g} %; see that the file is whole")
    return _Members(
        load.keep(errors, kept, lambda again: _parse_vendor(again, read_rows(again), _Load(load.unit)).holdings),
        tuple(left_out),
        table.as_of,
        table.fund if table.fund and _TICKER.fullmatch(table.fund) else None,
        table.form.weight is not None,
        tuple(f"{shown(errors.path)}: {note}." for note in notes),
    )


def _kept(
    errors: Errors, entries: Iterable[tuple[Entry, Decimal | None]], limit: int
) -> tuple[list[Holding], list[LeftOut]]:
    """Part the stocks, each symbol once and with its heaviest row, from what is left out."""
    heaviest: dict[str, tuple[Entry, Decimal | None]] = {}
    out: list[tuple[Entry, Decimal | None]] = []
    for entry, weight in entries:
        if entry.reason:
            out.append((entry, weight))
            continue
        if fault := out_of_range(weight, limit):
            errors.add(entry.line, fault)
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
        Holding(symbol, as_fraction(weight, limit), entry.name, entry.industry)
        for symbol, (entry, weight) in heaviest.items()
    ]
    left_out = [
        LeftOut(entry.line, entry.ticker, entry.name, as_fraction(weight, limit), entry.reason)
        for entry, weight in sorted(out, key=lambda each: each[0].line)
    ]
    return holdings, left_out


def _unknown_form(errors: Errors, head: Sequence[Row]) -> InputFileError:
    line, header = max(head, key=lambda row: sum(map(bool, row[1])), default=(0, []))
    if not header:
        return errors.error("is empty")
    names = {name.lower() for name in header}
    if errors.path.name == INDEX:
        reason = "is the index of a folder; load the folder"
    elif {"date", "close"} <= names or {"open", "high", "low"} <= names:
        reason = "holds prices, which come elsewhere"
    elif {"asset class", "cusip"} <= names or {"asset class", "isin"} <= names:
        reason = "lists bonds or the like, without tickers; only stocks are loaded"
    else:
        reason = f"the columns {quoted(','.join(header))} are none of {_FORMS}"
    return errors.error(reason, line, NotHoldings)


def read_number(written: str, signs: set[bool]) -> Decimal | None:
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


def tell_unit(
    errors: Errors, total: Decimal, signs: set[bool], stated: Unit | None, *, says: bool = False, means: bool = False
) -> Unit:
    """Tell fractions from percent: as stated, as the signs or the header say, by the sum, as the vendor means."""
    if len(signs) > 1:
        raise errors.error("some weights have a percent sign and others have none")
    if stated == "fraction" and True in signs:
        raise errors.error("the weights have percent signs, so they are no fractions; leave out --weights")
    if stated or not signs:
        return stated or "fraction"
    if True in signs or says or _PERCENT_SUM[0] <= total <= _PERCENT_SUM[1]:
        return "percent"
    if _FRACTION_SUM[0] <= total <= _FRACTION_SUM[1]:
        return "fraction"
    if means:
        return "percent"
    both = "--weights fraction or --weights percent"
    raise errors.error(f"the weights sum to {total:.6g}, neither near 1 nor near 100; say which they are with {both}")


def limit_of(unit: Unit) -> int:
    """Give what a weight in a unit lies below, as its negative lies above the negative of it."""
    return _MAX_WEIGHT * (100 if unit == "percent" else 1)


def out_of_range(weight: Decimal | None, limit: int) -> str:
    """Say what is wrong with a weight beyond the limit of its unit; nothing if nothing."""
    if weight is None or weight.copy_abs() < limit:
        return ""
    return f"weight {weight} is not between -{limit} and {limit}{' percent' if limit > _MAX_WEIGHT else ''}"


def as_fraction(weight: Decimal | None, limit: int) -> Decimal | None:
    """Give a weight as a fraction; the limit tells its unit."""
    return weight if weight is None or limit == _MAX_WEIGHT else weight.scaleb(-2)


def _parse_sectors(
    errors: Errors, rows: Iterable[Row], columns: Mapping[str, int], load: _Load
) -> dict[str, GroupHoldings]:
    held: dict[str, list[Holding]] = {}
    written: dict[str, str] = {}
    for line, symbol, fields in _members(errors, _whole(errors, rows), columns):
        label = " ".join(fields[columns["sector"]].split())
        try:
            name = check_group("SECTOR", label)[1]
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


def _reread_sector(name: str, errors: Errors) -> Iterable[Holding]:
    """Read a sector in a file that was right before."""
    rows = read_rows(errors)
    return _parse_sectors(errors, rows, _columns(errors, *next(rows)), _Load())[name].holdings


def _whole(errors: Errors, rows: Iterable[Row]) -> Iterator[Row]:
    """Pass on the rows of a file that can only be kept whole."""
    for number, row in enumerate(rows):
        if number == MAX_KEPT:
            reason = f"is the last of more than {MAX_KEPT:,} rows, which only a file of symbol,name,weight may have"
            raise errors.error(reason, row[0])
        yield row


def _members(errors: Errors, rows: Iterable[Row], columns: Mapping[str, int]) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the rows that have their fields and a symbol of their own."""
    width, symbol_at = max(columns.values()) + 1, columns["symbol"]
    lines: dict[str, int] = {}
    for line, fields in rows:
        if reason := misfit(fields, width):
            errors.add(line, reason)
            continue
        symbol = fields[symbol_at].upper()
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
