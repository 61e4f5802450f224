-- name: data_version
PRAGMA data_version;

-- name: audit_size
SELECT coalesce(max(number) + 1, 0) FROM audit_entries;

-- name: insert_audit_entry
INSERT INTO audit_entries (number, hash, mission_id, leaf) VALUES (?, ?, ?, ?);

-- name: insert_audit_tile
INSERT INTO audit_tiles (level, number, root) VALUES (?, ?, ?);

-- name: audit_hashes
SELECT hash FROM audit_entries WHERE number >= ? AND number < ? ORDER BY number;

-- name: audit_tiles
SELECT root FROM audit_tiles WHERE level = ? AND number >= ? AND number < ? ORDER BY number;

-- name: audit_entries
SELECT number, hash, mission_id, leaf FROM audit_entries WHERE number >= ? ORDER BY number LIMIT ?;

-- name: audit_entries_of_mission
SELECT number, leaf FROM audit_entries WHERE mission_id = ? AND mission_id <> '' ORDER BY number LIMIT ?;

-- name: insert_audit_checkpoint
INSERT OR REPLACE INTO audit_checkpoints (size, signed_at_us, note) VALUES (?, ?, ?);

-- name: set_decision_checkpoint
INSERT INTO meta (key, value) VALUES ('audit_checkpoint', ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: newest_audit_checkpoints
SELECT size, note FROM audit_checkpoints ORDER BY size DESC LIMIT ?;

-- name: prune_audit_checkpoints
DELETE FROM audit_checkpoints
WHERE size < (SELECT size FROM audit_checkpoints ORDER BY size DESC LIMIT 1 OFFSET ?);

-- name: kept_checkpoint
SELECT note, before, fork FROM kept_checkpoints WHERE identity = ?;

-- name: kept_checkpoints
SELECT identity, note, before, fork FROM kept_checkpoints ORDER BY identity;

-- name: keep_checkpoint
INSERT OR REPLACE INTO kept_checkpoints (identity, note, before, fork, kept_at_us) VALUES (?, ?, ?, ?, ?);

-- name: forget_kept_checkpoint
DELETE FROM kept_checkpoints WHERE identity = ?;

-- name: claims_and_clock
SELECT coalesce(max(number), 0), (SELECT value FROM meta WHERE key = 'clock_high_water_us') FROM executions;

-- name: has_audit_log
SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'audit_entries';

-- name: set_epoch
UPDATE meta SET value = ? WHERE key = 'epoch';

-- name: mission_of_execution
SELECT mission_id FROM executions WHERE execution_id = ?;

-- name: recorded_rows
SELECT
    (SELECT count(*) FROM issued_reports),
    (SELECT count(*) FROM executions),
    (SELECT count(*) FROM event_batches),
    (SELECT count(*) FROM receipts),
    (SELECT count(*) FROM refusals);

-- name: audited_report
SELECT mission_id, report_id, plan_digest, epoch, status, issued_at_us, key_id, signature, body
FROM issued_reports WHERE digest = ?;

-- name: audited_claim
SELECT mission_id, segment, report_digest, claimed_at_us, claim FROM executions WHERE execution_id = ?;

-- name: audited_events
SELECT executions.mission_id, event_batches.events
FROM event_batches JOIN executions ON executions.number = event_batches.execution
WHERE executions.execution_id = ? AND event_batches.last_sequence = ?;

-- name: audited_end
SELECT executions.mission_id, executions.ended_at_us, executions.outcome, receipts.last_sequence, receipts.events,
    receipts.key_id, receipts.signature, receipts.body
FROM receipts JOIN executions ON executions.number = receipts.execution
WHERE executions.execution_id = ?;

-- name: audited_refusal
SELECT mission_id, gate, reason, refused_at_us, event, key_id, signature, body FROM refusals WHERE refusal_id = ?;

-- name: audited_request
SELECT kind, body_digest, reference FROM requests WHERE request_id = ?;

-- name: audited_approval
SELECT 1 FROM used_approvals WHERE approval_id = ? AND nonce = ? AND execution_id = ?;

-- name: audited_revocation
SELECT mission_id, person, kind, revocation_id, reason, recorded_at_us, media_type, body, key_id, scheme, signature, extra
FROM revocations WHERE mission_id = ? AND person = ? AND kind = ?;
