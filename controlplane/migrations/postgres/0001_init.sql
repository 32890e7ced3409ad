-- The same tables as in migrations/sqlite, and what several control planes over
-- one database tell each other. Texts sort by bytes, as they do in SQLite.

-- One row: the newest revision. Writers lock it first (SELECT ... FOR UPDATE).
CREATE TABLE head (
    id        SMALLINT PRIMARY KEY CHECK (id = 1),
    lineage   TEXT     NOT NULL,   -- UUID of this store
    revision  BIGINT   NOT NULL,   -- 0: nothing was written yet
    root_hash BYTEA    NOT NULL
);

-- The resources of the newest revision.
CREATE TABLE resources (
    project TEXT COLLATE "C" NOT NULL,
    kind    TEXT COLLATE "C" NOT NULL,
    name    TEXT COLLATE "C" NOT NULL,
    body    BYTEA NOT NULL,        -- prost encoding of fleet.v1.Resource
    hash    BYTEA NOT NULL,        -- SHA-256 of body
    PRIMARY KEY (project, kind, name)
);

CREATE TABLE revisions (
    number     BIGINT PRIMARY KEY,
    root_hash  BYTEA  NOT NULL,
    created_ms BIGINT NOT NULL,
    author     TEXT   NOT NULL,
    message    TEXT   NOT NULL,
    created    BIGINT NOT NULL,
    configured BIGINT NOT NULL,
    deleted    BIGINT NOT NULL
);

-- What each revision changed. The state at revision N is, for every key, its
-- newest change at or before N.
CREATE TABLE revision_changes (
    revision BIGINT NOT NULL REFERENCES revisions (number),
    project  TEXT COLLATE "C" NOT NULL,
    kind     TEXT COLLATE "C" NOT NULL,
    name     TEXT COLLATE "C" NOT NULL,
    action   TEXT   NOT NULL CHECK (action IN ('created', 'configured', 'deleted')),
    body     BYTEA,                -- NULL: deleted
    PRIMARY KEY (project, kind, name, revision)
);
CREATE INDEX revision_changes_by_revision ON revision_changes (revision);

-- Only hashes: a token cannot be read back.
CREATE TABLE tokens (
    role       TEXT COLLATE "C" NOT NULL CHECK (role IN ('admin', 'node')),
    label      TEXT COLLATE "C" NOT NULL,
    hash       BYTEA  NOT NULL,    -- SHA-256 of the token
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (role, label)
);

-- The control planes that are running.
CREATE TABLE control_planes (
    id      TEXT PRIMARY KEY,      -- new for every start
    seen_at TIMESTAMPTZ NOT NULL   -- by the clock of the database
);

-- What was last known of each data plane.
CREATE TABLE nodes (
    node_id         TEXT COLLATE "C" PRIMARY KEY,
    boot_id         TEXT   NOT NULL,
    version         TEXT   NOT NULL,
    labels          TEXT   NOT NULL,  -- JSON object
    revision        BIGINT NOT NULL,  -- acked; 0: none
    root_hash       BYTEA,            -- acked; NULL: none
    nacked_revision BIGINT NOT NULL,  -- 0: none since the last ack
    nacked_root     BYTEA,
    errors          TEXT   NOT NULL,  -- JSON array of fleet.v1.Problem
    degraded        TEXT   NOT NULL,  -- JSON array of fleet.v1.Problem
    apply_us        BIGINT NOT NULL,
    last_seen_ms    BIGINT NOT NULL,
    owner           TEXT COLLATE "C", -- the control plane that holds its stream; NULL: none
    since_ms        BIGINT NOT NULL,  -- when that stream was opened
    changed         BIGINT NOT NULL   -- nodes_version when it was written
);
CREATE INDEX nodes_by_changed ON nodes (changed);

-- One row, counted up first by whoever writes nodes: the lock makes these writes
-- visible in the order of their numbers, so that a reader misses none.
CREATE TABLE nodes_version (
    id      SMALLINT PRIMARY KEY CHECK (id = 1),
    version BIGINT   NOT NULL
);
INSERT INTO nodes_version VALUES (1, 0);
