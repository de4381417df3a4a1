-- Budgets, breakers, credentials. What an attempt may use is reserved in the transaction that grants it and settled in
-- the one that ends it; a row counts from its insertion on, so sums over these rows are never behind.
CREATE TABLE spend (
    run_id      TEXT    NOT NULL REFERENCES run (id),
    epoch       INTEGER NOT NULL CHECK (epoch >= 1), -- of the run: each grant has its own
    phase_id    TEXT    NOT NULL,
    project     TEXT    NOT NULL,
    credential  TEXT,
    day         INTEGER NOT NULL, -- since 1970, by UTC
    state       TEXT    NOT NULL CHECK (state IN ('reserved', 'settled')),
    version     INTEGER NOT NULL CHECK (version >= 0),
    tokens      INTEGER NOT NULL CHECK (tokens BETWEEN 0 AND 1000000000000),
    cost_micros INTEGER NOT NULL CHECK (cost_micros BETWEEN 0 AND 1000000000000),
    calls       INTEGER NOT NULL CHECK (calls BETWEEN 0 AND 1000000000000),
    seconds     INTEGER NOT NULL CHECK (seconds BETWEEN 0 AND 1000000000000),
    files       INTEGER NOT NULL CHECK (files BETWEEN 0 AND 1000000000000),
    doc         TEXT    NOT NULL CHECK (json_valid(doc)),
    PRIMARY KEY (run_id, epoch)
) STRICT, WITHOUT ROWID;
CREATE INDEX spend_by_day ON spend (project, day);
CREATE INDEX spend_open ON spend (credential) WHERE state = 'reserved';

CREATE TRIGGER spend_fenced_insert BEFORE INSERT ON spend
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.run_id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER spend_fenced_update BEFORE UPDATE ON spend
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.run_id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER spend_stays_settled BEFORE UPDATE ON spend WHEN OLD.state = 'settled' AND NEW.state <> 'settled'
BEGIN SELECT RAISE(ABORT, 'AP003 it has ended'); END;
CREATE TRIGGER spend_no_delete BEFORE DELETE ON spend BEGIN SELECT RAISE(ABORT, 'AP004 spend rows stay'); END;

CREATE TABLE breaker (
    project TEXT    NOT NULL,
    builder TEXT    NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 0),
    doc     TEXT    NOT NULL CHECK (json_valid(doc)),
    PRIMARY KEY (project, builder)
) STRICT, WITHOUT ROWID;

CREATE TABLE credential (
    name    TEXT    NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL CHECK (version >= 0),
    doc     TEXT    NOT NULL CHECK (json_valid(doc))
) STRICT, WITHOUT ROWID;
