-- Surveys: scans of a commit that somebody waits for. They rest on nothing and nothing rests on them, so they have no
-- fence and no record in the log, and those that are over are deleted.
CREATE TABLE survey (
    seq        INTEGER PRIMARY KEY,
    id         TEXT    NOT NULL UNIQUE,
    ask        TEXT    NOT NULL, -- the same for everything that has the same answer
    state      TEXT    NOT NULL CHECK (state IN ('requested', 'claimed', 'done', 'failed')),
    version    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    doc        TEXT    NOT NULL CHECK (json_valid(doc))
) STRICT;
CREATE UNIQUE INDEX survey_open_once ON survey (ask) WHERE state IN ('requested', 'claimed');
CREATE INDEX survey_by_ask ON survey (ask, seq);
CREATE INDEX survey_open ON survey (seq) WHERE state IN ('requested', 'claimed');
CREATE INDEX survey_by_expiry ON survey (expires_at);
