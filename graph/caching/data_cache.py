"""What is remembered of the database: rows, under the generation that they were read in. aiocache, behind one class."""

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, cast

import orjson
import redis.asyncio
import redis.exceptions
from aiocache import RedisCache, SimpleMemoryCache
from aiocache.serializers import NullSerializer

from graph.caching.generations import CONFIRMED_SECONDS, GenerationTracker
from graph.errors import DatabaseUnavailable
from graph.postgres.database import Generation
from graph.postgres.statements import Family

MAX_ENTRIES = 1_024
MAX_BYTES = 64 * 1024 * 1024
REDIS_SECONDS = 0.5
"""How long Redis may take; past that the database is read."""
REDIS_KEEPS_SECONDS = 600
"""Each generation has keys of its own; this is how long those of an old one stay."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class CachedValue(Generic[Value]):
    """A value and where it stands in time."""

    value: Value
    generation: Generation | None
    """Of a snapshot it stood in; None where the database keeps no track of changes."""
    stale: bool = False
    """Whether it is served, during an outage, without being known to hold still."""


class CacheStats(NamedTuple):
    """How a memo does. Bytes are estimated, and None where a Redis holds them."""

    entries: int
    bytes: int | None
    hits: int
    misses: int
    evictions: int


class _Entry(NamedTuple):
    generation: int
    value: Any


class _Flight(NamedTuple):
    started: float
    task: "asyncio.Task[CachedValue[Any]]"


class DataCache(Generic[Value]):
    """Values by key: bounded, least recently used out, one load in flight for a key, nothing served unless confirmed.

    Values are frozen: made of tuples, texts and numbers. `thaw` makes one again from its JSON, for a Redis.
    """

    def __init__(
        self,
        name: str,
        generations: GenerationTracker,
        deserialize: Callable[[Any], Value] | None = None,
        *,
        family: Family = "groups",
        redis_url: str | None = None,
        serve_stale: bool = False,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._name = name
        self._generations = generations
        self._deserialize = deserialize
        self.family: Family = family
        """What its values are read from."""
        self._serve_stale = serve_stale
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._redis = redis_url is not None
        if redis_url is None:
            self._cache: Any = SimpleMemoryCache(serializer=NullSerializer(), timeout=None)
        else:
            self._cache = RedisCache(serializer=NullSerializer(encoding=None), timeout=REDIS_SECONDS)
            # aiocache's own parameters know neither a user's name nor rediss://
            self._cache.client = redis.asyncio.from_url(redis_url, socket_connect_timeout=REDIS_SECONDS)
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0
        self._flights: dict[str, _Flight] = {}
        self._epoch = generations.epoch
        self._rewinds = generations.rewinds
        self._hits = self._misses = self._evictions = 0

    async def close(self) -> None:
        """Let go of the connection to Redis."""
        for flight in self._flights.values():
            flight.task.cancel()
        if self._redis:
            await self._cache.client.aclose()

    def stats(self) -> CacheStats:
        """Count what is remembered, and how often that helped, since the start."""
        return CacheStats(
            len(self._sizes), None if self._redis else self._bytes, self._hits, self._misses, self._evictions
        )

    async def get(self, key: str, load: Callable[[], Awaitable[CachedValue[Value]]]) -> CachedValue[Value]:
        """Give what is remembered under a key, or load it: together with whoever else asks for it now."""
        await self._flush()
        known = self._generations.confirmed_generation(self.family)
        if known is not None and (entry := await self._read(key, known.of(self.family))):
            self._hits += 1
            return CachedValue(entry.value, known)
        self._misses += 1
        try:
            return await self._single_flight(key, load)
        except DatabaseUnavailable:
            last = self._generations.generation
            if self._serve_stale and last is not None and (entry := await self._read(key, last.of(self.family))):
                return CachedValue(entry.value, last, stale=True)
            raise

    async def last(self, key: str) -> Value | None:
        """Give what was remembered last under a key, of whatever generation: what a new value may be made from."""
        await self._flush()
        entry: _Entry | None = None if self._redis else await self._cache.get(key)
        return None if entry is None else entry.value

    async def _single_flight(self, key: str, load: Callable[[], Awaitable[CachedValue[Value]]]) -> CachedValue[Value]:
        while True:
            flight = self._flights.get(key)
            # a load that began too long ago may miss a change that this request must see
            if flight is None or time.monotonic() - flight.started >= CONFIRMED_SECONDS:
                flight = self._flights[key] = _Flight(time.monotonic(), asyncio.create_task(self._fill(key, load)))
                flight.task.add_done_callback(partial(self._flight_done, key))
            try:
                return await asyncio.shield(flight.task)
            except asyncio.CancelledError:
                # whose operation loaded may be gone; then whoever is left loads
                if not flight.task.cancelled() or cast("asyncio.Task[None]", asyncio.current_task()).cancelling():
                    raise
                self._flight_done(key, flight.task)

    def _flight_done(self, key: str, task: "asyncio.Task[CachedValue[Value]]") -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # whoever still waits is told; nobody may

    async def _fill(self, key: str, load: Callable[[], Awaitable[CachedValue[Value]]]) -> CachedValue[Value]:
        epoch = self._generations.epoch
        loaded = await load()
        if loaded.generation is not None and epoch == self._generations.epoch:
            await self._write(key, _Entry(loaded.generation.of(self.family), loaded.value))
        return loaded

    async def _flush(self) -> None:
        if self._epoch != self._generations.epoch:
            self._epoch = self._generations.epoch
            self._sizes.clear()
            self._bytes = 0
            if not self._redis:
                await self._cache.clear()
        if self._rewinds != self._generations.rewinds:
            self._rewinds = self._generations.rewinds
            if self._redis:
                # a generation can come to mean something else; at any other time the keys themselves tell them apart
                await self._try(self._cache.clear(namespace=self._namespace()))

    def _namespace(self) -> str:
        return f"stockgraph:{self._name}:{self._generations.identity}"

    async def _try(self, request: Awaitable[Any]) -> Any:
        """Wait for Redis; where it does not answer, nothing is remembered there."""
        try:
            return await request
        except (redis.exceptions.RedisError, OSError, TimeoutError):
            return None

    async def _read(self, key: str, generation: int) -> _Entry | None:
        if not self._redis:
            entry: _Entry | None = await self._cache.get(key)
            if entry is None or entry.generation != generation:
                return None
            self._sizes.move_to_end(key)
            return entry
        text = await self._try(self._cache.get(f"{generation}:{key}", namespace=self._namespace()))
        try:
            return (
                None
                if text is None or self._deserialize is None
                else _Entry(generation, self._deserialize(orjson.loads(text)))
            )
        except (orjson.JSONDecodeError, TypeError, ValueError):
            return None

    async def _write(self, key: str, entry: _Entry) -> None:
        if self._redis:
            self._sizes[key] = 0
            if len(self._sizes) > self._max_entries:
                self._sizes.popitem(last=False)
            await self._try(
                self._cache.set(
                    f"{entry.generation}:{key}",
                    orjson.dumps(entry.value, default=tuple),
                    ttl=REDIS_KEEPS_SECONDS,
                    namespace=self._namespace(),
                )
            )
            return
        held: _Entry | None = await self._cache.get(key)
        if held is not None and held.generation > entry.generation:
            return
        await self._cache.set(key, entry)
        self._bytes -= self._sizes.pop(key, 0)
        self._sizes[key] = size = sys.getsizeof(key) + _size(entry)
        self._bytes += size
        while len(self._sizes) > self._max_entries or self._bytes > self._max_bytes:
            oldest, freed = self._sizes.popitem(last=False)
            self._bytes -= freed
            self._evictions += 1
            await self._cache.delete(oldest)


def _size(value: object) -> int:
    """Estimate the bytes of a frozen value."""
    return sys.getsizeof(value) + (sum(map(_size, value)) if isinstance(value, tuple) else 0)
