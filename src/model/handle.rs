//! A handle: the opaque stand-in that an MCP server holds where it expects a provider's token.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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

/// Longer beginnings would make header values that some servers refuse.
const LONGEST_PREFIX: usize = 512;

/// Whether a text may stand before a handle; the error says what is wrong.
pub fn check_prefix(prefix: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(plain) {
        return Err(format!(
            "{prefix:?} cannot stand before a handle; expected at most {LONGEST_PREFIX} of A-Z a-z 0-9 . _ -"
        ));
    }
    // Also where the end of the prefix and the beginning of the marker make another marker.
    if format!("{prefix}{MARKER}").find(MARKER) == Some(prefix.len()) {
        Ok(())
    } else {
        Err(format!("{prefix:?} contains {MARKER:?}, by which handles are recognized"))
    }
}

/// A beginning that makes a handle look like a JSON Web Token (RFC 7519) for `audience` that is far from expiring. Nobody could
/// verify it: the handle stands where the signature would be.
pub fn jwt_prefix(audience: &str) -> String {
    let header = serde_json::json!({ "alg": "RS256", "typ": "JWT" });
    // 2020 and 2100, as seconds since the epoch.
    let claims =
        serde_json::json!({ "aud": audience, "iat": 1_577_836_800, "nbf": 1_577_836_800, "exp": 4_102_444_800_u32 });
    let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    // Three more characters make the third part one that base64url decoders accept.
    format!("{}.{}.sig", encode(header), encode(claims))
}

/// A handle with a beginning.
pub fn with_prefix(prefix: &str, handle: &Secret) -> Secret {
    Secret::new(format!("{prefix}{}", handle.expose()))
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
    /// Which of several connections at a provider; `None` for the one that a request names, or `default`.
    pub label: Option<Label>,
    /// Whether it may open tunnels to hosts that are neither a provider's nor listed.
    pub tunnels: bool,
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
    /// It is good, but not for the connection with this label.
    OtherLabel,
}

impl HandleRecord {
    /// Whether the handle still works at `now`.
    pub fn in_force(&self, now: Timestamp) -> Result<(), HandleError> {
        if self.revoked_at.is_some() {
            Err(HandleError::Revoked)
        } else if self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            Err(HandleError::Expired)
        } else {
            Ok(())
        }
    }

    /// Whether the handle may be used for `provider` at `now`.
    pub fn permits(&self, provider: &ProviderName, now: Timestamp) -> Result<(), HandleError> {
        self.in_force(now)?;
        if self.providers.as_ref().is_some_and(|providers| !providers.contains(provider)) {
            return Err(HandleError::OtherProvider);
        }
        Ok(())
    }

    /// The connection that it is for where a request names this label, or none.
    pub fn labelled(&self, asked: Option<&Label>) -> Result<Label, HandleError> {
        match (&self.label, asked) {
            (Some(own), Some(asked)) if own != asked => Err(HandleError::OtherLabel),
            (Some(label), _) | (None, Some(label)) => Ok(label.clone()),
            (None, None) => Ok(Label::default()),
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
            label: None,
            tunnels: false,
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
    fn a_handle_with_a_label_is_for_that_connection_only() {
        let (branch, other): (Label, Label) = ("branch".parse().expect("valid"), "other".parse().expect("valid"));
        assert_eq!(record().labelled(None), Ok(Label::default()));
        assert_eq!(record().labelled(Some(&branch)), Ok(branch.clone()));
        let of_branch = HandleRecord { label: Some(branch.clone()), ..record() };
        assert_eq!(of_branch.labelled(None), Ok(branch.clone()));
        assert_eq!(of_branch.labelled(Some(&branch)), Ok(branch));
        assert_eq!(of_branch.labelled(Some(&other)), Err(HandleError::OtherLabel));
        assert_eq!(of_branch.labelled(Some(&Label::default())), Err(HandleError::OtherLabel));
    }

    #[test]
    fn handles_are_marked_and_unguessable() {
        let [one, two] = [generate(&SystemRandom), generate(&SystemRandom)];
        assert!(one.expose().starts_with(MARKER) && one.expose().len() == MARKER.len() + 43);
        assert_ne!(digest(one.expose()), digest(two.expose()));
        assert_eq!(without_prefix(&format!("ntn_{}", one.expose())), one.expose());
        assert_eq!(without_prefix("ntn_x"), "ntn_x");
    }

    #[test]
    fn a_prefix_never_hides_the_marker() {
        for good in ["", "ya29.", "xoxb-", "ghp_", "sidekey_h", "A-Z_0.9"] {
            let handle = generate(&SystemRandom);
            let presented = with_prefix(good, &handle);
            assert_eq!(check_prefix(good), Ok(()), "{good}");
            assert_eq!(without_prefix(presented.expose()), handle.expose(), "{good}");
        }
        for bad in ["a b", "a/b", "é", "\n", "x:y", MARKER, &format!("a{MARKER}b"), &"a".repeat(513)] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_handle_shaped_like_a_jwt_survives_a_glance() {
        let prefix = jwt_prefix("https://graph.example");
        assert_eq!(check_prefix(&prefix), Ok(()));
        let handle = generate(&SystemRandom);
        let token = with_prefix(&prefix, &handle);
        let parts: Vec<Vec<u8>> =
            token.expose().split('.').map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64url")).collect();
        assert_eq!(parts.len(), 3);
        let read = |part: &[u8]| serde_json::from_slice::<serde_json::Value>(part).expect("JSON");
        assert_eq!(read(&parts[0])["alg"], "RS256");
        assert_eq!(read(&parts[1])["aud"], "https://graph.example");
        assert!(read(&parts[1])["exp"].as_u64().is_some_and(|exp| exp > 4_000_000_000));
        assert_eq!(without_prefix(token.expose()), handle.expose());
    }
}
