"""Relative rotation: the ratio and momentum of groups against a benchmark, computed for all groups at once."""

import asyncio
import math
from collections.abc import Sequence
from datetime import date
from typing import TypeAlias

import numpy as np

from graph.execution.operation import Operation
from graph.prices.matrix import PriceMatrix
from graph.prices.performance import Basket
from graph.prices.returns import Baskets, FloatArray, changes

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

RotationPoint: TypeAlias = tuple[date, float, float]
"""The date of a session, and the ratio and momentum of a row in it."""


class RelativeRotations:
    """Relative rotations of baskets against a benchmark, computed together when the first is requested."""

    def __init__(self, matrix: PriceMatrix, session: int, baskets: Sequence[Basket]) -> None:
        """Take the baskets of the rows, followed by that of the benchmark."""
        self._matrix = matrix
        self._session = session
        self._baskets = [(basket.columns, basket.weights) for basket in baskets]
        self._points: dict[int, asyncio.Future[list[list[RotationPoint]]]] = {}
        """Points of each row, by the number of sessions computed."""

    async def points(self, operation: Operation, row: int, count: int) -> list[RotationPoint]:
        """Return the points of a row in its last `count` sessions, ascending; sessions without a point are left out."""
        sessions = DEFAULT_TAIL if count <= DEFAULT_TAIL else MAX_TAIL
        if sessions not in self._points:
            members = sum(len(columns) for columns, _ in self._baskets)
            operation.charge(members * (RELATIVE_SESSIONS + sessions) // MEMBER_SESSIONS_PER_CHARGE)
            # in a thread, since it would block the event loop
            self._points[sessions] = asyncio.ensure_future(asyncio.to_thread(self._compute, sessions))
        points = await asyncio.shield(self._points[sessions])
        since = self._matrix.date_of(max(0, self._session + 1 - count))
        return [point for point in points[row] if point[0] >= since]

    def _compute(self, sessions: int) -> list[list[RotationPoint]]:
        columns, baskets = Baskets.of(self._baskets).compact()
        closes = self._matrix.history(self._session, RELATIVE_SESSIONS + sessions - 1, columns)
        returns = baskets.mean(changes(closes[1:], closes[:-1]))
        ratio, momentum = relative_rotation(returns[:, :-1], returns[:, -1])
        days = [self._matrix.date_of(self._session - back) for back in range(len(ratio) - 1, -1, -1)]
        return [
            [
                (day, float(x), float(y))
                for day, x, y in zip(days, ratio[:, row], momentum[:, row], strict=True)
                if not math.isnan(x)
            ]
            for row in range(returns.shape[1] - 1)
        ]


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
