"""Universes over the graph: keys to symbols, in one cache entry however they are written."""

from conftest import Ask, Live, wrong_part

from graph.api.nodes import UNIVERSES


async def test_a_union_has_each_symbol_once_and_a_canonical_key(ask: Ask) -> None:
    answer = await ask("""{ universe(key: "tech:BIG:top3") { key size symbols groups { name } } }""")
    assert answer == {
        "data": {
            "universe": {
                "key": "BIG:TECH:top3",
                "size": 6,
                "symbols": ["AAPL", "AMD", "JPM", "MSFT", "NVDA", "XOM"],
                "groups": [{"name": "BIG"}, {"name": "TECH"}, {"name": "top3"}],
            }
        }
    }


async def test_a_key_takes_what_is_in_all_and_leaves_out_what_is_in_another(ask: Ask) -> None:
    answer = await ask("""{ universe(key: "BIG&TECH-chips") { key symbols } }""")
    assert answer == {"data": {"universe": {"key": "BIG&TECH-chips", "symbols": ["AAPL", "MSFT"]}}}


async def test_a_type_tells_two_groups_of_one_name_apart(ask: Ask) -> None:
    answer = await ask("""{ universe(key: "custom/energy:chips") { key symbols groups { type name } } }""")
    assert answer == {
        "data": {
            "universe": {
                "key": "CUSTOM/Energy:chips",
                "symbols": ["AMD", "NVDA", "XOM"],
                "groups": [{"type": "CUSTOM", "name": "Energy"}, {"type": "THEME", "name": "chips"}],
            }
        }
    }


async def test_an_empty_group_is_an_empty_universe(ask: Ask) -> None:
    answer = await ask(
        """{ universe(key: "\\"nothing yet\\"") { key size symbols groups { name } stocks { totalCount nodes { symbol } } } }"""
    )
    assert answer == {
        "data": {
            "universe": {
                "key": '"nothing yet"',
                "size": 0,
                "symbols": [],
                "groups": [{"name": "nothing yet"}],
                "stocks": {"totalCount": 0, "nodes": []},
            }
        }
    }


async def test_an_environment_has_universes_of_its_own(ask: Ask) -> None:
    answer = await ask(
        """{ universe(key: "BIG", environment: TEST) { key symbols groups { description environment } stocks { nodes { symbol groups { name } } } } }"""
    )
    assert answer == {
        "data": {
            "universe": {
                "key": "BIG",
                "symbols": ["AAPL"],
                "groups": [{"description": "The same name elsewhere", "environment": "TEST"}],
                "stocks": {"nodes": [{"symbol": "AAPL", "groups": [{"name": "BIG"}]}]},
            }
        }
    }


async def test_stocks_come_by_page(ask: Ask) -> None:
    answer = await ask(
        """{ universe(key: "TECH") { stocks(first: 2) { totalCount nodes { symbol name } pageInfo { hasNextPage hasPreviousPage } } } }"""
    )
    assert answer == {
        "data": {
            "universe": {
                "stocks": {
                    "totalCount": 4,
                    "nodes": [
                        {"symbol": "AAPL", "name": "Apple Inc."},
                        {"symbol": "AMD", "name": "Advanced Micro Devices"},
                    ],
                    "pageInfo": {"hasNextPage": True, "hasPreviousPage": False},
                }
            }
        }
    }


async def test_an_unknown_part_is_named_with_near_matches_and_never_left_out(ask: Ask) -> None:
    answer = await ask("""{ universe(key: "BIG:TECHS") { size } }""")
    assert answer.without_locations() == {
        "data": {"universe": None},
        "errors": [
            {
                "message": "There is no group TECHS; did you mean TECH or chips?",
                "path": ["universe"],
                "extensions": wrong_part("UNKNOWN_GROUP", 5, "TECHS", near=["TECH", "chips"]),
            }
        ],
    }


async def test_an_unknown_part_near_to_nothing(ask: Ask) -> None:
    answer = await ask("""{ universe(key: "BIG:Frühstück") { size } }""")
    assert answer.without_locations() == {
        "data": {"universe": None},
        "errors": [
            {
                "message": "There is no group Frühstück; `groups` lists those there are.",
                "path": ["universe"],
                "extensions": wrong_part("UNKNOWN_GROUP", 5, "Frühstück", near=[]),
            }
        ],
    }


async def test_an_unknown_part_of_another_type(ask: Ask) -> None:
    answer = await ask("""{ universe(key: "ETF/chips") { size } }""")
    assert answer.without_locations() == {
        "data": {"universe": None},
        "errors": [
            {
                "message": "There is no group ETF/chips; did you mean THEME/chips?",
                "path": ["universe"],
                "extensions": wrong_part("UNKNOWN_GROUP", 1, "ETF/chips", near=["THEME/chips"]),
            }
        ],
    }


async def test_an_ambiguous_part_is_told_with_its_candidates(ask: Ask) -> None:
    answer = await ask("""{ universe(key: "BIG:energy") { size } }""")
    assert answer.without_locations() == {
        "data": {"universe": None},
        "errors": [
            {
                "message": "'energy' may be CUSTOM/Energy or SECTOR/energy; name one of them.",
                "path": ["universe"],
                "extensions": wrong_part("AMBIGUOUS_GROUP", 5, "energy", candidates=["CUSTOM/Energy", "SECTOR/energy"]),
            }
        ],
    }


async def test_a_broken_key_is_told_where(ask: Ask) -> None:
    answer = await ask("""{ universe(key: "BIG:") { size } }""")
    assert answer.without_locations() == {
        "data": {"universe": None},
        "errors": [
            {
                "message": "The key 'BIG:' misses a group's name (at character 5).",
                "path": ["universe"],
                "extensions": {
                    "code": "INVALID_KEY",
                    "position": 5,
                    "length": 0,
                    "parts": [{"code": "INVALID_KEY", "position": 5, "length": 0}],
                },
            }
        ],
    }


async def test_one_set_is_one_cache_entry_however_it_is_written(live: Live) -> None:
    first = await live.ask('{ universe(key: "BIG:TECH") { key symbols } }')
    before = live.runtime.stats(UNIVERSES)
    for key in ["tech:big", " BIG :\tTECH ", "BIG:TECH:big", "(TECH):(BIG)", "etf/BIG:TECH"]:
        again = await live.ask("query ($key: String!) { universe(key: $key) { key symbols } }", key=key)
        assert (again, again.statements) == (first, [])
    after = live.runtime.stats(UNIVERSES)
    assert (after.entries, after.hits, after.misses) == (1, before.hits + 5, before.misses)


async def test_a_groups_symbols_are_the_universe_of_its_name(live: Live) -> None:
    assert (await live.ask('{ group(name: "TECH") { symbols } }')).statements == ["groups_named", "group_symbols"]
    answer = await live.ask('{ universe(key: "TECH") { symbols } }')
    assert answer == {"data": {"universe": {"symbols": ["AAPL", "AMD", "MSFT", "NVDA"]}}}
    assert answer.statements == ["group_names"]


async def test_a_page_goes_on_after_a_cursor_and_a_cursor_belongs_to_its_list(live: Live) -> None:
    page = "universe(key: $key) { stocks(first: 2, after: $after) { nodes { symbol } pageInfo { endCursor hasPreviousPage } } }"
    query = f"query ($key: String!, $after: String) {{ {page} }}"
    first = await live.ask(query, key="TECH")
    cursor = first["data"]["universe"]["stocks"]["pageInfo"]["endCursor"]
    # what is added before the cursor moves nothing
    await live.writer.execute("INSERT INTO group_memberships (group_id, symbol) VALUES (2, 'AAB')")
    second = await live.ask(query, key="TECH", after=cursor)
    assert [node["symbol"] for node in second["data"]["universe"]["stocks"]["nodes"]] == ["MSFT", "NVDA"]
    assert second["data"]["universe"]["stocks"]["pageInfo"]["hasPreviousPage"] is True
    other = await live.ask(query, key="BIG", after=cursor)
    assert other["errors"][0]["extensions"] == {"code": "BAD_CURSOR"}
