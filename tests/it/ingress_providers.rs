//! What becomes of grants when the connections behind them end, and of those that only have trouble.

use std::time::Duration;

use serde_json::json;
use sidekey_simulator::{Endpoint, Fault, FaultKind};

use crate::client::Answer;
use crate::front::{Front, Tokens, assert_oauth_error, assert_problem};
use crate::front_support::{Special, assert_page, at_a_standstill, start};
use crate::world::eventually;

const LONG: &str = "access_token_lifetime = \"2d\"\nrefresh_token_lifetime = \"7d\"\n";

#[tokio::test]
async fn a_required_provider_that_has_ended_the_connection_ends_the_grant() {
    let server = "providers = [\"notion\", \"gitlab\"]\nrequired = [\"notion\", \"gitlab\"]\n";
    let (front, clock) = at_a_standstill(Special { issuer: LONG.to_owned(), server, ..Special::default() }).await;
    let [first, second] = [front.authorized("alice").await, front.authorized("alice").await];
    front.ping(&first.access).await;
    let handle = front.server.requests()[0].headers["authorization"].to_str().expect("text").replace("Bearer ", "");
    front.die("gitlab", &clock).await;
    let answer = front.ping(&first.access).await;
    assert_problem(&answer, 401, "provider-gone");
    assert_eq!(answer.headers.get_all("www-authenticate").iter().count(), 1);
    let challenge = answer.header("www-authenticate");
    assert!(challenge.starts_with("Bearer resource_metadata=\""), "{challenge}");
    let error = "error=\"invalid_token\", error_description=\"a provider that is needed has ended the connection\"";
    assert!(challenge.ends_with(error), "{challenge}");
    assert_problem(&front.ping(&first.access).await, 401, "invalid-token");
    assert_oauth_error(&front.refresh(&first.client_id, &first.refresh).await, 400, "invalid_grant");
    assert_problem(&front.world.call(&handle, "/notion/v1/users/me").await, 401, "grant-over");
    // The other one notices when it refreshes.
    assert_oauth_error(&front.refresh(&second.client_id, &second.refresh).await, 400, "invalid_grant");
    assert_problem(&front.ping(&second.access).await, 401, "invalid-token");
    let grants = front.grants().await;
    assert!(grants.iter().all(|grant| grant["state"] == "ended" && grant["reason"] == "provider_gone"), "{grants:?}");
    assert_eq!(front.server.requests().len(), 1);
    front.stop().await;
}

#[tokio::test]
async fn a_provider_that_is_down_ends_no_grant() {
    let server = "providers = [\"notion\", \"gitlab\"]\nrequired = [\"notion\", \"gitlab\"]\n";
    let (front, clock) = at_a_standstill(Special { issuer: LONG.to_owned(), server, ..Special::default() }).await;
    let tokens = front.authorized("alice").await;
    let down = FaultKind::Status { status: 503, body: None, content_type: None, headers: Default::default() };
    front.world.simulator.add_fault(Fault::new("gitlab", Endpoint::Token, down));
    clock.advance(Duration::from_secs(9 * 3600));
    eventually("a refresh failed", async || {
        front.connections().await.iter().any(|connection| !connection["trouble"].is_null())
    })
    .await;
    assert_eq!(front.ping(&tokens.access).await.status, 200);
    let refreshed = Tokens::of(tokens.client_id.clone(), &front.refresh(&tokens.client_id, &tokens.refresh).await);
    assert_eq!(front.ping(&refreshed.access).await.status, 200);
    assert_eq!(front.grants().await[0]["state"], "live");
    front.stop().await;
}

async fn call_gitlab(front: &Front, access_token: &str) -> Answer {
    front.call(access_token, "api", json!({ "path": "/gitlab/api/v4/user" })).await
}

#[tokio::test]
async fn an_optional_provider_that_has_ended_is_connected_again_by_the_user() {
    let server = "providers = [\"notion\", \"gitlab\"]\nrequired = [\"notion\"]\n";
    let (front, clock) = at_a_standstill(Special { issuer: LONG.to_owned(), server, ..Special::default() }).await;
    let tokens = front.authorized_with("alice", &[], &["gitlab"]).await;
    assert_eq!(call_gitlab(&front, &tokens.access).await.json()["status"], 200);
    front.die("gitlab", &clock).await;
    let answer = call_gitlab(&front, &tokens.access).await.json();
    assert_eq!((&answer["status"], &answer["body"]["type"]), (&json!(403), &json!("urn:sidekey:error:needs-reauth")));
    let connect_url = answer["body"]["connect_url"].as_str().expect("a URL").to_owned();
    assert_eq!(connect_url, front.world.public("/account/connect/gitlab"));
    assert_eq!(front.ping(&tokens.access).await.status, 200, "the grant goes on");
    assert_eq!(front.refresh(&tokens.client_id, &tokens.refresh).await.status, 200);
    // Whoever opens it is asked who he is, and connects for himself.
    let mut stranger = front.visitor("mallory");
    let page = stranger.get(&connect_url).await;
    assert!(page.status == 200 && page.text().contains("Sign in with Notion"), "{}", page.text());
    assert!(!page.text().contains("alice") && !page.text().contains("user:") && !page.text().contains("ended"));
    stranger.submit(&connect_url, &[]).await.page();
    let (_, account) = stranger.submit(&connect_url, &[]).await.page();
    assert!(account.text().contains("<strong>mallory</strong>"), "{}", account.text());
    assert_eq!(call_gitlab(&front, &tokens.access).await.json()["status"], 403, "nothing changed for the user");
    let mut visitor = front.visitor("alice");
    visitor.sign_in().await.page();
    let page = visitor.get(&connect_url).await;
    assert!(page.text().contains("You are signed in as <strong>alice</strong>"), "{}", page.text());
    let (url, _) = visitor.submit(&connect_url, &[]).await.page();
    assert_eq!(url, front.world.public("/account"));
    assert_eq!(call_gitlab(&front, &tokens.access).await.json()["status"], 200, "the grant uses what was connected");
    front.stop().await;
}

#[tokio::test]
async fn the_page_of_a_connection_is_for_offered_providers_and_own_forms_only() {
    let front = Front::start().await;
    let mut visitor = front.visitor("alice");
    visitor.sign_in().await.page();
    for provider in ["gitlab", "quickbooks", "nobody", "..%2fx", "GITHUB"] {
        let url = front.world.public(&format!("/account/connect/{provider}"));
        assert_eq!((visitor.get(&url).await.status, visitor.post(&url, &[]).await.status), (404, 404), "{provider}");
    }
    let url = front.world.public("/account/connect/github");
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let answer = visitor.fetch(front.world.client.post(&url).header(name, value)).await;
        assert_page(&answer, 403, "Not from here", "This request came from another site.");
    }
    let known = visitor.cookies.clone();
    assert_eq!(visitor.get(&url).await.status, 200, "opening the address begins nothing");
    assert_eq!((visitor.cookies, front.sign_ins("github")), (known, 0));
    front.stop().await;
}

/// Has the operator disconnect the only subject there is.
async fn disconnect(front: &Front, provider: &str) {
    let body = json!({ "provider": provider, "subject": front.newest_subject().await });
    let answer = front.world.admin("POST", "/v1/disconnect", &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn an_optional_provider_that_was_disconnected_is_connected_by_the_user() {
    let server = "providers = [\"notion\", \"gitlab\"]\nrequired = [\"notion\"]\n";
    let front = start(Special { server, ..Special::default() }).await;
    let tokens = front.authorized_with("alice", &[], &["gitlab"]).await;
    disconnect(&front, "gitlab").await;
    let answer = call_gitlab(&front, &tokens.access).await.json();
    assert_eq!((&answer["status"], &answer["body"]["type"]), (&json!(403), &json!("urn:sidekey:error:not-connected")));
    assert_eq!(answer["body"]["connect_url"], front.world.public("/account/connect/gitlab"));
    assert_eq!(answer["body"]["next_step"], "the user opens connect_url and connects; then the call works again");
    assert_eq!(front.ping(&tokens.access).await.status, 200, "the grant goes on");
    let mut visitor = front.visitor("alice");
    let connect_url = answer["body"]["connect_url"].as_str().expect("a URL");
    // Nobody is signed in yet: that comes first, and then the same page again.
    let (url, page) = visitor.submit(connect_url, &[]).await.page();
    assert_eq!(url, connect_url);
    assert!(page.text().contains("You are signed in as <strong>alice</strong>"), "{}", page.text());
    visitor.submit(connect_url, &[]).await.page();
    assert_eq!(call_gitlab(&front, &tokens.access).await.json()["status"], 200);
    front.stop().await;
}

#[tokio::test]
async fn a_required_provider_that_was_disconnected_ends_the_grant() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    assert_eq!(front.ping(&tokens.access).await.status, 200);
    disconnect(&front, "notion").await;
    assert_problem(&front.ping(&tokens.access).await, 401, "provider-gone");
    assert_problem(&front.ping(&tokens.access).await, 401, "invalid-token");
    assert_oauth_error(&front.refresh(&tokens.client_id, &tokens.refresh).await, 400, "invalid_grant");
    assert_eq!(front.server.requests().len(), 1);
    // Whoever connects again does not bring the old grant back.
    let again = front.authorized("alice").await;
    assert_eq!(front.ping(&again.access).await.status, 200);
    assert_problem(&front.ping(&tokens.access).await, 401, "invalid-token");
    front.stop().await;
}

#[tokio::test]
async fn users_disconnect_their_own_accounts_and_nobody_elses() {
    let server = "providers = [\"notion\", \"gitlab\"]\nrequired = [\"notion\"]\n";
    let front = start(Special { server, ..Special::default() }).await;
    let tokens = front.authorized_with("alice", &[], &["gitlab"]).await;
    let url = front.world.public("/account/disconnect/gitlab");
    let mut stranger = front.visitor("bob");
    assert_eq!(stranger.post(&url, &[]).await.status, 404, "nobody is signed in");
    stranger.sign_in().await.page();
    assert_eq!(stranger.post(&url, &[]).await.status, 404, "bob has none");
    let mut visitor = front.visitor("alice");
    visitor.sign_in().await.page();
    let from_elsewhere = front.world.client.post(&url).header("origin", "https://evil.example");
    let answer = visitor.fetch(from_elsewhere).await;
    assert_page(&answer, 403, "Not from here", "This request came from another site.");
    let asked = visitor.get(&url).await;
    assert!(asked.status == 200 && asked.text().contains("<h1>Disconnect GitLab?</h1>"), "{}", asked.text());
    assert!(asked.text().contains("It will be missing in: A client."), "{}", asked.text());
    assert_eq!(call_gitlab(&front, &tokens.access).await.json()["status"], 200);
    assert!(visitor.account().await.text().contains("href=\"/account/disconnect/gitlab\""));
    let meant = [crate::front_support::Visitor::shown_connection(&asked)];
    let done = visitor.post(&url, &meant).await;
    assert_eq!((done.status, done.header("location")), (303, "/account"));
    assert!(!visitor.account().await.text().contains("href=\"/account/disconnect/gitlab\""));
    assert_eq!(visitor.post(&url, &meant).await.status, 404, "once");
    let answer = call_gitlab(&front, &tokens.access).await.json();
    assert_eq!(answer["body"]["type"], "urn:sidekey:error:not-connected");
    let unknown = visitor.post(&front.world.public("/account/disconnect/nobody"), &[]).await;
    assert_eq!(unknown.status, 404);
    front.stop().await;
}
