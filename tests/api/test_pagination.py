"""Pages: whatever their size, they make up the list, and a cursor belongs to its list."""

import base64

import orjson
import pytest
from conftest import Ask, Live
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MEMBERS = """query ($first: Int, $after: String, $order: MemberOrder) {
    group(name: "MIXED") { members(first: $first, after: $after, orderBy: $order) {
        edges { cursor node { symbol weight } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } }"""
GROUPS = """query ($first: Int, $after: String, $order: GroupOrder, $type: [GroupType!]) {
    groups(first: $first, after: $after, orderBy: $order, type: $type) {
        edges { cursor node { name type } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""


async def pages(ask: Ask, query: str, first: int, **arguments: object) -> list[object]:
    """Go through a list page by page, holding what each page says of itself to what it holds."""
    nodes: list[object] = []
    after = None
    while True:
        answer = await ask(query, first=first, after=after, **arguments)
        (page,) = answer["data"].values()
        page = page.get("members", page)
        edges, info = page["edges"], page["pageInfo"]
        nodes += [edge["node"] for edge in edges]
        assert info["hasPreviousPage"] is (after is not None)
        assert [info["startCursor"], info["endCursor"]] == (
            [edges[0]["cursor"], edges[-1]["cursor"]] if edges else [None, None]
        )
        if not info["hasNextPage"]:
            return nodes
        assert len(edges) == first
        after = info["endCursor"]


weights = st.one_of(st.none(), st.decimals(-1, 1, places=1), st.decimals("0.00000001", "0.00000003", places=8))
symbols = st.text(alphabet="aAbB.é", min_size=1, max_size=3)


@given(members=st.dictionaries(symbols, weights, max_size=12), first=st.integers(1, 5))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_pages_of_any_size_are_the_list_in_its_order(live: Live, members: dict[str, object], first: int) -> None:
    await live.writer.execute("DELETE FROM group_memberships WHERE group_id = 3")
    await live.writer.executemany(
        "INSERT INTO group_memberships (group_id, symbol, weight) VALUES (3, $1, $2)", members.items()
    )
    await live.caught_up()
    heaviest = sorted(members.items(), key=lambda member: (member[1] is None, -(member[1] or 0), member[0].encode()))
    expected = [{"symbol": symbol, "weight": None if weight is None else float(weight)} for symbol, weight in heaviest]
    assert await pages(live.ask, MEMBERS, first) == expected
    by_symbol = sorted(expected, key=lambda node: node["symbol"].encode())
    assert await pages(live.ask, MEMBERS, first, order="SYMBOL_ASC") == by_symbol


@pytest.mark.parametrize("first", [1, 2, 3, 10])
@pytest.mark.parametrize(
    ("order", "names"),
    [
        (
            "NAME_ASC",
            [
                "BIG",
                "Energy",
                "MIXED",
                "TECH",
                "chips",
                "energy",
                "financials",
                "information_technology",
                "nothing yet",
                "top3",
            ],
        ),
        (
            "MEMBER_COUNT_DESC",
            [
                "BIG",
                "MIXED",
                "TECH",
                "information_technology",
                "top3",
                "chips",
                "energy",
                "financials",
                "Energy",
                "nothing yet",
            ],
        ),
    ],
)
async def test_pages_of_groups(ask: Ask, first: int, order: str, names: list[str]) -> None:
    assert [node["name"] for node in await pages(ask, GROUPS, first, order=order)] == names


async def test_without_first_a_list_is_whole_up_to_the_servers_cap(live: Live) -> None:
    await live.writer.execute(
        "INSERT INTO group_memberships (group_id, symbol) SELECT 10, 'S' || n FROM generate_series(1, 5001) AS n"
    )
    query = 'query ($first: Int) { group(name: "nothing yet") { members(first: $first) { nodes { symbol } pageInfo { hasNextPage } totalCount } } }'
    for first in (None, 5_000):
        page = (await live.ask(query, first=first))["data"]["group"]["members"]
        assert (len(page["nodes"]), page["pageInfo"]["hasNextPage"], page["totalCount"]) == (5_000, True, 5_001)


async def test_an_empty_page_is_a_page(ask: Ask) -> None:
    answer = await ask(MEMBERS, first=0)
    assert answer["data"]["group"]["members"] == {
        "edges": [],
        "pageInfo": {"hasNextPage": True, "hasPreviousPage": False, "startCursor": None, "endCursor": None},
    }


@pytest.mark.parametrize("first", [-1, 5_001])
async def test_a_page_over_the_cap_is_refused(ask: Ask, first: int) -> None:
    answer = await ask(MEMBERS, first=first)
    assert [(error["message"], error["extensions"]) for error in answer["errors"]] == [
        (f"first: {first} is not between 0 and 5,000; page with `after` for more.", {"code": "INVALID_ARGUMENT"})
    ]


async def test_a_cursor_belongs_to_its_parent_filters_and_order(ask: Ask) -> None:
    members = (await ask(MEMBERS, first=1))["data"]["group"]["members"]["pageInfo"]["endCursor"]
    groups = (await ask(GROUPS, first=1))["data"]["groups"]["pageInfo"]["endCursor"]
    elsewhere = "This cursor belongs to another list; use it with the same parent, filters and order that it came from."
    for query, after, arguments in (
        (MEMBERS, members, {"order": "SYMBOL_ASC"}),
        (MEMBERS.replace("MIXED", "TECH"), members, {}),
        (MEMBERS, groups, {}),
        (GROUPS, groups, {"order": "MEMBER_COUNT_DESC"}),
        (GROUPS, groups, {"type": ["ETF"]}),
        (GROUPS, members, {}),
    ):
        answer = await ask(query, first=1, after=after, **arguments)
        assert [(error["message"], error["extensions"]) for error in answer["errors"]] == [
            (elsewhere, {"code": "BAD_CURSOR"})
        ]


def forged(*values: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "é",
        "AAAA",
        "bnVsbA==",
        "MTIz",
        base64.b64encode(b"[]").decode(),
        base64.b64encode(b'"a"').decode(),
        "\ud800",
    ],
)
async def test_what_is_no_cursor_is_refused(ask: Ask, cursor: str) -> None:
    answer = await ask(MEMBERS, first=1, after=cursor)
    assert [error["extensions"] for error in answer["errors"]] == [{"code": "BAD_CURSOR"}]


@pytest.mark.parametrize(
    "position",
    [
        [],
        [0.5, "XOM"],
        ["0.5", "XOM", 1],
        [0.5, "XOM", 2**31],
        [0.5, "XOM", -1],
        [0.5, "XOM", True],
        [0.5, "X\0", 1],
        [0.5, None, 1],
    ],
)
async def test_a_forged_position_is_refused(ask: Ask, position: list[object]) -> None:
    real = (await ask(MEMBERS, first=1))["data"]["group"]["members"]["pageInfo"]["endCursor"]
    mark = orjson.loads(base64.urlsafe_b64decode(real))[0]
    answer = await ask(MEMBERS, first=1, after=forged(mark, *position))
    assert [error["extensions"] for error in answer["errors"]] == [{"code": "BAD_CURSOR"}]


async def test_a_row_added_before_the_cursor_moves_nothing(live: Live) -> None:
    first = (await live.ask(MEMBERS, first=2))["data"]["group"]["members"]
    await live.writer.execute("INSERT INTO group_memberships (group_id, symbol, weight) VALUES (3, 'AAA', 0.9)")
    second = (await live.ask(MEMBERS, first=2, after=first["pageInfo"]["endCursor"]))["data"]["group"]["members"]
    assert [edge["node"]["symbol"] for edge in first["edges"] + second["edges"]] == ["CVX", "XOM", "BRK.B", "ZZZ"]
