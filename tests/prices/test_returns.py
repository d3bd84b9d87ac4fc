"""The arithmetic of rotation, and the closes in memory: by hand, against plain loops, and by what must not matter."""

import math
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graph.prices.returns
from graph.prices.matrix import EMPTY, NO_OPEN, PackedPrices, PriceMatrix, sessions_of
from graph.prices.relative_rotation import RELATIVE_SESSIONS, relative_rotation
from graph.prices.returns import (
    Baskets,
    FloatArray,
    bin_indices,
    changes,
    contributions,
    directions,
    ema,
    ranks,
    sma,
)

NAN = math.nan
few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, equal_nan=True)


def indices(*numbers: int) -> Any:
    return np.array(numbers, np.intp)


def floats(*numbers: float) -> FloatArray:
    return np.array(numbers, np.float64)


# ---- by hand


def test_a_change_is_by_what_part_of_the_former_close_the_later_differs() -> None:
    # 95 - 100 = -5 of 100; 21 - 20 = 1 of 20; the others lack a close
    same(changes(floats(95, 21, NAN, 3), floats(100, 20, 1, NAN)), [-0.05, 0.05, NAN, NAN])


def test_a_mean_is_of_the_members_that_have_a_change_and_a_weight() -> None:
    values = np.array([[0.10, -0.05, 0.20, NAN], [NAN, 0.04, NAN, NAN]])
    baskets = Baskets.of(
        [
            # (0.5 x 0.10 + 0.3 x -0.05) / 0.8 = 0.035 / 0.8; then the second alone
            (indices(0, 1, 2), floats(0.5, 0.3, NAN)),
            # none has both
            (indices(2), floats(NAN)),
            # (0.10 - 0.05 + 0.20) / 3; then the second alone
            (indices(2, 1, 0), floats(1, 1, 1)),
            # nobody
            (indices(), floats()),
            # weights that sum to nothing; then a negative one alone
            (indices(0, 1), floats(0.25, -0.25)),
            # (0.2 x 0.10 + -0.1 x -0.05) / 0.1 = 0.025 / 0.1; then -0.1 x 0.04 / -0.1
            (indices(0, 1), floats(0.2, -0.1)),
        ]
    )
    same(baskets.mean(values), [[0.04375, NAN, 0.25 / 3, NAN, NAN, 0.25], [0.04, NAN, 0.04, NAN, 0.04, 0.04]])


def test_a_count_is_of_members_whatever_their_weights() -> None:
    baskets = Baskets.of([(indices(0, 1, 2), floats(NAN, NAN, NAN)), (indices(), floats()), (indices(2), floats(1))])
    assert baskets.count(np.array([[True, True, False, False], [False, False, True, False]])).tolist() == [
        [2, 0, 0],
        [1, 0, 1],
    ]


def test_equal_values_share_the_better_rank_and_a_missing_one_has_none() -> None:
    assert ranks(floats(0.1, 0.3, NAN, 0.3, -0.2, 0.1)) == [3, 1, None, 1, 5, 3]
    assert ranks(floats(NAN, NAN)) == [None, None]
    assert ranks(floats()) == []


def test_rows_of_the_same_one_stock_share_a_rank_whatever_it_weighs() -> None:
    baskets = Baskets.of([(indices(0), floats(weight)) for weight in (0.1, 0.2, 0.3, 1.0)])
    # 0.1 x 0.1 / 0.1 is 0.10000000000000002
    assert ranks(baskets.mean(np.array([[0.1, NAN]]))[0]) == [1, 1, 1, 1]


def test_weights_whose_decimals_sum_to_zero_give_no_mean() -> None:
    baskets = Baskets.of([(indices(0, 1, 2), floats(0.1, 0.2, -0.3))])
    same(baskets.mean(np.array([[0.1, 0.2, 0.3, NAN]])), [[NAN]])


def test_contributions_are_shares_of_the_weight_times_changes() -> None:
    # of 0.5 + 0.3 = 0.8: 62.5 % and 37.5 %
    shares, parts = contributions(floats(0.10, -0.05, 0.20, NAN), floats(0.5, 0.3, NAN, 0.2))
    same(shares, [0.625, 0.375, NAN, NAN])
    same(parts, [0.0625, -0.01875, NAN, NAN])
    same(contributions(floats(0.1, 0.2), floats(0.25, -0.25)), [[NAN, NAN], [NAN, NAN]])


def test_a_simple_average_takes_all_of_the_last_closes() -> None:
    closes = np.array([[9, 9, 9], [1, 2, 7], [2, NAN, 7], [6, 4, NAN]], np.float64)
    same(sma(closes, 3), [3, NAN, NAN])
    same(sma(closes, 5), [NAN, NAN, NAN])


def test_an_exponential_average_begins_with_the_mean_of_the_first_and_passes_holes_over() -> None:
    # of 3: alpha = 2 / 4; 1, 2, 3 seed 2, then 2 + (4 - 2) / 2 = 3, then 3 + (5 - 3) / 2 = 4
    closes = np.array([[1, NAN, 1], [2, 1, NAN], [3, 2, 5], [4, NAN, NAN], [5, 6, NAN]], np.float64)
    # the second has 1, 2, 6 alone: their mean; the third has two
    same(ema(closes, 3), [4, 3, NAN])


def test_a_direction_is_none_within_12_digits() -> None:
    values = floats(1, 1 + 5e-13, 1 - 5e-13, 1 + 5e-12, 1 - 5e-12, NAN, 1, 1e6 + 5e-7, 1e-6 + 5e-13)
    others = floats(1, 1, 1, 1, 1, 1, NAN, 1e6, 1e-6)
    same(directions(values, others), [0, 0, 0, 1, -1, NAN, NAN, 0, 1])


@pytest.mark.parametrize(
    ("then", "now", "threshold", "expected"),
    [
        (100, 94.99, 0.05, 0),
        (100, 95, 0.05, 1),
        (20, 19, 0.05, 1),
        (0.3, 0.285, 0.05, 1),
        (100, 99.99, 0.05, 1),
        (100, 100, 0.05, 2),
        (100, 104.99, 0.05, 2),
        (100, 105, 0.05, 3),
        (1.1, 1.155, 0.05, 3),
        (7, 6.3, 0.1, 1),
        (0.7, 0.77, 0.1, 3),
        (100, 100, 0, 3),
        (100, 99.99, 0, 0),
        (100, 0.01, 1, 1),
        (100, 200, 1, 3),
    ],
)
def test_a_change_at_a_boundary_lies_in_the_bin_of_its_decimal(
    then: float, now: float, threshold: float, expected: int
) -> None:
    assert bin_indices(changes(floats(now), floats(then)), threshold).tolist() == [expected]


def test_a_row_that_doubles_in_the_last_of_83_sessions_is_this_strong() -> None:
    # RS is 1 and at last 2: over its average of (62 + 2) / 63 that is a ratio of 200 x 63 / 64 = 196.875, the others being
    # 100; over the average of (20 x 100 + 196.875) / 21 a momentum of 100 x 196.875 x 21 / 2196.875
    returns = np.zeros((82, 1))
    returns[-1] = 1.0
    ratio, momentum = relative_rotation(returns, np.zeros(82))
    same(ratio, [[196.875]])
    same(momentum, [[413437.5 / 2196.875]])


def test_82_sessions_give_no_point_and_a_missing_change_none_of_the_82_that_take_it() -> None:
    assert [each.shape for each in relative_rotation(np.zeros((81, 3)), np.zeros(81))] == [(0, 3), (0, 3)]
    returns = np.zeros((82 + 90, 2))
    returns[5, 0] = NAN
    # point p takes the changes p to p + 81
    ratio, momentum = relative_rotation(returns, np.zeros(len(returns)))
    assert [np.flatnonzero(np.isnan(ratio[:, row])).tolist() for row in (0, 1)] == [[*range(6)], []]
    assert np.array_equal(np.isnan(ratio), np.isnan(momentum))
    benchmark = np.zeros(len(returns))
    benchmark[100] = NAN
    ratio, _ = relative_rotation(returns, benchmark)
    assert np.flatnonzero(np.isnan(ratio[:, 1])).tolist() == [*range(19, 91)]


def test_a_day_is_a_session_when_half_of_those_of_the_session_before_have_a_close() -> None:
    present = [
        "1111.",  # the first
        "1....",  # one of four
        "11..1",  # two of four, and one that is new
        "....1",  # one of three
        ".1..1",  # two of three
        "1.1..",  # none of two
        "....1",  # one of two
    ]
    assert sessions_of(np.array([[sign == "1" for sign in day] for day in present])).tolist() == [0, 2, 4, 6]
    assert sessions_of(np.zeros((0, 3), bool)).tolist() == []


# ---- closes in memory

START = date(2022, 12, 28)
Model = dict[tuple[str, int], tuple[float, float]]
"""By symbol and days since START: close and open, NaN for no open."""


def packed(model: Model) -> list[PackedPrices]:
    """As the database gives it."""
    rows = []
    for symbol in sorted({symbol for symbol, _ in model}):
        days = sorted(day for name, day in model if name == symbol)
        since_2000 = [(START - date(2000, 1, 1)).days + day for day in days]
        closes, opens = (np.array([model[symbol, day][which] for day in days], ">f8") for which in (0, 1))
        rows.append((symbol, np.array(since_2000, ">i4").tobytes(), closes.tobytes(), opens.tobytes()))
    return rows


def day(number: int) -> date:
    return START + timedelta(number)


def matrix_of(model: Model) -> PriceMatrix:
    return EMPTY.replace_days(day(0), day(400), packed(model))


def test_a_matrix_gives_sessions_closes_and_years() -> None:
    model = {("A", n): (10.0 + n, 10.0) for n in (0, 1, 2, 5, 6)} | {("B", n): (5.0, 5.0 + n) for n in (0, 1, 5, 6)}
    model |= {("COIN", n): (1.0, NAN) for n in range(4, 7)}
    matrix = matrix_of(model)
    # the 28th to the 30th; of A and B none on the 1st, of A, B and COIN all on the 2nd
    assert [matrix.date_of(n).isoformat() for n in range(len(matrix.sessions))] == [
        "2022-12-28", "2022-12-29", "2022-12-30", "2023-01-02", "2023-01-03",
    ]  # fmt: skip
    assert [matrix.last_session(day(n)) for n in (-1, 0, 2, 4, 5, 99)] == [None, 0, 2, 2, 3, 4]
    assert (matrix.last_session(None), matrix.first_of_year(4), matrix.first_of_year(2)) == (4, 3, 0)
    columns = matrix.columns_of(["B", "NOP", "A", "COIN"])
    same(matrix.session_closes(3, columns), [5, NAN, 15, 1])
    same(matrix.session_closes(-1, columns), [NAN] * 4)
    assert (matrix.count_priced(4, columns), matrix.count_priced(2, columns)) == (3, 1)
    same(matrix.intraday_directions(0, columns), [0, NAN, 0, NAN])
    same(matrix.intraday_directions(3, columns), [-1, NAN, 1, NAN])
    same(matrix.history(3, 2, columns), [[NAN, NAN, 12, NAN], [5, NAN, 15, 1]])
    assert matrix.history(1, 9, columns).shape == (2, 4)


entries = st.dictionaries(
    st.tuples(st.sampled_from("ABCDEFG"), st.integers(0, 29)),
    st.tuples(st.sampled_from([1.0, 2.0, 3.0]), st.sampled_from([1.0, 2.0, NAN])),
    max_size=60,
)


@few
@given(st.lists(st.tuples(st.integers(0, 29), st.integers(1, 12), entries), max_size=5), entries)
def test_days_replaced_in_any_order_leave_the_matrix_that_is_built_at_once(
    steps: list[tuple[int, int, Model]], begin: Model
) -> None:
    model, matrix = dict(begin), matrix_of(begin)
    for first, length, written in steps:
        new = {key: value for key, value in written.items() if first <= key[1] < first + length}
        model = {key: value for key, value in model.items() if not first <= key[1] < first + length} | new
        matrix = matrix.replace_days(day(first), day(first + length), packed(new))
    at_once = matrix_of(model)
    assert matrix.days.tolist() == at_once.days.tolist() == [day(n) for n in sorted({n for _, n in model})]
    assert matrix.sessions.tolist() == at_once.sessions.tolist()
    assert set(matrix.columns) == {symbol for symbol, _ in model}
    assert sorted(matrix.columns.values()) == [*range(len(matrix.columns))]
    for each in (matrix, at_once):
        assert each.closes.shape == each.intraday.shape == (len(each.days), len(each.columns) + 1)
        expected = np.full(each.closes.shape, NAN)
        intraday = np.full(each.closes.shape, NO_OPEN)
        numbers = {number: row for row, number in enumerate(sorted({n for _, n in model}))}
        for (symbol, number), (close, opened) in model.items():
            place = numbers[number], each.columns[symbol]
            expected[place] = close
            intraday[place] = NO_OPEN if math.isnan(opened) else (close > opened) - (close < opened)
        assert np.array_equal(each.closes, expected, equal_nan=True)
        assert np.array_equal(each.intraday, intraday)


@few
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), max_size=25))
def test_sessions_are_those_of_a_loop_over_sets(present: list[list[bool]]) -> None:
    expected: list[int] = []
    before: set[int] = set()
    for number, there in enumerate(present):
        here = {symbol for symbol, is_there in enumerate(there) if is_there}
        if number == 0 or len(here & before) >= len(before) / 2 or len(here) >= 2 * len(before):
            expected.append(number)
            before = here
    assert sessions_of(np.array(present, bool).reshape(len(present), 5)).tolist() == expected


# ---- against plain loops, and what must not matter

cents = st.one_of(st.just(NAN), st.integers(1, 100_000).map(lambda count: count / 100))
weight = st.one_of(st.just(NAN), st.integers(0, 1000).map(lambda count: count / 1000))
change = st.one_of(st.just(NAN), st.integers(-500, 900).map(lambda count: count / 1000))


@st.composite
def tables(draw: st.DrawFn, cell: st.SearchStrategy[float] = cents, rows: int = 30) -> FloatArray:
    """Rows x stocks."""
    width = draw(st.integers(1, 5))
    return np.array(draw(st.lists(st.lists(cell, min_size=width, max_size=width), min_size=1, max_size=rows)))


@st.composite
def baskets_over_values(draw: st.DrawFn) -> tuple[FloatArray, list[tuple[list[int], list[float]]]]:
    """Values, the last column of which is empty, and baskets over them."""
    values = np.hstack([table := draw(tables(change, rows=8)), np.full((len(table), 1), NAN)])
    member = st.tuples(st.integers(-1, values.shape[1] - 2), weight)
    baskets = draw(st.lists(st.lists(member, max_size=6), min_size=1, max_size=5))
    return values, [([place for place, _ in basket], [each for _, each in basket]) for basket in baskets]


def naive_mean(row: FloatArray, basket: tuple[list[int], list[float]]) -> float:
    pairs = [(row[place], w) for place, w in zip(*basket, strict=True) if not math.isnan(row[place] + w)]
    total = sum(w for _, w in pairs)
    return sum(x * w for x, w in pairs) / total if total else NAN


@pytest.mark.parametrize("block", [1, 7, 1_000_000])
def test_means_are_those_of_a_loop_however_many_values_are_gathered_at_a_time(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph.prices.returns, "_BLOCK", block)

    @few
    @given(baskets_over_values())
    def check(case: tuple[FloatArray, list[tuple[list[int], list[float]]]]) -> None:
        values, baskets = case
        given_values = values.copy()
        arrays = [(np.array(members, np.intp), np.array(weights)) for members, weights in baskets]
        expected = [[naive_mean(row, basket) for basket in baskets] for row in values]
        found = Baskets.of(arrays)
        same(found.mean(values), expected)
        columns, compact = found.compact()
        same(compact.mean(values[:, columns]), expected)
        counts = [[sum(bool(row[place] > 0) for place in members) for members, _ in baskets] for row in values]
        assert found.count(values > 0).tolist() == counts
        assert np.array_equal(values, given_values, equal_nan=True)

    check()


@few
@given(st.lists(st.one_of(st.just(NAN), st.sampled_from([-0.2, -0.1, 0.0, 0.1, 0.2, 0.3])), max_size=12))
def test_ranks_are_those_of_comparing_each_with_each(values: list[float]) -> None:
    naive = [None if math.isnan(x) else 1 + sum(other > x for other in values) for x in values]
    assert ranks(np.array(values, np.float64)) == naive


@few
@given(st.lists(st.tuples(change, weight), min_size=1, max_size=12), st.randoms())
def test_shares_sum_to_one_contributions_to_the_mean_and_order_means_nothing(
    members: list[tuple[float, float]], chance: Any
) -> None:
    moved, weights = (np.array(part) for part in zip(*members, strict=True))
    shares, parts = contributions(moved, weights)
    mean = naive_mean(moved, ([*range(len(moved))], list(weights)))
    if math.isnan(mean):
        assert np.isnan(shares).all()
        assert np.isnan(parts).all()
    else:
        same([np.nansum(shares), np.nansum(parts)], [1, mean])
        assert np.array_equal(np.isnan(parts), np.isnan(moved) | np.isnan(weights))
    order = chance.sample(range(len(moved)), len(moved))
    same(contributions(moved[order], weights[order]), [shares[order], parts[order]])
    basket = Baskets.of([(np.array(order, np.intp), weights[order])])
    same(basket.mean(np.append(moved, NAN)[np.newaxis]), [[mean]])


def naive_ema(closes: list[float], count: int) -> float:
    there = [close for close in closes if not math.isnan(close)]
    if len(there) < count:
        return NAN
    average = sum(there[:count]) / count
    for close in there[count:]:
        average = (2 * close + (count - 1) * average) / (count + 1)
    return average


@few
@given(tables(), st.integers(1, 10))
def test_averages_are_those_of_a_loop(closes: FloatArray, count: int) -> None:
    same(ema(closes, count), [naive_ema(list(stock), count) for stock in closes.T])
    last = closes[-count:]
    same(sma(closes, count), [sum(stock) / count if len(stock) == count else NAN for stock in last.T])


@few
@given(tables(), st.sampled_from([0.001, 0.25, 2.0, 3.7, 1e6]), st.randoms())
def test_a_split_of_all_closes_a_permutation_and_an_empty_column_change_nothing(
    closes: FloatArray, factor: float, chance: Any
) -> None:
    def measured(table: FloatArray) -> list[FloatArray]:
        now = table[-1]
        return [
            changes(now, table[0]),
            *(directions(now, average(table, count)) for average in (sma, ema) for count in (2, 5)),
        ]

    found = measured(closes)
    same(measured(closes * factor), found)
    order = chance.sample(range(closes.shape[1]), closes.shape[1])
    same(measured(closes[:, order]), [each[order] for each in found])
    empty = np.full((len(closes), 1), NAN)
    same(measured(np.hstack([closes, empty, empty])), [np.append(each, [NAN, NAN]) for each in found])


def walk(seed: int, sessions: int, rows: int, missing: float) -> FloatArray:
    chance = np.random.default_rng(seed)
    returns = np.round(chance.normal(0, 0.02, (sessions, rows)), 6)
    returns[chance.random(returns.shape) < missing] = NAN
    return returns


walks = given(st.integers(0, 2**32), st.integers(82, 130), st.sampled_from([0.0, 0.002]))


@few
@walks
def test_relative_strength_is_that_of_a_loop(seed: int, sessions: int, missing: float) -> None:
    returns = walk(seed, sessions, 3, missing)
    benchmark = returns[:, -1]
    ratio, momentum = relative_rotation(returns, benchmark)
    steps = RELATIVE_SESSIONS - 1
    assert steps == 82
    assert ratio.shape == momentum.shape == (sessions - steps + 1, 3)
    for point, row in np.ndindex(*ratio.shape):
        strength = [1.0]
        for one, other in zip(returns[point : point + steps, row], benchmark[point : point + steps], strict=True):
            strength.append(strength[-1] * (1 + one) / (1 + other))
        ratios = [100 * strength[n] / (sum(strength[n - 62 : n + 1]) / 63) for n in range(62, 83)]
        same([ratio[point, row], momentum[point, row]], [ratios[-1], 100 * ratios[-1] / (sum(ratios) / 21)])


@few
@walks
def test_a_row_equal_to_its_benchmark_is_flat_to_the_last_digit(seed: int, sessions: int, missing: float) -> None:
    returns = walk(seed, sessions, 2, missing)
    ratio, momentum = relative_rotation(returns, returns[:, 0])
    known = ~np.isnan(ratio[:, 0])
    assert set(ratio[known, 0]) | set(momentum[known, 0]) <= {100.0}


@few
@walks
def test_points_are_the_same_numbers_however_many_sessions_come_before(
    seed: int, sessions: int, missing: float
) -> None:
    returns = walk(seed, sessions, 3, missing)
    benchmark = walk(seed + 1, sessions, 1, missing)[:, 0]
    for whole, part in zip(
        relative_rotation(returns, benchmark), relative_rotation(returns[-90:], benchmark[-90:]), strict=True
    ):
        assert np.array_equal(whole[-9:], part[-9:], equal_nan=True)


@few
@walks
def test_rows_in_another_order_have_their_own_points(seed: int, sessions: int, missing: float) -> None:
    returns = walk(seed, sessions, 4, missing)
    benchmark = np.zeros(sessions)
    order = [2, 0, 3, 1]
    same(
        relative_rotation(returns[:, order], benchmark),
        [each[:, order] for each in relative_rotation(returns, benchmark)],
    )
