-- What persons took back: a withdrawal voids somebody's approvals of a mission, a denial ends the mission. Neither is ever
-- removed, and one row says all there is to say of a mission, a person and a kind.
CREATE TABLE revocations (
    mission_id     TEXT NOT NULL,
    person         TEXT NOT NULL,
    kind           TEXT NOT NULL CHECK (kind IN ('withdraw', 'deny')),
    revocation_id  TEXT NOT NULL,
    reason         TEXT NOT NULL,
    recorded_at_us INTEGER NOT NULL,
    media_type     TEXT NOT NULL,
    body           BLOB NOT NULL,
    key_id         TEXT NOT NULL,
    scheme         TEXT NOT NULL,
    signature      BLOB NOT NULL,
    extra          BLOB NOT NULL,
    PRIMARY KEY (mission_id, person, kind)
) STRICT, WITHOUT ROWID;
