//! [`IssuerStore`] on the store's thread.

use async_trait::async_trait;

use super::{SqliteStore, issuer};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::model::authorization::{Approval, PendingCode, User, Visit, VisitId};
use crate::model::client::Registration;
use crate::model::grant::{AccessToken, EndReason, Grant, RefreshToken};
use crate::model::names::{ServerName, Subject};
use crate::store::StoreError;
use crate::store::issuer::{GrantRecord, IssuerStore, NewTokens, Rotation, StoredCode, StoredDocument};
use crate::store::seal::Sealed;

#[async_trait]
impl IssuerStore for SqliteStore {
    async fn put_client(
        &self,
        id: String,
        client: Registration,
        now: Timestamp,
        unused: u32,
    ) -> Result<(), StoreError> {
        self.run(move |db| issuer::put_client(db, &id, &client, now, unused)).await
    }

    async fn client(&self, id: String) -> Result<Option<Registration>, StoreError> {
        self.run(move |db| issuer::client(db, &id)).await
    }

    async fn use_client(&self, id: String, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| issuer::use_client(db, &id, now)).await
    }

    async fn put_client_document(&self, url: String, document: StoredDocument) -> Result<(), StoreError> {
        self.run(move |db| issuer::put_document(db, &url, &document)).await
    }

    async fn client_document(&self, url: String) -> Result<Option<StoredDocument>, StoreError> {
        self.run(move |db| issuer::document(db, &url)).await
    }

    async fn put_visit(&self, visit: Visit) -> Result<bool, StoreError> {
        self.run(move |db| issuer::put_visit(db, &visit)).await
    }

    async fn visit(&self, id: VisitId, now: Timestamp) -> Result<Option<Visit>, StoreError> {
        self.run(move |db| issuer::visit(db, &id, now)).await
    }

    async fn finish_visit(
        &self,
        id: VisitId,
        code: Option<(Digest, PendingCode)>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.run(move |db| issuer::finish_visit(db, &id, code.as_ref(), now)).await
    }

    async fn put_browser_session(
        &self,
        digest: Digest,
        user: User,
        now: Timestamp,
        expires_at: Timestamp,
        replaces: Option<Digest>,
    ) -> Result<(), StoreError> {
        self.run(move |db| issuer::put_session(db, &digest, &user, now, expires_at, replaces.as_ref())).await
    }

    async fn browser_session(&self, digest: Digest, now: Timestamp) -> Result<Option<User>, StoreError> {
        self.run(move |db| issuer::session(db, &digest, now)).await
    }

    async fn end_browser_session(&self, digest: Digest) -> Result<(), StoreError> {
        self.run(move |db| issuer::end_session(db, &digest)).await
    }

    async fn put_approval(&self, approval: Approval) -> Result<(), StoreError> {
        self.run(move |db| issuer::put_approval(db, &approval)).await
    }

    async fn approval(
        &self,
        subject: Subject,
        client_id: String,
        server: ServerName,
    ) -> Result<Option<Approval>, StoreError> {
        self.run(move |db| issuer::approval(db, &subject, &client_id, &server)).await
    }

    async fn forget_approvals(&self, subject: Subject, client_id: String) -> Result<(), StoreError> {
        self.run(move |db| issuer::forget_approvals(db, &subject, &client_id)).await
    }

    async fn put_code(&self, digest: Digest, code: PendingCode) -> Result<(), StoreError> {
        self.run(move |db| issuer::put_code(db, &digest, &code)).await
    }

    async fn code(&self, digest: Digest) -> Result<Option<StoredCode>, StoreError> {
        self.run(move |db| issuer::code(db, &digest)).await
    }

    async fn redeem_code(
        &self,
        digest: Digest,
        grant: GrantRecord,
        tokens: NewTokens,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.run(move |db| issuer::redeem_code(db, &digest, &grant, &tokens, now)).await
    }

    async fn burn_code(&self, digest: Digest, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| issuer::burn_code(db, &digest, now)).await
    }

    async fn refresh_token(&self, digest: Digest) -> Result<Option<(RefreshToken, Grant)>, StoreError> {
        self.run(move |db| issuer::refresh_token(db, &digest)).await
    }

    async fn rotate(
        &self,
        digest: Digest,
        tokens: NewTokens,
        reply: Sealed,
        now: Timestamp,
        grace: std::time::Duration,
    ) -> Result<Rotation, StoreError> {
        self.run(move |db| issuer::rotate(db, &digest, &tokens, &reply, now, grace)).await
    }

    async fn end_access_token(&self, digest: Digest) -> Result<(), StoreError> {
        self.run(move |db| issuer::end_access_token(db, &digest)).await
    }

    async fn end_grant(&self, id: String, reason: EndReason, now: Timestamp) -> Result<bool, StoreError> {
        self.run(move |db| issuer::end_grant(db, &id, reason, now)).await
    }

    async fn grants(&self, subject: Option<Subject>) -> Result<Vec<GrantRecord>, StoreError> {
        self.run(move |db| issuer::grants(db, subject.as_ref())).await
    }

    async fn access_tokens(&self, now: Timestamp) -> Result<Vec<(Digest, AccessToken)>, StoreError> {
        self.run(move |db| issuer::access_tokens(db, now)).await
    }

    async fn put_mcp_session(
        &self,
        server: ServerName,
        digest: Digest,
        subject: Subject,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.run(move |db| issuer::put_mcp_session(db, &server, &digest, &subject, now)).await
    }

    async fn forget_mcp_session(&self, server: ServerName, digest: Digest) -> Result<(), StoreError> {
        self.run(move |db| issuer::forget_mcp_session(db, &server, &digest)).await
    }

    async fn mcp_sessions(&self) -> Result<Vec<(ServerName, Digest, Subject)>, StoreError> {
        self.run(move |db| issuer::mcp_sessions(db)).await
    }

    async fn use_assertion(&self, digest: Digest, expires_at: Timestamp) -> Result<bool, StoreError> {
        self.run(move |db| issuer::use_assertion(db, &digest, expires_at)).await
    }

    async fn sweep_issuer(&self, now: Timestamp, unused_since: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| issuer::sweep(db, now, unused_since)).await
    }
}
