"""Arithmetic of returns, breadth and relative strength: pure functions over arrays, without a database.

Closes are float64, sessions x stocks, oldest first. NaN is a missing close, and every result that needs one is NaN too.
Changes, shares and weights are fractions (0.05 = 5 %).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.intp]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

_BLOCK = 1_000_000
"""Values that `Baskets.mean` gathers at a time, which bounds its memory."""
_EQUAL = 1e-12
"""Relative difference up to which two numbers count as equal, since rounding can cause it."""
_DECIMALS = 12
"""Decimals that numbers are rounded to before they are compared."""


def changes(now: FloatArray, then: FloatArray) -> FloatArray:
    """Return (now - then) / then, or NaN if that is infinite."""
    with np.errstate(over="ignore"):
        change = (now - then) / then
    change[np.isinf(change)] = np.nan
    return change


@dataclass(frozen=True, slots=True)
class Baskets:
    """Sets of weighted stocks, concatenated into one array of members."""

    members: IntArray
    """Column of each member."""
    weights: FloatArray
    """Weight of each member, in any unit; NaN if it has none."""
    offsets: IntArray
    """Index of the first member of each basket; no basket is empty."""

    @classmethod
    def of(cls, baskets: Sequence[tuple[IntArray, FloatArray]]) -> "Baskets":
        """Concatenate baskets, each given as columns and weights; the last column must have no values."""
        # reduceat cannot sum nothing, so an empty basket gets one member without a value and a weight
        placeholder = np.array([-1]), np.array([np.nan])
        filled = [basket if len(basket[0]) else placeholder for basket in baskets]
        members, weights = (np.concatenate(arrays) for arrays in zip(*filled, strict=True))
        return cls(members, weights, np.cumsum([0, *(len(members) for members, _ in filled[:-1])]))

    def compact(self) -> tuple[IntArray, "Baskets"]:
        """Return the columns that occur, and the same baskets as indices into these."""
        columns, members = np.unique(self.members, return_inverse=True)
        return columns, Baskets(members, self.weights, self.offsets)

    def mean(self, values: FloatArray) -> FloatArray:
        """Average values (rows x columns) by weight: sum(w x) / sum(w) over the members that have both.

        Returns rows x baskets: NaN if no member has both, or if their weights sum to zero.
        """
        weights = np.where(np.isfinite(self.weights), self.weights, 0.0)
        present = ~np.isnan(values)
        filled = np.where(present, values, 0.0)
        totals = np.empty((len(values), len(self.offsets)))
        rows = max(1, _BLOCK // len(self.members))
        for first in range(0, len(values), rows):
            block = filled[first : first + rows].take(self.members, axis=1)
            block *= weights
            totals[first : first + rows] = np.add.reduceat(block, self.offsets, axis=1)
        sums = self._sum_weights(present, weights)
        if (weights < 0).any():
            # weights such as 0.1, 0.2 and -0.3 do not sum to exactly zero in floats
            sums[np.abs(sums) <= _EQUAL * self._sum_weights(present, np.abs(weights))] = 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            means = totals / sums
        means[~np.isfinite(means)] = np.nan
        return means

    def _sum_weights(self, present: BoolArray, weights: FloatArray) -> FloatArray:
        """Sum the weights of the members that have a value: rows x baskets."""
        # most members have a value in every row: they are summed once for all rows
        always = np.logical_and.reduce(present, axis=0)[self.members]
        sums = np.tile(np.add.reduceat(np.where(always, weights, 0.0), self.offsets), (len(present), 1))
        others = np.flatnonzero(~always)
        if len(others):
            baskets, offsets = np.unique(np.searchsorted(self.offsets, others, side="right") - 1, return_index=True)
            sums[:, baskets] += np.add.reduceat(
                present.take(self.members[others], axis=1) * weights[others], offsets, axis=1
            )
        return sums

    def count(self, matching: BoolArray) -> npt.NDArray[np.int64]:
        """Count the members that match (a bool for rows x columns): rows x baskets."""
        matches = matching.take(self.members, axis=1).astype(np.int64)
        counts: npt.NDArray[np.int64] = np.add.reduceat(matches, self.offsets, axis=1)
        return counts


def ranks(values: FloatArray) -> list[int | None]:
    """Rank values from 1, the greatest first; equal ones (to 12 decimals) share the better rank, and NaN has None."""
    values = np.round(values, _DECIMALS)
    known = np.sort(values[~np.isnan(values)])
    below = np.searchsorted(known, values, side="right")
    return [
        None if missing else len(known) - int(count) + 1 for count, missing in zip(below, np.isnan(values), strict=True)
    ]


def contributions(change: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return each member's share of the weight, w / sum(w), and its contribution, share x change.

    The sum is over the members with a change and a weight. Both results are NaN for the others, and for all members if
    the weights sum to zero. The contributions sum to the weighted change.
    """
    shares = np.where(np.isnan(change), np.nan, weights)
    total = np.nansum(shares)
    nonzero = abs(total) > _EQUAL * np.nansum(np.abs(shares))
    shares = shares / total if nonzero else np.full_like(shares, np.nan)
    return shares, shares * change


def largest(values: FloatArray, count: int) -> IntArray:
    """Return the indices of the largest values above zero, largest first; equal ones (to 12 decimals) as given."""
    rounded = np.round(values, _DECIMALS)
    positive = np.flatnonzero(rounded > 0)
    return positive[np.argsort(-rounded[positive], kind="stable")][:count]


def sma(closes: FloatArray, count: int) -> FloatArray:
    """Average the last `count` closes of each stock; NaN if one of them is missing."""
    if len(closes) < count:
        return np.full(closes.shape[1], np.nan)
    average: FloatArray = closes[-count:].mean(axis=0)
    return average


def ema(closes: FloatArray, count: int) -> FloatArray:
    """Average the closes of each stock exponentially: alpha = 2 / (count + 1), seeded by the mean of the first `count`.

    Sessions without a close are skipped; NaN if a stock has fewer than `count` closes.
    """
    # not a session after another, since steps in Python would take as long for one stock as for thousands
    average = np.full(closes.shape[1], np.nan)
    if len(closes) >= count:
        weights = _ema_weights(np.arange(len(closes))[::-1], len(closes), count)
        average = np.einsum("s,sc->c", weights, closes)
    holed = np.flatnonzero(np.isnan(average))
    present = ~np.isnan(closes[:, holed])
    seen = np.count_nonzero(present, axis=0)
    present, holed, seen = present[:, seen >= count].T, holed[seen >= count], seen[seen >= count]
    if len(holed):
        ends = np.cumsum(seen)
        ages = np.repeat(ends, seen) - np.arange(1, ends[-1] + 1)
        weighted = _ema_weights(ages, np.repeat(seen, seen), count) * closes[:, holed].T[present]
        average[holed] = np.add.reduceat(weighted, ends - seen)
    return average


def _ema_weights(ages: IntArray, seen: IntArray | int, count: int) -> FloatArray:
    """Return the weights in an exponential average of the closes that so many others of a stock's `seen` came after."""
    alpha = 2 / (count + 1)
    weights: FloatArray = (1 - alpha) ** np.minimum(ages, seen - count)
    return weights * np.where(ages < seen - count, alpha, 1 / count)


def directions(values: FloatArray, others: FloatArray) -> npt.NDArray[np.float64]:
    """Return 1, 0 or -1 for values above, equal to (to 12 digits) or below others; NaN if one is missing."""
    difference = values - others
    difference[np.abs(difference) <= _EQUAL * np.abs(others)] = 0.0
    return np.sign(difference)


def bin_indices(change: FloatArray, threshold: float) -> IntArray:
    """Return the bin of each change x: 0 if x < -t, 1 if -t <= x < 0, 2 if 0 <= x < t, 3 if x >= t.

    Changes are compared to 12 decimals, and none may be NaN.
    """
    edges = [-threshold, 0.0, threshold]
    # a close of 95 after 100 is a change of -0.05, but floats may give the next number below that
    return np.searchsorted(np.round(edges, _DECIMALS), np.round(change, _DECIMALS), side="right")
