"""The twelve checks of graphql-cop, an auditor of GraphQL servers, as tests of what is meant to be answered.

Some of them ask for what this server does on purpose; the docstring of the test says why.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from graphql import get_introspection_query

GRAPHQL = "application/graphql-response+json"


@pytest.fixture
async def client(site_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=site_url, headers={"accept": GRAPHQL}, timeout=20) as client:
        yield client


async def ask(client: httpx2.AsyncClient, document: str) -> tuple[int, Any]:
    response = await client.post("/graphql", json={"query": document})
    return response.status_code, response.json()


def refused(answer: tuple[int, Any], code: str = "LIMIT_EXCEEDED") -> bool:
    """Whether a request was refused whole, for one reason."""
    status, body = answer
    return (status, body.keys(), [each["extensions"]["code"] for each in body["errors"]]) == (400, {"errors"}, [code])


async def test_aliases_are_overloaded(client: httpx2.AsyncClient):
    assert refused(await ask(client, "{" + " ".join(f"alias{each}:__typename" for each in range(101)) + "}"))


async def test_queries_come_in_a_batch(client: httpx2.AsyncClient):
    response = await client.post("/graphql", json=[{"query": "{__typename}"}] * 10)
    message = "Batches are not answered; send each operation in a request of its own."
    answer = {"errors": [{"message": message, "extensions": {"code": "BAD_REQUEST"}}]}
    assert (response.status_code, response.json()) == (400, answer)


@pytest.mark.parametrize("directive", ["@aa", "@include(if:true)"])
async def test_directives_are_overloaded(client: httpx2.AsyncClient, directive: str):
    """Ten of them cost nothing; as many as a document has room for are refused before they are compared."""
    status, body = await ask(client, "{__typename" + f" {directive}" * 10 + "}")
    assert (status, {each["extensions"]["code"] for each in body["errors"]}) == (400, {"GRAPHQL_VALIDATION_FAILED"})
    assert refused(await ask(client, "{__typename" + f" {directive}" * 1_500 + "}"))


async def test_introspection_goes_in_circles(client: httpx2.AsyncClient):
    def nested(levels: int) -> str:
        return "{__schema{types{" + "fields{type{" * levels + "name" + "}}" * levels + "}}}"

    assert refused(await ask(client, nested(10)))


async def test_a_field_is_repeated(client: httpx2.AsyncClient):
    assert refused(await ask(client, "{" + "__typename " * 500 + "}"))


async def test_fields_are_suggested(client: httpx2.AsyncClient):
    """Suggestions are on: the schema is open to introspection, so they tell nothing that is hidden."""
    message = "Cannot query field 'universes' on type 'Query'. Did you mean 'universe'?"
    status, body = await ask(client, "{universes}")
    assert (status, [each["message"] for each in body["errors"]]) == (400, [message])


async def test_a_query_comes_by_get(client: httpx2.AsyncClient):
    """Queries by GET are answered, as the draft lets servers do: they change nothing, and other sites cannot read them."""
    response = await client.get(
        "/graphql", params={"query": "{__typename}"}, headers={"origin": "https://evil.example"}
    )
    assert (response.status_code, response.json()) == (200, {"data": {"__typename": "Query"}})
    assert not [name for name in response.headers if name.startswith("access-control-")]


async def test_a_mutation_comes_by_get(client: httpx2.AsyncClient):
    """There are no mutations; tests/http has an endpoint with some, which refuses them by GET with 405."""
    response = await client.get("/graphql", params={"query": "mutation{__typename}"})
    message = "A mutation is not answered by GET; use POST."
    answer = {"errors": [{"message": message, "extensions": {"code": "BAD_REQUEST"}}]}
    assert (response.status_code, response.headers["allow"], response.json()) == (405, "POST", answer)


@pytest.mark.parametrize("accept", ["text/html", GRAPHQL])
async def test_an_editor_is_served(client: httpx2.AsyncClient, accept: str):
    """GraphiQL is served to whoever asks for HTML: it shows what the API shows, and no other page may frame it."""
    response = await client.get("/graphql", headers={"accept": accept})
    assert (response.status_code, "text/html" in response.headers["content-type"]) == (
        (200, True) if accept == "text/html" else (400, False)
    )
    if accept == "text/html":
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    for path in ("/", "/graphiql", "/playground", "/console", "/altair", "/voyager"):
        assert (await client.get(path, headers={"accept": "text/html"})).status_code == 404


async def test_the_schema_is_asked_for(client: httpx2.AsyncClient):
    """Introspection is on: the schema is public with the source, and clients and GraphiQL are made from it."""
    status, body = await ask(client, get_introspection_query())
    assert (status, body.keys(), body["data"]["__schema"]["queryType"]["name"]) == (200, {"data"}, "Query")
    # and cannot be had often in one request
    assert refused(await ask(client, "{" + " ".join(f"a{each}:__schema{{types{{name}}}}" for each in range(4)) + "}"))


@pytest.mark.parametrize("query", ["query{__typename}", "mutation{__typename}"])
async def test_a_form_is_posted(client: httpx2.AsyncClient, query: str):
    response = await client.post("/graphql", data={"query": query})
    message = "Send the parameters as application/json in UTF-8."
    answer = {"errors": [{"message": message, "extensions": {"code": "BAD_REQUEST"}}]}
    assert (response.status_code, response.json()) == (415, answer)


async def test_a_trace_is_asked_for(client: httpx2.AsyncClient):
    for headers in ({"x-apollo-tracing": "1"}, {"apollo-federation-include-trace": "ftv1"}, {"x-debug": "1"}):
        response = await client.post("/graphql", json={"query": "{__typename}"}, headers=headers)
        assert (response.status_code, response.json()) == (200, {"data": {"__typename": "Query"}})


@pytest.mark.parametrize("document", ["qwerty{abc}", "{stock(symbol:{}){symbol}}", "query($a:Nope){__typename}"])
async def test_an_error_tells_nothing_of_the_inside(client: httpx2.AsyncClient, document: str):
    _, body = await ask(client, document)
    for told in body["errors"]:
        assert told.keys() <= {"message", "locations", "path", "extensions"}
        assert told["extensions"].keys() == {"code"}
    text = json.dumps(body)
    assert not [word for word in ("Traceback", ".py", "exception", "stacktrace", "/lib/") if word in text]
