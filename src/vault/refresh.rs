//! One refresh, from the decision to the durable result.
//!
//! It runs in a task that no caller can cancel, at most one at a time for a connection. The intent is durable before the
//! provider is contacted, and the result before the new access token is used. No lock is held across a network call.
//! [`super::exchange`] asks the provider, [`super::settle`] makes durable what came of it.

use std::sync::{Arc, PoisonError};

use futures_util::FutureExt;
use tracing::info;

use super::Vault;
use super::cache::{LiveToken, SharedRefresh, Slot};
use super::exchange::{Stopped, Which};
use super::outcome::Failure;
use super::settle::is_in_doubt;
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::model::connection::ConnectionState;
use crate::store::StoreError;
use crate::store::record::{Alternate, ConnectionRecord, connection_context, field};
use crate::telemetry::audit::Record;
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

/// Why a refresh is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// It is time.
    Due,
    /// An API refused the access token: it is of no use anymore, whatever its time.
    Rejected,
}

impl Vault {
    /// Starts a refresh of the token that was judged, or joins the one under way. The future may be dropped: the refresh goes
    /// on.
    pub(super) fn refresh(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        judged: &Arc<LiveToken>,
        occasion: Occasion,
    ) -> SharedRefresh {
        let mut under_way = slot.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = under_way.as_ref() {
            return running.clone();
        }
        if slot.live().generation != judged.generation {
            // It ended between the judgement and now.
            return std::future::ready(RefreshResult::Overtaken).boxed().shared();
        }
        let (work, slot) = (self.work_under_way(), Arc::clone(slot));
        let task = tokio::spawn(async move {
            // Made in here: a task that is dropped unbegun, at the end of the process, finds the lock held.
            let running = Running { work, slot };
            running.work.vault.run_refresh(&running.slot, occasion).await
        });
        let shared: SharedRefresh =
            task.map(|joined| joined.unwrap_or(RefreshResult::Failed("panic"))).boxed().shared();
        *under_way = Some(shared.clone());
        shared
    }

    /// Counts as an exchange under way for as long as the value lives.
    pub fn work_under_way(self: &Arc<Self>) -> WorkUnderWay {
        self.memory.under_way.send_modify(|count| *count += 1);
        let of_its_time = self.memory.era.lock().unwrap_or_else(PoisonError::into_inner).subscribe();
        WorkUnderWay { vault: Arc::clone(self), _of_its_time: of_its_time }
    }

    async fn run_refresh(&self, slot: &Slot, occasion: Occasion) -> RefreshResult {
        let stopwatch = Stopwatch::start();
        let result = self.refresh_connection(slot, occasion).await;
        let outcome = match &result {
            RefreshResult::Refreshed => "ok",
            RefreshResult::Overtaken => "overtaken",
            RefreshResult::Failed(word) => word,
        };
        self.parts.metrics.refreshed(&slot.key.provider, outcome, stopwatch.elapsed().as_secs_f64());
        let trouble = slot.live().last_error();
        let reason = trouble.filter(|_| matches!(result, RefreshResult::Failed(_)));
        // Where nobody was asked there is nothing to keep for later.
        if !matches!(result, RefreshResult::Overtaken | RefreshResult::Failed("held_back" | "left_alone")) {
            self.parts.audit.record(Record { reason, ..Record::of_connection("refresh", outcome, &slot.key) });
        }
        info!(
            operation = "refresh", provider = %slot.key.provider, subject = %slot.key.subject, label = %slot.key.label,
            duration_ms = stopwatch.millis(), outcome, generation = slot.live().generation,
        );
        result
    }

    async fn refresh_connection(&self, slot: &Slot, occasion: Occasion) -> RefreshResult {
        if let Err(mistrust) = self.trust_in_store() {
            return self.hold_back(slot, &mistrust);
        }
        // What is in memory may be old: what counts is what is stored.
        let mut record = match self.parts.store.connection(slot.key.clone()).await {
            Ok(Some(record)) => record,
            Ok(None) => {
                slot.publish(slot.live().ended(self.parts.clock.now()));
                return RefreshResult::Overtaken;
            }
            Err(error) => return self.store_failed(slot, "read", &error).await,
        };
        let is_another = record.generation > slot.live().generation || record.id != slot.live().connection_id;
        if is_another || record.state != ConnectionState::Active {
            return self.publish(slot, &record, RefreshResult::Overtaken);
        }
        if record.intent.is_some() && !is_in_doubt(&record) {
            // One before this was begun and never ended, as after a panic: the provider may have acted on it.
            return self.settle_interrupted(slot, &record).await;
        }
        let (provider, current) = match self.prepare(&record) {
            Ok(prepared) => prepared,
            Err(reason) => return self.record_failure(slot, &record, Failure::Operator(reason), None).await,
        };
        let Some(current) = current else { return RefreshResult::Failed("no_refresh_token") };
        let mut outcome = self.exchange(&provider, &mut record, &current, Which::Current(occasion)).await;
        if let Err(Stopped::Failed { failure: Failure::Dead(reason), .. }) = &outcome {
            // A verdict on one refresh token is not yet one on the grant.
            let reason = reason.clone();
            outcome = self.exchange_alternates(slot, &provider, &mut record, reason).await;
        }
        match outcome {
            Ok((reply, sent)) => self.store_tokens(slot, &record, *reply, &sent, &current).await,
            Err(Stopped::Failed { failure, in_doubt_since }) => {
                self.record_failure(slot, &record, failure, in_doubt_since).await
            }
            Err(Stopped::LeftAlone(until)) => self.leave_alone(slot, &record, until).await,
            Err(Stopped::Overtaken) => RefreshResult::Overtaken,
            // Without a durable intent nothing is sent; the current token stays in use.
            Err(Stopped::Store(error)) => self.store_failed(slot, "intent", &error).await,
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

    /// Asks with every other refresh token that is still there, the newest first, until one works. That all are dead is said
    /// in the words that the provider had for the first.
    async fn exchange_alternates(
        &self,
        slot: &Slot,
        provider: &Provider,
        record: &mut ConnectionRecord,
        reason: String,
    ) -> super::exchange::Exchanged {
        // The current token was asked about: what cannot be read now is no reason to forget that, nor to give up.
        let later = |error: StoreError| Stopped::Failed {
            failure: Failure::Transient(error.to_string(), None),
            in_doubt_since: None,
        };
        for alternate in self.alternates(provider, record).await.map_err(later)? {
            let outcome = self.exchange(provider, record, &alternate, Which::Other).await;
            match outcome {
                Err(Stopped::Failed { failure: Failure::Dead(_), .. }) => {}
                Err(Stopped::Store(error)) => return Err(later(error)),
                outcome => {
                    info!(operation = "refresh", connection = %slot.key, worked = outcome.is_ok(), "an earlier refresh token was tried");
                    return outcome;
                }
            }
        }
        Err(Stopped::Failed { failure: Failure::Dead(reason), in_doubt_since: None })
    }

    async fn alternates(&self, provider: &Provider, record: &ConnectionRecord) -> Result<Vec<Secret>, StoreError> {
        let kept = self.parts.store.alternates(record.id.clone()).await?;
        let open = |alternate: &Alternate| {
            let context = connection_context(&record.key, &record.id, field::REFRESH_TOKEN, alternate.generation);
            self.parts.sealer.open(&context, &alternate.refresh_token).ok()
        };
        let predecessor =
            record.previous_refresh_token.as_ref().filter(|_| provider.entry.rotation.predecessor_may_live());
        let open_predecessor =
            |sealed| self.parts.sealer.open(&record.seal_context(field::PREVIOUS_REFRESH_TOKEN), sealed).ok();
        Ok(kept.iter().filter_map(open).chain(predecessor.and_then(open_predecessor)).collect())
    }
}

/// An exchange with a token endpoint that a stop waits for.
pub struct WorkUnderWay {
    vault: Arc<Vault>,
    _of_its_time: tokio::sync::watch::Receiver<()>,
}

impl Drop for WorkUnderWay {
    fn drop(&mut self) {
        self.vault.memory.under_way.send_modify(|count| *count -= 1);
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
