"""The response cache: whole answers as bytes, each valid for the generations that it was read in."""

import asyncio
import gzip
import secrets
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

from graph.caching.data_cache import CacheStats
from graph.caching.generations import GenerationTracker
from graph.caching.lru import LRU
from graph.model import ANONYMOUS, Caller
from graph.postgres.statements import Family
from graph.telemetry import Observer

MAX_BYTES = 32 * 1024 * 1024
"""Bound of the cache, overhead included, by estimate."""
MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of one answer; a larger one is not cached."""
MIN_GZIP = 1_024
"""Bytes from which on an answer is compressed for clients that accept it."""
LONG_GZIP = 100_000
"""Bytes from which on an answer is compressed in a thread."""

_OVERHEAD = 2_000  # estimated bytes of an entry besides its body


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

    __slots__ = ("_zipped", "body", "headers", "tag", "validity")

    def __init__(self, body: bytes, validity: Validity) -> None:
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
            self._zipped = zipping() if len(self.body) < LONG_GZIP else await asyncio.to_thread(zipping)
        return self._zipped

    @property
    def size(self) -> int:
        """Estimated bytes of the entry, with its compressed body."""
        return _OVERHEAD + len(self.body) * 3 // 2


class ResponseCache:
    """Answers by request, bounded in bytes; none is served unless its generations are the confirmed ones."""

    def __init__(
        self, generations: GenerationTracker, *, max_bytes: int = MAX_BYTES, observer: Observer | None = None
    ) -> None:
        self._generations = generations
        self._observer = observer
        # keyed, so that no client can construct two requests with one key
        self._secret = secrets.token_bytes(32)
        self._entries: LRU[bytes, CachedResponse] = LRU(lambda _, response: response.size, max_bytes=max_bytes)
        self._epoch = generations.epoch
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
        cached = CachedResponse(body, validity)
        evicted = self._entries.store(key, cached)
        if evicted and self._observer:
            self._observer.cache("responses", "evict", len(evicted))
        return cached

    def stats(self) -> CacheStats:
        """Return the number and size of the entries, and the hits, misses and evictions since the start."""
        return CacheStats(len(self._entries), self._entries.bytes, self._hits, self._misses, self._entries.evictions)
