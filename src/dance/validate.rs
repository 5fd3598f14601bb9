//! Whether a connection works, found out at the smallest price.
//!
//! Where the entry says what can be asked with the access token alone (a look-up of `[[post_connect]]`, or `[userinfo]`), the
//! provider is asked that: it changes nothing. Where it says nothing, a token that has not expired counts as good, and one that is
//! due is refreshed as it would be anyway. Nobody is refreshed just to find out: each refresh of a rotating token is one more
//! chance to lose it. A token that the provider refuses is replaced, as it would be in an API call.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Dance, look_up};
use crate::base::http::Request;
use crate::base::safe_url::SafeUrl;
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::model::connection::{ConnectionKey, ConnectionState};
use crate::store::StoreError;
use crate::store::record::ConnectionRecord;
use crate::vault::TokenError;

/// Whether a connection works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It does.
    Valid,
    /// It does not: its subject must connect again, or the operator must mend something.
    Invalid,
    /// Nobody can tell just now: the provider does not answer, or not to this question.
    Unknown,
}

/// How that was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// The provider was asked with the access token.
    Asked,
    /// A refresh, since the token was due or refused.
    Refreshed,
    /// The provider was not asked: by the clock, and by what is known of the last refresh.
    Clock,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Validity {
    /// Whether it works.
    pub verdict: Verdict,
    /// How that was found out.
    pub by: Means,
    /// In words.
    pub detail: String,
}

/// Whoever validates many waits for the slowest.
const PATIENCE: Duration = Duration::from_secs(15);

impl Dance {
    /// Whether a connection works; `None` if there is none.
    pub async fn validate(self: &Arc<Self>, key: &ConnectionKey) -> Result<Option<Validity>, StoreError> {
        let Some(record) = self.parts.store.connection(key.clone()).await? else { return Ok(None) };
        let found = |verdict, by, detail: String| Ok(Some(Validity { verdict, by, detail }));
        if let ConnectionState::NeedsReauth { reason } = &record.state {
            return found(Verdict::Invalid, Means::Clock, format!("its subject must connect again: {reason}"));
        }
        let token = match self.parts.vault.token_for(key).await {
            Ok(token) => token,
            Err(TokenError::NotConnected) => return Ok(None),
            Err(TokenError::NeedsReauth { reason }) => {
                return found(Verdict::Invalid, Means::Refreshed, format!("its subject must connect again: {reason}"));
            }
            Err(TokenError::Operator { reason }) => return found(Verdict::Invalid, Means::Clock, reason),
            Err(TokenError::Unavailable { reason, .. }) => {
                return found(Verdict::Unknown, Means::Refreshed, format!("its token has expired: {reason}"));
            }
        };
        let by = if token.generation == record.generation { Means::Clock } else { Means::Refreshed };
        let provider = self.provider(&key.provider);
        let Some(question) = provider.and_then(|provider| question(provider, &record)) else {
            let detail = if by == Means::Clock { "its token has not expired" } else { "its token was refreshed" };
            return found(Verdict::Valid, by, detail.to_owned());
        };
        let mut answer = self.put(&question, token.access_token()).await;
        let mut by = Means::Asked;
        if answer == Ok(StatusCode::UNAUTHORIZED)
            && let Some(another) = self.parts.vault.replacement(key, &token).await
        {
            by = Means::Refreshed;
            answer = self.put(&question, another.access_token()).await;
        }
        let host = question.url.host();
        match answer {
            Ok(status) if status.is_success() => found(Verdict::Valid, by, format!("{host} accepts its token")),
            Ok(StatusCode::UNAUTHORIZED) => found(Verdict::Invalid, by, format!("{host} refuses its token: HTTP 401")),
            Ok(status) => found(Verdict::Unknown, by, format!("{host} answers HTTP {}", status.as_u16())),
            Err(why) => found(Verdict::Unknown, by, format!("{host}: {why}")),
        }
    }

    async fn put(&self, question: &Question, token: &Secret) -> Result<StatusCode, String> {
        let mut headers = question.headers.clone();
        let bearer = Zeroizing::new(format!("Bearer {}", token.expose()));
        let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| "the token fits into no header".to_owned())?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        let (url, body) = (question.url.clone(), Zeroizing::default());
        tokio::select! {
            reply = self.parts.http.send(Request { method: Method::GET, url, headers, body }) => {
                reply.map(|reply| reply.status).map_err(|error| error.to_string())
            }
            () = self.parts.clock.sleep(PATIENCE) => Err("it took too long".to_owned()),
        }
    }
}

/// What can be asked with an access token, and changes nothing.
struct Question {
    url: SafeUrl,
    headers: HeaderMap,
}

/// A look-up that every connection of this provider may make, or whose account it is where the connection may know that.
fn question(provider: &Provider, record: &ConnectionRecord) -> Option<Question> {
    // What the entry declares is for the first access token.
    if record.key.token.is_some() {
        return None;
    }
    if let Some(declared) = provider.entry.post_connect.first() {
        return Some(Question { url: declared.url.clone(), headers: look_up::headers(declared)? });
    }
    let userinfo = provider.entry.userinfo.as_ref()?;
    let needed = provider.entry.identity.as_ref().map(|identity| identity.scopes.as_slice()).unwrap_or_default();
    let held = record.held().effective().unwrap_or_default();
    let may_know = needed.iter().all(|scope| held.contains(scope));
    let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
    may_know.then(|| Question { url: userinfo.url.clone(), headers })
}
