"""The schema: its root, its descriptions, and how an operation is run so that its answer is of one moment."""

import inspect
import logging
import secrets
from datetime import UTC, datetime
from functools import partial
from typing import Any

import docstring_parser
import strawberry
from graphql import GraphQLEnumType, GraphQLError, GraphQLInterfaceType, GraphQLObjectType, Undefined
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext, ExecutionResult
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.enum import StrawberryEnumDefinition

from graph.breadth import BreadthQuery
from graph.context import Operation
from graph.errors import GraphError
from graph.execution import ColumnExecutor
from graph.freshness import ListenerMode
from graph.limits import Documents, Limits, code_errors
from graph.nodes import Group, NodesQuery, Stock
from graph.overlaps import OverlapQuery
from graph.rotation import RotationQuery
from graph.search import SearchQuery
from graph.status import StatusQuery
from graph.universes import UniverseQuery

ATTEMPTS = 3
"""How often an operation is run where what it read was not of one generation; the last time in one snapshot."""

log = logging.getLogger(__name__)


@strawberry.type
class Query(NodesQuery, UniverseQuery, RotationQuery, BreadthQuery, SearchQuery, OverlapQuery, StatusQuery):
    """Stocks, the groups that hold them, and the universes that groups make."""


class GraphSchema(strawberry.Schema):
    """Runs operations against `Operation` contexts; errors that a client may not read are masked."""

    async def execute(self, query: str | None, *args: Any, **kwargs: Any) -> ExecutionResult:
        """Run a query until all that it read was of one generation of the database."""
        operation = kwargs["context_value"]
        assert isinstance(operation, Operation)  # noqa: S101 - the server's own callers
        for attempt in range(1, ATTEMPTS + 1):
            # where changes are not recorded nobody could tell whether two statements agree
            snapshot = attempt == ATTEMPTS or operation.runtime.freshness.mode is ListenerMode.OFF
            async with operation.attempt(snapshot=snapshot):
                result = await super().execute(query, *args, **kwargs)
            if operation.agrees:
                break
        if result.errors:
            code_errors(result.errors)
            result.errors = [_readable(error) for error in result.errors]
        if operation.stale:
            confirmed = operation.runtime.freshness.confirmed_at
            result.extensions = {
                **(result.extensions or {}),
                "stale": {"confirmedAt": None if confirmed is None else _write_time(confirmed)},
            }
        return result

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log nothing: what a client did wrong it is told, and what the server did wrong is logged under an id."""


def _readable(error: GraphQLError) -> GraphQLError:
    cause = error.original_error
    if isinstance(cause, GraphError) or "code" in (error.extensions or {}):
        return error
    number = secrets.token_hex(6)
    log.error("Internal error %s at %s", number, error.path, exc_info=cause)
    return GraphQLError(
        f"Something went wrong here; the server's log has it under {number}.",
        nodes=error.nodes,
        path=error.path,
        extensions={"code": "INTERNAL", "id": number},
    )


def _write_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


_DateTime = strawberry.scalar(
    name="DateTime",
    description="A moment in UTC, as in `2026-01-31T12:00:00Z`.",
    serialize=_write_time,
    parse_value=datetime.fromisoformat,
)


def _describe(schema: strawberry.Schema) -> None:
    """Let docstrings be the descriptions of types, fields and arguments, and have no argument default to null."""
    for concrete in schema.schema_converter.type_map.values():
        definition, made = concrete.definition, concrete.implementation
        if isinstance(definition, StrawberryEnumDefinition) and isinstance(made, GraphQLEnumType):
            made.description = _line(inspect.getdoc(definition.wrapped_cls))
        elif isinstance(definition, StrawberryObjectDefinition) and isinstance(
            made, GraphQLObjectType | GraphQLInterfaceType
        ):
            origin = (definition.concrete_of or definition).origin
            made.description = _first(inspect.getdoc(origin))
            attributes = _attributes(origin)
            for field in definition.fields:
                described = made.fields[schema.config.name_converter.get_graphql_name(field)]
                resolver = field.base_resolver
                doc = docstring_parser.parse((resolver and resolver.wrapped_func.__doc__) or "")
                described.description = _line(doc.description) or attributes.get(field.python_name)
                arguments = {parameter.arg_name: _line(parameter.description) for parameter in doc.params}
                for argument in field.arguments:
                    name = schema.config.name_converter.get_graphql_name(argument)
                    described.args[name].description = arguments.get(argument.python_name)
                    if described.args[name].default_value is None:
                        described.args[name].default_value = Undefined


def _attributes(origin: type) -> dict[str, str | None]:
    """Give the docstrings below the attributes of a class and of those it is made of."""
    return {
        parameter.arg_name: _line(parameter.description)
        for each in reversed(origin.__mro__[:-1])
        if each.__module__.startswith("graph.")
        for parameter in docstring_parser.parse_from_object(each).params
    }


def _first(docstring: str | None) -> str | None:
    return docstring and docstring.partition("\n\n")[0].replace("\n", " ")


def _line(text: str | None) -> str | None:
    return text and " ".join(text.split())


def make_schema() -> GraphSchema:
    """Make the schema, its descriptions taken from the docstrings."""
    schema = GraphSchema(
        query=Query,
        types=[Stock, Group],
        config=StrawberryConfig(scalar_map={datetime: _DateTime}),
        extensions=[partial(Limits, documents=Documents())],
        execution_context_class=ColumnExecutor,
    )
    _describe(schema)
    return schema
