//! SHA-256 and HMAC-SHA-256, and how they are written.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;
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

/// SHA-256 of what comes in pieces.
pub struct Sha256(digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Sha256 {
    /// Nothing has come yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all pieces, in hexadecimal digits.
    pub fn finish_hex(self) -> String {
        HEXLOWER.encode(self.0.finish().as_ref())
    }
}

/// SHA-256 of `bytes` as 43 base64url characters (the form of a PKCE challenge, RFC 7636 section 4.2).
pub fn sha256_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(sha256(bytes))
}

/// A key that signs short messages for one purpose; what its predecessors have signed is still accepted.
pub struct SigningKey {
    key: hmac::Key,
    former: Vec<hmac::Key>,
}

impl SigningKey {
    /// Derives the key for one `purpose`, so that a signature made for one never passes for another.
    pub fn derive(master: &SecretKey, purpose: &str) -> Self {
        Self { key: derive(master, purpose), former: Vec::new() }
    }

    /// The same, accepting too what was signed with a key that was derived from one of these.
    pub fn accepting<'m>(self, former: impl Iterator<Item = &'m SecretKey>, purpose: &str) -> Self {
        Self { former: former.map(|master| derive(master, purpose)).collect(), ..self }
    }

    /// A key that another party signs with too.
    pub fn shared(secret: &Secret) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()), former: Vec::new() }
    }

    /// HMAC-SHA-256 of `message`.
    pub fn sign(&self, message: &[u8]) -> Digest {
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&self.key, message).as_ref());
        out
    }

    /// Whether `signature` belongs to `message`; takes the same time wherever they differ.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        std::iter::once(&self.key).chain(&self.former).any(|key| hmac::verify(key, message, signature).is_ok())
    }
}

fn derive(master: &SecretKey, purpose: &str) -> hmac::Key {
    let master = hmac::Key::new(hmac::HMAC_SHA256, master.expose());
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&master, purpose.as_bytes()).as_ref())
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

    #[test]
    fn what_a_former_key_signed_is_accepted_until_it_is_gone() {
        let (old, new) = (SecretKey::new([1; 32]), SecretKey::new([2; 32]));
        let signature = SigningKey::derive(&old, "state").sign(b"message");
        let alone = SigningKey::derive(&new, "state");
        assert!(!alone.verify(b"message", &signature));
        let both = alone.accepting(std::iter::once(&old), "state");
        assert!(both.verify(b"message", &signature));
        assert_ne!(both.sign(b"message"), signature, "the first one signs");
        let other = SigningKey::derive(&new, "link").accepting(std::iter::once(&old), "link");
        assert!(!other.verify(b"message", &signature));
    }
}
