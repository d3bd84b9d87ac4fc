"""Relative rotation: the ratio and momentum of groups against a benchmark, computed for all groups at once."""

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

import numpy as np

from graph.execution.operation import Operation
from graph.prices.matrix import PriceMatrix
from graph.prices.performance import Basket
from graph.prices.returns import Baskets, FloatArray, IntArray, changes

RATIO_SESSIONS = 63
"""Length of the average that relative strength is divided by."""
MOMENTUM_SESSIONS = 21
"""Length of the average that the ratio is divided by."""
RELATIVE_SESSIONS = RATIO_SESSIONS + MOMENTUM_SESSIONS - 1
"""Consecutive closes that one point of a relative rotation takes: 83."""
DEFAULT_TAIL = 21
"""Sessions of a tail if their number is not given."""
MAX_TAIL = 252
"""Maximum number of sessions of a tail."""
MEMBER_SESSIONS_PER_CHARGE = 500
"""Members x sessions computed with that count as one object of the answer in the budget."""


class RotationPoints(NamedTuple):
    """The relative rotation of rows in consecutive sessions."""

    days: list[date]
    """The dates of the sessions, ascending."""
    ratio: FloatArray
    """The ratios, sessions x rows; NaN if a row has no point in a session."""
    momentum: FloatArray

    def of(self, row: int, count: int) -> tuple[list[date], list[float], list[float]]:
        """Return dates, ratios and momenta of a row in the last sessions; those without a point are left out."""
        first = max(0, len(self.days) - count)
        ratio, momentum = self.ratio[first:, row], self.momentum[first:, row]
        known = np.flatnonzero(~np.isnan(ratio))
        return [self.days[first + place] for place in known], ratio[known].tolist(), momentum[known].tolist()


class RelativeRotations:
    """Relative rotations of baskets against a benchmark, computed together when the first is requested."""

    def __init__(self, matrix: PriceMatrix, session: int, baskets: Sequence[Basket]) -> None:
        """Take the baskets of the rows, followed by that of the benchmark."""
        self._matrix = matrix
        self._session = session
        self._baskets = [(basket.columns, basket.weights) for basket in baskets]
        self._points: dict[int, asyncio.Future[RotationPoints]] = {}
        """Points by the number of sessions computed."""

    async def points(self, operation: Operation, count: int) -> RotationPoints:
        """Return the points of all rows, in the last `count` sessions at least where there are so many."""
        sessions = DEFAULT_TAIL if count <= DEFAULT_TAIL else MAX_TAIL
        if sessions not in self._points:
            cells = sum(len(columns) for columns, _ in self._baskets) * (RELATIVE_SESSIONS + sessions)
            operation.charge(cells // MEMBER_SESSIONS_PER_CHARGE)
            computing = operation.compute(cells, _rotation_points, self._matrix, self._session, self._baskets, sessions)
            self._points[sessions] = asyncio.ensure_future(computing)
        # one of those who wait may be cancelled without the others
        return await asyncio.shield(self._points[sessions])


def _rotation_points(
    matrix: PriceMatrix, session: int, weighted: Sequence[tuple[IntArray, FloatArray]], sessions: int
) -> RotationPoints:
    columns, baskets = Baskets.of(weighted).compact()
    closes = matrix.history(session, RELATIVE_SESSIONS + sessions - 1, columns)
    returns = baskets.mean(changes(closes[1:], closes[:-1]))
    ratio, momentum = relative_rotation(returns[:, :-1], returns[:, -1])
    days = [matrix.date_of(each) for each in range(session + 1 - len(ratio), session + 1)]
    return RotationPoints(days, ratio, momentum)


def relative_rotation(returns: FloatArray, benchmark: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the ratio and the momentum of rows against a benchmark, both points x rows.

    `returns` (sessions x rows) and `benchmark` (sessions) are changes from session to session. The relative strength RS
    of a row is its index, the product of 1 + change (so rebalanced daily), over the benchmark's index.
    ratio = 100 RS / SMA63(RS), momentum = 100 ratio / SMA21(ratio). This is an open form of the relative rotation that
    Julius de Kempenaer introduced, whose own formulas are not published.

    A point is a session with the 82 changes that lead to it; NaN if one of these changes is missing.
    """
    steps = RELATIVE_SESSIONS - 1
    points = len(returns) - steps + 1
    if points < 1:
        return np.empty((0, returns.shape[1])), np.empty((0, returns.shape[1]))
    growth = (1 + returns) / (1 + benchmark[:, np.newaxis])
    missing = np.isnan(growth)
    with np.errstate(invalid="ignore", divide="ignore"):
        # relative to the last session, so that a point is the same float however many sessions come before it
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
    """Average each run of consecutive values."""
    averages: FloatArray = np.lib.stride_tricks.sliding_window_view(values, count, axis=0).mean(axis=-1)
    return averages
