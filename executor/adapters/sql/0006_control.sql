-- The later stretches of an execution, each under a repair plan with approvals of its own. The first is the row in
-- `executions`: that one's number names the whole execution.
CREATE TABLE segments (
    execution     INTEGER NOT NULL REFERENCES executions (number),
    segment       INTEGER NOT NULL CHECK (segment BETWEEN 1 AND 1023),
    mission_id    TEXT NOT NULL,
    report_digest TEXT NOT NULL,
    claimed_at_us INTEGER NOT NULL,
    claim         TEXT NOT NULL,
    PRIMARY KEY (mission_id, segment)
) STRICT, WITHOUT ROWID;

CREATE INDEX segments_by_execution ON segments (execution);

-- The plans under which executions run, from which a pause is restored. They are let go of some time after the end. The
-- number is 1024 times the execution's and the segment: every claim writes here, and so it needs no index.
CREATE TABLE claimed_plans (
    number     INTEGER PRIMARY KEY,
    signatures TEXT NOT NULL,
    body       BLOB NOT NULL
) STRICT;

-- What somebody, or a deadline, had an execution do, in the order of it.
CREATE TABLE controls (
    number         INTEGER PRIMARY KEY,
    request_id     TEXT NOT NULL UNIQUE,
    body_digest    TEXT NOT NULL,
    execution_id   TEXT NOT NULL,
    mission_id     TEXT NOT NULL,
    action         TEXT NOT NULL,
    actor          TEXT NOT NULL,
    reason         TEXT NOT NULL,
    roll_back      INTEGER NOT NULL,
    step_id        TEXT NOT NULL,
    recorded_at_us INTEGER NOT NULL,
    document_id    TEXT NOT NULL,
    nonce          TEXT NOT NULL,
    media_type     TEXT,
    body           BLOB,
    signatures     TEXT
) STRICT;

CREATE INDEX controls_by_execution ON controls (execution_id);

-- What live steps do outside: a row before each effect, which is never taken twice.
CREATE TABLE effects (
    number          INTEGER PRIMARY KEY,
    effect_id       TEXT NOT NULL UNIQUE,
    execution_id    TEXT NOT NULL,
    mission_id      TEXT NOT NULL,
    segment         INTEGER NOT NULL,
    step_id         TEXT NOT NULL,
    attempt         INTEGER NOT NULL,
    compensates     INTEGER NOT NULL,
    kind            TEXT NOT NULL,
    target          TEXT NOT NULL,
    digest          TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    claimed_at_us   INTEGER NOT NULL
) STRICT;

CREATE INDEX effects_by_execution ON effects (execution_id);

-- What came of an effect; a later row says what a person or a compensation made of it. An effect without one may have
-- happened.
CREATE TABLE settlements (
    effect_id     TEXT NOT NULL REFERENCES effects (effect_id),
    settlement    INTEGER NOT NULL,
    state         TEXT NOT NULL,
    record        TEXT NOT NULL,
    settled_at_us INTEGER NOT NULL,
    PRIMARY KEY (effect_id, settlement)
) STRICT, WITHOUT ROWID;
