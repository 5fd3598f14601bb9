//! A grant's handle: where the server gets it, how long it stays the same, and that it ends with the grant.

use serde_json::{Value, json};
use sidekey_simulator::{Endpoint, Fault, FaultKind};

use crate::client::{Answer, send};
use crate::front::{Front, Tokens, assert_oauth_error, assert_problem};
use crate::front_support::{Special, assert_page, at_a_standstill, restarted, start};

/// The handle in the server's last request.
fn last_handle(front: &Front, header: &str) -> String {
    let requests = front.server.requests();
    let values: Vec<_> = requests.last().expect("one").headers.get_all(header).iter().cloned().collect();
    assert_eq!(values.len(), 1, "{values:?}");
    values[0].to_str().expect("text").to_owned()
}

/// A grant whose handle and tokens are of no use from now on.
async fn assert_over(front: &Front, tokens: &Tokens, handle: &str) {
    let seen = front.server.requests().len();
    assert_problem(&front.ping(&tokens.access).await, 401, "invalid-token");
    assert_eq!(front.server.requests().len(), seen);
    assert_oauth_error(&front.refresh(&tokens.client_id, &tokens.refresh).await, 400, "invalid_grant");
    let calls = front.world.simulator.api_calls().len();
    let answer = front.world.call(handle, "/notion/v1/users/me").await;
    assert_problem(&answer, 401, "grant-over");
    assert_eq!(front.world.simulator.api_calls().len(), calls);
}

/// A user's tokens, and the handle that goes with them.
async fn with_handle(front: &Front, user: &str) -> (Tokens, String) {
    let tokens = front.authorized(user).await;
    assert_eq!(front.ping(&tokens.access).await.status, 200);
    (tokens, last_handle(front, "authorization").replace("Bearer ", ""))
}

fn grant_id(grants: &[Value], index: usize) -> String {
    grants[index]["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn the_handle_stands_where_the_server_looks_for_it() {
    let server = "handle = { header = \"X-Notion-Token\", scheme = \"raw\", prefix = \"ntn_\" }\n";
    let front = start(Special { server, ..Special::default() }).await;
    let tokens = front.authorized("alice").await;
    let request = front.world.client.post(front.mcp()).bearer_auth(&tokens.access);
    let request = request.header("x-notion-token", "mine").header("X-Notion-Token", "another").body("{}");
    assert_eq!(send(request).await.status, 200);
    let handle = last_handle(&front, "x-notion-token");
    assert!(handle.starts_with("ntn_sidekey_h_"), "{handle}");
    assert!(!front.server.requests()[0].headers.contains_key("authorization"));
    let answer = front.world.call(&handle, "/notion/v1/users/me").await;
    assert_eq!((answer.status, &answer.json()["name"]), (200, &json!("alice")), "{}", answer.text());
    let without = handle.replace("ntn_", "");
    assert_eq!(front.world.call(&without, "/notion/v1/users/me").await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn the_handle_stays_the_same_over_refreshes_and_restarts() {
    let front = Front::start().await;
    let (tokens, handle) = with_handle(&front, "alice").await;
    let tokens = Tokens::of(tokens.client_id.clone(), &front.refresh(&tokens.client_id, &tokens.refresh).await);
    front.ping(&tokens.access).await;
    assert_eq!(last_handle(&front, "authorization"), format!("Bearer {handle}"));
    let front = restarted(front, |_| {}).await;
    assert_eq!(front.ping(&tokens.access).await.status, 200);
    assert_eq!(last_handle(&front, "authorization"), format!("Bearer {handle}"));
    assert_eq!(front.whoami(&tokens.access).await.json()["body"]["name"], "alice");
    assert_eq!(front.refresh(&tokens.client_id, &tokens.refresh).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn two_grants_of_one_user_have_two_handles_and_end_one_by_one() {
    let front = Front::start().await;
    let (first, first_handle) = with_handle(&front, "alice").await;
    let (second, second_handle) = with_handle(&front, "alice").await;
    assert_ne!(first_handle, second_handle);
    let id = grant_id(&front.grants().await, 0);
    assert_eq!(front.world.admin("DELETE", &format!("/v1/grants/{id}"), "").await.status, 204);
    assert_over(&front, &first, &first_handle).await;
    assert_eq!(front.ping(&second.access).await.status, 200);
    assert_eq!(front.world.call(&second_handle, "/notion/v1/users/me").await.status, 200);
    let again = front.world.admin("DELETE", &format!("/v1/grants/{id}"), "").await;
    assert_problem(&again, 404, "unknown-grant-id");
    let front = restarted(front, |_| {}).await;
    assert_over(&front, &first, &first_handle).await;
    assert_eq!(front.ping(&second.access).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn the_client_ends_its_grant_with_its_refresh_token() {
    let front = Front::start().await;
    let (tokens, handle) = with_handle(&front, "alice").await;
    let form = [("client_id", tokens.client_id.as_str()), ("token", &tokens.refresh)];
    assert_eq!(front.post_form("/revoke", &form).await.status, 200);
    assert_over(&front, &tokens, &handle).await;
    assert_eq!(front.grants().await[0]["state"], "ended");
    front.stop().await;
}

#[tokio::test]
async fn the_user_sees_and_ends_grants_and_only_own_ones() {
    let front = Front::start().await;
    let (mine, my_handle) = with_handle(&front, "alice").await;
    let (theirs, _) = with_handle(&front, "bob").await;
    let [my_id, their_id] = [0, 1].map(|index| format!("/account/grants/{index}/revoke"));
    let grants = front.grants().await;
    let [my_id, their_id] = [
        my_id.replace("/0/", &format!("/{}/", grant_id(&grants, 0))),
        their_id.replace("/1/", &format!("/{}/", grant_id(&grants, 1))),
    ];
    let mut visitor = front.visitor("alice");
    let revoke = front.world.public(&my_id);
    let unknown = visitor.post(&revoke, &[]).await;
    assert_page(&unknown, 404, "Nothing here", "There is no page at this address.");
    visitor.sign_in().await.page();
    let page = visitor.account().await.text();
    assert!(page.contains("<strong>A client</strong> at notes") && page.contains(", with notion"), "{page}");
    assert!(page.contains(&format!("<form method=\"post\" action=\"{my_id}\">")), "{page}");
    assert!(!page.contains(&their_id) && !page.contains("bob"), "{page}");
    assert!(page.contains("<strong>Notion</strong></span><span class=\"state\">connected</span>"), "{page}");
    assert!(page.contains("<strong>GitHub</strong></span><span class=\"state\">not connected</span>"), "{page}");
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("origin", "null")] {
        let answer = visitor.fetch(front.world.client.post(&revoke).header(name, value)).await;
        assert_page(&answer, 403, "Not from here", "This request came from another site.");
    }
    assert_eq!(visitor.get(&revoke).await.status, 405);
    assert_eq!(visitor.post(&front.world.public(&their_id), &[]).await.status, 404, "somebody else's");
    assert_eq!((front.ping(&mine.access).await.status, front.ping(&theirs.access).await.status), (200, 200));
    let revoked = visitor.post(&revoke, &[]).await;
    assert_eq!((revoked.status, revoked.header("location")), (303, "/account"));
    assert_over(&front, &mine, &my_handle).await;
    assert_eq!(front.ping(&theirs.access).await.status, 200);
    assert!(visitor.account().await.text().contains("No client acts in your name."));
    front.stop().await;
}

const LONG: &str = "access_token_lifetime = \"2d\"\nrefresh_token_lifetime = \"7d\"\n";

#[tokio::test]
async fn a_required_provider_that_has_ended_the_connection_ends_the_grant() {
    let server = "providers = [\"notion\", \"gitlab\"]\nrequired = [\"notion\", \"gitlab\"]\n";
    let (front, clock) = at_a_standstill(Special { issuer: LONG.to_owned(), server, ..Special::default() }).await;
    let [first, second] = [front.authorized("alice").await, front.authorized("alice").await];
    front.ping(&first.access).await;
    let handle = last_handle(&front, "authorization").replace("Bearer ", "");
    front.die("gitlab", &clock).await;
    let answer = front.ping(&first.access).await;
    assert_problem(&answer, 401, "provider-gone");
    assert_eq!(answer.headers.get_all("www-authenticate").iter().count(), 1);
    let challenge = answer.header("www-authenticate");
    assert!(challenge.starts_with("Bearer resource_metadata=\""), "{challenge}");
    let error = "error=\"invalid_token\", error_description=\"a provider that is needed has ended the connection\"";
    assert!(challenge.ends_with(error), "{challenge}");
    assert_over(&front, &first, &handle).await;
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
    clock.advance(std::time::Duration::from_secs(9 * 3600));
    crate::world::eventually("a refresh failed", async || {
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
