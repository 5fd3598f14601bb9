//! What follows from an exchange, made durable: tokens, failures, and what came too late.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{error, warn};

use super::Vault;
use super::cache::{LiveToken, Slot};
use super::outcome::{Failure, retry_at};
use super::refresh::RefreshResult;
use crate::base::backoff::after_failure;
use crate::base::clock::Timestamp;
use crate::base::random::{self, fraction};
use crate::base::secret::Secret;
use crate::model::connection::{ConnectionState, RefreshTrouble};
use crate::model::token_set::{keep_alive_at, refresh_due_at};
use crate::oauth::revoke;
use crate::oauth::token_response::TokenReply;
use crate::store::StoreError;
use crate::store::record::{
    Alternate, ConnectionRecord, RefreshFailure, RefreshedTokens, RevocationRecord, connection_context, field,
};
use crate::telemetry::health::Part;

/// How long to wait before trying again to store a result that could not be stored.
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// How long the store is left alone after it failed.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(5);
/// The least time between a refresh whose reply was lost and its one repetition: the provider may still be at work on the
/// first, and would take it for the repetition if it came in second.
pub(super) const FIRST_PROBE: Duration = Duration::from_secs(5);

impl Vault {
    /// Makes a reply durable, however long that takes, and then puts it into use. `sent` is the refresh token that got it.
    pub(super) async fn store_tokens(
        &self,
        slot: &Slot,
        record: &ConnectionRecord,
        reply: TokenReply,
        sent: &Secret,
        current: &Secret,
    ) -> RefreshResult {
        let tokens = self.seal_reply(record, reply, sent, current);
        if !self.make_durable(record, &tokens).await {
            warn!(operation = "refresh", connection = %record.key, "replaced or ended while it was refreshed");
            self.put_aside(record, &tokens).await;
            return RefreshResult::Overtaken;
        }
        match self.parts.store.connection(record.key.clone()).await {
            Ok(Some(stored)) if stored.id == record.id => self.publish(slot, &stored, RefreshResult::Refreshed),
            Ok(_) => RefreshResult::Overtaken,
            Err(error) => self.store_failed(slot, "read", &error).await,
        }
    }

    /// Stores tokens; `false` if somebody else was faster. They may be the only copies: they are kept until they can be stored, and
    /// not used before.
    async fn make_durable(&self, record: &ConnectionRecord, tokens: &RefreshedTokens) -> bool {
        let mut waiting = None;
        loop {
            let stored = self.parts.store.complete_refresh(record.id.clone(), record.generation, tokens.clone()).await;
            let error = match stored {
                Ok(is_stored) => return is_stored,
                Err(error) => error,
            };
            error!(operation = "refresh", connection = %record.key, %error, "refreshed tokens cannot be stored");
            waiting.get_or_insert_with(|| Unstored::new(self));
            self.parts.health.unwell(Part::RefreshedTokens, error.to_string());
            self.parts.clock.sleep(STORE_AGAIN).await;
        }
    }

    /// Tokens that lost to others are never dropped. Where the same connection was refreshed by somebody else, they are kept
    /// as an alternate. Where it was ended, they are given back. Where another connection has taken its place, they may
    /// belong to the same grant as that one's, and are left alone.
    async fn put_aside(&self, record: &ConnectionRecord, tokens: &RefreshedTokens) {
        let kept = match self.parts.store.connection(record.key.clone()).await {
            Ok(Some(stored)) if stored.id == record.id => self.keep_as_alternate(record, tokens).await,
            Ok(None) => self.give_back_unwanted(record, tokens).await,
            Ok(Some(_)) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            error!(operation = "refresh", connection = %record.key, %error, "tokens that came too late cannot be put aside");
        }
    }

    async fn keep_as_alternate(&self, record: &ConnectionRecord, tokens: &RefreshedTokens) -> Result<(), StoreError> {
        let Some(refresh_token) = tokens.refresh_token.clone() else { return Ok(()) };
        let generation = record.generation + 1;
        let alternate = Alternate { generation, refresh_token, obtained_at: tokens.refreshed_at };
        self.parts.store.keep_alternate(record.id.clone(), alternate).await
    }

    async fn give_back_unwanted(&self, record: &ConnectionRecord, tokens: &RefreshedTokens) -> Result<(), StoreError> {
        let provider = self.parts.providers.get(&record.key.provider);
        if provider.is_none_or(|provider| revoke::offered(provider).is_none()) {
            return Ok(());
        }
        let revocation = RevocationRecord {
            id: random::identifier(self.parts.random.as_ref(), "v_"),
            key: record.key.clone(),
            connection_id: record.id.clone(),
            captured: record.captured.clone(),
            generation: record.generation + 1,
            access_token: tokens.access_token.clone(),
            refresh_token: tokens.refresh_token.clone(),
            attempts: 0,
        };
        self.parts.store.put_revocation(revocation, self.parts.clock.now()).await
    }

    fn seal_reply(
        &self,
        record: &ConnectionRecord,
        reply: TokenReply,
        sent: &Secret,
        current: &Secret,
    ) -> RefreshedTokens {
        let TokenReply { tokens, captured, .. } = reply;
        let now = self.parts.clock.now();
        let seal = |field, secret: &Secret| {
            let context = connection_context(&record.key, &record.id, field, record.generation + 1);
            self.parts.sealer.seal(&context, secret)
        };
        // A reply without a refresh token keeps the one that was sent (RFC 6749 section 6).
        let next = tokens.refresh_token.as_ref().unwrap_or(sent);
        let has_changed = next.expose() != current.expose();
        RefreshedTokens {
            access_token: seal(field::ACCESS_TOKEN, &tokens.access_token),
            access_expires_at: tokens.access_expires_at,
            refresh_token: Some(seal(field::REFRESH_TOKEN, next)),
            previous_refresh_token: has_changed.then(|| seal(field::PREVIOUS_REFRESH_TOKEN, sent)),
            refresh_expires_at: tokens.refresh_expires_at,
            grant_expires_at: tokens.grant_expires_at,
            refresh_due_at: self.due_at(now, tokens.access_expires_at, tokens.refresh_expires_at),
            scopes: tokens.scopes,
            captured,
            refreshed_at: now,
        }
    }

    /// When tokens obtained at `now` are to be refreshed: ahead of the access token's end, and often enough that a grant which
    /// dies when it is not used stays alive.
    pub fn due_at(
        &self,
        now: Timestamp,
        access_expires_at: Option<Timestamp>,
        refresh_expires_at: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let jitter = fraction(self.parts.random.as_ref());
        let access = access_expires_at.map(|at| refresh_due_at(now, at, self.parts.refresh_ahead, jitter));
        let keep_alive = refresh_expires_at.map(|at| keep_alive_at(now, at, jitter));
        access.into_iter().chain(keep_alive).min()
    }

    /// Writes down how a refresh failed, with the next try at a growing distance.
    pub(super) async fn record_failure(
        &self,
        slot: &Slot,
        record: &ConnectionRecord,
        failure: Failure,
        in_doubt_since: Option<Timestamp>,
    ) -> RefreshResult {
        let failures = failures(record);
        let backoff = match &failure {
            // The one probe of a token in doubt is not put off once the access token has expired.
            // However often it had failed before, without a doubt.
            Failure::InDoubt { .. } if !is_in_doubt(record) => FIRST_PROBE,
            // The settings that are to blame were replaced meanwhile.
            Failure::Operator(_) if self.succeeded.is_cancelled() => Duration::ZERO,
            _ => after_failure(failures, self.parts.random.as_ref()),
        };
        self.record_failure_until(slot, record, failure, in_doubt_since, backoff).await
    }

    /// Writes down how a refresh failed, and lets the current token be used as long as it lives.
    pub(super) async fn record_failure_until(
        &self,
        slot: &Slot,
        record: &ConnectionRecord,
        failure: Failure,
        in_doubt_since: Option<Timestamp>,
        backoff: Duration,
    ) -> RefreshResult {
        let now = self.parts.clock.now();
        let before = record.trouble.as_ref();
        let failures = failures(record);
        let provider = self.parts.providers.get(&record.key.provider);
        let rotation = provider.map(|provider| &provider.entry.rotation);
        let doubt = match (&failure, before.and_then(|trouble| trouble.in_doubt_since)) {
            (Failure::Dead(_), _) => None,
            (Failure::InDoubt { since, .. }, before) => Some(before.unwrap_or(*since)),
            (_, before) => before.or(in_doubt_since),
        };
        let attempt = record.intent.as_ref().map(|intent| intent.attempt.clone());
        let failure = match failure {
            Failure::Dead(reason) => Failure::Dead(with_cause(reason, before, in_doubt_since)),
            failure => failure,
        };
        let state = match &failure {
            Failure::Dead(reason) => ConnectionState::NeedsReauth { reason: reason.clone() },
            _ => ConnectionState::Active,
        };
        let recorded = RefreshFailure {
            trouble: RefreshTrouble {
                failures,
                last_error: failure.summary().to_owned(),
                needs_operator: matches!(failure, Failure::Operator(_)),
                in_doubt_since: doubt,
            },
            attempt,
            retry_at: retry_at(&failure, rotation, now, backoff, record.access_expires_at),
            state: state.clone(),
        };
        let stored = self.parts.store.fail_refresh(record.id.clone(), record.generation, recorded.clone()).await;
        match stored {
            Ok(true) => {}
            // Somebody else refreshed or replaced it meanwhile: this failure is nobody's business.
            Ok(false) => return self.reread(slot, record).await,
            Err(error) => {
                error!(operation = "refresh", connection = %record.key, %error, "a failed refresh cannot be recorded");
            }
        }
        warn!(
            operation = "refresh", provider = %record.key.provider, subject = %record.key.subject,
            label = %record.key.label, outcome = failure.word(), error = failure.summary(), failures,
        );
        // Published even if it could not be stored, so that the back-off holds.
        let failed = ConnectionRecord {
            trouble: Some(recorded.trouble),
            refresh_due_at: recorded.retry_at,
            state,
            ..record.clone()
        };
        self.publish(slot, &failed, RefreshResult::Failed(failure.word()))
    }

    /// What counts is what is stored.
    async fn reread(&self, slot: &Slot, record: &ConnectionRecord) -> RefreshResult {
        match self.parts.store.connection(record.key.clone()).await {
            Ok(Some(stored)) => self.publish(slot, &stored, RefreshResult::Overtaken),
            Ok(None) => {
                slot.publish(slot.live().ended(self.parts.clock.now()));
                RefreshResult::Overtaken
            }
            Err(error) => self.store_failed(slot, "read", &error).await,
        }
    }

    /// Nothing is sent before then: there is nothing to win, and the access token to lose.
    pub(super) async fn leave_alone(&self, slot: &Slot, record: &ConnectionRecord, until: Timestamp) -> RefreshResult {
        if let Err(error) = self.parts.store.postpone_refresh(record.key.clone(), until).await {
            return self.store_failed(slot, "postpone", &error).await;
        }
        let postponed = ConnectionRecord { refresh_due_at: Some(until), ..record.clone() };
        self.publish(slot, &postponed, RefreshResult::Failed("left_alone"))
    }

    /// Nothing is sent: the store is not to be trusted until its operator says so. Requests go on with what is in memory.
    pub(super) fn hold_back(&self, slot: &Slot, why: &str) -> RefreshResult {
        let until = self.parts.clock.now().plus(STORE_PAUSE);
        slot.publish(slot.live().postponed(until, why.to_owned()));
        self.pause_schedule(until);
        RefreshResult::Failed("held_back")
    }

    /// Nothing was sent. The store is left alone for a while, and requests go on with what is in memory.
    pub(super) async fn store_failed(&self, slot: &Slot, what: &str, error: &StoreError) -> RefreshResult {
        error!(operation = "refresh", connection = %slot.key, what, %error);
        let until = self.parts.clock.now().plus(STORE_PAUSE);
        slot.publish(slot.live().postponed(until, error.to_string()));
        if matches!(error, StoreError::Corrupt(_)) {
            // This record alone is the trouble.
            let _ = self.parts.store.postpone_refresh(slot.key.clone(), until).await;
        } else {
            self.pause_schedule(until);
        }
        RefreshResult::Failed("store")
    }

    pub(super) fn publish(&self, slot: &Slot, record: &ConnectionRecord, result: RefreshResult) -> RefreshResult {
        match LiveToken::open(record, &self.parts.sealer) {
            Ok(live) => {
                slot.publish(live);
                self.memory.changed.notify_one();
                result
            }
            Err(reason) => {
                error!(operation = "refresh", connection = %record.key, reason);
                RefreshResult::Failed("sealed")
            }
        }
    }
}

/// A result that waits for the store to take it. The process is not ready before the last of them is stored.
struct Unstored<'v>(&'v Vault);

impl<'v> Unstored<'v> {
    fn new(vault: &'v Vault) -> Self {
        vault.memory.unstored.fetch_add(1, Ordering::Relaxed);
        Self(vault)
    }
}

impl Drop for Unstored<'_> {
    fn drop(&mut self) {
        if self.0.memory.unstored.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.parts.health.well(Part::RefreshedTokens);
        }
    }
}

/// Why a grant is dead: where a reply was lost before, most likely because of that.
fn with_cause(reason: String, before: Option<&RefreshTrouble>, just_now: Option<Timestamp>) -> String {
    match (before.and_then(|trouble| trouble.in_doubt_since.map(|since| (since, &trouble.last_error))), just_now) {
        (Some((since, lost)), _) => format!("{reason}, after the reply to a refresh at {since} was lost ({lost})"),
        (None, Some(since)) => format!("{reason}, after the reply to a refresh at {since} was lost"),
        (None, None) => reason,
    }
}

/// Whether the outcome of an earlier refresh is unknown.
pub(super) fn is_in_doubt(record: &ConnectionRecord) -> bool {
    record.trouble.as_ref().is_some_and(|trouble| trouble.in_doubt_since.is_some())
}

/// Failures in a row, this one included.
fn failures(record: &ConnectionRecord) -> u32 {
    record.trouble.as_ref().map_or(0, |trouble| trouble.failures).saturating_add(1)
}
