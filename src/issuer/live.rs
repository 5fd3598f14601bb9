//! Grants and access tokens in memory: a request is verified without any I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use http::header::{HeaderValue, InvalidHeaderValue};
use tokio::sync::watch;
use tracing::{error, info};
use zeroize::Zeroizing;

use super::Issuer;
use crate::base::byte_budget::Room;
use crate::base::clock::Timestamp;
use crate::base::digest::{Digest, sha256};
use crate::base::secret::Secret;
use crate::model::grant::{AccessToken, EndReason, Grant};
use crate::model::handle::HandleRecord;
use crate::model::issued_token::{self, Kind};
use crate::model::names::Subject;
use crate::model::scope::ScopeSet;
use crate::model::server::McpServer;
use crate::store::StoreError;
use crate::store::issuer::{GrantRecord, IssuerStore, handle_context};
use crate::store::seal::Sealer;
use crate::telemetry::audit::Record;

/// A grant in memory.
pub struct LiveGrant {
    /// The grant as it was made; whether it has ended since, [`LiveGrant::has_ended`] knows.
    pub grant: Grant,
    /// What its handle stands for.
    pub handle: HandleRecord,
    secret: Secret,
    ended: AtomicBool,
}

impl LiveGrant {
    fn open(record: &GrantRecord, sealer: &Sealer) -> Result<Self, String> {
        let grant = record.grant.clone();
        let subject = grant.authorization.user.subject.clone();
        let handle = sealer.open(&handle_context(&subject, &grant.id), &record.handle);
        Ok(Self::new(grant, handle.map_err(|error| error.to_string())?))
    }

    /// A grant and its handle.
    pub fn new(grant: Grant, handle: Secret) -> Self {
        let record = HandleRecord {
            id: grant.id.clone(),
            subject: grant.authorization.user.subject.clone(),
            providers: Some(grant.authorization.providers.clone()),
            // It depends on the provider: `Grant::connection` knows.
            label: None,
            tunnels: false,
            created_at: grant.created_at,
            expires_at: Some(grant.expires_at),
            revoked_at: grant.ended.as_ref().map(|ended| ended.at),
        };
        Self { secret: handle, ended: AtomicBool::new(grant.ended.is_some()), handle: record, grant }
    }

    /// Whether it was ended before its time.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether it can be used at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        !self.has_ended() && self.grant.expires_at > now
    }

    /// The handle as an MCP server gets it, with what stands `before` it there, marked sensitive.
    pub fn handle_value(&self, before: &str) -> Result<HeaderValue, InvalidHeaderValue> {
        let text = Zeroizing::new(format!("{before}{}", self.secret.expose()));
        let mut value = HeaderValue::from_str(&text)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// A request whose token is good.
#[derive(Clone)]
pub struct Admitted {
    /// Whose it is.
    pub grant: Arc<LiveGrant>,
    /// What it may do.
    pub scopes: ScopeSet,
}

/// Whose request it is, and at which server: an extension of requests that are answered by a service of ours.
#[derive(Clone)]
pub struct Called {
    /// On whose behalf.
    pub grant: Arc<LiveGrant>,
    /// At which server.
    pub server: Arc<McpServer>,
}

/// What a request takes up in memory until its message has been handed on, or is refused: an extension of such requests.
pub type MessageRoom = Arc<Room<Subject>>;

/// Why a token is not accepted (RFC 6750 section 3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is unknown, expired, revoked, or for another resource.
    InvalidToken,
    /// It lacks a scope.
    InsufficientScope,
}

pub(super) struct Live {
    tokens: DashMap<Digest, (Arc<LiveGrant>, AccessToken), foldhash::fast::RandomState>,
    handles: DashMap<Digest, Arc<LiveGrant>, foldhash::fast::RandomState>,
    grants: DashMap<String, Arc<LiveGrant>, foldhash::fast::RandomState>,
    /// How many have ended so far: for whoever waits for one to end.
    ends: watch::Sender<u64>,
}

/// Handles of grants that are over are recognized for so long, so that their holders are told what happened.
const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);

impl Live {
    pub(super) async fn load(store: &dyn IssuerStore, sealer: &Sealer, now: Timestamp) -> Result<Self, StoreError> {
        let live = Self {
            tokens: DashMap::default(),
            handles: DashMap::default(),
            grants: DashMap::default(),
            ends: watch::Sender::new(0),
        };
        for record in store.grants(None).await? {
            match LiveGrant::open(&record, sealer) {
                Ok(grant) => {
                    live.add_grant(record.handle_digest, Arc::new(grant));
                }
                Err(why) => error!(operation = "load_grants", grant = record.grant.id, why, "left out"),
            }
        }
        for (digest, token) in store.access_tokens(now).await? {
            live.add_token(digest, token);
        }
        Ok(live)
    }

    pub(super) fn add_grant(&self, handle_digest: Digest, grant: Arc<LiveGrant>) {
        self.handles.insert(handle_digest, Arc::clone(&grant));
        self.grants.insert(grant.grant.id.clone(), grant);
    }

    pub(super) fn remove_grant(&self, handle_digest: &Digest, id: &str) {
        self.handles.remove(handle_digest);
        self.grants.remove(id);
    }

    pub(super) fn add_token(&self, digest: Digest, token: AccessToken) {
        let grant = self.grants.get(&token.grant_id).map(|grant| Arc::clone(&grant));
        if let Some(grant) = grant {
            self.tokens.insert(digest, (grant, token));
        }
    }

    pub(super) fn grant(&self, id: &str) -> Option<Arc<LiveGrant>> {
        self.grants.get(id).map(|grant| Arc::clone(&grant))
    }

    pub(super) fn token(&self, digest: &Digest) -> Option<(Arc<LiveGrant>, AccessToken)> {
        self.tokens.get(digest).map(|found| found.clone())
    }

    pub(super) fn forget_token(&self, digest: &Digest) {
        self.tokens.remove(digest);
    }

    fn end(&self, id: &str) {
        if let Some(grant) = self.grant(id) {
            grant.ended.store(true, Ordering::Release);
            self.ends.send_modify(|ends| *ends += 1);
        }
    }

    pub(super) fn sweep(&self, now: Timestamp) {
        self.tokens.retain(|_, (grant, token)| token.expires_at > now && grant.is_live(now));
        let is_history = |grant: &LiveGrant| grant.grant.expires_at.plus(REMEMBERED) <= now;
        self.handles.retain(|_, grant| !is_history(grant));
        self.grants.retain(|_, grant| !is_history(grant));
    }
}

/// The digest of a presented access token: of our own shape, or a signed one. A signed token too is looked up, not
/// believed: what was never issued here, or was taken back, is not there.
pub fn access_digest(presented: &str) -> Option<Digest> {
    let is_signed = presented.bytes().filter(|byte| *byte == b'.').count() == 2 && presented.len() <= 8192;
    match issued_token::digest(Kind::Access, presented) {
        None if is_signed => Some(sha256(presented.as_bytes())),
        digest => digest,
    }
}

impl Issuer {
    /// Verifies an access token for `server`, from memory alone.
    pub fn verify(&self, presented: &str, server: &McpServer) -> Result<Admitted, Refused> {
        let now = self.parts.clock.now();
        let found = access_digest(presented).and_then(|digest| self.live.token(&digest));
        let (grant, token) = found.ok_or(Refused::InvalidToken)?;
        if token.expires_at <= now || !grant.is_live(now) || grant.grant.authorization.resource != server.resource {
            return Err(Refused::InvalidToken);
        }
        let scopes = &self.parts.settings.scopes;
        if !server.scopes.iter().all(|needed| scopes.covers(&token.scopes, needed)) {
            return Err(Refused::InsufficientScope);
        }
        Ok(Admitted { grant, scopes: token.scopes })
    }

    /// Ends the grant if what it needs outside is gone for good; whether it is.
    pub async fn end_if_gone(&self, grant: &LiveGrant) -> bool {
        let is_gone = self.parts.liveness.is_gone(&grant.grant).await;
        if is_gone && let Err(error) = self.end_grant(&grant.grant.id, EndReason::ProviderGone).await {
            error!(operation = "end_grant", grant = grant.grant.id, %error, "ended here, but not in the store");
        }
        is_gone
    }

    /// Changes whenever a grant ends before its time.
    pub fn grant_ends(&self) -> watch::Receiver<u64> {
        self.live.ends.subscribe()
    }

    /// The grant whose handle this is.
    pub fn grant_of_handle(&self, handle_digest: &Digest) -> Option<Arc<LiveGrant>> {
        self.live.handles.get(handle_digest).map(|grant| Arc::clone(&grant))
    }

    /// Ends a grant with all that belongs to it; `false` if there is no live one of this id. For callers it ends at once
    /// and before anything is waited for.
    pub async fn end_grant(&self, id: &str, reason: EndReason) -> Result<bool, StoreError> {
        self.live.end(id);
        let ended = self.parts.store.end_grant(id.to_owned(), reason, self.parts.clock.now()).await?;
        if ended {
            let record = match self.live.grant(id) {
                Some(live) => Record::of_authorization("end_grant", reason.word(), &live.grant.authorization),
                None => Record::new("end_grant", reason.word()),
            };
            self.parts.audit.record(Record { grant: Some(id.to_owned()), ..record });
            self.forget_approval(id, reason).await?;
            info!(operation = "end_grant", grant = id, reason = reason.word());
        }
        Ok(ended)
    }

    /// Whom the user or the operator has put out must not come back without a question.
    async fn forget_approval(&self, id: &str, reason: EndReason) -> Result<(), StoreError> {
        let is_deliberate = matches!(reason, EndReason::RevokedByUser | EndReason::RevokedByOperator);
        let Some(live) = self.live.grant(id).filter(|_| is_deliberate) else { return Ok(()) };
        let authorization = &live.grant.authorization;
        let (subject, client_id) = (authorization.user.subject.clone(), authorization.client_id.clone());
        self.parts.store.forget_approvals(subject, client_id).await
    }

    /// All grants of one subject or of everybody, the oldest first, with how they stand.
    pub async fn grants(&self, subject: Option<Subject>) -> Result<Vec<Grant>, StoreError> {
        Ok(self.parts.store.grants(subject).await?.into_iter().map(|record| record.grant).collect())
    }
}
