-- The name under which the supervisors of this store meet; an embedded engine has none.
ALTER TABLE cluster ADD COLUMN coordination TEXT;
