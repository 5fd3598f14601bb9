//! The records as they are kept: plain facts, and secrets sealed.

use std::collections::BTreeSet;

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::model::connection::{Captured, ConnectionKey, ConnectionState, HeldScopes, RefreshTrouble};
use crate::model::flow::{Flow, Purpose};
use crate::store::seal::{Context, Sealed};

/// A connection at rest.
#[derive(Clone, Debug)]
pub struct ConnectionRecord {
    /// Never reused.
    pub id: String,
    /// What it is found by.
    pub key: ConnectionKey,
    /// How it stands.
    pub state: ConnectionState,
    /// Values that came with the grant.
    pub captured: Captured,
    /// While it is not known which of several sites it is for: the looked-up values that the connection before this one had.
    pub earlier_site: Option<Captured>,
    /// Scopes granted, where the provider says.
    pub scopes: Option<Vec<String>>,
    /// Scopes that were asked for, where that was noted.
    pub requested_scopes: Option<Vec<String>>,
    /// What people call the account at the provider, where it says.
    pub account: Option<String>,
    /// Raised by every stored refresh; the tokens are sealed for it.
    pub generation: u64,
    /// The current access token.
    pub access_token: Sealed,
    /// When it stops working, where known.
    pub access_expires_at: Option<Timestamp>,
    /// The current refresh token.
    pub refresh_token: Option<Sealed>,
    /// The one before, kept until the current one has worked.
    pub previous_refresh_token: Option<Sealed>,
    /// Since when it has its value, where known.
    pub refresh_token_since: Option<Timestamp>,
    /// When it stops working if it is not used, where known.
    pub refresh_expires_at: Option<Timestamp>,
    /// When the grant ends however often it is refreshed, where known.
    pub grant_expires_at: Option<Timestamp>,
    /// When to refresh next.
    pub refresh_due_at: Option<Timestamp>,
    /// The refresh under way.
    pub intent: Option<Intent>,
    /// How the last refreshes failed.
    pub trouble: Option<RefreshTrouble>,
    /// When the subject connected.
    pub connected_at: Timestamp,
    /// When tokens were last refreshed.
    pub refreshed_at: Option<Timestamp>,
}

impl ConnectionRecord {
    /// What it says of its scopes.
    pub fn held(&self) -> HeldScopes<'_> {
        HeldScopes { granted: self.scopes.as_deref(), requested: self.requested_scopes.as_deref() }
    }

    /// What one of the tokens is sealed for.
    pub fn seal_context<'r>(&'r self, field: &'r str) -> Context<'r> {
        connection_context(&self.key, &self.id, field, self.generation)
    }
}

/// What a token of a connection is sealed for.
pub fn connection_context<'r>(key: &'r ConnectionKey, id: &'r str, field: &'r str, generation: u64) -> Context<'r> {
    Context {
        purpose: "connection",
        subject: key.subject.as_str(),
        provider: key.provider.as_str(),
        record: id,
        field,
        generation,
    }
}

/// The field names that tokens are sealed under.
pub mod field {
    /// [`super::ConnectionRecord::access_token`].
    pub const ACCESS_TOKEN: &str = "access_token";
    /// [`super::ConnectionRecord::refresh_token`].
    pub const REFRESH_TOKEN: &str = "refresh_token";
    /// [`super::ConnectionRecord::previous_refresh_token`].
    pub const PREVIOUS_REFRESH_TOKEN: &str = "previous_refresh_token";
    /// [`super::FlowRecord::verifier`].
    pub const VERIFIER: &str = "code_verifier";
}

/// That a refresh is about to be asked for. Written before the provider is contacted, so that a crash cannot hide that
/// the refresh token may have been used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Names the attempt in logs.
    pub attempt: String,
    /// When it began.
    pub started_at: Timestamp,
    /// SHA-256 of the refresh token that is sent.
    pub refresh_token_digest: Digest,
}

/// How a refresh begins.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// What is about to be asked.
    pub intent: Intent,
    /// The attempt whose intent is there now and is taken the place of; `None` if there must be none.
    pub after: Option<String>,
    /// When the connection comes up again if nothing more is heard of this attempt.
    pub unheard_of_at: Timestamp,
}

/// The result of a refresh, sealed for the next generation.
#[derive(Clone, Debug)]
pub struct RefreshedTokens {
    /// The new access token.
    pub access_token: Sealed,
    /// When it stops working, where known.
    pub access_expires_at: Option<Timestamp>,
    /// The refresh token from now on: the new one, or the old one where the reply had none.
    pub refresh_token: Option<Sealed>,
    /// The one before, if it changed.
    pub previous_refresh_token: Option<Sealed>,
    /// When the refresh token stops working if it is not used, where known.
    pub refresh_expires_at: Option<Timestamp>,
    /// When the grant ends however often it is refreshed, where the reply says.
    pub grant_expires_at: Option<Timestamp>,
    /// When to refresh next.
    pub refresh_due_at: Option<Timestamp>,
    /// Scopes, if the reply named them.
    pub scopes: Option<Vec<String>>,
    /// Values captured with the reply; they are laid over what is there.
    pub captured: Captured,
    /// When it was obtained.
    pub refreshed_at: Timestamp,
}

/// Other looked-up values for a connection: which site it is for.
#[derive(Clone, Debug)]
pub struct Recapture {
    /// The id of the connection's first token, so that one which has taken its place is left alone.
    pub id: String,
    /// The names of all looked-up values.
    pub names: BTreeSet<String>,
    /// What they were when it was decided.
    pub before: Captured,
    /// What they are from now on; a name that is not there has no value.
    pub values: Captured,
}

/// What tells a store from its copies and from its past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardRecord {
    /// Made once with the store; a copy has the same.
    pub store_id: String,
    /// How many refreshes were ever begun; an older copy has fewer.
    pub refreshes: u64,
    /// The process that its sentinel knows; `None` if there never was a sentinel.
    pub instance: Option<String>,
    /// The process that is about to take its place there: whether it has, only the sentinel knows.
    pub successor: Option<String>,
}

/// A refresh token that was received and could not become the current one. It is sealed for the generation that it would
/// have made, as [`field::REFRESH_TOKEN`].
#[derive(Clone, Debug)]
pub struct Alternate {
    /// The generation that it is sealed for.
    pub generation: u64,
    /// The token.
    pub refresh_token: Sealed,
    /// When it was obtained.
    pub obtained_at: Timestamp,
}

/// How a refresh failed.
#[derive(Clone, Debug)]
pub struct RefreshFailure {
    /// Failures in a row, what was said, and whether the outcome is unknown.
    pub trouble: RefreshTrouble,
    /// Which attempt failed: the one whose intent is there, or it is not this failure's business.
    pub attempt: Option<String>,
    /// When to try again; `None` for never.
    pub retry_at: Option<Timestamp>,
    /// How the connection stands from now on.
    pub state: ConnectionState,
}

/// A grant that is to be given back to its provider. Its tokens are sealed for the connection that they came from.
#[derive(Clone, Debug)]
pub struct RevocationRecord {
    /// Never reused.
    pub id: String,
    /// What the connection was found by.
    pub key: ConnectionKey,
    /// Its id.
    pub connection_id: String,
    /// Values that came with the grant. They stay with the connection, ended or not, and are read from there.
    pub captured: Captured,
    /// The generation that the tokens are sealed for.
    pub generation: u64,
    /// The access token.
    pub access_token: Sealed,
    /// The refresh token, where there was one.
    pub refresh_token: Option<Sealed>,
    /// How often it was tried.
    pub attempts: u32,
}

/// A grant that its provider could not be told about yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingRevocation {
    /// What the connection was found by.
    pub key: ConnectionKey,
    /// When it was disconnected.
    pub since: Timestamp,
    /// When the provider is told again.
    pub next_try_at: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
}

/// A flow at rest.
#[derive(Clone, Debug)]
pub struct FlowRecord {
    /// The flow.
    pub flow: Flow,
    /// Its PKCE verifier, where one was used.
    pub verifier: Option<Sealed>,
}

/// What the verifier of a flow is sealed for.
pub fn verifier_context<'r>(purpose: &'r Purpose, flow_id: &'r str) -> Context<'r> {
    Context {
        purpose: "flow",
        subject: purpose.subject().map_or("", |subject| subject.as_str()),
        provider: purpose.provider().as_str(),
        record: flow_id,
        field: field::VERIFIER,
        generation: 0,
    }
}
