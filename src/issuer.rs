//! The OAuth 2.1 authorization server towards MCP clients, and what verifies its tokens. It knows nothing of providers.
//!
//! A client is found by its id ([`clients`]: static, registered by itself, or a document at a URL). Its authorization
//! request is checked ([`authorize`]) before anything is shown; a consent form carries it, sealed, to the user's decision
//! and back ([`consent`]); a [`visit`] remembers the approved request while a browser signs in and connects, and ends with
//! a code. The token endpoint ([`token`]) makes a grant of the code. [`live`] holds grants and access tokens in memory, so
//! that a request of journey J3 is verified without any I/O.

pub mod authorize;
pub mod child_handles;
mod client_auth;
mod client_document;
mod clients;
pub mod consent;
pub mod error;
pub mod limits;
pub mod live;
pub mod metadata;
pub mod parameters;
mod register;
mod revoke;
pub mod sessions;
mod token;
pub mod visit;

use std::sync::Arc;

use async_trait::async_trait;

use crate::base::clock::Clock;
use crate::base::http::HttpClient;
use crate::base::random::Random;
use crate::model::grant::Grant;
use crate::model::issuer_settings::IssuerSettings;
use crate::model::names::ServerName;
use crate::model::server::McpServer;
use crate::store::StoreError;
use crate::store::issuer::IssuerStore;
use crate::store::seal::Sealer;
use crate::telemetry::audit::Audit;

pub use client_auth::Credentials;
pub use client_document::DocumentError;
pub use clients::ClientError;
pub use live::{Admitted, Called, LiveGrant, MessageRoom, Refused};
pub use token::TokenAnswer;

/// Whether a grant still has what it needs outside the issuer. Asked before tokens are accepted or refreshed.
#[async_trait]
pub trait GrantLiveness: Send + Sync {
    /// Whether something is gone for good without which the grant is of no use. Never because of an outage.
    async fn is_gone(&self, grant: &Grant) -> bool;
}

/// What the issuer is made of.
pub struct Parts {
    /// What the operator decided.
    pub settings: IssuerSettings,
    /// Where clients and grants are kept.
    pub store: Arc<dyn IssuerStore>,
    /// Seals handles and what goes through browsers.
    pub sealer: Sealer,
    /// Fetches client documents and keys: URLs that strangers chose.
    pub documents: Arc<dyn HttpClient>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// What grants need outside.
    pub liveness: Arc<dyn GrantLiveness>,
    /// What was done.
    pub audit: Arc<Audit>,
}

/// The authorization server.
pub struct Issuer {
    parts: Parts,
    clients: clients::Clients,
    secrets: client_auth::Secrets,
    live: Arc<live::Live>,
    child_handles: Arc<child_handles::ChildHandles>,
    sessions: Arc<sessions::McpSessions>,
}

impl Issuer {
    /// Reads all grants and sessions.
    pub async fn load(parts: Parts) -> Result<Arc<Self>, StoreError> {
        let clients = clients::Clients::new(&parts);
        let live = live::Live::load(parts.store.as_ref(), &parts.sealer, parts.clock.now()).await?;
        let sessions = sessions::McpSessions::load(Arc::clone(&parts.store), Arc::clone(&parts.clock)).await?;
        let (live, sessions) = (Arc::new(live), Arc::new(sessions));
        let (secrets, child_handles) = (client_auth::Secrets::new(), Arc::default());
        Ok(Arc::new(Self { parts, clients, secrets, live, child_handles, sessions }))
    }

    /// The same issuer under other settings: grants, tokens and sessions are shared. Secrets of clients are verified anew:
    /// they may be others.
    pub fn under(&self, parts: Parts) -> Arc<Self> {
        let clients = self.clients.under(&parts);
        let (live, sessions) = (Arc::clone(&self.live), Arc::clone(&self.sessions));
        let child_handles = Arc::clone(&self.child_handles);
        Arc::new(Self { parts, clients, secrets: client_auth::Secrets::new(), live, child_handles, sessions })
    }

    /// What the operator decided.
    pub fn settings(&self) -> &IssuerSettings {
        &self.parts.settings
    }

    /// The MCP server of this name.
    pub fn server(&self, name: &ServerName) -> Option<&Arc<McpServer>> {
        self.parts.settings.servers.get(name)
    }

    /// Whose the sessions at MCP servers are.
    pub fn sessions(&self) -> &sessions::McpSessions {
        &self.sessions
    }

    /// Removes what is over.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        let unused_since = now.minus(self.parts.settings.registration.unused_retention);
        self.live.sweep(now);
        self.parts.store.sweep_issuer(now, unused_since).await
    }
}
