"""Docstrings and descriptions: sentences with a subject or a verb, and one for everything that the API shows."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SCHEMA
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
)

import graph

PACKAGE = Path(graph.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
BUILT_IN = {"String", "Int", "Float", "Boolean", "ID"}

SUBORDINATE = re.compile(
    r"(?:what|which|whether|how|whose|who|where|when|that|of|by|as|from|so|the same)\b(?!-)", re.IGNORECASE
)
"""First words of a clause that nothing governs: a relative or question word, or a preposition without a noun."""


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each docstring: of the module, its classes and functions, and of their attributes."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        documented: ast.AST | None = node
        for statement in node.body:
            text = _text(statement)
            if documented and text:
                yield statement.lineno, text
            documented = statement if isinstance(statement, ast.Assign | ast.AnnAssign) else None


def _text(statement: ast.stmt) -> str | None:
    """Return the text of a string that stands alone."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def descriptions(schema: GraphQLSchema) -> Iterator[tuple[str, str | None]]:
    """Yield the description of each type, field, argument and enum value that the schema defines, by its path."""
    for name, kind in schema.type_map.items():
        if name.startswith("__") or name in BUILT_IN:
            continue
        yield name, kind.description
        if isinstance(kind, GraphQLEnumType):
            yield from ((f"{name}.{value}", each.description) for value, each in kind.values.items())
        elif isinstance(kind, GraphQLInputObjectType):
            yield from ((f"{name}.{field}", each.description) for field, each in kind.fields.items())
        elif isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for field, each in kind.fields.items():
                yield f"{name}.{field}", each.description
                yield from ((f"{name}.{field}({given})", found.description) for given, found in each.args.items())


def refused(text: str) -> bool:
    return SUBORDINATE.match(text.strip()) is not None


def test_docstrings_are_found_below_what_they_describe() -> None:
    source = '''
"""module"""
A = 1
"""attribute"""

"""no docstring"""

class Some:
    """class"""

    B: int
    """annotated"""

    async def method(self):
        """method"""
        self.c = 1
        """instance attribute"""
        return 1
'''
    found = [text for _, text in docstrings(source)]
    assert sorted(found) == ["annotated", "attribute", "class", "instance attribute", "method", "module"]


@pytest.mark.parametrize("text", ["What it is.", "  how many", "Of its first item.", "The same for each.", "Whether."])
def test_a_clause_without_a_subject_is_refused(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize(
    "text", ["The number of members.", "Return x.", "Whatever.", "As-of date.", "Offset.", "Sort."]
)
def test_a_sentence_with_a_subject_or_a_verb_is_not_refused(text: str) -> None:
    assert not refused(text)


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_have_a_subject_or_a_verb(module: str) -> None:
    source = (PACKAGE / module).read_text(encoding="utf-8")
    found = [f"{module}:{line}: {text}" for line, text in docstrings(source) if refused(text)]
    assert not found, "\n".join(found)


def test_descriptions_of_the_api_have_a_subject_or_a_verb() -> None:
    schema = build_schema(SCHEMA.as_str())
    assert [f"{path}: {text}" for path, text in descriptions(schema) if text and refused(text)] == []


def test_every_type_field_argument_and_enum_value_is_described() -> None:
    schema = build_schema(SCHEMA.as_str())
    assert [path for path, text in descriptions(schema) if not text] == []
