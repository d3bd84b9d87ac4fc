"""What happens to a market's PostgreSQL, its servers, its Redis and its pooler."""

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack, suppress
from typing import ClassVar

from market_states import (
    GROUPS,
)
from market_world import CONNECTION_ERRORS, World

from graph.postgres.embedded import embedded_postgres


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class Disturbances:
    """What is done to a world, a method each."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = random.Random(world.rng.random())
        self.all = [each for each in self.ALL if world.redis or "redis" not in each.__name__]
        self.all = [each for each in self.all if world.pgbouncer or "pgbouncer" not in each.__name__]

    async def work(self, least: int) -> None:
        """Do each of them again and again, in an order of chance; `least` of each at least."""
        world, round_ = self._world, 0
        while round_ < least or not world.stopping:
            for disturb in self._rng.sample(self.all, len(self.all)):
                if world.stopping and round_ >= least:
                    return
                world.present = disturb.__name__
                await disturb(self)
                world.report.disturbances[disturb.__name__].append(await world.heal())
                await asyncio.sleep(self._rng.uniform(0.1, 0.5 if least == 1 else 5))
            round_ += 1

    async def _backends(self) -> list[int]:
        async with self._world.connected() as connection:
            pids = await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'chaos'"
            )
        return [pid for (pid,) in pids]

    async def _execute(self, *statements: str) -> None:
        """Run statements one after the other, each until it succeeds."""
        for statement in statements:
            done = False
            while not done:
                with suppress(*CONNECTION_ERRORS):
                    async with self._world.connected() as connection:
                        await connection.execute("SET lock_timeout = '2s'")
                        await connection.execute(statement)
                        done = True

    async def connections_terminated(self) -> None:
        pids = await self._backends()
        ended = self._rng.sample(pids, (len(pids) + 1) // 2)
        await self._execute(f"SELECT pg_terminate_backend(pid) FROM unnest(ARRAY{ended}::int[]) AS t (pid)")

    async def sessions_frozen(self) -> None:
        frozen = await self._backends()
        _signal(frozen, signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0.5, 2))
        _signal(frozen, signal.SIGCONT)

    async def postgres_crashed(self) -> None:
        """A session is killed, upon which PostgreSQL ends all and recovers."""
        _signal((await self._backends())[:1], signal.SIGKILL)

    async def _end_postgres(self, number: signal.Signals) -> None:
        with suppress(FileNotFoundError, ProcessLookupError, IndexError):  # where it has just died
            os.kill(int((self._world.home / "data" / "postmaster.pid").read_text().split()[0]), number)
        await asyncio.sleep(self._rng.uniform(0.1, 1.5))
        await asyncio.to_thread(self._start_postgres)

    def _start_postgres(self) -> None:
        # one more user, who does not wait for long after several deaths as the one that watches does
        with embedded_postgres(self._world.home):
            pass

    async def postgres_killed(self) -> None:
        await self._end_postgres(signal.SIGKILL)

    async def postgres_restarted(self) -> None:
        await self._end_postgres(signal.SIGINT)

    async def tables_altered(self) -> None:
        await self._execute(
            "ALTER TABLE group_memberships ADD note text DEFAULT 'x'",
            "CREATE INDEX chaos ON group_memberships (weight)",
            "ALTER TABLE symbols ADD note int; ALTER TABLE ohlcv_daily ADD note int",
            "DROP INDEX chaos",
            "VACUUM FULL group_memberships",
            "ALTER TABLE group_memberships DROP note",
            "ALTER TABLE symbols DROP note; ALTER TABLE ohlcv_daily DROP note",
            "ANALYZE",
        )

    async def tables_locked(self) -> None:
        seconds = self._rng.uniform(0.3, 1)
        await self._execute(
            f"BEGIN; LOCK group_memberships, ohlcv_daily; DELETE FROM group_memberships; SELECT pg_sleep({seconds});"
            " ROLLBACK"
        )

    async def changes_uncounted(self) -> None:
        """A trigger is off for a while; by the time that anybody writes, the servers know."""
        async with AsyncExitStack() as locks:
            for part in sorted(GROUPS):
                await locks.enter_async_context(self._world.part_locks[part])
            await self._execute("ALTER TABLE group_memberships DISABLE TRIGGER data_change_update")
            await asyncio.sleep(1.2)
        await asyncio.sleep(self._rng.uniform(0.5, 2))
        await self._execute("ALTER TABLE group_memberships ENABLE ALWAYS TRIGGER data_change_update")

    async def worker_killed(self) -> None:
        for server in self._world.servers:
            _signal(server.workers()[:1], signal.SIGKILL)

    async def workers_frozen(self) -> None:
        pids = [pid for server in self._world.servers for pid in server.workers()]
        frozen = self._rng.sample(pids, len(pids) // 2)
        _signal(frozen, signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0.5, 2))
        _signal(frozen, signal.SIGCONT)

    async def redis_killed(self) -> None:
        redis = self._world.redis
        assert redis
        redis.process.kill()
        redis.process.wait()
        await asyncio.sleep(self._rng.uniform(0.2, 2))
        redis.start()

    async def redis_wiped(self) -> None:
        assert self._world.redis
        await self._world.redis.command("FLUSHALL")

    async def redis_paused(self) -> None:
        assert self._world.redis
        await self._world.redis.command("CLIENT PAUSE 1500 ALL")
        await asyncio.sleep(1.5)

    async def pgbouncer_killed(self) -> None:
        pgbouncer = self._world.pgbouncer
        assert pgbouncer
        pgbouncer.kill()
        await asyncio.sleep(self._rng.uniform(0.2, 1))
        await asyncio.to_thread(pgbouncer.start)

    async def pgbouncer_frozen(self) -> None:
        pgbouncer = self._world.pgbouncer
        assert pgbouncer
        pgbouncer.signal(signal.SIGSTOP)
        await asyncio.sleep(self._rng.uniform(0.5, 2))
        pgbouncer.signal(signal.SIGCONT)

    ALL: ClassVar = [
        connections_terminated,
        sessions_frozen,
        postgres_crashed,
        postgres_killed,
        postgres_restarted,
        tables_altered,
        tables_locked,
        changes_uncounted,
        worker_killed,
        workers_frozen,
        redis_killed,
        redis_wiped,
        redis_paused,
        pgbouncer_killed,
        pgbouncer_frozen,
    ]
