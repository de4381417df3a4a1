-- The control store of one machine. Columns hold what is searched, compared or guarded; `doc` holds the rest of a
-- row as JSON with a version `v`. Instants are milliseconds since 1970. Rules that must hold whatever the code does
-- stand here as triggers; their messages begin with a code that the adapter knows:
--   AP002 run    a write to run state without the run's or the director's current fence
--   AP003 <why>  a move that the tables of the domain do not list, or a write to a row that has ended
--   AP004 <what> a change to something that is only ever added to
-- The messages are literals and the adapter adds the row: an SQLite before 3.47 takes no expression in RAISE, and one
-- such trigger keeps it from opening the file at all.

-- 1. The store itself.

CREATE TABLE cluster (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    cluster_id  TEXT    NOT NULL,
    incarnation INTEGER NOT NULL CHECK (incarnation BETWEEN 0 AND 16777215),
    clock_ms    INTEGER NOT NULL,
    commits     INTEGER NOT NULL CHECK (commits >= 0),
    leaves      INTEGER NOT NULL CHECK (leaves >= 0),
    opened_by   TEXT -- set while a process has the store open; still set at the next start: it did not stop cleanly
) STRICT;

CREATE TRIGGER cluster_only_rises BEFORE UPDATE ON cluster
WHEN NEW.id <> OLD.id OR NEW.cluster_id <> OLD.cluster_id OR NEW.incarnation < OLD.incarnation
    OR NEW.clock_ms < OLD.clock_ms OR NEW.commits < OLD.commits OR NEW.leaves < OLD.leaves
BEGIN SELECT RAISE(ABORT, 'AP004 the cluster row only rises'); END;
CREATE TRIGGER cluster_stays BEFORE DELETE ON cluster
BEGIN SELECT RAISE(ABORT, 'AP004 the cluster row stays'); END;

-- 2. Fences. `fence_held` lists the fences of the running write transaction: filled when it begins, emptied before it
-- commits, so it is empty in every committed state and a write from anywhere else is unfenced.

CREATE TABLE fence (
    scope      TEXT    PRIMARY KEY,
    epoch      INTEGER NOT NULL CHECK (epoch BETWEEN 1 AND 1099511627775),
    holder     TEXT    NOT NULL,
    granted_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE fence_held (
    scope TEXT    PRIMARY KEY,
    epoch INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER fence_only_rises BEFORE UPDATE ON fence WHEN NEW.scope <> OLD.scope OR NEW.epoch <= OLD.epoch
BEGIN SELECT RAISE(ABORT, 'AP004 epochs only rise'); END;
CREATE TRIGGER fence_stays BEFORE DELETE ON fence
BEGIN SELECT RAISE(ABORT, 'AP004 fences stay'); END;

-- 3. The tables of the domain, filled from code at every start.

CREATE TABLE legal_move (
    machine    TEXT NOT NULL,
    from_state TEXT NOT NULL,
    to_state   TEXT NOT NULL,
    PRIMARY KEY (machine, from_state, to_state)
) STRICT, WITHOUT ROWID;

CREATE TABLE final_state (
    machine TEXT NOT NULL,
    state   TEXT NOT NULL,
    PRIMARY KEY (machine, state)
) STRICT, WITHOUT ROWID;

-- 4. Projects, runs, phases, attempts, leases.

CREATE TABLE project (
    id  TEXT PRIMARY KEY,
    doc TEXT NOT NULL CHECK (json_valid(doc))
) STRICT, WITHOUT ROWID;

CREATE TABLE run (
    seq     INTEGER PRIMARY KEY,
    id      TEXT    NOT NULL UNIQUE,
    project TEXT    NOT NULL,
    state   TEXT    NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 0),
    doc     TEXT    NOT NULL CHECK (json_valid(doc))
) STRICT;
CREATE INDEX run_by_project ON run (project, state, seq);
CREATE INDEX run_by_state ON run (state, seq);

CREATE TABLE phase (
    run_id  TEXT    NOT NULL REFERENCES run (id),
    id      TEXT    NOT NULL,
    ordinal INTEGER NOT NULL CHECK (ordinal >= 0),
    state   TEXT    NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 0),
    doc     TEXT    NOT NULL CHECK (json_valid(doc)),
    PRIMARY KEY (run_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX phase_by_ordinal ON phase (run_id, ordinal);
CREATE INDEX phase_by_state ON phase (state, run_id);

CREATE TABLE attempt (
    run_id   TEXT    NOT NULL,
    phase_id TEXT    NOT NULL,
    number   INTEGER NOT NULL CHECK (number >= 1),
    state    TEXT    NOT NULL,
    version  INTEGER NOT NULL CHECK (version >= 0),
    doc      TEXT    NOT NULL CHECK (json_valid(doc)),
    PRIMARY KEY (run_id, phase_id, number),
    FOREIGN KEY (run_id, phase_id) REFERENCES phase (run_id, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX attempt_succeeds_once ON attempt (run_id, phase_id) WHERE state = 'succeeded';

CREATE TABLE lease (
    seq     INTEGER PRIMARY KEY,
    id      TEXT    NOT NULL UNIQUE,
    run_id  TEXT    NOT NULL REFERENCES run (id),
    project TEXT    NOT NULL,
    state   TEXT    NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 0),
    doc     TEXT    NOT NULL CHECK (json_valid(doc))
) STRICT;
CREATE UNIQUE INDEX lease_active_once ON lease (run_id) WHERE state IN ('granting', 'held');
CREATE INDEX lease_active ON lease (project, seq) WHERE state IN ('granting', 'held');
CREATE INDEX lease_by_run ON lease (run_id, seq);

-- Every start and end of an active lease, by the commit that brought it; what the peak is proven from.
CREATE TABLE lease_history (
    seq       INTEGER PRIMARY KEY,
    commit_no INTEGER NOT NULL,
    project   TEXT    NOT NULL,
    lease     TEXT    NOT NULL,
    change    INTEGER NOT NULL CHECK (change IN (-1, 1))
) STRICT;
CREATE INDEX lease_history_by_project ON lease_history (project, commit_no, change);

CREATE TRIGGER lease_history_start AFTER INSERT ON lease WHEN NEW.state IN ('granting', 'held')
BEGIN
    INSERT INTO lease_history (commit_no, project, lease, change)
    SELECT commits, NEW.project, NEW.id, 1 FROM cluster;
END;
CREATE TRIGGER lease_history_end AFTER UPDATE OF state ON lease
WHEN OLD.state IN ('granting', 'held') AND NEW.state NOT IN ('granting', 'held')
BEGIN
    INSERT INTO lease_history (commit_no, project, lease, change)
    SELECT commits, NEW.project, NEW.id, -1 FROM cluster;
END;

-- 5. Decisions, requests, votes, commands.

CREATE TABLE decision (
    seq    INTEGER PRIMARY KEY,
    id     TEXT    NOT NULL UNIQUE,
    run_id TEXT    NOT NULL REFERENCES run (id),
    doc    TEXT    NOT NULL CHECK (json_valid(doc))
) STRICT;
CREATE INDEX decision_by_run ON decision (run_id, seq);

CREATE TABLE request (
    seq            INTEGER PRIMARY KEY,
    id             TEXT    NOT NULL UNIQUE,
    run_id         TEXT    NOT NULL REFERENCES run (id),
    phase_id       TEXT    NOT NULL,
    state          TEXT    NOT NULL,
    version        INTEGER NOT NULL CHECK (version >= 0),
    subject_digest TEXT    NOT NULL,
    expires_at     INTEGER NOT NULL,
    doc            TEXT    NOT NULL CHECK (json_valid(doc))
) STRICT;
CREATE UNIQUE INDEX request_pending_once ON request (subject_digest) WHERE state = 'pending';
CREATE INDEX request_by_run ON request (run_id, phase_id, seq);
CREATE INDEX request_by_state ON request (state, seq);
CREATE INDEX request_by_expiry ON request (expires_at) WHERE state IN ('pending', 'approved');

CREATE TABLE vote (
    seq        INTEGER PRIMARY KEY,
    request_id TEXT    NOT NULL REFERENCES request (id),
    principal  TEXT    NOT NULL,
    doc        TEXT    NOT NULL CHECK (json_valid(doc)),
    UNIQUE (request_id, principal)
) STRICT;

CREATE TABLE command (
    seq     INTEGER PRIMARY KEY,
    id      TEXT    NOT NULL UNIQUE,
    run_id  TEXT    NOT NULL REFERENCES run (id),
    done_at INTEGER,
    result  TEXT,
    doc     TEXT    NOT NULL CHECK (json_valid(doc)),
    CHECK ((done_at IS NULL) = (result IS NULL))
) STRICT;
CREATE INDEX command_open ON command (run_id, seq) WHERE done_at IS NULL;

-- 6. Moves of branches, and the size windows they fill.

CREATE TABLE apply (
    seq        INTEGER PRIMARY KEY,
    id         TEXT    NOT NULL UNIQUE,
    run_id     TEXT    NOT NULL REFERENCES run (id),
    target_ref TEXT    NOT NULL,
    request_id TEXT    REFERENCES request (id),
    state      TEXT    NOT NULL,
    version    INTEGER NOT NULL CHECK (version >= 0),
    doc        TEXT    NOT NULL CHECK (json_valid(doc))
) STRICT;
CREATE UNIQUE INDEX apply_prepared_once ON apply (target_ref) WHERE state = 'prepared';
CREATE UNIQUE INDEX apply_consumes_once ON apply (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX apply_by_run ON apply (run_id, seq);

CREATE TABLE size_window (
    apply_id TEXT    NOT NULL REFERENCES apply (id) DEFERRABLE INITIALLY DEFERRED, -- either may be added first
    class    TEXT    NOT NULL,
    run_id   TEXT    NOT NULL,
    project  TEXT    NOT NULL,
    lines    INTEGER NOT NULL CHECK (lines >= 0),
    at       INTEGER NOT NULL,
    PRIMARY KEY (apply_id, class)
) STRICT, WITHOUT ROWID;
CREATE INDEX size_window_by_run ON size_window (run_id, class, lines);
CREATE INDEX size_window_by_project ON size_window (project, at, class, lines);

-- 7. Events, notices, idempotent answers.

CREATE TABLE event (
    run_id TEXT    NOT NULL REFERENCES run (id),
    seq    INTEGER NOT NULL CHECK (seq >= 1),
    doc    TEXT    NOT NULL CHECK (json_valid(doc)),
    PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE notice (
    seq     INTEGER PRIMARY KEY,
    id      TEXT    NOT NULL UNIQUE,
    sent_at INTEGER,
    doc     TEXT    NOT NULL CHECK (json_valid(doc))
) STRICT;
CREATE INDEX notice_unsent ON notice (seq) WHERE sent_at IS NULL;

CREATE TABLE idem (
    key       TEXT    NOT NULL,
    principal TEXT    NOT NULL,
    method    TEXT    NOT NULL,
    call      BLOB    NOT NULL CHECK (length(call) = 32),
    answer    BLOB    NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (key, principal, method)
) STRICT, WITHOUT ROWID;
CREATE INDEX idem_by_age ON idem (at);

-- 8. The audit log. The database keeps the heads and refuses a record that does not follow its head.

CREATE TABLE audit (
    chain      TEXT    NOT NULL,
    seq        INTEGER NOT NULL CHECK (seq >= 1),
    leaf_index INTEGER NOT NULL UNIQUE CHECK (leaf_index >= 0),
    body       TEXT    NOT NULL,
    prev_hash  BLOB    NOT NULL CHECK (length(prev_hash) = 32),
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    at         INTEGER NOT NULL,
    PRIMARY KEY (chain, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_head (
    chain TEXT    PRIMARY KEY,
    seq   INTEGER NOT NULL,
    hash  BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER audit_follows BEFORE INSERT ON audit
WHEN NEW.seq <> coalesce((SELECT seq FROM audit_head WHERE chain = NEW.chain), 0) + 1
    OR NEW.prev_hash <> coalesce((SELECT hash FROM audit_head WHERE chain = NEW.chain), zeroblob(32))
    OR NEW.leaf_index <> (SELECT leaves FROM cluster)
BEGIN SELECT RAISE(ABORT, 'AP004 an audit record must follow the head of its chain'); END;
CREATE TRIGGER audit_moves_head AFTER INSERT ON audit
BEGIN
    INSERT INTO audit_head (chain, seq, hash) VALUES (NEW.chain, NEW.seq, NEW.hash)
    ON CONFLICT (chain) DO UPDATE SET seq = excluded.seq, hash = excluded.hash;
    UPDATE cluster SET leaves = leaves + 1;
END;
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'AP004 the audit log is append-only'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'AP004 the audit log is append-only'); END;
CREATE TRIGGER audit_head_follows BEFORE UPDATE ON audit_head
WHEN NEW.chain <> OLD.chain OR NEW.seq <> OLD.seq + 1
BEGIN SELECT RAISE(ABORT, 'AP004 the head of an audit chain only rises'); END;
CREATE TRIGGER audit_head_no_delete BEFORE DELETE ON audit_head
BEGIN SELECT RAISE(ABORT, 'AP004 the head of an audit chain stays'); END;

-- 9. Run state is written under a current fence only.

CREATE TRIGGER run_fenced_insert BEFORE INSERT ON run
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER run_fenced_update BEFORE UPDATE ON run
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER phase_fenced_insert BEFORE INSERT ON phase
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.run_id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER phase_fenced_update BEFORE UPDATE ON phase
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.run_id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER attempt_fenced_insert BEFORE INSERT ON attempt
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.run_id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER attempt_fenced_update BEFORE UPDATE ON attempt
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.run_id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER lease_fenced_insert BEFORE INSERT ON lease
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.run_id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER lease_fenced_update BEFORE UPDATE ON lease
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.run_id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER apply_fenced_insert BEFORE INSERT ON apply
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.run_id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER apply_fenced_update BEFORE UPDATE ON apply
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.run_id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER size_window_fenced_insert BEFORE INSERT ON size_window
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.run_id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;

-- 10. States move by the tables only; a row that has ended is never written again.

CREATE TRIGGER run_moves BEFORE UPDATE OF state ON run
WHEN NEW.state <> OLD.state AND NOT EXISTS (
    SELECT 1 FROM legal_move WHERE machine = 'run' AND from_state = OLD.state AND to_state = NEW.state)
BEGIN SELECT RAISE(ABORT, 'AP003 no table lists this move'); END;
CREATE TRIGGER run_ends BEFORE UPDATE ON run
WHEN EXISTS (SELECT 1 FROM final_state WHERE machine = 'run' AND state = OLD.state)
BEGIN SELECT RAISE(ABORT, 'AP003 it has ended'); END;
CREATE TRIGGER phase_moves BEFORE UPDATE OF state ON phase
WHEN NEW.state <> OLD.state AND NOT EXISTS (
    SELECT 1 FROM legal_move WHERE machine = 'phase' AND from_state = OLD.state AND to_state = NEW.state)
BEGIN SELECT RAISE(ABORT, 'AP003 no table lists this move'); END;
CREATE TRIGGER phase_ends BEFORE UPDATE ON phase
WHEN EXISTS (SELECT 1 FROM final_state WHERE machine = 'phase' AND state = OLD.state)
BEGIN SELECT RAISE(ABORT, 'AP003 it has ended'); END;
CREATE TRIGGER attempt_moves BEFORE UPDATE OF state ON attempt
WHEN NEW.state <> OLD.state AND NOT EXISTS (
    SELECT 1 FROM legal_move WHERE machine = 'attempt' AND from_state = OLD.state AND to_state = NEW.state)
BEGIN SELECT RAISE(ABORT, 'AP003 no table lists this move'); END;
CREATE TRIGGER attempt_ends BEFORE UPDATE ON attempt
WHEN EXISTS (SELECT 1 FROM final_state WHERE machine = 'attempt' AND state = OLD.state)
BEGIN SELECT RAISE(ABORT, 'AP003 it has ended'); END;
CREATE TRIGGER request_moves BEFORE UPDATE OF state ON request
WHEN NEW.state <> OLD.state AND NOT EXISTS (
    SELECT 1 FROM legal_move WHERE machine = 'request' AND from_state = OLD.state AND to_state = NEW.state)
BEGIN SELECT RAISE(ABORT, 'AP003 no table lists this move'); END;
CREATE TRIGGER request_ends BEFORE UPDATE ON request
WHEN EXISTS (SELECT 1 FROM final_state WHERE machine = 'request' AND state = OLD.state)
BEGIN SELECT RAISE(ABORT, 'AP003 it has ended'); END;
CREATE TRIGGER lease_moves BEFORE UPDATE OF state ON lease
WHEN NEW.state <> OLD.state AND NOT EXISTS (
    SELECT 1 FROM legal_move WHERE machine = 'lease' AND from_state = OLD.state AND to_state = NEW.state)
BEGIN SELECT RAISE(ABORT, 'AP003 no table lists this move'); END;
CREATE TRIGGER lease_ends BEFORE UPDATE ON lease
WHEN EXISTS (SELECT 1 FROM final_state WHERE machine = 'lease' AND state = OLD.state)
BEGIN SELECT RAISE(ABORT, 'AP003 it has ended'); END;
CREATE TRIGGER apply_moves BEFORE UPDATE OF state ON apply
WHEN NEW.state <> OLD.state AND NOT EXISTS (
    SELECT 1 FROM legal_move WHERE machine = 'apply' AND from_state = OLD.state AND to_state = NEW.state)
BEGIN SELECT RAISE(ABORT, 'AP003 no table lists this move'); END;
CREATE TRIGGER apply_ends BEFORE UPDATE ON apply
WHEN EXISTS (SELECT 1 FROM final_state WHERE machine = 'apply' AND state = OLD.state)
BEGIN SELECT RAISE(ABORT, 'AP003 it has ended'); END;

-- 11. History stays.

CREATE TRIGGER run_no_delete BEFORE DELETE ON run BEGIN SELECT RAISE(ABORT, 'AP004 run rows stay'); END;
CREATE TRIGGER phase_no_delete BEFORE DELETE ON phase BEGIN SELECT RAISE(ABORT, 'AP004 phase rows stay'); END;
CREATE TRIGGER attempt_no_delete BEFORE DELETE ON attempt BEGIN SELECT RAISE(ABORT, 'AP004 attempt rows stay'); END;
CREATE TRIGGER lease_no_delete BEFORE DELETE ON lease BEGIN SELECT RAISE(ABORT, 'AP004 lease rows stay'); END;
CREATE TRIGGER lease_history_no_delete BEFORE DELETE ON lease_history BEGIN SELECT RAISE(ABORT, 'AP004 lease_history rows stay'); END;
CREATE TRIGGER decision_no_delete BEFORE DELETE ON decision BEGIN SELECT RAISE(ABORT, 'AP004 decision rows stay'); END;
CREATE TRIGGER request_no_delete BEFORE DELETE ON request BEGIN SELECT RAISE(ABORT, 'AP004 request rows stay'); END;
CREATE TRIGGER vote_no_delete BEFORE DELETE ON vote BEGIN SELECT RAISE(ABORT, 'AP004 vote rows stay'); END;
CREATE TRIGGER command_no_delete BEFORE DELETE ON command BEGIN SELECT RAISE(ABORT, 'AP004 command rows stay'); END;
CREATE TRIGGER apply_no_delete BEFORE DELETE ON apply BEGIN SELECT RAISE(ABORT, 'AP004 apply rows stay'); END;
CREATE TRIGGER size_window_no_delete BEFORE DELETE ON size_window BEGIN SELECT RAISE(ABORT, 'AP004 size_window rows stay'); END;
CREATE TRIGGER event_no_delete BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'AP004 event rows stay'); END;
CREATE TRIGGER decision_no_update BEFORE UPDATE ON decision BEGIN SELECT RAISE(ABORT, 'AP004 decision rows never change'); END;
CREATE TRIGGER vote_no_update BEFORE UPDATE ON vote BEGIN SELECT RAISE(ABORT, 'AP004 vote rows never change'); END;
CREATE TRIGGER lease_history_no_update BEFORE UPDATE ON lease_history BEGIN SELECT RAISE(ABORT, 'AP004 lease_history rows never change'); END;
CREATE TRIGGER size_window_no_update BEFORE UPDATE ON size_window BEGIN SELECT RAISE(ABORT, 'AP004 size_window rows never change'); END;
CREATE TRIGGER event_no_update BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'AP004 event rows never change'); END;
