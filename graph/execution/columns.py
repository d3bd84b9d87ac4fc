"""Columns: the values of a field for all objects of a set, and the cache of them.

The root of a query is a set of one object, and a column of objects leads to the set of those objects, each of them
once. So all columns that were loaded from one generation of the database form a tree below one root, and a query that
selects them again finds arrays.
"""

import asyncio
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from datetime import date
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias, overload
from weakref import ref

from graph.caching.data_cache import CacheStats
from graph.caching.generations import GenerationTracker
from graph.caching.lru import LRU
from graph.caching.sizes import Sizer
from graph.model import Symbols
from graph.postgres.database import Generation
from graph.postgres.statements import Family
from graph.telemetry import Observer

COLUMN_BYTES = 300
"""Bytes of a column besides its content and its key: its slots in the dictionaries of its set."""
ENTRY_BYTES = 500
"""Bytes of a column of the root on top of that: its entry, and the slots of that in the cache."""

Key: TypeAlias = Hashable
"""The name of a field and its arguments."""


class Dependencies(NamedTuple):
    """Everything that the values of a column depend on, and their cost."""

    objects: int = 0
    """Cost in the budget of an operation: the number of rows and list items that were loaded."""
    costs: tuple[int, ...] = ()
    """Cost per object of the set; empty if only the total is known."""
    generations: frozenset[tuple[Family, Generation | None]] = frozenset()
    """Generations of the statements that loaded it, by family of tables."""
    day: date | None = None
    """UTC date on which alone it is valid; None if it does not depend on the date."""
    volatile: bool = False
    """True if it shows state that changes without a change of the database."""
    stale: bool = False
    """True if it was served from a cache during an outage, without a confirmed generation."""

    def is_of(self, generation: int) -> bool:
        """Tell if it depends on nothing, or only on the groups of one generation."""
        return not (self.day or self.volatile or self.stale) and all(
            family == "groups" and moment is not None and moment.groups == generation
            for family, moment in self.generations
        )


class ValueColumn(NamedTuple):
    """Values as they are sent, one for each object of the set."""

    values: Sequence[Any]
    written: int
    """Bytes of all values as JSON, about."""


class ObjectColumn(NamedTuple):
    """Objects by the name of their type, and the index of the object that each value is."""

    parts: dict[str, "ObjectSet"]
    indices: list[int] | None
    """Index into the concatenated objects of all types; -1 is null. None means the identity mapping."""


class ListColumn(NamedTuple):
    """The concatenated items of lists, and the offsets at which each list begins and ends; None is null."""

    items: "Content"
    offsets: list[tuple[int, int] | None]


Content: TypeAlias = ValueColumn | ObjectColumn | ListColumn


class Column(NamedTuple):
    """The values of a field for the objects of a set."""

    content: Content
    dependencies: Dependencies


class UniqueObjects(list[Any]):
    """Distinct objects of one class."""

    __slots__ = ()

    @property
    def of(self) -> type:
        """The class of the objects."""
        return type(self[0])


class LazyObjects(Sequence[Any]):
    """Objects of one class, stored by attribute and made only when one is read."""

    __slots__ = ("columns", "of", "same", "span")

    def __init__(
        self, of: type, columns: Mapping[str, Sequence[Any]], span: tuple[int, int] | None = None, **same: Any
    ) -> None:
        self.of = of
        self.columns = columns
        """Values of the attributes that differ between the objects."""
        self.span = span or (0, len(next(iter(columns.values()))))
        """The first object and the one after the last among those of the columns, which slices share."""
        self.same = same
        """Attributes that all objects share."""

    @classmethod
    def joined(cls, parts: Sequence["LazyObjects"]) -> "LazyObjects":
        """Concatenate sequences whose objects have the same attributes."""
        first, last = parts[0], parts[-1]
        if all(part.columns is first.columns and before.span[1] == part.span[0] for before, part in pairwise(parts)):
            # slices of one sequence, one after another
            return cls(first.of, first.columns, (first.span[0], last.span[1]), **first.same)
        # what the objects of one have in common those of all need not
        names = first.attributes
        return cls(first.of, {name: _concatenated([part.values(name) for part in parts]) for name in names})

    @property
    def attributes(self) -> list[str]:
        """Names of all attributes."""
        return [*self.columns, *self.same]

    def values(self, name: str) -> Sequence[Any]:
        """Return an attribute of all objects."""
        column = self.columns.get(name)
        if column is None:
            return [self.same[name]] * len(self)
        start, end = self.span
        return column if end - start == len(column) else column[start:end]

    def first(self, name: str) -> Any:
        """Return an attribute of the first object."""
        return self.same[name] if name in self.same else self.columns[name][self.span[0]]

    def split(self, size: int, count: int) -> list["LazyObjects"]:
        """Return `count` slices of `size` objects each."""
        return [self[start : start + size] for start in range(0, size * count, size)] if size else [self] * count

    def __len__(self) -> int:
        return self.span[1] - self.span[0]

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> "LazyObjects": ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            start, end, _ = place.indices(len(self))
            first = self.span[0]
            return LazyObjects(self.of, self.columns, (first + start, first + max(start, end)), **self.same)
        index = self.span[0] + range(len(self))[place]
        return self.of(**{name: values[index] for name, values in self.columns.items()}, **self.same)

    def __iter__(self) -> Iterator[Any]:
        # they are not kept, since they would take ten times the memory of their attributes
        names = tuple(self.columns)
        rows = zip(*map(self.values, names), strict=True)
        return iter([self.of(**dict(zip(names, row, strict=True)), **self.same) for row in rows])

    @property
    def ids(self) -> set[int]:
        """The ids of all that it holds."""
        return {id(held) for held in (self.columns, *self.columns.values(), *self.same.values())}


def _concatenated(parts: Sequence[Sequence[Any]]) -> Sequence[Any]:
    values = [value for part in parts for value in part]
    return Symbols(values) if all(type(part) is Symbols for part in parts) else values


class ObjectSet(Sequence[Any]):
    """Distinct objects of one type, and the columns that were loaded for them."""

    __slots__ = ("_objects", "columns", "entry", "loading")
    column_bytes = COLUMN_BYTES

    def __init__(self, objects: Sequence[Any], entry: "ColumnCacheEntry | None" = None) -> None:
        self._objects = objects
        self.entry = entry
        """The cache entry that it belongs to; None if it belongs to one operation alone."""
        self.columns: dict[Key, Column] = {}
        self.loading: dict[Key, asyncio.Future[bool]] = {}
        """Columns in flight; the result tells if those who wait may start another load."""

    def values(self, name: str) -> Sequence[Any]:
        """Return an attribute of all objects."""
        objects = self._objects
        return objects.values(name) if type(objects) is LazyObjects else list(map(attrgetter(name), objects))

    def first(self, name: str) -> Any:
        """Return an attribute of the first object."""
        objects = self._objects
        return objects.first(name) if type(objects) is LazyObjects else getattr(objects[0], name)

    @property
    def of(self) -> type:
        """The class of the objects."""
        objects = self._objects
        return objects.of if type(objects) is LazyObjects else type(objects[0])

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, place: Any) -> Any:
        return self._objects[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._objects)

    def entry_for(self, key: Key, dependencies: Dependencies) -> "ColumnCacheEntry | None":  # noqa: ARG002 - roots
        """Return the cache entry for a column; None if it must not be shared with other operations."""
        return self.entry if self.entry and dependencies.is_of(self.entry.generation) else None

    def store(self, key: Key, column: Column, entry: "ColumnCacheEntry | None") -> Column:
        """Store a column and return the stored one: an earlier one stays, since columns below it may be loading."""
        stored = self.columns.setdefault(key, column)
        if entry and stored is column:
            entry.grow(self.column_bytes + _size_of(key, column, apart_from=self._ids(key)))
        return stored

    def _ids(self, key: Key) -> set[int]:
        """Return the ids of all that the objects hold and the column of a key may share with them."""
        objects = self._objects
        ids = objects.ids if type(objects) is LazyObjects else set(map(id, objects))
        if isinstance(key, str):
            values = self.values(key)
            ids.add(id(values))
            ids.update(map(id, values))
            for value in values:
                if isinstance(value, list):
                    ids.update(map(id, value))
                elif type(value) is LazyObjects:
                    ids |= value.ids
        return ids


class ColumnCacheEntry:
    """A column of the root with all columns below it, evicted as a whole."""

    __slots__ = ("_root", "generation", "size")

    def __init__(self, root: "ColumnCacheRoot | None", generation: int) -> None:
        # weak, so that a root is freed with all of its columns as soon as it is replaced
        self._root = root and ref(root)
        self.generation = generation
        self.size = 0

    def grow(self, size: int) -> None:
        """Count bytes that were added."""
        if self._root and (root := self._root()):
            self.size += size
            root.grow(self, size)

    def evict(self) -> None:
        """Stop counting: it is no longer in the cache."""
        self._root = None


class ColumnCacheRoot(ObjectSet):
    """The root of queries: a set of one object without attributes, with the columns of one generation of the groups."""

    __slots__ = ("__weakref__", "_entries", "counts", "generation")
    column_bytes = COLUMN_BYTES + ENTRY_BYTES

    def __init__(self, generation: Generation, max_bytes: int, counts: "Counts") -> None:
        super().__init__([None], ColumnCacheEntry(None, generation.groups))
        self.generation = generation
        self.counts = counts
        self._entries: LRU[Key, ColumnCacheEntry] = LRU(lambda _, entry: entry.size, max_bytes=max_bytes)

    def entry_for(self, key: Key, dependencies: Dependencies) -> ColumnCacheEntry | None:
        """Return the cache entry for a column of the root; None if it must not be shared with other operations."""
        return (
            (self._entries.get(key) or ColumnCacheEntry(self, self.generation.groups))
            if dependencies.is_of(self.generation.groups)
            else None
        )

    def store(self, key: Key, column: Column, entry: ColumnCacheEntry | None) -> Column:
        """Store a column of the root and return the stored one."""
        if entry and key not in self.columns:
            self.counts.misses += 1
            if self.counts.observer:
                self.counts.observer.cache("columns", "miss", 1)
            self._entries.store(key, entry)  # of size 0 yet, so that nothing is evicted for it
        return super().store(key, column, entry)

    def touch(self, key: Key) -> None:
        """Mark a column as the most recently used one."""
        if key in self._entries:
            self._entries.move_to_end(key)

    @property
    def bytes(self) -> int:
        """The bytes of all columns."""
        return self._entries.bytes

    def grow(self, grown: ColumnCacheEntry, size: int) -> None:
        """Count bytes, and evict the least recently used columns of the root where there are too many."""
        if grown.size > self._entries.max_bytes:
            # before the others, which would not make room enough
            self._entries.move_to_end(next(key for key, entry in self._entries.items() if entry is grown), last=False)
        for key, entry in self._entries.grow(size):
            entry.evict()
            self.columns.pop(key, None)
            self.counts.evictions += 1
            if self.counts.observer:
                self.counts.observer.cache("columns", "evict", 1)


class Counts:
    """Hits, misses and evictions of the columns of all roots since the start."""

    __slots__ = ("evictions", "hits", "misses", "observer")

    def __init__(self, observer: Observer | None = None) -> None:
        self.observer = observer
        self.hits = self.misses = self.evictions = 0


class ColumnCache:
    """The cache of columns: one root, of the confirmed generation."""

    def __init__(
        self, generations: GenerationTracker, *, max_bytes: int = sys.maxsize, observer: Observer | None = None
    ) -> None:
        self._generations = generations
        self._max_bytes = max_bytes
        self._epoch = generations.epoch
        self._root: ColumnCacheRoot | None = None
        self.counts = Counts(observer)

    def root(self) -> ColumnCacheRoot | None:
        """Return the root whose columns may be served; None while no generation is confirmed."""
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
        """Return the number and size of the root's columns, and their hits, misses and evictions since the start."""
        entries, size = (len(self._root.columns), self._root.bytes) if self._root else (0, 0)
        return CacheStats(
            entries, size, max(0, self.counts.hits - self.counts.misses), self.counts.misses, self.counts.evictions
        )

    def clear(self) -> None:
        """Evict everything."""
        self._root = None


_size_of = Sizer(ColumnCacheEntry)
