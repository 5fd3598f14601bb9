//! Refresh tokens: each is replaced by one successor, a stolen one ends everything, and nothing lasts for ever.

use std::time::Duration;

use serde_json::json;
use sidekey::base::clock::ManualClock;

use crate::front::{Front, REDIRECT_URI, Tokens, assert_oauth_error, parameter};
use crate::issuer_support::{Stage, assert_dead, basic, is_taken, only_grant, post};

async fn start(issuer: &str) -> (Front, ManualClock) {
    let (stage, clock) = Stage::with_clock();
    (Stage { issuer: issuer.to_owned(), ..stage }.start().await, clock)
}

async fn refreshed(front: &Front, tokens: &Tokens) -> Tokens {
    Tokens::of(tokens.client_id.clone(), &front.refresh(&tokens.client_id, &tokens.refresh).await)
}

/// Refreshes with further parameters.
async fn refresh_with(front: &Front, tokens: &Tokens, more: &[(&str, &str)]) -> crate::client::Answer {
    let mut form =
        vec![("grant_type", "refresh_token"), ("client_id", &*tokens.client_id), ("refresh_token", &*tokens.refresh)];
    form.extend(more);
    front.post_form("/token", &form).await
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

#[tokio::test]
async fn a_refresh_token_that_comes_again_after_the_grace_ends_everything() {
    let (front, clock) = start("").await;
    let first = front.authorized("alice").await;
    let second = refreshed(&front, &first).await;
    clock.advance(Duration::from_secs(31));
    assert!(is_taken(&front, &first.access).await && is_taken(&front, &second.access).await);
    assert_oauth_error(&front.refresh(&first.client_id, &first.refresh).await, 400, "invalid_grant");
    assert_dead(&front, &first).await;
    assert_dead(&front, &second).await;
    assert_eq!(only_grant(&front).await, ("ended".to_owned(), "refresh_token_reused".to_owned()));
    front.stop().await;
}

#[tokio::test]
async fn an_old_ancestor_ends_everything_too() {
    let (front, clock) = start("").await;
    let first = front.authorized("alice").await;
    let second = refreshed(&front, &first).await;
    clock.advance(Duration::from_secs(60));
    let third = refreshed(&front, &second).await;
    clock.advance(Duration::from_secs(60));
    assert_oauth_error(&front.refresh(&first.client_id, &first.refresh).await, 400, "invalid_grant");
    for tokens in [&first, &second, &third] {
        assert_dead(&front, tokens).await;
    }
    front.stop().await;
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again_within_the_grace() {
    let (front, clock) = start("").await;
    let first = front.authorized("alice").await;
    let second = refreshed(&front, &first).await;
    clock.advance(Duration::from_secs(29));
    let answer = front.refresh(&first.client_id, &first.refresh).await;
    assert_eq!(answer.json()["expires_in"], 3600 - 29, "the token is as old as it is");
    let again = Tokens::of(first.client_id.clone(), &answer);
    assert_eq!((&again.access, &again.refresh), (&second.access, &second.refresh), "no fork");
    assert!(is_taken(&front, &again.access).await);
    let third = refreshed(&front, &again).await;
    assert!(is_taken(&front, &third.access).await);
    assert_eq!(only_grant(&front).await.0, "live");
    front.stop().await;
}

#[tokio::test]
async fn the_grace_ends_when_the_successor_is_used() {
    let (front, _clock) = start("").await;
    let first = front.authorized("alice").await;
    let second = refreshed(&front, &first).await;
    let third = refreshed(&front, &second).await;
    assert_oauth_error(&front.refresh(&first.client_id, &first.refresh).await, 400, "invalid_grant");
    for tokens in [&first, &second, &third] {
        assert_dead(&front, tokens).await;
    }
    assert_eq!(only_grant(&front).await.1, "refresh_token_reused");
    front.stop().await;
}

#[tokio::test]
async fn without_grace_the_second_use_ends_everything() {
    let (front, _clock) = start("refresh_grace = \"0s\"\n").await;
    let first = front.authorized("alice").await;
    let second = refreshed(&front, &first).await;
    assert_oauth_error(&front.refresh(&first.client_id, &first.refresh).await, 400, "invalid_grant");
    assert_dead(&front, &second).await;
    front.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_refreshes_at_once_have_one_successor() {
    let (front, _clock) = start("").await;
    let first = front.authorized("alice").await;
    let refreshes = (0..100).map(|_| front.refresh(&first.client_id, &first.refresh));
    let answers = futures_util::future::join_all(refreshes).await;
    let all: std::collections::BTreeSet<(String, String)> = answers
        .iter()
        .map(|answer| Tokens::of(first.client_id.clone(), answer))
        .map(|tokens| (tokens.access, tokens.refresh))
        .collect();
    assert_eq!(all.len(), 1, "all hold the same");
    let (access, refresh) = all.into_iter().next().expect("one");
    let second = Tokens { client_id: first.client_id.clone(), access, refresh };
    assert!(is_taken(&front, &second.access).await);
    let third = refreshed(&front, &second).await;
    // No branch is left over that this would not end.
    assert_oauth_error(&front.refresh(&first.client_id, &first.refresh).await, 400, "invalid_grant");
    for tokens in [&first, &second, &third] {
        assert_dead(&front, tokens).await;
    }
    front.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_refreshes_at_once_without_grace_leave_no_branch_alive() {
    let (front, _clock) = start("refresh_grace = \"0s\"\n").await;
    let first = front.authorized("alice").await;
    let refreshes = (0..100).map(|_| front.refresh(&first.client_id, &first.refresh));
    let answers = futures_util::future::join_all(refreshes).await;
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!(good.len(), 1);
    for answer in &bad {
        assert_oauth_error(answer, 400, "invalid_grant");
    }
    assert_dead(&front, &Tokens::of(first.client_id.clone(), &good[0])).await;
    front.stop().await;
}

#[tokio::test]
async fn a_grant_ends_however_often_it_is_refreshed() {
    let (front, clock) = start("grant_lifetime = \"5d\"\nrefresh_token_lifetime = \"2d\"\n").await;
    let mut tokens = front.authorized("alice").await;
    for _ in 0..4 {
        clock.advance(hours(24));
        tokens = refreshed(&front, &tokens).await;
        assert!(is_taken(&front, &tokens.access).await);
    }
    clock.advance(hours(24) - Duration::from_secs(60));
    let answer = front.refresh(&tokens.client_id, &tokens.refresh).await;
    assert_eq!(answer.json()["expires_in"], 60, "no token outlives its grant");
    tokens = Tokens::of(tokens.client_id, &answer);
    clock.advance(Duration::from_secs(59));
    assert!(is_taken(&front, &tokens.access).await);
    clock.advance(Duration::from_secs(1));
    assert_dead(&front, &tokens).await;
    assert_eq!(only_grant(&front).await.0, "expired");
    front.stop().await;
}

#[tokio::test]
async fn a_refresh_token_that_is_not_used_expires() {
    for (seconds, status) in [(-1, 200), (0, 400), (1, 400)] {
        let (front, clock) = start("refresh_token_lifetime = \"2d\"\n").await;
        let tokens = front.authorized("alice").await;
        clock.advance(Duration::from_secs(2 * 86_400).saturating_add_signed(seconds));
        let answer = front.refresh(&tokens.client_id, &tokens.refresh).await;
        assert_eq!(answer.status, status, "{seconds}: {}", answer.text());
        if status == 400 {
            assert_oauth_error(&answer, 400, "invalid_grant");
            assert_eq!(only_grant(&front).await.0, "live", "expiry is no theft");
        }
        front.stop().await;
    }
}

trait SaturatingAddSigned {
    fn saturating_add_signed(self, seconds: i64) -> Self;
}

impl SaturatingAddSigned for Duration {
    fn saturating_add_signed(self, seconds: i64) -> Self {
        Self::from_secs(self.as_secs().saturating_add_signed(seconds))
    }
}

#[tokio::test]
async fn an_access_token_is_good_for_its_hour() {
    let (front, clock) = start("").await;
    let tokens = front.authorized("alice").await;
    clock.advance(Duration::from_secs(3599));
    assert!(is_taken(&front, &tokens.access).await);
    clock.advance(Duration::from_secs(1));
    assert!(!is_taken(&front, &tokens.access).await);
    let tokens = refreshed(&front, &tokens).await;
    assert!(is_taken(&front, &tokens.access).await);
    front.stop().await;
}

#[tokio::test]
async fn a_refresh_narrows_scopes_and_never_widens_them() {
    let (stage, _clock) = Stage::with_clock();
    let server = "scopes = [\"mcp\"]\noptional_scopes = [\"read\", \"write\"]\n".to_owned();
    let front = Stage { server, ..stage }.start().await;
    let client_id = front.register("A client").await;
    let back = front.browser("alice").authorize(&front.authorize_url(&client_id, &[("scope", "mcp read")])).await;
    let code = parameter(&back, "code").expect("a code");
    let mut tokens = Tokens::of(client_id.clone(), &front.redeem(&client_id, &code, &[]).await);
    for wider in ["mcp read write", "write", "unknown", "mcp read unknown", "\"", "MCP"] {
        assert_oauth_error(&refresh_with(&front, &tokens, &[("scope", wider)]).await, 400, "invalid_scope");
    }
    for (asked, given) in [("mcp", "mcp"), ("", "mcp read"), ("read mcp", "mcp read")] {
        let answer = refresh_with(&front, &tokens, &[("scope", asked)]).await;
        assert_eq!((answer.status, answer.json()["scope"].as_str()), (200, Some(given)), "{asked}");
        tokens = Tokens::of(client_id.clone(), &answer);
    }
    let narrow = Tokens::of(client_id.clone(), &refresh_with(&front, &tokens, &[("scope", "read")]).await);
    let answer = front.call(&narrow.access, "ping", json!({})).await;
    assert_eq!(answer.status, 403, "without what the server needs: {}", answer.text());
    front.stop().await;
}

#[tokio::test]
async fn a_refresh_is_for_the_same_resource() {
    let (stage, _clock) = Stage::with_clock();
    let tables = "[servers.other]\nupstream = \"http://127.0.0.1:9/mcp\"\nproviders = [\"notion\"]\n".to_owned();
    let front = Stage { tables, ..stage }.start().await;
    let mut tokens = front.authorized("alice").await;
    let (mcp, other) = (front.mcp(), front.world.public("/other/mcp"));
    for bad in [&*other, "https://evil.example", "x", &format!("{mcp}#x")] {
        assert_oauth_error(&refresh_with(&front, &tokens, &[("resource", bad)]).await, 400, "invalid_target");
    }
    let two = [("resource", &*mcp), ("resource", &*other)];
    assert_oauth_error(&refresh_with(&front, &tokens, &two).await, 400, "invalid_target");
    for good in [&*mcp, "", &format!("{mcp}/")] {
        tokens = Tokens::of(tokens.client_id.clone(), &refresh_with(&front, &tokens, &[("resource", good)]).await);
        assert!(is_taken(&front, &tokens.access).await, "{good}");
    }
    front.stop().await;
}

#[tokio::test]
async fn another_client_can_neither_use_a_refresh_token_nor_use_it_up() {
    let (front, _clock) = start("").await;
    let tokens = front.authorized("alice").await;
    let other = front.register("Another client").await;
    assert_oauth_error(&front.refresh(&other, &tokens.refresh).await, 400, "invalid_grant");
    let metadata = json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "client_secret_post" });
    let registered = front.post_json("/register", &metadata).await.json();
    let text = |name: &str| registered[name].as_str().expect("there").to_owned();
    let form = [("grant_type", "refresh_token"), ("refresh_token", &*tokens.refresh)];
    let header = basic(&text("client_id"), &text("client_secret"));
    let answer = post(&front, "/token", &form, Some(("authorization", &header))).await;
    assert_oauth_error(&answer, 400, "invalid_grant");
    let next = refreshed(&front, &tokens).await;
    // Nor with one that was used up already.
    assert_oauth_error(&front.refresh(&other, &tokens.refresh).await, 400, "invalid_grant");
    assert!(is_taken(&front, &next.access).await);
    assert_eq!(only_grant(&front).await.0, "live");
    front.stop().await;
}
