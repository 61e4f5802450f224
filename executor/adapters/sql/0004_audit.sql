-- The audit log: one leaf for each thing that the ledger records, in the same transaction. The hash stands before the
-- leaf, so that proofs are read without the leaves.
CREATE TABLE audit_entries (
    number     INTEGER PRIMARY KEY,
    hash       BLOB NOT NULL,
    mission_id TEXT NOT NULL,
    leaf       TEXT NOT NULL
) STRICT;

CREATE INDEX audit_entries_by_mission ON audit_entries (mission_id) WHERE mission_id <> '';

-- Guard-rails against slips of the hand, and no more than that: the evidence is the tree.
CREATE TRIGGER audit_entries_stay BEFORE DELETE ON audit_entries
BEGIN
    SELECT raise(ABORT, 'the audit log only grows');
END;

CREATE TRIGGER audit_entries_are_not_rewritten BEFORE UPDATE ON audit_entries
BEGIN
    SELECT raise(ABORT, 'the audit log only grows');
END;

-- The roots over complete runs of hashes; level 0 are the hashes of the entries.
CREATE TABLE audit_tiles (
    level  INTEGER NOT NULL,
    number INTEGER NOT NULL,
    root   BLOB NOT NULL,
    PRIMARY KEY (level, number)
) STRICT, WITHOUT ROWID;

-- What this executor signed about its log, a C2SP note for each, one in a second at most. The one of the last decision
-- is in meta.
CREATE TABLE audit_checkpoints (
    size         INTEGER PRIMARY KEY,
    signed_at_us INTEGER NOT NULL,
    note         TEXT NOT NULL
) STRICT;

-- The newest checkpoint of each caller's own log that was handed in, the one before, and the one that contradicts.
CREATE TABLE kept_checkpoints (
    identity   TEXT PRIMARY KEY,
    note       TEXT NOT NULL,
    before     TEXT NOT NULL,
    fork       TEXT NOT NULL,
    kept_at_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
