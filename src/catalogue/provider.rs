//! A provider as configured: its entry, our registration there, and its APIs ready for the data plane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::base::safe_url::SafeUrl;
use crate::base::secret::Secret;
use crate::catalogue::entry::{ApiCommon, ApiEntry, Credential, DeclaredHeaders, Entry, Fill, HandleShape};
use crate::catalogue::place::{Fills, Place};
use crate::catalogue::template::{self, Piece};
use crate::catalogue::uses::needed_of_look_ups;
use crate::model::access_policy::AccessPolicy;
use crate::model::connection::Captured;
use crate::model::handle;
use crate::model::names::{ProviderName, TokenName};

/// A provider that subjects can connect to.
pub struct Provider {
    /// The key of its table in the configuration.
    pub name: ProviderName,
    /// What is known about it.
    pub entry: Entry,
    /// Our registration there.
    pub client: Client,
    /// Where it sends browsers back to: `{public_url}/callback/{name}`.
    pub redirect_uri: String,
    /// The scopes to ask for.
    pub scopes: Vec<String>,
    /// Those that go into parameters of their own.
    pub other_scopes: BTreeMap<String, Vec<String>>,
    /// Whether the operator has chosen exactly these.
    pub are_scopes_chosen: bool,
    /// The enabled APIs.
    pub apis: Vec<Arc<Api>>,
    /// The access tokens that they use besides the first.
    pub further_tokens: Vec<FurtherToken>,
    /// The captured values that look-ups bring and that calls, or the realm, need.
    pub looked_up: BTreeSet<String>,
    /// What handles begin with that stand in for this provider's tokens; empty where anything will do.
    pub handle_prefix: String,
    /// What the operator allows callers to do there.
    pub policy: Option<AccessPolicy>,
}

/// A further access token of every grant at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FurtherToken {
    /// What the entry calls it.
    pub name: TokenName,
    /// Where it comes from.
    pub source: TokenSource,
}

/// Where a further access token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// It stands in the token reply, with a refresh token of its own.
    Reply,
    /// The same refresh token gets it, with these scopes (`rotation.multi_resource`).
    Scopes(Vec<String>),
}

/// What an operator chose of a provider's scopes and APIs.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Exactly these scopes; else those of the entry and of the enabled APIs.
    pub scopes: Option<Vec<String>>,
    /// These APIs; else the entry's default one.
    pub apis: Option<Vec<String>>,
    /// What handles begin with; else what the entry says.
    pub handle_prefix: Option<String>,
}

impl Provider {
    /// Puts entry, registration and choice together; what does not fit is named, with the key of the choice.
    pub fn new(
        name: ProviderName,
        entry: Entry,
        client: Client,
        redirect_uri: String,
        choice: &Choice,
    ) -> Result<Self, (&'static str, String)> {
        let wanted = choice.apis.clone().unwrap_or_else(|| vec![entry.default_api.clone()]);
        let mut apis = Vec::new();
        let mut further_tokens: Vec<FurtherToken> = Vec::new();
        let mut scopes = entry.authorize.scopes.clone();
        let mut other_scopes = entry.authorize.other_scopes.clone();
        for wanted in &wanted {
            let Some(api) = entry.apis.get(wanted) else {
                let known: Vec<&String> = entry.apis.keys().collect();
                return Err(("apis", format!("{wanted:?} is not an API of this provider; it has {known:?}")));
            };
            apis.push(Arc::new(Api::prepare(&name, wanted, api, &entry).map_err(|why| ("entry", why))?));
            if let Some(token) = &api.token {
                further_token(&entry, api, token, &mut further_tokens).map_err(|why| ("apis", why))?;
            }
            let asked = match &api.scope_parameter {
                Some(parameter) => other_scopes.entry(parameter.clone()).or_default(),
                None => &mut scopes,
            };
            asked.extend(api.scopes.iter().filter(|scope| !asked.contains(scope)).cloned().collect::<Vec<_>>());
        }
        if entry.authorize.callback_signature.is_some() && client.secret.is_none() {
            return Err(("client_secret", "is missing: this provider signs its callbacks with it".to_owned()));
        }
        let are_scopes_chosen = choice.scopes.is_some();
        let scopes = choice.scopes.clone().unwrap_or(scopes);
        let (key, handle_prefix) = match &choice.handle_prefix {
            Some(chosen) => ("handle_prefix", chosen.clone()),
            None => ("entry", declared_prefix(&entry)),
        };
        handle::check_prefix(&handle_prefix).map_err(|why| (key, why))?;
        let looked_up = needed_of_look_ups(&entry);
        Ok(Self {
            name,
            entry,
            client,
            redirect_uri,
            scopes,
            other_scopes,
            are_scopes_chosen,
            apis,
            further_tokens,
            looked_up,
            handle_prefix,
            policy: None,
        })
    }

    /// Whether a connection with these values has all that look-ups bring and that is needed.
    pub fn is_finished(&self, captured: &Captured) -> bool {
        self.looked_up.iter().all(|name| captured.contains_key(name))
    }

    /// Where the provider says who the user is, as an API of its own: called with the first access token as bearer.
    pub fn userinfo_api(&self) -> Option<Api> {
        let userinfo = self.entry.userinfo.as_ref()?;
        let declared = ApiEntry {
            display_name: None,
            origin: userinfo.url.origin(),
            base_path: String::new(),
            origin_suffixes: Vec::new(),
            paths: vec![userinfo.url.url().path().to_owned()],
            encoded_slash_paths: Vec::new(),
            scopes: Vec::new(),
            scope_parameter: None,
            credential: Some(Credential::default()),
            places: Vec::new(),
            fill: Fill::default(),
            token: None,
            headers: DeclaredHeaders::default(),
        };
        Api::prepare(&self.name, "userinfo", &declared, &self.entry).ok()
    }

    /// The scopes to name where one of the grant's tokens is asked for, `None` being the first; `None` if none need be named.
    pub fn scopes_of_token(&self, name: Option<&TokenName>) -> Option<Vec<String>> {
        let of_others = |token: &FurtherToken| match &token.source {
            TokenSource::Scopes(scopes) => Some((token.name.clone(), scopes.clone())),
            TokenSource::Reply => None,
        };
        let others: Vec<_> = self.further_tokens.iter().filter_map(of_others).collect();
        match name {
            Some(name) => others.into_iter().find(|(other, _)| other == name).map(|(_, scopes)| scopes),
            // All scopes of one request must belong to one resource.
            None if !others.is_empty() => {
                let is_others = |scope: &&String| others.iter().any(|(_, scopes)| scopes.contains(scope));
                Some(self.scopes.iter().filter(|scope| !is_others(scope)).cloned().collect())
            }
            None => None,
        }
    }
}

fn further_token(entry: &Entry, api: &ApiEntry, token: &str, found: &mut Vec<FurtherToken>) -> Result<(), String> {
    let name: TokenName =
        token.parse().map_err(|expected| format!("the token {token:?} of an API is not {expected}"))?;
    let in_reply = entry.token.response.more_tokens.iter().any(|named| named.name == token);
    match found.iter_mut().find(|known| known.name == name) {
        Some(FurtherToken { source: TokenSource::Scopes(scopes), .. }) => {
            scopes.extend(api.scopes.iter().filter(|scope| !scopes.contains(scope)).cloned().collect::<Vec<_>>());
        }
        Some(_) => {}
        None if in_reply => found.push(FurtherToken { name, source: TokenSource::Reply }),
        None => found.push(FurtherToken { name, source: TokenSource::Scopes(api.scopes.clone()) }),
    }
    Ok(())
}

/// What handles begin with, as the entry says. A JWT is for the API that is reached under the provider's own name.
fn declared_prefix(entry: &Entry) -> String {
    let Some(look) = &entry.handle else { return String::new() };
    match look.shape {
        Some(HandleShape::Jwt) => {
            handle::jwt_prefix(entry.apis.get(&entry.default_api).map_or("", |api| api.origin.as_str()))
        }
        None => look.prefix.clone().unwrap_or_default(),
    }
}

/// Our registration at a provider.
#[derive(Debug)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// `client_secret`; a public client has none.
    pub secret: Option<Secret>,
}

/// One API, prepared so that a request needs no parsing of declarations.
pub struct Api {
    /// The name in the entry.
    pub name: String,
    /// Whose API it is.
    pub provider: ProviderName,
    /// Where it is.
    pub origin: Origin,
    /// Put in front of the caller's path; empty, or begins with a slash and does not end with one.
    pub base_path: String,
    /// Which of the grant's access tokens goes there; `None` for the first.
    pub token: Option<TokenName>,
    /// What may be called.
    pub paths: Vec<PathPrefix>,
    /// Where `%2F` is allowed.
    pub encoded_slash_paths: Vec<PathPrefix>,
    /// Where the token goes.
    pub credential: PreparedCredential,
    /// Where else it may go.
    pub places: Vec<Place>,
    /// Where callers name captured values besides the path.
    pub fill: Fills,
    /// What answers say about tokens.
    pub common: ApiCommon,
    /// Set, whatever the caller sent.
    pub always: Vec<(HeaderName, String)>,
    /// Set where the caller sent none.
    pub default: Vec<(HeaderName, HeaderValue)>,
}

/// Where an API is.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Always there.
    Fixed(SafeUrl),
    /// Where the connection says, within bounds.
    Captured {
        /// A text with `{name}`s of captured values.
        template: String,
        /// How the host must end.
        suffixes: Vec<String>,
    },
}

/// Where the token goes, ready for use.
#[derive(Clone, Debug)]
pub struct PreparedCredential {
    /// The request header.
    pub header: HeaderName,
    /// How its value is written.
    pub declared: Credential,
}

/// A path prefix, split into segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix(pub Vec<PathSegment>);

/// One segment of a path prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathSegment {
    /// Must be equal.
    Literal(String),
    /// Stands for a captured value.
    Captured(String),
}

impl PathPrefix {
    /// From a text such as `/v3/company/{realm_id}/`.
    pub fn parse(text: &str) -> Self {
        let segment = |segment: &str| match template::parse(segment).as_slice() {
            [Piece::Variable(name)] => PathSegment::Captured(name.clone()),
            _ => PathSegment::Literal(segment.to_owned()),
        };
        Self(text.split('/').filter(|segment| !segment.is_empty()).map(segment).collect())
    }
}

impl Api {
    /// Prepares one API of an entry; what the entry's own checks let through but HTTP does not is named.
    pub fn prepare(provider: &ProviderName, name: &str, api: &ApiEntry, entry: &Entry) -> Result<Self, String> {
        let origin = if template::variables(&api.origin).is_empty() {
            Origin::Fixed(origin(&api.origin)?)
        } else {
            Origin::Captured { template: api.origin.clone(), suffixes: api.origin_suffixes.clone() }
        };
        let declared = api.credential.clone().unwrap_or_else(|| entry.api.credential.clone());
        let (mut always, mut default) = (Vec::new(), Vec::new());
        for headers in [&entry.api.headers, &api.headers] {
            prepare_headers(headers, &mut always, &mut default)?;
        }
        Ok(Self {
            name: name.to_owned(),
            provider: provider.clone(),
            origin,
            base_path: base_path(&api.base_path)?,
            token: api.token.as_deref().and_then(|token| token.parse().ok()),
            paths: api.paths.iter().map(|path| PathPrefix::parse(path)).collect(),
            encoded_slash_paths: api.encoded_slash_paths.iter().map(|path| PathPrefix::parse(path)).collect(),
            credential: PreparedCredential { header: header_name(&declared.header)?, declared },
            places: entry.api.places.iter().chain(&api.places).map(Place::prepare).collect::<Result<_, _>>()?,
            fill: Fills::prepare([&entry.api.fill, &api.fill].into_iter())?,
            common: entry.api.clone(),
            always,
            default,
        })
    }
}

fn base_path(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    let plain = trimmed.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte));
    if plain && !trimmed.contains("..") && (trimmed.is_empty() || trimmed.starts_with('/')) {
        Ok(trimmed.to_owned())
    } else {
        Err(format!("{text:?} is not a base path: expected plain segments that begin with a slash"))
    }
}

/// A URL that is nothing but an origin.
pub fn origin(text: &str) -> Result<SafeUrl, String> {
    let url: SafeUrl = text.parse()?;
    if url.url().path() == "/" && url.url().query().is_none() {
        Ok(url)
    } else {
        Err(format!("{text:?} is more than an origin: scheme, host and port"))
    }
}

fn prepare_headers(
    declared: &DeclaredHeaders,
    always: &mut Vec<(HeaderName, String)>,
    default: &mut Vec<(HeaderName, HeaderValue)>,
) -> Result<(), String> {
    // What is declared later, for one API, goes before what is declared for all.
    for (name, value) in &declared.always {
        let name = header_name(name)?;
        always.retain(|(known, _)| *known != name);
        always.push((name, value.clone()));
    }
    for (name, value) in &declared.default {
        let prepared = HeaderValue::from_str(value).map_err(|_| format!("{value:?} is not a header value"))?;
        let name = header_name(name)?;
        default.retain(|(known, _)| *known != name);
        default.push((name, prepared));
    }
    Ok(())
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("{name:?} is not a header name"))
}

#[cfg(test)]
#[expect(missing_docs, reason = "for tests only")]
pub mod tests {
    use super::*;
    use crate::catalogue::lint::inherited_example;
    use crate::catalogue::{Catalogue, Selection};

    /// A bundled entry with a made-up registration.
    pub fn provider(name: &str) -> Provider {
        with_choice(name, &Choice::default())
    }

    /// The same with these APIs enabled.
    pub fn provider_with_apis(name: &str, apis: &[&str]) -> Provider {
        let apis = Some(apis.iter().map(|api| (*api).to_owned()).collect());
        with_choice(name, &Choice { apis, ..Choice::default() })
    }

    fn with_choice(name: &str, choice: &Choice) -> Provider {
        let catalogue = Catalogue::bundled();
        let selection = Selection { client_id: "client-1".to_owned(), ..inherited_example(&catalogue, name) };
        let entry = catalogue.select(name, &selection).expect("sound");
        let name: ProviderName = name.parse().expect("a name");
        let client = Client { id: "client-1".to_owned(), secret: Some(Secret::new("s3cret/+")) };
        let redirect_uri = format!("https://sidekey.example/callback/{name}");
        Provider::new(name, entry, client, redirect_uri, choice).expect("sound")
    }

    #[test]
    fn path_prefixes_are_split_once() {
        let prefix = PathPrefix::parse("/v3/company/{realm_id}/");
        let literal = |text: &str| PathSegment::Literal(text.to_owned());
        assert_eq!(prefix.0, [literal("v3"), literal("company"), PathSegment::Captured("realm_id".to_owned())]);
        assert_eq!(PathPrefix::parse("/").0, []);
    }

    #[test]
    fn an_origin_is_no_more_than_that() {
        assert!(origin("https://a.example:8443").is_ok() && origin("https://a.example/").is_ok());
        assert!(origin("https://a.example/v1").is_err() && origin("http://a.example").is_err());
    }

    #[test]
    fn scopes_are_those_of_the_enabled_apis() {
        let google = provider("google");
        assert_eq!(google.scopes, ["openid", "email", "https://www.googleapis.com/auth/calendar"]);
        assert_eq!(google.apis.len(), 1);
    }
}
