//! Revocation and introspection: what a client may take back and ask about, and what it never learns about others.

use std::time::Duration;

use serde_json::json;

use crate::client::{Answer, send};
use crate::front::{Front, REDIRECT_URI, Tokens, assert_oauth_error};
use crate::issuer_support::{Stage, assert_dead, basic, front, is_taken, only_grant, post, redeem_as};

/// A client with a secret: its id and its `Authorization` header.
async fn confidential(front: &Front) -> (String, String) {
    let metadata = json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "client_secret_basic" });
    let registered = front.post_json("/register", &metadata).await.json();
    let text = |name: &str| registered[name].as_str().expect("there").to_owned();
    let header = basic(&text("client_id"), &text("client_secret"));
    (text("client_id"), header)
}

async fn tokens_of(front: &Front, client: &(String, String)) -> Tokens {
    let answer = redeem_as(front, &client.0, &[], Some(("authorization", &client.1))).await;
    Tokens::of(client.0.clone(), &answer)
}

async fn revoke(front: &Front, client_id: &str, token: &str, hint: &str) -> Answer {
    let mut form = vec![("client_id", client_id), ("token", token)];
    form.extend((!hint.is_empty()).then_some(("token_type_hint", hint)));
    front.post_form("/revoke", &form).await
}

async fn introspect(front: &Front, client: &(String, String), token: &str) -> Answer {
    post(front, "/introspect", &[("token", token)], Some(("authorization", &client.1))).await
}

#[tokio::test]
async fn a_revoked_access_token_is_dead_and_its_grant_lives_on() {
    let front = front().await;
    let tokens = front.authorized("alice").await;
    let answer = revoke(&front, &tokens.client_id, &tokens.access, "access_token").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(!is_taken(&front, &tokens.access).await);
    let next = Tokens::of(tokens.client_id.clone(), &front.refresh(&tokens.client_id, &tokens.refresh).await);
    assert!(is_taken(&front, &next.access).await);
    front.stop().await;
}

#[tokio::test]
async fn a_revoked_refresh_token_takes_all_tokens_of_its_grant_along() {
    let front = front().await;
    let first = front.authorized("alice").await;
    let second = Tokens::of(first.client_id.clone(), &front.refresh(&first.client_id, &first.refresh).await);
    assert_eq!(revoke(&front, &first.client_id, &second.refresh, "refresh_token").await.status, 200);
    assert_dead(&front, &first).await;
    assert_dead(&front, &second).await;
    assert_eq!(only_grant(&front).await, ("ended".to_owned(), "revoked_by_client".to_owned()));
    assert_eq!(revoke(&front, &first.client_id, &second.refresh, "").await.status, 200, "a second time too");
    front.stop().await;
}

#[tokio::test]
async fn the_hint_decides_nothing() {
    let front = front().await;
    let client_id = front.register("A client").await;
    for hint in ["access_token", "refresh_token", "unknown", ""] {
        let code = front.code(&client_id, "alice").await;
        let tokens = Tokens::of(client_id.clone(), &front.redeem(&client_id, &code, &[]).await);
        assert_eq!(revoke(&front, &client_id, &tokens.access, hint).await.status, 200, "{hint}");
        assert!(!is_taken(&front, &tokens.access).await, "{hint}");
        assert_eq!(revoke(&front, &client_id, &tokens.refresh, hint).await.status, 200, "{hint}");
        assert_dead(&front, &tokens).await;
    }
    front.stop().await;
}

#[tokio::test]
async fn an_unknown_token_is_as_good_as_revoked() {
    let front = front().await;
    let client_id = front.register("A client").await;
    for token in ["x", "sk_at_x", "sk_rt_x", "é", "a.b.c", &"x".repeat(20_000)] {
        let answer = revoke(&front, &client_id, token, "").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{token}");
    }
    assert_oauth_error(&front.post_form("/revoke", &[("client_id", &*client_id)]).await, 400, "invalid_request");
    assert_oauth_error(&revoke(&front, &client_id, "", "").await, 400, "invalid_request");
    let twice = [("client_id", &*client_id), ("token", "a"), ("token", "b")];
    assert_oauth_error(&front.post_form("/revoke", &twice).await, 400, "invalid_request");
    front.stop().await;
}

#[tokio::test]
async fn nobody_revokes_the_tokens_of_another_client() {
    let front = front().await;
    let tokens = front.authorized("alice").await;
    let other = front.register("Another client").await;
    for token in [&tokens.access, &tokens.refresh] {
        assert_oauth_error(&revoke(&front, &other, token, "").await, 400, "unauthorized_client");
        assert_oauth_error(&front.post_form("/revoke", &[("token", token)]).await, 400, "invalid_request");
        assert_oauth_error(&revoke(&front, "dyn_unknown", token, "").await, 401, "invalid_client");
    }
    assert!(is_taken(&front, &tokens.access).await);
    assert_eq!(front.refresh(&tokens.client_id, &tokens.refresh).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn a_client_with_a_secret_revokes_with_it() {
    let front = front().await;
    let client = confidential(&front).await;
    let tokens = tokens_of(&front, &client).await;
    assert_oauth_error(&revoke(&front, &client.0, &tokens.refresh, "").await, 401, "invalid_client");
    let wrong = basic(&client.0, "wrong");
    let form = [("token", &*tokens.refresh)];
    assert_oauth_error(&post(&front, "/revoke", &form, Some(("authorization", &wrong))).await, 401, "invalid_client");
    assert!(is_taken(&front, &tokens.access).await);
    assert_eq!(post(&front, "/revoke", &form, Some(("authorization", &client.1))).await.status, 200);
    assert!(!is_taken(&front, &tokens.access).await);
    front.stop().await;
}

#[tokio::test]
async fn introspection_is_for_clients_that_prove_who_they_are() {
    let front = front().await;
    let tokens = front.authorized("alice").await;
    let token = ("token", &*tokens.access);
    let client = confidential(&front).await;
    for form in
        [vec![], vec![token], vec![token, ("client_id", &*tokens.client_id)], vec![token, ("client_id", &*client.0)]]
    {
        assert_oauth_error(&front.post_form("/introspect", &form).await, 401, "invalid_client");
    }
    for header in
        ["Bearer x".to_owned(), format!("Bearer {}", tokens.access), basic(&client.0, "wrong"), "x".to_owned()]
    {
        let answer = post(&front, "/introspect", &[token], Some(("authorization", &header))).await;
        assert_oauth_error(&answer, 401, "invalid_client");
    }
    assert_eq!(send(front.world.client.get(front.world.public("/introspect"))).await.status, 405);
    front.stop().await;
}

#[tokio::test]
async fn a_client_learns_all_about_its_own_tokens() {
    let front = front().await;
    let client = confidential(&front).await;
    let tokens = tokens_of(&front, &client).await;
    let answer = introspect(&front, &client, &tokens.access).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
    let json = answer.json();
    assert_eq!((&json["active"], &json["scope"], &json["token_type"]), (&json!(true), &json!("mcp"), &json!("Bearer")));
    assert_eq!((&json["client_id"], &json["aud"]), (&json!(client.0), &json!(front.mcp())));
    assert_eq!(json["iss"], front.world.public(""));
    assert!(json["sub"].as_str().is_some_and(|subject| subject.starts_with("user:")), "{json}");
    assert_eq!(json["exp"].as_i64().zip(json["iat"].as_i64()).map(|(exp, iat)| exp - iat), Some(3600));
    let refresh = introspect(&front, &client, &tokens.refresh).await.json();
    assert_eq!((&refresh["active"], &refresh["token_type"]), (&json!(true), &json!(null)));
    front.stop().await;
}

#[tokio::test]
async fn about_everything_else_a_client_learns_that_it_is_not_active() {
    let (stage, clock) = Stage::with_clock();
    let front = stage.start().await;
    let client = confidential(&front).await;
    let own = tokens_of(&front, &client).await;
    let foreign = front.authorized("bob").await;
    let assert_inactive = async |token: &str, what: &str| {
        let answer = introspect(&front, &client, token).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"active":false}"#), "{what}");
    };
    for (what, token) in [
        ("another client's", &*foreign.access),
        ("another client's refresh token", &*foreign.refresh),
        ("unknown", "x"),
        ("of our shape", "sk_at_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("signed by nobody", "eyJhbGciOiJub25lIn0.e30."),
    ] {
        assert_inactive(token, what).await;
    }
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", &*own.refresh)];
    let answer = post(&front, "/token", &refresh, Some(("authorization", &client.1))).await;
    let next = Tokens::of(client.0.clone(), &answer);
    clock.advance(Duration::from_secs(31));
    assert_inactive(&own.refresh, "replaced").await;
    assert_eq!(introspect(&front, &client, &next.refresh).await.json()["active"], true);
    clock.advance(Duration::from_secs(3600));
    assert_inactive(&next.access, "expired").await;
    post(&front, "/revoke", &[("token", &*next.refresh)], Some(("authorization", &client.1))).await;
    assert_inactive(&next.refresh, "revoked").await;
    front.stop().await;
}

#[tokio::test]
async fn what_the_operator_revokes_is_dead_at_once() {
    let front = front().await;
    let tokens = front.authorized("alice").await;
    let id = front.grants().await[0]["id"].as_str().expect("an id").to_owned();
    let answer = front.world.admin("DELETE", &format!("/v1/grants/{id}"), "").await;
    assert!((200..300).contains(&answer.status), "{}", answer.text());
    assert_dead(&front, &tokens).await;
    assert_eq!(only_grant(&front).await, ("ended".to_owned(), "revoked_by_operator".to_owned()));
    front.stop().await;
}
