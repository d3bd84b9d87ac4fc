"""TickStock's entries -> groups: every shape of their JSON, and the reason for each entry that holds no group.

Pure: entries in, groups out, no database.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from graph.errors import InputFileError
from graph.loading.files import MAX_ERRORS, FileErrors, quoted
from graph.loading.holdings import (
    GroupHoldings,
    Holding,
    Unit,
    as_fraction,
    check_symbol,
    detect_unit,
    normalize_group,
    parse_weight,
    total_of,
    weight_error,
)
from graph.loading.tickstock_entries import GROUP_TYPES, TickStockEntry, parse_json
from graph.loading.vendors import normalize_ticker
from graph.model import Environment, GroupType

MAX_MEMBERS = 100_000
"""Maximum number of members of an entry; all the stocks of the world are about 60,000."""
MAX_QUOTES = 8
"""Maximum number of times that JSON may be quoted as a JSON string."""
MAX_DEPTH = 64
"""Maximum levels of lists and objects in a value."""
MAX_WEIGHT = 100
"""Maximum characters of a weight."""
MAX_NOTE = 200
"""Maximum characters of a note."""

_MEMBER_FIELDS = ("holdings", "symbols", "stocks", "etfs", "tickers", "representative_stocks")
_KNOWN_KEYS = {"symbol", "ticker", "weight", "name", "industry"}
# in JSON, where backslashes are written twice
_UNHOLDABLE = re.compile(r"(?<!\\)(\\\\)*\\u0000|[\ud800-\udfff]")
# A ticker that may end in a share class; anything longer could be a company's name.
_MAYBE_CLASS = re.compile(r"[A-Z]+[-/ ]?[A-Z]")


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """A group that an entry holds, yet to be written."""

    entry: str
    """Description of the entry, by which a person finds it."""
    environment: str
    group: GroupHoldings
    """The group; its day is that of the entry, so that holdings of a later day can be loaded over it."""
    notes: tuple[str, ...]
    """Parts of the entry that are not in the group, and the reasons."""


class SkippedEntry(NamedTuple):
    """An entry that is not migrated."""

    entry: str
    reason: str


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """The groups that entries hold; each entry is counted once."""

    groups: tuple[PlannedGroup, ...]
    skipped: tuple[SkippedEntry, ...]
    other_types: Mapping[str, int]
    """Number of entries of each type that holds no groups."""


class _Notes:
    """The first notes on an entry, and the number of further ones."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.more = 0

    def add(self, note: str) -> None:
        if len(self.first) < MAX_ERRORS:
            self.first.append(note[:MAX_NOTE])
        else:
            self.more += 1

    def all(self) -> tuple[str, ...]:
        return (*self.first, *([f"{self.more:,} more such notes"] if self.more else []))


def plan_migration(entries: Iterable[object], *, environment: str = Environment.DEFAULT) -> MigrationPlan:
    """Turn entries into groups; `environment` is that of entries that name none.

    If several entries hold the same group, the one that was updated last counts. A group of ETFs whose key is also that
    of a group of stocks is named as TickStock showed it: etf_ and the key.
    """
    skipped: list[SkippedEntry] = []
    other_types: Counter[str] = Counter()
    found: list[tuple[TickStockEntry, PlannedGroup]] = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            skipped.append(SkippedEntry(f"entry {number}", "is no object with type, key and value"))
        elif not isinstance(entry_type := entry.get("type"), str):
            skipped.append(SkippedEntry(f"entry {number}", "has no type"))
        elif entry_type not in GROUP_TYPES:
            other_types[entry_type] += 1
        else:
            label = _entry_label(entry, number)
            try:
                found.append((entry, _plan_group(label, entry, environment)))
            except ValueError as error:
                skipped.append(SkippedEntry(label, str(error)))
    latest: dict[tuple[str, str, str], tuple[str, PlannedGroup]] = {}
    for entry, planned in _with_distinct_names(found):
        updated = _words(entry.get("updated_at")) or _words(entry.get("created_at"))
        key = (planned.environment, planned.group.type, planned.group.name.lower())
        last, other = latest.setdefault(key, (updated, planned))
        if other is not planned:
            winner, loser = (planned, other) if updated > last else (other, planned)
            latest[key] = (max(updated, last), winner)
            why = "was updated later" if updated != last else "comes first"
            same = "the same" if set(winner.group.holdings) == set(loser.group.holdings) else "other"
            reason = f"gives {group_label(loser)} as {winner.entry} does, which {why} and has {same} members"
            skipped.append(SkippedEntry(loser.entry, reason))
    return MigrationPlan(tuple(planned for _, planned in latest.values()), tuple(skipped), other_types)


def group_label(planned: PlannedGroup) -> str:
    """Return the type and name of a group, and its environment unless that is DEFAULT."""
    suffix = "" if planned.environment == Environment.DEFAULT else f" of {planned.environment}"
    return f"{planned.group.type} {planned.group.name}{suffix}"


def _entry_label(entry: TickStockEntry, number: int) -> str:
    serial = entry.get("id")
    serial = serial if isinstance(serial, int) else _words(serial)
    row = f"id {serial}" if re.fullmatch("[0-9]{1,20}", str(serial)) else f"entry {number}"
    return f"{entry['type']} {quoted(_key_and_title(entry)[0])} ({row})"


def _with_distinct_names(
    found: Sequence[tuple[TickStockEntry, PlannedGroup]],
) -> Iterator[tuple[TickStockEntry, PlannedGroup]]:
    """Rename groups of ETFs that have the name of a group of stocks."""
    of_stocks = {
        (planned.environment, planned.group.name.lower())
        for entry, planned in found
        if entry["type"] == "stock_universe"
    }
    for entry, planned in found:
        name = planned.group.name
        if entry["type"] == "etf_universe" and (planned.environment, name.lower()) in of_stocks:
            note = f"a stock_universe has the key {name} too, so its name is etf_{name}"
            group = replace(planned.group, name=f"etf_{name}")
            yield entry, replace(planned, group=group, notes=(note, *planned.notes))
        else:
            yield entry, planned


def _key_and_title(entry: TickStockEntry) -> tuple[str, str]:
    """Return the key of an entry, and its name if that differs."""
    key, name = _words(entry.get("key")), _words(entry.get("name"))
    # all themes have the key `list`
    if not key or (entry["type"] == "themes" and name):
        key = name
    return key, "" if name == key else name


def _plan_group(label: str, entry: TickStockEntry, default: str) -> PlannedGroup:
    """Return the group of an entry; raise ValueError if it holds none."""
    key, title = _key_and_title(entry)
    group_type, group_name = normalize_group(GROUP_TYPES[entry["type"]], key)
    if group_type == GroupType.ETF:
        group_name = group_name.upper()
    environment = default if entry.get("environment") is None else _words(entry["environment"]).upper()
    if environment not in list(Environment):
        raise ValueError(f"environment {quoted(environment)} is none of {', '.join(Environment)}")
    value = _unquoted(entry.get("value"))
    if value is None:
        raise ValueError("has no value")
    fields = value if isinstance(value, dict) else {"symbols": value}
    members_field, members = _find_members(fields)
    notes = _Notes()
    holdings = tuple(_holdings(members, notes))
    metadata = {name: held for name, held in fields.items() if name not in (members_field, "market_cap_threshold")}
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
    return PlannedGroup(label, environment, group, notes.all())


def _find_members(fields: Mapping[str, Any]) -> tuple[str, list[object]]:
    """Return the name and value of the first list of members that is not empty."""
    empty = False
    for name in _MEMBER_FIELDS:
        held = _unquoted(fields.get(name))
        if isinstance(held, list) and len(held) > MAX_MEMBERS:
            raise ValueError(f"lists more than {MAX_MEMBERS:,} members")
        if isinstance(held, list) and held:
            return name, held
        empty = empty or held == []
    if empty:
        raise ValueError("has no members; an empty group is not made")
    raise ValueError(f"lists no members: its value is no list, and has none by the name {' or '.join(_MEMBER_FIELDS)}")


def _holdings(listed: Sequence[object], notes: _Notes) -> Iterator[Holding]:
    """Yield members with weights as fractions, each symbol once, with its largest; raise ValueError if none."""
    members: dict[str, tuple[int, Holding]] = {}
    signs: set[bool] = set()
    for position, holding in _members(listed, signs, notes):
        first, known = members.setdefault(holding.symbol, (position, holding))
        if first != position:
            heavier = holding.weight is not None and (known.weight is None or holding.weight > known.weight)
            members[holding.symbol] = (position, holding) if heavier else (first, known)
            twice, other = (first, position) if heavier else (position, first)
            notes.add(f"member {twice} left out: {holding.symbol} is member {other} too")
    if not members:
        raise ValueError(f"has no members that are symbols ({notes.first[0]})")
    total = total_of(holding.weight for _, holding in members.values())
    unit: Unit | None = None
    try:
        unit = detect_unit(FileErrors(Path()), total, signs, None)
    except InputFileError:
        notes.add(f"all without weights: whether they are fractions or percent is not to be told (sum {total:.6g})")
    for _, holding in members.values():
        weight = None
        if unit and (reason := weight_error(holding.weight, unit)):
            notes.add(f"{holding.symbol} without its weight: {reason}")
        elif unit:
            weight = as_fraction(holding.weight, unit)
        yield replace(holding, weight=weight)


def _members(listed: Sequence[object], signs: set[bool], notes: _Notes) -> Iterator[tuple[int, Holding]]:
    """Yield the members that are symbols, with their positions and with weights as written."""
    dropped: set[str] = set()
    for position, each in enumerate(listed, 1):
        fields = each if isinstance(each, dict) else {"symbol": each}
        dropped |= fields.keys() - _KNOWN_KEYS
        try:
            symbol = _symbol(fields.get("symbol") or fields.get("ticker", fields.get("symbol")))
        except ValueError as error:
            notes.add(f"member {position} left out: {error}")
            continue
        weight = None
        try:
            weight = _weight(fields.get("weight"), signs)
        except ValueError as error:
            notes.add(f"{symbol} without its weight: {error}")
        yield position, Holding(symbol, weight, _label(fields.get("name")), _label(fields.get("industry")))
    if dropped:
        some = ", ".join(quoted(each, 30) for each in sorted(dropped))
        notes.add(f"of members only symbol, weight, name and industry are kept, not {some}")


def _symbol(value: object) -> str:
    match value:
        case str():
            ticker = value.strip().upper()
            symbol = normalize_ticker(ticker)[0] if _MAYBE_CLASS.fullmatch(ticker) else ticker
            check_symbol(symbol)
            return symbol
        case _:
            raise ValueError(f"{quoted(str(value))} is no text, so no symbol")


def _weight(value: object, signs: set[bool]) -> Decimal | None:
    written = "" if value is None else str(value).strip()
    if len(written) > MAX_WEIGHT:
        raise ValueError(f"weight {quoted(written, 30)} is longer than {MAX_WEIGHT} characters")
    return parse_weight(written, signs)


def _words(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _label(value: object) -> str | None:
    words = _words(value)
    return words if words.isprintable() and words.lower() not in ("", "unknown", "n/a") else None


def _day(*values: object) -> date | None:
    """Return the date that the first such value begins with."""
    for value in values:
        try:
            return date.fromisoformat(_words(value)[:10])
        except ValueError:
            pass
    return None


def _unquoted(value: Any) -> Any:
    """Return a value without JSON quoting, however often it is quoted, and without {"value": ...} around it."""
    for _ in range(MAX_QUOTES):
        if isinstance(value, str):
            value = parse_json(value)
        elif isinstance(value, dict) and value.keys() == {"value"}:
            value = value["value"]
        elif _is_nested_deeper(value, MAX_DEPTH):
            raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
        else:
            return value
    raise ValueError(f"is JSON quoted more than {MAX_QUOTES} times over")


def _is_nested_deeper(value: object, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    nested = [each for each in inner if isinstance(each, (dict, list))]
    return bool(nested) and (not levels or any(_is_nested_deeper(each, levels - 1) for each in nested))
