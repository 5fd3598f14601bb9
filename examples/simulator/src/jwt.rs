//! Signing keys, and JSON Web Tokens signed with them (RFC 7515, 7517, 7519).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use crate::random;
use crate::settings::IdTokenAlg;

/// What comes before the point of a P-256 public key (RFC 5480).
const P256_SPKI_START: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\
    \x07\x03\x42\x00";
/// The algorithm identifier of an RSA public key (RFC 3279).
const RSA_ALGORITHM: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// The keys of one simulator.
pub(crate) struct Keys {
    published: Pairs,
    /// Never published.
    other: Pairs,
}

/// One key for each algorithm.
struct Pairs {
    es256: Key,
    rs256: Key,
}

/// A key that signs.
pub(crate) struct Key {
    /// How a token's header names it.
    id: String,
    signer: Signer,
}

enum Signer {
    Es256(Box<EcdsaKeyPair>),
    Rs256(Box<RsaKeyPair>),
}

impl Keys {
    /// New ES256 keys. `ring` makes no RSA keys, so those are always the same; they guard nothing.
    pub(crate) fn new() -> Keys {
        let pairs = |rs256: &[u8]| Pairs { es256: Key::new(new_p256()), rs256: Key::new(fixed_rsa(rs256)) };
        Keys {
            published: pairs(include_bytes!("keys/rs256.der")),
            other: pairs(include_bytes!("keys/rs256-other.der")),
        }
    }

    /// The published key for an algorithm.
    pub(crate) fn published(&self, alg: IdTokenAlg) -> &Key {
        self.published.of(alg)
    }

    /// One that nobody was told of.
    pub(crate) fn other(&self, alg: IdTokenAlg) -> &Key {
        self.other.of(alg)
    }

    /// The published keys as a JWK set.
    pub(crate) fn set(&self) -> Value {
        json!({"keys": [self.published.es256.jwk(), self.published.rs256.jwk()]})
    }
}

impl Pairs {
    fn of(&self, alg: IdTokenAlg) -> &Key {
        match alg {
            IdTokenAlg::Es256 => &self.es256,
            IdTokenAlg::Rs256 => &self.rs256,
        }
    }
}

impl Key {
    fn new(signer: Signer) -> Key {
        let hash = random::sha256_hex(&random::hex(signer.public()));
        Key { id: hash[..16].to_owned(), signer }
    }

    /// What a header says about this key.
    pub(crate) fn header(&self) -> Value {
        json!({"alg": self.signer.alg(), "typ": "JWT", "kid": self.id})
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.signer {
            Signer::Es256(pair) => {
                let signature = pair.sign(&random, message).expect("the operating system gives random bytes");
                signature.as_ref().to_vec()
            }
            Signer::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
                signed.expect("the signature is as long as the modulus");
                signature
            }
        }
    }

    /// The public key as everybody writes it: what a confused verifier would take for a shared secret.
    pub(crate) fn public_pem(&self) -> String {
        let encoded = STANDARD.encode(self.signer.spki());
        let lines: Vec<&str> =
            (0..encoded.len()).step_by(64).map(|at| &encoded[at..encoded.len().min(at + 64)]).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    fn jwk(&self) -> Value {
        let mut jwk = json!({"kid": self.id, "use": "sig", "alg": self.signer.alg()});
        let mut set = |name: &str, value: &str| jwk[name] = json!(value);
        match &self.signer {
            Signer::Es256(pair) => {
                // 0x04, then both coordinates.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                set("kty", "EC");
                set("crv", "P-256");
                set("x", &URL_SAFE_NO_PAD.encode(x));
                set("y", &URL_SAFE_NO_PAD.encode(y));
            }
            Signer::Rs256(pair) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                set("kty", "RSA");
                set("n", &URL_SAFE_NO_PAD.encode(public.n));
                set("e", &URL_SAFE_NO_PAD.encode(public.e));
            }
        }
        jwk
    }
}

impl Signer {
    fn alg(&self) -> &'static str {
        match self {
            Signer::Es256(_) => "ES256",
            Signer::Rs256(_) => "RS256",
        }
    }

    fn public(&self) -> &[u8] {
        match self {
            Signer::Es256(pair) => pair.public_key().as_ref(),
            Signer::Rs256(pair) => pair.public_key().as_ref(),
        }
    }

    /// The public key as a `SubjectPublicKeyInfo`.
    fn spki(&self) -> Vec<u8> {
        match self {
            Signer::Es256(_) => [P256_SPKI_START, self.public()].concat(),
            Signer::Rs256(_) => {
                // No bit of the last byte is unused.
                let bits = der(0x03, &[&[0], self.public()].concat());
                der(0x30, &[RSA_ALGORITHM, &bits].concat())
            }
        }
    }
}

/// Header, claims and signature, joined.
pub(crate) fn joined(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn new_p256() -> Signer {
    let random = SystemRandom::new();
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
    let pkcs8 = made.expect("the operating system gives random bytes");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
    Signer::Es256(Box::new(pair.expect("a key that was just made is good")))
}

fn fixed_rsa(pkcs8: &[u8]) -> Signer {
    Signer::Rs256(Box::new(RsaKeyPair::from_pkcs8(pkcs8).expect("the keys in this crate are good")))
}

/// One DER value of less than 64 KiB and more than 255 bytes.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("public keys are short").to_be_bytes();
    [&[tag, 0x82], length.as_slice(), content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rsa_key_is_written_as_openssl_writes_it() {
        let key = Key::new(fixed_rsa(include_bytes!("keys/rs256.der")));
        // openssl pkey -inform DER -in rs256.der -pubout | sha256sum
        assert_eq!(
            random::sha256_hex(&key.public_pem()),
            "d09ebd924879785333466b4fd448d35df9be5f99e536bb0187230acce30740d5"
        );
    }
}
