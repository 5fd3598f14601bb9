//! Every way in which a refresh can fail, at providers of every rotation model: what can be recovered is, and what cannot is
//! recorded.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use sidekey::base::clock::{Clock, ManualClock, SystemClock};
use sidekey_simulator::{Counters, Endpoint, Fault, FaultKind, Reuse, Rotation};

use crate::world::{Setup, World, eventually, pause};

/// A provider of one rotation model, and how its simulator is set.
struct Model {
    entry: &'static str,
    rotation: Rotation,
    grace_s: f64,
}

macro_rules! entry {
    ($rotation:literal) => {
        concat!(
            "display_name = \"P\"\nchecked_on = \"2026-11-21\"\ndefault_api = \"p\"\n",
            "[authorize]\nurl = \"SIMULATOR/generic/authorize\"\npkce = \"supported\"\nscopes = []\n",
            "[token]\nurl = \"SIMULATOR/generic/token\"\nclient_authentication = [\"basic\"]\n",
            "[apis.p]\norigin = \"SIMULATOR\"\nbase_path = \"/generic/api\"\n",
            "[rotation]\n",
            $rotation
        )
    };
}

const STATIC: Model = Model { entry: entry!("model = \"static\""), rotation: Rotation::Static, grace_s: 0.0 };
const OVERLAP: Model = Model { entry: entry!("model = \"overlap\""), rotation: Rotation::Overlap, grace_s: 0.0 };
const UNTIL_SUCCESSOR: Model =
    Model { entry: entry!("model = \"until_successor\""), rotation: Rotation::UntilSuccessor, grace_s: 0.0 };
const LEEWAY: Model =
    Model { entry: entry!("model = \"leeway\"\ngrace = \"30s\""), rotation: Rotation::Leeway, grace_s: 30.0 };
const INTERVAL: Model =
    Model { entry: entry!("model = \"interval\"\ninterval = \"1h\""), rotation: Rotation::Interval, grace_s: 0.0 };
const SINGLE_USE: Model =
    Model { entry: entry!("model = \"single_use\""), rotation: Rotation::SingleUse, grace_s: 0.0 };

/// The provider did nothing, or says so.
fn not_committed() -> Vec<FaultKind> {
    let html = |status: u16| FaultKind::Status {
        status,
        body: Some("<html>firewall</html>".to_owned()),
        content_type: Some("text/html".to_owned()),
        headers: [].into(),
    };
    vec![
        FaultKind::ResetBeforeReading,
        FaultKind::ResetNotCommitted,
        html(403),
        html(400),
        FaultKind::Redirect { to: "http://127.0.0.1:1/elsewhere".to_owned(), status: 302 },
        FaultKind::Redirect { to: "http://127.0.0.1:1/elsewhere".to_owned(), status: 307 },
        FaultKind::Error { error: "invalid_client".to_owned(), description: None, status: Some(401) },
        FaultKind::Error { error: "nobody_knows_this".to_owned(), description: None, status: None },
    ]
}

/// The provider did what was asked, and the reply is lost or useless.
fn committed() -> Vec<FaultKind> {
    vec![
        FaultKind::CommitThenReset,
        FaultKind::CommitThenResetAfterHeaders,
        FaultKind::CommitHalfBody,
        FaultKind::CommitThenStatus { status: 500 },
        FaultKind::DelayMs { ms: 5_000 },
        FaultKind::WrongContentLength,
        FaultKind::HugeBody { bytes: 10 * 1024 * 1024 },
    ]
}

/// The reply is hard to get, but all there.
fn slow() -> Vec<FaultKind> {
    vec![FaultKind::DelayMs { ms: 1_500 }, FaultKind::Drip { bytes_per_second: 200 }]
}

async fn world(model: &Model, lifetime: f64) -> World {
    let setup = Setup {
        // A reply that takes longer is lost. Refreshes begin early, so that most of a token's life is left for what goes wrong.
        tables: "[timeouts]\ntoken = \"3s\"\n[refresh]\nlargest_share = 0.9\n".to_owned(),
        providers: vec![("p", model.entry, "")],
        ..Setup::default()
    };
    let world = World::with(setup, Arc::new(SystemClock)).await;
    world.simulator.set("generic", |settings| {
        settings.rotation = model.rotation;
        settings.grace_s = model.grace_s;
        settings.interval_s = 3600.0;
        settings.access_lifetime_s = lifetime;
        // The worst that a provider can do about a refresh token that comes twice.
        settings.reuse = Reuse::RevokeFamily;
        settings.revoke_access_on_reuse = true;
    });
    world
}

fn counters(world: &World) -> Counters {
    world.simulator.ledger().profile("generic").counters.clone()
}

async fn connection(world: &World) -> Value {
    world.connections("alice").await.remove(0)
}

/// The first refresh fails like this; no call ever does, and afterwards all is as if nothing had happened.
async fn recovers(model: &Model, fault: FaultKind) {
    let what = format!("{:?} {fault:?}", model.rotation);
    let world = world(model, 20.0).await;
    world.simulator.add_fault(Fault::new("generic", Endpoint::Refresh, fault).nth(1));
    let handle = world.connected("p", "alice").await;
    let mut settled = false;
    for _ in 0..190 {
        let answer = world.call(&handle, "/p/x").await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        let connection = connection(&world).await;
        if connection["generation"].as_u64() >= Some(2) && connection["trouble"].is_null() {
            settled = true;
            break;
        }
        pause(Duration::from_millis(100)).await;
    }
    assert!(settled, "{what}: {}", connection(&world).await);
    let counters = counters(&world);
    assert_eq!((counters.reuse_detected, counters.api_calls_rejected), (0, 0), "{what}");
    world.stop().await;
}

async fn all_recover(model: &Model, faults: Vec<FaultKind>) {
    join_all(faults.into_iter().map(|fault| recovers(model, fault))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_never_changes_survives_every_failure() {
    all_recover(&STATIC, [not_committed(), committed(), slow()].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_tokens_that_overlap_survive_every_failure() {
    all_recover(&OVERLAP, [not_committed(), committed(), slow()].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_lives_until_its_successor_is_used_survives_every_failure() {
    all_recover(&UNTIL_SUCCESSOR, [not_committed(), committed(), slow()].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_with_a_grace_survives_every_failure() {
    all_recover(&LEEWAY, [not_committed(), committed(), slow()].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_keeps_its_value_for_a_while_survives_every_failure() {
    all_recover(&INTERVAL, [not_committed(), committed(), slow()].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_done_is_done_later_at_the_strictest_provider_too() {
    all_recover(&SINGLE_USE, [not_committed(), slow()].concat()).await;
}

/// The one loss that nobody can prevent: it is known, it has a cause, and the token that is there is used to its end.
async fn is_lost_and_recorded(fault: FaultKind) {
    let what = format!("{fault:?}");
    let world = world(&SINGLE_USE, 12.0).await;
    world.simulator.add_fault(Fault::new("generic", Endpoint::Refresh, fault).nth(1));
    let handle = world.connected("p", "alice").await;
    let expires_at = connection(&world).await["access_expires_at"].as_str().expect("known").to_owned();
    eventually("in doubt", async || !connection(&world).await["trouble"]["in_doubt_since"].is_null()).await;
    assert_eq!(counters(&world).refresh_attempts, 1, "{what}: no blind repetition");
    let cause = connection(&world).await["trouble"]["last_error"].as_str().unwrap_or_default().to_owned();
    assert!(!cause.is_empty(), "{what}");
    let end = humantime::parse_rfc3339(&expires_at).expect("a time");
    loop {
        let status = world.call(&handle, "/p/x").await.status;
        if counters(&world).refresh_attempts > 1 {
            break;
        }
        assert_eq!(status, 200, "{what}: it works until it is asked");
        pause(Duration::from_millis(100)).await;
    }
    let left = end.duration_since(now()).unwrap_or_default();
    assert!(
        left < Duration::from_millis(2_500),
        "{what}: asked {left:?} before the end, when there is nothing to lose"
    );
    eventually("it needs its user", async || connection(&world).await["state"] == "needs_reauth").await;
    let counters = counters(&world);
    assert_eq!((counters.refresh_attempts, counters.reuse_detected), (2, 1), "{what}: exactly one probe");
    world.stop().await;
}

#[expect(clippy::disallowed_methods, reason = "tests of whole processes live in real time")]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_a_strict_provider_gave_and_nobody_got_is_in_doubt_and_asked_for_once() {
    join_all(committed().into_iter().map(is_lost_and_recorded)).await;
}

/// Sidekey's clock is moved by hand; the provider's tokens live an hour by both clocks.
struct Outage {
    world: World,
    clock: ManualClock,
    handle: String,
    connected: Duration,
}

impl Outage {
    async fn new() -> Self {
        let clock = ManualClock::at(crate::world::now());
        let world = World::with(Setup::default(), Arc::new(clock.clone())).await;
        let handle = world.connected("quickbooks", "alice").await;
        Self { world, clock, handle, connected: Duration::ZERO }
    }

    fn begin(&self) {
        self.world.simulator.add_fault(Fault::new("quickbooks", Endpoint::Refresh, FaultKind::ResetBeforeReading));
    }

    /// Whether the token has been refreshed. A refresh that is due is waited for: it may be under way.
    async fn has_refreshed(&self) -> bool {
        let refreshed = async || self.world.connections("alice").await[0]["refreshed_at"].is_string();
        let connection = self.world.connections("alice").await[0].clone();
        let is_due = connection["refresh_due_at"].as_str().is_some_and(|due| *due <= *self.clock.now().to_string());
        if is_due && connection["refreshed_at"].is_null() {
            eventually("what is due is refreshed", refreshed).await;
        }
        refreshed().await
    }

    /// A call that may have to wait on the clock: then that goes on.
    async fn call(&self) -> crate::client::Answer {
        let call = self.world.call(&self.handle, "/quickbooks/v3/company/0/companyinfo/0");
        tokio::pin!(call);
        loop {
            tokio::select! {
                answer = &mut call => return answer,
                () = pause(Duration::from_millis(100)) => self.clock.advance(Duration::from_secs(1)),
            }
        }
    }

    /// Lets so many seconds pass, with a call every ten; how many were answered, and how many told to come back later.
    async fn pass(&mut self, seconds: u64) -> (u32, u32) {
        self.pass_in_steps(seconds / 10, Duration::from_secs(10)).await
    }

    /// The same, second by second, so that an exchange, which takes real time, takes no more than one of them.
    async fn pass_slowly(&mut self, seconds: u64) -> (u32, u32) {
        let (mut answered, mut refused) = (0, 0);
        for _ in 0..seconds {
            let step = self.pass_in_steps(1, Duration::from_secs(1)).await;
            (answered, refused) = (answered + step.0, refused + step.1);
            pause(Duration::from_millis(50)).await;
        }
        (answered, refused)
    }

    async fn pass_in_steps(&mut self, steps: u64, step: Duration) -> (u32, u32) {
        let (mut answered, mut refused) = (0, 0);
        for _ in 0..steps {
            self.clock.advance(step);
            self.connected += step;
            let answer = self.call().await;
            match answer.status {
                200 => answered += 1,
                503 => {
                    let wait: u64 = answer.header("retry-after").parse().expect("seconds");
                    assert!((1..=600).contains(&wait), "{wait}");
                    refused += 1;
                }
                status => panic!("{status} after {:?}: {}", self.connected, answer.text()),
            }
        }
        (answered, refused)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_from_right_after_a_refresh_to_a_minute_before_the_end_fails_no_request() {
    let mut outage = Outage::new().await;
    outage.begin();
    assert_eq!(outage.pass(58 * 60).await, (348, 0));
    assert_eq!(outage.pass_slowly(60).await, (60, 0));
    outage.world.simulator.clear_faults();
    assert_eq!(outage.pass_slowly(90).await, (90, 0), "a new token is there in time");
    assert_eq!(outage.pass(10 * 60).await, (60, 0));
    outage.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_begins_anywhere_fails_no_request_while_the_token_is_valid() {
    for begins_after_minutes in [0, 20, 50, 56, 59] {
        let mut outage = Outage::new().await;
        assert_eq!(outage.pass(begins_after_minutes * 60).await.1, 0);
        let valid_for = match outage.has_refreshed().await {
            // The token lives an hour from then, and more than that is not asked for here.
            true => 50 * 60,
            false => (60 - begins_after_minutes) * 60 - 10,
        };
        outage.begin();
        let (answered, refused) = outage.pass(valid_for).await;
        assert_eq!(refused, 0, "{begins_after_minutes} min: {answered} were answered");
        // Until it is over for certain, and then some.
        outage.pass(20 * 60).await;
        assert_eq!(outage.pass(60).await, (0, 6), "{begins_after_minutes} min: 503 with a time to come back");
        outage.world.simulator.clear_faults();
        outage.pass(10 * 60).await;
        assert_eq!(outage.pass(60).await, (6, 0), "{begins_after_minutes} min: it recovers by itself");
        outage.world.stop().await;
    }
}
