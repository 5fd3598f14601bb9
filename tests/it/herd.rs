//! Ten thousand connections whose tokens expire in the same second.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use sidekey::base::clock::Timestamp;
use sidekey::base::random::SystemRandom;
use sidekey::base::secret::Secret;
use sidekey::model::connection::{Captured, ConnectionKey, ConnectionState};
use sidekey::model::names::Label;
use sidekey::store::Store;
use sidekey::store::record::{ConnectionRecord, connection_context, field};
use sidekey::store::seal::Sealer;
use sidekey::store::sqlite::SqliteStore;
use sidekey_simulator::{Endpoint, Fault, FaultKind, Options, Simulator};

use crate::process::Program;
use crate::world::{Files, Setup, now, pause};

const CONNECTIONS: usize = 10_000;
/// What [`sidekey::vault`] allows itself at one provider.
const AT_ONCE: usize = 32;
/// All expire so long after the start, and all are due at it: what is left of the five minutes that a refresh comes
/// ahead by default.
const LIFETIME: Duration = Duration::from_secs(270);

/// A connection of the provider with tokens of the simulated company.
pub fn record(
    sealer: &Sealer,
    simulator: &Simulator,
    (company, provider): (&str, &str),
    number: usize,
    expires_at: Timestamp,
) -> ConnectionRecord {
    let subject = format!("user-{number}");
    let (access, refresh) = simulator.issue_grant(company, &subject);
    let key = ConnectionKey::new(subject.parse().expect("valid"), provider.parse().expect("valid"), Label::default());
    let id = format!("c_{provider}_{number}");
    let seal = |field, token: &str| sealer.seal(&connection_context(&key, &id, field, 1), &Secret::new(token));
    ConnectionRecord {
        access_token: seal(field::ACCESS_TOKEN, &access),
        refresh_token: refresh.map(|token| seal(field::REFRESH_TOKEN, &token)),
        state: ConnectionState::Active,
        captured: Captured::new(),
        earlier_site: None,
        scopes: None,
        requested_scopes: None,
        account: None,
        generation: 1,
        access_expires_at: Some(expires_at),
        previous_refresh_token: None,
        refresh_token_since: None,
        refresh_expires_at: None,
        grant_expires_at: None,
        refresh_due_at: Some(expires_at.minus(LIFETIME)),
        intent: None,
        trouble: None,
        connected_at: expires_at.minus(LIFETIME),
        refreshed_at: None,
        id,
        key,
    }
}

/// Resident memory in KiB: now, and at most.
fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("Linux says so");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    };
    (of("VmRSS:"), of("VmHWM:"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_that_expire_together_are_all_refreshed_in_time_and_not_all_at_once() {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    // A provider that takes its time, so that requests would pile up.
    simulator.add_fault(Fault::new("github", Endpoint::Refresh, FaultKind::DelayBeforeCommit { ms: 50 }));
    let files = Files::write(&simulator.url(), &Setup::default());
    let expires_at = now().plus(LIFETIME);
    let sealer = Sealer::new(files.settings().keys, Arc::new(SystemRandom));
    let records =
        (0..CONNECTIONS).map(|number| record(&sealer, &simulator, ("github", "github"), number, expires_at)).collect();
    let store = SqliteStore::open(&files.data()).expect("a store");
    store.connect(records, now()).await.expect("stored");
    drop(store);

    let running = Program::start(files, &[], Stdio::null()).await;
    let (at_start, _) = memory(running.child.id().expect("it runs"));
    let mut at_most = 0;
    while simulator.profile_counters("github").refreshes_ok < CONNECTIONS as u64 {
        at_most = memory(running.child.id().expect("it runs")).1.max(at_most);
        assert!(now() < expires_at, "{:?}", simulator.profile_counters("github"));
        pause(Duration::from_millis(200)).await;
    }
    let took = LIFETIME - expires_at.since(now());
    let counters = simulator.profile_counters("github");
    println!("{CONNECTIONS} refreshed in {took:?}; {at_start} KiB at the start, at most {at_most} KiB");
    assert_eq!((counters.refresh_attempts, counters.refreshes_rejected), (CONNECTIONS as u64, 0), "each once");
    let at_once = simulator.most_token_requests_at_once();
    assert!(at_once <= AT_ONCE && at_once > AT_ONCE / 4, "{at_once} at once");
    let grown = at_most.saturating_sub(at_start);
    assert!(grown < 48 * 1024, "{grown} KiB more: every connection is in memory, nothing else");
    drop(running);
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_answers_nobody_holds_up_no_other() {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    simulator.add_fault(Fault::new("github", Endpoint::Refresh, FaultKind::DelayBeforeCommit { ms: 60_000 }));
    let files = Files::write(&simulator.url(), &Setup::default());
    let expires_at = now().plus(LIFETIME);
    let sealer = Sealer::new(files.settings().keys, Arc::new(SystemRandom));
    // The most urgent ones are those of the provider that hangs, and more than are looked at in one go.
    let earlier = expires_at.minus(Duration::from_secs(10));
    let mut records: Vec<_> =
        (0..300).map(|number| record(&sealer, &simulator, ("github", "github"), number, earlier)).collect();
    records.extend((0..100).map(|number| record(&sealer, &simulator, ("gitlab", "gitlab"), number, expires_at)));
    let store = SqliteStore::open(&files.data()).expect("a store");
    store.connect(records, now()).await.expect("stored");
    drop(store);
    let running = Program::start(files, &[], Stdio::null()).await;
    let done = || simulator.profile_counters("gitlab").refresh_attempts;
    crate::world::eventually("all of the other provider", async || done() == 100).await;
    assert_eq!(simulator.profile_counters("github").refresh_attempts, AT_ONCE as u64);
    drop(running);
    simulator.stop().await;
}
