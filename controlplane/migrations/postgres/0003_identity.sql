-- A constant, sealed under the store key: a wrong key is found at the start.
CREATE TABLE vault (
    id          SMALLINT PRIMARY KEY CHECK (id = 1),
    check_value BYTEA    NOT NULL
);

-- The CA of the fleet, made once.
CREATE TABLE ca (
    id          SMALLINT PRIMARY KEY CHECK (id = 1),
    certificate BYTEA    NOT NULL,  -- DER
    private_key BYTEA    NOT NULL   -- PKCS #8, sealed under the store key
);

-- Tokens with which one data plane can join. Only hashes of their secrets.
CREATE TABLE join_tokens (
    id         TEXT COLLATE "C" PRIMARY KEY,
    hash       BYTEA  NOT NULL,   -- SHA-256 of the secret
    node_id    TEXT COLLATE "C" NOT NULL,  -- the node that may use it; empty: any that is new
    created_ms BIGINT NOT NULL,
    created_by TEXT   NOT NULL,
    expires_ms BIGINT NOT NULL,
    used_ms    BIGINT,            -- NULL: not used
    used_by    TEXT   NOT NULL,   -- empty: nobody
    revoked_ms BIGINT             -- NULL: not revoked
);

-- The nodes that have ever joined: their ids are theirs.
CREATE TABLE identities (
    node_id   TEXT COLLATE "C" PRIMARY KEY,
    joined_ms BIGINT NOT NULL,    -- the last time
    changed   BIGINT NOT NULL     -- identity_version when it was written
);

-- Certificates of nodes, until some time after their end.
CREATE TABLE certificates (
    serial     TEXT COLLATE "C" PRIMARY KEY,  -- hex
    node_id    TEXT COLLATE "C" NOT NULL,
    issued_ms  BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    revoked_ms BIGINT,            -- NULL: not revoked
    changed    BIGINT NOT NULL    -- identity_version when it was written
);
CREATE INDEX certificates_by_node ON certificates (node_id);
CREATE INDEX certificates_by_changed ON certificates (changed);

-- One row, counted up first by whoever writes identities or certificates: the lock
-- gives these writes one order, and who knows a number reads only what came after.
CREATE TABLE identity_version (
    id      SMALLINT PRIMARY KEY CHECK (id = 1),
    version BIGINT   NOT NULL
);
INSERT INTO identity_version VALUES (1, 0);
