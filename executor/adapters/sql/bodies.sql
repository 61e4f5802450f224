-- name: is_complete
SELECT 1 FROM meta WHERE key = 'complete';

-- name: set_complete
INSERT OR REPLACE INTO meta (key, value) VALUES ('complete', '1');

-- name: keep_page
INSERT INTO pages (workspace_id, url, digest, kept_us) VALUES (?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- name: keep_text
INSERT INTO texts (rowid, text) VALUES (?, ?);

-- name: renew_page
UPDATE pages SET kept_us = max(kept_us, ?4) WHERE workspace_id = ?1 AND url = ?2 AND digest = ?3;

-- name: pages_with
SELECT page_id FROM pages WHERE digest = ?;

-- name: forget_text
DELETE FROM texts WHERE rowid = ?;

-- name: forget_page
DELETE FROM pages WHERE page_id = ?;

-- name: digests_before
SELECT DISTINCT digest FROM pages WHERE kept_us < ?;

-- name: found
SELECT pages.url, pages.digest
FROM texts JOIN pages ON pages.page_id = texts.rowid
WHERE texts MATCH ?1 AND pages.workspace_id = ?2
ORDER BY pages.url, pages.digest;

-- name: best
SELECT pages.url, substr(snippet(texts, 0, '', '', '…', 32), 1, 50000)
FROM texts JOIN pages ON pages.page_id = texts.rowid
WHERE texts MATCH ?1 AND pages.workspace_id = ?2
ORDER BY bm25(texts), pages.url, pages.digest
LIMIT ?3;
