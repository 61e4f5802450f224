-- When an object was last named by a report that was issued: a sweep forgets what only old reports name. Reports are
-- gone through once, in the order in which they came; the last one is in meta.
CREATE TABLE object_uses (
    digest       TEXT PRIMARY KEY,
    last_used_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX object_uses_by_age ON object_uses (last_used_us, digest);

INSERT INTO meta (key, value) VALUES ('marked_reports', '0');
