//! The provider's answer within a visit: once, in time, at the right place, and with a code of one's own.

use std::time::Duration;

use sidekey_simulator::{Endpoint, Fault, FaultKind};

use crate::front::{Front, parameter};
use crate::front_support::{Special, Visitor, assert_notice, assert_page, at_a_standstill, start};

/// A visit whose browser is about to come back from the provider: the callback's address.
async fn about_to_come_back(front: &Front, visitor: &mut Visitor) -> String {
    let client_id = front.register("A client").await;
    let callback = front.world.public("/callback/");
    visitor.approve_until(&front.authorize_url(&client_id, &[]), &[], &callback).await.away()
}

fn exchanges(front: &Front) -> u64 {
    front.world.simulator.ledger().profile("notion").counters.code_exchanges
}

/// An address with the code of another.
fn with_code_of(url: &str, other: &str) -> String {
    let own = parameter(url, "code").expect("a code");
    url.replace(&own, &parameter(other, "code").expect("a code"))
}

#[tokio::test]
async fn the_code_leaves_the_address_bar_at_once() {
    let front = Front::start().await;
    let mut visitor = front.visitor("alice");
    let callback = about_to_come_back(&front, &mut visitor).await;
    let answer = visitor.get(&callback).await;
    assert_eq!((answer.status, answer.body.len()), (303, 0));
    let location = answer.header("location");
    assert!(location.starts_with("/visit/") && location.len() == "/visit/".len() + 32, "{location}");
    assert_eq!((answer.header("referrer-policy"), answer.header("cache-control")), ("no-referrer", "no-store"));
    front.stop().await;
}

#[tokio::test]
async fn a_callback_counts_once() {
    let front = Front::start().await;
    let mut visitor = front.visitor("alice");
    let callback = about_to_come_back(&front, &mut visitor).await;
    let [mut first, mut second] = [visitor.clone(), visitor.clone()];
    let answers = tokio::join!(first.get(&callback), second.get(&callback));
    let mut statuses = [answers.0.status, answers.1.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 400]);
    assert_page(&visitor.get(&callback).await, 400, "Already done", "This sign-in came back once before");
    assert_eq!(exchanges(&front), 1);
    front.stop().await;
}

#[tokio::test]
async fn a_sign_in_that_takes_longer_than_ten_minutes_is_begun_again() {
    let (front, clock) = at_a_standstill(Special::default()).await;
    let mut visitor = front.visitor("alice");
    let callback = about_to_come_back(&front, &mut visitor).await;
    clock.advance(Duration::from_secs(600));
    let (url, page) = visitor.open(&callback).await.page();
    assert!(url.contains("/visit/"), "it is led back to where it was: {url}");
    let what = "This sign-in was begun more than ten minutes ago. You can try it again here.";
    assert_notice(&page, "That did not work.", what);
    assert!(page.text().contains("Sign in with Notion"), "{}", page.text());
    assert_eq!((exchanges(&front), visitor.cookies.contains_key("sidekey_session")), (0, false));
    front.stop().await;
}

#[tokio::test]
async fn after_a_quarter_of_an_hour_nobody_is_led_back() {
    let (front, clock) = at_a_standstill(Special::default()).await;
    let mut visitor = front.visitor("alice");
    let callback = about_to_come_back(&front, &mut visitor).await;
    clock.advance(Duration::from_secs(900));
    let answer = visitor.get(&callback).await;
    assert_page(&answer, 400, "Too late", "This sign-in was begun more than ten minutes ago.");
    let next = "<p class=\"next\">Begin again where you came from: with a new connect link, or in your MCP client.</p>";
    assert!(answer.text().contains(next), "{}", answer.text());
    assert_eq!((exchanges(&front), visitor.cookies.contains_key("sidekey_session")), (0, false));
    front.stop().await;
}

#[tokio::test]
async fn an_answer_of_another_provider_is_not_used() {
    let front = Front::start().await;
    let mut visitor = front.visitor("alice");
    let callback = about_to_come_back(&front, &mut visitor).await;
    let elsewhere = callback.replace("/callback/notion", "/callback/github");
    let answer = visitor.get(&elsewhere).await;
    assert_page(&answer, 400, "Another provider", "This sign-in belongs to another provider.");
    assert_page(&visitor.get(&callback).await, 400, "Already done", "This sign-in came back once before");
    assert_eq!(front.world.simulator.ledger().profile("github").counters.code_exchanges, 0, "the code went nowhere");
    assert_eq!(exchanges(&front), 0);
    assert!(front.connections().await.is_empty() && !visitor.cookies.contains_key("sidekey_session"));
    front.stop().await;
}

#[tokio::test]
async fn the_code_of_somebody_else_signs_nobody_in() {
    // With PKCE the provider tells that the code belongs to another flow.
    let server = "providers = [\"gitlab\"]\nrequired = [\"gitlab\"]\n";
    let front = start(Special { server, ..Special::default() }).await;
    let [mut victim, mut attacker] = [front.visitor("alice"), front.visitor("mallory")];
    let mut callbacks = Vec::new();
    for visitor in [&mut victim, &mut attacker] {
        let client_id = front.register("A client").await;
        let gitlab = front.world.public("/callback/gitlab");
        callbacks.push(visitor.approve_until(&front.authorize_url(&client_id, &[]), &[], &gitlab).await.away());
    }
    let (url, page) = attacker.open(&with_code_of(&callbacks[1], &callbacks[0])).await.page();
    assert!(url.contains("/visit/") && page.text().contains("GitLab did not accept its own code"), "{}", page.text());
    let connections = front.connections().await;
    assert!(connections.iter().all(|connection| connection["provider"] == "notion"), "{connections:?}");
    assert!(front.grants().await.is_empty());
    front.stop().await;
}

#[tokio::test]
async fn a_provider_that_is_down_is_told_inline_and_tried_again() {
    let front = Front::start().await;
    let mut visitor = front.visitor("alice");
    let callback = about_to_come_back(&front, &mut visitor).await;
    let down = FaultKind::Status { status: 503, body: None, content_type: None, headers: Default::default() };
    front.world.simulator.add_fault(Fault::new("notion", Endpoint::Token, down));
    let (url, page) = visitor.open(&callback).await.page();
    let text = page.text();
    assert!(
        text.contains("<p>Notion could not complete the sign-in: HTTP 503. You can try it again here.</p>"),
        "{text}"
    );
    assert!(text.contains("Sign in with Notion") && !visitor.cookies.contains_key("sidekey_session"), "{text}");
    front.world.simulator.clear_faults();
    let back = visitor.open(&format!("{url}/connect/notion")).await.away();
    assert!(parameter(&back, "code").is_some(), "{back}");
    front.stop().await;
}

#[tokio::test]
async fn a_callback_that_says_too_little_or_too_much_is_400() {
    let front = Front::start().await;
    let mut visitor = front.visitor("alice");
    let callback = about_to_come_back(&front, &mut visitor).await;
    let bare = callback.split('?').next().expect("a path").to_owned();
    let state = parameter(&callback, "state").expect("a state");
    for url in [
        bare.clone(),
        format!("{bare}?state={state}"),
        format!("{bare}?code=x"),
        format!("{bare}?error=access_denied"),
        format!("{callback}&code=y"),
        format!("{callback}&state=y"),
        format!("{bare}?code=x&state=%3Cscript%3E"),
        format!("{bare}?code=x&state={}", "A".repeat(20_000)),
        format!("{bare}?code=x&state=%ff%fe"),
    ] {
        let answer = visitor.get(&url).await;
        assert_eq!(answer.status, 400, "{url}: {}", answer.text());
        assert!(!answer.text().contains("<script") && !answer.text().contains("AAAAAAAA"), "{}", answer.text());
    }
    let back = visitor.open(&callback).await.away();
    assert!(parameter(&back, "code").is_some(), "none of it used up the sign-in: {back}");
    front.stop().await;
}
