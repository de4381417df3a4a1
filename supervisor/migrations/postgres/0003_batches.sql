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

-- A record follows its chain, as before. Its position in the whole log is the next one, or the next of those that this
-- transaction has set aside (`seal`): autopack.leaves is a setting of the transaction, as next#end.
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
        UPDATE autopack.ledger SET leaves = leaves + 1 RETURNING leaves - 1 INTO NEW.leaf_index;
    ELSE
        NEW.leaf_index := split_part(aside, '#', 1)::bigint;
        PERFORM set_config('autopack.leaves', CASE
            WHEN NEW.leaf_index + 1 < split_part(aside, '#', 2)::bigint
            THEN (NEW.leaf_index + 1) || '#' || split_part(aside, '#', 2) ELSE '' END, true);
    END IF;
    RETURN NEW;
END $$;

-- Appends records to the log. The heads of their chains are locked in the order given; where one is not what the caller
-- took it for, nothing is written and the heads are told, which then stay as they are.
CREATE FUNCTION autopack.append(p_chains text[], p_seqs bigint[], p_hashes bytea[], p_chain text[], p_seq bigint[],
    p_body text[], p_prev bytea[], p_hash bytea[], p_at bigint)
RETURNS TABLE (chain text, seq bigint, hash bytea) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    seqs   bigint[];
    hashes bytea[];
    ended  bigint;
    many   bigint := coalesce(array_length(p_chain, 1), 0);
BEGIN
    IF many = 0 THEN
        RETURN;
    END IF;
    SELECT array_agg(h.seq ORDER BY h.place), array_agg(h.hash ORDER BY h.place) INTO seqs, hashes
    FROM autopack.lock_heads(p_chains) WITH ORDINALITY AS h (chain, seq, hash, place);
    IF seqs IS DISTINCT FROM p_seqs OR hashes IS DISTINCT FROM p_hashes THEN
        RETURN QUERY SELECT * FROM unnest(p_chains, seqs, hashes);
        RETURN;
    END IF;
    UPDATE autopack.ledger SET leaves = leaves + many RETURNING leaves INTO ended;
    PERFORM set_config('autopack.leaves', (ended - many) || '#' || ended, true);
    INSERT INTO autopack.audit (chain, seq, body, prev_hash, hash, at)
    SELECT r.chain, r.seq, r.body, r.prev, r.hash, p_at
    FROM unnest(p_chain, p_seq, p_body, p_prev, p_hash) WITH ORDINALITY AS r (chain, seq, body, prev, hash, place)
    ORDER BY r.place;
END $$;

-- The end of a transaction: its last rows, the log, the checks that wait for the end, the clock. Empty where all of it
-- was done; otherwise the row that was refused, or the heads as `append` tells them.
CREATE FUNCTION autopack.finish(p_what text[], p_run text[], p_id text[], p_number bigint[], p_project text[],
    p_state text[], p_version bigint[], p_doc text[], p_chains text[], p_seqs bigint[], p_hashes bytea[],
    p_chain text[], p_seq bigint[], p_body text[], p_prev bytea[], p_hash bytea[], p_at bigint)
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
    FROM autopack.append(p_chains, p_seqs, p_hashes, p_chain, p_seq, p_body, p_prev, p_hash, p_at) AS h;
    IF FOUND THEN
        RETURN;
    END IF;
    SET CONSTRAINTS ALL IMMEDIATE;
    PERFORM autopack.tick(p_at);
END $$;
