-- Tokens made by CreateToken. Only hashes: a token cannot be read back. Rows of
-- revoked ones stay, so that an author in the audit log can be looked up.
CREATE TABLE api_tokens (
    id         TEXT COLLATE "C" PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL,
    role       TEXT   NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
    projects   TEXT   NOT NULL,  -- JSON array of names; empty: all
    hash       BYTEA  NOT NULL,  -- SHA-256 of the token
    created_ms BIGINT NOT NULL,
    created_by TEXT   NOT NULL,
    expires_ms BIGINT,           -- NULL: never
    revoked_ms BIGINT            -- NULL: not revoked
);
CREATE UNIQUE INDEX api_tokens_by_name ON api_tokens (name) WHERE revoked_ms IS NULL;

-- One row per write, in the transaction of that write.
CREATE TABLE audit (
    id             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms          BIGINT NOT NULL,
    author         TEXT   NOT NULL,
    peer           TEXT   NOT NULL,
    action         TEXT   NOT NULL,
    message        TEXT   NOT NULL,
    revision       BIGINT NOT NULL,  -- made by it; 0: none
    rolled_back_to BIGINT NOT NULL,  -- 0: it was no rollback
    token          TEXT   NOT NULL,  -- name of the token it is about; empty: none
    changes        TEXT   NOT NULL   -- JSON array of fleet.v1.AuditChange
);
