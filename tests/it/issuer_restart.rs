//! A restart in the middle of everything: what was handed out stays good, what was taken back stays dead.

use std::sync::Arc;

use serde_json::json;

use crate::front::{Front, Tokens, assert_oauth_error};
use crate::issuer_support::{Stage, assert_dead, is_taken, only_grant, restarted};

#[tokio::test]
async fn what_clients_hold_is_good_after_a_restart() {
    let (stage, clock) = Stage::with_clock();
    let front = stage.start().await;
    let tokens = front.authorized("alice").await;
    let waiting = front.register("A client that waits").await;
    let code = front.code(&waiting, "bob").await;
    let fresh = front.register("A client that has not begun").await;
    front.call(&tokens.access, "initialize", json!({ "session": "session-1" })).await;
    let front = restarted(front, Arc::new(clock.clone()), None).await;
    assert!(is_taken(&front, &tokens.access).await, "the access token");
    let answer = front.whoami(&tokens.access).await.json();
    assert_eq!(answer["body"]["name"], "alice", "the handle behind it: {answer}");
    let next = Tokens::of(tokens.client_id.clone(), &front.refresh(&tokens.client_id, &tokens.refresh).await);
    assert!(is_taken(&front, &next.access).await, "the refresh token");
    let redeemed = Tokens::of(waiting.clone(), &front.redeem(&waiting, &code, &[]).await);
    assert!(is_taken(&front, &redeemed.access).await, "the code");
    let code = front.code(&fresh, "carol").await;
    assert_eq!(front.redeem(&fresh, &code, &[]).await.status, 200, "the registration");
    assert_eq!(front.grants().await.len(), 3);
    front.stop().await;
}

#[tokio::test]
async fn a_refresh_whose_answer_was_lost_in_a_restart_is_answered_again() {
    let (stage, clock) = Stage::with_clock();
    let front = stage.start().await;
    let first = front.authorized("alice").await;
    let second = Tokens::of(first.client_id.clone(), &front.refresh(&first.client_id, &first.refresh).await);
    let front = restarted(front, Arc::new(clock.clone()), None).await;
    let again = Tokens::of(first.client_id.clone(), &front.refresh(&first.client_id, &first.refresh).await);
    assert_eq!((&again.access, &again.refresh), (&second.access, &second.refresh));
    assert!(is_taken(&front, &again.access).await);
    front.stop().await;
}

#[tokio::test]
async fn what_was_taken_back_is_dead_after_a_restart() {
    let (stage, clock) = Stage::with_clock();
    let front = stage.start().await;
    let tokens = front.authorized("alice").await;
    let form = [("client_id", &*tokens.client_id), ("token", &*tokens.access)];
    assert_eq!(front.post_form("/revoke", &form).await.status, 200);
    let front = restarted(front, Arc::new(clock.clone()), None).await;
    assert!(!is_taken(&front, &tokens.access).await, "the access token");
    let form = [("client_id", &*tokens.client_id), ("token", &*tokens.refresh)];
    assert_eq!(front.post_form("/revoke", &form).await.status, 200);
    let front = restarted(front, Arc::new(clock.clone()), None).await;
    assert_dead(&front, &tokens).await;
    assert_eq!(only_grant(&front).await, ("ended".to_owned(), "revoked_by_client".to_owned()));
    front.stop().await;
}

#[tokio::test]
async fn a_code_that_comes_again_after_a_restart_still_ends_everything() {
    let (stage, clock) = Stage::with_clock();
    let front = stage.start().await;
    let client_id = front.register("A client").await;
    let code = front.code(&client_id, "alice").await;
    let tokens = Tokens::of(client_id.clone(), &front.redeem(&client_id, &code, &[]).await);
    let front = restarted(front, Arc::new(clock.clone()), None).await;
    assert_oauth_error(&front.redeem(&client_id, &code, &[]).await, 400, "invalid_grant");
    assert_dead(&front, &tokens).await;
    front.stop().await;
}

#[tokio::test]
async fn a_consent_page_that_is_open_during_a_restart_can_be_sent_off_after_it() {
    use crate::front::{decision, own_path, parameter};
    let front: Front = Stage::default().start().await;
    let client_id = front.register("A client").await;
    let mut browser = front.browser("alice");
    let (url, page) = browser.open(&front.authorize_url(&client_id, &[])).await.page();
    let front = restarted(front, Arc::new(sidekey::base::clock::SystemClock), None).await;
    let back = browser.submit(&own_path(&url, "/authorize"), &decision(&page, "approve", &["notion"])).await.away();
    assert!(parameter(&back, "code").is_some(), "{back}");
    front.stop().await;
}
