"""Cancellation of a request: when its time limit is up, or when its client disconnects."""

import asyncio
from collections.abc import Callable
from typing import cast

from starlette.types import Receive

DISCONNECT_WATCH_DELAY = 0.1
"""Seconds before the client of an operation is watched: most operations end earlier and need no task for that."""


class ClientDisconnected(Exception):
    """The client closed its connection, so that no response can be sent."""


class RequestGuard:
    """Context manager that cancels its block after `seconds`, or when the client disconnects.

    The block then raises what `timeout_error` returns, or ClientDisconnected. The client is watched only if its
    `receive` is given.
    """

    # asyncio.timeout, or a task of its own for the block, would take three times as long as one timer

    def __init__(self, seconds: float, timeout_error: Callable[[], Exception], receive: Receive | None = None) -> None:
        self._seconds = seconds
        self._timeout_error = timeout_error
        self._receive = receive
        self._reasons: list[Exception] = []
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = cast("asyncio.Task[None]", asyncio.current_task(self._loop))
        self._cancelling_before = self._task.cancelling()
        delay = self._seconds if self._receive is None else min(DISCONNECT_WATCH_DELAY, self._seconds)
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        if self._receive and not self._watcher:
            self._watcher = self._loop.create_task(self._watch_disconnect(self._receive))
            self._timer = self._loop.call_later(self._seconds - DISCONNECT_WATCH_DELAY, self._on_timer)
        else:
            self._cancel(self._timeout_error())

    async def _watch_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._cancel(ClientDisconnected())

    def _cancel(self, reason: Exception) -> None:
        self._reasons.append(reason)
        self._task.cancel()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._timer.cancel()
        if self._watcher:
            self._watcher.cancel()
        for _ in self._reasons:
            self._task.uncancel()
        # a cancellation beyond our own comes from outside and is passed on
        if isinstance(error, asyncio.CancelledError) and self._task.cancelling() <= self._cancelling_before:
            raise self._reasons[0] if self._reasons else RuntimeError("A resolver raised CancelledError") from error
