"""Mutations run once, each field of the root in a transaction of its own."""

from urllib.parse import quote

import asyncpg
import orjson
import pytest
import strawberry
from conftest import Live
from starlette.responses import HTMLResponse

from graph.api.nodes import Group
from graph.errors import InvalidArgument
from graph.execution.operation import Info, Operation
from graph.http.endpoint import GraphQLEndpoint
from graph.schema import make_schema

runs: list[str] = []
writers: list["asyncpg.Connection[asyncpg.Record]"] = []
"""Somebody else, who commits a change between the reads of a mutation."""


@strawberry.type
class Writes:
    @strawberry.mutation
    async def describe(self, info: Info, name: str, text: str, fail: bool = False) -> Group | None:  # noqa: FBT001, FBT002
        runs.append(text)
        operation = info.context
        before = await operation.load_row("groups_named", name, operation.environment)
        assert before
        for writer in writers:
            await writer.execute("UPDATE symbols SET name = name || '!'")
        async with operation.writing() as connection:
            await connection.execute("UPDATE definition_groups SET description = $1 WHERE id = $2", text, before["id"])
        if fail:
            raise InvalidArgument("It was to fail.")
        after = await operation.load_row("groups_by_id", before["id"], operation.environment)
        return Group.of(after, None) if after else None

    @strawberry.mutation
    async def forbid(self, info: Info) -> bool | None:
        async with info.context.writing() as connection:
            await connection.execute("INSERT INTO forbidden DEFAULT VALUES")
        return True

    @strawberry.mutation
    async def lose(self, info: Info) -> bool | None:
        async with info.context.writing() as connection:
            await connection.execute("UPDATE symbols SET name = 'lost'")
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return True


SCHEMA = make_schema(Writes)


@pytest.fixture(autouse=True)
def nothing_run() -> None:
    runs.clear()
    writers.clear()


async def descriptions(live: Live) -> dict[str, str]:
    query = "SELECT name, description FROM definition_groups WHERE name IN ('BIG', 'TECH') AND environment = 'DEFAULT'"
    return dict(await live.writer.fetch(query))


async def mutate(live: Live, text: str) -> tuple[object, list[tuple[object, str]]]:
    result = await SCHEMA.execute(text, context_value=Operation(live.runtime))
    return result.data, [(error.path, error.message) for error in result.errors or ()]


async def test_a_mutation_runs_once_also_where_its_reads_are_of_several_generations(live: Live) -> None:
    writers.append(live.writer)
    found = await mutate(live, 'mutation { describe(name: "BIG", text: "large") { name description memberCount } }')
    assert found == ({"describe": {"name": "BIG", "description": "large", "memberCount": 5}}, [])
    assert runs == ["large"]
    assert (await descriptions(live))["BIG"] == "large"


async def test_it_runs_once_too_where_changes_are_not_counted(live: Live) -> None:
    await live.writer.execute("DROP TRIGGER data_change_update ON definition_groups")
    await live.runtime.generations.confirmed()
    await live.runtime.generations.confirmed()
    assert not live.runtime.generations.tracked
    assert (await mutate(live, 'mutation { describe(name: "BIG", text: "large") { description } }'))[1] == []
    assert (runs, (await descriptions(live))["BIG"]) == (["large"], "large")


async def test_each_field_is_a_transaction_which_its_own_errors_roll_back(live: Live) -> None:
    before = await descriptions(live)
    data, errors = await mutate(
        live,
        """mutation {
            a: describe(name: "BIG", text: "one") { description }
            b: describe(name: "BIG", text: "two", fail: true) { description }
            c: describe(name: "TECH", text: "three") { description members(first: -1) { totalCount } }
            d: describe(name: "BIG", text: "four") { description }
        }""",
    )
    assert data == {"a": {"description": "one"}, "b": None, "c": None, "d": {"description": "four"}}
    assert [path for path, _ in errors] == [["b"], ["c", "members"]]
    assert errors[0][1] == "It was to fail."
    assert runs == ["one", "two", "three", "four"]
    assert await descriptions(live) == {"BIG": "four", "TECH": before["TECH"]}


async def test_a_commit_that_fails_is_an_error_of_the_field(live: Live) -> None:
    await live.writer.execute("""
        CREATE TABLE forbidden (id serial PRIMARY KEY);
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not that'; END $$;
        CREATE CONSTRAINT TRIGGER refusing AFTER INSERT ON forbidden DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION refuse()
    """)
    data, errors = await mutate(live, 'mutation { forbid describe(name: "BIG", text: "large") { description } }')
    assert data == {"forbid": None, "describe": {"description": "large"}}
    assert [path for path, _ in errors] == [["forbid"]]


async def test_a_lost_connection_is_told_once_and_nothing_is_written(live: Live) -> None:
    result = await SCHEMA.execute("mutation { lose }", context_value=Operation(live.runtime))
    assert result.data == {"lose": None}
    (error,) = result.errors or ()
    assert (error.path, (error.extensions or {})["code"]) == (["lose"], "DATABASE_UNAVAILABLE")
    assert await live.writer.fetchval("SELECT count(*) FROM symbols WHERE name = 'lost'") == 0


async def test_over_http_it_runs_as_often_as_it_is_sent(live: Live) -> None:
    endpoint = GraphQLEndpoint(
        SCHEMA,
        lambda *asker: Operation(live.runtime, *asker),
        HTMLResponse,
        lambda: live.runtime.response_cache,
        SCHEMA.execute_from_cache,
    )
    text = 'mutation { describe(name: "BIG", text: "large") { description } }'
    sent = []

    async def call(method: str, body: bytes, query_string: bytes = b"") -> int:
        messages: list[dict[str, object]] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body}

        async def send(message: dict[str, object]) -> None:
            messages.append(message)

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": method, "path": "/graphql", "query_string": query_string, "headers": headers}
        await endpoint(scope, receive, send)  # type: ignore[arg-type]
        sent.append(messages[1]["body"])
        return int(str(messages[0]["status"]))

    body = b'{"query": %s}' % orjson.dumps(text)
    assert [await call("POST", body) for _ in range(3)] == [200] * 3
    assert sent == [b'{"data":{"describe":{"description":"large"}}}'] * 3
    assert runs == ["large"] * 3
    assert await call("GET", b"", b"query=" + quote(text).encode()) == 405
    assert runs == ["large"] * 3
