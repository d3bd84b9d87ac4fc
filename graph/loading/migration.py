"""Groups of TickStock -> the database, unless it has groups of their names already."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graph.loading.group_writer import GroupDiff, GroupRefused, replace_group
from graph.loading.holdings import GroupHoldings, Holding
from graph.loading.tickstock import PlannedGroup, SkippedEntry, group_label
from graph.postgres.database import Connection
from graph.postgres.statements import read_statements

_SQL = read_statements("graph.loading", "migration.sql")


@dataclass(frozen=True, slots=True)
class MigrationResult:
    """Results of a migration; each planned group is counted once."""

    migrated: tuple[PlannedGroup, ...]
    present: tuple[PlannedGroup, ...]
    """Groups that the database had already with the same members; nothing was written."""
    skipped: tuple[SkippedEntry, ...]


async def migrate(connection: Connection, planned_groups: Sequence[PlannedGroup]) -> MigrationResult:
    """Write each group in a transaction of its own, unless the database has a group of its name with members.

    An existing group stays, since it is newer than the old table or comes from a better source. Names and industries
    are written for stocks that have none.
    """
    symbols = {holding.symbol for planned in planned_groups for holding in planned.group.holdings}
    rows = await connection.fetch(_SQL["stocks"], list(symbols))
    names = {row["symbol"]: row["name"] for row in rows}
    industries = {row["symbol"]: row["industry"] for row in rows}
    migrated: list[PlannedGroup] = []
    present: list[PlannedGroup] = []
    skipped: list[SkippedEntry] = []
    for planned in planned_groups:
        group = await _group_to_write(connection, planned, names, industries)
        transaction = connection.transaction(isolation="read_committed")
        await transaction.start()
        done = False
        try:
            diff = await replace_group(connection, group, environment=planned.environment)
            # judged by the diff, so that a group that is created concurrently is not overwritten
            done = not (diff.unchanged or diff.removed.total or diff.reweighted.total)
        except GroupRefused as error:
            skipped.append(SkippedEntry(planned.entry, str(error).rstrip(".")))
            continue
        finally:
            await (transaction.commit() if done else transaction.rollback())
        if done:
            migrated.append(planned)
            names |= {holding.symbol: holding.name for holding in group.holdings if holding.name}
            industries |= {holding.symbol: holding.industry for holding in group.holdings if holding.industry}
        elif difference := _difference(group, diff):
            reason = (
                f"{group_label(planned)} is in the database already and differs ({difference}); what is there stays"
            )
            skipped.append(SkippedEntry(planned.entry, reason))
        else:
            present.append(planned)
    return MigrationResult(tuple(migrated), tuple(present), tuple(skipped))


async def _group_to_write(
    connection: Connection,
    planned: PlannedGroup,
    names: Mapping[str, str | None],
    industries: Mapping[str, str | None],
) -> GroupHoldings:
    """Return a group without known names and industries, and without a day if it exists or the day is in the future."""
    group = planned.group
    (row,) = await connection.fetch(_SQL["group_exists"], group.type, group.name, planned.environment)
    as_of = None if row["is_present"] or (group.as_of and group.as_of > row["today"]) else group.as_of
    return replace(group, holdings=tuple(_without_known(group.holdings, names, industries)), as_of=as_of)


def _without_known(
    holdings: Iterable[Holding], names: Mapping[str, str | None], industries: Mapping[str, str | None]
) -> Iterator[Holding]:
    for holding in holdings:
        name = None if names.get(holding.symbol) else holding.name
        yield replace(holding, name=name, industry=None if industries.get(holding.symbol) else holding.industry)


def _difference(group: GroupHoldings, diff: GroupDiff) -> str:
    """Describe how an existing group differs from the planned one; empty if it does not."""
    # an entry without weights does not contradict those of the database
    weighted = any(holding.weight is not None for holding in group.holdings)
    counts = (
        (diff.added.total, "members that it lacks"),
        (diff.removed.total, "that the entry lacks"),
        (diff.reweighted.total if weighted else 0, "other weights"),
    )
    return ", ".join(f"{count:,} {what}" for count, what in counts if count)
