"""Rates: how many requests a minute a caller or an address may send, counted in this process or in a Redis.

Responses tell of it in the fields of draft-ietf-httpapi-ratelimit-headers-11: `RateLimit-Policy` has the requests `q`
in `w` seconds, and `RateLimit` the requests `r` that are left for the next `t` seconds. The requests come back one by
one, spread over the minute (GCRA), so that nobody waits for a minute to end.
"""

import asyncio
import logging
import math
import time
from functools import partial
from typing import cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from throttled import MemoryStore, RateLimiterType, Throttled, per_min
from throttled.asyncio import RateLimitResult, RedisStore
from throttled.asyncio import Throttled as AsyncThrottled

from graph.caching.lru import LRU
from graph.errors import ErrorCode
from graph.http.requests import RequestError, RequestHead
from graph.model import Caller, network_of

MAX_CALLERS = 20_000
"""Number of callers and addresses that a process counts; the one that was silent for longest is forgotten first."""
REDIS_SECONDS = 0.05
"""Seconds that a request waits for Redis; after that it is counted in the process."""
REDIS_REST_SECONDS = 5.0
"""Seconds that a Redis which did not answer is left alone."""
_MINUTE = 60

log = logging.getLogger(__name__)


class RateExceeded(RequestError):
    """A request beyond what its caller may send."""

    def __init__(self, rate: int, seconds: int, headers: list[tuple[bytes, bytes]]) -> None:
        super().__init__(
            429, f"More than {rate} requests a minute came from you; try again in {seconds} s.", ErrorCode.RATE_LIMITED
        )
        self.headers = [*headers, (b"retry-after", b"%d" % seconds)]


class _RedisStore(RedisStore):
    def __init__(self, url: str) -> None:
        # few, since making a connection takes many times as long as counting a request; the rest waits its turn. All
        # give up after a second, when no request waits for them any more
        pool = {"max_connections": 4, "timeout": 1, "retry": Retry(NoBackoff(), 1)}
        super().__init__(
            url,
            {
                "CONNECTION_POOL_CLASS": "redis.asyncio.BlockingConnectionPool",
                "CONNECTION_POOL_KWARGS": pool,
                "SOCKET_TIMEOUT": 1.0,
                "SOCKET_CONNECT_TIMEOUT": 1.0,
            },
        )

    async def close(self) -> None:
        await cast("Redis", self._backend.get_client()).aclose(close_connection_pool=True)


class RateLimiter:
    """A limit on the requests a minute of each caller, or of each address of those who are anonymous.

    An address is that of the connection, whatever headers say; of IPv6 its first 64 bits count, which one client has
    for itself. With the URL of a Redis all processes that use it count together; one that does not answer costs a
    request REDIS_SECONDS once, and as long as it is away each process counts by itself.
    """

    def __init__(self, rate: int, redis_url: str | None = None) -> None:
        self._rate = rate
        self._policy = (b"ratelimit-policy", b'"minute";q=%d;w=%d' % (rate, _MINUTE))
        gcra, quota = RateLimiterType.GCRA.value, per_min(rate)
        self._local = Throttled(using=gcra, quota=quota, store=MemoryStore(options={"MAX_SIZE": MAX_CALLERS})).limiter
        self._redis = _RedisStore(redis_url) if redis_url else None
        self._shared = (
            AsyncThrottled(using=gcra, quota=quota, store=self._redis, key_prefix="stockgraph:rate").limiter
            if self._redis
            else None
        )
        self._tasks: set[asyncio.Task[RateLimitResult]] = set()
        self._redis_due = 0.0
        """The time from which a Redis that did not answer is asked again; 0 if it answers."""
        self._refused: LRU[str, float] = LRU(lambda *_: 0, max_bytes=0, max_entries=MAX_CALLERS)
        """The times until which Redis will refuse a key, so that it need not be asked."""

    async def close(self) -> None:
        """Close the connections to Redis."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._redis:
            await self._redis.close()

    async def count(self, head: RequestHead, caller: Caller) -> list[tuple[bytes, bytes]]:
        """Count a request and return the headers that tell of the limit; RateExceeded if it is one too many."""
        key = f"caller:{caller.key}" if caller.key else f"address:{network_of(head.client)}"
        if (wait := self._refused.get(key, 0.0) - time.monotonic()) > 0:
            raise self._exceeded(wait)
        result = await self._count_in_redis(key)
        if result is None or not result.limited:
            # what Redis counts too, so that nobody has a whole budget again when it goes away
            local = self._local.limit(key)
            result = result or local
        state = result.state
        if result.limited:
            raise self._exceeded(state.retry_after)
        # until one more of them is there than now
        wait = state.reset_after - _MINUTE * (1 - (state.remaining + 1) / self._rate)
        return self._headers(state.remaining, _whole_seconds(wait))

    def _headers(self, remaining: int, seconds: int) -> list[tuple[bytes, bytes]]:
        return [self._policy, (b"ratelimit", b'"minute";r=%d;t=%d' % (remaining, seconds))]

    def _exceeded(self, wait: float) -> RateExceeded:
        seconds = _whole_seconds(wait)
        return RateExceeded(self._rate, seconds, self._headers(0, seconds))

    async def _count_in_redis(self, key: str) -> RateLimitResult | None:
        """Count a request in Redis; return None if there is none, or none that answers in time."""
        started = time.monotonic()
        if self._shared is None or started < self._redis_due:
            return None
        task = asyncio.create_task(self._shared.limit(key))
        self._tasks.add(task)
        task.add_done_callback(partial(self._on_redis, started))
        if self._redis_due:
            # this one only finds out whether it is back, and nobody waits for that
            self._redis_due = started + REDIS_REST_SECONDS
            return None
        # not cancelled when the time is up, since a connection may take longer to make than to use
        await asyncio.wait((task,), timeout=REDIS_SECONDS)
        if not task.done():
            self._rest_redis()
            return None
        result = None if task.cancelled() or task.exception() else task.result()
        # a Redis whose clock went back would refuse for longer than any budget takes to be whole
        if result is None or not result.state.reset_after <= _MINUTE + 1:
            return None
        if result.limited:
            self._refused.store(key, started + result.state.retry_after)
        return result

    def _on_redis(self, started: float, task: "asyncio.Task[RateLimitResult]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        # one that is slow would delay each request
        if task.exception() or time.monotonic() - started > REDIS_SECONDS:
            self._rest_redis()
        else:
            self._redis_due = 0.0

    def _rest_redis(self) -> None:
        if not self._redis_due:
            log.warning("The Redis of CACHE_URL does not answer; each process counts requests by itself until it does.")
        self._redis_due = time.monotonic() + REDIS_REST_SECONDS


def _whole_seconds(wait: float) -> int:
    # rounded first, since sums of fractions are too long by some 1e-11
    return max(1, math.ceil(round(wait, 3)))
