//! Authorization, code exchange, revocation: the way through, and each refusal.

use crate::client::{Answer, request};
use crate::user::{CHALLENGE, REDIRECT, User, form, tokens};

#[tokio::test]
async fn a_code_becomes_tokens_once() {
    let user = User::of("generic").await;
    let answer = user.authorize(&[]).await;
    assert_eq!(answer.status, Some(302));
    assert!(answer.header("location").starts_with(REDIRECT));
    assert_eq!(answer.redirected("state").as_deref(), Some("some-state"));
    assert_eq!(answer.redirected("iss"), None);
    assert_eq!(answer.redirected("realmId"), None);
    let code = answer.redirected("code").unwrap();
    let tokens = tokens(&user.exchange(&code, &[]).await);
    assert!(user.accepts(&tokens.access).await);
    refused(&user.exchange(&code, &[]).await, 400, "invalid_grant");
    let counters = user.counters();
    assert_eq!((counters.authorize_calls, counters.code_exchanges, counters.code_exchanges_ok), (1, 2, 1));
}

#[tokio::test]
async fn the_callback_carries_what_the_company_adds() {
    let user = User::of("quickbooks").await;
    user.simulator.set("quickbooks", |settings| settings.send_iss = true);
    let answer = user.authorize(&[]).await;
    assert_eq!(answer.redirected("realmId").as_deref(), Some("9341453172058817"));
    assert_eq!(answer.redirected("iss").as_deref(), Some("http://simulator.test/quickbooks"));
    user.simulator.set("quickbooks", |settings| settings.issuer = Some("https://issuer.test".to_owned()));
    assert_eq!(user.authorize(&[]).await.redirected("iss").as_deref(), Some("https://issuer.test"));
}

#[tokio::test]
async fn a_bad_client_or_redirect_uri_is_never_redirected() {
    let user = User::of("generic").await;
    for change in [("client_id", "other"), ("client_id", ""), ("redirect_uri", ""), ("redirect_uri", "relative")] {
        let answer = user.authorize(&[change]).await;
        assert_eq!(answer.status, Some(400), "{change:?}");
        assert_eq!(answer.header("location"), "");
    }
}

#[tokio::test]
async fn other_authorization_errors_go_to_the_client() {
    let user = User::of("generic").await;
    let cases: [(&[(&str, &str)], &str); 5] = [
        (&[("response_type", "token")], "unsupported_response_type"),
        (&[("code_challenge_method", "plain")], "invalid_request"),
        (&[("code_challenge_method", "")], "invalid_request"),
        (&[("code_challenge", "")], "invalid_request"),
        (&[("code_challenge", "too-short")], "invalid_request"),
    ];
    for (changes, error) in cases {
        let answer = user.authorize(changes).await;
        assert_eq!(answer.redirected("error").as_deref(), Some(error), "{changes:?}");
        assert_eq!(answer.redirected("state").as_deref(), Some("some-state"));
        assert_eq!(answer.redirected("code"), None);
    }
}

#[tokio::test]
async fn pkce_can_be_required_or_left_out() {
    let user = User::of("generic").await;
    let without = [("code_challenge", ""), ("code_challenge_method", "")];
    let code = user.authorize(&without).await.redirected("code").unwrap();
    refused(&user.exchange(&code, &[]).await, 400, "invalid_grant");
    let code = user.authorize(&without).await.redirected("code").unwrap();
    tokens(&user.exchange(&code, &[("code_verifier", "")]).await);
    user.simulator.set("generic", |settings| settings.pkce_required = true);
    let answer = user.authorize(&without).await;
    assert_eq!(answer.redirected("error").as_deref(), Some("invalid_request"));
    assert!(user.authorize(&[]).await.redirected("code").is_some());
}

#[tokio::test]
async fn each_wrong_exchange_is_refused() {
    let user = User::of("generic").await;
    let cases = [
        ("code", "made-up", "invalid_grant"),
        ("redirect_uri", "http://127.0.0.1:9/other", "invalid_grant"),
        ("redirect_uri", "", "invalid_grant"),
        ("code_verifier", "wrong", "invalid_grant"),
        ("code_verifier", CHALLENGE, "invalid_grant"),
        ("code_verifier", "", "invalid_grant"),
        ("grant_type", "password", "unsupported_grant_type"),
    ];
    for (name, value, error) in cases {
        let code = user.code().await;
        refused(&user.exchange(&code, &[(name, value)]).await, 400, error);
    }
    user.simulator.set("generic", |settings| settings.code_lifetime_s = 0.0);
    refused(&user.exchange(&user.code().await, &[]).await, 400, "invalid_grant");
    assert!(user.simulator.ledger().profile("generic").grants.is_empty());
}

#[tokio::test]
async fn client_authentication_is_checked() {
    let user = User::of("notion").await;
    let wrong = [("authorization", "Basic d3Jvbmc6d3Jvbmc="), ("content-type", "application/json")];
    let body = r#"{"grant_type":"authorization_code","code":"x"}"#;
    refused(&user.post("/notion/token", &wrong, body).await, 401, "invalid_client");
    let basic = user.basic();
    // The right client, but a form where JSON is wanted.
    let form_type = [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    refused(&user.post("/notion/token", &form_type, "grant_type=x").await, 400, "invalid_request");
    // In the body, where Basic is wanted.
    let in_body = r#"{"grant_type":"refresh_token","client_id":"notion-client-id","client_secret":"x"}"#;
    let json = [("content-type", "application/json")];
    refused(&user.post("/notion/token", &json, in_body).await, 401, "invalid_client");
    // Basic, where it is wanted in the body; GitHub has its own name and status for that.
    let accepting = [form_type[1], ("accept", "application/json")];
    let answer = user.post("/github/token", &accepting, "grant_type=refresh_token");
    refused(&answer.await, 200, "incorrect_client_credentials");
    assert_eq!(user.counters().refreshes_rejected, 1, "at notion");
    // Both at once.
    let user = User { profile: "generic", ..user };
    let code = user.code().await;
    refused(&user.exchange(&code, &[("client_secret", "x")]).await, 401, "invalid_client");
    // A repeated parameter.
    let twice = [("grant_type", "refresh_token"), ("grant_type", "refresh_token")];
    refused(&user.token(&twice, &[]).await, 400, "invalid_request");
}

#[tokio::test]
async fn the_user_can_be_asked_and_can_refuse() {
    let user = User::of("generic").await;
    user.simulator.set("generic", |settings| settings.auto_approve = false);
    let page = user.authorize(&[("scope", "<script>")]).await;
    assert_eq!(page.status, Some(200));
    let html = page.text();
    assert!(html.contains(">Approve</button>") && html.contains(">Deny</button>"), "{html}");
    assert!(html.contains("decision=approve") && !html.contains("<script>"), "{html}");
    let denied = user.authorize(&[("decision", "deny")]).await;
    assert_eq!(denied.redirected("error").as_deref(), Some("access_denied"));
    let approved = user.authorize(&[("decision", "approve")]).await;
    tokens(&user.exchange(&approved.redirected("code").unwrap(), &[]).await);
    user.simulator.set("generic", |settings| settings.deny_with = Some("server_error".to_owned()));
    let answer = user.authorize(&[("decision", "approve")]).await;
    assert_eq!(answer.redirected("error").as_deref(), Some("server_error"));
    assert!(answer.redirected("error_description").is_some());
}

#[tokio::test]
async fn revocation_ends_the_whole_grant() {
    let user = User::of("quickbooks").await;
    let held = user.connect().await;
    let body = format!(r#"{{"token":"{}"}}"#, held.refresh);
    let json = ("content-type", "application/json");
    refused(&user.post("/quickbooks/revoke", &[json], &body).await, 401, "invalid_client");
    let basic = user.basic();
    let answer = user.post("/quickbooks/revoke", &[json, ("authorization", &basic)], &body).await;
    assert_eq!(answer.status, Some(200));
    assert!(!user.accepts(&held.access).await);
    refused(&user.refresh(&held.refresh).await, 400, "invalid_grant");
    assert_eq!(user.counters().revokes, 1);
    assert_eq!(user.counters().reuse_detected, 0);
    assert!(user.grant().revoked_at_ms.is_some());
}

#[tokio::test]
async fn google_revokes_without_client_authentication() {
    let user = User::of("google").await;
    let held = user.connect().await;
    let type_ = [("content-type", "application/x-www-form-urlencoded")];
    let body = form(&[("token", &held.access)]);
    assert_eq!(user.post("/google/revoke", &type_, &body).await.status, Some(200));
    assert!(!user.accepts(&held.access).await);
    let answer = user.post("/google/revoke", &type_, "token=unknown").await;
    refused(&answer, 400, "invalid_token");
}

#[tokio::test]
async fn github_revokes_by_delete() {
    let user = User::of("github").await;
    let held = user.connect().await;
    let basic = user.basic();
    let body = format!(r#"{{"access_token":"{}"}}"#, held.access);
    let delete = |target: &'static str| {
        let (to, basic, body) = (user.simulator.address(), basic.clone(), body.clone());
        async move { request(to, "DELETE", target, &[("authorization", &basic)], body).await }
    };
    assert_eq!(delete("/github/applications/github-client-id/token").await.status, Some(204));
    assert!(!user.accepts(&held.access).await);
    refused(&user.refresh(&held.refresh).await, 200, "bad_refresh_token");
}

pub fn refused(answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.status, Some(status), "{answer:?}");
    assert_eq!(answer.json()["error"], error, "{answer:?}");
    assert!(answer.json().get("access_token").is_none());
}
