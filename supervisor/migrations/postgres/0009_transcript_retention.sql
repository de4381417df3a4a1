-- compatible with: 1
-- Transcripts go when they are old or too many, those that no decision names. What stays of one is that it was there:
-- its digest, which its attempt names too, its size and when it went; the log has the same. Of transcripts of before, the
-- time begins with this upgrade.
-- In two steps: with a default that is one value the table is not written anew, however much is in it.
ALTER TABLE autopack.transcript ADD COLUMN at timestamptz NOT NULL DEFAULT now();
ALTER TABLE autopack.transcript ALTER COLUMN at SET DEFAULT autopack.wall();
CREATE INDEX transcript_by_age ON autopack.transcript (at, run_id);

CREATE TABLE autopack.transcript_gone (
    run_id text        COLLATE "C" NOT NULL REFERENCES autopack.run (id),
    digest text        COLLATE "C" NOT NULL,
    size   bigint      NOT NULL CHECK (size >= 0),
    at     timestamptz NOT NULL,
    PRIMARY KEY (run_id, digest)
);
CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON autopack.transcript_gone
FOR EACH ROW EXECUTE FUNCTION autopack.needs_fence();
CREATE TRIGGER d_never_changes BEFORE UPDATE ON autopack.transcript_gone
FOR EACH ROW EXECUTE FUNCTION autopack.never_changes();
CREATE TRIGGER e_stays BEFORE DELETE ON autopack.transcript_gone FOR EACH ROW EXECUTE FUNCTION autopack.stays();
CREATE TRIGGER f_stays BEFORE TRUNCATE ON autopack.transcript_gone FOR EACH STATEMENT EXECUTE FUNCTION autopack.stays();

CREATE FUNCTION autopack.transcript_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM autopack.transcript_gone AS g WHERE g.run_id = OLD.run_id AND g.digest = OLD.digest) THEN
        RAISE EXCEPTION '% rows stay', TG_TABLE_NAME USING ERRCODE = 'AP004';
    END IF;
    RETURN OLD;
END $$;
DROP TRIGGER e_stays ON autopack.transcript;
CREATE TRIGGER e_stays BEFORE DELETE ON autopack.transcript FOR EACH ROW EXECUTE FUNCTION autopack.transcript_stays();
