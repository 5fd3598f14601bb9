//! The current access token of every connection, always fresh, never lost.
//!
//! A request asks [`Vault::token_for`]. While the current token is valid the answer comes from memory; if it is due, a
//! refresh runs meanwhile in a task of its own. Only when it has expired does the request wait, together with all others
//! for the same connection, for that one refresh. [`worker`] refreshes what is due without being asked; [`refresh`] is
//! the exchange itself: read again, record the intent, ask, make the result durable, publish.

pub mod attempts;
mod cache;
mod exchange;
pub mod forced;
pub mod guard;
pub mod handles;
mod outcome;
pub mod refresh;
mod settle;
pub mod simulate;
pub mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, Timestamp};
use crate::base::http::HttpClient;
use crate::base::random::Random;
use crate::catalogue::Provider;
use crate::model::connection::{Captured, ConnectionKey, ConnectionState};
use crate::model::names::{ProviderName, TokenName};
use crate::model::token_set::{Freshness, RefreshAhead};
use crate::store::record::ConnectionRecord;
use crate::store::seal::Sealer;
use crate::store::{Store, StoreError};
use crate::telemetry::audit::Audit;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

pub use cache::LiveToken;
use cache::Slot;
use guard::Guard;
use refresh::Occasion;
pub use refresh::RefreshResult;

/// Why there is no token to use. The order is that of who must act: the subject, nobody, the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// The subject has no connection to the provider.
    NotConnected,
    /// The grant is dead; the subject must connect again.
    NeedsReauth {
        /// What the provider said.
        reason: String,
    },
    /// The token has expired and could not be refreshed just now.
    Unavailable {
        /// What happened.
        reason: String,
        /// When the next try is made.
        retry_after: Duration,
    },
    /// The operator must mend something: the registration at the provider, a key, the store.
    Operator {
        /// What is wrong.
        reason: String,
    },
}

/// How a connection stands. An outage changes nothing about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is one, and nothing says that it has ended.
    Usable,
    /// There is one, but which of several sites it is for has yet to be chosen: calls that need to know are refused.
    Unchosen,
    /// The grant at the provider is dead.
    Dead {
        /// What the provider said.
        reason: String,
    },
    /// There is none.
    Missing,
}

impl Standing {
    /// Whether there is a connection that has not ended, whatever is still to be chosen.
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Usable | Self::Unchosen)
    }
}

/// What the vault is made of.
#[derive(Clone)]
pub struct Parts {
    /// Where connections are kept.
    pub store: Arc<dyn Store>,
    /// Seals and opens them.
    pub sealer: Sealer,
    /// The providers by name.
    pub providers: BTreeMap<ProviderName, Arc<Provider>>,
    /// Reaches token endpoints.
    pub http: Arc<dyn HttpClient>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// When refreshes are due.
    pub refresh_ahead: RefreshAhead,
    /// How long before its absolute end a grant is announced to end.
    pub grant_end_notice: Duration,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Told when a result cannot be stored.
    pub health: Arc<Health>,
    /// What was done.
    pub audit: Arc<Audit>,
    /// Whether the store is the right one.
    pub guard: Arc<Guard>,
}

/// The current access token of every connection.
pub struct Vault {
    parts: Parts,
    memory: Arc<Memory>,
    /// Requests to the token endpoint of each provider that may be under way at the same time: one that is slow holds up
    /// no other.
    permits: BTreeMap<ProviderName, Arc<tokio::sync::Semaphore>>,
    /// Told once another one has taken this one's place: its worker ends.
    succeeded: CancellationToken,
}

/// What outlives a change of the settings.
struct Memory {
    slots: DashMap<ConnectionKey, Arc<Slot>, foldhash::fast::RandomState>,
    /// Set once the process is to end: what is under way is finished, nothing is tried again.
    stopping: std::sync::atomic::AtomicBool,
    /// Wakes the worker when there may be something new to do.
    changed: tokio::sync::Notify,
    /// Until then the worker starts nothing: the store failed a moment ago.
    paused_until: std::sync::atomic::AtomicI64,
    /// Counts connections that were ended, so that one which is being read meanwhile is not taken for a live one.
    forgotten: std::sync::atomic::AtomicU64,
    /// How many results wait for the store to take them.
    unstored: std::sync::atomic::AtomicUsize,
    /// Counts exchanges under way, so that a shutdown can wait for them.
    under_way: tokio::sync::watch::Sender<usize>,
    /// Everything under way listens to that of the time when it was begun, so that one can wait for what began before a moment
    /// while more begins.
    era: std::sync::Mutex<tokio::sync::watch::Sender<()>>,
    /// Tells whoever watches what token endpoints were asked.
    attempts: tokio::sync::broadcast::Sender<attempts::Attempt>,
}

/// Enough for thousands of connections an hour, few enough not to be throttled.
const CONCURRENT_REFRESHES: usize = 32;
/// The least time between two refreshes of a connection that only an API's word has begun.
const FORCED_PAUSE: Duration = Duration::from_secs(60);
/// How long a request waits for a token when it has none that is valid. The refresh itself goes on.
const REQUEST_WAIT: Duration = Duration::from_secs(30);

impl Vault {
    /// A vault with nothing in memory yet.
    pub fn new(parts: Parts) -> Arc<Self> {
        let memory = Memory {
            stopping: std::sync::atomic::AtomicBool::new(false),
            slots: DashMap::default(),
            changed: tokio::sync::Notify::new(),
            paused_until: std::sync::atomic::AtomicI64::new(i64::MIN),
            forgotten: std::sync::atomic::AtomicU64::new(0),
            unstored: std::sync::atomic::AtomicUsize::new(0),
            under_way: tokio::sync::watch::Sender::new(0),
            era: std::sync::Mutex::default(),
            attempts: tokio::sync::broadcast::Sender::new(attempts::KEPT),
        };
        Self::on(Arc::new(memory), parts, &BTreeMap::new())
    }

    /// The same vault under other settings. What is in memory and under way is shared: there is one refresh of a connection
    /// at a time, whoever began it. The former one goes on for those who hold it; its worker ends at [`Self::retire`].
    pub fn under(&self, parts: Parts) -> Arc<Self> {
        Self::on(Arc::clone(&self.memory), parts, &self.permits)
    }

    fn on(
        memory: Arc<Memory>,
        parts: Parts,
        former: &BTreeMap<ProviderName, Arc<tokio::sync::Semaphore>>,
    ) -> Arc<Self> {
        let new = || Arc::new(tokio::sync::Semaphore::new(CONCURRENT_REFRESHES));
        let permits = |name: &ProviderName| (name.clone(), former.get(name).cloned().unwrap_or_else(new));
        let permits = parts.providers.keys().map(permits).collect();
        Arc::new(Self { parts, memory, permits, succeeded: CancellationToken::new() })
    }

    /// Ends the worker as soon as it pauses: that of another one does its work from now on.
    pub fn retire(&self) {
        self.succeeded.cancel();
    }

    /// Tries again at once what only the operator could mend: the settings are others now.
    pub async fn forgive_operator(&self) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        self.parts.store.retry_operator_failures(now).await?;
        self.memory.slots.iter().for_each(|slot| slot.forgive_operator(now));
        self.memory.changed.notify_one();
        Ok(())
    }

    /// A token that can be used now. Waits only if there is none that is valid.
    pub async fn token_for(self: &Arc<Self>, key: &ConnectionKey) -> Result<Arc<LiveToken>, TokenError> {
        self.token_at(key, self.parts.clock.now()).await
    }

    /// The same for a caller who has just asked what time it is.
    pub async fn token_at(self: &Arc<Self>, key: &ConnectionKey, now: Timestamp) -> Result<Arc<LiveToken>, TokenError> {
        let slot = match self.slot_in_memory(key) {
            Some(slot) => slot,
            // What is rare goes into boxes, so that the future of every request need not have room for it.
            None => Box::pin(self.load(key)).await?,
        };
        let live = slot.live();
        match live.freshness(now) {
            Freshness::Fresh => Ok(live),
            Freshness::Due => {
                // Dropping the future changes nothing: the refresh runs in a task of its own.
                drop(self.refresh(&slot, &live, Occasion::Due));
                Ok(live)
            }
            Freshness::Expired => Box::pin(self.replace_expired(&slot, &live)).await,
        }
    }

    /// Another token of the same connection in place of one that an API called expired; `None` if there is none to be had. A token
    /// that was refreshed meanwhile is just that; otherwise it is refreshed now, ahead of its time, at most once in
    /// [`FORCED_PAUSE`]: an API that calls every token expired must not use up the provider's patience.
    pub async fn replacement(self: &Arc<Self>, key: &ConnectionKey, refused: &LiveToken) -> Option<Arc<LiveToken>> {
        let slot = self.slot_in_memory(key)?;
        let (now, generation, judged) = (self.parts.clock.now(), refused.generation, slot.live());
        // A connection that has taken the place of that one has another account, or place: nothing is sent again to it.
        if judged.connection_id != refused.connection_id {
            return None;
        }
        if judged.generation == generation {
            let under_way = slot.refresh.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            let may_ask = || slot.live().may_be_replaced(now) && slot.may_force(now, FORCED_PAUSE);
            if !under_way && !may_ask() {
                return None;
            }
            tokio::select! {
                _ = self.refresh(&slot, &judged, Occasion::Rejected) => {}
                () = self.parts.clock.sleep(REQUEST_WAIT) => {}
            }
        }
        let live = slot.live();
        if live.generation == generation && live.state != ConnectionState::Active {
            // The API and the token endpoint agree: whatever the clock says, this token is of no use to anybody.
            slot.publish(live.expired_at(now));
            return None;
        }
        let is_usable = live.generation > generation && live.freshness(self.parts.clock.now()) != Freshness::Expired;
        is_usable.then_some(live)
    }

    /// Takes note that an API called a token expired when it was too late to do anything about it: the next
    /// request waits for another one.
    pub fn mark_expired(&self, key: &ConnectionKey, refused: &LiveToken) {
        let Some(slot) = self.slot_in_memory(key) else { return };
        let (live, now) = (slot.live(), self.parts.clock.now());
        let is_the_same = live.generation == refused.generation && live.connection_id == refused.connection_id;
        if is_the_same && live.may_be_replaced(now) && slot.may_force(now, FORCED_PAUSE) {
            slot.publish(live.expired_at(now));
        }
    }

    /// How a connection stands, without asking the provider.
    pub async fn standing(&self, key: &ConnectionKey) -> Standing {
        let slot = match self.slot_in_memory(key) {
            Some(slot) => slot,
            None => match Box::pin(self.load(key)).await {
                Ok(slot) => slot,
                Err(TokenError::NotConnected) => return Standing::Missing,
                Err(_) => return Standing::Usable,
            },
        };
        let live = slot.live();
        let now = self.parts.clock.now();
        match &live.state {
            ConnectionState::NeedsReauth { reason } => Standing::Dead { reason: reason.clone() },
            ConnectionState::Disconnected => Standing::Missing,
            ConnectionState::Active if live.freshness(now) == Freshness::Expired => match live.standing_error(now) {
                Some(TokenError::NeedsReauth { reason }) => Standing::Dead { reason },
                _ => self.usable(key, &live),
            },
            ConnectionState::Active => self.usable(key, &live),
        }
    }

    fn usable(&self, key: &ConnectionKey, live: &LiveToken) -> Standing {
        let provider = self.parts.providers.get(&key.provider);
        let is_finished = provider.is_none_or(|provider| provider.is_finished(&live.captured));
        if is_finished { Standing::Usable } else { Standing::Unchosen }
    }

    async fn replace_expired(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        live: &Arc<LiveToken>,
    ) -> Result<Arc<LiveToken>, TokenError> {
        let now = self.parts.clock.now();
        if let Some(error) = live.standing_error(now) {
            return Err(error);
        }
        tokio::select! {
            _ = self.refresh(slot, live, live.occasion()) => {}
            () = self.parts.clock.sleep(REQUEST_WAIT) => {}
        }
        let live = slot.live();
        match live.freshness(self.parts.clock.now()) {
            Freshness::Expired => Err(live.error(self.parts.clock.now())),
            _ => Ok(live),
        }
    }

    fn slot_in_memory(&self, key: &ConnectionKey) -> Option<Arc<Slot>> {
        self.memory.slots.get(key).map(|slot| Arc::clone(&slot))
    }

    async fn load(&self, key: &ConnectionKey) -> Result<Arc<Slot>, TokenError> {
        loop {
            let forgotten = self.memory.forgotten.load(Relaxed);
            let slot = self.load_once(key).await?;
            if self.memory.forgotten.load(Relaxed) == forgotten {
                return Ok(slot);
            }
            // A connection was ended meanwhile: perhaps this one, after it was read. One that is being refreshed finds out
            // by itself.
            self.memory.slots.remove_if(key, |_, known| Arc::ptr_eq(known, &slot) && !known.is_refreshing());
        }
    }

    async fn load_once(&self, key: &ConnectionKey) -> Result<Arc<Slot>, TokenError> {
        let operator = |reason: String| TokenError::Operator { reason };
        let record = self.parts.store.connection(key.clone()).await.map_err(|error| operator(error.to_string()))?;
        let record = record.ok_or(TokenError::NotConnected)?;
        let live = LiveToken::open(&record, &self.parts.sealer).map_err(operator)?;
        // Of two that load at the same time the first one's slot is kept: it may have a refresh under way already.
        let slot = self.memory.slots.entry(key.clone()).or_insert_with(|| Arc::new(Slot::new(key.clone(), live)));
        Ok(Arc::clone(&slot))
    }

    /// Takes note of a connection that was just stored, with all its access tokens, in place of what was there before.
    pub fn adopt(&self, tokens: &[ConnectionRecord]) -> Result<(), TokenError> {
        let is_new = |slot: &Slot| tokens.iter().any(|record| record.id == slot.live().connection_id);
        if let Some(record) = tokens.first() {
            self.forget_unless(&record.key, is_new);
        }
        for record in tokens {
            let live = LiveToken::open(record, &self.parts.sealer).map_err(|reason| TokenError::Operator { reason })?;
            // A request may have loaded it already, and have it refreshed.
            let slot = || Arc::new(Slot::new(record.key.clone(), live));
            self.memory.slots.entry(record.key.clone()).or_insert_with(slot);
        }
        self.memory.changed.notify_one();
        Ok(())
    }

    /// Takes note that the looked-up values of a connection were changed in the store, for its tokens of these ids.
    pub fn recapture(&self, key: &ConnectionKey, ids: &[String], names: &BTreeSet<String>, values: &Captured) {
        // Whoever is reading it meanwhile reads it again.
        self.memory.forgotten.fetch_add(1, Relaxed);
        for token in self.tokens_of(key) {
            let slot = self.slot_in_memory(&key.with_token(token));
            if let Some(slot) = slot.filter(|slot| ids.contains(&slot.live().connection_id)) {
                slot.recapture(names.clone(), values.clone());
            }
        }
    }

    /// Uses a connection no more, nor any of its access tokens: it was ended.
    pub fn forget(&self, key: &ConnectionKey) {
        self.forget_unless(key, |_| false);
    }

    fn forget_unless(&self, key: &ConnectionKey, is_kept: impl Fn(&Slot) -> bool) {
        self.memory.forgotten.fetch_add(1, Relaxed);
        for token in self.tokens_of(key) {
            self.memory.slots.remove_if(&key.with_token(token), |_, slot| !is_kept(slot));
        }
    }

    /// The names of a connection's access tokens.
    fn tokens_of(&self, key: &ConnectionKey) -> impl Iterator<Item = Option<TokenName>> {
        let further = self.parts.providers.get(&key.provider).map(|provider| provider.further_tokens.as_slice());
        std::iter::once(None).chain(further.unwrap_or_default().iter().map(|token| Some(token.name.clone())))
    }

    /// Has nothing tried again from here on: the process is to end.
    pub fn stop(&self) {
        self.memory.stopping.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// How many exchanges with token endpoints are under way.
    pub fn under_way(&self) -> usize {
        *self.memory.under_way.borrow()
    }

    /// Waits until whatever is under way at this moment has ended, while more may begin.
    pub async fn earlier_work_ended(&self) {
        let era = std::mem::take(&mut *self.memory.era.lock().unwrap_or_else(PoisonError::into_inner));
        era.closed().await;
    }

    /// Waits until no exchange with a token endpoint is under way.
    pub async fn settled(&self) {
        let mut under_way = self.memory.under_way.subscribe();
        // An error means that the vault is gone, and with it all refreshes.
        let _ = under_way.wait_for(|count| *count == 0).await;
    }
}

#[cfg(test)]
mod tests;
