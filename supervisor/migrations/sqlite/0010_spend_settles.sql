-- What was reserved for a lease is settled with its end, whoever ends it. Who knows what was used says it before; else all
-- that was reserved stays counted.
CREATE TRIGGER lease_settles AFTER UPDATE OF state ON lease
WHEN OLD.state IN ('granting', 'held') AND NEW.state NOT IN ('granting', 'held')
BEGIN
    UPDATE spend SET state = 'settled', version = version + 1
    WHERE run_id = NEW.run_id AND epoch = json_extract(NEW.doc, '$.epoch') AND state = 'reserved';
END;
