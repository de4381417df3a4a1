-- compatible with: 1
-- What gates have learned: what a command shows on an untouched base, and which tests are flaky. Neither is run state:
-- no fence, no record in the log. A gate's report, which is logged, names the baseline it went by.
CREATE TABLE autopack.gate_baseline (
    seq         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project     text        COLLATE "C" NOT NULL,
    base        text        COLLATE "C" NOT NULL,
    command     text        COLLATE "C" NOT NULL, -- the digest of what is run
    doc         json        NOT NULL,
    measured_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX gate_baseline_once ON autopack.gate_baseline (project, base, command);
CREATE INDEX gate_baseline_by_age ON autopack.gate_baseline (project, seq);
CREATE TABLE autopack.flaky_test (
    project    text        COLLATE "C" NOT NULL,
    command    text        COLLATE "C" NOT NULL,
    test       text        COLLATE "C" NOT NULL,
    count      bigint      NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen  timestamptz NOT NULL,
    last_run   text        COLLATE "C" NOT NULL,
    PRIMARY KEY (project, command, test)
);
CREATE INDEX flaky_test_by_time ON autopack.flaky_test (project, last_seen DESC, command, test);
