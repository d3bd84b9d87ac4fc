"""Faults and warnings about the groups of an environment and the prices."""

from dataclasses import dataclass
from typing import Literal

import asyncpg

from graph.postgres.database import Connection
from graph.postgres.statements import read_statements

_SQL = read_statements("graph.loading", "checks.sql")
_THREE_FOR_TWO = 1.5
_PRICES_SECONDS = 60.0
"""Timeout of a statement that reads all prices, of which there may be decades."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A fault or a warning that a check found."""

    severity: Literal["fault", "warning"]
    """A fault makes answers wrong, a warning makes them incomplete."""
    code: str
    """One of two_sectors, empty_group, weight_sum, negative_weight, weight_not_a_number, history_gap, bad_close,
    future_bar; unweighted, no_sector, split."""
    message: str
    """One line that names the group or the stock, and the first symbols."""


async def check(connection: Connection, environment: str) -> list[Finding]:
    """Return the findings about the groups of an environment and the prices: faults first, then by code and message.

    Use a connection of `Database.snapshot` to check one state of the database.
    """
    found = [
        Finding(
            "fault",
            "two_sectors",
            f"The sectors {', '.join(row['sectors'])} share {row['total']} stocks {_first(row)}.",
        )
        for row in await connection.fetch(_SQL["shared_sectors"], environment)
    ]
    found += [
        Finding("fault", "empty_group", f"{row['type']} {row['name']} has no members.")
        for row in await connection.fetch(_SQL["empty_groups"], environment)
    ]
    for row in await connection.fetch(_SQL["weight_sums"], environment):
        if not row["weighted"]:
            message = f"ETF {row['name']} has no weights ({row['members']} members)."
            found.append(Finding("warning", "unweighted", message))
            continue
        message = f"ETF {row['name']} has weights that sum to {row['weight']:f}, outside 0.95-1.05"
        if row["weighted"] < row["members"]:
            message += f"; {row['members'] - row['weighted']} of {row['members']} members have none"
        found.append(Finding("fault", "weight_sum", f"{message}."))
    for row in await connection.fetch(_SQL["bad_weights"], environment):
        code, what = ("negative_weight", "negative") if row["negative"] else ("weight_not_a_number", "NaN")
        message = f"{row['type']} {row['name']} has {row['total']} {what} weights {_first(row)}."
        found.append(Finding("fault", code, message))
    for row in await connection.fetch(_SQL["missing_sectors"], environment):
        message = f"ETF {row['name']} has {row['total']} of {row['members']} members in no sector {_first(row)}."
        found.append(Finding("warning", "no_sector", message))
    if await connection.fetchval(_SQL["is_history_readable"]):
        for row in await connection.fetch(_SQL["name_gaps"], environment):
            message = f"{row['type']} {row['name']} has a history that lacks its name; `stockgraph init` mends it."
            found.append(Finding("fault", "history_gap", message))
        for row in await connection.fetch(_SQL["history_gaps"], environment):
            what = f"{row['total']} memberships {_first(row)}"
            message = f"{row['type']} {row['name']} has a history that lacks {what}; `stockgraph init` mends it."
            found.append(Finding("fault", "history_gap", message))
    if await connection.fetchval(_SQL["is_price_table_readable"]):
        found += await _check_prices(connection)
    return sorted(found)


async def _check_prices(connection: Connection) -> list[Finding]:
    found = [
        Finding("fault", code, f"{row['total']:,} bars {what} {_first(row)}.")
        for code, what, statement in (
            ("bad_close", "have no close that is a price", _SQL["bad_closes"]),
            ("future_bar", "are of days after tomorrow", _SQL["future_bars"]),
        )
        for row in await connection.fetch(statement, timeout=_PRICES_SECONDS)
    ]
    splits = await connection.fetch(_SQL["splits"], timeout=_PRICES_SECONDS)
    for row in splits:
        ratio = "3:2" if row["n"] == _THREE_FOR_TWO else f"{row['n']:g}:1"
        if row["close"] > row["before"]:
            ratio = ":".join(reversed(ratio.split(":")))
        move = f"from {row['before']:g} to {row['close']:g} on {row['date']}"
        message = f"{row['symbol']} went {move}, as by a split of {ratio} that the prices before are not adjusted for."
        found.append(Finding("warning", "split", message))
    if splits and splits[0]["total"] > len(splits):
        more = splits[0]["total"] - len(splits)
        found.append(Finding("warning", "split", f"{more:,} more stocks have closes as by splits."))
    return found


def _first(row: asyncpg.Record) -> str:
    """Return the first symbols as text: `(A, B, C, D, E ...)`."""
    return f"({', '.join(row['symbols'])}{' ...' if row['total'] > len(row['symbols']) else ''})"
