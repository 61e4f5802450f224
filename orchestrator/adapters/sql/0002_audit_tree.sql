-- The hash that chained an event to the one before becomes its leaf hash in an RFC 6962 tree; before this runs, the
-- chain was checked. It stands before the data, so that reading hashes never follows a long text's overflow pages.
DROP VIEW event_log;

ALTER TABLE events RENAME TO chained_events;

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
    leaf_hash      BLOB NOT NULL CHECK (length(leaf_hash) = 32),
    data           TEXT NOT NULL,
    UNIQUE (stream_pk, version)
) STRICT;

INSERT INTO events
SELECT e.pos, e.stream_pk, e.version, e.type, e.schema_version, e.occurred_at_us, e.recorded_at_us, e.command_id, e.actor,
       event_leaf_hash(e.pos, s.stream_id, e.version, e.type, e.schema_version, e.occurred_at_us, e.recorded_at_us,
                       e.command_id, e.actor, e.data),
       e.data
FROM chained_events AS e JOIN streams AS s USING (stream_pk) ORDER BY e.pos;

DROP TRIGGER events_are_never_deleted;

DROP TABLE chained_events;

-- Roots over complete runs of hashes of the level below; level 0 are the leaf hashes in `events`.
CREATE TABLE tree_hashes (
    level  INTEGER NOT NULL CHECK (level > 0),
    number INTEGER NOT NULL,
    hash   BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, number)
) STRICT, WITHOUT ROWID;

-- This log's own signed checkpoints, by the size of the tree.
CREATE TABLE checkpoints (
    size         INTEGER PRIMARY KEY,
    note         TEXT NOT NULL,
    signed_at_us INTEGER NOT NULL
) STRICT;

-- The newest checkpoint of each other log that is kept here; `fault` says what was found wrong with that log.
CREATE TABLE witnessed (
    origin     TEXT PRIMARY KEY,
    public_key TEXT NOT NULL,
    size       INTEGER NOT NULL,
    note       TEXT NOT NULL,
    fault      TEXT NOT NULL,
    kept_at_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Guard-rails against a slip; the evidence against intent are the checkpoints that others keep.
CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER tree_hashes_are_never_changed BEFORE UPDATE ON tree_hashes
BEGIN
    SELECT RAISE(ABORT, 'the tree is append-only');
END;

CREATE TRIGGER tree_hashes_are_never_deleted BEFORE DELETE ON tree_hashes
BEGIN
    SELECT RAISE(ABORT, 'the tree is append-only');
END;

-- For people with the sqlite3 command: events with the names of their streams.
CREATE VIEW event_log AS
SELECT e.pos, s.stream_id, e.version, e.type, e.schema_version, e.occurred_at_us, e.recorded_at_us,
       e.command_id, e.actor, e.data, hex(e.leaf_hash) AS leaf_hash
FROM events AS e JOIN streams AS s USING (stream_pk);
