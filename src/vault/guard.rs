//! Whether the store may be trusted: no refresh token is sent from a store that may be an old copy.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::{error, info};

use super::Vault;
use crate::store::StoreError;
use crate::store::record::GuardRecord;
use crate::store::restored::Mark;
use crate::store::sentinel::{Mistrust, Sentinel};
use crate::telemetry::audit::Record;
use crate::telemetry::health::Part;

/// The sentinel, and what it says.
#[derive(Default)]
pub struct Guard {
    sentinel: Option<Arc<Sentinel>>,
    /// What a restore has left, where that is looked for.
    mark: Option<Mark>,
    doubt: Mutex<Option<Doubt>>,
}

/// Why the store is not trusted.
#[derive(Clone, Debug)]
struct Doubt {
    why: String,
    /// Whether only the operator can end it; otherwise it ends when the sentinel can be used again.
    needs_operator: bool,
    /// Whether the store was compared with its sentinel at all.
    was_compared: bool,
}

/// Why a confirmation did nothing.
#[derive(Debug)]
pub enum ConfirmError {
    /// No sentinel is configured.
    NoSentinel,
    /// The sentinel cannot be written.
    Sentinel(String),
    /// The store failed.
    Store(StoreError),
}

impl Guard {
    /// Watches over the store with a sentinel, or not at all.
    pub fn new(sentinel: Option<Sentinel>) -> Self {
        let sentinel = sentinel.map(Arc::new);
        let waiting = || Doubt {
            why: "the store was not compared with its sentinel yet".to_owned(),
            needs_operator: false,
            was_compared: false,
        };
        Self { doubt: Mutex::new(sentinel.as_ref().map(|_| waiting())), sentinel, mark: None }
    }

    /// Trusts no store that was restored from a backup and bears the mark of it.
    pub fn heeding(self, mark: Mark) -> Self {
        if let Some(why) = mark.read() {
            let why = format!("{why}; {UNTIL_CONFIRMED}");
            self.set(Some(Doubt { why, needs_operator: true, was_compared: true }));
        }
        Self { mark: Some(mark), ..self }
    }

    fn set(&self, doubt: Option<Doubt>) {
        *self.doubt.lock().unwrap_or_else(PoisonError::into_inner) = doubt;
    }

    fn doubt(&self) -> Option<Doubt> {
        self.doubt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

const UNTIL_CONFIRMED: &str = "nothing is refreshed until `sidekey store confirm` says that it is the right one";

impl Vault {
    /// Why no refresh token is sent, if so. Nothing where the store was not compared with its sentinel yet: only a server does.
    pub fn held_back(&self) -> Option<String> {
        self.parts.guard.doubt().filter(|doubt| doubt.was_compared).map(|doubt| doubt.why)
    }

    pub(super) fn trust_in_store(&self) -> Result<(), String> {
        self.parts.guard.doubt().map_or(Ok(()), |doubt| Err(doubt.why))
    }

    /// Compares the store with its sentinel, where there is one: at the start, and again as long as the sentinel could not be
    /// used.
    pub async fn admit_store(&self) -> Result<(), StoreError> {
        let Some(doubt) = self.parts.guard.doubt() else { return Ok(()) };
        if doubt.needs_operator {
            self.parts.health.unwell(Part::Sentinel, doubt.why);
            return Ok(());
        }
        let Some(sentinel) = &self.parts.guard.sentinel else { return Ok(()) };
        let record = self.parts.store.guard().await?;
        let (examined, sentinel) = (record.clone(), Arc::clone(sentinel));
        let examiner = Arc::clone(&sentinel);
        if let Err(mistrust) = on_disk(move || examiner.examine(&examined)).await {
            self.mistrust(&mistrust);
            return Ok(());
        }
        match self.take_over(&sentinel, record.store_id, record.refreshes).await? {
            // What was found meanwhile is for the operator.
            Ok(()) if self.parts.guard.doubt().is_some_and(|doubt| !doubt.needs_operator) => self.trust("admitted"),
            Ok(()) => {}
            Err(mistrust) => self.mistrust(&mistrust),
        }
        Ok(())
    }

    /// The three steps in which this process becomes the one that the sentinel knows.
    async fn take_over(
        &self,
        sentinel: &Arc<Sentinel>,
        store_id: String,
        refreshes: u64,
    ) -> Result<Result<(), Mistrust>, StoreError> {
        let instance = sentinel.instance().to_owned();
        self.parts.store.announce_successor(instance.clone(), refreshes).await?;
        let writer = Arc::clone(sentinel);
        if let Err(mistrust) = on_disk(move || writer.take_over(&store_id, refreshes)).await {
            return Ok(Err(mistrust));
        }
        self.parts.store.succeed(instance).await.map(Ok)
    }

    /// The operator says that this store is the right one.
    pub async fn confirm_store(&self) -> Result<GuardRecord, ConfirmError> {
        let mark = self.parts.guard.mark.clone().filter(|mark| mark.read().is_some());
        let record = self.parts.store.guard().await.map_err(ConfirmError::Store)?;
        let confirmed = match (self.parts.guard.sentinel.clone(), &mark) {
            (Some(sentinel), _) => self.confirm_to(sentinel, record).await?,
            (None, Some(_)) => record,
            (None, None) => return Err(ConfirmError::NoSentinel),
        };
        if let Some(mark) = mark {
            // Last: whoever is cut off before asks again.
            let removed = tokio::task::spawn_blocking(move || mark.remove()).await;
            let removed = removed.unwrap_or_else(|error| Err(std::io::Error::other(error.to_string())));
            let failed = |error: std::io::Error| StoreError::Failed(format!("the mark of the restore: {error}"));
            removed.map_err(failed).map_err(ConfirmError::Store)?;
        }
        self.trust("confirmed");
        self.memory.changed.notify_one();
        Ok(confirmed)
    }

    async fn confirm_to(&self, sentinel: Arc<Sentinel>, record: GuardRecord) -> Result<GuardRecord, ConfirmError> {
        let (known, reader) = (record.clone(), Arc::clone(&sentinel));
        let refused = |mistrust: Mistrust| ConfirmError::Sentinel(mistrust.to_string());
        let refreshes = on_disk(move || reader.next_count(&known)).await.map_err(refused)?;
        let taken = self.take_over(&sentinel, record.store_id.clone(), refreshes).await.map_err(ConfirmError::Store)?;
        taken.map_err(refused)?;
        Ok(GuardRecord { refreshes, ..record })
    }

    /// Counts a refresh in the sentinel; only then may its refresh token be sent.
    pub(super) async fn note_in_sentinel(&self, refreshes: u64) -> Result<(), String> {
        let Some(sentinel) = self.parts.guard.sentinel.clone() else { return Ok(()) };
        self.trust_in_store()?;
        on_disk(move || sentinel.advance(refreshes)).await.map_err(|mistrust| {
            self.mistrust(&mistrust);
            mistrust.to_string()
        })
    }

    fn trust(&self, outcome: &str) {
        self.parts.guard.set(None);
        self.parts.health.well(Part::Sentinel);
        info!(operation = "sentinel", outcome);
        self.parts.audit.record(Record::new("store", outcome));
    }

    fn mistrust(&self, mistrust: &Mistrust) {
        let needs_operator = matches!(mistrust, Mistrust::Confirm(_));
        let why = match needs_operator {
            true => {
                format!("{mistrust}; {UNTIL_CONFIRMED}")
            }
            false => mistrust.to_string(),
        };
        error!(operation = "sentinel", outcome = "refused", why);
        self.parts.health.unwell(Part::Sentinel, why.clone());
        let said_before = self.held_back().is_some_and(|before| before == why);
        self.parts.guard.set(Some(Doubt { why: why.clone(), needs_operator, was_compared: true }));
        if !said_before {
            self.parts.audit.record(Record { reason: Some(why), ..Record::new("store", "refused") });
        }
    }
}

/// Files are waited for on a thread that nobody else waits for.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Mistrust> + Send + 'static,
) -> Result<T, Mistrust> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Mistrust::Unreachable(std::io::Error::other(error.to_string()))))
}
