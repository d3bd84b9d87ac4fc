"""Batches: what is asked for at the same time, by whichever operations, goes in one statement."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import date
from typing import Any, NamedTuple, TypeAlias

import asyncpg

from graph.postgres.database import Generation, ReadResult

MAX_KEYS = 500
"""So many keys go together, so that who asks for few need not wait long for who asks for many.

One who asks may bring more; then those join him who ask for some of them.
"""

Key: TypeAlias = tuple[Any, ...]
Row: TypeAlias = asyncpg.Record
Read: TypeAlias = Callable[..., Awaitable[ReadResult]]
"""Sends a statement by its name, with its arguments."""


def group_by_ordinal(_: "DataLoader", keys: Sequence[Key], rows: list[Row]) -> list[list[Row]]:
    """Deal rows out to the keys: a row answers the key that its ordinal counts to."""
    dealt: list[list[Row]] = [[] for _ in keys]
    for row in rows:
        dealt[row["ordinal"] - 1].append(row)
    return dealt


class Loaded(NamedTuple):
    """What a batch is answered with."""

    of: dict[Key, Any]
    generation: Generation | None
    """That all of it was read in."""


class DataLoader(NamedTuple):
    """What is asked of many keys at once."""

    statement: str
    as_of: date | None = None
    shared_args: Key = ()
    """The arguments that all keys have in common, after theirs."""
    group_rows: Callable[["DataLoader", Sequence[Key], list[Row]], Sequence[Any]] = group_by_ordinal
    """Makes of the rows what each key is answered with; all who asked for a key are given the same."""


class Batch:
    """Keys that go together, and what they are answered with when it is there."""

    def __init__(self) -> None:
        self.keys: dict[Key, None] = {}
        self.waiters: set[object] = set()
        """Who has yet use for an answer."""
        self.shared = False
        """Whether others asked than who was first."""
        self.answers: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self.answers.add_done_callback(lambda _: self._ended.set())
        self.task: asyncio.Task[Loaded] | None = None

    def subscribe(self, asker: object) -> bool:
        """Note who asks; whether he is new."""
        if asker in self.waiters:
            return False
        self.shared |= bool(self.waiters)
        self.waiters.add(asker)
        return True

    async def wait(self) -> Loaded:
        """Wait for the answers, or what went wrong; who waits may be cancelled, and others still wait."""
        # as `shield` does, in less time
        await self._ended.wait()
        return self.answers.result()

    def unsubscribe(self, asker: object) -> None:
        """Let go of who has no more use for it: for nobody nothing is read."""
        self.waiters.discard(asker)
        if self.task and not self.waiters:
            self.task.cancel()

    def end(self, sent: "asyncio.Task[Loaded]") -> None:
        """Tell all who wait."""
        if sent.cancelled():
            self.answers.cancel()
        elif error := sent.exception():
            self.answers.set_exception(error)
            self.answers.exception()  # nobody may wait
        else:
            self.answers.set_result(sent.result())


class BatchQueue:
    """The batches that are yet to be sent, or under way.

    A batch goes when the event loop has come round twice, and so has heard of all requests that had come by then.
    Whoever asks gets what was read after he asked.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._next: dict[DataLoader, Batch] = {}
        self._under_way: set[asyncio.Task[Loaded]] = set()

    def enqueue(self, question: DataLoader, keys: Collection[Key]) -> Batch:
        """Have keys go with the next batch."""
        asked = dict.fromkeys(keys)
        batch = self._next.get(question)
        if batch is None or (len(batch.keys) + len(asked) > MAX_KEYS and not asked.keys() <= batch.keys.keys()):
            batch = self._next[question] = self.enqueue_alone(question, ())
        batch.keys |= asked
        return batch

    def enqueue_alone(self, question: DataLoader, keys: Collection[Key]) -> Batch:
        """Have keys go in a batch of their own."""
        batch = Batch()
        batch.keys |= dict.fromkeys(keys)
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._send, question, batch)
        return batch

    def _send(self, question: DataLoader, batch: Batch) -> None:
        if self._next.get(question) is batch:
            del self._next[question]
        if not batch.waiters:
            batch.answers.cancel()
            return
        batch.task = sending = asyncio.get_running_loop().create_task(self._answer(question, list(batch.keys)))
        self._under_way.add(sending)
        sending.add_done_callback(self._under_way.discard)
        sending.add_done_callback(batch.end)

    async def _answer(self, question: DataLoader, keys: list[Key]) -> Loaded:
        columns = map(list, zip(*keys, strict=True))
        reading = await self._read(question.statement, *columns, *question.shared_args, as_of=question.as_of)
        dealt = question.group_rows(question, keys, reading.rows)
        return Loaded(dict(zip(keys, dealt, strict=True)), reading.generation)

    async def close(self) -> None:
        """End what is under way, and send no more."""
        for batch in self._next.values():
            batch.waiters.clear()
        under_way = list(self._under_way)
        for sending in under_way:
            sending.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
