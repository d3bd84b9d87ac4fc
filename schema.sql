-- The tables of stockgraph: groups of stocks, who belongs to them, and the record of changes that keeps answers fresh.
-- Idempotent, and it only adds: on a database that has the tables already, it makes what is missing and alters nothing.
-- PostgreSQL 14 or later.

CREATE TABLE IF NOT EXISTS definition_groups (
    id serial PRIMARY KEY,
    name varchar(100) NOT NULL,
    -- wider than TickStock's by UNIVERSE: live databases hold index lists such as nasdaq100 and dow30
    type varchar(50) NOT NULL CHECK (type IN ('ETF', 'THEME', 'SECTOR', 'SEGMENT', 'CUSTOM', 'UNIVERSE')),
    description text,
    metadata jsonb,
    liquidity_filter jsonb,
    environment varchar(10) NOT NULL CHECK (environment IN ('DEFAULT', 'TEST', 'UAT', 'PROD')),
    created_at timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    last_update timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT unique_group UNIQUE (name, type, environment)
);
CREATE INDEX IF NOT EXISTS idx_definition_groups_type ON definition_groups (type);
CREATE INDEX IF NOT EXISTS idx_definition_groups_environment ON definition_groups (environment);
CREATE INDEX IF NOT EXISTS idx_definition_groups_name ON definition_groups (name);
CREATE INDEX IF NOT EXISTS idx_definition_groups_type_env ON definition_groups (type, environment);
CREATE INDEX IF NOT EXISTS idx_definition_groups_lower_name ON definition_groups (lower(name), environment);

CREATE TABLE IF NOT EXISTS group_memberships (
    id serial PRIMARY KEY,
    group_id integer NOT NULL REFERENCES definition_groups (id) ON DELETE CASCADE,
    symbol varchar(50) NOT NULL,
    -- a fraction of the group; four digits more than TickStock's numeric(5,4), which makes two thirds of the weights of a
    -- total-market fund zero
    weight numeric(9,8),
    metadata jsonb,
    added_at timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT unique_membership UNIQUE (group_id, symbol)
);
CREATE INDEX IF NOT EXISTS idx_group_memberships_group_id ON group_memberships (group_id);
CREATE INDEX IF NOT EXISTS idx_group_memberships_symbol ON group_memberships (symbol);
CREATE INDEX IF NOT EXISTS idx_group_memberships_symbol_group ON group_memberships (symbol, group_id);
CREATE INDEX IF NOT EXISTS idx_group_memberships_lower_symbol ON group_memberships (lower(symbol));
-- pages of members, heaviest first and by symbol, read in order from the index
CREATE INDEX IF NOT EXISTS idx_group_memberships_by_weight
    ON group_memberships (group_id, weight DESC NULLS LAST, symbol COLLATE "C", id);
CREATE INDEX IF NOT EXISTS idx_group_memberships_by_symbol
    ON group_memberships (group_id, symbol COLLATE "C", id);

CREATE TABLE IF NOT EXISTS symbols (
    symbol varchar(50) PRIMARY KEY,
    name text,
    industry text
);
CREATE INDEX IF NOT EXISTS idx_symbols_lower_symbol ON symbols (lower(symbol));

-- A change is a row: each transaction that writes inserts one for each family of tables it touched. The sum of a family's
-- weights is its generation, one more for each commit and as much a part of a snapshot as the rows themselves.
-- Neither a sequence (it moves before its transaction commits) nor one counter row (writers would wait) can do this.
CREATE TABLE IF NOT EXISTS data_change (
    family text NOT NULL,
    xid xid8 NOT NULL,
    weight bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (family, xid)
);
GRANT SELECT ON data_change TO PUBLIC;

-- Records the change and tells every listener of channel `stockgraph` which groups it touched (null: any of them).
-- Arguments: the family, and the column of the table that holds a group's id, if one does.
CREATE OR REPLACE FUNCTION record_data_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    changed_family CONSTANT text := TG_ARGV[0];
    group_column CONSTANT text := TG_ARGV[1];
    groups jsonb;
    touched boolean := true;
    compacted bigint;
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
    INSERT INTO data_change (family, xid) VALUES (changed_family, pg_current_xact_id()) ON CONFLICT DO NOTHING;
    -- Now and then the rows of finished transactions become one; at once where a restore brought rows of another server,
    -- whose transactions are yet to come here. Only in READ COMMITTED, where a row that another transaction deleted
    -- meanwhile is passed over and not a serialisation failure.
    IF FOUND AND (pg_current_xact_id()::text::bigint % 64 = 0 OR EXISTS (
           SELECT FROM data_change WHERE family = changed_family AND xid > pg_current_xact_id()
               AND xid >= pg_snapshot_xmax(pg_current_snapshot())))
       AND current_setting('transaction_isolation') = 'read committed'
       AND pg_try_advisory_xact_lock(hashtextextended('stockgraph.data_change.' || changed_family, 0)) THEN
        WITH finished AS (
            DELETE FROM data_change
            WHERE family = changed_family AND (
                xid < pg_snapshot_xmin(pg_current_snapshot())
                OR xid > pg_current_xact_id() AND xid >= pg_snapshot_xmax(pg_current_snapshot()))
            RETURNING weight
        )
        SELECT sum(weight) INTO compacted FROM finished;
        UPDATE data_change SET weight = weight + coalesce(compacted, 0)
        WHERE family = changed_family AND xid = pg_current_xact_id();
    END IF;
    -- a payload may hold 7,999 bytes
    IF jsonb_array_length(groups) > 500 THEN
        groups := NULL;
    END IF;
    PERFORM pg_notify('stockgraph', jsonb_build_object(
        'family', changed_family, 'xid', pg_current_xact_id()::text, 'groups', groups)::text);
    RETURN NULL;
END;
$$;

DO $$
DECLARE
    watched record;
BEGIN
    -- the schema that init was run in, and nothing that a caller's own search path could slip in before it
    EXECUTE format('ALTER FUNCTION record_data_change() SET search_path = pg_catalog, %I, pg_temp', current_schema());
    FOR watched IN
        SELECT * FROM (VALUES
            ('definition_groups', quote_literal('groups') || ', ' || quote_literal('id')),
            ('group_memberships', quote_literal('groups') || ', ' || quote_literal('group_id')),
            ('symbols', quote_literal('groups'))
        ) AS w (name, arguments)
    LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER data_change_insert AFTER INSERT ON %I
            REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION record_data_change(%s)',
            watched.name, watched.arguments);
        EXECUTE format('CREATE OR REPLACE TRIGGER data_change_update AFTER UPDATE ON %I
            REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
            FOR EACH STATEMENT EXECUTE FUNCTION record_data_change(%s)', watched.name, watched.arguments);
        EXECUTE format('CREATE OR REPLACE TRIGGER data_change_delete AFTER DELETE ON %I
            REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION record_data_change(%s)',
            watched.name, watched.arguments);
        EXECUTE format('CREATE OR REPLACE TRIGGER data_change_truncate AFTER TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION record_data_change(%s)', watched.name, watched.arguments);
        -- also for a session that replays others' changes
        EXECUTE format('ALTER TABLE %1$I ENABLE ALWAYS TRIGGER data_change_insert,
            ENABLE ALWAYS TRIGGER data_change_update, ENABLE ALWAYS TRIGGER data_change_delete,
            ENABLE ALWAYS TRIGGER data_change_truncate', watched.name);
    END LOOP;
END;
$$;

-- What a restore brought of another server's transactions, which are yet to come here, becomes one row of this one.
WITH foreign_change AS (
    DELETE FROM data_change WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()) AND xid <> pg_current_xact_id()
    RETURNING family, weight
)
INSERT INTO data_change (family, xid, weight)
SELECT family, pg_current_xact_id(), sum(weight) FROM foreign_change GROUP BY family
ON CONFLICT (family, xid) DO UPDATE SET weight = data_change.weight + excluded.weight;
