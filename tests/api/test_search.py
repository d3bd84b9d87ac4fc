"""Search over stocks and groups."""

import pytest
from conftest import Answer, Ask

QUERY = """query ($text: String!, $first: Int, $environment: Environment) {
    search(text: $text, first: $first, environment: $environment)
    { __typename ... on Stock { symbol } ... on Group { is: name type } } }"""


def hits(answer: Answer) -> list[str]:
    found = answer["data"]["search"]
    return [hit.get("symbol") or f"{hit['type']}/{hit['is']}" for hit in found]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("xom", ["XOM"]),
        ("en", ["CUSTOM/Energy", "SECTOR/energy"]),
        ("nvidia", ["NVDA"]),
        ("tech", ["ETF/TECH", "SECTOR/information_technology"]),
        (
            "o",
            [
                "THEME/chips",
                "XOM",
                "UNIVERSE/top3",
                "SEGMENT/nothing yet",
                "SECTOR/information_technology",
                "AMD",
                "CVX",
                "JPM",
                "MSFT",
                "ETF/BIG",
                "ETF/TECH",
                "ETF/MIXED",
            ],
        ),
        ("zzz", ["ZZZ"]),
        ("ZZ", []),
        ("  big  ", ["ETF/BIG"]),
        ("micro", ["MSFT", "AMD"]),
        ("%", []),
        ("_", ["SECTOR/information_technology"]),
        ("", []),
        ("   ", []),
    ],
)
async def test_the_best_match_comes_first(ask: Ask, text: str, found: list[str]) -> None:
    assert hits(await ask(QUERY, text=text)) == found


async def test_as_many_as_asked_for(ask: Ask) -> None:
    assert hits(await ask(QUERY, text="e", first=1)) == ["CUSTOM/Energy"]
    assert hits(await ask(QUERY, text="e", first=0)) == []
    assert hits(await ask(QUERY, text="micro", first=None)) == ["MSFT", "AMD"]


async def test_in_its_environment(ask: Ask) -> None:
    assert hits(await ask(QUERY, text="elsewhere", environment="TEST")) == ["ETF/BIG"]
    assert hits(await ask(QUERY, text="elsewhere")) == []


async def test_no_more_than_a_page(ask: Ask) -> None:
    answer = await ask(QUERY, text="e", first=5_001)
    assert [error["message"] for error in answer["errors"]] == ["first: 5001 is not between 0 and 5,000."]
