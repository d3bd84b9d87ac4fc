"""What groups have in common."""

import pytest
from conftest import Ask


async def test_every_two_of_the_named_groups_in_the_order_named(ask: Ask) -> None:
    answer = await ask(
        """{ overlap(groups: ["BIG", "tech", "SECTOR/energy", "MIXED", "big"])
             { a { name } b { name } sharedCount sharedWeight jaccard } }"""
    )
    rows = [
        ("BIG", "TECH", 3, 0.7, 0.5),
        ("BIG", "energy", 1, None, 1 / 6),
        ("BIG", "MIXED", 1, 0.1, 0.125),
        ("TECH", "energy", 0, None, 0.0),
        ("TECH", "MIXED", 0, None, 0.0),
        ("energy", "MIXED", 2, None, 0.5),
    ]
    assert answer == {
        "data": {
            "overlap": [
                {"a": {"name": a}, "b": {"name": b}, "sharedCount": count, "sharedWeight": weight, "jaccard": jaccard}
                for a, b, count, weight, jaccard in rows
            ]
        }
    }


async def test_nothing_has_nothing_in_common(ask: Ask) -> None:
    assert await ask('{ a: overlap(groups: []) { jaccard } b: overlap(groups: ["BIG"]) { jaccard } }') == {
        "data": {"a": [], "b": []}
    }
    answer = await ask("""{ overlap(groups: ["\\"nothing yet\\"", "BIG"]) { sharedCount sharedWeight jaccard } }""")
    assert answer == {"data": {"overlap": [{"sharedCount": 0, "sharedWeight": None, "jaccard": 0.0}]}}


@pytest.mark.parametrize(
    ("groups", "code", "message"),
    [
        (["BIG", "TECHS"], "UNKNOWN_GROUP", "There is no group TECHS; did you mean TECH or chips?"),
        (
            ["BIG", "energy"],
            "AMBIGUOUS_GROUP",
            "'energy' may be CUSTOM/Energy or SECTOR/energy; name one of them.",
        ),
        (
            ["BIG:TECH"],
            "INVALID_ARGUMENT",
            "groups: 'BIG:TECH' is not the name of one group; double quotes go around signs.",
        ),
        (["BIG"] * 51, "INVALID_ARGUMENT", "groups: 51 are more than 50; compare fewer at a time."),
    ],
)
async def test_a_name_of_no_group_or_several_is_an_error(ask: Ask, groups: list[str], code: str, message: str) -> None:
    answer = await ask("query ($groups: [String!]!) { overlap(groups: $groups) { jaccard } }", groups=groups)
    assert answer["data"] == {"overlap": None}
    assert [(error["message"], error["extensions"]["code"]) for error in answer["errors"]] == [(message, code)]
