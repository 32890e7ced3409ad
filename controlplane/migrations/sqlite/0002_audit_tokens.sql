-- Tokens made by CreateToken. Only hashes: a token cannot be read back. Rows of
-- revoked ones stay, so that an author in the audit log can be looked up.
CREATE TABLE api_tokens (
    id         TEXT    PRIMARY KEY,
    name       TEXT    NOT NULL,
    role       TEXT    NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
    projects   TEXT    NOT NULL,  -- JSON array of names; empty: all
    hash       BLOB    NOT NULL,  -- SHA-256 of the token
    created_ms INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    expires_ms INTEGER,           -- NULL: never
    revoked_ms INTEGER            -- NULL: not revoked
) STRICT;
CREATE UNIQUE INDEX api_tokens_by_name ON api_tokens (name) WHERE revoked_ms IS NULL;

-- One row per write, in the transaction of that write.
CREATE TABLE audit (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms          INTEGER NOT NULL,
    author         TEXT    NOT NULL,
    peer           TEXT    NOT NULL,
    action         TEXT    NOT NULL,
    message        TEXT    NOT NULL,
    revision       INTEGER NOT NULL,  -- made by it; 0: none
    rolled_back_to INTEGER NOT NULL,  -- 0: it was no rollback
    token          TEXT    NOT NULL,  -- name of the token it is about; empty: none
    changes        TEXT    NOT NULL   -- JSON array of fleet.v1.AuditChange
) STRICT;
