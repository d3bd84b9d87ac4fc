-- The predecessor's table of cached documents, with entries in each of the shapes that its releases wrote.
CREATE TABLE cache_entries (
    id serial PRIMARY KEY,
    type varchar(50) NOT NULL,
    name varchar(100) NOT NULL,
    key varchar(100) NOT NULL,
    value jsonb NOT NULL,
    environment varchar(10) NOT NULL,
    created_at timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp without time zone,
    CONSTRAINT unique_cache_entry UNIQUE (type, name, key, environment)
);
INSERT INTO cache_entries (type, name, key, value, environment, created_at, updated_at) VALUES
-- 1: symbols alone, as the loader of holdings wrote them
('etf_holdings', 'SPDR Dow Jones Industrial Average ETF', 'DIA',
 '{"holdings": ["AAPL", "IBM", "BRK-B"], "total_holdings": 3, "market_cap_threshold": 5000000000,
   "data_source": "inline", "last_updated": "2025-11-27T09:30:00.125000"}',
 'DEFAULT', '2025-11-20 08:00:00', '2025-11-27 09:30:01'),
-- 2: objects with weights in percent
('etf_holdings', 'Invesco QQQ Trust', 'qqq',
 '{"holdings": [{"symbol": "NVDA", "weight": 60.5, "name": "NVIDIA Corp"}, {"ticker": "AAPL", "weight": 39.4}]}',
 'DEFAULT', '2025-11-20 08:00:00', NULL),
-- 3: no holdings
('etf_holdings', 'iShares Russell 2000 ETF', 'IWM', '{"holdings": [], "market_cap_threshold": 300000000}',
 'DEFAULT', '2025-11-20 08:00:00', '2025-11-27 09:30:01'),
-- 4
('theme_definition', 'Crypto Miners', 'crypto_miners',
 '{"symbols": ["MARA", "RIOT"], "description": "Companies that mine cryptocurrency", "selection_criteria": "over half of revenue",
   "related_themes": ["fintech"]}',
 'DEFAULT', '2025-11-20 08:00:00', '2025-11-26 10:00:00'),
-- 5: the same theme of another environment
('theme_definition', 'Crypto Miners', 'crypto_miners', '{"symbols": ["MARA"]}', 'TEST', '2025-11-20 08:00:00', '2025-11-26 10:00:00'),
-- 6
('sector_industry_map', 'Information Technology', 'information_technology',
 '{"industries": ["Software", "Semiconductors"], "representative_stocks": ["AAPL", "NVDA"], "description": "Hardware and software",
   "stock_count": 72}',
 'DEFAULT', '2025-11-20 08:00:00', '2025-11-26 10:00:00'),
-- 7: an array
('stock_universe', 'Dow 30', 'dow30', '["AAPL", "IBM", "AAPL"]', 'DEFAULT', '2025-11-20 08:00:00', '2025-11-26 10:00:00'),
-- 8: {symbols}
('stock_universe', 'Crypto Stocks', 'theme_crypto', '{"symbols": ["COIN", "MARA"], "count": 2}', 'DEFAULT', '2025-11-20 08:00:00', NULL),
-- 9: {stocks}
('stock_universe', 'market_leaders', 'top_2',
 '{"count": 2, "stocks": [
    {"name": "Apple Inc.", "rank": 1, "sector": "Information Technology", "ticker": "AAPL", "exchange": "XNAS", "industry": "Hardware"},
    {"name": "NVIDIA Corp", "rank": 2, "sector": "Unknown", "ticker": "NVDA", "exchange": "XNAS", "industry": "Unknown"}]}',
 'DEFAULT', '2025-09-02 08:00:00', '2025-09-02 08:00:00'),
-- 10, 11: groups of ETFs, one of them by a key that a group of stocks has too
('etf_universe', 'complete', 'top_1',
 '{"count": 1, "etfs": [{"name": "SPDR S&P 500 ETF Trust", "rank": 1, "ticker": "SPY", "issuer": "State Street"}]}',
 'DEFAULT', '2025-09-02 08:00:00', NULL),
('etf_universe', 'Crypto ETFs', 'theme_crypto', '["IBIT", "FBTC"]', 'DEFAULT', '2025-11-20 08:00:00', NULL),
-- 12, 13, 14: JSON that arrived as a text, once and twice over
('themes', 'Ai', 'list', '"[\"NVDA\", \"MSFT\"]"', 'DEFAULT', '2025-09-02 08:00:00', NULL),
('stock_universe', 'themes', 'ai', to_jsonb('"[\"NVDA\", \"MSFT\"]"'::text), 'DEFAULT', '2025-09-02 08:00:00', NULL),
('stock_etf_combo', 'Mixed', 'mixed', '{"symbols": "[\"AAPL\", \"SPY\"]"}', 'DEFAULT', '2025-09-02 08:00:00', NULL),
-- 15: an older spelling of 1
('etf_holdings', 'DIA', 'dia', '{"holdings": ["AAPL", "IBM"]}', 'DEFAULT', '2025-09-02 08:00:00', '2025-09-02 08:00:00'),
-- 16: a text that is no JSON
('theme_definition', 'Space', 'space', '"RKLB, ASTS"', 'DEFAULT', '2025-11-20 08:00:00', NULL),
-- 17: no environment of groups
('theme_definition', 'Space', 'space', '["RKLB"]', 'production', '2025-11-20 08:00:00', NULL),
-- 18 to 20: what holds no groups
('app_settings', 'app_settings', 'SYMBOL_UNIVERSE_KEY', '{"value": "market_leaders:top_100"}', 'DEFAULT', '2025-01-02 08:00:00', NULL),
('app_settings', 'app_settings', 'theme_mode', '"dark"', 'DEFAULT', '2025-01-02 08:00:00', NULL),
('stock_metadata', 'Apple Inc.', 'AAPL', '{"symbol": "AAPL", "member_of_etfs": ["SPY", "QQQ"]}', 'DEFAULT', '2025-11-20 08:00:00', NULL);
