//! A store that was restored from a backup or copied is noticed by its sentinel, and nothing is refreshed from it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use sidekey_simulator::{Counters, Options, Simulator};

use crate::client::{http, send};
use crate::process::{Program, out, sidekey};
use crate::world::{Files, Setup, eventually, pause};

/// In `[store]`, whose last line comes before.
const SENTINEL: &str = "sentinel = \"elsewhere/sentinel\"\n";

async fn simulator() -> Simulator {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    // A provider that ends a grant whose refresh token comes twice.
    simulator.set("github", |settings| {
        settings.access_lifetime_s = 4.0;
        settings.reuse = sidekey_simulator::Reuse::RevokeFamily;
        settings.kills_access = false;
    });
    simulator
}

fn files(simulator: &Simulator) -> Files {
    let files = Files::write(&simulator.url(), &Setup { tables: SENTINEL.to_owned(), ..Setup::default() });
    std::fs::create_dir(files.home.path().join("elsewhere")).expect("made");
    files
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    sidekey::base::files::private_directory(to).expect("made");
    for entry in std::fs::read_dir(from).expect("there") {
        let entry = entry.expect("read");
        if entry.file_type().expect("known").is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

async fn readiness(files: &Files) -> (u16, String) {
    let answer = send(http().get(format!("http://{}/readyz", files.metrics))).await;
    (answer.status, answer.text())
}

async fn call(files: &Files, handle: &str) -> u16 {
    send(http().get(format!("http://{}/github/user", files.egress)).bearer_auth(handle)).await.status
}

fn counters(simulator: &Simulator) -> Counters {
    simulator.ledger().profile("github").counters.clone()
}

/// Starts without waiting for readiness, since there is none to be had.
async fn start_unready(files: Files) -> Program {
    let config = files.config.to_str().expect("text").to_owned();
    let child =
        crate::process::command(&["serve", "--config", &config]).stderr(Stdio::null()).spawn().expect("it starts");
    let program = Program { child, files };
    let url = format!("http://{}/livez", program.files.metrics);
    eventually("alive", async || http().get(&url).send().await.is_ok()).await;
    program
}

async fn refreshed(simulator: &Simulator, more: u64) {
    let before = counters(simulator).refreshes_ok;
    eventually("refreshes", async || counters(simulator).refreshes_ok >= before + more).await;
}

#[tokio::test]
async fn a_restored_backup_refreshes_nothing_until_it_is_confirmed() {
    let simulator = simulator().await;
    let mut running = Program::start(files(&simulator), &[], Stdio::null()).await;
    running.connect("github", "alice").await;
    let handle = running.handle("alice").await;
    running.signal(Signal::TERM).await;
    let Program { files, .. } = running;
    let backup = files.home.path().join("backup");
    copy(&files.data(), &backup);

    // Life goes on, across a restart that nobody has to confirm.
    let mut running = Program::start(files, &[], Stdio::null()).await;
    refreshed(&simulator, 2).await;
    running.signal(Signal::TERM).await;
    let Program { files, .. } = running;

    // A token of the backup that still works, so that it is clear what is served.
    simulator.set("github", |settings| settings.access_lifetime_s = 3600.0);
    copy(&backup, &files.data());
    let before = counters(&simulator);
    let mut restored = start_unready(files).await;
    let (status, text) = readiness(&restored.files).await;
    assert_eq!(status, 503);
    assert!(text.contains("\"sentinel\":\"this store is older than its sentinel"), "{text}");
    assert!(text.contains("sidekey store confirm"), "{text}");
    // The token has expired long ago, and is due at once.
    for _ in 0..10 {
        assert_eq!(call(&restored.files, &handle).await, 503);
        pause(Duration::from_millis(100)).await;
    }
    let after = counters(&simulator);
    assert_eq!((after.refresh_attempts, after.reuse_detected), (before.refresh_attempts, 0), "nothing was sent");
    let status = out(&sidekey(&["status", "--config", restored.config()]).await);
    assert!(status.starts_with("nothing is refreshed: this store is older than its sentinel"), "{status}");

    let said = out(&sidekey(&["store", "confirm", "--config", restored.config()]).await);
    assert!(said.starts_with("the store is confirmed; before: this store is older"), "{said}");
    assert_eq!(readiness(&restored.files).await.0, 200);
    eventually("it is tried", async || counters(&simulator).refresh_attempts > before.refresh_attempts).await;
    let audit = out(&sidekey(&["audit", "--json", "--config", restored.config()]).await);
    assert!(audit.contains("\"refused\"") && audit.contains("\"confirmed\""), "{audit}");
    restored.signal(Signal::TERM).await;
    simulator.stop().await;
}

#[tokio::test]
async fn a_copied_store_refreshes_nothing_on_its_second_machine() {
    let simulator = simulator().await;
    let mut first = Program::start(files(&simulator), &[], Stdio::null()).await;
    first.connect("github", "alice").await;
    let handle = first.handle("alice").await;
    first.signal(Signal::TERM).await;
    let second = files(&simulator);
    let Program { files, .. } = first;
    copy(&files.data(), &second.data());
    std::fs::copy(files.home.path().join("sidekey.key"), second.home.path().join("sidekey.key")).expect("copied");

    let first = Program::start(files, &[], Stdio::null()).await;
    let second = start_unready(second).await;
    let (status, text) = readiness(&second.files).await;
    assert_eq!(status, 503);
    assert!(text.contains("is missing: this store may be a copy of one that is in use elsewhere"), "{text}");
    refreshed(&simulator, 3).await;
    assert_eq!(call(&first.files, &handle).await, 200);
    let counters = counters(&simulator);
    assert_eq!((counters.reuse_detected, counters.refreshes_rejected), (0, 0), "only the first one refreshes");
    drop((first, second));
    simulator.stop().await;
}

/// The token that is there is used to its end, whatever the sentinel says.
#[tokio::test]
async fn what_is_not_trusted_still_serves_the_tokens_it_has() {
    let simulator = simulator().await;
    simulator.set("github", |settings| settings.access_lifetime_s = 3600.0);
    let mut running = Program::start(files(&simulator), &[], Stdio::null()).await;
    running.connect("github", "alice").await;
    let handle = running.handle("alice").await;
    running.signal(Signal::TERM).await;
    let Program { files, .. } = running;
    std::fs::remove_file(files.home.path().join("elsewhere/sentinel")).expect("there");
    let running = start_unready(files).await;
    assert_eq!(readiness(&running.files).await.0, 503);
    assert_eq!(call(&running.files, &handle).await, 200);
    drop(running);
    simulator.stop().await;
}

#[tokio::test]
async fn a_sentinel_that_cannot_be_written_stops_refreshes_until_it_can() {
    let simulator = simulator().await;
    let running = Program::start(files(&simulator), &[], Stdio::null()).await;
    running.connect("github", "alice").await;
    refreshed(&simulator, 1).await;
    let place = running.files.home.path().join("elsewhere");
    let aside = running.files.home.path().join("aside");
    std::fs::rename(&place, &aside).expect("moved");
    eventually("unready", async || readiness(&running.files).await.1.contains("sentinel")).await;
    let attempts = counters(&simulator).refresh_attempts;
    pause(Duration::from_secs(3)).await;
    assert_eq!(counters(&simulator).refresh_attempts, attempts, "nothing is sent");
    std::fs::rename(&aside, &place).expect("moved back");
    eventually("ready", async || readiness(&running.files).await.0 == 200).await;
    refreshed(&simulator, 1).await;
    drop(running);
    simulator.stop().await;
}

#[tokio::test]
async fn a_sentinel_among_what_it_watches_over_is_refused() {
    let simulator = simulator().await;
    let setup = Setup { tables: "sentinel = \"data/sentinel\"\n".to_owned(), ..Setup::default() };
    let files = Files::write(&simulator.url(), &setup);
    let checked = sidekey(&["check", files.config.to_str().expect("text")]).await;
    assert_eq!(checked.status.code(), Some(2));
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(said.contains("store.sentinel: lies in the store's directory"), "{said}");
    assert!(said.contains("name a file that is not restored or copied together with the store"), "{said}");
    simulator.stop().await;
}

#[tokio::test]
async fn without_a_sentinel_there_is_nothing_to_confirm() {
    let simulator = simulator().await;
    let running = Program::start(Files::write(&simulator.url(), &Setup::default()), &[], Stdio::null()).await;
    let said = sidekey(&["store", "confirm", "--config", running.config()]).await;
    assert_eq!(said.status.code(), Some(1));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("Nothing watches over this store") && said.contains("store.sentinel"), "{said}");
    drop(running);
    simulator.stop().await;
}

/// A second server on a copy, at the same addresses: it cannot serve, so it must not take the place of the one that can.
#[tokio::test]
async fn a_start_that_fails_takes_nothing_away_from_the_one_that_runs() {
    let simulator = simulator().await;
    let first = Program::start(files(&simulator), &[], Stdio::null()).await;
    first.connect("github", "alice").await;
    let second = tempfile::tempdir().expect("a directory");
    copy(&first.files.data(), &second.path().join("data"));
    for name in ["sidekey.key", "quickbooks.secret", "github.secret", "gitlab.secret", "notion.secret"] {
        std::fs::copy(first.files.home.path().join(name), second.path().join(name)).expect("copied");
    }
    copy(&first.files.home.path().join("providers"), &second.path().join("providers"));
    let sentinel = first.files.home.path().join("elsewhere/sentinel");
    let config = std::fs::read_to_string(&first.files.config).expect("there");
    let config = config.replace("elsewhere/sentinel", sentinel.to_str().expect("text"));
    let path = second.path().join("sidekey.toml");
    sidekey::base::files::create_private(&path, config.as_bytes()).expect("written");
    let failed = sidekey(&["serve", "--config", path.to_str().expect("text")]).await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("cannot listen on"), "{failed:?}");
    refreshed(&simulator, 2).await;
    assert_eq!(readiness(&first.files).await.0, 200);
    assert_eq!(counters(&simulator).reuse_detected, 0);
    drop(first);
    simulator.stop().await;
}

/// The process that it replaced is refused, and stays so when it is started again.
#[tokio::test]
async fn a_process_that_was_replaced_sends_nothing_after_a_restart_either() {
    let simulator = simulator().await;
    let mut first = Program::start(files(&simulator), &[], Stdio::null()).await;
    first.connect("github", "alice").await;
    first.signal(Signal::TERM).await;
    let other = files(&simulator);
    copy(&first.files.data(), &other.data());
    std::fs::copy(first.files.home.path().join("sidekey.key"), other.home.path().join("sidekey.key")).expect("copied");
    let sentinel = first.files.home.path().join("elsewhere/sentinel");
    let config = std::fs::read_to_string(&other.config).expect("there");
    let config = config.replace("elsewhere/sentinel", sentinel.to_str().expect("text"));
    std::fs::write(&other.config, config).expect("written");

    let Program { files: first_files, .. } = first;
    let first = Program::start(first_files, &[], Stdio::null()).await;
    let other = start_unready(other).await;
    assert!(readiness(&other.files).await.1.contains("did not use this store"), "it is the copy");
    out(&sidekey(&["store", "confirm", "--config", other.config()]).await);
    refreshed(&simulator, 1).await;
    eventually("the first one is refused", async || readiness(&first.files).await.0 == 503).await;
    let mut first = first;
    first.signal(Signal::KILL).await;
    let first = start_unready(first.files).await;
    assert!(readiness(&first.files).await.1.contains("sidekey store confirm"), "however much it has counted");
    refreshed(&simulator, 2).await;
    let counters = counters(&simulator);
    assert_eq!((counters.reuse_detected, counters.refreshes_rejected), (0, 0));
    drop((first, other));
    simulator.stop().await;
}
