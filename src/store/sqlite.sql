-- The tables of the SQLite store, for those who run their own migrations. Otherwise
-- `SqliteStore::open` makes them. With another table name, put it in the place of every `sessions`.
-- Times are milliseconds since the Unix epoch, in UTC.

CREATE TABLE IF NOT EXISTS cloakroom_schema (
    "table" TEXT NOT NULL COLLATE NOCASE PRIMARY KEY,
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO cloakroom_schema ("table", version) VALUES ('sessions', 1);

CREATE TABLE "sessions" (
    id BLOB NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    digest BLOB NOT NULL,
    previous_digest BLOB,
    previous_until INTEGER,
    owner TEXT,
    created INTEGER NOT NULL,
    authenticated INTEGER,
    renewed INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    idle INTEGER,
    absolute INTEGER,
    data BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX "sessions_expires" ON "sessions" (expires);
CREATE INDEX "sessions_owner" ON "sessions" (owner) WHERE owner IS NOT NULL;

-- When an owner's sessions were last revoked except `kept`, which is empty if none was spared.
-- Forgotten after an hour.
CREATE TABLE "sessions_revoked" (
    owner TEXT NOT NULL,
    kept BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (owner, kept)
) STRICT, WITHOUT ROWID;

CREATE INDEX "sessions_revoked_at" ON "sessions_revoked" (at);
