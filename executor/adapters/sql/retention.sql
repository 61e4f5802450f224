-- name: unmarked_reports
SELECT rowid, issued_at_us, body FROM issued_reports
WHERE rowid > (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'marked_reports')
ORDER BY rowid LIMIT ?;

-- name: set_marked_reports
UPDATE meta SET value = ? WHERE key = 'marked_reports';

-- name: use_object
INSERT INTO object_uses (digest, last_used_us) VALUES (?, ?)
ON CONFLICT (digest) DO UPDATE SET last_used_us = max(last_used_us, excluded.last_used_us);

-- name: unfinished_reports
SELECT issued_reports.body
FROM executions JOIN issued_reports ON issued_reports.digest = executions.report_digest
WHERE executions.outcome IS NULL
UNION ALL
SELECT issued_reports.body
FROM executions JOIN segments ON segments.execution = executions.number
    JOIN issued_reports ON issued_reports.digest = segments.report_digest
WHERE executions.outcome IS NULL;

-- name: expired_objects
SELECT digest, last_used_us FROM object_uses
WHERE last_used_us < ?1 AND (last_used_us, digest) > (?2, ?3)
ORDER BY last_used_us, digest LIMIT ?4;

-- name: reports_with_pages
SELECT rowid, body FROM issued_reports
WHERE rowid > ? AND instr(body, CAST('"fetched"' AS BLOB)) ORDER BY rowid LIMIT ?;

-- name: known_object
SELECT 1 FROM object_uses WHERE digest = ?;

-- name: forget_small_object
DELETE FROM small_objects
WHERE digest = ?1 AND EXISTS (SELECT 1 FROM object_uses WHERE digest = ?1 AND last_used_us < ?2);

-- name: forget_object_use
DELETE FROM object_uses WHERE digest = ?1 AND last_used_us < ?2;
