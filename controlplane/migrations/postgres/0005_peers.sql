-- Where other data planes reach a node; empty: nowhere. Control planes that do not know
-- this column leave it as it is.
ALTER TABLE nodes ADD COLUMN peer_address TEXT NOT NULL DEFAULT '';
