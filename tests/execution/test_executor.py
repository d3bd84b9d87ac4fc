"""The executor gives what graphql-core's own gives, for whatever query: generated from the schema, over the small market."""

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal, NewType

import pytest
import strawberry
from conftest import SCHEMA, Ask, Databases, Live
from generator import ALONE, TODAY, Maker, Query
from graphql import GraphQLObjectType
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types import ExecutionResult

from graph.errors import DatabaseUnavailable
from graph.execution import assembly
from graph.execution.columns import Column, Dependencies, ListColumn, ObjectColumn, ObjectSet
from graph.execution.executor import ColumnExecutor
from graph.execution.limits import code_errors
from graph.execution.operation import Operation
from graph.execution.plans import Plan, batch_field
from graph.execution.runtime import Runtime, open_runtime
from graph.model import Caller
from graph.settings import Settings

AT_ONCE = 5
"""How many generated queries are asked at the same time where nothing is kept."""
QUERIES = int(os.environ.get("TEST_GENERATED_QUERIES", "250"))
"""How many are generated; 10,000 take a quarter of an hour."""
MANY = 5_000
"""From how many on every field is selected of several objects."""


class Alone:
    """The context of a schema that reads no database."""

    root = None
    caller = Caller()
    dependencies = Dependencies()
    objects = 0
    costs = ()
    answer_bytes = 0

    def fork(self) -> "Alone":
        return self

    def merge(self, _: Dependencies, __: int | None = None) -> None: ...

    def admit(self, _: object, __: int) -> None: ...

    def learn(self, _: object, __: int, ___: int) -> None: ...

    async def run_in_lane(self, function: Callable[..., Any], *arguments: Any, **_: object) -> Any:
        return await asyncio.to_thread(function, *arguments)


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
    make_rows = assembly._rows  # noqa: SLF001 - nothing else tells what was executed by columns

    def noting(
        source: assembly.ColumnSource, plan: Plan, objects: ObjectSet, times: list[int] | None, count: int
    ) -> list[dict[str, Any]]:
        if len(objects) > 1:
            over_several.update((plan.type, field.attribute) for field in plan.fields if field)
        return make_rows(source, plan, objects, times, count)

    monkeypatch.setattr(assembly, "_rows", noting)
    url = await databases.make(priced_template)
    together: list[tuple[Query, Any]] = []
    async with (
        open_runtime(Settings(database_url=url)) as runtime,
        open_runtime(Settings(database_url=url, data_cache="off")) as bare,
    ):
        await runtime.generations.confirmed()
        await bare.generations.confirmed()
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
                kept = SCHEMA.execute_from_cache(query.text, query.variables, None, operation)
                assert kept is None or (kept, operation.objects) == (ours, objects), query
                seen["kept"] += kept is not None
                together.append((query, (ours, errors, objects)))
            if len(together) == AT_ONCE:
                # where nothing is kept, and what several ask for goes in one statement
                found = await asyncio.gather(*(answer(bare, *query) for query, _ in together))
                assert found == [answered for _, answered in together], [query for query, _ in together]
                together.clear()
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
    never = sorted(each for each in fields - over_several if each[0] not in ALONE)
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
    code: strawberry.ID
    flag: bool | None = None


@strawberry.type
class Other(Named):
    size: int


@strawberry.type
class ColumnCacheEntry:
    leaf: Leaf
    maybe: Leaf | None
    named: Named
    tags: list[str]

    @strawberry.field
    def twice(self) -> int:
        return 2 * self.leaf.count


def leaf(**changes: Any) -> Leaf:
    return Leaf(**({"name": "a", "weight": 0.5, "count": 1, "colour": Colour.RED, "code": "c", "flag": True} | changes))


CASES: dict[str, list[Any]] = {
    "as they are": [leaf(), leaf(weight=None, flag=None)],
    "one row": [leaf()],
    "none": [],
    "a null item": [leaf(), None, leaf(count=2)],
    "a whole number where a fraction is expected": [leaf(weight=1), leaf()],
    "not a number": [leaf(weight=float("nan")), leaf()],
    "infinite": [leaf(), leaf(weight=float("inf"))],
    "too large": [leaf(count=2**40), leaf()],
    "too large by one": [leaf(count=2**31), leaf()],
    "too small by one": [leaf(), leaf(count=-(2**31) - 1)],
    "as large and as small as may be": [leaf(count=2**31 - 1), leaf(count=-(2**31))],
    "null where none may be": [leaf(), leaf(name=None)],
    "an exception for a value": [leaf(), leaf(weight=ValueError("no weight"))],
    "an exception for a row": [leaf(), ValueError("no row")],
    "no member of the enum": [leaf(), leaf(colour="blue")],
    "another type": [leaf(), Other(name="b", size=3)],
    "a number for a text": [leaf(name=5), leaf()],
    "a text for a number": [leaf(count="x"), leaf()],
    "true for a number": [leaf(count=True), leaf()],
    "numbers for an ID": [leaf(code=5), leaf(code=2.0), leaf()],
    "true for an ID": [leaf(code=True), leaf()],
    "an object that writes itself as an ID": [leaf(code=Colour.RED), leaf()],
    "null for an ID": [leaf(), leaf(code=None)],
}


@pytest.mark.parametrize("nullable", [True, False])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "selected",
    [
        "name weight count colour code flag",
        "__typename n: name n2: name",
        "weight",
        "count colour",
        "code",
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
        def branches(self) -> list[ColumnCacheEntry] | None:
            return [ColumnCacheEntry(leaf=each, maybe=each, named=each, tags=("x", "y")) for each in items]  # type: ignore[arg-type]

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


@pytest.mark.parametrize(("field", "coerces"), [("code", False), ("time", True)])
async def test_texts_are_sent_as_ids_without_coercion_and_moments_are_coerced(
    field: str, monkeypatch: pytest.MonkeyPatch, *, coerces: bool
) -> None:
    @strawberry.type
    class Coded:
        code: strawberry.ID
        time: datetime

    @strawberry.type
    class Query:
        @strawberry.field
        def items(self) -> list[Coded]:
            return [Coded(code=strawberry.ID("a"), time=datetime(2026, 1, 31, tzinfo=UTC))]

    schema = strawberry.Schema(Query, execution_context_class=ColumnExecutor)
    of: Any = schema._schema.type_map["ID" if field == "code" else "DateTime"]  # noqa: SLF001
    coerced: list[Any] = []
    coerce = of.coerce_output_value

    def noting(value: Any) -> Any:
        coerced.append(value)
        return coerce(value)

    monkeypatch.setattr(of, "coerce_output_value", noting)
    result = await schema.execute(f"{{ items {{ {field} }} }}", context_value=Alone())
    assert (result.data, result.errors) == (
        {"items": [{field: "2026-01-31T00:00:00+00:00" if coerces else "a"}]},
        None,
    )
    assert bool(coerced) == coerces


async def test_a_key_is_sent_once_whether_it_is_answered_under_way_or_an_error(
    databases: Databases, priced_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.generations.confirmed()
        operation = Operation(runtime)
        fetch, sent = runtime.database.fetch, asyncio.Event()

        async def noted(statement: str, *arguments: Any, **options: Any) -> Any:
            if statement == "member_counts":
                sent.set()
            return await fetch(statement, *arguments, **options)

        monkeypatch.setattr(runtime.database, "fetch", noted)
        async with operation.attempt(snapshot=False):
            first = asyncio.create_task(operation.load_rows_many("member_counts", [(1,), (2,)]))
            await sent.wait()
            # (1,) is under way; who is cancelled takes it from nobody
            second = asyncio.create_task(operation.load_rows_many("member_counts", [(1,), (3,)]))
            await asyncio.sleep(0)
            first.cancel()
            assert [rows[0]["total"] for rows in await second] == [5, 4]
            assert [rows[0]["total"] for rows in await operation.load_rows_many("member_counts", [(2,), (1,)])] == [
                4,
                5,
            ]
            assert operation.statements == ["member_counts", "member_counts"]

        async def fail(*_: Any, **__: Any) -> Any:
            raise DatabaseUnavailable("gone")

        monkeypatch.setattr(runtime.database, "fetch", fail)
        operation = Operation(runtime)
        async with operation.attempt(snapshot=False):
            for _ in range(3):
                with pytest.raises(DatabaseUnavailable):
                    await operation.load_rows_many("member_counts", [(1,)])
        assert operation.statements == ["member_counts"]
        # an outage costs a query no more statements than it has
        operation = Operation(runtime)
        query = '{ stocks(symbols: ["AAPL", "MSFT"]) { groups { memberCount } } }'
        assert (await SCHEMA.execute(query, context_value=operation)).data is None
        assert operation.statements == ["stocks"]


@pytest.mark.parametrize("data_cache", ["on", "off"])
async def test_what_aliases_have_below_them_is_asked_for_at_the_same_time(
    databases: Databases, priced_template: str, monkeypatch: pytest.MonkeyPatch, data_cache: Literal["on", "off"]
) -> None:
    query = '{ a: group(name: "BIG") { memberCount } b: group(name: "BIG") { totalWeight metadata } }'
    url = await databases.make(priced_template)
    async with open_runtime(Settings(database_url=url, data_cache=data_cache)) as runtime:
        await runtime.generations.confirmed()
        fetch, sent, all_sent = runtime.database.fetch, set[str](), asyncio.Event()

        async def held_back(statement: str, *arguments: Any, **options: Any) -> Any:
            if statement in ("member_counts", "total_weights", "group_details"):
                sent.add(statement)
                if len(sent) == 3:
                    all_sent.set()
                await all_sent.wait()
            return await fetch(statement, *arguments, **options)

        monkeypatch.setattr(runtime.database, "fetch", held_back)
        async with asyncio.timeout(10):
            ours = await answer(runtime, query)
        assert ours == await standard_answer(runtime, query)


async def test_a_list_of_empty_lists_stays_a_column(databases: Databases, priced_template: str) -> None:
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.generations.confirmed()
        for query, nothing in (
            ('{ group(name: "BIG") { members(first: 0) { nodes { rank stock { name sector { name } } } } } }', "group"),
            ('{ universe(key: "BIG - BIG") { stocks { nodes { symbol name sector { name } } } } }', "universe"),
        ):
            for _ in range(2):
                data, errors, _ = await answer(runtime, query)
                assert errors == set()
                assert rows(data[nothing]) == 0
            assert SCHEMA.execute_from_cache(query, None, None, Operation(runtime)) == data
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
        await runtime.generations.confirmed()
        ours = await answer(runtime, ALIKE, variables)
        assert ours == await standard_answer(runtime, ALIKE, variables)
        assert ours[1] == set()
        assert len(ours[0]["stocks"][0]["memberships"]) == 2


@strawberry.type
class Number:
    value: int

    @batch_field
    @staticmethod
    async def half(numbers: Sequence["Number"], _: Any) -> list[int]:
        if odd := [number.value for number in numbers if number.value % 2]:
            raise ValueError(f"{odd[0]} is odd")
        return [number.value // 2 for number in numbers]

    @batch_field
    @staticmethod
    async def many(numbers: Sequence["Number"], _: Any) -> "list[list[Number]]":
        return [[Number(value=value) for value in range(number.value)] for number in numbers]

    @batch_field
    @staticmethod
    async def same(numbers: Sequence["Number"], _: Any) -> list[int]:
        # those of more than one object are lost
        return [number.value for number in numbers][: 1 if len(numbers) == 1 else -1]


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
    """{ a: group(name: "BIG", type: ETF) { memberCount } b: group(name: "BIG", type: ETF) { totalWeight members { nodes { rank } } }
         stock(symbol: "AAPL") { groups { memberCount } other: groups { totalWeight } } }""",
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


def rests_on_more(source: Dependencies) -> bool:
    """Whether a column rests on what is not the groups, so that no other operation may have it."""
    return bool(source.day or source.volatile or source.stale or any(f != "groups" for f, _ in source.generations))


def kept_columns(objects: ObjectSet) -> Iterator[Column]:
    """All columns that hang on some objects."""
    for column in objects.columns.values():
        yield column
        content = column.content
        while isinstance(content, ListColumn):
            content = content.items
        for below in content.parts.values() if isinstance(content, ObjectColumn) else ():
            yield from kept_columns(below)


RESTING_ON_MORE = f"""{{
  group(name: "BIG") {{ performance {{ window }} changes(since: "{TODAY}") {{ since }} members {{ nodes {{ stock {{ performance {{ window }} }} }} }} }}
  then: group(name: "TECH", asOf: "{TODAY}") {{ members {{ nodes {{ stock {{ symbol sector {{ name }} }} }} }} }}
  status {{ version }}
}}"""


async def test_columns_that_rest_on_more_than_the_groups_are_not_kept(
    databases: Databases, priced_template: str
) -> None:
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.generations.confirmed()
        told = []
        for _ in range(3):
            operation = Operation(runtime)
            result = await SCHEMA.execute(RESTING_ON_MORE, None, operation)
            assert result.errors is None
            # what the answer rests on is the same, wherever its columns came from
            told.append(
                (
                    result.data,
                    operation.day,
                    operation.volatile,
                    sorted({family for family, _ in operation.generations}),
                )
            )
            assert SCHEMA.execute_from_cache(RESTING_ON_MORE, None, None, Operation(runtime)) is None
        assert told[0] == told[1] == told[2]
        assert told[0][1:] == (datetime.now(UTC).date(), True, ["groups", "prices"])
        root = runtime.column_cache.root()
        assert root is not None
        columns = list(kept_columns(root))
        assert len(columns) > 3
        assert not [each.dependencies for each in columns if rests_on_more(each.dependencies)]


PLAIN = """{
  groups { nodes { id name type description asOf createdAt updatedAt lastUpdate memberCount metadata liquidityFilter totalWeight symbols
    members { nodes { symbol weight rank addedAt updatedAt metadata stock { id name industry sector { name } groups { name } } } } } }
  stocks(symbols: ["AAPL", "NOPE", "IBM"]) { symbol industry sector { name } memberships { weight group { name } } }
  search(text: "a") { __typename ... on Group { asOf name } ... on Stock { industry } }
}"""


async def test_nulls_leave_nothing_to_the_standard_way(databases: Databases, priced_template: str) -> None:
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.generations.confirmed()
        expected = await answer(runtime, PLAIN)
        assert expected == await standard_answer(runtime, PLAIN)
        # only what was found right before has a plan
        assert await answer(runtime, PLAIN) == expected
        operation = Operation(runtime)
        # all of it is kept
        assert (SCHEMA.execute_from_cache(PLAIN, None, None, operation), set(), operation.objects) == expected


ASKED_AGAIN: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "a variable within a list": (
        'query ($s: String!) { stocks(symbols: [$s, "AAPL"]) { symbol } }',
        [{"s": "XOM"}, {"s": "NVDA"}, {"s": "XOM"}],
    ),
    "a list in another order": (
        "query ($s: [String!]!) { stocks(symbols: $s) { symbol } }",
        [{"s": ["XOM", "JPM"]}, {"s": ["JPM", "XOM"]}],
    ),
    "a list of one, twice": (
        "query ($s: [String!]!) { stocks(symbols: $s) { symbol } }",
        [{"s": ["XOM"]}, {"s": ["XOM", "XOM"]}, {"s": "XOM"}],
    ),
    "another environment": (
        (
            'query ($e: Environment) { group(name: "BIG", environment: $e) { environment memberCount members { nodes { symbol } } } '
            'test: group(name: "BIG", environment: TEST) { memberCount } stock(symbol: "AAPL", environment: $e) { groups { name } } }'
        ),
        [{}, {"e": "TEST"}, {"e": "DEFAULT"}, {"e": None}],
    ),
    "what is left out": (
        (
            'query ($a: Boolean!, $b: Boolean!) { group(name: "BIG") { name @skip(if: $a) memberCount @include(if: $b) '
            "... @include(if: $a) { type symbols @skip(if: $b) } } }"
        ),
        [{"a": a, "b": b} for a in (True, False) for b in (True, False)],
    ),
    "no value beside a default": (
        'query ($s: String = "AAPL", $n: Int = 2) { stock(symbol: $s) { symbol } search(text: "e", first: $n) { __typename } }',
        [{}, {"s": "XOM", "n": None}, {"s": "XOM", "n": 1}, {"s": None}, {}],
    ),
    "an argument that a variable leaves out": (
        'query ($n: Int) { rotation(universe: "BIG:TECH", top: $n) { __typename } search(text: "e", first: $n) { __typename } }',
        [{"n": 1}, {}, {"n": None}],
    ),
    "an error, again": (
        'query ($n: Int) { group(name: "BIG") { name members(first: $n) { nodes { symbol } } } other: group(name: "TECH") { name } }',
        [{"n": -1}, {"n": -1}, {"n": 1}, {"n": -1}],
    ),
    "what is not planned": (
        '{ a: group(name: "BIG") { name } __schema { queryType { name } } b: group(name: "TECH") { name } }',
        [{}, {}],
    ),
}


@pytest.mark.parametrize("case", ASKED_AGAIN)
async def test_a_document_is_asked_again_with_other_variables(
    databases: Databases, priced_template: str, case: str
) -> None:
    query, given = ASKED_AGAIN[case]
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.generations.confirmed()
        for variables in given:
            standard = await standard_answer(runtime, query, variables)
            for _ in range(2):
                ours = await answer(runtime, query, variables)
                assert ours[:2] == standard[:2], variables
                assert standard[1] or ours[2] == standard[2], variables
                # to the order of the fields
                assert json.dumps(ours[0]) == json.dumps(standard[0]), variables


async def test_fields_are_in_the_order_of_the_query_whoever_gives_them(
    databases: Databases, priced_template: str
) -> None:
    query = '{ bad: group(name: "BIG") { members(first: -1) { nodes { symbol } } } __schema { queryType { name } } good: group(name: "TECH") { name } }'
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.generations.confirmed()
        for _ in range(2):
            data, errors, _ = await answer(runtime, query)
            assert list(data) == ["bad", "__schema", "good"]
            assert {path for path, *_ in errors} == {("bad", "members")} or data["bad"] is None


async def test_what_is_too_much_takes_nothing_from_its_siblings(
    databases: Databases, priced_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.execution.operation.MAX_OBJECTS", 7)
    query = '{ a: group(name: "BIG") { members { nodes { symbol } } } b: group(name: "MIXED") { members { nodes { symbol } } } }'
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.generations.confirmed()
        for _ in range(2):
            data, errors, objects = await answer(runtime, query)
            assert len(data["a"]["members"]["nodes"]) == 5
            assert data["b"] is None
            assert [(path[0], code) for path, _, code in errors] == [("b", "LIMIT_EXCEEDED")]
            assert objects == 6


async def test_operations_that_load_the_same_at_once(databases: Databases, priced_template: str) -> None:
    kept = '{ group(name: "BIG") { members { nodes { rank stock { sector { name } } } } } }'
    others = [
        '{ group(name: "BIG") { performance { window } members { nodes { stock { performance { window } } } } } }',
        f'{{ group(name: "BIG", asOf: "{TODAY}") {{ memberCount }} }}',
        '{ group(name: "BIG") { name members(first: -1) { nodes { symbol } } } }',
    ]
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.generations.confirmed()
        for query in (kept, *others):
            standard = await standard_answer(runtime, query)
            answers = await asyncio.gather(*(answer(runtime, query) for _ in range(4)))
            assert [each[:2] for each in answers] == [standard[:2]] * 4, query


Nothing = NewType("Nothing", str)
NOTHING = StrawberryConfig(
    scalar_map={Nothing: strawberry.scalar(name="Nothing", serialize=lambda value: value or None)}
)


@strawberry.type
class Odd:
    name: str
    rows: list[list[Number]]
    maybe: list[Number] | None
    inner: list[list[Number] | None]
    nothing: Nothing | None

    @strawberry.field
    def plain(self) -> str:
        return self.name.upper()

    @strawberry.field
    def unbound() -> str:  # whose resolver takes no object, so that it is not planned
        return "x"


@strawberry.type
class Odds:
    @strawberry.field
    def odds(self, nothing: str = "") -> list[Odd] | None:
        some = [Number(value=2), Number(value=4)]
        return [
            Odd(name="a", rows=[some, [], some[:1]], maybe=None, inner=[some, None], nothing=Nothing("n")),
            Odd(name="b", rows=[], maybe=some[1:], inner=[], nothing=None),
            Odd(name="c", rows=[some[1:]], maybe=[], inner=[None, []], nothing=Nothing(nothing)),
        ]

    @strawberry.field
    def none(self) -> list[Odd] | None:
        return None


@pytest.mark.parametrize(
    "selected",
    [
        "odds { name rows { value } }",
        "odds { rows { half many { value } } }",
        "odds { maybe { value half } }",
        "odds { inner { value half } }",
        "odds { name unbound plain }",
        'odds(nothing: "n") { nothing }',
        "odds { name nothing }",
        "none { name } odds { name }",
    ],
)
async def test_lists_of_lists_nulls_and_what_is_not_planned(selected: str) -> None:
    answers = []
    for executor in (ColumnExecutor, StrawberryGraphQLCoreExecutionContext):
        schema = strawberry.Schema(Odds, config=NOTHING, execution_context_class=executor)
        result = await schema.execute(f"{{ {selected} }}", context_value=Alone())
        answers.append((json.dumps(result.data), {(str(e.path), e.message) for e in result.errors or ()}))
    assert answers[0] == answers[1]


async def test_columns_go_with_the_generation_that_they_were_read_in(live: Live) -> None:
    query = '{ group(name: "BIG") { memberCount members { nodes { symbol rank } } } }'
    for count in (5, 4, 3):
        for _ in range(3):
            assert (await live.ask(query))["data"] == (await standard_answer(live.runtime, query))[0]
        assert (await live.ask(query))["data"]["group"]["memberCount"] == count
        await live.writer.execute(
            "DELETE FROM group_memberships WHERE id = (SELECT max(id) FROM group_memberships WHERE group_id = 1)"
        )
        await live.caught_up()


@pytest.mark.parametrize(
    "below", ["", "... on Stock { symbol } ... on Group { type }", "... on Group { name id } ... on Node { id }"]
)
async def test_hits_are_of_their_own_types(databases: Databases, priced_template: str, below: str) -> None:
    query = f'{{ search(text: "e", first: 50) {{ __typename {below} }} }}'
    async with open_runtime(Settings(database_url=await databases.make(priced_template))) as runtime:
        await runtime.generations.confirmed()
        for _ in range(3):
            ours = await answer(runtime, query)
            assert ours == await standard_answer(runtime, query)
        assert {each["__typename"] for each in ours[0]["search"]} == {"Stock", "Group"}


async def test_a_long_answer_with_an_error_is_refused_without_the_inside_of_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @strawberry.type
    class Item:
        value: int

    @strawberry.type
    class Items:
        @strawberry.field
        async def wrong(self) -> int | None:
            raise KeyError("a secret of the inside")

        @strawberry.field
        async def items(self) -> list[Item]:
            return [Item(value=number) for number in range(5)]

    @strawberry.type
    class Root:
        @strawberry.field
        async def all(self) -> Items | None:
            return Items()

    schema = strawberry.Schema(Root, execution_context_class=ColumnExecutor)
    query = "{ all { wrong items { value } } short: all { wrong } }"
    monkeypatch.setattr("graph.execution.plan_execution.MAX_LEFT_VALUES", 5)
    result = await schema.execute(query, context_value=Alone())
    assert result.data == {"all": None, "short": {"wrong": None}}
    assert [(error.path, error.message) for error in result.errors or ()] == [
        (["all"], "Around an error 5 values can be answered; ask for less, or without what is wrong."),
        (["short", "wrong"], "'a secret of the inside'"),  # which our own schema masks
    ]
