"""What serving.py measures the server against, each an application of its own.

`one_statement` answers each query with one statement written by hand, `kept_bytes` with the bytes that it sent for the
same query string before, and `plain_strawberry` answers GraphQL as Strawberry's documentation teaches, with data loaders.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from itertools import groupby
from typing import Any

import asyncpg
import orjson
import strawberry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from strawberry.asgi import GraphQL
from strawberry.dataloader import DataLoader

Rows = Sequence[asyncpg.Record]
Variables = dict[str, str]

POOL_SIZE = 10
MEMBERS = """
    SELECT m.symbol, m.weight::float8 AS weight
    FROM definition_groups AS g JOIN group_memberships AS m ON m.group_id = g.id
    WHERE g.name = $1 AND g.type = 'ETF' AND g.environment = 'DEFAULT'
    ORDER BY m.weight DESC NULLS LAST, m.symbol COLLATE "C"
"""
STATEMENTS = {
    "Q1": MEMBERS,
    "Q2": """
        SELECT g.name, g.description, m.weight::float8 AS weight
        FROM group_memberships AS m JOIN definition_groups AS g ON g.id = m.group_id
        WHERE m.symbol = $1 AND g.type = 'ETF' AND g.environment = 'DEFAULT'
        ORDER BY m.weight DESC NULLS LAST, g.name COLLATE "C"
    """,
    "Q3": f"""
        WITH page AS MATERIALIZED ({MEMBERS} LIMIT 10)
        SELECT page.symbol, page.weight,
               array_agg(g.name ORDER BY m.weight DESC NULLS LAST, g.name COLLATE "C") AS names
        FROM page JOIN group_memberships AS m ON m.symbol = page.symbol JOIN definition_groups AS g ON g.id = m.group_id
        WHERE g.type = 'ETF' AND g.environment = 'DEFAULT'
        GROUP BY page.symbol, page.weight
        ORDER BY page.weight DESC NULLS LAST, page.symbol COLLATE "C"
    """,
    "Q4": """
        SELECT g.name, (SELECT count(*) FROM group_memberships AS m WHERE m.group_id = g.id) AS count
        FROM definition_groups AS g WHERE g.type = 'SECTOR' AND g.environment = 'DEFAULT' ORDER BY g.name COLLATE "C"
    """,
    "Q5": """
        SELECT m.symbol, m.weight::float8 AS weight, sector.name
        FROM definition_groups AS g JOIN group_memberships AS m ON m.group_id = g.id
        LEFT JOIN (
            SELECT s.symbol, g.name FROM definition_groups AS g JOIN group_memberships AS s ON s.group_id = g.id
            WHERE g.type = 'SECTOR' AND g.environment = 'DEFAULT'
        ) AS sector ON sector.symbol = m.symbol
        WHERE g.name = $1 AND g.type = 'ETF' AND g.environment = 'DEFAULT'
        ORDER BY m.weight DESC NULLS LAST, m.symbol COLLATE "C"
    """,
    "Q6": f"""
        SELECT * FROM (
            SELECT 's' || k.ordinal AS part, NULL AS symbol, g.name, g.description, m.weight::float8 AS weight,
                   NULL::bigint AS count
            FROM unnest($2::text[]) WITH ORDINALITY AS k (symbol, ordinal)
            JOIN group_memberships AS m ON m.symbol = k.symbol JOIN definition_groups AS g ON g.id = m.group_id
            WHERE g.type = 'ETF' AND g.environment = 'DEFAULT'
            UNION ALL
            SELECT 'sectors', NULL, g.name, NULL, NULL, (SELECT count(*) FROM group_memberships AS m WHERE m.group_id = g.id)
            FROM definition_groups AS g WHERE g.type = 'SECTOR' AND g.environment = 'DEFAULT'
            UNION ALL
            SELECT 'page', symbol, NULL, NULL, weight, NULL FROM ({MEMBERS} LIMIT 30) AS page
        ) AS parts ORDER BY part, weight DESC NULLS LAST, symbol COLLATE "C", name COLLATE "C"
    """,
}


def weighted(rows: Iterable[asyncpg.Record]) -> dict[str, Any]:
    """Shape the members of a group."""
    return {"members": {"nodes": [{"symbol": row["symbol"], "weight": row["weight"]} for row in rows]}}


def holders(rows: Iterable[asyncpg.Record]) -> dict[str, Any]:
    """Shape the memberships of a stock."""
    groups = (({"name": row["name"], "description": row["description"]}, row["weight"]) for row in rows)
    return {"memberships": [{"group": group, "weight": weight} for group, weight in groups]}


def page(rows: Rows) -> dict[str, Any]:
    """Shape members, each with the names of its funds."""
    stocks = ({"symbol": row["symbol"], "groups": [{"name": name} for name in row["names"]]} for row in rows)
    return {
        "members": {
            "nodes": [{"weight": row["weight"], "stock": stock} for row, stock in zip(rows, stocks, strict=True)]
        }
    }


def sectors(rows: Iterable[asyncpg.Record]) -> dict[str, Any]:
    """Shape the sectors."""
    return {"nodes": [{"name": row["name"], "memberCount": row["count"]} for row in rows]}


def attribution(rows: Rows) -> dict[str, Any]:
    """Shape members, each with its sector."""
    nodes = [
        {"symbol": symbol, "weight": weight, "stock": {"groups": [] if sector is None else [{"name": sector}]}}
        for symbol, weight, sector in rows
    ]
    return {"members": {"nodes": nodes}}


def dashboard(rows: Rows) -> dict[str, Any]:
    """Shape all that one page of a dashboard shows."""
    parts = {part: list(each) for part, each in groupby(rows, lambda row: row["part"])}
    stocks = {f"s{n}": holders(parts.get(f"s{n}", ())) for n in range(1, 6)}
    return stocks | {"sectors": sectors(parts["sectors"]), "page": weighted(parts["page"])}


SHAPES: dict[str, Callable[[Rows], dict[str, Any]]] = {
    "Q1": lambda rows: {"group": weighted(rows)},
    "Q2": lambda rows: {"stock": holders(rows)},
    "Q3": lambda rows: {"group": page(rows)},
    "Q4": lambda rows: {"groups": sectors(rows)},
    "Q5": lambda rows: {"group": attribution(rows)},
    "Q6": dashboard,
}


async def left_as_found(_: Any) -> None:
    """Spare a connection the round trip that sets it back: these statements change nothing of it."""


async def ready(_: Request) -> Response:
    """It serves."""
    return PlainTextResponse("ok\n")


def application(pool: "asyncpg.Pool[asyncpg.Record]", endpoint: Any) -> Starlette:
    """Make an application of what answers /graphql."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with pool:
            yield

    route = Route("/graphql", endpoint, methods=None if isinstance(endpoint, GraphQL) else ["POST"])
    return Starlette(lifespan=lifespan, routes=[route, Route("/readyz", ready)])


def floor() -> tuple["asyncpg.Pool[asyncpg.Record]", Callable[[Request], Awaitable[bytes]]]:
    """Make a pool and what answers a request with one statement, by the name that begins its query string."""
    pool = asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=POOL_SIZE, max_size=POOL_SIZE, reset=left_as_found)

    async def answer(request: Request) -> bytes:
        name = request.scope["query_string"][:2].decode()
        variables: Variables = orjson.loads(await request.body())["variables"]
        arguments: Sequence[Any] = tuple(variables.values())
        if name == "Q6":
            arguments = variables["name"], [variables[f"s{n}"] for n in range(1, 6)]
        return orjson.dumps({"data": SHAPES[name](await pool.fetch(STATEMENTS[name], *arguments))})

    return pool, answer


def one_statement() -> Starlette:
    """Make the floor that asks the database each time."""
    pool, answer = floor()

    async def endpoint(request: Request) -> Response:
        return Response(await answer(request), media_type="application/json")

    return application(pool, endpoint)


def kept_bytes() -> Starlette:
    """Make the floor that asks once for each query string, and does not even read the body afterwards."""
    pool, answer = floor()
    answers: dict[bytes, bytes] = {}

    async def endpoint(request: Request) -> Response:
        asked = request.scope["query_string"]
        if asked not in answers:
            answers[asked] = await answer(request)
        return Response(answers[asked], media_type="application/json")

    return application(pool, endpoint)


Info = strawberry.Info[dict[str, Any], None]


@strawberry.enum
class GroupType(Enum):
    ETF = "ETF"
    THEME = "THEME"
    SECTOR = "SECTOR"


@strawberry.type
class Stock:
    symbol: str

    @strawberry.field
    async def memberships(self, info: Info, type: GroupType) -> list["Membership"]:
        rows = await info.context["memberships"].load((self.symbol, type.value))
        return [Membership(symbol=self.symbol, weight=row["weight"], group=Group.of(row), stock=self) for row in rows]

    @strawberry.field
    async def groups(self, info: Info, type: GroupType) -> list["Group"]:
        return [Group.of(row) for row in await info.context["memberships"].load((self.symbol, type.value))]


@strawberry.type
class Membership:
    symbol: str
    weight: float | None
    group: "Group"
    stock: Stock


@strawberry.type
class Members:
    nodes: list[Membership]


@strawberry.type
class Group:
    key: strawberry.Private[int]
    name: str
    description: str | None

    @classmethod
    def of(cls, row: asyncpg.Record) -> "Group":
        return cls(key=row["id"], name=row["name"], description=row["description"])

    @strawberry.field
    async def member_count(self, info: Info) -> int:
        (row,) = await info.context["counts"].load((self.key,))
        return int(row["count"])

    @strawberry.field
    async def members(self, info: Info, first: int | None = None) -> Members:
        rows = await info.context["members"].load((self.key, first))
        return Members(
            nodes=[
                Membership(symbol=row["symbol"], weight=row["weight"], group=self, stock=Stock(symbol=row["symbol"]))
                for row in rows
            ]
        )


@strawberry.type
class Groups:
    nodes: list[Group]


@strawberry.type
class Query:
    @strawberry.field
    async def group(self, info: Info, name: str, type: GroupType) -> Group | None:
        rows = await info.context["groups"].load((name, type.value))
        return Group.of(rows[0]) if rows else None

    @strawberry.field
    async def groups(self, info: Info, type: GroupType) -> Groups:
        return Groups(nodes=[Group.of(row) for row in await info.context["groups"].load((None, type.value))])

    @strawberry.field
    async def stock(self, symbol: str) -> Stock:
        return Stock(symbol=symbol)


LOADERS = {
    "groups": """
        SELECT k.ordinal, g.id, g.name, g.description
        FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (name, type, ordinal)
        JOIN definition_groups AS g ON (k.name IS NULL OR g.name = k.name) AND g.type = k.type
        WHERE g.environment = 'DEFAULT' ORDER BY k.ordinal, g.name COLLATE "C"
    """,
    "members": """
        SELECT k.ordinal, m.symbol, m.weight
        FROM unnest($1::integer[], $2::integer[]) WITH ORDINALITY AS k (id, first, ordinal)
        CROSS JOIN LATERAL (
            SELECT m.symbol, m.weight::float8 AS weight FROM group_memberships AS m WHERE m.group_id = k.id
            ORDER BY m.weight DESC NULLS LAST, m.symbol COLLATE "C" LIMIT k.first
        ) AS m ORDER BY k.ordinal, m.weight DESC NULLS LAST, m.symbol COLLATE "C"
    """,
    "memberships": """
        SELECT k.ordinal, m.weight::float8 AS weight, g.id, g.name, g.description
        FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (symbol, type, ordinal)
        JOIN group_memberships AS m ON m.symbol = k.symbol
        JOIN definition_groups AS g ON g.id = m.group_id AND g.type = k.type AND g.environment = 'DEFAULT'
        ORDER BY k.ordinal, m.weight DESC NULLS LAST, g.name COLLATE "C"
    """,
    "counts": """
        SELECT k.ordinal, (SELECT count(*) FROM group_memberships AS m WHERE m.group_id = k.id) AS count
        FROM unnest($1::integer[]) WITH ORDINALITY AS k (id, ordinal)
    """,
}
"""What each data loader asks for all its keys at once; `ordinal` is the place of a row's key."""


def plain_strawberry() -> Starlette:
    """Make the server that one gets by following the documentation."""
    pool = asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=POOL_SIZE, max_size=POOL_SIZE)

    def loader(statement: str) -> DataLoader[tuple[Any, ...], list[asyncpg.Record]]:
        async def load(keys: list[tuple[Any, ...]]) -> list[list[asyncpg.Record]]:
            loaded: list[list[asyncpg.Record]] = [[] for _ in keys]
            for row in await pool.fetch(statement, *map(list, zip(*keys, strict=True))):
                loaded[row["ordinal"] - 1].append(row)
            return loaded

        return DataLoader(load_fn=load)

    class Endpoint(GraphQL[dict[str, Any], None]):
        async def get_context(self, request: Any, response: Any) -> dict[str, Any]:  # noqa: ARG002
            return {name: loader(statement) for name, statement in LOADERS.items()}

    return application(pool, Endpoint(strawberry.Schema(query=Query)))
