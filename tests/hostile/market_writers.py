"""Writers of a market: other programs that change it, in many ways."""

import asyncio
import random
from contextlib import AsyncExitStack, suppress
from typing import Any

import asyncpg
from market_states import (
    GROUPS,
    NAMES,
    PARTS,
    PRICES,
    SESSIONS,
    SYMBOLS,
    closes,
    members,
    stock_name,
)
from market_world import CONNECTION_ERRORS, World

Connection = asyncpg.Connection


class Writer:
    """Writes new versions of parts of the market, on one of several ways each time."""

    def __init__(self, world: "World") -> None:
        self._world, self._rng = world, random.Random(world.rng.random())

    async def work(self) -> None:
        world, rng = self._world, self._rng
        while not world.stopping:
            try:
                async with world.connected() as connection:
                    await connection.execute("SET lock_timeout = '5s'")
                    while not world.stopping:
                        world.report.writes[await self.write(connection)] += 1
                        # bursts, and times in which caches serve
                        await asyncio.sleep(rng.choice((0, 0, 0.02, 0.1, 0.5, 1, 2.5)))
            except CONNECTION_ERRORS as error:
                world.report.writes[type(error).__name__] += 1

    async def write(self, connection: "Connection[asyncpg.Record]") -> str:
        """Write in one transaction; how."""
        world, rng = self._world, self._rng
        way = rng.choice(("",) * 10 + ("late", "late", "replica", "replica", "rolled back", "rolled back", "truncate"))
        parts = list(GROUPS) if way == "truncate" else rng.sample(PARTS, rng.choice((1, 1, 2, 3)))
        async with AsyncExitStack() as locks:
            for part in sorted(parts):
                await locks.enter_async_context(world.part_locks[part])
            transaction = connection.transaction(
                isolation=rng.choice(("read_committed", "read_committed", "repeatable_read", "serializable"))
            )
            await transaction.start()
            try:
                if way == "replica":
                    await connection.execute("SET LOCAL session_replication_role = replica")
                if way == "truncate":
                    await connection.execute("TRUNCATE group_memberships")
                written = {part: world.next_version() for part in parts}
                for part, version in written.items():
                    await self.write_part(connection, part, version, foreign_keys=way != "replica")
                if way == "late":
                    await asyncio.sleep(rng.uniform(0.1, 2))
            except BaseException:
                with suppress(*CONNECTION_ERRORS):
                    await transaction.rollback()
                raise
            if way == "rolled back":
                await transaction.rollback()
            else:
                await world.commit(connection, transaction, written)
        return way or "+".join(sorted({part if part in (NAMES, PRICES) else "group" for part in parts}))

    async def write_part(
        self, connection: "Connection[asyncpg.Record]", part: str, version: int, *, foreign_keys: bool
    ) -> None:
        if part == NAMES:
            rows: list[tuple[Any, ...]] = [(symbol, stock_name(symbol, version)) for symbol in SYMBOLS]
            await self._write_table(connection, "symbols", ("symbol",), ("name",), rows)
        elif part == PRICES:
            rows = [
                (symbol, *each) for symbol in SYMBOLS for each in zip(SESSIONS, closes(symbol, version), strict=True)
            ]
            await self._write_table(connection, "ohlcv_daily", ("symbol", "date"), ("close",), rows)
        else:
            await self._write_group(connection, part, version, foreign_keys=foreign_keys)

    async def _write_table(
        self,
        connection: "Connection[asyncpg.Record]",
        table: str,
        key: tuple[str, ...],
        value: tuple[str],
        rows: list[tuple[Any, ...]],
    ) -> None:
        """Replace the values of all rows of a table."""
        columns = (*key, *value)
        if self._rng.random() < 0.3:
            await connection.execute(f"DELETE FROM {table}")
            await connection.copy_records_to_table(table, records=rows, columns=columns)
            return
        self._rng.shuffle(rows)
        marks = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        await connection.executemany(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
            f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {value[0]} = excluded.{value[0]}",
            rows,
        )

    async def _write_group(
        self, connection: "Connection[asyncpg.Record]", group: str, version: int, *, foreign_keys: bool
    ) -> None:
        held = members(group, version)
        find = "SELECT id FROM definition_groups WHERE name = $1"
        make = "INSERT INTO definition_groups (name, type, environment) VALUES ($1, 'CUSTOM', 'DEFAULT') RETURNING id"
        number = await connection.fetchval(find, group)
        clear = "DELETE FROM group_memberships WHERE group_id = $1"
        drop = "DELETE FROM definition_groups WHERE id = $1"
        way = self._rng.choice(("replace", "merge", "recreate", "into place", "savepoint"))
        if held is None:
            if number:
                await connection.execute(clear, number)
                await connection.execute(drop, number)
            return
        if number is None:
            number = await connection.fetchval(make, group)
        elif way == "recreate" and foreign_keys:
            await connection.execute(drop, number)
            number = await connection.fetchval(make, group)
        elif way == "savepoint":
            with suppress(LookupError):
                async with connection.transaction():
                    await connection.execute(drop if foreign_keys else clear, number)
                    raise LookupError
        rows = [(number, symbol, weight) for symbol, weight in held.items()]
        if way == "into place" and foreign_keys:
            new = await connection.fetchval(make, f"new {group}")
            await self._copy(connection, [(new, *rest) for _, *rest in rows])
            await connection.execute(drop, number)
            await connection.execute("UPDATE definition_groups SET name = $2 WHERE id = $1", new, group)
        elif way == "merge":
            await connection.execute(f"{clear} AND symbol <> ALL ($2)", number, [*held])
            await connection.executemany(
                "INSERT INTO group_memberships (group_id, symbol, weight) VALUES ($1, $2, $3)"
                " ON CONFLICT (group_id, symbol) DO UPDATE SET weight = excluded.weight",
                rows,
            )
        else:
            await connection.execute(clear, number)
            await self._copy(connection, rows)

    async def _copy(self, connection: "Connection[asyncpg.Record]", rows: list[tuple[Any, ...]]) -> None:
        await connection.copy_records_to_table(
            "group_memberships", records=rows, columns=("group_id", "symbol", "weight")
        )
