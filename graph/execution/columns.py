"""Columns: what a field gives for all objects of a list at once, kept while what it was read from stands.

A query's root is a list of one object, and each column of objects leads to the list of those objects, each once. So all
that was asked of one state of the database hangs together from one root; what is asked again is there, as arrays.
"""

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias, overload
from weakref import ref

from graph.caching.data_cache import CacheStats
from graph.caching.generations import GenerationTracker
from graph.postgres.database import Generation
from graph.postgres.statements import Family

MAX_BYTES = 48 * 1024 * 1024
"""Of all columns, by estimate."""
OBJECT_BYTES = 500
"""What an object takes, with its row, by estimate."""
RECORD_BYTES = 200
"""The same of one that is yet to be made."""
COLUMN_BYTES = 300
"""What a column takes beside its content and its key, by estimate."""

Key: TypeAlias = Hashable
"""A field's name and its arguments."""


class Dependencies(NamedTuple):
    """What a column was made of."""

    objects: int = 0
    """How many it counts for in the budget of an operation."""
    costs: tuple[int, ...] = ()
    """The same for each of the objects that it is a column of; empty where only the sum is known."""
    generations: frozenset[tuple[Family, Generation | None]] = frozenset()
    """The generations that it was read in."""
    day: date | None = None
    """The day in UTC that it rests on, if it does."""
    volatile: bool = False
    """Whether it tells of what changes without a change of the database."""
    stale: bool = False
    """Whether it was remembered through an outage."""

    def is_of(self, generation: int) -> bool:
        """Whether it rests on nothing but the groups as they are in a generation, or on nothing at all."""
        return not (self.day or self.volatile or self.stale) and all(
            family == "groups" and moment is not None and moment.groups == generation
            for family, moment in self.generations
        )


class ValueColumn(NamedTuple):
    """Values as they are sent."""

    values: Sequence[Any]


class ObjectColumn(NamedTuple):
    """ObjectSet, by the name of their type, and which of them each value is."""

    parts: dict[str, "ObjectSet"]
    indices: list[int] | None
    """Into all parts one after the other; -1 is null, and None is each in turn."""


class ListColumn(NamedTuple):
    """The items of lists one after the other, and where each list begins and ends; None is null."""

    items: "Content"
    offsets: list[tuple[int, int] | None]


Content: TypeAlias = ValueColumn | ObjectColumn | ListColumn


class Column(NamedTuple):
    """What a field gives for each of some objects."""

    content: Content
    dependencies: Dependencies


class UniqueObjects(list[Any]):
    """ObjectSet of one class, each once."""

    __slots__ = ()

    @property
    def of(self) -> type:
        """Their class."""
        return type(self[0])


class LazyObjects(Sequence[Any]):
    """Objects of one class as columns: they are made only where somebody asks for one."""

    __slots__ = ("_columns", "_made", "_same", "of")

    def __init__(self, of: type, columns: Mapping[str, Sequence[Any]], **same: Any) -> None:
        self.of = of
        self._columns = columns
        """The attributes that differ, each with as many values as there are objects."""
        self._same = same
        """Those that all have in common."""
        self._made: list[Any] | None = None

    @classmethod
    def joined(cls, parts: Sequence["LazyObjects"]) -> "LazyObjects":
        """Give all objects of some, which have the same columns, one after the other."""
        if len(parts) == 1:
            return parts[0]
        # what the objects of one have in common those of all need not
        names = parts[0].attributes
        return cls(parts[0].of, {name: [value for part in parts for value in part.values(name)] for name in names})

    @property
    def attributes(self) -> list[str]:
        """The names of all attributes."""
        return [*self._columns, *self._same]

    def values(self, name: str) -> Sequence[Any]:
        """Give an attribute of all."""
        column = self._columns.get(name)
        return [self._same[name]] * len(self) if column is None else column

    def first(self, name: str) -> Any:
        """Give an attribute of the first."""
        return self._same[name] if name in self._same else self._columns[name][0]

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> "LazyObjects": ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return LazyObjects(self.of, {name: values[place] for name, values in self._columns.items()}, **self._same)
        return self._all()[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._all())

    def _all(self) -> list[Any]:
        if self._made is None:
            names = tuple(self._columns)
            rows = zip(*self._columns.values(), strict=True)
            self._made = [self.of(**dict(zip(names, row, strict=True)), **self._same) for row in rows]
        return self._made


class ObjectSet(Sequence[Any]):
    """ObjectSet of one type, each once, and the columns that were made of them."""

    __slots__ = ("_objects", "columns", "entry", "loading")

    def __init__(self, objects: Sequence[Any], entry: "ColumnCacheEntry | None" = None) -> None:
        self._objects = objects
        self.entry = entry
        """What it is kept under; None where it is one operation's own."""
        self.columns: dict[Key, Column] = {}
        self.loading: dict[Key, asyncio.Future[bool]] = {}
        """The columns that operations are loading; whether others may wait for another that tries again."""

    def values(self, name: str) -> Sequence[Any]:
        """Give an attribute of all."""
        objects = self._objects
        return objects.values(name) if type(objects) is LazyObjects else list(map(attrgetter(name), objects))

    def first(self, name: str) -> Any:
        """Give an attribute of the first."""
        objects = self._objects
        return objects.first(name) if type(objects) is LazyObjects else getattr(objects[0], name)

    @property
    def footprint(self) -> int:
        """The bytes that they take, by estimate."""
        return len(self) * (RECORD_BYTES if type(self._objects) is LazyObjects else OBJECT_BYTES)

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, place: Any) -> Any:
        return self._objects[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._objects)

    def entry_for(self, key: Key, dependencies: Dependencies) -> "ColumnCacheEntry | None":  # noqa: ARG002 - a root's differ by it
        """Give what a column is to be kept under; None where it is not to be kept for other operations."""
        return self.entry if self.entry and dependencies.is_of(self.entry.generation) else None

    def keep(self, key: Key, column: Column, entry: "ColumnCacheEntry | None") -> Column:
        """Keep a column, and give what is kept: another stays, since others have begun to load what is below it."""
        kept = self.columns.setdefault(key, column)
        if entry and kept is column:
            entry.grow(_size(key, column))
        return kept


class ColumnCacheEntry:
    """All that hangs on one column of the root: it is put out as a whole."""

    __slots__ = ("_root", "generation", "size")

    def __init__(self, root: "ColumnCacheRoot | None", generation: int) -> None:
        # weak, so that a root that was replaced goes at once and with all that hangs on it
        self._root = root and ref(root)
        self.generation = generation
        self.size = 0

    def grow(self, size: int) -> None:
        """Count bytes."""
        if self._root and (root := self._root()):
            self.size += size
            root.grow(size)

    def evict(self) -> None:
        """Count no longer: it was put out."""
        self._root = None


class ColumnCacheRoot(ObjectSet):
    """The root of queries: one object without attributes, and what was read from it in one generation of the groups."""

    __slots__ = ("__weakref__", "_entries", "_max_bytes", "bytes", "counts", "generation")

    def __init__(self, known: Generation, max_bytes: int, counts: "Counts") -> None:
        super().__init__([None], ColumnCacheEntry(None, known.groups))
        self.generation = known
        self.bytes = 0
        self.counts = counts
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Key, ColumnCacheEntry] = OrderedDict()

    def entry_for(self, key: Key, dependencies: Dependencies) -> ColumnCacheEntry | None:
        """Give a branch for a column; None where it is not to be kept for other operations."""
        return (
            (self._entries.get(key) or ColumnCacheEntry(self, self.generation.groups))
            if dependencies.is_of(self.generation.groups)
            else None
        )

    def keep(self, key: Key, column: Column, entry: ColumnCacheEntry | None) -> Column:
        """Keep a column, and give what is kept."""
        if entry and key not in self.columns:
            self.counts.misses += 1
            self._entries[key] = entry
        return super().keep(key, column, entry)

    def touch(self, key: Key) -> None:
        """Note that a column was used: what was not for longest is put out first."""
        if key in self._entries:
            self._entries.move_to_end(key)

    def grow(self, size: int) -> None:
        """Count bytes, and put out what was used least lately."""
        self.bytes += size
        while self.bytes > self._max_bytes and self._entries:
            key, entry = self._entries.popitem(last=False)
            entry.evict()
            self.bytes -= entry.size
            self.columns.pop(key, None)
            self.counts.evictions += 1


@dataclass(slots=True)
class Counts:
    """What happened to the columns of all roots since the start."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0


class ColumnCache:
    """The root of the generation that is known, and what hangs on it."""

    def __init__(self, generations: GenerationTracker, *, max_bytes: int = MAX_BYTES) -> None:
        self._generations = generations
        self._max_bytes = max_bytes
        self._epoch = generations.epoch
        self._root: ColumnCacheRoot | None = None
        self.counts = Counts()

    def root(self) -> ColumnCacheRoot | None:
        """Give the root whose columns may be served; None where no generation is known."""
        known = self._generations.confirmed_generation("groups")
        if known is None:
            return None
        root = self._root
        if root is None or root.generation.groups != known.groups or self._epoch != self._generations.epoch:
            self._epoch = self._generations.epoch
            root = self._root = ColumnCacheRoot(known, self._max_bytes, self.counts)
        root.generation = known
        return root

    def stats(self) -> CacheStats:
        """Count what is kept, and how often the root's columns were there, since the start."""
        entries, size = (len(self._root.columns), self._root.bytes) if self._root else (0, 0)
        return CacheStats(
            entries, size, max(0, self.counts.hits - self.counts.misses), self.counts.misses, self.counts.evictions
        )

    def clear(self) -> None:
        """Forget all of it."""
        self._root = None


def _size(key: Key, column: Column) -> int:
    """Estimate the bytes that a column takes; rather too many."""
    return COLUMN_BYTES + _key_size(key) + 8 * len(column.dependencies.costs) + _content_size(column.content)


def _key_size(key: Key) -> int:
    return sys.getsizeof(key) + (sum(map(_key_size, key)) if isinstance(key, tuple) else 0)


def _content_size(content: Content) -> int:
    match content:
        case ValueColumn(values):
            # every so many of them, since most are alike
            step = len(values) // 16 + 1
            return 8 * len(values) + step * sum(map(sys.getsizeof, values[::step]))
        case ObjectColumn(parts, indices):
            return 8 * len(indices or ()) + sum(200 + objects.footprint for objects in parts.values())
        case ListColumn(items, offsets):
            return 80 * len(offsets) + _content_size(items)
