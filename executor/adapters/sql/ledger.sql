-- name: meta
SELECT value FROM meta WHERE key = ?;

-- name: set_meta_once
INSERT OR IGNORE INTO meta (key, value) VALUES (?, ?);

-- name: raise_clock
UPDATE meta SET value = ? WHERE key = 'clock_high_water_us' AND CAST(value AS INTEGER) < ?;

-- name: request
SELECT request_id, kind, body_digest, reference FROM requests WHERE request_id = ?;

-- name: insert_request
INSERT INTO requests (request_id, kind, body_digest, reference) VALUES (?, ?, ?, ?);

-- name: standing
SELECT outcome FROM executions WHERE mission_id = ? AND segment = ?;

-- name: insert_report
INSERT INTO issued_reports
    (digest, report_id, mission_id, plan_digest, epoch, status, issued_at_us, key_id, signature, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: insert_small_object
INSERT OR IGNORE INTO small_objects (digest, body) VALUES (?, ?);

-- name: report_epoch
SELECT epoch FROM issued_reports WHERE digest = ?;

-- name: report
SELECT body, key_id, signature FROM issued_reports WHERE digest = ?;

-- name: small_object
SELECT body FROM small_objects WHERE digest = ?;

-- name: insert_execution
INSERT INTO executions (mission_id, segment, execution_id, report_digest, claimed_at_us, claim)
SELECT ?1, ?2, ?3, ?4, ?5, ?6
WHERE NOT EXISTS (
    SELECT 1 FROM revocations
    WHERE mission_id = ?1
        AND (kind = 'deny' OR person IN (SELECT json_extract(value, '$.approver') FROM json_each(?6, '$.approvals')))
);

-- name: insert_used_approval
INSERT INTO used_approvals (approval_id, nonce, execution_id) VALUES (?, ?, ?);

-- name: used_approval
SELECT 1 FROM used_approvals WHERE approval_id = ? OR nonce = ?;

-- name: insert_event_batch
INSERT INTO event_batches (execution, last_sequence, events)
SELECT number, ?, ? FROM executions WHERE execution_id = ?;

-- name: end_execution
UPDATE executions SET ended_at_us = ?, outcome = ? WHERE execution_id = ? AND outcome IS NULL
RETURNING number, mission_id;

-- name: insert_receipt
INSERT INTO receipts (execution, key_id, signature, body, last_sequence, events) VALUES (?, ?, ?, ?, ?, ?);

-- name: insert_refusal
INSERT INTO refusals (refusal_id, mission_id, gate, reason, refused_at_us, key_id, signature, body, event)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: execution_by_id
SELECT execution_id, mission_id, claimed_at_us, ended_at_us, outcome,
    max(
        coalesce((SELECT max(last_sequence) FROM event_batches WHERE execution = number), 0),
        coalesce((SELECT last_sequence FROM receipts WHERE execution = number), 0)
    )
FROM executions WHERE execution_id = ?;

-- name: execution_by_mission
SELECT execution_id, mission_id, claimed_at_us, ended_at_us, outcome,
    max(
        coalesce((SELECT max(last_sequence) FROM event_batches WHERE execution = number), 0),
        coalesce((SELECT last_sequence FROM receipts WHERE execution = number), 0)
    )
FROM executions WHERE mission_id = ? ORDER BY segment DESC LIMIT 1;

-- name: events_after
SELECT events, last_sequence FROM event_batches
WHERE execution = (SELECT number FROM executions WHERE execution_id = ?1) AND last_sequence > ?2
UNION ALL
SELECT events, last_sequence FROM receipts
WHERE execution = (SELECT number FROM executions WHERE execution_id = ?1) AND last_sequence > ?2
ORDER BY last_sequence;

-- name: receipt
SELECT receipts.body, receipts.key_id, receipts.signature
FROM receipts JOIN executions ON executions.number = receipts.execution
WHERE executions.mission_id = ? ORDER BY executions.segment DESC LIMIT 1;

-- name: unfinished
SELECT claim FROM executions WHERE outcome IS NULL ORDER BY claimed_at_us;

-- name: insert_checkpoint
INSERT INTO checkpoints (slot, execution_id, mission_id, step_id, workspace_id, kept_at_us, bytes, record)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: checkpoints_of_mission
SELECT slot, execution_id, mission_id, step_id, workspace_id, kept_at_us, bytes, record
FROM checkpoints WHERE mission_id = ? ORDER BY number;

-- name: checkpoints_before
SELECT slot, execution_id, mission_id, step_id, workspace_id, kept_at_us, bytes, record
FROM checkpoints WHERE kept_at_us < ?1 AND (kept_at_us, slot) > (?2, ?3)
ORDER BY kept_at_us, slot LIMIT ?4;

-- name: has_checkpoint
SELECT 1 FROM checkpoints WHERE slot = ?;

-- name: forget_checkpoint
DELETE FROM checkpoints WHERE slot = ?;
