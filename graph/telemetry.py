"""Telemetry: an observer of requests, statements, batches and caches. Without one nothing is measured for it."""

from typing import Literal, TypeAlias

CacheEvent: TypeAlias = Literal["hit", "miss", "evict"]


class Observer:
    """An observer whose methods do nothing; a subclass overrides those it is for. They are called on the event loop."""

    def request(self, status: int, seconds: float) -> None:
        """Take an answered HTTP request, with its status; 0 if its client disconnected."""

    def statement(self, name: str, seconds: float, rows: int) -> None:
        """Take a statement that was run, with the seconds until its rows were there."""

    def batch(self, statement: str, keys: int, attempts: int) -> None:
        """Take a batch that is sent, with the number of its keys and of the operations that share it."""

    def cache(self, name: str, event: CacheEvent, count: int) -> None:
        """Take what happened to entries of a cache: `responses`, `columns`, or the name of a data cache."""
