//! Connections in SQLite.

use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{alternates, guard};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::model::connection::{Captured, ConnectionKey, ConnectionState, RefreshTrouble};
use crate::model::names::{ProviderName, Subject, TokenName};
use crate::store::record::{Beginning, ConnectionRecord, Intent, Recapture, RefreshFailure, RefreshedTokens};
use crate::store::seal::Sealed;

pub fn connect(db: &mut Connection, tokens: &[ConnectionRecord], now: Timestamp) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    for record in tokens {
        let ConnectionKey { subject, provider, label, .. } = &record.key;
        transaction.execute(
            "UPDATE connections SET deleted_at = ?1, state = 'disconnected', state_reason = 'superseded',
               access_token_sealed = x'', refresh_token_sealed = NULL, previous_refresh_token_sealed = NULL,
               refresh_due_at = NULL
             WHERE subject = ?2 AND provider = ?3 AND label = ?4 AND deleted_at IS NULL",
            params![now.as_millis(), subject.as_str(), provider.as_str(), label.as_str()],
        )?;
    }
    for record in tokens {
        insert(&transaction, record)?;
    }
    transaction.commit()
}

fn insert(db: &Connection, record: &ConnectionRecord) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO connections (
           id, subject, provider, label, token, state, state_reason, captured, earlier_site, scopes, requested_scopes,
           account, generation,
           access_token_sealed, access_expires_at, refresh_token_sealed, previous_refresh_token_sealed,
           refresh_token_since, refresh_expires_at, grant_expires_at, refresh_due_at, connected_at, refreshed_at)
         VALUES (:id, :subject, :provider, :label, :token, :state, :state_reason, :captured, :earlier_site, :scopes,
           :requested_scopes, :account, :generation,
           :access_token, :access_expires_at, :refresh_token, :previous_refresh_token,
           :refresh_token_since, :refresh_expires_at, :grant_expires_at, :refresh_due_at, :connected_at, :refreshed_at)",
    )?
    .execute(named_params! {
        ":id": record.id,
        ":subject": record.key.subject.as_str(),
        ":provider": record.key.provider.as_str(),
        ":label": record.key.label.as_str(),
        ":token": token_column(&record.key),
        ":state": record.state.word(),
        ":state_reason": reason(&record.state),
        ":captured": json(&record.captured),
        ":earlier_site": record.earlier_site.as_ref().map(json),
        ":scopes": record.scopes.as_ref().map(json),
        ":requested_scopes": record.requested_scopes.as_ref().map(json),
        ":account": record.account,
        ":generation": generation(record.generation),
        ":access_token": record.access_token.as_bytes(),
        ":access_expires_at": millis(record.access_expires_at),
        ":refresh_token": record.refresh_token.as_ref().map(Sealed::as_bytes),
        ":previous_refresh_token": record.previous_refresh_token.as_ref().map(Sealed::as_bytes),
        ":refresh_token_since": millis(record.refresh_token_since),
        ":refresh_expires_at": millis(record.refresh_expires_at),
        ":grant_expires_at": millis(record.grant_expires_at),
        ":refresh_due_at": millis(record.refresh_due_at),
        ":connected_at": record.connected_at.as_millis(),
        ":refreshed_at": millis(record.refreshed_at),
    })
    .map(|_| ())
}

pub fn by_key(db: &Connection, key: &ConnectionKey) -> rusqlite::Result<Option<ConnectionRecord>> {
    db.prepare_cached(
        "SELECT * FROM connections
         WHERE subject = ?1 AND provider = ?2 AND label = ?3 AND token = ?4 AND deleted_at IS NULL",
    )?
    .query_row([key.subject.as_str(), key.provider.as_str(), key.label.as_str(), token_column(key)], record)
    .optional()
}

pub fn recapture(db: &mut Connection, key: &ConnectionKey, change: &Recapture) -> rusqlite::Result<Vec<String>> {
    let transaction = db.transaction()?;
    let ConnectionKey { subject, provider, label, .. } = key;
    let of_key = "subject = ?1 AND provider = ?2 AND label = ?3 AND deleted_at IS NULL";
    let sql = format!("SELECT id, token, captured FROM connections WHERE {of_key} ORDER BY token");
    let row = |row: &Row<'_>| {
        let captured: Captured = from_json(row, "captured")?.unwrap_or_default();
        Ok((row.get::<_, String>("id")?, row.get::<_, String>("token")?, captured))
    };
    let tokens: Vec<_> = transaction
        .prepare_cached(&sql)?
        .query_map([subject.as_str(), provider.as_str(), label.as_str()], row)?
        .collect::<Result<_, _>>()?;
    let is_unchanged = tokens.first().is_some_and(|(id, token, captured)| {
        let current = captured.iter().filter(|(name, _)| change.names.contains(*name));
        *id == change.id && token.is_empty() && current.eq(&change.before)
    });
    if !is_unchanged {
        return Ok(Vec::new());
    }
    let mut ids = Vec::new();
    for (id, _, mut captured) in tokens {
        captured.retain(|name, _| !change.names.contains(name));
        captured.extend(change.values.clone());
        let sql = "UPDATE connections SET captured = ?2, earlier_site = NULL WHERE id = ?1";
        transaction.execute(sql, params![id, json(&captured)])?;
        ids.push(id);
    }
    transaction.commit()?;
    Ok(ids)
}

pub fn of_subject(db: &Connection, subject: Option<&Subject>) -> rusqlite::Result<Vec<ConnectionRecord>> {
    db.prepare_cached(
        "SELECT * FROM connections WHERE deleted_at IS NULL AND (?1 IS NULL OR subject = ?1)
         ORDER BY subject, provider, label, token",
    )?
    .query_map([subject.map(Subject::as_str)], record)
    .and_then(readable)
}

pub fn after(
    db: &Connection,
    after: Option<&ConnectionKey>,
    prefix: &str,
    limit: usize,
) -> rusqlite::Result<Vec<ConnectionRecord>> {
    // Subjects are ASCII, and none of their characters comes after this one.
    let end = format!("{prefix}\u{7f}");
    let (subject, provider, label) = match after {
        Some(ConnectionKey { subject, provider, label, .. }) => (subject.as_str(), provider.as_str(), label.as_str()),
        None => ("", "", ""),
    };
    db.prepare_cached(
        "SELECT * FROM connections
         WHERE deleted_at IS NULL AND token = '' AND subject >= ?1 AND subject < ?2 AND (subject, provider, label) > (?3, ?4, ?5)
         ORDER BY subject, provider, label LIMIT ?6",
    )?
    .query_map(params![prefix, end, subject, provider, label, i64::try_from(limit).unwrap_or(i64::MAX)], record)
    .and_then(readable)
}

pub fn count(db: &Connection) -> rusqlite::Result<Vec<(String, String, i64)>> {
    let sql = "SELECT provider, state, count(*) FROM connections
               WHERE deleted_at IS NULL AND token = '' GROUP BY provider, state";
    db.prepare_cached(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
}

pub fn due(
    db: &Connection,
    until: Timestamp,
    limit: usize,
    except: &[ProviderName],
) -> rusqlite::Result<Vec<ConnectionKey>> {
    db.prepare_cached(
        "SELECT subject, provider, label, token FROM connections
         WHERE deleted_at IS NULL AND state = 'active' AND refresh_due_at <= ?1
           AND provider NOT IN (SELECT value FROM json_each(?3))
         ORDER BY refresh_due_at LIMIT ?2",
    )?
    .query_map(params![until.as_millis(), i64::try_from(limit).unwrap_or(i64::MAX), json(&except)], token_key)
    .and_then(readable)
}

pub fn next_due(db: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let sql = "SELECT min(refresh_due_at) FROM connections WHERE deleted_at IS NULL AND state = 'active'";
    let next: Option<i64> = db.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(next.map(Timestamp::from_millis))
}

pub fn begin_refresh(db: &mut Connection, id: &str, at: u64, begin: &Beginning) -> rusqlite::Result<Option<u64>> {
    let transaction = db.transaction()?;
    let changed = transaction
        .prepare_cached(
            "UPDATE connections
             SET intent_attempt = ?3, intent_started_at = ?4, intent_refresh_token_digest = ?5, refresh_due_at = ?7
             WHERE id = ?1 AND generation = ?2 AND deleted_at IS NULL AND state = 'active' AND intent_attempt IS ?6",
        )?
        .execute(params![
            id,
            generation(at),
            begin.intent.attempt,
            begin.intent.started_at.as_millis(),
            begin.intent.refresh_token_digest.as_slice(),
            begin.after,
            begin.unheard_of_at.as_millis()
        ])?;
    let count = if changed == 1 { Some(guard::count_refresh(&transaction)?) } else { None };
    transaction.commit()?;
    Ok(count)
}

pub fn complete_refresh(db: &mut Connection, id: &str, at: u64, new: &RefreshedTokens) -> rusqlite::Result<bool> {
    let transaction = db.transaction()?;
    let changed = transaction
        .prepare_cached(
            "UPDATE connections SET
               generation = generation + 1, state = 'active', state_reason = NULL,
               access_token_sealed = :access_token, access_expires_at = :access_expires_at,
               refresh_token_sealed = :refresh_token, previous_refresh_token_sealed = :previous_refresh_token,
               refresh_token_since = iif(:previous_refresh_token IS NULL, refresh_token_since, :refreshed_at),
               -- Some providers say how much is left: the same end, each time a little different.
               grant_end_announced = iif(
                 abs(coalesce(:grant_expires_at, grant_expires_at) - coalesce(grant_expires_at, 0)) > 3600000,
                 0, grant_end_announced),
               grant_expires_at = coalesce(:grant_expires_at, grant_expires_at),
               refresh_expires_at = coalesce(:refresh_expires_at, refresh_expires_at),
               refresh_due_at = :refresh_due_at,
               scopes = coalesce(:scopes, scopes), captured = json_patch(captured, :captured),
               intent_attempt = NULL, intent_started_at = NULL, intent_refresh_token_digest = NULL,
               refresh_failures = 0, refresh_error = NULL, refresh_needs_operator = 0, in_doubt_since = NULL, refreshed_at = :refreshed_at
             WHERE id = :id AND generation = :generation AND deleted_at IS NULL",
        )?
        .execute(named_params! {
            ":id": id,
            ":generation": generation(at),
            ":access_token": new.access_token.as_bytes(),
            ":access_expires_at": millis(new.access_expires_at),
            ":refresh_token": new.refresh_token.as_ref().map(Sealed::as_bytes),
            ":previous_refresh_token": new.previous_refresh_token.as_ref().map(Sealed::as_bytes),
            ":refresh_expires_at": millis(new.refresh_expires_at),
            ":grant_expires_at": millis(new.grant_expires_at),
            ":refresh_due_at": millis(new.refresh_due_at),
            ":scopes": new.scopes.as_ref().map(json),
            ":captured": json(&new.captured),
            ":refreshed_at": new.refreshed_at.as_millis(),
        })?;
    if changed == 1 {
        alternates::forget(&transaction, id)?;
    }
    transaction.commit()?;
    Ok(changed == 1)
}

pub fn fail_refresh(db: &Connection, id: &str, at: u64, failure: &RefreshFailure) -> rusqlite::Result<bool> {
    // What is in doubt keeps its intent: it says which token was sent, and when.
    let changed = db
        .prepare_cached(
            "UPDATE connections SET
               state = :state, state_reason = :state_reason, refresh_due_at = :refresh_due_at,
               refresh_failures = :failures, refresh_error = :error, refresh_needs_operator = :needs_operator, in_doubt_since = :in_doubt_since,
               intent_attempt = iif(:in_doubt_since IS NULL, NULL, intent_attempt),
               intent_started_at = iif(:in_doubt_since IS NULL, NULL, intent_started_at),
               intent_refresh_token_digest = iif(:in_doubt_since IS NULL, NULL, intent_refresh_token_digest)
             WHERE id = :id AND generation = :generation AND deleted_at IS NULL AND intent_attempt IS :attempt",
        )?
        .execute(named_params! {
            ":id": id,
            ":generation": generation(at),
            ":attempt": failure.attempt,
            ":state": failure.state.word(),
            ":state_reason": reason(&failure.state),
            ":refresh_due_at": millis(failure.retry_at),
            ":failures": failure.trouble.failures,
            ":error": failure.trouble.last_error,
            ":needs_operator": failure.trouble.needs_operator,
            ":in_doubt_since": millis(failure.trouble.in_doubt_since),
        })?;
    Ok(changed == 1)
}

pub fn postpone(db: &Connection, key: &ConnectionKey, until: Timestamp) -> rusqlite::Result<()> {
    let ConnectionKey { subject, provider, label, .. } = key;
    db.execute(
        "UPDATE connections SET refresh_due_at = ?5
         WHERE subject = ?1 AND provider = ?2 AND label = ?3 AND token = ?4 AND deleted_at IS NULL",
        params![subject.as_str(), provider.as_str(), label.as_str(), token_column(key), until.as_millis()],
    )?;
    Ok(())
}

pub fn announce_grant_ends(db: &mut Connection, until: Timestamp) -> rusqlite::Result<Vec<(ConnectionKey, Timestamp)>> {
    let ends = "deleted_at IS NULL AND state = 'active' AND grant_expires_at <= ?1 AND grant_end_announced = 0";
    let transaction = db.transaction()?;
    let sql = format!("SELECT subject, provider, label, token, grant_expires_at FROM connections WHERE {ends}");
    let end = |row: &Row<'_>| Ok((token_key(row)?, time(row, "grant_expires_at")?.unwrap_or(until)));
    let ending = transaction.prepare_cached(&sql)?.query_map([until.as_millis()], end).and_then(readable)?;
    if !ending.is_empty() {
        transaction
            .execute(&format!("UPDATE connections SET grant_end_announced = 1 WHERE {ends}"), [until.as_millis()])?;
    }
    transaction.commit()?;
    Ok(ending)
}

/// How the column names the token that every grant has: by nothing.
pub fn token_column(key: &ConnectionKey) -> &str {
    key.token.as_ref().map_or("", TokenName::as_str)
}

/// All rows that can be read; one that cannot must not hide the others.
pub fn readable<T>(rows: impl Iterator<Item = rusqlite::Result<T>>) -> rusqlite::Result<Vec<T>> {
    let mut readable = Vec::new();
    for row in rows {
        match row {
            Ok(row) => readable.push(row),
            Err(error @ rusqlite::Error::FromSqlConversionFailure(..)) => {
                tracing::error!(operation = "store", %error, "a row cannot be read; it is left out");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(readable)
}

pub fn retry_operator_failures(db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    let sql = "UPDATE connections SET refresh_due_at = ?1
               WHERE deleted_at IS NULL AND state = 'active' AND refresh_needs_operator = 1 AND in_doubt_since IS NULL";
    db.execute(sql, [now.as_millis()]).map(|_| ())
}

/// What waits for the end of its access token may wait that long.
pub fn limit_waiting(db: &Connection, now: Timestamp, latest: Timestamp) -> rusqlite::Result<()> {
    let sql = "UPDATE connections SET refresh_due_at = ?1
               WHERE deleted_at IS NULL AND state = 'active' AND refresh_error IS NOT NULL
                 AND refresh_due_at > max(?2, coalesce(access_expires_at, 0))";
    db.execute(sql, [now.as_millis(), latest.as_millis()]).map(|_| ())
}

pub fn interrupted(db: &Connection) -> rusqlite::Result<Vec<ConnectionRecord>> {
    db.prepare_cached(
        "SELECT * FROM connections
         WHERE deleted_at IS NULL AND state = 'active' AND intent_attempt IS NOT NULL",
    )?
    .query_map([], record)
    .and_then(readable)
}

/// What a connection as a whole is found by.
pub fn key(row: &Row<'_>) -> rusqlite::Result<ConnectionKey> {
    Ok(ConnectionKey::new(parsed(row, "subject")?, parsed(row, "provider")?, parsed(row, "label")?))
}

/// What one of its access tokens is found by.
pub fn token_key(row: &Row<'_>) -> rusqlite::Result<ConnectionKey> {
    let token: String = row.get("token")?;
    let token = if token.is_empty() { None } else { Some(parsed(row, "token")?) };
    Ok(ConnectionKey { token, ..key(row)? })
}

fn record(row: &Row<'_>) -> rusqlite::Result<ConnectionRecord> {
    let in_doubt_since = time(row, "in_doubt_since")?;
    let last_error: Option<String> = row.get("refresh_error")?;
    let trouble = match last_error {
        Some(last_error) => Some(RefreshTrouble {
            failures: row.get("refresh_failures")?,
            last_error,
            needs_operator: row.get("refresh_needs_operator")?,
            in_doubt_since,
        }),
        None => None,
    };
    Ok(ConnectionRecord {
        id: row.get("id")?,
        key: token_key(row)?,
        state: state(row)?,
        captured: from_json(row, "captured")?.unwrap_or_default(),
        earlier_site: from_json(row, "earlier_site")?,
        scopes: from_json(row, "scopes")?,
        requested_scopes: from_json(row, "requested_scopes")?,
        account: row.get("account")?,
        generation: u64::try_from(row.get::<_, i64>("generation")?).unwrap_or(0),
        access_token: Sealed::from_bytes(row.get("access_token_sealed")?),
        access_expires_at: time(row, "access_expires_at")?,
        refresh_token: row.get::<_, Option<Vec<u8>>>("refresh_token_sealed")?.map(Sealed::from_bytes),
        previous_refresh_token: row.get::<_, Option<Vec<u8>>>("previous_refresh_token_sealed")?.map(Sealed::from_bytes),
        refresh_token_since: time(row, "refresh_token_since")?,
        refresh_expires_at: time(row, "refresh_expires_at")?,
        grant_expires_at: time(row, "grant_expires_at")?,
        refresh_due_at: time(row, "refresh_due_at")?,
        intent: intent(row)?,
        trouble,
        connected_at: time(row, "connected_at")?.unwrap_or(Timestamp::from_millis(0)),
        refreshed_at: time(row, "refreshed_at")?,
    })
}

fn intent(row: &Row<'_>) -> rusqlite::Result<Option<Intent>> {
    let attempt: Option<String> = row.get("intent_attempt")?;
    let digest: Option<Digest> = row.get("intent_refresh_token_digest")?;
    Ok(match (attempt, time(row, "intent_started_at")?, digest) {
        (Some(attempt), Some(started_at), Some(refresh_token_digest)) => {
            Some(Intent { attempt, started_at, refresh_token_digest })
        }
        _ => None,
    })
}

fn state(row: &Row<'_>) -> rusqlite::Result<ConnectionState> {
    let word: String = row.get("state")?;
    Ok(match word.as_str() {
        "active" => ConnectionState::Active,
        "needs_reauth" => {
            ConnectionState::NeedsReauth { reason: row.get::<_, Option<String>>("state_reason")?.unwrap_or_default() }
        }
        _ => ConnectionState::Disconnected,
    })
}

fn reason(state: &ConnectionState) -> Option<&str> {
    match state {
        ConnectionState::NeedsReauth { reason } => Some(reason),
        _ => None,
    }
}

/// Generations count refreshes; SQLite's integers hold all that a connection will ever see.
pub fn generation(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub fn millis(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_millis)
}

pub fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts serialize")
}

pub fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| serde_json::from_str(&text).map_err(|error| corrupt(column, &error.to_string()))).transpose()
}

pub fn parsed<T: std::str::FromStr<Err = String>>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    row.get::<_, String>(column)?.parse().map_err(|error: String| corrupt(column, &error))
}

fn corrupt(column: &str, what: &str) -> rusqlite::Error {
    let message = format!("column {column}: {what}");
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, message.into())
}
