//! Slack: what works and what does not both have status 200, and the token may stand in a form.

use serde_json::{Value, json};
use sidekey_simulator::Rotation;

use crate::client::Answer;
use crate::user::{User, form, tokens};

async fn rotating() -> User {
    let user = User::of("slack").await;
    user.simulator.set("slack", |settings| {
        settings.rotation = Rotation::SingleUse;
        settings.access_lifetime_s = 43_200.0;
    });
    user
}

fn failed(answer: &Answer, error: &str) {
    assert_eq!(answer.status, Some(200), "{answer:?}");
    assert_eq!(answer.json(), json!({"ok": false, "error": error}));
}

#[tokio::test]
async fn a_token_reply_names_the_workspace_and_the_user() {
    let user = User::of("slack").await;
    let reply: Value = user.exchange(&user.code().await, &[]).await.json();
    assert_eq!(reply["ok"], true);
    assert!(reply["access_token"].as_str().unwrap().starts_with("xoxb-"));
    assert_eq!((&reply["token_type"], &reply["scope"]), (&json!("bot"), &json!("read,write")));
    assert_eq!(reply["team"]["id"], "T0SIMULATED");
    assert!(reply["authed_user"]["id"].as_str().unwrap().starts_with('U'));
    assert!(reply.get("refresh_token").is_none() && reply.get("expires_in").is_none(), "rotation is off");
}

#[tokio::test]
async fn errors_of_the_token_endpoint_have_status_200() {
    let user = rotating().await;
    let answer = user.exchange("made-up", &[]).await;
    assert_eq!((answer.status, &answer.json()["ok"]), (Some(200), &json!(false)));
    assert_eq!(answer.json()["error"], "invalid_code");
    let held = user.connect().await;
    let answer = user.refresh(&held.refresh).await;
    assert_eq!((&answer.json()["ok"], &answer.json()["expires_in"]), (&json!(true), &json!(43_200)));
    assert!(tokens(&answer).refresh.starts_with("xoxe-1-"));
    assert_eq!(user.refresh(&held.refresh).await.json()["error"], "invalid_refresh_token");
}

#[tokio::test]
async fn the_token_may_stand_in_the_header_or_in_a_form() {
    let user = User::of("slack").await;
    let held = user.connect().await;
    let in_header = user.call("POST", "/api/auth.test", &held.access, "").await.json();
    assert_eq!((&in_header["ok"], &in_header["user"]), (&json!(true), &json!("user-1")));
    let fields = form(&[("token", &held.access), ("channel", "C1"), ("text", "hello call-7")]);
    let form_encoded = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
    let posted = user.post("/slack/api/api/chat.postMessage", &form_encoded, &fields).await.json();
    assert_eq!((&posted["ok"], &posted["message"]["text"]), (&json!(true), &json!("hello call-7")));
    let calls = user.simulator.api_calls();
    assert!(calls.iter().all(|call| call.accepted && call.generation == Some(1)), "{calls:?}");
    assert_eq!(calls[1].marker.as_deref(), Some("call-7"));
    let wrong = form(&[("token", "xoxb-made-up")]);
    failed(&user.post("/slack/api/api/auth.test", &form_encoded, &wrong).await, "invalid_auth");
    user.simulator.expire("slack");
    failed(&user.call("POST", "/api/auth.test", &held.access, "").await, "token_expired");
}

#[tokio::test]
async fn what_is_missing_or_unknown() {
    let user = User::of("slack").await;
    let held = user.connect().await;
    let answer = user.call("POST", "/api/chat.postMessage", &held.access, "").await.json();
    assert_eq!((&answer["error"], &answer["missing"]), (&json!("invalid_arguments"), &json!("channel")));
    assert_eq!(user.api("/api/no.such", &held.access).await.json()["error"], "unknown_method");
    assert_eq!(user.api("/api/users.list", &held.access).await.json()["members"][0]["name"], "user-1");
}

#[tokio::test]
async fn a_token_of_the_users_own_is_there_if_it_was_asked_for() {
    let user = rotating().await;
    let code = user.authorize(&[("user_scope", "search:read,chat:write")]).await.redirected("code").unwrap();
    let reply: Value = user.exchange(&code, &[]).await.json();
    let own = &reply["authed_user"];
    assert!(own["access_token"].as_str().unwrap().starts_with("xoxp-"), "{own}");
    assert_eq!((&own["scope"], &own["token_type"]), (&json!("search:read,chat:write"), &json!("user")));
    assert_ne!(own["refresh_token"], reply["refresh_token"]);
}
