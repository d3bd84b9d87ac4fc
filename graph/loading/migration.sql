-- The statements that look up what the database already holds of a migration's groups and stocks.

-- name: group_exists
-- Returns whether a group exists, and today's date.
SELECT EXISTS (SELECT FROM definition_groups WHERE type = $1 AND name = $2 AND environment = $3) AS is_present,
       (clock_timestamp() AT TIME ZONE 'UTC')::date AS today;

-- name: stocks
-- Returns the known names and industries of stocks, whatever columns the table of symbols has.
SELECT symbol, to_jsonb(s)->>'name' AS name, to_jsonb(s)->>'industry' AS industry
FROM symbols AS s WHERE symbol = ANY($1::text[]);
