//! Connect links and flows in SQLite.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::connections::{from_json, json, key, parsed, time};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::model::connection::ConnectionKey;
use crate::model::continuation::Continuation;
use crate::model::flow::{ConnectLink, Flow, FlowId, Purpose};
use crate::store::TakenFlow;
use crate::store::record::FlowRecord;
use crate::store::seal::Sealed;

pub fn put_link(db: &Connection, digest: &Digest, link: &ConnectLink) -> rusqlite::Result<()> {
    let ConnectionKey { subject, provider, label, .. } = &link.key;
    db.execute(
        "INSERT INTO connect_links (digest, subject, provider, label, expires_at, continuation, apis, api_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            digest.as_slice(),
            subject.as_str(),
            provider.as_str(),
            label.as_str(),
            link.expires_at.as_millis(),
            json(&link.continuation),
            link.apis.as_ref().map(json),
            link.api_key.as_ref().map(Digest::as_slice)
        ],
    )?;
    Ok(())
}

pub fn link(db: &Connection, digest: &Digest, now: Timestamp) -> rusqlite::Result<Option<ConnectLink>> {
    db.query_row(
        "SELECT * FROM connect_links WHERE digest = ?1 AND used_at IS NULL AND expires_at > ?2",
        params![digest.as_slice(), now.as_millis()],
        |row| {
            Ok(ConnectLink {
                key: key(row)?,
                continuation: from_json(row, "continuation")?.unwrap_or(Continuation::Done),
                apis: from_json(row, "apis")?,
                api_key: row.get("api_key")?,
                expires_at: expires_at(row)?,
            })
        },
    )
    .optional()
}

pub fn begin(db: &mut Connection, link: &Digest, record: &FlowRecord, now: Timestamp) -> rusqlite::Result<bool> {
    let transaction = db.transaction()?;
    let used = transaction.execute(
        "UPDATE connect_links SET used_at = ?2 WHERE digest = ?1 AND used_at IS NULL AND expires_at > ?2",
        params![link.as_slice(), now.as_millis()],
    )?;
    if used == 0 {
        return Ok(false);
    }
    put(&transaction, record)?;
    transaction.commit()?;
    Ok(true)
}

pub fn put(db: &Connection, record: &FlowRecord) -> rusqlite::Result<()> {
    let flow = &record.flow;
    db.execute(
        "INSERT INTO flows (id, subject, provider, label, browser_binding, verifier_sealed, continuation, requested_scopes,
           allowance, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            flow.id.0.as_slice(),
            flow.purpose.subject().map(|subject| subject.as_str()),
            flow.purpose.provider().as_str(),
            flow.purpose.label().as_str(),
            flow.browser_binding.as_slice(),
            record.verifier.as_ref().map(Sealed::as_bytes),
            json(&flow.continuation),
            json(&flow.requested_scopes),
            flow.allowance.as_ref().map(json),
            flow.expires_at.as_millis()
        ],
    )?;
    Ok(())
}

pub fn flow(db: &Connection, id: FlowId) -> rusqlite::Result<Option<FlowRecord>> {
    db.query_row("SELECT * FROM flows WHERE id = ?1", [id.0.as_slice()], record).optional()
}

pub fn take(db: &mut Connection, id: FlowId, now: Timestamp) -> rusqlite::Result<TakenFlow> {
    let transaction = db.transaction()?;
    let Some(found) = flow(&transaction, id)? else { return Ok(TakenFlow::Unknown) };
    let taken = transaction.execute(
        "UPDATE flows SET used_at = ?2, verifier_sealed = NULL WHERE id = ?1 AND used_at IS NULL",
        params![id.0.as_slice(), now.as_millis()],
    )?;
    transaction.commit()?;
    Ok(if taken == 1 { TakenFlow::Open(Box::new(found)) } else { TakenFlow::AlreadyUsed })
}

pub fn sweep(db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    let long_over = now.minus(Duration::from_secs(3600)).as_millis();
    db.execute("DELETE FROM connect_links WHERE expires_at < ?1", [long_over])?;
    db.execute("DELETE FROM flows WHERE expires_at < ?1", [long_over])?;
    // A verifier is of no use to anybody once its flow is over.
    db.execute("UPDATE flows SET verifier_sealed = NULL WHERE expires_at <= ?1", [now.as_millis()])?;
    Ok(())
}

fn record(row: &Row<'_>) -> rusqlite::Result<FlowRecord> {
    let is_for_somebody = row.get::<_, Option<String>>("subject")?.is_some();
    let purpose = if is_for_somebody { Purpose::Connect(key(row)?) } else { Purpose::SignIn(parsed(row, "provider")?) };
    let flow = Flow {
        id: FlowId(row.get("id")?),
        purpose,
        continuation: from_json(row, "continuation")?.unwrap_or(Continuation::Done),
        browser_binding: row.get("browser_binding")?,
        requested_scopes: from_json(row, "requested_scopes")?.unwrap_or_default(),
        allowance: from_json(row, "allowance")?,
        expires_at: expires_at(row)?,
    };
    Ok(FlowRecord { flow, verifier: row.get::<_, Option<Vec<u8>>>("verifier_sealed")?.map(Sealed::from_bytes) })
}

fn expires_at(row: &Row<'_>) -> rusqlite::Result<Timestamp> {
    Ok(time(row, "expires_at")?.unwrap_or(Timestamp::from_millis(0)))
}
