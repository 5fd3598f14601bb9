//! What is held in memory for a connection: the token in use, and the refresh under way.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::{BoxFuture, Shared};
use http::HeaderValue;
use zeroize::Zeroizing;

use super::TokenError;
use super::refresh::{Occasion, RefreshResult};
use super::settle::FIRST_PROBE;
use super::worker::LONGEST_WAIT;
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::catalogue::entry::CredentialScheme;
use crate::catalogue::provider::PreparedCredential;
use crate::model::connection::{Captured, ConnectionKey, ConnectionState};
use crate::model::token_set::{Freshness, freshness};
use crate::store::record::{ConnectionRecord, field};
use crate::store::seal::Sealer;

/// A refresh that any number of callers wait for.
pub type SharedRefresh = Shared<BoxFuture<'static, RefreshResult>>;

/// One connection in memory.
pub struct Slot {
    /// What it is found by.
    pub key: ConnectionKey,
    /// The refresh under way, if there is one. Locked for moments only, never across an await.
    pub refresh: Mutex<Option<SharedRefresh>>,
    /// Until then no API's word alone begins a refresh.
    forced_until: AtomicI64,
    /// Looked-up values that were changed since the slot was made: names, and what they are now. A refresh that began before
    /// would bring back the old ones. Held while a token is put into use, never across an await.
    recaptured: Mutex<Option<Recaptured>>,
    live: ArcSwap<LiveToken>,
}

/// Names, and the values of those that have one.
type Recaptured = (BTreeSet<String>, Captured);

impl Slot {
    /// A slot with its first token.
    pub fn new(key: ConnectionKey, live: LiveToken) -> Self {
        let forced_until = AtomicI64::new(i64::MIN);
        let live = ArcSwap::from_pointee(live);
        Self { key, refresh: Mutex::new(None), forced_until, recaptured: Mutex::new(None), live }
    }

    /// The token in use.
    pub fn live(&self) -> Arc<LiveToken> {
        self.live.load_full()
    }

    /// Whether an API's word may begin a refresh now; if so, the next one may only `pause` later. Of any number of callers
    /// one is told so.
    pub fn may_force(&self, now: Timestamp, pause: Duration) -> bool {
        let until = self.forced_until.load(Ordering::Acquire);
        let next = now.plus(pause).as_millis();
        // One that is further away than the pause is from before the clock was set back.
        (until <= now.as_millis() || until > next)
            && self.forced_until.compare_exchange(until, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether a refresh is under way.
    pub fn is_refreshing(&self) -> bool {
        self.refresh.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What only the operator could mend may be tried again now.
    pub fn forgive_operator(&self, now: Timestamp) {
        let under_way = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live();
        // What is under way finds out by itself; what is in doubt waits for other reasons.
        let waits = matches!(live.last_failure, Some(Blame::Operator(_))) && live.in_doubt_since.is_none();
        if under_way.is_none() && waits {
            self.publish(LiveToken { refresh_due_at: Some(now), ..LiveToken::clone(&live) });
        }
    }

    /// Puts a token into use.
    pub fn publish(&self, live: LiveToken) {
        let recaptured = self.recaptured.lock().unwrap_or_else(PoisonError::into_inner);
        self.store(live, recaptured.as_ref());
    }

    /// Puts other looked-up values into use: these names have these values from now on.
    pub fn recapture(&self, names: BTreeSet<String>, values: Captured) {
        let mut recaptured = self.recaptured.lock().unwrap_or_else(PoisonError::into_inner);
        *recaptured = Some((names, values));
        self.store(LiveToken::clone(&self.live()), recaptured.as_ref());
    }

    fn store(&self, mut live: LiveToken, recaptured: Option<&Recaptured>) {
        if let Some((names, values)) = recaptured {
            live.captured.retain(|name, _| !names.contains(name));
            live.captured.extend(values.clone());
        }
        self.live.store(Arc::new(live));
    }
}

/// A token as requests use it.
#[derive(Clone)]
pub struct LiveToken {
    /// The connection's id.
    pub connection_id: String,
    /// The generation of its tokens.
    pub generation: u64,
    /// Values that came with the grant.
    pub captured: Captured,
    access_token: Secret,
    bearer: HeaderValue,
    expires_at: Option<Timestamp>,
    refresh_due_at: Option<Timestamp>,
    has_refresh_token: bool,
    pub(super) state: ConnectionState,
    last_failure: Option<Blame>,
    /// Since when the outcome of a refresh is unknown, and the next one waits for the end of this token.
    in_doubt_since: Option<Timestamp>,
    /// Whether an API refused it before its time.
    is_rejected: bool,
}

/// Why the last refresh failed, and who must act.
#[derive(Clone)]
enum Blame {
    /// Nobody: it passes, or the provider is to blame.
    Passing(String),
    /// The operator.
    Operator(String),
}

impl LiveToken {
    /// Opens what is stored; the error is for the operator.
    pub fn open(record: &ConnectionRecord, sealer: &Sealer) -> Result<Self, String> {
        let access_token = sealer
            .open(&record.seal_context(field::ACCESS_TOKEN), &record.access_token)
            .map_err(|error| format!("the access token of {} is {error}", record.key))?;
        let bearer = header_value("Bearer ", access_token.expose())?;
        Ok(Self {
            connection_id: record.id.clone(),
            generation: record.generation,
            captured: record.captured.clone(),
            access_token,
            bearer,
            expires_at: record.access_expires_at,
            refresh_due_at: record.refresh_due_at,
            has_refresh_token: record.refresh_token.is_some(),
            state: record.state.clone(),
            in_doubt_since: record.trouble.as_ref().and_then(|trouble| trouble.in_doubt_since),
            is_rejected: false,
            last_failure: record.trouble.as_ref().map(|trouble| match trouble.needs_operator {
                true => Blame::Operator(trouble.last_error.clone()),
                false => Blame::Passing(trouble.last_error.clone()),
            }),
        })
    }

    /// The same token, with its refresh put off because the operator must mend something.
    pub fn postponed(&self, until: Timestamp, reason: String) -> Self {
        Self { refresh_due_at: Some(until), last_failure: Some(Blame::Operator(reason)), ..self.clone() }
    }

    /// How the last refresh failed, if it did.
    pub fn last_error(&self) -> Option<String> {
        match (&self.last_failure, &self.state) {
            (_, ConnectionState::NeedsReauth { reason }) => Some(reason.clone()),
            (Some(Blame::Operator(why) | Blame::Passing(why)), _) => Some(why.clone()),
            (None, _) => None,
        }
    }

    /// The same token, taken for expired: an API said so.
    pub fn expired_at(&self, now: Timestamp) -> Self {
        Self { expires_at: Some(now), refresh_due_at: Some(now), is_rejected: true, ..self.clone() }
    }

    /// The same token, whose connection was ended.
    pub fn ended(&self, now: Timestamp) -> Self {
        Self { state: ConnectionState::Disconnected, expires_at: Some(now), refresh_due_at: None, ..self.clone() }
    }

    /// Why it is refreshed next.
    pub fn occasion(&self) -> Occasion {
        if self.is_rejected { Occasion::Rejected } else { Occasion::Due }
    }

    /// Whether an API's word may begin a refresh: not within the back-off of one that failed. But where the last one is in doubt
    /// only because this token still worked, there is no reason to wait any longer than the provider may be at work on it.
    pub fn may_be_replaced(&self, now: Timestamp) -> bool {
        let can_be = self.state == ConnectionState::Active && self.has_refresh_token;
        let waits_for_the_end = self.in_doubt_since.is_some_and(|since| since.plus(FIRST_PROBE) <= now);
        can_be && (waits_for_the_end || self.standing_error(now).is_none())
    }

    /// Whether there is a way to get the next one.
    pub fn has_refresh_token(&self) -> bool {
        self.has_refresh_token
    }

    /// Whether the recorded time of the token is over, or was never known.
    pub fn is_past_expiry(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| expires_at <= now)
    }

    /// The token itself, for a place that is no header.
    pub fn access_token(&self) -> &Secret {
        &self.access_token
    }

    /// The value of the header that carries the token. Marked sensitive, so that it is never printed.
    pub fn header_value(&self, credential: &PreparedCredential) -> Result<HeaderValue, String> {
        let token = self.access_token.expose();
        match credential.declared.scheme {
            CredentialScheme::Bearer => Ok(self.bearer.clone()),
            CredentialScheme::Token => header_value("token ", token),
            CredentialScheme::Raw => header_value("", token),
            CredentialScheme::Basic => {
                let username = credential.declared.username.as_deref().unwrap_or_default();
                let pair = Zeroizing::new(format!("{username}:{token}"));
                header_value("Basic ", &Zeroizing::new(STANDARD.encode(pair.as_bytes())))
            }
        }
    }

    /// What can be done with the token at `now`. A token that has no way to be refreshed is never due.
    pub fn freshness(&self, now: Timestamp) -> Freshness {
        // One that was never obtained: whatever the clock says, it is no token.
        if self.access_token.expose().is_empty() {
            return Freshness::Expired;
        }
        let due_at = self.refresh_due_at.filter(|_| self.state == ConnectionState::Active && self.has_refresh_token);
        freshness(now, self.expires_at, due_at)
    }

    /// For an expired token: the error to answer with at once, if asking the provider is out of the question or was
    /// tried a moment ago.
    pub fn standing_error(&self, now: Timestamp) -> Option<TokenError> {
        // What is later than any back-off explains is from before the clock was set back.
        let is_later = |due_at: Timestamp| due_at > now && due_at <= now.plus(LONGEST_WAIT);
        let not_yet = self.last_failure.is_some() && self.refresh_due_at.is_some_and(is_later);
        let hopeless = self.state != ConnectionState::Active || !self.has_refresh_token;
        (hopeless || not_yet).then(|| self.error(now))
    }

    /// For an expired token: why it could not be replaced.
    pub fn error(&self, now: Timestamp) -> TokenError {
        match &self.state {
            ConnectionState::NeedsReauth { reason } => TokenError::NeedsReauth { reason: reason.clone() },
            ConnectionState::Disconnected => TokenError::NotConnected,
            ConnectionState::Active if !self.has_refresh_token => {
                let reason = "the access token has expired and the provider gave no refresh token".to_owned();
                TokenError::NeedsReauth { reason }
            }
            ConnectionState::Active => {
                let retry_after = self.refresh_due_at.map_or(Duration::ZERO, |due_at| due_at.since(now));
                match &self.last_failure {
                    Some(Blame::Operator(reason)) => TokenError::Operator { reason: reason.clone() },
                    Some(Blame::Passing(reason)) => TokenError::Unavailable { reason: reason.clone(), retry_after },
                    None => TokenError::Unavailable { reason: "the refresh takes long".to_owned(), retry_after },
                }
            }
        }
    }
}

fn header_value(prefix: &str, token: &str) -> Result<HeaderValue, String> {
    let text = Zeroizing::new(format!("{prefix}{token}"));
    let mut value = HeaderValue::from_str(&text).map_err(|_| "the stored token is no header value".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
