-- Transcripts go when they are old or too many, those that no decision names. What stays of one is that it was there:
-- its digest, which its attempt names too, its size and when it went; the log has the same.
ALTER TABLE transcript ADD COLUMN at INTEGER NOT NULL DEFAULT 0; -- kept since; of those of before, since this upgrade
DROP TRIGGER transcript_no_update;
UPDATE transcript SET at = CAST(strftime('%s', 'now') AS INTEGER) * 1000;
CREATE TRIGGER transcript_no_update BEFORE UPDATE ON transcript BEGIN SELECT RAISE(ABORT, 'AP004 transcript rows never change'); END;
CREATE INDEX transcript_by_age ON transcript (at, run_id);

CREATE TABLE transcript_gone (
    run_id TEXT    NOT NULL REFERENCES run (id),
    digest TEXT    NOT NULL,
    size   INTEGER NOT NULL CHECK (size >= 0),
    at     INTEGER NOT NULL,
    PRIMARY KEY (run_id, digest)
) STRICT;
CREATE TRIGGER transcript_gone_fenced_insert BEFORE INSERT ON transcript_gone
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.run_id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER transcript_gone_no_delete BEFORE DELETE ON transcript_gone BEGIN SELECT RAISE(ABORT, 'AP004 transcript_gone rows stay'); END;
CREATE TRIGGER transcript_gone_no_update BEFORE UPDATE ON transcript_gone BEGIN SELECT RAISE(ABORT, 'AP004 transcript_gone rows never change'); END;

DROP TRIGGER transcript_no_delete;
CREATE TRIGGER transcript_no_delete BEFORE DELETE ON transcript
WHEN NOT EXISTS (SELECT 1 FROM transcript_gone AS g WHERE g.run_id = OLD.run_id AND g.digest = OLD.digest)
BEGIN SELECT RAISE(ABORT, 'AP004 transcript rows stay'); END;
