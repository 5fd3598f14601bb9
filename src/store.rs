//! What must survive: connections, flows, connect links and handles ([`Store`]), clients and grants
//! ([`issuer::IssuerStore`]). Secrets come in sealed and go out sealed.
//!
//! [`Store`] is small on purpose, so that other backends can follow; [`contract`] is the one suite that all must pass.
//! Every method that says so is atomic, and has reached the disk when it returns.

#[cfg(test)]
pub mod contract;
pub mod issuer;
pub mod keyring;
pub mod record;
pub mod reseal;
pub mod restored;
pub mod seal;
pub mod sentinel;
pub mod sqlite;

use async_trait::async_trait;

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::model::connection::ConnectionKey;
use crate::model::flow::{ConnectLink, FlowId};
use crate::model::handle::HandleRecord;
use crate::model::names::{ProviderName, Subject};
use crate::store::keyring::KeyId;
use crate::store::record::{
    Alternate, Beginning, ConnectionRecord, FlowRecord, GuardRecord, Recapture, RefreshFailure, RefreshedTokens,
    RevocationRecord, WaitingRevocation,
};
use crate::store::reseal::{KeyUse, SealedPlace, SealedValue};
use crate::store::seal::Sealed;

/// Why the store could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The operator must mend something: a mode, a path, a newer schema, another process.
    Unusable(String),
    /// This operation failed: disk full, input or output error.
    Failed(String),
    /// One record is damaged; the others are not.
    Corrupt(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unusable(why) => write!(formatter, "the store cannot be used: {why}"),
            Self::Failed(why) => write!(formatter, "the store failed: {why}"),
            Self::Corrupt(why) => write!(formatter, "a stored record is damaged: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// What happened to a flow that a callback names.
#[derive(Debug)]
pub enum TakenFlow {
    /// It was open; it is used up now.
    Open(Box<FlowRecord>),
    /// A callback used it before.
    AlreadyUsed,
    /// There is none, or it has been swept.
    Unknown,
}

/// Durable records.
#[async_trait]
pub trait Store: Send + Sync {
    /// Keeps a connect link under the digest of its token.
    async fn put_connect_link(&self, digest: Digest, link: ConnectLink) -> Result<(), StoreError>;

    /// The link, if it is neither used nor expired. Consumes nothing.
    async fn connect_link(&self, digest: Digest, now: Timestamp) -> Result<Option<ConnectLink>, StoreError>;

    /// Uses up the link and keeps the flow that it begins, both or neither. `false` if the link was already used.
    async fn begin_flow(&self, link: Digest, flow: FlowRecord, now: Timestamp) -> Result<bool, StoreError>;

    /// Keeps a flow that no link began.
    async fn put_flow(&self, flow: FlowRecord) -> Result<(), StoreError>;

    /// Reads a flow without using it up.
    async fn flow(&self, id: FlowId) -> Result<Option<FlowRecord>, StoreError>;

    /// Uses up a flow: of any number of callers, one gets it.
    async fn take_flow(&self, id: FlowId, now: Timestamp) -> Result<TakenFlow, StoreError>;

    /// Keeps a new connection: one record for each of its access tokens. An earlier one with the same subject, provider and
    /// label is soft-deleted in the same transaction.
    async fn connect(&self, tokens: Vec<ConnectionRecord>, now: Timestamp) -> Result<(), StoreError>;

    /// Ends a connection with all its access tokens: its rows stay for the history, without the tokens. Under ids made from that
    /// of a revocation they are queued for being given back, in the same step. `None` if there is no such connection.
    async fn disconnect(
        &self,
        key: ConnectionKey,
        revocation: Option<String>,
        now: Timestamp,
    ) -> Result<Option<Vec<RevocationRecord>>, StoreError>;

    /// Queues tokens for being given back that belong to no connection anymore.
    async fn put_revocation(&self, revocation: RevocationRecord, now: Timestamp) -> Result<(), StoreError>;

    /// What is to be given back now, at most `limit`.
    async fn revocations_due(&self, now: Timestamp, limit: usize) -> Result<Vec<RevocationRecord>, StoreError>;

    /// All that wait to be given back, of one subject or of all, those that wait longest first.
    async fn revocations_waiting(&self, subject: Option<Subject>) -> Result<Vec<WaitingRevocation>, StoreError>;

    /// Counts a try that failed, and puts the next one off.
    async fn postpone_revocation(&self, id: String, until: Timestamp) -> Result<(), StoreError>;

    /// Forgets what was given back.
    async fn finish_revocation(&self, id: String) -> Result<(), StoreError>;

    /// The connection with this key that is not deleted.
    async fn connection(&self, key: ConnectionKey) -> Result<Option<ConnectionRecord>, StoreError>;

    /// Changes the looked-up values of a connection with all its access tokens, and forgets the earlier site. The ids of its
    /// tokens; none if it was replaced or ended, or the values are no longer what they were.
    async fn recapture(&self, key: ConnectionKey, change: Recapture) -> Result<Vec<String>, StoreError>;

    /// All connections that are not deleted, of one subject or of all.
    async fn connections(&self, subject: Option<Subject>) -> Result<Vec<ConnectionRecord>, StoreError>;

    /// Connections that are not deleted, each by its first access token, in the order of their keys: at most `limit` of those
    /// whose subject begins with `prefix` and that come after `after`.
    async fn connections_after(
        &self,
        after: Option<ConnectionKey>,
        prefix: String,
        limit: usize,
    ) -> Result<Vec<ConnectionRecord>, StoreError>;

    /// How many connections there are, by provider and state.
    async fn count_connections(&self) -> Result<Vec<(String, String, i64)>, StoreError>;

    /// Keys of active connections whose refresh is due by `until`, the most urgent first, and at most `limit`; none of these
    /// providers.
    async fn refresh_due(
        &self,
        until: Timestamp,
        limit: usize,
        except: Vec<ProviderName>,
    ) -> Result<Vec<ConnectionKey>, StoreError>;

    /// When the next refresh of any active connection is due.
    async fn next_refresh(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Records that a refresh is about to be asked for, and how many were ever begun, this one included. `None` if the
    /// connection is no longer at this generation, or another attempt was begun meanwhile.
    async fn begin_refresh(&self, id: String, generation: u64, begin: Beginning) -> Result<Option<u64>, StoreError>;

    /// Records the result and raises the generation. `false` if the connection is no longer at `generation`.
    async fn complete_refresh(&self, id: String, generation: u64, tokens: RefreshedTokens) -> Result<bool, StoreError>;

    /// Records a failure. `false` if the connection is no longer at `generation`, or another attempt was begun meanwhile.
    async fn fail_refresh(&self, id: String, generation: u64, failure: RefreshFailure) -> Result<bool, StoreError>;

    /// Leaves a connection alone until then, whatever else its record says.
    async fn postpone_refresh(&self, key: ConnectionKey, until: Timestamp) -> Result<(), StoreError>;

    /// Has connections that wait after the operator's mistake come up at once: it may have been mended.
    async fn retry_operator_failures(&self, now: Timestamp) -> Result<(), StoreError>;

    /// Brings back connections whose next try is later than any back-off explains: the clock had jumped ahead.
    async fn limit_waiting(&self, now: Timestamp, latest: Timestamp) -> Result<(), StoreError>;

    /// Connections whose refresh was begun and neither completed nor failed, or is in doubt: the process ended in between, or
    /// while they waited.
    async fn interrupted_refreshes(&self) -> Result<Vec<ConnectionRecord>, StoreError>;

    /// Values that another key than `active` has sealed, in the order of their places, after one of them; at most `limit`.
    async fn sealed_by_others(
        &self,
        active: KeyId,
        after: Option<SealedPlace>,
        limit: usize,
    ) -> Result<Vec<SealedValue>, StoreError>;

    /// Puts a sealed value in the place of another; `false` if that is not there anymore.
    async fn replace_sealed(&self, place: SealedPlace, old: Sealed, new: Sealed) -> Result<bool, StoreError>;

    /// Which keys have sealed what is still needed, and how much.
    async fn key_use(&self) -> Result<Vec<KeyUse>, StoreError>;

    /// What tells this store from its copies and from its past.
    async fn guard(&self) -> Result<GuardRecord, StoreError>;

    /// Notes that this process is about to be the one that the sentinel knows, and that at least so many refreshes were begun.
    async fn announce_successor(&self, instance: String, refreshes: u64) -> Result<(), StoreError>;

    /// Notes that it is.
    async fn succeed(&self, instance: String) -> Result<(), StoreError>;

    /// Keeps a refresh token that lost to another one. It is forgotten once a later refresh has worked.
    async fn keep_alternate(&self, id: String, alternate: Alternate) -> Result<(), StoreError>;

    /// The refresh tokens that lost to others, the newest first.
    async fn alternates(&self, id: String) -> Result<Vec<Alternate>, StoreError>;

    /// Active connections whose grant ends by `until`, and when. Each is named once for each end.
    async fn announce_grant_ends(&self, until: Timestamp) -> Result<Vec<(ConnectionKey, Timestamp)>, StoreError>;

    /// Keeps a handle under its digest.
    async fn put_handle(&self, digest: Digest, handle: HandleRecord) -> Result<(), StoreError>;

    /// All handles with their digests.
    async fn handles(&self) -> Result<Vec<(Digest, HandleRecord)>, StoreError>;

    /// Lets a handle work until then; `false` if there is none of this id that ends by itself and was not revoked.
    async fn renew_handle(&self, id: String, expires_at: Timestamp) -> Result<bool, StoreError>;

    /// Revokes a handle; `false` if there is none of this id.
    async fn revoke_handle(&self, id: String, now: Timestamp) -> Result<bool, StoreError>;

    /// Removes links and flows that expired more than an hour ago, and handles that did so thirty days ago.
    async fn sweep(&self, now: Timestamp) -> Result<(), StoreError>;

    /// Writes everything, as it is at one moment, to a new file that only its owner can read; whoever stores something meanwhile
    /// does not wait for it.
    async fn snapshot(&self, into: std::path::PathBuf) -> Result<(), StoreError>;

    /// Whether the store can be read and written right now.
    async fn health(&self) -> Result<(), StoreError>;
}
