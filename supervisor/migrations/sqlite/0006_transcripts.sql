-- Transcripts: what builders printed, kept under its digest for the run it was printed in. An attempt names its own, and
-- the log pins the attempt.
CREATE TABLE transcript (
    run_id TEXT NOT NULL REFERENCES run (id),
    digest TEXT NOT NULL, -- sha-256 of the body, in hex
    body   BLOB NOT NULL,
    PRIMARY KEY (run_id, digest)
) STRICT;
CREATE TRIGGER transcript_fenced_insert BEFORE INSERT ON transcript
WHEN NOT EXISTS (SELECT 1 FROM fence_held AS h JOIN fence AS f ON f.scope = h.scope AND f.epoch = h.epoch
                 WHERE h.scope IN ('director', 'run/' || NEW.run_id))
BEGIN SELECT RAISE(ABORT, 'AP002 run'); END;
CREATE TRIGGER transcript_no_delete BEFORE DELETE ON transcript BEGIN SELECT RAISE(ABORT, 'AP004 transcript rows stay'); END;
CREATE TRIGGER transcript_no_update BEFORE UPDATE ON transcript BEGIN SELECT RAISE(ABORT, 'AP004 transcript rows never change'); END;
