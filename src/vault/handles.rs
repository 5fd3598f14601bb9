//! The handles that callers may present, all of them in memory: looking one up costs no I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use dashmap::DashMap;

use crate::base::clock::{Clock, Timestamp};
use crate::base::digest::Digest;
use crate::base::random::{self, Random};
use crate::base::secret::Secret;
use crate::model::handle::{self, HandleRecord};
use crate::model::names::{Label, ProviderName, Subject};
use crate::store::{Store, StoreError};

/// What a new handle is to stand for.
#[derive(Clone, Debug)]
pub struct NewHandle {
    /// Whose connections it reaches.
    pub subject: Subject,
    /// At which providers; `None` means all.
    pub providers: Option<BTreeSet<ProviderName>>,
    /// Which of several connections at a provider; `None` for the one that a request names, or `default`.
    pub label: Option<Label>,
    /// Whether it may open tunnels to hosts that are neither a provider's nor listed.
    pub tunnels: bool,
    /// When it stops working by itself.
    pub expires_at: Option<Timestamp>,
}

/// All handles by digest.
pub struct HandleTable {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    by_digest: DashMap<Digest, Arc<HandleRecord>, foldhash::fast::RandomState>,
}

impl HandleTable {
    /// Reads all handles.
    pub async fn load(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Arc<Self>, StoreError> {
        let by_digest = store.handles().await?.into_iter().map(|(digest, record)| (digest, Arc::new(record))).collect();
        Ok(Arc::new(Self { store, clock, random, by_digest }))
    }

    /// What the handle of this digest stands for, whether or not it still works.
    pub fn get(&self, digest: &Digest) -> Option<Arc<HandleRecord>> {
        self.by_digest.get(digest).map(|record| Arc::clone(&record))
    }

    /// Makes a handle. It is shown this once and never again.
    pub async fn issue(&self, new: NewHandle) -> Result<(Secret, HandleRecord), StoreError> {
        let secret = handle::generate(self.random.as_ref());
        let record = HandleRecord {
            id: random::identifier(self.random.as_ref(), "h_"),
            subject: new.subject,
            providers: new.providers,
            label: new.label,
            tunnels: new.tunnels,
            created_at: self.clock.now(),
            expires_at: new.expires_at,
            revoked_at: None,
        };
        let digest = handle::digest(secret.expose());
        self.store.put_handle(digest, record.clone()).await?;
        self.by_digest.insert(digest, Arc::new(record.clone()));
        Ok((secret, record))
    }

    /// Lets a handle work until then; `false` if there is none of this id that ends by itself and was not revoked.
    pub async fn renew(&self, id: &str, expires_at: Timestamp) -> Result<bool, StoreError> {
        if !self.store.renew_handle(id.to_owned(), expires_at).await? {
            return Ok(false);
        }
        for mut entry in self.by_digest.iter_mut().filter(|entry| entry.id == id) {
            *entry = Arc::new(HandleRecord { expires_at: Some(expires_at), ..HandleRecord::clone(&entry) });
        }
        Ok(true)
    }

    /// Revokes a handle; `false` if there is none of this id. For callers it ends at once and before anything is waited
    /// for: whoever asked may go away meanwhile.
    pub async fn revoke(&self, id: &str) -> Result<bool, StoreError> {
        let now = self.clock.now();
        for mut entry in self.by_digest.iter_mut().filter(|entry| entry.id == id) {
            let revoked_at = entry.revoked_at.or(Some(now));
            *entry = Arc::new(HandleRecord { revoked_at, ..HandleRecord::clone(&entry) });
        }
        self.store.revoke_handle(id.to_owned(), now).await
    }

    /// All handles, the oldest first.
    pub fn list(&self) -> Vec<Arc<HandleRecord>> {
        let mut records: Vec<_> = self.by_digest.iter().map(|entry| Arc::clone(&entry)).collect();
        records.sort_by(|left, right| (left.created_at, &left.id).cmp(&(right.created_at, &right.id)));
        records
    }
}
