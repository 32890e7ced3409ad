-- Values of Secrets, session keys and revocations: beside the revisions, so that no
-- rollback touches them.

-- Sealed under the store key, which is not in the database.
CREATE TABLE secret_values (
    project    TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    sealed     BYTEA  NOT NULL,
    updated_ms BIGINT NOT NULL,
    PRIMARY KEY (project, name)
);

-- Sealed as well. The newest one whose time has come seals; each opens.
CREATE TABLE session_keys (
    id            TEXT COLLATE "C" PRIMARY KEY,
    sealed        BYTEA  NOT NULL,
    created_ms    BIGINT NOT NULL,
    seals_from_ms BIGINT NOT NULL
);

-- Bearer tokens of clients that are not accepted any more. Only hashes.
CREATE TABLE revocations (
    project       TEXT COLLATE "C" NOT NULL,  -- empty: all
    bearer_sha256 BYTEA  NOT NULL,
    created_ms    BIGINT NOT NULL,
    created_by    TEXT   NOT NULL,
    until_ms      BIGINT NOT NULL,            -- 0: until it is taken back
    message       TEXT   NOT NULL,
    PRIMARY KEY (project, bearer_sha256)
);

-- The version of each of these sets; no row: nothing was ever in it. Written under
-- the lock of the head, like revisions.
CREATE TABLE sets (
    kind    TEXT COLLATE "C" PRIMARY KEY CHECK (kind IN ('secrets', 'session_keys', 'revocations')),
    version BIGINT NOT NULL,                  -- grows with every change
    tag     BYTEA  NOT NULL                   -- random, new with every change
);

-- What each node uses of them, and which it could not take.
ALTER TABLE nodes ADD COLUMN sets TEXT NOT NULL DEFAULT '[]';          -- JSON array of fleet.v1.SetVersion
ALTER TABLE nodes ADD COLUMN set_problems TEXT NOT NULL DEFAULT '[]';  -- JSON array of fleet.v1.Problem
