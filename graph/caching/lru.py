"""A mapping with bounds, from which the least recently used entries are evicted first."""

import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class LRU(OrderedDict[Key, Value]):
    """Entries in the order of their use, bounded in bytes and in number.

    `get` and `move_to_end` are those of the dictionary, so that a hit calls nothing written in Python; entries are
    added by `store` alone. `size_of` gives the bytes of an entry. A value that grows after it was stored says so by
    `grow`.
    """

    def __init__(self, size_of: Callable[[Key, Value], int], *, max_bytes: int, max_entries: int = sys.maxsize) -> None:
        super().__init__()
        self.bytes = 0
        self.evictions = 0
        self._size_of = size_of
        self.max_bytes = max_bytes
        self._max_entries = max_entries

    def store(self, key: Key, value: Value) -> list[tuple[Key, Value]]:
        """Add or replace an entry as the most recently used one, and return what was evicted for it.

        An entry that is larger than the bound is evicted itself, and no other.
        """
        if key in self:
            self.bytes -= self._size_of(key, self.pop(key))
        size = self._size_of(key, value)
        if size > self.max_bytes:
            self.evictions += 1
            return [(key, value)]
        self[key] = value
        return self.grow(size)

    def grow(self, size: int) -> list[tuple[Key, Value]]:
        """Count bytes that entries take on top of those counted so far, and return what was evicted for them."""
        self.bytes += size
        evicted = []
        while self and (self.bytes > self.max_bytes or len(self) > self._max_entries):
            key, value = self.popitem(last=False)
            self.bytes -= self._size_of(key, value)
            self.evictions += 1
            evicted.append((key, value))
        return evicted

    def clear(self) -> None:
        """Remove all entries; this is no eviction."""
        super().clear()
        self.bytes = 0
