-- The statements that read TickStock's table cache_entries, whatever columns it has.

-- name: is_table_missing
-- Returns whether the database lacks the table.
SELECT to_regclass('cache_entries') IS NULL;

-- name: entries_size
-- Returns how many bytes of JSON the entries of the types $1 hold.
SELECT coalesce(sum(octet_length((entry->'value')::text)), 0)
FROM (SELECT to_jsonb(e) AS entry FROM cache_entries AS e) AS entries
WHERE entry->>'type' = ANY($1::text[]);

-- name: entries
-- Returns all entries, with the values of those of the types $1. A value is returned as text, so that one that cannot be
-- parsed invalidates its own entry alone.
SELECT entry->>'id' AS id, entry->>'type' AS type, entry->>'key' AS key, entry->>'name' AS name,
       entry->>'environment' AS environment, entry->>'updated_at' AS updated_at, entry->>'created_at' AS created_at,
       CASE WHEN entry->>'type' = ANY($1::text[]) THEN (entry->'value')::text END AS value
FROM (SELECT to_jsonb(e) AS entry FROM cache_entries AS e) AS entries
ORDER BY entry->'id', entry - 'value';
