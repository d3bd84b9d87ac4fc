-- Every statement that the server sends. Each takes many keys at once, as parallel arrays. `ordinal` is the position of the
-- key that a row belongs to, from 1; it is 1 if a row belongs to no key or to several, since it must not be null. Rows come
-- in the order of the answer. Weights are fractions.
-- Functions are named with their schema, and texts and numbers compared in types that PostgreSQL itself compares, since a
-- function or operator of another schema of the search path that fits better would be run in its place
-- (`unnest` of several arrays is a form of PostgreSQL's own).
-- Milliseconds are execution times, the least of seven runs, with 12,807 memberships of 3,800 symbols in 58 groups (among
-- them a fund of 3,482), on PostgreSQL 15 and one of two busy cores.

-- For a past day, a statement reads groups_on(day) and memberships_on(day) of schema.sql instead of `definition_groups AS`
-- and `group_memberships AS`; the day is its last argument.

-- name: with_generation
-- Wraps every other statement if the database tracks changes: adds the generations of the snapshot to each row, or to one
-- row of nulls if there are no rows, and a hash of the layout of the tables: which files and partitions hold their rows, so
-- that a change of the schema that rewrites rows is noticed by the next statement, whichever that is. Both generations are
-- null while a restore has left rows of another server's transactions, whose ids could be mistaken for ids of this server.
-- The layout takes 0.007 ms.
SELECT stamp.groups_generation, stamp.prices_generation, stamp.layout, answer.*
FROM (/* statement */) AS answer
RIGHT JOIN (
    SELECT CASE WHEN NOT yet_to_come THEN groups END AS groups_generation,
           CASE WHEN NOT yet_to_come THEN prices END AS prices_generation,
           -- a subquery, since an expression would be computed for each row
           (SELECT pg_catalog.hashtextextended(pg_catalog.concat_ws('.',
                pg_catalog.pg_relation_filenode(pg_catalog.to_regclass('definition_groups')), pg_catalog.pg_relation_filenode(pg_catalog.to_regclass('group_memberships')),
                pg_catalog.pg_relation_filenode(pg_catalog.to_regclass('symbols')), pg_catalog.pg_relation_filenode(pg_catalog.to_regclass('ohlcv_daily')),
                (SELECT pg_catalog.sum(inhrelid::bigint) FROM pg_inherits
                 WHERE inhparent IN (pg_catalog.to_regclass('definition_groups')::oid, pg_catalog.to_regclass('group_memberships')::oid,
                                     pg_catalog.to_regclass('symbols')::oid, pg_catalog.to_regclass('ohlcv_daily')::oid))), 0)) AS layout
    FROM (SELECT coalesce(pg_catalog.sum(weight) FILTER (WHERE family = 'groups'), 0)::bigint AS groups,
                 coalesce(pg_catalog.sum(weight) FILTER (WHERE family = 'prices'), 0)::bigint AS prices,
                 coalesce(pg_catalog.bool_or(xid >= (SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()))), false) AS yet_to_come
          FROM data_change WHERE family IN ('groups', 'prices')) AS counted
) AS stamp ON true;

-- name: tracking
-- Returns the identity of the database, whether the required tables exist, and the tables whose changes are not all counted:
-- without triggers (the table itself, or a partition or child of it), written to by a subscription, or filtered by a policy,
-- which may depend on anything. A table is watched with all that its rows are read from.
-- The identity changes with whatever may change answers without being counted: triggers that were disabled for a while,
-- tables that were rewritten, replaced, attached or detached, columns and rights; also at a restart, since restoring the
-- files of a database implies one, and at a promotion.
-- 0.4 ms.
WITH watched (relation, needed) AS (
    VALUES (pg_catalog.to_regclass('definition_groups'), true), (pg_catalog.to_regclass('group_memberships'), true), (pg_catalog.to_regclass('symbols'), true),
        (pg_catalog.to_regclass('ohlcv_daily'), false), (pg_catalog.to_regclass('group_history'), false), (pg_catalog.to_regclass('membership_history'), false)
),
member AS (
    WITH RECURSIVE below (relation) AS (
        SELECT relation::oid FROM watched WHERE relation IS NOT NULL
        UNION
        SELECT i.inhrelid FROM below JOIN pg_inherits AS i ON i.inhparent = below.relation
    )
    SELECT relation FROM below
),
place AS MATERIALIZED (
    -- temporary children are read by their own session alone
    SELECT c.oid, c.xmin, c.relkind, pg_catalog.regexp_replace(c.oid::regclass::text, '[[:cntrl:]]', '?', 'g') AS name
    FROM member JOIN pg_class AS c ON c.oid = member.relation AND c.relpersistence <> 't'
),
fired AS MATERIALIZED (
    SELECT t.oid, t.xmin, t.tgrelid,
           t.tgname IN ('data_change_insert', 'data_change_update', 'data_change_delete', 'data_change_truncate')
               AND t.tgfoid IN (pg_catalog.to_regproc('record_data_change')::oid, pg_catalog.to_regproc('record_price_change')::oid) AS records
    FROM place JOIN pg_trigger AS t ON t.tgrelid = place.oid
    WHERE t.tgenabled = 'A' AND NOT t.tgisinternal
),
seen AS (
    SELECT pg_catalog.concat_ws(':', 'class', oid, xmin) AS mark FROM place
    UNION ALL SELECT pg_catalog.concat_ws(':', 'trigger', oid, xmin) FROM fired
    UNION ALL SELECT pg_catalog.concat_ws(':', 'part', i.inhrelid, i.inhparent, i.xmin) FROM place JOIN pg_inherits AS i ON i.inhparent = place.oid
    UNION ALL SELECT pg_catalog.concat_ws(':', 'column', a.attrelid, a.attnum, a.xmin)
              FROM watched JOIN pg_attribute AS a ON a.attrelid = watched.relation::oid WHERE a.attnum > 0::smallint
    UNION ALL SELECT pg_catalog.concat_ws(':', 'right', relation, pg_catalog.has_table_privilege(relation::oid, 'SELECT'),
                                          pg_catalog.has_any_column_privilege(relation::oid, 'SELECT'))
              FROM watched WHERE relation IS NOT NULL
)
SELECT 1 AS ordinal,
       pg_catalog.concat_ws('.', (SELECT system_identifier FROM pg_catalog.pg_control_system()),
                 (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()), pg_catalog.pg_is_in_recovery(),
                 (SELECT oid FROM pg_database WHERE datname = pg_catalog.current_database()),
                 extract(epoch FROM pg_catalog.pg_postmaster_start_time()), pg_catalog.to_regclass('data_change')::oid,
                 (SELECT pg_catalog.hashtextextended(pg_catalog.string_agg(mark, ',' ORDER BY mark COLLATE "C"), 0) FROM seen)) AS identity,
       (SELECT pg_catalog.bool_and(relation IS NOT NULL OR NOT needed) FROM watched) AS complete,
       ARRAY(SELECT place.name FROM place WHERE place.relkind = 'f' ORDER BY place.oid) AS "foreign",
       ARRAY(SELECT place.name FROM place
             WHERE pg_catalog.to_regclass('data_change') IS NULL
                 OR (SELECT pg_catalog.count(*) FROM fired WHERE fired.tgrelid = place.oid AND fired.records) <> 4::bigint
             ORDER BY place.oid) AS unrecorded,
       -- changes applied by a subscription fire no statement triggers
       ARRAY(SELECT place.name FROM place JOIN pg_subscription_rel AS s ON s.srrelid = place.oid ORDER BY place.oid) AS subscribed,
       ARRAY(SELECT relation::text FROM (SELECT relation FROM watched UNION ALL SELECT pg_catalog.to_regclass('data_change')) AS w
             WHERE relation IS NOT NULL AND pg_catalog.row_security_active(relation::oid)) AS filtered,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN NULL
            WHEN pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn()
                AND EXISTS (SELECT FROM pg_catalog.pg_stat_get_wal_receiver() AS r WHERE r.pid IS NOT NULL) THEN 0
            ELSE greatest(0, extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()))
       END::float8 AS behind_seconds,
       pg_catalog.clock_timestamp() AS database_time;

-- name: lock_tables
-- Returns the statement that keeps the tables that may be read from being emptied or rewritten. LOCK takes no snapshot, so
-- that the one of a transaction that begins with it is taken afterwards. Null if there are no tables.
-- 0.1 ms.
SELECT 'LOCK TABLE ' || pg_catalog.string_agg(name::regclass::text, ', ' ORDER BY name) || ' IN ACCESS SHARE MODE'
FROM pg_catalog.unnest(ARRAY['definition_groups', 'group_memberships', 'symbols', 'ohlcv_daily', 'group_history', 'membership_history',
                             'data_change']) AS name
WHERE pg_catalog.has_table_privilege(pg_catalog.to_regclass(name)::oid, 'SELECT');

-- name: past_days
-- Returns today's date, and flags: the triggers maintain the history, and rows that the groups hide from this role are not
-- hidden by the history.
-- 0.1 ms.
WITH RECURSIVE place (relation) AS (
    SELECT oid FROM pg_class WHERE oid IN (pg_catalog.to_regclass('definition_groups')::oid, pg_catalog.to_regclass('group_memberships')::oid)
    UNION
    SELECT i.inhrelid FROM place JOIN pg_inherits AS i ON i.inhparent = place.relation
    JOIN pg_class AS c ON c.oid = i.inhrelid AND c.relpersistence <> 't'
),
keeping AS (
    SELECT pg_catalog.to_regclass('group_history') IS NOT NULL AND pg_catalog.to_regclass('membership_history') IS NOT NULL AND NOT EXISTS (
               SELECT FROM place WHERE EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = relation) OR (
                   SELECT pg_catalog.count(*) FROM pg_trigger
                   WHERE tgrelid = relation AND tgname LIKE 'history\_%' AND tgenabled = 'A') <> 5::bigint) AS kept,
           coalesce(pg_catalog.row_security_active(pg_catalog.to_regclass('definition_groups')::oid) AND NOT pg_catalog.row_security_active(pg_catalog.to_regclass('group_history')::oid)
               OR pg_catalog.row_security_active(pg_catalog.to_regclass('group_memberships')::oid) AND NOT pg_catalog.row_security_active(pg_catalog.to_regclass('membership_history')::oid),
               false) AS unhidden
)
SELECT k.ordinal, (pg_catalog.clock_timestamp() AT TIME ZONE 'UTC')::date AS today, keeping.kept, keeping.unhidden
FROM pg_catalog.unnest($1::date[]) WITH ORDINALITY AS k (day, ordinal), keeping;

-- name: names_known_since
-- Returns the types of groups that ever had a name in an environment, and the first day known of each.
-- 0.1 ms.
SELECT k.ordinal, h.type, pg_catalog.min(h.valid_from) AS since
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (name, environment, ordinal)
JOIN group_history AS h ON pg_catalog.lower(h.name) = pg_catalog.lower(k.name) AND h.environment = k.environment
GROUP BY k.ordinal, h.type;

-- name: groups_known_since
-- Returns the first day known of groups under their present names.
-- 0.1 ms.
SELECT k.ordinal, (SELECT pg_catalog.max(h.valid_from) FROM group_history AS h
                   WHERE h.group_id = k.group_id AND NOT EXISTS (
                       SELECT FROM group_history AS before
                       WHERE before.group_id = h.group_id AND before.valid_to = h.valid_from
                           AND (before.environment, before.type, before.name) = (h.environment, h.type, h.name))) AS since
FROM pg_catalog.unnest($1::integer[]) WITH ORDINALITY AS k (group_id, ordinal);

-- name: groups_named
-- Returns the groups with a name in an environment, of any type, ignoring case.
-- 0.1 ms.
SELECT k.ordinal, g.id, g.name, g.type, g.description, g.environment, g.created_at, g.updated_at, g.last_update
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (name, environment, ordinal)
JOIN definition_groups AS g ON pg_catalog.lower(g.name) = pg_catalog.lower(k.name) AND g.environment::text = k.environment
ORDER BY k.ordinal, g.type, g.name COLLATE "C";

-- name: groups_by_id
-- Returns groups by id, without those of other environments.
-- 0.1 ms for 58.
SELECT k.ordinal, g.id, g.name, g.type, g.description, g.environment, g.created_at, g.updated_at, g.last_update
FROM unnest($1::integer[], $2::text[]) WITH ORDINALITY AS k (id, environment, ordinal)
JOIN definition_groups AS g ON g.id = k.id AND g.environment::text = k.environment;

-- name: group_names
-- Returns the names of all groups of an environment, in which the parts of a universe key are looked up.
-- 0.1 ms for 58.
SELECT k.ordinal, g.id, g.name, g.type
FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS k (environment, ordinal)
JOIN definition_groups AS g ON g.environment::text = k.environment
ORDER BY k.ordinal, g.id;

-- name: group_details
-- Returns the rarely requested JSON documents of groups.
-- 0.1 ms for 58.
SELECT k.ordinal, g.metadata::text AS metadata, g.liquidity_filter::text AS liquidity_filter
FROM pg_catalog.unnest($1::integer[]) WITH ORDINALITY AS k (group_id, ordinal)
JOIN definition_groups AS g ON g.id = k.group_id;

-- name: groups_by_name
-- Returns a page of an environment's groups, by name.
-- 0.1 ms for 58; 0.6 with all filters.
SELECT 1 AS ordinal, g.id, g.name, g.type, g.description, g.environment, g.created_at, g.updated_at, g.last_update
FROM definition_groups AS g
WHERE g.environment::text = $1 AND ($2::text[] IS NULL OR g.type::text = ANY ($2))
    AND ($3::text IS NULL OR position(pg_catalog.lower($3) IN pg_catalog.lower(g.name)) > 0
         OR position(pg_catalog.lower($3) IN pg_catalog.lower(g.description)) > 0)
    AND (($4::bigint IS NULL AND $5::bigint IS NULL)
         OR (SELECT pg_catalog.count(*) BETWEEN coalesce($4, 0) AND coalesce($5, 9223372036854775807)
             FROM group_memberships AS m WHERE m.group_id = g.id))
    AND ($7::text IS NULL OR (g.name::text COLLATE "C", g.id) > ($7, $8::integer))
ORDER BY g.name COLLATE "C", g.id
LIMIT $6::integer;

-- name: groups_by_member_count
-- Returns a page of an environment's groups, those with the most members first.
-- 0.2 ms for 11 sectors; 0.9 for 58 groups.
WITH g AS MATERIALIZED (
    SELECT g.id, g.name, g.type, g.description, g.environment, g.created_at, g.updated_at, g.last_update,
           (SELECT pg_catalog.count(*) FROM group_memberships AS m WHERE m.group_id = g.id) AS member_count
    FROM definition_groups AS g
    WHERE g.environment::text = $1 AND ($2::text[] IS NULL OR g.type::text = ANY ($2))
        AND ($3::text IS NULL OR position(pg_catalog.lower($3) IN pg_catalog.lower(g.name)) > 0
             OR position(pg_catalog.lower($3) IN pg_catalog.lower(g.description)) > 0)
)
SELECT 1 AS ordinal, g.*
FROM g
WHERE g.member_count BETWEEN coalesce($4::bigint, 0) AND coalesce($5::bigint, 9223372036854775807)
    AND ($9::bigint IS NULL OR g.member_count < $9
         OR g.member_count = $9 AND (g.name::text COLLATE "C", g.id) > ($7::text, $8::integer))
ORDER BY g.member_count DESC, g.name COLLATE "C", g.id
LIMIT $6::integer;

-- name: groups_count
-- Counts the groups of an environment that pass the filters of a page.
-- 0.1 ms; 0.8 with a bound on members.
SELECT 1 AS ordinal, pg_catalog.count(*) AS total
FROM definition_groups AS g
WHERE g.environment::text = $1 AND ($2::text[] IS NULL OR g.type::text = ANY ($2))
    AND ($3::text IS NULL OR position(pg_catalog.lower($3) IN pg_catalog.lower(g.name)) > 0
         OR position(pg_catalog.lower($3) IN pg_catalog.lower(g.description)) > 0)
    AND (($4::bigint IS NULL AND $5::bigint IS NULL)
         OR (SELECT pg_catalog.count(*) BETWEEN coalesce($4, 0) AND coalesce($5, 9223372036854775807)
             FROM group_memberships AS m WHERE m.group_id = g.id));

-- name: member_counts
-- Counts the members of groups.
-- 0.8 ms for 58.
SELECT k.ordinal, (SELECT pg_catalog.count(*) FROM group_memberships AS m WHERE m.group_id = k.group_id) AS total
FROM pg_catalog.unnest($1::integer[]) WITH ORDINALITY AS k (group_id, ordinal);

-- name: total_weights
-- Sums the weights of groups' members; null if none has a weight.
-- 1.9 ms for 58.
SELECT k.ordinal, (SELECT pg_catalog.sum(nullif(m.weight, 'NaN'))::float8 FROM group_memberships AS m WHERE m.group_id = k.group_id) AS total
FROM pg_catalog.unnest($1::integer[]) WITH ORDINALITY AS k (group_id, ordinal);

-- name: group_symbols
-- Returns the sorted symbols of groups, from which universes are computed.
-- 0.1 ms for 503 members; 1.6 for all 58 groups.
SELECT k.ordinal, ARRAY(SELECT m.symbol FROM group_memberships AS m WHERE m.group_id = k.group_id
                        ORDER BY m.symbol COLLATE "C") AS symbols
FROM pg_catalog.unnest($1::integer[]) WITH ORDINALITY AS k (group_id, ordinal);

-- name: members_by_weight
-- Returns a page of each group's members as arrays, heaviest first, after a position if one is given.
-- 0.1 ms for 10, wherever the page lies; 0.4 for 503; 0.6 for 10 of each of 58 groups.
SELECT k.ordinal, page.symbols, page.weights, page.ids
FROM unnest($1::integer[], $2::integer[], $3::float8[], $4::text[], $5::integer[]) WITH ORDINALITY
    AS k (group_id, first, after_weight, after_symbol, after_id, ordinal)
CROSS JOIN LATERAL (
    -- arrays are aggregated in the order of the last ORDER BY
    SELECT coalesce(pg_catalog.array_agg(m.symbol), '{}') AS symbols, coalesce(pg_catalog.array_agg(m.id), '{}') AS ids,
           coalesce(pg_catalog.array_agg(nullif(m.weight, 'NaN')::float8), '{}') AS weights
    FROM (
        SELECT m.* FROM (
            (SELECT m.id, m.symbol, m.weight FROM group_memberships AS m
             WHERE m.group_id = k.group_id AND k.after_id IS NULL
             ORDER BY m.weight DESC NULLS LAST, m.symbol COLLATE "C", m.id LIMIT k.first)
            UNION ALL
            (SELECT m.id, m.symbol, m.weight FROM group_memberships AS m
             WHERE m.group_id = k.group_id AND m.weight <= k.after_weight::numeric
                 AND (m.weight < k.after_weight::numeric OR (m.symbol::text COLLATE "C", m.id) > (k.after_symbol, k.after_id))
             ORDER BY m.weight DESC NULLS LAST, m.symbol COLLATE "C", m.id LIMIT k.first)
            UNION ALL
            (SELECT m.id, m.symbol, m.weight FROM group_memberships AS m
             WHERE m.group_id = k.group_id AND k.after_id IS NOT NULL AND m.weight IS NULL
                 AND (k.after_weight IS NOT NULL OR (m.symbol::text COLLATE "C", m.id) > (k.after_symbol, k.after_id))
             ORDER BY m.weight DESC NULLS LAST, m.symbol COLLATE "C", m.id LIMIT k.first)
        ) AS m
        ORDER BY m.weight DESC NULLS LAST, m.symbol COLLATE "C", m.id LIMIT k.first
    ) AS m
) AS page;

-- name: members_by_symbol
-- Returns a page of each group's members as arrays, by symbol, after a position if one is given.
-- 0.1 ms for 10, wherever the page lies; 0.3 for 503.
SELECT k.ordinal, page.symbols, page.weights, page.ids
FROM unnest($1::integer[], $2::integer[], $3::text[], $4::integer[]) WITH ORDINALITY
    AS k (group_id, first, after_symbol, after_id, ordinal)
CROSS JOIN LATERAL (
    SELECT coalesce(pg_catalog.array_agg(m.symbol), '{}') AS symbols, coalesce(pg_catalog.array_agg(m.id), '{}') AS ids,
           coalesce(pg_catalog.array_agg(nullif(m.weight, 'NaN')::float8), '{}') AS weights
    FROM (
        SELECT m.id, m.symbol, m.weight FROM group_memberships AS m
        WHERE m.group_id = k.group_id
            AND (m.symbol::text COLLATE "C", m.id) > (coalesce(k.after_symbol, ''), coalesce(k.after_id, 0))
        ORDER BY m.symbol COLLATE "C", m.id LIMIT k.first
    ) AS m
) AS page;

-- name: member_changes
-- Returns the members of groups that differ between two days, with the day of the change: for a member that joined, the
-- first day of membership after the earlier day; for another, the last day up to the later on which it left or got its weight.
WITH k AS MATERIALIZED (
    SELECT * FROM unnest($1::integer[], $2::date[], $3::date[]) WITH ORDINALITY AS k (group_id, since, until, ordinal)
),
old AS (
    SELECT k.ordinal, k.since, k.until, h.*
    FROM k JOIN membership_history AS h ON h.group_id = k.group_id
        AND h.valid_from <= k.since AND coalesce(h.valid_to, 'infinity') > k.since
),
new AS (
    SELECT k.ordinal, k.since, k.until, h.*
    FROM k JOIN membership_history AS h ON h.group_id = k.group_id
        AND h.valid_from <= k.until AND coalesce(h.valid_to, 'infinity') > k.until
),
changed AS (
    SELECT ordinal, symbol, coalesce(old.group_id, new.group_id) AS group_id,
           coalesce(old.since, new.since) AS since, coalesce(old.until, new.until) AS until,
           old.symbol IS NOT NULL AS was_member, new.symbol IS NOT NULL AS is_member,
           nullif(old.weight, 'NaN')::float8 AS before, nullif(new.weight, 'NaN')::float8 AS after, new.valid_from
    FROM old FULL JOIN new USING (ordinal, symbol)
    WHERE old.symbol IS NULL OR new.symbol IS NULL OR old.weight IS DISTINCT FROM new.weight
)
SELECT c.ordinal, c.symbol, c.was_member, c.is_member, c.before, c.after, s.name AS stock_name, s.industry AS stock_industry,
       CASE WHEN c.was_member AND c.is_member THEN c.valid_from
            WHEN c.is_member THEN (SELECT h.valid_from FROM membership_history AS h
                               WHERE h.group_id = c.group_id AND h.symbol = c.symbol AND h.valid_from > c.since
                               ORDER BY h.valid_from LIMIT 1)
            ELSE (SELECT h.valid_to FROM membership_history AS h
                  WHERE h.group_id = c.group_id AND h.symbol = c.symbol AND h.valid_from <= c.until
                  ORDER BY h.valid_from DESC LIMIT 1)
       END AS day
FROM changed AS c LEFT JOIN symbols AS s ON s.symbol::text = c.symbol
ORDER BY c.ordinal, c.symbol COLLATE "C";

-- name: member_ranks
-- Returns the ranks of members within their group, heaviest first.
-- 0.6 ms for the 503 of one group; 2.5 for 8 of 8 groups.
WITH k AS (SELECT * FROM unnest($1::integer[], $2::text[]) WITH ORDINALITY AS k (group_id, symbol, ordinal))
SELECT k.ordinal, ranked.rank
FROM (SELECT DISTINCT group_id FROM k) AS g
CROSS JOIN LATERAL (
    SELECT m.symbol, pg_catalog.row_number() OVER (ORDER BY m.weight DESC NULLS LAST, m.symbol COLLATE "C", m.id) AS rank
    FROM group_memberships AS m WHERE m.group_id = g.group_id
) AS ranked
JOIN k ON k.group_id = g.group_id AND k.symbol = ranked.symbol::text;

-- name: membership_details
-- Returns the rarely requested fields of memberships.
-- 0.1 ms; 1.1 for 503.
SELECT k.ordinal, m.metadata::text AS metadata, m.added_at, m.updated_at
FROM unnest($1::integer[], $2::text[]) WITH ORDINALITY AS k (group_id, symbol, ordinal)
JOIN group_memberships AS m ON m.group_id = k.group_id AND m.symbol::text = k.symbol;

-- name: stocks
-- Returns stocks by symbol: an exact match, else one that ignores case. A stock is any symbol in `symbols` or in a group of
-- the environment.
-- 0.1 ms; 2.1 for 503.
SELECT k.ordinal, found.symbol, s.name AS stock_name, s.industry AS stock_industry
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (symbol, environment, ordinal)
CROSS JOIN LATERAL (
    (SELECT s.symbol FROM symbols AS s WHERE s.symbol::text = k.symbol)
    UNION ALL
    (SELECT m.symbol FROM group_memberships AS m JOIN definition_groups AS g ON g.id = m.group_id
     WHERE m.symbol::text = k.symbol AND g.environment::text = k.environment LIMIT 1)
    UNION ALL
    (SELECT s.symbol FROM symbols AS s WHERE pg_catalog.lower(s.symbol) = pg_catalog.lower(k.symbol) ORDER BY s.symbol COLLATE "C" LIMIT 1)
    UNION ALL
    (SELECT m.symbol FROM group_memberships AS m
     WHERE pg_catalog.lower(m.symbol) = pg_catalog.lower(k.symbol)
         -- looked up for each row, since a join would read all groups
         AND EXISTS (SELECT FROM definition_groups AS g WHERE g.id = m.group_id AND g.environment::text = k.environment OFFSET 0)
     ORDER BY m.symbol COLLATE "C" LIMIT 1)
    LIMIT 1
) AS found
LEFT JOIN symbols AS s ON s.symbol::text = found.symbol::text;

-- name: stock_details
-- Returns the names and industries of stocks.
-- 0.1 ms; 0.9 for 503.
SELECT k.ordinal, s.name AS stock_name, s.industry AS stock_industry
FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY AS k (symbol, ordinal)
JOIN symbols AS s ON s.symbol::text = k.symbol;

-- name: stock_memberships
-- Returns the groups of an environment that hold any of the given stocks, by name, with these stocks and their weights. Null
-- types mean every type.
-- 0.1 ms; for 503 stocks at once 1.7 with one type, 3.2 with all of their 4,109 memberships.
SELECT 1 AS ordinal, held.symbols, held.weights,
       g.id, g.name, g.type, g.description, g.environment, g.created_at, g.updated_at, g.last_update
FROM (SELECT m.group_id, pg_catalog.array_agg(m.symbol) AS symbols, pg_catalog.array_agg(nullif(m.weight, 'NaN')::float8) AS weights
      FROM group_memberships AS m JOIN definition_groups AS g ON g.id = m.group_id
      WHERE m.symbol::text = ANY ($1::text[]) AND g.environment::text = $2 AND ($3::text[] IS NULL OR g.type::text = ANY ($3))
      GROUP BY m.group_id) AS held
JOIN definition_groups AS g ON g.id = held.group_id
ORDER BY g.name COLLATE "C", g.id;

-- name: exposures
-- Returns the weight of a group that lies in each group of a type and environment, heaviest first; the weight that lies in
-- none comes last, with a null id.
-- 0.9 ms for 503 members by sector; 32 for 3,482 by ETF.
WITH k AS MATERIALIZED (SELECT * FROM unnest($1::integer[], $2::text[], $3::text[]) WITH ORDINALITY AS k (group_id, type, environment, ordinal)),
-- the groups of these types first, since they are few
other AS MATERIALIZED (
    SELECT g.id, g.type, g.environment FROM definition_groups AS g WHERE g.type::text = ANY ($2) AND g.environment::text = ANY ($3)
),
theirs AS MATERIALIZED (
    SELECT other.id AS group_id, other.type, other.environment, t.symbol
    FROM other CROSS JOIN LATERAL (SELECT m.symbol FROM group_memberships AS m WHERE m.group_id = other.id OFFSET 0) AS t
),
lying AS MATERIALIZED (
    SELECT k.ordinal, t.group_id, pg_catalog.sum(nullif(m.weight, 'NaN'))::float8 AS weight, pg_catalog.count(*) AS total
    FROM k
    JOIN group_memberships AS m ON m.group_id = k.group_id
    LEFT JOIN theirs AS t ON t.symbol::text = m.symbol::text AND t.type::text = k.type AND t.environment::text = k.environment
    GROUP BY k.ordinal, t.group_id
)
SELECT lying.ordinal, lying.weight, lying.total,
       g.id, g.name, g.type, g.description, g.environment, g.created_at, g.updated_at, g.last_update
FROM lying LEFT JOIN definition_groups AS g ON g.id = lying.group_id
ORDER BY lying.ordinal, lying.weight DESC NULLS LAST, lying.total DESC, g.name COLLATE "C" NULLS LAST, g.id;

-- name: group_holdings
-- Returns the members of groups with their weights, by symbol, for computations.
-- 0.3 ms for 503 members; 5 for all 58 groups.
SELECT k.ordinal, held.symbols, held.weights
FROM pg_catalog.unnest($1::integer[]) WITH ORDINALITY AS k (group_id, ordinal)
CROSS JOIN LATERAL (
    SELECT coalesce(pg_catalog.array_agg(m.symbol ORDER BY m.symbol COLLATE "C"), '{}') AS symbols,
           coalesce(pg_catalog.array_agg(m.weight::float8 ORDER BY m.symbol COLLATE "C"), '{}') AS weights
    FROM group_memberships AS m WHERE m.group_id = k.group_id
) AS held;

-- name: overlaps
-- Returns each pair of groups that share members: the number of these, and the sum of the smaller of their two weights (null
-- if no shared member has both).
-- 2.2 ms for 2 groups; 11 for 24.
SELECT 1 AS ordinal, a.group_id AS a, b.group_id AS b, pg_catalog.count(*) AS total,
       pg_catalog.sum(least(a.weight, b.weight)) FILTER (WHERE a.weight IS NOT NULL AND b.weight IS NOT NULL)::float8 AS weight
FROM group_memberships AS a JOIN group_memberships AS b ON b.symbol::text = a.symbol::text AND b.group_id > a.group_id
WHERE a.group_id = ANY ($1::integer[]) AND b.group_id = ANY ($1)
GROUP BY a.group_id, b.group_id;

-- name: search_hits
-- Returns stocks and groups that match a text, best first: equal to it, beginning with it, with a word beginning with it,
-- containing it; in symbol or name before description; stocks before groups, shorter names first. A stock that is not in
-- `symbols` is found by its complete symbol.
-- 4 ms for a word; 8 for one letter, which most names hold.
WITH asked AS (SELECT pg_catalog.lower($1::text) AS text),
hit AS MATERIALIZED (
    SELECT 0 AS kind, s.symbol AS name, pg_catalog.lower(s.symbol) AS lower_name, pg_catalog.lower(s.name) AS lower_description,
           s.name AS stock_name, s.industry AS stock_industry, NULL::integer AS id
    FROM symbols AS s
    UNION ALL
    SELECT 1, g.name, pg_catalog.lower(g.name), pg_catalog.lower(g.description), NULL, NULL, g.id
    FROM definition_groups AS g WHERE g.environment::text = $2
    UNION ALL
    (SELECT 0, m.symbol, pg_catalog.lower(m.symbol), NULL, NULL, NULL, NULL
     FROM asked JOIN group_memberships AS m ON pg_catalog.lower(m.symbol) = asked.text
     JOIN definition_groups AS g ON g.id = m.group_id AND g.environment::text = $2
     WHERE NOT EXISTS (SELECT FROM symbols AS s WHERE s.symbol::text = m.symbol::text)
     ORDER BY m.symbol COLLATE "C" LIMIT 1)
),
best AS (
    SELECT hit.*, CASE
        WHEN lower_name = asked.text THEN 0
        WHEN pg_catalog.starts_with(lower_name, asked.text) THEN 1
        WHEN pg_catalog.starts_with(lower_description, asked.text) THEN 2
        WHEN position('_' || asked.text IN lower_name) > 0 THEN 3
        WHEN position(' ' || asked.text IN lower_description) > 0 THEN 4
        WHEN position(asked.text IN lower_name) > 0 THEN 5
        ELSE 6
    END AS score
    FROM hit, asked
    WHERE position(asked.text IN lower_name) > 0 OR position(asked.text IN lower_description) > 0
    ORDER BY score, kind, pg_catalog.length(hit.name), hit.name COLLATE "C", hit.id LIMIT $3::integer
)
SELECT 1 AS ordinal, best.kind, best.name AS symbol, best.stock_name, best.stock_industry,
       g.id, g.name, g.type, g.description, g.environment, g.created_at, g.updated_at, g.last_update
FROM best LEFT JOIN definition_groups AS g ON g.id = best.id
ORDER BY best.score, best.kind, pg_catalog.length(best.name), best.name COLLATE "C", best.id;

-- name: contents
-- Counts the groups of each type of an environment, and the stocks, for the message at start.
-- 0.3 ms for 1,520 stocks.
SELECT 1 AS ordinal, g.type AS kind, pg_catalog.count(*) AS total FROM definition_groups AS g WHERE g.environment::text = $1 GROUP BY g.type
UNION ALL
SELECT 1, 'STOCK', pg_catalog.count(*) FROM symbols;

-- name: price_table
-- Returns true if the table of prices exists, and the identity of the database, since change counts of months cannot be
-- compared between databases.
-- 0.1 ms.
SELECT 1 AS ordinal, pg_catalog.to_regclass('ohlcv_daily') IS NOT NULL AS there,
       pg_catalog.concat_ws('.', (SELECT system_identifier FROM pg_catalog.pg_control_system()), (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
                 (SELECT oid FROM pg_database WHERE datname = pg_catalog.current_database()),
                 extract(epoch FROM pg_catalog.pg_postmaster_start_time()), pg_catalog.to_regclass('ohlcv_daily')::oid, pg_catalog.to_regclass('data_change')::oid) AS database;

-- name: last_price_day
-- Returns the last day with prices, null if there is none. A date beyond the earliest time zone's today is a mistake.
-- 0.1 ms.
SELECT 1 AS ordinal, pg_catalog.max(p.date)::date AS day FROM ohlcv_daily AS p
WHERE p.date BETWEEN '1900-01-01' AND (pg_catalog.clock_timestamp() AT TIME ZONE 'UTC')::date + 1;

-- name: price_changes
-- Counts the changes of each month's prices, and `prices all` for changes of unknown months. The counts differ each time while
-- a restore has left rows of another server's transactions.
-- 0.1 ms.
SELECT 1 AS ordinal, c.family,
       CASE WHEN pg_catalog.bool_or(c.xid >= pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())) THEN -(extract(epoch FROM pg_catalog.clock_timestamp()) * 1e6)::bigint
            ELSE pg_catalog.sum(c.weight)::bigint END AS changes
FROM data_change AS c WHERE pg_catalog.starts_with(c.family, 'prices ') GROUP BY c.family;

-- name: closes
-- Returns the prices of each stock from one day up to, but not including, another, as bytes: days since 2000, closes, and
-- opens (NaN if missing). Invalid prices and future days are excluded.
-- 390 ms for 252 sessions of 3,537 stocks, 75 ms for 21.
SELECT 1 AS ordinal, p.symbol, pg_catalog.string_agg(pg_catalog.int4send(p.date::date - DATE '2000-01-01'), ''::bytea) AS days,
       pg_catalog.string_agg(pg_catalog.float8send(p.close::float8), ''::bytea) AS closes,
       pg_catalog.string_agg(pg_catalog.float8send(CASE WHEN p.open::float8 > 0::float8 AND p.open::float8 < 'Infinity' THEN p.open::float8 ELSE 'NaN' END), ''::bytea) AS opens
FROM ohlcv_daily AS p
WHERE p.date >= $1::date AND p.date < least($2::date, (pg_catalog.clock_timestamp() AT TIME ZONE 'UTC')::date + 2) AND p.close::float8 > 0::float8 AND p.close::float8 < 'Infinity'
GROUP BY p.symbol;

-- name: bars
-- Returns the bars of stocks between two days, oldest first; without a first day, the last given number of bars.
-- 0.3 ms for 252.
SELECT k.ordinal, b.*
FROM unnest($1::text[], $2::date[], $3::date[], $4::integer[]) WITH ORDINALITY AS k (symbol, first, last, most, ordinal)
CROSS JOIN LATERAL (
    SELECT p.date::date AS date, CASE WHEN p.open::float8 > 0::float8 AND p.open::float8 < 'Infinity' THEN p.open::float8 END AS open,
           CASE WHEN p.high::float8 > 0::float8 AND p.high::float8 < 'Infinity' THEN p.high::float8 END AS high,
           CASE WHEN p.low::float8 > 0::float8 AND p.low::float8 < 'Infinity' THEN p.low::float8 END AS low, p.close::float8 AS close, p.volume::float8 AS volume
    FROM ohlcv_daily AS p
    WHERE p.symbol::text = k.symbol AND p.date >= coalesce(k.first, '-infinity') AND p.date <= coalesce(k.last, 'infinity')
        AND p.close::float8 > 0::float8 AND p.close::float8 < 'Infinity'
    ORDER BY p.date DESC LIMIT k.most
) AS b
ORDER BY k.ordinal, b.date;
