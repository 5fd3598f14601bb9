//! A grant's handle: where the server gets it, how long it stays the same, and that it ends with the grant.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::send;
use crate::front::{Front, Tokens, assert_oauth_error, assert_problem};
use crate::front_support::{Special, assert_page, at_a_standstill, cards, restarted, start};

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
    assert!(page.contains("<strong>A client</strong> at notes") && page.contains(", with Notion"), "{page}");
    assert!(page.contains(&format!("<form method=\"post\" action=\"{my_id}\">")), "{page}");
    assert!(!page.contains(&their_id) && !page.contains("bob"), "{page}");
    let [github, notion] = cards(&page);
    assert!(
        github.contains("Not connected") && notion.contains("Connected as <strong>alice</strong>, since "),
        "{page}"
    );
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

#[tokio::test]
async fn a_grant_ends_for_good_when_its_time_is_over() {
    let issuer =
        "grant_lifetime = \"3h\"\naccess_token_lifetime = \"2h\"\nrefresh_token_lifetime = \"2h\"\n".to_owned();
    let (front, clock) = at_a_standstill(Special { issuer, ..Special::default() }).await;
    let (tokens, handle) = with_handle(&front, "alice").await;
    clock.advance(Duration::from_secs(2 * 3600 - 1));
    let tokens = Tokens::of(tokens.client_id.clone(), &front.refresh(&tokens.client_id, &tokens.refresh).await);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(front.ping(&tokens.access).await.status, 200, "one second is left");
    assert_eq!(front.world.call(&handle, "/notion/v1/users/me").await.status, 200);
    clock.advance(Duration::from_secs(1));
    assert_over(&front, &tokens, &handle).await;
    front.stop().await;
}

#[tokio::test]
async fn a_client_asks_again_and_the_grants_do_not_disturb_each_other() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut all = Vec::new();
    for _ in 0..2 {
        let code = front.code(&client_id, "alice").await;
        all.push(Tokens::of(client_id.clone(), &front.redeem(&client_id, &code, &[]).await));
    }
    let form = [("client_id", client_id.as_str()), ("token", &all[0].refresh)];
    assert_eq!(front.post_form("/revoke", &form).await.status, 200);
    assert_problem(&front.ping(&all[0].access).await, 401, "invalid-token");
    assert_eq!(front.ping(&all[1].access).await.status, 200);
    front.stop().await;
}
