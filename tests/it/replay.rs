//! An API calls a token expired that should be good: one refresh, one replay.

use std::sync::Arc;
use std::time::Duration;

use sidekey::base::clock::ManualClock;

use crate::client::{Answer, send};
use crate::world::{Setup, World, now};

const COMPANY: &str = "/quickbooks/v3/company/0/companyinfo/0";

impl World {
    fn refreshes(&self, profile: &str) -> u64 {
        self.simulator.ledger().profile(profile).counters.refresh_attempts
    }

    async fn post(&self, handle: &str, size: usize) -> Answer {
        let body = format!("{{\"Line\":[],\"note\":\"{}\"}}", "x".repeat(size - 21));
        let request = self.client.post(self.egress("/quickbooks/v3/company/0/invoice")).bearer_auth(handle);
        send(request.header("content-type", "application/json").body(body)).await
    }
}

#[tokio::test]
async fn a_token_that_died_early_is_replaced_and_the_request_sent_again() {
    let world = World::start().await;
    let handle = world.connected("quickbooks", "alice").await;
    assert_eq!(world.simulator.expire("quickbooks"), 1);
    assert_eq!(world.call(&handle, COMPANY).await.status, 200);
    assert_eq!(world.refreshes("quickbooks"), 1);
    let calls = world.simulator.api_calls();
    let accepted: Vec<bool> = calls.iter().map(|call| call.accepted).collect();
    assert_eq!(accepted, [false, true]);
    world.stop().await;
}

#[tokio::test]
async fn a_body_is_sent_again_as_long_as_it_is_at_hand() {
    for (size, status) in [(65_536, 200), (65_537, 401)] {
        let world = World::start().await;
        let handle = world.connected("quickbooks", "alice").await;
        world.simulator.expire("quickbooks");
        let answer = world.post(&handle, size).await;
        assert_eq!(answer.status, status, "{size}");
        assert_eq!(world.post(&handle, size).await.status, 200, "the next one has the new token");
        assert_eq!(world.refreshes("quickbooks"), 1);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_on_a_token_that_died_cause_one_refresh() {
    let world = Arc::new(World::start().await);
    let handle = world.connected("quickbooks", "alice").await;
    world.simulator.expire("quickbooks");
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let (world, handle) = (Arc::clone(&world), handle.clone());
            tokio::spawn(async move { world.call(&handle, COMPANY).await.status })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.expect("it ran"), 200);
    }
    assert_eq!(world.refreshes("quickbooks"), 1);
    Arc::into_inner(world).expect("the last one").stop().await;
}

#[tokio::test]
async fn an_api_that_calls_every_token_expired_causes_one_refresh_in_a_minute() {
    let clock = ManualClock::at(now());
    let world = World::with(Setup::default(), Arc::new(clock.clone())).await;
    let handle = world.connected("quickbooks", "alice").await;
    let dead = async |asked: u64| {
        for _ in 0..5 {
            world.simulator.expire("quickbooks");
            let answer = world.call(&handle, COMPANY).await;
            assert!([200, 401].contains(&answer.status), "{}", answer.text());
        }
        assert_eq!(world.refreshes("quickbooks"), asked);
    };
    dead(1).await;
    clock.advance(Duration::from_secs(59));
    dead(1).await;
    clock.advance(Duration::from_secs(2));
    dead(2).await;
    world.stop().await;
}

#[tokio::test]
async fn a_refusal_that_is_no_expiry_changes_nothing() {
    let world = World::start().await;
    let handle = world.connected("quickbooks", "alice").await;
    for status in [401, 403, 404, 500] {
        let answer = world.call(&handle, &format!("/quickbooks/v3/company/0/status/{status}")).await;
        assert_eq!(answer.status, status);
    }
    assert_eq!(world.refreshes("quickbooks"), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_dead_grant_is_told_after_the_first_refusal() {
    let world = World::start().await;
    let handle = world.connected("quickbooks", "alice").await;
    world.simulator.revoke("quickbooks");
    assert_eq!(world.call(&handle, COMPANY).await.status, 401, "what the API said");
    assert_eq!(world.connections("alice").await[0]["state"], "needs_reauth");
    let answer = world.call(&handle, COMPANY).await;
    assert_eq!(answer.json()["type"], "urn:sidekey:error:needs-reauth", "{}", answer.text());
    assert_eq!(world.refreshes("quickbooks"), 1);
    world.stop().await;
}
