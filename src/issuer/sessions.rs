//! Whose the sessions at MCP servers are: `Mcp-Session-Id` authenticates nobody, and one user's session must not be
//! reached with another user's token.

use std::sync::Arc;

use dashmap::DashMap;
use tracing::error;

use crate::base::clock::Clock;
use crate::base::digest::{Digest, sha256};
use crate::model::names::{ServerName, Subject};
use crate::store::StoreError;
use crate::store::issuer::IssuerStore;

/// Sessions and their owners.
pub struct McpSessions {
    owners: DashMap<(ServerName, Digest), Subject>,
    store: Arc<dyn IssuerStore>,
    clock: Arc<dyn Clock>,
}

/// More are not held at a time: then all have to be begun anew, which clients do by themselves.
const MOST: usize = 200_000;

impl McpSessions {
    pub(super) async fn load(store: Arc<dyn IssuerStore>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let known = store.mcp_sessions().await?;
        let owners = known.into_iter().map(|(server, digest, subject)| ((server, digest), subject)).collect();
        Ok(Self { owners, store, clock })
    }

    /// Whether `subject` began the session.
    pub fn belongs(&self, server: &ServerName, id: &[u8], subject: &Subject) -> bool {
        self.owners.get(&(server.clone(), sha256(id))).is_some_and(|owner| *owner == *subject)
    }

    /// Takes note of a session that a server opened for `subject`. `false` if it is somebody else's already.
    pub async fn begin(&self, server: &ServerName, id: &[u8], subject: &Subject) -> bool {
        let key = (server.clone(), sha256(id));
        if let Some(owner) = self.owners.get(&key).map(|owner| owner.clone()) {
            return owner == *subject;
        }
        if self.owners.len() >= MOST {
            self.owners.clear();
        }
        self.owners.insert(key, subject.clone());
        let kept = self.store.put_mcp_session(server.clone(), sha256(id), subject.clone(), self.clock.now()).await;
        if let Err(error) = kept {
            error!(operation = "mcp_session", %error, "not stored; it will be unknown after a restart");
        }
        true
    }

    /// Forgets a session: it was ended by its client.
    pub async fn end(&self, server: &ServerName, id: &[u8]) {
        let key = (server.clone(), sha256(id));
        if self.owners.remove(&key).is_some()
            && let Err(error) = self.store.forget_mcp_session(key.0, key.1).await
        {
            error!(operation = "mcp_session", %error, "ended, but not in the store; it will be known after a restart");
        }
    }
}
