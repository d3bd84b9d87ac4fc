-- A database as the predecessor left it: its tables, its narrower column, its check, its wider table of symbols.
CREATE TABLE definition_groups (
    id serial PRIMARY KEY,
    name varchar(100) NOT NULL,
    type varchar(50) NOT NULL CHECK (type IN ('ETF', 'THEME', 'SECTOR', 'SEGMENT', 'CUSTOM')),
    description text,
    metadata jsonb,
    liquidity_filter jsonb,
    environment varchar(10) NOT NULL CHECK (environment IN ('DEFAULT', 'TEST', 'UAT', 'PROD')),
    created_at timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    last_update timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT unique_group UNIQUE (name, type, environment)
);
CREATE TABLE group_memberships (
    id serial PRIMARY KEY,
    group_id integer NOT NULL REFERENCES definition_groups (id) ON DELETE CASCADE,
    symbol varchar(50) NOT NULL,
    weight numeric(5,4),
    metadata jsonb,
    added_at timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT unique_membership UNIQUE (group_id, symbol)
);
CREATE INDEX idx_group_memberships_symbol ON group_memberships (symbol);
CREATE TABLE symbols (
    symbol varchar(20) PRIMARY KEY,
    name varchar(255),
    industry varchar(255),
    market varchar(20) NOT NULL,
    active boolean DEFAULT true
);
CREATE TABLE ohlcv_daily (
    symbol varchar(20) NOT NULL,
    date date NOT NULL,
    open numeric(12,4),
    high numeric(12,4),
    low numeric(12,4),
    close numeric(12,4),
    volume bigint,
    PRIMARY KEY (symbol, date)
);
INSERT INTO symbols (symbol, name, market) VALUES ('AAPL', 'Apple', 'stocks'), ('MSFT', 'Microsoft', 'stocks');
INSERT INTO definition_groups (name, type, environment) VALUES ('SPY', 'ETF', 'DEFAULT'), ('dow30', 'CUSTOM', 'DEFAULT');
INSERT INTO group_memberships (group_id, symbol, weight) VALUES
    (1, 'AAPL', 0.0700), (1, 'MSFT', 0.0600), (2, 'AAPL', NULL), (2, 'IBM', NULL);
INSERT INTO ohlcv_daily (symbol, date, open, close) VALUES
    ('AAPL', '2024-03-07', 99.5, 100), ('AAPL', '2024-03-08', 100, 110), ('MSFT', '2024-03-07', NULL, 400), ('MSFT', '2024-03-08', 400, 'NaN');
