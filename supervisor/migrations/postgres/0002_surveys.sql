-- compatible with: 1
-- Surveys: scans of a commit that somebody waits for. They rest on nothing and nothing rests on them, so they have no
-- fence and no record in the log, and those that are over are deleted.
CREATE TABLE autopack.survey (
    seq        bigint      GENERATED ALWAYS AS IDENTITY,
    id         text        COLLATE "C" PRIMARY KEY,
    ask        text        COLLATE "C" NOT NULL, -- the same for everything that has the same answer
    state      text        COLLATE "C" NOT NULL CHECK (state IN ('requested', 'claimed', 'done', 'failed')),
    version    bigint      NOT NULL,
    expires_at timestamptz NOT NULL,
    doc        json        NOT NULL
);
CREATE UNIQUE INDEX survey_open_once ON autopack.survey (ask) WHERE state IN ('requested', 'claimed');
CREATE INDEX survey_by_ask ON autopack.survey (ask, seq);
CREATE INDEX survey_open ON autopack.survey (seq) WHERE state IN ('requested', 'claimed');
CREATE INDEX survey_by_expiry ON autopack.survey (expires_at);
