"""Assembly: loaded columns become the rows of an answer, and the budget is charged for them.

The objects of a set are distinct while an answer may hold each of them several times. So `times` goes along: how often
each object of a set is in the answer, or None where each is there once or nobody counts. `count` is about how many rows
of a set the answer has: what these take as JSON is counted before they are made.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from operator import mul
from typing import Any, NoReturn, Protocol

from graph.execution.columns import Column, Content, Dependencies, Key, ListColumn, ObjectColumn, ObjectSet, ValueColumn
from graph.execution.completion import complete_values, written_bytes
from graph.execution.plans import Fallback, Field, Plan, failure_of
from graph.model import Symbols


class ColumnSource(Protocol):
    """An execution of a plan, from which assembly takes columns and to which it charges them."""

    written: int
    """Bytes of the rows assembled so far, as JSON, about; each as often as it is in the answer."""
    most: int
    """Bytes that may be assembled."""

    def key(self, field: Field) -> Key:
        """Return the key of a field's columns."""

    def find(self, objects: ObjectSet, field: Field, key: Key) -> Column | None:
        """Return a column, derived now if that takes no waiting; None if it has to be loaded."""

    def refuse(self) -> NoReturn:
        """Raise the error of an answer that has too many bytes."""

    @property
    def charge(self) -> Callable[[Dependencies, int | None], None]:
        """A function that adds the dependencies of a column and its cost, or another cost where one is given."""


def column_content(
    source: ColumnSource, objects: ObjectSet, field: Field, key: Key, times: list[int] | None
) -> Content:
    """Return the content of a column, and charge its cost; raise Fallback if it is not loaded."""
    column = source.find(objects, field, key)
    if column is None:
        raise Fallback("its columns are not loaded")
    if field.resolver:
        source.charge(column.dependencies, None if times is None else _cost(column.dependencies, times))
    return column.content


def assemble(
    source: ColumnSource, field: Field, content: Content, times: list[int] | None, count: int
) -> Sequence[Any]:
    """Return the values of a column as they are sent; `count` says how many of them are in the answer."""
    match content:
        case ValueColumn(values, written):
            source.written += written * count // (len(values) or 1)
            if source.written > source.most:
                source.refuse()
            return values
        case ObjectColumn(parts, indices):
            times = _times(content, times) if field.has_resolvers else None
            if len(parts) == 1 and indices is None:
                ((name, objects),) = parts.items()
                return _rows(source, field.plans[name], objects, times, count)
            rows: list[Any] = []
            total = sum(map(len, parts.values())) or 1
            for name, objects in parts.items():
                of_part = times and times[len(rows) : len(rows) + len(objects)]
                rows += _rows(source, field.plans[name], objects, of_part, count * len(objects) // total)
            if indices is None:
                return rows
            rows.append(None)
            return [rows[index] for index in indices]
        case ListColumn(items, offsets):
            if times is not None:
                times = [
                    count for span, count in zip(offsets, times, strict=True) if span for _ in range(span[0], span[1])
                ]
            last = offsets[-1] if offsets else None
            end = last[1] if last else next((span[1] for span in reversed(offsets) if span), 0)
            flat = assemble(source, field, items, times, end * count // (len(offsets) or 1))
            if type(flat) is Symbols:
                flat = list(flat)
            return [None if span is None else flat[span[0] : span[1]] for span in offsets]


def _rows(
    source: ColumnSource, plan: Plan, objects: ObjectSet, times: list[int] | None, count: int
) -> list[dict[str, Any]]:
    columns: list[Sequence[Any]] = []
    written = 0
    for field in plan.fields:
        if field is None:
            columns.append([plan.type] * len(objects))
            continue
        if objects.entry is None and field.output_type.leaf and field.resolver is None:
            # a column that no other operation can use need not be stored
            values = _attribute(field, objects)
            written += written_bytes(field.output_type, values)
            columns.append(values)
            continue
        content = column_content(source, objects, field, source.key(field), times)
        if type(content) is ValueColumn:
            written += content.written
            columns.append(content.values)
        else:
            columns.append(assemble(source, field, content, times, count))
    number = len(columns[0]) if columns else len(objects)
    written += plan.row_bytes * number
    source.written += written if count == number else written * count // (number or 1)
    if source.written > source.most:
        source.refuse()
    match plan.names, columns:
        # twice as fast as the general case below
        case [a], [first]:
            return [{a: x} for x in first]
        case [a, b], [first, second]:
            return [{a: x, b: y} for x, y in zip(first, second, strict=True)]
        case [a, b, c], [first, second, third]:
            return [{a: x, b: y, c: z} for x, y, z in zip(first, second, third, strict=True)]
        case [], []:
            return [{} for _ in objects]
    # `strict` would take twice as long
    return [dict(zip(plan.names, row)) for row in zip(*columns)]  # noqa: B905


def _attribute(field: Field, objects: ObjectSet) -> Sequence[Any]:
    try:
        return complete_values(field.output_type, objects.values(field.attribute))
    except Exception as error:
        raise failure_of(field, error) from error


def _cost(dependencies: Dependencies, times: list[int]) -> int:
    """Return the cost of a column whose objects are in the answer so many times each."""
    costs = dependencies.costs
    return sum(map(mul, costs, times)) if len(costs) == len(times) else dependencies.objects * max(times, default=0)


def _times(column: ObjectColumn, times: list[int] | None) -> list[int] | None:
    """Return how often each object is in the answer, from how often each value that refers to it is."""
    if column.indices is None:
        return times
    counts = [0] * sum(map(len, column.parts.values()))
    for index, count in zip(column.indices, repeat(1) if times is None else times):  # noqa: B905 - `repeat` is endless
        if index >= 0:
            counts[index] += count
    return counts
