//! Client authentication (RFC 6749 section 2.3), by each company's taste.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use url::form_urlencoded;

use crate::settings::{ClientAuth, Settings};
use crate::token::Parameters;

/// Whether the request comes from the known client; if not, why.
pub(crate) fn check(
    settings: &Settings,
    wanted: ClientAuth,
    headers: &HeaderMap,
    body: &Parameters,
) -> Result<(), String> {
    let basic = basic(headers);
    let in_body = body.get("client_secret").map(|secret| {
        let id = body.get("client_id").unwrap_or_default();
        (id.to_owned(), secret.to_owned())
    });
    let (id, secret) = match (wanted, basic, in_body) {
        (ClientAuth::SecretAsUser, Some((secret, password)), None) if password.is_empty() => {
            (settings.client_id.clone(), secret)
        }
        (ClientAuth::SecretAsUser, _, _) => return Err("the secret is required as Basic user name".to_owned()),
        (ClientAuth::None, _, _) => {
            let id = body.get("client_id").unwrap_or_default().to_owned();
            (id, settings.client_secret.clone())
        }
        (_, Some(_), Some(_)) => return Err("two kinds of client authentication".to_owned()),
        (ClientAuth::Basic | ClientAuth::BasicOrBody, Some(basic), None) => basic,
        (ClientAuth::Body | ClientAuth::BasicOrBody, None, Some(in_body)) => in_body,
        (ClientAuth::Basic, _, _) => return Err("Basic authentication is required".to_owned()),
        (ClientAuth::Body, _, _) => return Err("client_secret is required in the body".to_owned()),
        (ClientAuth::BasicOrBody, None, None) => {
            return Err("client authentication is required".to_owned());
        }
    };
    if body.get("client_id").is_some_and(|other| other != id) {
        return Err("two client ids".to_owned());
    }
    if id != settings.client_id || secret != settings.client_secret {
        return Err("unknown client or wrong secret".to_owned());
    }
    Ok(())
}

/// User and password of an `Authorization: Basic` header.
pub(crate) fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((form_decoded(user), form_decoded(password)))
}

/// RFC 6749 has both parts form-encoded before they are joined.
fn form_decoded(text: &str) -> String {
    form_urlencoded::parse(format!("x={text}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}
