-- The steps that an ended execution has left committed: from each one's slot, and what it holds, the step can be undone.
-- They are numbered in the order in which they were committed.
CREATE TABLE checkpoints (
    number       INTEGER PRIMARY KEY,
    slot         TEXT NOT NULL UNIQUE,
    execution_id TEXT NOT NULL,
    mission_id   TEXT NOT NULL,
    step_id      TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    kept_at_us   INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    record       BLOB NOT NULL
) STRICT;

CREATE INDEX checkpoints_by_mission ON checkpoints (mission_id);

CREATE INDEX checkpoints_by_age ON checkpoints (kept_at_us);
