//! SHA-256 and HMAC-SHA-256, and how they are written.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac};

use crate::base::secret::{Secret, SecretKey};

/// A SHA-256 digest. What we hold of a secret that is only ever compared.
pub type Digest = [u8; 32];

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// SHA-256 of `bytes` as 43 base64url characters (the form of a PKCE challenge, RFC 7636 section 4.2).
pub fn sha256_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(sha256(bytes))
}

/// A key that signs short messages for one purpose.
pub struct SigningKey(hmac::Key);

impl SigningKey {
    /// Derives the key for one `purpose`, so that a signature made for one never passes for another.
    pub fn derive(master: &SecretKey, purpose: &str) -> Self {
        let master = hmac::Key::new(hmac::HMAC_SHA256, master.expose());
        let derived = hmac::sign(&master, purpose.as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// A key that another party signs with too.
    pub fn shared(secret: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()))
    }

    /// HMAC-SHA-256 of `message`.
    pub fn sign(&self, message: &[u8]) -> Digest {
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&self.0, message).as_ref());
        out
    }

    /// Whether `signature` belongs to `message`; takes the same time wherever they differ.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        hmac::verify(&self.0, message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_of_rfc_7636_appendix_b() {
        let verifier = b"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(sha256_base64url(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn keys_of_different_purposes_do_not_accept_each_other() {
        let master = SecretKey::new([1; 32]);
        let (state, link) = (SigningKey::derive(&master, "state"), SigningKey::derive(&master, "link"));
        let signature = state.sign(b"message");
        assert!(state.verify(b"message", &signature));
        assert!(!state.verify(b"messagf", &signature));
        assert!(!link.verify(b"message", &signature));
    }
}
