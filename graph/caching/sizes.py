"""Sizes: the bytes that values take in memory, measured with all that they refer to."""

import sys
from collections.abc import Iterable, Sequence
from enum import Enum
from gc import get_referents
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType, NoneType
from typing import Any

from graph.model import Symbols

SAMPLE = 64
"""Items of a longer sequence that are measured for all of them."""

_HAVE_GC = 1 << 14  # the flag of classes whose objects refer to others
_ALLOCATED_BY_PYTHON = 512  # bytes up to which CPython's own allocator serves; malloc adds a header beyond
_INTERPRETERS_OWN = frozenset(map(id, range(-5, 257)))
_SHARED, _PLAIN, _FUNCTION, _SEQUENCE, _DICT, _INSTANCE, _OTHER = range(7)


class Sizer:
    """A function that measures values.

    It leaves out what is there anyway: classes, modules, enum members, the texts of `Symbols`, and the objects of
    classes that are `shared`. An object that a value refers to twice counts once.
    """

    def __init__(self, *shared: type) -> None:
        self._shared = (type, ModuleType, BuiltinFunctionType, CodeType, NoneType, bool, Enum, *shared)
        self._kinds: dict[type, int] = {}

    def __call__(self, *values: object, apart_from: Iterable[int] = ()) -> int:
        """Return the bytes of values, but for objects with some ids, which somebody else counts."""
        return self._measure(list(values), set(apart_from))

    def _measure(self, values: list[Any], seen: set[int]) -> int:
        total = 0
        while values:
            value = values.pop()
            of = type(value)
            kind = self._kinds.get(of)
            if kind is None:
                kind = self._kinds[of] = self._kind_of(of)
            if kind == _SHARED or id(value) in seen or id(value) in _INTERPRETERS_OWN:
                continue
            seen.add(id(value))
            total += allocated(sys.getsizeof(value))
            if kind == _PLAIN:
                continue
            if kind == _FUNCTION:
                values += value.__closure__ or ()
            elif kind == _SEQUENCE and len(value) > SAMPLE:
                total += self._estimate(value, seen)
            elif kind == _DICT:
                # its keys are not among its referents where all are texts
                values += value
                values += value.values()
            else:
                referents = get_referents(value)
                values += referents
                if kind == _INSTANCE:
                    # attributes stand apart from the object
                    total += allocated(8 * len(referents) + 16)
        return total

    def _estimate(self, items: Sequence[Any], seen: set[int]) -> int:
        """Return the bytes of the items of a long sequence, from those of a sample."""
        unique = {id(item): item for item in items}
        new = [item for number, item in unique.items() if number not in seen]
        # what all items have in common is counted with the first
        total = self._measure(new[:1], seen)
        rest = new[1:]
        sample = rest[:: len(rest) // SAMPLE + 1]
        size = self._measure(sample.copy(), seen)
        seen.update(unique)
        return total + (size * len(rest) // len(sample) if sample else 0)

    def _kind_of(self, of: type) -> int:
        if issubclass(of, self._shared):
            return _SHARED
        if of is Symbols or not of.__flags__ & _HAVE_GC:
            return _PLAIN
        if of is FunctionType:
            return _FUNCTION
        if issubclass(of, list | tuple) and not of.__dictoffset__:
            return _SEQUENCE
        if of is dict:
            return _DICT
        return _INSTANCE if of.__dictoffset__ == -1 else _OTHER


def allocated(size: int) -> int:
    """Return the bytes that an allocation of some bytes takes."""
    return (size + 15 if size <= _ALLOCATED_BY_PYTHON else size + 23) & ~15
