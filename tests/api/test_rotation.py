"""Rotation, by hand: a few stocks and sessions whose figures anyone can work out. tests/test_oracle.py has the rest."""

from typing import Any

import pytest
from conftest import Ask

AS_OF = '"2024-03-08"'


def near(value: Any) -> Any:
    """What it is, floats to twelve digits."""
    match value:
        case float():
            return pytest.approx(value, rel=1e-12, abs=1e-12)
        case dict():
            return {key: near(each) for key, each in value.items()}
        case list():
            return [near(each) for each in value]
    return value


async def test_a_row_weighs_what_the_universe_weighs_and_counts_whom_it_could_not_price(priced: Ask) -> None:
    answer = await priced(
        """{ sectorRotation(universe: "big", windows: [DAY, WEEK]) {
            asOf note members priced coverage ungrouped universe { key }
            rows { group { name } members priced coverage weighting weightsOf { name } weekAgainstMonth relative { ratio }
                windows { window sessions from to change weighting members priced coverage advancers decliners unchanged upShare rank rankChange } } } }"""
    )

    def window(
        name: str, change: float | None, priced: int, up: int, down: int, members: int, rank: int | None
    ) -> dict[str, Any]:
        return {
            "window": name,
            "sessions": 1 if name == "DAY" else 5,
            "from": "2024-03-07" if name == "DAY" else "2024-03-01",
            "to": "2024-03-08",
            "change": change,
            "weighting": "WEIGHT",
            "members": members,
            "priced": priced,
            "coverage": priced / members,
            "advancers": up,
            "decliners": down,
            "unchanged": priced - up - down,
            "upShare": up / priced if priced else 0.0,
            "rank": rank,
            "rankChange": None,
        }  # fmt: skip

    def row(name: str, members: int, *windows: dict[str, Any]) -> dict[str, Any]:
        return {
            "group": {"name": name},
            "members": members,
            "priced": members,
            "coverage": 1.0,
            "weighting": "WEIGHT",
            "weightsOf": {"name": "BIG"},
            "weekAgainstMonth": False,
            "relative": None,
            "windows": list(windows),
        }

    # of BIG: AAPL 0.30 up 10 %, MSFT 0.25 down 5 %, NVDA 0.20 as it was, JPM 0.15 up 10 %, XOM 0.10 down 10 %
    assert answer == near(
        {
            "data": {
                "sectorRotation": {
                    "asOf": "2024-03-08",
                    "note": None,
                    "members": 5,
                    "priced": 5,
                    "coverage": 1.0,
                    "ungrouped": 0,
                    "universe": {"key": "BIG"},
                    "rows": [
                        row("financials", 1, window("DAY", 0.1, 1, 1, 0, 1, 1), window("WEEK", None, 0, 0, 0, 1, None)),
                        row(
                            "information_technology",
                            3,
                            window("DAY", (0.3 * 0.1 - 0.25 * 0.05) / 0.75, 3, 1, 1, 3, 2),
                            window("WEEK", (0.3 * 0.1 - 0.25 * 0.05 + 0.2 * 0.2) / 0.75, 3, 2, 1, 3, 2),
                        ),
                        row("energy", 1, window("DAY", -0.1, 1, 0, 1, 1, 3), window("WEEK", 0.125, 1, 1, 0, 1, 1)),
                    ],
                }
            }
        }
    )
    assert answer.statements[-1] == "groups_by_id"


async def test_without_weights_of_the_universe_those_of_the_row_count_and_else_all_alike(priced: Ask) -> None:
    rows = "rows { group { name } members priced weighting weightsOf { name } windows { change } }"
    answer = await priced(
        f"""{{ funds: sectorRotation(universe: "BIG:TECH", by: ETF, windows: [DAY]) {{ members priced ungrouped {rows} }}
            sectors: sectorRotation(universe: "BIG:TECH", windows: [DAY]) {{ {rows} }}
            equal: sectorRotation(universe: "BIG", windows: [DAY], weighting: EQUAL) {{ {rows} }}
            mixed: sectorRotation(universe: "MIXED", windows: [DAY]) {{ members priced ungrouped {rows} }} }}"""
    )

    def row(name: str, members: int, priced: int, weights_of: str | None, change: float | None) -> dict[str, Any]:
        return {
            "group": {"name": name},
            "members": members,
            "priced": priced,
            "weighting": "WEIGHT" if weights_of else "EQUAL",
            "weightsOf": weights_of and {"name": weights_of},
            "windows": [{"change": change}],
        }

    assert answer == near(
        {
            "data": {
                "funds": {
                    "members": 6,
                    "priced": 5,
                    "ungrouped": 0,
                    "rows": [
                        # NVDA 0.40, AAPL 0.35, MSFT 0.20; AMD has no close of the day
                        row("TECH", 4, 3, "TECH", (0.35 * 0.1 - 0.2 * 0.05) / 0.95),
                        row("BIG", 5, 5, "BIG", 0.3 * 0.1 - 0.25 * 0.05 + 0.15 * 0.1 - 0.1 * 0.1),
                        row("MIXED", 1, 1, "MIXED", -0.1),
                    ],
                },
                "sectors": {
                    "rows": [
                        row("financials", 1, 1, None, 0.1),
                        row("information_technology", 4, 3, None, (0.1 - 0.05) / 3),
                        row("energy", 1, 1, None, -0.1),
                    ]
                },
                "equal": {
                    "rows": [
                        row("financials", 1, 1, None, 0.1),
                        row("information_technology", 3, 3, None, (0.1 - 0.05) / 3),
                        row("energy", 1, 1, None, -0.1),
                    ]
                },
                # CVX and XOM half each; what BRK.B costs is no price, ZZZ has none and lies in no sector
                "mixed": {
                    "members": 4,
                    "priced": 2,
                    "ungrouped": 1,
                    "rows": [row("energy", 2, 2, "MIXED", -0.05), row("financials", 1, 0, "MIXED", None)],
                },
            }
        }
    )


async def test_contributions_are_shares_of_the_change(priced: Ask) -> None:
    answer = await priced(
        """{ sectorRotation(universe: "BIG", windows: [WEEK]) { rows { group { name } windows { change }
            contributors(window: WEEK) { stock { symbol name } weight change contribution }
            detractors(window: WEEK, top: 1) { stock { symbol } contribution } none: contributors(top: 0) { weight } } } }"""
    )
    (_, tech, _) = answer["data"]["sectorRotation"]["rows"]
    assert tech == near(
        {
            "group": {"name": "information_technology"},
            "windows": [{"change": (0.2 * 0.2 + 0.3 * 0.1 - 0.25 * 0.05) / 0.75}],
            "contributors": [
                {"stock": {"symbol": "NVDA", "name": "NVIDIA"}, "weight": 0.2 / 0.75, "change": 0.2, "contribution": 0.04 / 0.75},
                {"stock": {"symbol": "AAPL", "name": "Apple Inc."}, "weight": 0.4, "change": 0.1, "contribution": 0.04},
            ],
            "detractors": [{"stock": {"symbol": "MSFT"}, "contribution": -0.0125 / 0.75}],
            "none": [],
        }
    )  # fmt: skip
    assert answer.statements.count("stocks") == 1


@pytest.mark.parametrize(
    ("arguments", "fields", "code", "message"),
    [
        ('universe: "NOPE"', "asOf", "UNKNOWN_GROUP", "There is no group NOPE; `groups` lists those there are."),
        (
            'universe: "BIG", benchmark: "BIG&"',
            "asOf",
            "INVALID_KEY",
            "The key 'BIG&' misses a group's name (at character 5).",
        ),
        (
            'universe: "BIG", membersAsOf: "2999-01-01"',
            "asOf",
            "INVALID_ARGUMENT",
            "membersAsOf: 2999-01-01 is yet to come; today is",
        ),
        (
            'universe: "BIG", membersAsOf: "2001-01-01"',
            "asOf",
            "NO_HISTORY",
            "Of the group BIG nothing is known before",
        ),
        (
            'universe: "BIG"',
            "rows { contributors(top: 101) { weight } }",
            "INVALID_ARGUMENT",
            "top: 101 is not between 0 and 100.",
        ),
    ],
)
async def test_what_is_asked_wrongly_is_told(priced: Ask, arguments: str, fields: str, code: str, message: str) -> None:
    answer = await priced(f"{{ sectorRotation({arguments}) {{ {fields} }} }}")
    (error, *_) = answer["errors"]
    assert error["extensions"]["code"] == code
    assert error["message"].startswith(message)


async def test_without_prices_there_is_nothing_and_a_note_says_what_to_do(ask: Ask) -> None:
    load = "`stockgraph load` loads files of symbol,date,open,high,low,close,volume, or as Yahoo and Nasdaq write them."
    answer = await ask(
        """{ sectorRotation(universe: "BIG") { asOf note members priced coverage ungrouped rows { members } }
            thresholdBars(universe: "BIG") { asOf note members priced coverage segments { count } }
            breadth(universe: "BIG", asOf: "2024-03-08") { asOf note members priced coverage metrics { up } }
            group(name: "BIG") { performance(windows: [YTD, DAY]) { window sessions from to change members priced coverage upShare } }
            stock(symbol: "AAPL") { performance(windows: [WEEK]) { sessions from to change } prices { close } } }"""
    )
    nothing = {"asOf": None, "note": f"There are no prices; {load}", "members": 5, "priced": 0, "coverage": 0.0}
    measured = {"from": None, "to": None, "change": None, "members": 5, "priced": 0, "coverage": 0.0, "upShare": 0.0}
    assert answer == {
        "data": {
            "sectorRotation": {**nothing, "ungrouped": 0, "rows": []},
            "thresholdBars": {**nothing, "segments": []},
            "breadth": {**nothing, "note": f"There are no prices; {load}", "metrics": []},
            "group": {
                "performance": [
                    {"window": "YTD", "sessions": 0, **measured},
                    {"window": "DAY", "sessions": 1, **measured},
                ]
            },
            "stock": {"performance": [{"sessions": 5, "from": None, "to": None, "change": None}], "prices": []},
        }
    }


async def test_the_queries_that_every_user_runs(priced: Ask) -> None:
    answer = await priced(
        """query Rotation { sectorRotation(universe: "BIG", windows: [DAY, WEEK, MONTH, QUARTER]) { asOf members priced
            rows { group { name } members priced weighting windows { window change upShare rank } } } }"""
    )
    assert [row["group"]["name"] for row in answer["data"]["sectorRotation"]["rows"]] == [
        "financials",
        "information_technology",
        "energy",
    ]
    answer = await priced(
        """query Bars { thresholdBars(universe: "BIG:TECH", threshold: 0.05, sessions: 21) { priced segments { bin count share } } }"""
    )
    assert answer["data"]["thresholdBars"]["priced"] == 0
    assert sum(segment["share"] for segment in answer["data"]["thresholdBars"]["segments"]) == 0


async def test_an_environment_without_groups_of_the_type_has_no_rows(priced: Ask) -> None:
    answer = await priced(
        '{ sectorRotation(universe: "BIG", environment: TEST, by: SECTOR) { members rows { members } } }'
    )
    assert answer == {"data": {"sectorRotation": {"members": 1, "rows": []}}}


async def test_an_argument_of_null_is_its_default(priced: Ask) -> None:
    fields = "rows { group { name } weighting windows { window change } contributors { contribution } }"
    nulls = "by: null, windows: null, weighting: null, benchmark: null, asOf: null"
    answer = await priced(
        f"""{{ a: sectorRotation(universe: "BIG") {{ {fields} }}
            b: sectorRotation(universe: "BIG", {nulls}) {{ {fields.replace("contributors", "contributors(top: null, window: null)")} }}
            c: thresholdBars(universe: "BIG") {{ segments {{ bin count }} }}
            d: thresholdBars(universe: "BIG", threshold: null, sessions: null, kind: null) {{ segments {{ bin count }} }}
            group(name: "BIG") {{ e: performance {{ window change }} f: performance(windows: null, weighting: null) {{ window change }} }} }}"""
    )
    data = answer["data"]
    assert (data["a"], data["c"], data["group"]["e"]) == (data["b"], data["d"], data["group"]["f"])


async def test_a_rotation_counts_against_the_budget(priced: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.execution.operation.MAX_OBJECTS", 300)
    aliases = " ".join(f'r{n}: sectorRotation(universe: "BIG") {{ priced }}' for n in range(40))
    answer = await priced(f"{{ {aliases} }}")
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"LIMIT_EXCEEDED"}
