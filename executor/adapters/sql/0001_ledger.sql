-- What the ledger knows about itself: its epoch, and the latest time that any write carried.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The unique mission and segment are what makes "once" true: one execution for each of them, for ever.
CREATE TABLE executions (
    number        INTEGER PRIMARY KEY,
    mission_id    TEXT NOT NULL,
    segment       INTEGER NOT NULL,
    execution_id  TEXT NOT NULL UNIQUE,
    report_digest TEXT NOT NULL,
    claimed_at_us INTEGER NOT NULL,
    ended_at_us   INTEGER,
    outcome       TEXT,
    claim         TEXT NOT NULL,
    UNIQUE (mission_id, segment)
) STRICT;

-- The end of an execution: its receipt, and those of its events that were not stored before. Events are a JSON array of
-- ProtoJSON objects; of a short execution all of them are here, so that its end is one row.
CREATE TABLE receipts (
    execution     INTEGER PRIMARY KEY REFERENCES executions (number),
    key_id        TEXT NOT NULL,
    signature     BLOB NOT NULL,
    body          BLOB NOT NULL,
    last_sequence INTEGER NOT NULL,
    events        TEXT NOT NULL
) STRICT;

-- What was stored of an execution's events while it ran, batch by batch.
CREATE TABLE event_batches (
    execution     INTEGER NOT NULL REFERENCES executions (number),
    last_sequence INTEGER NOT NULL,
    events        TEXT NOT NULL,
    PRIMARY KEY (execution, last_sequence)
) STRICT;

-- Every event, one in a row: for a person with sqlite3 and jq, and for nothing else.
CREATE VIEW events AS
SELECT executions.execution_id, json_extract(event.value, '$.sequence') AS sequence, event.value AS data
FROM (
    SELECT execution, events FROM event_batches
    UNION ALL
    SELECT execution, events FROM receipts
) AS stored
JOIN executions ON executions.number = stored.execution, json_each(stored.events) AS event
ORDER BY stored.execution, sequence;

CREATE TABLE used_approvals (
    approval_id  TEXT PRIMARY KEY,
    nonce        TEXT NOT NULL UNIQUE,
    execution_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE issued_reports (
    digest       TEXT PRIMARY KEY,
    report_id    TEXT NOT NULL,
    mission_id   TEXT NOT NULL,
    plan_digest  TEXT NOT NULL,
    epoch        TEXT NOT NULL,
    status       TEXT NOT NULL,
    issued_at_us INTEGER NOT NULL,
    key_id       TEXT NOT NULL,
    signature    BLOB NOT NULL,
    body         BLOB NOT NULL
) STRICT;

CREATE TABLE small_objects (
    digest TEXT PRIMARY KEY,
    body   BLOB NOT NULL
) STRICT;

CREATE TABLE refusals (
    refusal_id    TEXT PRIMARY KEY,
    mission_id    TEXT NOT NULL,
    gate          INTEGER NOT NULL,
    reason        TEXT NOT NULL,
    refused_at_us INTEGER NOT NULL,
    key_id        TEXT NOT NULL,
    signature     BLOB NOT NULL,
    body          BLOB NOT NULL,
    event         TEXT NOT NULL
) STRICT;

CREATE TABLE requests (
    request_id  TEXT PRIMARY KEY,
    kind        TEXT NOT NULL,
    body_digest TEXT NOT NULL,
    reference   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
