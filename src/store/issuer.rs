//! What the issuer must not forget: clients, visits, codes, grants and their tokens.

use async_trait::async_trait;

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::model::authorization::{Approval, PendingCode, User, Visit, VisitId};
use crate::model::client::Registration;
use crate::model::grant::{AccessToken, EndReason, Grant, RefreshToken};
use crate::model::names::{ServerName, Subject};
use crate::store::StoreError;
use crate::store::seal::{Context, Sealed};

/// A grant at rest.
#[derive(Clone, Debug)]
pub struct GrantRecord {
    /// The grant.
    pub grant: Grant,
    /// SHA-256 of the handle that stands for it at the egress listener.
    pub handle_digest: Digest,
    /// The handle itself, for requests to the MCP server.
    pub handle: Sealed,
}

/// What a grant's handle is sealed for.
pub fn handle_context<'r>(subject: &'r Subject, grant_id: &'r str) -> Context<'r> {
    grant_context(subject, grant_id, "handle")
}

/// What the answer to a refresh is sealed for.
pub fn reply_context<'r>(subject: &'r Subject, grant_id: &'r str) -> Context<'r> {
    grant_context(subject, grant_id, "refresh_reply")
}

fn grant_context<'r>(subject: &'r Subject, grant_id: &'r str, field: &'r str) -> Context<'r> {
    Context { purpose: "grant", subject: subject.as_str(), provider: "", record: grant_id, field, generation: 0 }
}

/// A client document at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDocument {
    /// What was read.
    pub body: String,
    /// When.
    pub fetched_at: Timestamp,
    /// Until then it need not be fetched again.
    pub fresh_until: Timestamp,
}

/// The tokens that a request at the token endpoint makes.
#[derive(Clone, Debug)]
pub struct NewTokens {
    /// The access token under its digest.
    pub access: (Digest, AccessToken),
    /// The refresh token under its digest.
    pub refresh: (Digest, RefreshToken),
}

/// A code and what became of it.
#[derive(Clone, Debug)]
pub struct StoredCode {
    /// What it stands for.
    pub pending: PendingCode,
    /// The grant it was redeemed for; `None` inside where it was used up without one.
    pub used: Option<Option<String>>,
}

/// What becomes of a refresh token that is presented.
#[derive(Clone, Debug)]
pub enum Rotation {
    /// It is replaced, and the new tokens are kept.
    Rotated,
    /// It was replaced a moment ago, and its successor has not been used: the same answer is given again.
    Repeated(Sealed),
    /// It was replaced before that: somebody has a copy. The grant is ended.
    Reused,
    /// It is unknown, expired, or its grant is over.
    Refused,
}

/// Durable records of the issuer. What says that it is atomic has reached the disk when it returns.
#[async_trait]
pub trait IssuerStore: Send + Sync {
    /// Keeps a registration. Of clients that nobody ever approved at most `unused` are kept, the newest.
    async fn put_client(&self, id: String, client: Registration, now: Timestamp, unused: u32)
    -> Result<(), StoreError>;

    /// A registration.
    async fn client(&self, id: String) -> Result<Option<Registration>, StoreError>;

    /// Takes note that a user approved the client, so that it is kept.
    async fn use_client(&self, id: String, now: Timestamp) -> Result<(), StoreError>;

    /// Keeps the last good copy of a client document.
    async fn put_client_document(&self, url: String, document: StoredDocument) -> Result<(), StoreError>;

    /// The last good copy.
    async fn client_document(&self, url: String) -> Result<Option<StoredDocument>, StoreError>;

    /// Keeps a visit, new or changed; `false` if it is finished already.
    async fn put_visit(&self, visit: Visit) -> Result<bool, StoreError>;

    /// A visit that is neither finished nor expired.
    async fn visit(&self, id: VisitId, now: Timestamp) -> Result<Option<Visit>, StoreError>;

    /// Ends a visit and keeps the code that it leads to, if any, both or neither: of any number of callers, one gets `true`.
    async fn finish_visit(
        &self,
        id: VisitId,
        code: Option<(Digest, PendingCode)>,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Keeps a browser session, and ends the one that it replaces.
    async fn put_browser_session(
        &self,
        digest: Digest,
        user: User,
        now: Timestamp,
        expires_at: Timestamp,
        replaces: Option<Digest>,
    ) -> Result<(), StoreError>;

    /// Whose a browser session is.
    async fn browser_session(&self, digest: Digest, now: Timestamp) -> Result<Option<User>, StoreError>;

    /// Ends a browser session.
    async fn end_browser_session(&self, digest: Digest) -> Result<(), StoreError>;

    /// Remembers an approval, in place of an earlier one of the same user, client and server.
    async fn put_approval(&self, approval: Approval) -> Result<(), StoreError>;

    /// What the user approved for this client at this server.
    async fn approval(
        &self,
        subject: Subject,
        client_id: String,
        server: ServerName,
    ) -> Result<Option<Approval>, StoreError>;

    /// Forgets what a user approved for a client, and ends what is about to come of it: codes that wait, visits under way.
    async fn forget_approvals(&self, subject: Subject, client_id: String) -> Result<(), StoreError>;

    /// Keeps a code that was made without a visit.
    async fn put_code(&self, digest: Digest, code: PendingCode) -> Result<(), StoreError>;

    /// A code, used or not.
    async fn code(&self, digest: Digest) -> Result<Option<StoredCode>, StoreError>;

    /// Uses up a code and keeps what it is redeemed for, both or neither. `false` if it was used before: then the grant it
    /// was redeemed for is ended in the same step.
    async fn redeem_code(
        &self,
        digest: Digest,
        grant: GrantRecord,
        tokens: NewTokens,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Uses up a code for nothing, and ends the grant that it was redeemed for before, if any.
    async fn burn_code(&self, digest: Digest, now: Timestamp) -> Result<(), StoreError>;

    /// A refresh token and its grant.
    async fn refresh_token(&self, digest: Digest) -> Result<Option<(RefreshToken, Grant)>, StoreError>;

    /// Replaces a refresh token in one step. `reply` is what is answered when the same request comes again within `grace`.
    async fn rotate(
        &self,
        digest: Digest,
        tokens: NewTokens,
        reply: Sealed,
        now: Timestamp,
        grace: std::time::Duration,
    ) -> Result<Rotation, StoreError>;

    /// Ends an access token; an answer that held it is not given again.
    async fn end_access_token(&self, digest: Digest) -> Result<(), StoreError>;

    /// Ends a grant and all its tokens; `false` if there is none of this id that is live.
    async fn end_grant(&self, id: String, reason: EndReason, now: Timestamp) -> Result<bool, StoreError>;

    /// Grants of one subject or of all, the oldest first.
    async fn grants(&self, subject: Option<Subject>) -> Result<Vec<GrantRecord>, StoreError>;

    /// All access tokens that have not expired, with their digests.
    async fn access_tokens(&self, now: Timestamp) -> Result<Vec<(Digest, AccessToken)>, StoreError>;

    /// Takes note whose a session at an MCP server is.
    async fn put_mcp_session(
        &self,
        server: ServerName,
        digest: Digest,
        subject: Subject,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Forgets a session at an MCP server.
    async fn forget_mcp_session(&self, server: ServerName, digest: Digest) -> Result<(), StoreError>;

    /// Whose the sessions at MCP servers are.
    async fn mcp_sessions(&self) -> Result<Vec<(ServerName, Digest, Subject)>, StoreError>;

    /// Takes note that an assertion was used; `false` if it was before.
    async fn use_assertion(&self, digest: Digest, expires_at: Timestamp) -> Result<bool, StoreError>;

    /// Removes what is over: visits, sessions, codes, tokens, grants that ended more than 30 days ago, clients that nobody
    /// approved since `unused_since`, and answers that are no longer repeated.
    async fn sweep_issuer(&self, now: Timestamp, unused_since: Timestamp) -> Result<(), StoreError>;
}
