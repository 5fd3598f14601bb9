//! Who called: what is written down about each API call.

use serde_json::{Value, json};
use sidekey_simulator::{ApiCall, Endpoint, Fault, FaultKind};

use crate::client::request;
use crate::user::{Tokens, User, tokens};

async fn connect(user: &User, name: &str) -> Tokens {
    let code = user.authorize(&[("simulated_user", name)]).await.redirected("code").unwrap();
    tokens(&user.exchange(&code, &[]).await)
}

/// User and generation of each call so far.
fn callers(user: &User) -> Vec<(Option<String>, Option<u64>)> {
    user.simulator.api_calls().into_iter().map(|call| (call.user, call.generation)).collect()
}

fn markers(user: &User) -> Vec<Option<String>> {
    user.simulator.api_calls().into_iter().map(|call| call.marker).collect()
}

#[tokio::test]
async fn each_call_is_written_down_with_its_caller() {
    let user = User::of("generic").await;
    let alice = connect(&user, "alice").await;
    let bob = connect(&user, "bob").await;
    user.call("PATCH", "/a%2Fb?x=call-17&y=1", &alice.access, "").await;
    let first = user.simulator.api_calls();
    let expected = ApiCall {
        profile: "generic".to_owned(),
        method: "PATCH".to_owned(),
        host: "simulator.test".to_owned(),
        path: "/a%2Fb".to_owned(),
        user: Some("alice".to_owned()),
        grant: Some(user.simulator.ledger().profile("generic").grants[0].id.clone()),
        generation: Some(1),
        accepted: true,
        marker: Some("call-17".to_owned()),
    };
    assert_eq!(first, [expected]);
    let next = tokens(&user.refresh(&alice.refresh).await);
    let third = tokens(&user.refresh(&next.refresh).await);
    for token in [&bob.access, &next.access, &third.access, "made-up"] {
        user.api("/echo", token).await;
    }
    user.simulator.expire("generic");
    user.api("/echo", &bob.access).await;
    let by = |name: &str, generation| (Some(name.to_owned()), Some(generation));
    let expected = [by("alice", 1), by("bob", 1), by("alice", 2), by("alice", 3), (None, None), by("bob", 1)];
    assert_eq!(callers(&user), expected);
    let accepted: Vec<bool> = user.simulator.api_calls().iter().map(|call| call.accepted).collect();
    assert_eq!(accepted, [true, true, true, true, false, false]);
    assert_eq!(user.simulator.take_api_calls().len(), accepted.len());
    assert!(user.simulator.api_calls().is_empty());
    user.api("/echo", &bob.access).await;
    user.simulator.clear_api_calls();
    assert!(user.simulator.api_calls().is_empty());
}

#[tokio::test]
async fn a_call_is_found_by_its_mark_wherever_it_stands() {
    let user = User::of("notion").await;
    let token = user.connect().await.access;
    user.call("POST", "/v1/search", &token, r#"{"query":"call-in-body, call-2"}"#).await;
    user.call("POST", "/v1/pages?q=call-in-query", &token, "call-in-body").await;
    user.call("GET", "/v1/pages/call-in-path", &token, "").await;
    user.call("GET", "/v1/users", &token, "").await;
    user.call("POST", "/v1/upload", &token, &format!("{}call-at-the-end", "x".repeat(3_000_000))).await;
    // A refused call's body is looked at as well.
    user.call("POST", "/v1/search", "made-up", r#"{"query":"call-refused"}"#).await;
    let expected = ["call-in-body", "call-in-query", "call-in-path", "", "call-at-the-end", "call-refused"];
    let expected: Vec<Option<String>> =
        expected.iter().map(|mark| (!mark.is_empty()).then(|| (*mark).to_owned())).collect();
    assert_eq!(markers(&user), expected);
}

#[tokio::test]
async fn only_the_api_counts_and_only_what_was_read() {
    let user = User::of("generic").await;
    let token = user.connect().await.access;
    user.get("/generic/userinfo").await;
    assert!(user.simulator.api_calls().is_empty());
    let unread = Fault::new("generic", Endpoint::Api, FaultKind::ResetBeforeReading).nth(1);
    user.simulator.add_fault(unread);
    assert!(user.api("/echo", &token).await.status.is_none());
    assert!(user.simulator.api_calls().is_empty());
    let failed = FaultKind::Error { error: "server_error".to_owned(), description: None, status: Some(500) };
    user.simulator.add_fault(Fault::new("generic", Endpoint::Api, failed).nth(1));
    user.simulator.add_fault(Fault::new("generic", Endpoint::Api, FaultKind::CommitThenReset).nth(2));
    assert_eq!(user.api("/echo?call-1", &token).await.status, Some(500));
    assert!(user.call("POST", "/echo", &token, "call-2").await.status.is_none());
    let calls = user.simulator.api_calls();
    let seen: Vec<(Option<&str>, bool)> = calls.iter().map(|call| (call.marker.as_deref(), call.accepted)).collect();
    assert_eq!(seen, [(Some("call-1"), false), (Some("call-2"), true)]);
    user.simulator.reset();
    assert!(user.simulator.api_calls().is_empty());
}

#[tokio::test]
async fn the_calls_can_be_read_over_http() {
    let user = User::of("generic").await;
    let to = user.simulator.address();
    let token = user.connect().await.access;
    user.api("/echo?call-9", &token).await;
    let user = User { profile: "github", ..user };
    user.api("/user", &user.connect().await.access).await;
    let read = async |query: &str| request(to, "GET", &format!("/control/calls{query}"), &[], "").await;
    let all: Vec<ApiCall> = serde_json::from_value(read("").await.json()).unwrap();
    assert_eq!(all, user.simulator.api_calls());
    let github = read("?profile=github").await.json();
    assert_eq!((github.as_array().map(Vec::len), &github[0]["user"]), (Some(1), &json!("octocat")));
    assert_eq!((&github[0]["generation"], &github[0]["marker"]), (&json!(1), &Value::Null));
    assert_eq!(read("?profile=nobody").await.status, Some(404));
    assert_eq!(request(to, "DELETE", "/control/calls", &[], "").await.status, Some(200));
    assert_eq!(read("").await.json(), json!([]));
}

#[tokio::test]
async fn notion_answers_in_its_own_shapes() {
    let user = User::of("notion").await;
    let code = user.authorize(&[("simulated_user", "alice")]).await.redirected("code").unwrap();
    let exchange = user.exchange(&code, &[]).await;
    let token = tokens(&exchange).access;
    let me = user.api("/v1/users/me", &token).await.json();
    assert_eq!((&me["object"], &me["type"], &me["name"]), (&json!("user"), &json!("bot"), &json!("alice")));
    assert_eq!((&me["id"], &me["bot"]["owner"]), (&exchange.json()["bot_id"], &exchange.json()["owner"]));
    assert_eq!(me["bot"]["owner"]["user"]["person"]["email"], "alice@example.test");
    let found = user.call("POST", "/v1/search", &token, "{}").await.json();
    assert_eq!(
        (&found["object"], &found["has_more"], &found["next_cursor"]),
        (&json!("list"), &json!(false), &json!(null))
    );
    for page in found["results"].as_array().unwrap() {
        assert_eq!(page["object"], "page");
        assert!(page["properties"]["title"]["title"][0]["plain_text"].is_string(), "{page}");
        assert!(page["url"].as_str().unwrap().starts_with("https://www.notion.so/"));
        assert!(page["parent"]["workspace"].is_boolean() && page["last_edited_time"].is_string());
    }
}
