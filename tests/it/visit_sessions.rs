//! Browsers that somebody is signed in to: with a cookie of their own, until they sign out or a month has passed.

use std::time::Duration;

use crate::front::{Front, Place};
use crate::front_support::{Special, Visitor, assert_page, at_a_standstill};

#[tokio::test]
async fn a_session_that_was_planted_is_worth_nothing() {
    let front = Front::start().await;
    let planted = "A".repeat(43);
    let mut victim = front.visitor("alice");
    victim.cookies.insert("sidekey_session".to_owned(), planted.clone());
    victim.sign_in().await.page();
    let first = victim.cookies["sidekey_session"].clone();
    assert_ne!(first, planted);
    let with = |session: &str| {
        let mut visitor = front.visitor("mallory");
        visitor.cookies.insert("sidekey_session".to_owned(), session.to_owned());
        visitor
    };
    assert!(!with(&planted).account().await.text().contains("signed in as"));
    // A session that was good ends when its browser signs in again.
    assert!(with(&first).account().await.text().contains("<strong>alice</strong>"));
    "bob".clone_into(&mut victim.user);
    victim.sign_in().await.page();
    assert_ne!(victim.cookies["sidekey_session"], first);
    assert!(!with(&first).account().await.text().contains("signed in as"));
    assert!(victim.account().await.text().contains("<strong>bob</strong>"));
    front.stop().await;
}

#[tokio::test]
async fn signing_out_ends_the_session_and_only_a_form_of_ours_does_it() {
    let front = Front::start().await;
    let mut visitor = front.visitor("alice");
    visitor.sign_in().await.page();
    let url = front.world.public("/account/sign-out");
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let answer = visitor.fetch(front.world.client.post(&url).header(name, value)).await;
        assert_page(&answer, 403, "Not from here", "This request came from another site.");
    }
    assert_eq!(visitor.get(&url).await.status, 405);
    assert!(visitor.account().await.text().contains("<strong>alice</strong>"), "none of it signed anybody out");
    let before: Visitor = visitor.clone();
    let Place::Page(_, page) = visitor.submit(&url, &[]).await else { panic!("away") };
    assert!(page.text().contains("Sign in with Notion"), "{}", page.text());
    assert!(!visitor.cookies.contains_key("sidekey_session"));
    let mut copied = before;
    assert!(!copied.account().await.text().contains("signed in as"), "the cookie itself is dead");
    front.stop().await;
}

#[tokio::test]
async fn a_session_ends_after_thirty_days() {
    let (front, clock) = at_a_standstill(Special::default()).await;
    let mut visitor = front.visitor("alice");
    visitor.sign_in().await.page();
    clock.advance(Duration::from_secs(30 * 86_400 - 1));
    assert!(visitor.account().await.text().contains("signed in as"));
    clock.advance(Duration::from_secs(1));
    assert!(!visitor.account().await.text().contains("signed in as"));
    front.stop().await;
}
