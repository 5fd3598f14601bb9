//! A provider's token endpoint, played for servers that call it by themselves: everything follows from the provider's entry.
//!
//! A refresh gets that provider's shape of answer with the caller's own handle in the place of both tokens. Other grants get
//! an error that says how to connect, and a revocation success. Nothing here reaches the provider: the real refresh token takes
//! no part, and no connection ends.
//!
//! The order: [`endpoint`] says whether a request is for us, [`presented`] which handle it holds, the caller is identified
//! elsewhere, [`answer`] answers. The `userinfo` endpoint is none of these: it is an API like others
//! (`Provider::userinfo_api`), called with the real token.

mod parameters;
mod reply;

use http::header::{AUTHORIZATION, HeaderMap};
use http::{HeaderName, header};
use percent_encoding::percent_decode_str;

use self::parameters::Parameters;
use super::caller::CallerError;
use super::placement::{PlacementError, credential, the_one};
use crate::base::clock::Timestamp;
use crate::base::safe_url::SafeUrl;
use crate::catalogue::Provider;
use crate::model::connection::{Captured, ConnectionKey};
use crate::model::handle::{self, HandleError};

/// What is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Where codes are exchanged and tokens refreshed.
    Token,
    /// Where tokens are revoked.
    Revoke,
}

/// The URLs at which something is emulated: their hosts must reach us.
pub fn urls(provider: &Provider) -> Vec<&SafeUrl> {
    let token = &provider.entry.token;
    let revoke = provider.entry.revoke.as_ref().map(|revoke| &revoke.url);
    std::iter::once(&token.url).chain(&token.refresh_url).chain(revoke).collect()
}

/// What is emulated at a URL of the provider, if anything. `path` is without query; some providers do not tell upper from lower
/// case, and a revocation must not slip through.
pub fn endpoint(provider: &Provider, method: &str, host: &str, path: &str) -> Option<Endpoint> {
    let is_at = |url: &SafeUrl| url.host().eq_ignore_ascii_case(host) && is_same_path(url.url().path(), path, provider);
    let token = &provider.entry.token;
    if std::iter::once(&token.url).chain(&token.refresh_url).any(is_at) {
        return Some(Endpoint::Token);
    }
    let revoke = provider.entry.revoke.as_ref()?;
    // What is revoked by POST (RFC 7009) some providers revoke by GET as well; any other method belongs to a resource, of which
    // the others ask something else.
    let is_revocation = revoke.method == "POST" || revoke.method == method;
    (is_revocation && is_at(&revoke.url)).then_some(Endpoint::Revoke)
}

/// Segment by segment. Where the entry says `{client_id}` the server has a client id of its own making.
fn is_same_path(declared: &str, path: &str, provider: &Provider) -> bool {
    let is_same = |(declared, found): (&str, &str)| {
        let found = percent_decode_str(found).decode_utf8_lossy();
        declared == provider.client.id || found.eq_ignore_ascii_case(&percent_decode_str(declared).decode_utf8_lossy())
    };
    let segments = |path| -> Vec<&str> { str::trim_end_matches(path, '/').split('/').collect() };
    let (declared, found) = (segments(declared), segments(path));
    declared.len() == found.len() && declared.into_iter().zip(found).all(is_same)
}

/// A request to an emulated endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// Which.
    pub endpoint: Endpoint,
    /// Its headers.
    pub headers: &'r HeaderMap,
    /// Its query.
    pub query: Option<&'r str>,
    /// All of its body.
    pub body: &'r [u8],
}

/// The handle in a request: as `refresh_token`, as `token`, as client secret, in any other parameter, or in `Authorization`.
pub fn presented(request: &Request<'_>) -> Result<Option<String>, PlacementError> {
    let parameters = Parameters::of(request);
    let mut handles: Vec<String> =
        parameters.values().filter_map(|value| credential::handle(value.as_bytes())).collect();
    for value in request.headers.get_all(AUTHORIZATION) {
        handles.extend(credential::handles(value.as_bytes()));
    }
    the_one(handles)
}

/// Whose request it is.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'c> {
    /// That of a subject who is connected.
    Connected(Connected<'c>),
    /// That of a subject who is not, or whose connection has ended.
    NotConnected(&'c ConnectionKey),
    /// Nobody's.
    Unknown(CallerError),
}

/// A caller whose connection is good.
#[derive(Clone, Copy, Debug)]
pub struct Connected<'c> {
    /// The handle, by whatever way it was presented; none for the fixed subject.
    pub handle: Option<&'c str>,
    /// The scopes of the connection, if they are known.
    pub scopes: Option<&'c [String]>,
    /// What was captured with the connection.
    pub captured: &'c Captured,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its headers, `Content-Type` among them unless there is no body.
    pub headers: Vec<(HeaderName, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// Answers as the provider would.
pub fn answer(provider: &Provider, request: &Request<'_>, whose: &Whose<'_>, now: Timestamp) -> Answer {
    match request.endpoint {
        // An unknown token is revoked as much as any (RFC 7009 section 2.2).
        Endpoint::Revoke => reply::revoked(provider),
        Endpoint::Token => match granted(provider, request, whose) {
            Ok((caller, token)) => reply::tokens(provider, request.headers, &caller, &token, now),
            Err(refused) => reply::refused(provider, request.headers, refused.kind, &refused.description),
        },
    }
}

/// Why a token request gets no tokens.
struct Refused {
    kind: reply::Refusal,
    description: String,
}

/// Whose tokens to answer with, and what stands for them.
fn granted<'c>(
    provider: &Provider,
    request: &Request<'_>,
    whose: &Whose<'c>,
) -> Result<(Connected<'c>, String), Refused> {
    let parameters = Parameters::of(request);
    let which = match whose {
        Whose::NotConnected(key) => key.as_arguments(),
        _ => format!("{} --subject S", provider.name),
    };
    let connect = format!("sidekey connect {which}");
    let refused = |kind, description: String| Err(Refused { kind, description });
    match parameters.get("grant_type") {
        Some("refresh_token") => {}
        // Before it was standardized, exchanging a code did not name the grant, and some still go without.
        None if parameters.get("code").is_none() => {
            return refused(reply::Refusal::Request, "The parameter grant_type is missing.".to_owned());
        }
        None | Some("authorization_code") => {
            let why = format!("Sidekey keeps the grant; codes are not exchanged here. Connect with `{connect}`.");
            return refused(reply::Refusal::Code, why);
        }
        Some(_) => {
            let why =
                format!("Sidekey keeps the grant; only refresh_token is answered here. Connect with `{connect}`.");
            return refused(reply::Refusal::GrantType, why);
        }
    }
    let Some(sent) = parameters.get("refresh_token") else {
        return refused(reply::Refusal::Request, "The parameter refresh_token is missing.".to_owned());
    };
    match whose {
        Whose::Connected(caller) => Ok((*caller, stand_in(provider, caller.handle, sent))),
        Whose::NotConnected(ConnectionKey { subject, .. }) => {
            let why =
                format!("Subject {subject} is not connected, or the connection has ended. Connect with `{connect}`.");
            refused(reply::Refusal::RefreshToken, why)
        }
        Whose::Unknown(error) => refused(reply::Refusal::RefreshToken, unknown(provider, *error)),
    }
}

/// The handle with the provider's look; for the fixed subject, who needs none, what the server sent.
fn stand_in(provider: &Provider, handle: Option<&str>, sent: &str) -> String {
    match handle {
        Some(handle) => format!("{}{}", provider.handle_prefix, handle::without_prefix(handle)),
        None if sent.len() <= 4096 && sent.bytes().all(|byte| byte.is_ascii_graphic()) => sent.to_owned(),
        None => format!("{}sidekey", provider.handle_prefix),
    }
}

fn unknown(provider: &Provider, error: CallerError) -> String {
    let what = match error {
        CallerError::Handle(HandleError::Expired) => "The time of this handle is over.",
        CallerError::Handle(HandleError::Revoked) => "This handle was revoked.",
        CallerError::Handle(HandleError::OtherProvider) => "This handle is for other providers.",
        CallerError::GrantOver => "The MCP client that this handle belongs to may no longer act for its user.",
        CallerError::ProviderNotPicked => "The user did not pick this provider for this MCP client.",
        CallerError::UnknownHandle => "This handle was never issued here.",
        _ => "The request holds no handle.",
    };
    let next = match error {
        CallerError::GrantOver | CallerError::ProviderNotPicked => {
            "The user authorizes the MCP client again.".to_owned()
        }
        _ => format!(
            "Issue one with `sidekey handle issue --subject S --provider {}` and use it as refresh token.",
            provider.name
        ),
    };
    format!("{what} {next}")
}

/// What never belongs into a cache (RFC 6749 section 5.1).
fn uncached() -> Vec<(HeaderName, String)> {
    vec![(header::CACHE_CONTROL, "no-store".to_owned()), (header::PRAGMA, "no-cache".to_owned())]
}

#[cfg(test)]
mod tests;
