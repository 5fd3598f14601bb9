//! Refreshes what is due without being asked, and settles what a crash left open.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{error, info, warn};

use super::cache::{LiveToken, Slot};
use super::outcome::{Failure, repetition};
use super::refresh::{Occasion, RefreshResult};
use super::settle::{FIRST_PROBE, STORE_PAUSE, is_in_doubt};
use super::{TokenError, Vault};
use crate::base::clock::Timestamp;
use crate::catalogue::entry::Repetition;
use crate::model::connection::ConnectionKey;
use crate::model::names::ProviderName;
use crate::model::token_set::Freshness;
use crate::store::StoreError;
use crate::store::record::ConnectionRecord;
use crate::telemetry::audit::Record;
use crate::telemetry::health::Part;

/// The longest pause: connections may appear that nobody told us of, and the store's health is looked at.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The shortest pause, so that refreshes under way are not looked for all the time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
/// How long a connection that cannot be opened is left alone.
const POSTPONED: Duration = Duration::from_secs(300);
/// Every so many rounds of housekeeping, all connections are looked at.
const ROUNDS_BETWEEN_LOOKS: u64 = 12;
/// No back-off and no `Retry-After` puts a refresh off for longer.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(2 * 3600);
/// How many due connections are fetched at once.
const BATCH: usize = 64;

impl Vault {
    /// Settles refreshes that were under way when the process ended: whether the provider acted on them is unknown.
    pub async fn recover(self: &Arc<Self>) -> Result<usize, StoreError> {
        self.parts.store.retry_operator_failures(self.parts.clock.now()).await?;
        let interrupted = self.parts.store.interrupted_refreshes().await?;
        for record in &interrupted {
            let Ok(live) = LiveToken::open(record, &self.parts.sealer) else { continue };
            let slot = Slot::new(record.key.clone(), live);
            if is_in_doubt(record) {
                // It waited, or was being asked about once more: that comes up again by the same rule.
                self.doubt_again(&slot, record).await;
                continue;
            }
            let outcome = self.settle_interrupted(&slot, record).await;
            info!(operation = "recover", connection = %record.key, ?outcome);
        }
        Ok(interrupted.len())
    }

    /// Writes down what is known of a refresh that was begun and never ended.
    pub(super) async fn settle_interrupted(&self, slot: &Slot, record: &ConnectionRecord) -> RefreshResult {
        let failure = self.interrupted(record);
        let pause = match &failure {
            Failure::InDoubt { since, repetition: Repetition::LastResort, .. } => {
                since.plus(FIRST_PROBE).since(self.parts.clock.now())
            }
            _ => Duration::ZERO,
        };
        let reason = Some(failure.summary().to_owned());
        let outcome = failure.word();
        self.parts.audit.record(Record { reason, ..Record::of_connection("refresh", outcome, &record.key) });
        self.record_failure_until(slot, record, failure, None, pause).await
    }

    async fn doubt_again(&self, slot: &Slot, record: &ConnectionRecord) {
        let Some(trouble) = &record.trouble else { return };
        let (Some(since), Some(intent)) = (trouble.in_doubt_since, &record.intent) else { return };
        let (now, provider) = (self.parts.clock.now(), self.parts.providers.get(&record.key.provider));
        let repetition = provider.map_or(Repetition::LastResort, |provider| {
            repetition(&provider.entry.rotation, since, record.refresh_token_since, now)
        });
        let failure = Failure::InDoubt { why: trouble.last_error.clone(), since, repetition, retry_after: None };
        // Where it does no harm there is nothing to wait for.
        let pause = match repetition {
            Repetition::LastResort => intent.started_at.plus(FIRST_PROBE).since(now),
            _ => Duration::ZERO,
        };
        self.record_failure_until(slot, record, failure, None, pause).await;
    }

    /// What a refresh came to of which only the beginning is known.
    fn interrupted(&self, record: &ConnectionRecord) -> Failure {
        let why = "the process ended during a refresh".to_owned();
        let since = record.intent.as_ref().map_or_else(|| self.parts.clock.now(), |intent| intent.started_at);
        let provider = self.parts.providers.get(&record.key.provider);
        let now = self.parts.clock.now();
        let repetition = provider.map_or(Repetition::LastResort, |provider| {
            repetition(&provider.entry.rotation, since, record.refresh_token_since, now)
        });
        match repetition {
            Repetition::Harmless => Failure::Transient(why, None),
            _ => Failure::InDoubt { why, since, repetition, retry_after: None },
        }
    }

    /// Runs until [`Self::retire`] is called, or the future is dropped.
    pub async fn work(self: Arc<Self>) {
        tokio::join!(self.keep_fresh(), self.keep_house());
    }

    async fn keep_fresh(self: &Arc<Self>) {
        loop {
            let pause = self.refresh_due_connections().await.unwrap_or_else(|error| {
                error!(operation = "schedule", %error);
                LONGEST_PAUSE
            });
            tokio::select! {
                () = self.succeeded.cancelled() => return,
                () = self.parts.clock.sleep(pause) => {}
                () = self.memory.changed.notified() => self.parts.clock.sleep(SHORTEST_PAUSE).await,
            }
        }
    }

    /// Starts what is due, and says how long to pause.
    async fn refresh_due_connections(self: &Arc<Self>) -> Result<Duration, StoreError> {
        let store = &self.parts.store;
        let now = self.parts.clock.now();
        if self.trust_in_store().is_err() {
            return Ok(LONGEST_PAUSE);
        }
        let paused_until = Timestamp::from_millis(self.memory.paused_until.load(Ordering::Relaxed));
        // A longer pause is one from before the clock was set back.
        if now < paused_until && paused_until <= now.plus(STORE_PAUSE) {
            return Ok(paused_until.since(now));
        }
        // Where all places are taken, more would only stand in the way of the others.
        let is_busy = |(name, permits): (&ProviderName, &Arc<tokio::sync::Semaphore>)| {
            (permits.available_permits() == 0).then(|| name.clone())
        };
        let busy = self.permits.iter().filter_map(is_busy).collect();
        let due = store.refresh_due(now, BATCH, busy).await?;
        for key in &due {
            let loaded = match self.slot_in_memory(key) {
                Some(slot) => Ok(slot),
                None => self.load(key).await,
            };
            match loaded {
                Ok(slot) => {
                    // A request may have had it refreshed since it was listed.
                    let live = slot.live();
                    if live.freshness(now) != Freshness::Fresh {
                        drop(self.refresh(&slot, &live, Occasion::Due));
                    }
                }
                Err(error) => self.postpone(key, &error).await?,
            }
        }
        if !due.is_empty() {
            return Ok(SHORTEST_PAUSE);
        }
        let next = store.next_refresh().await?;
        let pause = next.map_or(LONGEST_PAUSE, |next| next.since(now));
        Ok(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
    }

    /// A connection that cannot even be opened (a key is missing, its record is damaged) must not come up again at once,
    /// nor stand in the way of the others.
    async fn postpone(&self, key: &ConnectionKey, error: &TokenError) -> Result<(), StoreError> {
        error!(operation = "schedule", connection = %key, ?error, "cannot be refreshed");
        let until = self.parts.clock.now().plus(POSTPONED);
        self.parts.store.postpone_refresh(key.clone(), until).await
    }

    /// Has the worker leave the store alone for a while.
    pub(super) fn pause_schedule(&self, until: Timestamp) {
        self.memory.paused_until.store(until.as_millis(), Ordering::Relaxed);
    }

    /// Sweeps what is over, counts what is there, and finds out whether the store works.
    async fn keep_house(&self) {
        for rounds in 0_u64.. {
            match self.housekeeping().await {
                Ok(()) => {
                    self.parts.health.well(Part::Store);
                    if rounds % ROUNDS_BETWEEN_LOOKS == 0
                        && let Err(error) = self.look_at_all_connections().await
                    {
                        error!(operation = "housekeeping", %error);
                    }
                }
                Err(error) => {
                    error!(operation = "housekeeping", %error);
                    self.parts.health.unwell(Part::Store, error.to_string());
                }
            }
            tokio::select! {
                () = self.succeeded.cancelled() => return,
                () = self.parts.clock.sleep(LONGEST_PAUSE) => {}
            }
        }
    }

    async fn look_at_all_connections(&self) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        self.parts.store.limit_waiting(now, now.plus(LONGEST_WAIT)).await?;
        self.announce_grant_ends().await
    }

    /// Says in time which grants end however often they are refreshed: only their subjects can make new ones.
    async fn announce_grant_ends(&self) -> Result<(), StoreError> {
        let until = self.parts.clock.now().plus(self.parts.grant_end_notice);
        for (key, ends_at) in self.parts.store.announce_grant_ends(until).await? {
            warn!(operation = "grant_end", connection = %key, %ends_at, "its subject should connect again before then");
            self.parts.metrics.grant_ends(&key.provider);
            let reason = Some(format!("the grant ends at {ends_at}, however often it is refreshed"));
            self.parts.audit.record(Record { reason, ..Record::of_connection("grant_end", "announced", &key) });
        }
        Ok(())
    }

    async fn housekeeping(&self) -> Result<(), StoreError> {
        self.parts.store.health().await?;
        self.admit_store().await?;
        let now = self.parts.clock.now();
        self.parts.store.sweep(now).await?;
        self.parts.metrics.set_connections(&self.parts.store.count_connections().await?);
        Ok(())
    }
}
