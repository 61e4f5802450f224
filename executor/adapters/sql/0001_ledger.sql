-- What the ledger knows about itself: its epoch, and the latest time that any write carried.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The primary key is what makes "once" true: one execution for each mission and segment, for ever.
CREATE TABLE executions (
    mission_id    TEXT NOT NULL,
    segment       INTEGER NOT NULL,
    execution_id  TEXT NOT NULL UNIQUE,
    report_digest TEXT NOT NULL,
    claimed_at_us INTEGER NOT NULL,
    ended_at_us   INTEGER,
    outcome       TEXT,
    claim         TEXT NOT NULL,
    PRIMARY KEY (mission_id, segment)
) STRICT, WITHOUT ROWID;

CREATE TABLE receipts (
    execution_id TEXT PRIMARY KEY REFERENCES executions (execution_id),
    key_id       TEXT NOT NULL,
    signature    BLOB NOT NULL,
    body         BLOB NOT NULL
) STRICT;

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

-- The lines are ProtoJSON: sqlite3 and jq read them.
CREATE TABLE events (
    execution_id TEXT NOT NULL,
    sequence     INTEGER NOT NULL,
    data         TEXT NOT NULL,
    PRIMARY KEY (execution_id, sequence)
) STRICT, WITHOUT ROWID;
