-- The statements that write a group. Each group is copied into a temporary table first and merged from there. Every timestamp
-- that they write is UTC.

-- name: inspect_tables
-- Returns which tables are missing, the type of a weight, the columns of symbols, whether the history can be read, and
-- today's date.
SELECT ARRAY(SELECT name FROM unnest(ARRAY['definition_groups', 'group_memberships', 'symbols']) AS name
             WHERE to_regclass(name) IS NULL) AS missing,
       (SELECT format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = to_regclass('group_memberships') AND attname = 'weight') AS weight,
       ARRAY(SELECT attname::text FROM pg_attribute
             WHERE attrelid = to_regclass('symbols') AND attnum > 0 AND NOT attisdropped) AS symbols,
       coalesce(has_table_privilege(to_regclass('group_history'), 'SELECT')
                AND has_table_privilege(to_regclass('membership_history'), 'SELECT'), false) AS history,
       (clock_timestamp() AT TIME ZONE 'UTC')::date AS today;

-- name: create_incoming
-- Creates the temporary table of incoming members, with the column types that this database has. Rows with `is_new` carry
-- a name or industry that this load has not written yet.
CREATE TEMPORARY TABLE stockgraph_incoming AS
SELECT symbol, weight, NULL::text AS name, NULL::text AS industry, false AS is_new FROM group_memberships WITH NO DATA;

-- name: index_incoming
-- Fails if a symbol occurs twice, and keeps every later plan from being quadratic, however wrong the planner's estimates.
CREATE UNIQUE INDEX ON pg_temp.stockgraph_incoming (symbol);

-- name: drop_incoming
-- Drops the temporary table explicitly, not ON COMMIT, so that one transaction may write several groups.
DROP TABLE pg_temp.stockgraph_incoming;

-- name: set_effective_day
-- Sets the day on which the history triggers let this transaction take effect; an empty text means today.
SELECT set_config('stockgraph.effective_day', $1, true);

-- name: lock_group
-- Finds a group and makes other loads of it wait until this transaction ends; rows that refer to the group can still be
-- written.
SELECT id, metadata ->> 'as_of' AS as_of, coalesce(metadata @> '{"stockgraph": "demo"}', false) AS demo
FROM definition_groups
WHERE type = $1 AND name = $2 AND environment = $3
FOR NO KEY UPDATE;

-- name: create_group
-- Creates a group. It waits for a concurrent transaction that creates the same one, and returns no row if that succeeds.
INSERT INTO definition_groups
    (type, name, environment, description, metadata, liquidity_filter, created_at, updated_at, last_update)
SELECT $1, $2, $3, $4, nullif($5::jsonb, '{}'), $6::jsonb, utc, utc, utc
FROM (SELECT now() AT TIME ZONE 'UTC' AS utc) AS t
ON CONFLICT (name, type, environment) DO NOTHING
RETURNING id, NULL AS as_of, false AS demo;

-- name: delete_group
-- Deletes a group and, by cascade, its members.
DELETE FROM definition_groups WHERE id = $1;

-- name: delete_history
-- Deletes the history of a group of the demo, which exists only until something else is loaded.
WITH members AS (DELETE FROM membership_history WHERE group_id = $1)
DELETE FROM group_history WHERE group_id = $1;

-- name: last_change_day
-- Returns the latest day on which the group, or a former group of the same name, changed. $5 is true if this load has just
-- created the group. For members, the two ends of one index tell.
SELECT greatest(
    (SELECT valid_to FROM membership_history
     WHERE group_id = $1 AND NOT $5 AND coalesce(valid_to, 'infinity') < 'infinity'
     ORDER BY coalesce(valid_to, 'infinity') DESC LIMIT 1),
    (SELECT valid_from FROM membership_history
     WHERE group_id = $1 AND NOT $5 AND coalesce(valid_to, 'infinity') = 'infinity'
     ORDER BY valid_from DESC LIMIT 1),
    (SELECT max(greatest(valid_from, valid_to)) FROM group_history WHERE group_id = $1 AND NOT $5),
    (SELECT max(greatest(valid_from, valid_to)) FROM group_history
     WHERE lower(name) = lower($3) AND environment = $4 AND type = $2 AND name = $3));

-- name: update_group
-- Updates an existing group if its own fields or its members ($2) changed. The new metadata are merged over the old, from
-- which the keys $6 are removed; old metadata that are not an object stay as they are.
UPDATE definition_groups AS g
SET description = new.description, metadata = new.metadata, liquidity_filter = new.liquidity_filter,
    updated_at = new.utc, last_update = new.utc
FROM definition_groups AS old CROSS JOIN LATERAL (
    SELECT coalesce($3, old.description) AS description,
           CASE WHEN old.metadata IS NULL THEN nullif($4::jsonb, '{}')
                WHEN jsonb_typeof(old.metadata) = 'object' THEN old.metadata - $6::text[] || $4::jsonb
                ELSE old.metadata END AS metadata,
           coalesce($5::jsonb, old.liquidity_filter) AS liquidity_filter,
           now() AT TIME ZONE 'UTC' AS utc
) AS new
WHERE g.id = $1 AND old.id = $1 AND ($2 OR
    (old.description, old.metadata, old.liquidity_filter)
    IS DISTINCT FROM (new.description, new.metadata, new.liquidity_filter))
RETURNING old.description IS DISTINCT FROM new.description AS redescribed,
    (old.metadata, old.liquidity_filter) IS DISTINCT FROM (new.metadata, new.liquidity_filter) AS annotated;

-- name: merge_members
-- Makes the members of a group those of the incoming table, and returns the first $2 differences of each kind with their
-- total. Rows that differ are locked as they are compared, so that `old` is the value that is overwritten; a member that is
-- inserted concurrently gets the incoming weight. Rows are inserted in index order, since indexes then grow twice as fast.
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
    ORDER BY i.symbol COLLATE "C"
    ON CONFLICT (group_id, symbol) DO UPDATE SET weight = excluded.weight, updated_at = excluded.updated_at
        WHERE m.weight IS DISTINCT FROM excluded.weight
    RETURNING m.symbol, m.weight
)
SELECT change, symbol, old, new, total
FROM (
    SELECT change, symbol, old, new, count(*) OVER (PARTITION BY change) AS total,
           row_number() OVER (PARTITION BY change ORDER BY symbol COLLATE "C") AS place
    FROM (SELECT 'added' AS change, symbol, NULL AS old, weight AS new FROM added
          UNION ALL SELECT 'removed', symbol, weight, NULL FROM removed
          UNION ALL SELECT 'reweighted', symbol, old, new FROM reweighted) AS changes
) AS numbered
WHERE place <= $2
ORDER BY place;

-- name: backdate_members
-- Lets the members of a group created by this load begin on the given days.
UPDATE membership_history AS h SET valid_from = s.valid_from
FROM unnest($2::text[], $3::date[]) AS s (symbol, valid_from)
WHERE h.group_id = $1 AND h.symbol = s.symbol AND h.valid_to IS NULL;

-- name: backdate_group
-- Lets a group created by this load begin on the given day.
UPDATE group_history SET valid_from = $2 WHERE group_id = $1;

-- name: add_symbols
-- Adds the stocks that are missing, in the order in which every load adds them, so that no two loads deadlock.
WITH added AS (
    INSERT INTO symbols (symbol, name, industry)
    SELECT n.symbol, n.name, n.industry
    FROM pg_temp.stockgraph_incoming AS n
    WHERE n.is_new AND NOT EXISTS (SELECT FROM symbols AS s WHERE s.symbol = n.symbol)
    ORDER BY n.symbol COLLATE "C"
    ON CONFLICT (symbol) DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM added;

-- name: describe_names_and_industries
-- Writes the names and industries that differ; nulls of the source leave the known ones. The three statements are for the
-- columns that the table of symbols has, since one that stockgraph did not make may lack either.
WITH changes AS (
    SELECT s.symbol, coalesce(n.name, s.name) AS name, coalesce(n.industry, s.industry) AS industry
    FROM pg_temp.stockgraph_incoming AS n
    JOIN symbols AS s ON s.symbol = n.symbol
    WHERE n.is_new AND ((n.name IS NOT NULL AND n.name IS DISTINCT FROM s.name)
        OR (n.industry IS NOT NULL AND n.industry IS DISTINCT FROM s.industry))
    ORDER BY s.symbol COLLATE "C"
    FOR NO KEY UPDATE OF s
), described AS (
    UPDATE symbols AS s SET name = changes.name, industry = changes.industry
    FROM changes WHERE s.symbol = changes.symbol
    RETURNING 1
)
SELECT count(*) FROM described;

-- name: describe_names
-- Writes the names that differ, to a table of symbols without industries.
WITH changes AS (
    SELECT s.symbol, n.name
    FROM pg_temp.stockgraph_incoming AS n
    JOIN symbols AS s ON s.symbol = n.symbol
    WHERE n.is_new AND n.name IS NOT NULL AND n.name IS DISTINCT FROM s.name
    ORDER BY s.symbol COLLATE "C"
    FOR NO KEY UPDATE OF s
), described AS (
    UPDATE symbols AS s SET name = changes.name
    FROM changes WHERE s.symbol = changes.symbol
    RETURNING 1
)
SELECT count(*) FROM described;

-- name: describe_industries
-- Writes the industries that differ, to a table of symbols without names.
WITH changes AS (
    SELECT s.symbol, n.industry
    FROM pg_temp.stockgraph_incoming AS n
    JOIN symbols AS s ON s.symbol = n.symbol
    WHERE n.is_new AND n.industry IS NOT NULL AND n.industry IS DISTINCT FROM s.industry
    ORDER BY s.symbol COLLATE "C"
    FOR NO KEY UPDATE OF s
), described AS (
    UPDATE symbols AS s SET industry = changes.industry
    FROM changes WHERE s.symbol = changes.symbol
    RETURNING 1
)
SELECT count(*) FROM described;
