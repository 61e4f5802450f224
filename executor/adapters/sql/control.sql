-- name: insert_segment
INSERT INTO segments (execution, segment, mission_id, report_digest, claimed_at_us, claim)
SELECT number, ?2, ?1, ?4, ?5, ?6 FROM executions
WHERE execution_id = ?3 AND mission_id = ?1 AND segment = 0 AND outcome IS NULL
    AND ?2 = 1 + (SELECT coalesce(max(segment), 0) FROM segments WHERE mission_id = ?1)
    AND NOT EXISTS (
        SELECT 1 FROM revocations
        WHERE mission_id = ?1
            AND (kind = 'deny' OR person IN (SELECT json_extract(value, '$.approver') FROM json_each(?6, '$.approvals')))
    );

-- name: standing_of_segment
SELECT executions.outcome FROM segments JOIN executions ON executions.number = segments.execution
WHERE segments.mission_id = ? AND segments.segment = ?;

-- name: insert_first_plan
INSERT INTO claimed_plans (number, signatures, body) VALUES (1024 * last_insert_rowid(), ?, ?);

-- name: insert_plan
INSERT INTO claimed_plans (number, signatures, body)
SELECT 1024 * number + ?2, ?3, ?4 FROM executions WHERE execution_id = ?1;

-- name: plan_of
SELECT claimed_plans.signatures, claimed_plans.body
FROM executions JOIN claimed_plans ON claimed_plans.number = 1024 * executions.number + ?2
WHERE executions.execution_id = ?1;

-- name: claims_of
SELECT claim, segment FROM executions WHERE execution_id = ?1
UNION ALL
SELECT segments.claim, segments.segment
FROM segments JOIN executions ON executions.number = segments.execution
WHERE executions.execution_id = ?1
ORDER BY segment;

-- name: plans_after
SELECT claimed_plans.number, executions.claimed_at_us, executions.ended_at_us
FROM claimed_plans JOIN executions ON executions.number = claimed_plans.number / 1024
WHERE claimed_plans.number > ? ORDER BY claimed_plans.number LIMIT ?;

-- name: forget_plan
DELETE FROM claimed_plans WHERE number = ?;

-- name: insert_control
INSERT INTO controls
    (request_id, body_digest, execution_id, mission_id, action, actor, reason, roll_back, step_id, recorded_at_us,
    document_id, nonce, media_type, body, signatures)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: control
SELECT request_id, body_digest, execution_id, mission_id, action, actor, reason, roll_back, step_id, recorded_at_us,
    document_id, nonce, media_type, body, signatures
FROM controls WHERE request_id = ?;

-- name: controls_of
SELECT request_id, body_digest, execution_id, mission_id, action, actor, reason, roll_back, step_id, recorded_at_us,
    document_id, nonce, media_type, body, signatures
FROM controls WHERE execution_id = ? ORDER BY number;

-- name: last_recorded
SELECT json_extract(leaf, '$.type'), json_extract(leaf, '$.request_id') FROM audit_entries
WHERE mission_id = ? AND mission_id <> '' AND json_extract(leaf, '$.type') IN
    ('claimed', 'control', 'events_recorded', 'effect_claimed', 'effect_settled', 'execution_ended')
ORDER BY number DESC LIMIT 1;

-- name: insert_effect
INSERT INTO effects
    (effect_id, execution_id, mission_id, segment, step_id, attempt, compensates, kind, target, digest, idempotency_key,
    claimed_at_us)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: insert_settlement
INSERT INTO settlements (effect_id, settlement, state, record, settled_at_us) VALUES (?, ?, ?, ?, ?);

-- name: effect
SELECT effect_id, execution_id, mission_id, segment, step_id, attempt, compensates, kind, target, digest,
    idempotency_key, claimed_at_us
FROM effects WHERE effect_id = ?;

-- name: last_settlement
SELECT settlement, state, record FROM settlements WHERE effect_id = ? ORDER BY settlement DESC LIMIT 1;

-- name: effects_of
SELECT effects.effect_id, execution_id, mission_id, segment, step_id, attempt, compensates, kind, target, digest,
    idempotency_key, claimed_at_us, settled_at_us, record
FROM effects LEFT JOIN settlements ON settlements.effect_id = effects.effect_id
    AND settlement = (SELECT max(settlement) FROM settlements WHERE effect_id = effects.effect_id)
WHERE execution_id = ? ORDER BY number;

-- name: has_control
SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'controls';

-- name: recorded_control_rows
SELECT
    (SELECT count(*) FROM segments),
    (SELECT count(*) FROM controls),
    (SELECT count(*) FROM effects),
    (SELECT count(*) FROM settlements);

-- name: audited_segment
SELECT segments.mission_id, segments.segment, segments.report_digest, segments.claimed_at_us, segments.claim
FROM segments JOIN executions ON executions.number = segments.execution
WHERE executions.execution_id = ? AND segments.segment = ?;

-- name: audited_settlement
SELECT state, record, settled_at_us FROM settlements WHERE effect_id = ? AND settlement = ?;
