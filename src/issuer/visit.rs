//! From approval to code: a visit is made when the user has approved the client, remembers what was approved while the
//! browser signs in and connects providers, and ends with a code, once.

use std::collections::BTreeSet;
use std::time::Duration;

use data_encoding::HEXLOWER;
use tracing::{info, warn};

use super::Issuer;
use crate::base::digest::sha256;
use crate::base::random;
use crate::base::secret::Secret;
use crate::model::authorization::{Approval, Authorization, AuthorizationRequest, PendingCode, User, Visit};
use crate::model::client::ClientKind;
use crate::model::issued_token::{self, Kind};
use crate::model::names::ProviderName;
use crate::store::StoreError;
use crate::telemetry::audit::Record;

/// How long a user may take for signing in and connecting.
pub const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// How long a browser stays signed in.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// Why a visit cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VisitError {
    /// It is unknown, finished, or too old.
    Over,
    /// It was begun in another browser.
    OtherBrowser,
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for VisitError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The name of the cookie that binds a visit to a browser, without prefix.
pub fn cookie_name(id: &str) -> String {
    format!("sidekey_visit_{id}")
}

impl Issuer {
    /// Begins a visit for a request that the user approved just now, or before. The secret goes into a cookie.
    pub async fn begin_visit(
        &self,
        request: AuthorizationRequest,
        providers: BTreeSet<ProviderName>,
        user: Option<User>,
    ) -> Result<(Visit, Secret), VisitError> {
        let random = self.parts.random.as_ref();
        let cookie = random::secret(random);
        let visit = Visit {
            id: HEXLOWER.encode(&random::bytes::<16>(random)),
            request,
            providers,
            user,
            browser_binding: sha256(cookie.expose().as_bytes()),
            notice: None,
            expires_at: self.parts.clock.now().plus(LIFETIME),
        };
        self.parts.store.put_visit(visit.clone()).await?;
        Ok((visit, cookie))
    }

    /// The visit of this browser.
    pub async fn visit(&self, id: &str, cookie: Option<String>) -> Result<Visit, VisitError> {
        let visit = self.parts.store.visit(id.to_owned(), self.parts.clock.now()).await?.ok_or(VisitError::Over)?;
        let presented = cookie.map(|value| sha256(value.as_bytes()));
        if presented == Some(visit.browser_binding) { Ok(visit) } else { Err(VisitError::OtherBrowser) }
    }

    /// Keeps what changed.
    pub async fn change_visit(&self, visit: Visit) -> Result<(), VisitError> {
        if self.parts.store.put_visit(visit).await? { Ok(()) } else { Err(VisitError::Over) }
    }

    /// Ends a visit with a code: where the browser goes.
    pub async fn finish_visit(&self, visit: &Visit, user: User) -> Result<String, VisitError> {
        let authorization = self.authorization(&visit.request, visit.providers.clone(), user);
        let (code, pending) = self.pending_code(&visit.request, authorization.clone());
        let digest = sha256(code.expose().as_bytes());
        let now = self.parts.clock.now();
        if !self.parts.store.finish_visit(visit.id.clone(), Some((digest, pending)), now).await? {
            return Err(VisitError::Over);
        }
        self.parts.audit.record(approved(&authorization));
        self.remember(&visit.request, authorization).await;
        Ok(self.code_url(&visit.request, &code))
    }

    /// Ends a visit without a code: where the browser goes.
    pub async fn cancel_visit(&self, visit: &Visit) -> Result<String, VisitError> {
        if !self.parts.store.finish_visit(visit.id.clone(), None, self.parts.clock.now()).await? {
            return Err(VisitError::Over);
        }
        Ok(self.denied_url(&visit.request, "access_denied", "the user did not go on"))
    }

    /// A code without a visit, for what a user approved before: where the browser goes.
    pub async fn answer_at_once(
        &self,
        request: &AuthorizationRequest,
        providers: BTreeSet<ProviderName>,
        user: User,
    ) -> Result<String, StoreError> {
        let authorization = self.authorization(request, providers, user);
        self.parts.audit.record(Record { reason: Some("approved before".to_owned()), ..approved(&authorization) });
        let (code, pending) = self.pending_code(request, authorization);
        self.parts.store.put_code(sha256(code.expose().as_bytes()), pending).await?;
        Ok(self.code_url(request, &code))
    }

    fn pending_code(&self, request: &AuthorizationRequest, authorization: Authorization) -> (Secret, PendingCode) {
        let code = issued_token::generate(Kind::Code, self.parts.random.as_ref());
        let pending = PendingCode {
            authorization,
            redirect_uri: request.redirect_uri.clone(),
            code_challenge: request.code_challenge.clone(),
            expires_at: self.parts.clock.now().plus(self.parts.settings.code_lifetime),
        };
        (code, pending)
    }

    fn code_url(&self, request: &AuthorizationRequest, code: &Secret) -> String {
        info!(operation = "authorize", client = request.client_id, server = %request.server, outcome = "code");
        self.redirect(&request.redirect_uri, request.state.as_deref(), &[("code", code.expose())])
    }

    /// An approval is remembered only where it is certain who the client is; a client that registered itself is kept from
    /// now on. Neither is worth failing for.
    async fn remember(&self, request: &AuthorizationRequest, authorization: Authorization) {
        let now = self.parts.clock.now();
        if request.client_kind == ClientKind::Dynamic
            && let Err(error) = self.parts.store.use_client(request.client_id.clone(), now).await
        {
            warn!(operation = "authorize", %error, "the client is not marked as used");
        }
        if request.is_assured {
            let approval = Approval { authorization, redirect_uri: request.redirect_uri.clone(), approved_at: now };
            if let Err(error) = self.parts.store.put_approval(approval).await {
                warn!(operation = "authorize", %error, "the approval is not remembered");
            }
        }
    }

    /// The providers that this user approved before, for the same client, redirect URI, server and scopes.
    pub async fn approved_before(
        &self,
        request: &AuthorizationRequest,
        user: &User,
    ) -> Result<Option<BTreeSet<ProviderName>>, StoreError> {
        if !request.is_assured {
            return Ok(None);
        }
        let (subject, client_id) = (user.subject.clone(), request.client_id.clone());
        let approval = self.parts.store.approval(subject, client_id, request.server.clone()).await?;
        let Some(approval) = approval.filter(|approval| approval.covers(request)) else { return Ok(None) };
        // Who left a provider out may want it now, and what the server has come to offer since was never asked about.
        let Authorization { providers: approved, labels, .. } = approval.authorization;
        let server = self.server(&request.server);
        let offered = server.map(|server| server.providers.clone()).unwrap_or_default();
        // Nor about another of their accounts.
        let are_same_accounts = server.is_none_or(|server| server.labels == labels);
        Ok((approved == offered && are_same_accounts).then_some(approved))
    }

    fn authorization(
        &self,
        request: &AuthorizationRequest,
        providers: BTreeSet<ProviderName>,
        user: User,
    ) -> Authorization {
        let labels = self.server(&request.server).map(|server| server.labels.clone()).unwrap_or_default();
        Authorization {
            user,
            client_id: request.client_id.clone(),
            client_name: request.client_name.clone(),
            server: request.server.clone(),
            resource: request.resource.clone(),
            scopes: request.scopes.clone(),
            labels: labels.into_iter().filter(|(provider, _)| providers.contains(provider)).collect(),
            providers,
        }
    }

    /// Signs a browser in; the secret goes into a new cookie, and the session of the old one ends.
    pub async fn sign_in(&self, user: User, old_cookie: Option<String>) -> Result<Secret, StoreError> {
        let cookie = random::secret(self.parts.random.as_ref());
        let now = self.parts.clock.now();
        let digest = |value: &str| sha256(value.as_bytes());
        let replaces = old_cookie.as_deref().map(digest);
        let until = now.plus(SESSION_LIFETIME);
        self.parts.store.put_browser_session(digest(cookie.expose()), user, now, until, replaces).await?;
        Ok(cookie)
    }

    /// Who is signed in with a cookie.
    pub async fn signed_in(&self, cookie: Option<String>) -> Result<Option<User>, StoreError> {
        let Some(cookie) = cookie.filter(|cookie| cookie.len() == 43) else { return Ok(None) };
        self.parts.store.browser_session(sha256(cookie.as_bytes()), self.parts.clock.now()).await
    }

    /// Signs a browser out.
    pub async fn sign_out(&self, cookie: Option<String>) -> Result<(), StoreError> {
        match cookie {
            Some(cookie) => self.parts.store.end_browser_session(sha256(cookie.as_bytes())).await,
            None => Ok(()),
        }
    }
}

fn approved(authorization: &Authorization) -> Record {
    Record::of_authorization("authorize", "code", authorization)
}
