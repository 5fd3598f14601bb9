//! Dynamic client registration (RFC 7591).

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tracing::info;

use super::Issuer;
use super::clients::DYNAMIC_PREFIX;
use super::error::OAuthError;
use crate::base::digest::sha256;
use crate::base::jws::{KeySet, StrictObject};
use crate::base::random;
use crate::base::safe_url::SafeUrl;
use crate::model::client::{RegisteredMethod, Registration, plain_name};
use crate::model::issued_token::{self, Kind};
use crate::model::redirect_uri::RedirectUri;
use crate::model::scope;
use crate::telemetry::audit::Record;

/// Cursor registers three; nobody is known to need more than this.
const MOST_REDIRECT_URIS: usize = 10;
/// Grant types that can be used here; others are left out of the registration and never refused.
const GRANT_TYPES: [&str; 2] = ["authorization_code", "refresh_token"];

/// The members that decide something. Others are left alone (section 2).
#[derive(Deserialize)]
struct Metadata {
    redirect_uris: Option<Vec<String>>,
    client_name: Option<String>,
    token_endpoint_auth_method: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
    application_type: Option<String>,
    scope: Option<String>,
    jwks: Option<Value>,
    jwks_uri: Option<String>,
}

impl Issuer {
    /// Registers a client; the answer of section 3.2.1.
    pub async fn register(&self, body: &[u8]) -> Result<Value, OAuthError> {
        let invalid = |why: &str| OAuthError::InvalidClientMetadata(why.to_owned());
        if !self.parts.settings.registration.enabled {
            return Err(invalid("registration is switched off here; ask the operator for a client id"));
        }
        let members: StrictObject = serde_json::from_slice(body)
            .map_err(|_| invalid("the body is not a JSON object without repeated members"))?;
        let Some(metadata) = Metadata::read(members.0) else {
            return Err(invalid("a member is not of the type that RFC 7591 gives it"));
        };
        let (registration, secret) = self.check(&metadata)?;
        let now = self.parts.clock.now();
        let id = random::identifier(self.parts.random.as_ref(), DYNAMIC_PREFIX);
        let answer =
            answer(&id, &registration, &metadata, secret.as_ref().map(|secret| secret.expose()), now.as_seconds());
        let most = self.parts.settings.registration.max_clients;
        self.parts.store.put_client(id.clone(), registration, now, most).await?;
        self.parts.audit.record(Record { client: Some(id.clone()), ..Record::new("register", "ok") });
        info!(operation = "register", client = id, outcome = "registered");
        Ok(answer)
    }

    fn check(&self, metadata: &Metadata) -> Result<(Registration, Option<crate::base::secret::Secret>), OAuthError> {
        let invalid = |why: &str| OAuthError::InvalidClientMetadata(why.to_owned());
        let redirect_uris = self.redirect_uris(metadata)?;
        if metadata.response_types.as_ref().is_some_and(|types| !types.iter().any(|kind| kind == "code")) {
            return Err(invalid("response_types must contain \"code\""));
        }
        if metadata.grant_types.as_ref().is_some_and(|types| !types.iter().any(|kind| kind == GRANT_TYPES[0])) {
            return Err(invalid("grant_types must contain \"authorization_code\""));
        }
        let name = match &metadata.client_name {
            Some(name) => plain_name(name).ok_or_else(|| {
                invalid("client_name is empty, longer than 100 characters, or has characters that are not shown as they are")
            })?,
            None => "An unnamed client",
        };
        let lower = name.to_lowercase();
        if self.parts.settings.reserved_names.contains(&lower) {
            return Err(invalid("client_name is that of a provider; use one of your own"));
        }
        // RFC 7591 section 2: what says nothing wants HTTP Basic.
        let method = metadata.token_endpoint_auth_method.as_deref().unwrap_or("client_secret_basic");
        let method = RegisteredMethod::from_name(method)
            .ok_or_else(|| invalid("token_endpoint_auth_method is none of those in the metadata of this server"))?;
        let (jwks, jwks_uri) = keys(method, metadata)?;
        let scopes = match metadata.scope.as_deref().filter(|scope| !scope.is_empty()) {
            Some(text) => Some(scope::parse(text).ok_or_else(|| invalid("scope is malformed"))?),
            None => None,
        };
        let needs_secret = matches!(method, RegisteredMethod::ClientSecretBasic | RegisteredMethod::ClientSecretPost);
        let secret = needs_secret.then(|| issued_token::generate(Kind::ClientSecret, self.parts.random.as_ref()));
        let secret_digest = secret.as_ref().map(|secret| sha256(secret.expose().as_bytes()));
        let name = name.to_owned();
        Ok((Registration { name, redirect_uris, method, secret_digest, jwks, jwks_uri, scopes }, secret))
    }

    fn redirect_uris(&self, metadata: &Metadata) -> Result<Vec<RedirectUri>, OAuthError> {
        let invalid = |why: String| OAuthError::InvalidRedirectUri(why);
        let uris = metadata.redirect_uris.as_deref().unwrap_or_default();
        if uris.is_empty() || uris.len() > MOST_REDIRECT_URIS {
            return Err(invalid(format!("redirect_uris must hold between 1 and {MOST_REDIRECT_URIS} URIs")));
        }
        let policy = &self.parts.settings.redirect_policy;
        let check = |(index, uri): (usize, &String)| {
            RedirectUri::register(uri, policy).map_err(|why| invalid(format!("redirect_uris[{index}]: {why}")))
        };
        uris.iter().enumerate().map(check).collect()
    }
}

impl Metadata {
    fn read(mut members: Map<String, Value>) -> Option<Self> {
        // A member that is null is as good as none.
        members.retain(|_, value| !value.is_null());
        serde_json::from_value(Value::Object(members)).ok()
    }
}

type Keys = (Option<Value>, Option<String>);

fn keys(method: RegisteredMethod, metadata: &Metadata) -> Result<Keys, OAuthError> {
    let invalid = |why: String| OAuthError::InvalidClientMetadata(why);
    if method != RegisteredMethod::PrivateKeyJwt {
        return Ok((None, None));
    }
    match (&metadata.jwks, &metadata.jwks_uri) {
        (Some(set), None) => {
            let keys = KeySet::from_json(set).map_err(invalid)?;
            let set = (!keys.is_empty()).then(|| set.clone());
            set.map(|set| (Some(set), None)).ok_or_else(|| invalid("jwks holds no key of use".to_owned()))
        }
        (None, Some(url)) => {
            let is_https = url.parse::<SafeUrl>().is_ok_and(|url| url.is_https()) && url.len() <= 512;
            let url = is_https.then(|| url.clone());
            url.map(|url| (None, Some(url))).ok_or_else(|| invalid("jwks_uri is not an https URL".to_owned()))
        }
        _ => Err(invalid("private_key_jwt needs either jwks or jwks_uri".to_owned())),
    }
}

/// What was registered, as it was registered: clients check it.
fn answer(id: &str, registration: &Registration, metadata: &Metadata, secret: Option<&str>, now: i64) -> Value {
    let grant_types: Vec<&str> = match &metadata.grant_types {
        Some(asked) => GRANT_TYPES.into_iter().filter(|kind| asked.iter().any(|asked| asked == kind)).collect(),
        None => GRANT_TYPES.to_vec(),
    };
    let mut answer = json!({
        "client_id": id,
        "client_id_issued_at": now,
        "client_name": registration.name,
        "redirect_uris": registration.redirect_uris,
        "token_endpoint_auth_method": registration.method,
        "grant_types": grant_types,
        "response_types": ["code"],
    });
    let members = [
        ("application_type", metadata.application_type.clone().map(Value::from)),
        ("scope", metadata.scope.clone().map(Value::from)),
        ("jwks", registration.jwks.clone()),
        ("jwks_uri", registration.jwks_uri.clone().map(Value::from)),
        ("client_secret", secret.map(Value::from)),
        ("client_secret_expires_at", secret.map(|_| Value::from(0))),
    ];
    for (name, value) in members {
        if let Some(value) = value {
            answer[name] = value;
        }
    }
    answer
}
