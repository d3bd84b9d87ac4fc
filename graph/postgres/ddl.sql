-- The statements around schema.sql, which creates the tables.

-- name: existing_objects
-- Returns the tables and indexes of the current schema, and the enabled triggers of its tables and of their partitions.
SELECT 'table ' || relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace
UNION ALL
SELECT 'index ' || indexname FROM pg_indexes WHERE schemaname = current_schema()
UNION ALL
SELECT 'trigger ' || tgname || ' on ' || tgrelid::regclass FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'A';

-- name: partitions
-- Returns the partitions and children of the tables $1, each with its table.
WITH RECURSIVE member AS (
    SELECT name, to_regclass(name)::oid AS relation FROM unnest($1::text[]) AS name
    UNION
    SELECT member.name, i.inhrelid FROM member JOIN pg_inherits AS i ON i.inhparent = member.relation
)
SELECT name, relation::regclass::text AS partition
FROM member JOIN pg_class AS c ON c.oid = relation AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
WHERE relation <> to_regclass(name);

-- name: lock_schema
-- Makes concurrent runs wait until this transaction ends, since their locks on the tables would deadlock.
SELECT pg_advisory_xact_lock(hashtextextended('stockgraph.make_tables', 0));

-- name: schema_version
-- Returns the version of schema.sql that was applied last.
SELECT obj_description(to_regclass('data_change'), 'pg_class');

-- name: set_schema_version
-- Returns the statement that notes the version, since COMMENT takes no parameters.
SELECT format('COMMENT ON TABLE data_change IS %L', $1::text);

-- name: analyze_tables
-- Collects the statistics of new indexes on expressions, without which the planner would not use them.
ANALYZE definition_groups, group_memberships, symbols;

-- name: mend_history
-- Makes the history end in the present groups and members, and returns the number of rows written.
SELECT mend_history();

-- name: has_been_used
-- Tells if there are groups, or were: a database whose groups have been deleted has a history.
SELECT EXISTS (SELECT FROM definition_groups) OR EXISTS (SELECT FROM group_history);
