-- What gates have learned: what a command shows on an untouched base, and which tests are flaky. Neither is run state:
-- no fence, no record in the log. A gate's report, which is logged, names the baseline it went by.
CREATE TABLE gate_baseline (
    seq         INTEGER PRIMARY KEY,
    project     TEXT    NOT NULL,
    base        TEXT    NOT NULL,
    command     TEXT    NOT NULL, -- the digest of what is run
    doc         TEXT    NOT NULL CHECK (json_valid(doc)),
    measured_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX gate_baseline_once ON gate_baseline (project, base, command);
CREATE INDEX gate_baseline_by_age ON gate_baseline (project, seq);
CREATE TABLE flaky_test (
    project    TEXT    NOT NULL,
    command    TEXT    NOT NULL,
    test       TEXT    NOT NULL,
    count      INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    last_run   TEXT    NOT NULL,
    PRIMARY KEY (project, command, test)
) STRICT, WITHOUT ROWID;
CREATE INDEX flaky_test_by_time ON flaky_test (project, last_seen DESC, command, test);
