"""Near matches: typing errors of names are found, and of very many names only the first are looked at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.api.near_matches import MAX_CHARACTERS, NameIndex

NAMES = ["TECH", "chips", "SPY", "SAP", "SYF", "QQQ", "QQQE", "dow30", "nasdaq100", "consumer_staples", "Energy"]


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("TECHS", ["TECH", "chips"]),
        ("SYP", ["SPY", "SYF", "SAP"]),
        ("spyy", ["SPY"]),
        ("qqqx", ["QQQ", "QQQE"]),
        ("dow", ["dow30"]),
        ("DW030", ["dow30"]),
        ("consumer staple", ["consumer_staples"]),
        ("enrgy", ["Energy"]),
        ("nothing of these", []),
        ("", []),
    ],
)
def test_typing_errors_are_near_to_what_was_meant(typed: str, near: list[str]) -> None:
    assert NameIndex(NAMES).near(typed, 3) == near


@given(st.lists(st.text(min_size=1, max_size=70), min_size=1, max_size=20, unique_by=str.casefold), st.data())
def test_a_name_is_nearest_to_itself(names: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(names))
    (nearest,) = NameIndex(names).near(name, 1)
    assert nearest.casefold()[:60] == name.casefold()[:60]


def test_the_nearest_of_many_alike_is_found() -> None:
    index = NameIndex([f"Vanguard Core Large Cap Growth Index Fund Series {number}" for number in range(5_000)])
    assert index.near("Vangard Core Large Cap Growth Index Fund Series 4711", 1) == [
        "Vanguard Core Large Cap Growth Index Fund Series 4711"
    ]


def test_names_beyond_the_bound_of_an_index_are_left_out() -> None:
    names = [f"{number:057}" for number in range(MAX_CHARACTERS // 60 + 1)]
    index = NameIndex(names)
    assert index.near(names[-2], 1) == [names[-2]]
    assert index.near(names[-1], 3)[0] != names[-1]


def test_no_names_are_near_to_nothing() -> None:
    assert NameIndex([]).near("SPY", 3) == []
