-- compatible with: 1
-- Fewer questions for one transaction: rows that are read together, writes that are sent together, and the end of a
-- transaction in one. Nothing that guards a row is different; these functions only spare the way there and back.

-- Holds the rows of runs, in the order given, and then reads what only who holds them can rely on: each run with one of
-- its phases, the last line of its history and the head of its chain (which is not locked: a guess, see `seal`).
CREATE FUNCTION autopack.gather(p_runs text[], p_phases text[]) RETURNS TABLE (
    run text, run_doc text, run_state text, run_version bigint, phase_doc text, phase_state text, phase_version bigint,
    last text, head_seq bigint, head_hash bytea)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    FOR n IN 1 .. coalesce(array_length(p_runs, 1), 0) LOOP
        PERFORM 1 FROM autopack.run AS r WHERE r.id = p_runs[n] FOR NO KEY UPDATE;
    END LOOP;
    -- A statement of its own, so that it sees what was committed while the rows were waited for.
    RETURN QUERY
    SELECT w.run, r.doc::text, r.state, r.version, p.doc::text, p.state, p.version,
        (SELECT e.doc::text FROM autopack.event AS e WHERE e.run_id = w.run ORDER BY e.seq DESC LIMIT 1),
        h.seq, h.hash
    FROM unnest(p_runs, p_phases) WITH ORDINALITY AS w (run, phase, place)
    LEFT JOIN autopack.run AS r ON r.id = w.run
    LEFT JOIN autopack.phase AS p ON p.run_id = w.run AND p.id = w.phase
    LEFT JOIN autopack.audit_head AS h ON h.chain = 'run/' || w.run
    ORDER BY w.place;
END $$;

-- Raises the epochs of several scopes, in the order given.
CREATE FUNCTION autopack.fence_bump_all(p_scopes text[], p_holders text[], p_at bigint) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE AS $$
DECLARE raised bigint[] := '{}';
BEGIN
    FOR n IN 1 .. coalesce(array_length(p_scopes, 1), 0) LOOP
        raised := raised || autopack.fence_bump(p_scopes[n], p_holders[n], p_at);
    END LOOP;
    RETURN raised;
END $$;

-- Writes one row. AP005: it is there at another version. AP006: it is not there.
CREATE FUNCTION autopack.put(p_what text, p_run text, p_id text, p_number bigint, p_project text, p_state text,
    p_version bigint, p_doc text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE there boolean;
BEGIN
    CASE p_what
        WHEN 'event+' THEN
            INSERT INTO autopack.event (run_id, seq, doc) VALUES (p_run, p_number, p_doc::json);
        WHEN 'lease+' THEN
            INSERT INTO autopack.lease (id, run_id, workspace, project, state, version, doc)
            VALUES (p_id, p_run, p_run, p_project, p_state, p_version, p_doc::json);
        WHEN 'attempt+' THEN
            INSERT INTO autopack.attempt (run_id, phase_id, number, state, version, doc)
            VALUES (p_run, p_id, p_number, p_state, p_version, p_doc::json);
        WHEN 'run' THEN
            UPDATE autopack.run SET state = p_state, version = version + 1, doc = p_doc::json
            WHERE id = p_run AND version = p_version;
        WHEN 'phase' THEN
            UPDATE autopack.phase SET state = p_state, version = version + 1, doc = p_doc::json
            WHERE run_id = p_run AND id = p_id AND version = p_version;
        WHEN 'attempt' THEN
            UPDATE autopack.attempt SET state = p_state, version = version + 1, doc = p_doc::json
            WHERE run_id = p_run AND phase_id = p_id AND number = p_number AND version = p_version;
        WHEN 'lease' THEN
            UPDATE autopack.lease SET state = p_state, version = version + 1, doc = p_doc::json
            WHERE id = p_id AND version = p_version;
    END CASE;
    IF FOUND THEN
        RETURN;
    END IF;
    CASE p_what
        WHEN 'run' THEN there := EXISTS (SELECT 1 FROM autopack.run WHERE id = p_run);
        WHEN 'phase' THEN there := EXISTS (SELECT 1 FROM autopack.phase WHERE run_id = p_run AND id = p_id);
        WHEN 'attempt' THEN there := EXISTS
            (SELECT 1 FROM autopack.attempt WHERE run_id = p_run AND phase_id = p_id AND number = p_number);
        WHEN 'lease' THEN there := EXISTS (SELECT 1 FROM autopack.lease WHERE id = p_id);
    END CASE;
    IF there THEN
        RAISE EXCEPTION 'it changed' USING ERRCODE = 'AP005';
    END IF;
    RAISE EXCEPTION 'it is not there' USING ERRCODE = 'AP006';
END $$;

-- Writes rows in the order given. Place 0: all of them. Otherwise none of them, and why: what is refused takes nothing
-- else of the transaction with it.
CREATE FUNCTION autopack.put_all(p_what text[], p_run text[], p_id text[], p_number bigint[], p_project text[],
    p_state text[], p_version bigint[], p_doc text[])
RETURNS TABLE (place integer, code text, message text, detail text, name text) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
DECLARE at integer := 0;
BEGIN
    FOR n IN 1 .. coalesce(array_length(p_what, 1), 0) LOOP
        at := n;
        PERFORM autopack.put(p_what[n], p_run[n], p_id[n], p_number[n], p_project[n], p_state[n], p_version[n],
            p_doc[n]);
    END LOOP;
    place := 0;
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    place := at;
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
        name = CONSTRAINT_NAME;
    RETURN NEXT;
END $$;

-- Locks the heads of chains as before, and makes those that are not there only then.
CREATE OR REPLACE FUNCTION autopack.lock_heads(p_chains text[]) RETURNS TABLE (chain text, seq bigint, hash bytea)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE wanted text;
BEGIN
    FOREACH wanted IN ARRAY p_chains LOOP
        RETURN QUERY SELECT h.chain, h.seq, h.hash FROM autopack.audit_head AS h WHERE h.chain = wanted FOR UPDATE;
        IF NOT FOUND THEN
            INSERT INTO autopack.audit_head VALUES (wanted, 0, decode(repeat('00', 32), 'hex')) ON CONFLICT DO NOTHING;
            RETURN QUERY SELECT h.chain, h.seq, h.hash FROM autopack.audit_head AS h WHERE h.chain = wanted FOR UPDATE;
        END IF;
    END LOOP;
END $$;

-- Positions in the whole log. They are given in commit order under the ledger's row, which everybody would queue for
-- until each commit is durable. So they are given afterwards, to all records that wait for one, at the latest when the
-- next commit changes which leases are active; such a commit has its own at once, since the history of leases is
-- compared with them. How many records there are is counted at once, in the commit's row of the clock.

ALTER TABLE autopack.audit ALTER COLUMN leaf_index DROP NOT NULL;
CREATE INDEX audit_pending ON autopack.audit (chain, seq) WHERE leaf_index IS NULL;

ALTER TABLE autopack.clock ADD COLUMN leaves bigint NOT NULL DEFAULT 0 CHECK (leaves >= 0);
UPDATE autopack.clock SET leaves = (SELECT leaves FROM autopack.ledger) WHERE slot = 0;
INSERT INTO autopack.clock (slot, at, commits)
SELECT slot, timestamptz '1970-01-01 00:00:00+00', 0 FROM generate_series(32, 63) AS slot;

CREATE OR REPLACE FUNCTION autopack.only_rises() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad boolean;
BEGIN
    CASE TG_TABLE_NAME
        WHEN 'cluster' THEN bad := NEW.id <> OLD.id OR NEW.cluster_id <> OLD.cluster_id
            OR NEW.incarnation < OLD.incarnation OR NEW.system_identifier <> OLD.system_identifier;
        WHEN 'ledger' THEN bad := NEW.id <> OLD.id OR NEW.leaves < OLD.leaves OR NEW.commits < OLD.commits;
        WHEN 'clock' THEN bad := NEW.slot <> OLD.slot OR NEW.at < OLD.at OR NEW.commits < OLD.commits
            OR NEW.leaves < OLD.leaves;
        WHEN 'fence' THEN bad := NEW.scope <> OLD.scope OR NEW.epoch <= OLD.epoch;
        WHEN 'audit_head' THEN bad := NEW.chain <> OLD.chain OR NEW.seq <> OLD.seq + 1;
    END CASE;
    IF bad THEN
        RAISE EXCEPTION '% rows only rise', TG_TABLE_NAME USING ERRCODE = 'AP004';
    END IF;
    RETURN NEW;
END $$;

-- The end of a transaction for the clock, with the records that it has added.
CREATE FUNCTION autopack.tick_all(p_at bigint, p_commits bigint, p_leaves bigint) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE mine integer;
BEGIN
    SELECT slot INTO mine FROM autopack.clock FOR UPDATE SKIP LOCKED LIMIT 1;
    UPDATE autopack.clock SET at = greatest(at, autopack.instant(p_at)), commits = commits + p_commits,
        leaves = leaves + p_leaves
    WHERE slot = coalesce(mine, pg_backend_pid() % 64);
END $$;

-- A record never changes but for its position, which it is given once.
CREATE FUNCTION autopack.numbered_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.leaf_index IS NOT NULL OR NEW.leaf_index IS NULL
        OR ROW(NEW.chain, NEW.seq, NEW.body, NEW.prev_hash, NEW.hash, NEW.at)
            IS DISTINCT FROM ROW(OLD.chain, OLD.seq, OLD.body, OLD.prev_hash, OLD.hash, OLD.at) THEN
        RAISE EXCEPTION '% rows never change', TG_TABLE_NAME USING ERRCODE = 'AP004';
    END IF;
    RETURN NEW;
END $$;
DROP TRIGGER d_never_changes ON autopack.audit;
CREATE TRIGGER d_numbered_once BEFORE UPDATE ON autopack.audit
FOR EACH ROW EXECUTE FUNCTION autopack.numbered_once();

-- Gives positions to the records that wait for one; how many there were. Each chain keeps its order, and a transaction
-- that began when another one had ended has a higher number and comes after it.
CREATE FUNCTION autopack.number_pending() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    base bigint;
    many bigint;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM autopack.audit WHERE leaf_index IS NULL) THEN
        RETURN 0;
    END IF;
    SELECT leaves INTO base FROM autopack.ledger FOR UPDATE;
    -- A statement of its own, so that it sees what others have numbered while the ledger was waited for.
    WITH pending AS (
        SELECT chain, seq, row_number() OVER (ORDER BY turn, chain, seq) - 1 AS n FROM (
            SELECT chain, seq, max(xmin::text::bigint) OVER (PARTITION BY chain ORDER BY seq) AS turn
            FROM autopack.audit WHERE leaf_index IS NULL) AS waiting)
    UPDATE autopack.audit AS a SET leaf_index = base + p.n FROM pending AS p
    WHERE a.chain = p.chain AND a.seq = p.seq AND a.leaf_index IS NULL;
    GET DIAGNOSTICS many = ROW_COUNT;
    UPDATE autopack.ledger SET leaves = leaves + many;
    RETURN many;
END $$;

-- A record follows its chain, as before. autopack.leaves is a setting of the transaction that says where its position
-- comes from: `later`, or those that were set aside, as next#end (`append`). Without it, whoever inserts knows nothing of
-- all this: then it is the next one, and is counted here.
CREATE OR REPLACE FUNCTION autopack.audit_follows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    head  record;
    aside text := coalesce(current_setting('autopack.leaves', true), '');
BEGIN
    SELECT * INTO head FROM autopack.lock_heads(ARRAY[NEW.chain]);
    IF NEW.seq <> head.seq + 1 OR NEW.prev_hash <> head.hash THEN
        RAISE EXCEPTION 'an audit record must follow the head of its chain' USING ERRCODE = 'AP004';
    END IF;
    UPDATE autopack.audit_head SET seq = NEW.seq, hash = NEW.hash WHERE chain = NEW.chain;
    IF aside = '' THEN
        PERFORM autopack.number_pending();
        UPDATE autopack.ledger SET leaves = leaves + 1 RETURNING leaves - 1 INTO NEW.leaf_index;
        PERFORM autopack.tick_all(0, 0, 1);
    ELSIF aside = 'later' THEN
        NEW.leaf_index := NULL;
    ELSE
        NEW.leaf_index := split_part(aside, '#', 1)::bigint;
        PERFORM set_config('autopack.leaves', CASE
            WHEN NEW.leaf_index + 1 < split_part(aside, '#', 2)::bigint
            THEN (NEW.leaf_index + 1) || '#' || split_part(aside, '#', 2) ELSE '' END, true);
    END IF;
    RETURN NEW;
END $$;

-- Appends records to the log, with their positions at once or later. The heads of their chains are locked in the order
-- given; where one is not what the caller took it for, nothing is written and the heads are told, which then stay as
-- they are. Whoever calls counts the records (`tick_all`).
CREATE FUNCTION autopack.append(p_chains text[], p_seqs bigint[], p_hashes bytea[], p_chain text[], p_seq bigint[],
    p_body text[], p_prev bytea[], p_hash bytea[], p_at bigint, p_number boolean)
RETURNS TABLE (chain text, seq bigint, hash bytea) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    seqs   bigint[];
    hashes bytea[];
    ended  bigint;
    many   bigint := coalesce(array_length(p_chain, 1), 0);
BEGIN
    IF many > 0 THEN
        SELECT array_agg(h.seq ORDER BY h.place), array_agg(h.hash ORDER BY h.place) INTO seqs, hashes
        FROM autopack.lock_heads(p_chains) WITH ORDINALITY AS h (chain, seq, hash, place);
        IF seqs IS DISTINCT FROM p_seqs OR hashes IS DISTINCT FROM p_hashes THEN
            RETURN QUERY SELECT * FROM unnest(p_chains, seqs, hashes);
            RETURN;
        END IF;
    END IF;
    IF p_number THEN
        -- After the heads: what comes before in these chains is committed, and gets its position before.
        PERFORM autopack.number_pending();
    END IF;
    IF many = 0 THEN
        RETURN;
    END IF;
    IF p_number THEN
        UPDATE autopack.ledger SET leaves = leaves + many RETURNING leaves INTO ended;
    END IF;
    PERFORM set_config('autopack.leaves',
        CASE WHEN p_number THEN (ended - many) || '#' || ended ELSE 'later' END, true);
    INSERT INTO autopack.audit (chain, seq, body, prev_hash, hash, at)
    SELECT r.chain, r.seq, r.body, r.prev, r.hash, p_at
    FROM unnest(p_chain, p_seq, p_body, p_prev, p_hash) WITH ORDINALITY AS r (chain, seq, body, prev, hash, place)
    ORDER BY r.place;
    PERFORM set_config('autopack.leaves', '', true);
END $$;

-- The end of a transaction: its last rows, the log, the checks that wait for the end, the clock. Empty where all of it
-- was done; otherwise the row that was refused, or the heads as `append` tells them. p_place: it changes which leases
-- are active. p_more: records that it appended before.
CREATE FUNCTION autopack.finish(p_what text[], p_run text[], p_id text[], p_number bigint[], p_project text[],
    p_state text[], p_version bigint[], p_doc text[], p_chains text[], p_seqs bigint[], p_hashes bytea[],
    p_chain text[], p_seq bigint[], p_body text[], p_prev bytea[], p_hash bytea[], p_at bigint, p_place boolean,
    p_more bigint)
RETURNS TABLE (place integer, code text, message text, detail text, name text, chain text, seq bigint, hash bytea)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    IF array_length(p_what, 1) > 0 THEN
        RETURN QUERY SELECT w.place, w.code, w.message, w.detail, w.name, NULL::text, NULL::bigint, NULL::bytea
        FROM autopack.put_all(p_what, p_run, p_id, p_number, p_project, p_state, p_version, p_doc) AS w
        WHERE w.place > 0;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    RETURN QUERY SELECT 0, NULL::text, NULL::text, NULL::text, NULL::text, h.chain, h.seq, h.hash
    FROM autopack.append(p_chains, p_seqs, p_hashes, p_chain, p_seq, p_body, p_prev, p_hash, p_at,
        p_place) AS h;
    IF FOUND THEN
        RETURN;
    END IF;
    SET CONSTRAINTS ALL IMMEDIATE;
    PERFORM autopack.tick_all(p_at, 1, p_more + coalesce(array_length(p_chain, 1), 0));
END $$;
