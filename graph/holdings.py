"""Files of holdings -> checked rows. Pure: files in, rows out, no database.

Two plain forms of CSV: `symbol,name,weight` holds one group, whose type and name are the file's (`etf_SPY.csv`) or are
stated; `symbol,sector,industry` holds a group for each sector. A folder's `groups.csv` says which of its files count.
"""

import csv
import gzip
import io
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal, NamedTuple

from graph.errors import InputFileError

TYPES = ("ETF", "THEME", "SECTOR", "SEGMENT", "CUSTOM", "UNIVERSE")
INDEX = "groups.csv"
"""The file that says which files of its folder count."""
MAX_LINE = 131_072
"""Characters in a line, as in a field of Python's csv."""
MAX_ERRORS = 20
"""Bad rows of one file that are named; the rest are counted."""
MAX_SYMBOL = 50
MAX_NAME = 100

Unit = Literal["fraction", "percent"]

_FILE = re.compile(rf"({'|'.join(TYPES)})_(.+)\.csv(?:\.gz)?", re.IGNORECASE)
_SECTORS_FILE = re.compile(r"sectors\.csv(?:\.gz)?", re.IGNORECASE)
_PRICES_FILE = re.compile(r"ohlcv.*\.csv(?:\.gz)?", re.IGNORECASE)
_FORMS = "symbol,name,weight and symbol,sector,industry"
_FILE_NAMES = "etf_<NAME>.csv (theme_, universe_, segment_, custom_, sector_ likewise) or sectors.csv"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII)
_FRACTION_SUM = (Decimal("0.5"), Decimal("1.5"))
_PERCENT_SUM = (Decimal(50), Decimal(150))
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
class GroupHoldings:
    """A group as a source gives it, whole: what is not in `holdings` is not in the group."""

    type: str
    name: str
    holdings: tuple[Holding, ...] = field(repr=False)
    description: str | None = None
    """None leaves the description that the group has."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What files hold: whole groups, and what kept others out."""

    groups: tuple[GroupHoldings, ...] = ()
    """Each once, in the order of the index, or of the files' names."""
    errors: tuple[InputFileError, ...] = ()
    """One line each. Of a file with an error no group is here."""
    notes: tuple[str, ...] = ()
    """Files that were left out, sectors that the index does not list, counts that differ from it. Nothing failed."""


class _Named(NamedTuple):
    """A group to be found in a file."""

    type: str
    name: str
    description: str | None = None
    members: str = ""  # as groups.csv counts them
    line: int = 0  # of groups.csv


def read_paths(
    paths: Sequence[Path], *, group_type: str | None = None, name: str | None = None, weights: Unit | None = None
) -> Reading:
    """Read files and folders, everything checked; what is wrong with them is in the answer's `errors`.

    `group_type` and `name` replace what the name of one file tells. `weights` states the unit that the sum of a file
    tells otherwise: 0.5 to 1.5 is fractions, 50 to 150 percent. Symbols come in upper case, names of sectors and themes
    in snake_case. Subfolders are not entered.
    """
    if (group_type or name) and len(paths) > 1:
        return Reading(errors=(InputFileError("--type and --name tell what one file holds; load that file alone."),))
    groups: dict[tuple[str, str], tuple[Path, GroupHoldings]] = {}
    errors: list[InputFileError] = []
    notes: list[str] = []
    for path in paths:
        for source, reading in _readings(path, group_type, name, weights):
            errors += reading.errors
            notes += reading.notes
            for group in reading.groups:
                first, kept = groups.setdefault((group.type, group.name), (source, group))
                if kept is not group:
                    errors.append(_error(source, f"{group.type} {group.name} is in {_shown(first)} too; keep one"))
    if not groups and not errors:
        where = ", ".join(map(_shown, paths)) or "No path was given"
        errors.append(InputFileError(f"{where}: nothing to load; files are told by their names: {_FILE_NAMES}."))
    return Reading(tuple(group for _, group in groups.values()), tuple(errors), tuple(notes))


def _readings(
    path: Path, group_type: str | None, name: str | None, unit: Unit | None
) -> Iterator[tuple[Path, Reading]]:
    try:
        if not path.is_dir():
            yield path, _read_file(path, group_type, name, unit)
        elif group_type or name:
            yield path, Reading(errors=(_error(path, "is a folder; --type and --name tell what one file holds"),))
        elif (path / INDEX).exists():
            yield from _read_indexed(path, unit)
        else:
            yield from _read_unindexed(path, unit)
    except OSError as error:
        yield path, Reading(errors=(_error(path, f"cannot be read: {error.strerror}"),))


def _read_unindexed(folder: Path, unit: Unit | None) -> Iterator[tuple[Path, Reading]]:
    for path in _visible(folder):
        if _FILE.fullmatch(path.name) or _SECTORS_FILE.fullmatch(path.name):
            yield path, _read_file(path, None, None, unit)
        else:
            yield path, Reading(notes=(_left_out(path, "its name does not tell a group"),))


def _read_indexed(folder: Path, unit: Unit | None) -> Iterator[tuple[Path, Reading]]:
    index = _Errors(folder / INDEX)
    try:
        listed = _read_index(index)
    except InputFileError as error:
        index.end(error)
        yield index.path, Reading(errors=index.all())
        return
    for file, named in listed.items():
        path = folder / file
        if path.exists():
            yield path, _read_listed(path, named, unit, index)
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
        reason = "it holds prices, which are not loaded yet"
    return f"{_shown(path)}: left out; {reason}."


def _read_index(index: "_Errors") -> dict[str, list[_Named]]:
    """Read groups.csv: the groups of each file it names."""
    rows = _rows(index)
    line, header = next(rows, (0, []))
    columns = _columns(index.path, line, header)
    if not {"name", "type", "file"} <= columns.keys():
        raise _error(index.path, "an index has the columns name,type,description,as_of,members,file", line)
    listed: dict[str, list[_Named]] = {}
    lines: dict[tuple[str, str], int] = {}
    for line, fields in rows:
        try:
            file, named = _read_index_row(line, fields, columns)
        except ValueError as error:
            index.add(line, str(error))
            continue
        first = lines.setdefault((named.type, named.name), line)
        if first == line:
            listed.setdefault(file, []).append(named)
        else:
            index.add(line, f"{named.type} {named.name} is on line {first} too")
    return listed


def _read_index_row(line: int, fields: Sequence[str], columns: Mapping[str, int]) -> tuple[str, _Named]:
    """Give the file that a row names and the group in it; ValueError says what is wrong."""
    if misfit := _misfit(fields, max(columns.values()) + 1):
        raise ValueError(misfit)
    row = {column: fields[place] for column, place in columns.items()}
    if not row["file"] or Path(row["file"]).name != row["file"]:
        raise ValueError(f"file {_quoted(row['file'])} is not the name of a file in this folder")
    description = " ".join(row.get("description", "").split()) or None
    return row["file"], _Named(*_group(row["type"], row["name"]), description, row.get("members", ""), line)


def _read_listed(path: Path, listed: Sequence[_Named], unit: Unit | None, index: "_Errors") -> Reading:
    """Read the groups that the index lists for a file."""
    errors = _Errors(path)
    content = _parse(errors, unit)
    if content is None:
        return Reading(errors=errors.all())
    groups, notes = [], []
    for named in listed:
        if isinstance(content, tuple):
            holdings = content
        elif named.type != "SECTOR":
            index.add(named.line, f"{path.name} holds sectors, so no {named.type}")
            continue
        elif named.name not in content:
            index.add(named.line, f"{path.name} holds no sector {named.name}")
            continue
        else:
            holdings = content[named.name].holdings
        if named.members and named.members != str(len(holdings)):
            held = f"{path.name} holds {len(holdings)}"
            notes.append(f"{_shown(index.path)}, line {named.line}: says {_quoted(named.members)} members; {held}.")
        groups.append(GroupHoldings(named.type, named.name, holdings, named.description))
    if not isinstance(content, tuple):
        names = {named.name for named in listed}
        notes += [
            f"{_shown(path)}: sector {group.description} left out; {INDEX} does not list it."
            for group in content.values()
            if group.name not in names
        ]
    return Reading(tuple(groups), notes=tuple(notes))


def _read_file(path: Path, group_type: str | None, name: str | None, unit: Unit | None) -> Reading:
    """Read a file whose own name, or what is stated, tells what it holds."""
    errors = _Errors(path)
    content = _parse(errors, unit)
    if content is None:
        return Reading(errors=errors.all())
    told = _FILE.fullmatch(path.name)
    group_type = group_type or (told[1] if told else None)
    name = name or (told[2] if told else None)
    if not isinstance(content, tuple):
        if name or (group_type or "SECTOR").upper() != "SECTOR":
            reason = f"holds a group for each sector, so it is no {(group_type or '').upper()} {name or ''}".strip()
            return Reading(errors=(_error(path, f"{reason}; name it sectors.csv, and give no --name"),))
        return Reading(tuple(content.values()))
    if not group_type or not name:
        reason = f"its name does not tell what it holds; give --type and --name, or name it as one of {_FILE_NAMES}"
        return Reading(errors=(_error(path, reason),))
    try:
        return Reading((GroupHoldings(*_group(group_type, name), content),))
    except ValueError as error:
        return Reading(errors=(_error(path, str(error)),))


def _group(group_type: str, name: str) -> tuple[str, str]:
    """Check a type and a name, and write them as the database holds them; ValueError says what is wrong."""
    if group_type.upper() not in TYPES:
        raise ValueError(f"type {_quoted(group_type)} is none of {', '.join(TYPES)}")
    named = name.strip()
    if group_type.upper() in ("SECTOR", "THEME"):
        named = re.sub(r"[\W_]+", "_", named.lower()).strip("_")
    if not 0 < len(named) <= MAX_NAME or not named.isprintable():
        raise ValueError(f"name {_quoted(name)} is not 1 to {MAX_NAME} printable characters")
    return group_type.upper(), named


def _parse(errors: "_Errors", unit: Unit | None) -> tuple[Holding, ...] | dict[str, GroupHoldings] | None:
    """Read the holdings of a group, or sectors by name; None when the file has errors."""
    try:
        rows = _rows(errors)
        line, header = next(rows, (0, []))
        columns = _columns(errors.path, line, header)
        content: tuple[Holding, ...] | dict[str, GroupHoldings]
        if {"symbol", "weight"} <= columns.keys():
            content = _parse_members(errors, rows, columns, unit)
        elif {"symbol", "sector"} <= columns.keys():
            content = _parse_sectors(errors, rows, columns)
        else:
            raise _unknown_form(errors.path, line, header, columns)
        if not content and not errors:
            raise _error(errors.path, "has a header and no rows; an empty file does not empty a group")
    except InputFileError as error:
        errors.end(error)
    return None if errors else content


def _unknown_form(path: Path, line: int, header: Sequence[str], columns: Mapping[str, int]) -> InputFileError:
    if header[0].startswith("<"):
        return _error(path, "is a page of HTML or XML and not CSV; download it again", line)
    if path.name == INDEX:
        return _error(path, "is the index of a folder; load the folder", line)
    if {"date", "close"} <= columns.keys():
        return _error(path, "holds prices, which are not loaded yet", line)
    return _error(path, f"the columns {_quoted(','.join(header))} are neither of {_FORMS}", line)


def _columns(path: Path, line: int, header: Sequence[str]) -> dict[str, int]:
    """Where each column is, by its name in lower case."""
    if not header:
        raise _error(path, "is empty")
    columns: dict[str, int] = {}
    for place, name in enumerate(header):
        if name and columns.setdefault(name.lower(), place) != place:
            raise _error(path, f"the column {_quoted(name)} is there twice", line)
    return columns


def _misfit(fields: Sequence[str], width: int) -> str:
    """Say what is wrong with the number of a row's fields; nothing if nothing."""
    if len(fields) == width or (len(fields) > width and not any(fields[width:])):
        return ""
    return f"has {len(fields)} fields where the header has {width}; a field with a comma needs quotes"


def _parse_members(
    errors: "_Errors", rows: Iterable[tuple[int, list[str]]], columns: Mapping[str, int], unit: Unit | None
) -> tuple[Holding, ...]:
    weight_at, name_at = columns["weight"], columns.get("name")
    held: list[Holding] = []
    lines: dict[str, int] = {}
    signs: set[bool] = set()
    for line, symbol, fields in _members(errors, rows, columns, lines):
        written = fields[weight_at]
        number = written.removesuffix("%").rstrip()
        if written and not _NUMBER.fullmatch(number):
            errors.add(line, f"weight {_quoted(written)} is not a number such as 0.065, 6.5 or 6.5%")
            continue
        if written:
            signs.add(written != number)
        name = None if name_at is None else " ".join(fields[name_at].split()) or None
        held.append(Holding(symbol, Decimal(number) if written else None, name))
    if errors:
        return ()
    limit = _MAX_WEIGHT
    if _unit(errors.path, held, signs, unit) == "percent":
        limit *= 100
    for holding in held:
        if holding.weight is not None and abs(holding.weight) >= limit:
            unit_shown = " percent" if limit > _MAX_WEIGHT else ""
            reason = f"weight {holding.weight} is not between -{limit} and {limit}{unit_shown}"
            errors.add(lines[holding.symbol], reason)
    if limit == _MAX_WEIGHT:
        return tuple(held)
    return tuple(Holding(h.symbol, None if h.weight is None else h.weight.scaleb(-2), h.name) for h in held)


def _unit(path: Path, holdings: Iterable[Holding], signs: set[bool], stated: Unit | None) -> Unit:
    """Tell fractions from percent."""
    if len(signs) > 1:
        raise _error(path, "some weights have a percent sign and others have none")
    if stated == "fraction" and True in signs:
        raise _error(path, "the weights have percent signs, so they are no fractions; leave out --weights")
    if stated or not signs:
        return stated or "fraction"
    total = sum((holding.weight for holding in holdings if holding.weight is not None), Decimal(0))
    if True in signs or _PERCENT_SUM[0] <= total <= _PERCENT_SUM[1]:
        return "percent"
    if _FRACTION_SUM[0] <= total <= _FRACTION_SUM[1]:
        return "fraction"
    both = "--weights fraction or --weights percent"
    raise _error(path, f"the weights sum to {total:.6g}, neither near 1 nor near 100; say which they are with {both}")


def _parse_sectors(
    errors: "_Errors", rows: Iterable[tuple[int, list[str]]], columns: Mapping[str, int]
) -> dict[str, GroupHoldings]:
    held: dict[str, list[Holding]] = {}
    written: dict[str, str] = {}
    for line, symbol, fields in _members(errors, rows, columns, {}):
        label = " ".join(fields[columns["sector"]].split())
        try:
            name = _group("SECTOR", label)[1]
        except ValueError:
            errors.add(line, f"sector {_quoted(label)} is not a name of 1 to {MAX_NAME} characters")
            continue
        industry = " ".join(fields[columns["industry"]].split()) if "industry" in columns else ""
        written.setdefault(name, label)
        held.setdefault(name, []).append(Holding(symbol, industry=industry or None))
    return {
        name: GroupHoldings("SECTOR", name, tuple(holdings), written[name]) for name, holdings in sorted(held.items())
    }


def _members(
    errors: "_Errors", rows: Iterable[tuple[int, list[str]]], columns: Mapping[str, int], lines: dict[str, int]
) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the rows that have their fields and a symbol of their own, and keep the line of each symbol."""
    width, symbol_at = max(columns.values()) + 1, columns["symbol"]
    for line, fields in rows:
        if misfit := _misfit(fields, width):
            errors.add(line, misfit)
            continue
        symbol = fields[symbol_at].upper()
        if not 0 < len(symbol) <= MAX_SYMBOL or not symbol.isprintable() or " " in symbol:
            errors.add(line, f"symbol {_quoted(symbol)} is not 1 to {MAX_SYMBOL} characters without white space")
        elif lines.setdefault(symbol, line) != line:
            errors.add(line, f"symbol {symbol} is on line {lines[symbol]} too")
        else:
            yield line, symbol, fields


def _rows(errors: "_Errors") -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, each with the line it begins on; fields lose the white space around them."""
    path, start = errors.path, 1
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _error(path, "is not a file")
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            source = gzip.GzipFile(fileobj=file) if packed else file
            with io.TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape") as text:
                reader = csv.reader(_lines(errors, text), skipinitialspace=True, strict=True)
                for row in reader:
                    fields = [value.strip() for value in row]
                    if any(fields):
                        yield start, fields
                    start = reader.line_num + 1
    except csv.Error as error:
        unclosed = " (a double quote is never closed)" if "unexpected end" in str(error) else ""
        raise _error(path, f"the row that begins here is not CSV; {error}{unclosed}", start) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _error(path, f"is not whole as a gzip file: {error}", start) from error
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror}") from error


def _lines(errors: "_Errors", text: io.TextIOWrapper) -> Iterator[str]:
    """Yield the lines; those that are not UTF-8 become errors."""
    line = 1
    while read := text.readline(MAX_LINE + 1):
        if "\0" in read:
            raise _error(errors.path, "holds a zero byte; this is not a text file", line)
        if len(read) > MAX_LINE:
            raise _error(errors.path, f"is longer than {MAX_LINE:,} characters", line)
        if not read.isascii() and (bad := re.search("[\udc80-\udcff]", read)):
            byte = ord(bad[0]) - 0xDC00
            errors.add(line, f"character {bad.start() + 1} is not UTF-8 (byte {byte:#x}); save the file as UTF-8")
            read = read.encode(errors="replace").decode()
        # blanks between a closing quote and the comma are common, and not CSV
        yield re.sub(r'"[ \t]+(?=,|$)', '"', read) if '"' in read else read
        line += 1


class _Errors:
    """The errors of one file: the first of its bad rows, how many more, and what ended the reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.named: list[InputFileError] = []
        self.more = 0
        self.last: tuple[InputFileError, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.named or self.last)

    def add(self, line: int, reason: str) -> None:
        if len(self.named) < MAX_ERRORS:
            self.named.append(_error(self.path, reason, line))
        else:
            self.more += 1

    def end(self, error: InputFileError) -> None:
        self.last = (error,)

    def all(self) -> tuple[InputFileError, ...]:
        more = [_error(self.path, f"{self.more:,} more bad rows")] if self.more else []
        return (*self.named, *more, *self.last)


def _error(path: Path, reason: str, line: int = 0) -> InputFileError:
    return InputFileError(f"{_shown(path)}{f', line {line}' if line else ''}: {reason}.")


def _shown(path: Path) -> str:
    """Write a path so that it fits into a line of text, whatever bytes it has."""
    return "".join(character if character.isprintable() else "?" for character in str(path))


def _quoted(text: str) -> str:
    return repr(text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…")
