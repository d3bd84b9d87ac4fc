"""The lane of dear operations: a few of them at a time, in turns between those who ask, so that cheap ones never wait.

What an operation will cost is known in part only, so each begins as a cheap one. Where its cost passes
`CHEAP_OBJECTS`, it waits for a place in the lane and keeps it until it ends. It waits nowhere else, and never while
other operations wait for something that it is loading: so whoever has a place can always go on. Arithmetic and the
assembly of long answers run in one thread, whoever asks for them, and the reading of long documents in another.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any, TypeVar

from graph.errors import Overloaded

CHEAP_OBJECTS = 2_000
"""Objects up to which an operation is cheap; loading and assembling so many takes some 20 ms."""
INLINE_CELLS = 400_000
"""Array cells up to which arithmetic is done at once, in some 4 ms; more is done in the thread."""
PLACES = 2
"""Dear operations at a time."""
WAIT_SECONDS = 10
"""Seconds that an operation waits for a place."""
MAX_WAITING = 200
"""Operations that may wait for a place. Beyond them those of the asker who has most are refused."""
RETRY_SECONDS = 2
"""Seconds after which a refused client may ask again."""

Value = TypeVar("Value")


class Work(Enum):
    """A kind of work that leaves the event loop; each has a thread, which does one thing after another."""

    ANSWERS = "answers"
    """Arithmetic, and the assembly and encoding of long answers."""
    DOCUMENTS = "documents"
    """Reading and planning of long documents, and introspection."""


class Lane:
    """The places of dear operations, and those who wait for one."""

    def __init__(self, places: int = PLACES, max_waiting: int = MAX_WAITING) -> None:
        self._free = places
        self._max_waiting = max_waiting
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """Those who wait by the asker, whose turn is next first."""
        self._threads = {
            Work.ANSWERS: ThreadPoolExecutor(1, "lane"),
            Work.DOCUMENTS: ThreadPoolExecutor(1, "documents"),
        }
        self._working = dict.fromkeys(Work, 0)

    @property
    def waiting(self) -> int:
        """The number of operations that wait for a place."""
        return sum(map(len, self._waiting.values()))

    async def enter(self, asker: str) -> None:
        """Wait for a place; raise Overloaded if too many wait already."""
        if self._free:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(asker, deque()).append(place)
        if self.waiting > self._max_waiting:
            most = max(self._waiting, key=lambda each: len(self._waiting[each]))
            refused = self._waiting[most][-1]
            self._remove(most, refused)
            # one that has just stopped waiting has made room
            if not refused.done():
                refused.set_exception(_overloaded())
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await place
        except (asyncio.CancelledError, TimeoutError) as error:
            if place.cancelled():
                self._remove(asker, place)
            elif not place.exception():
                self.leave()
            if isinstance(error, TimeoutError):
                raise _overloaded() from error
            raise

    def _remove(self, asker: str, place: "asyncio.Future[None]") -> None:
        """Remove one who waits."""
        queue = self._waiting.get(asker, deque())
        if place in queue:
            queue.remove(place)
        if not queue:
            self._waiting.pop(asker, None)

    def leave(self) -> None:
        """Give a place back, to whom is next: the askers take turns."""
        while self._waiting:
            asker, queue = self._waiting.popitem(last=False)
            place = queue.popleft()
            if queue:
                self._waiting[asker] = queue
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    async def run(self, work: Work, function: Callable[..., Value], *arguments: Any) -> Value:
        """Return what a function gives in the thread of its kind of work; raise Overloaded if too much waits for it."""
        if self._working[work] > self._max_waiting:
            raise _overloaded()
        self._working[work] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads[work], function, *arguments)
        finally:
            self._working[work] -= 1

    def close(self) -> None:
        """End the threads when what they do is done."""
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)


def _overloaded() -> Overloaded:
    return Overloaded(
        f"Too many dear queries are waiting; ask again in {RETRY_SECONDS} seconds, or for less at a time.",
        retryAfter=RETRY_SECONDS,
    )


class Turn:
    """The way of one operation through the lane."""

    def __init__(self, lane: Lane, asker: str) -> None:
        self._lane = lane
        self._asker = asker
        self._entering: asyncio.Task[None] | None = None
        self.objects = 0.0
        """Objects that it has cost so far, or will soon."""

    async def enter(self) -> None:
        """Wait for a place in the lane; raise Overloaded if too many wait already."""
        if self._entering is None:
            self._entering = asyncio.create_task(self._lane.enter(self._asker))
        # several columns may wait for the same place
        await asyncio.shield(self._entering)

    def end(self) -> None:
        """Give the place back, or stop waiting for it."""
        entering = self._entering
        if entering is None:
            return
        if not entering.done():
            entering.cancel()
        elif not entering.cancelled() and entering.exception() is None:
            self._lane.leave()
