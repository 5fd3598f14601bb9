//! Grants that are to be given back, in SQLite.

use rusqlite::{Connection, Row, params};

use super::alternates;
use super::connections::{from_json, readable, token_column, token_key};
use crate::base::clock::Timestamp;
use crate::model::connection::ConnectionKey;
use crate::model::names::Subject;
use crate::store::record::{RevocationRecord, WaitingRevocation};
use crate::store::seal::Sealed;

/// What a revocation is made of; a connection's row outlives it.
const SELECT: &str = "SELECT revocations.*,
    (SELECT captured FROM connections WHERE connections.id = revocations.connection_id) AS captured FROM revocations";

pub fn disconnect(
    db: &mut Connection,
    connection: &ConnectionKey,
    revocation: Option<&str>,
    now: Timestamp,
) -> rusqlite::Result<Option<Vec<RevocationRecord>>> {
    let transaction = db.transaction()?;
    let sql = "SELECT id, token FROM connections
               WHERE subject = ?1 AND provider = ?2 AND label = ?3 AND deleted_at IS NULL ORDER BY token";
    let ConnectionKey { subject, provider, label, .. } = connection;
    let rows: Vec<(String, String)> = transaction
        .prepare_cached(sql)?
        .query_map([subject.as_str(), provider.as_str(), label.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut queued = Vec::new();
    for (id, token) in &rows {
        if let Some(revocation) = revocation {
            let revocation = if token.is_empty() { revocation.to_owned() } else { format!("{revocation}.{token}") };
            transaction.execute(
                "INSERT INTO revocations (id, subject, provider, label, token, connection_id, generation,
                   access_token_sealed, refresh_token_sealed, due_at, created_at)
                 SELECT ?1, subject, provider, label, token, id, generation,
                   access_token_sealed, refresh_token_sealed, ?2, ?2
                 FROM connections WHERE id = ?3",
                params![revocation, now.as_millis(), id],
            )?;
            queued.push(transaction.query_row(&format!("{SELECT} WHERE id = ?1"), [revocation], record)?);
        }
        // The row stays for the history; what could still be used does not.
        transaction.execute(
            "UPDATE connections SET deleted_at = ?2, state = 'disconnected', state_reason = 'disconnected',
               access_token_sealed = x'', refresh_token_sealed = NULL, previous_refresh_token_sealed = NULL,
               refresh_due_at = NULL
             WHERE id = ?1",
            params![id, now.as_millis()],
        )?;
        alternates::forget(&transaction, id)?;
    }
    transaction.commit()?;
    Ok(Some(queued))
}

pub fn put(db: &Connection, record: &RevocationRecord, now: Timestamp) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO revocations (id, subject, provider, label, token, connection_id, generation, access_token_sealed,
           refresh_token_sealed, due_at, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
        params![
            record.id,
            record.key.subject.as_str(),
            record.key.provider.as_str(),
            record.key.label.as_str(),
            token_column(&record.key),
            record.connection_id,
            i64::try_from(record.generation).unwrap_or(i64::MAX),
            record.access_token.as_bytes(),
            record.refresh_token.as_ref().map(Sealed::as_bytes),
            now.as_millis()
        ],
    )
    .map(|_| ())
}

pub fn due(db: &Connection, now: Timestamp, limit: usize) -> rusqlite::Result<Vec<RevocationRecord>> {
    let mut statement = db.prepare(&format!("{SELECT} WHERE due_at <= ?1 ORDER BY due_at LIMIT ?2"))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let records = statement.query_map(params![now.as_millis(), limit], record)?;
    readable(records)
}

pub fn waiting(db: &Connection, subject: Option<&Subject>) -> rusqlite::Result<Vec<WaitingRevocation>> {
    let sql = "SELECT subject, provider, label, token, created_at, due_at, attempts FROM revocations
               WHERE ?1 IS NULL OR subject = ?1 ORDER BY created_at, id";
    let mut statement = db.prepare(sql)?;
    let found = statement.query_map([subject.map(Subject::as_str)], |row| {
        Ok(WaitingRevocation {
            key: token_key(row)?,
            since: Timestamp::from_millis(row.get("created_at")?),
            next_try_at: Timestamp::from_millis(row.get("due_at")?),
            attempts: row.get("attempts")?,
        })
    })?;
    readable(found)
}

pub fn postpone(db: &Connection, id: &str, until: Timestamp) -> rusqlite::Result<()> {
    let sql = "UPDATE revocations SET attempts = attempts + 1, due_at = ?2 WHERE id = ?1";
    db.execute(sql, params![id, until.as_millis()]).map(|_| ())
}

pub fn finish(db: &Connection, id: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM revocations WHERE id = ?1", [id]).map(|_| ())
}

fn record(row: &Row<'_>) -> rusqlite::Result<RevocationRecord> {
    Ok(RevocationRecord {
        id: row.get("id")?,
        key: token_key(row)?,
        connection_id: row.get("connection_id")?,
        captured: from_json(row, "captured")?.unwrap_or_default(),
        generation: u64::try_from(row.get::<_, i64>("generation")?).unwrap_or(0),
        access_token: Sealed::from_bytes(row.get("access_token_sealed")?),
        refresh_token: row.get::<_, Option<Vec<u8>>>("refresh_token_sealed")?.map(Sealed::from_bytes),
        attempts: row.get("attempts")?,
    })
}
