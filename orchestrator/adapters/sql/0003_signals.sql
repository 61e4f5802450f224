-- What outcomes taught, as counters that missions add to in the transaction of their end. Additions of whole numbers
-- do not depend on their order, so that a log that is folded again gives the same rows. Days count from 1970 in UTC;
-- a bucket holds durations that differ by less than a tenth, -1 stands for none.
CREATE TABLE signal_steps (
    kind         TEXT NOT NULL,
    tool         TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    day          INTEGER NOT NULL,
    bucket       INTEGER NOT NULL,
    succeeded    INTEGER NOT NULL,
    failed       INTEGER NOT NULL,
    censored     INTEGER NOT NULL,
    drifts       INTEGER NOT NULL,
    divergences  INTEGER NOT NULL,
    rollbacks    INTEGER NOT NULL,
    rated_good   INTEGER NOT NULL,
    rated_bad    INTEGER NOT NULL,
    PRIMARY KEY (kind, tool, workspace_id, day, bucket)
) STRICT, WITHOUT ROWID;

-- Missions whose confidence was stated, by tenths; sums of what was stated are in hundredths of a percent.
CREATE TABLE signal_stated (
    bin             INTEGER PRIMARY KEY,
    samples         INTEGER NOT NULL,
    stated          INTEGER NOT NULL,
    stated_squared  INTEGER NOT NULL,
    realised        INTEGER NOT NULL,
    stated_realised INTEGER NOT NULL
) STRICT;

CREATE TABLE signal_failures (
    kind            TEXT NOT NULL,
    reason          TEXT NOT NULL,
    path            TEXT NOT NULL,
    count           INTEGER NOT NULL,
    last_at_us      INTEGER NOT NULL,
    last_mission_id TEXT NOT NULL,
    message         TEXT NOT NULL,
    PRIMARY KEY (kind, reason, path)
) STRICT, WITHOUT ROWID;

CREATE INDEX signal_failures_by_count ON signal_failures (count);

CREATE TABLE signal_stages (
    stage   TEXT NOT NULL,
    bucket  INTEGER NOT NULL,
    samples INTEGER NOT NULL,
    PRIMARY KEY (stage, bucket)
) STRICT, WITHOUT ROWID;
