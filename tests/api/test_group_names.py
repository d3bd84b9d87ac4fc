"""Names in keys: which group they mean, and what is told of all that mean none, or several."""

import pytest
from conftest import Ask

from graph.api.group_names import resolve_name
from graph.api.universe_keys import Name
from graph.errors import AmbiguousGroup
from graph.model import GroupName


def named(*names: str) -> list[GroupName]:
    return [GroupName(index, name.partition("/")[2], name.partition("/")[0]) for index, name in enumerate(names)]


def test_a_name_means_the_only_group_that_bears_it() -> None:
    assert resolve_name(Name(None, "spy"), named("ETF/SPY")) == GroupName(0, "SPY", "ETF")
    assert resolve_name(Name(None, "spy"), []) is None


def test_a_type_decides() -> None:
    assert resolve_name(Name("CUSTOM", "spy"), named("ETF/SPY", "CUSTOM/spy")) == GroupName(1, "spy", "CUSTOM")
    assert resolve_name(Name("SECTOR", "spy"), named("ETF/SPY")) is None


def test_of_two_in_one_type_the_exact_spelling_wins() -> None:
    assert resolve_name(Name(None, "Big"), named("ETF/BIG", "ETF/Big")) == GroupName(1, "Big", "ETF")


@pytest.mark.parametrize(
    ("name", "candidates", "written"),
    [
        ("big", ["ETF/BIG", "ETF/Big"], ["ETF/BIG", "ETF/Big"]),
        ("energy", ["SECTOR/energy", "CUSTOM/Energy"], ["CUSTOM/Energy", "SECTOR/energy"]),
        ("a b", ["SECTOR/a b", "CUSTOM/a b"], ['CUSTOM/"a b"', 'SECTOR/"a b"']),
    ],
)
def test_any_other_choice_is_the_askers(name: str, candidates: list[str], written: list[str]) -> None:
    with pytest.raises(AmbiguousGroup) as caught:
        resolve_name(Name(None, name, length=len(name)), named(*candidates))
    assert str(caught.value) == f"{name!r} may be {written[0]} or {written[1]}; name one of them."


async def test_all_wrong_parts_are_told_at_once(ask: Ask) -> None:
    key = 'BIG:techs-(energy&ETF/"chips"):SECTR/energy:techs'
    answer = await ask("query ($key: String!) { universe(key: $key) { size } }", key=key)
    candidates = ["CUSTOM/Energy", "SECTOR/energy"]
    unknown = {"code": "UNKNOWN_GROUP", "length": 5, "group": "techs", "near": ["TECH", "chips"]}
    assert answer.without_locations() == {
        "data": {"universe": None},
        "errors": [
            {
                "message": "There is no group techs; did you mean TECH or chips? "
                "'energy' may be CUSTOM/Energy or SECTOR/energy; name one of them. "
                "There is no group ETF/chips; did you mean THEME/chips? 1 more part is wrong.",
                "path": ["universe"],
                "extensions": {
                    **unknown,
                    "position": 5,
                    "parts": [
                        {**unknown, "position": 5},
                        {
                            "code": "AMBIGUOUS_GROUP",
                            "position": 12,
                            "length": 6,
                            "group": "energy",
                            "candidates": candidates,
                        },
                        {
                            "code": "UNKNOWN_GROUP",
                            "position": 19,
                            "length": 11,
                            "group": "ETF/chips",
                            "near": ["THEME/chips"],
                        },
                        {
                            "code": "INVALID_KEY",
                            "position": 32,
                            "length": 12,
                            "group": "SECTR/energy",
                            "near": candidates,
                        },
                        {**unknown, "position": 45},
                    ],
                },
            }
        ],
    }


@pytest.mark.parametrize(
    ("key", "message", "near"),
    [
        ("THEMES/BIG", "There is no type THEMES; did you mean ETF/BIG?", ["ETF/BIG"]),
        ("THEMES/nothing", "There is no type THEMES; did you mean THEME/nothing?", ["THEME/nothing"]),
        ("X/nothing", "There is no type X; there are CUSTOM, ETF, SECTOR, SEGMENT, THEME, UNIVERSE.", []),
    ],
)
async def test_a_type_that_does_not_exist(ask: Ask, key: str, message: str, near: list[str]) -> None:
    answer = await ask("query ($key: String!) { universe(key: $key) { size } }", key=key)
    (error,) = answer["errors"]
    part = {"code": "INVALID_KEY", "position": 1, "length": len(key), "group": key, "near": near}
    assert (error["message"], error["extensions"]) == (message, {**part, "parts": [part]})


async def test_one_wrong_key_leaves_the_others_their_answers(ask: Ask) -> None:
    answer = await ask("""{ a: universe(key: "BIG") { key } b: universe(key: "nope") { key } }""")
    assert answer["data"] == {"a": {"key": "BIG"}, "b": None}
    assert [(error["path"], error["extensions"]["code"]) for error in answer["errors"]] == [(["b"], "UNKNOWN_GROUP")]
