"""Staleness: under chaos no answer is older than docs/freshness.md promises, and none is of two moments."""

import asyncio
import logging
import os
import random

import chaos
import pytest
from conftest import Live, seconds_until
from market_states import PARTS, QUESTIONS, Ledger

from graph.errors import DatabaseUnavailable

log = logging.getLogger(__name__)
ANSWERS = int(os.environ.get("TEST_STALENESS_ANSWERS") or 3_000)
ROUNDS = int(os.environ.get("TEST_STALENESS_ROUNDS") or 1)
SEED = int(os.environ.get("TEST_STALENESS_SEED") or random.SystemRandom().getrandbits(32))


async def test_under_chaos_no_answer_is_stale_or_torn():
    report = await chaos.run(ANSWERS, ROUNDS, SEED)
    log.warning("%s", report)
    assert report.faults == []
    assert report.answers >= ANSWERS


def test_the_ledger_tells_what_is_old_and_what_never_was():
    ledger = Ledger()
    first = dict.fromkeys(PARTS, 1)
    states = [first, {**first, "G0": 2}, {**first, "G0": 2, "G1": 3}]
    for second, state in enumerate(states):
        ledger.enter(state, second, second + 0.25)
    number, question = next(
        (number, each)
        for number, each in enumerate(QUESTIONS)
        if {"G0", "G1"} <= {*each.parts} and each.text[:3] == "{r0"
    )
    old, middle, new = map(question.expected, states)
    torn = question.expected({**first, "G1": 3})
    # asked while the second commit was under way, either of its states is right, and soon after the one before
    assert [ledger.fault(number, 1.1, 1.2, each) for each in (old, middle)] == [None, None]
    assert ledger.fault(number, 1.1, 1.2, new) == "of no state"
    assert ledger.fault(number, 2.2, 2.3, old) is None
    assert ledger.oldest == pytest.approx(0.95)
    assert ledger.fault(number, 2.3, 2.4, old) == "1.05 s old"
    assert ledger.fault(number, 9, 9.1, middle) == "6.75 s old"
    assert [ledger.fault(number, 9, 9.1, each) for each in (new, torn)] == [None, "of no state"]


NAMES_OF_GROUPS, MEMBERS_OF_TOP3 = ("group_names", ["DEFAULT"]), ("group_symbols", [9])


async def symbols_in_a_snapshot(live: Live) -> list[str]:
    """Read two tables in one snapshot, the second of which somebody else has locked."""
    database = live.runtime.database
    async with database.snapshot() as connection:
        await database.fetch(*NAMES_OF_GROUPS, with_generation=True, connection=connection)
        result = await database.fetch(*MEMBERS_OF_TOP3, with_generation=True, connection=connection)
    return list(result.rows[0]["symbols"])


async def waits_for_a_lock(live: Live) -> bool:
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'group_memberships'::regclass"
    return bool(await live.writer.fetchval(waiting))


async def test_a_snapshot_does_not_see_a_table_that_is_being_emptied(live: Live):
    transaction = live.writer.transaction()
    await transaction.start()
    rows = await live.writer.fetch("SELECT group_id, symbol, weight FROM group_memberships")
    await live.writer.execute("TRUNCATE group_memberships")
    await live.writer.copy_records_to_table("group_memberships", records=rows, columns=("group_id", "symbol", "weight"))
    reading = asyncio.create_task(symbols_in_a_snapshot(live))
    await seconds_until(lambda: waits_for_a_lock(live))
    await transaction.commit()
    assert await reading == ["AAPL", "MSFT", "NVDA"]


async def test_a_reader_in_a_deadlock_is_told_to_try_again(live: Live):
    await live.writer.execute("SET deadlock_timeout = '1min'")  # so that the reader is the one that is ended
    async with live.writer.transaction():
        await live.writer.execute("LOCK group_memberships")
        reading = asyncio.create_task(symbols_in_a_snapshot(live))
        await seconds_until(lambda: waits_for_a_lock(live))
        await live.writer.execute("LOCK definition_groups")
        with pytest.raises(DatabaseUnavailable) as ended:
            await reading
    assert str(ended.value) == "The database did not answer in time; try again."
    assert await symbols_in_a_snapshot(live) == ["AAPL", "MSFT", "NVDA"]
