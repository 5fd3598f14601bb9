//! Who the user is: the account at the one provider that the operator chose for it.
//!
//! An account is known by its issuer and by the identifier that the issuer never gives to anybody else; names and mail
//! addresses are for showing only. The subject is made from those two, so the same account is the same subject on every
//! device and for every client.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dashmap::DashMap;
use data_encoding::BASE32_NOPAD;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::base::clock::{Clock, Timestamp};
use crate::base::digest::sha256;
use crate::base::http::{HttpClient, Request};
use crate::base::jws::{self, Algorithm, KeySet};
use crate::base::safe_url::SafeUrl;
use crate::base::shown::shown;
use crate::catalogue::Provider;
use crate::catalogue::entry::{Identity, IdentitySource};
use crate::model::authorization::User;
use crate::model::names::Subject;
use crate::oauth::token_response::{TokenReply, text_or_number};

/// An account at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Whose accounts these are.
    pub issuer: String,
    /// Its identifier there.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
}

impl Account {
    /// The user whose account it is. The subject is made from issuer and identifier.
    pub fn user(self) -> User {
        // With its length in front, so that no two pairs share their bytes.
        let digest = sha256(format!("{}:{}{}", self.issuer.len(), self.issuer, self.id).as_bytes());
        let name = BASE32_NOPAD.encode(&digest[..16]).to_lowercase();
        let subject: Subject = format!("user:{name}").parse().expect("letters, digits and a colon");
        User { subject, account: self.name }
    }
}

/// Why nobody is identified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityError(String);

impl std::fmt::Display for IdentityError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Finds out whose account a token reply belongs to.
pub struct Accounts {
    http: Arc<dyn HttpClient>,
    clock: Arc<dyn Clock>,
    keys: DashMap<String, (KeySet, Timestamp)>,
}

/// A key set is fetched again after so long, and when a token is signed with a key that it does not hold.
const KEYS_LIFETIME: Duration = Duration::from_secs(3600);
/// But never more often than this.
const KEYS_PAUSE: Duration = Duration::from_secs(30);
/// How far clocks may differ.
const SKEW: i64 = 60;
/// How long a browser waits for a name to be shown.
const PATIENCE_FOR_A_NAME: Duration = Duration::from_secs(5);
/// Longer identifiers and names are not accounts.
const LONGEST: usize = 255;

impl Accounts {
    /// Knows nobody yet.
    pub fn new(http: Arc<dyn HttpClient>, clock: Arc<dyn Clock>) -> Self {
        Self { http, clock, keys: DashMap::new() }
    }

    /// The account behind the reply to a code exchange. `nonce` is what the authorization request said.
    pub async fn identify(
        &self,
        provider: &Provider,
        reply: &TokenReply,
        nonce: &str,
    ) -> Result<Account, IdentityError> {
        let identity = provider.entry.identity.as_ref();
        let identity = identity.ok_or_else(|| wrong("the provider's entry does not say how it identifies users"))?;
        let (id, name) = match identity.source {
            IdentitySource::TokenResponse => {
                reply.account.clone().ok_or_else(|| wrong("the token reply names no account"))?
            }
            IdentitySource::IdToken => self.of_id_token(provider, identity, reply, nonce).await?,
            IdentitySource::Userinfo => self.of_userinfo(provider, reply).await?,
        };
        if id.is_empty() || id.len() > LONGEST {
            return Err(wrong("the account's identifier is empty or too long"));
        }
        Ok(Account { issuer: identity.issuer.clone(), id, name: fit_to_show(name) })
    }

    /// What people call the account behind the reply to a code exchange, for showing only. Where the reply does not say it, the
    /// provider is asked; a browser waits, and nothing depends on it, so not for long.
    pub async fn shown_name(&self, provider: &Provider, reply: &TokenReply) -> Option<String> {
        let has_name = provider.entry.userinfo.as_ref().is_some_and(|userinfo| userinfo.display_name.is_some());
        let name = match name_in_reply(provider, reply) {
            None if has_name => {
                let asked = tokio::time::timeout(PATIENCE_FOR_A_NAME, self.of_userinfo(provider, reply)).await;
                asked.ok()?.ok()?.1
            }
            said => said,
        };
        fit_to_show(name)
    }

    /// OpenID Connect Core section 3.1.3.7.
    async fn of_id_token(
        &self,
        provider: &Provider,
        identity: &Identity,
        reply: &TokenReply,
        nonce: &str,
    ) -> Result<(String, Option<String>), IdentityError> {
        let token = reply.id_token.as_ref().ok_or_else(|| wrong("the token reply holds no ID token"))?;
        let url = identity.jwks_url.as_ref().ok_or_else(|| wrong("the entry names no `jwks_url`"))?;
        let claims = match jws::verify(token.expose(), &self.keys(url, false).await?, &Algorithm::ALL) {
            Ok(verified) => verified.claims,
            // The provider may have begun to sign with a new key.
            Err(_) => {
                let verified = jws::verify(token.expose(), &self.keys(url, true).await?, &Algorithm::ALL);
                verified.map_err(|why| wrong(&format!("the ID token is not good: {why}")))?.claims
            }
        };
        let now = self.clock.now().as_seconds();
        let authorized_party = claims.get("azp");
        let faults = [
            ("iss", claims.get("iss").and_then(Value::as_str) != Some(&identity.issuer)),
            ("aud", !jws::has_sole_audience(&claims, &provider.client.id)),
            ("azp", authorized_party.is_some_and(|party| *party != provider.client.id.as_str())),
            ("exp", jws::seconds(&claims, "exp").is_none_or(|expires| expires + SKEW <= now)),
            ("iat", jws::seconds(&claims, "iat").is_none_or(|issued| issued > now + SKEW)),
            ("nonce", claims.get("nonce").and_then(Value::as_str) != Some(nonce)),
        ];
        if let Some((claim, _)) = faults.iter().find(|(_, is_wrong)| *is_wrong) {
            return Err(wrong(&format!("the ID token's `{claim}` is missing or wrong")));
        }
        let claims = Value::Object(claims);
        let id = claims.pointer(&identity.account).and_then(text_or_number);
        let id = id.ok_or_else(|| wrong("the ID token names no account"))?;
        Ok((id, text_at(&claims, identity.display_name.as_deref())))
    }

    async fn of_userinfo(
        &self,
        provider: &Provider,
        reply: &TokenReply,
    ) -> Result<(String, Option<String>), IdentityError> {
        let userinfo = provider.entry.userinfo.as_ref().ok_or_else(|| wrong("the entry has no [userinfo]"))?;
        let bearer = Zeroizing::new(format!("Bearer {}", reply.tokens.access_token.expose()));
        let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| wrong("the access token fits into no header"))?;
        bearer.set_sensitive(true);
        let headers =
            HeaderMap::from_iter([(AUTHORIZATION, bearer), (ACCEPT, HeaderValue::from_static("application/json"))]);
        let answer = self.get(&userinfo.url, headers).await?;
        let id = answer.pointer(&userinfo.subject).and_then(text_or_number);
        let id = id.ok_or_else(|| wrong("the provider's answer names no account"))?;
        Ok((id, text_at(&answer, userinfo.display_name.as_deref())))
    }

    async fn keys(&self, url: &SafeUrl, again: bool) -> Result<KeySet, IdentityError> {
        let now = self.clock.now();
        let longest = if again { KEYS_PAUSE } else { KEYS_LIFETIME };
        let known = self.keys.get(url.url().as_str()).map(|known| known.clone());
        if let Some((keys, fetched_at)) = known
            && now.since(fetched_at) < longest
        {
            return Ok(keys);
        }
        let set = self.get(url, HeaderMap::new()).await?;
        let keys = KeySet::from_json(&set).map_err(|why| wrong(&format!("the provider's keys: {why}")))?;
        self.keys.insert(url.url().to_string(), (keys.clone(), now));
        Ok(keys)
    }

    async fn get(&self, url: &SafeUrl, headers: HeaderMap) -> Result<Value, IdentityError> {
        let request = Request { method: Method::GET, url: url.clone(), headers, body: Zeroizing::default() };
        let reply = self.http.send(request).await.map_err(|error| wrong(&error.to_string()))?;
        if !reply.status.is_success() {
            return Err(wrong(&format!("{} answered HTTP {}", url.host(), reply.status.as_u16())));
        }
        serde_json::from_slice(&reply.body).map_err(|_| wrong(&format!("the answer of {} is no JSON", url.host())))
    }
}

/// The name of the account as far as the reply itself says it. The ID token came straight from the token endpoint, and nothing is
/// decided by it (OpenID Connect Core section 3.1.3.7, item 6).
fn name_in_reply(provider: &Provider, reply: &TokenReply) -> Option<String> {
    let identity = provider.entry.identity.as_ref()?;
    match identity.source {
        IdentitySource::TokenResponse => reply.account.as_ref()?.1.clone(),
        IdentitySource::IdToken => {
            let payload = reply.id_token.as_ref()?.expose().split('.').nth(1)?;
            let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
            text_at(&claims, identity.display_name.as_deref())
        }
        IdentitySource::Userinfo => None,
    }
}

/// A name as pages may show it, if it is one.
fn fit_to_show(name: Option<String>) -> Option<String> {
    name.filter(|name| name.len() <= LONGEST).map(|name| shown(&name)).filter(|name| !name.is_empty())
}

fn text_at(value: &Value, place: Option<&str>) -> Option<String> {
    value.pointer(place?)?.as_str().map(str::to_owned)
}

fn wrong(why: &str) -> IdentityError {
    IdentityError(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_one_subject_and_no_other_accounts() {
        let account = |issuer: &str, id: &str, name: Option<&str>| Account {
            issuer: issuer.to_owned(),
            id: id.to_owned(),
            name: name.map(str::to_owned),
        };
        let subject = |account: Account| account.user().subject;
        let alice = subject(account("https://a.example", "1", Some("alice")));
        assert!(alice.as_str().starts_with("user:") && alice.as_str().len() == 31, "{alice}");
        assert_eq!(alice, subject(account("https://a.example", "1", Some("renamed"))));
        assert_ne!(alice, subject(account("https://a.example", "2", None)));
        assert_ne!(alice, subject(account("https://b.example", "1", None)));
        assert_ne!(subject(account("a", "bc", None)), subject(account("ab", "c", None)));
    }
}
