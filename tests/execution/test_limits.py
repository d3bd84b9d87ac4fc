import time
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import strawberry
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    get_introspection_query,
    parse,
    validate,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from strawberry.scalars import JSON
from strawberry.schema.exceptions import CannotGetOperationTypeError

from graph.errors import UnknownGroup
from graph.execution.limits import RULES, DocumentLimits, Limits, check, code_errors


@strawberry.input
class Filter:
    name: str | None = None
    largest: strawberry.Maybe[int] = None
    inner: list["Filter"] | None = None


@strawberry.input(one_of=True)
class Choice:
    name: strawberry.Maybe[str] = None
    number: strawberry.Maybe[int] = None


@strawberry.type
class Thing:
    name: str = "thing"
    size: int = 1

    @strawberry.field
    def thing(self) -> "Thing":
        return Thing()

    @strawberry.field
    def things(self, names: list[str] | None = None, only: Filter | None = None) -> list["Thing"]:
        return [Thing(name=name) for name in names or () if only is None]


@strawberry.interface
class Named:
    name: str


@strawberry.type
class Person(Named):
    pass


@strawberry.type
class Query(Thing):
    @strawberry.field
    def person(self) -> Person:
        return Thing()  # type: ignore[return-value]  # the fault to be found

    @strawberry.field
    def echo(self, value: JSON) -> JSON:
        return value

    @strawberry.field
    def chosen(self, by: Choice) -> str:
        return str(by.name or by.number)

    @strawberry.field
    def broken(self, kind: str) -> int:
        if kind == "ours":
            raise UnknownGroup("There is no group 'x'.")
        if kind == "theirs":
            raise ZeroDivisionError
        return 2**40


@strawberry.type
class Mutation:
    @strawberry.mutation
    def rename(self, name: str) -> str:
        return name


def make_schema(limits: DocumentLimits | None = None) -> strawberry.Schema:
    class Schema(strawberry.Schema):
        def process_errors(self, *_: object) -> None:
            """Say nothing."""

    return Schema(Query, Mutation, extensions=[partial(Limits, limits) if limits else Limits])


schema = make_schema()


async def answer(
    document: str,
    limits: DocumentLimits | None = None,
    operation_name: str | None = None,
    variable_values: dict[str, Any] | None = None,
) -> dict[str, Any] | list[tuple[str, str | None]] | None:
    result = await (make_schema(limits) if limits else schema).execute(
        document, root_value=Thing(), operation_name=operation_name, variable_values=variable_values
    )
    if result.errors:
        code_errors(result.errors)
        return [(error.message, (error.extensions or {}).get("code")) for error in result.errors]
    return result.data


EXCEEDED = "LIMIT_EXCEEDED"
SPLIT = "Ask for less, or split it into several requests."

# For each limit of 3: a document that keeps to it, one that exceeds it, and what is said of that.
BOUNDARIES = {
    "characters": ("{a}", "{aa}", f"Source contains more than 3 code points. {SPLIT}"),
    "lines": ("{\nname\r}", "{\nname\r\n}", "The document has 4 lines, and 3 are allowed; split it."),
    "tokens": ("{name}", "{name size}", f"Document contains more than 3 tokens. {SPLIT}"),
    "operations": (
        "query A{name} query B{name} query C{name}",
        "query A{name} query B{name} query C{name} query D{name}",
        "The document has 4 operations, and 3 are allowed; split it.",
    ),
    "fragments": (
        "{...A ...B ...C}" + "".join(f"fragment {name} on Query{{name}}" for name in "ABC"),
        "{...A ...B ...C ...D}" + "".join(f"fragment {name} on Query{{name}}" for name in "ABCD"),
        "The document has 4 fragments, and 3 are allowed; split it.",
    ),
    "depth": (
        "{thing{thing{name}}}",
        "{thing{...A}} fragment A on Thing{thing{... on Thing{thing{name}}}}",
        "Fields are nested more than 3 levels deep; ask for the deeper ones in another request.",
    ),
    "selections": (
        "{...A} fragment A on Query{name size}",
        "{...A thing{...B}} fragment A on Query{thing{...B}} fragment B on Thing{name}",
        (
            "The document selects more than 3 fields, counted wherever a fragment brings them; "
            "split it into several requests."
        ),
    ),
    "aliases": (
        "{a:name b:name c:thing{name}}",
        "{a:thing{...A} b:thing{...A}} fragment A on Thing{c:name}",
        (
            "The document has more than 3 aliases, counted wherever a fragment brings them; "
            "split it into several requests."
        ),
    ),
    "repeats": (
        "{name name name}",
        "{name ...A ... on Query{name}} fragment A on Query{name ...B} fragment B on Query{name}",
        "The field 'name' is selected 4 times in one place, and 3 are allowed; select it once.",
    ),
    "introspections": (
        '{__schema{queryType{name}} a:__type(name:"Thing"){name} ...A} fragment A on Query{b:__type(name:"x"){name}}',
        '{__schema{queryType{name}} a:__schema{queryType{name}} b:__type(name:"x"){name} c:__type(name:"x"){name}}',
        "The document has more than 3 fields __schema and __type; split it into several requests.",
    ),
}


@pytest.mark.parametrize("limit", BOUNDARIES)
async def test_a_document_may_reach_a_limit_and_not_exceed_it(limit: str):
    within, beyond, message = BOUNDARIES[limit]
    limits = DocumentLimits(**{limit: 3})
    kept = await answer(within, limits, operation_name="A" if limit == "operations" else None)
    assert isinstance(kept, dict) or kept == [("Cannot query field 'a' on type 'Query'.", "GRAPHQL_VALIDATION_FAILED")]
    assert await answer(beyond, limits) == [(message, EXCEEDED)]


async def test_comments_are_limited_as_lines_are():
    assert await answer("#\n" * 2001 + "{name}") == [(f"Document contains more than 2000 comments. {SPLIT}", EXCEEDED)]


async def test_repeats_are_counted_where_the_answer_merges_them():
    document = "{thing{name name} thing{name} ...A} fragment A on Query{thing{name}}"
    message = "The field 'name' is selected 4 times in one place, and 3 are allowed; select it once."
    assert await answer(document, DocumentLimits(repeats=3)) == [(message, EXCEEDED)]


async def test_fragments_are_checked_that_no_operation_reaches():
    message = "The field 'name' is selected 4 times in one place, and 3 are allowed; select it once."
    for document in (
        "{name} fragment A on Query{name name name name}",
        "{name} fragment A on Query{...B name} fragment B on Query{name name name}",
        "{...A} fragment A on Query{name name name name} fragment A on Query{name}",
    ):
        assert await answer(document, DocumentLimits(repeats=3)) == [(message, EXCEEDED)]


async def test_errors_are_limited():
    found = await answer("{a b c d}", DocumentLimits(errors=2))
    assert found == [
        ("Cannot query field 'a' on type 'Query'.", "GRAPHQL_VALIDATION_FAILED"),
        ("Cannot query field 'b' on type 'Query'.", "GRAPHQL_VALIDATION_FAILED"),
        ("Too many validation errors, error limit reached. Validation aborted.", EXCEEDED),
    ]


async def test_the_introspection_of_the_usual_tools_passes():
    query = get_introspection_query(
        specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
    )
    found = await answer(query, DocumentLimits(depth=15, introspections=1, aliases=0, repeats=1))
    assert isinstance(found, dict)
    assert found["__schema"]["queryType"] == {"name": "Query", "kind": "OBJECT"}


async def test_introspection_can_not_be_multiplied():
    assert await answer("{__schema{types{...A}}} fragment A on __Type{a:name}") == [
        ("Within __schema and __type there are no aliases; leave out 'a'.", EXCEEDED)
    ]
    assert await answer("{__schema{types{fields{type{fields{type{fields{name}}}}}}}}") == [
        ("Maximum introspection depth exceeded", "GRAPHQL_VALIDATION_FAILED")
    ]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{xyz}", "GRAPHQL_VALIDATION_FAILED"),
        ("query A{name} query B{name}", "OPERATION_RESOLUTION_FAILURE"),
        ("{" + "name " * 21 + "}", EXCEEDED),
        ("{" + "name " * 2000 + "}", EXCEEDED),
    ],
)
async def test_streams_end_with_the_error_and_do_not_break(document: str, code: str):
    results = [result async for result in await schema.stream(document)]
    assert [[error.extensions for error in getattr(result, "errors", ())] for result in results] == [[{"code": code}]]


@pytest.mark.parametrize(
    "document",
    ["{thing" * 5000, "{echo(value:" + "[" * 5000, "query($a:" + "[" * 5000, "{echo(value:" + "{a:" * 5000],
    ids=["fields", "lists", "types", "objects"],
)
async def test_deep_nesting_is_refused_before_it_overflows_the_stack(document: str):
    assert await answer(document) == [(f"Document is nested too deeply. {SPLIT}", EXCEEDED)]


async def test_deep_inline_fragments_are_refused():
    document = "{...A}" + "fragment A on Query" + "{..." * 150 + "{...B}" + "}" * 150
    document += "fragment B on Query" + "{..." * 150 + "{name}" + "}" * 150
    assert await answer(document) == [("Fragments are nested too deeply within one another; use fewer.", EXCEEDED)]


async def test_what_is_left_to_validation():
    failed = "GRAPHQL_VALIDATION_FAILED"
    assert await answer("{...A ...A}") == [("Unknown fragment 'A'.", failed)] * 2
    assert await answer("{...A} fragment A on Query{...B} fragment B on Query{...A name}") == [
        ("Cannot spread fragment 'A' within itself via 'B'.", failed)
    ]
    assert (
        await answer("{thing{...A}} fragment A on Thing{thing{...A ...A}}")
        == [("Cannot spread fragment 'A' within itself.", failed)] * 2
    )
    assert await answer("{name} fragment A on Thing{thing{...A}}") == [
        ("Cannot spread fragment 'A' within itself.", failed),
        ("Fragment 'A' is never used.", failed),
    ]


async def test_syntax_errors():
    assert await answer("{") == [("Syntax Error: Expected Name, found <EOF>.", "GRAPHQL_PARSE_FAILED")]
    assert await answer('{echo(value:"\\ud800")}') == [
        ("Syntax Error: Invalid Unicode escape sequence: '\\ud800'.", "GRAPHQL_PARSE_FAILED")
    ]
    # What only looks like a refusal is none.
    assert await answer('{"Parsing aborted."') == [
        ("Syntax Error: Expected Name, found String 'Parsing aborted.'.", "GRAPHQL_PARSE_FAILED")
    ]


async def test_which_operation_is_meant():
    document = 'query A{name} query B{size} mutation C{rename(name:"x")}'
    assert await answer(document, operation_name="B") == {"size": 1}
    assert await answer(document) == [
        (
            "The document holds 3 operations; name one of them as operationName: A, B, C.",
            "OPERATION_RESOLUTION_FAILURE",
        )
    ]
    assert await answer("query A{name}") == {"name": "thing"}


NOT_NULL = "Expected variable '$a' provided to non-null type '{}' not to be None."


@pytest.mark.parametrize(
    ("document", "variables", "message"),
    [
        (
            "query($a:JSON!){echo(value:$a)}",
            {},
            "Variable '$a' has invalid value: Expected a value of non-null type 'JSON!' to be provided.",
        ),
        (
            "query($a:[String!]!){things(names:$a){name}}",
            {"a": ["x", 1]},
            "Variable '$a' has invalid value at [1]: String cannot represent a non string value: 1",
        ),
        (
            "query($a:Filter){things(only:$a){name}}",
            {"a": {"largest": 2**40}},
            (
                "Variable '$a' has invalid value at .largest: Int cannot represent non 32-bit signed integer value: "
                "1099511627776"
            ),
        ),
        (
            "query($a:Choice!){chosen(by:$a)}",
            {"a": {"name": "x", "number": 1}},
            "OneOf Input Object 'Choice' must specify exactly one key.",
        ),
        ('{chosen(by:{name:"x" number:1})}', {}, "OneOf Input Object 'Choice' must specify exactly one key."),
        (
            'query($a:String="x"){broken(kind:$a)}',
            {"a": None},
            "Argument 'kind' has invalid value: " + NOT_NULL.format("String!"),
        ),
        (
            "query($a:Boolean=true){name @skip(if:$a)}",
            {"a": None},
            "Argument 'if' has invalid value: " + NOT_NULL.format("Boolean!"),
        ),
        (
            "query($a:Filter){things(only:$a){name}}",
            {"a": {"largest": None}},
            (
                "Expected value of type 'int', found null. Field of type 'Maybe[int]' cannot be explicitly set "
                "to null. Use 'Maybe[int | None]' if you need to allow null values."
            ),
        ),
    ],
)
async def test_mistakes_of_the_client_in_execution(document: str, variables: dict[str, Any], message: str):
    assert await answer(document, variable_values=variables) == [(message, "INVALID_ARGUMENT")]


async def test_deep_variables_are_refused():
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"inner": [deep]}
    assert await answer("query($a:Filter){things(only:$a){name}}", variable_values={"a": deep}) == [
        ("Variable values are nested too deeply.", "INVALID_ARGUMENT")
    ]


@pytest.mark.parametrize(
    ("kind", "message", "code"),
    [
        ("ours", "There is no group 'x'.", "UNKNOWN_GROUP"),
        ("theirs", "", None),
        ("unfit", "Int cannot represent non 32-bit signed integer value: 1099511627776", None),
    ],
)
async def test_faults_of_the_server_are_not_laid_on_the_client(kind: str, message: str, code: str | None):
    assert await answer(f'{{broken(kind:"{kind}")}}') == [(message, code)]
    assert await answer("{person{name}}") == [("Expected value of type 'Person' but got: <Thing instance>.", None)]


async def test_one_of_variables_in_fragments_are_no_fault():
    document = "fragment A on Query{chosen(by:{name:$a})} query($a:String!){...A}"
    assert await answer(document, variable_values={"a": "x"}) == {"chosen": "Some('x')"}
    assert await answer("{chosen(by:{name:$a})}") == [("Variable '$a' is not defined.", "GRAPHQL_VALIDATION_FAILED")]


async def test_null_for_what_may_only_be_left_out_is_invalid():
    assert await answer("{things(only:{largest:null}){name}}") == [
        (
            (
                "Expected value of type 'int', found null. Field 'largest' of type 'Maybe[int]' cannot be explicitly "
                "set to null. Use 'Maybe[int | None]' if you need to allow null values."
            ),
            "GRAPHQL_VALIDATION_FAILED",
        )
    ]


def many(count: int, text: str) -> str:
    """Repeat `text`, its `#` numbered, `count` times."""
    return " ".join(text.replace("#", str(number)) for number in range(count))


def doubling(levels: int, nested: str) -> str:
    links = "".join(f"fragment F{n} on Thing{{{nested.replace('F', f'F{n + 1}')}}} " for n in range(levels))
    return "{thing{...F0}} " + links + f"fragment F{levels} on Thing{{name}}"


# What costs seconds, or more than there are, without the limits or with graphql-core's own.
COSTLY = {
    "repeated fields": "{" + "name " * 20_000 + "}",
    "repeated fields under a limit of tokens": "{" + "thing{thing{name}} " * 300 + "}",
    "repeated fields in fragments": "{...A ...B}"
    + "".join(f"fragment {name} on Query{{{'thing{name} ' * 200}}}" for name in "AB"),
    "repeated fields in a fragment of a doubled name": "{...A} fragment A on Query{"
    + "thing{name} " * 400
    + "} fragment A on Query{name}",
    "repeated fields in a fragment nobody spreads": "{name} fragment A on Query{" + "thing{name} " * 400 + "}",
    "aliases": "{" + many(20_000, "a#:name") + "}",
    "fragments that double": doubling(45, "thing{...F} other:thing{...F}"),
    "fragments that double in place": doubling(45, "...F ... on Thing{...F ...F}"),
    "fragments that double in cycles": "{thing{...A}} fragment A on Thing{thing{...A ...B} b:thing{...A ...B}} "
    "fragment B on Thing{thing{...B ...A} b:thing{...B ...A}}",
    "fragments of all in all": "{thing{...F0}}" + many(40, "fragment F# on Thing{thing{" + many(40, "...F#") + "}}"),
    "long chains of fragments": "{...F0}" + "".join(f"fragment F{n} on Query{{...F{n + 1}}}" for n in range(2000)),
    "operations times variables": many(200, "query Q#($a:String){...A}")
    + ("fragment A on Query{things(names:[" + "$a " * 1500 + "]){name}}"),
    "errors after many lines": "\n" * 45_000 + "{" + many(1000, "f#") + "}",
    "errors after many carriage returns": "\r" * 45_000 + "{" + many(1000, "f#") + "}",
    "errors with suggestions": "{" + many(1900, "thing#") + "}",
    "types with suggestions": "query(" + many(400, "$a#:Thin#") + "){name}",
    "directives": "{name " + many(900, "@skip#") + "}",
    "conflicts": "{" + many(100, "a#:name a#:size") + "}",
    "comments": "#\n" * 50_000,
    "spaces": " " * 100_000,
    "a string": '{echo(value:"' + "a" * 100_000 + '")}',
    "a block string": '{echo(value:"""' + "a\n" * 50_000 + '""")}',
    "a name": "{" + "a" * 100_000 + "}",
    "digits": "{echo(value:" + "1" * 49_000 + ")}",
    "a list": "{echo(value:[" + "1 " * 50_000 + "])}",
    "an object": "{things(only:{" + many(900, "x#:1") + "}){name}}",
    "introspections": "{" + many(100, "a#:__schema{types{fields{type{fields{name}}}}}") + "}",
}


# These cost little once a fragment is counted where it adds something, and a number where it is one.
ANSWERED = ("fragments that double in place", "digits")


@pytest.mark.parametrize("shape", COSTLY)
async def test_no_document_costs_much_before_execution(shape: str):
    document = COSTLY[shape]
    started = time.process_time()
    result = await schema.execute(document, root_value=Thing())
    # Measured: 0.1 s at most, with other work on the same two cores.
    assert time.process_time() - started < 0.6
    codes = {(error.extensions or {})["code"] for error in result.errors or ()}
    assert codes <= {"LIMIT_EXCEEDED", "GRAPHQL_VALIDATION_FAILED", "GRAPHQL_PARSE_FAILED"}
    assert bool(codes) is (shape not in ANSWERED)


fields = st.sampled_from(["name", "size", "a:name", "b:size", "...F0", "...F1", "...F2", "...F3"])
selections = st.recursive(
    fields,
    lambda inner: st.tuples(
        st.sampled_from(["thing", "c:thing", "... on Thing", "..."]), st.lists(inner, min_size=1, max_size=4)
    ).map(lambda pair: f"{pair[0]}{{{' '.join(pair[1])}}}"),
    max_leaves=8,
)
documents = st.lists(selections, min_size=5, max_size=5).map(
    lambda bodies: (
        f"{{thing{{{bodies[0]} ...F0 ...F1 ...F2 ...F3}}}}"
        + "".join(f" fragment F{number} on Thing{{{body}}}" for number, body in enumerate(bodies[1:]))
    )
)


def answer_paths(document: DocumentNode) -> dict[tuple[str, ...], bool]:
    """The places in the answer, and whether an alias names them: every fragment put in anew wherever it is spread."""
    bodies = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    found: dict[tuple[str, ...], bool] = {}

    def collect(node: SelectionSetNode, place: tuple[str, ...]) -> None:
        for selection in node.selections:
            if isinstance(selection, FragmentSpreadNode):
                collect(bodies[selection.name.value].selection_set, place)
            elif isinstance(selection, InlineFragmentNode):
                collect(selection.selection_set, place)
            elif isinstance(selection, FieldNode):
                here = (*place, (selection.alias or selection.name).value)
                found[here] = selection.alias is not None
                if selection.selection_set:
                    collect(selection.selection_set, here)

    for node in document.definitions:
        if isinstance(node, OperationDefinitionNode):
            collect(node.selection_set, ())
    return found


@settings(deadline=None, max_examples=50)
@given(documents)
def test_a_document_within_the_limits_is_only_validated(text: str):
    document = parse(text)
    core = schema._schema  # noqa: SLF001 - it has no public name
    valid = validate(core, document, RULES)
    spacious = DocumentLimits(depth=10**6, selections=10**6, aliases=10**6, repeats=10**6, errors=100)
    assert [error.message for error in check(core, text, document, spacious)] == [error.message for error in valid]
    if valid:
        return
    paths = answer_paths(document)
    depth, aliases = max(map(len, paths)), sum(paths.values())
    assert check(core, text, document, replace(spacious, depth=depth, aliases=aliases)) == []
    (deep,) = check(core, text, document, replace(spacious, depth=depth - 1))
    assert deep.extensions == {"code": "LIMIT_EXCEEDED"}
    if aliases:
        (aliased,) = check(core, text, document, replace(spacious, aliases=aliases - 1))
        assert aliased.extensions == {"code": "LIMIT_EXCEEDED"}


@settings(deadline=None)
@given(st.text('{}()[]!$:@.#"\\ \n,abz019-ud\ufeff\x00\U0001f600', min_size=1))
async def test_any_text_is_answered_or_refused_with_a_code(text: str):
    try:
        result = await schema.execute(text, root_value=Thing())
    except CannotGetOperationTypeError:
        assert not any(isinstance(node, OperationDefinitionNode) for node in parse(text).definitions)
        return
    codes = {(error.extensions or {})["code"] for error in result.errors or ()}
    assert codes <= {"GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "OPERATION_RESOLUTION_FAILURE"}
