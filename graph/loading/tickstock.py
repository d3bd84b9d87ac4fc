"""TickStock's old table `cache_entries` -> groups: every shape of its JSON, and a word on what cannot become a group.

An entry is a row of that table, as JSON: `type`, `key`, `name`, `value`, `environment`, `updated_at`, `created_at`.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from graph.errors import DatabaseUnavailable, InputFileError, StockgraphError
from graph.loading.files import MAX_ERRORS, FileErrors, quoted
from graph.loading.group_writer import GroupDiff, GroupRefused, replace_group
from graph.loading.holdings import (
    GroupHoldings,
    Holding,
    as_fraction,
    check_group,
    check_symbol,
    detect_unit,
    limit_of,
    out_of_range,
    read_number,
    total_of,
)
from graph.loading.vendors import spell
from graph.model import Environment
from graph.postgres.database import Connection, Database, translated_errors
from graph.postgres.statements import read_statements

TYPES = {
    "etf_holdings": "ETF",
    "theme_definition": "THEME",
    "themes": "THEME",
    "sector_industry_map": "SECTOR",
    "stock_universe": "UNIVERSE",
    "etf_universe": "UNIVERSE",
    "stock_etf_combo": "UNIVERSE",
}
"""The types of entries that hold groups, and of which type these groups are."""
MAX_SOURCE = 32 * 2**20
"""Bytes of JSON that are read; the hundreds of entries of a TickStock take about 2 MB."""
MAX_ENTRIES = 200_000
"""Entries of a file."""
MAX_MEMBERS = 100_000
"""Members that an entry lists; all the stocks of the world are about 60,000."""
MAX_QUOTES = 8
"""How many times over JSON may be quoted."""
MAX_DEPTH = 64
"""Levels of lists and objects in a value."""
MAX_DIGITS = 18
"""Of a whole number; what is longer stays text, since not every reader of JSON has numbers for it."""
MAX_WEIGHT = 100
"""Characters of a weight."""
MAX_NOTE = 200
"""Characters of a note."""

_SQL = read_statements("graph.loading", "tickstock.sql")
_LISTS = ("holdings", "symbols", "stocks", "etfs", "tickers", "representative_stocks")
_KEPT_OF_MEMBERS = {"symbol", "ticker", "weight", "name", "industry"}
_NEXT = re.compile(r"\S")
_FRAME = re.compile(r"[^\n\[{]*\n(?: *-+\r?\n|(?=[\[{]))")
_EXPORT = "psql -At -c 'SELECT json_agg(t) FROM cache_entries AS t'"
# in JSON, where backslashes are written twice
_UNHOLDABLE = re.compile(r"(?<!\\)(\\\\)*\\u0000|[\ud800-\udfff]")
# What may be a class of shares that wants spelling; anything longer could be a company's name.
_MAYBE_CLASS = re.compile(r"[A-Z]+[-/ ]?[A-Z]")


Entry: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Move:
    """A group that an entry holds."""

    entry: str
    """Which entry, for a person to find it."""
    environment: str
    group: GroupHoldings
    """Its day is that of the entry, so that holdings of a later day can be loaded over it."""
    notes: tuple[str, ...]
    """What of the entry is not in the group, and why."""


class Left(NamedTuple):
    """An entry that stays behind."""

    entry: str
    reason: str


@dataclass(frozen=True, slots=True)
class Migration:
    """What entries hold; each of them is here once."""

    moves: tuple[Move, ...]
    left: tuple[Left, ...]
    others: Mapping[str, int]
    """How many entries there are of each type that holds no groups."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of moves; each of them is here once."""

    moved: tuple[Move, ...]
    present: tuple[Move, ...]
    """The database had these groups with these members already; nothing was written."""
    left: tuple[Left, ...]


class _Notes:
    """The first of many notes, and how many more."""

    def __init__(self) -> None:
        self.named: list[str] = []
        self.more = 0

    def add(self, note: str) -> None:
        if len(self.named) < MAX_ERRORS:
            self.named.append(note[:MAX_NOTE])
        else:
            self.more += 1

    def all(self) -> tuple[str, ...]:
        return (*self.named, *([f"{self.more:,} more such notes"] if self.more else []))


def read_file(path: Path) -> list[object]:
    """Read the entries of a JSON file; InputFileError says why it cannot be read.

    It is what psql writes of the table by json_agg or row_to_json, with psql's frame around it or without: a list of
    rows, or rows one after the other. Or it is an object, {type: {key: value}}.
    """
    errors = FileErrors(path)
    text = _unframed(_read_text(errors))
    entries: list[object] = []
    place = 0
    while found := _NEXT.search(text, place):
        try:
            value, place = _JSON.raw_decode(text, found.start())
            rows = _entries(_parse(value) if isinstance(value, str) else value)
            entries += islice(rows, MAX_ENTRIES + 1)
        except json.JSONDecodeError as error:
            raise errors.error(f"is not JSON here ({error.msg}); export it by {_EXPORT}", error.lineno) from error
        except RecursionError as error:
            raise errors.error("is nested too deep") from error
        except ValueError as error:
            raise errors.error(str(error)) from error
        if len(entries) > MAX_ENTRIES:
            raise errors.error(f"holds more than {MAX_ENTRIES:,} entries")
    if not entries:
        raise errors.error("holds no entries")
    return entries


def _read_text(errors: FileErrors) -> str:
    try:
        if not errors.path.is_file():
            raise errors.error("is not a file")
        with errors.path.open("rb") as file:
            data = file.read(MAX_SOURCE + 1)
    except OSError as error:
        raise errors.error(f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_SOURCE:
        raise errors.error(f"is larger than {MAX_SOURCE // 2**20} MB")
    try:
        # PowerShell's > writes UTF-16
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.error("is no text in UTF-8") from error


def _unframed(text: str) -> str:
    """Take away what psql writes around a result; lines keep their numbers."""
    frame = _FRAME.match(text)
    if not frame:
        return text
    lines = re.sub(r"\n\(\d+ \w+\)\s*\Z", "", text[frame.end() :]).split("\n")
    return "\n" * frame[0].count("\n") + "\n".join(line.rstrip().removesuffix("+") for line in lines)


def _entries(value: object) -> Iterator[object]:
    """Yield the entries of what a file holds."""
    match value:
        case None:  # what json_agg makes of no rows
            return
        case list():
            yield from value
        case {"type": str()}:
            yield value
        case dict():
            for kind, held in value.items():
                match held:
                    case list():
                        yield from held
                    case dict():
                        yield from ({"type": kind, "key": key, "value": each} for key, each in held.items())
                    case _:
                        yield {"type": kind, "value": held}
        case _:
            yield value


async def read_table(url: str) -> list[Entry]:
    """Read the entries of a database; StockgraphError says why they cannot be read."""
    try:
        connection = await Database(url).connect(statement_seconds=None)
        try:
            with translated_errors():
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    if await connection.fetchval(_SQL["is_table_missing"]):
                        other = "name the address of another database, or a JSON file"
                        raise StockgraphError(f"The database has no table cache_entries; {other}.")
                    size = await connection.fetchval(_SQL["entries_size"], list(TYPES))
                    if size > MAX_SOURCE:
                        most = f"{MAX_SOURCE // 2**20} MB"
                        raise StockgraphError(f"The groups in cache_entries are {size:,} bytes of JSON, over {most}.")
                    return [dict(row) for row in await connection.fetch(_SQL["entries"], list(TYPES))]
        finally:
            connection.terminate()
    except DatabaseUnavailable as error:
        raise StockgraphError(f"The old database: {str(error).replace('DATABASE_URL', 'its address')}") from error


def read_entries(entries: Iterable[object], *, environment: str = Environment.DEFAULT) -> Migration:
    """Make groups of entries; `environment` is of those that name none.

    Of several that give one group the one that was updated last counts. A group of ETFs whose key is that of a group of
    stocks too is named as TickStock showed it: etf_ and the key.
    """
    left: list[Left] = []
    others: Counter[str] = Counter()
    read: list[tuple[Entry, Move]] = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            left.append(Left(f"entry {number}", "is no object with type, key and value"))
        elif not isinstance(kind := entry.get("type"), str):
            left.append(Left(f"entry {number}", "has no type"))
        elif kind not in TYPES:
            others[kind] += 1
        else:
            where = _where(entry, number)
            try:
                read.append((entry, _move(where, entry, environment)))
            except ValueError as error:
                left.append(Left(where, str(error)))
    kept: dict[tuple[str, str, str], tuple[str, Move]] = {}
    for entry, move in _told_apart(read):
        updated = _words(entry.get("updated_at")) or _words(entry.get("created_at"))
        key = (move.environment, move.group.type, move.group.name.lower())
        last, other = kept.setdefault(key, (updated, move))
        if other is not move:
            winner, loser = (move, other) if updated > last else (other, move)
            kept[key] = (max(updated, last), winner)
            why = "was updated later" if updated != last else "comes first"
            same = "the same" if set(winner.group.holdings) == set(loser.group.holdings) else "other"
            reason = f"gives {named(loser)} as {winner.entry} does, which {why} and has {same} members"
            left.append(Left(loser.entry, reason))
    return Migration(tuple(move for _, move in kept.values()), tuple(left), others)


def named(move: Move) -> str:
    """Name the group of a move, and its environment where that is not DEFAULT."""
    of = "" if move.environment == Environment.DEFAULT else f" of {move.environment}"
    return f"{move.group.type} {move.group.name}{of}"


def _where(entry: Entry, number: int) -> str:
    serial = entry.get("id")
    serial = serial if isinstance(serial, int) else _words(serial)
    row = f"id {serial}" if re.fullmatch("[0-9]{1,20}", str(serial)) else f"entry {number}"
    return f"{entry['type']} {quoted(_names(entry)[0])} ({row})"


def _told_apart(read: Sequence[tuple[Entry, Move]]) -> Iterator[tuple[Entry, Move]]:
    stocks = {(move.environment, move.group.name.lower()) for entry, move in read if entry["type"] == "stock_universe"}
    for entry, move in read:
        name = move.group.name
        if entry["type"] == "etf_universe" and (move.environment, name.lower()) in stocks:
            note = f"a stock_universe has the key {name} too, so its name is etf_{name}"
            group = replace(move.group, name=f"etf_{name}")
            yield entry, replace(move, group=group, notes=(note, *move.notes))
        else:
            yield entry, move


def _names(entry: Entry) -> tuple[str, str]:
    """Give the key of an entry, and its name where that is another."""
    key, name = _words(entry.get("key")), _words(entry.get("name"))
    # the key of each of the themes is `list`
    if not key or (entry["type"] == "themes" and name):
        key = name
    return key, "" if name == key else name


def _move(where: str, entry: Entry, default: str) -> Move:
    """Make the group of an entry; ValueError says why it holds none."""
    key, title = _names(entry)
    group_type, group_name = check_group(TYPES[entry["type"]], key)
    if group_type == "ETF":
        group_name = group_name.upper()
    environment = default if entry.get("environment") is None else _words(entry["environment"]).upper()
    if environment not in list(Environment):
        raise ValueError(f"environment {quoted(environment)} is none of {', '.join(Environment)}")
    value = _unquoted(entry.get("value"))
    if value is None:
        raise ValueError("has no value")
    fields = value if isinstance(value, dict) else {"symbols": value}
    listed, members = _list(fields)
    notes = _Notes()
    holdings = tuple(_holdings(members, notes))
    metadata = {each: held for each, held in fields.items() if each not in (listed, "market_cap_threshold")}
    if description := _words(fields.get("description")):
        del metadata["description"]
        if title:
            metadata.setdefault("name", title)
    threshold = fields.get("market_cap_threshold")
    if _UNHOLDABLE.search(json.dumps([metadata, description, title, threshold], ensure_ascii=False)):
        raise ValueError("holds text that no database text can hold: a zero byte, or half of a surrogate pair")
    group = GroupHoldings(
        group_type,
        group_name,
        holdings,
        description=description or title or None,
        as_of=_day(fields.get("last_updated"), entry.get("updated_at"), entry.get("created_at")),
        metadata=metadata or None,
        liquidity_filter=None if threshold is None else {"market_cap_threshold": threshold},
    )
    return Move(where, environment, group, notes.all())


def _list(fields: Mapping[str, Any]) -> tuple[str, list[object]]:
    """Give the list of members, and its name: the first that is not empty."""
    empty = False
    for name in _LISTS:
        held = _unquoted(fields.get(name))
        if isinstance(held, list) and len(held) > MAX_MEMBERS:
            raise ValueError(f"lists more than {MAX_MEMBERS:,} members")
        if isinstance(held, list) and held:
            return name, held
        empty = empty or held == []
    if empty:
        raise ValueError("has no members; an empty group is not made")
    raise ValueError(f"lists no members: its value is no list, and has none by the name {' or '.join(_LISTS)}")


def _holdings(listed: Sequence[object], notes: _Notes) -> Iterator[Holding]:
    """Yield members, each once and as it is heaviest, weights as fractions; ValueError where there is none."""
    members: dict[str, tuple[int, Holding]] = {}
    signs: set[bool] = set()
    for place, holding in _members(listed, signs, notes):
        first, known = members.setdefault(holding.symbol, (place, holding))
        if first != place:
            heavier = holding.weight is not None and (known.weight is None or holding.weight > known.weight)
            members[holding.symbol] = (place, holding) if heavier else (first, known)
            twice, other = (first, place) if heavier else (place, first)
            notes.add(f"member {twice} left out: {holding.symbol} is member {other} too")
    if not members:
        raise ValueError(f"has no members that are symbols ({notes.named[0]})")
    total = total_of(holding.weight for _, holding in members.values())
    limit = 0
    try:
        limit = limit_of(detect_unit(FileErrors(Path()), total, signs, None))
    except InputFileError:
        notes.add(f"all without weights: whether they are fractions or percent is not to be told (sum {total:.6g})")
    for _, holding in members.values():
        weight = holding.weight if limit else None
        if fault := out_of_range(weight, limit):
            notes.add(f"{holding.symbol} without its weight: {fault}")
            weight = None
        yield replace(holding, weight=as_fraction(weight, limit))


def _members(listed: Sequence[object], signs: set[bool], notes: _Notes) -> Iterator[tuple[int, Holding]]:
    """Yield the members that are symbols, each with its place, weights as they are written."""
    dropped: set[str] = set()
    for place, each in enumerate(listed, 1):
        fields = each if isinstance(each, dict) else {"symbol": each}
        dropped |= fields.keys() - _KEPT_OF_MEMBERS
        try:
            symbol = _symbol(fields.get("symbol") or fields.get("ticker", fields.get("symbol")))
        except ValueError as error:
            notes.add(f"member {place} left out: {error}")
            continue
        weight = None
        try:
            weight = _weight(fields.get("weight"), signs)
        except ValueError as error:
            notes.add(f"{symbol} without its weight: {error}")
        yield place, Holding(symbol, weight, _label(fields.get("name")), _label(fields.get("industry")))
    if dropped:
        some = ", ".join(quoted(each, 30) for each in sorted(dropped))
        notes.add(f"of members only symbol, weight, name and industry are kept, not {some}")


def _symbol(value: object) -> str:
    match value:
        case str():
            ticker = value.strip().upper()
            symbol = spell(ticker)[0] if _MAYBE_CLASS.fullmatch(ticker) else ticker
            check_symbol(symbol)
            return symbol
        case _:
            raise ValueError(f"{quoted(str(value))} is no text, so no symbol")


def _weight(value: object, signs: set[bool]) -> Decimal | None:
    written = "" if value is None else str(value).strip()
    if len(written) > MAX_WEIGHT:
        raise ValueError(f"weight {quoted(written, 30)} is longer than {MAX_WEIGHT} characters")
    return read_number(written, signs)


def _words(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _label(value: object) -> str | None:
    words = _words(value)
    return words if words.isprintable() and words.lower() not in ("", "unknown", "n/a") else None


def _day(*values: object) -> date | None:
    """Give the first day that one begins with."""
    for value in values:
        try:
            return date.fromisoformat(_words(value)[:10])
        except ValueError:
            pass
    return None


def _unquoted(value: Any) -> Any:
    """Give the JSON that is in a text, however often it is quoted, or in {"value": ...}; ValueError if it is none."""
    for _ in range(MAX_QUOTES):
        if isinstance(value, str):
            value = _parse(value)
        elif isinstance(value, dict) and value.keys() == {"value"}:
            value = value["value"]
        elif _deeper(value, MAX_DEPTH):
            raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
        else:
            return value
    raise ValueError(f"is JSON quoted more than {MAX_QUOTES} times over")


def _deeper(value: object, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    nested = [each for each in inner if isinstance(each, (dict, list))]
    return bool(nested) and (not levels or any(_deeper(each, levels - 1) for each in nested))


def _parse(text: str) -> Any:
    try:
        return _JSON.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is text that is not JSON ({quoted(text, 30)}: {error.msg})") from error
    except RecursionError as error:
        raise ValueError("is nested too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"has the key {quoted(twice)} twice in one object")
    return made


def _whole(written: str) -> int | str:
    return int(written) if len(written) <= MAX_DIGITS else written


def _real(written: str) -> float | str:
    number = float(written)
    return number if math.isfinite(number) else written


_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_float=_real, parse_int=_whole, parse_constant=str)


async def migrate(connection: Connection, moves: Sequence[Move]) -> Outcome:
    """Write each group in a transaction of its own, where the database has none of its name that has members.

    Whatever is in a group came later than the old table, or from a better source, so it stays. Names and industries go
    to the stocks that have none yet.
    """
    symbols = {holding.symbol for move in moves for holding in move.group.holdings}
    rows = await connection.fetch(_SQL["stocks"], list(symbols))
    names = {row["symbol"]: row["name"] for row in rows}
    industries = {row["symbol"]: row["industry"] for row in rows}
    moved: list[Move] = []
    present: list[Move] = []
    left: list[Left] = []
    for move in moves:
        holdings = tuple(_news(move.group.holdings, names, industries))
        # the day of an entry is of no matter to a group that is here already
        (known,) = await connection.fetch(_SQL["group_exists"], move.group.type, move.group.name, move.environment)
        as_of = move.group.as_of
        group = replace(
            move.group,
            holdings=holdings,
            as_of=None if known["there"] or (as_of and as_of > known["today"]) else as_of,
        )
        transaction = connection.transaction(isolation="read_committed")
        await transaction.start()
        done = False
        try:
            diff = await replace_group(connection, group, environment=move.environment)
            # judged by what the load met, so that a group that somebody makes meanwhile is not missed
            done = not (diff.unchanged or diff.removed.total or diff.reweighted.total)
        except GroupRefused as error:
            left.append(Left(move.entry, str(error).rstrip(".")))
            continue
        finally:
            await (transaction.commit() if done else transaction.rollback())
        if done:
            moved.append(move)
            names |= {holding.symbol: holding.name for holding in group.holdings if holding.name}
            industries |= {holding.symbol: holding.industry for holding in group.holdings if holding.industry}
        elif difference := _difference(group, diff):
            reason = f"{named(move)} is in the database already and differs ({difference}); what is there stays"
            left.append(Left(move.entry, reason))
        else:
            present.append(move)
    return Outcome(tuple(moved), tuple(present), tuple(left))


def _news(
    holdings: Iterable[Holding], names: Mapping[str, str | None], industries: Mapping[str, str | None]
) -> Iterator[Holding]:
    """Yield holdings with a name and an industry only where none is known."""
    for holding in holdings:
        name = None if names.get(holding.symbol) else holding.name
        yield replace(holding, name=name, industry=None if industries.get(holding.symbol) else holding.industry)


def _difference(group: GroupHoldings, diff: GroupDiff) -> str:
    # an entry without weights says nothing against those that are there
    weighted = any(holding.weight is not None for holding in group.holdings)
    counts = (
        (diff.added.total, "members that it lacks"),
        (diff.removed.total, "that the entry lacks"),
        (diff.reweighted.total if weighted else 0, "other weights"),
    )
    return ", ".join(f"{count:,} {what}" for count, what in counts if count)
