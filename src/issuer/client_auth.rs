//! How a client proves who it is at the token endpoint and its relatives (RFC 6749 section 2.3, RFC 7523 section 3).

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordVerifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Issuer;
use super::clients::ClientError;
use super::error::OAuthError;
use super::parameters::Parameters;
use crate::base::clock::Timestamp;
use crate::base::digest::{Digest, sha256};
use crate::base::jws::{self, Algorithm, KeySet};
use crate::base::secret::Secret;
use crate::model::client::{Client, ClientAuthentication, ClientKeys, SecretVerifier};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// An assertion is good for at most so many seconds.
const LONGEST_ASSERTION: i64 = 600;
/// How far clocks may differ, in seconds.
const SKEW: i64 = 30;

/// What a client presented.
#[derive(Clone, Debug)]
pub struct Credentials {
    client_id: String,
    proof: Proof,
    is_basic: bool,
    is_suspect: bool,
}

#[derive(Clone, Debug)]
enum Proof {
    None,
    Secret(Secret),
    Assertion(Secret),
}

impl Credentials {
    /// Reads them from the request. More than one kind at once is refused. For who `is_suspect` nothing slow is done later.
    pub fn read(authorization: &[&str], parameters: &Parameters, is_suspect: bool) -> Result<Self, OAuthError> {
        let invalid = |why: &str| OAuthError::InvalidRequest(why.to_owned());
        let client_id = parameters.one("client_id")?;
        let secret = parameters.one("client_secret")?;
        let assertion = parameters.one("client_assertion")?;
        let basic = match authorization {
            [] => None,
            [one] => Some(basic(one).ok_or(OAuthError::InvalidClient {
                why: "the Authorization header is not a Basic one that can be read",
                is_basic: true,
            })?),
            _ => return Err(invalid("the Authorization header is there twice")),
        };
        match (basic, secret, assertion) {
            (Some((id, _)), None, None) if client_id.is_some_and(|other| other != id) => {
                Err(invalid("client_id differs from the one in the Authorization header"))
            }
            (Some((client_id, secret)), None, None) => {
                Ok(Self { client_id, proof: Proof::Secret(secret), is_basic: true, is_suspect })
            }
            (None, None, Some(assertion)) => {
                if parameters.one("client_assertion_type")? != Some(ASSERTION_TYPE) {
                    return Err(invalid("client_assertion_type is not the one for JWTs"));
                }
                let assertion = Secret::new(assertion);
                let client_id = match client_id {
                    Some(client_id) => client_id.to_owned(),
                    None => unverified_subject(&assertion).ok_or_else(|| invalid("client_id is missing"))?,
                };
                Ok(Self { client_id, proof: Proof::Assertion(assertion), is_basic: false, is_suspect })
            }
            (None, secret, None) => {
                let client_id = client_id.ok_or_else(|| invalid("client_id is missing"))?.to_owned();
                let proof = secret.map_or(Proof::None, |secret| Proof::Secret(Secret::new(secret)));
                Ok(Self { client_id, proof, is_basic: false, is_suspect })
            }
            _ => Err(invalid("more than one way of client authentication is used")),
        }
    }

    fn refused(&self, why: &'static str) -> OAuthError {
        OAuthError::InvalidClient { why, is_basic: self.is_basic }
    }
}

/// RFC 6749 section 2.3.1: both halves are form-encoded, though not every client does so; our ids and secrets are the same
/// either way.
fn basic(header: &str) -> Option<(String, Secret)> {
    let encoded = header.get(..6).filter(|scheme| scheme.eq_ignore_ascii_case("basic ")).and(header.get(6..))?;
    let decoded = zeroize::Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
    };
    Some((decode(id)?, Secret::new(decode(secret)?)))
}

/// `sub` of an assertion, to know whose keys to verify it with.
fn unverified_subject(assertion: &Secret) -> Option<String> {
    let claims = assertion.expose().split('.').nth(1)?;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims.get("sub")?.as_str().filter(|sub| sub.len() <= 512).map(str::to_owned)
}

impl Issuer {
    /// The client that the credentials prove.
    pub async fn authenticate(&self, credentials: &Credentials) -> Result<Arc<Client>, OAuthError> {
        let client = self.clients.known(&credentials.client_id).await.map_err(|error| match error {
            ClientError::Unknown => credentials.refused("the client is not registered here"),
            ClientError::Document(_) => credentials.refused("the client's document cannot be used"),
            ClientError::Store(error) => OAuthError::Store(error),
        })?;
        match (&client.authentication, &credentials.proof) {
            (ClientAuthentication::None, Proof::None) => {}
            (ClientAuthentication::None, _) => {
                return Err(credentials.refused("the client is a public one and must not authenticate"));
            }
            (ClientAuthentication::Secret(verifier), Proof::Secret(secret)) => {
                if !self.is_secret(&client, verifier, secret, credentials.is_suspect).await {
                    return Err(credentials.refused("the client secret is wrong"));
                }
            }
            (ClientAuthentication::PrivateKeyJwt(keys), Proof::Assertion(assertion)) => {
                self.check_assertion(&client, keys, assertion).await.map_err(|why| credentials.refused(why))?;
            }
            _ => return Err(credentials.refused("the client must authenticate in the way it is registered for")),
        }
        Ok(client)
    }

    async fn is_secret(&self, client: &Client, verifier: &SecretVerifier, secret: &Secret, is_suspect: bool) -> bool {
        let presented = sha256(secret.expose().as_bytes());
        match verifier {
            SecretVerifier::Sha256(digest) => equal(digest, &presented),
            SecretVerifier::Argon2(hash) => {
                self.secrets.is_known(client, &presented)
                    || (!is_suspect && self.secrets.verify(client, hash, secret, presented).await)
            }
        }
    }

    async fn check_assertion(
        &self,
        client: &Client,
        keys: &ClientKeys,
        assertion: &Secret,
    ) -> Result<(), &'static str> {
        const NO_KEYS: &str = "the client's keys cannot be had";
        let verified = match keys {
            ClientKeys::Inline(set) => {
                jws::verify(assertion.expose(), &KeySet::from_json(set).map_err(|_| NO_KEYS)?, &Algorithm::ALL)
            }
            ClientKeys::Url(url) => {
                let documents = &self.clients.documents;
                let set = documents.keys(url).await.map_err(|_| NO_KEYS)?;
                match jws::verify(assertion.expose(), &set, &Algorithm::ALL) {
                    Ok(verified) => Ok(verified),
                    Err(why) => match documents.newer_keys(url).await {
                        Some(set) => jws::verify(assertion.expose(), &set, &Algorithm::ALL),
                        None => Err(why),
                    },
                }
            }
        };
        let claims = verified.map_err(|_| "the client assertion is not signed by the client")?.claims;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(&client.id) || text("sub") != Some(&client.id) {
            return Err("the client assertion is about another client");
        }
        let issuer = &self.parts.settings.issuer;
        let token_endpoint = format!("{issuer}/token");
        if !jws::has_sole_audience(&claims, issuer) && !jws::has_sole_audience(&claims, &token_endpoint) {
            return Err("the client assertion is for somebody else");
        }
        let now = self.parts.clock.now().as_seconds();
        let expires = jws::seconds(&claims, "exp").ok_or("the client assertion has no `exp`")?;
        let not_yet = ["nbf", "iat"].iter().any(|name| {
            claims.contains_key(*name) && jws::seconds(&claims, name).is_none_or(|begins| begins > now + SKEW)
        });
        if expires + SKEW <= now || expires > now + LONGEST_ASSERTION + SKEW || not_yet {
            return Err("the client assertion is expired, not valid yet, or valid for too long");
        }
        let id = text("jti").filter(|id| !id.is_empty()).ok_or("the client assertion has no `jti`")?;
        let digest = sha256(format!("{}\0{id}", client.id).as_bytes());
        let until = Timestamp::from_millis((expires + SKEW).saturating_mul(1000));
        match self.parts.store.use_assertion(digest, until).await {
            Ok(true) => Ok(()),
            Ok(false) => Err("the client assertion was used before"),
            Err(_) => Err("the client assertion could not be recorded as used"),
        }
    }
}

/// Compares in a time that does not depend on where two digests differ.
fn equal(left: &Digest, right: &Digest) -> bool {
    left.iter().zip(right).fold(0, |difference, (left, right)| difference | (left ^ right)) == 0
}

/// Verifies argon2 hashes: few at a time, since each takes time and memory on purpose; a secret that was right once is
/// recognized by its digest from then on.
pub struct Secrets {
    permits: tokio::sync::Semaphore,
    right: dashmap::DashMap<String, Digest>,
}

impl Secrets {
    pub fn new() -> Self {
        Self { permits: tokio::sync::Semaphore::new(2), right: dashmap::DashMap::new() }
    }

    fn is_known(&self, client: &Client, presented: &Digest) -> bool {
        self.right.get(&client.id).is_some_and(|known| equal(&known, presented))
    }

    async fn verify(&self, client: &Client, hash: &Secret, secret: &Secret, presented: Digest) -> bool {
        let Ok(_permit) = self.permits.acquire().await else { return false };
        let (hash, secret) = (hash.clone(), secret.clone());
        let verified = tokio::task::spawn_blocking(move || {
            let hash = PasswordHash::new(hash.expose());
            hash.is_ok_and(|hash| Argon2::default().verify_password(secret.expose().as_bytes(), &hash).is_ok())
        });
        let is_right = verified.await.unwrap_or(false);
        if is_right {
            self.right.insert(client.id.clone(), presented);
        }
        is_right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(authorization: &[&str], form: &str) -> Result<Credentials, OAuthError> {
        Credentials::read(authorization, &Parameters::from_form(form.as_bytes()), false)
    }

    fn header(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn credentials_come_in_one_way() {
        let public = read(&[], "client_id=a").expect("read");
        assert!(public.client_id == "a" && matches!(public.proof, Proof::None));
        let basic = read(&[&header("a:s%2Bx+y")], "client_id=a").expect("read");
        assert!(matches!(&basic.proof, Proof::Secret(secret) if secret.expose() == "s+x y"));
        for (authorization, form) in [
            (vec![header("a:b")], "client_id=a&client_secret=b"),
            (vec![header("a:b")], "client_id=other"),
            (vec![header("a:b"), header("a:b")], ""),
            (vec![], "client_id=a&client_id=a"),
            (vec![], "client_secret=b"),
            (vec![], "client_id=a&client_assertion=x"),
            (vec![], ""),
        ] {
            let authorization: Vec<&str> = authorization.iter().map(String::as_str).collect();
            let error = read(&authorization, form).expect_err(form);
            assert!(matches!(error, OAuthError::InvalidRequest(_)), "{form}: {error:?}");
        }
        for odd in ["Bearer x", "Basic !", "Basic", "é"] {
            let error = read(&[odd], "").expect_err(odd);
            assert_eq!(error.parts().0, 401, "{odd}");
        }
    }
}
