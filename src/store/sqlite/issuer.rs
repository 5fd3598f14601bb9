//! What the issuer keeps, in SQLite.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::connections::{from_json, json, parsed, time};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::model::authorization::{Approval, PendingCode, User, Visit};
use crate::model::client::Registration;
use crate::model::grant::{AccessToken, EndReason, Ended, Grant, RefreshToken};
use crate::model::names::{ServerName, Subject};
use crate::model::scope;
use crate::store::issuer::{GrantRecord, NewTokens, Rotation, StoredCode, StoredDocument};
use crate::store::seal::Sealed;

/// Grants that are over stay so long, for the history.
const HISTORY: Duration = Duration::from_secs(30 * 86_400);
/// Sessions at MCP servers that nobody used for so long are forgotten.
const SESSION_IDLE: Duration = Duration::from_secs(30 * 86_400);
/// So many client documents are kept, those that were fetched last.
const MOST_DOCUMENTS: u32 = 10_000;
/// A code that is over is kept so long, to recognize its replay.
const CODE_HISTORY: Duration = Duration::from_secs(86_400);

pub fn put_client(
    db: &mut Connection,
    id: &str,
    client: &Registration,
    now: Timestamp,
    unused: u32,
) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    transaction.execute(
        "INSERT INTO clients (id, registration, registered_at) VALUES (?1, ?2, ?3)",
        params![id, json(client), now.as_millis()],
    )?;
    transaction.execute(
        "DELETE FROM clients WHERE used_at IS NULL AND id IN (
           SELECT id FROM clients WHERE used_at IS NULL ORDER BY registered_at DESC, rowid DESC LIMIT -1 OFFSET ?1)",
        [unused],
    )?;
    transaction.commit()
}

pub fn client(db: &Connection, id: &str) -> rusqlite::Result<Option<Registration>> {
    let sql = "SELECT registration FROM clients WHERE id = ?1";
    Ok(db.query_row(sql, [id], |row| from_json(row, "registration")).optional()?.flatten())
}

pub fn use_client(db: &Connection, id: &str, now: Timestamp) -> rusqlite::Result<()> {
    db.execute("UPDATE clients SET used_at = ?2 WHERE id = ?1", params![id, now.as_millis()]).map(|_| ())
}

pub fn put_document(db: &Connection, url: &str, document: &StoredDocument) -> rusqlite::Result<()> {
    // Anybody can have any number of documents.
    db.execute(
        "DELETE FROM client_documents WHERE url IN (
           SELECT url FROM client_documents ORDER BY fetched_at DESC LIMIT -1 OFFSET ?1)",
        [MOST_DOCUMENTS - 1],
    )?;
    db.execute(
        "INSERT OR REPLACE INTO client_documents (url, body, fetched_at, fresh_until) VALUES (?1, ?2, ?3, ?4)",
        params![url, document.body, document.fetched_at.as_millis(), document.fresh_until.as_millis()],
    )
    .map(|_| ())
}

pub fn document(db: &Connection, url: &str) -> rusqlite::Result<Option<StoredDocument>> {
    db.query_row("SELECT * FROM client_documents WHERE url = ?1", [url], |row| {
        Ok(StoredDocument {
            body: row.get("body")?,
            fetched_at: moment(row, "fetched_at")?,
            fresh_until: moment(row, "fresh_until")?,
        })
    })
    .optional()
}

pub fn put_visit(db: &Connection, visit: &Visit) -> rusqlite::Result<bool> {
    let changed = db.execute(
        "INSERT INTO visits (id, visit, expires_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET visit = excluded.visit WHERE finished_at IS NULL",
        params![visit.id, json(visit), visit.expires_at.as_millis()],
    )?;
    Ok(changed == 1)
}

pub fn visit(db: &Connection, id: &str, now: Timestamp) -> rusqlite::Result<Option<Visit>> {
    let sql = "SELECT visit FROM visits WHERE id = ?1 AND finished_at IS NULL AND expires_at > ?2";
    Ok(db.query_row(sql, params![id, now.as_millis()], |row| from_json(row, "visit")).optional()?.flatten())
}

pub fn finish_visit(
    db: &mut Connection,
    id: &str,
    code: Option<&(Digest, PendingCode)>,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let transaction = db.transaction()?;
    let finished = transaction.execute(
        "UPDATE visits SET finished_at = ?2 WHERE id = ?1 AND finished_at IS NULL AND expires_at > ?2",
        params![id, now.as_millis()],
    )?;
    if finished == 0 {
        return Ok(false);
    }
    if let Some((digest, pending)) = code {
        put_code(&transaction, digest, pending)?;
    }
    transaction.commit().map(|()| true)
}

pub fn put_session(
    db: &mut Connection,
    digest: &Digest,
    user: &User,
    now: Timestamp,
    expires_at: Timestamp,
    replaces: Option<&Digest>,
) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    if let Some(replaced) = replaces {
        end_session(&transaction, replaced)?;
    }
    transaction.execute(
        "INSERT INTO browser_sessions (digest, subject, account, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![digest.as_slice(), user.subject.as_str(), user.account, now.as_millis(), expires_at.as_millis()],
    )?;
    transaction.commit()
}

pub fn session(db: &Connection, digest: &Digest, now: Timestamp) -> rusqlite::Result<Option<User>> {
    db.query_row(
        "SELECT subject, account FROM browser_sessions WHERE digest = ?1 AND expires_at > ?2",
        params![digest.as_slice(), now.as_millis()],
        |row| Ok(User { subject: parsed(row, "subject")?, account: row.get("account")? }),
    )
    .optional()
}

pub fn end_session(db: &Connection, digest: &Digest) -> rusqlite::Result<()> {
    db.execute("DELETE FROM browser_sessions WHERE digest = ?1", [digest.as_slice()]).map(|_| ())
}

pub fn put_approval(db: &Connection, approval: &Approval) -> rusqlite::Result<()> {
    let approved = &approval.authorization;
    db.execute(
        "INSERT OR REPLACE INTO approvals (subject, client_id, server, approval) VALUES (?1, ?2, ?3, ?4)",
        params![approved.user.subject.as_str(), approved.client_id, approved.server.as_str(), json(approval)],
    )
    .map(|_| ())
}

pub fn approval(
    db: &Connection,
    subject: &Subject,
    client_id: &str,
    server: &ServerName,
) -> rusqlite::Result<Option<Approval>> {
    let sql = "SELECT approval FROM approvals WHERE subject = ?1 AND client_id = ?2 AND server = ?3";
    let found =
        db.query_row(sql, params![subject.as_str(), client_id, server.as_str()], |row| from_json(row, "approval"));
    Ok(found.optional()?.flatten())
}

pub fn forget_approvals(db: &mut Connection, subject: &Subject, client_id: &str) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    // What was approved and not redeemed yet, and what is being approved, is over as well.
    for sql in [
        "DELETE FROM approvals WHERE subject = ?1 AND client_id = ?2",
        "DELETE FROM codes WHERE used_at IS NULL AND client_id = ?2
           AND json_extract(pending, '$.authorization.user.subject') = ?1",
        "DELETE FROM visits WHERE finished_at IS NULL AND json_extract(visit, '$.request.client_id') = ?2
           AND json_extract(visit, '$.user.subject') = ?1",
    ] {
        transaction.execute(sql, params![subject.as_str(), client_id])?;
    }
    transaction.commit()
}

pub fn put_code(db: &Connection, digest: &Digest, pending: &PendingCode) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO codes (digest, client_id, pending, expires_at) VALUES (?1, ?2, ?3, ?4)",
        params![digest.as_slice(), pending.authorization.client_id, json(pending), pending.expires_at.as_millis()],
    )
    .map(|_| ())
}

pub fn code(db: &Connection, digest: &Digest) -> rusqlite::Result<Option<StoredCode>> {
    let found = db.query_row("SELECT * FROM codes WHERE digest = ?1", [digest.as_slice()], |row| {
        let used_at = time(row, "used_at")?;
        let grant_id: Option<String> = row.get("grant_id")?;
        let pending: Option<PendingCode> = from_json(row, "pending")?;
        Ok(pending.map(|pending| StoredCode { pending, used: used_at.map(|_| grant_id) }))
    });
    Ok(found.optional()?.flatten())
}

/// Of all who come with a code, one uses it up.
fn take_code(
    transaction: &Transaction<'_>,
    digest: &Digest,
    grant_id: Option<&str>,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let sql = "UPDATE codes SET used_at = ?2, grant_id = ?3 WHERE digest = ?1 AND used_at IS NULL";
    if transaction.execute(sql, params![digest.as_slice(), now.as_millis(), grant_id])? == 1 {
        return Ok(true);
    }
    let sql = "SELECT grant_id FROM codes WHERE digest = ?1";
    let redeemed: Option<Option<String>> =
        transaction.query_row(sql, [digest.as_slice()], |row| row.get(0)).optional()?;
    if let Some(Some(grant_id)) = redeemed {
        end_grant(transaction, &grant_id, EndReason::CodeReplayed, now)?;
    }
    Ok(false)
}

pub fn redeem_code(
    db: &mut Connection,
    digest: &Digest,
    record: &GrantRecord,
    tokens: &NewTokens,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let transaction = db.transaction()?;
    let taken = take_code(&transaction, digest, Some(&record.grant.id), now)?;
    if taken {
        let grant = &record.grant;
        transaction.execute(
            "INSERT INTO grants (id, subject, grant_json, handle_digest, handle_sealed, created_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                grant.id,
                grant.authorization.user.subject.as_str(),
                json(&grant.authorization),
                record.handle_digest.as_slice(),
                record.handle.as_bytes(),
                grant.created_at.as_millis(),
                grant.expires_at.as_millis()
            ],
        )?;
        put_tokens(&transaction, tokens)?;
    }
    transaction.commit().map(|()| taken)
}

pub fn burn_code(db: &mut Connection, digest: &Digest, now: Timestamp) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    take_code(&transaction, digest, None, now)?;
    transaction.commit()
}

fn put_tokens(transaction: &Transaction<'_>, tokens: &NewTokens) -> rusqlite::Result<()> {
    let (digest, access) = &tokens.access;
    transaction.execute(
        "INSERT INTO access_tokens (digest, grant_id, scopes, issued_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            digest.as_slice(),
            access.grant_id,
            scope::write(&access.scopes),
            access.issued_at.as_millis(),
            access.expires_at.as_millis()
        ],
    )?;
    let (digest, refresh) = &tokens.refresh;
    transaction.execute(
        "INSERT INTO refresh_tokens (digest, grant_id, issued_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
        params![digest.as_slice(), refresh.grant_id, refresh.issued_at.as_millis(), refresh.expires_at.as_millis()],
    )?;
    Ok(())
}

pub fn refresh_token(db: &Connection, digest: &Digest) -> rusqlite::Result<Option<(RefreshToken, Grant)>> {
    let sql = "SELECT * FROM refresh_tokens WHERE digest = ?1";
    let token = db
        .query_row(sql, [digest.as_slice()], |row| {
            Ok(RefreshToken {
                grant_id: row.get("grant_id")?,
                issued_at: moment(row, "issued_at")?,
                expires_at: moment(row, "expires_at")?,
                replaced_at: time(row, "used_at")?,
            })
        })
        .optional()?;
    let Some(token) = token else { return Ok(None) };
    let grant = db.query_row("SELECT * FROM grants WHERE id = ?1", [&token.grant_id], grant_record).optional()?;
    Ok(grant.map(|record| (token, record.grant)))
}

pub fn rotate(
    db: &mut Connection,
    digest: &Digest,
    tokens: &NewTokens,
    reply: &Sealed,
    now: Timestamp,
    grace: Duration,
) -> rusqlite::Result<Rotation> {
    let transaction = db.transaction()?;
    let outcome = replace(&transaction, digest, tokens, reply, now, grace)?;
    transaction.commit().map(|()| outcome)
}

fn replace(
    transaction: &Transaction<'_>,
    digest: &Digest,
    tokens: &NewTokens,
    reply: &Sealed,
    now: Timestamp,
    grace: Duration,
) -> rusqlite::Result<Rotation> {
    let sql = "UPDATE refresh_tokens SET used_at = ?2, successor_digest = ?3, reply_sealed = ?4
               WHERE digest = ?1 AND used_at IS NULL AND expires_at > ?2
                 AND grant_id IN (SELECT id FROM grants WHERE ended_at IS NULL AND expires_at > ?2)";
    let successor = tokens.refresh.0;
    let values = params![digest.as_slice(), now.as_millis(), successor.as_slice(), reply.as_bytes()];
    if transaction.execute(sql, values)? == 1 {
        put_tokens(transaction, tokens)?;
        return Ok(Rotation::Rotated);
    }
    let sql = "SELECT t.grant_id, t.used_at, t.reply_sealed, s.used_at AS successor_used_at, g.ended_at
               FROM refresh_tokens t JOIN grants g ON g.id = t.grant_id
               LEFT JOIN refresh_tokens s ON s.digest = t.successor_digest
               WHERE t.digest = ?1";
    type Found = (String, Option<Timestamp>, Option<Vec<u8>>, Option<Timestamp>, Option<Timestamp>);
    let found: Option<Found> = transaction
        .query_row(sql, [digest.as_slice()], |row| {
            let successor_used_at = time(row, "successor_used_at")?;
            let reply = row.get("reply_sealed")?;
            Ok((row.get("grant_id")?, time(row, "used_at")?, reply, successor_used_at, time(row, "ended_at")?))
        })
        .optional()?;
    Ok(match found {
        Some((_, Some(used_at), Some(reply), None, None)) if now < used_at.plus(grace) => {
            Rotation::Repeated(Sealed::from_bytes(reply))
        }
        // The access token of that answer was taken back, so the answer is not given again.
        Some((_, Some(used_at), None, None, None)) if now < used_at.plus(grace) => Rotation::Refused,
        Some((grant_id, Some(_), _, _, None)) => {
            end_grant(transaction, &grant_id, EndReason::RefreshTokenReused, now)?;
            Rotation::Reused
        }
        _ => Rotation::Refused,
    })
}

pub fn end_access_token(db: &mut Connection, digest: &Digest) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    // An answer that is given again must not bring it back.
    transaction.execute(
        "UPDATE refresh_tokens SET reply_sealed = NULL
         WHERE grant_id = (SELECT grant_id FROM access_tokens WHERE digest = ?1)",
        [digest.as_slice()],
    )?;
    transaction.execute("DELETE FROM access_tokens WHERE digest = ?1", [digest.as_slice()])?;
    transaction.commit()
}

pub fn end_grant(db: &Connection, id: &str, reason: EndReason, now: Timestamp) -> rusqlite::Result<bool> {
    let sql = "UPDATE grants SET ended_at = ?2, end_reason = ?3 WHERE id = ?1 AND ended_at IS NULL";
    let ended = db.execute(sql, params![id, now.as_millis(), json(&reason)])? == 1;
    db.execute("DELETE FROM access_tokens WHERE grant_id = ?1", [id])?;
    db.execute("UPDATE refresh_tokens SET reply_sealed = NULL WHERE grant_id = ?1", [id])?;
    Ok(ended)
}

pub fn grants(db: &Connection, subject: Option<&Subject>) -> rusqlite::Result<Vec<GrantRecord>> {
    let sql = "SELECT * FROM grants WHERE ?1 IS NULL OR subject = ?1 ORDER BY created_at, id";
    let mut statement = db.prepare(sql)?;
    let records = statement.query_map([subject.map(Subject::as_str)], grant_record)?;
    super::connections::readable(records)
}

pub fn access_tokens(db: &Connection, now: Timestamp) -> rusqlite::Result<Vec<(Digest, AccessToken)>> {
    let mut statement = db.prepare("SELECT * FROM access_tokens WHERE expires_at > ?1")?;
    let tokens = statement.query_map([now.as_millis()], |row| {
        let scopes: String = row.get("scopes")?;
        let token = AccessToken {
            grant_id: row.get("grant_id")?,
            scopes: scope::parse(&scopes).unwrap_or_default(),
            issued_at: moment(row, "issued_at")?,
            expires_at: moment(row, "expires_at")?,
        };
        Ok((row.get("digest")?, token))
    })?;
    tokens.collect()
}

pub fn put_mcp_session(
    db: &Connection,
    server: &ServerName,
    digest: &Digest,
    subject: &Subject,
    now: Timestamp,
) -> rusqlite::Result<()> {
    db.execute(
        "INSERT OR REPLACE INTO mcp_sessions (server, digest, subject, seen_at) VALUES (?1, ?2, ?3, ?4)",
        params![server.as_str(), digest.as_slice(), subject.as_str(), now.as_millis()],
    )
    .map(|_| ())
}

pub fn forget_mcp_session(db: &Connection, server: &ServerName, digest: &Digest) -> rusqlite::Result<()> {
    let sql = "DELETE FROM mcp_sessions WHERE server = ?1 AND digest = ?2";
    db.execute(sql, params![server.as_str(), digest.as_slice()]).map(|_| ())
}

pub fn mcp_sessions(db: &Connection) -> rusqlite::Result<Vec<(ServerName, Digest, Subject)>> {
    let mut statement = db.prepare("SELECT * FROM mcp_sessions")?;
    let sessions =
        statement.query_map([], |row| Ok((parsed(row, "server")?, row.get("digest")?, parsed(row, "subject")?)))?;
    super::connections::readable(sessions)
}

pub fn use_assertion(db: &Connection, digest: &Digest, expires_at: Timestamp) -> rusqlite::Result<bool> {
    let sql = "INSERT OR IGNORE INTO used_assertions (digest, expires_at) VALUES (?1, ?2)";
    Ok(db.execute(sql, params![digest.as_slice(), expires_at.as_millis()])? == 1)
}

pub fn sweep(db: &mut Connection, now: Timestamp, unused_since: Timestamp) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    let remove = |sql: &str, until: Timestamp| transaction.execute(sql, [until.as_millis()]).map(|_| ());
    remove("DELETE FROM visits WHERE expires_at <= ?1", now)?;
    remove("DELETE FROM browser_sessions WHERE expires_at <= ?1", now)?;
    remove("DELETE FROM used_assertions WHERE expires_at <= ?1", now)?;
    remove("DELETE FROM codes WHERE expires_at <= ?1", now.minus(CODE_HISTORY))?;
    remove("DELETE FROM access_tokens WHERE expires_at <= ?1", now)?;
    // The longest grace is ten minutes; after it no answer is repeated.
    remove("UPDATE refresh_tokens SET reply_sealed = NULL WHERE used_at <= ?1", now.minus(Duration::from_secs(600)))?;
    remove("DELETE FROM refresh_tokens WHERE expires_at <= ?1", now.minus(CODE_HISTORY))?;
    remove("DELETE FROM grants WHERE ended_at <= ?1", now.minus(HISTORY))?;
    remove("DELETE FROM grants WHERE expires_at <= ?1", now.minus(HISTORY))?;
    remove("DELETE FROM mcp_sessions WHERE seen_at <= ?1", now.minus(SESSION_IDLE))?;
    remove("DELETE FROM clients WHERE used_at IS NULL AND registered_at <= ?1", unused_since)?;
    transaction.commit()
}

fn grant_record(row: &Row<'_>) -> rusqlite::Result<GrantRecord> {
    let authorization = from_json(row, "grant_json")?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let reason: Option<EndReason> = from_json(row, "end_reason")?;
    let ended = time(row, "ended_at")?.zip(reason).map(|(at, reason)| Ended { at, reason });
    let grant = Grant {
        id: row.get("id")?,
        authorization,
        created_at: moment(row, "created_at")?,
        expires_at: moment(row, "expires_at")?,
        ended,
    };
    let handle = Sealed::from_bytes(row.get("handle_sealed")?);
    Ok(GrantRecord { grant, handle_digest: row.get("handle_digest")?, handle })
}

fn moment(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    Ok(time(row, column)?.unwrap_or(Timestamp::from_millis(0)))
}
