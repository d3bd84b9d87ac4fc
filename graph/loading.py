"""Checked rows -> one transaction -> a diff: the one way to write a group.

Every timestamp written is UTC, whatever the time zone of the session.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import NamedTuple

import asyncpg

from graph.database import Connection
from graph.errors import DatabaseUnavailable, StockgraphError
from graph.holdings import GroupHoldings, Holding

# What the tables of this database are: which are missing, the type of a weight, the columns of symbols.
_TABLES = """
SELECT ARRAY(SELECT name FROM unnest(ARRAY['definition_groups', 'group_memberships', 'symbols']) AS name
             WHERE to_regclass(name) IS NULL) AS missing,
       (SELECT format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = to_regclass('group_memberships') AND attname = 'weight') AS weight,
       ARRAY(SELECT attname::text FROM pg_attribute
             WHERE attrelid = to_regclass('symbols') AND attnum > 0 AND NOT attisdropped) AS symbols"""

# Where the members of the source go first, in the types that the table of memberships has here.
_CREATE_INCOMING = """
CREATE TEMPORARY TABLE stockgraph_incoming AS SELECT symbol, weight FROM group_memberships WITH NO DATA"""

# However wrong the planner guesses about tables that have just changed, no plan is quadratic then.
_INDEX_INCOMING = "CREATE UNIQUE INDEX ON pg_temp.stockgraph_incoming (symbol)"

# Explicitly and not ON COMMIT, so that one transaction may write several groups.
_DROP_INCOMING = "DROP TABLE pg_temp.stockgraph_incoming"

# Finds a group and keeps other loads of it waiting until this one ends; what refers to the group goes on.
_LOCK_GROUP = """
SELECT id, description FROM definition_groups
WHERE type = $1 AND name = $2 AND environment = $3
FOR NO KEY UPDATE"""

# Makes a group; where another transaction is making the same one, waits for its end, and gives nothing if it was made.
_CREATE_GROUP = """
INSERT INTO definition_groups (type, name, environment, description, created_at, updated_at, last_update)
SELECT $1, $2, $3, $4, utc, utc, utc FROM (SELECT now() AT TIME ZONE 'UTC' AS utc) AS t
ON CONFLICT (name, type, environment) DO NOTHING
RETURNING id, description"""

# Says of a group that it or its members changed.
_TOUCH_GROUP = """
UPDATE definition_groups
SET description = coalesce($2, description), updated_at = utc, last_update = utc
FROM (SELECT now() AT TIME ZONE 'UTC' AS utc) AS t
WHERE id = $1"""

# Makes the members of a group those of the source, and gives each difference. Rows that differ are locked as they are
# compared, so that `old` is what is overwritten; a member that someone else inserts meanwhile gets the source's weight.
_MERGE_MEMBERS = """
WITH removed AS (
    DELETE FROM group_memberships AS m
    WHERE m.group_id = $1 AND NOT EXISTS (SELECT FROM pg_temp.stockgraph_incoming AS i WHERE i.symbol = m.symbol)
    RETURNING m.symbol, m.weight
), differing AS (
    SELECT m.id, m.symbol, m.weight AS old, i.weight AS new
    FROM group_memberships AS m JOIN pg_temp.stockgraph_incoming AS i ON i.symbol = m.symbol
    WHERE m.group_id = $1 AND m.weight IS DISTINCT FROM i.weight
    FOR NO KEY UPDATE OF m
), reweighted AS (
    UPDATE group_memberships AS m SET weight = d.new, updated_at = now() AT TIME ZONE 'UTC'
    FROM differing AS d WHERE m.id = d.id
    RETURNING d.symbol, d.old, d.new
), added AS (
    INSERT INTO group_memberships AS m (group_id, symbol, weight, added_at, updated_at)
    SELECT $1, i.symbol, i.weight, utc, utc
    FROM pg_temp.stockgraph_incoming AS i, (SELECT now() AT TIME ZONE 'UTC' AS utc) AS t
    WHERE NOT EXISTS (SELECT FROM group_memberships AS m WHERE m.group_id = $1 AND m.symbol = i.symbol)
    ON CONFLICT (group_id, symbol) DO UPDATE SET weight = excluded.weight, updated_at = excluded.updated_at
        WHERE m.weight IS DISTINCT FROM excluded.weight
    RETURNING m.symbol, m.weight
)
SELECT change, symbol, old, new
FROM (SELECT 'added' AS change, symbol, NULL AS old, weight AS new FROM added
      UNION ALL SELECT 'removed', symbol, weight, NULL FROM removed
      UNION ALL SELECT 'reweighted', symbol, old, new FROM reweighted) AS changes
ORDER BY symbol COLLATE "C"
"""

# Adds the stocks that are not there, in the order that every load writes them in, so that no two wait for each other.
_ADD_SYMBOLS = """
WITH added AS (
    INSERT INTO symbols (symbol, name, industry)
    SELECT n.symbol, n.name, n.industry
    FROM unnest($1::text[], $2::text[], $3::text[]) AS n (symbol, name, industry)
    WHERE NOT EXISTS (SELECT FROM symbols AS s WHERE s.symbol = n.symbol)
    ORDER BY n.symbol COLLATE "C"
    ON CONFLICT (symbol) DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM added"""

# Writes what the source knows of stocks where it differs; a null of the source leaves what is there. By the columns
# that the table has, since a foreign one may lack either.
_DESCRIBE_SYMBOLS = {
    ("industry", "name"): """
WITH news AS (
    SELECT s.symbol, coalesce(n.name, s.name) AS name, coalesce(n.industry, s.industry) AS industry
    FROM unnest($1::text[], $2::text[], $3::text[]) AS n (symbol, name, industry)
    JOIN symbols AS s ON s.symbol = n.symbol
    WHERE (n.name IS NOT NULL AND n.name IS DISTINCT FROM s.name)
        OR (n.industry IS NOT NULL AND n.industry IS DISTINCT FROM s.industry)
    ORDER BY s.symbol COLLATE "C"
    FOR NO KEY UPDATE OF s
), described AS (
    UPDATE symbols AS s SET name = news.name, industry = news.industry
    FROM news WHERE s.symbol = news.symbol
    RETURNING 1
)
SELECT count(*) FROM described""",
    ("name",): """
WITH news AS (
    SELECT s.symbol, n.name
    FROM unnest($1::text[], $2::text[], $3::text[]) AS n (symbol, name, industry)
    JOIN symbols AS s ON s.symbol = n.symbol
    WHERE n.name IS NOT NULL AND n.name IS DISTINCT FROM s.name
    ORDER BY s.symbol COLLATE "C"
    FOR NO KEY UPDATE OF s
), described AS (
    UPDATE symbols AS s SET name = news.name
    FROM news WHERE s.symbol = news.symbol
    RETURNING 1
)
SELECT count(*) FROM described""",
    ("industry",): """
WITH news AS (
    SELECT s.symbol, n.industry
    FROM unnest($1::text[], $2::text[], $3::text[]) AS n (symbol, name, industry)
    JOIN symbols AS s ON s.symbol = n.symbol
    WHERE n.industry IS NOT NULL AND n.industry IS DISTINCT FROM s.industry
    ORDER BY s.symbol COLLATE "C"
    FOR NO KEY UPDATE OF s
), described AS (
    UPDATE symbols AS s SET industry = news.industry
    FROM news WHERE s.symbol = news.symbol
    RETURNING 1
)
SELECT count(*) FROM described""",
}

# no rounding but that to the column's decimals
_ROUNDING = Context(prec=1_000, rounding=ROUND_HALF_EVEN)


class GroupRefused(StockgraphError):
    """A group that this database does not take as it is; nothing of it was written."""


@dataclass(frozen=True, slots=True)
class Reweighting:
    """A member that stayed with another weight."""

    symbol: str
    old: Decimal | None
    new: Decimal | None


@dataclass(frozen=True, slots=True)
class GroupDiff:
    """What a load changed in one group; symbols are sorted."""

    type: str
    name: str
    environment: str
    created: bool
    """The group was not there before."""
    redescribed: bool
    """The group was there, with another description."""
    added: tuple[str, ...]
    removed: tuple[str, ...]
    reweighted: tuple[Reweighting, ...]
    unchanged: int
    """Members that stayed as they were."""
    rounded: int
    """Weights with more decimals than the database keeps."""
    zeroed: tuple[str, ...]
    """Members whose weight became zero by that."""
    symbols_changed: int
    """Rows of the table of symbols that were written."""

    @property
    def changed(self) -> bool:
        """Whether the group or its members differ from before."""
        return bool(self.created or self.redescribed or self.added or self.removed or self.reweighted)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did: a diff for each group that was written, an error for each that was not."""

    groups: tuple[GroupDiff, ...]
    errors: tuple[GroupRefused, ...]


class _Tables(NamedTuple):
    """What matters here of the tables as they are."""

    unit: Decimal | None
    """Of the last decimal of a weight; None where a weight keeps all."""
    limit: Decimal
    """A weight lies between this and its negative."""
    own_symbols: bool
    """The table of symbols is ours, so that rows may be added to it."""
    described: tuple[str, ...]
    """Which of its columns can be written."""


async def load_groups(
    connection: Connection,
    groups: Iterable[GroupHoldings],
    *,
    environment: str,
    dry_run: bool = False,
    on_group: Callable[[GroupDiff], None] | None = None,
) -> LoadReport:
    """Replace each group in a transaction of its own; `on_group` hears of each that was written.

    A group that the database refuses is in the report's errors, and the others go on. Where two groups name a stock
    differently, the first counts, so that the same load again finds nothing to write. A dry run gives the same report
    and writes nothing. The connection should set no timeout for statements: a load may wait for another.
    """
    diffs: list[GroupDiff] = []
    errors: list[GroupRefused] = []
    told: dict[str, Holding] = {}
    for group in groups:
        news: dict[str, Holding] = {}
        for holding in group.holdings:
            known = told.get(holding.symbol)
            if known is None:
                news[holding.symbol] = holding
            elif (holding.name and not known.name) or (holding.industry and not known.industry):
                news[holding.symbol] = replace(
                    known, name=known.name or holding.name, industry=known.industry or holding.industry
                )
        try:
            diff = await replace_group(
                connection, group, environment=environment, stocks=tuple(news.values()), dry_run=dry_run
            )
        except GroupRefused as error:
            errors.append(error)
            continue
        told |= news
        diffs.append(diff)
        if on_group:
            on_group(diff)
    return LoadReport(tuple(diffs), tuple(errors))


async def replace_group(
    connection: Connection,
    group: GroupHoldings,
    *,
    environment: str,
    stocks: Sequence[Holding] | None = None,
    dry_run: bool = False,
) -> GroupDiff:
    """Make a group what `group` says, in one transaction (a savepoint within the caller's), and tell what changed.

    The names and industries of `stocks` (None: of the holdings) go to the table of symbols, where a None leaves what is
    known. Rows that are right already are not written. GroupRefused says why the database does not take the group.
    """
    if stocks is None:
        stocks = group.holdings
    transaction = connection.transaction(isolation="read_committed")
    try:
        await transaction.start()
        done = False
        try:
            diff = await _replace(connection, group, environment, stocks)
            done = not dry_run
        finally:
            await (transaction.commit() if done else transaction.rollback())
    except (asyncpg.PostgresError, UnicodeEncodeError) as error:
        if reason := _refusal(group, environment, error):
            raise GroupRefused(f"{group.type} {group.name}: {reason}.") from error
        raise
    return diff


async def _replace(
    connection: Connection, group: GroupHoldings, environment: str, stocks: Sequence[Holding]
) -> GroupDiff:
    tables = await _read_tables(connection)
    weights, rounded, zeroed = _at_scale(group, tables)
    await connection.execute(_CREATE_INCOMING)
    await connection.copy_records_to_table(
        "stockgraph_incoming", schema_name="pg_temp", columns=("symbol", "weight"), records=weights.items()
    )
    await connection.execute(_INDEX_INCOMING)
    key = (group.type, group.name, environment)
    created = False
    while not (row := await connection.fetchrow(_LOCK_GROUP, *key)):
        if row := await connection.fetchrow(_CREATE_GROUP, *key, group.description):
            created = True
            break
    changes = await connection.fetch(_MERGE_MEMBERS, row["id"])
    await connection.execute(_DROP_INCOMING)
    # last, since groups share stocks: whoever waits for these rows waits for the end of this transaction
    symbols_changed = await _describe(connection, stocks, tables)
    added = tuple(change["symbol"] for change in changes if change["change"] == "added")
    reweighted = tuple(
        Reweighting(change["symbol"], change["old"], change["new"])
        for change in changes
        if change["change"] == "reweighted"
    )
    diff = GroupDiff(
        *key,
        created=created,
        redescribed=group.description not in (None, row["description"]),
        added=added,
        removed=tuple(change["symbol"] for change in changes if change["change"] == "removed"),
        reweighted=reweighted,
        unchanged=len(weights) - len(added) - len(reweighted),
        rounded=rounded,
        zeroed=zeroed,
        symbols_changed=symbols_changed,
    )
    if diff.changed and not diff.created:
        await connection.execute(_TOUCH_GROUP, row["id"], group.description)
    return diff


async def _read_tables(connection: Connection) -> _Tables:
    (row,) = await connection.fetch(_TABLES)
    if row["missing"]:
        missing = ", ".join(row["missing"])
        raise DatabaseUnavailable(f"The database lacks tables ({missing}); `stockgraph init` makes what is missing.")
    unit, limit = None, Decimal("Infinity")
    if numeric := re.fullmatch(r"numeric\((\d+),(-?\d+)\)", row["weight"]):
        precision, scale = int(numeric[1]), int(numeric[2])
        unit, limit = Decimal(1).scaleb(-scale), Decimal(10) ** (precision - scale)
    columns = set(row["symbols"])
    described = tuple(column for column in ("industry", "name") if column in columns)
    return _Tables(unit, limit, columns == {"symbol", "name", "industry"}, described)


def _at_scale(group: GroupHoldings, tables: _Tables) -> tuple[dict[str, Decimal | None], int, tuple[str, ...]]:
    """Give the weights as the database keeps them, how many lost decimals, and which became zero."""
    weights: dict[str, Decimal | None] = {}
    rounded = 0
    zeroed = []
    for symbol, weight in ((holding.symbol, holding.weight) for holding in group.holdings):
        if symbol in weights:
            raise GroupRefused(f"{group.type} {group.name}: symbol {symbol} is given twice.")
        if weight is None:
            weights[symbol] = None
            continue
        fits = weight.is_finite() and abs(weight) < tables.limit
        kept = weight.quantize(tables.unit, context=_ROUNDING) if fits and tables.unit is not None else weight
        if not fits or abs(kept) >= tables.limit:
            limits = f"a number between -{tables.limit} and {tables.limit}"
            raise GroupRefused(f"{group.type} {group.name}: the weight {weight} of {symbol} is not {limits}.")
        rounded += kept != weight
        if weight and not kept:
            zeroed.append(symbol)
        weights[symbol] = kept
    return weights, rounded, tuple(sorted(zeroed))


async def _describe(connection: Connection, stocks: Sequence[Holding], tables: _Tables) -> int:
    """Write what is known of stocks, and count the rows written."""
    columns = (
        [stock.symbol for stock in stocks],
        [stock.name for stock in stocks],
        [stock.industry for stock in stocks],
    )
    written = 0
    if tables.own_symbols:
        written += await connection.fetchval(_ADD_SYMBOLS, *columns)
    if tables.described:
        written += await connection.fetchval(_DESCRIBE_SYMBOLS[tables.described], *columns)
    return written


def _refusal(group: GroupHoldings, environment: str, error: Exception) -> str | None:
    """Say why the database refuses a group; None where the fault is not with the group."""
    match error:
        case asyncpg.CheckViolationError():
            where = f"the constraint {error.constraint_name} of {error.table_name}"
            what = f"type {group.type} in environment {environment}"
            return f"{where} refuses it ({what}); widen that constraint, or load the group as another type"
        case asyncpg.IntegrityConstraintViolationError():
            why = str(error.detail or error.message).rstrip(".")
            return f"the constraint {error.constraint_name} of {error.table_name} refuses it: {why}"
        case asyncpg.TransactionRollbackError() | asyncpg.LockNotAvailableError():
            return f"another transaction was in the way ({error.message}); load it again"
        case asyncpg.InsufficientPrivilegeError():
            return f"the database does not let this user write it ({error.message})"
        case asyncpg.DataError() | UnicodeEncodeError():
            # the server's, or of the client that encodes for it
            return f"the database cannot hold it ({getattr(error, 'message', None) or error})"
    return None
