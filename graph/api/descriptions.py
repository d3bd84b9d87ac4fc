"""Descriptions of the schema, taken from the docstrings of its types, attributes, enum values and resolvers."""

import inspect

import docstring_parser
import strawberry
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLScalarType,
    Undefined,
)
from strawberry.schema.name_converter import NameConverter
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.enum import StrawberryEnumDefinition
from strawberry.types.field import StrawberryField
from strawberry.types.scalar import ScalarDefinition

_DATE = "A calendar date in ISO 8601 format, as in `2026-01-31`."
"""Description of Strawberry's Date scalar, instead of its own."""


def describe(schema: strawberry.Schema) -> None:
    """Copy docstrings into the schema's descriptions, and remove null as the default of arguments.

    A field is described by its resolver's docstring or the docstring below its attribute; its arguments by the `Args`
    section; an enum value by the docstring below it.
    """
    names = schema.config.name_converter
    for entry in schema.schema_converter.type_map.values():
        match entry.definition, entry.implementation:
            case ScalarDefinition(name="Date"), GraphQLScalarType() as scalar:
                scalar.description = _DATE
            case StrawberryEnumDefinition() as definition, GraphQLEnumType() as enum:
                _describe_enum(definition, enum)
            case StrawberryObjectDefinition() as definition, (GraphQLObjectType() | GraphQLInterfaceType()) as kind:
                _describe_object(definition, kind, names)


def _describe_enum(definition: StrawberryEnumDefinition, enum: GraphQLEnumType) -> None:
    enum.description = _one_line(inspect.getdoc(definition.wrapped_cls))
    values = _attribute_docstrings(definition.wrapped_cls)
    for name, value in enum.values.items():
        value.description = values.get(name)


def _describe_object(
    definition: StrawberryObjectDefinition, kind: GraphQLObjectType | GraphQLInterfaceType, names: NameConverter
) -> None:
    # a concrete form of a generic type, such as GroupConnection, has no docstrings of its own
    origin = (definition.concrete_of or definition).origin
    kind.description = _first_paragraph(inspect.getdoc(origin))
    attributes = _attribute_docstrings(origin)
    for field in definition.fields:
        _describe_field(field, kind.fields[names.get_graphql_name(field)], attributes, names)


def _describe_field(
    field: StrawberryField, described: GraphQLField, attributes: dict[str, str | None], names: NameConverter
) -> None:
    resolver = field.base_resolver
    docstring = docstring_parser.parse((resolver and resolver.wrapped_func.__doc__) or "")
    described.description = _one_line(docstring.description) or attributes.get(field.python_name)
    arguments = {parameter.arg_name: _one_line(parameter.description) for parameter in docstring.params}
    for argument in field.arguments:
        described_argument = described.args[names.get_graphql_name(argument)]
        described_argument.description = arguments.get(argument.python_name)
        if described_argument.default_value is None:
            described_argument.default_value = Undefined


def _attribute_docstrings(origin: type) -> dict[str, str | None]:
    """Return the docstrings below the attributes of a class and its bases."""
    return {
        parameter.arg_name: _one_line(parameter.description)
        for each in reversed(origin.__mro__[:-1])
        if each.__module__.startswith("graph.")
        for parameter in docstring_parser.parse_from_object(each).params
    }


def _first_paragraph(docstring: str | None) -> str | None:
    return docstring and docstring.partition("\n\n")[0].replace("\n", " ")


def _one_line(text: str | None) -> str | None:
    return text and " ".join(text.split())
