//! Disks that fill up: before a refresh, in the middle of one, and where only the log goes.

use std::fs::OpenOptions;
use std::process::Stdio;
use std::time::Duration;

use sidekey_simulator::{Endpoint, Fault, FaultKind, Simulator};

use crate::client::{http, send};
use crate::process::{Program, out, sidekey};
use crate::small_disk::{address, call, counters, get, readiness, simulator, small_disk};
use crate::world::{Files, Setup, admin, eventually, pause};

/// Has the next refresh take a while, and waits until the provider has been asked.
async fn a_refresh_under_way(simulator: &Simulator, ms: u64) {
    let slow = Fault::new("github", Endpoint::Refresh, FaultKind::DelayMs { ms });
    simulator.add_fault(slow.nth(1));
    let before = counters(simulator).refresh_attempts;
    simulator.expire("github");
    eventually("a refresh is under way", async || counters(simulator).refresh_attempts > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_refreshed_calls_go_on_and_all_recovers_by_itself() {
    let simulator = simulator(9.0).await;
    let mut disk = small_disk(&simulator).await;
    disk.program.connect("github", "alice").await;
    let handle = disk.program.handle("alice").await;
    disk.fill().await;
    eventually("it is not ready", async || {
        assert_eq!(call(&disk.program, &handle).await, 200, "the current token is used");
        readiness(&disk.program).await.status == 503
    })
    .await;
    let why = readiness(&disk.program).await.json();
    assert!(why["store"].as_str().is_some_and(|why| why.contains("full")), "{why}");
    eventually("the token has expired", async || call(&disk.program, &handle).await == 503).await;
    let message = get(&disk.program, &handle).await.json();
    assert!(message["detail"].as_str().is_some_and(|why| why.contains("full")), "{message}");
    assert_eq!(counters(&simulator).refresh_attempts, 0, "what could not be stored is not asked for");
    disk.free().await;
    eventually("it is ready", async || readiness(&disk.program).await.status == 200).await;
    eventually("calls work", async || call(&disk.program, &handle).await == 200).await;
    let counters = counters(&simulator);
    assert!(counters.refreshes_ok >= 1);
    assert_eq!((counters.refreshes_rejected, counters.reuse_detected), (0, 0));
    eventually("the audit trail goes on", async || {
        disk.run("grep -q '\"operation\":\"refresh\",\"outcome\":\"ok\"' data/audit.jsonl").await == 0
    })
    .await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_during_a_refresh_has_room_for_its_result() {
    let simulator = simulator(4.0).await;
    let mut disk = small_disk(&simulator).await;
    disk.program.connect("github", "alice").await;
    let handle = disk.program.handle("alice").await;
    a_refresh_under_way(&simulator, 1500).await;
    simulator.set("github", |settings| settings.access_lifetime_s = 3600.0);
    disk.fill().await;
    eventually("the result is there", async || disk.log().contains("\"generation\":2")).await;
    assert!(disk.log().contains("the space that was set aside"), "{}", disk.log());
    assert_eq!(call(&disk.program, &handle).await, 200);
    assert!(disk.stop("KILL").await > 128);
    disk.free().await;
    disk.serve().await;
    simulator.set("github", |settings| settings.access_lifetime_s = 4.0);
    simulator.expire("github");
    eventually("the next refresh", async || {
        call(&disk.program, &handle).await;
        counters(&simulator).refreshes_ok >= 2
    })
    .await;
    let counters = counters(&simulator);
    assert_eq!((counters.refreshes_rejected, counters.reuse_detected), (0, 0), "nothing was lost");
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_finds_no_room_waits_in_memory_and_a_stop_waits_for_it() {
    let simulator = simulator(8.0).await;
    let mut disk = small_disk(&simulator).await;
    disk.program.connect("github", "alice").await;
    let handle = disk.program.handle("alice").await;
    a_refresh_under_way(&simulator, 1500).await;
    let waiting = tokio::spawn(send(http().get(address(&disk.program)).bearer_auth(&handle)));
    eventually("the API calls the old token expired", async || counters(&simulator).api_calls_expired > 0).await;
    // Somebody else takes what was set aside.
    disk.run(": >data/sidekey.reserve").await;
    disk.fill().await;
    eventually("it is not ready", async || {
        let answer = readiness(&disk.program).await;
        answer.status == 503 && answer.json()["refreshed_tokens"].as_str().is_some_and(|why| why.contains("full"))
    })
    .await;
    disk.run("kill -TERM $server").await;
    pause(Duration::from_secs(2)).await;
    assert_eq!(disk.run("kill -0 $server").await, 0, "it waits");
    assert!(!waiting.is_finished(), "what is not stored is not used");
    disk.free().await;
    assert_eq!(disk.run("wait $server").await, 0);
    assert_eq!(waiting.await.expect("no panic").status, 200);
    assert!(!disk.log().contains("exchanges were cut off"), "{}", disk.log());
    disk.serve().await;
    eventually("the next refresh", async || {
        call(&disk.program, &handle).await;
        counters(&simulator).refreshes_ok >= 2
    })
    .await;
    let counters = counters(&simulator);
    assert_eq!((counters.refreshes_rejected, counters.reuse_detected), (0, 0), "nothing was lost");
    simulator.stop().await;
}

/// The reply is lost, and that this is so cannot be written at first. Asking again would end the grant.
#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_that_finds_no_room_is_recorded_later_and_the_token_is_not_sent_again() {
    let simulator = simulator(3600.0).await;
    let mut disk = small_disk(&simulator).await;
    disk.program.connect("quickbooks", "alice").await;
    let handle = disk.program.handle("alice").await;
    let attempts = || simulator.ledger().profile("quickbooks").counters.refresh_attempts;
    simulator.add_fault(Fault::new("quickbooks", Endpoint::Refresh, FaultKind::DelayMs { ms: 20_000 }).nth(1));
    simulator.expire("quickbooks");
    let url = format!("http://{}/quickbooks/v3/company/0/companyinfo/0", disk.program.files.egress);
    let call = tokio::spawn(send(http().get(url).bearer_auth(&handle)));
    eventually("a refresh is under way", async || attempts() == 1).await;
    disk.run(": >data/sidekey.reserve").await;
    disk.fill().await;
    eventually("it is lost", async || disk.log().contains("a failed refresh cannot be recorded")).await;
    assert_eq!(call.await.expect("no panic").status, 401, "of the API");
    let socket = disk.program.files.home.path().join("admin.sock");
    let status = async || admin(&socket, "GET", "/v1/status?subject=alice", "").await.json();
    assert!(status().await["connections"][0]["trouble"]["in_doubt_since"].is_null(), "nothing could be written");
    disk.free().await;
    eventually("it is recorded", async || !status().await["connections"][0]["trouble"]["in_doubt_since"].is_null())
        .await;
    eventually("it is ready", async || readiness(&disk.program).await.status == 200).await;
    assert_eq!(attempts(), 1);
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_another_file_everything_goes_on() {
    let simulator = simulator(1.0).await;
    let mut disk = small_disk(&simulator).await;
    disk.program.connect("github", "alice").await;
    let handle = disk.program.handle("alice").await;
    disk.fill_with_files().await;
    eventually("refreshes", async || {
        call(&disk.program, &handle).await;
        counters(&simulator).refreshes_ok >= 3
    })
    .await;
    assert_eq!(readiness(&disk.program).await.status, 200);
    assert_eq!(disk.stop("TERM").await, 0);
    simulator.stop().await;
}

/// Everything written to `/dev/full` fails as on a full disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_is_lost_and_nothing_else() {
    let simulator = simulator(1.0).await;
    let setup = Setup { tables: "[logging]\nlevel = \"debug\"\n".to_owned(), ..Setup::default() };
    let full = OpenOptions::new().write(true).open("/dev/full").expect("there");
    let mut running = Program::start(Files::write(&simulator.url(), &setup), &[], Stdio::from(full)).await;
    running.connect("github", "alice").await;
    let handle = running.handle("alice").await;
    eventually("refreshes", async || {
        call(&running, &handle).await;
        counters(&simulator).refreshes_ok >= 2
    })
    .await;
    assert_eq!(readiness(&running).await.status, 200);
    let trail = out(&sidekey(&["audit", "--config", running.config()]).await);
    assert!(trail.contains("refresh"), "{trail}");
    assert!(running.signal(rustix::process::Signal::TERM).await.success());
    simulator.stop().await;
}
