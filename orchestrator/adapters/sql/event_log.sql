-- name: writer_state
SELECT
    coalesce((SELECT max(pos) FROM events), 0),
    coalesce((SELECT max(stream_pk) FROM streams), 0),
    coalesce((SELECT max(size) FROM checkpoints), 0);

-- name: find_stream
SELECT stream_pk, version FROM streams WHERE stream_id = ?;

-- name: find_command
SELECT command_id, request_hash, result FROM commands WHERE command_id = ?;

-- name: put_stream
INSERT INTO streams (stream_pk, stream_id, version, created_at_us) VALUES (?, ?, ?, ?)
ON CONFLICT (stream_id) DO UPDATE SET version = excluded.version;

-- name: add_event
INSERT INTO events (pos, stream_pk, version, type, schema_version, occurred_at_us, recorded_at_us, command_id, actor, data, leaf_hash)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: add_tree_hash
INSERT INTO tree_hashes (level, number, hash) VALUES (?, ?, ?);

-- name: add_checkpoint
INSERT INTO checkpoints (size, note, signed_at_us) VALUES (?, ?, ?)
ON CONFLICT (size) DO NOTHING;

-- name: prune_checkpoints
DELETE FROM checkpoints WHERE size < (
    SELECT size FROM checkpoints WHERE size > 0 ORDER BY size DESC LIMIT 1 OFFSET ?
);

-- name: put_witnessed
INSERT INTO witnessed (origin, public_key, size, note, fault, kept_at_us) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (origin) DO UPDATE
SET public_key = excluded.public_key, size = excluded.size, note = excluded.note, fault = excluded.fault,
    kept_at_us = excluded.kept_at_us;

-- name: forget_witnessed
DELETE FROM witnessed WHERE origin = ?;

-- name: add_command
INSERT INTO commands (command_id, request_hash, result, first_pos, last_pos, recorded_at_us) VALUES (?, ?, ?, ?, ?, ?);

-- name: add_document
INSERT INTO documents (digest, media_type, body, signatures, pos) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (digest) DO NOTHING;

-- name: put_projection
INSERT INTO projections (name, key, status, sort_key, data, last_pos) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (name, key) DO UPDATE
SET status = excluded.status, sort_key = excluded.sort_key, data = excluded.data, last_pos = excluded.last_pos;

-- name: head
SELECT coalesce(max(pos), 0) FROM events;

-- name: stream_version
SELECT version FROM streams WHERE stream_id = ?;

-- name: read_all
SELECT e.pos, s.stream_id, e.version, e.type, e.schema_version, e.occurred_at_us, e.recorded_at_us, e.command_id, e.actor, e.data, e.leaf_hash
FROM events AS e CROSS JOIN streams AS s USING (stream_pk)
WHERE e.pos > ? ORDER BY e.pos LIMIT ?;

-- name: read_stream
SELECT e.pos, s.stream_id, e.version, e.type, e.schema_version, e.occurred_at_us, e.recorded_at_us, e.command_id, e.actor, e.data, e.leaf_hash
FROM streams AS s CROSS JOIN events AS e USING (stream_pk)
WHERE s.stream_id = ? AND e.version > ? ORDER BY e.version LIMIT ?;

-- name: leaf_hashes
SELECT leaf_hash FROM events WHERE pos BETWEEN ? AND ? ORDER BY pos;

-- name: tree_hashes
SELECT hash FROM tree_hashes WHERE level = ? AND number BETWEEN ? AND ? ORDER BY number;

-- name: newest_checkpoint
SELECT size, note FROM checkpoints WHERE size = (SELECT max(size) FROM checkpoints);

-- name: checkpoints
SELECT size, note FROM checkpoints WHERE size > ? ORDER BY size LIMIT ?;

-- name: witnessed
SELECT origin, public_key, size, note, fault FROM witnessed WHERE origin > ? ORDER BY origin LIMIT ?;

-- name: document
SELECT digest, media_type, body, signatures FROM documents WHERE digest = ?;

-- name: documents
SELECT sequence, pos, digest, media_type, body, signatures FROM documents WHERE sequence > ? ORDER BY sequence LIMIT ?;

-- name: projection
SELECT name, key, status, sort_key, data FROM projections WHERE name = ? AND key = ?;

-- name: projection_keys
SELECT name, key, status, sort_key, data FROM projections WHERE name = ? AND key > ? ORDER BY key LIMIT ?;

-- name: projections
SELECT name, key, status, sort_key, data FROM projections WHERE name = ?
ORDER BY sort_key DESC, key DESC LIMIT ?;

-- name: projections_before
SELECT name, key, status, sort_key, data FROM projections WHERE name = ? AND (sort_key, key) < (?, ?)
ORDER BY sort_key DESC, key DESC LIMIT ?;

-- name: projections_of_status
SELECT name, key, status, sort_key, data FROM projections WHERE name = ? AND status = ?
ORDER BY sort_key DESC, key DESC LIMIT ?;

-- name: projections_of_status_before
SELECT name, key, status, sort_key, data FROM projections WHERE name = ? AND status = ? AND (sort_key, key) < (?, ?)
ORDER BY sort_key DESC, key DESC LIMIT ?;
