CREATE TABLE IF NOT EXISTS meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- What was read, once for each address and content.
CREATE TABLE IF NOT EXISTS pages (
    page_id      INTEGER PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    url          TEXT NOT NULL,
    digest       TEXT NOT NULL,
    kept_us      INTEGER NOT NULL,
    UNIQUE (workspace_id, url, digest)
) STRICT;

CREATE INDEX IF NOT EXISTS pages_by_digest ON pages (digest);

-- The words of each page, under its page_id.
CREATE VIRTUAL TABLE IF NOT EXISTS texts USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2');
