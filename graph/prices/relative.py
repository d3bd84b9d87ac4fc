"""Relative rotation of the rows of one rotation against a benchmark, computed for all rows at once."""

import asyncio
import math
from collections.abc import Sequence
from datetime import date
from typing import TypeAlias

from graph.execution.operation import Operation
from graph.prices.matrix import PriceMatrix
from graph.prices.performance import Basket
from graph.prices.returns import RELATIVE_SESSIONS, Baskets, changes, relative_rotation

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
