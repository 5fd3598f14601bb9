//! Journey J1: connect a subject to a provider.
//!
//! [`Dance::create_link`] makes a one-time link; the browser that opens it and posts gets a cookie and is sent to the
//! provider ([`Dance::begin`]); the provider sends it back ([`Dance::callback`]), where state, browser, issuer and captured
//! parameters are checked, the code is exchanged, and the connection is made durable. Nothing here redirects or renders:
//! results and errors are data.

mod callback;
pub mod error;

use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

use crate::base::clock::{Clock, Timestamp};
use crate::base::digest::{Digest, SigningKey, sha256};
use crate::base::http::HttpClient;
use crate::base::random::{self, Random};
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::model::connection::ConnectionKey;
use crate::model::flow::{ConnectLink, Flow, FlowId, LIFETIME, sign_state};
use crate::model::names::ProviderName;
use crate::oauth::authorize_url::authorize_url;
use crate::store::Store;
use crate::store::record::{FlowRecord, verifier_context};
use crate::store::seal::Sealer;
use crate::telemetry::metrics::Metrics;
use crate::vault::Vault;

pub use callback::{CallbackParameters, Connected};
pub use error::{BeginError, CallbackError};

/// What the dance is made of.
pub struct Parts {
    /// Where links, flows and connections are kept.
    pub store: Arc<dyn Store>,
    /// Seals verifiers and tokens.
    pub sealer: Sealer,
    /// The providers by name.
    pub providers: BTreeMap<ProviderName, Arc<Provider>>,
    /// Reaches token endpoints.
    pub http: Arc<dyn HttpClient>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Told of new connections.
    pub vault: Arc<Vault>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// Connects subjects to providers.
pub struct Dance {
    parts: Parts,
    state_key: SigningKey,
}

/// A link that was made.
#[derive(Debug)]
pub struct NewLink {
    /// Goes into the link's path.
    pub token: Secret,
    /// When it stops working.
    pub expires_at: Timestamp,
}

/// Where to send the browser, and what to give it.
#[derive(Debug)]
pub struct Begun {
    /// The provider's authorization endpoint with our request.
    pub authorize_url: Url,
    /// The name of the cookie that binds the flow to this browser, without prefix.
    pub cookie_name: String,
    /// Its value.
    pub cookie_value: Secret,
}

/// The name of the cookie that binds a flow to a browser. One for each flow, so that several at once do not disturb
/// each other.
pub fn cookie_name(id: FlowId) -> String {
    format!("sidekey_flow_{id}")
}

impl Dance {
    /// Ready to connect.
    pub fn new(parts: Parts) -> Arc<Self> {
        let state_key = parts.sealer.signing_key("oauth state");
        Arc::new(Self { parts, state_key })
    }

    /// The provider of this name.
    pub fn provider(&self, name: &ProviderName) -> Option<&Arc<Provider>> {
        self.parts.providers.get(name)
    }

    /// Makes a one-time link for connecting `key`.
    pub async fn create_link(&self, key: ConnectionKey) -> Result<NewLink, BeginError> {
        if !self.parts.providers.contains_key(&key.provider) {
            return Err(BeginError::UnknownProvider(key.provider));
        }
        let token = random::secret(self.parts.random.as_ref());
        let expires_at = self.parts.clock.now().plus(LIFETIME);
        let link = ConnectLink { key, expires_at };
        self.parts.store.put_connect_link(link_digest(&token), link).await.map_err(BeginError::Store)?;
        Ok(NewLink { token, expires_at })
    }

    /// What a link would connect. Looking consumes nothing.
    pub async fn link(&self, token: &Secret) -> Result<ConnectLink, BeginError> {
        let now = self.parts.clock.now();
        let link = self.parts.store.connect_link(link_digest(token), now).await.map_err(BeginError::Store)?;
        link.ok_or(BeginError::LinkOver)
    }

    /// Uses up a link and begins the dance.
    pub async fn begin(&self, token: &Secret) -> Result<Begun, BeginError> {
        let link = self.link(token).await?;
        let provider = self.provider(&link.key.provider);
        let provider = provider.ok_or_else(|| BeginError::UnknownProvider(link.key.provider.clone()))?;
        let random = self.parts.random.as_ref();
        let now = self.parts.clock.now();
        let id = FlowId(random::bytes(random));
        let cookie_value = random::secret(random);
        // 43 base64url characters are a verifier of RFC 7636 section 4.1.
        let verifier = provider.entry.authorize.pkce.is_sent().then(|| random::secret(random));
        let flow = Flow {
            id,
            key: link.key,
            browser_binding: sha256(cookie_value.expose().as_bytes()),
            expires_at: now.plus(LIFETIME),
        };
        let sealed = verifier
            .as_ref()
            .map(|verifier| self.parts.sealer.seal(&verifier_context(&flow.key, &id.to_string()), verifier));
        let record = FlowRecord { flow, verifier: sealed };
        match self.parts.store.begin_flow(link_digest(token), record, now).await {
            Ok(true) => {}
            Ok(false) => return Err(BeginError::LinkOver),
            Err(error) => return Err(BeginError::Store(error)),
        }
        let state = sign_state(&self.state_key, id, now);
        let authorize_url = authorize_url(provider, &state, verifier.as_ref());
        Ok(Begun { authorize_url, cookie_name: cookie_name(id), cookie_value })
    }
}

fn link_digest(token: &Secret) -> Digest {
    sha256(token.expose().as_bytes())
}
