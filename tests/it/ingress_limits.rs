//! How often the public listener may be used, and by whom each request is counted.

use std::time::Duration;

use crate::client::{Answer, send};
use crate::front::{Front, assert_problem, registration};
use crate::front_support::{Special, at_a_standstill, start};

const STRICT: &str = "[limits]\nfailures_per_address = \"3/1m\"\n";

async fn without_token(front: &Front, forwarded_for: &str) -> Answer {
    send(front.world.client.post(front.mcp()).header("x-forwarded-for", forwarded_for)).await
}

#[tokio::test]
async fn who_fails_too_often_is_told_to_wait_and_others_are_not() {
    let tables = "[limits]\nfailures_per_address = \"6/1m\"\n".to_owned();
    let (front, clock) = at_a_standstill(Special { tables, ..Special::default() }).await;
    let tokens = front.authorized("alice").await;
    let mut failed = 0;
    // What authorizing counted is not of interest.
    let refused = loop {
        let answer = without_token(&front, &format!("203.0.113.{failed}")).await;
        if answer.status != 401 {
            break answer;
        }
        failed += 1;
    };
    assert!((1..=6).contains(&failed), "an address that somebody made up changes nothing: {failed}");
    assert_problem(&refused, 429, "too-many-requests");
    assert_eq!((refused.header("retry-after"), refused.header("ratelimit-reset")), ("10", "10"));
    assert_eq!((refused.header("ratelimit-limit"), refused.header("ratelimit-remaining")), ("6", "0"));
    assert!(!refused.headers.contains_key("www-authenticate"));
    let bad = send(front.world.client.post(front.mcp()).bearer_auth("sk_at_x")).await;
    assert_eq!(bad.status, 429, "bad tokens count as none");
    assert_eq!(front.ping(&tokens.access).await.status, 200, "a good token does not");
    clock.advance(Duration::from_secs(10));
    assert_eq!(without_token(&front, "").await.status, 401);
    assert_eq!(without_token(&front, "").await.status, 429);
    front.stop().await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_is_counted_for_itself() {
    let (public, tables) = ("trusted_proxies = [\"127.0.0.0/8\"]", STRICT.to_owned());
    let front = start(Special { public, tables, ..Special::default() }).await;
    let statuses = async |forwarded: &[&str]| {
        let mut statuses = Vec::new();
        for forwarded in forwarded {
            statuses.push(without_token(&front, forwarded).await.status);
        }
        statuses
    };
    assert_eq!(statuses(&["203.0.113.1"; 4]).await, [401, 401, 401, 429]);
    assert_eq!(statuses(&["203.0.113.2", "203.0.113.1"]).await, [401, 429], "another client is not disturbed");
    // What the client wrote itself stands before what the proxy appended.
    assert_eq!(statuses(&["8.8.8.8, 203.0.113.1", "9.9.9.9, 203.0.113.1"]).await, [429, 429]);
    assert_eq!(statuses(&["203.0.113.1, 203.0.113.3"]).await, [401]);
    // One customer has a whole network of IPv6 addresses.
    assert_eq!(statuses(&["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"]).await, [401, 401, 401, 429]);
    assert_eq!(statuses(&["2001:db8:0:1::1"]).await, [401]);
    front.stop().await;
}

#[tokio::test]
async fn each_grant_has_a_limit_of_its_own() {
    let tables = "[limits]\nrequests_per_grant = \"3/1m\"\nrequests_per_subject = \"5/1m\"\n".to_owned();
    let (front, clock) = at_a_standstill(Special { tables, ..Special::default() }).await;
    let [first, second, other] =
        [front.authorized("alice").await, front.authorized("alice").await, front.authorized("bob").await];
    let mut left = Vec::new();
    for _ in 0..3 {
        let answer = front.ping(&first.access).await;
        assert_eq!((answer.status, answer.header("ratelimit-limit")), (200, "3"));
        left.push(answer.header("ratelimit-remaining").to_owned());
    }
    assert_eq!(left, ["2", "1", "0"]);
    let refused = front.ping(&first.access).await;
    assert_problem(&refused, 429, "too-many-requests");
    assert_eq!((refused.header("retry-after"), refused.header("ratelimit-remaining")), ("20", "0"));
    assert_eq!(refused.header("access-control-allow-origin"), "*");
    // The user has two requests left, whichever client sends them.
    assert_eq!(front.ping(&second.access).await.status, 200);
    assert_eq!(front.ping(&second.access).await.status, 200);
    let refused = front.ping(&second.access).await;
    assert_problem(&refused, 429, "too-many-requests");
    assert_eq!((refused.header("retry-after"), refused.header("ratelimit-limit")), ("12", "5"));
    assert_eq!(front.ping(&other.access).await.status, 200, "another user is not disturbed");
    assert_eq!(front.server.requests().len(), 6, "what was refused did not reach the server");
    clock.advance(Duration::from_secs(20));
    assert_eq!(front.ping(&first.access).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn registrations_are_counted_by_address() {
    let tables = "[limits]\nregistrations_per_address = \"2/1h\"\n".to_owned();
    let (front, clock) = at_a_standstill(Special { tables, ..Special::default() }).await;
    let known = front.register("Known").await;
    front.register("Another").await;
    let refused = front.post_json("/register", &registration("One too many")).await;
    assert_problem(&refused, 429, "too-many-requests");
    assert_eq!((refused.header("retry-after"), refused.header("ratelimit-limit")), ("1800", "2"));
    let page = front.visitor("alice").get(&front.authorize_url(&known, &[])).await;
    assert_eq!(page.status, 200, "clients that are registered are not disturbed");
    clock.advance(Duration::from_secs(1800));
    assert_eq!(front.post_json("/register", &registration("Later")).await.status, 201);
    front.stop().await;
}

#[tokio::test]
async fn people_are_told_on_a_page_and_who_is_signed_in_is_not_counted() {
    let (front, _) = at_a_standstill(Special { tables: STRICT.to_owned(), ..Special::default() }).await;
    let client_id = front.register("A client").await;
    let request = front.authorize_url(&client_id, &[]);
    let mut signed_in = front.visitor("alice");
    signed_in.sign_in().await.page();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(front.visitor("mallory").get(&request).await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429], "that alice signed in is the third");
    let page = front.visitor("mallory").get(&request).await;
    assert!(page.text().contains("<h1>Too many requests</h1>"), "{}", page.text());
    assert_eq!((page.header("retry-after"), page.header("content-type")), ("20", "text/html; charset=utf-8"));
    for _ in 0..5 {
        assert_eq!(signed_in.get(&request).await.status, 200);
    }
    front.stop().await;
}
