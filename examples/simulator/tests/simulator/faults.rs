//! Each way to misbehave: what the client sees, and what happened at the provider.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;
use sidekey_simulator::{Endpoint, Fault, FaultKind};

use crate::client::Answer;
use crate::flow::refused;
use crate::user::{Tokens, User, tokens, wait};

/// A connected user whose next refresh goes wrong, and what it got for an answer.
async fn refresh_with(kind: FaultKind) -> (User, Tokens, Answer) {
    let user = User::of("generic").await;
    let held = user.connect().await;
    user.simulator.add_fault(Fault::new("generic", Endpoint::Refresh, kind).nth(1));
    let answer = user.refresh(&held.refresh).await;
    (user, held, answer)
}

/// Attempts and commits.
fn refreshes(user: &User) -> (u64, u64) {
    let counters = user.counters();
    (counters.refresh_attempts, counters.refreshes_ok)
}

#[tokio::test]
async fn reset_before_reading_leaves_no_trace() {
    let (user, held, answer) = refresh_with(FaultKind::ResetBeforeReading).await;
    assert!(answer.was_reset() && answer.status.is_none(), "{answer:?}");
    assert_eq!(refreshes(&user), (0, 0));
    tokens(&user.refresh(&held.refresh).await);
}

#[tokio::test]
async fn reset_not_committed_leaves_the_token_usable() {
    let (user, held, answer) = refresh_with(FaultKind::ResetNotCommitted).await;
    assert!(answer.was_reset() && answer.status.is_none(), "{answer:?}");
    assert_eq!(refreshes(&user), (1, 0));
    tokens(&user.refresh(&held.refresh).await);
}

#[tokio::test]
async fn commit_then_reset_loses_the_successor() {
    let (user, held, answer) = refresh_with(FaultKind::CommitThenReset).await;
    assert!(answer.was_reset() && answer.status.is_none(), "{answer:?}");
    assert_eq!(refreshes(&user), (1, 1));
    let lost = user.newest_refresh_token();
    assert!(lost.committed && !lost.replied && lost.reply_failed, "{lost:?}");
    refused(&user.refresh(&held.refresh).await, 400, "invalid_grant");
    assert_eq!(user.counters().reuse_detected, 1);
}

#[tokio::test]
async fn commit_then_reset_after_headers_sends_only_the_head() {
    let (user, _, answer) = refresh_with(FaultKind::CommitThenResetAfterHeaders).await;
    assert_eq!(answer.status, Some(200));
    assert!(answer.was_reset() && answer.body.is_empty() && answer.missing() > 50, "{answer:?}");
    assert_eq!(refreshes(&user), (1, 1));
    wait(50).await;
    let lost = user.newest_refresh_token();
    assert!(!lost.replied && lost.reply_failed, "{lost:?}");
}

#[tokio::test]
async fn commit_half_body_sends_half() {
    let (user, _, answer) = refresh_with(FaultKind::CommitHalfBody).await;
    assert_eq!(answer.status, Some(200));
    assert!(answer.was_reset() && answer.body.len() > 20 && answer.missing() > 20, "{answer:?}");
    assert_eq!(refreshes(&user), (1, 1));
    wait(50).await;
    assert!(user.newest_refresh_token().reply_failed);
}

#[tokio::test]
async fn commit_then_status_hides_the_tokens() {
    let (user, _, answer) = refresh_with(FaultKind::CommitThenStatus { status: 500 }).await;
    assert_eq!((answer.status, answer.error), (Some(500), None));
    assert!(!answer.text().contains("access_token"));
    assert_eq!(refreshes(&user), (1, 1));
    assert!(user.newest_refresh_token().reply_failed);
}

#[tokio::test]
async fn status_does_nothing_else() {
    let kind = FaultKind::Status {
        status: 503,
        body: Some("<h1>Later</h1>".to_owned()),
        content_type: Some("text/html".to_owned()),
        headers: BTreeMap::from([("Retry-After".to_owned(), "7".to_owned())]),
    };
    let (user, held, answer) = refresh_with(kind).await;
    assert_eq!(answer.status, Some(503));
    assert_eq!((answer.header("retry-after"), answer.header("content-type")), ("7", "text/html"));
    assert_eq!(answer.text(), "<h1>Later</h1>");
    assert_eq!(refreshes(&user), (1, 0));
    assert_eq!(user.counters().refreshes_rejected, 0);
    tokens(&user.refresh(&held.refresh).await);
}

#[tokio::test]
async fn delays_delay() {
    for kind in [FaultKind::DelayMs { ms: 200 }, FaultKind::DelayBeforeCommit { ms: 200 }] {
        let before = Instant::now();
        let (user, _, answer) = refresh_with(kind).await;
        assert!(before.elapsed().as_millis() >= 200);
        assert!(tokens(&answer).refresh.len() >= 32);
        assert_eq!(refreshes(&user), (1, 1));
        let token = user.newest_refresh_token();
        assert!(token.replied && !token.reply_failed, "{token:?}");
    }
}

#[tokio::test]
async fn a_provider_commits_although_the_client_left() {
    for (kind, committed_at_once) in
        [(FaultKind::DelayMs { ms: 900 }, 1), (FaultKind::DelayBeforeCommit { ms: 900 }, 0)]
    {
        let user = User::of("generic").await;
        let held = user.connect().await;
        user.simulator.add_fault(Fault::new("generic", Endpoint::Token, kind));
        let impatient = std::time::Duration::from_millis(300);
        let outcome = tokio::time::timeout(impatient, user.refresh(&held.refresh)).await;
        assert!(outcome.is_err());
        assert_eq!(refreshes(&user), (1, committed_at_once));
        let undecided = user.simulator.undecided_token_requests();
        assert_eq!(undecided as u64, 1 - committed_at_once, "its effect is still to come, or in the ledger");
        wait(1200).await;
        assert_eq!(refreshes(&user), (1, 1));
        assert_eq!(user.simulator.undecided_token_requests(), 0);
        let token = user.newest_refresh_token();
        assert!(!token.replied && token.reply_failed, "{token:?}");
    }
}

#[tokio::test]
async fn what_clients_left_behind_can_be_waited_for() {
    let user = User::of("generic").await;
    let held = user.connect().await;
    user.simulator.add_fault(Fault::new("generic", Endpoint::Token, FaultKind::DelayBeforeCommit { ms: 300 }));
    let at_once = std::time::Duration::from_millis(50);
    assert!(tokio::time::timeout(at_once, user.refresh(&held.refresh)).await.is_err());
    user.simulator.settled().await.unwrap();
    assert_eq!(refreshes(&user), (1, 1));
}

#[tokio::test]
async fn drip_takes_its_time() {
    let before = Instant::now();
    let (_, _, answer) = refresh_with(FaultKind::Drip { bytes_per_second: 400 }).await;
    let least = 1000 * answer.body.len() as u128 / 400 / 2;
    assert!(before.elapsed().as_millis() >= least, "{answer:?}");
    tokens(&answer);
}

#[tokio::test]
async fn wrong_content_length_ends_early() {
    let (user, _, answer) = refresh_with(FaultKind::WrongContentLength).await;
    assert_eq!(answer.missing(), 10);
    tokens(&answer);
    assert_eq!(refreshes(&user), (1, 1));
    assert!(user.newest_refresh_token().reply_failed);
}

#[tokio::test]
async fn huge_body_is_huge() {
    let (user, _, answer) = refresh_with(FaultKind::HugeBody { bytes: 3_000_000 }).await;
    assert!(answer.body.len() > 3_000_000);
    tokens(&answer);
    assert_eq!(refreshes(&user), (1, 1));
}

#[tokio::test]
async fn redirect_does_nothing_else() {
    let kind = FaultKind::Redirect { to: "http://127.0.0.1:9/elsewhere".to_owned(), status: 307 };
    let (user, _, answer) = refresh_with(kind).await;
    assert_eq!((answer.status, answer.header("location")), (Some(307), "http://127.0.0.1:9/elsewhere"));
    assert_eq!(refreshes(&user), (1, 0));
}

#[tokio::test]
async fn body_patch_changes_fields() {
    let kind = FaultKind::BodyPatch {
        set: BTreeMap::from([("expires_in".to_owned(), json!("3600"))]),
        remove: vec!["refresh_token".to_owned()],
    };
    let (user, _, answer) = refresh_with(kind.clone()).await;
    assert_eq!(answer.json()["expires_in"], json!("3600"));
    assert!(answer.json().get("refresh_token").is_none());
    assert_eq!(refreshes(&user), (1, 1));
    // Also in a form.
    let user = User::of("github").await;
    user.simulator.add_fault(Fault::new("github", Endpoint::Code, kind));
    let code = user.code().await;
    let parameters = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", crate::user::REDIRECT),
        ("code_verifier", crate::user::VERIFIER),
    ];
    let answer = user.token(&parameters, &[("accept", "*/*")]).await;
    assert!(answer.text().contains("expires_in=3600&"), "{answer:?}");
    assert!(!answer.text().contains("refresh_token="), "{answer:?}");
}

#[tokio::test]
async fn error_has_the_companys_shape() {
    let kind = FaultKind::Error {
        error: "invalid_grant".to_owned(),
        description: Some("token request is already being processed".to_owned()),
        status: None,
    };
    let (user, held, answer) = refresh_with(kind.clone()).await;
    refused(&answer, 400, "invalid_grant");
    assert_eq!(answer.json()["error_description"], "token request is already being processed");
    assert_eq!(refreshes(&user), (1, 0));
    assert_eq!(user.counters().refreshes_rejected, 0);
    tokens(&user.refresh(&held.refresh).await);
    let user = User::of("microsoft").await;
    let held = user.connect().await;
    user.simulator.add_fault(Fault::new("microsoft", Endpoint::Refresh, kind.clone()));
    assert_eq!(user.refresh(&held.refresh).await.json()["error_codes"], json!([70008]));
    // At the authorization endpoint it travels in the redirect.
    user.simulator.add_fault(Fault::new("*", Endpoint::Authorize, kind));
    let answer = user.authorize(&[]).await;
    assert_eq!(answer.redirected("error").as_deref(), Some("invalid_grant"));
}

#[tokio::test]
async fn nth_and_times_choose_the_calls() {
    let user = User::of("generic").await;
    let token = user.connect().await.access;
    let failing = |status| FaultKind::Status { status, body: None, content_type: None, headers: BTreeMap::new() };
    user.simulator.add_fault(Fault::new("generic", Endpoint::Api, failing(500)).nth(2).times(2));
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(user.api("/echo", &token).await.status.unwrap());
    }
    assert_eq!(statuses, [200, 500, 500, 200, 200]);
    user.simulator.add_fault(Fault::new("generic", Endpoint::Api, failing(502)).times(1));
    user.simulator.add_fault(Fault::new("generic", Endpoint::Api, failing(429)));
    assert_eq!(user.api("/echo", &token).await.status, Some(502));
    assert_eq!(user.api("/echo", &token).await.status, Some(429));
    user.simulator.clear_faults();
    assert!(user.accepts(&token).await);
    let counters = user.counters();
    assert_eq!((counters.api_calls, counters.api_calls_ok), (8, 4));
}

#[tokio::test]
async fn every_endpoint_can_be_reset() {
    let user = User::of("generic").await;
    let held = user.connect().await;
    for endpoint in [Endpoint::Api, Endpoint::Revoke, Endpoint::Authorize, Endpoint::Code] {
        user.simulator.add_fault(Fault::new("generic", endpoint, FaultKind::CommitThenReset).nth(1));
    }
    let code = {
        let first = user.authorize(&[]).await;
        assert!(first.was_reset(), "{first:?}");
        user.code().await
    };
    assert!(user.exchange(&code, &[]).await.was_reset());
    assert_eq!(user.counters().code_exchanges_ok, 2);
    assert!(user.api("/echo", &held.access).await.was_reset());
    assert_eq!(user.counters().api_calls_ok, 1);
    let basic = user.basic();
    let headers = [("authorization", basic.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    let body = format!("token={}", held.refresh);
    assert!(user.post("/generic/revoke", &headers, &body).await.was_reset());
    assert_eq!(user.counters().revokes, 1);
}
