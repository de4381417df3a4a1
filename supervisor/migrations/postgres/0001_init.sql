-- The control store of a cluster. Columns hold what is searched, compared or guarded; `doc` holds the rest of a row as
-- JSON with a version `v`, in type json and not jsonb: digests are taken over it, so it stays as it was written.
-- Rules that must hold whatever the code does stand here as triggers; the adapter knows their codes:
--   AP001        the epoch a writer holds is not the current one
--   AP002        a write to run state without the run's or the director's current fence
--   AP003 <why>  a move that the tables of the domain do not list, or a write to a row that has ended
--   AP004 <what> a change to something that is only ever added to
-- Whoever runs this has made the schema and its table of migrations. Names are always qualified, since functions run
-- with the search path of whoever calls them. Keys are compared byte by byte (COLLATE "C"), as in the other engine.

-- 1. Time. Tests put another `wall` in the place of this one.

CREATE FUNCTION autopack.wall() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT clock_timestamp() $$;
CREATE FUNCTION autopack.instant(p_millis bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT timestamptz '1970-01-01 00:00:00+00' + p_millis * interval '1 millisecond' $$;
CREATE FUNCTION autopack.millis(p_at timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT floor(extract(epoch FROM p_at) * 1000)::bigint $$;

-- The instant of the newest commits and how many there were, spread over rows so that writers do not queue for one:
-- a commit takes any row that nobody has (`tick`), and whoever wants to know looks at all of them.
CREATE TABLE autopack.clock (
    slot    integer     PRIMARY KEY,
    at      timestamptz NOT NULL,
    commits bigint      NOT NULL CHECK (commits >= 0)
) WITH (fillfactor = 20);
INSERT INTO autopack.clock SELECT slot, timestamptz '1970-01-01 00:00:00+00', 0 FROM generate_series(0, 31) AS slot;

-- The store's clock: the server's, but never behind a commit or behind what the caller has seen.
CREATE FUNCTION autopack.now_millis(p_seen bigint) RETURNS bigint LANGUAGE sql VOLATILE
AS $$ SELECT greatest(p_seen, autopack.millis(autopack.wall()), autopack.millis(max(at))) FROM autopack.clock $$;

-- The last thing a transaction does: nothing waits for what it locks here, unless all rows are taken.
CREATE FUNCTION autopack.tick(p_at bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE mine integer;
BEGIN
    SELECT slot INTO mine FROM autopack.clock FOR UPDATE SKIP LOCKED LIMIT 1;
    UPDATE autopack.clock SET at = greatest(at, autopack.instant(p_at)), commits = commits + 1
    WHERE slot = coalesce(mine, pg_backend_pid() % 32);
END $$;

-- 2. The store itself.

CREATE TABLE autopack.cluster (
    id                integer PRIMARY KEY CHECK (id = 1),
    cluster_id        text    NOT NULL,
    incarnation       bigint  NOT NULL CHECK (incarnation BETWEEN 0 AND 16777215),
    system_identifier text    NOT NULL -- of the database system this store was made on
);

-- What is numbered over the whole store, in commit order: records of the log, and commits that change which leases
-- are active. It is locked when everything else has been done.
CREATE TABLE autopack.ledger (
    id      integer PRIMARY KEY CHECK (id = 1),
    leaves  bigint  NOT NULL CHECK (leaves >= 0),
    commits bigint  NOT NULL CHECK (commits >= 0)
) WITH (fillfactor = 20);
INSERT INTO autopack.ledger VALUES (1, 0, 0);

CREATE FUNCTION autopack.only_rises() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad boolean;
BEGIN
    CASE TG_TABLE_NAME
        WHEN 'cluster' THEN bad := NEW.id <> OLD.id OR NEW.cluster_id <> OLD.cluster_id
            OR NEW.incarnation < OLD.incarnation OR NEW.system_identifier <> OLD.system_identifier;
        WHEN 'ledger' THEN bad := NEW.id <> OLD.id OR NEW.leaves < OLD.leaves OR NEW.commits < OLD.commits;
        WHEN 'clock' THEN bad := NEW.slot <> OLD.slot OR NEW.at < OLD.at OR NEW.commits < OLD.commits;
        WHEN 'fence' THEN bad := NEW.scope <> OLD.scope OR NEW.epoch <= OLD.epoch;
        WHEN 'audit_head' THEN bad := NEW.chain <> OLD.chain OR NEW.seq <> OLD.seq + 1;
    END CASE;
    IF bad THEN
        RAISE EXCEPTION '% rows only rise', TG_TABLE_NAME USING ERRCODE = 'AP004';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION autopack.stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '% rows stay', TG_TABLE_NAME USING ERRCODE = 'AP004'; END $$;

CREATE FUNCTION autopack.never_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '% rows never change', TG_TABLE_NAME USING ERRCODE = 'AP004'; END $$;

-- 3. Fences. `autopack.fence` is a setting of the transaction that lists the fences it holds, as |scope#epoch|...|; it
-- is empty in every other transaction, so a write from anywhere else is unfenced.

CREATE TABLE autopack.fence (
    scope      text        COLLATE "C" PRIMARY KEY,
    epoch      bigint      NOT NULL CHECK (epoch BETWEEN 1 AND 1099511627775),
    holder     text        NOT NULL,
    granted_at timestamptz NOT NULL
);

CREATE FUNCTION autopack.fence_hold(p_scope text, p_epoch bigint) RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT set_config('autopack.fence',
        coalesce(nullif(current_setting('autopack.fence', true), ''), '|') || p_scope || '#' || p_epoch || '|', true)
$$;

-- FOR SHARE: writers of one scope do not wait for each other, and a bump waits for all of them.
CREATE FUNCTION autopack.fence_check(p_scope text, p_epoch bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE current bigint;
BEGIN
    SELECT epoch INTO current FROM autopack.fence WHERE scope = p_scope FOR SHARE;
    IF current IS DISTINCT FROM p_epoch THEN
        RAISE EXCEPTION 'FENCED scope=% token=% current=%', p_scope, p_epoch, current
            USING ERRCODE = 'AP001', DETAIL = p_scope || '#' || coalesce(current::text, '');
    END IF;
    PERFORM autopack.fence_hold(p_scope, p_epoch);
END $$;

CREATE FUNCTION autopack.fence_bump(p_scope text, p_holder text, p_at bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE
AS $$
DECLARE raised bigint;
BEGIN
    INSERT INTO autopack.fence AS f (scope, epoch, holder, granted_at)
    VALUES (p_scope, 1, p_holder, autopack.instant(p_at))
    ON CONFLICT (scope) DO UPDATE
    SET epoch = f.epoch + 1, holder = excluded.holder, granted_at = excluded.granted_at
    RETURNING epoch INTO raised;
    PERFORM autopack.fence_hold(p_scope, raised);
    RETURN raised;
END $$;

-- Begins a write: its fences, in the order given, then its instant.
CREATE FUNCTION autopack.begin_write(p_scopes text[], p_epochs bigint[], p_seen bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    FOR n IN 1 .. coalesce(array_length(p_scopes, 1), 0) LOOP
        PERFORM autopack.fence_check(p_scopes[n], p_epochs[n]);
    END LOOP;
    RETURN autopack.now_millis(p_seen);
END $$;

CREATE FUNCTION autopack.needs_fence() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    held text := coalesce(current_setting('autopack.fence', true), '');
    run  text;
BEGIN
    IF TG_TABLE_NAME = 'run' THEN run := NEW.id; ELSE run := NEW.run_id; END IF;
    IF NOT EXISTS (SELECT 1 FROM autopack.fence AS f WHERE f.scope IN ('director', 'run/' || run)
                   AND position('|' || f.scope || '#' || f.epoch || '|' IN held) > 0) THEN
        RAISE EXCEPTION 'run/%', run USING ERRCODE = 'AP002';
    END IF;
    RETURN NEW;
END $$;

-- 4. The tables of the domain, filled from code at every start.

CREATE TABLE autopack.legal_move (
    machine    text NOT NULL,
    from_state text NOT NULL,
    to_state   text NOT NULL,
    PRIMARY KEY (machine, from_state, to_state)
);

CREATE TABLE autopack.final_state (
    machine text NOT NULL,
    state   text NOT NULL,
    PRIMARY KEY (machine, state)
);

CREATE FUNCTION autopack.moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM autopack.final_state WHERE machine = TG_TABLE_NAME AND state = OLD.state) THEN
        RAISE EXCEPTION 'it has ended' USING ERRCODE = 'AP003';
    END IF;
    IF NEW.state <> OLD.state AND NOT EXISTS (
        SELECT 1 FROM autopack.legal_move
        WHERE machine = TG_TABLE_NAME AND from_state = OLD.state AND to_state = NEW.state) THEN
        RAISE EXCEPTION 'no table lists this move' USING ERRCODE = 'AP003';
    END IF;
    RETURN NEW;
END $$;

-- 5. Projects, runs, phases, attempts, leases.

CREATE TABLE autopack.project (
    id  text COLLATE "C" PRIMARY KEY,
    doc json NOT NULL
);

-- The gate of a project: whoever counts its active leases in order to add one holds this row.
CREATE TABLE autopack.gate (
    project text COLLATE "C" PRIMARY KEY
);

CREATE FUNCTION autopack.lock_gate(p_project text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO autopack.gate VALUES (p_project) ON CONFLICT DO NOTHING;
    PERFORM 1 FROM autopack.gate WHERE project = p_project FOR UPDATE;
END $$;

CREATE TABLE autopack.run (
    seq     bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    id      text   COLLATE "C" NOT NULL UNIQUE,
    project text   NOT NULL,
    state   text   NOT NULL,
    version bigint NOT NULL CHECK (version >= 0),
    doc     json   NOT NULL
);
CREATE INDEX run_by_project ON autopack.run (project, state, seq);
CREATE INDEX run_by_state ON autopack.run (state, seq);

CREATE TABLE autopack.phase (
    run_id  text   COLLATE "C" NOT NULL REFERENCES autopack.run (id),
    id      text   COLLATE "C" NOT NULL,
    ordinal bigint NOT NULL CHECK (ordinal >= 0),
    state   text   NOT NULL,
    version bigint NOT NULL CHECK (version >= 0),
    doc     json   NOT NULL,
    PRIMARY KEY (run_id, id)
);
CREATE UNIQUE INDEX phase_by_ordinal ON autopack.phase (run_id, ordinal);
CREATE INDEX phase_by_state ON autopack.phase (state, run_id);

CREATE TABLE autopack.attempt (
    run_id   text   COLLATE "C" NOT NULL,
    phase_id text   COLLATE "C" NOT NULL,
    number   bigint NOT NULL CHECK (number >= 1),
    state    text   NOT NULL,
    version  bigint NOT NULL CHECK (version >= 0),
    doc      json   NOT NULL,
    PRIMARY KEY (run_id, phase_id, number),
    FOREIGN KEY (run_id, phase_id) REFERENCES autopack.phase (run_id, id)
);
CREATE UNIQUE INDEX attempt_succeeds_once ON autopack.attempt (run_id, phase_id) WHERE state = 'succeeded';

CREATE TABLE autopack.lease (
    seq       bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    id        text   COLLATE "C" NOT NULL UNIQUE,
    run_id    text   COLLATE "C" NOT NULL REFERENCES autopack.run (id),
    workspace text   COLLATE "C" NOT NULL, -- today a run's own
    project   text   NOT NULL,
    state     text   NOT NULL,
    version   bigint NOT NULL CHECK (version >= 0),
    doc       json   NOT NULL
);
CREATE UNIQUE INDEX lease_active_once ON autopack.lease (run_id) WHERE state IN ('granting', 'held');
CREATE UNIQUE INDEX lease_workspace_once ON autopack.lease (workspace) WHERE state IN ('granting', 'held');
CREATE INDEX lease_active ON autopack.lease (project, seq) WHERE state IN ('granting', 'held');
CREATE INDEX lease_by_run ON autopack.lease (run_id, seq);

-- Every start and end of an active lease, by the commit that brought it; what the peak is proven from.
CREATE TABLE autopack.lease_history (
    seq       bigint  GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    commit_no bigint  NOT NULL,
    project   text    NOT NULL,
    lease     text    NOT NULL,
    change    integer NOT NULL CHECK (change IN (-1, 1))
);
CREATE INDEX lease_history_by_project ON autopack.lease_history (project, commit_no, change);

-- Runs at the end of the transaction, so that the numbers are in commit order without anybody waiting for long.
CREATE FUNCTION autopack.note_lease() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    change integer := (NEW.state IN ('granting', 'held'))::integer;
    number bigint := nullif(current_setting('autopack.commit_no', true), '')::bigint;
BEGIN
    IF TG_OP = 'UPDATE' THEN change := change - (OLD.state IN ('granting', 'held'))::integer; END IF;
    IF change = 0 THEN RETURN NULL; END IF;
    IF number IS NULL THEN
        UPDATE autopack.ledger SET commits = commits + 1 RETURNING commits INTO number;
        PERFORM set_config('autopack.commit_no', number::text, true);
    END IF;
    INSERT INTO autopack.lease_history (commit_no, project, lease, change)
    VALUES (number, NEW.project, NEW.id, change);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER lease_history AFTER INSERT OR UPDATE ON autopack.lease DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION autopack.note_lease();

-- 6. Decisions, requests, votes, commands.

CREATE TABLE autopack.decision (
    seq    bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    id     text   COLLATE "C" NOT NULL UNIQUE,
    run_id text   COLLATE "C" NOT NULL REFERENCES autopack.run (id),
    doc    json   NOT NULL
);
CREATE INDEX decision_by_run ON autopack.decision (run_id, seq);

CREATE TABLE autopack.request (
    seq            bigint      GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    id             text        COLLATE "C" NOT NULL UNIQUE,
    run_id         text        COLLATE "C" NOT NULL REFERENCES autopack.run (id),
    phase_id       text        COLLATE "C" NOT NULL,
    state          text        NOT NULL,
    version        bigint      NOT NULL CHECK (version >= 0),
    subject_digest text        NOT NULL,
    expires_at     timestamptz NOT NULL,
    doc            json        NOT NULL
);
CREATE UNIQUE INDEX request_pending_once ON autopack.request (subject_digest) WHERE state = 'pending';
CREATE INDEX request_by_run ON autopack.request (run_id, phase_id, seq);
CREATE INDEX request_by_state ON autopack.request (state, seq);
CREATE INDEX request_by_expiry ON autopack.request (expires_at) WHERE state IN ('pending', 'approved');

CREATE TABLE autopack.vote (
    seq        bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    request_id text   COLLATE "C" NOT NULL REFERENCES autopack.request (id),
    principal  text   NOT NULL,
    doc        json   NOT NULL,
    UNIQUE (request_id, principal)
);

CREATE TABLE autopack.command (
    seq     bigint      GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    id      text        COLLATE "C" NOT NULL UNIQUE,
    run_id  text        COLLATE "C" NOT NULL REFERENCES autopack.run (id),
    done_at timestamptz,
    result  json, -- text, quoted
    doc     json        NOT NULL,
    CHECK ((done_at IS NULL) = (result IS NULL))
);
CREATE INDEX command_open ON autopack.command (run_id, seq) WHERE done_at IS NULL;

-- 7. Moves of branches, and the size windows they fill.

CREATE TABLE autopack.apply (
    seq        bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    id         text   COLLATE "C" NOT NULL UNIQUE,
    run_id     text   COLLATE "C" NOT NULL REFERENCES autopack.run (id),
    target_ref text   NOT NULL,
    request_id text   COLLATE "C" REFERENCES autopack.request (id),
    state      text   NOT NULL,
    version    bigint NOT NULL CHECK (version >= 0),
    doc        json   NOT NULL
);
CREATE UNIQUE INDEX apply_prepared_once ON autopack.apply (target_ref) WHERE state = 'prepared';
CREATE UNIQUE INDEX apply_consumes_once ON autopack.apply (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX apply_by_run ON autopack.apply (run_id, seq);

CREATE TABLE autopack.size_window (
    apply_id text        COLLATE "C" NOT NULL REFERENCES autopack.apply (id) DEFERRABLE INITIALLY DEFERRED,
    class    text        NOT NULL,
    run_id   text        COLLATE "C" NOT NULL,
    project  text        NOT NULL,
    lines    bigint      NOT NULL CHECK (lines >= 0),
    at       timestamptz NOT NULL,
    PRIMARY KEY (apply_id, class)
);
CREATE INDEX size_window_by_run ON autopack.size_window (run_id, class, lines);
CREATE INDEX size_window_by_project ON autopack.size_window (project, at, class, lines);

-- 8. Events, notices, idempotent answers.

CREATE TABLE autopack.event (
    run_id text   COLLATE "C" NOT NULL REFERENCES autopack.run (id),
    seq    bigint NOT NULL CHECK (seq >= 1),
    doc    json   NOT NULL,
    PRIMARY KEY (run_id, seq)
);

CREATE TABLE autopack.notice (
    seq     bigint      GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    id      text        COLLATE "C" NOT NULL UNIQUE,
    sent_at timestamptz,
    doc     json        NOT NULL
);
CREATE INDEX notice_unsent ON autopack.notice (seq) WHERE sent_at IS NULL;

CREATE TABLE autopack.idem (
    key       text        NOT NULL,
    principal text        NOT NULL,
    method    text        NOT NULL,
    call      bytea       NOT NULL CHECK (length(call) = 32),
    answer    bytea       NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (key, principal, method)
);
CREATE INDEX idem_by_age ON autopack.idem (at);

-- 9. The audit log. The database keeps the heads, numbers the whole, and refuses a record that does not follow.

CREATE TABLE autopack.audit (
    chain      text   COLLATE "C" NOT NULL,
    seq        bigint NOT NULL CHECK (seq >= 1),
    leaf_index bigint NOT NULL UNIQUE CHECK (leaf_index >= 0),
    body       text   NOT NULL,
    prev_hash  bytea  NOT NULL CHECK (length(prev_hash) = 32),
    hash       bytea  NOT NULL CHECK (length(hash) = 32),
    at         bigint NOT NULL, -- in milliseconds, as hashed
    PRIMARY KEY (chain, seq)
);

CREATE TABLE autopack.audit_head (
    chain text   COLLATE "C" PRIMARY KEY,
    seq   bigint NOT NULL, -- 0 as long as nobody has written to the chain
    hash  bytea  NOT NULL
) WITH (fillfactor = 50);

-- Locks the heads of chains, in the order given; whoever appends to several gives them sorted.
CREATE FUNCTION autopack.lock_heads(p_chains text[]) RETURNS TABLE (chain text, seq bigint, hash bytea)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE wanted text;
BEGIN
    FOREACH wanted IN ARRAY p_chains LOOP
        INSERT INTO autopack.audit_head VALUES (wanted, 0, decode(repeat('00', 32), 'hex')) ON CONFLICT DO NOTHING;
        RETURN QUERY SELECT h.chain, h.seq, h.hash FROM autopack.audit_head AS h WHERE h.chain = wanted FOR UPDATE;
    END LOOP;
END $$;

CREATE FUNCTION autopack.audit_follows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE head record;
BEGIN
    SELECT * INTO head FROM autopack.lock_heads(ARRAY[NEW.chain]);
    IF NEW.seq <> head.seq + 1 OR NEW.prev_hash <> head.hash THEN
        RAISE EXCEPTION 'an audit record must follow the head of its chain' USING ERRCODE = 'AP004';
    END IF;
    UPDATE autopack.audit_head SET seq = NEW.seq, hash = NEW.hash WHERE chain = NEW.chain;
    UPDATE autopack.ledger SET leaves = leaves + 1 RETURNING leaves - 1 INTO NEW.leaf_index;
    RETURN NEW;
END $$;
CREATE TRIGGER a_follows BEFORE INSERT ON autopack.audit FOR EACH ROW EXECUTE FUNCTION autopack.audit_follows();

CREATE FUNCTION autopack.head_begins() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.seq <> 0 OR NEW.hash <> decode(repeat('00', 32), 'hex') THEN
        RAISE EXCEPTION 'an audit chain begins with nothing' USING ERRCODE = 'AP004';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER a_begins BEFORE INSERT ON autopack.audit_head FOR EACH ROW EXECUTE FUNCTION autopack.head_begins();

-- 10. Who guards which table. Triggers of one kind run in the order of their names: the fence first.

DO $$
DECLARE noun text;
BEGIN
    FOREACH noun IN ARRAY ARRAY['run', 'phase', 'attempt', 'lease', 'apply', 'size_window'] LOOP
        EXECUTE format('CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON autopack.%I '
            'FOR EACH ROW EXECUTE FUNCTION autopack.needs_fence()', noun);
    END LOOP;
    FOREACH noun IN ARRAY ARRAY['run', 'phase', 'attempt', 'request', 'lease', 'apply'] LOOP
        EXECUTE format('CREATE TRIGGER b_moves BEFORE UPDATE ON autopack.%I '
            'FOR EACH ROW EXECUTE FUNCTION autopack.moves()', noun);
    END LOOP;
    FOREACH noun IN ARRAY ARRAY['cluster', 'ledger', 'clock', 'fence', 'audit_head'] LOOP
        EXECUTE format('CREATE TRIGGER c_rises BEFORE UPDATE ON autopack.%I '
            'FOR EACH ROW EXECUTE FUNCTION autopack.only_rises()', noun);
    END LOOP;
    FOREACH noun IN ARRAY ARRAY['decision', 'vote', 'lease_history', 'size_window', 'event', 'audit'] LOOP
        EXECUTE format('CREATE TRIGGER d_never_changes BEFORE UPDATE ON autopack.%I '
            'FOR EACH ROW EXECUTE FUNCTION autopack.never_changes()', noun);
    END LOOP;
    FOREACH noun IN ARRAY ARRAY['cluster', 'ledger', 'clock', 'fence', 'audit', 'audit_head', 'run', 'phase',
        'attempt', 'lease', 'lease_history', 'decision', 'request', 'vote', 'command', 'apply', 'size_window', 'event']
    LOOP
        EXECUTE format('CREATE TRIGGER e_stays BEFORE DELETE ON autopack.%I '
            'FOR EACH ROW EXECUTE FUNCTION autopack.stays()', noun);
        EXECUTE format('CREATE TRIGGER f_stays BEFORE TRUNCATE ON autopack.%I '
            'FOR EACH STATEMENT EXECUTE FUNCTION autopack.stays()', noun);
    END LOOP;
END $$;
