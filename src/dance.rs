//! Journey J1: connect a subject to a provider.
//!
//! [`Dance::create_link`] makes a one-time link; the browser that opens it and posts gets a cookie and is sent to the
//! provider ([`Dance::begin`]); the provider sends it back ([`Dance::callback`]), where state, browser, issuer and captured
//! parameters are checked, the code is exchanged, what the entry says is looked up, and the connection is made durable. [`Dance::start`] begins without a link, for a browser
//! that another journey has led here; where it goes on is carried along as a [`Continuation`]. A flow may also begin
//! without a subject: then the provider says who the user is. Where a connection may be for one of several sites,
//! [`Dance::sites`] tells them and [`Dance::choose`] takes one. Nothing here redirects or renders: results and errors are
//! data.

mod callback;
mod company;
pub mod disconnect;
pub mod error;
mod look_up;
mod sites;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::base::clock::{Clock, Timestamp};
use crate::base::digest::{Digest, SigningKey, sha256};
use crate::base::http::HttpClient;
use crate::base::random::{self, Random};
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::identity::Accounts;
use crate::model::connection::{ConnectionKey, HeldScopes};
use crate::model::continuation::Continuation;
use crate::model::flow::{Allowance, ConnectLink, Flow, FlowId, LIFETIME, Purpose, RETURN_LIFETIME, sign_state};
use crate::model::names::{Label, ProviderName, Subject};
use crate::oauth::authorize_url::{Question, authorize_url};
use crate::oauth::scopes::{others_to_ask, to_ask};
use crate::store::Store;
use crate::store::record::{ConnectionRecord, FlowRecord, verifier_context};
use crate::store::seal::Sealer;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;
use crate::vault::Vault;

pub use callback::{CallbackParameters, Connected, Returned};
pub use disconnect::{Disconnected, Revocation};
pub use error::{BeginError, CallbackError, ChoiceError};
pub use sites::Site;
pub use validate::{Means, Validity, Verdict};

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
    /// Finds out who signed in.
    pub accounts: Accounts,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Told of new connections.
    pub vault: Arc<Vault>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What was done.
    pub audit: Arc<Audit>,
}

/// Connects subjects to providers.
pub struct Dance {
    parts: Parts,
    state_key: SigningKey,
    nonce_key: SigningKey,
    /// Told once another one has taken this one's place.
    succeeded: CancellationToken,
}

/// How much a provider is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// The APIs that are needed; `None` for all that are enabled.
    pub apis: Option<&'a BTreeSet<String>>,
    /// Who probably signs in, where nobody is known to connect: what they granted before is asked for again.
    pub subject: Option<&'a Subject>,
    /// What the link allows that the browser has used up, if it has come by one.
    pub allowance: Option<Allowance>,
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
    /// What the browser may do from now on, if it has come by a link.
    pub allowance: Option<Allowance>,
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
        let nonce_key = parts.sealer.signing_key("openid nonce");
        Arc::new(Self { parts, state_key, nonce_key, succeeded: CancellationToken::new() })
    }

    /// Gives nothing more back of its own accord: another one does from now on.
    pub fn retire(&self) {
        self.succeeded.cancel();
    }

    /// The provider of this name.
    pub fn provider(&self, name: &ProviderName) -> Option<&Arc<Provider>> {
        self.parts.providers.get(name)
    }

    /// The names of all providers.
    pub fn provider_names(&self) -> impl Iterator<Item = &ProviderName> {
        self.parts.providers.keys()
    }

    /// Makes a one-time link for connecting `key`. The browser goes on as `continuation` says; `apis` are those that are
    /// needed, `None` for all that are enabled; `api_key` is the one that it is made with, if it is made with one.
    pub async fn create_link(
        &self,
        key: ConnectionKey,
        continuation: Continuation,
        apis: Option<BTreeSet<String>>,
        api_key: Option<Digest>,
    ) -> Result<NewLink, BeginError> {
        if !self.parts.providers.contains_key(&key.provider) {
            return Err(BeginError::UnknownProvider(key.provider));
        }
        let token = random::secret(self.parts.random.as_ref());
        let expires_at = self.parts.clock.now().plus(LIFETIME);
        let link = ConnectLink { key, continuation, apis, api_key, expires_at };
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
        let until = self.parts.clock.now().plus(RETURN_LIFETIME);
        let allowance = Some(Allowance { until, api_key: link.api_key });
        let wanted = Wanted { apis: link.apis.as_ref(), subject: None, allowance };
        let (record, begun) = self.prepare(Purpose::Connect(link.key), link.continuation, wanted).await?;
        match self.parts.store.begin_flow(link_digest(token), record, self.parts.clock.now()).await {
            Ok(true) => Ok(begun),
            Ok(false) => Err(BeginError::LinkOver),
            Err(error) => Err(BeginError::Store(error)),
        }
    }

    /// Begins the dance for a browser that is known to us by other means than a link, and says where it goes on.
    pub async fn start(
        &self,
        purpose: Purpose,
        continuation: Continuation,
        wanted: Wanted<'_>,
    ) -> Result<Begun, BeginError> {
        let (record, begun) = self.prepare(purpose, continuation, wanted).await?;
        self.parts.store.put_flow(record).await.map_err(BeginError::Store)?;
        Ok(begun)
    }

    async fn prepare(
        &self,
        purpose: Purpose,
        continuation: Continuation,
        wanted: Wanted<'_>,
    ) -> Result<(FlowRecord, Begun), BeginError> {
        let provider = self.provider(purpose.provider());
        let provider = provider.ok_or_else(|| BeginError::UnknownProvider(purpose.provider().clone()))?;
        let (requested_scopes, other_scopes) = self.scopes_to_ask(provider, &purpose, wanted).await?;
        let random = self.parts.random.as_ref();
        let now = self.parts.clock.now();
        let id = FlowId(random::bytes(random));
        let cookie_value = random::secret(random);
        // 43 base64url characters are a verifier of RFC 7636 section 4.1.
        let verifier = provider.entry.authorize.pkce.is_sent().then(|| random::secret(random));
        let asks_who = matches!(purpose, Purpose::SignIn(_));
        let expires_at = now.plus(LIFETIME);
        let flow = Flow {
            id,
            purpose,
            continuation,
            browser_binding: sha256(cookie_value.expose().as_bytes()),
            requested_scopes,
            allowance: wanted.allowance,
            expires_at,
        };
        let sealed = verifier
            .as_ref()
            .map(|verifier| self.parts.sealer.seal(&verifier_context(&flow.purpose, &id.to_string()), verifier));
        let nonce = asks_who.then(|| self.nonce(id));
        let question = Question {
            state: &sign_state(&self.state_key, id, now),
            verifier: verifier.as_ref(),
            scopes: &flow.requested_scopes,
            other_scopes: &other_scopes,
            sign_in_nonce: nonce.as_deref(),
        };
        let authorize_url = authorize_url(provider, &question);
        Ok((
            FlowRecord { flow, verifier: sealed },
            Begun { authorize_url, cookie_name: cookie_name(id), cookie_value, allowance: wanted.allowance },
        ))
    }

    /// What is needed, and what the same connection was granted before.
    async fn scopes_to_ask(
        &self,
        provider: &Provider,
        purpose: &Purpose,
        wanted: Wanted<'_>,
    ) -> Result<(Vec<String>, BTreeMap<String, Vec<String>>), BeginError> {
        let key = match (purpose, wanted.subject) {
            (Purpose::Connect(key), _) => key.clone(),
            (Purpose::SignIn(name), Some(subject)) => {
                ConnectionKey::new(subject.clone(), name.clone(), Label::default())
            }
            (Purpose::SignIn(_), None) => {
                let nothing = HeldScopes::default();
                return Ok((to_ask(provider, wanted.apis, nothing), others_to_ask(provider, wanted.apis)));
            }
        };
        let read = async |key: ConnectionKey| self.parts.store.connection(key).await.map_err(BeginError::Store);
        let before = read(key.clone()).await?;
        // An API with a token of its own was granted where that token is there.
        let mut apis = wanted.apis.cloned();
        for api in provider.apis.iter().filter(|api| api.token.is_some()) {
            if let Some(apis) = &mut apis
                && read(key.with_token(api.token.clone())).await?.is_some()
            {
                apis.insert(api.name.clone());
            }
        }
        let held = before.as_ref().map(ConnectionRecord::held).unwrap_or_default();
        Ok((to_ask(provider, apis.as_ref(), held), others_to_ask(provider, apis.as_ref())))
    }

    /// The nonce that ties an ID token to a flow (OpenID Connect Core section 3.1.2.1). Made from the flow's id with our
    /// key, so that nobody else can make it and nothing need be kept.
    fn nonce(&self, id: FlowId) -> String {
        URL_SAFE_NO_PAD.encode(self.nonce_key.sign(&id.0))
    }
}

fn link_digest(token: &Secret) -> Digest {
    sha256(token.expose().as_bytes())
}
