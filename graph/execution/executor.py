"""Queries executed column by column, from the root down; what is not plain, by graphql-core's own way.

Completing a value costs graphql-core about ten microseconds, field by field and row by row, and a coroutine for each
field that waits. Here a plan says what is selected. First the columns that it names are loaded, each after what it is
a column of: an attribute is read off all objects of a list, a field that has a batch form is called once for all of
them, any other resolver for each. Then columns become rows. Whatever is not that plain (introspection, an error, a
null where none may be, a value that its type does not take) leaves the whole field of the root to the standard way,
so that errors are always the standard ones; but for LIMIT_EXCEEDED, which ends the field of the root at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import chain, repeat
from math import isfinite
from operator import mul
from types import NoneType
from typing import Any, NamedTuple, Protocol, Self, cast

from graphql import (
    GraphQLField,
    GraphQLFloat,
    GraphQLInt,
    GraphQLLeafType,
    GraphQLObjectType,
    GraphQLResolveInfo,
    Undefined,
)
from graphql.execution.collect_fields import FieldDetails
from graphql.execution.values import VariableValues
from graphql.pyutils import AwaitableOrValue, Path, gather_with_cancel
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from graph.errors import LimitExceeded
from graph.execution.columns import (
    Column,
    ColumnCacheEntry,
    ColumnCacheRoot,
    Content,
    Dependencies,
    Key,
    LazyObjects,
    ListColumn,
    ObjectColumn,
    ObjectSet,
    UniqueObjects,
    ValueColumn,
)
from graph.execution.plans import Field, OutputType, Plan, Plans, Resolver, key_of, make_plan

_NOTHING = Dependencies()
_NO_INFO = cast("GraphQLResolveInfo[Any]", None)
"""None of Strawberry's functions looks at it."""
MAX_KEY = 2_000
"""Characters of a field with its arguments, written out; beyond that its columns are not kept."""


class Context(Protocol):
    """What the executor needs of the context of an operation."""

    def fork(self) -> Self:
        """Give what one column is loaded with: it counts for itself."""

    @property
    def dependencies(self) -> Dependencies:
        """What has been read and counted with it."""

    def merge(self, dependencies: Dependencies, objects: int | None = None) -> None:
        """Count what a column rests on as read by this; and other objects than it counts for itself, where told."""

    @property
    def root(self) -> ColumnCacheRoot | None:
        """Where columns are kept for other operations; None where nothing may be."""

    objects: int
    costs: tuple[int, ...]


class _Fallback(Exception):
    """Something that the standard way knows what to do with."""


class _Missing(_Fallback):
    """A column is yet to be loaded."""


class _Info(NamedTuple):
    """All that the resolvers here use of Strawberry's `Info`."""

    context: Any


class PlanResult(NamedTuple):
    """What came of the fields of a root; the standard way is left with those that are not here."""

    done: dict[str, Any]
    over_limit: dict[str, LimitExceeded]
    """Those that would be too much."""


class ColumnExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes as its base does, and queries faster: `Schema(execution_context_class=ColumnExecutor)`."""

    def __init__(self, *args: Any, plans: Plans | None = None, result: PlanResult | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._plans = plans
        self._outcome = result

    def execute_collected_root_fields(
        self,
        root_type: GraphQLObjectType,
        root_value: Any,
        grouped_field_set: dict[str, list[FieldDetails]],
        serially: bool,  # noqa: FBT001 - as the base has it
        new_defer_usages: Any,
    ) -> AwaitableOrValue[dict[str, Any]]:
        """Execute the fields of the root."""
        standard = super().execute_collected_root_fields
        if serially or new_defer_usages or (self.middleware_manager and self.middleware_manager.middlewares):
            return standard(root_type, root_value, grouped_field_set, serially, new_defer_usages)
        plan = make_plan(self, root_type, grouped_field_set)
        if self._plans:
            self._plans.keep(self.variable_values, plan)
        if not any(plan.fields):
            return standard(root_type, root_value, grouped_field_set, serially, new_defer_usages)

        async def execute() -> dict[str, Any]:
            done, over_limit = self._outcome or await execute_plan(
                plan, self.context_value, self.variable_values, root_value
            )
            for name, error in over_limit.items():
                details = grouped_field_set[name]
                of = cast("GraphQLField", self.schema.get_field(root_type, details[0].node.name.value)).type
                self.handle_field_error(error, of, details, Path(None, name, root_type.name))
            done |= dict.fromkeys(over_limit)
            rest = {name: details for name, details in grouped_field_set.items() if name not in done}
            if rest:
                completed: Any = standard(root_type, root_value, rest, serially, new_defer_usages)
                done |= await completed if self.is_awaitable(completed) else completed
            return {name: done[name] for name in grouped_field_set if name in done}

        return execute()


def execute_from_cache(plan: Plan, context: Context, variables: VariableValues) -> dict[str, Any] | None:
    """Give what a plan selects where all of it is kept; None where something is to be waited for, or went wrong."""
    return PlanExecution(context, variables).execute_from_cache(plan) if plan.complete else None


async def execute_plan(plan: Plan, context: Context, variables: VariableValues, root_value: Any = None) -> PlanResult:
    """Execute what was planned."""
    return await PlanExecution(context, variables).fields(plan, root_value)


class PlanExecution:
    """One execution of a plan."""

    def __init__(self, context: Context, variables: VariableValues) -> None:
        self._context = context
        self._variables = variables
        self._root = context.root
        self._given: dict[int, tuple[Key, dict[str, Any]]] = {}
        """Key and arguments of fields that depend on variables, by their ids."""
        self._columns: dict[tuple[int, Key], tuple[ObjectSet, Column | Exception]] = {}
        """The columns found, which others may put out meanwhile, and what went wrong with some, by ids of objects."""

    def execute_from_cache(self, plan: Plan) -> dict[str, Any] | None:
        """Give what a plan selects where all of it is kept."""
        if self._root is None:
            return None
        try:
            data = {
                name: self._of_root(plan, field, self._root)
                for name, field in zip(plan.names, plan.fields, strict=True)
            }
        except (_Fallback, LimitExceeded):
            return None
        self._root.counts.hits += len(data)
        return data

    async def fields(self, plan: Plan, value: Any) -> PlanResult:
        """Load and give what is selected of the root."""
        root: ObjectSet = ObjectSet([value]) if self._root is None else self._root
        if self._root:
            self._root.counts.hits += sum(field is not None and field.key in root.columns for field in plan.fields)
        await self._load([(plan, root)])
        result = PlanResult({}, {})
        for name, field in zip(plan.names, plan.fields, strict=True):
            before = self._context.objects
            try:
                result.done[name] = self._of_root(plan, field, root)
            except _Fallback:
                self._context.objects = before
            except LimitExceeded as error:
                self._context.objects = before
                result.over_limit[name] = error
        return result

    def _of_root(self, plan: Plan, field: Field | None, root: ObjectSet) -> Any:
        if field is None:
            return plan.type
        key = self._key(field)
        if self._root is root:
            self._root.touch(key)
        return self._values(field, self._counted(root, field, key, None).content, None)[0]

    async def _load(self, found: list[tuple[Plan, ObjectSet]]) -> None:
        """Load the columns that are not there, each with what is below it, all at the same time."""
        loads: dict[tuple[int, Key], tuple[ObjectSet, Key, list[Field]]] = {}
        for plan, objects in found:  # which grows
            for field in plan.async_fields:
                try:
                    key = self._key(field)
                    column = self._find(objects, field, key)
                except (_Fallback, LimitExceeded):
                    continue  # which is met again when rows are made
                if column is None:
                    loads.setdefault((id(objects), key), (objects, key, []))[2].append(field)
                else:
                    found += _below(field, column.content)
        if len(loads) == 1:
            (only,) = loads.values()
            await self._load_column(*only)
        elif loads:
            await gather_with_cancel(*(self._load_column(*load) for load in loads.values()))

    async def _load_column(self, objects: ObjectSet, key: Key, fields: list[Field]) -> None:
        """Load a column that some fields have in common, and what each of them has below it."""
        make = self._make if objects.entry is None else self._make_once
        column = await make(objects, fields[0], key)
        if isinstance(column, Column):
            await self._load([below for field in fields for below in _below(field, column.content)])

    async def _make_once(self, objects: ObjectSet, field: Field, key: Key) -> Column | Exception:
        """Make a column, or let another operation that is at it do that."""
        while flight := objects.loading.get(key):
            await asyncio.wait([flight])
            if there := objects.columns.get(key):
                self._columns[id(objects), key] = objects, there
                return there
            if not flight.result():
                # it failed, or is not to be kept: no use in waiting for one more
                return await self._make(objects, field, key)
        flight = objects.loading[key] = asyncio.get_running_loop().create_future()
        again = True
        try:
            column = await self._make(objects, field, key)
            again = False
        finally:
            del objects.loading[key]
            flight.set_result(again)
        return column

    async def _make(self, objects: ObjectSet, field: Field, key: Key) -> Column | Exception:
        part = self._context.fork()
        column: Column | Exception
        try:
            values = await self._call(objects, field, part)
            dependencies = part.dependencies
            entry = objects.entry_for(key, dependencies) if objects.entry and len(repr(key)) <= MAX_KEY else None
            column = Column(_content(field.output_type, values, entry), dependencies)
            if len(values) != len(objects):
                column = _Fallback()
            elif objects.entry is None or entry:
                column = objects.keep(key, column, entry)
        except Exception as error:  # noqa: BLE001 - whatever it is, the standard way meets it again and tells
            column = error
        self._columns[id(objects), key] = objects, column
        return column

    async def _call(self, objects: ObjectSet, field: Field, part: Context) -> Sequence[Any]:
        """Call the resolver of a field: once for all objects where it can be, and else for each, counting for each."""
        resolver, arguments = field.resolver, self._arguments(field)
        assert resolver  # noqa: S101 - only what has one is loaded
        if resolver.batch:
            return await resolver.batch(objects, part, **arguments)

        def call(of: Any, context: Context) -> Awaitable[Any]:
            info = {resolver.info: _Info(context)} if resolver.info else {}
            called: Awaitable[Any] = resolver.call(of, **arguments, **info)
            return called

        if len(objects) == 1:
            return [await call(objects[0], part)]
        parts = [part.fork() for _ in objects]
        values: list[Any] = await gather_with_cancel(*map(call, objects, parts))
        for own in parts:
            part.merge(own.dependencies)
        part.costs = tuple(own.objects for own in parts)
        return values

    def _key(self, field: Field) -> Key:
        return field.key if field.key is not None else self._convert(field)[0]

    def _arguments(self, field: Field) -> dict[str, Any]:
        return field.arguments if field.arguments is not None else self._convert(field)[1]

    def _convert(self, field: Field) -> tuple[Key, dict[str, Any]]:
        given = self._given.get(id(field))
        if given is None:
            try:
                arguments = cast("Resolver", field.resolver).arguments(self._variables)
                given = key_of(field.attribute, arguments), arguments
            except Exception as error:
                raise _Fallback from error
            self._given[id(field)] = given
        return given

    def _find(self, objects: ObjectSet, field: Field, key: Key) -> Column | None:
        """Find a column, or make it where it needs no waiting; None where it is to be loaded."""
        if field.resolver is None:
            return objects.columns.get(key) or self._derive(objects, field, key)
        held = self._columns.get((id(objects), key))
        if held is None:
            column = objects.columns.get(key)
            if column is None and not field.resolver.waits:
                column = self._derive(objects, field, key)
            if column:
                self._columns[id(objects), key] = objects, column
            return column
        if isinstance(held[1], LimitExceeded):
            raise held[1]
        if isinstance(held[1], Exception):
            raise _Fallback
        return held[1]

    def _derive(self, objects: ObjectSet, field: Field, key: Key) -> Column:
        """Make a column that needs no waiting."""
        resolver = field.resolver
        # each column of a root has a branch of its own, and these columns none
        entry = None if objects is self._root else objects.entry
        try:
            if resolver is None:
                values = objects.values(field.attribute)
            else:
                arguments = self._arguments(field)
                if resolver.info:
                    arguments = {**arguments, resolver.info: _Info(self._context)}
                values = [resolver.call(each, **arguments) for each in objects]
            column = Column(_content(field.output_type, values, entry), _NOTHING)
        except Exception as error:
            raise _Fallback from error
        return column if objects is self._root else objects.keep(key, column, entry)

    def _counted(self, objects: ObjectSet, field: Field, key: Key, times: list[int] | None) -> Column:
        """Find a column that must be there, and count what it rests on."""
        column = self._find(objects, field, key)
        if column is None:
            raise _Missing
        if field.resolver:
            self._context.merge(column.dependencies, None if times is None else _count(column.dependencies, times))
        return column

    def _rows(self, plan: Plan, objects: ObjectSet, times: list[int] | None = None) -> list[dict[str, Any]]:
        """Make rows of columns that are there, for objects that will be in the answer so many times each, or once."""
        columns: list[Sequence[Any]] = []
        for field in plan.fields:
            if field is None:
                columns.append([plan.type] * len(objects))
                continue
            if objects.entry is None and field.output_type.leaf and field.resolver is None:
                # nobody else will ask
                columns.append(_plain(field, objects))
                continue
            content = self._counted(objects, field, self._key(field), times).content
            columns.append(content.values if type(content) is ValueColumn else self._values(field, content, times))
        match plan.names, columns:
            # twice as fast as what comes last
            case [a], [first]:
                return [{a: x} for x in first]
            case [a, b], [first, second]:
                return [{a: x, b: y} for x, y in zip(first, second, strict=True)]
            case [a, b, c], [first, second, third]:
                return [{a: x, b: y, c: z} for x, y, z in zip(first, second, third, strict=True)]
            case [], []:
                return [{} for _ in objects]
        # not strict, which takes twice as long
        return [dict(zip(plan.names, row)) for row in zip(*columns)]  # noqa: B905

    def _values(self, field: Field, content: Content, times: list[int] | None) -> Sequence[Any]:
        match content:
            case ValueColumn(values):
                return values
            case ObjectColumn(parts, indices):
                times = _times(content, times) if field.has_resolvers else None
                if len(parts) == 1 and indices is None:
                    ((name, objects),) = parts.items()
                    return self._rows(field.plans[name], objects, times)
                rows: list[Any] = []
                for name, objects in parts.items():
                    theirs = times and times[len(rows) : len(rows) + len(objects)]
                    rows += self._rows(field.plans[name], objects, theirs)
                if indices is None:
                    return rows
                rows.append(None)
                return [rows[place] for place in indices]
            case ListColumn(items, offsets):
                if times is not None:
                    times = [
                        count
                        for span, count in zip(offsets, times, strict=True)
                        if span
                        for _ in range(span[0], span[1])
                    ]
                flat = self._values(field, items, times)
                return [None if span is None else flat[span[0] : span[1]] for span in offsets]


def _plain(field: Field, objects: ObjectSet) -> Sequence[Any]:
    """Read an attribute that is a scalar or enum off objects."""
    try:
        return _leaves(field.output_type, objects.values(field.attribute))
    except Exception as error:
        raise _Fallback from error


def _count(dependencies: Dependencies, times: list[int]) -> int:
    """Count the objects of a column whose objects are in the answer so many times each."""
    each = dependencies.costs
    return sum(map(mul, each, times)) if len(each) == len(times) else dependencies.objects * max(times, default=0)


def _times(links: ObjectColumn, times: list[int] | None) -> list[int] | None:
    """Tell how many times each object will be in the answer, if the values that lead to it are there so often."""
    if links.indices is None:
        return times
    found = [0] * sum(map(len, links.parts.values()))
    for place, count in zip(links.indices, repeat(1) if times is None else times):  # noqa: B905 - `repeat` is endless
        if place >= 0:
            found[place] += count
    return found


def _below(field: Field, content: Content) -> Iterator[tuple[Plan, ObjectSet]]:
    while isinstance(content, ListColumn):
        content = content.items
    if isinstance(content, ObjectColumn):
        for name, objects in content.parts.items():
            if (plan := field.plans[name]).async_fields:
                yield plan, objects


def _content(output_type: OutputType, values: Sequence[Any], entry: ColumnCacheEntry | None) -> Content:
    """Hold values to their type."""
    if output_type.leaf:
        return ValueColumn(_leaves(output_type, values))
    if type(values) is LazyObjects or type(values) is UniqueObjects:
        return ObjectColumn({_named(output_type, values.of): ObjectSet(values, entry)} if values else {}, None)
    kinds = set(map(type, values))
    if NoneType in kinds:
        if not output_type.nullable:
            raise _Fallback
        kinds.remove(NoneType)
    if not output_type.items:
        return _links(output_type, kinds, values, entry)
    if not kinds <= {list, tuple, LazyObjects}:
        raise _Fallback
    end = 0
    offsets = [None if value is None else (end, end := end + len(value)) for value in values]
    lists = [value for value in values if value is not None]
    flat: Sequence[Any]
    if kinds == {LazyObjects}:
        flat = LazyObjects.joined(lists)
    elif kinds == {list} and len(lists) == 1:
        (flat,) = lists
    else:
        flat = list(chain.from_iterable(lists))
    return ListColumn(_content(output_type.items, flat, entry), offsets)


def _leaves(output_type: OutputType, values: Sequence[Any]) -> Sequence[Any]:
    leaf = output_type.leaf
    if output_type.accepts.issuperset(map(type, values)) and (leaf not in _RANGE_CHECKS or _RANGE_CHECKS[leaf](values)):
        return values
    assert leaf  # noqa: S101 - only of such
    coerced = [None if value is None else leaf.coerce_output_value(value) for value in values]
    if any(
        after is Undefined or (after is None) != (before is None) or (after is None and not output_type.nullable)
        for before, after in zip(values, coerced, strict=True)
    ):
        raise _Fallback
    return coerced


def _are_finite(values: Sequence[float | None]) -> bool:
    # nothing that is not finite adds up to what is; large numbers may add up to what is not
    return isfinite(sum(filter(None, values))) or all(isfinite(value) for value in values if value is not None)


def _are_short(values: Sequence[int | None]) -> bool:
    known = [0, *filter(None, values)]
    return min(known) >= -(2**31) and max(known) < 2**31


_RANGE_CHECKS: dict[GraphQLLeafType | None, Callable[[Sequence[Any]], bool]] = {
    GraphQLFloat: _are_finite,
    GraphQLInt: _are_short,
}


def _links(
    output_type: OutputType, kinds: set[type], values: Sequence[Any], entry: ColumnCacheEntry | None
) -> ObjectColumn:
    if len(values) == 1 and kinds:
        return ObjectColumn({_type_of(output_type, values[0]): ObjectSet(values, entry)}, None)
    # which class it is says whether an object is of a type
    of = {each: _type_of(output_type, next(value for value in values if type(value) is each)) for each in kinds}
    unique: dict[str, dict[int, Any]] = {name: {} for name in of.values()}
    if len(unique) == 1:
        (only,) = unique
        unique[only] = {id(value): value for value in values if value is not None}
    else:
        for value in values:
            if value is not None:
                unique[of[type(value)]][id(value)] = value
    parts = {name: ObjectSet(list(objects.values()), entry) for name, objects in unique.items()}
    ids = [number for objects in unique.values() for number in objects]
    if len(parts) <= 1 and len(ids) == len(values):
        return ObjectColumn(parts, None)
    place = dict(zip(ids, range(len(ids)), strict=True))
    return ObjectColumn(parts, [-1 if value is None else place[id(value)] for value in values])


def _type_of(output_type: OutputType, value: Any) -> str:
    if type(value) not in output_type.names and len(output_type.types) == 1:
        (only,) = output_type.types
        if not only.is_type_of or only.is_type_of(value, _NO_INFO) is True:
            return only.name
    return _named(output_type, type(value))


def _named(output_type: OutputType, of: type) -> str:
    if name := output_type.names.get(of):
        return name
    raise _Fallback
