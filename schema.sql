-- The tables of stockgraph: groups of stocks, their members now and on past days, prices, and the record of changes that
-- invalidates caches.
-- Idempotent and additive: on a database that has the tables already, it creates what is missing and alters nothing.
-- PostgreSQL 14 or later.

CREATE TABLE IF NOT EXISTS definition_groups (
    id serial PRIMARY KEY,
    name varchar(100) NOT NULL,
    -- TickStock's types and UNIVERSE, since live databases hold index lists such as nasdaq100 and dow30
    type varchar(50) NOT NULL CHECK (type::text IN ('ETF', 'THEME', 'SECTOR', 'SEGMENT', 'CUSTOM', 'UNIVERSE')),
    description text,
    metadata jsonb,
    liquidity_filter jsonb,
    environment varchar(10) NOT NULL CHECK (environment::text IN ('DEFAULT', 'TEST', 'UAT', 'PROD')),
    created_at timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    last_update timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT unique_group UNIQUE (name, type, environment)
);
CREATE INDEX IF NOT EXISTS idx_definition_groups_type ON definition_groups (type);
CREATE INDEX IF NOT EXISTS idx_definition_groups_environment ON definition_groups (environment);
CREATE INDEX IF NOT EXISTS idx_definition_groups_name ON definition_groups (name);
CREATE INDEX IF NOT EXISTS idx_definition_groups_type_env ON definition_groups (type, environment);
CREATE INDEX IF NOT EXISTS idx_definition_groups_lower_name ON definition_groups (lower(name::text), environment);

CREATE TABLE IF NOT EXISTS group_memberships (
    id serial PRIMARY KEY,
    group_id integer NOT NULL REFERENCES definition_groups (id) ON DELETE CASCADE,
    symbol varchar(50) NOT NULL,
    -- a fraction of the group; four digits more than TickStock's numeric(5,4), which rounds two thirds of the weights of a
    -- total-market fund to zero
    weight numeric(9,8),
    metadata jsonb,
    added_at timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT unique_membership UNIQUE (group_id, symbol)
);
CREATE INDEX IF NOT EXISTS idx_group_memberships_group_id ON group_memberships (group_id);
CREATE INDEX IF NOT EXISTS idx_group_memberships_symbol ON group_memberships (symbol);
CREATE INDEX IF NOT EXISTS idx_group_memberships_symbol_group ON group_memberships (symbol, group_id);
CREATE INDEX IF NOT EXISTS idx_group_memberships_lower_symbol ON group_memberships (lower(symbol::text));
-- pages of members, heaviest first or by symbol, are read in order from these indexes
CREATE INDEX IF NOT EXISTS idx_group_memberships_by_weight
    ON group_memberships (group_id, weight DESC NULLS LAST, symbol COLLATE "C", id);
CREATE INDEX IF NOT EXISTS idx_group_memberships_by_symbol
    ON group_memberships (group_id, symbol COLLATE "C", id);

CREATE TABLE IF NOT EXISTS symbols (
    symbol varchar(50) PRIMARY KEY,
    name text,
    industry text
);
CREATE INDEX IF NOT EXISTS idx_symbols_lower_symbol ON symbols (lower(symbol::text));

-- Daily prices of stocks, split-adjusted by their writer. Numbers are double precision, since computations use it anyway, it
-- has 15 digits and a quote at most 10, and three years of a market are read in two thirds of the time of numeric.
CREATE TABLE IF NOT EXISTS ohlcv_daily (
    symbol varchar(50) NOT NULL,
    date date NOT NULL,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume bigint,
    PRIMARY KEY (symbol, date)
);
-- for the last day and the prices of a month; it does not include prices, so that today's close can be updated in place
CREATE INDEX IF NOT EXISTS idx_ohlcv_daily_date ON ohlcv_daily (date);

-- The names and members of groups on past days (UTC). A row holds from `valid_from` up to, but not including, `valid_to`, as
-- of the end of each day; a row without `valid_to` holds now. The triggers below maintain both tables, whoever writes. They
-- have no foreign keys, since deleted groups have a history, and types wide enough for tables made by others.
CREATE TABLE IF NOT EXISTS group_history (
    group_id integer NOT NULL,
    environment text NOT NULL,
    type text NOT NULL,
    name text NOT NULL,
    description text,
    valid_from date NOT NULL,
    valid_to date CHECK (valid_to > valid_from),
    PRIMARY KEY (group_id, valid_from)
);
CREATE UNIQUE INDEX IF NOT EXISTS idx_group_history_open ON group_history (group_id) WHERE valid_to IS NULL;
CREATE INDEX IF NOT EXISTS idx_group_history_lower_name ON group_history (lower(name::text), environment);

CREATE TABLE IF NOT EXISTS membership_history (
    group_id integer NOT NULL,
    symbol text NOT NULL,
    weight numeric,
    valid_from date NOT NULL,
    valid_to date CHECK (valid_to > valid_from),
    PRIMARY KEY (group_id, symbol, valid_from)
);
CREATE UNIQUE INDEX IF NOT EXISTS idx_membership_history_open ON membership_history (group_id, symbol) WHERE valid_to IS NULL;
-- a past day is read from these indexes alone: periods that began by then and ended later or not at all
CREATE INDEX IF NOT EXISTS idx_membership_history_group
    ON membership_history (group_id, coalesce(valid_to, 'infinity'::date), valid_from) INCLUDE (symbol, weight, valid_to);
CREATE INDEX IF NOT EXISTS idx_membership_history_symbol
    ON membership_history (symbol, coalesce(valid_to, 'infinity'::date), valid_from) INCLUDE (group_id, weight, valid_to);

-- The groups and memberships at the end of a day, with the columns of definition_groups and group_memberships; JSON documents
-- and timestamps are null for past days. Written so that the planner can inline them.
CREATE OR REPLACE FUNCTION groups_on(day date) RETURNS TABLE (
    id integer, name text, type text, description text, metadata jsonb, liquidity_filter jsonb, environment text,
    created_at timestamp, updated_at timestamp, last_update timestamp
) LANGUAGE sql STABLE AS $$
    SELECT group_id, name, type, description, NULL::jsonb, NULL::jsonb, environment, NULL::timestamp, NULL::timestamp, NULL::timestamp
    FROM group_history
    WHERE valid_from <= day AND (valid_to IS NULL OR valid_to > day)
$$;
CREATE OR REPLACE FUNCTION memberships_on(day date) RETURNS TABLE (
    id integer, group_id integer, symbol text, weight numeric, metadata jsonb, added_at timestamp, updated_at timestamp
) LANGUAGE sql STABLE AS $$
    SELECT 0, group_id, symbol, weight, NULL::jsonb, NULL::timestamp, NULL::timestamp
    FROM membership_history
    WHERE valid_from <= day AND coalesce(valid_to, 'infinity') > day
$$;

-- Each transaction that writes inserts a row for each family of tables that it changed. The sum of a family's weights is its
-- generation: it grows by one with each commit, and is part of a snapshot like any other rows.
-- Neither a sequence (it advances before its transaction commits) nor a single counter row (writers would wait) can do this.
CREATE TABLE IF NOT EXISTS data_change (
    family text NOT NULL,
    xid xid8 NOT NULL,
    weight bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (family, xid)
);
GRANT SELECT ON data_change TO PUBLIC;

-- Counts a change of a family. Now and then it merges the rows of finished transactions; at once after a restore of rows from
-- another server, whose transaction ids lie in the future here. It merges only in READ COMMITTED, where a row that another
-- transaction has deleted is skipped instead of being a serialization failure.
CREATE OR REPLACE FUNCTION count_data_change(changed_family text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    compacted bigint;
BEGIN
    INSERT INTO data_change (family, xid) VALUES (changed_family, pg_current_xact_id()) ON CONFLICT DO NOTHING;
    IF FOUND AND (pg_current_xact_id()::text::bigint % 64 = 0 OR EXISTS (
           SELECT FROM data_change WHERE family = changed_family AND xid > pg_current_xact_id()
               AND xid >= pg_snapshot_xmax(pg_current_snapshot())))
       AND current_setting('transaction_isolation') = 'read committed'
       AND pg_try_advisory_xact_lock(hashtextextended('stockgraph.data_change.' || changed_family, 0)) THEN
        -- visible rows are committed
        WITH finished AS (
            DELETE FROM data_change WHERE family = changed_family AND xid <> pg_current_xact_id() RETURNING weight
        )
        SELECT sum(weight) INTO compacted FROM finished;
        UPDATE data_change SET weight = weight + coalesce(compacted, 0)
        WHERE family = changed_family AND xid = pg_current_xact_id();
    END IF;
END;
$$;

-- Records a change and notifies the listeners of channel `stockgraph` of the groups it concerns (null means any). After
-- `SET stockgraph.notify = off` it does not notify, since PREPARE TRANSACTION refuses transactions that did; the change is
-- then seen by polling.
-- Arguments: the family, and the column that holds a group's id, if any.
CREATE OR REPLACE FUNCTION record_data_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changed_family CONSTANT text := TG_ARGV[0];
    group_column CONSTANT text := TG_ARGV[1];
    groups jsonb;
    touched boolean := true;
BEGIN
    IF TG_OP = 'INSERT' THEN
        touched := EXISTS (SELECT FROM new_rows);
        IF group_column = 'id' THEN
            SELECT jsonb_agg(id ORDER BY id) INTO groups FROM (SELECT id FROM new_rows LIMIT 501) AS g;
        ELSIF group_column = 'group_id' THEN
            SELECT jsonb_agg(group_id ORDER BY group_id) INTO groups FROM (SELECT DISTINCT group_id FROM new_rows LIMIT 501) AS g;
        END IF;
    ELSIF TG_OP = 'DELETE' THEN
        touched := EXISTS (SELECT FROM old_rows);
        IF group_column = 'id' THEN
            SELECT jsonb_agg(id ORDER BY id) INTO groups FROM (SELECT id FROM old_rows LIMIT 501) AS g;
        ELSIF group_column = 'group_id' THEN
            SELECT jsonb_agg(group_id ORDER BY group_id) INTO groups FROM (SELECT DISTINCT group_id FROM old_rows LIMIT 501) AS g;
        END IF;
    ELSIF TG_OP = 'UPDATE' THEN
        touched := EXISTS (SELECT FROM new_rows);
        IF group_column = 'id' THEN
            SELECT jsonb_agg(id ORDER BY id) INTO groups
            FROM (SELECT id FROM old_rows UNION SELECT id FROM new_rows LIMIT 501) AS g;
        ELSIF group_column = 'group_id' THEN
            SELECT jsonb_agg(group_id ORDER BY group_id) INTO groups
            FROM (SELECT group_id FROM old_rows UNION SELECT group_id FROM new_rows LIMIT 501) AS g;
        END IF;
    END IF;
    IF NOT touched THEN
        RETURN NULL;
    END IF;
    PERFORM count_data_change(changed_family);
    IF current_setting('stockgraph.notify', true) = 'off' THEN
        RETURN NULL;
    END IF;
    -- a payload has at most 7,999 bytes
    IF jsonb_array_length(groups) > 500 THEN
        groups := NULL;
    END IF;
    PERFORM pg_notify('stockgraph', jsonb_build_object(
        'family', changed_family, 'xid', pg_current_xact_id()::text, 'groups', groups)::text);
    RETURN NULL;
END;
$$;

-- Records a change of prices, whose families are `prices`, each month (`prices 2024-03`), so that a cache of years reloads
-- only the months that changed, and `prices all` for changes of unknown months.
CREATE OR REPLACE FUNCTION record_price_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    months text[];
    month text;
BEGIN
    -- an infinite date has no month
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(DISTINCT coalesce(to_char(date, 'YYYY-MM'), 'all')) INTO months
        FROM (SELECT DISTINCT date FROM new_rows) AS d;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(DISTINCT coalesce(to_char(date, 'YYYY-MM'), 'all')) INTO months
        FROM (SELECT DISTINCT date FROM old_rows) AS d;
    ELSIF TG_OP = 'UPDATE' THEN
        SELECT array_agg(DISTINCT coalesce(to_char(date, 'YYYY-MM'), 'all')) INTO months
        FROM (SELECT date FROM old_rows UNION SELECT date FROM new_rows) AS d;
    ELSE
        months := ARRAY['all'];
    END IF;
    IF months IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM count_data_change('prices');
    FOREACH month IN ARRAY months LOOP
        PERFORM count_data_change('prices ' || month);
    END LOOP;
    IF current_setting('stockgraph.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify('stockgraph', jsonb_build_object('family', 'prices', 'xid', pg_current_xact_id()::text)::text);
    END IF;
    RETURN NULL;
END;
$$;

-- The day on which a write takes effect: that of `SET LOCAL stockgraph.effective_day`, since holdings have the day that their
-- source states, else today.
CREATE OR REPLACE FUNCTION effective_day() RETURNS date LANGUAGE sql VOLATILE AS $$
    SELECT greatest(least(nullif(current_setting('stockgraph.effective_day', true), '')::date,
                          (clock_timestamp() AT TIME ZONE 'UTC')::date), DATE '0001-01-01')
$$;

-- Ends the open rows of groups that a statement deleted or updated; rows that began on the same day are deleted.
CREATE OR REPLACE FUNCTION close_group_history() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    day CONSTANT date := effective_day();
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        -- what is left is in other partitions
        DELETE FROM group_history AS h WHERE valid_to IS NULL AND valid_from >= day
            AND NOT EXISTS (SELECT FROM definition_groups AS g WHERE g.id = h.group_id);
        UPDATE group_history AS h SET valid_to = day WHERE valid_to IS NULL
            AND NOT EXISTS (SELECT FROM definition_groups AS g WHERE g.id = h.group_id);
        RETURN NULL;
    END IF;
    WITH gone AS MATERIALIZED (
        SELECT id FROM touched AS t WHERE NOT EXISTS (
            SELECT FROM definition_groups AS g WHERE g.id = t.id AND g.environment = t.environment AND g.type = t.type
                AND g.name = t.name AND g.description IS NOT DISTINCT FROM t.description)
    ), vanished AS (
        DELETE FROM group_history AS h USING gone WHERE h.group_id = gone.id AND h.valid_to IS NULL AND h.valid_from >= day
    )
    UPDATE group_history AS h SET valid_to = day
    FROM gone WHERE h.group_id = gone.id AND h.valid_to IS NULL AND h.valid_from < day;
    RETURN NULL;
END;
$$;

CREATE OR REPLACE FUNCTION close_membership_history() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    day CONSTANT date := effective_day();
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM membership_history AS h WHERE valid_to IS NULL AND valid_from >= day
            AND NOT EXISTS (SELECT FROM group_memberships AS m WHERE m.group_id = h.group_id AND m.symbol = h.symbol);
        UPDATE membership_history AS h SET valid_to = day WHERE valid_to IS NULL
            AND NOT EXISTS (SELECT FROM group_memberships AS m WHERE m.group_id = h.group_id AND m.symbol = h.symbol);
        RETURN NULL;
    END IF;
    WITH gone AS MATERIALIZED (
        SELECT group_id, symbol FROM touched AS t WHERE NOT EXISTS (
            SELECT FROM group_memberships AS m
            WHERE m.group_id = t.group_id AND m.symbol = t.symbol AND m.weight IS NOT DISTINCT FROM t.weight)
    ), vanished AS (
        DELETE FROM membership_history AS h USING gone
        WHERE h.group_id = gone.group_id AND h.symbol = gone.symbol AND h.valid_to IS NULL AND h.valid_from >= day
    )
    UPDATE membership_history AS h SET valid_to = day
    FROM gone WHERE h.group_id = gone.group_id AND h.symbol = gone.symbol AND h.valid_to IS NULL AND h.valid_from < day;
    RETURN NULL;
END;
$$;

-- Opens rows for groups that a statement inserted or updated; an equal row that ended on the same day is reopened instead.
-- FOR SHARE, since a snapshot may be older than the end of a row, which REPEATABLE READ then reports as serialization failure.
CREATE OR REPLACE FUNCTION open_group_history() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    day CONSTANT date := effective_day();
BEGIN
    WITH come AS MATERIALIZED (
        SELECT t.*, last.valid_from, last.valid_to, coalesce(
            (last.environment, last.type, last.name) = (t.environment, t.type, t.name)
            AND last.description IS NOT DISTINCT FROM t.description, false) AS alike
        FROM touched AS t LEFT JOIN LATERAL (
            SELECT * FROM group_history AS h WHERE h.group_id = t.id ORDER BY h.valid_from DESC LIMIT 1 FOR SHARE
        ) AS last ON true
        WHERE last.valid_from IS NULL OR last.valid_to IS NOT NULL
    ), reopened AS (
        UPDATE group_history AS h SET valid_to = NULL
        FROM come WHERE come.alike AND come.valid_to >= day AND h.group_id = come.id AND h.valid_from = come.valid_from
    )
    INSERT INTO group_history (group_id, environment, type, name, description, valid_from)
    SELECT id, environment, type, name, description, greatest(day, valid_to)
    FROM come WHERE NOT (alike AND valid_to >= day);
    RETURN NULL;
END;
$$;

CREATE OR REPLACE FUNCTION open_membership_history() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    day CONSTANT date := effective_day();
BEGIN
    WITH come AS MATERIALIZED (
        SELECT t.group_id, t.symbol, t.weight, last.valid_from, last.valid_to,
               last.valid_to >= day AND last.weight IS NOT DISTINCT FROM t.weight AS goes_on
        FROM touched AS t LEFT JOIN LATERAL (
            SELECT * FROM membership_history AS h WHERE h.group_id = t.group_id AND h.symbol = t.symbol
            ORDER BY h.valid_from DESC LIMIT 1 FOR SHARE
        ) AS last ON true
        WHERE last.valid_from IS NULL OR last.valid_to IS NOT NULL
    ), reopened AS (
        UPDATE membership_history AS h SET valid_to = NULL
        FROM come WHERE come.goes_on
            AND h.group_id = come.group_id AND h.symbol = come.symbol AND h.valid_from = come.valid_from
    )
    INSERT INTO membership_history (group_id, symbol, weight, valid_from)
    SELECT group_id, symbol, weight, greatest(day, valid_to) FROM come WHERE goes_on IS NOT TRUE;
    RETURN NULL;
END;
$$;

DO $$
DECLARE
    watched record;
    own_function text;
    reader text;
BEGIN
    -- tables are named with the schema that init was run in, and nothing else is looked up there, so that nobody's tables,
    -- functions or operators can take the place of those that are meant
    FOREACH own_function IN ARRAY ARRAY['count_data_change(text)', 'effective_day()', 'record_data_change()', 'record_price_change()',
                                        'close_group_history()', 'close_membership_history()', 'open_group_history()',
                                        'open_membership_history()']
    LOOP
        EXECUTE regexp_replace(pg_get_functiondef(to_regprocedure(own_function)::oid),
            '(?<![\w.])(definition_groups|group_memberships|group_history|membership_history|data_change|count_data_change|effective_day)(?!\w)',
            quote_ident(current_schema()) || '.\1', 'g');
    END LOOP;
    FOREACH own_function IN ARRAY ARRAY['record_data_change', 'record_price_change', 'close_group_history',
                                        'close_membership_history', 'open_group_history', 'open_membership_history']
    LOOP
        EXECUTE format('ALTER FUNCTION %I() SET search_path = pg_catalog, pg_temp', own_function);
        -- a table that grows within a statement may be planned as empty, as it was when it was last analyzed
        EXECUTE format('ALTER FUNCTION %I() SET enable_seqscan = off', own_function);
        -- they run with their owner's rights, so no other user may attach them to a table
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %I() FROM PUBLIC', own_function);
    END LOOP;
    -- a statement fires the triggers of the table that it names alone, so each partition and child has its own, the lowest
    -- first; foreign tables can have none
    FOR watched IN
        WITH RECURSIVE member (name, relation, depth) AS (
            SELECT w.name, to_regclass(w.name)::oid, 0
            FROM (VALUES ('definition_groups'), ('group_memberships'), ('symbols'), ('ohlcv_daily'), ('group_history'),
                         ('membership_history')) AS w (name)
            UNION
            SELECT member.name, i.inhrelid, member.depth + 1 FROM member JOIN pg_inherits AS i ON i.inhparent = member.relation
        )
        SELECT member.relation::regclass AS place, w.*
        FROM member JOIN (VALUES
            ('definition_groups', 'record_data_change(''groups'', ''id'')', 'true', 'group_history'),
            ('group_memberships', 'record_data_change(''groups'', ''group_id'')', 'true', 'membership_history'),
            ('symbols', 'record_data_change(''groups'')', 'true', NULL),
            ('ohlcv_daily', 'record_price_change()', 'true', NULL),
            -- what the triggers write to the history is recorded with the change that fired them
            ('group_history', 'record_data_change(''groups'', ''group_id'')', 'pg_trigger_depth() = 0', NULL),
            ('membership_history', 'record_data_change(''groups'', ''group_id'')', 'pg_trigger_depth() = 0', NULL)
        ) AS w (name, recorder, condition, history) ON w.name = member.name
        JOIN pg_class AS c ON c.oid = member.relation AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
        ORDER BY member.depth DESC
    LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER data_change_insert AFTER INSERT ON %s
            REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (%s) EXECUTE FUNCTION %s',
            watched.place, watched.condition, watched.recorder);
        EXECUTE format('CREATE OR REPLACE TRIGGER data_change_update AFTER UPDATE ON %s
            REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
            FOR EACH STATEMENT WHEN (%s) EXECUTE FUNCTION %s',
            watched.place, watched.condition, watched.recorder);
        EXECUTE format('CREATE OR REPLACE TRIGGER data_change_delete AFTER DELETE ON %s
            REFERENCING OLD TABLE AS old_rows
            FOR EACH STATEMENT WHEN (%s) EXECUTE FUNCTION %s',
            watched.place, watched.condition, watched.recorder);
        EXECUTE format('CREATE OR REPLACE TRIGGER data_change_truncate AFTER TRUNCATE ON %s
            FOR EACH STATEMENT EXECUTE FUNCTION %s', watched.place, watched.recorder);
        -- also in sessions that apply replicated changes
        EXECUTE format('ALTER TABLE ONLY %1$s ENABLE ALWAYS TRIGGER data_change_insert,
            ENABLE ALWAYS TRIGGER data_change_update, ENABLE ALWAYS TRIGGER data_change_delete,
            ENABLE ALWAYS TRIGGER data_change_truncate', watched.place);
        CONTINUE WHEN watched.history IS NULL;
        -- triggers fire in the order of their names, so history_close before history_open
        EXECUTE format('CREATE OR REPLACE TRIGGER history_close_delete AFTER DELETE ON %s
            REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION %I()',
            watched.place, 'close_' || watched.history);
        EXECUTE format('CREATE OR REPLACE TRIGGER history_close_update AFTER UPDATE ON %s
            REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION %I()',
            watched.place, 'close_' || watched.history);
        EXECUTE format('CREATE OR REPLACE TRIGGER history_close_truncate AFTER TRUNCATE ON %s
            FOR EACH STATEMENT EXECUTE FUNCTION %I()', watched.place, 'close_' || watched.history);
        EXECUTE format('CREATE OR REPLACE TRIGGER history_open_insert AFTER INSERT ON %s
            REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION %I()',
            watched.place, 'open_' || watched.history);
        EXECUTE format('CREATE OR REPLACE TRIGGER history_open_update AFTER UPDATE ON %s
            REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION %I()',
            watched.place, 'open_' || watched.history);
        EXECUTE format('ALTER TABLE ONLY %1$s ENABLE ALWAYS TRIGGER history_close_delete,
            ENABLE ALWAYS TRIGGER history_close_update, ENABLE ALWAYS TRIGGER history_close_truncate,
            ENABLE ALWAYS TRIGGER history_open_insert, ENABLE ALWAYS TRIGGER history_open_update', watched.place);
        -- users who may read a table may read its history
        FOR reader IN
            SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
            FROM pg_class, aclexplode(relacl) WHERE oid = to_regclass(watched.name) AND privilege_type = 'SELECT'
        LOOP
            EXECUTE format('GRANT SELECT ON %I TO %s', watched.history, reader);
        END LOOP;
    END LOOP;
END;
$$;

-- Makes the history end in the present state, if it was begun after the groups or was not maintained for a while. A group
-- without history is assumed to be as it is since its latest timestamp. Returns the number of rows written.
CREATE OR REPLACE FUNCTION mend_history() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    today CONSTANT date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    written bigint := 0;
    added bigint;
BEGIN
    -- if the history is complete, no lock is taken
    IF NOT EXISTS (
           SELECT FROM definition_groups AS g
           FULL JOIN (SELECT * FROM group_history WHERE valid_to IS NULL) AS h ON h.group_id = g.id
               AND (h.environment, h.type, h.name) = (g.environment, g.type, g.name)
               AND h.description IS NOT DISTINCT FROM g.description
           WHERE g.id IS NULL OR h.group_id IS NULL)
       AND NOT EXISTS (
           SELECT FROM group_memberships AS m
           FULL JOIN (SELECT * FROM membership_history WHERE valid_to IS NULL) AS h
               ON h.group_id = m.group_id AND h.symbol = m.symbol
           WHERE m.group_id IS NULL OR h.group_id IS NULL OR m.weight IS DISTINCT FROM h.weight) THEN
        RETURN 0;
    END IF;
    LOCK TABLE definition_groups, group_memberships IN SHARE MODE;
    WITH gone AS MATERIALIZED (
        SELECT h.group_id, h.valid_from FROM group_history AS h
        WHERE h.valid_to IS NULL AND NOT EXISTS (
            SELECT FROM definition_groups AS g WHERE g.id = h.group_id AND g.environment = h.environment AND g.type = h.type
                AND g.name = h.name AND g.description IS NOT DISTINCT FROM h.description)
    ), vanished AS (
        DELETE FROM group_history AS h USING gone
        WHERE h.group_id = gone.group_id AND h.valid_from = gone.valid_from AND h.valid_from >= today RETURNING 1
    ), ended AS (
        UPDATE group_history AS h SET valid_to = today FROM gone
        WHERE h.group_id = gone.group_id AND h.valid_from = gone.valid_from AND h.valid_from < today RETURNING 1
    )
    SELECT (SELECT count(*) FROM vanished) + (SELECT count(*) FROM ended) INTO added;
    written := written + added;
    WITH gone AS MATERIALIZED (
        SELECT h.group_id, h.symbol, h.valid_from FROM membership_history AS h
        WHERE h.valid_to IS NULL AND NOT EXISTS (
            SELECT FROM group_memberships AS m
            WHERE m.group_id = h.group_id AND m.symbol = h.symbol AND m.weight IS NOT DISTINCT FROM h.weight)
    ), vanished AS (
        DELETE FROM membership_history AS h USING gone WHERE h.group_id = gone.group_id AND h.symbol = gone.symbol
            AND h.valid_from = gone.valid_from AND h.valid_from >= today RETURNING 1
    ), ended AS (
        UPDATE membership_history AS h SET valid_to = today FROM gone WHERE h.group_id = gone.group_id
            AND h.symbol = gone.symbol AND h.valid_from = gone.valid_from AND h.valid_from < today RETURNING 1
    )
    SELECT (SELECT count(*) FROM vanished) + (SELECT count(*) FROM ended) INTO added;
    written := written + added;
    CREATE TEMPORARY TABLE stockgraph_known ON COMMIT DROP AS
    SELECT g.id AS group_id, CASE WHEN EXISTS (SELECT FROM group_history AS h WHERE h.group_id = g.id) THEN today ELSE
        least(today, greatest(g.created_at, g.updated_at, g.last_update, max(m.added_at), max(m.updated_at))::date) END AS since
    FROM definition_groups AS g LEFT JOIN group_memberships AS m ON m.group_id = g.id
    GROUP BY g.id;
    INSERT INTO group_history (group_id, environment, type, name, description, valid_from)
    SELECT g.id, g.environment, g.type, g.name, g.description, k.since
    FROM definition_groups AS g JOIN pg_temp.stockgraph_known AS k ON k.group_id = g.id
    WHERE NOT EXISTS (SELECT FROM group_history AS h WHERE h.group_id = g.id AND h.valid_to IS NULL);
    GET DIAGNOSTICS added = ROW_COUNT;
    written := written + added;
    INSERT INTO membership_history (group_id, symbol, weight, valid_from)
    SELECT m.group_id, m.symbol, m.weight, k.since
    FROM group_memberships AS m JOIN pg_temp.stockgraph_known AS k ON k.group_id = m.group_id
    WHERE NOT EXISTS (SELECT FROM membership_history AS h
                      WHERE h.group_id = m.group_id AND h.symbol = m.symbol AND h.valid_to IS NULL);
    GET DIAGNOSTICS added = ROW_COUNT;
    DROP TABLE pg_temp.stockgraph_known;
    RETURN written + added;
END;
$$;

SELECT mend_history();

-- Merges rows that a restore brought from another server, whose transaction ids lie in the future, into one row of this one.
WITH foreign_change AS (
    DELETE FROM data_change WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()) AND xid <> pg_current_xact_id()
    RETURNING family, weight
)
INSERT INTO data_change (family, xid, weight)
SELECT family, pg_current_xact_id(), sum(weight) FROM foreign_change GROUP BY family
ON CONFLICT (family, xid) DO UPDATE SET weight = data_change.weight + excluded.weight;
