"""Lists completed column by column and not row by row, where what is selected of their objects is plain enough.

Completing a value costs graphql-core about ten microseconds, field by field and row by row, and a coroutine for each
field that waits. Here a list is taken whole: each selected attribute is read and coerced as a column, a field that has
a batch form (`batched`) is called once for all objects, and the columns become rows. Whatever is not that plain
(another field with a resolver, an error, a null where none may be, a value that its type does not take) leaves the
whole list to the standard way, so that errors are always the standard ones.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import nullcontext
from math import isfinite
from operator import attrgetter
from types import NoneType
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from graphql import (
    GraphQLBoolean,
    GraphQLFloat,
    GraphQLLeafType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLString,
    Undefined,
    is_leaf_type,
    is_object_type,
)
from graphql.execution import get_argument_values
from graphql.execution.collect_fields import FieldDetails
from graphql.pyutils import AwaitableOrValue, Path, gather_with_cancel
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.arguments import convert_arguments
from strawberry.types.field import StrawberryField

MIN_ROWS = 2
"""From how many rows on columns pay."""

_AS_THEY_ARE: dict[GraphQLLeafType, type] = {GraphQLString: str, GraphQLBoolean: bool, GraphQLFloat: float}

Info: TypeAlias = GraphQLResolveInfo[Any]
Batch: TypeAlias = Callable[..., Awaitable[list[Any]]]
Form = TypeVar("Form", bound=Batch)


def batched(field: Any) -> Callable[[Form], Form]:
    """Declare the batch form of a field: from a list of objects, the context and the field's arguments to its values.

    It must give for each object what the field gives, in their order; it may raise what the field would for any.
    """

    def declare(form: Form) -> Form:
        cast("StrawberryField", field).base_resolver.wrapped_func.batch = form  # type: ignore[union-attr]
        return form

    return declare


class _Unusual(Exception):
    """Something that the standard way knows what to do with."""


class _Kind(NamedTuple):
    """What values are: of a list its items, or a scalar or enum, or objects of which something is selected."""

    nullable: bool
    items: "_Kind | None" = None
    leaf: GraphQLLeafType | None = None
    objects: "_Plan | None" = None


class _Field(NamedTuple):
    """A selected field: an attribute, or one with a batch form and its arguments."""

    attribute: str
    kind: _Kind
    batch: Batch | None
    arguments: dict[str, Any]


class _Plan(NamedTuple):
    """What is selected of objects of a type, by its name in the answer; None is the name of the type."""

    type: GraphQLObjectType
    fields: dict[str, _Field | None]
    waits: bool
    """Whether a field of it, or below, has to be waited for."""


class ColumnExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes as its base does, and many lists faster: `Schema(execution_context_class=ColumnExecutor)`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # with the details, whose id must not be given to others meanwhile
        self._plans: dict[tuple[GraphQLObjectType, int], tuple[list[FieldDetails], _Plan | None]] = {}

    def complete_iterable_value(
        self,
        item_type: GraphQLOutputType,
        field_details_list: list[FieldDetails],
        info: Info,
        path: Path,
        items: Iterable[Any],
        position_context: Any,
    ) -> AwaitableOrValue[list[Any]]:
        """Complete a list."""
        complete = super().complete_iterable_value
        if (
            not isinstance(items, list)
            or len(items) < MIN_ROWS
            or position_context is not None
            or (self.middleware_manager and self.middleware_manager.middlewares)
            or is_leaf_type(item_type)
            or (kind := self._kind(item_type, field_details_list)) is None
            or kind.objects is None
        ):
            return complete(item_type, field_details_list, info, path, items, position_context)
        if kind.objects.waits:

            async def wait() -> list[Any]:
                try:
                    # what batch forms charged is charged again by the standard way
                    with getattr(info.context, "refunding", nullcontext)():
                        return await _complete(kind, items, info)
                except _Unusual:
                    completed = complete(item_type, field_details_list, info, path, items, position_context)
                    return await completed if self.is_awaitable(completed) else cast("list[Any]", completed)

            return wait()
        try:
            return _at_once(_complete(kind, items, info))
        except _Unusual:
            return complete(item_type, field_details_list, info, path, items, position_context)

    def _kind(self, of: GraphQLOutputType, details: list[FieldDetails]) -> _Kind | None:
        """Plan how values of a type are completed; None where that is not plain."""
        nullable = not isinstance(of, GraphQLNonNull)
        bare = of if nullable else cast("GraphQLNonNull[Any]", of).of_type
        if is_leaf_type(bare):
            return _Kind(nullable, leaf=bare)
        if isinstance(bare, GraphQLList):
            items = self._kind(bare.of_type, details)
            return items and _Kind(nullable, items=items)
        if not is_object_type(bare):
            return None
        key = bare, id(details)
        if key not in self._plans:
            self._plans[key] = details, self._plan(bare, details)
        plan = self._plans[key][1]
        return plan and _Kind(nullable, objects=plan)

    def _plan(self, of: GraphQLObjectType, details: list[FieldDetails]) -> _Plan | None:
        """Plan the columns of objects."""
        grouped, defer_usages, _ = self.collect_subfields(of, details)
        if defer_usages:
            return None
        fields: dict[str, _Field | None] = {}
        for name, selected in grouped.items():
            if selected[0].node.name.value == "__typename":
                fields[name] = None
                continue
            field = self._field(of, selected)
            if field is None:
                return None
            fields[name] = field
        return _Plan(of, fields, any(field and (field.batch or _waits(field.kind)) for field in fields.values()))

    def _field(self, of: GraphQLObjectType, selected: list[FieldDetails]) -> _Field | None:
        """Plan a column."""
        definition = self.schema.get_field(of, selected[0].node.name.value)
        field = definition and definition.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
        if not definition or not isinstance(field, StrawberryField) or field.extensions:
            return None
        batch, arguments = None, {}
        if not getattr(definition.resolve, "_is_default", False):
            batch = getattr(field.base_resolver and field.base_resolver.wrapped_func, "batch", None)
            if batch is None:
                return None
            try:
                arguments = self._arguments(definition, field, selected[0])
            except Exception:  # noqa: BLE001 - whatever is wrong with them the standard way tells
                return None
        kind = self._kind(definition.type, selected)
        return kind and _Field(field.python_name, kind, batch, arguments)

    def _arguments(self, definition: Any, field: StrawberryField, details: FieldDetails) -> dict[str, Any]:
        given = get_argument_values(
            definition, details.node, self.variable_values, details.fragment_variable_values, self.hide_suggestions
        )
        schema = self.schema.extensions[GraphQLCoreConverter.DEFINITION_BACKREF]
        return convert_arguments(given, field.arguments, schema.schema_converter.scalar_registry, schema.config)


def _waits(kind: _Kind) -> bool:
    if kind.items:
        return _waits(kind.items)
    return kind.objects is not None and kind.objects.waits


def _at_once(completing: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    """Give what a coroutine gives that waits for nothing."""
    try:
        completing.send(None)
    except StopIteration as end:
        return cast("list[Any]", end.value)
    raise AssertionError("it does wait")  # pragma: no cover


async def _complete(kind: _Kind, values: list[Any], info: Info) -> list[Any]:
    """Complete a column of values."""
    kinds = set(map(type, values))
    if NoneType in kinds:
        if not kind.nullable:
            raise _Unusual
        there = [value for value in values if value is not None]
        completed = iter(await _complete(kind._replace(nullable=False), there, info))
        return [None if value is None else next(completed) for value in values]
    if kind.leaf:
        return _leaves(kind.leaf, kinds, values)
    if kind.objects:
        return await _objects(kind.objects, kinds, values, info)
    if not kinds <= {list, tuple}:
        raise _Unusual
    items = cast("_Kind", kind.items)
    completed = iter(await _complete(items, [item for value in values for item in value], info))
    return [[next(completed) for _ in value] for value in values]


def _leaves(leaf: GraphQLLeafType, kinds: set[type], values: list[Any]) -> list[Any]:
    if kinds <= {_AS_THEY_ARE.get(leaf)} and (leaf is not GraphQLFloat or all(map(isfinite, values))):
        return values
    try:
        coerced = list(map(leaf.coerce_output_value, values))
    except Exception as error:
        raise _Unusual from error
    if any(each is Undefined or each is None for each in coerced):
        raise _Unusual
    return coerced


async def _objects(plan: _Plan, kinds: set[type], objects: list[Any], info: Info) -> list[Any]:
    if not objects:
        return []
    # which class it is says whether an object is of the type
    if (is_type_of := plan.type.is_type_of) and not all(
        is_type_of(next(each for each in objects if type(each) is kind), info) is True for kind in kinds
    ):
        raise _Unusual
    columns = (_column(field, plan.type.name, objects, info) for field in plan.fields.values())
    # those that wait do so together
    values = await gather_with_cancel(*columns) if plan.waits else [await column for column in columns]
    names = tuple(plan.fields)
    # where everything is skipped a row is empty, and there; not strict, which takes twice as long
    return [dict(zip(names, row)) for row in zip(*values)] if values else [{} for _ in objects]  # noqa: B905


async def _column(field: _Field | None, type_name: str, objects: list[Any], info: Info) -> list[Any]:
    if field is None:
        return [type_name] * len(objects)
    try:
        if field.batch:
            values = await field.batch(objects, info.context, **field.arguments)
        else:
            values = list(map(attrgetter(field.attribute), objects))
    except Exception as error:
        raise _Unusual from error
    if len(values) != len(objects):
        raise _Unusual
    return await _complete(field.kind, values, info)
