"""The application as its clients meet it: its addresses, and the queries every user runs."""

import asyncio
import json
import time
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest
from conftest import Databases, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graph.app import create_app
from graph.settings import Settings


def ask(site: str, query: str) -> dict[str, object]:
    response = httpx2.post(f"{site}/graphql", json={"query": query})
    answer: dict[str, object] = response.json()
    assert response.status_code == 200, answer
    assert "errors" not in answer, answer
    return answer["data"]


def test_the_process_lives_and_can_answer(site_url: str) -> None:
    alive = httpx2.get(f"{site_url}/healthz")
    assert (alive.status_code, alive.text) == (200, "ok\n")
    ready = httpx2.get(f"{site_url}/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True})
    assert httpx2.get(f"{site_url}/elsewhere").status_code == 404


def test_a_browser_gets_graphiql(site_url: str) -> None:
    page = httpx2.get(f"{site_url}/graphql", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<title>stockgraph</title>" in page.text


def test_the_universe_of_three(site_url: str) -> None:
    data = ask(
        site_url,
        '{ a: universe(key: "SPY:QQQ:dow30") { key size } b: universe(key: " DOW30 :qqq: spy") { key size symbols } }',
    )
    assert data["a"] == {"key": "QQQ:SPY:dow30", "size": 518}
    assert data["b"]["size"] == len(data["b"]["symbols"]) == 518


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (
            '{ group(name: "SPY", type: ETF) { memberCount members(first: 2) { nodes { weight stock { symbol name } } } } }',
            {
                "group": {
                    "memberCount": 503,
                    "members": {
                        "nodes": [
                            {"weight": None, "stock": {"symbol": "A", "name": "Agilent Technologies"}},
                            {"weight": None, "stock": {"symbol": "AAPL", "name": "Apple Inc."}},
                        ]
                    },
                }
            },
        ),
        (
            '{ stock(symbol: "AAPL") { memberships(type: ETF) { weight group { name } } } }',
            {
                "stock": {
                    "memberships": [
                        {"weight": 0.03333333, "group": {"name": "EDOW"}},
                        {"weight": 0.01351351, "group": {"name": "RSPT"}},
                        {"weight": 0.00970874, "group": {"name": "QQQE"}},
                        {"weight": 0.00198807, "group": {"name": "RSP"}},
                        {"weight": None, "group": {"name": "DIA"}},
                        {"weight": None, "group": {"name": "QQQ"}},
                        {"weight": None, "group": {"name": "SPY"}},
                    ]
                }
            },
        ),
        (
            '{ stock(symbol: "AAPL") { sector { name } industry groups(type: UNIVERSE) { name type } } }',
            {
                "stock": {
                    "sector": {"name": "information_technology"},
                    "industry": "Technology Hardware, Storage & Peripherals",
                    "groups": [
                        {"name": "dow30", "type": "UNIVERSE"},
                        {"name": "nasdaq100", "type": "UNIVERSE"},
                        {"name": "sp500", "type": "UNIVERSE"},
                    ],
                }
            },
        ),
        (
            "{ groups(type: SECTOR, orderBy: MEMBER_COUNT_DESC, first: 3) { nodes { name memberCount } } }",
            {
                "groups": {
                    "nodes": [
                        {"name": "financials", "memberCount": 263},
                        {"name": "industrials", "memberCount": 258},
                        {"name": "consumer_discretionary", "memberCount": 195},
                    ]
                }
            },
        ),
        (
            '{ group(name: "EDOW", type: ETF) { exposure(by: SECTOR) { group { name } weight count } } }',
            {
                "group": {
                    "exposure": [
                        {"group": {"name": name}, "weight": weight, "count": count}
                        for name, weight, count in (
                            ("information_technology", 0.19999998, 6),
                            ("financials", 0.16666665, 5),
                            ("consumer_discretionary", 0.13333332, 4),
                            ("health_care", 0.13333332, 4),
                            ("industrials", 0.13333332, 4),
                        )
                    ]
                }
            },
        ),
    ],
)
def test_the_queries_every_user_runs(site_url: str, query: str, expected: dict[str, object]) -> None:
    data = ask(site_url, query)
    if "exposure" in query:
        data["group"]["exposure"] = data["group"]["exposure"][:5]
    assert data == expected


def test_the_page_that_every_user_runs(site_url: str) -> None:
    query = """{ group(name: "SPY", type: ETF) { members(first: 10) { pageInfo { endCursor hasNextPage }
                 nodes { weight stock { symbol groups(type: ETF) { name } } } } } }"""
    page = ask(site_url, query)["group"]["members"]
    assert page["pageInfo"]["hasNextPage"] is True
    assert [node["stock"]["symbol"] for node in page["nodes"]] == [
        "A", "AAPL", "ABBV", "ABNB", "ABT", "ACGL", "ACN", "ADBE", "ADI", "ADM",
    ]  # fmt: skip
    assert [group["name"] for group in page["nodes"][0]["stock"]["groups"]] == ["RSPH", "RSP", "SPY"]


@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.sampled_from(["query", "variables", "operationName", "extensions", "k"]), inner)
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_whatsoever_is_the_servers_fault(site_url: str, body: bytes) -> None:
    response = httpx2.post(f"{site_url}/graphql", content=body, headers={"content-type": "application/json"})
    answer = response.json()
    assert response.status_code in {200, 400}
    assert answer.keys() <= {"data", "errors"}


@pytest.mark.parametrize(
    "variables",
    [
        {"key": "\0"},
        {"key": "\ud800"},
        {"key": "x" * 300_000},
        {"key": 1},
        {"key": None},
        {},
        {"key": ["SPY"]},
        {"key": {"a": 1}},
    ],
)
def test_no_variable_is_the_servers_fault(site_url: str, variables: dict[str, object]) -> None:
    query = "query ($key: String!) { universe(key: $key) { size } group(name: $key) { id } stock(symbol: $key) { id } search(text: $key) { __typename } }"
    answer = httpx2.post(
        f"{site_url}/graphql",
        content=json.dumps({"query": query, "variables": variables}),
        headers={"content-type": "application/json"},
    ).json()
    codes = {error["extensions"]["code"] for error in answer.get("errors", [])}
    assert codes <= {"INVALID_ARGUMENT", "INVALID_KEY", "UNKNOWN_GROUP", "LIMIT_EXCEEDED", "BAD_REQUEST"}
    assert codes


async def test_a_database_without_tables_is_not_ready_and_is_told_what_makes_them(bare_url: str) -> None:
    with serving(create_app(Settings(database_url=bare_url))) as site:
        async with httpx2.AsyncClient() as client:
            ready = await client.get(f"{site}/readyz")
            assert (ready.status_code, ready.json()) == (
                503,
                {"ready": False, "reason": "The database lacks tables; `stockgraph init` makes what is missing."},
            )
            answer = await client.post(f"{site}/graphql", json={"query": "{ groups { nodes { name } } }"})
    assert [error["extensions"]["code"] for error in answer.json()["errors"]] == ["DATABASE_UNAVAILABLE"]
    assert "`stockgraph init` makes what is missing" in answer.json()["errors"][0]["message"]


async def test_a_server_may_start_before_its_database(market_url: str, databases: Databases) -> None:
    name = urlsplit(market_url).path[1:]
    await databases.run(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    with serving(create_app(Settings(database_url=market_url))) as site:
        async with httpx2.AsyncClient() as client:
            ready = await client.get(f"{site}/readyz")
            assert ready.status_code == 503
            assert ready.json()["reason"].startswith("The database takes no connection: ")
            refused = (await client.post(f"{site}/graphql", json={"query": '{ stock(symbol: "A") { id } }'})).json()
            assert [error["extensions"]["code"] for error in refused["errors"]] == ["DATABASE_UNAVAILABLE"]
            await databases.run(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
            deadline = time.monotonic() + 10
            while (await client.get(f"{site}/readyz")).status_code != 200:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            answer = await client.post(f"{site}/graphql", json={"query": '{ universe(key: "top3") { symbols } }'})
    assert answer.json() == {"data": {"universe": {"symbols": ["AAPL", "MSFT", "NVDA"]}}}


async def test_a_statement_that_waits_too_long_is_an_error(market_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.postgres.database.STATEMENT_SECONDS", 0.3)
    locker = await asyncpg.connect(market_url)
    with serving(create_app(Settings(database_url=market_url))) as site:
        async with httpx2.AsyncClient() as client, locker.transaction():
            await locker.execute("LOCK TABLE group_memberships")
            answer = (await client.post(f"{site}/graphql", json={"query": '{ stock(symbol: "QQ") { id } }'})).json()
    await locker.close()
    assert "data" not in answer
    assert [(error["message"], error["extensions"]["code"]) for error in answer["errors"]] == [
        ("The database did not answer in time; try again.", "DATABASE_UNAVAILABLE")
    ]
