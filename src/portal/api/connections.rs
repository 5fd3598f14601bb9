//! How connections stand, and how one ends.

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{About, Call, body, query};
use super::problem::Refused;
use crate::base::clock::Timestamp;
use crate::catalogue::Provider;
use crate::model::api_key::SubjectPrefix;
use crate::model::connection::{Captured, ConnectionKey, ConnectionState};
use crate::model::names::{Label, ProviderName, Subject};
use crate::store::record::ConnectionRecord;

/// How a connection stands. Never a token, nor anything that a token could be made from.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Connection {
    /// Whether there is one that works.
    pub connected: bool,
    /// The provider, as the configuration calls it.
    pub provider: String,
    /// What people call the provider.
    pub system: String,
    /// Whose connection.
    pub subject: String,
    /// Which of several.
    pub label: String,
    /// In a word.
    pub state: State,
    /// Why it needs the subject, if it does.
    pub reason: Option<String>,
    /// Which company, workspace, site or tenant it is for, by the provider's id.
    pub realm_id: Option<String>,
    /// What that is called, where the provider says.
    pub company_name: Option<String>,
    /// Whose account at the provider it is, where the provider says.
    pub account: Option<String>,
    /// Whether it has yet to be chosen which of several sites it is for.
    pub choice_needed: bool,
    /// What is granted, where that is known.
    pub scopes: Option<Vec<String>>,
    /// When the current access token expires, where that is known. It is refreshed before.
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: Option<String>,
    /// Whether it has expired: it is refreshed when it is next needed, or cannot be.
    pub is_expired: bool,
    /// When the subject connected.
    #[schemars(extend("format" = "date-time"))]
    pub connected_at: Option<String>,
    /// When tokens were last refreshed.
    #[schemars(extend("format" = "date-time"))]
    pub refreshed_at: Option<String>,
    /// How the last refresh failed, if it did and was not made up for.
    pub trouble: Option<Trouble>,
}

/// How a connection stands, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It works.
    Active,
    /// The subject must connect again.
    NeedsReauth,
    /// There is none.
    NotConnected,
}

/// A refresh that failed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Trouble {
    /// Failures in a row.
    pub failures: u32,
    /// The last of them.
    pub last_error: String,
    /// Whether the operator must act.
    pub needs_operator: bool,
}

/// The query of a status.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StatusQuery {
    /// Which of several connections; `default` if it is not said.
    #[schemars(with = "Option<String>", regex(pattern = r"^[A-Za-z0-9._-]{1,40}$"))]
    pub label: Option<Label>,
}

/// `GET /api/v1/oauth/{provider}/status/{subject}`
pub async fn status(
    call: Call,
    path: Result<Path<(String, String)>, PathRejection>,
    RawQuery(text): RawQuery,
) -> Response {
    let mut about = About::default();
    let done = look(&call, path, text.as_deref(), &mut about).await;
    call.answer("api_status", about, done.map(|answer| (StatusCode::OK, answer)))
}

async fn look(
    call: &Call,
    path: Result<Path<(String, String)>, PathRejection>,
    text: Option<&str>,
    about: &mut About,
) -> Result<Connection, Refused> {
    let asked: StatusQuery = query(text)?;
    let key = call.covered(path, asked.label, about)?;
    let state = &call.state;
    let provider = state.dance.provider(&key.provider).ok_or(Refused::UnknownProvider)?;
    let Some(record) = state.store.connection(key.clone()).await? else { return Ok(nothing(&key, provider)) };
    let mut shown = Connection::of(call, &record, Some(provider));
    let now = state.clock.now();
    if shown.company_name.is_none() && state.api.may_have_a_name(&record.id, now) {
        shown.company_name = state.dance.company(&record).await;
        if shown.company_name.is_none() {
            state.api.has_no_name(&record.id, now);
        }
    }
    Ok(shown)
}

fn nothing(key: &ConnectionKey, provider: &Provider) -> Connection {
    Connection {
        connected: false,
        provider: key.provider.to_string(),
        system: provider.entry.display_name.clone(),
        subject: key.subject.to_string(),
        label: key.label.to_string(),
        state: State::NotConnected,
        reason: None,
        realm_id: None,
        company_name: None,
        account: None,
        choice_needed: false,
        scopes: None,
        expires_at: None,
        is_expired: false,
        connected_at: None,
        refreshed_at: None,
        trouble: None,
    }
}

impl Connection {
    fn of(call: &Call, record: &ConnectionRecord, provider: Option<&std::sync::Arc<Provider>>) -> Self {
        let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
        // Its key was given up: it cannot be used, whatever its record says.
        let is_lost = record.access_token.key_id().is_some_and(|id| !call.state.sealer.knows(id));
        let (state, reason) = match &record.state {
            _ if is_lost => (State::NeedsReauth, Some("what was stored can no longer be read".to_owned())),
            ConnectionState::Active => (State::Active, None),
            ConnectionState::NeedsReauth { reason } => (State::NeedsReauth, Some(reason.clone())),
            ConnectionState::Disconnected => (State::NotConnected, None),
        };
        Self {
            connected: state == State::Active,
            provider: record.key.provider.to_string(),
            system: provider
                .map_or_else(|| record.key.provider.to_string(), |provider| provider.entry.display_name.clone()),
            subject: record.key.subject.to_string(),
            label: record.key.label.to_string(),
            state,
            reason,
            realm_id: provider.and_then(|provider| realm(provider, &record.captured)),
            company_name: name(&record.captured),
            account: record.account.clone(),
            choice_needed: provider.is_some_and(|provider| !provider.is_finished(&record.captured)),
            scopes: record.held().effective().map(<[String]>::to_vec),
            expires_at: text(record.access_expires_at),
            is_expired: record.access_expires_at.is_some_and(|expires_at| expires_at <= call.state.clock.now()),
            connected_at: Some(record.connected_at.to_string()),
            refreshed_at: text(record.refreshed_at),
            trouble: record.trouble.as_ref().map(|trouble| Trouble {
                failures: trouble.failures,
                last_error: trouble.last_error.clone(),
                needs_operator: trouble.needs_operator,
            }),
        }
    }
}

fn realm(provider: &Provider, captured: &Captured) -> Option<String> {
    provider.entry.realm.iter().find_map(|name| captured.get(name)).cloned()
}

/// What look-ups and token replies call it.
fn name(captured: &Captured) -> Option<String> {
    captured.iter().find(|(name, _)| name.ends_with("_name")).map(|(_, value)| value.clone())
}

/// What is listed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListQuery {
    /// Only connections to this provider.
    #[schemars(with = "Option<String>", regex(pattern = r"^[a-z][a-z0-9-]{0,39}$"))]
    pub provider: Option<ProviderName>,
    /// Only those of this subject.
    #[schemars(with = "Option<String>", regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._@+:-]{0,127}$"))]
    pub subject: Option<Subject>,
    /// Only those that stand so.
    pub state: Option<State>,
    /// At most so many; 50 if it is not said.
    #[schemars(range(min = 1, max = 200))]
    pub limit: Option<u16>,
    /// Where the page before this one ended: its `next_cursor`.
    pub cursor: Option<String>,
}

/// One page of connections.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Connections {
    /// Those that the key covers, in the order of subject, provider and label.
    pub connections: Vec<Connection>,
    /// What to send as `cursor` for the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}

const USUAL_PAGE: u16 = 50;
const LARGEST_PAGE: u16 = 200;
/// So many are read in one go.
const BATCH: usize = 256;

/// `GET /api/v1/oauth/connections`
pub async fn list(call: Call, RawQuery(text): RawQuery) -> Response {
    let mut about = About::default();
    let done = list_page(&call, text.as_deref(), &mut about).await;
    call.answer("api_list", about, done.map(|answer| (StatusCode::OK, answer)))
}

async fn list_page(call: &Call, text: Option<&str>, about: &mut About) -> Result<Connections, Refused> {
    let asked: ListQuery = query(text)?;
    let limit = asked.limit.unwrap_or(USUAL_PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Refused::Malformed(format!("`limit` is not between 1 and {LARGEST_PAGE}.")));
    }
    let after = asked.cursor.as_deref().map(read_cursor).transpose()?;
    about.reason = asked.provider.as_ref().map(|provider| format!("provider={provider}"));
    let is_covered = asked.provider.as_ref().is_none_or(|provider| call.key.covers_provider(provider))
        && asked.subject.as_ref().is_none_or(|subject| call.key.covers_subject(subject));
    if !is_covered {
        return Err(Refused::Scope);
    }
    let is_meant = |key: &ConnectionKey| {
        call.key.covers_provider(&key.provider)
            && call.key.covers_subject(&key.subject)
            && asked.provider.as_ref().is_none_or(|provider| key.provider == *provider)
            && asked.subject.as_ref().is_none_or(|subject| key.subject == *subject)
    };
    let of_key = call.key.subjects.as_ref().map_or("", SubjectPrefix::as_str);
    let prefix = asked.subject.as_ref().map_or(of_key, Subject::as_str);
    let mut page = Connections { connections: Vec::new(), next_cursor: None };
    // The last one that was looked at, and the last one on the page.
    let (mut seen, mut last): (Option<ConnectionKey>, Option<ConnectionKey>) = (after, None);
    loop {
        let records = call.state.store.connections_after(seen.clone(), prefix.to_owned(), BATCH).await?;
        let Some(end) = records.last() else { return Ok(page) };
        seen = Some(end.key.clone());
        for record in records.iter().filter(|record| is_meant(&record.key)) {
            let shown = Connection::of(call, record, call.state.dance.provider(&record.key.provider));
            if asked.state.is_some_and(|state| shown.state != state) {
                continue;
            }
            // One more than the page holds: so there is a next one.
            if page.connections.len() == usize::from(limit) {
                page.next_cursor = last.as_ref().map(write_cursor);
                return Ok(page);
            }
            last = Some(record.key.clone());
            page.connections.push(shown);
        }
    }
}

/// A cursor names the last connection of a page: it stays good whatever comes and goes.
fn write_cursor(key: &ConnectionKey) -> String {
    let text = serde_json::json!([key.subject, key.provider, key.label]).to_string();
    URL_SAFE_NO_PAD.encode(text)
}

fn read_cursor(text: &str) -> Result<ConnectionKey, Refused> {
    let read = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let (subject, provider, label): (Subject, ProviderName, Label) =
        read.ok_or_else(|| Refused::Malformed("`cursor` is not one that a page has named.".to_owned()))?;
    Ok(ConnectionKey::new(subject, provider, label))
}

/// What a program may say when it ends a connection.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DisconnectRequest {
    /// Which of several connections; `default` if it is not said.
    #[schemars(with = "Option<String>", regex(pattern = r"^[A-Za-z0-9._-]{1,40}$"))]
    pub label: Option<Label>,
}

/// A connection that was ended. Its token is not used anymore, whatever the provider says.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DisconnectAnswer {
    /// The provider.
    pub provider: String,
    /// Whose connection it was.
    pub subject: String,
    /// Which of several.
    pub label: String,
    /// What became of the grant at the provider.
    pub revocation: RevocationResult,
}

/// What became of a grant at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevocationResult {
    /// The provider has ended it.
    Done,
    /// The provider could not be told yet; it is tried again.
    Queued,
    /// The provider offers no way to end it, or only one that would end more.
    NotOffered,
}

/// `POST /api/v1/oauth/{provider}/disconnect/{subject}`
pub async fn disconnect(
    call: Call,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let mut about = About::default();
    let done = end(&call, path, &headers, &bytes, &mut about).await;
    call.answer("api_disconnect", about, done.map(|answer| (StatusCode::OK, answer)))
}

async fn end(
    call: &Call,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: &HeaderMap,
    bytes: &[u8],
    about: &mut About,
) -> Result<DisconnectAnswer, Refused> {
    use crate::dance::Revocation;
    let request: DisconnectRequest = body(headers, bytes)?.unwrap_or_default();
    let key = call.covered(path, request.label, about)?;
    let ended = call.state.dance.disconnect(&key).await?;
    let revocation = ended.ok_or_else(|| Refused::UnknownConnection(key.clone()))?.revocation;
    about.reason = Some(revocation.word().to_owned());
    Ok(DisconnectAnswer {
        provider: key.provider.to_string(),
        subject: key.subject.to_string(),
        label: key.label.to_string(),
        revocation: match revocation {
            Revocation::Done => RevocationResult::Done,
            Revocation::Queued => RevocationResult::Queued,
            Revocation::NotOffered => RevocationResult::NotOffered,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let key = ConnectionKey::new(
            "org-42".parse().expect("a subject"),
            "quickbooks".parse().expect("a name"),
            "second".parse().expect("a label"),
        );
        assert_eq!(read_cursor(&write_cursor(&key)), Ok(key));
        for bad in ["", "x", "bnVsbA", &URL_SAFE_NO_PAD.encode(r#"["a b","x","y"]"#), &URL_SAFE_NO_PAD.encode("[]")] {
            let refused = Refused::Malformed("`cursor` is not one that a page has named.".to_owned());
            assert_eq!(read_cursor(bad), Err(refused), "{bad}");
        }
    }
}
