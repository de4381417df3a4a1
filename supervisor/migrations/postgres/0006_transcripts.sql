-- compatible with: 1
-- Transcripts: what builders printed, kept under its digest for the run it was printed in. An attempt names its own, and
-- the log pins the attempt.
CREATE TABLE autopack.transcript (
    run_id text  COLLATE "C" NOT NULL REFERENCES autopack.run (id),
    digest text  COLLATE "C" NOT NULL, -- sha-256 of the body, in hex
    body   bytea NOT NULL,
    PRIMARY KEY (run_id, digest)
);
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON autopack.transcript
FOR EACH ROW EXECUTE FUNCTION autopack.needs_fence();
CREATE TRIGGER d_never_changes BEFORE UPDATE ON autopack.transcript
FOR EACH ROW EXECUTE FUNCTION autopack.never_changes();
CREATE TRIGGER e_stays BEFORE DELETE ON autopack.transcript FOR EACH ROW EXECUTE FUNCTION autopack.stays();
CREATE TRIGGER f_stays BEFORE TRUNCATE ON autopack.transcript FOR EACH STATEMENT EXECUTE FUNCTION autopack.stays();
