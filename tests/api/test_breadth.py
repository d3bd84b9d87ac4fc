"""Breadth and bars, by hand; tests/test_oracle.py has the rest."""

from typing import Any

import pytest
from conftest import Ask


async def test_bars_sort_exact_decimals_where_they_belong(priced: Ask) -> None:
    # AAPL and JPM +10 %, NVDA 0, MSFT exactly -5 %, XOM -10 %; AMD has no close of the day
    answer = await priced(
        """{ thresholdBars(universe: "BIG:TECH") { asOf from note members priced coverage segments { bin count share } }
            simple: thresholdBars(universe: "BIG:TECH", kind: SIMPLE, threshold: 0.1) { segments { bin count share } }
            week: thresholdBars(universe: "BIG:TECH", threshold: 0.125, sessions: 5) { from priced segments { count } }
            far: thresholdBars(universe: "BIG:TECH", sessions: 6) { asOf from priced segments { count share } } }"""
    )
    assert answer["data"] == {
        "thresholdBars": {
            "asOf": "2024-03-08",
            "from": "2024-03-07",
            "note": None,
            "members": 6,
            "priced": 5,
            "coverage": 5 / 6,
            "segments": [
                {"bin": "SIGNIFICANT_DECLINE", "count": 1, "share": 0.2},
                {"bin": "MINOR_DECLINE", "count": 1, "share": 0.2},
                {"bin": "MINOR_ADVANCE", "count": 1, "share": 0.2},
                {"bin": "SIGNIFICANT_ADVANCE", "count": 2, "share": 0.4},
            ],
        },
        "simple": {
            "segments": [{"bin": "DECLINE", "count": 2, "share": 0.4}, {"bin": "ADVANCE", "count": 3, "share": 0.6}]
        },
        # AAPL +10 %, MSFT -5 %, NVDA +20 %, XOM exactly +12.5 %
        "week": {"from": "2024-03-01", "priced": 4, "segments": [{"count": 0}, {"count": 1}, {"count": 1}, {"count": 2}]},
        "far": {"asOf": "2024-03-08", "from": None, "priced": 0, "segments": [{"count": 0, "share": 0.0}] * 4},
    }  # fmt: skip


async def test_breadth_counts_what_it_could_measure(priced: Ask) -> None:
    answer = await priced(
        """{ breadth(universe: "BIG:TECH") { asOf note members priced coverage metrics { metric measured up down unchanged upShare } } }"""
    )
    breadth = answer["data"]["breadth"]

    def metric(name: str, measured: int = 0, up: int = 0, down: int = 0) -> dict[str, Any]:
        return {
            "metric": name,
            "measured": measured,
            "up": up,
            "down": down,
            "unchanged": measured - up - down,
            "upShare": up / measured if measured else 0.0,
        }

    assert breadth == {
        "asOf": "2024-03-08",
        "note": None,
        "members": 6,
        "priced": 5,
        "coverage": 5 / 6,
        "metrics": [
            metric("DAY", 5, up=2, down=2),
            # AAPL above 105, NVDA below 61, MSFT at 190; an open of zero is none
            metric("OPEN", 3, up=1, down=1),
            metric("WEEK", 4, up=3, down=1),
            *map(metric, ("MONTH", "QUARTER", "HALF_YEAR", "YEAR", "EMA10", "EMA20", "SMA50", "SMA200")),
        ],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("threshold: -0.1", "threshold: -0.1 is not between 0 and 1; 0.05 is 5 %."),
        ("threshold: 5", "threshold: 5.0 is not between 0 and 1; 0.05 is 5 %."),
        ("sessions: 0", "sessions: 0 is not between 1 and 480."),
        ("sessions: 481", "sessions: 481 is not between 1 and 480."),
    ],
)
async def test_bars_asked_wrongly_are_told(priced: Ask, arguments: str, message: str) -> None:
    answer = await priced(f'{{ thresholdBars(universe: "BIG", {arguments}) {{ priced }} }}')
    assert answer.without_locations() == {
        "data": {"thresholdBars": None},
        "errors": [
            {"message": message, "path": ["thresholdBars"], "extensions": {"code": "INVALID_ARGUMENT"}},
        ],
    }


async def test_an_empty_universe_has_shares_of_nothing(priced: Ask) -> None:
    answer = await priced(
        """{ breadth(universe: "\\"nothing yet\\"") { asOf members priced coverage metrics { measured up upShare } }
            thresholdBars(universe: "\\"nothing yet\\"") { priced coverage segments { count share } }
            sectorRotation(universe: "\\"nothing yet\\"") { asOf members priced coverage rows { members } }
            group(name: "nothing yet") { performance(windows: [DAY]) { change members priced coverage weighting } } }"""
    )
    assert answer["data"] == {
        "breadth": {
            "asOf": "2024-03-08",
            "members": 0,
            "priced": 0,
            "coverage": 0.0,
            "metrics": [{"measured": 0, "up": 0, "upShare": 0.0}] * 11,
        },
        "thresholdBars": {"priced": 0, "coverage": 0.0, "segments": [{"count": 0, "share": 0.0}] * 4},
        "sectorRotation": {"asOf": "2024-03-08", "members": 0, "priced": 0, "coverage": 0.0, "rows": []},
        "group": {"performance": [{"change": None, "members": 0, "priced": 0, "coverage": 0.0, "weighting": "EQUAL"}]},
    }
