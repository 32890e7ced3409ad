-- Values of Secrets, session keys and revocations: beside the revisions, so that no
-- rollback touches them.

-- Sealed under the store key, which is not in the database.
CREATE TABLE secret_values (
    project    TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    sealed     BLOB    NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (project, name)
) STRICT;

-- Sealed as well. The newest one whose time has come seals; each opens.
CREATE TABLE session_keys (
    id            TEXT    PRIMARY KEY,
    sealed        BLOB    NOT NULL,
    created_ms    INTEGER NOT NULL,
    seals_from_ms INTEGER NOT NULL
) STRICT;

-- Bearer tokens of clients that are not accepted any more. Only hashes.
CREATE TABLE revocations (
    project       TEXT    NOT NULL,  -- empty: all
    bearer_sha256 BLOB    NOT NULL,
    created_ms    INTEGER NOT NULL,
    created_by    TEXT    NOT NULL,
    until_ms      INTEGER NOT NULL,  -- 0: until it is taken back
    message       TEXT    NOT NULL,
    PRIMARY KEY (project, bearer_sha256)
) STRICT;

-- The version of each of these sets; no row: nothing was ever in it.
CREATE TABLE sets (
    kind    TEXT    PRIMARY KEY CHECK (kind IN ('secrets', 'session_keys', 'revocations')),
    version INTEGER NOT NULL,        -- grows with every change
    tag     BLOB    NOT NULL         -- random, new with every change
) STRICT;

-- What each node uses of them, and which it could not take.
ALTER TABLE nodes ADD COLUMN sets TEXT NOT NULL DEFAULT '[]';          -- JSON array of fleet.v1.SetVersion
ALTER TABLE nodes ADD COLUMN set_problems TEXT NOT NULL DEFAULT '[]';  -- JSON array of fleet.v1.Problem
