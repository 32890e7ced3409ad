-- A constant, sealed under the store key: a wrong key is found at the start.
CREATE TABLE vault (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    check_value BLOB    NOT NULL
) STRICT;

-- The CA of the fleet, made once.
CREATE TABLE ca (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    certificate BLOB    NOT NULL,  -- DER
    private_key BLOB    NOT NULL   -- PKCS #8, sealed under the store key
) STRICT;

-- Tokens with which one data plane can join. Only hashes of their secrets.
CREATE TABLE join_tokens (
    id         TEXT    PRIMARY KEY,
    hash       BLOB    NOT NULL,   -- SHA-256 of the secret
    node_id    TEXT    NOT NULL,   -- the node that may use it; empty: any that is new
    created_ms INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_ms    INTEGER,            -- NULL: not used
    used_by    TEXT    NOT NULL,   -- empty: nobody
    revoked_ms INTEGER             -- NULL: not revoked
) STRICT;

-- The nodes that have ever joined: their ids are theirs.
CREATE TABLE identities (
    node_id   TEXT    PRIMARY KEY,
    joined_ms INTEGER NOT NULL,    -- the last time
    changed   INTEGER NOT NULL     -- identity_version when it was written
) STRICT;

-- Certificates of nodes, until some time after their end.
CREATE TABLE certificates (
    serial     TEXT    PRIMARY KEY,  -- hex
    node_id    TEXT    NOT NULL,
    issued_ms  INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    revoked_ms INTEGER,              -- NULL: not revoked
    changed    INTEGER NOT NULL      -- identity_version when it was written
) STRICT;
CREATE INDEX certificates_by_node ON certificates (node_id);
CREATE INDEX certificates_by_changed ON certificates (changed);

-- One row, counted up first by whoever writes identities or certificates: these
-- writes have one order, and who knows a number reads only what came after it.
CREATE TABLE identity_version (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO identity_version VALUES (1, 0);
