"""The executor gives what graphql-core's own gives, for whatever query: generated from the schema, over the small market."""

import asyncio
import json
import os
import random
from collections import Counter
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple

import pytest
import strawberry
from conftest import SCHEMA, Ask, Databases
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
from strawberry.types import ExecutionResult

from graph.app import open_runtime
from graph.columns import Objects, Source
from graph.context import Operation, Runtime
from graph.errors import DatabaseUnavailable
from graph.execution import ColumnExecutor, _Run
from graph.limits import code_errors
from graph.plans import Plan, batched
from graph.settings import Settings

QUERIES = int(os.environ.get("TEST_GENERATED_QUERIES", "250"))
"""How many are generated; 20,000 take a quarter of an hour."""
MANY = 5_000
"""From how many on every field is selected of several objects."""

TODAY = str(datetime.now(UTC).date())
# what arguments may be, by name, so that most queries find several rows
VALUES: dict[str, list[Any]] = {
    "name": [*["BIG", "TECH", "mixed", "big", "top3"] * 2, "nothing yet", "nobody"],
    "symbol": [*["AAPL", "nvda", "MSFT", "AAPL", "XOM", "JPM"] * 2, "ZZZ", "NOPE"],
    "symbols": [["AAPL", "NOPE", "XOM"], ["MSFT", "JPM"], ["NVDA", "AAPL", "MSFT"], []],
    "key": ["BIG:TECH", "BIG&TECH", "BIG:MIXED", "SECTOR/energy:TECH", *["BIG", "top3:MIXED"] * 8, "NOPE", "BIG:"],
    "universe": ["BIG", "TECH:MIXED", "top3", "BIG:TECH", '"nothing yet"'],
    "groups": [["BIG", "TECH"], ["BIG", "chips", "MIXED"], ["MIXED", "BIG", "TECH"]],
    "text": ["a", "big", "apple", "e", "n"],
    "first": [*[3, 5, 20, 100, 2, 4, 50] * 8, 1, -1],
    "type": ["ETF", "SECTOR", "THEME"],
    "by": ["SECTOR", "ETF"],
    "windows": [["DAY", "WEEK"], ["YTD"]],
    "since": [TODAY],
    "asOf": [TODAY],
    "membersAsOf": [TODAY],
    "environment": [*["DEFAULT"] * 5, "TEST"],
    "top": [2],
    "minMembers": [1, 2],
    "maxMembers": [5],
    "from": ["2024-01-02"],
}
RARELY = {"environment", "asOf", "membersAsOf", "minMembers", "maxMembers", "from"}
SKIPPED = {"status", "node", "after", "search", "to"}


def is_plain(field: Any) -> bool:
    """Whether a field is cheap for many rows, or leads to a list."""
    made = field.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF)
    resolver = made and made.base_resolver
    return not resolver or hasattr(resolver.wrapped_func, "batch") or "Connection" in str(field.type)


class Query(NamedTuple):
    """A query with its variables."""

    text: str
    variables: dict[str, Any]


class Maker:
    """Makes a query of the schema's fields."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.schema = SCHEMA._schema  # noqa: SLF001 - Strawberry has no public name for it
        self.variables: dict[str, Any] = {}
        self.declared: list[str] = []
        # most queries select what is cheap, and little else
        self.others = rng.choice([0.1, 0.1, 0.55])

    def query(self) -> Query:
        root = self.schema.query_type
        roots = [*(name for name in root.fields if name not in SKIPPED), "search"]
        asked = []
        for number in range(self.rng.choice([2, 3, 3, 4])):
            name = self.rng.choice(roots)
            field = root.fields[name]
            asked.append(f"r{number}: {name}{self.arguments(field)} {self.selection(get_named_type(field.type), 4)}")
        signature = f"({', '.join(self.declared)})" if self.declared else ""
        return Query(f"query Q{signature} {{ {' '.join(asked)} }}", self.variables)

    def variable(self, kind: object, value: Any) -> str:
        name = f"$v{len(self.declared)}"
        self.declared.append(f"{name}: {kind}")
        self.variables[name[1:]] = value
        return name

    def written(self, value: Any, kind: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(self.written(each, kind) for each in value)}]"
        return value if isinstance(kind, GraphQLEnumType) else json.dumps(value)

    def arguments(self, field: Any) -> str:
        given = []
        for name, argument in field.args.items():
            must = str(argument.type).endswith("!") and argument.default_value is Undefined
            kind = get_named_type(argument.type)
            values = VALUES.get(name) or ([*kind.values] if isinstance(kind, GraphQLEnumType) else [])
            if name in SKIPPED or not values or not (must or self.rng.random() < (0.03 if name in RARELY else 0.3)):
                continue
            value = self.rng.choice(values)
            if "[" in str(argument.type) and not isinstance(value, list):
                value = [value]
            as_variable = self.rng.random() < 0.3
            given.append(f"{name}: {self.variable(argument.type, value) if as_variable else self.written(value, kind)}")
        return f"({', '.join(given)})" if given else ""

    def directive(self) -> str:
        if self.rng.random() < 0.75:
            return ""
        name, says = self.rng.choice([("skip", True), ("include", True), ("skip", False), ("include", False)])
        as_variable = self.rng.random() < 0.5
        return f" @{name}(if: {self.variable('Boolean!', says) if as_variable else str(says).lower()})"

    def selection(self, kind: Any, depth: int) -> str:
        if isinstance(kind, GraphQLUnionType | GraphQLInterfaceType):
            parts = [
                f"... on {each.name} {self.selection(each, depth)}" for each in self.schema.get_possible_types(kind)
            ]
            return "{ __typename " + " ".join(parts) + " }"
        rng, fields = self.rng, []
        for name, field in kind.fields.items():
            below = get_named_type(field.type)
            if (
                name in SKIPPED
                or (not is_leaf_type(below) and depth <= 0)
                or rng.random() > (0.55 if is_plain(field) else self.others)
            ):
                continue
            alias = f"{name}{rng.randrange(10)}: " if rng.random() < 0.15 else ""
            more = "" if is_leaf_type(below) else " " + self.selection(below, depth - 1)
            fields.append(f"{alias}{name}{self.arguments(field)}{self.directive()}{more}")
        if rng.random() < 0.2 and fields:
            split = rng.randrange(len(fields))
            fields[split:] = [f"... on {kind.name} {{ {' '.join(fields[split:])} }}"]
        return "{ " + " ".join([*fields, "__typename"] if not fields or rng.random() < 0.3 else fields) + " }"


class Alone:
    """The context of a schema that reads no database."""

    root = None
    source = Source()
    objects = 0
    each = ()
    alone = False

    def part(self) -> "Alone":
        return self

    def absorb(self, _: Source, __: int | None = None) -> None: ...


async def answer(
    runtime: Runtime, query: str, variables: dict[str, Any] | None = None
) -> tuple[Any, set[tuple[Any, ...]], int]:
    """The data, the errors, and how many objects were counted."""
    operation = Operation(runtime)
    return *told(await SCHEMA.execute(query, variables, operation)), operation.objects


async def standard_answer(
    runtime: Runtime, query: str, variables: dict[str, Any] | None = None
) -> tuple[Any, set[tuple[Any, ...]], int]:
    """The same as graphql-core's own executor gives it."""
    SCHEMA.execution_context_class = StrawberryGraphQLCoreExecutionContext
    operation = Operation(runtime)
    try:
        async with operation.attempt(snapshot=False):
            # not by our schema's way, which has executed the document by columns before
            result = await strawberry.Schema.execute(SCHEMA, query, variables, operation)
    finally:
        SCHEMA.execution_context_class = ColumnExecutor
    code_errors(result.errors or ())
    return *told(result), operation.objects


def told(result: ExecutionResult) -> tuple[Any, set[tuple[Any, ...]]]:
    """The data and the errors."""
    errors = {
        (
            None if error.path is None else tuple(error.path),
            error.message,
            (error.extensions or {}).get("code") or getattr(error.original_error, "code", "INTERNAL"),
        )
        for error in result.errors or ()
    }
    assert not any(error[2] == "INTERNAL" for error in errors), errors
    return result.data, errors


def places(errors: set[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
    """Where errors are, whatever the row, and what they say."""
    return {(tuple(step for step in path or () if isinstance(step, str)), *said) for path, *said in errors}


def rows(data: Any) -> int:
    """The most rows of a list of objects."""
    match data:
        case dict():
            return max(map(rows, data.values()), default=0)
        case list():
            return max([len(data) if any(isinstance(each, dict) for each in data) else 0, *map(rows, data)])
    return 0


# graphql-core's own executor cancels what it has not begun where another field fails
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_generated_queries_have_the_answers_of_the_standard_executor(
    databases: Databases, priced_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(int(os.environ.get("TEST_SEED", "7")))
    seen: Counter[str] = Counter()
    over_several: set[tuple[str, str]] = set()
    make_rows = _Run._rows  # noqa: SLF001 - nothing else tells what was executed by columns

    def noting(run: _Run, plan: Plan, objects: Objects, times: list[int] | None = None) -> list[dict[str, Any]]:
        if len(objects) > 1:
            over_several.update((plan.type, field.attribute) for field in plan.fields if field)
        return make_rows(run, plan, objects, times)

    monkeypatch.setattr(_Run, "_rows", noting)
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.freshness.confirmed()
        for _ in range(QUERIES):
            query = Maker(rng).query()
            ours, errors, objects = await answer(runtime, *query)
            standard, expected, standard_objects = await standard_answer(runtime, *query)
            assert ours == standard, query
            # of several errors that null one parent, which ones are reported depends on their timing
            assert errors == expected or (bool(errors) and (ours is None or places(errors) & places(expected))), query
            if not expected:
                # what is computed for all rows at once is counted again where an alias asks for it again
                assert objects == standard_objects or (objects > standard_objects and "relative" in query.text), query
                assert await answer(runtime, *query) == (ours, errors, objects), query
                operation = Operation(runtime)
                kept = SCHEMA.at_once(query.text, query.variables, None, operation)
                assert kept is None or (kept, operation.objects) == (ours, objects), query
                seen["kept"] += kept is not None
            seen["data"] += ours is not None and any(value is not None for value in ours.values())
            seen["rows"] += rows(ours) > 1
            seen["errors"] += bool(expected)
    told = {name: f"{count / QUERIES:.0%}" for name, count in seen.items()}
    assert seen["data"] > 0.8 * QUERIES, told
    assert seen["rows"] > 0.8 * QUERIES, told
    assert seen["kept"] > 0, told
    assert seen["errors"] > 0, told
    fields = {
        (kind.name, field.extensions[GraphQLCoreConverter.DEFINITION_BACKREF].python_name)
        for kind in SCHEMA._schema.type_map.values()  # noqa: SLF001
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__")
        for field in kind.fields.values()
    }
    alone = {kind for kind, _ in fields} & {"Query", "Status", "MemoStatus", "ListenerStatus"}
    never = sorted(each for each in fields - over_several if each[0] not in alone)
    assert never == [] or QUERIES < MANY, never


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
            result = await strawberry.Schema(Query, types=[Other], execution_context_class=executor).execute(
                query, context_value=Alone()
            )
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
        data, errors, objects = await answer(runtime, query)
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
    databases: Databases, priced_template: str, variables: dict[str, Any]
) -> None:
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.freshness.confirmed()
        ours = await answer(runtime, ALIKE, variables)
        assert ours == await standard_answer(runtime, ALIKE, variables)
        assert ours[1] == set()
        assert len(ours[0]["stocks"][0]["memberships"]) == 2


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
        result = await schema.execute(f"{{ numbers(values: {values}) {{ {selected} }} }}", context_value=Alone())
        answers.append((result.data, {error.message for error in result.errors or ()}))
    assert answers[0] == answers[1]


# what API.md says that every user runs, and what else it names, in words of the small market
FAMILIAR = [
    '{ universe(key: "BIG:TECH:top3") { size symbols groups { name } stocks(first: 2) { nodes { name } pageInfo { hasNextPage } } } }',
    '{ group(name: "BIG", type: ETF) { memberCount members { nodes { weight stock { symbol name } } } } }',
    '{ stock(symbol: "AAPL") { memberships(type: ETF) { weight rank addedAt metadata group { name description } } } }',
    '{ stock(symbol: "AAPL") { sector { name } industry groups { name type } } }',
    "{ groups(type: SECTOR, orderBy: MEMBER_COUNT_DESC) { totalCount nodes { name memberCount totalWeight symbols } } }",
    '{ group(name: "BIG", type: ETF) { exposure(by: SECTOR) { group { name } weight count } } }',
    """{ sectorRotation(universe: "BIG", windows: [DAY, WEEK, MONTH, QUARTER]) { asOf members priced
         rows { group { name } members priced weighting windows { window change upShare rank } relative { ratio tail { date } }
                contributors { stock { symbol } contribution } } } }""",
    '{ thresholdBars(universe: "BIG:TECH", threshold: 0.05, sessions: 21) { priced segments { bin count share } } }',
    '{ breadth(universe: "BIG") { members metrics { metric measured up down unchanged upShare } } }',
    """{ group(name: "BIG", type: ETF) { members(first: 10) { pageInfo { endCursor hasNextPage } edges { cursor node { symbol } }
         nodes { weight stock { symbol groups(type: ETF) { name } } } } } }""",
    '{ search(text: "a") { __typename ... on Stock { symbol } ... on Group { name } } }',
    '{ overlap(groups: ["BIG", "TECH"]) { a { name } b { name } sharedCount sharedWeight jaccard } }',
    '{ stocks(symbols: ["AAPL", "NOPE"]) { symbol performance { window change } prices { date close } } }',
    f'{{ group(name: "BIG", asOf: "{TODAY}") {{ asOf changes(since: "{TODAY}") {{ joined {{ symbol }} }} }} }}',
    "{ status { generation listener { mode } answers { hits } } __typename }",
]


@pytest.mark.parametrize("query", FAMILIAR)
async def test_what_users_ask_is_never_left_to_the_standard_way(
    priced: Ask, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    def fall_back(*_: Any) -> Any:
        raise AssertionError("it fell back")

    monkeypatch.setattr(StrawberryGraphQLCoreExecutionContext, "execute_field", fall_back)
    for _ in range(3):
        assert (await priced(query)).keys() == {"data"}
    found = await priced('{ stock(symbol: "AAPL") { id } }')
    node = f'{{ node(id: "{found["data"]["stock"]["id"]}") {{ id ... on Stock {{ symbol }} }} }}'
    assert (await priced(node))["data"]["node"]["symbol"] == "AAPL"
