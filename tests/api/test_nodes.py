"""The graph, asked as its users ask: whole answers, and the statements that each costs."""

import base64

import orjson
import pytest
from conftest import Ask, Live, asker, wrong_part

from graph.execution.runtime import open_runtime
from graph.settings import Settings


async def test_a_group_gives_its_members_heaviest_first_and_those_without_weight_last(ask: Ask) -> None:
    answer = await ask(
        """{ group(name: "mixed", type: ETF) { name type description environment memberCount totalWeight
  members { totalCount nodes { rank symbol weight stock { symbol name industry } group { name } } } } }"""
    )
    assert answer == {
        "data": {
            "group": {
                "name": "MIXED",
                "type": "ETF",
                "description": "Weights that are not all known",
                "environment": "DEFAULT",
                "memberCount": 4,
                "totalWeight": 1.0,
                "members": {
                    "totalCount": 4,
                    "nodes": [
                        {
                            "rank": 1,
                            "symbol": "CVX",
                            "weight": 0.5,
                            "stock": {"symbol": "CVX", "name": "Chevron", "industry": "Integrated Oil & Gas"},
                            "group": {"name": "MIXED"},
                        },
                        {
                            "rank": 2,
                            "symbol": "XOM",
                            "weight": 0.5,
                            "stock": {"symbol": "XOM", "name": "Exxon Mobil", "industry": "Integrated Oil & Gas"},
                            "group": {"name": "MIXED"},
                        },
                        {
                            "rank": 3,
                            "symbol": "BRK.B",
                            "weight": None,
                            "stock": {
                                "symbol": "BRK.B",
                                "name": "Berkshire Hathaway",
                                "industry": "Multi-Sector Holdings",
                            },
                            "group": {"name": "MIXED"},
                        },
                        {
                            "rank": 4,
                            "symbol": "ZZZ",
                            "weight": None,
                            "stock": {"symbol": "ZZZ", "name": None, "industry": None},
                            "group": {"name": "MIXED"},
                        },
                    ],
                },
            }
        }
    }
    assert sorted(answer.statements) == sorted(
        ["groups_named", "member_counts", "total_weights", "members_by_weight", "member_ranks", "stock_details"]
    )


async def test_members_come_by_symbol_too(ask: Ask) -> None:
    answer = await ask(
        """{ group(name: "TECH") { members(orderBy: SYMBOL_ASC) { nodes { symbol } } heaviest: members(orderBy: null) { nodes { symbol } } } }"""
    )
    assert answer == {
        "data": {
            "group": {
                "members": {"nodes": [{"symbol": "AAPL"}, {"symbol": "AMD"}, {"symbol": "MSFT"}, {"symbol": "NVDA"}]},
                "heaviest": {"nodes": [{"symbol": "NVDA"}, {"symbol": "AAPL"}, {"symbol": "MSFT"}, {"symbol": "AMD"}]},
            }
        }
    }
    assert sorted(answer.statements) == sorted(["groups_named", "members_by_symbol", "members_by_weight"])


async def test_a_stock_gives_its_groups_and_memberships_heaviest_first(ask: Ask) -> None:
    answer = await ask(
        """{ stock(symbol: "aapl") { id symbol name industry sector { name } groups { name type }
  memberships(type: [ETF, UNIVERSE]) { weight rank addedAt updatedAt metadata group { name } stock { symbol } } } }"""
    )
    assert answer == {
        "data": {
            "stock": {
                "id": "WyJTdG9jayIsIkRFRkFVTFQiLCJBQVBMIl0=",
                "symbol": "AAPL",
                "name": "Apple Inc.",
                "industry": "Technology Hardware",
                "sector": {"name": "information_technology"},
                "groups": [
                    {"name": "TECH", "type": "ETF"},
                    {"name": "BIG", "type": "ETF"},
                    {"name": "information_technology", "type": "SECTOR"},
                    {"name": "top3", "type": "UNIVERSE"},
                ],
                "memberships": [
                    {
                        "weight": 0.35,
                        "rank": 2,
                        "addedAt": "2026-01-01T00:00:00Z",
                        "updatedAt": "2026-01-01T00:00:00Z",
                        "metadata": None,
                        "group": {"name": "TECH"},
                        "stock": {"symbol": "AAPL"},
                    },
                    {
                        "weight": 0.3,
                        "rank": 1,
                        "addedAt": "2026-01-03T00:00:00Z",
                        "updatedAt": "2026-01-04T00:00:00Z",
                        "metadata": {"shares": 7},
                        "group": {"name": "BIG"},
                        "stock": {"symbol": "AAPL"},
                    },
                    {
                        "weight": None,
                        "rank": 1,
                        "addedAt": "2026-01-01T00:00:00Z",
                        "updatedAt": "2026-01-01T00:00:00Z",
                        "metadata": None,
                        "group": {"name": "top3"},
                        "stock": {"symbol": "AAPL"},
                    },
                ],
            }
        }
    }
    assert sorted(answer.statements) == sorted(
        ["stocks", "stock_memberships", "stock_memberships", "stock_memberships", "member_ranks", "membership_details"]
    )


async def test_one_type_is_a_list_of_one(ask: Ask) -> None:
    answer = await ask(
        """{ stock(symbol: "AAPL") { groups(type: ETF) { name } none: groups(type: []) { name } memberships(type: SECTOR) { group { name } } } }"""
    )
    assert answer == {
        "data": {
            "stock": {
                "groups": [{"name": "TECH"}, {"name": "BIG"}],
                "none": [],
                "memberships": [{"group": {"name": "information_technology"}}],
            }
        }
    }
    # one for each choice of types
    assert sorted(answer.statements) == sorted(
        ["stocks", "stock_memberships", "stock_memberships", "stock_memberships"]
    )


async def test_a_stock_is_what_the_table_of_symbols_or_a_group_holds(ask: Ask) -> None:
    answer = await ask(
        """{ stock(symbol: "zzz") { symbol name industry sector { name } groups { name } } none: stock(symbol: "NOPE") { symbol }
  ibm: stock(symbol: "ibm") { symbol groups { name } } elsewhere: stock(symbol: "zzz", environment: PROD) { symbol } }"""
    )
    assert answer == {
        "data": {
            "stock": {"symbol": "ZZZ", "name": None, "industry": None, "sector": None, "groups": [{"name": "MIXED"}]},
            "none": None,
            "ibm": {"symbol": "IBM", "groups": []},
            "elsewhere": None,
        }
    }
    assert sorted(answer.statements) == sorted(["stocks", "stock_memberships", "stock_memberships"])


async def test_stocks_come_in_the_order_asked(ask: Ask) -> None:
    answer = await ask(
        """{ stocks(symbols: ["xom", "NOPE", "AAPL", "XOM"]) { symbol } none: stocks(symbols: []) { symbol } }"""
    )
    assert answer == {"data": {"stocks": [{"symbol": "XOM"}, None, {"symbol": "AAPL"}, {"symbol": "XOM"}], "none": []}}
    assert sorted(answer.statements) == sorted(["stocks"])


async def test_a_group_is_known_by_its_name_type_and_environment(ask: Ask) -> None:
    answer = await ask(
        """{ group(name: "big") { id metadata liquidityFilter createdAt updatedAt lastUpdate }
  test: group(name: "BIG", environment: TEST) { id environment members { nodes { symbol weight stock { groups { name } } } } }
  none: group(name: "nope") { id } wrong: group(name: "BIG", type: THEME) { id } }"""
    )
    assert answer == {
        "data": {
            "group": {
                "id": "WyJHcm91cCIsIkRFRkFVTFQiLDFd",
                "metadata": {"fees": [0.1, None], "issuer": "nobody"},
                "liquidityFilter": {"market_cap": 1000000000},
                "createdAt": "2026-01-01T10:00:00Z",
                "updatedAt": "2026-01-02T11:30:00.250000Z",
                "lastUpdate": None,
            },
            "test": {
                "id": "WyJHcm91cCIsIlRFU1QiLDExXQ==",
                "environment": "TEST",
                "members": {"nodes": [{"symbol": "AAPL", "weight": 1.0, "stock": {"groups": [{"name": "BIG"}]}}]},
            },
            "none": None,
            "wrong": None,
        }
    }
    assert sorted(answer.statements) == sorted(
        ["groups_named", "members_by_weight", "group_details", "stock_memberships"]
    )


async def test_a_name_of_two_types_is_told_and_a_type_decides(ask: Ask) -> None:
    answer = await ask(
        """{ group(name: "energy") { id } sector: group(name: "energy", type: SECTOR) { name } custom: group(name: "energy", type: CUSTOM) { name } }"""
    )
    assert answer.without_locations() == {
        "data": {"group": None, "sector": {"name": "energy"}, "custom": {"name": "Energy"}},
        "errors": [
            {
                "message": "'energy' may be CUSTOM/Energy or SECTOR/energy; name one of them.",
                "path": ["group"],
                "extensions": wrong_part("AMBIGUOUS_GROUP", 1, "energy", candidates=["CUSTOM/Energy", "SECTOR/energy"]),
            }
        ],
    }
    assert sorted(answer.statements) == sorted(["groups_named"])


async def test_groups_of_an_environment_by_name(ask: Ask) -> None:
    answer = await ask(
        """{ groups { totalCount nodes { type name } pageInfo { hasNextPage hasPreviousPage } } test: groups(environment: TEST) { nodes { name } } }"""
    )
    assert answer == {
        "data": {
            "groups": {
                "totalCount": 10,
                "nodes": [
                    {"type": "ETF", "name": "BIG"},
                    {"type": "CUSTOM", "name": "Energy"},
                    {"type": "ETF", "name": "MIXED"},
                    {"type": "ETF", "name": "TECH"},
                    {"type": "THEME", "name": "chips"},
                    {"type": "SECTOR", "name": "energy"},
                    {"type": "SECTOR", "name": "financials"},
                    {"type": "SECTOR", "name": "information_technology"},
                    {"type": "SEGMENT", "name": "nothing yet"},
                    {"type": "UNIVERSE", "name": "top3"},
                ],
                "pageInfo": {"hasNextPage": False, "hasPreviousPage": False},
            },
            "test": {"nodes": [{"name": "BIG"}]},
        }
    }
    assert sorted(answer.statements) == sorted(["groups_by_name", "groups_by_name", "groups_count"])


async def test_groups_with_most_members_first(ask: Ask) -> None:
    answer = await ask(
        """{ groups(orderBy: MEMBER_COUNT_DESC, first: 3) { totalCount nodes { name memberCount } pageInfo { hasNextPage hasPreviousPage } } }"""
    )
    assert answer == {
        "data": {
            "groups": {
                "totalCount": 10,
                "nodes": [
                    {"name": "BIG", "memberCount": 5},
                    {"name": "MIXED", "memberCount": 4},
                    {"name": "TECH", "memberCount": 4},
                ],
                "pageInfo": {"hasNextPage": True, "hasPreviousPage": False},
            }
        }
    }
    assert sorted(answer.statements) == sorted(["groups_by_member_count", "groups_count", "member_counts"])


async def test_groups_are_filtered(ask: Ask) -> None:
    answer = await ask(
        """{ groups(search: "TECH") { nodes { name } totalCount } few: groups(minMembers: 1, maxMembers: 2) { nodes { name memberCount } totalCount }
  typed: groups(type: [THEME, ETF], minMembers: 3, orderBy: MEMBER_COUNT_DESC) { nodes { name } }
  percent: groups(search: "%") { nodes { name } } none: groups(type: []) { nodes { name } totalCount } }"""
    )
    assert answer == {
        "data": {
            "groups": {"nodes": [{"name": "TECH"}, {"name": "information_technology"}], "totalCount": 2},
            "few": {
                "nodes": [
                    {"name": "Energy", "memberCount": 1},
                    {"name": "chips", "memberCount": 2},
                    {"name": "energy", "memberCount": 2},
                    {"name": "financials", "memberCount": 2},
                ],
                "totalCount": 4,
            },
            "typed": {"nodes": [{"name": "BIG"}, {"name": "MIXED"}, {"name": "TECH"}]},
            "percent": {"nodes": []},
            "none": {"nodes": [], "totalCount": 0},
        }
    }
    assert sorted(answer.statements) == sorted(
        [
            "groups_by_name",
            "groups_by_name",
            "groups_by_member_count",
            "groups_by_name",
            "groups_by_name",
            "groups_count",
            "groups_count",
            "member_counts",
            "groups_count",
        ]
    )


async def test_exposure_is_what_lies_in_each_group_of_a_type_and_last_in_none(ask: Ask) -> None:
    answer = await ask(
        """{ big: group(name: "BIG") { exposure { group { name type } weight count } themes: exposure(by: THEME) { group { name } weight count } }
  mixed: group(name: "MIXED") { exposure(by: SECTOR) { group { name } weight count } } }"""
    )
    assert answer == {
        "data": {
            "big": {
                "exposure": [
                    {"group": {"name": "information_technology", "type": "SECTOR"}, "weight": 0.75, "count": 3},
                    {"group": {"name": "financials", "type": "SECTOR"}, "weight": 0.15, "count": 1},
                    {"group": {"name": "energy", "type": "SECTOR"}, "weight": 0.1, "count": 1},
                ],
                "themes": [
                    {"group": None, "weight": 0.8, "count": 4},
                    {"group": {"name": "chips"}, "weight": 0.2, "count": 1},
                ],
            },
            "mixed": {
                "exposure": [
                    {"group": {"name": "energy"}, "weight": 1.0, "count": 2},
                    {"group": {"name": "financials"}, "weight": None, "count": 1},
                    {"group": None, "weight": None, "count": 1},
                ]
            },
        }
    }
    assert sorted(answer.statements) == sorted(["groups_named", "exposures"])


async def test_an_empty_group_is_an_empty_list(live: Live) -> None:
    answer = await live.ask(
        """{ group(name: "nothing yet") { exposure { count } symbols memberCount totalWeight
  members { totalCount nodes { symbol } edges { cursor } pageInfo { startCursor endCursor hasNextPage hasPreviousPage } } } }"""
    )
    assert answer == {
        "data": {
            "group": {
                "exposure": [],
                "symbols": [],
                "memberCount": 0,
                "totalWeight": None,
                "members": {
                    "totalCount": 0,
                    "nodes": [],
                    "edges": [],
                    "pageInfo": {
                        "startCursor": None,
                        "endCursor": None,
                        "hasNextPage": False,
                        "hasPreviousPage": False,
                    },
                },
            }
        }
    }
    assert sorted(answer.statements) == sorted(
        ["groups_named", "exposures", "member_counts", "total_weights", "members_by_weight", "group_symbols"]
    )


async def test_the_statements_of_a_query_do_not_grow_with_its_width(live: Live) -> None:
    answer = await live.ask(
        """{ stocks(symbols: ["AAPL", "XOM", "JPM"]) { memberships { rank group { memberCount symbols members(first: 1) { totalCount nodes { symbol } } } } } }"""
    )
    assert answer == {
        "data": {
            "stocks": [
                {
                    "memberships": [
                        {
                            "rank": 2,
                            "group": {
                                "memberCount": 4,
                                "symbols": ["AAPL", "AMD", "MSFT", "NVDA"],
                                "members": {"totalCount": 4, "nodes": [{"symbol": "NVDA"}]},
                            },
                        },
                        {
                            "rank": 1,
                            "group": {
                                "memberCount": 5,
                                "symbols": ["AAPL", "JPM", "MSFT", "NVDA", "XOM"],
                                "members": {"totalCount": 5, "nodes": [{"symbol": "AAPL"}]},
                            },
                        },
                        {
                            "rank": 1,
                            "group": {
                                "memberCount": 4,
                                "symbols": ["AAPL", "AMD", "MSFT", "NVDA"],
                                "members": {"totalCount": 4, "nodes": [{"symbol": "AAPL"}]},
                            },
                        },
                        {
                            "rank": 1,
                            "group": {
                                "memberCount": 3,
                                "symbols": ["AAPL", "MSFT", "NVDA"],
                                "members": {"totalCount": 3, "nodes": [{"symbol": "AAPL"}]},
                            },
                        },
                    ]
                },
                {
                    "memberships": [
                        {
                            "rank": 2,
                            "group": {
                                "memberCount": 4,
                                "symbols": ["BRK.B", "CVX", "XOM", "ZZZ"],
                                "members": {"totalCount": 4, "nodes": [{"symbol": "CVX"}]},
                            },
                        },
                        {
                            "rank": 5,
                            "group": {
                                "memberCount": 5,
                                "symbols": ["AAPL", "JPM", "MSFT", "NVDA", "XOM"],
                                "members": {"totalCount": 5, "nodes": [{"symbol": "AAPL"}]},
                            },
                        },
                        {
                            "rank": 1,
                            "group": {
                                "memberCount": 1,
                                "symbols": ["XOM"],
                                "members": {"totalCount": 1, "nodes": [{"symbol": "XOM"}]},
                            },
                        },
                        {
                            "rank": 2,
                            "group": {
                                "memberCount": 2,
                                "symbols": ["CVX", "XOM"],
                                "members": {"totalCount": 2, "nodes": [{"symbol": "CVX"}]},
                            },
                        },
                    ]
                },
                {
                    "memberships": [
                        {
                            "rank": 4,
                            "group": {
                                "memberCount": 5,
                                "symbols": ["AAPL", "JPM", "MSFT", "NVDA", "XOM"],
                                "members": {"totalCount": 5, "nodes": [{"symbol": "AAPL"}]},
                            },
                        },
                        {
                            "rank": 2,
                            "group": {
                                "memberCount": 2,
                                "symbols": ["BRK.B", "JPM"],
                                "members": {"totalCount": 2, "nodes": [{"symbol": "BRK.B"}]},
                            },
                        },
                    ]
                },
            ]
        }
    }
    assert sorted(answer.statements) == sorted(
        ["stocks", "stock_memberships", "member_ranks", "member_counts", "members_by_weight", "group_symbols"]
    )


async def test_three_statements_from_a_stock_to_its_groups_members(ask: Ask) -> None:
    answer = await ask(
        """{ stock(symbol: "AAPL") { groups(type: ETF) { name members(first: 10) { nodes { weight stock { symbol } } } } } }"""
    )
    assert answer == {
        "data": {
            "stock": {
                "groups": [
                    {
                        "name": "TECH",
                        "members": {
                            "nodes": [
                                {"weight": 0.4, "stock": {"symbol": "NVDA"}},
                                {"weight": 0.35, "stock": {"symbol": "AAPL"}},
                                {"weight": 0.2, "stock": {"symbol": "MSFT"}},
                                {"weight": 0.05000001, "stock": {"symbol": "AMD"}},
                            ]
                        },
                    },
                    {
                        "name": "BIG",
                        "members": {
                            "nodes": [
                                {"weight": 0.3, "stock": {"symbol": "AAPL"}},
                                {"weight": 0.25, "stock": {"symbol": "MSFT"}},
                                {"weight": 0.2, "stock": {"symbol": "NVDA"}},
                                {"weight": 0.15, "stock": {"symbol": "JPM"}},
                                {"weight": 0.1, "stock": {"symbol": "XOM"}},
                            ]
                        },
                    },
                ]
            }
        }
    }
    assert sorted(answer.statements) == sorted(["stocks", "stock_memberships", "members_by_weight"])


async def test_a_node_is_found_by_the_id_that_it_gave(ask: Ask) -> None:
    given = await ask('{ group(name: "BIG", environment: TEST) { id } stock(symbol: "BRK.B") { id } }')
    ids = {name: value["id"] for name, value in given["data"].items()}
    answer = await ask(
        """query ($group: ID!, $stock: ID!) {
             a: node(id: $group) { __typename id ... on Group { environment description } }
             b: node(id: $stock) { __typename id ... on Stock { symbol } } }""",
        **ids,
    )
    assert answer == {
        "data": {
            "a": {
                "__typename": "Group",
                "id": ids["group"],
                "environment": "TEST",
                "description": "The same name elsewhere",
            },
            "b": {"__typename": "Stock", "id": ids["stock"], "symbol": "BRK.B"},
        }
    }
    assert sorted(answer.statements) == ["groups_by_id", "stocks"]


@pytest.mark.parametrize(
    "parts",
    [
        ["Group", "DEFAULT", 99],
        ["Group", "TEST", 1],
        ["Group", "DEFAULT", 2**40],
        ["Group", "DEFAULT", "1"],
        ["Stock", "DEFAULT", "NOPE"],
        ["Membership", "DEFAULT", 1],
        ["Stock", "ELSEWHERE", "AAPL"],
        ["Stock", ["DEFAULT"], "AAPL"],
        {"Group": 1},
    ],
)
async def test_an_id_of_nothing_is_null(ask: Ask, parts: object) -> None:
    written = base64.urlsafe_b64encode(orjson.dumps(parts)).decode()
    assert await ask("query ($id: ID!) { node(id: $id) { id } }", id=written) == {"data": {"node": None}}


@pytest.mark.parametrize("written", ["", "x", "é", "AAAA", "\0"])
async def test_what_is_no_id_is_null(ask: Ask, written: str) -> None:
    assert await ask("query ($id: ID!) { node(id: $id) { id } }", id=written) == {"data": {"node": None}}


async def test_a_text_that_no_database_can_hold_is_the_askers_mistake(ask: Ask) -> None:
    answer = await ask("query ($name: String!) { group(name: $name) { id } }", name="a\0b")
    assert answer.without_locations() == {
        "data": {"group": None},
        "errors": [
            {
                "message": "A text holds a character that no database text can hold.",
                "path": ["group"],
                "extensions": {"code": "INVALID_ARGUMENT"},
            }
        ],
    }


async def test_too_many_symbols_at_once_are_refused(ask: Ask) -> None:
    answer = await ask("query ($symbols: [String!]!) { stocks(symbols: $symbols) { symbol } }", symbols=["A"] * 5_001)
    assert answer.without_locations()["errors"] == [
        {
            "message": "symbols: 5,001 are more than 5,000; ask for fewer at a time.",
            "path": ["stocks"],
            "extensions": {"code": "INVALID_ARGUMENT"},
        }
    ]


async def test_a_symbol_in_mixed_case_is_found_whatever_the_case(live: Live) -> None:
    await live.writer.execute("INSERT INTO group_memberships (group_id, symbol) VALUES (1, 'ABCpD'), (1, 'abcpd')")
    answer = await live.ask('{ a: stock(symbol: "ABCPD") { symbol } b: stock(symbol: "abcpd") { symbol } }')
    assert answer == {"data": {"a": {"symbol": "ABCpD"}, "b": {"symbol": "abcpd"}}}


async def test_timestamps_are_read_in_the_zone_that_the_settings_name(market_url: str) -> None:
    async with open_runtime(Settings(database_url=market_url, time_zone="America/New_York"), listen=False) as runtime:
        answer = await asker(runtime)('{ group(name: "BIG") { createdAt lastUpdate } }')
    assert answer == {"data": {"group": {"createdAt": "2026-01-01T15:00:00Z", "lastUpdate": None}}}


async def test_a_query_over_the_budget_of_objects_is_refused(live: Live) -> None:
    await live.writer.execute(
        "INSERT INTO group_memberships (group_id, symbol) SELECT 10, 'S' || n FROM generate_series(1, 2000) AS n"
    )
    nested = "members { nodes { stock { groups { members { nodes { symbol } } } } } }"
    answer = await live.ask(f'{{ group(name: "nothing yet") {{ {nested} }} }}')
    assert {error["message"] for error in answer["errors"]} == {
        "The answer would hold more than 100,000 objects; ask for fewer at a time with `first`."
    }
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"LIMIT_EXCEEDED"}
    assert answer["data"] == {"group": None}


async def test_a_weight_that_is_no_number_is_not_known(live: Live) -> None:
    await live.writer.execute("UPDATE group_memberships SET weight = 'NaN' WHERE symbol = 'XOM' AND group_id = 3")
    answer = await live.ask(
        '{ group(name: "MIXED") { totalWeight members(orderBy: SYMBOL_ASC) { nodes { symbol weight } } } }'
    )
    assert answer["data"]["group"] == {
        "totalWeight": 0.5,
        "members": {
            "nodes": [
                {"symbol": "BRK.B", "weight": None},
                {"symbol": "CVX", "weight": 0.5},
                {"symbol": "XOM", "weight": None},
                {"symbol": "ZZZ", "weight": None},
            ]
        },
    }


async def test_an_error_leaves_others_that_wait_for_the_same_rows(ask: Ask) -> None:
    """graphql-core cancels what stands beside an error, which must not take from others what they wait for as well."""
    wrong = 'group(name: "BIG") { members(first: -1) { totalCount } memberCount totalWeight }'
    for query in (
        f'{{ a: {wrong} b: group(name: "BIG") {{ memberCount totalWeight }} }}',
        f'{{ b: group(name: "BIG") {{ memberCount totalWeight }} a: {wrong} }}',
        f'{{ a: {wrong} b: group(name: "big") {{ memberCount totalWeight }} s: stocks(symbols: ["AAPL"]) {{ name }} t: {wrong} }}',
    ):
        answer = await ask(query)
        assert (answer["data"]["a"], answer["data"]["b"]) == (None, {"memberCount": 5, "totalWeight": 1.0})
        assert {error["extensions"]["code"] for error in answer["errors"]} == {"INVALID_ARGUMENT"}
