//! The ground truth: what was issued, used and killed, and when.
//!
//! Tokens appear by id and SHA-256 only. Their values are in [`IssuedValues`], which exists for
//! leak searches. All times are milliseconds since 1970.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything that happened so far, copied at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LedgerSnapshot {
    /// When the copy was made.
    pub at_ms: u64,
    /// By profile name; every profile is present.
    pub profiles: BTreeMap<String, ProfileLedger>,
    /// The last 10,000 events, oldest first.
    pub events: Vec<Event>,
}

/// What happened at one profile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProfileLedger {
    /// How often what happened.
    pub counters: Counters,
    /// One for each code exchanged, oldest first.
    pub grants: Vec<Grant>,
}

/// How often what happened at one profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests to the authorization endpoint.
    pub authorize_calls: u64,
    /// Token requests with a code, whatever their outcome.
    pub code_exchanges: u64,
    /// Codes exchanged for tokens.
    pub code_exchanges_ok: u64,
    /// Token requests with a refresh token that were read, even if a fault ate them.
    pub refresh_attempts: u64,
    /// Refreshes committed, even if the reply was lost.
    pub refreshes_ok: u64,
    /// Refreshes definitely refused (not those refused by a fault).
    pub refreshes_rejected: u64,
    /// Uses of a refresh token that had been replaced and was dead.
    pub reuse_detected: u64,
    /// Requests to the revocation endpoint that ended a grant.
    pub revokes: u64,
    /// Requests to the API, whatever their outcome.
    pub api_calls: u64,
    /// Those whose token was valid.
    pub api_calls_ok: u64,
    /// Those refused: no valid token, or another account's.
    pub api_calls_rejected: u64,
    /// Those of the refused whose token had been valid once.
    pub api_calls_expired: u64,
}

/// One user's consent, and all tokens that descend from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// `grant-N`, unique in the simulator.
    pub id: String,
    /// The profile's name.
    pub profile: String,
    /// The account it is for.
    pub realm: String,
    /// Who approved; all its tokens are this user's.
    pub user: String,
    /// The client it was given to.
    pub client_id: String,
    /// The redirect URI of its authorization.
    pub redirect_uri: String,
    /// Scopes, separated by spaces.
    pub scope: String,
    /// When the code was exchanged.
    pub created_at_ms: u64,
    /// When it was revoked, by whomever.
    pub revoked_at_ms: Option<u64>,
    /// Oldest first.
    pub refresh_tokens: Vec<RefreshToken>,
    /// Oldest first.
    pub access_tokens: Vec<AccessToken>,
}

/// One refresh token value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RefreshToken {
    /// `rt-N`, unique in the simulator.
    pub id: String,
    /// SHA-256 of the value, in hexadecimal.
    pub value_sha256: String,
    /// When it was issued.
    pub issued_at_ms: u64,
    /// When it stops working if it is not used.
    pub expires_at_ms: Option<u64>,
    /// The refresh token whose use issued it.
    pub parent: Option<String>,
    /// Which of several token pairs of the grant it belongs to; none for the first.
    pub part: Option<String>,
    /// When it was first accepted.
    pub first_used_at_ms: Option<u64>,
    /// How often it was accepted.
    pub used_count: u64,
    /// How often it came again after it had been replaced and was dead.
    pub reused_count: u64,
    /// It exists here, whether or not the client learned of it.
    pub committed: bool,
    /// A reply with it was handed to the network completely.
    pub replied: bool,
    /// The last reply with it was cut, replaced or abandoned by the client.
    pub reply_failed: bool,
    /// When a successor was issued.
    pub superseded_at_ms: Option<u64>,
    /// From when it is refused; may lie in the future (end of its grace).
    pub dead_at_ms: Option<u64>,
}

/// One access token value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessToken {
    /// `at-N`, unique in the simulator.
    pub id: String,
    /// SHA-256 of the value, in hexadecimal.
    pub value_sha256: String,
    /// When it was issued.
    pub issued_at_ms: u64,
    /// The refresh token whose use issued it; none for the first.
    pub issued_by: Option<String>,
    /// Which of several token pairs of the grant it belongs to; none for the first.
    pub part: Option<String>,
    /// What it is for: what the request asked for, else what was granted.
    pub scope: String,
    /// When it expires.
    pub expires_at_ms: Option<u64>,
    /// When it was killed before that.
    pub dead_at_ms: Option<u64>,
    /// How often the API accepted it.
    pub used_count: u64,
    /// When the API first accepted it.
    pub first_used_at_ms: Option<u64>,
    /// When the API last accepted it.
    pub last_used_at_ms: Option<u64>,
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1 without gaps.
    pub seq: u64,
    /// When.
    pub at_ms: u64,
    /// The profile's name.
    pub profile: String,
    /// What, e.g. `refresh_ok`.
    pub kind: String,
    /// The grant's or token's id, where one is concerned.
    pub token_id: Option<String>,
    /// For people; never contains a token.
    pub detail: String,
}

/// Every secret value that ever existed here, to search logs and stores for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct IssuedValues {
    /// Access tokens.
    pub access_tokens: Vec<String>,
    /// Refresh tokens.
    pub refresh_tokens: Vec<String>,
    /// Authorization codes.
    pub codes: Vec<String>,
    /// Client secrets, of all profiles and settings.
    pub client_secrets: Vec<String>,
}

impl LedgerSnapshot {
    /// One profile's part.
    ///
    /// # Panics
    /// When there is no such profile: a test's typing error.
    pub fn profile(&self, name: &str) -> &ProfileLedger {
        match self.profiles.get(name) {
            Some(ledger) => ledger,
            None => panic!("the simulator has no profile {name:?}"),
        }
    }

    /// The grant whose access or refresh token hashes to `sha256`.
    pub fn grant_of_token(&self, sha256: &str) -> Option<&Grant> {
        self.profiles.values().flat_map(|profile| &profile.grants).find(|grant| grant.has_token(sha256))
    }

    /// Events of one kind at one profile, oldest first.
    pub fn events_of(&self, profile: &str, kind: &str) -> Vec<&Event> {
        self.events.iter().filter(|event| event.profile == profile && event.kind == kind).collect()
    }
}

impl ProfileLedger {
    /// The newest grant.
    pub fn last_grant(&self) -> Option<&Grant> {
        self.grants.last()
    }

    /// The newest grant of one user.
    pub fn last_grant_of(&self, user: &str) -> Option<&Grant> {
        self.grants.iter().rfind(|grant| grant.user == user)
    }
}

impl Grant {
    /// Whether one of its tokens hashes to `sha256`.
    pub fn has_token(&self, sha256: &str) -> bool {
        let access = self.access_tokens.iter().map(|token| &token.value_sha256);
        let refresh = self.refresh_tokens.iter().map(|token| &token.value_sha256);
        access.chain(refresh).any(|hash| hash == sha256)
    }

    /// Access tokens that work at `at_ms`.
    pub fn live_access_tokens(&self, at_ms: u64) -> impl Iterator<Item = &AccessToken> {
        self.access_tokens.iter().filter(move |token| token.is_valid(at_ms))
    }

    /// Refresh tokens that would be accepted at `at_ms`.
    pub fn live_refresh_tokens(&self, at_ms: u64) -> impl Iterator<Item = &RefreshToken> {
        self.refresh_tokens.iter().filter(move |token| token.is_valid(at_ms))
    }
}

impl RefreshToken {
    /// Neither dead nor expired.
    pub fn is_valid(&self, at_ms: u64) -> bool {
        self.dead_at_ms.is_none_or(|dead| at_ms < dead) && self.expires_at_ms.is_none_or(|expires| at_ms < expires)
    }
}

impl AccessToken {
    /// Neither dead nor expired.
    pub fn is_valid(&self, at_ms: u64) -> bool {
        self.dead_at_ms.is_none_or(|dead| at_ms < dead) && self.expires_at_ms.is_none_or(|expires| at_ms < expires)
    }
}
