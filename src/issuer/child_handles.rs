//! Handles of child processes. One stands for the grants of one user that share a child, and works as long as any of them does.
//!
//! They are in memory alone: no child outlives this process, and what no longer works needs no record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;

use super::{Issuer, LiveGrant};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::random;
use crate::base::secret::Secret;
use crate::model::connection::ConnectionKey;
use crate::model::handle;
use crate::model::names::{Label, ProviderName, ServerName, Subject};

/// What a child may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildScope {
    /// In the place of which MCP server.
    pub server: ServerName,
    /// On whose behalf.
    pub subject: Subject,
    /// At which providers.
    pub providers: BTreeSet<ProviderName>,
    /// With which of several connections there; at the others, the one that is called `default`.
    pub labels: BTreeMap<ProviderName, Label>,
    /// Whether it may open tunnels to hosts that are neither a provider's nor listed.
    pub tunnels: bool,
}

/// The handle of a child: what it stands for.
pub struct ChildHandle {
    /// Public name of the handle and of the child.
    pub id: String,
    /// What it may be used for.
    pub scope: ChildScope,
    grants: Mutex<Vec<Arc<LiveGrant>>>,
}

impl ChildHandle {
    /// Has it stand for another grant besides.
    pub fn join(&self, grant: &Arc<LiveGrant>) {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if !grants.iter().any(|known| known.grant.id == grant.grant.id) {
            // Those that are over never come back.
            grants.retain(|known| !known.has_ended());
            grants.push(Arc::clone(grant));
        }
    }

    /// Whether any of its grants can be used at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|grant| grant.is_live(now))
    }

    /// The grants that it stands for.
    pub fn grants(&self) -> Vec<Arc<LiveGrant>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connection that is used at a provider; `None` if the user did not pick it.
    pub fn connection(&self, provider: &ProviderName) -> Option<ConnectionKey> {
        let ChildScope { subject, providers, labels, .. } = &self.scope;
        let label = labels.get(provider).cloned().unwrap_or_default();
        providers.contains(provider).then(|| ConnectionKey::new(subject.clone(), provider.clone(), label))
    }
}

/// All of them, by digest.
#[derive(Default)]
pub(super) struct ChildHandles(DashMap<Digest, Arc<ChildHandle>, foldhash::fast::RandomState>);

impl Issuer {
    /// Makes a handle for a child that is about to be started for `grant`. It is shown this once and never again.
    pub fn issue_child_handle(&self, scope: ChildScope, grant: &Arc<LiveGrant>) -> (Secret, Arc<ChildHandle>) {
        let secret = handle::generate(self.parts.random.as_ref());
        let id = random::identifier(self.parts.random.as_ref(), "p_");
        let handle = Arc::new(ChildHandle { id, scope, grants: Mutex::new(vec![Arc::clone(grant)]) });
        self.child_handles.0.insert(handle::digest(secret.expose()), Arc::clone(&handle));
        (secret, handle)
    }

    /// Has a handle of a child stand for nothing anymore.
    pub fn forget_child_handle(&self, handle: &ChildHandle) {
        self.child_handles.0.retain(|_, known| known.id != handle.id);
    }

    /// The child whose handle this is.
    pub fn child_of_handle(&self, handle_digest: &Digest) -> Option<Arc<ChildHandle>> {
        self.child_handles.0.get(handle_digest).map(|handle| Arc::clone(&handle))
    }
}
