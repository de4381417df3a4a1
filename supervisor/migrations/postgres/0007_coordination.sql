-- compatible with: 1
-- The name under which the supervisors of this store meet in etcd. Two of them, and there were two directors at once.
ALTER TABLE autopack.cluster ADD COLUMN coordination text;
