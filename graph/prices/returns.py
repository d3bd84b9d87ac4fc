"""The arithmetic of rotation: returns, breadth and relative strength. Pure: arrays in, arrays out, no database.

Closes come as float64, sessions x stocks, oldest first; NaN is a close that is missing, and so is every result that
needs one. Changes, shares and weights are fractions (0.05 = 5 %).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.intp]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

RATIO_SESSIONS = 63
"""Of the average that relative strength is compared with."""
MOMENTUM_SESSIONS = 21
"""Of the average that the ratio is compared with."""
RELATIVE_SESSIONS = RATIO_SESSIONS + MOMENTUM_SESSIONS - 1
"""Closes on end that one point of a relative rotation takes: 83."""

_BLOCK = 1_000_000  # values that are gathered at a time
_EQUAL = 1e-12  # what rounding can make of equal numbers,
_DECIMALS = 12  # and where it cannot be seen


def changes(now: FloatArray, then: FloatArray) -> FloatArray:
    """Give (now - then) / then; missing where that is beyond all numbers."""
    with np.errstate(over="ignore"):
        change = (now - then) / then
    change[np.isinf(change)] = np.nan
    return change


@dataclass(frozen=True, slots=True)
class Baskets:
    """Sets of weighted stocks, laid one after another."""

    members: IntArray
    """The column of each member."""
    weights: FloatArray
    """Of each member, in any unit; NaN where it has none."""
    starts: IntArray
    """Where each basket begins; none is empty."""

    @classmethod
    def of(cls, baskets: Sequence[tuple[IntArray, FloatArray]]) -> "Baskets":
        """Lay out baskets, each the columns of its members and their weights; the last column has no values."""
        # in one without members stands one of which nothing is known
        nobody = np.array([-1]), np.array([np.nan])
        laid = [basket if len(basket[0]) else nobody for basket in baskets]
        members, weights = (np.concatenate(parts) for parts in zip(*laid, strict=True))
        return cls(members, weights, np.cumsum([0, *(len(members) for members, _ in laid[:-1])]))

    def compact(self) -> tuple[IntArray, "Baskets"]:
        """Give the columns that occur, and the baskets over these alone."""
        columns, members = np.unique(self.members, return_inverse=True)
        return columns, Baskets(members, self.weights, self.starts)

    def mean(self, values: FloatArray) -> FloatArray:
        """Average values (moments x columns) by weight: sum(w x) / sum(w) over the members that have both.

        Moments x baskets; NaN where none has both, or their weights sum to zero.
        """
        weights = np.where(np.isfinite(self.weights), self.weights, 0.0)
        there = ~np.isnan(values)
        filled = np.where(there, values, 0.0)
        totals = np.empty((len(values), len(self.starts)))
        rows = max(1, _BLOCK // len(self.members))
        for first in range(0, len(values), rows):
            block = filled[first : first + rows, self.members]
            block *= weights
            totals[first : first + rows] = np.add.reduceat(block, self.starts, axis=1)
        sums = self._weights_there(there, weights)
        if (weights < 0).any():
            # such as 0.1, 0.2 and -0.3, whose sum in floats is not quite zero
            sums[np.abs(sums) <= _EQUAL * self._weights_there(there, np.abs(weights))] = 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            means = totals / sums
        means[~np.isfinite(means)] = np.nan
        return means

    def _weights_there(self, there: BoolArray, weights: FloatArray) -> FloatArray:
        """Sum the weights of the members that have a value: moments x baskets."""
        # of the many that have all values once for all moments
        always = np.logical_and.reduce(there, axis=0)[self.members]
        sums = np.tile(np.add.reduceat(np.where(always, weights, 0.0), self.starts), (len(there), 1))
        others = np.flatnonzero(~always)
        if len(others):
            baskets, begins = np.unique(np.searchsorted(self.starts, others, side="right") - 1, return_index=True)
            sums[:, baskets] += np.add.reduceat(there[:, self.members[others]] * weights[others], begins, axis=1)
        return sums

    def tally(self, matching: BoolArray) -> npt.NDArray[np.int64]:
        """Count the members for which something is true (moments x columns), as moments x baskets."""
        counts: npt.NDArray[np.int64] = np.add.reduceat(matching[:, self.members].astype(np.int64), self.starts, axis=1)
        return counts


def ranks(values: FloatArray) -> list[int | None]:
    """Rank values, the greatest first and from 1; equal ones (to 12 decimals) share the better rank, NaN has none."""
    values = np.round(values, _DECIMALS)
    known = np.sort(values[~np.isnan(values)])
    below = np.searchsorted(known, values, side="right")
    return [
        None if missing else len(known) - int(count) + 1 for count, missing in zip(below, np.isnan(values), strict=True)
    ]


def contributions(change: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Give each member's share of the weight, w / sum(w) over those with both, and its contribution, share x change.

    The contributions sum to the weighted change; both are NaN for members without a change or a weight, and for all
    where the weights sum to zero.
    """
    shares = np.where(np.isnan(change), np.nan, weights)
    total = np.nansum(shares)
    whole = abs(total) > _EQUAL * np.nansum(np.abs(shares))
    shares = shares / total if whole else np.full_like(shares, np.nan)
    return shares, shares * change


def largest(values: FloatArray, count: int) -> IntArray:
    """Give the places of the largest values above zero, the first first; equal ones (to 12 decimals) as they come."""
    rounded = np.round(values, _DECIMALS)
    above = np.flatnonzero(rounded > 0)
    return above[np.argsort(-rounded[above], kind="stable")][:count]


def relative_rotation(returns: FloatArray, benchmark: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Compare rows with a benchmark, by their changes from session to session: sessions x rows, and sessions.

    The relative strength RS of a row is its index (the product of 1 + change, so rebalanced daily) over that of the
    benchmark. ratio = 100 RS / SMA63(RS), momentum = 100 ratio / SMA21(ratio). This is an open form of the relative
    rotation that Julius de Kempenaer made known, whose own formulas are not published.

    Gives both for the last sessions, as many as have the 82 changes before them: points x rows; NaN where one of these
    changes is missing.
    """
    steps = RELATIVE_SESSIONS - 1
    points = len(returns) - steps + 1
    if points < 1:
        return np.empty((0, returns.shape[1])), np.empty((0, returns.shape[1]))
    growth = (1 + returns) / (1 + benchmark[:, np.newaxis])
    missing = np.isnan(growth)
    with np.errstate(invalid="ignore", divide="ignore"):
        # against the last session, so that a point is the same number however many come before it
        decline = np.cumprod(np.where(missing, 1.0, growth)[::-1], axis=0)
        strength = np.vstack([1 / decline[::-1], np.ones((1, returns.shape[1]))])
        ratio = 100 * strength[RATIO_SESSIONS - 1 :] / _averages(strength, RATIO_SESSIONS)
        momentum = 100 * ratio[MOMENTUM_SESSIONS - 1 :] / _averages(ratio, MOMENTUM_SESSIONS)
    ratio = ratio[MOMENTUM_SESSIONS - 1 :]
    unknown = np.lib.stride_tricks.sliding_window_view(missing, steps, axis=0).any(axis=-1)
    unknown |= ~np.isfinite(ratio) | ~np.isfinite(momentum)
    ratio[unknown] = momentum[unknown] = np.nan
    return ratio, momentum


def _averages(values: FloatArray, count: int) -> FloatArray:
    """Average each run of values on end."""
    averages: FloatArray = np.lib.stride_tricks.sliding_window_view(values, count, axis=0).mean(axis=-1)
    return averages


def sma(closes: FloatArray, count: int) -> FloatArray:
    """Average the last closes of each stock; NaN where one of them is missing."""
    if len(closes) < count:
        return np.full(closes.shape[1], np.nan)
    average: FloatArray = closes[-count:].mean(axis=0)
    return average


def ema(closes: FloatArray, count: int) -> FloatArray:
    """Average the closes of each stock exponentially: alpha = 2 / (count + 1), seeded by the mean of the first `count`.

    Sessions that a stock has no close of are passed over; NaN where it has fewer closes than that.
    """
    alpha = 2 / (count + 1)
    average = np.zeros(closes.shape[1])
    seen = np.zeros(closes.shape[1], np.int64)
    for close, there in zip(closes, ~np.isnan(closes), strict=True):
        seen += there
        # the mean of the first so many, until there are enough of them
        step = np.where(seen <= count, 1 / np.maximum(seen, 1), alpha)
        average += np.where(there, step * (close - average), 0.0)
    average[seen < count] = np.nan
    return average


def directions(values: FloatArray, others: FloatArray) -> npt.NDArray[np.float64]:
    """Say whether values are above (1), at (0) or below (-1) others, NaN where one is missing."""
    difference = values - others
    difference[np.abs(difference) <= _EQUAL * np.abs(others)] = 0.0
    return np.sign(difference)


def bins(change: FloatArray, threshold: float) -> IntArray:
    """Sort changes into x < -t, -t <= x < 0, 0 <= x < t and x >= t, numbered 0 to 3, each x as the decimal it is.

    Missing ones must be left out before.
    """
    edges = [-threshold, 0.0, threshold]
    # 95 after 100 is a change of -0.05 and not of the next number below it, which is what floats may make of it
    return np.searchsorted(np.round(edges, _DECIMALS), np.round(change, _DECIMALS), side="right")
