-- name: keep_trust
INSERT INTO meta (key, value) VALUES ('trust_seen', ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value;
