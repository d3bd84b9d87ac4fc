"""Explanations: what each column loaded and cost, and why others fell back, on the small market."""

import pytest
from conftest import Live

from graph.execution.explanation import ExplainedField, ExplainedOperation, ExplainingExecutor, Explanation, Load
from graph.execution.operation import Operation
from graph.schema import make_schema

SCHEMA = make_schema(executor=ExplainingExecutor)


async def explain(live: Live, query: str, **variables: object) -> tuple[Explanation, ExplainedOperation]:
    operation = ExplainedOperation(live.runtime)
    result = await SCHEMA.execute(query, variable_values=variables, context_value=operation)
    plain = Operation(live.runtime)
    assert (result.data, result.errors) == (
        (expected := await make_schema().execute(query, variables, plain)).data,
        expected.errors,
    )
    assert operation.objects == plain.objects
    assert operation.explanation
    return operation.explanation, operation


def field(
    name: str,
    values: str,
    *below: ExplainedField,
    cost: int = 0,
    loads: tuple[Load, ...] = (),
    uncached: tuple[str, ...] = (),
) -> ExplainedField:
    return ExplainedField(name, values, cost, list(loads), list(uncached), list(below))


QUERY = """
query ($first: Int) {
  etf: group(name: "BIG", type: ETF) { members(first: $first) { nodes { weight stock { groups(type: [SECTOR]) { memberCount } } } } }
}
"""


async def test_each_column_is_told_with_what_it_loaded_and_cost(live: Live) -> None:
    explanation, operation = await explain(live, QUERY, first=2)
    count = field("memberCount", "1 Int", cost=2, loads=(Load("member_counts", 1),))
    groups = field(
        "groups(type: [SECTOR])", "2 lists, 2 values, 1 Group", count, cost=2, loads=(Load("stock_memberships", 2),)
    )
    nodes = field("nodes", "2 Membership", field("weight", "2 Float"), field("stock", "2 Stock", groups))
    members = field(
        "members(first: 2, orderBy: WEIGHT_DESC)",
        "1 MembershipConnection",
        nodes,
        cost=3,
        loads=(Load("members_by_weight", 1),),
    )
    etf = field('etf: group(name: "BIG", type: ETF)', "1 Group", members, cost=1, loads=(Load("groups_named", 1),))
    assert (explanation, operation.loads) == (Explanation([etf], {}), [])
    assert operation.objects == 8


async def test_a_field_of_several_types_has_the_fields_of_each(live: Live) -> None:
    explanation, _ = await explain(
        live, """{ search(text: "apple") { __typename ... on Stock { symbol } ... on Group { name } } }"""
    )
    (found,) = explanation.fields
    assert found == field(
        'search(first: 20, text: "apple")',
        "1 Stock",
        field("symbol", "1 String"),
        cost=1,
        loads=(Load("search_hits", 1),),
    )


@pytest.mark.parametrize(
    ("query", "left", "loads"),
    [
        ("{ __schema { queryType { name } } }", {"__schema": "__schema: introspection"}, []),
        (
            """{ a: universe(key: "nope") { size } }""",
            {"a": "universe: UnknownGroup (There is no group nope; `groups` lists those there are.)"},
            [Load("group_names", 1)],
        ),
    ],
)
async def test_what_falls_back_is_told_with_the_reason_and_what_graphql_core_loads(
    live: Live, query: str, left: dict[str, str], loads: list[Load]
) -> None:
    operation = ExplainedOperation(live.runtime)
    await SCHEMA.execute(query, context_value=operation)
    assert (operation.explanation, operation.loads) == (Explanation([], left), loads)


@pytest.mark.parametrize(
    ("query", "reasons"),
    [
        ("{ status { version } }", ["shows what changes by itself"]),
        ("""{ group(name: "BIG", asOf: "2100-01-01") { name } }""", None),
        ("""{ breadth(universe: "BIG") { members } }""", ["reads prices"]),
    ],
)
async def test_what_no_cache_may_hold_is_told(live: Live, query: str, reasons: list[str] | None) -> None:
    operation = ExplainedOperation(live.runtime)
    await SCHEMA.execute(query, context_value=operation)
    assert operation.explanation
    assert [field.uncached for field in operation.explanation.fields] == ([reasons] if reasons else [])


async def test_a_day_makes_a_column_that_no_cache_holds(live: Live) -> None:
    operation = ExplainedOperation(live.runtime)
    today = (await live.writer.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")).isoformat()
    await SCHEMA.execute(
        """query ($day: Date) { group(name: "BIG", asOf: $day) { name } }""", {"day": today}, operation
    )
    assert operation.explanation
    (group,) = operation.explanation.fields
    assert (group.name, group.uncached) == (f'group(asOf: "{today}", name: "BIG")', ["holds for today alone"])


async def test_prices_are_told_with_the_statements_of_their_snapshot(live: Live) -> None:
    operation = ExplainedOperation(live.runtime)
    await SCHEMA.execute("""{ thresholdBars(universe: "BIG") { priced } }""", context_value=operation)
    assert operation.explanation
    (bars,) = operation.explanation.fields
    assert [load.statement for load in bars.loads] == ["group_names", "group_symbols", "price_table", "last_price_day"]
