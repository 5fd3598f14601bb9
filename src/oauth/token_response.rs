//! What a reply of the token endpoint says, whatever shape the provider gives it (RFC 6749 sections 5.1 and 5.2).

use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::base::duration::DurationText;
use crate::base::http::Response;
use crate::base::secret::Secret;
use crate::catalogue::entry::{Entry, ErrorClass, Identity, IdentitySource, NamedToken, ReplyFormat, TokenResponse};
use crate::model::connection::Captured;
use crate::model::names::TokenName;
use crate::model::token_set::TokenSet;
use crate::oauth::error_class::{ErrorReply, classify, declared_for_status};
use crate::oauth::retry_after::retry_after;

/// A reply that grants tokens.
#[derive(Debug)]
pub struct TokenReply {
    /// The tokens.
    pub tokens: TokenSet,
    /// Further tokens of the same grant, each with its own lifetime.
    pub further: Vec<(TokenName, TokenSet)>,
    /// Values that belong to the connection.
    pub captured: Captured,
    /// The ID token (OpenID Connect Core section 3.1.3.3), where there is one.
    pub id_token: Option<Secret>,
    /// The account and its name, where the entry says that token replies tell.
    pub account: Option<(String, Option<String>)>,
}

/// A reply that grants none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRefusal {
    /// Who must act.
    pub verdict: Verdict,
    /// What was said, fit for logs and people: the status, and the error code if it is a plain one.
    pub summary: String,
    /// How long the provider asks us to wait.
    pub retry_after: Option<Duration>,
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The provider knows what it says.
    Class(ErrorClass),
    /// Too many requests; nothing was done.
    Throttled,
    /// The provider failed in the middle: it may or may not have used up the refresh token or the code.
    Unknown,
    /// The provider refused without a verdict on the grant: a page of a firewall, an error nobody knows.
    Misbehaved,
}

/// Which request a reply belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange<'e> {
    /// A code exchange.
    Code,
    /// A refresh of one of the grant's tokens; `None` for the first.
    Refresh(Option<&'e TokenName>),
}

/// Longer tokens would not fit into a request header of any server we know.
const LONGEST_TOKEN: usize = 16_384;

/// Reads the reply to a request that was sent at `sent_at`. Lifetimes count from then: the provider issued the tokens at
/// some moment after it, and a reply may take long.
pub fn read(
    entry: &Entry,
    exchange: Exchange<'_>,
    reply: &Response,
    sent_at: Timestamp,
) -> Result<TokenReply, TokenRefusal> {
    let declared = &entry.token.response;
    let refusal =
        |verdict, summary: String| TokenRefusal { verdict, summary, retry_after: retry_after(&reply.headers, sent_at) };
    let status = reply.status;
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err(refusal(Verdict::Throttled, "HTTP 429".to_owned()));
    }
    let body = parse_body(declared, reply);
    if let Some(error) = body.as_ref().and_then(|body| error_of(entry, status, body)) {
        let summary = match error.code {
            Some(code) => format!("HTTP {} with error {code}", status.as_u16()),
            None => format!("HTTP {} with an error", status.as_u16()),
        };
        return Err(refusal(error.verdict, summary));
    }
    if status.is_server_error() {
        return Err(refusal(Verdict::Unknown, format!("HTTP {}", status.as_u16())));
    }
    if !status.is_success() {
        return Err(refusal(Verdict::Misbehaved, format!("HTTP {} without an OAuth error", status.as_u16())));
    }
    // From here on the provider says that it acted: what cannot be read leaves the outcome unknown.
    let body = body.ok_or_else(|| refusal(Verdict::Unknown, "a success that is no JSON object".to_owned()))?;
    granted(entry, exchange, &body, sent_at).map_err(|why| refusal(Verdict::Unknown, why))
}

fn parse_body(declared: &TokenResponse, reply: &Response) -> Option<Value> {
    let content_type = reply.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if declared.format == ReplyFormat::JsonOrForm && content_type.starts_with("application/x-www-form-urlencoded") {
        let pairs: Vec<(String, String)> = serde_urlencoded::from_bytes(&reply.body).ok()?;
        return Some(Value::Object(pairs.into_iter().map(|(name, value)| (name, Value::String(value))).collect()));
    }
    let text = reply.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&reply.body);
    serde_json::from_slice(text).ok().filter(Value::is_object)
}

struct FoundError {
    verdict: Verdict,
    code: Option<String>,
}

/// An error in the body. With a status of success it counts only where the entry says that errors come that way;
/// elsewhere it is a contradiction and no verdict on the grant.
fn error_of(entry: &Entry, status: StatusCode, body: &Value) -> Option<FoundError> {
    let declared = &entry.token.response;
    let said_not_ok = declared.ok.as_deref().is_some_and(|ok| body.pointer(ok) == Some(&Value::Bool(false)));
    let places = std::iter::once(&declared.error).chain(&entry.errors.more_codes);
    let codes: Vec<String> = places.filter_map(|place| error_code(body.pointer(place)?)).collect();
    if codes.is_empty() && !said_not_ok {
        return None;
    }
    let description = body.pointer(&declared.error_description).and_then(Value::as_str);
    let code = codes.iter().find(|code| is_plain(code)).cloned();
    let speaks_for_itself = !status.is_success() || said_not_ok || declared.error_with_status_200;
    let reply = ErrorReply { status: status.as_u16(), codes, description };
    let class = classify(&entry.errors, &reply);
    let verdict = match class {
        // A server that fails may have acted before it failed, and what it says of the grant is no verdict: but for what the
        // entry knows to come with this very status.
        _ if status.is_server_error() => match declared_for_status(&entry.errors, &reply) {
            Some(class @ (ErrorClass::Permanent | ErrorClass::Configuration)) => Verdict::Class(class),
            _ => Verdict::Unknown,
        },
        Some(class) if speaks_for_itself => Verdict::Class(class),
        // A success that contradicts itself: it may have acted.
        _ if status.is_success() => Verdict::Unknown,
        _ => Verdict::Misbehaved,
    };
    Some(FoundError { verdict, code })
}

/// A code, whatever it is written as. Some say `true` and leave the rest to the description; `false` and 0 are no errors.
fn error_code(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        Value::Number(number) => (number.as_i64() != Some(0)).then(|| number.to_string()),
        Value::Bool(true) => Some("true".to_owned()),
        _ => None,
    }
}

/// Error codes are shown to people and written to logs: only those that are codes, so that a token which a provider
/// puts there goes nowhere.
fn is_plain(code: &str) -> bool {
    code.len() <= 64
        && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-. ".contains(&byte))
}

fn granted(entry: &Entry, exchange: Exchange<'_>, body: &Value, now: Timestamp) -> Result<TokenReply, String> {
    let declared = &entry.token.response;
    let is_known = |found: &str| declared.token_types.iter().any(|known| known.eq_ignore_ascii_case(found));
    if text(body, &declared.token_type).is_some_and(|found| !is_known(found)) {
        return Err("a token that is no bearer token".to_owned());
    }
    let grant = Grant { entry, exchange, body, now };
    let mut further = Vec::new();
    let mut tokens = None;
    for named in &declared.more_tokens {
        let is_wanted = match exchange {
            Exchange::Code => true,
            Exchange::Refresh(wanted) => wanted.is_some_and(|wanted| wanted.as_str() == named.name),
        };
        let Some(found) = grant.tokens(&Places::of(named)).filter(|_| is_wanted).transpose()? else { continue };
        match (exchange, named.name.parse()) {
            (Exchange::Code, Ok(name)) => further.push((name, found)),
            // What was refreshed may stand where it stood at first, or where a token usually stands.
            _ => tokens = Some(found),
        }
    }
    let usual = || grant.tokens(&Places::usual(declared)).ok_or("a success without an access token")?;
    let tokens = tokens.map_or_else(usual, Ok)?;
    let captured = match exchange {
        Exchange::Refresh(_) if !declared.capture_on_refresh => Captured::new(),
        _ => capture(declared, body),
    };
    let id_token = text(body, "/id_token").filter(|token| token.len() <= LONGEST_TOKEN).map(Secret::new);
    let account = entry.identity.as_ref().and_then(|identity| account(identity, body));
    Ok(TokenReply { tokens, further, captured, id_token, account })
}

fn text<'b>(body: &'b Value, place: &str) -> Option<&'b str> {
    body.pointer(place).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Where one token and what belongs to it stand.
struct Places<'e> {
    access_token: &'e str,
    refresh_token: Option<&'e str>,
    expires_in: Option<&'e str>,
    scope: Option<&'e str>,
}

impl<'e> Places<'e> {
    fn usual(declared: &'e TokenResponse) -> Self {
        Self {
            access_token: &declared.access_token,
            refresh_token: Some(&declared.refresh_token),
            expires_in: Some(&declared.expires_in),
            scope: Some(&declared.scope),
        }
    }

    fn of(named: &'e NamedToken) -> Self {
        Self {
            access_token: &named.access_token,
            refresh_token: named.refresh_token.as_deref(),
            expires_in: named.expires_in.as_deref(),
            scope: named.scope.as_deref(),
        }
    }
}

/// A reply that says that tokens were granted.
struct Grant<'e> {
    entry: &'e Entry,
    exchange: Exchange<'e>,
    body: &'e Value,
    now: Timestamp,
}

impl Grant<'_> {
    /// The tokens that stand there; `None` if there is no access token.
    fn tokens(&self, places: &Places<'_>) -> Option<Result<TokenSet, String>> {
        let access_token = text(self.body, places.access_token)?;
        let refresh_token = places.refresh_token.and_then(|place| text(self.body, place));
        for token in std::iter::once(access_token).chain(refresh_token) {
            if token.len() > LONGEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Some(Err("a token that would not fit into a header".to_owned()));
            }
        }
        let (declared, lifetimes) = (&self.entry.token.response, &self.entry.lifetime);
        let known = |declared: Option<DurationText>| declared.map(|DurationText(lifetime)| lifetime);
        let said = |place: Option<&str>| place.and_then(|place| lifetime(self.body, place));
        let at = |lifetime: Option<Duration>| lifetime.map(|lifetime| self.now.plus(lifetime));
        // What is declared counts from the beginning of the grant; later only what a reply says can be news.
        let absolute = known(lifetimes.refresh_absolute).filter(|_| self.exchange == Exchange::Code);
        let separator = declared.scope_separator.as_deref().unwrap_or(&self.entry.authorize.scope_separator);
        let scopes = places.scope.and_then(|place| listed(self.body.pointer(place)?, separator));
        Some(Ok(TokenSet {
            access_token: Secret::new(access_token),
            access_expires_at: at(said(places.expires_in).or(known(lifetimes.access))),
            refresh_token: refresh_token.map(Secret::new),
            refresh_expires_at: at(said(declared.refresh_expires_in.as_deref()).or(known(lifetimes.refresh_idle))),
            grant_expires_at: at(said(declared.refresh_hard_expires_in.as_deref()).or(absolute)),
            scopes,
        }))
    }
}

/// Scopes in one text, or in a list; `None` for an empty text, which says nothing.
fn listed(scopes: &Value, separator: &str) -> Option<Vec<String>> {
    match scopes {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => {
            Some(text.split(separator).filter(|scope| !scope.is_empty()).map(str::to_owned).collect())
        }
        Value::Array(items) => Some(items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()),
        _ => None,
    }
}

fn account(identity: &Identity, body: &Value) -> Option<(String, Option<String>)> {
    let id = text_or_number(body.pointer(&identity.account)?)
        .filter(|_| identity.source == IdentitySource::TokenResponse)?;
    let name = identity.display_name.as_ref().and_then(|place| body.pointer(place)?.as_str().map(str::to_owned));
    Some((id, name))
}

/// What identifies something in a reply: a text, or a number as it is written.
pub fn text_or_number(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

/// A lifetime in seconds, written as number or text. Zero and less say nothing about a token that was just issued (some
/// providers mean that it does not end): as if there were none. The longest is ten years, the shortest a second.
fn lifetime(body: &Value, place: &str) -> Option<Duration> {
    let seconds = match body.pointer(place)? {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse::<f64>().ok()?,
        _ => return None,
    };
    (seconds.is_finite() && seconds > 0.0).then(|| Duration::from_secs_f64(seconds.clamp(1.0, 315_360_000.0)))
}

fn capture(declared: &TokenResponse, body: &Value) -> Captured {
    let value = |place: &str| match body.pointer(place)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let short = |(name, place): (&String, &String)| {
        value(place).filter(|text| text.len() <= 1024).map(|text| (name.clone(), text))
    };
    declared.capture.iter().filter_map(short).collect()
}

#[cfg(test)]
mod tests;
