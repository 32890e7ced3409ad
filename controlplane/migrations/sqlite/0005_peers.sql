-- Where other data planes reach a node; empty: nowhere.
ALTER TABLE nodes ADD COLUMN peer_address TEXT NOT NULL DEFAULT '';
