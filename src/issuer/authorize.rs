//! The authorization request (RFC 6749 section 4.1.1): what is wrong with client or redirect URI is shown on a page of
//! ours, everything else is told to the client at its redirect URI.

use super::Issuer;
use super::clients::ClientError;
use super::parameters::Parameters;
use crate::model::authorization::AuthorizationRequest;
use crate::model::client::Client;
use crate::model::redirect_uri::{RedirectUri, with_parameters};
use crate::model::scope::{self, ScopeSet};
use crate::model::server::McpServer;

/// Why a request goes no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizeError {
    /// Nobody may be redirected: it is not certain that the address is the client's.
    Page(PageError),
    /// The client is told.
    Redirect(ErrorRedirect),
}

/// What a page of ours says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageError {
    /// `client_id` is missing or there twice.
    NoClientId,
    /// The client is unknown, or its document is no use, or the store failed.
    Client(ClientError),
    /// `redirect_uri` is missing or there twice.
    NoRedirectUri,
    /// `redirect_uri` is not one of the client's.
    ForeignRedirectUri,
}

/// An error that goes to the client (RFC 6749 section 4.1.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorRedirect {
    redirect_uri: RedirectUri,
    state: Option<String>,
    error: &'static str,
    description: &'static str,
}

/// `prompt` (OpenID Connect Core section 3.1.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Show nothing.
    pub none: bool,
    /// Ask again, whatever was approved before.
    pub consent: bool,
    /// Ask again who the user is.
    pub login: bool,
}

/// A state of more characters is no state but an attempt to have us store things.
const LONGEST_STATE: usize = 4096;

impl Issuer {
    /// Checks a request.
    pub async fn read_authorization(
        &self,
        parameters: &Parameters,
    ) -> Result<(AuthorizationRequest, Prompt), AuthorizeError> {
        let page = |error| AuthorizeError::Page(error);
        let client_id = parameters.one("client_id").ok().flatten().ok_or(page(PageError::NoClientId))?;
        let client = self.clients.find(client_id).await.map_err(|error| page(PageError::Client(error)))?;
        let presented = parameters.one("redirect_uri").ok().flatten().ok_or(page(PageError::NoRedirectUri))?;
        if client.redirect_uri(presented).is_none() {
            return Err(page(PageError::ForeignRedirectUri));
        }
        // Registered with another port perhaps, but of that form.
        let redirect_uri = RedirectUri::register(presented, &self.parts.settings.redirect_policy);
        let redirect_uri = redirect_uri.map_err(|_| page(PageError::ForeignRedirectUri))?;
        let state = parameters.one("state").ok().flatten().filter(|state| state.len() <= LONGEST_STATE);
        let refused = |(error, description)| {
            let (redirect_uri, state) = (redirect_uri.clone(), state.map(str::to_owned));
            AuthorizeError::Redirect(ErrorRedirect { redirect_uri, state, error, description })
        };
        let checked = self.check_parameters(&client, parameters).map_err(refused)?;
        let request = AuthorizationRequest {
            client_id: client.id.clone(),
            client_name: client.name.clone(),
            client_kind: client.kind,
            is_assured: client.is_assured_at(&redirect_uri),
            redirect_uri: redirect_uri.clone(),
            state: state.map(str::to_owned),
            code_challenge: checked.code_challenge.to_owned(),
            server: checked.server.name.clone(),
            resource: checked.server.resource.clone(),
            scopes: checked.scopes,
        };
        Ok((request, checked.prompt))
    }

    fn check_parameters<'p>(&'p self, client: &Client, parameters: &'p Parameters) -> Result<Checked<'p>, Why> {
        if parameters.has_repeated(&["resource"]) {
            return Err(("invalid_request", "a parameter is there twice"));
        }
        let one = |name| parameters.one(name).ok().flatten();
        if one("request").is_some() {
            return Err(("request_not_supported", "request objects are not supported"));
        }
        if one("request_uri").is_some() {
            return Err(("request_uri_not_supported", "request_uri is not supported"));
        }
        if one("state").is_some_and(|state| state.len() > LONGEST_STATE) {
            return Err(("invalid_request", "state is longer than 4096 bytes"));
        }
        match one("response_type") {
            Some("code") => {}
            Some(_) => return Err(("unsupported_response_type", "response_type must be code")),
            None => return Err(("invalid_request", "response_type is missing")),
        }
        if one("response_mode").is_some_and(|mode| mode != "query") {
            return Err(("invalid_request", "response_mode must be query"));
        }
        if one("code_challenge_method") != Some("S256") {
            return Err(("invalid_request", "PKCE is required: code_challenge_method must be S256"));
        }
        let is_challenge = |text: &&str| {
            text.len() == 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let code_challenge = one("code_challenge").filter(is_challenge);
        let code_challenge =
            code_challenge.ok_or(("invalid_request", "PKCE is required: code_challenge is missing or no SHA-256"))?;
        let server = self.resource(parameters)?;
        let scopes = scopes(client, server, one("scope"))?;
        let words = one("prompt").unwrap_or_default();
        let has = |word: &str| words.split(' ').any(|other| other == word);
        let prompt =
            Prompt { none: has("none"), consent: has("consent"), login: has("login") || has("select_account") };
        if prompt.none && (prompt.consent || prompt.login) {
            return Err(("invalid_request", "prompt=none goes with no other prompt"));
        }
        Ok(Checked { code_challenge, server, scopes, prompt })
    }

    /// RFC 8707 section 2. A client that names none means the only server there is.
    fn resource(&self, parameters: &Parameters) -> Result<&McpServer, Why> {
        let servers = &self.parts.settings.servers;
        let mut asked = parameters.all("resource").filter(|resource| !resource.is_empty());
        let Some(first) = asked.next() else {
            let mut all = servers.values();
            return match (all.next(), all.next()) {
                (Some(only), None) => Ok(only),
                _ => Err(("invalid_target", "resource is missing, and there is more than one server")),
            };
        };
        let server = servers.values().find(|server| server.is_named_by(first));
        let server = server.ok_or(("invalid_target", "resource is none of the servers here"))?;
        if asked.all(|other| server.is_named_by(other)) {
            Ok(server)
        } else {
            Err(("invalid_target", "one authorization is for one resource"))
        }
    }

    /// Where the browser is sent with an error.
    pub fn error_url(&self, error: &ErrorRedirect) -> String {
        self.redirect(
            &error.redirect_uri,
            error.state.as_deref(),
            &[("error", error.error), ("error_description", error.description)],
        )
    }

    /// The same for a request that was good, and then was not granted.
    pub fn denied_url(&self, request: &AuthorizationRequest, error: &'static str, description: &'static str) -> String {
        let (redirect_uri, state) = (request.redirect_uri.clone(), request.state.clone());
        self.error_url(&ErrorRedirect { redirect_uri, state, error, description })
    }

    /// Answers carry `iss`, good ones and others (RFC 9207 section 2).
    pub(super) fn redirect(&self, to: &RedirectUri, state: Option<&str>, answer: &[(&str, &str)]) -> String {
        let mut parameters = answer.to_vec();
        parameters.extend(state.map(|state| ("state", state)));
        parameters.push(("iss", &self.parts.settings.issuer));
        with_parameters(to.as_str(), &parameters)
    }
}

type Why = (&'static str, &'static str);

struct Checked<'p> {
    code_challenge: &'p str,
    server: &'p McpServer,
    scopes: ScopeSet,
    prompt: Prompt,
}

/// What is asked for must exist at the server and be allowed to the client; who asks for nothing gets what is needed.
fn scopes(client: &Client, server: &McpServer, asked: Option<&str>) -> Result<ScopeSet, Why> {
    let grantable = server.grantable_scopes();
    let allowed = |scope: &String| {
        let of_client = client.scopes.as_ref().is_none_or(|allowed| allowed.contains(scope));
        grantable.contains(scope) && (of_client || scope == scope::OFFLINE_ACCESS)
    };
    match asked {
        None => Ok(server.scopes.iter().filter(|scope| allowed(scope)).cloned().collect()),
        Some(text) => {
            let asked = scope::parse(text).ok_or(("invalid_scope", "scope is malformed"))?;
            if !asked.iter().all(allowed) {
                return Err(("invalid_scope", "a scope is unknown here"));
            }
            // Who asks for nothing but to come back means the usual.
            let is_only_offline = asked.iter().all(|scope| scope == scope::OFFLINE_ACCESS);
            Ok(if is_only_offline { asked.union(&server.scopes).cloned().collect() } else { asked })
        }
    }
}
