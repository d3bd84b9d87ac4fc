"""Plans: the selection of an operation, worked out once per document, so that executing it need not look at the schema.

Only what is plain is planned: attributes and resolvers without extensions, and what is selected of their objects.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import NoneType
from typing import Any, NamedTuple, TypeAlias, cast, get_args

import strawberry
from graphql import (
    DirectiveNode,
    DocumentNode,
    FieldNode,
    GraphQLAbstractType,
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLError,
    GraphQLField,
    GraphQLFloat,
    GraphQLID,
    GraphQLInt,
    GraphQLLeafType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    GraphQLString,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    ValueNode,
    VariableNode,
    Visitor,
    is_leaf_type,
    is_object_type,
    visit,
)
from graphql.execution import Executor, get_argument_values, get_variable_values
from graphql.execution.collect_fields import FieldDetails
from graphql.execution.get_variable_signature import GraphQLVariableSignature
from graphql.execution.values import VariableValues, VariableValueSource
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.arguments import convert_arguments
from strawberry.types.field import StrawberryField
from strawberry.types.info import Info
from strawberry.utils.str_converters import to_camel_case

from graph.execution.columns import Key, ObjectSet
from graph.execution.documents import size_of_plan

_SCALARS = {GraphQLString, GraphQLInt, GraphQLFloat, GraphQLBoolean, GraphQLID}
"""Scalars whose variables Strawberry passes to resolvers unchanged."""
_NATIVE_OUTPUTS: dict[Any, type] = {
    GraphQLString: str,
    GraphQLID: str,
    GraphQLBoolean: bool,
    GraphQLFloat: float,
    GraphQLInt: int,
}
"""Classes of values that are sent unchanged, by their scalar."""
_WRITTEN_BYTES: dict[Any, int] = {GraphQLBoolean: 6, GraphQLFloat: 20, GraphQLInt: 8}
"""Bytes of values as JSON, about, by their scalar."""
_UNCOERCED_INPUTS: dict[Any, type] = {GraphQLString: str, GraphQLID: str, GraphQLBoolean: bool}
"""Scalars whose input values coercion does not change, with the class of the values."""


class Fallback(Exception):
    """A reason to leave a root field to graphql-core."""


BatchResolver: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]


def batch_field(method: Any) -> Any:
    """Make a field of a static method that resolves it for many objects at once.

    The method takes an `ObjectSet`, the `Operation` and the arguments of the field, and returns a value for each
    object, in their order. The field's type is that of its values, its description the docstring. For a single object
    the method is called with a set of one; an error that it raises for any object makes graphql-core resolve each
    object alone.
    """
    resolve_many: BatchResolver = method.__func__

    async def resolve(self: Any, info: Any, **arguments: Any) -> Any:
        (value,) = await resolve_many(ObjectSet([self]), info.context, **arguments)
        return value

    signature = inspect.signature(resolve_many)
    _, _, *arguments = signature.parameters.values()
    own = inspect.signature(resolve).parameters
    resolve.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[own["self"], own["info"].replace(annotation=Info), *arguments],
        return_annotation=_item_type(signature.return_annotation),
    )
    resolve.__name__, resolve.__module__, resolve.__doc__ = (
        resolve_many.__name__,
        resolve_many.__module__,
        resolve_many.__doc__,
    )
    resolve.batch = resolve_many  # type: ignore[attr-defined]
    return strawberry.field(resolver=resolve)


def _item_type(annotation: Any) -> Any:
    """Return the type of the items of an annotation such as `list[X]`, which may be written as a string."""
    if isinstance(annotation, str):
        return annotation.partition("[")[2].removesuffix("]")
    (item,) = get_args(annotation)
    return item


class OutputType(NamedTuple):
    """The type of a field's values: a scalar or enum, a list, or objects of one or several types."""

    nullable: bool
    leaf: GraphQLLeafType | None = None
    accepts: frozenset[type] = frozenset()
    """Classes of the values that are sent unchanged."""
    written: int = 0
    """Bytes of a value as JSON, about; 0 if they have to be counted."""
    items: "OutputType | None" = None
    types: tuple[GraphQLObjectType, ...] = ()
    names: Mapping[type, str] = {}
    """Names of the object types, by the classes of their objects."""


class Resolver(NamedTuple):
    """The resolver of a field that is no attribute."""

    call: Callable[..., Any]
    info: str | None
    """Name of the parameter that takes Strawberry's `Info`; None if there is none."""
    batch: BatchResolver | None
    waits: bool
    """True if its values have to be awaited."""
    arguments: Callable[[VariableValues], dict[str, Any]]


class Field(NamedTuple):
    """A selected field, with the plans of its objects by the names of their types."""

    attribute: str
    output_type: OutputType
    plans: "dict[str, Plan]"
    resolver: Resolver | None
    arguments: dict[str, Any] | None
    """Arguments of the resolver; None if they depend on variables."""
    key: Key | None
    """Key of its columns; None if it depends on variables."""
    has_resolvers: bool
    """True if a field below it has a resolver, whose cost is charged."""
    waits: bool
    """True if its values, or those of a field below it, have to be awaited."""


class Plan(NamedTuple):
    """The fields selected of an object type, by their names in the answer; a field that is None is `__typename`."""

    type: str
    names: tuple[str, ...]
    fields: tuple[Field | None, ...]
    row_bytes: int
    """Bytes of the names in a row as JSON."""
    complete: bool = True
    """False if some fields are left to graphql-core."""
    left: Mapping[str, str] = {}
    """The reasons why fields are left to graphql-core, by their names in the answer."""
    has_resolvers: bool = True
    """True if one of its fields, or of those below, has a resolver, whose cost is charged."""
    async_fields: tuple[Field, ...] = ()
    """Fields that have to be awaited, or have such fields below them."""


class Plans:
    """The plans of an operation, one for each combination of values of its `@skip` and `@include` directives.

    At most `max_fields` fields are stored, since fragments can make many of a short document, and `grow` is told of
    the bytes of each plan.
    """

    def __init__(
        self,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        max_fields: int,
        grow: Callable[[int], None],
    ) -> None:
        self.operation = operation
        self._grow = grow
        self._room = max_fields
        conditions = _Conditions()
        visit(document, conditions)
        self._conditions = sorted(conditions.variables)
        self._plans: dict[Key, Plan] = {}
        self._plain: dict[str, tuple[type, GraphQLVariableSignature]] | None = None
        """Classes of the variables if coercion changes none of them, else empty; None if that is not known yet."""

    def variables(self, schema: GraphQLSchema, given: Mapping[str, Any]) -> VariableValues | None:
        """Coerce variables; return None if they are not of their types."""
        plain = self._plain
        if plain and all(type(given.get(name)) is input_class for name, (input_class, _) in plain.items()):
            # as below, in a tenth of the time
            sources = {name: VariableValueSource(of, given[name]) for name, (_, of) in plain.items()}
            return VariableValues(sources, {name: given[name] for name in plain})
        definitions = self.operation.variable_definitions or ()
        found = get_variable_values(schema, definitions, dict(given), max_errors=1)
        if isinstance(found, list):
            return None
        if plain is None:
            signatures = {name: source.signature for name, source in found.sources.items()}
            types = [of.type.of_type if isinstance(of.type, GraphQLNonNull) else of.type for of in signatures.values()]
            classes = [_UNCOERCED_INPUTS.get(each) for each in types]
            self._plain = {
                name: (input_class, of)
                for (name, of), input_class in zip(signatures.items(), classes, strict=True)
                if input_class
            }
            if len(self._plain) < len(definitions):
                self._plain = {}
        return found

    def get(self, variables: VariableValues) -> Plan | None:
        """Return the plan for some variables, or None."""
        return self._plans.get(self._key(variables))

    def store(self, variables: VariableValues, plan: Plan) -> None:
        """Store the plan for variables such as these."""
        fields = _fields(plan)
        if fields <= self._room:
            self._room -= fields
            key = self._key(variables)
            self._plans[key] = plan
            self._grow(size_of_plan(key, plan))

    def _key(self, variables: VariableValues) -> Key:
        return tuple(variables.coerced.get(name) for name in self._conditions) if self._conditions else ()


def _fields(plan: Plan) -> int:
    return 1 + sum(1 + sum(map(_fields, field.plans.values())) for field in plan.fields if field)


class _Conditions(Visitor):
    """Collects the variables in directives, which decide what is selected."""

    def __init__(self) -> None:
        super().__init__()
        self.variables: set[str] = set()

    def enter_directive(self, node: DirectiveNode, *_: Any) -> None:
        self.variables |= {
            each.value.name.value for each in node.arguments or () if isinstance(each.value, VariableNode)
        }


def make_plan(executor: Executor[Any], of: GraphQLObjectType, grouped: Mapping[str, list[FieldDetails]]) -> Plan:
    """Plan the fields that were collected for an object type, leaving out those that only graphql-core can execute."""
    fields: dict[str, Field | None] = {}
    left: dict[str, str] = {}
    for name, details in grouped.items():
        try:
            fields[name] = _field(executor, of, details)
        except Fallback as reason:
            left[name] = str(reason)
    has_resolvers = any(field and (field.resolver or field.has_resolvers) for field in fields.values())
    async_fields = tuple(field for field in fields.values() if field and field.waits)
    row_bytes = 2 + sum(len(name) + 4 for name in fields)
    return Plan(of.name, tuple(fields), tuple(fields.values()), row_bytes, not left, left, has_resolvers, async_fields)


def failure_of(field: Field, error: Exception) -> Fallback:
    """Return the reason to leave a root field to graphql-core if there was an error at a field below it."""
    reason = str(error) if isinstance(error, Fallback) else f"{type(error).__name__} ({error})"
    return Fallback(f"{to_camel_case(field.attribute)}: {reason}")


def _field(executor: Executor[Any], of: GraphQLObjectType, details: list[FieldDetails]) -> Field | None:
    """Plan a field, None for `__typename`; raise Fallback if only graphql-core can execute it."""
    name = details[0].node.name.value
    if name == "__typename":
        return None
    definition = executor.schema.get_field(of, name)
    field = definition and definition.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    if not definition or not isinstance(field, StrawberryField):
        raise Fallback(f"{name}: introspection")
    if field.extensions:
        raise Fallback(f"{name}: a field with extensions")
    output_type = _output_type(executor, definition.type)
    plain = getattr(definition.resolve, "_is_default", False)
    resolver = None if plain else _resolver(executor, definition, field, details[0])
    plans = {each.name: _plan_below(executor, each, details) for each in _types(output_type)}
    arguments: dict[str, Any] | None = {}
    key: Key | None = field.python_name
    if resolver:
        if any(_holds_variable(each.value) for each in details[0].node.arguments or ()):
            arguments = key = None
        else:
            try:
                arguments = resolver.arguments(executor.variable_values)
                key = key_of(field.python_name, arguments)
            except Exception as error:
                raise Fallback(f"{name}: arguments that it does not take ({error})") from error
    has_resolvers = any(plan.has_resolvers for plan in plans.values())
    waits = bool(resolver and resolver.waits) or any(plan.async_fields for plan in plans.values())
    return Field(field.python_name, output_type, plans, resolver, arguments, key, has_resolvers, waits)


def _plan_below(executor: Executor[Any], of: GraphQLObjectType, details: list[FieldDetails]) -> Plan:
    """Plan all that is selected of a type of a field's objects."""
    try:
        grouped, defer_usages, _ = executor.collect_subfields(of, details)
    except GraphQLError as error:
        raise Fallback(f"{details[0].node.name.value}: a selection that is wrong ({error.message})") from error
    plan = make_plan(executor, of, grouped)
    if defer_usages:
        raise Fallback(f"{details[0].node.name.value}: a part that is deferred")
    for reason in plan.left.values():
        raise Fallback(reason)
    return plan


def _output_type(executor: Executor[Any], of: GraphQLOutputType) -> OutputType:
    nullable = not isinstance(of, GraphQLNonNull)
    bare = of if nullable else cast("GraphQLNonNull[Any]", of).of_type
    if is_leaf_type(bare):
        accepts = [_NATIVE_OUTPUTS.get(bare), NoneType if nullable else None]
        longest = max(map(len, bare.values)) + 3 if isinstance(bare, GraphQLEnumType) else 0
        written = longest or _WRITTEN_BYTES.get(bare, 0)
        return OutputType(nullable, leaf=bare, accepts=frozenset(filter(None, accepts)), written=written)
    if isinstance(bare, GraphQLList):
        return OutputType(nullable, items=_output_type(executor, bare.of_type))
    types = (bare,) if is_object_type(bare) else executor.schema.get_possible_types(cast("GraphQLAbstractType", bare))
    names = {each.extensions[GraphQLCoreConverter.DEFINITION_BACKREF].origin: each.name for each in types}
    return OutputType(nullable, types=tuple(types), names=names)


def _resolver(
    executor: Executor[Any], definition: GraphQLField, field: StrawberryField, details: FieldDetails
) -> Resolver:
    resolver = field.base_resolver
    if not resolver or not resolver.self_parameter or resolver.parent_parameter:
        raise Fallback(f"{details.node.name.value}: a resolver without `self`, or with a `parent`")
    if details.fragment_variable_values:
        raise Fallback(f"{details.node.name.value}: variables of a fragment")
    schema = executor.schema.extensions[GraphQLCoreConverter.DEFINITION_BACKREF]
    node, hide_suggestions = details.node, executor.hide_suggestions

    def convert(variables: VariableValues) -> dict[str, Any]:
        given = get_argument_values(definition, node, variables, None, hide_suggestions)
        return convert_arguments(given, field.arguments, schema.schema_converter.scalar_registry, schema.config)

    names = {schema.config.name_converter.from_argument(each): each.python_name for each in field.arguments}
    function, parameter = cast("Callable[..., Any]", resolver.wrapped_func), resolver.info_parameter
    return Resolver(
        call=function,
        info=parameter.name if parameter else None,
        batch=(batch := getattr(function, "batch", None)),
        waits=resolver.is_async or batch is not None,
        arguments=_specialized_arguments(convert, _passthrough_variables(definition, node, names)),
    )


def _types(output_type: OutputType) -> tuple[GraphQLObjectType, ...]:
    return _types(output_type.items) if output_type.items else output_type.types


def _holds_variable(node: ValueNode) -> bool:
    match node:
        case VariableNode():
            return True
        case ListValueNode():
            return any(map(_holds_variable, node.values))
        case ObjectValueNode():
            return any(_holds_variable(field.value) for field in node.fields)
    return False


def _passthrough_variables(definition: GraphQLField, node: FieldNode, names: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are passed as arguments unchanged, by parameter; none if others need conversion."""
    given: dict[str, str] = {}
    for argument in node.arguments or ():
        of = definition.args[argument.name.value].type
        if (
            isinstance(argument.value, VariableNode)
            and (of.of_type if isinstance(of, GraphQLNonNull) else of) in _SCALARS
        ):
            given[names[argument.name.value]] = argument.value.name.value
        elif _holds_variable(argument.value):
            return {}
    return given


def _specialized_arguments(
    convert: Callable[[VariableValues], dict[str, Any]], passthrough: Mapping[str, str]
) -> Callable[[VariableValues], dict[str, Any]]:
    """Return a faster `convert` that is called once and then only fills in the variables that are passed unchanged."""
    if not passthrough:
        return convert
    others: dict[str, Any] | None = None

    def arguments(variables: VariableValues) -> dict[str, Any]:
        nonlocal others
        values = {name: variables.coerced.get(variable) for name, variable in passthrough.items()}
        if None in values.values():
            return convert(variables)
        if others is None:
            others = {name: value for name, value in convert(variables).items() if name not in passthrough}
        return others | values

    return arguments


def key_of(attribute: str, arguments: Mapping[str, Any]) -> Key:
    """Return the key of the columns of a field with arguments; raise TypeError for arguments that cannot be hashed."""
    key = attribute, *[(name, _frozen(value)) for name, value in sorted(arguments.items())]
    hash(key)
    return key


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if type(value) is list else value
