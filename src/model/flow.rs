//! A dance under way: from the moment the browser is sent to the provider until it comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::digest::{Digest, SigningKey};
use crate::model::connection::ConnectionKey;
use crate::model::continuation::Continuation;
use crate::model::names::{Label, ProviderName, Subject};

/// How long a connect link waits to be opened, and a browser may take at the provider.
pub const LIFETIME: Duration = Duration::from_secs(600);
/// How long after it left a browser is led back to where it was, too late as it may be for what it brings.
pub const RETURN_LIFETIME: Duration = Duration::from_secs(900);

/// A one-time link that lets its holder connect one subject to one provider.
#[derive(Clone, Debug)]
pub struct ConnectLink {
    /// What it connects.
    pub key: ConnectionKey,
    /// Where the browser goes on.
    pub continuation: Continuation,
    /// The APIs that are needed; `None` for all that are enabled.
    pub apis: Option<BTreeSet<String>>,
    /// With which API key it was made, if with one: it is good for as long as the key is.
    pub api_key: Option<Digest>,
    /// After this it is refused.
    pub expires_at: Timestamp,
}

/// What a link allows the browser that has used it up: to try again, and to see what it has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Counted from when the link was used, however often the browser tries.
    pub until: Timestamp,
    /// With which API key the link was made, if with one: it is over with the key.
    pub api_key: Option<Digest>,
}

/// What a flow is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A known subject connects.
    Connect(ConnectionKey),
    /// The provider says who the user is; the connection then belongs to that subject.
    SignIn(ProviderName),
}

impl Purpose {
    /// The provider that the browser is sent to.
    pub fn provider(&self) -> &ProviderName {
        match self {
            Self::Connect(key) => &key.provider,
            Self::SignIn(provider) => provider,
        }
    }

    /// The connection, where it is known whose it will be.
    pub fn connection(&self) -> Option<&ConnectionKey> {
        match self {
            Self::Connect(key) => Some(key),
            Self::SignIn(_) => None,
        }
    }

    /// The subject, where it is known.
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Connect(key) => Some(&key.subject),
            Self::SignIn(_) => None,
        }
    }

    /// Which of several connections.
    pub fn label(&self) -> Label {
        match self {
            Self::Connect(key) => key.label.clone(),
            Self::SignIn(_) => Label::default(),
        }
    }
}

/// What is remembered while the browser is at the provider.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Public part of `state`.
    pub id: FlowId,
    /// What it is for.
    pub purpose: Purpose,
    /// Where the browser goes on.
    pub continuation: Continuation,
    /// SHA-256 of the cookie that the browser got at the start.
    pub browser_binding: Digest,
    /// The scopes that the provider was asked for.
    pub requested_scopes: Vec<String>,
    /// What the link allows that it was begun with, if it was.
    pub allowance: Option<Allowance>,
    /// After this it is refused.
    pub expires_at: Timestamp,
}

/// 128 random bits that name a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(pub [u8; 16]);

impl std::fmt::Display for FlowId {
    /// 32 hexadecimal characters.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Why a `state` is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// Not one that this Sidekey made.
    Forged,
    /// Made for this flow, but more than ten minutes ago.
    Expired(FlowId),
}

const VERSION: u8 = 1;
const SIGNED: usize = 1 + 16 + 8;

/// The `state` parameter (RFC 6749 section 10.12): version, flow id and issue time, signed.
pub fn sign_state(key: &SigningKey, id: FlowId, issued_at: Timestamp) -> String {
    let mut bytes = Vec::with_capacity(SIGNED + 32);
    bytes.push(VERSION);
    bytes.extend_from_slice(&id.0);
    bytes.extend_from_slice(&issued_at.as_millis().to_be_bytes());
    let signature = key.sign(&bytes);
    bytes.extend_from_slice(&signature);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The flow that a `state` names, if we made it and it is not too old.
pub fn verify_state(key: &SigningKey, state: &str, now: Timestamp) -> Result<FlowId, StateError> {
    let bytes = URL_SAFE_NO_PAD.decode(state).map_err(|_| StateError::Forged)?;
    let (signed, signature) = bytes.split_at_checked(SIGNED).ok_or(StateError::Forged)?;
    if !key.verify(signed, signature) || signed[0] != VERSION {
        return Err(StateError::Forged);
    }
    let id: [u8; 16] = signed[1..17].try_into().map_err(|_| StateError::Forged)?;
    let issued_at: [u8; 8] = signed[17..].try_into().map_err(|_| StateError::Forged)?;
    let issued_at = Timestamp::from_millis(i64::from_be_bytes(issued_at));
    if now >= issued_at.plus(LIFETIME) { Err(StateError::Expired(FlowId(id))) } else { Ok(FlowId(id)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::SecretKey;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const ID: FlowId = FlowId([9; 16]);

    fn key(byte: u8) -> SigningKey {
        SigningKey::derive(&SecretKey::new([byte; 32]), "state")
    }

    #[test]
    fn a_state_is_good_for_ten_minutes() {
        let state = sign_state(&key(1), ID, NOW);
        assert_eq!(verify_state(&key(1), &state, NOW), Ok(ID));
        assert_eq!(verify_state(&key(1), &state, NOW.plus(LIFETIME - Duration::from_millis(1))), Ok(ID));
        assert_eq!(verify_state(&key(1), &state, NOW.plus(LIFETIME)), Err(StateError::Expired(ID)));
    }

    #[test]
    fn anything_else_is_forged() {
        let state = sign_state(&key(1), ID, NOW);
        assert_eq!(verify_state(&key(2), &state, NOW), Err(StateError::Forged));
        for at in 0..state.len() {
            let mut bytes = state.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert!(verify_state(&key(1), &changed, NOW).is_err(), "{at}");
        }
        for junk in ["", "a", "é", &"A".repeat(65_536), &state[..40]] {
            assert_eq!(verify_state(&key(1), junk, NOW), Err(StateError::Forged));
        }
    }
}
