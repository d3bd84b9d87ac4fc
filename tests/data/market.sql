-- A market small enough to know by heart: ten stocks in eleven groups, one of them of another environment.
INSERT INTO symbols (symbol, name, industry) VALUES
    ('AAPL', 'Apple Inc.', 'Technology Hardware'), ('AMD', 'Advanced Micro Devices', 'Semiconductors'),
    ('BRK.B', 'Berkshire Hathaway', 'Multi-Sector Holdings'), ('CVX', 'Chevron', 'Integrated Oil & Gas'),
    ('JPM', 'JPMorgan Chase', 'Diversified Banks'), ('MSFT', 'Microsoft', 'Systems Software'),
    ('NVDA', 'NVIDIA', 'Semiconductors'), ('XOM', 'Exxon Mobil', 'Integrated Oil & Gas'),
    ('IBM', 'IBM', NULL);

INSERT INTO definition_groups (id, name, type, description, metadata, liquidity_filter, environment, created_at, updated_at, last_update) VALUES
    (1, 'BIG', 'ETF', 'Big companies', '{"issuer": "nobody", "fees": [0.1, null]}', '{"market_cap": 1e9}', 'DEFAULT',
        '2026-01-01 10:00', '2026-01-02 11:30:00.25', NULL),
    (2, 'TECH', 'ETF', 'Technology', NULL, NULL, 'DEFAULT', '2026-01-01', '2026-01-01', '2026-01-01'),
    (3, 'MIXED', 'ETF', 'Weights that are not all known', NULL, NULL, 'DEFAULT', '2026-01-01', '2026-01-01', '2026-01-01'),
    (4, 'chips', 'THEME', 'Makers of semiconductors', NULL, NULL, 'DEFAULT', '2026-01-01', '2026-01-01', '2026-01-01'),
    (5, 'energy', 'SECTOR', 'Energy', NULL, NULL, 'DEFAULT', '2026-01-01', '2026-01-01', '2026-01-01'),
    (6, 'information_technology', 'SECTOR', 'Information Technology', NULL, NULL, 'DEFAULT', '2026-01-01', '2026-01-01', '2026-01-01'),
    (7, 'financials', 'SECTOR', 'Financials', NULL, NULL, 'DEFAULT', '2026-01-01', '2026-01-01', '2026-01-01'),
    (8, 'Energy', 'CUSTOM', NULL, NULL, NULL, 'DEFAULT', '2026-01-01', '2026-01-01', '2026-01-01'),
    (9, 'top3', 'UNIVERSE', 'The three largest', NULL, NULL, 'DEFAULT', '2026-01-01', '2026-01-01', '2026-01-01'),
    (10, 'nothing yet', 'SEGMENT', NULL, NULL, NULL, 'DEFAULT', '2026-01-01', '2026-01-01', '2026-01-01'),
    (11, 'BIG', 'ETF', 'The same name elsewhere', NULL, NULL, 'TEST', '2026-01-01', '2026-01-01', '2026-01-01');
SELECT setval('definition_groups_id_seq', 11);

INSERT INTO group_memberships (id, group_id, symbol, weight, metadata, added_at, updated_at) VALUES
    (1, 1, 'XOM', 0.10, NULL, '2026-01-01', '2026-01-01'), (2, 1, 'JPM', 0.15, NULL, '2026-01-01', '2026-01-01'),
    (3, 1, 'NVDA', 0.20, NULL, '2026-01-01', '2026-01-01'), (4, 1, 'MSFT', 0.25, NULL, '2026-01-01', '2026-01-01'),
    (5, 1, 'AAPL', 0.30, '{"shares": 7}', '2026-01-03', '2026-01-04'),
    (6, 2, 'NVDA', 0.40, NULL, '2026-01-01', '2026-01-01'), (7, 2, 'AAPL', 0.35, NULL, '2026-01-01', '2026-01-01'),
    (8, 2, 'MSFT', 0.20, NULL, '2026-01-01', '2026-01-01'), (9, 2, 'AMD', 0.05000001, NULL, '2026-01-01', '2026-01-01'),
    (10, 3, 'CVX', 0.5, NULL, '2026-01-01', '2026-01-01'), (11, 3, 'XOM', 0.5, NULL, '2026-01-01', '2026-01-01'),
    (12, 3, 'ZZZ', NULL, NULL, '2026-01-01', '2026-01-01'), (13, 3, 'BRK.B', NULL, NULL, '2026-01-01', '2026-01-01'),
    (14, 4, 'NVDA', NULL, NULL, '2026-01-01', '2026-01-01'), (15, 4, 'AMD', NULL, NULL, '2026-01-01', '2026-01-01'),
    (16, 5, 'XOM', NULL, NULL, '2026-01-01', '2026-01-01'), (17, 5, 'CVX', NULL, NULL, '2026-01-01', '2026-01-01'),
    (18, 6, 'AAPL', NULL, NULL, '2026-01-01', '2026-01-01'), (19, 6, 'AMD', NULL, NULL, '2026-01-01', '2026-01-01'),
    (20, 6, 'MSFT', NULL, NULL, '2026-01-01', '2026-01-01'), (21, 6, 'NVDA', NULL, NULL, '2026-01-01', '2026-01-01'),
    (22, 7, 'BRK.B', NULL, NULL, '2026-01-01', '2026-01-01'), (23, 7, 'JPM', NULL, NULL, '2026-01-01', '2026-01-01'),
    (24, 8, 'XOM', NULL, NULL, '2026-01-01', '2026-01-01'),
    (25, 9, 'AAPL', NULL, NULL, '2026-01-01', '2026-01-01'), (26, 9, 'MSFT', NULL, NULL, '2026-01-01', '2026-01-01'),
    (27, 9, 'NVDA', NULL, NULL, '2026-01-01', '2026-01-01'),
    (28, 11, 'AAPL', 1, NULL, '2026-01-01', '2026-01-01');
SELECT setval('group_memberships_id_seq', 28);
