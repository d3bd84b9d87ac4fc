"""The executor gives what graphql-core's own gives, for whatever query: generated from the schema, over the small market."""

import asyncio
import os
import random
from collections import Counter
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest
import strawberry
from conftest import SCHEMA, Databases
from graphql import (
    GraphQLEnumType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLUnionType,
    Undefined,
    get_named_type,
    is_leaf_type,
)
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import GraphQLCoreConverter

from graph import execution
from graph.app import open_runtime
from graph.context import Operation, Runtime
from graph.errors import DatabaseUnavailable
from graph.execution import ColumnExecutor, batched
from graph.settings import Settings

QUERIES = int(os.environ.get("TEST_GENERATED_QUERIES", "250"))
"""How many are generated; 20,000 take some minutes."""

# what arguments may be, by name, so that most queries find something
VALUES: dict[str, list[str]] = {
    "name": ['"BIG"', '"TECH"', '"mixed"', '"chips"', '"top3"', '"BIG"', '"TECH"', '"nothing yet"', '"nobody"'],
    "symbol": ['"AAPL"', '"nvda"', '"MSFT"', '"XOM"', '"JPM"', '"ZZZ"', '"BRK.B"', '"NOPE"'],
    "symbols": ['["AAPL", "NOPE", "XOM"]', "[]", '["MSFT", "JPM"]'],
    "key": ['"BIG:TECH"', '"BIG&TECH"', '"MIXED-BIG"', '"SECTOR/energy"', '"BIG"', '"top3:MIXED"', '"NOPE"', '"BIG:"'],
    "universe": ['"BIG"', '"TECH:MIXED"', '"top3"', '"\\"nothing yet\\""'],
    "groups": ['["BIG", "TECH"]', '["BIG", "chips", "MIXED"]'],
    "text": ['"a"', '"big"', '"apple"'],
    "first": ["1", "3", "5", "20", "100", "2", "4", "50", "-1"],
    "type": ["ETF", "SECTOR", "THEME"],
    "by": ["SECTOR", "ETF"],
    "windows": ["[DAY, WEEK]", "[YTD]"],
    "since": [f'"{datetime.now(UTC).date()}"'],
    "top": ["2"],
}
SKIPPED = {"status", "node", "after", "environment", "asOf", "membersAsOf", "search", "minMembers", "maxMembers"}


def is_plain(field: Any) -> bool:
    """Whether a field may make a column, or leads to a list."""
    made = field.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    resolver = made and made.base_resolver
    return not resolver or hasattr(resolver.wrapped_func, "batch") or "Connection" in str(field.type)


def generate(rng: random.Random) -> str:
    """Make a query of the schema's fields."""
    schema = SCHEMA._schema  # noqa: SLF001 - Strawberry has no public name for it

    def arguments(field: Any) -> str:
        given = []
        for name, argument in field.args.items():
            needed = str(argument.type).endswith("!") and argument.default_value is Undefined
            if name in SKIPPED or not (needed or name in ("name", "symbol") or rng.random() < 0.3):
                continue
            kind = get_named_type(argument.type)
            values = VALUES.get(name) or ([*kind.values] if isinstance(kind, GraphQLEnumType) else [])
            if values:
                value = rng.choice(values)
                many = "[" in str(argument.type) and not value.startswith("[")
                given.append(f"{name}: {f'[{value}]' if many else value}")
        return f"({', '.join(given)})" if given else ""

    # most queries select what makes columns, and little else, or no list would be plain enough
    others = rng.choice([0.05, 0.05, 0.55])

    def selection(kind: Any, depth: int) -> str:
        if isinstance(kind, GraphQLUnionType | GraphQLInterfaceType):
            parts = [f"... on {each.name} {selection(each, depth)}" for each in schema.get_possible_types(kind)]
            return "{ __typename " + " ".join(parts) + " }"
        fields = []
        for name, field in kind.fields.items():
            below = get_named_type(field.type)
            if (
                name in SKIPPED
                or (not is_leaf_type(below) and depth <= 0)
                or rng.random() > (0.55 if is_plain(field) else others)
            ):
                continue
            alias = f"{name}{rng.randrange(10)}: " if rng.random() < 0.15 else ""
            skip = rng.choice(["", "", "", "", " @skip(if: true)", " @include(if: true)"])
            more = "" if is_leaf_type(below) else " " + selection(below, depth - 1)
            fields.append(f"{alias}{name}{arguments(field)}{skip}{more}")
        if rng.random() < 0.2 and isinstance(kind, GraphQLObjectType) and fields:
            split = rng.randrange(len(fields))
            fields[split:] = [f"... on {kind.name} {{ {' '.join(fields[split:])} }}"]
        return "{ " + " ".join([*fields, "__typename"] if not fields or rng.random() < 0.3 else fields) + " }"

    root = schema.query_type
    name = rng.choice([name for name in root.fields if name not in SKIPPED] + ["search"])
    field = root.fields[name]
    given = arguments(field) if name != "search" else f"(text: {rng.choice(VALUES['text'])})"
    return f"{{ {name}{given} {selection(get_named_type(field.type), 4)} }}"


async def answer(runtime: Runtime, query: str, executor: Any) -> tuple[Any, set[tuple[Any, ...]], int]:
    """The data, the errors, and how many objects were counted."""
    SCHEMA.execution_context_class = executor
    operation = Operation(runtime)
    try:
        result = await SCHEMA.execute(query, context_value=operation)
    finally:
        SCHEMA.execution_context_class = ColumnExecutor
    errors = {
        (None if error.path is None else tuple(error.path), error.message, error.extensions["code"])
        for error in result.errors or ()
        if error.extensions["code"] != "INTERNAL"
    }
    return result.data, errors, operation._attempt.objects  # noqa: SLF001 - nothing else tells


def rows(data: Any) -> int:
    """The most rows of a list of objects."""
    match data:
        case dict():
            return max(map(rows, data.values()), default=0)
        case list():
            return max([len(data) if any(isinstance(each, dict) for each in data) else 0, *map(rows, data)])
    return 0


async def test_generated_queries_have_the_answers_of_the_standard_executor(
    databases: Databases, priced_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(int(os.environ.get("TEST_SEED", "7")))
    seen: Counter[str] = Counter()
    complete = execution._objects  # noqa: SLF001 - nothing else tells which way a list was completed

    async def counted(*arguments: Any) -> Any:
        seen["columns"] += 1
        return await complete(*arguments)

    monkeypatch.setattr(execution, "_objects", counted)
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.freshness.confirmed()
        for _ in range(QUERIES):
            query = generate(rng)
            ours, errors, objects = await answer(runtime, query, ColumnExecutor)
            standard, expected, counted_objects = await answer(runtime, query, StrawberryGraphQLCoreExecutionContext)
            assert ours == standard, query
            assert expected or objects == counted_objects, query
            # of several errors that null one parent, which ones are reported depends on their timing
            assert errors == expected or (errors and expected and {e[0] for e in errors} & {e[0] for e in expected}), (
                query
            )
            seen["data"] += ours is not None and any(value is not None for value in ours.values())
            seen["rows"] += rows(ours) > 1
            seen["errors"] += bool(expected)
    assert seen["data"] > 0.8 * QUERIES
    assert seen["rows"] > 0.4 * QUERIES
    assert seen["columns"] > 0.5 * QUERIES
    assert seen["errors"] > 0


@strawberry.enum
class Colour(Enum):
    RED = "red"


@strawberry.interface
class Named:
    name: str


@strawberry.type
class Leaf(Named):
    weight: float | None
    count: int
    colour: Colour
    flag: bool | None = None


@strawberry.type
class Other(Named):
    size: int


@strawberry.type
class Branch:
    leaf: Leaf
    maybe: Leaf | None
    named: Named
    tags: list[str]

    @strawberry.field
    def twice(self) -> int:
        return 2 * self.leaf.count


def leaf(**changes: Any) -> Leaf:
    return Leaf(**({"name": "a", "weight": 0.5, "count": 1, "colour": Colour.RED, "flag": True} | changes))


CASES: dict[str, list[Any]] = {
    "as they are": [leaf(), leaf(weight=None, flag=None)],
    "one row": [leaf()],
    "none": [],
    "a null item": [leaf(), None, leaf(count=2)],
    "a whole number where a fraction is expected": [leaf(weight=1), leaf()],
    "not a number": [leaf(weight=float("nan")), leaf()],
    "infinite": [leaf(), leaf(weight=float("inf"))],
    "too large": [leaf(count=2**40), leaf()],
    "null where none may be": [leaf(), leaf(name=None)],
    "an exception for a value": [leaf(), leaf(weight=ValueError("no weight"))],
    "an exception for a row": [leaf(), ValueError("no row")],
    "no member of the enum": [leaf(), leaf(colour="blue")],
    "another type": [leaf(), Other(name="b", size=3)],
    "a number for a text": [leaf(name=5), leaf()],
    "a text for a number": [leaf(count="x"), leaf()],
    "true for a number": [leaf(count=True), leaf()],
}


@pytest.mark.parametrize("nullable", [True, False])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "selected",
    [
        "name weight count colour flag",
        "__typename n: name n2: name",
        "weight",
        "count colour",
        "... on Named { name } flag",
    ],
)
async def test_unusual_rows_are_completed_by_the_standard_rules(case: str, selected: str, *, nullable: bool) -> None:
    items = CASES[case]

    @strawberry.type
    class Query:
        @strawberry.field
        def nullable(self) -> list[Leaf | None] | None:
            return items

        @strawberry.field
        def strict(self) -> list[Leaf] | None:
            return items

        @strawberry.field
        def branches(self) -> list[Branch] | None:
            return [Branch(leaf=each, maybe=each, named=each, tags=["x"]) for each in items]

    field = "nullable" if nullable else "strict"
    for query in (
        f"{{ {field} {{ {selected} }} }}",
        f"{{ branches {{ leaf {{ {selected} }} maybe {{ {selected} }} }} }}",
        f"{{ branches {{ maybe {{ {selected} }} named {{ name }} tags twice }} }}",
        f"{{ branches {{ maybe {{ {selected} }} }} }}",
    ):
        results = []
        for executor in (ColumnExecutor, StrawberryGraphQLCoreExecutionContext):
            result = await strawberry.Schema(Query, types=[Other], execution_context_class=executor).execute(query)
            results.append((result.data, [(error.path, error.message) for error in result.errors or ()]))
        assert results[0] == results[1], query


async def test_a_key_is_sent_once_whether_it_is_answered_under_way_or_an_error(
    databases: Databases, priced_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.freshness.confirmed()
        operation = Operation(runtime)
        async with operation.attempt(snapshot=False):
            first = asyncio.create_task(operation.every("member_counts", [(1,), (2,)]))
            while not operation.statements:
                await asyncio.sleep(0)
            # (1,) is under way; who is cancelled takes it from nobody
            second = asyncio.create_task(operation.every("member_counts", [(1,), (3,)]))
            await asyncio.sleep(0)
            first.cancel()
            assert [rows[0]["total"] for rows in await second] == [5, 4]
            assert [rows[0]["total"] for rows in await operation.every("member_counts", [(2,), (1,)])] == [4, 5]
            assert operation.statements == ["member_counts", "member_counts"]

        async def fail(*_: Any, **__: Any) -> Any:
            raise DatabaseUnavailable("gone")

        monkeypatch.setattr(runtime.database, "fetch", fail)
        operation = Operation(runtime)
        async with operation.attempt(snapshot=False):
            for _ in range(3):
                with pytest.raises(DatabaseUnavailable):
                    await operation.every("member_counts", [(1,)])
        assert operation.statements == ["member_counts"]
        # an outage costs a query no more statements than it has
        operation = Operation(runtime)
        query = '{ stocks(symbols: ["AAPL", "MSFT"]) { groups { memberCount } } }'
        assert (await SCHEMA.execute(query, context_value=operation)).data is None
        assert operation.statements == ["stocks"]


async def test_a_list_of_empty_lists_stays_a_column(databases: Databases, priced_template: str) -> None:
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.freshness.confirmed()
        query = '{ stocks(symbols: ["AAPL", "MSFT"]) { symbol groups(type: SEGMENT) { name memberCount } } }'
        data, errors, objects = await answer(runtime, query, ColumnExecutor)
        assert data == {"stocks": [{"symbol": "AAPL", "groups": []}, {"symbol": "MSFT", "groups": []}]}
        assert (errors, objects) == (set(), 2)


ALIKE = """
    query Alike($t: [GroupType!], $u: [GroupType!] = [THEME]) {
      group(name: "BIG") { members { nodes { weight stock { symbol a: groups(type: ETF) { name memberCount } b: groups(type: $t) { name } } } } }
      stocks(symbols: ["AAPL", "XOM", "NOPE", "NVDA", "ZZZ"]) {
        id sector { id name memberCount } c: groups(type: $u) { name }
        memberships(type: [ETF, THEME]) { symbol weight stock { symbol sector { name } } group { name type } }
      }
      universe(key: "BIG:TECH") { stocks { nodes { symbol groups { name environment } } } groups { name memberCount } }
    }"""


@pytest.mark.parametrize("variables", [{}, {"t": None}, {"t": "SECTOR"}, {"t": ["ETF", "THEME"], "u": None}, {"t": []}])
async def test_batch_forms_give_what_their_fields_give(
    databases: Databases, priced_template: str, monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any]
) -> None:
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.freshness.confirmed()
        ours = await SCHEMA.execute(ALIKE, variable_values=variables, context_value=Operation(runtime))
        monkeypatch.setattr(SCHEMA, "execution_context_class", StrawberryGraphQLCoreExecutionContext)
        standard = await SCHEMA.execute(ALIKE, variable_values=variables, context_value=Operation(runtime))
        assert (ours.data, ours.errors, standard.errors) == (standard.data, None, None)
        assert len(ours.data["stocks"][0]["memberships"]) == 2


@strawberry.type
class Number:
    value: int

    @strawberry.field
    async def half(self) -> int:
        if self.value % 2:
            raise ValueError(f"{self.value} is odd")
        return self.value // 2

    @batched(half)
    @staticmethod
    async def _halves(numbers: list["Number"], _: Any) -> list[int]:
        return [await number.half() for number in numbers]

    @strawberry.field
    async def many(self) -> "list[Number]":
        return [Number(value=number) for number in range(self.value)]

    @batched(many)
    @staticmethod
    async def _many(numbers: list["Number"], _: Any) -> "list[list[Number]]":
        return [await number.many() for number in numbers]

    @strawberry.field
    async def same(self) -> int:
        return self.value

    @batched(same)
    @staticmethod
    async def _lost(numbers: list["Number"], _: Any) -> list[int]:
        return [number.value for number in numbers][1:]


@strawberry.type
class Numbers:
    @strawberry.field
    def numbers(self, values: list[int]) -> list[Number] | None:
        return [Number(value=value) for value in values]


@pytest.mark.parametrize(
    "selected", ["value half", "half", "many { half }", "many { value many { value } }", "same value"]
)
@pytest.mark.parametrize("values", [[2, 4], [0, 0], [2, 3, 5], [4, 1], []])
async def test_a_batch_form_that_fails_leaves_the_list_to_the_standard_way(selected: str, values: list[int]) -> None:
    answers = []
    for executor in (ColumnExecutor, StrawberryGraphQLCoreExecutionContext):
        schema = strawberry.Schema(Numbers, execution_context_class=executor)
        result = await schema.execute(f"{{ numbers(values: {values}) {{ {selected} }} }}")
        answers.append((result.data, {error.message for error in result.errors or ()}))
    assert answers[0] == answers[1]
