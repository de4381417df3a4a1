-- Budgets, breakers, credentials. What an attempt may use is reserved in the transaction that grants it, under the
-- project's gate, and settled in the one that ends it; a row counts from its insertion on, so sums over these rows are
-- never behind. A program that does not know them would grant without reserving, so none may use this store.
CREATE TABLE autopack.spend (
    run_id      text   COLLATE "C" NOT NULL REFERENCES autopack.run (id),
    epoch       bigint NOT NULL CHECK (epoch >= 1), -- of the run: each grant has its own
    phase_id    text   COLLATE "C" NOT NULL,
    project     text   COLLATE "C" NOT NULL,
    credential  text   COLLATE "C",
    day         bigint NOT NULL, -- since 1970, by UTC
    state       text   COLLATE "C" NOT NULL CHECK (state IN ('reserved', 'settled')),
    version     bigint NOT NULL CHECK (version >= 0),
    tokens      bigint NOT NULL CHECK (tokens BETWEEN 0 AND 1000000000000),
    cost_micros bigint NOT NULL CHECK (cost_micros BETWEEN 0 AND 1000000000000),
    calls       bigint NOT NULL CHECK (calls BETWEEN 0 AND 1000000000000),
    seconds     bigint NOT NULL CHECK (seconds BETWEEN 0 AND 1000000000000),
    files       bigint NOT NULL CHECK (files BETWEEN 0 AND 1000000000000),
    doc         json   NOT NULL,
    PRIMARY KEY (run_id, epoch)
);
CREATE INDEX spend_by_day ON autopack.spend (project, day);
CREATE INDEX spend_open ON autopack.spend (credential) WHERE state = 'reserved';

CREATE FUNCTION autopack.stays_settled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'settled' AND NEW.state <> 'settled' THEN
        RAISE EXCEPTION 'it has ended' USING ERRCODE = 'AP003';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER a_fenced BEFORE INSERT OR UPDATE ON autopack.spend
FOR EACH ROW EXECUTE FUNCTION autopack.needs_fence();
CREATE TRIGGER b_settled BEFORE UPDATE ON autopack.spend FOR EACH ROW EXECUTE FUNCTION autopack.stays_settled();
CREATE TRIGGER e_stays BEFORE DELETE ON autopack.spend FOR EACH ROW EXECUTE FUNCTION autopack.stays();
CREATE TRIGGER f_stays BEFORE TRUNCATE ON autopack.spend FOR EACH STATEMENT EXECUTE FUNCTION autopack.stays();

CREATE TABLE autopack.breaker (
    project text   COLLATE "C" NOT NULL,
    builder text   COLLATE "C" NOT NULL,
    version bigint NOT NULL CHECK (version >= 0),
    doc     json   NOT NULL,
    PRIMARY KEY (project, builder)
);

CREATE TABLE autopack.credential (
    name    text   COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL CHECK (version >= 0),
    doc     json   NOT NULL
);
