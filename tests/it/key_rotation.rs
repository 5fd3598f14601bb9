//! A key that seals the store is replaced by another, while all goes on.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use sidekey_simulator::{Options, Simulator};

use crate::client::{http, send};
use crate::process::{Program, command, out, sidekey};
use crate::world::{Files, Setup, pause};

const SUBJECTS: [&str; 4] = ["alice", "bob", "carol", "dave"];

async fn simulator() -> Simulator {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    simulator.set("github", |settings| settings.access_lifetime_s = 3.0);
    simulator
}

/// The key in the file stays; another one comes first.
async fn put_a_new_key_in_front(files: &Files) {
    let new = files.home.path().join("new.key");
    let key = out(&sidekey(&["keys", "generate"]).await);
    sidekey::base::files::create_private(&new, key.as_bytes()).expect("written");
    let config = std::fs::read_to_string(&files.config).expect("there");
    let both = config.replacen("\"file:sidekey.key\"", "\"file:new.key\", \"file:sidekey.key\"", 1);
    std::fs::write(&files.config, both).expect("written");
}

fn remove_the_old_key(files: &Files) {
    let config = std::fs::read_to_string(&files.config).expect("there");
    std::fs::write(&files.config, config.replacen(", \"file:sidekey.key\"", "", 1)).expect("written");
}

/// How many values each key seals that is still needed, in the order of the configuration.
async fn values(running: &Program) -> Vec<u64> {
    let answer = out(&sidekey(&["keys", "status", "--json", "--config", running.config()]).await);
    let keys: Value = serde_json::from_str(&answer).expect("JSON");
    keys.as_array().expect("a list").iter().map(|key| key["values"].as_u64().expect("a number")).collect()
}

async fn call(running: &Program, handle: &str) -> u16 {
    let url = format!("http://{}/github/user", running.files.egress);
    send(http().get(url).bearer_auth(handle)).await.status
}

async fn connected(simulator: &Simulator) -> (Program, Vec<String>) {
    let files = Files::write(&simulator.url(), &Setup::default());
    let running = Program::start(files, &[], Stdio::null()).await;
    let mut handles = Vec::new();
    for subject in SUBJECTS {
        // The tokens of one live on, so that only resealing changes what is stored of them.
        simulator.set("github", |settings| settings.access_lifetime_s = if subject == "alice" { 3600.0 } else { 3.0 });
        running.connect("github", subject).await;
        handles.push(running.handle(subject).await);
    }
    (running, handles)
}

#[tokio::test]
async fn a_key_is_replaced_under_load_and_nobody_notices() {
    let simulator = simulator().await;
    let (mut running, handles) = connected(&simulator).await;
    running.signal(Signal::TERM).await;
    put_a_new_key_in_front(&running.files).await;
    let mut running = Program::start(running.files, &[], Stdio::null()).await;
    assert!(values(&running).await[1] >= 2, "the old key is needed");
    let config = running.config().to_owned();
    let resealing = tokio::spawn(async move { out(&sidekey(&["keys", "reseal", "--config", &config]).await) });
    for _ in 0..40 {
        for handle in &handles {
            assert_eq!(call(&running, handle).await, 200);
        }
        pause(Duration::from_millis(20)).await;
    }
    let said = resealing.await.expect("done");
    assert!(said.contains("values are sealed by the first key now"), "{said}");
    assert_eq!(values(&running).await[1], 0);
    let status = out(&sidekey(&["keys", "status", "--config", running.config()]).await);
    assert!(status.contains("is needed no more, and may be removed from store.keys"), "{status}");
    running.signal(Signal::TERM).await;

    remove_the_old_key(&running.files);
    let running = Program::start(running.files, &[], Stdio::null()).await;
    for handle in &handles {
        assert_eq!(call(&running, handle).await, 200);
    }
    let counters = simulator.profile_counters("github");
    assert_eq!((counters.refreshes_rejected, counters.reuse_detected), (0, 0));
    drop(running);
    simulator.stop().await;
}

/// Both keys open what is there until it is done; whatever was done stays done.
#[tokio::test]
async fn killed_while_it_reseals_it_goes_on_where_it_stopped() {
    let simulator = simulator().await;
    let (mut running, handles) = connected(&simulator).await;
    running.signal(Signal::TERM).await;
    put_a_new_key_in_front(&running.files).await;
    for delay in [0, 2, 5, 10, 20] {
        let mut program = Program::start(running.files, &[], Stdio::null()).await;
        let config = program.config().to_owned();
        let mut resealing = command(&["keys", "reseal", "--config", &config])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        pause(Duration::from_millis(delay)).await;
        program.signal(Signal::KILL).await;
        let _ = resealing.wait().await;
        running = program;
    }
    let mut last = Program::start(running.files, &[], Stdio::null()).await;
    out(&sidekey(&["keys", "reseal", "--config", last.config()]).await);
    assert_eq!(values(&last).await[1], 0);
    last.signal(Signal::TERM).await;
    remove_the_old_key(&last.files);
    let last = Program::start(last.files, &[], Stdio::null()).await;
    assert_eq!(call(&last, &handles[0]).await, 200, "of one that was never refreshed");
    drop(last);
    simulator.stop().await;
}

/// Of two configurations for one server, one has another key.
#[tokio::test]
async fn no_key_is_made_where_the_server_has_another_one() {
    let simulator = simulator().await;
    let (running, _) = connected(&simulator).await;
    let at = |name: &str| running.files.home.path().join(name);
    let key = out(&sidekey(&["keys", "generate"]).await);
    sidekey::base::files::create_private(&at("other.key"), key.as_bytes()).expect("written");
    let config = std::fs::read_to_string(&running.files.config).expect("there");
    std::fs::write(at("other.toml"), config.replacen("file:sidekey.key", "file:other.key", 1)).expect("written");
    let answer = sidekey(&["keys", "rotate", "--config", at("other.toml").to_str().expect("text")]).await;
    let said = String::from_utf8_lossy(&answer.stderr);
    assert_eq!(answer.status.code(), Some(1), "{said}");
    assert!(said.contains("does it have the same configuration?"), "{said}");
    assert_eq!(std::fs::read_to_string(at("other.key")).expect("there"), key, "it is as it was");
    simulator.stop().await;
}

/// Two operators, or one who is impatient.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_rotations_at_once_one_waits_and_no_key_is_lost() {
    let simulator = simulator().await;
    let (mut running, handles) = connected(&simulator).await;
    let config = running.config().to_owned();
    let rotate = async || {
        let answer = sidekey(&["keys", "rotate", "--config", &config]).await;
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(answer.status.success() || said.contains("another `sidekey keys rotate` works on "), "{said}");
        answer.status.success()
    };
    for _ in 0..4 {
        let done = futures_util::future::join_all([rotate(), rotate(), rotate()]).await;
        assert!(done.contains(&true), "one of them works");
    }
    running.signal(Signal::TERM).await;
    let running = Program::start(running.files, &[], Stdio::null()).await;
    for handle in &handles {
        assert_eq!(call(&running, handle).await, 200, "what is stored can be opened");
    }
    drop(running);
    simulator.stop().await;
}

/// Who looks at the trail later sees it, whether a server ran or not.
#[tokio::test]
async fn without_a_server_it_is_rotated_and_written_down_all_the_same() {
    let simulator = simulator().await;
    let (mut running, handles) = connected(&simulator).await;
    running.signal(Signal::TERM).await;
    let files = running.files;
    let config = files.config.to_str().expect("text");
    let answer = out(&sidekey(&["keys", "rotate", "--json", "--config", config]).await);
    let rotated: Value = serde_json::from_str(&answer).expect("JSON");
    let trail = out(&sidekey(&["audit", "--operation", "keys", "--json", "--config", config]).await);
    let taken: Vec<Value> = trail.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(
        taken.iter().any(|record| record["outcome"] == "taken" && record["reason"] == rotated["key"]),
        "{rotated} {trail}"
    );
    let running = Program::start(files, &[], Stdio::null()).await;
    assert_eq!(values(&running).await.len(), 1, "the former key is gone");
    assert_eq!(call(&running, &handles[0]).await, 200);
    simulator.stop().await;
}
