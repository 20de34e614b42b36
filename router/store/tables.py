"""The tables that records are kept in, and the statements that write them."""

from __future__ import annotations

from router.store.supported_time import SCHEMA as TIME_SCHEMA

DB_VERSION = 1
PAGE_BYTES = 8192  # several records a page: half the cost of SQLite's own
CHECKPOINT_PAGES = 2000
PRAGMAS = (f"page_size = {PAGE_BYTES}", f"wal_autocheckpoint = {CHECKPOINT_PAGES}")

SCHEMA = f"""{TIME_SCHEMA}
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL UNIQUE,
    policy TEXT NOT NULL,
    created_at REAL NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS records_by_age ON records (created_at);
CREATE TABLE IF NOT EXISTS amendments (
    id INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    created_at REAL NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS amendments_by_request ON amendments (request_id);
CREATE TRIGGER IF NOT EXISTS amendments_go_with_their_record AFTER DELETE ON records
BEGIN DELETE FROM amendments WHERE request_id = old.request_id; END;
CREATE TABLE IF NOT EXISTS files (
    mark TEXT PRIMARY KEY,
    content TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS file_uses (
    request_id TEXT NOT NULL,
    mark TEXT NOT NULL,
    PRIMARY KEY (request_id, mark)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS file_uses_by_mark ON file_uses (mark);
CREATE TRIGGER IF NOT EXISTS uses_go_with_their_record AFTER DELETE ON records
BEGIN DELETE FROM file_uses WHERE request_id = old.request_id; END;
CREATE TABLE IF NOT EXISTS imports (
    head TEXT NOT NULL,
    policy TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    digest TEXT NOT NULL,
    at REAL NOT NULL,
    counts TEXT NOT NULL,
    PRIMARY KEY (head, policy)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS files_go_with_their_last_use AFTER DELETE ON file_uses
WHEN NOT EXISTS (SELECT 1 FROM file_uses WHERE mark = old.mark)
BEGIN DELETE FROM files WHERE mark = old.mark; END;
"""
FIRST_IMPORTED = -(2**62)
"""Imported records are numbered from here on, below 0: whoever reads what came through here, from 0 on, never sees
one, and the numbers of those that come stay their own."""
ADD_IMPORTED = """INSERT OR IGNORE INTO records (seq, request_id, policy, created_at, body)
    SELECT coalesce(max(seq), ?1) + 1, ?2, ?3, ?4, ?5 FROM records WHERE seq < 0"""
KEEP_IMPORT = "INSERT OR REPLACE INTO imports (head, policy, bytes, digest, at, counts) VALUES (?, ?, ?, ?, ?, ?)"
IMPORT_OF = "SELECT bytes, digest, at, counts FROM imports WHERE head = ? AND policy = ?"
ADD_RECORDS = "INSERT OR IGNORE INTO records (request_id, policy, created_at, body) VALUES "
DROP_FEEDBACK = "DELETE FROM amendments WHERE request_id = ? AND kind = 'feedback'"  # the last word holds alone
ADD_AMENDMENTS = "INSERT INTO amendments (request_id, kind, created_at, body) VALUES "
ADD_FILE = "INSERT OR IGNORE INTO files (mark, content) VALUES (?, ?)"
ADD_USE = "INSERT OR IGNORE INTO file_uses (request_id, mark) VALUES (?, ?)"
FILES_OF = "SELECT mark, content FROM file_uses JOIN files USING (mark) WHERE request_id = ?"
POLICY_OF = """SELECT policy, CASE WHEN json_valid(body) THEN json_extract(body, '$.task') END
    FROM records WHERE request_id = ?"""
PRUNE = """DELETE FROM records WHERE seq IN
    (SELECT seq FROM records WHERE policy = ? AND created_at < ? ORDER BY created_at LIMIT ?)"""
DATE_ANEW = "UPDATE records SET created_at = ? WHERE created_at > ?"
NEWEST = "SELECT max(created_at) FROM records"
PRUNE_AMENDMENTS = "DELETE FROM amendments WHERE created_at < ?"
