"""Batches: what is asked for at the same time, by whichever operations, goes in one statement."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import date
from typing import Any, NamedTuple, TypeAlias

import asyncpg

from graph.database import Generation, Reading

MAX_KEYS = 1_000
"""So many keys go together, so that who asks for few need not wait for who asks for many; one may bring more."""

Key: TypeAlias = tuple[Any, ...]
Row: TypeAlias = asyncpg.Record
Answer: TypeAlias = tuple[Any, Generation | None]
"""What a key is answered with, and the generation it was read in."""
Read: TypeAlias = Callable[..., Awaitable[Reading]]
"""Sends a statement by its name, with its arguments."""


def by_ordinal(_: "Question", keys: Sequence[Key], rows: list[Row]) -> list[list[Row]]:
    """Deal rows out to the keys: a row answers the key that its ordinal counts to."""
    dealt: list[list[Row]] = [[] for _ in keys]
    for row in rows:
        dealt[row["ordinal"] - 1].append(row)
    return dealt


class Question(NamedTuple):
    """What is asked of many keys at once."""

    statement: str
    as_of: date | None = None
    same: Key = ()
    """The arguments that all keys have in common, after theirs."""
    deal: Callable[["Question", Sequence[Key], list[Row]], Sequence[Any]] = by_ordinal
    """Makes of the rows what each key is answered with; all who asked for a key are given the same."""


class Batch:
    """Keys that go together, and their answers when they are there."""

    def __init__(self) -> None:
        self.keys: dict[Key, None] = {}
        self.askers: set[object] = set()
        """Whose keys they are."""
        self.answers: dict[Key, Answer] = {}
        self.abandoned = False
        """Whether all who asked went before there was an answer."""
        self.sending: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._waiting: dict[asyncio.Future[None], None] = {}
        """In their order, in which they are told."""

    async def wait(self) -> None:
        """Wait for the answers; raises what went wrong. An abandoned one gives none."""
        if not (self.answers or self._error or self.abandoned):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[waiter] = None
            try:
                await waiter
            finally:
                del self._waiting[waiter]
                if not (self._waiting or self.answers or self._error):
                    self.abandoned = True
                    if self.sending:
                        self.sending.cancel()
        if self._error:
            raise self._error

    def end(self, outcome: dict[Key, Answer] | Exception | None) -> None:
        """Tell all who wait; None is that it was ended before it had an answer."""
        if outcome is None:
            self.abandoned = True
        elif isinstance(outcome, Exception):
            self._error = outcome
        else:
            self.answers = outcome
        for waiter in self._waiting:
            if waiter.done():
                continue
            if outcome is None:
                waiter.cancel()
            else:
                waiter.set_result(None)


class Batches:
    """The batches that are yet to be sent, or under way.

    A batch goes when the event loop has come round twice, and so has heard of all requests that had come by then.
    Whoever asks gets what was read after he asked.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._next: dict[Question, Batch] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def join(self, question: Question, keys: Collection[Key]) -> Batch:
        """Have keys go with the next batch."""
        batch = self._next.get(question)
        if batch is None or batch.abandoned or len(batch.keys) + len(keys) > MAX_KEYS:
            batch = self._next[question] = Batch()
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._send, question, batch)
        batch.keys |= dict.fromkeys(keys)
        return batch

    def alone(self, question: Question, keys: Collection[Key]) -> Batch:
        """Have keys go in a batch of their own."""
        batch = Batch()
        batch.keys |= dict.fromkeys(keys)
        asyncio.get_running_loop().call_soon(self._send, question, batch)
        return batch

    def _send(self, question: Question, batch: Batch) -> None:
        if self._next.get(question) is batch:
            del self._next[question]
        if not batch.abandoned:
            batch.sending = asyncio.get_running_loop().create_task(self._answer(question, batch))
            self._under_way.add(batch.sending)
            batch.sending.add_done_callback(self._under_way.discard)

    async def _answer(self, question: Question, batch: Batch) -> None:
        keys = list(batch.keys)
        try:
            columns = map(list, zip(*keys, strict=True))
            reading = await self._read(question.statement, *columns, *question.same, as_of=question.as_of)
            dealt = question.deal(question, keys, reading.rows)
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            batch.end(error)
        except asyncio.CancelledError:
            batch.end(None)
            raise
        else:
            batch.end({key: (answer, reading.generation) for key, answer in zip(keys, dealt, strict=True)})

    async def close(self) -> None:
        """End what is under way; what is yet to be sent is not."""
        for batch in self._next.values():
            batch.end(None)
        under_way = list(self._under_way)
        for sending in under_way:
            sending.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
