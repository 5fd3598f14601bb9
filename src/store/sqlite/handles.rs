//! Handles in SQLite.

use std::time::Duration;

use rusqlite::{Connection, Row, params};

use super::connections::{from_json, json, millis, parsed, readable, time};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::model::handle::HandleRecord;
use crate::model::names::Label;

pub fn put(db: &Connection, digest: &Digest, handle: &HandleRecord) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO handles (id, digest, subject, providers, label, created_at, expires_at, tunnels)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            handle.id,
            digest.as_slice(),
            handle.subject.as_str(),
            handle.providers.as_ref().map(json),
            // Nothing stands for any.
            handle.label.as_ref().map_or("", Label::as_str),
            handle.created_at.as_millis(),
            millis(handle.expires_at),
            handle.tunnels
        ],
    )?;
    Ok(())
}

pub fn all(db: &Connection) -> rusqlite::Result<Vec<(Digest, HandleRecord)>> {
    db.prepare("SELECT * FROM handles ORDER BY created_at, id")?.query_map([], record).and_then(readable)
}

pub fn renew(db: &Connection, id: &str, expires_at: Timestamp) -> rusqlite::Result<bool> {
    let sql = "UPDATE handles SET expires_at = ?2 WHERE id = ?1 AND expires_at IS NOT NULL AND revoked_at IS NULL";
    Ok(db.execute(sql, params![id, expires_at.as_millis()])? == 1)
}

pub fn revoke(db: &Connection, id: &str, now: Timestamp) -> rusqlite::Result<bool> {
    let sql = "UPDATE handles SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1";
    Ok(db.execute(sql, params![id, now.as_millis()])? == 1)
}

/// Handles that end by themselves are forgotten thirty days later: each program under `sidekey run` has had one.
pub fn sweep(db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    let long_over = now.minus(Duration::from_secs(30 * 86_400)).as_millis();
    db.execute("DELETE FROM handles WHERE expires_at < ?1", [long_over]).map(drop)
}

fn label(row: &Row<'_>) -> rusqlite::Result<Option<Label>> {
    let is_any = row.get_ref("label")?.as_str()?.is_empty();
    if is_any { Ok(None) } else { parsed(row, "label").map(Some) }
}

fn record(row: &Row<'_>) -> rusqlite::Result<(Digest, HandleRecord)> {
    let handle = HandleRecord {
        id: row.get("id")?,
        subject: parsed(row, "subject")?,
        providers: from_json(row, "providers")?,
        label: label(row)?,
        tunnels: row.get("tunnels")?,
        created_at: time(row, "created_at")?.unwrap_or(Timestamp::from_millis(0)),
        expires_at: time(row, "expires_at")?,
        revoked_at: time(row, "revoked_at")?,
    };
    Ok((row.get("digest")?, handle))
}
