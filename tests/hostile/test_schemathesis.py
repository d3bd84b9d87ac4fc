"""Queries that schemathesis makes of the schema: each gets a GraphQL response, and none finds a fault of the server."""

import os
from collections.abc import AsyncIterator

import pytest
import schemathesis
from conftest import ROOT, Databases, serving
from hypothesis import HealthCheck, settings

from graph.app import create_app
from graph.errors import ErrorCode
from graph.settings import Settings

EXAMPLES = int(os.environ.get("TEST_SCHEMATHESIS_EXAMPLES") or 50)
"""Queries for each field of the root."""
GRAPHQL = "application/graphql-response+json"
CLIENT_ERRORS = {code.value for code in ErrorCode if code.status < 500}

schema = schemathesis.graphql.from_path(ROOT / "schema.graphql")


@pytest.fixture(scope="module")
async def graphql_url(databases: Databases, priced_template: str) -> AsyncIterator[str]:
    """The whole application over the small market with prices."""
    with serving(create_app(Settings(database_url=await databases.make(priced_template)))) as site:
        yield f"{site}/graphql"


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[*HealthCheck])
def test_no_query_finds_a_fault(case: schemathesis.Case, graphql_url: str):
    response = case.call(base_url=graphql_url, headers={"accept": GRAPHQL})
    assert response.headers["content-type"] == [f"{GRAPHQL}; charset=utf-8"]
    payload = response.json()
    errors = payload.get("errors", [])
    assert payload.keys() <= {"data", "errors"}
    assert {error["extensions"]["code"] for error in errors} <= CLIENT_ERRORS
    # a request that was refused whole has no data, and any other has
    assert response.status_code == (200 if "data" in payload else 400)
