//! What each company's token replies look like.

use serde_json::{Value, json};

use crate::flow::refused;
use crate::user::{REDIRECT, User, tokens};

/// The reply to an exchange and to the refresh after it.
async fn replies(user: &User) -> (Value, Value) {
    let exchange = user.exchange(&user.code().await, &[]).await;
    let held = tokens(&exchange);
    (exchange.json(), user.refresh(&held.refresh).await.json())
}

#[tokio::test]
async fn quickbooks() {
    let user = User::of("quickbooks").await;
    let (exchange, refresh) = replies(&user).await;
    for reply in [&exchange, &refresh] {
        assert_eq!(reply["token_type"], "bearer");
        assert_eq!(reply["expires_in"], 3600);
        assert_eq!(reply["x_refresh_token_expires_in"], 8_726_400);
        assert!(reply.get("x_refresh_token_hard_expires_in").is_none());
        assert!(reply.get("scope").is_none());
    }
    assert_eq!(exchange["refresh_token"], refresh["refresh_token"], "same value within a day");
    let token = exchange["refresh_token"].as_str().unwrap();
    let parameters = [("grant_type", "refresh_token"), ("refresh_token", token)];
    let opt_in = [("x-include-refresh-token-hard-expires-in", "true")];
    let answer = user.token(&parameters, &opt_in).await;
    assert!(!answer.header("intuit_tid").is_empty());
    let hard = answer.json()["x_refresh_token_hard_expires_in"].as_u64().unwrap();
    assert!((157_679_000..=157_680_000).contains(&hard));
}

#[tokio::test]
async fn github() {
    let user = User::of("github").await;
    let (exchange, refresh) = replies(&user).await;
    for reply in [&exchange, &refresh] {
        assert!(reply["access_token"].as_str().unwrap().starts_with("ghu_"));
        assert!(reply["refresh_token"].as_str().unwrap().starts_with("ghr_"));
        assert_eq!(reply["scope"], "read,write");
        assert_eq!(reply["refresh_token_expires_in"], 15_897_600);
        assert_eq!(reply["expires_in"], 28_800);
    }
    // Without an Accept header for JSON, success and error are forms; errors have status 200.
    let token = refresh["refresh_token"].as_str().unwrap();
    let parameters = [("grant_type", "refresh_token"), ("refresh_token", token)];
    let answer = user.token(&parameters, &[("accept", "*/*")]).await;
    assert!(answer.header("content-type").starts_with("application/x-www-form-urlencoded"));
    assert!(answer.text().starts_with("access_token=ghu_"), "{answer:?}");
    let answer = user.token(&parameters, &[("accept", "*/*")]).await;
    assert_eq!(answer.status, Some(200));
    assert!(answer.text().starts_with("error=bad_refresh_token&"), "{answer:?}");
    refused(&user.exchange("made-up", &[]).await, 200, "bad_verification_code");
    let code = user.code().await;
    let other = [("redirect_uri", "http://127.0.0.1:9/other")];
    refused(&user.exchange(&code, &other).await, 200, "redirect_uri_mismatch");
}

#[tokio::test]
async fn github_oauth_app() {
    let user = User::of("github-oauth-app").await;
    let reply = user.exchange(&user.code().await, &[]).await.json();
    assert!(reply["access_token"].as_str().unwrap().starts_with("gho_"));
    assert!(reply.get("refresh_token").is_none() && reply.get("expires_in").is_none());
}

#[tokio::test]
async fn microsoft() {
    let user = User::of("microsoft").await;
    let (exchange, refresh) = replies(&user).await;
    assert_eq!(refresh["expires_in"], 3599);
    assert_eq!(refresh["ext_expires_in"], 3599);
    assert_eq!(refresh["scope"], "read write");
    assert_eq!(refresh["token_type"], "Bearer");
    assert_ne!(exchange["refresh_token"], refresh["refresh_token"]);
    let error = user.refresh("made-up").await;
    refused(&error, 400, "invalid_grant");
    assert!(error.json()["error_codes"][0].is_u64());
    assert!(error.json()["trace_id"].is_string() && error.json()["correlation_id"].is_string());
}

#[tokio::test]
async fn google() {
    let user = User::of("google").await;
    let (exchange, refresh) = replies(&user).await;
    assert!(exchange["access_token"].as_str().unwrap().starts_with("ya29."));
    assert!(exchange["refresh_token"].is_string());
    assert!(refresh.get("refresh_token").is_none());
    assert!(refresh["access_token"].is_string());
    for change in [("access_type", "online"), ("prompt", "")] {
        let code = user.authorize(&[change]).await.redirected("code").unwrap();
        let reply = user.exchange(&code, &[]).await.json();
        assert!(reply["access_token"].is_string() && reply.get("refresh_token").is_none());
    }
}

#[tokio::test]
async fn notion() {
    let user = User::of("notion").await;
    let (_, refresh) = replies(&user).await;
    assert!(refresh["access_token"].as_str().unwrap().starts_with("ntn_"));
    assert!(refresh["refresh_token"].as_str().unwrap().starts_with("nrt_"));
    assert!(refresh.get("expires_in").is_none());
    assert_eq!(refresh["workspace_id"], json!(user.simulator.settings("notion").realm_id));
    for field in ["bot_id", "workspace_name", "owner"] {
        assert!(!refresh[field].is_null(), "{field}");
    }
}

#[tokio::test]
async fn gitlab() {
    let user = User::of("gitlab").await;
    let (_, refresh) = replies(&user).await;
    assert!(refresh["created_at"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(refresh["expires_in"], 7200);
    let token = refresh["refresh_token"].as_str().unwrap();
    let without = [("grant_type", "refresh_token"), ("refresh_token", token)];
    refused(&user.token(&without, &[]).await, 400, "invalid_grant");
    let with = [without[0], without[1], ("redirect_uri", REDIRECT)];
    tokens(&user.token(&with, &[]).await);
}

#[tokio::test]
async fn all_values_are_long_and_random() {
    for profile in
        ["quickbooks", "github", "github-oauth-app", "microsoft", "google", "notion", "gitlab", "slack", "generic"]
    {
        let user = User::of(profile).await;
        let held = user.connect().await;
        let again = user.connect().await;
        assert!(held.access.len() >= 36 && held.access != again.access);
        if !held.refresh.is_empty() {
            assert!(held.refresh.len() >= 36 && held.refresh != again.refresh);
        }
        let sum: u64 = user.simulator.ledger().profile(profile).grants.len() as u64;
        assert_eq!(sum, 2);
    }
}
