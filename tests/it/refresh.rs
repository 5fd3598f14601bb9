//! Journey J5 through the whole: tokens expire while requests come in.

use std::sync::Arc;
use std::time::Duration;

use sidekey::base::clock::{ManualClock, SystemClock};
use sidekey::telemetry::stopwatch::Stopwatch;
use sidekey_simulator::{Endpoint, Fault, FaultKind};

use crate::client::send;
use crate::world::{Setup, World, eventually, now, pause};

const PATH: &str = "/quickbooks/v3/company/0/companyinfo/0";

fn counters(world: &World) -> sidekey_simulator::Counters {
    world.simulator.ledger().profile("quickbooks").counters.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_requests_on_an_expired_token_cause_one_refresh() {
    let clock = ManualClock::at(now());
    let world = World::with(Setup::default(), Arc::new(clock.clone())).await;
    let handle = world.connected("quickbooks", "alice").await;
    clock.advance(Duration::from_secs(2 * 3600));
    let calls = (0..500).map(|_| world.call(&handle, PATH));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "all are answered");
    let counters = counters(&world);
    assert_eq!((counters.refresh_attempts, counters.refreshes_ok, counters.reuse_detected), (1, 1, 0));
    assert_eq!((counters.api_calls, counters.api_calls_ok), (500, 500));
    world.stop().await;
}

#[tokio::test]
async fn tokens_are_refreshed_ahead_of_time_and_no_call_notices() {
    let world = World::start().await;
    world.simulator.set("quickbooks", |settings| settings.access_lifetime_s = 2.0);
    let handle = world.connected("quickbooks", "alice").await;
    eventually("three refreshes", async || {
        assert_eq!(world.call(&handle, PATH).await.status, 200);
        counters(&world).refreshes_ok >= 3
    })
    .await;
    let counters = counters(&world);
    assert_eq!((counters.api_calls, counters.refreshes_rejected), (counters.api_calls_ok, 0));
    world.stop().await;
}

/// While the current token is valid no request waits for, or fails because of, a refresh.
#[tokio::test]
async fn an_outage_of_the_token_endpoint_is_not_noticed_while_the_token_is_valid() {
    for kind in [
        FaultKind::ResetBeforeReading,
        FaultKind::CommitThenStatus { status: 500 },
        FaultKind::DelayMs { ms: 3_000 },
        FaultKind::Status {
            status: 429,
            body: None,
            content_type: None,
            headers: [("retry-after".into(), "9".into())].into(),
        },
    ] {
        let world = World::start().await;
        world.simulator.set("quickbooks", |settings| settings.access_lifetime_s = 6.0);
        let handle = world.connected("quickbooks", "alice").await;
        world.simulator.add_fault(Fault::new("quickbooks", Endpoint::Refresh, kind.clone()));
        let connected = Stopwatch::start();
        while connected.elapsed() < Duration::from_millis(5_500) {
            let call = Stopwatch::start();
            let answer = world.call(&handle, PATH).await;
            assert_eq!(answer.status, 200, "{kind:?}: {}", answer.text());
            assert!(call.elapsed() < Duration::from_secs(1), "{kind:?} made a request wait");
            pause(Duration::from_millis(50)).await;
        }
        let attempted = world.simulator.ledger().events_of("quickbooks", "fault").len();
        assert!(attempted >= 1, "{kind:?}: a refresh was tried");
        world.stop().await;
    }
}

#[tokio::test]
async fn a_dead_grant_is_reported_with_the_way_out_and_reconnecting_mends_it() {
    let world = World::start().await;
    world.simulator.set("quickbooks", |settings| settings.access_lifetime_s = 1.0);
    let handle = world.connected("quickbooks", "alice").await;
    world.simulator.revoke("quickbooks");
    eventually("needs_reauth", async || world.connections("alice").await[0]["state"] == "needs_reauth").await;
    eventually("the token has expired", async || world.call(&handle, PATH).await.status == 403).await;
    let problem = world.call(&handle, PATH).await.json();
    assert_eq!(problem["type"], "urn:sidekey:error:needs-reauth");
    assert_eq!(
        problem["detail"],
        "The connection of subject alice to quickbooks has ended: HTTP 400 with error invalid_grant."
    );
    assert_eq!(problem["next_step"], "connect again: `sidekey connect quickbooks --subject alice`");
    let asked = counters(&world).refresh_attempts;
    assert_eq!(world.call(&handle, PATH).await.status, 403);
    assert_eq!(counters(&world).refresh_attempts, asked, "a dead grant is not asked about again");
    world.simulator.set("quickbooks", |settings| settings.access_lifetime_s = 3600.0);
    world.connect("quickbooks", "alice").await;
    assert_eq!(world.call(&handle, PATH).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn an_expired_token_with_the_provider_down_is_503_with_a_time_to_come_back() {
    let world = World::start().await;
    world.simulator.set("quickbooks", |settings| settings.access_lifetime_s = 1.0);
    let handle = world.connected("quickbooks", "alice").await;
    let html = FaultKind::Status {
        status: 403,
        body: Some("<html>".to_owned()),
        content_type: Some("text/html".to_owned()),
        headers: std::collections::BTreeMap::new(),
    };
    world.simulator.add_fault(Fault::new("quickbooks", Endpoint::Refresh, html));
    eventually("expired", async || world.call(&handle, PATH).await.status == 503).await;
    let answer = world.call(&handle, PATH).await;
    let problem = answer.json();
    assert_eq!((answer.status, problem["type"].as_str()), (503, Some("urn:sidekey:error:token-unavailable")));
    let wait: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!((1..=10).contains(&wait), "{wait}");
    assert_eq!(
        problem["detail"],
        "The access token of subject alice at quickbooks has expired and could not be refreshed: HTTP 403 without an OAuth error."
    );
    assert_eq!(world.connections("alice").await[0]["state"], "active", "no verdict on the grant");
    world.simulator.clear_faults();
    eventually("it recovers by itself", async || world.call(&handle, PATH).await.status == 200).await;
    world.stop().await;
}

#[tokio::test]
async fn an_operators_mistake_is_told_from_a_users() {
    let world = World::start().await;
    world.simulator.set("quickbooks", |settings| settings.access_lifetime_s = 1.0);
    let handle = world.connected("quickbooks", "alice").await;
    world.simulator.set("quickbooks", |settings| settings.client_secret = "rotated-at-the-provider".to_owned());
    eventually("expired", async || world.call(&handle, PATH).await.status == 503).await;
    let connection = world.connections("alice").await.remove(0);
    assert_eq!(connection["state"], "active");
    assert_eq!(connection["trouble"]["last_error"], "HTTP 401 with error invalid_client");
    world.stop().await;
}

#[tokio::test]
async fn a_client_secret_that_was_changed_at_the_provider_is_mended_by_a_restart_and_costs_no_grant() {
    let world = World::start().await;
    world.simulator.set("quickbooks", |settings| settings.access_lifetime_s = 2.0);
    let handle = world.connected("quickbooks", "alice").await;
    world.simulator.set("quickbooks", |settings| settings.client_secret = "rotated-at-the-provider".to_owned());
    eventually("expired", async || world.call(&handle, PATH).await.status == 503).await;
    let World { simulator, sidekey, files, client } = world;
    sidekey.stop().await;
    std::fs::write(files.home.path().join("quickbooks.secret"), "rotated-at-the-provider").expect("written");
    let settings = files.settings();
    let environment = sidekey::server::Environment::system(&settings).expect("an environment");
    let sidekey = sidekey::server::start(settings, environment).await.expect("it starts again");
    let world = World { simulator, sidekey, files, client };
    eventually("it goes on", async || world.call(&handle, PATH).await.status == 200).await;
    assert_eq!(counters(&world).code_exchanges, 1, "nobody connected again");
    world.stop().await;
}

#[tokio::test]
async fn a_new_refresh_token_is_stored_and_the_old_one_never_sent_again() {
    let world = World::start().await;
    world.simulator.set("github", |settings| settings.access_lifetime_s = 1.0);
    let handle = world.connected("github", "alice").await;
    eventually("four rotations", async || {
        let _ = world.call(&handle, "/github/user").await;
        world.simulator.ledger().profile("github").counters.refreshes_ok >= 4
    })
    .await;
    let ledger = world.simulator.ledger();
    let github = ledger.profile("github");
    assert_eq!((github.counters.refreshes_rejected, github.counters.reuse_detected), (0, 0));
    assert!(github.last_grant().expect("one").refresh_tokens.iter().all(|token| token.used_count <= 1));
    world.stop().await;
}

#[tokio::test]
async fn stopping_waits_for_a_refresh_under_way() {
    let world = World::start().await;
    world.simulator.set("github", |settings| settings.access_lifetime_s = 1.0);
    world.connect("github", "alice").await;
    let slow = FaultKind::DelayMs { ms: 1_500 };
    world.simulator.add_fault(Fault::new("github", Endpoint::Refresh, slow).nth(1));
    eventually("a refresh is under way", async || {
        world.simulator.ledger().profile("github").counters.refresh_attempts == 1
    })
    .await;
    let World { simulator, sidekey, files, .. } = world;
    sidekey.stop().await;
    // The rotated token is on disk: a new process goes on where the old one stopped.
    let simulator = {
        simulator.clear_faults();
        simulator
    };
    let settings = files.settings();
    let environment = sidekey::server::Environment::system(&settings).expect("an environment");
    let again = sidekey::server::start(settings, environment).await.expect("it starts again");
    eventually("the next refresh works", async || simulator.ledger().profile("github").counters.refreshes_ok >= 2)
        .await;
    assert_eq!(simulator.ledger().profile("github").counters.refreshes_rejected, 0);
    again.stop().await;
    simulator.stop().await;
}

#[tokio::test]
async fn readiness_and_metrics_tell_the_truth() {
    let world = World::with(Setup::default(), Arc::new(SystemClock)).await;
    let url = |path: &str| format!("http://{}{path}", world.files.metrics);
    assert_eq!(send(world.client.get(url("/livez"))).await.text(), "ok\n");
    assert_eq!(send(world.client.get(url("/readyz"))).await.status, 200);
    assert_eq!(send(world.client.get(url("/v1/status"))).await.status, 404);
    world.simulator.set("quickbooks", |settings| settings.access_lifetime_s = 1.0);
    world.connect("quickbooks", "alice").await;
    eventually("a refresh is counted", async || {
        let text = send(world.client.get(url("/metrics"))).await.text();
        text.contains("sidekey_refreshes_total{outcome=\"ok\",provider=\"quickbooks\"}")
            && text.contains("sidekey_connects_total{outcome=\"ok\",provider=\"quickbooks\"} 1")
    })
    .await;
    world.stop().await;
}
