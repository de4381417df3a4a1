-- compatible with: 5
-- What was reserved for a lease is settled with its end, whoever ends it: a program that knows no budgets may still be at
-- work while others reserve. Nobody says then what was used, so all that was reserved stays counted.
CREATE FUNCTION autopack.settle_spend() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE autopack.spend SET state = 'settled', version = version + 1
    WHERE run_id = NEW.run_id AND epoch = (NEW.doc->>'epoch')::bigint AND state = 'reserved';
    RETURN NULL;
END $$;

-- At the end of the transaction, so that whoever knows what was used has said it.
CREATE CONSTRAINT TRIGGER lease_settles AFTER UPDATE ON autopack.lease DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (OLD.state IN ('granting', 'held') AND NEW.state NOT IN ('granting', 'held'))
EXECUTE FUNCTION autopack.settle_spend();
