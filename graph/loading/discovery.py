"""Paths -> the groups and the files of prices that they hold.

The kind of a file is detected by content. The type and name of a group are stated, or come from the file's name
(`etf_SPY.csv`) or content. A folder's `groups.csv` lists the files of holdings that count.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

from graph.errors import InputFileError
from graph.loading.files import FileErrors, NotHoldings, Progress, columns_of, quoted, read_rows
from graph.loading.holdings import (
    GroupHoldings,
    LoadContext,
    Members,
    Unit,
    bounded_rows,
    normalize_group,
    read_holdings,
)
from graph.loading.price_files import PriceFile, find_prices, holds_prices
from graph.loading.vendors import read_day, shape_error
from graph.model import GroupType

INDEX = "groups.csv"
"""Name of the index, which lists the files of its folder that count."""

_SUFFIX = r"\.(?:csv|xlsx)(?:\.gz)?"
_DAY = r"(?:[_-]\d{4}-\d\d-\d\d)?"
_FILE = re.compile(rf"({'|'.join(GroupType)})_(.+?){_DAY}{_SUFFIX}", re.IGNORECASE)
_SECTORS_FILE = re.compile(rf"sectors{_DAY}{_SUFFIX}", re.IGNORECASE)
_PRICES_FILE = re.compile(rf"ohlcv.*{_SUFFIX}", re.IGNORECASE)
_DATA_FILE = re.compile(rf".*{_SUFFIX}", re.IGNORECASE)
# names that vendors give their downloads, and names of people who store a file a day
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
_FILE_NAMES = "etf_<NAME>.csv (theme_, universe_, segment_, custom_, sector_ likewise) or sectors.csv"


@dataclass(frozen=True, slots=True)
class PathContents:
    """Contents of paths: groups, files of prices, and the errors of other files."""

    groups: tuple[GroupHoldings, ...] = ()
    """Groups in the order of the index or of the file names; one of several days in the order of these."""
    errors: tuple[InputFileError, ...] = ()
    """Errors, one line each. A file with an error contributes no group."""
    notes: tuple[str, ...] = ()
    """Notes that are no errors: skipped files, sectors that the index does not list, counts that differ from it."""
    prices: tuple[PriceFile, ...] = ()
    """Files of prices in the order of the paths and of the file names; their rows are not read yet."""


class _ListedGroup(NamedTuple):
    """A row of the index: a group that a file holds."""

    type: str
    name: str
    description: str | None
    members: str
    """Number of members as the index states it; empty if it does not."""
    as_of: date | None
    line: int
    """Line of the index."""


def read_paths(
    paths: Sequence[Path],
    *,
    group_type: str | None = None,
    name: str | None = None,
    weights: Unit | None = None,
    as_of: date | None = None,
    progress: Progress | None = None,
) -> PathContents:
    """Read files and folders, and check all but prices; errors are returned, not raised.

    `group_type` and `name` override those of a single file, `as_of` the day of any file of holdings. `weights` states
    the unit if neither a percent sign, the vendor nor the sum does: 0.5 to 1.5 means fractions, 50 to 150 percent.
    Symbols become upper case, share classes as in BRK.B, names of sectors and themes snake_case. Subfolders are
    ignored. Files of one group may be of several days. Duplicate symbols are detected among the first MAX_KEPT rows.
    """
    if (group_type or name) and len(paths) > 1:
        return PathContents(
            errors=(InputFileError("--type and --name tell what one file holds; load that file alone."),)
        )
    load = LoadContext(weights, progress)
    prices: list[PriceFile] = []
    found: dict[tuple[str, str], dict[date | None, tuple[Path, GroupHoldings]]] = {}
    errors: list[InputFileError] = []
    notes: list[str] = []
    for path in paths:
        for source, contents in _contents_of(path, group_type, name, load):
            errors += contents.errors
            notes += contents.notes
            prices += contents.prices
            for group in contents.groups:
                day = as_of or group.as_of
                days = found.setdefault((group.type, group.name), {})
                others = [first for other, (first, _) in days.items() if other == day or None in (other, day)]
                if others:
                    reason = f"{group.type} {group.name} is in {others[0]} too; keep one"
                    errors.append(FileErrors(source).error(reason))
                else:
                    days[day] = (source, replace(group, as_of=day))
    if not found and not prices and not errors:
        where = ", ".join(map(str, paths)) or "No path was given"
        errors.append(InputFileError(f"{where}: nothing to load; files are told by their names: {_FILE_NAMES}."))
    groups = (days[day][1] for days in found.values() for day in sorted(days, key=lambda day: day or date.min))
    return PathContents(tuple(groups), tuple(errors), tuple(notes), tuple(prices))


def _contents_of(
    path: Path, group_type: str | None, name: str | None, load: LoadContext
) -> Iterator[tuple[Path, PathContents]]:
    try:
        if not path.is_dir():
            yield path, _read_file(path, group_type, name, load)
        elif group_type or name:
            reason = "is a folder; --type and --name tell what one file holds"
            yield path, PathContents(errors=(FileErrors(path).error(reason),))
        elif (path / INDEX).exists():
            yield from _read_indexed(path, load)
        else:
            yield from _read_unindexed(path, load)
    except OSError as error:
        yield path, PathContents(errors=(FileErrors(path).error(f"cannot be read: {error.strerror}"),))


def _read_unindexed(folder: Path, load: LoadContext) -> Iterator[tuple[Path, PathContents]]:
    for path in _visible(folder):
        if _FILE.fullmatch(path.name) or _SECTORS_FILE.fullmatch(path.name):
            yield path, _read_file(path, None, None, load)
        elif not _DATA_FILE.fullmatch(path.name) or path.is_dir():
            yield path, PathContents(notes=(_left_out(path, "its name does not tell a group"),))
        else:
            contents = _read_file(path, None, None, load)
            other = [error for error in contents.errors if isinstance(error, NotHoldings)]
            # a file named like prices must not be skipped silently
            if other and not _PRICES_FILE.fullmatch(path.name):
                contents = PathContents(notes=tuple(f"{error} Left out." for error in other))
            yield path, contents


def _read_indexed(folder: Path, load: LoadContext) -> Iterator[tuple[Path, PathContents]]:
    index = FileErrors(folder / INDEX)
    try:
        listed = _read_index(index)
    except InputFileError as error:
        index.end(error)
        yield index.path, PathContents(errors=index.all())
        return
    for file, named in listed.items():
        path = folder / file
        if path.exists():
            yield path, _read_listed(path, named, load, index)
        else:
            index.add(named[0].line, f"there is no file {file!r} in the folder")
    yield index.path, PathContents(errors=index.all())
    reason = f"{INDEX} does not list it" + (" in a row without errors" if index else "")
    for path in _visible(folder):
        if path.name != INDEX and path.name not in listed:
            yield path, _read_unlisted(path, reason, load)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _left_out(path: Path, reason: str) -> str:
    return f"{path}: left out; {reason}."


def _read_unlisted(path: Path, reason: str, load: LoadContext) -> PathContents:
    """Read a file that the index does not list: prices are loaded, holdings are not."""
    if path.is_dir() or not _DATA_FILE.fullmatch(path.name):
        return PathContents(notes=(_left_out(path, reason),))
    errors = FileErrors(path)
    prices = bool(_PRICES_FILE.fullmatch(path.name))
    try:
        with closing(read_rows(errors, load.progress)) as rows:
            line, header = next(rows, (0, []))
            if prices and header and not holds_prices(header):
                raise errors.error("is named as prices are, and has no columns date and close", line)
            prices = prices or holds_prices(header)
            if prices:
                return PathContents(prices=(find_prices(errors, line, header, rows),))
    except InputFileError as error:
        errors.end(error)
    return PathContents(errors=errors.all()) if prices else PathContents(notes=(_left_out(path, reason),))


def _read_index(index: FileErrors) -> dict[str, list[_ListedGroup]]:
    """Read groups.csv; return the listed groups by file name."""
    rows = bounded_rows(index, read_rows(index))
    line, header = next(rows, (0, []))
    columns = columns_of(index, line, header)
    if not {"name", "type", "file"} <= columns.keys():
        raise index.error("an index has the columns name,type,description,as_of,members,file", line)
    listed: dict[str, list[_ListedGroup]] = {}
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


def _read_index_row(line: int, fields: Sequence[str], columns: Mapping[str, int]) -> tuple[str, _ListedGroup]:
    """Return the file and the group of an index row; raise ValueError if it is invalid."""
    if reason := shape_error(fields, max(columns.values()) + 1):
        raise ValueError(reason)
    row = {column: fields[index] for column, index in columns.items()}
    if not row["file"] or Path(row["file"]).name != row["file"]:
        raise ValueError(f"file {quoted(row['file'])} is not the name of a file in this folder")
    written = row.get("as_of", "")
    as_of = read_day(written)
    if written and as_of is None:
        raise ValueError(f"as_of {quoted(written)} is not a date such as 2025-11-18")
    description = " ".join(row.get("description", "").split()) or None
    return row["file"], _ListedGroup(
        *normalize_group(row["type"], row["name"]), description, row.get("members", ""), as_of, line
    )


def _read_content(
    errors: FileErrors, load: LoadContext, name: str | None = None
) -> Members | dict[str, GroupHoldings] | PriceFile | None:
    """Read the holdings of a file, or detect prices; return None if it has errors."""
    try:
        with closing(read_rows(errors, load.progress)) as rows:
            line, header = next(rows, (0, []))
            if holds_prices(header):
                return find_prices(errors, line, header, rows, name)
            content = read_holdings(errors, line, header, rows, load)
    except InputFileError as error:
        errors.end(error)
    return None if errors else content


def _read_listed(path: Path, listed: Sequence[_ListedGroup], load: LoadContext, index: FileErrors) -> PathContents:
    """Read the groups that the index lists for a file."""
    errors = FileErrors(path)
    content = _read_content(errors, load)
    if content is None:
        return PathContents(errors=errors.all())
    groups, notes = [], []
    if isinstance(content, PriceFile):
        for named in listed:
            index.add(named.line, f"{path.name} holds prices, so no {named.type}; they need no row here")
        return PathContents()
    for named in listed:
        if isinstance(content, Members):
            members = content
        elif named.type != GroupType.SECTOR:
            index.add(named.line, f"{path.name} holds sectors, so no {named.type}")
            continue
        elif named.name not in content:
            index.add(named.line, f"{path.name} holds no sector {named.name}")
            continue
        else:
            members = Members(content[named.name].holdings)
        if named.members and named.members != str(len(members.holdings)):
            held = f"{path.name} holds {len(members.holdings)}"
            notes.append(f"{index.path}, line {named.line}: says {quoted(named.members)} members; {held}.")
        groups.append(_as_group(path, named.type, named.name, members, named.description, named.as_of))
    if isinstance(content, Members):
        notes += content.notes
    else:
        names = {named.name for named in listed}
        notes += [
            f"{path}: sector {group.description} left out; {INDEX} does not list it."
            for group in content.values()
            if group.name not in names
        ]
    return PathContents(tuple(groups), notes=tuple(notes))


def _read_file(path: Path, group_type: str | None, name: str | None, load: LoadContext) -> PathContents:
    """Read a file whose group or stock is stated, or comes from the file's name or content."""
    errors = FileErrors(path)
    content = None if path.name == INDEX else _read_content(errors, load, name)
    if content is None:
        return PathContents(errors=errors.all() or (errors.error("is the index of a folder; load the folder"),))
    match = _FILE.fullmatch(path.name)
    file_type, file_name = (match[1].upper(), match[2]) if match else (None, None)
    try:
        if isinstance(content, PriceFile):
            if group_type:
                raise errors.error("holds prices, so it takes no --type")
            return PathContents(prices=(content,))
        if isinstance(content, Members):
            stated = group_type or name or file_type != GroupType.ETF
            if content.fund and not stated and content.fund != str(file_name).upper():
                raise errors.error(
                    f"is named as {file_name}, and its content as {content.fund}; --name says which it is"
                )
            named = _name_group(errors, content, group_type or file_type, name or file_name)
            return PathContents((_as_group(path, *named, content),), notes=content.notes)
        group_type, name = (group_type or file_type or GroupType.SECTOR).upper(), name or file_name or ""
        if name or group_type != GroupType.SECTOR:
            reason = f"holds a group for each sector, so it is no {group_type} {name}".rstrip()
            raise errors.error(f"{reason}; name it sectors.csv, and give no --name")
    except InputFileError as error:
        return PathContents(errors=(error,))
    return PathContents(tuple(replace(group, as_of=_file_day(path)) for group in content.values()))


def _name_group(errors: FileErrors, content: Members, group_type: str | None, name: str | None) -> tuple[str, str]:
    """Return the type and name of a file's group, which a fund's file may have in its content or its name."""
    if content.of_fund:
        named = (pattern.fullmatch(errors.path.name) for pattern in _FUND_FILES)
        group_type = group_type or GroupType.ETF
        name = name or content.fund or next((found[1].upper() for found in named if found), None)
    if not group_type or not name:
        reason = f"its name does not tell what it holds; give --type and --name, or name it as one of {_FILE_NAMES}"
        raise errors.error(reason, kind=NotHoldings)
    try:
        return normalize_group(group_type, name)
    except ValueError as error:
        raise errors.error(str(error)) from error


def _as_group(
    path: Path,
    group_type: str,
    name: str,
    members: Members,
    description: str | None = None,
    as_of: date | None = None,
) -> GroupHoldings:
    as_of = members.as_of or as_of or _file_day(path)
    return GroupHoldings(group_type, name, members.holdings, description, as_of, members.left_out)


def _file_day(path: Path) -> date | None:
    """Return the first day in a file's name."""
    return next((day for found in _FILE_DAY.findall(path.name) if (day := read_day("-".join(found)))), None)
