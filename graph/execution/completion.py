"""Completion: values of a field are checked against its type and become a column.

What GraphQL completes value by value is done here for all values of a field at once. A value that its type does not
take, or a null where the type has none, raises Fallback: graphql-core then completes the field and reports the error.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from math import isfinite
from types import NoneType
from typing import Any, cast

import orjson
from graphql import GraphQLFloat, GraphQLInt, GraphQLLeafType, GraphQLResolveInfo, Undefined

from graph.execution.columns import (
    ColumnCacheEntry,
    Content,
    LazyObjects,
    ListColumn,
    ObjectColumn,
    ObjectSet,
    UniqueObjects,
    ValueColumn,
)
from graph.execution.plans import Fallback, OutputType
from graph.model import Symbols

_NO_INFO = cast("GraphQLResolveInfo[Any]", None)
"""None of Strawberry's `is_type_of` functions reads it."""


def complete(output_type: OutputType, values: Sequence[Any], entry: ColumnCacheEntry | None) -> Content:
    """Return the column of values, whose objects belong to a cache entry; raise Fallback for values not of the type."""
    if output_type.leaf:
        completed = complete_values(output_type, values)
        return ValueColumn(completed, written_bytes(output_type, completed))
    if type(values) is LazyObjects or type(values) is UniqueObjects:
        return ObjectColumn({_type_name(output_type, values.of): ObjectSet(values, entry)} if values else {}, None)
    classes = set(map(type, values))
    if NoneType in classes:
        if not output_type.nullable:
            raise Fallback("a value is null where its type has none")
        classes.remove(NoneType)
    if not output_type.items:
        return _complete_objects(output_type, classes, values, entry)
    if not classes <= {list, tuple, Symbols, LazyObjects}:
        raise Fallback("a value is no list")
    end = 0
    offsets = [None if value is None else (end, end := end + len(value)) for value in values]
    lists = [value for value in values if value is not None]
    items: Sequence[Any]
    if classes == {LazyObjects}:
        items = LazyObjects.joined(lists)
    elif classes <= {list, Symbols} and len(lists) == 1:
        (items,) = lists
    else:
        items = list(chain.from_iterable(lists))
    return ListColumn(complete(output_type.items, items, entry), offsets)


def complete_values(output_type: OutputType, values: Sequence[Any]) -> Sequence[Any]:
    """Return scalars or enum values as they are sent; raise Fallback for those that are not of the type."""
    leaf = output_type.leaf
    if output_type.accepts.issuperset(map(type, values)) and (leaf not in _RANGE_CHECKS or _RANGE_CHECKS[leaf](values)):
        return values
    assert leaf  # noqa: S101 - only of such
    # each object once, since days and members of enums are the same many times
    unique = dict(zip(map(id, values), values, strict=True))
    coerced = {key: None if value is None else leaf.coerce_output_value(value) for key, value in unique.items()}
    if any(
        (after := coerced[key]) is Undefined
        or (after is None) != (before is None)
        or (after is None and not output_type.nullable)
        for key, before in unique.items()
    ):
        raise Fallback(f"a value is no {leaf}{'' if output_type.nullable else '!'}")
    return list(map(coerced.__getitem__, map(id, values)))


def written_bytes(output_type: OutputType, values: Sequence[Any]) -> int:
    """Return the number of bytes that completed scalars or enum values take as JSON, about."""
    if output_type.written:
        return output_type.written * len(values)
    try:
        joined = "".join(values)
        return (len(joined) if joined.isascii() else len(joined.encode("utf-8", "replace"))) + 3 * len(values)
    except TypeError:
        return sum(len(value) + 3 if type(value) is str else len(orjson.dumps(value, default=repr)) for value in values)


def _are_finite(values: Sequence[float | None]) -> bool:
    # a sum is finite only if all of its terms are; the sum of large finite numbers may still not be
    return isfinite(sum(filter(None, values))) or all(isfinite(value) for value in values if value is not None)


def _are_32_bit(values: Sequence[int | None]) -> bool:
    known = [0, *filter(None, values)]
    return min(known) >= -(2**31) and max(known) < 2**31


_RANGE_CHECKS: dict[GraphQLLeafType | None, Callable[[Sequence[Any]], bool]] = {
    GraphQLFloat: _are_finite,
    GraphQLInt: _are_32_bit,
}
"""Checks of values whose class alone does not tell that they are of the type."""


def _complete_objects(
    output_type: OutputType, classes: set[type], values: Sequence[Any], entry: ColumnCacheEntry | None
) -> ObjectColumn:
    if len(values) == 1 and classes:
        return ObjectColumn({_type_of(output_type, values[0]): ObjectSet(values, entry)}, None)
    # the class of an object decides its type
    names = {each: _type_of(output_type, next(value for value in values if type(value) is each)) for each in classes}
    unique: dict[str, dict[int, Any]] = {name: {} for name in names.values()}
    if len(unique) == 1:
        (only,) = unique
        unique[only] = {id(value): value for value in values if value is not None}
    else:
        for value in values:
            if value is not None:
                unique[names[type(value)]][id(value)] = value
    parts = {name: ObjectSet(list(objects.values()), entry) for name, objects in unique.items()}
    ids = [number for objects in unique.values() for number in objects]
    if len(parts) <= 1 and len(ids) == len(values):
        return ObjectColumn(parts, None)
    index = dict(zip(ids, range(len(ids)), strict=True))
    return ObjectColumn(parts, [-1 if value is None else index[id(value)] for value in values])


def _type_of(output_type: OutputType, value: Any) -> str:
    if type(value) not in output_type.names and len(output_type.types) == 1:
        (only,) = output_type.types
        if not only.is_type_of or only.is_type_of(value, _NO_INFO) is True:
            return only.name
    return _type_name(output_type, type(value))


def _type_name(output_type: OutputType, of: type) -> str:
    if name := output_type.names.get(of):
        return name
    raise Fallback(f"an object of {of.__name__} is of none of the types of the field")
