//! One refresh, from the decision to the durable result.
//!
//! It runs in a task that no caller can cancel, at most one at a time for a connection. The intent is durable before the
//! provider is contacted, and the result before the new access token is used. No lock is held across a network call.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tracing::{error, info, warn};

use super::Vault;
use super::cache::{LiveToken, SharedRefresh, Slot};
use super::outcome::{Failure, Step, judge, retry_at};
use crate::base::backoff::{RETRY_WAITS, after_failure};
use crate::base::clock::Timestamp;
use crate::base::digest::sha256;
use crate::base::http::{HttpError, Response};
use crate::base::random::{self, fraction};
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::model::connection::{ConnectionState, RefreshTrouble};
use crate::model::token_set::refresh_due_at;
use crate::oauth::token_response::{self, Exchange, TokenReply};
use crate::oauth::{revoke, token_request};
use crate::store::StoreError;
use crate::store::record::{
    ConnectionRecord, Intent, RefreshFailure, RefreshedTokens, RevocationRecord, connection_context, field,
};
use crate::telemetry::audit::Record;
use crate::telemetry::health::Part;
use crate::telemetry::stopwatch::Stopwatch;

/// What a refresh came to; the new token itself is in the slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefreshResult {
    /// A new access token is in use.
    Refreshed,
    /// Somebody else had refreshed or replaced the connection meanwhile.
    Overtaken,
    /// It failed; the word says who must act.
    Failed(&'static str),
}

/// How long to wait before trying again to store a result that could not be stored.
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// How long the store is left alone after it failed.
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// The least time between a refresh whose reply was lost and its one repetition.
const FIRST_PROBE: Duration = Duration::from_secs(1);

impl Vault {
    /// Starts a refresh, or joins the one under way. The future may be dropped: the refresh goes on.
    pub(super) fn refresh(self: &Arc<Self>, slot: &Arc<Slot>) -> SharedRefresh {
        let mut under_way = slot.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = under_way.as_ref() {
            return running.clone();
        }
        let running = Running { work: self.work_under_way(), slot: Arc::clone(slot) };
        let task = tokio::spawn(async move { running.work.0.run_refresh(&running.slot).await });
        let shared: SharedRefresh =
            task.map(|joined| joined.unwrap_or(RefreshResult::Failed("panic"))).boxed().shared();
        *under_way = Some(shared.clone());
        shared
    }

    /// Counts as an exchange under way for as long as the value lives.
    pub fn work_under_way(self: &Arc<Self>) -> WorkUnderWay {
        self.under_way.send_modify(|count| *count += 1);
        WorkUnderWay(Arc::clone(self))
    }

    async fn run_refresh(&self, slot: &Slot) -> RefreshResult {
        let stopwatch = Stopwatch::start();
        let result = self.refresh_connection(slot).await;
        let outcome = match &result {
            RefreshResult::Refreshed => "ok",
            RefreshResult::Overtaken => "overtaken",
            RefreshResult::Failed(word) => word,
        };
        self.parts.metrics.refreshed(&slot.key.provider, outcome, stopwatch.elapsed().as_secs_f64());
        let trouble = slot.live().last_error();
        let reason = trouble.filter(|_| matches!(result, RefreshResult::Failed(_)));
        self.parts.audit.record(Record { reason, ..Record::of_connection("refresh", outcome, &slot.key) });
        info!(
            operation = "refresh", provider = %slot.key.provider, subject = %slot.key.subject, label = %slot.key.label,
            duration_ms = stopwatch.millis(), outcome, generation = slot.live().generation,
        );
        result
    }

    async fn refresh_connection(&self, slot: &Slot) -> RefreshResult {
        // What is in memory may be old: what counts is what is stored.
        let record = match self.parts.store.connection(slot.key.clone()).await {
            Ok(Some(record)) => record,
            Ok(None) => return RefreshResult::Overtaken,
            Err(error) => return self.store_failed(slot, "read", &error).await,
        };
        if record.generation > slot.live().generation || record.id != slot.live().connection_id {
            return self.publish(slot, &record, RefreshResult::Overtaken);
        }
        let (provider, refresh_token) = match self.prepare(&record) {
            Ok(prepared) => prepared,
            Err(reason) => return self.record_failure(slot, &record, Failure::Operator(reason)).await,
        };
        let Some(refresh_token) = refresh_token else { return RefreshResult::Failed("no_refresh_token") };
        let intent = Intent {
            attempt: random::identifier(self.parts.random.as_ref(), "r_"),
            started_at: self.parts.clock.now(),
            refresh_token_digest: sha256(refresh_token.expose().as_bytes()),
        };
        match self.parts.store.begin_refresh(record.id.clone(), record.generation, intent).await {
            Ok(true) => {}
            Ok(false) => return RefreshResult::Overtaken,
            // Without a durable intent nothing is sent; the current token stays in use.
            Err(error) => return self.store_failed(slot, "intent", &error).await,
        }
        match self.exchange(&provider, &record, &refresh_token).await {
            Ok(reply) => self.store_tokens(slot, &record, *reply, &refresh_token).await,
            Err(failure) => self.record_failure(slot, &record, failure).await,
        }
    }

    fn prepare(&self, record: &ConnectionRecord) -> Result<(Arc<Provider>, Option<Secret>), String> {
        let provider = self.parts.providers.get(&record.key.provider);
        let provider = provider.ok_or("the provider is no longer configured")?;
        let refresh_token = match &record.refresh_token {
            Some(sealed) => Some(
                self.parts
                    .sealer
                    .open(&record.seal_context(field::REFRESH_TOKEN), sealed)
                    .map_err(|error| format!("the refresh token is {error}"))?,
            ),
            None => None,
        };
        Ok((Arc::clone(provider), refresh_token))
    }

    /// One try, and up to three repetitions where they can do no harm.
    async fn exchange(
        &self,
        provider: &Provider,
        record: &ConnectionRecord,
        refresh_token: &Secret,
    ) -> Result<Box<TokenReply>, Failure> {
        let mut waits = RETRY_WAITS.iter();
        for attempt in 1.. {
            self.parts.metrics.refresh_attempted(&record.key.provider);
            let (sent_at, reply) = self.send(provider, refresh_token).await;
            let exchanged =
                reply.map(|reply| token_response::read(&provider.entry, Exchange::Refresh, &reply, sent_at));
            let wait = waits.next().filter(|_| !self.stopping.load(Ordering::Relaxed));
            let (outcome, error) = match judge(exchanged, &provider.entry.rotation, wait.is_some()) {
                Step::Store(reply) => return Ok(reply),
                Step::Fail(failure) => {
                    log_attempt(record, attempt, None, &failure);
                    return Err(failure);
                }
                Step::AskAgain(why) => (wait, Failure::Transient(why, None)),
            };
            log_attempt(record, attempt, outcome.copied(), &error);
            self.parts.clock.sleep(outcome.copied().unwrap_or_default()).await;
        }
        unreachable!("the last wait ends the repetitions")
    }

    async fn send(&self, provider: &Provider, refresh_token: &Secret) -> (Timestamp, Result<Response, HttpError>) {
        // Held for the exchange alone. A semaphore is never closed, and a provider that has none is not limited.
        let _permit = match self.permits.get(&provider.name) {
            Some(permits) => permits.acquire().await.ok(),
            None => None,
        };
        let sent_at = self.parts.clock.now();
        (sent_at, self.parts.http.send(token_request::refresh(provider, refresh_token)).await)
    }

    async fn store_tokens(
        &self,
        slot: &Slot,
        record: &ConnectionRecord,
        reply: TokenReply,
        old_refresh_token: &Secret,
    ) -> RefreshResult {
        let tokens = self.seal_reply(record, reply, old_refresh_token);
        loop {
            let stored = self.parts.store.complete_refresh(record.id.clone(), record.generation, tokens.clone()).await;
            match stored {
                Ok(true) => break,
                Ok(false) => {
                    self.parts.health.well(Part::RefreshedTokens);
                    warn!(operation = "refresh", connection = %record.key, "replaced or ended while it was refreshed");
                    self.give_back_unwanted(record, &tokens).await;
                    return RefreshResult::Overtaken;
                }
                // These may be the only copies: they are kept until they can be stored, and not used before.
                Err(error) => {
                    error!(operation = "refresh", connection = %record.key, %error, "refreshed tokens cannot be stored");
                    self.parts.health.unwell(Part::RefreshedTokens, error.to_string());
                    self.parts.clock.sleep(STORE_AGAIN).await;
                }
            }
        }
        self.parts.health.well(Part::RefreshedTokens);
        match self.parts.store.connection(record.key.clone()).await {
            Ok(Some(stored)) if stored.id == record.id => self.publish(slot, &stored, RefreshResult::Refreshed),
            Ok(_) => RefreshResult::Overtaken,
            Err(error) => self.store_failed(slot, "read", &error).await,
        }
    }

    /// Tokens for a connection that was ended while they were fetched are not kept, and not left alive either. Where another
    /// connection has taken its place, they may belong to the same grant as that one's, and are left alone.
    async fn give_back_unwanted(&self, record: &ConnectionRecord, tokens: &RefreshedTokens) {
        let is_ended = matches!(self.parts.store.connection(record.key.clone()).await, Ok(None));
        let provider = self.parts.providers.get(&record.key.provider);
        if !is_ended || provider.is_none_or(|provider| revoke::offered(provider).is_none()) {
            return;
        }
        let revocation = RevocationRecord {
            id: random::identifier(self.parts.random.as_ref(), "v_"),
            key: record.key.clone(),
            connection_id: record.id.clone(),
            generation: record.generation + 1,
            access_token: tokens.access_token.clone(),
            refresh_token: tokens.refresh_token.clone(),
            attempts: 0,
        };
        if let Err(error) = self.parts.store.put_revocation(revocation, self.parts.clock.now()).await {
            error!(operation = "refresh", connection = %record.key, %error, "unwanted tokens cannot be queued for revocation");
        }
    }

    fn seal_reply(&self, record: &ConnectionRecord, reply: TokenReply, old_refresh_token: &Secret) -> RefreshedTokens {
        let TokenReply { tokens, captured, .. } = reply;
        let now = self.parts.clock.now();
        let seal = |field, secret: &Secret| {
            let context = connection_context(&record.key, &record.id, field, record.generation + 1);
            self.parts.sealer.seal(&context, secret)
        };
        let new = tokens.refresh_token.as_ref();
        let rotated = new.is_some_and(|new| new.expose() != old_refresh_token.expose());
        RefreshedTokens {
            access_token: seal(field::ACCESS_TOKEN, &tokens.access_token),
            access_expires_at: tokens.access_expires_at,
            // A reply without a refresh token keeps the old one (RFC 6749 section 6).
            refresh_token: Some(seal(field::REFRESH_TOKEN, new.unwrap_or(old_refresh_token))),
            previous_refresh_token: rotated.then(|| seal(field::PREVIOUS_REFRESH_TOKEN, old_refresh_token)),
            refresh_expires_at: tokens.refresh_expires_at,
            refresh_due_at: self.due_at(now, tokens.access_expires_at),
            scopes: tokens.scopes,
            captured,
            refreshed_at: now,
        }
    }

    /// When a token obtained at `now` is to be refreshed.
    pub fn due_at(&self, now: Timestamp, expires_at: Option<Timestamp>) -> Option<Timestamp> {
        let jitter = fraction(self.parts.random.as_ref());
        expires_at.map(|expires_at| refresh_due_at(now, expires_at, self.parts.refresh_ahead, jitter))
    }

    async fn record_failure(&self, slot: &Slot, record: &ConnectionRecord, failure: Failure) -> RefreshResult {
        let failures = failures(record);
        let backoff = match &failure {
            // The one probe of a token in doubt is not put off once the access token has expired.
            Failure::InDoubt(_) if failures == 1 => FIRST_PROBE,
            _ => after_failure(failures, self.parts.random.as_ref()),
        };
        self.record_failure_until(slot, record, failure, backoff).await
    }

    /// Writes down how a refresh failed, and lets the current token be used as long as it lives.
    pub(super) async fn record_failure_until(
        &self,
        slot: &Slot,
        record: &ConnectionRecord,
        failure: Failure,
        backoff: Duration,
    ) -> RefreshResult {
        let now = self.parts.clock.now();
        let before = record.trouble.as_ref();
        let failures = failures(record);
        let provider = self.parts.providers.get(&record.key.provider);
        let rotation = provider.map(|provider| &provider.entry.rotation);
        let in_doubt_since = match (&failure, before.and_then(|trouble| trouble.in_doubt_since)) {
            (Failure::Dead(_), _) => None,
            (Failure::InDoubt(_), since) => Some(since.unwrap_or(now)),
            (_, since) => since,
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
                in_doubt_since,
            },
            retry_at: retry_at(&failure, rotation, now, backoff, record.access_expires_at),
            state: state.clone(),
        };
        let stored = self.parts.store.fail_refresh(record.id.clone(), record.generation, recorded.clone()).await;
        if let Err(error) = stored {
            error!(operation = "refresh", connection = %record.key, %error, "a failed refresh cannot be recorded");
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

    /// Nothing was sent. The store is left alone for a while, and requests go on with what is in memory.
    async fn store_failed(&self, slot: &Slot, what: &str, error: &StoreError) -> RefreshResult {
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

    fn publish(&self, slot: &Slot, record: &ConnectionRecord, result: RefreshResult) -> RefreshResult {
        match LiveToken::open(record, &self.parts.sealer) {
            Ok(live) => {
                slot.publish(live);
                self.changed.notify_one();
                result
            }
            Err(reason) => {
                error!(operation = "refresh", connection = %record.key, reason);
                RefreshResult::Failed("sealed")
            }
        }
    }
}

/// Failures in a row, this one included.
fn failures(record: &ConnectionRecord) -> u32 {
    record.trouble.as_ref().map_or(0, |trouble| trouble.failures).saturating_add(1)
}

/// An exchange with a token endpoint that a stop waits for.
pub struct WorkUnderWay(Arc<Vault>);

impl Drop for WorkUnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}

/// A refresh under way. However it ends, also by a panic, the next one may begin: whether anybody waited for it does
/// not matter.
struct Running {
    work: WorkUnderWay,
    slot: Arc<Slot>,
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.slot.refresh.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn log_attempt(record: &ConnectionRecord, attempt: u32, wait: Option<Duration>, failure: &Failure) {
    let wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    warn!(
        operation = "refresh_attempt", provider = %record.key.provider, subject = %record.key.subject,
        label = %record.key.label, attempt, outcome = failure.word(), error = failure.summary(), wait_ms,
    );
}
