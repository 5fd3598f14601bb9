//! Signed JSON in compact form (JWS, RFC 7515) with RS256, PS256 and ES256, and the public keys as JWK sets (RFC 7517).
//!
//! Reading follows RFC 8725: the algorithm comes from the key and from what the caller allows, never from the token; the
//! header must hold nothing that would have us fetch or believe another key; members may not be repeated.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::base::digest::sha256_base64url;
use crate::base::secret::Secret;

/// A signature algorithm (RFC 7518 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl Algorithm {
    /// All that can be verified.
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Ps256, Self::Es256];

    /// The name in a header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// A private key that signs.
pub struct Signer {
    key: PrivateKey,
    jwk: Value,
    kid: String,
}

enum PrivateKey {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl Signer {
    /// From a private key in PEM (PKCS#8): RSA of at least 2048 bits, or EC on P-256. The error says what is wrong.
    pub fn from_pem(pem: &Secret) -> Result<Self, String> {
        const EXPECTED: &str = "expected a private key in PKCS#8 PEM: EC on P-256, or RSA of 2048 to 4096 bits";
        let body: String = pem.expose().lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
        let labelled = pem.expose().contains("-----BEGIN PRIVATE KEY-----");
        let der = STANDARD.decode(body).map_err(|_| EXPECTED.to_owned())?;
        let der = zeroize::Zeroizing::new(der);
        if !labelled {
            return Err(EXPECTED.to_owned());
        }
        let scheme = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(scheme, &der, &SystemRandom::new()) {
            let (x, y) = key.public_key().as_ref()[1..].split_at(32);
            let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
            // The thumbprint (RFC 7638) has its members in this order.
            let kid = sha256_base64url(format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).as_bytes());
            let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "sig", "alg": "ES256", "kid": kid });
            return Ok(Self { key: PrivateKey::Ec(key), jwk, kid });
        }
        let key = RsaKeyPair::from_pkcs8(&der).map_err(|_| EXPECTED.to_owned())?;
        let public = PublicKeyComponents::<Vec<u8>>::from(key.public());
        let (n, e) = (URL_SAFE_NO_PAD.encode(public.n), URL_SAFE_NO_PAD.encode(public.e));
        let kid = sha256_base64url(format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#).as_bytes());
        let jwk = json!({ "kty": "RSA", "n": n, "e": e, "use": "sig", "alg": "RS256", "kid": kid });
        Ok(Self { key: PrivateKey::Rsa(key), jwk, kid })
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        match self.key {
            PrivateKey::Rsa(_) => Algorithm::Rs256,
            PrivateKey::Ec(_) => Algorithm::Es256,
        }
    }

    /// The public key, for a JWK set.
    pub fn public_jwk(&self) -> &Value {
        &self.jwk
    }

    /// Signs `claims`; `kind` is the `typ` of the header.
    pub fn sign(&self, kind: &str, claims: &Value) -> Result<Secret, String> {
        let header = json!({ "alg": self.algorithm().name(), "typ": kind, "kid": self.kid });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut text = format!("{}.{}", encode(&header), encode(claims));
        let random = SystemRandom::new();
        let failed = |_| "the key does not sign".to_owned();
        let signature = match &self.key {
            PrivateKey::Ec(key) => key.sign(&random, text.as_bytes()).map_err(failed)?.as_ref().to_vec(),
            PrivateKey::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&signature::RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).map_err(failed)?;
                signature
            }
        };
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(Secret::new(text))
    }
}

/// Makes a private key on P-256, as PKCS#8 in PEM.
pub fn generate_p256() -> Result<Secret, String> {
    let scheme = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let der = EcdsaKeyPair::generate_pkcs8(scheme, &SystemRandom::new()).map_err(|error| error.to_string())?;
    let body = zeroize::Zeroizing::new(STANDARD.encode(der.as_ref()));
    let lines: Vec<&str> = body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    Ok(Secret::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))))
}

/// A set of public keys.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<PublicKey>);

#[derive(Clone, Debug)]
struct PublicKey {
    kid: Option<String>,
    algorithm: Option<String>,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
}

impl KeySet {
    /// Reads a JWK set. Keys of kinds that we do not know are left out; a private key in it is an error, since whoever
    /// publishes one has lost it.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let keys = value.get("keys").and_then(Value::as_array).ok_or("not a JWK set: there is no list `keys`")?;
        let is_private = |key: &Value| ["d", "p", "q", "k"].iter().any(|member| key.get(*member).is_some());
        if keys.iter().any(is_private) {
            return Err("the JWK set holds a private or symmetric key".to_owned());
        }
        Ok(Self(keys.iter().take(64).filter_map(PublicKey::read).collect()))
    }

    /// Whether there is no key of use.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PublicKey {
    fn read(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let material = match text("kty")? {
            "RSA" => Material::Rsa { n: bytes("n")?, e: bytes("e")? },
            "EC" if text("crv")? == "P-256" => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                (x.len() == 32 && y.len() == 32).then(|| Material::P256([vec![4], x, y].concat()))?
            }
            _ => return None,
        };
        Some(Self { kid: text("kid").map(str::to_owned), algorithm: text("alg").map(str::to_owned), material })
    }

    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if self.algorithm.as_deref().is_some_and(|declared| declared != algorithm.name()) {
            return false;
        }
        match (&self.material, algorithm) {
            (Material::Rsa { n, e }, Algorithm::Rs256) => {
                let key = signature::RsaPublicKeyComponents { n, e };
                key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            (Material::Rsa { n, e }, Algorithm::Ps256) => {
                let key = signature::RsaPublicKeyComponents { n, e };
                key.verify(&signature::RSA_PSS_2048_8192_SHA256, message, signature).is_ok()
            }
            (Material::P256(point), Algorithm::Es256) => {
                let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// What a verified token says.
#[derive(Clone, Debug)]
pub struct Verified {
    /// `typ` of the header, in lower case.
    pub kind: Option<String>,
    /// The claims.
    pub claims: Map<String, Value>,
}

/// Longer tokens are not looked at.
const LONGEST: usize = 16_384;

/// Verifies the signature of a token; what the claims say is the caller's business.
pub fn verify(token: &str, keys: &KeySet, allowed: &[Algorithm]) -> Result<Verified, &'static str> {
    if token.len() > LONGEST {
        return Err("the token is too long");
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("not a signed token");
    };
    let message = &token.as_bytes()[..header.len() + 1 + claims.len()];
    let (header, claims) = (object(header)?, object(claims)?);
    if header.contains_key("crit") {
        return Err("the header asks for an extension");
    }
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    let algorithm = text("alg").and_then(Algorithm::from_name).filter(|algorithm| allowed.contains(algorithm));
    let algorithm = algorithm.ok_or("the algorithm is not allowed")?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "not a signed token")?;
    let kid = text("kid");
    // `jku`, `jwk` and `x5u` are not looked at: keys come from the caller alone.
    let is_candidate = |key: &&PublicKey| kid.is_none() || key.kid.is_none() || key.kid.as_deref() == kid;
    let mut candidates = keys.0.iter().filter(is_candidate);
    if candidates.any(|key| key.verifies(algorithm, message, &signature)) {
        Ok(Verified { kind: text("typ").map(str::to_ascii_lowercase), claims })
    } else {
        Err("the signature does not fit any of the keys")
    }
}

/// A claim that is a point in time, in whole seconds (RFC 7519 section 2): a number, and one that a clock can show.
pub fn seconds(claims: &Map<String, Value>, name: &str) -> Option<i64> {
    let number = claims.get(name)?;
    let seconds = number.as_i64().or_else(|| {
        let number = number.as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "checked to be within bounds")]
        (number.is_finite() && number.abs() < 1e12).then_some(number as i64)
    })?;
    (0..1_000_000_000_000).contains(&seconds).then_some(seconds)
}

/// Whether `aud` names `audience` and nobody else: a token for several could be passed on by each of them.
pub fn has_sole_audience(claims: &Map<String, Value>, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(only)) => only == audience,
        Some(Value::Array(all)) => all.len() == 1 && all[0] == audience,
        _ => false,
    }
}

fn object(part: &str) -> Result<Map<String, Value>, &'static str> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| "not a signed token")?;
    let strict: StrictObject = serde_json::from_slice(&bytes).map_err(|_| "a part of the token is no JSON object")?;
    Ok(strict.0)
}

/// A JSON object without repeated members (RFC 7515 section 4): two readers must not see different ones.
pub struct StrictObject(pub Map<String, Value>);

impl<'de> Deserialize<'de> for StrictObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Map<String, Value>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a member is there twice"));
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::from_pem(&generate_p256().expect("a key")).expect("a signer")
    }

    fn keys(signers: &[&Signer]) -> KeySet {
        let keys: Vec<&Value> = signers.iter().map(|signer| signer.public_jwk()).collect();
        KeySet::from_json(&json!({ "keys": keys })).expect("a set")
    }

    fn with_header(token: &str, header: &Value) -> String {
        let rest = token.split_once('.').expect("parts").1;
        format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
    }

    #[test]
    fn what_is_signed_is_verified() {
        let signer = signer();
        let token = signer.sign("at+jwt", &json!({ "sub": "alice" })).expect("signed");
        let verified = verify(token.expose(), &keys(&[&signer]), &Algorithm::ALL).expect("good");
        assert_eq!((verified.kind.as_deref(), &verified.claims["sub"]), (Some("at+jwt"), &json!("alice")));
        assert!(verify(token.expose(), &keys(&[&self::signer()]), &Algorithm::ALL).is_err(), "another key");
        assert!(verify(token.expose(), &keys(&[&signer]), &[Algorithm::Rs256]).is_err(), "not allowed");
    }

    #[test]
    fn every_change_is_noticed() {
        let signer = signer();
        let token = signer.sign("JWT", &json!({ "sub": "alice" })).expect("signed");
        for at in 0..token.expose().len() {
            let mut bytes = token.expose().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert!(verify(&changed, &keys(&[&signer]), &Algorithm::ALL).is_err(), "{at}");
        }
    }

    #[test]
    fn headers_decide_nothing() {
        let (signer, evil) = (signer(), signer());
        let token = evil.sign("at+jwt", &json!({ "sub": "root" })).expect("signed");
        let unsigned = json!({ "alg": "none" });
        for header in [
            unsigned,
            json!({ "alg": "HS256", "kid": signer.kid }),
            json!({ "alg": "ES256", "jwk": evil.public_jwk() }),
            json!({ "alg": "ES256", "jku": "https://evil.example/jwks.json" }),
            json!({ "alg": "ES256", "x5u": "https://evil.example/x" }),
            json!({ "alg": "ES256", "kid": "../../etc/passwd" }),
            json!({ "alg": "ES256", "crit": ["b64"], "b64": false }),
            json!({ "alg": ["ES256"] }),
            json!({}),
        ] {
            assert!(verify(&with_header(token.expose(), &header), &keys(&[&signer]), &Algorithm::ALL).is_err());
        }
        for junk in ["", ".", "..", "a.b", "a.b.c.d", "é.é.é", &"a".repeat(20_000)] {
            assert!(verify(junk, &keys(&[&signer]), &Algorithm::ALL).is_err());
        }
    }

    #[test]
    fn repeated_members_are_refused() {
        assert!(object(&URL_SAFE_NO_PAD.encode(r#"{"sub":"a","sub":"b"}"#)).is_err());
        assert!(object(&URL_SAFE_NO_PAD.encode("[1]")).is_err());
    }

    #[test]
    fn times_are_numbers_within_bounds() {
        let read = |text: &str| seconds(&serde_json::from_str(text).expect("JSON"), "exp");
        assert_eq!(read(r#"{"exp":1700000000}"#), Some(1_700_000_000));
        assert_eq!(read(r#"{"exp":1700000000.5}"#), Some(1_700_000_000));
        for bad in [r#"{"exp":"1700000000"}"#, r#"{"exp":1e40}"#, r#"{"exp":-1}"#, r#"{"exp":null}"#, "{}"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_audience_is_one() {
        let claims = |text: &str| serde_json::from_str(text).expect("JSON");
        assert!(
            has_sole_audience(&claims(r#"{"aud":"a"}"#), "a") && has_sole_audience(&claims(r#"{"aud":["a"]}"#), "a")
        );
        assert!(!has_sole_audience(&claims(r#"{"aud":["a","b"]}"#), "a") && !has_sole_audience(&claims("{}"), "a"));
    }

    #[test]
    fn sets_with_private_keys_are_refused() {
        assert!(KeySet::from_json(&json!({ "keys": [{ "kty": "EC", "d": "x" }] })).is_err());
        assert!(KeySet::from_json(&json!({ "keys": [{ "kty": "oct", "k": "x" }] })).is_err());
        assert!(KeySet::from_json(&json!({})).is_err());
        assert!(KeySet::from_json(&json!({ "keys": [{ "kty": "OKP" }] })).expect("a set").is_empty());
    }
}
