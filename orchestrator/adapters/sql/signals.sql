-- name: count_steps
INSERT INTO signal_steps AS held (kind, tool, workspace_id, day, bucket, succeeded, failed, censored, drifts, divergences, rollbacks, rated_good, rated_bad)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (kind, tool, workspace_id, day, bucket) DO UPDATE
SET succeeded = held.succeeded + excluded.succeeded, failed = held.failed + excluded.failed,
    censored = held.censored + excluded.censored, drifts = held.drifts + excluded.drifts,
    divergences = held.divergences + excluded.divergences, rollbacks = held.rollbacks + excluded.rollbacks,
    rated_good = held.rated_good + excluded.rated_good, rated_bad = held.rated_bad + excluded.rated_bad;

-- name: count_stated
INSERT INTO signal_stated AS held (bin, samples, stated, stated_squared, realised, stated_realised) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (bin) DO UPDATE
SET samples = held.samples + excluded.samples, stated = held.stated + excluded.stated,
    stated_squared = held.stated_squared + excluded.stated_squared, realised = held.realised + excluded.realised,
    stated_realised = held.stated_realised + excluded.stated_realised;

-- name: count_failures
INSERT INTO signal_failures AS held (kind, reason, path, count, last_at_us, last_mission_id, message) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (kind, reason, path) DO UPDATE
SET count = held.count + excluded.count,
    message = iif((excluded.last_at_us, excluded.last_mission_id) >= (held.last_at_us, held.last_mission_id), excluded.message, held.message),
    last_mission_id = iif((excluded.last_at_us, excluded.last_mission_id) >= (held.last_at_us, held.last_mission_id), excluded.last_mission_id, held.last_mission_id),
    last_at_us = max(held.last_at_us, excluded.last_at_us);

-- name: count_stages
INSERT INTO signal_stages AS held (stage, bucket, samples) VALUES (?, ?, ?)
ON CONFLICT (stage, bucket) DO UPDATE SET samples = held.samples + excluded.samples;

-- name: counted_days_of
SELECT day, sum(succeeded), sum(failed) FROM signal_steps WHERE kind = ? AND tool = ? AND workspace_id = ? AND day < ?
GROUP BY day ORDER BY day DESC LIMIT ?;

-- name: counted_totals
SELECT kind, tool, workspace_id, sum(censored), sum(drifts), sum(divergences), sum(rollbacks), sum(rated_good), sum(rated_bad), sum(succeeded + failed)
FROM signal_steps
WHERE (?1 = '' OR kind = ?1) AND (?2 = '' OR tool = ?2) AND (?3 = '' OR workspace_id = ?3)
GROUP BY kind, tool, workspace_id ORDER BY sum(succeeded) + sum(failed) DESC, kind, tool, workspace_id LIMIT ?4;

-- name: counted_durations
SELECT kind, tool, workspace_id, bucket, sum(succeeded + failed) FROM signal_steps
WHERE (?1 = '' OR kind = ?1) AND (?2 = '' OR tool = ?2) AND (?3 = '' OR workspace_id = ?3) AND bucket >= 0
GROUP BY kind, tool, workspace_id, bucket;

-- name: counted_stated
SELECT bin, samples, stated, stated_squared, realised, stated_realised FROM signal_stated ORDER BY bin;

-- name: counted_failures
SELECT kind, reason, path, count, last_at_us, last_mission_id, message FROM signal_failures
WHERE (?1 = '' OR kind = ?1) ORDER BY count DESC, kind, reason, path LIMIT ?2;

-- name: counted_stages
SELECT stage, bucket, samples FROM signal_stages ORDER BY stage, bucket;

-- name: counted_steps
SELECT * FROM signal_steps ORDER BY kind, tool, workspace_id, day, bucket;

-- name: counted_failure_rows
SELECT * FROM signal_failures ORDER BY kind, reason, path;
