"""Caches of values that were read from the database, each under its generation; aiocache behind one class."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, cast

import orjson
import redis.asyncio
from aiocache import RedisCache, SimpleMemoryCache
from aiocache.serializers import NullSerializer

from graph.caching.circuit_breaker import REDIS_SECONDS, CircuitBreaker
from graph.caching.generations import CONFIRMED_SECONDS, GenerationTracker
from graph.caching.lru import LRU
from graph.caching.memory import share_of
from graph.caching.sizes import Sizer
from graph.errors import DatabaseUnavailable
from graph.postgres.database import Generation
from graph.postgres.statements import Family
from graph.telemetry import Observer

ENTRY_BYTES = 500
"""Bytes of an entry besides its value and its key: its slots in two dictionaries."""
MAX_REDIS_BYTES = 4 * 1024 * 1024
"""Maximum bytes of an entry in a Redis; of a longer one no more is read."""
REDIS_KEEPS_SECONDS = 600
"""Seconds that a Redis keeps an entry; each generation has keys of its own."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class CachedValue(Generic[Value]):
    """A value with the generation that it was read in."""

    value: Value
    generation: Generation | None
    """The generation of its snapshot; None if the database does not count its changes."""
    stale: bool = False
    """True if it is served during an outage, without a confirmed generation."""


class CacheStats(NamedTuple):
    """Statistics of a cache since the start; bytes are measured, and None if a Redis holds the entries."""

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


@dataclass(frozen=True, eq=False)
class CacheSpec(Generic[Value]):
    """A kind of cached value, declared where it is used. Specs are compared by identity.

    Values are frozen: made of tuples, texts and numbers. `deserialize` makes one from its JSON, for a Redis, and raises
    TypeError or ValueError if that is not of such a value; without it the values are cached in the process alone.
    """

    name: str
    deserialize: Callable[[Any], Value] | None = None
    family: Family = "groups"
    """The tables that the values are read from."""
    updated: bool = False
    """True if a new value is made of the last one, which therefore stays when the data have changed."""
    fits: Callable[[str, Value], bool] = lambda _, __: True
    """Tells whether a value from a Redis can be that of a key."""


class DataCache(Generic[Value]):
    """A bounded cache of values by key, of which none is served unless its generation is the confirmed one.

    A key is loaded once at a time, for all who wait for it.
    """

    def __init__(
        self,
        spec: CacheSpec[Value],
        generations: GenerationTracker,
        *,
        max_bytes: int = sys.maxsize,
        redis_url: str | None = None,
        breaker: CircuitBreaker | None = None,
        serve_stale: bool = False,
        observer: Observer | None = None,
    ) -> None:
        self._name = spec.name
        self._observer = observer
        self._generations = generations
        self._deserialize = spec.deserialize
        self._fits = spec.fits
        self._breaker = breaker or CircuitBreaker()
        self.family: Family = spec.family
        """The tables that its values are read from."""
        self._serve_stale = serve_stale
        self._redis = redis_url is not None and spec.deserialize is not None
        if redis_url is None or spec.deserialize is None:
            self._cache: Any = SimpleMemoryCache(serializer=NullSerializer(), timeout=None)
        else:
            self._cache = RedisCache(serializer=NullSerializer(encoding=None), timeout=None)
            # aiocache's own parameters know neither a user's name nor rediss://
            self._cache.client = redis.asyncio.from_url(redis_url, socket_connect_timeout=REDIS_SECONDS)
        self._sizes: LRU[str, int] = LRU(lambda _, size: size, max_bytes=max_bytes)
        """The bytes of each entry; of its key alone if a Redis holds the value."""
        self._size_of = Sizer()
        self._updated = spec.updated
        self._newest = 0
        """The newest generation of an entry."""
        self._flights: dict[str, _Flight] = {}
        self._epoch = generations.epoch
        # a Redis may hold entries of before a rewind that came before this cache was first used
        self._rewinds = 0
        self._hits = self._misses = 0

    async def close(self) -> None:
        """Cancel the loads in flight and close the connection to Redis."""
        for flight in self._flights.values():
            flight.task.cancel()
        self._breaker.close()
        if self._redis:
            await self._cache.client.aclose()

    def stats(self) -> CacheStats:
        """Return the number and size of the entries, and the hits, misses and evictions since the start."""
        return CacheStats(
            len(self._sizes),
            None if self._redis else self._sizes.bytes,
            self._hits,
            self._misses,
            0 if self._redis else self._sizes.evictions,
        )

    async def get(self, key: str, load: Callable[[], Awaitable[CachedValue[Value]]]) -> CachedValue[Value]:
        """Return the value of a key, loaded once for all who wait for it if it is not cached."""
        await self._flush()
        known = self._generations.confirmed_generation(self.family)
        if known is not None and (entry := await self._read(key, known.of(self.family))):
            self._hits += 1
            if self._observer:
                self._observer.cache(self._name, "hit", 1)
            return CachedValue(entry.value, known)
        self._misses += 1
        if self._observer:
            self._observer.cache(self._name, "miss", 1)
        try:
            return await self._single_flight(key, load)
        except DatabaseUnavailable:
            last = self._generations.generation
            if self._serve_stale and last is not None and (entry := await self._read(key, last.of(self.family))):
                return CachedValue(entry.value, last, stale=True)
            raise

    async def last(self, key: str) -> Value | None:
        """Return the last value of a key, of whatever generation, as a base to build a new one on."""
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
                # the operation that started the load was cancelled; one of those that still wait starts another
                if not flight.task.cancelled() or cast("asyncio.Task[None]", asyncio.current_task()).cancelling():
                    raise
                self._flight_done(key, flight.task)

    def _flight_done(self, key: str, task: "asyncio.Task[CachedValue[Value]]") -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # retrieved here, since nobody may be waiting any more

    async def _fill(self, key: str, load: Callable[[], Awaitable[CachedValue[Value]]]) -> CachedValue[Value]:
        epoch = self._generations.epoch
        loaded = await load()
        if loaded.generation is not None and epoch == self._generations.epoch:
            await self._write(key, _Entry(loaded.generation.of(self.family), loaded.value))
        return loaded

    async def _flush(self) -> None:
        if self._epoch != self._generations.epoch:
            self._epoch = self._generations.epoch
            await self._clear()
        rewinds = self._generations.rewinds
        # a generation can mean something else now; otherwise the keys tell generations apart
        if self._rewinds != rewinds and (
            not self._redis
            or await self._breaker.call(lambda: self._cache.clear(namespace=self._namespace())) is not None
        ):
            self._rewinds = rewinds

    async def _clear(self) -> None:
        self._newest = 0
        self._sizes.clear()
        if not self._redis:
            await self._cache.clear()

    def _namespace(self) -> str:
        return f"stockgraph:{self._name}:{self._generations.identity}"

    async def _read(self, key: str, generation: int) -> _Entry | None:
        if not self._redis:
            entry: _Entry | None = await self._cache.get(key)
            if entry is None or entry.generation != generation:
                return None
            self._sizes.move_to_end(key)
            return entry
        if self._deserialize is None or self._rewinds != self._generations.rewinds:
            return None
        name = self._cache.build_key(f"{generation}:{key}", namespace=self._namespace())
        text = await self._breaker.call(lambda: self._cache.client.getrange(name, 0, MAX_REDIS_BYTES))
        if not text or len(text) > MAX_REDIS_BYTES:
            return None
        try:
            value = self._deserialize(orjson.loads(text))
        except (orjson.JSONDecodeError, TypeError, ValueError):
            return None
        return _Entry(generation, value) if self._fits(key, value) else None

    async def _write(self, key: str, entry: _Entry) -> None:
        size = ENTRY_BYTES + self._size_of(key)
        if self._redis:
            text = orjson.dumps(entry.value, default=tuple)
            if len(text) <= MAX_REDIS_BYTES:
                self._sizes.store(key, size)
                name, namespace = f"{entry.generation}:{key}", self._namespace()
                await self._breaker.call(
                    lambda: self._cache.set(name, text, ttl=REDIS_KEEPS_SECONDS, namespace=namespace)
                )
            return
        held: _Entry | None = await self._cache.get(key)
        if held is not None and held.generation > entry.generation:
            return
        if entry.generation > self._newest:
            if not self._updated:
                # nobody can use the older ones any more
                await self._clear()
            self._newest = entry.generation
        await self._cache.set(key, entry)
        evicted = self._sizes.store(key, size + self._size_of(entry))
        if evicted and self._observer:
            self._observer.cache(self._name, "evict", len(evicted))
        for each, _ in evicted:
            await self._cache.delete(each)


class DataCaches(dict[CacheSpec[Any], DataCache[Any]]):
    """The data caches of a process by their specs; each is made when it is first used."""

    def __init__(
        self,
        generations: GenerationTracker,
        *,
        memory: int,
        redis_url: str | None,
        serve_stale: bool,
        observer: Observer | None = None,
    ) -> None:
        super().__init__()
        self._observer = observer
        self._generations = generations
        self._memory = memory
        self._redis_url = redis_url
        self._serve_stale = serve_stale
        self._breaker = CircuitBreaker()

    def __missing__(self, spec: CacheSpec[Any]) -> DataCache[Any]:
        cache = self[spec] = DataCache(
            spec,
            self._generations,
            max_bytes=share_of(self._memory, spec.name),
            redis_url=self._redis_url,
            breaker=self._breaker,
            serve_stale=self._serve_stale,
            observer=self._observer,
        )
        return cache

    async def close(self) -> None:
        """Close all of them."""
        async with AsyncExitStack() as closing:
            for cache in self.values():
                closing.push_async_callback(cache.close)
