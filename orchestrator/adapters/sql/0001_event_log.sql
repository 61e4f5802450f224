-- stream_pk keeps the events' index small and local in time; the version is what an append is checked against.
CREATE TABLE streams (
    stream_pk     INTEGER PRIMARY KEY,
    stream_id     TEXT NOT NULL UNIQUE,
    version       INTEGER NOT NULL CHECK (version > 0),
    created_at_us INTEGER NOT NULL
) STRICT;

-- pos is given by the writer, from 1 and without a gap; SQLite would reuse the newest one after a deletion.
CREATE TABLE events (
    pos            INTEGER PRIMARY KEY CHECK (pos > 0),
    stream_pk      INTEGER NOT NULL REFERENCES streams (stream_pk),
    version        INTEGER NOT NULL,
    type           TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    occurred_at_us INTEGER NOT NULL,
    recorded_at_us INTEGER NOT NULL,
    command_id     TEXT,
    actor          TEXT NOT NULL,
    data           TEXT NOT NULL,
    hash           BLOB NOT NULL CHECK (length(hash) = 32),
    UNIQUE (stream_pk, version)
) STRICT;

CREATE TABLE documents (
    sequence   INTEGER PRIMARY KEY,
    digest     TEXT NOT NULL UNIQUE,
    media_type TEXT NOT NULL,
    body       BLOB NOT NULL,
    signatures TEXT NOT NULL,
    pos        INTEGER NOT NULL
) STRICT;

CREATE TABLE commands (
    command_id     TEXT PRIMARY KEY,
    request_hash   TEXT NOT NULL,
    result         TEXT NOT NULL,
    first_pos      INTEGER NOT NULL,
    last_pos       INTEGER NOT NULL,
    recorded_at_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE projections (
    name     TEXT NOT NULL,
    key      TEXT NOT NULL,
    status   TEXT NOT NULL,
    sort_key TEXT NOT NULL,
    data     TEXT NOT NULL,
    last_pos INTEGER NOT NULL,
    PRIMARY KEY (name, key)
) STRICT;

CREATE INDEX projections_by_status ON projections (name, status, sort_key, key);

CREATE INDEX projections_by_sort_key ON projections (name, sort_key, key);

-- Guard-rails against a slip; the evidence against intent is the hash chain.
CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER documents_are_never_changed BEFORE UPDATE ON documents
BEGIN
    SELECT RAISE(ABORT, 'documents are sealed');
END;

CREATE TRIGGER documents_are_never_deleted BEFORE DELETE ON documents
BEGIN
    SELECT RAISE(ABORT, 'documents are sealed');
END;

-- For people with the sqlite3 command: events with the names of their streams.
CREATE VIEW event_log AS
SELECT e.pos, s.stream_id, e.version, e.type, e.schema_version, e.occurred_at_us, e.recorded_at_us,
       e.command_id, e.actor, e.data, hex(e.hash) AS hash
FROM events AS e JOIN streams AS s USING (stream_pk);
