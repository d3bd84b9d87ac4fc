-- Six sessions of the market that is known by heart; a Saturday on which one stock goes on; what is no price.
INSERT INTO ohlcv_daily (symbol, date, open, high, low, close, volume)
SELECT symbol, day, NULL, NULL, NULL, close, 1000
FROM (VALUES
    ('AAPL', ARRAY[100, 100, 100, 100, 100, 110]::float8[]),
    ('MSFT', ARRAY[200, 200, 200, 200, 200, 190]::float8[]),
    ('NVDA', ARRAY[50, 60, 60, 60, 60, 60]::float8[]),
    ('AMD', ARRAY[10, 20, 30, 40, 50, NULL]::float8[]),
    ('XOM', ARRAY[80, 80, 80, 80, 100, 90]::float8[]),
    ('CVX', ARRAY[100, 100, 100, 100, 100, 100]::float8[]),
    ('JPM', ARRAY[NULL, NULL, NULL, 'NaN', 10, 11]::float8[]),
    ('BRK.B', ARRAY[0, -1, 'Infinity', NULL, NULL, NULL]::float8[])
) AS stock (symbol, closes)
CROSS JOIN LATERAL unnest(closes, ARRAY['2024-03-01', '2024-03-04', '2024-03-05', '2024-03-06', '2024-03-07', '2024-03-08']::date[])
    AS bar (close, day);
INSERT INTO ohlcv_daily (symbol, date, close) VALUES ('XOM', '2024-03-02', 85), ('XOM', '2024-03-09', 95);
UPDATE ohlcv_daily SET open = CASE symbol WHEN 'AAPL' THEN 105 WHEN 'MSFT' THEN 190 WHEN 'NVDA' THEN 61 ELSE 0 END
WHERE date = '2024-03-08';
