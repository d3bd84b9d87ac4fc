-- The statements that write prices. All files of a load are copied into one temporary table and merged from there.

-- name: is_table_missing
-- Returns whether the database lacks the table of prices.
SELECT to_regclass('ohlcv_daily') IS NULL;

-- name: create_incoming
-- Creates the temporary table of incoming bars with the column types that this database has, so that a price is rounded
-- once, in decimal. `present` has a bit for each optional column of the file: 1 open, 2 high, 4 low, 8 volume.
CREATE TEMPORARY TABLE stockgraph_bars ON COMMIT DROP AS
SELECT 0 AS file, 0 AS line, symbol, date, open, high, low, close, volume, 0 AS present FROM ohlcv_daily WITH NO DATA;

-- name: index_incoming
-- Fails if two bars have the same symbol and date.
CREATE UNIQUE INDEX ON pg_temp.stockgraph_bars (symbol, date);

-- name: analyze_incoming
-- Collects the statistics that the merge is planned with.
ANALYZE pg_temp.stockgraph_bars (present, symbol, date);

-- name: find_clashes
-- Returns the bars that one file holds twice, and those that differ from the first file with that column: for each pair of
-- files the total and the first $1.
SELECT file, other, line, other_line, symbol, date, total, place
FROM (
    SELECT file, other, line, other_line, symbol, date, count(*) OVER (PARTITION BY file, other) AS total,
           row_number() OVER (PARTITION BY file, other ORDER BY line) AS place
    FROM (
        SELECT file, line, symbol, date, lag(line) OVER w AS other_line,
               CASE WHEN lag(file) OVER w = file THEN file
                    WHEN close IS DISTINCT FROM first_value(close) OVER w THEN first_value(file) OVER w
                    WHEN present & 1 > 0
                        AND open IS DISTINCT FROM (array_agg(open) FILTER (WHERE present & 1 > 0) OVER w)[1]
                        THEN (array_agg(file) FILTER (WHERE present & 1 > 0) OVER w)[1]
                    WHEN present & 2 > 0
                        AND high IS DISTINCT FROM (array_agg(high) FILTER (WHERE present & 2 > 0) OVER w)[1]
                        THEN (array_agg(file) FILTER (WHERE present & 2 > 0) OVER w)[1]
                    WHEN present & 4 > 0
                        AND low IS DISTINCT FROM (array_agg(low) FILTER (WHERE present & 4 > 0) OVER w)[1]
                        THEN (array_agg(file) FILTER (WHERE present & 4 > 0) OVER w)[1]
                    WHEN present & 8 > 0
                        AND volume IS DISTINCT FROM (array_agg(volume) FILTER (WHERE present & 8 > 0) OVER w)[1]
                        THEN (array_agg(file) FILTER (WHERE present & 8 > 0) OVER w)[1]
               END AS other
        FROM pg_temp.stockgraph_bars
        WINDOW w AS (PARTITION BY symbol, date ORDER BY file, line)
    ) AS paired
    WHERE other IS NOT NULL
) AS numbered
WHERE place <= $1
ORDER BY file, other, place;

-- name: delete_files
-- Removes the bars of files that cannot be loaded.
DELETE FROM pg_temp.stockgraph_bars WHERE file = ANY ($1::int[]);

-- name: merge_duplicates
-- Makes one bar of those that several files hold with equal values.
WITH gone AS (
    DELETE FROM pg_temp.stockgraph_bars WHERE (symbol, date) IN (
        SELECT symbol, date FROM pg_temp.stockgraph_bars GROUP BY symbol, date HAVING count(*) > 1)
    RETURNING *
)
INSERT INTO pg_temp.stockgraph_bars
SELECT min(file), min(line), symbol, date, max(open), max(high), max(low), max(close), max(volume), bit_or(present)
FROM gone GROUP BY symbol, date;

-- name: incoming_span
-- Returns the symbols of the incoming bars and their first and last dates.
SELECT ARRAY(SELECT DISTINCT symbol COLLATE "C" FROM pg_temp.stockgraph_bars ORDER BY 1) AS symbols,
       min(date) AS first, max(date) AS last
FROM pg_temp.stockgraph_bars;

-- name: lock_prices
-- Makes other writers of prices wait, but no readers: locking row by row, two writers in different orders would deadlock.
LOCK TABLE ohlcv_daily IN SHARE ROW EXCLUSIVE MODE;

-- name: update_bars
-- Updates the bars that exist and differ, in the columns that their file has.
UPDATE ohlcv_daily AS b
SET open = CASE WHEN i.present & 1 > 0 THEN i.open ELSE b.open END,
    high = CASE WHEN i.present & 2 > 0 THEN i.high ELSE b.high END,
    low = CASE WHEN i.present & 4 > 0 THEN i.low ELSE b.low END,
    close = i.close,
    volume = CASE WHEN i.present & 8 > 0 THEN i.volume ELSE b.volume END
FROM pg_temp.stockgraph_bars AS i
WHERE b.symbol = i.symbol AND b.date = i.date AND (b.close IS DISTINCT FROM i.close
    OR i.present & 1 > 0 AND b.open IS DISTINCT FROM i.open OR i.present & 2 > 0 AND b.high IS DISTINCT FROM i.high
    OR i.present & 4 > 0 AND b.low IS DISTINCT FROM i.low OR i.present & 8 > 0 AND b.volume IS DISTINCT FROM i.volume);

-- name: insert_bars
-- Inserts the bars that are missing, in index order, since indexes then grow twice as fast.
INSERT INTO ohlcv_daily (symbol, date, open, high, low, close, volume)
SELECT symbol, date, open, high, low, close, volume
FROM pg_temp.stockgraph_bars AS i
WHERE NOT EXISTS (SELECT FROM ohlcv_daily AS b WHERE b.symbol = i.symbol AND b.date = i.date)
ORDER BY symbol COLLATE "C", date;
