-- name: insert_revocation
INSERT OR IGNORE INTO revocations
    (mission_id, person, kind, revocation_id, reason, recorded_at_us, media_type, body, key_id, scheme, signature, extra)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: revocations
SELECT mission_id, person, kind, revocation_id, reason, recorded_at_us, media_type, body, key_id, scheme, signature, extra
FROM revocations WHERE mission_id = ? ORDER BY recorded_at_us, person, kind;

-- name: last_claim_and_outcome
SELECT coalesce(
    (SELECT segments.claim FROM segments WHERE segments.mission_id = ?1 ORDER BY segment DESC LIMIT 1),
    executions.claim
), outcome
FROM executions WHERE mission_id = ?1;
