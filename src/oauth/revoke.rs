//! Giving a grant back (RFC 7009), in the provider's own shape.

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use serde_json::Value;
use zeroize::Zeroizing;

use super::token_request::{Parameters, authenticate, media_type};
use crate::base::http::{Request, Response};
use crate::base::secret::Secret;
use crate::catalogue::entry::{Cascade, ClientAuthentication, TokenCall};
use crate::catalogue::{Provider, template};
use crate::model::connection::Captured;

/// How a provider takes a grant back, where it does so without ending more than that.
pub fn offered(provider: &Provider) -> Option<&TokenCall> {
    provider.entry.revoke.as_ref().filter(|call| call.cascades != Some(Cascade::AllAppsOfUser))
}

/// What is given back.
#[derive(Clone, Copy)]
pub struct Grant<'g> {
    /// The access token.
    pub access: &'g Secret,
    /// The refresh token, where there is one.
    pub refresh: Option<&'g Secret>,
    /// Values that came with it.
    pub captured: &'g Captured,
}

/// The request that gives back what these tokens stand for. Where a provider wants the refresh token and there is none, the
/// access token has to do. What it wants of the connection and was never captured is named.
pub fn request(provider: &Provider, call: &TokenCall, grant: &Grant<'_>) -> Result<Request, String> {
    let value_of = |name: &str| match name {
        "access_token" => Some(grant.access.expose()),
        "refresh_token" => Some(grant.refresh.unwrap_or(grant.access).expose()),
        "client_id" => Some(provider.client.id.as_str()),
        "client_secret" => Some(provider.client.secret.as_ref().map_or("", Secret::expose)),
        name => grant.captured.get(name).map(String::as_str),
    };
    let mut wanted = call.body.values().chain(call.query.values()).flat_map(|value| template::variables(value));
    if let Some(missing) = wanted.find(|name| value_of(name).is_none()) {
        return Err(format!("{missing} was never captured"));
    }
    let mut parameters = Parameters::default();
    for (name, value) in &call.body {
        parameters.push(name, &Zeroizing::new(template::fill(value, value_of)));
    }
    let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
    for (name, value) in &call.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    if call.client_authentication == ClientAuthentication::Bearer {
        let text = Zeroizing::new(format!("Bearer {}", grant.access.expose()));
        if let Ok(mut value) = HeaderValue::from_str(&text) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
    } else if call.client_authentication != ClientAuthentication::None {
        authenticate(provider, Some(call.client_authentication), &mut headers, &mut parameters);
    }
    let mut url = call.url.url().clone();
    for (name, value) in &call.query {
        url.query_pairs_mut().append_pair(name, &template::fill(value, value_of));
    }
    // Nothing but the query was added to a URL that was safe.
    let url = url.as_str().parse().unwrap_or_else(|_| call.url.clone());
    let method = call.method.parse().unwrap_or(Method::POST);
    if parameters.is_empty() {
        // A method that takes nothing may refuse an empty form, or an empty object.
        return Ok(Request { method, url, headers, body: Zeroizing::default() });
    }
    headers.entry(CONTENT_TYPE).or_insert_with(|| media_type(call.request_format));
    Ok(Request { method, url, headers, body: parameters.encode(call.request_format) })
}

/// What a reply to it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// It is not asked: the tokens may be those of a newer connection.
    Superseded,
    /// It is gone.
    Done,
    /// The provider says that there was nothing to end, which is as good.
    Unknown,
    /// Ask again later.
    NotYet(String),
}

/// Reads the reply.
pub fn read(call: &TokenCall, reply: &Response) -> Revoked {
    let status = reply.status.as_u16();
    let body = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
    let error = body.get("error").and_then(Value::as_str).unwrap_or_default();
    if call.gone.iter().any(|code| code == error) {
        return Revoked::Unknown;
    }
    if call.ok_status.contains(&status) {
        return match call.ok.as_deref().map(|place| body.pointer(place)) {
            None | Some(Some(Value::Bool(true))) => Revoked::Done,
            _ => Revoked::NotYet(format!("HTTP {status} that does not say that it is done")),
        };
    }
    match status {
        // Our registration is the trouble, not the token.
        400 if ["invalid_client", "unauthorized_client", "invalid_request"].contains(&error) => {
            Revoked::NotYet(format!("HTTP 400 with error {error}"))
        }
        // A token that the provider does not know (anymore): RFC 7009 would have it answer 200, not all do.
        400 | 404 | 410 | 422 => Revoked::Unknown,
        _ => Revoked::NotYet(format!("HTTP {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::provider::tests::provider;

    fn revocation(name: &str, refresh: Option<&str>) -> Request {
        let provider = provider(name);
        let call = offered(&provider).expect("offered").clone();
        let captured = Captured::from([("stripe_user_id".to_owned(), "acct_1".to_owned())]);
        let (access, refresh) = (Secret::new("at"), refresh.map(Secret::new));
        let grant = Grant { access: &access, refresh: refresh.as_ref(), captured: &captured };
        request(&provider, &call, &grant).expect("everything is there")
    }

    fn body(request: &Request) -> &str {
        std::str::from_utf8(&request.body).expect("text")
    }

    #[test]
    fn every_provider_in_its_own_shape() {
        let quickbooks = revocation("quickbooks", Some("rt"));
        assert_eq!((body(&quickbooks), quickbooks.headers.contains_key(AUTHORIZATION)), ("{\"token\":\"rt\"}", true));
        let github = revocation("github", Some("rt"));
        assert_eq!((github.method.as_str(), body(&github)), ("DELETE", "{\"access_token\":\"at\"}"));
        assert!(github.url.url().path().ends_with("/applications/client-1/token"));
        let google = revocation("google", None);
        assert_eq!((body(&google), google.headers.contains_key(AUTHORIZATION)), ("token=at", false));
        assert_eq!(body(&revocation("gitlab", Some("rt"))), "token=rt&client_id=client-1&client_secret=s3cret%2F%2B");
    }

    #[test]
    fn values_of_the_connection_are_filled_in_and_nothing_is_sent_where_nothing_is_wanted() {
        let connect = revocation("stripe-connect", None);
        assert_eq!(body(&connect), "client_id=client-1&stripe_user_id=acct_1");
        let provider = provider("stripe-connect");
        let call = offered(&provider).expect("offered");
        let grant = Grant { access: &Secret::new("at"), refresh: None, captured: &Captured::new() };
        assert_eq!(request(&provider, call, &grant).err().as_deref(), Some("stripe_user_id was never captured"));
        let dropbox = revocation("dropbox", Some("rt"));
        assert_eq!((body(&dropbox), dropbox.headers.contains_key(CONTENT_TYPE)), ("", false));
        assert_eq!(dropbox.headers[AUTHORIZATION], "Bearer at");
    }

    #[test]
    fn some_say_under_200_that_there_is_nothing_to_end() {
        let provider = provider("slack");
        let call = offered(&provider).expect("offered");
        let said = |body: &str| {
            let (status, body) = (http::StatusCode::OK, Zeroizing::new(body.as_bytes().to_vec()));
            read(call, &Response { status, headers: HeaderMap::new(), body })
        };
        assert_eq!(said(r#"{"ok":true,"revoked":true}"#), Revoked::Done);
        assert_eq!(said(r#"{"ok":false,"error":"token_revoked"}"#), Revoked::Unknown);
        assert!(matches!(said(r#"{"ok":false,"error":"internal_error"}"#), Revoked::NotYet(_)));
        assert!(matches!(said(""), Revoked::NotYet(_)));
    }

    #[test]
    fn what_would_end_more_than_the_grant_is_not_offered() {
        assert!(offered(&provider("microsoft")).is_none());
    }

    #[test]
    fn replies_are_done_unknown_or_not_yet() {
        let provider = provider("quickbooks");
        let call = offered(&provider).expect("offered");
        let reply = |status: u16| Response {
            status: http::StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: Zeroizing::default(),
        };
        assert_eq!(read(call, &reply(200)), Revoked::Done);
        for gone in [400, 404] {
            assert_eq!(read(call, &reply(gone)), Revoked::Unknown);
        }
        let ours = Response { body: Zeroizing::new(br#"{"error":"invalid_client"}"#.to_vec()), ..reply(400) };
        assert!(matches!(read(call, &ours), Revoked::NotYet(_)), "our registration is the trouble");
        for not_yet in [302, 401, 403, 429, 500, 503] {
            assert!(matches!(read(call, &reply(not_yet)), Revoked::NotYet(_)), "{not_yet}");
        }
    }
}
