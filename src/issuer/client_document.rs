//! Client ID Metadata Documents: the client's id is the URL of a document that describes it
//! (draft-ietf-oauth-client-id-metadata-document-02).
//!
//! A document is fetched with a client that reaches only the public Internet, follows no redirect and reads little; a good
//! copy is kept as HTTP says and used on when the next fetch fails; the operator's own copies are never fetched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use tokio::sync::Semaphore;
use tracing::{info, warn};
use url::Url;
use zeroize::Zeroizing;

use super::Parts;
use super::parameters::freshness;
use crate::base::clock::{Clock, Timestamp};
use crate::base::http::{HttpClient, Request, Response};
use crate::base::jws::{KeySet, StrictObject};
use crate::base::safe_url::SafeUrl;
use crate::model::client::{Client, ClientAuthentication, ClientKeys, ClientKind, plain_name};
use crate::model::redirect_uri::{RedirectPolicy, RedirectUri};
use crate::store::issuer::{IssuerStore, StoredDocument};

/// Why a document is no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentError {
    /// Such ids are not accepted here, or the URL is not of the right form.
    NotAccepted(&'static str),
    /// It could not be fetched, and there is no earlier copy.
    Unavailable(String),
    /// What is there does not describe a client.
    Invalid(String),
}

/// The size limit of the draft, section 6.6.
const LARGEST: usize = 5 * 1024;
const LARGEST_KEYS: usize = 64 * 1024;
/// So many are fetched at the same time; further ones wait.
const CONCURRENT: usize = 64;
/// And no longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
const SHORTEST: Duration = Duration::from_secs(60);
const USUAL: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(86_400);
/// After a failure the last good copy is used for so long before the next try.
const PAUSE: Duration = Duration::from_secs(60);
/// More are not remembered; they are in the store all the same.
const REMEMBERED: usize = 10_000;

/// Fetches and remembers documents.
pub struct Documents {
    enabled: bool,
    pinned: BTreeMap<String, String>,
    redirect_policy: RedirectPolicy,
    http: Arc<dyn HttpClient>,
    store: Arc<dyn IssuerStore>,
    clock: Arc<dyn Clock>,
    permits: Arc<Semaphore>,
    clients: DashMap<String, (Arc<Client>, Timestamp)>,
    keys: Arc<DashMap<String, Keys>>,
}

/// Fetched keys.
#[derive(Clone)]
struct Keys {
    set: KeySet,
    /// When they were last asked for, with whatever success.
    asked_at: Timestamp,
    /// Until then they are not asked for without need.
    fresh_until: Timestamp,
    /// Until then they serve while they cannot be fetched: a key that was taken back must not stay good for ever.
    useful_until: Timestamp,
}

impl Documents {
    pub fn new(parts: &Parts) -> Self {
        Self {
            enabled: parts.settings.documents.enabled,
            pinned: parts.settings.documents.pinned.clone(),
            redirect_policy: parts.settings.redirect_policy.clone(),
            http: Arc::clone(&parts.documents),
            store: Arc::clone(&parts.store),
            clock: Arc::clone(&parts.clock),
            permits: Arc::new(Semaphore::new(CONCURRENT)),
            clients: DashMap::new(),
            keys: Arc::default(),
        }
    }

    /// The same under other settings. Documents are read anew, since it depends on these what is accepted of them; fetched
    /// keys stay.
    pub fn under(&self, parts: &Parts) -> Self {
        Self { permits: Arc::clone(&self.permits), keys: Arc::clone(&self.keys), ..Self::new(parts) }
    }

    /// The client that the document at `url` describes.
    pub async fn client(&self, url: &str) -> Result<Arc<Client>, DocumentError> {
        if let Some(body) = self.pinned.get(url) {
            return self.read(url, body.as_bytes()).map(Arc::new);
        }
        let safe = if self.enabled { client_id_url(url) } else { Err("client ids that are URLs are switched off") };
        let safe = safe.map_err(DocumentError::NotAccepted)?;
        let now = self.clock.now();
        let remembered = self.clients.get(url).map(|known| known.clone());
        if let Some((client, _)) = remembered.as_ref().filter(|(_, until)| *until > now) {
            return Ok(Arc::clone(client));
        }
        let stored = self.stored(url).await;
        if let Some((client, until)) = stored.as_ref().filter(|(_, until)| *until > now) {
            self.remember(url, client, *until);
            return Ok(Arc::clone(client));
        }
        match self.fetch_client(url, &safe).await {
            Ok(client) => Ok(client),
            Err(error) => {
                warn!(operation = "client_document", url, ?error, kept = stored.is_some(), "not fetched");
                let (client, _) = stored.or(remembered).ok_or(error)?;
                self.remember(url, &client, now.plus(PAUSE));
                Ok(client)
            }
        }
    }

    /// The client of a document that was read before, however long ago.
    pub async fn known(&self, url: &str) -> Option<Arc<Client>> {
        if let Some(body) = self.pinned.get(url) {
            return self.read(url, body.as_bytes()).ok().map(Arc::new);
        }
        if !self.enabled {
            return None;
        }
        let remembered = self.clients.get(url).map(|known| Arc::clone(&known.0));
        match remembered {
            Some(client) => Some(client),
            None => self.stored(url).await.map(|(client, _)| client),
        }
    }

    async fn stored(&self, url: &str) -> Option<(Arc<Client>, Timestamp)> {
        let document = self.store.client_document(url.to_owned()).await.ok()??;
        let client = self.read(url, document.body.as_bytes()).ok()?;
        Some((Arc::new(client), document.fresh_until))
    }

    fn remember(&self, url: &str, client: &Arc<Client>, until: Timestamp) {
        if self.clients.len() >= REMEMBERED {
            self.clients.clear();
        }
        self.clients.insert(url.to_owned(), (Arc::clone(client), until));
    }

    async fn fetch_client(&self, url: &str, safe: &SafeUrl) -> Result<Arc<Client>, DocumentError> {
        let reply = self.fetch(safe, LARGEST).await?;
        let client = Arc::new(self.read(url, &reply.body)?);
        let now = self.clock.now();
        let fresh_until = now.plus(lifetime(&reply));
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        let document = StoredDocument { body, fetched_at: now, fresh_until };
        if let Err(error) = self.store.put_client_document(url.to_owned(), document).await {
            warn!(operation = "client_document", %error, "fetched, but not stored");
        }
        info!(operation = "client_document", url, client = client.name, outcome = "fetched");
        self.remember(url, &client, fresh_until);
        Ok(client)
    }

    /// The keys that a client publishes at a URL of its own choice.
    pub async fn keys(&self, url: &SafeUrl) -> Result<KeySet, DocumentError> {
        let known = self.known_keys(url);
        match known {
            Some(known) if known.fresh_until > self.clock.now() => Ok(known.set),
            known => self.fetch_keys(url, known).await,
        }
    }

    /// The keys as they are now, for a signature that none of [`Documents::keys`] fits: the client may have begun to sign
    /// with a new one. `None` if they were asked for a moment ago, or bad signatures would have us ask all the time.
    pub async fn newer_keys(&self, url: &SafeUrl) -> Option<KeySet> {
        let known = self.known_keys(url);
        let is_recent = known.as_ref().is_some_and(|known| self.clock.now() < known.asked_at.plus(PAUSE));
        if is_recent { None } else { self.fetch_keys(url, known).await.ok() }
    }

    fn known_keys(&self, url: &SafeUrl) -> Option<Keys> {
        self.keys.get(url.url().as_str()).map(|known| known.clone())
    }

    async fn fetch_keys(&self, url: &SafeUrl, known: Option<Keys>) -> Result<KeySet, DocumentError> {
        let fetched = self.fetch_key_set(url).await;
        let now = self.clock.now();
        let keys = match fetched {
            Ok((set, lifetime)) => {
                let fresh_until = now.plus(lifetime);
                Keys { set, asked_at: now, fresh_until, useful_until: fresh_until.plus(LONGEST) }
            }
            Err(error) => {
                warn!(
                    operation = "client_keys",
                    url = url.url().as_str(),
                    ?error,
                    kept = known.is_some(),
                    "not fetched"
                );
                let known = known.filter(|known| known.useful_until > now).ok_or(error)?;
                Keys { asked_at: now, fresh_until: known.fresh_until.max(now.plus(PAUSE)), ..known }
            }
        };
        if self.keys.len() >= REMEMBERED {
            self.keys.clear();
        }
        self.keys.insert(url.url().as_str().to_owned(), keys.clone());
        Ok(keys.set)
    }

    async fn fetch_key_set(&self, url: &SafeUrl) -> Result<(KeySet, Duration), DocumentError> {
        let reply = self.fetch(url, LARGEST_KEYS).await?;
        let invalid = |why: String| DocumentError::Invalid(why);
        let set: Value = serde_json::from_slice(&reply.body).map_err(|_| invalid("the keys are no JSON".to_owned()))?;
        Ok((KeySet::from_json(&set).map_err(invalid)?, lifetime(&reply)))
    }

    async fn fetch(&self, url: &SafeUrl, largest: usize) -> Result<Response, DocumentError> {
        let unavailable = |why: String| DocumentError::Unavailable(why);
        let _permit = tokio::select! {
            permit = self.permits.acquire() => permit.map_err(|_| unavailable("stopping".to_owned()))?,
            () = self.clock.sleep(LONGEST_WAIT) => return Err(unavailable("too many are being fetched".to_owned())),
        };
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        let request = Request { method: Method::GET, url: url.clone(), headers, body: Zeroizing::default() };
        let reply = self.http.send(request).await.map_err(|error| unavailable(error.to_string()))?;
        if reply.status != http::StatusCode::OK {
            return Err(unavailable(format!("HTTP {}", reply.status.as_u16())));
        }
        let content_type = reply.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if media_type != "application/json"
            && !(media_type.starts_with("application/") && media_type.ends_with("+json"))
        {
            return Err(unavailable("not a JSON document".to_owned()));
        }
        if reply.body.len() > largest {
            return Err(unavailable(format!("larger than {largest} bytes")));
        }
        Ok(reply)
    }

    /// Section 4 of the draft. What is not understood is left alone; what would be dangerous is refused.
    fn read(&self, url: &str, body: &[u8]) -> Result<Client, DocumentError> {
        let invalid = |why: &str| DocumentError::Invalid(why.to_owned());
        let document: StrictObject = serde_json::from_slice(body).map_err(|_| invalid("it is no JSON object"))?;
        let document = document.0;
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        if text("client_id") != Some(url) {
            return Err(invalid("its client_id is not its URL"));
        }
        if document.contains_key("client_secret") || document.contains_key("client_secret_expires_at") {
            return Err(invalid("it holds a client secret"));
        }
        let name = text("client_name").and_then(plain_name).ok_or_else(|| invalid("client_name is missing or odd"))?;
        let uris = document.get("redirect_uris").and_then(Value::as_array);
        let uris = uris.ok_or_else(|| invalid("redirect_uris is missing"))?;
        let usable = |uri: &Value| RedirectUri::register(uri.as_str()?, &self.redirect_policy).ok();
        let redirect_uris: Vec<RedirectUri> = uris.iter().take(32).filter_map(usable).collect();
        if redirect_uris.is_empty() {
            return Err(invalid("none of its redirect_uris can be used"));
        }
        let authentication = match text("token_endpoint_auth_method") {
            None | Some("none") => ClientAuthentication::None,
            Some("private_key_jwt") => ClientAuthentication::PrivateKeyJwt(keys_of(&document)?),
            Some(_) => return Err(invalid("its token_endpoint_auth_method needs a shared secret, or is unknown")),
        };
        Ok(Client {
            id: url.to_owned(),
            kind: ClientKind::Document,
            name: name.to_owned(),
            redirect_uris,
            authentication,
            // What a client says of itself limits nobody: asking decides, and the user does.
            scopes: None,
        })
    }
}

fn keys_of(document: &serde_json::Map<String, Value>) -> Result<ClientKeys, DocumentError> {
    let invalid = |why: String| DocumentError::Invalid(why);
    if let Some(set) = document.get("jwks") {
        let keys = KeySet::from_json(set).map_err(invalid)?;
        let set = if keys.is_empty() { Err(invalid("jwks holds no key of use".to_owned())) } else { Ok(set.clone()) };
        return set.map(ClientKeys::Inline);
    }
    let url = document.get("jwks_uri").and_then(Value::as_str).and_then(|url| url.parse::<SafeUrl>().ok());
    let url = url.filter(SafeUrl::is_https);
    url.map(ClientKeys::Url).ok_or_else(|| invalid("private_key_jwt needs jwks, or a jwks_uri with https".to_owned()))
}

fn lifetime(reply: &Response) -> Duration {
    let header = reply.headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
    freshness(header, SHORTEST, USUAL, LONGEST)
}

/// Section 3 of the draft: https, a path, no user, no fragment, no dot segments; and written as it would be sent, so that
/// no two texts stand for the same client.
pub fn client_id_url(text: &str) -> Result<SafeUrl, &'static str> {
    const ODD: &str = "the client id is a URL, but not one in its plain form with https and a path";
    let url = Url::parse(text).map_err(|_| ODD)?;
    let plain = url.as_str() == text && url.scheme() == "https" && url.path() != "/" && text.len() <= 512;
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if !plain || !bare { Err(ODD) } else { text.parse().map_err(|_| ODD) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_urls_are_client_ids() {
        for good in ["https://claude.ai/oauth/mcp-oauth-client-metadata", "https://a.example:8443/c.json?v=1"] {
            assert!(client_id_url(good).is_ok(), "{good}");
        }
        for bad in [
            "https://a.example",
            "https://a.example/",
            "http://a.example/c",
            "https://a.example:443/c",
            "https://A.example/c",
            "https://u@a.example/c",
            "https://a.example/c#f",
            "https://a.example/x/../c",
            "https://a.example/%2e/c",
            "https://127.1/c",
            "https://a.example/c ",
            "https://a.example/\\c",
            "https:a/c",
        ] {
            assert!(client_id_url(bad).is_err(), "{bad}");
        }
    }
}
