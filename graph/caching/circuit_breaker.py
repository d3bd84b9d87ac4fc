"""A circuit breaker: a Redis that did not answer in time is left alone for a while, by all caches of a process."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError, ResponseError

REDIS_SECONDS = 0.5
"""Seconds that Redis may take; after that the database is read."""
RETRY_SECONDS = 5.0
"""Seconds for which a Redis that did not answer is left alone, before one request tries it again."""

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class CircuitBreaker:
    """Passes requests on to a Redis as long as it answers.

    While it does not, requests return at once; nobody waits for the one that tries it again.
    """

    def __init__(self) -> None:
        self._opened: float | None = None
        self._retry_at = 0.0
        self._retry: asyncio.Task[object] | None = None

    async def call(self, request: Callable[[], Awaitable[Result]]) -> Result | None:
        """Send a request and wait for its result; return None if Redis refuses it, or does not answer."""
        if self._opened is None:
            return await self._send(request)
        if time.monotonic() >= self._retry_at and (self._retry is None or self._retry.done()):
            self._retry = asyncio.create_task(self._send(request))
        return None

    def close(self) -> None:
        """Cancel a request that tries again."""
        if self._retry is not None:
            self._retry.cancel()

    async def _send(self, request: Callable[[], Awaitable[Result]]) -> Result | None:
        result: Result | None = None
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                result = await request()
        except ResponseError:
            pass  # an error is an answer
        except (RedisError, OSError) as error:  # a TimeoutError is an OSError
            self._open(error)
            return None
        if self._opened is not None:
            log.info("Redis answers again, after %.0f s.", time.monotonic() - self._opened)
            self._opened = None
        return result

    def _open(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if self._opened is None:
            self._opened = time.monotonic()
            log.warning("Redis does not answer (%s); the database is read until it does.", type(error).__name__)
