"""Memory: the bytes that all caches of a process may hold together, and the share of each."""

from collections.abc import Callable
from ctypes import CDLL
from typing import cast

SHARES = {
    "prices": 50,
    "columns": 20,
    "universes": 8,
    "responses": 7,
    "documents": 5,
    "holdings": 5,
    "group_names": 5,
}
"""Percent of the memory that each cache may hold.

They are fixed, so that no kind of query evicts what another kind needs. Prices get half: an entry, three years of
closes, is the largest value of all (24 MB for 3,500 stocks), and takes seconds to read again. Columns come next, since
every query that reads groups fills them. Universes, holdings and responses are quick to make again of what the others
hold, and clients send few documents that differ in their text.
"""


def share_of(memory: int, cache: str) -> int:
    """Return the bytes that a cache may hold of the memory for all of them."""
    return memory * SHARES[cache] // 100


def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return cast("Callable[[int], int]", CDLL(None).malloc_trim)
    except (OSError, AttributeError, TypeError):
        # not glibc
        return None


_trim = _malloc_trim()


def release() -> None:
    """Give the system back what was freed; glibc keeps it, unless it lies at the end of its memory."""
    if _trim:
        _trim(0)
