"""Whole answers, kept as the bytes that were sent, each while what it was read from stands."""

import asyncio
import gzip
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

from graph.caching.data_cache import CacheStats
from graph.caching.generations import GenerationTracker
from graph.postgres.statements import Family

MAX_BYTES = 32 * 1024 * 1024
"""Of all answers, with an estimate of what keeping them takes."""
MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of one answer; a larger one is sent and not kept."""
MIN_GZIP = 1_024
"""Bytes from which on an answer is compressed, for who accepts that."""
LONG_GZIP = 100_000
"""Bytes from which on that is not done on the event loop."""

_OVERHEAD = 2_000  # bytes of what is kept beside a body, by estimate


class Validity(NamedTuple):
    """When an answer holds."""

    changes: Mapping[Family, int]
    """How often each family that it was read from had changed."""
    day: date | None
    """The day in UTC that it holds on; None where it does not rest on the day."""
    epoch: int
    """Of the freshness, before anything was read: since then nothing kept has become worthless."""


class CachedResponse:
    """An answer as it is sent."""

    __slots__ = ("_zipped", "body", "headers", "tag", "validity")

    def __init__(self, body: bytes, validity: Validity) -> None:
        self.body = body
        self.validity = validity
        self.tag = blake2b(body, digest_size=12).hexdigest().encode()
        """Of the body, for HTTP's ETag."""
        self.headers: dict[tuple[str, bool], list[tuple[bytes, bytes]]] = {}
        """What goes before the body, by media type and whether it is compressed."""
        self._zipped: bytes | None = None

    async def zipped(self) -> bytes | None:
        """Give it compressed, which is done once; None where that is not worth it."""
        if self._zipped is None and len(self.body) >= MIN_GZIP:
            zipping = partial(gzip.compress, self.body, compresslevel=5, mtime=0)
            # a long one takes long enough for others to wait
            self._zipped = zipping() if len(self.body) < LONG_GZIP else await asyncio.to_thread(zipping)
        return self._zipped

    @property
    def size(self) -> int:
        """The bytes that it may take, compressed too."""
        return _OVERHEAD + len(self.body) * 3 // 2


class ResponseCache:
    """Answers by request: bounded in bytes, least recently used out, nothing served unless confirmed."""

    def __init__(self, generations: GenerationTracker, *, max_bytes: int = MAX_BYTES) -> None:
        self._generations = generations
        self._max_bytes = max_bytes
        # so that nobody outside can make two requests of one key
        self._secret = secrets.token_bytes(32)
        self._kept: OrderedDict[bytes, CachedResponse] = OrderedDict()
        self._bytes = 0
        self._epoch = generations.epoch
        self._hits = self._misses = self._evictions = 0

    def key(self, kind: bytes, request: bytes) -> bytes:
        """Make the key of a request: its method and media type, and its body or query string."""
        digest = blake2b(kind, digest_size=16, key=self._secret)
        digest.update(b"\n")
        digest.update(request)
        return digest.digest()

    def get(self, key: bytes) -> CachedResponse | None:
        """Give the answer to a request while it is known to hold."""
        self._flush()
        kept = self._kept.get(key)
        if kept is None or not self._holds(kept.validity):
            self._misses += 1
            return None
        self._kept.move_to_end(key)
        self._hits += 1
        return kept

    def _flush(self) -> None:
        if self._epoch != self._generations.epoch:
            self._epoch = self._generations.epoch
            self._kept.clear()
            self._bytes = 0

    def _holds(self, validity: Validity) -> bool:
        for family, count in validity.changes.items():
            known = self._generations.confirmed_generation(family)
            if known is None or known.of(family) != count:
                return False
        return validity.day is None or validity.day == datetime.now(UTC).date()

    def keep(self, key: bytes, body: bytes, validity: Validity | None) -> CachedResponse | None:
        """Keep an answer without errors; None where it is not to be kept."""
        self._flush()
        if validity is None or len(body) > MAX_ANSWER or validity.epoch != self._epoch:
            return None
        kept = CachedResponse(body, validity)
        replaced = self._kept.pop(key, None)
        self._bytes += kept.size - (replaced.size if replaced else 0)
        self._kept[key] = kept
        while self._bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.size
            self._evictions += 1
        return kept

    def stats(self) -> CacheStats:
        """Count what is kept, and how often that helped, since the start."""
        return CacheStats(len(self._kept), self._bytes, self._hits, self._misses, self._evictions)
