-- One row: the newest revision. Writers lock it first (BEGIN IMMEDIATE).
CREATE TABLE head (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    lineage   TEXT    NOT NULL,   -- UUID of this store
    revision  INTEGER NOT NULL,   -- 0: nothing was written yet
    root_hash BLOB    NOT NULL
) STRICT;

-- The resources of the newest revision.
CREATE TABLE resources (
    project TEXT NOT NULL,
    kind    TEXT NOT NULL,
    name    TEXT NOT NULL,
    body    BLOB NOT NULL,        -- prost encoding of fleet.v1.Resource
    hash    BLOB NOT NULL,        -- SHA-256 of body
    PRIMARY KEY (project, kind, name)
) STRICT;

CREATE TABLE revisions (
    number     INTEGER PRIMARY KEY,
    root_hash  BLOB    NOT NULL,
    created_ms INTEGER NOT NULL,
    author     TEXT    NOT NULL,
    message    TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    configured INTEGER NOT NULL,
    deleted    INTEGER NOT NULL
) STRICT;

-- What each revision changed. The state at revision N is, for every key, its
-- newest change at or before N.
CREATE TABLE revision_changes (
    revision INTEGER NOT NULL REFERENCES revisions (number),
    project  TEXT    NOT NULL,
    kind     TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    action   TEXT    NOT NULL CHECK (action IN ('created', 'configured', 'deleted')),
    body     BLOB,                -- NULL: deleted
    PRIMARY KEY (project, kind, name, revision)
) STRICT;
CREATE INDEX revision_changes_by_revision ON revision_changes (revision);

-- Only hashes: a token cannot be read back.
CREATE TABLE tokens (
    role       TEXT    NOT NULL CHECK (role IN ('admin', 'node')),
    label      TEXT    NOT NULL,
    hash       BLOB    NOT NULL,  -- SHA-256 of the token
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (role, label)
) STRICT;

-- What was last known of each data plane.
CREATE TABLE nodes (
    node_id         TEXT    PRIMARY KEY,
    boot_id         TEXT    NOT NULL,
    version         TEXT    NOT NULL,
    labels          TEXT    NOT NULL,  -- JSON object
    revision        INTEGER NOT NULL,  -- acked; 0: none
    root_hash       BLOB,              -- acked; NULL: none
    nacked_revision INTEGER NOT NULL,  -- 0: none since the last ack
    nacked_root     BLOB,
    errors          TEXT    NOT NULL,  -- JSON array of fleet.v1.Problem
    degraded        TEXT    NOT NULL,  -- JSON array of fleet.v1.Problem
    apply_us        INTEGER NOT NULL,
    last_seen_ms    INTEGER NOT NULL
) STRICT;
