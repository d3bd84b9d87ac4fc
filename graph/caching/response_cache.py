"""The response cache: whole answers as bytes, each valid for the generations that it was read in."""

import asyncio
import gzip
import secrets
import sys
from collections.abc import Callable, Mapping, Sized
from datetime import UTC, date, datetime
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

from graph.caching.data_cache import CacheStats
from graph.caching.generations import GenerationTracker
from graph.caching.lru import LRU
from graph.caching.sizes import allocated
from graph.model import ANONYMOUS, Caller
from graph.postgres.statements import Family
from graph.telemetry import Observer

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of one answer; a larger one is not cached."""
MIN_GZIP = 1_024
"""Bytes from which on an answer is compressed for clients that accept it."""
LONG_GZIP = 100_000
"""Bytes from which on an answer is compressed in a thread."""

_OVERHEAD = 2_000  # bytes of an entry besides its bodies, with the headers of a representation


class Validity(NamedTuple):
    """The conditions under which an answer is valid."""

    changes: Mapping[Family, int]
    """Number of changes of each family of tables that it was read from."""
    day: date | None
    """UTC date on which it is valid; None if it does not depend on the date."""
    epoch: int
    """Epoch of the generation tracker before anything was read; a later epoch makes it invalid."""


class CachedResponse:
    """A cached answer as it is sent."""

    __slots__ = ("_grow", "_zipped", "body", "headers", "tag", "validity")

    def __init__(self, body: bytes, validity: Validity, grow: Callable[["CachedResponse", int], None]) -> None:
        self._grow = grow
        self.body = body
        self.validity = validity
        self.tag = blake2b(body, digest_size=12).hexdigest().encode()
        """Hash of the body, for the ETag."""
        self.headers: dict[tuple[str, bool], list[tuple[bytes, bytes]]] = {}
        """Headers by media type and whether the body is compressed."""
        self._zipped: bytes | None = None

    async def zipped(self) -> bytes | None:
        """Return the compressed body, made once; None if it is too short to compress."""
        if self._zipped is None and len(self.body) >= MIN_GZIP:
            zipping = partial(gzip.compress, self.body, compresslevel=5, mtime=0)
            # a long one would hold up other requests
            zipped = zipping() if len(self.body) < LONG_GZIP else await asyncio.to_thread(zipping)
            if self._zipped is None:
                self._zipped = zipped
                self._grow(self, allocated(len(zipped)))
        return self._zipped

    @property
    def size(self) -> int:
        """Bytes of the entry, with its compressed body if that was made."""
        return _OVERHEAD + allocated(len(self.body)) + allocated(len(self._zipped or b""))


class ResponseCache:
    """Answers by request, bounded in bytes; none is served unless its generations are the confirmed ones."""

    def __init__(
        self, generations: GenerationTracker, *, max_bytes: int = sys.maxsize, observer: Observer | None = None
    ) -> None:
        self._generations = generations
        self._observer = observer
        # keyed, so that no client can construct two requests with one key
        self._secret = secrets.token_bytes(32)
        self._entries: LRU[bytes, CachedResponse] = LRU(lambda _, response: response.size, max_bytes=max_bytes)
        self._epoch = generations.epoch
        self._newest = 0
        """The newest generation of the groups that an answer was read from."""
        self._hits = self._misses = 0

    def key(self, kind: bytes, request: bytes, caller: Caller = ANONYMOUS) -> bytes:
        """Return the key of a request: of its method and media type, its body or query string, and its caller."""
        digest = blake2b(kind, digest_size=16, key=self._secret)
        digest.update(b"\n")
        if caller.key:
            # hashed, so that it has a fixed length before the request
            digest.update(blake2b(caller.key.encode(), digest_size=16, key=self._secret).digest())
            digest.update(b"\n")
        digest.update(request)
        return digest.digest()

    def get(self, key: bytes) -> CachedResponse | None:
        """Return the answer to a request while it is valid."""
        self._flush()
        cached = self._entries.get(key)
        if cached is None or not self._holds(cached.validity):
            self._misses += 1
            if self._observer:
                self._observer.cache("responses", "miss", 1)
            return None
        self._entries.move_to_end(key)
        self._hits += 1
        if self._observer:
            self._observer.cache("responses", "hit", 1)
        return cached

    def _flush(self) -> None:
        if self._epoch != self._generations.epoch:
            self._epoch = self._generations.epoch
            self._newest = 0
            self._entries.clear()

    def _holds(self, validity: Validity) -> bool:
        for family, count in validity.changes.items():
            known = self._generations.confirmed_generation(family)
            if known is None or known.of(family) != count:
                return False
        return validity.day is None or validity.day == datetime.now(UTC).date()

    def store(self, key: bytes, body: bytes, validity: Validity | None) -> CachedResponse | None:
        """Cache an answer without errors; return None if it must not be cached."""
        self._flush()
        if validity is None or len(body) > MAX_ANSWER or validity.epoch != self._epoch:
            return None
        if validity.changes.get("groups", 0) > self._newest:
            # nearly all are read of the groups, and those of an older generation are never served again
            self._newest = validity.changes["groups"]
            self._entries.clear()
        # a copy, since orjson's is cut from a larger piece of memory, whose rest would lie between the answers
        cached = CachedResponse(b"".join((body, b"")), validity, partial(self._grow, key))
        self._observe_evictions(self._entries.store(key, cached))
        return cached

    def _grow(self, key: bytes, cached: CachedResponse, size: int) -> None:
        if self._entries.get(key) is cached:
            self._observe_evictions(self._entries.grow(size))

    def _observe_evictions(self, evicted: Sized) -> None:
        if evicted and self._observer:
            self._observer.cache("responses", "evict", len(evicted))

    def stats(self) -> CacheStats:
        """Return the number and size of the entries, and the hits, misses and evictions since the start."""
        return CacheStats(len(self._entries), self._entries.bytes, self._hits, self._misses, self._entries.evictions)
