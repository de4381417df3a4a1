-- compatible with: 1
-- Moves of many runs in one statement: one way there and back, one commit and one flush of the disk for all of them.
-- Every row is guarded as before, row by row; the guards themselves ask less. Plans of these functions are made once in
-- a connection, maybe while the tables are still empty: they go by keys whatever the tables are like.

-- Nothing looks for runs of a state in all projects; each move wrote to it.
DROP INDEX autopack.run_by_state;

-- A listed move leaves a state that something leaves, so the final states are only asked about when none is listed.
CREATE OR REPLACE FUNCTION autopack.moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state <> OLD.state AND EXISTS (
        SELECT 1 FROM autopack.legal_move
        WHERE machine = TG_TABLE_NAME AND from_state = OLD.state AND to_state = NEW.state) THEN
        RETURN NEW;
    END IF;
    IF EXISTS (SELECT 1 FROM autopack.final_state WHERE machine = TG_TABLE_NAME AND state = OLD.state) THEN
        RAISE EXCEPTION 'it has ended' USING ERRCODE = 'AP003';
    END IF;
    IF NEW.state <> OLD.state THEN
        RAISE EXCEPTION 'no table lists this move' USING ERRCODE = 'AP003';
    END IF;
    RETURN NEW;
END $$;

-- The head moves by what it is compared with: one statement instead of a lock, a look and a write.
CREATE OR REPLACE FUNCTION autopack.audit_follows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE aside text := coalesce(current_setting('autopack.leaves', true), '');
BEGIN
    UPDATE autopack.audit_head SET seq = NEW.seq, hash = NEW.hash
    WHERE chain = NEW.chain AND seq = NEW.seq - 1 AND hash = NEW.prev_hash;
    IF NOT FOUND THEN
        -- The first of its chain, or none that follows.
        INSERT INTO autopack.audit_head VALUES (NEW.chain, 0, decode(repeat('00', 32), 'hex')) ON CONFLICT DO NOTHING;
        UPDATE autopack.audit_head SET seq = NEW.seq, hash = NEW.hash
        WHERE chain = NEW.chain AND seq = NEW.seq - 1 AND hash = NEW.prev_hash;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'an audit record must follow the head of its chain' USING ERRCODE = 'AP004';
        END IF;
    END IF;
    IF aside = 'later' THEN
        NEW.leaf_index := NULL;
    ELSIF aside = 'given' THEN
        NULL; -- From those that were set aside; no two records have the same one.
    ELSIF aside = '' THEN
        PERFORM autopack.number_pending();
        UPDATE autopack.ledger SET leaves = leaves + 1 RETURNING leaves - 1 INTO NEW.leaf_index;
        PERFORM autopack.tick_all(0, 0, 1);
    ELSE
        NEW.leaf_index := split_part(aside, '#', 1)::bigint;
        PERFORM set_config('autopack.leaves', CASE
            WHEN NEW.leaf_index + 1 < split_part(aside, '#', 2)::bigint
            THEN (NEW.leaf_index + 1) || '#' || split_part(aside, '#', 2) ELSE '' END, true);
    END IF;
    RETURN NEW;
END $$;

-- The same rule, looked at before the function is called that refuses.
DROP TRIGGER c_rises ON autopack.audit_head;
CREATE TRIGGER c_rises BEFORE UPDATE ON autopack.audit_head FOR EACH ROW
WHEN (NEW.chain <> OLD.chain OR NEW.seq <> OLD.seq + 1) EXECUTE FUNCTION autopack.only_rises();

-- Reads for several at once what each begins with. The row at place 0 has the store's clock, its id, its incarnation and
-- the epochs of the scopes; the others a run, one of its phases, the last line of its history, and the head of its
-- chain. Nothing is locked: who writes on the strength of it says what it was (`move_all`).
CREATE FUNCTION autopack.show_all(p_runs text[], p_phases text[], p_scopes text[], p_seen bigint)
RETURNS TABLE (place bigint, run_doc text, run_state text, run_version bigint, phase_doc text, phase_state text,
    phase_version bigint, last text, head_seq bigint, head_hash bytea, now bigint, cluster text, incarnation bigint,
    epochs bigint[])
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT 0::bigint, NULL::text, NULL::text, NULL::bigint, NULL::text, NULL::text, NULL::bigint, NULL::text,
        NULL::bigint, NULL::bytea, autopack.now_millis(p_seen), c.cluster_id, c.incarnation,
        (SELECT array_agg(f.epoch ORDER BY w.place)
         FROM unnest(p_scopes) WITH ORDINALITY AS w (scope, place)
         LEFT JOIN autopack.fence AS f ON f.scope = w.scope)
    FROM autopack.cluster AS c;
    RETURN QUERY
    SELECT w.place, r.doc::text, r.state, r.version, p.doc::text, p.state, p.version,
        (SELECT e.doc::text FROM autopack.event AS e WHERE e.run_id = w.run ORDER BY e.seq DESC LIMIT 1),
        h.seq, h.hash, NULL::bigint, NULL::text, NULL::bigint, NULL::bigint[]
    FROM unnest(p_runs, p_phases) WITH ORDINALITY AS w (run, phase, place)
    LEFT JOIN autopack.run AS r ON r.id = w.run
    LEFT JOIN autopack.phase AS p ON p.run_id = w.run AND p.id = w.phase
    LEFT JOIN autopack.audit_head AS h ON h.chain = 'run/' || w.run;
END $$;

-- Writes what several transactions of one run each have written, as one. The fences of all are checked and held first,
-- and every trigger looks at every row. A run that is locked, or whose chain has moved since it was shown, is left out
-- with all that is written to it; the answer is the runs that are not. Anything else that is refused, or locked for
-- longer than a moment, refuses all: then each is to be written by itself, and nobody waits for the lock of another. p_heads: the head of each run's chain as it was shown.
CREATE FUNCTION autopack.move_all(p_scopes text[], p_epochs bigint[], p_runs text[], p_head_seqs bigint[],
    p_heads bytea[], p_what text[], p_run text[], p_id text[], p_number bigint[], p_project text[], p_state text[],
    p_version bigint[], p_doc text[], p_chain text[], p_seq bigint[], p_body text[], p_prev bytea[], p_hash bytea[],
    p_ats bigint[], p_at bigint) RETURNS text[]
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan SET lock_timeout = '1s' AS $$
DECLARE
    held   text;
    many   bigint;
    done   bigint;
    wanted bigint := 0;
    locked text[];
    moved  text[];
BEGIN
    SELECT count(*), '|' || string_agg(f.scope || '#' || f.epoch, '|') || '|' INTO many, held FROM (
        SELECT s.scope, s.epoch FROM unnest(p_scopes, p_epochs) AS w (scope, epoch)
        JOIN autopack.fence AS s ON s.scope = w.scope AND s.epoch = w.epoch ORDER BY s.scope
        FOR SHARE OF s SKIP LOCKED) AS f;
    IF many <> cardinality(p_scopes) THEN
        RAISE EXCEPTION 'FENCED' USING ERRCODE = 'AP001';
    END IF;
    PERFORM set_config('autopack.fence', coalesce(held, ''), true);
    SELECT array_agg(l.id) INTO locked FROM (
        SELECT r.id FROM autopack.run AS r WHERE r.id = ANY (p_runs) ORDER BY r.id
        FOR NO KEY UPDATE SKIP LOCKED) AS l;
    -- Statements of their own, so that they see what was committed before the rows were locked. The heads are locked
    -- before the ledger, as everywhere.
    SELECT coalesce(array_agg(l.run), '{}') INTO moved FROM (
        SELECT w.run FROM unnest(p_runs, p_head_seqs, p_heads) AS w (run, seq, hash)
        JOIN autopack.audit_head AS h ON h.chain = 'run/' || w.run AND h.seq = w.seq AND h.hash = w.hash
        WHERE w.run = ANY (locked) ORDER BY h.chain FOR NO KEY UPDATE OF h SKIP LOCKED) AS l;
    IF 0 = ANY (p_head_seqs) THEN
        SELECT moved || coalesce(array_agg(w.run), '{}') INTO moved FROM unnest(p_runs, p_head_seqs) AS w (run, seq)
        WHERE w.run = ANY (locked) AND w.seq = 0
            AND NOT EXISTS (SELECT 1 FROM autopack.audit_head AS h WHERE h.chain = 'run/' || w.run);
    END IF;
    IF 'attempt+' = ANY (p_what) THEN
        INSERT INTO autopack.attempt (run_id, phase_id, number, state, version, doc)
        SELECT w.run, w.id, w.number, w.state, w.version, w.doc::json
        FROM unnest(p_what, p_run, p_id, p_number, p_state, p_version, p_doc)
            AS w (what, run, id, number, state, version, doc)
        WHERE w.what = 'attempt+' AND w.run = ANY (moved);
    END IF;
    IF 'run' = ANY (p_what) THEN
        UPDATE autopack.run AS r SET state = w.state, version = r.version + 1, doc = w.doc::json
        FROM unnest(p_what, p_run, p_state, p_version, p_doc) AS w (what, run, state, version, doc)
        WHERE w.what = 'run' AND w.run = ANY (moved) AND r.id = w.run AND r.version = w.version;
        GET DIAGNOSTICS done = ROW_COUNT;
        wanted := wanted + done;
    END IF;
    IF 'phase' = ANY (p_what) THEN
        UPDATE autopack.phase AS p SET state = w.state, version = p.version + 1, doc = w.doc::json
        FROM unnest(p_what, p_run, p_id, p_state, p_version, p_doc) AS w (what, run, id, state, version, doc)
        WHERE w.what = 'phase' AND w.run = ANY (moved) AND p.run_id = w.run AND p.id = w.id
            AND p.version = w.version;
        GET DIAGNOSTICS done = ROW_COUNT;
        wanted := wanted + done;
    END IF;
    IF 'attempt' = ANY (p_what) THEN
        UPDATE autopack.attempt AS a SET state = w.state, version = a.version + 1, doc = w.doc::json
        FROM unnest(p_what, p_run, p_id, p_number, p_state, p_version, p_doc)
            AS w (what, run, id, number, state, version, doc)
        WHERE w.what = 'attempt' AND w.run = ANY (moved) AND a.run_id = w.run AND a.phase_id = w.id
            AND a.number = w.number AND a.version = w.version;
        GET DIAGNOSTICS done = ROW_COUNT;
        wanted := wanted + done;
    END IF;
    SELECT count(*) INTO many FROM unnest(p_what, p_run) AS w (what, run)
    WHERE w.what IN ('run', 'phase', 'attempt') AND w.run = ANY (moved);
    IF many <> wanted THEN
        RAISE EXCEPTION 'it changed' USING ERRCODE = 'AP005';
    END IF;
    INSERT INTO autopack.event (run_id, seq, doc)
    SELECT w.run, w.number, w.doc::json FROM unnest(p_what, p_run, p_number, p_doc) AS w (what, run, number, doc)
    WHERE w.what = 'event+' AND w.run = ANY (moved);
    -- Positions at once: others that are committed together wait for the ledger as long as one commit takes, but for so
    -- many records that is less than to write each of them again.
    SELECT count(*) INTO many FROM unnest(p_chain) AS r (chain) WHERE substr(r.chain, 5) = ANY (moved);
    IF many > 0 THEN
        PERFORM autopack.number_pending();
        UPDATE autopack.ledger SET leaves = leaves + many RETURNING leaves - many INTO done;
        PERFORM set_config('autopack.leaves', 'given', true);
        INSERT INTO autopack.audit (chain, seq, leaf_index, body, prev_hash, hash, at)
        SELECT r.chain, r.seq, done + row_number() OVER (ORDER BY r.place) - 1, r.body, r.prev, r.hash, r.at
        FROM unnest(p_chain, p_seq, p_body, p_prev, p_hash, p_ats) WITH ORDINALITY
            AS r (chain, seq, body, prev, hash, at, place)
        WHERE substr(r.chain, 5) = ANY (moved) ORDER BY r.place;
        PERFORM set_config('autopack.leaves', '', true);
    END IF;
    PERFORM autopack.tick_all(p_at, 1, many);
    RETURN moved;
END $$;
