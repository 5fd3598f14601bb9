//! Each rule by which refresh tokens live and die.

use std::sync::Arc;

use sidekey_simulator::{Reuse, Rotation, Settings};
use tokio::task::JoinSet;

use crate::flow::refused;
use crate::user::{User, tokens, wait};

async fn with(change: impl FnOnce(&mut Settings)) -> User {
    let user = User::of("generic").await;
    user.simulator.set("generic", change);
    user
}

#[tokio::test]
async fn static_tokens_stay() {
    let user = with(|settings| settings.rotation = Rotation::Static).await;
    let first = user.connect().await;
    for _ in 0..3 {
        let next = tokens(&user.refresh(&first.refresh).await);
        assert_eq!(next.refresh, first.refresh);
        assert_ne!(next.access, first.access);
    }
    assert!(user.accepts(&first.access).await, "a refresh kills no access token by default");
    assert_eq!(user.grant().refresh_tokens.len(), 1);
    assert_eq!(user.grant().refresh_tokens[0].used_count, 3);
    assert_eq!(user.grant().access_tokens.len(), 4);
}

#[tokio::test]
async fn interval_changes_the_value_once_per_interval() {
    let user = with(|settings| {
        settings.rotation = Rotation::Interval;
        settings.interval_s = 1000.0;
        settings.grace_s = 1000.0;
    })
    .await;
    let first = user.connect().await;
    assert_eq!(tokens(&user.refresh(&first.refresh).await).refresh, first.refresh);
    user.simulator.set("generic", |settings| settings.interval_s = 0.0);
    let second = tokens(&user.refresh(&first.refresh).await);
    assert_ne!(second.refresh, first.refresh);
    // In its grace, the old value still works and leads to the new one.
    assert_eq!(tokens(&user.refresh(&first.refresh).await).refresh, second.refresh);
    assert_eq!(user.counters().reuse_detected, 0);
    user.simulator.set("generic", |settings| settings.grace_s = 0.05);
    let third = tokens(&user.refresh(&second.refresh).await);
    wait(60).await;
    refused(&user.refresh(&second.refresh).await, 400, "invalid_grant");
    assert_eq!(user.counters().reuse_detected, 1);
    tokens(&user.refresh(&third.refresh).await);
}

#[tokio::test]
async fn single_use_is_dead_at_once() {
    let user = with(|_| ()).await;
    let first = user.connect().await;
    let second = tokens(&user.refresh(&first.refresh).await);
    assert_ne!(second.refresh, first.refresh);
    refused(&user.refresh(&first.refresh).await, 400, "invalid_grant");
    // Reuse is only an error here: the winner goes on.
    tokens(&user.refresh(&second.refresh).await);
    let counters = user.counters();
    assert_eq!((counters.refresh_attempts, counters.refreshes_ok), (3, 2));
    assert_eq!((counters.refreshes_rejected, counters.reuse_detected), (1, 1));
    let grant = user.grant();
    assert_eq!(grant.refresh_tokens[1].parent.as_ref(), Some(&grant.refresh_tokens[0].id));
    assert!(grant.refresh_tokens[0].superseded_at_ms.is_some());
    assert!(grant.refresh_tokens[0].dead_at_ms.is_some());
    let reused: Vec<u64> = grant.refresh_tokens.iter().map(|token| token.reused_count).collect();
    assert_eq!(reused, [1, 0, 0]);
}

#[tokio::test]
async fn reuse_can_kill_the_family() {
    for access_too in [false, true] {
        let user = with(|settings| {
            settings.reuse = Reuse::RevokeFamily;
            settings.revoke_access_on_reuse = access_too;
        })
        .await;
        let first = user.connect().await;
        let second = tokens(&user.refresh(&first.refresh).await);
        refused(&user.refresh(&first.refresh).await, 400, "invalid_grant");
        refused(&user.refresh(&second.refresh).await, 400, "invalid_grant");
        assert_eq!(user.accepts(&second.access).await, !access_too);
        assert_eq!(user.counters().reuse_detected, 1);
        assert!(user.grant().revoked_at_ms.is_some());
    }
}

#[tokio::test]
async fn leeway_forgives_for_a_while() {
    let user = with(|settings| {
        settings.rotation = Rotation::Leeway;
        settings.grace_s = 1000.0;
        settings.reuse = Reuse::RevokeFamily;
    })
    .await;
    let first = user.connect().await;
    let second = tokens(&user.refresh(&first.refresh).await);
    let repeated = tokens(&user.refresh(&first.refresh).await);
    assert_ne!(second.refresh, repeated.refresh);
    assert_eq!(user.counters().reuse_detected, 0);
    user.simulator.set("generic", |settings| settings.grace_s = 0.05);
    let third = tokens(&user.refresh(&repeated.refresh).await);
    wait(60).await;
    refused(&user.refresh(&repeated.refresh).await, 400, "invalid_grant");
    assert_eq!(user.counters().reuse_detected, 1);
    refused(&user.refresh(&third.refresh).await, 400, "invalid_grant");
}

#[tokio::test]
async fn until_successor_forgives_until_the_successor_is_used() {
    let user = with(|settings| settings.rotation = Rotation::UntilSuccessor).await;
    let first = user.connect().await;
    tokens(&user.refresh(&first.refresh).await);
    let second = tokens(&user.refresh(&first.refresh).await);
    tokens(&user.refresh(&second.refresh).await);
    refused(&user.refresh(&first.refresh).await, 400, "invalid_grant");
    assert_eq!(user.counters().reuse_detected, 1);
}

/// Whoever used an access token before they wrote down its refresh token has lost the grant with the latter.
#[tokio::test]
async fn until_successor_counts_the_new_access_token_as_well() {
    let user = with(|settings| settings.rotation = Rotation::UntilSuccessor).await;
    let first = user.connect().await;
    assert!(user.accepts(&first.access).await, "the first one succeeds nothing");
    let lost = tokens(&user.refresh(&first.refresh).await);
    let second = tokens(&user.refresh(&first.refresh).await);
    assert!(user.accepts(&first.access).await);
    assert_eq!(user.grant().refresh_tokens[0].dead_at_ms, None, "an old access token is no successor");
    assert!(user.accepts(&second.access).await);
    refused(&user.refresh(&first.refresh).await, 400, "invalid_grant");
    assert_eq!((user.counters().reuse_detected, user.grant().refresh_tokens[0].reused_count), (1, 1));
    tokens(&user.refresh(&lost.refresh).await);
    tokens(&user.refresh(&second.refresh).await);
    assert_eq!(user.counters().reuse_detected, 1);
}

#[tokio::test]
async fn until_successor_can_have_a_cap() {
    let user = with(|settings| {
        settings.rotation = Rotation::UntilSuccessor;
        settings.grace_s = 0.1;
    })
    .await;
    let first = user.connect().await;
    tokens(&user.refresh(&first.refresh).await);
    wait(150).await;
    refused(&user.refresh(&first.refresh).await, 400, "invalid_grant");
}

#[tokio::test]
async fn overlap_keeps_old_values_valid() {
    let user = with(|settings| settings.rotation = Rotation::Overlap).await;
    let first = user.connect().await;
    let second = tokens(&user.refresh(&first.refresh).await);
    assert_ne!(first.refresh, second.refresh);
    tokens(&user.refresh(&second.refresh).await);
    tokens(&user.refresh(&first.refresh).await);
    assert_eq!(user.counters().reuse_detected, 0);
}

#[tokio::test]
async fn none_has_no_refresh_tokens() {
    let user = User::of("github-oauth-app").await;
    let only = user.connect().await;
    assert_eq!(only.refresh, "");
    assert_eq!(user.grant().access_tokens[0].expires_at_ms, None);
    refused(&user.refresh("anything").await, 200, "unsupported_grant_type");
}

#[tokio::test]
async fn a_refresh_can_kill_earlier_access_tokens() {
    let user = with(|settings| settings.kills_access = true).await;
    let first = user.connect().await;
    let second = tokens(&user.refresh(&first.refresh).await);
    assert!(!user.accepts(&first.access).await);
    assert!(user.accepts(&second.access).await);
    assert_eq!(user.counters().api_calls_expired, 1);
}

#[tokio::test]
async fn lifetimes_end() {
    let user = with(|settings| settings.access_lifetime_s = 0.05).await;
    let held = user.connect().await;
    wait(60).await;
    assert!(!user.accepts(&held.access).await);
    assert_eq!(user.counters().api_calls_expired, 1);
    tokens(&user.refresh(&held.refresh).await);
    user.simulator.set("generic", |settings| settings.refresh_lifetime_s = 0.05);
    let held = user.connect().await;
    wait(60).await;
    refused(&user.refresh(&held.refresh).await, 400, "invalid_grant");
    user.simulator.set("generic", |settings| settings.refresh_lifetime_s = 0.0);
    let held = user.connect().await;
    let held = tokens(&user.refresh(&held.refresh).await);
    user.simulator.set("generic", |settings| settings.refresh_hard_lifetime_s = 0.05);
    wait(60).await;
    refused(&user.refresh(&held.refresh).await, 400, "invalid_grant");
    assert_eq!(user.counters().reuse_detected, 0);
}

#[tokio::test]
async fn a_second_grant_can_kill_the_first() {
    let user = with(|settings| settings.one_grant = true).await;
    let first = user.connect().await;
    let second = user.connect().await;
    assert!(!user.accepts(&first.access).await);
    assert!(user.accepts(&second.access).await);
}

#[tokio::test]
async fn of_many_simultaneous_refreshes_one_wins() {
    let user = Arc::new(with(|_| ()).await);
    let held = user.connect().await;
    let mut attempts = JoinSet::new();
    for _ in 0..20 {
        let (user, token) = (Arc::clone(&user), held.refresh.clone());
        attempts.spawn(async move { user.refresh(&token).await.status });
    }
    let statuses = attempts.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == Some(200)).count(), 1);
    assert_eq!(user.counters().reuse_detected, 19);
}
