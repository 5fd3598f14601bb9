use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::base::http::Response;
use crate::catalogue::Catalogue;
use crate::catalogue::entry::ErrorClass;
use crate::catalogue::provider::tests::provider;
use crate::model::handle::MARKER;
use crate::oauth::token_response::{Exchange, Verdict, read};

const FORM: &str = "application/x-www-form-urlencoded";

fn now() -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000)
}

fn bare() -> String {
    format!("{MARKER}{}", "x".repeat(43))
}

fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("a value"))).collect()
}

fn at_token<'r>(headers: &'r HeaderMap, body: &'r str) -> Request<'r> {
    Request { endpoint: Endpoint::Token, headers, query: None, body: body.as_bytes() }
}

fn refreshed(provider: &Provider, handle: &str, captured: &Captured) -> Answer {
    let headers = headers(&[(CONTENT_TYPE, FORM), (ACCEPT, "application/json")]);
    let body = format!("grant_type=refresh_token&refresh_token={handle}");
    let request = at_token(&headers, &body);
    let presented = presented(&request).expect("one handle").expect("a handle");
    let scopes = ["one".to_owned(), "two".to_owned()];
    let caller = Connected { handle: Some(&presented), scopes: Some(&scopes), captured };
    answer(provider, &request, &Whose::Connected(caller), now())
}

fn object(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// As our own client, which knows every provider's shapes, reads them.
fn as_response(answer: &Answer) -> Response {
    let headers = answer.headers.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect();
    let status = StatusCode::from_u16(answer.status).expect("a status");
    Response { status, headers, body: answer.body.clone().into() }
}

#[test]
fn every_bundled_provider_answers_a_refresh_in_its_own_shape() {
    for name in Catalogue::bundled().names() {
        let provider = provider(name);
        let answer = refreshed(&provider, &bare(), &Captured::new());
        assert_eq!(answer.status, 200, "{name}");
        assert!(answer.headers.contains(&(CACHE_CONTROL, "no-store".to_owned())), "{name}");
        let reply = read(&provider.entry, Exchange::Refresh(None), &as_response(&answer), now()).expect(name);
        let expected = format!("{}{}", provider.handle_prefix, bare());
        assert_eq!(reply.tokens.access_token.expose(), expected, "{name}");
        if let Some(refresh_token) = &reply.tokens.refresh_token {
            assert_eq!(refresh_token.expose(), expected, "{name}");
        }
        let has_refresh_token = provider.entry.token.response.refresh_reply_has_refresh_token;
        assert_eq!(reply.tokens.refresh_token.is_some(), has_refresh_token, "{name}");
        assert_eq!(reply.tokens.scopes.as_deref(), Some(["one".to_owned(), "two".to_owned()].as_slice()), "{name}");
        assert_eq!(reply.id_token.map(|_| ()), None, "{name}");
        let lives = provider.entry.lifetime.access.map(|lifetime| now().plus(lifetime.0));
        assert_eq!(reply.tokens.access_expires_at, lives, "{name}");
        // The same again with what was answered: servers keep it and come back with it.
        assert_eq!(refreshed(&provider, &expected, &Captured::new()), answer, "{name}");
    }
}

#[test]
fn client_libraries_find_what_they_read() {
    let answered = |name: &str| object(&refreshed(&provider(name), &bare(), &Captured::new()));
    assert_eq!(
        answered("quickbooks"),
        json!({
            "access_token": bare(), "token_type": "Bearer", "expires_in": 3600, "refresh_token": bare(),
            "x_refresh_token_expires_in": 8_640_000, "x_refresh_token_hard_expires_in": 157_680_000, "scope": "one two",
        })
    );
    let handle = format!("ya29.{}", bare());
    assert_eq!(
        answered("google"),
        json!({ "access_token": handle, "token_type": "Bearer", "expires_in": 3599, "scope": "one two" })
    );
    assert_eq!(answered("gitlab")["created_at"], 1_700_000_000);
    assert_eq!(answered("github")["refresh_token_expires_in"], 15_897_600);
    assert_eq!(answered("microsoft")["access_token"].as_str().map(|token| token.split('.').count()), Some(3));
    let slack = answered("slack");
    assert_eq!((&slack["ok"], &slack["token_type"], &slack["scope"]), (&json!(true), &json!("bot"), &json!("one,two")));
    assert_eq!(slack["access_token"], format!("xoxb-{}", bare()));
    assert_eq!(slack["authed_user"]["access_token"], slack["access_token"]);
    let captured = Captured::from([("workspace_id".to_owned(), "w1".to_owned())]);
    assert_eq!(object(&refreshed(&provider("notion"), &bare(), &captured))["workspace_id"], "w1");
}

#[test]
fn where_the_provider_writes_forms_one_is_written_unless_json_is_asked_for() {
    let github = provider("github");
    let captured = Captured::new();
    let caller = Whose::Connected(Connected { handle: Some("sidekey_h_a"), scopes: None, captured: &captured });
    let body = "grant_type=refresh_token&refresh_token=sidekey_h_a";
    let plain = headers(&[(CONTENT_TYPE, FORM), (ACCEPT, "*/*")]);
    let form = answer(&github, &at_token(&plain, body), &caller, now());
    let text = String::from_utf8(form.body.clone()).expect("text");
    assert!(text.starts_with("access_token=ghu_sidekey_h_a&token_type=Bearer&expires_in=28800&"), "{text}");
    let reply = read(&github.entry, Exchange::Refresh(None), &as_response(&form), now()).expect("understood");
    assert_eq!(reply.tokens.access_token.expose(), "ghu_sidekey_h_a");
    let google = answer(&provider("google"), &at_token(&plain, body), &caller, now());
    assert!(object(&google).is_object());
}

#[test]
fn a_handle_is_found_wherever_a_token_or_a_secret_goes() {
    let h = bare();
    let basic = format!("Basic {}", STANDARD.encode(format!("client:{h}")));
    let form = headers(&[(CONTENT_TYPE, FORM)]);
    let json = headers(&[(CONTENT_TYPE, "application/json")]);
    let with_basic = headers(&[(CONTENT_TYPE, FORM), (AUTHORIZATION, &basic)]);
    for (headers, body) in [
        (&form, format!("grant_type=refresh_token&refresh_token={h}")),
        (&form, format!("token={h}&token_type_hint=refresh_token")),
        (&form, format!("grant_type=refresh_token&refresh_token=x&client_secret={h}")),
        (&json, format!("{{\"grant_type\":\"refresh_token\",\"refresh_token\":\"{h}\"}}")),
        (&json, format!("{{\"token\":\"{h}\",\"n\":1}}")),
        (&with_basic, "grant_type=refresh_token&refresh_token=x".to_owned()),
        (&with_basic, format!("grant_type=refresh_token&refresh_token={h}")),
    ] {
        assert_eq!(presented(&at_token(headers, &body)), Ok(Some(h.clone())), "{body}");
    }
    let in_query = Request { query: Some("token=sidekey_h_q"), ..at_token(&form, "") };
    assert_eq!(presented(&in_query), Ok(Some("sidekey_h_q".to_owned())));
    let two = format!("refresh_token={h}&client_secret={h}x");
    assert_eq!(presented(&at_token(&form, &two)), Err(PlacementError::TwoHandles));
    assert_eq!(presented(&at_token(&form, "refresh_token=placeholder")), Ok(None));
}

#[test]
fn a_caller_without_a_handle_keeps_what_it_sent() {
    let captured = Captured::new();
    let caller = Whose::Connected(Connected { handle: None, scopes: None, captured: &captured });
    let form = headers(&[(CONTENT_TYPE, FORM), (ACCEPT, "application/json")]);
    let google = provider("google");
    let token = |sent: &str| {
        let body = format!("grant_type=refresh_token&refresh_token={sent}");
        object(&answer(&google, &at_token(&form, &body), &caller, now()))["access_token"].clone()
    };
    assert_eq!(token("placeholder"), "placeholder");
    assert_eq!(token("a%0d%0ab"), "ya29.sidekey");
}

#[test]
fn other_grants_get_an_error_that_says_how_to_connect() {
    let json_wanted = headers(&[(CONTENT_TYPE, FORM), (ACCEPT, "application/json")]);
    for name in Catalogue::bundled().names() {
        let provider = provider(name);
        let refused = |body: &str, whose: Whose<'_>| {
            let answer = answer(&provider, &at_token(&json_wanted, body), &whose, now());
            let expected = if provider.entry.token.response.error_with_status_200 { 200 } else { 400 };
            assert_eq!(answer.status, expected, "{name}: {body}");
            let text = String::from_utf8(answer.body.clone()).expect("text");
            assert!(!text.contains(MARKER), "{text}");
            let error = read(&provider.entry, Exchange::Refresh(None), &as_response(&answer), now()).expect_err(name);
            (object(&answer), error.verdict)
        };
        let connect = format!("sidekey connect {name} --subject alice --label work");
        let (subject, label) = ("alice".parse().expect("a subject"), "work".parse().expect("a label"));
        let alice = ConnectionKey::new(subject, provider.name.clone(), label);
        let nobody = Whose::NotConnected(&alice);
        let ended_code = if name == "slack" { "invalid_refresh_token" } else { "invalid_grant" };
        let described = |body: &Value| {
            let place = &provider.entry.token.response.error_description;
            body.pointer(place).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let (body, _) = refused("grant_type=authorization_code&code=abc", nobody);
        assert_eq!(body["error"], ended_code, "{name}");
        assert!(described(&body).contains(&connect), "{body}");
        for other in ["client_credentials", "password", "urn:ietf:params:oauth:grant-type:device_code"] {
            let (body, _) = refused(&format!("grant_type={other}"), nobody);
            assert_eq!(body["error"], "unsupported_grant_type", "{name} {other}");
            assert!(described(&body).contains(&connect), "{body}");
        }
        assert_eq!(refused("", nobody).0["error"], "invalid_request", "{name}");
        assert_eq!(refused("grant_type=refresh_token", nobody).0["error"], "invalid_request", "{name}");
        let handle = format!("grant_type=refresh_token&refresh_token={}", bare());
        let ended = Verdict::Class(ErrorClass::Permanent);
        for error in [
            CallerError::UnknownHandle,
            CallerError::NoHandle,
            CallerError::GrantOver,
            CallerError::Handle(HandleError::Expired),
            CallerError::Handle(HandleError::Revoked),
        ] {
            let (body, verdict) = refused(&handle, Whose::Unknown(error));
            assert_eq!((&body["error"], verdict), (&json!(ended_code), ended), "{name} {error:?}");
        }
        let (body, verdict) = refused(&handle, nobody);
        assert_eq!((&body["error"], verdict), (&json!(ended_code), ended), "{name}");
        assert!(described(&body).contains(&connect), "{body}");
    }
}

#[test]
fn a_revocation_succeeds_in_the_providers_way() {
    let none = HeaderMap::new();
    let mut declaring = 0;
    for name in Catalogue::bundled().names() {
        let provider = provider(name);
        let request = Request { endpoint: Endpoint::Revoke, headers: &none, query: None, body: b"" };
        let answer = answer(&provider, &request, &Whose::Unknown(CallerError::UnknownHandle), now());
        // Where none is declared there is no such endpoint.
        let Some(declared) = provider.entry.revoke.as_ref() else { continue };
        declaring += 1;
        assert!(declared.ok_status.contains(&answer.status), "{name}");
        assert_eq!(answer.body.is_empty(), answer.status == 204, "{name}");
        if let Some(ok) = &declared.ok {
            assert_eq!(object(&answer).pointer(ok), Some(&json!(true)), "{name}");
        }
    }
    assert!(declaring >= 15, "{declaring}");
}

#[test]
fn what_is_emulated_is_found_by_its_url() {
    let quickbooks = provider("quickbooks");
    let at = |method: &str, host: &str, path: &str| endpoint(&quickbooks, method, host, path);
    assert_eq!(at("POST", "oauth.platform.intuit.com", "/oauth2/v1/tokens/bearer"), Some(Endpoint::Token));
    assert_eq!(at("GET", "OAuth.platform.intuit.com", "/oauth2/v1/tokens/Bearer/"), Some(Endpoint::Token));
    assert_eq!(at("POST", "developer.api.intuit.com", "/v2/oauth2/tokens/revoke"), Some(Endpoint::Revoke));
    assert_eq!(at("GET", "developer.api.intuit.com", "/v2/oauth2/tokens/revoke"), Some(Endpoint::Revoke));
    assert_eq!(at("POST", "quickbooks.api.intuit.com", "/oauth2/v1/tokens/bearer"), None);
    assert_eq!(at("POST", "oauth.platform.intuit.com", "/oauth2/v1/tokens/bearer/x"), None);
    assert_eq!(urls(&quickbooks).len(), 2);
    // The server's client id is not ours.
    let github = provider("github");
    let path = "/applications/Iv1.other/token";
    assert_eq!(endpoint(&github, "DELETE", "api.github.com", path), Some(Endpoint::Revoke));
    assert_eq!(endpoint(&github, "POST", "api.github.com", path), None, "that is introspection");
    // Slack takes every call by GET too.
    for (method, path) in [("POST", "/api/auth.revoke"), ("GET", "/api/auth.revoke"), ("GET", "/api/Auth%2Erevoke/")] {
        let found = endpoint(&provider("slack"), method, "slack.com", path);
        assert_eq!(found, Some(Endpoint::Revoke), "{method} {path}");
    }
    // Carried out with the real token, this would end every session of the user.
    let microsoft = provider("microsoft");
    let path = "/v1.0/me/revokesigninsession%73";
    assert_eq!(endpoint(&microsoft, "POST", "graph.microsoft.com", path), Some(Endpoint::Revoke));
}

#[test]
fn userinfo_is_an_api_like_others() {
    let api = provider("quickbooks").userinfo_api().expect("there is one");
    assert_eq!(api.paths, [crate::catalogue::provider::PathPrefix::parse("/v1/openid_connect/userinfo")]);
    assert_eq!(api.credential.header, AUTHORIZATION);
}
