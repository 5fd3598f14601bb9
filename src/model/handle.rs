//! A handle: the opaque stand-in that an MCP server holds where it expects a provider's token.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::digest::{Digest, sha256};
use crate::base::random::{self, Random};
use crate::base::secret::Secret;
use crate::model::names::{Label, ProviderName, Subject};

/// Every handle contains this, so that one can be recognized wherever it turns up.
pub const MARKER: &str = "sidekey_h_";

/// Makes a new handle of 256 random bits.
pub fn generate(random: &dyn Random) -> Secret {
    Secret::new(format!("{MARKER}{}", random::secret(random).expose()))
}

/// A handle without what stands before its marker: servers that look at the shape of their token are given one with the
/// beginning that they expect.
pub fn without_prefix(presented: &str) -> &str {
    presented.find(MARKER).map_or(presented, |marker| &presented[marker..])
}

/// What is kept of a handle: never the handle itself.
pub fn digest(handle: &str) -> Digest {
    sha256(handle.as_bytes())
}

/// What a handle stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HandleRecord {
    /// Public name, for listing and revoking.
    pub id: String,
    /// Whose connections it reaches.
    pub subject: Subject,
    /// At which providers; `None` means all of the subject's.
    pub providers: Option<BTreeSet<ProviderName>>,
    /// Which of several connections at a provider.
    pub label: Label,
    /// When it was issued.
    pub created_at: Timestamp,
    /// When it stops working by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Why a handle is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleError {
    /// Its time is over.
    Expired,
    /// Somebody revoked it.
    Revoked,
    /// It is good, but not for this provider.
    OtherProvider,
}

impl HandleRecord {
    /// Whether the handle may be used for `provider` at `now`.
    pub fn permits(&self, provider: &ProviderName, now: Timestamp) -> Result<(), HandleError> {
        if self.revoked_at.is_some() {
            Err(HandleError::Revoked)
        } else if self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            Err(HandleError::Expired)
        } else if self.providers.as_ref().is_some_and(|providers| !providers.contains(provider)) {
            Err(HandleError::OtherProvider)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SystemRandom;

    fn record() -> HandleRecord {
        HandleRecord {
            id: "h_1".into(),
            subject: "alice".parse().expect("a subject"),
            providers: Some(["quickbooks".parse().expect("a provider")].into()),
            label: Label::default(),
            created_at: Timestamp::from_millis(0),
            expires_at: Some(Timestamp::from_millis(100)),
            revoked_at: None,
        }
    }

    #[test]
    fn a_handle_works_for_its_providers_until_it_ends() {
        let (quickbooks, github) = ("quickbooks".parse().expect("valid"), "github".parse().expect("valid"));
        let at = Timestamp::from_millis;
        assert_eq!(record().permits(&quickbooks, at(99)), Ok(()));
        assert_eq!(record().permits(&quickbooks, at(100)), Err(HandleError::Expired));
        assert_eq!(record().permits(&github, at(0)), Err(HandleError::OtherProvider));
        let revoked = HandleRecord { revoked_at: Some(at(1)), ..record() };
        assert_eq!(revoked.permits(&quickbooks, at(2)), Err(HandleError::Revoked));
        let everywhere = HandleRecord { providers: None, ..record() };
        assert_eq!(everywhere.permits(&github, at(2)), Ok(()));
    }

    #[test]
    fn handles_are_marked_and_unguessable() {
        let [one, two] = [generate(&SystemRandom), generate(&SystemRandom)];
        assert!(one.expose().starts_with(MARKER) && one.expose().len() == MARKER.len() + 43);
        assert_ne!(digest(one.expose()), digest(two.expose()));
        assert_eq!(without_prefix(&format!("ntn_{}", one.expose())), one.expose());
        assert_eq!(without_prefix("ntn_x"), "ntn_x");
    }
}
