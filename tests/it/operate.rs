//! What an operator does to a Sidekey that is in use: nobody notices, and nothing is lost, wherever it is cut off.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use sidekey_simulator::{Counters, Endpoint, Fault, FaultKind, Options, Reuse, Simulator};
use tokio::task::JoinHandle;

use crate::client::{http, send};
use crate::process::{Program, command, out, sidekey};
use crate::world::{Files, Setup, eventually, pause};

const SUBJECTS: [&str; 3] = ["alice", "bob", "carol"];

async fn simulator(lifetime: f64) -> Simulator {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    simulator.set("github", |settings| {
        settings.access_lifetime_s = lifetime;
        // One that ends a grant whose refresh token comes twice.
        settings.reuse = Reuse::RevokeFamily;
        settings.kills_access = false;
    });
    simulator
}

fn counters(simulator: &Simulator) -> Counters {
    simulator.ledger().profile("github").counters.clone()
}

async fn ask(running: &Program, arguments: &[&str]) -> Value {
    let answer = sidekey(&[arguments, &["--json", "--config", running.config()]].concat()).await;
    serde_json::from_str(&out(&answer)).expect("JSON")
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// Calls that go on until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    well: Arc<AtomicU64>,
    callers: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn begin(egress: std::net::SocketAddr, handles: &[String]) -> Self {
        let (stop, well) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let callers = handles.iter().map(|handle| {
            let (stop, well, handle) = (Arc::clone(&stop), Arc::clone(&well), handle.clone());
            tokio::spawn(async move {
                let (client, mut failed) = (http(), Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get(format!("http://{egress}/github/user")).bearer_auth(&handle);
                    let answer = send(answer).await;
                    if answer.status == 200 {
                        well.fetch_add(1, Ordering::Relaxed);
                    } else {
                        failed.push(format!("{}: {}", answer.status, answer.text()));
                    }
                    pause(Duration::from_millis(5)).await;
                }
                failed
            })
        });
        Self { callers: callers.collect(), stop, well }
    }

    async fn is_under_way(&self) {
        let before = self.well.load(Ordering::Relaxed);
        eventually("calls go on", async || self.well.load(Ordering::Relaxed) > before + 20).await;
    }

    /// Stops, and says which calls failed.
    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        for caller in self.callers {
            failed.extend(caller.await.expect("no panic"));
        }
        failed
    }
}

/// Has this provider say at its API whose token it is, as it really does.
pub fn who_is_asked_at_the_api(files: &Files, provider: &str) {
    let entry = files.home.path().join(format!("providers/{provider}.toml"));
    let text = std::fs::read_to_string(&entry).expect("there");
    std::fs::write(&entry, text.replace(&format!("/{provider}/userinfo"), &format!("/{provider}/api/user")))
        .expect("written");
}

async fn connected(simulator: &Simulator, setup: &Setup) -> (Program, Vec<String>) {
    let files = Files::write(&simulator.url(), setup);
    who_is_asked_at_the_api(&files, "github");
    let running = Program::start(files, &[], Stdio::null()).await;
    let mut handles = Vec::new();
    for subject in SUBJECTS {
        running.connect("github", subject).await;
        handles.push(running.handle(subject).await);
    }
    (running, handles)
}

fn key_lines(files: &Files) -> usize {
    let text = std::fs::read_to_string(files.home.path().join("sidekey.key")).expect("there");
    text.lines().filter(|line| !line.trim().is_empty()).count()
}

/// Under load, with tokens that are refreshed all the time; the command and the server are killed at many moments.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_under_load_and_after_kills_and_every_record_opens() {
    let simulator = simulator(4.0).await;
    let (running, handles) = connected(&simulator, &Setup::default()).await;
    let first = ask(&running, &["keys", "status"]).await[0]["id"].as_str().expect("an id").to_owned();
    let load = Load::begin(running.files.egress, &handles);
    load.is_under_way().await;
    // The command is killed, the server is not: no call may fail.
    for delay in [0, 20, 60, 100, 140, 180, 240] {
        let mut rotating = command(&["keys", "rotate", "--config", running.config()]);
        let mut rotating = rotating.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        pause(Duration::from_millis(delay)).await;
        let _ = rotating.kill().await;
        assert!(key_lines(&running.files) <= 2, "an unfinished rotation is brought to its end before another begins");
    }
    let rotated = ask(&running, &["keys", "rotate"]).await;
    load.is_under_way().await;
    assert_eq!(key_lines(&running.files), 1, "{rotated}");
    assert_ne!(rotated["key"], first.as_str());
    let failed = load.end().await;
    assert!(failed.is_empty(), "{failed:?}");

    // The server is killed with it; between refreshes, since what a kill in the midst of one costs is another question.
    let mut running = running;
    simulator.set("github", |settings| settings.access_lifetime_s = 3600.0);
    for subject in SUBJECTS {
        ask(&running, &["refresh", "github", "--subject", subject]).await;
    }
    for delay in [0, 80, 130, 200] {
        let config = running.config().to_owned();
        let mut rotating = command(&["keys", "rotate", "--config", &config]);
        let mut rotating = rotating.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        pause(Duration::from_millis(delay)).await;
        running.signal(Signal::KILL).await;
        let _ = rotating.wait().await;
        running = Program::start(running.files, &[], Stdio::null()).await;
    }
    let rotated = ask(&running, &["keys", "rotate"]).await;
    let keys = ask(&running, &["keys", "status"]).await;
    assert_eq!((keys.as_array().map(Vec::len), key_lines(&running.files)), (Some(1), 1), "{rotated} {keys}");
    // With what is in the file alone, every record opens.
    running.signal(Signal::TERM).await;
    let running = Program::start(running.files, &[], Stdio::null()).await;
    for handle in &handles {
        let answer = send(http().get(format!("http://{}/github/user", running.files.egress)).bearer_auth(handle)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // The refresh tokens, too.
    for subject in SUBJECTS {
        let refreshed = ask(&running, &["refresh", "github", "--subject", subject]).await;
        assert_eq!(refreshed["outcome"], "ok", "{refreshed}");
    }
    let found = ask(&running, &["status"]).await;
    let states: Vec<_> = found["connections"].as_array().expect("a list").iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["active"; 3], "{found}");
    simulator.stop().await;
}

/// Nothing is done that the next run would not find its way from, and the file is left as it is.
#[tokio::test]
async fn keys_in_a_mounted_secret_are_left_to_the_operator() {
    let simulator = simulator(3600.0).await;
    let (running, handles) = connected(&simulator, &Setup::default()).await;
    let (file, mounted) = (running.files.home.path().join("sidekey.key"), running.files.home.path().join("mounted"));
    std::fs::rename(&file, &mounted).expect("moved");
    std::os::unix::fs::symlink(&mounted, &file).expect("linked");
    let answer = sidekey(&["keys", "rotate", "--config", running.config()]).await;
    let said = text(&answer.stderr);
    assert_eq!(answer.status.code(), Some(1), "{said}");
    for words in ["is a link, as mounted Secrets are, so it is changed by hand", "1. make a key: sidekey keys generate"]
    {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(key_lines(&running.files), 1);
    // As it says.
    let old = std::fs::read_to_string(&mounted).expect("there");
    let new = out(&sidekey(&["keys", "generate"]).await);
    std::fs::write(&mounted, format!("{new}{old}")).expect("written");
    let rotated = ask(&running, &["keys", "rotate"]).await;
    assert_eq!(
        (&rotated["resumed"], rotated["removed"].as_array().map(Vec::len)),
        (&true.into(), Some(0)),
        "{rotated}"
    );
    assert_eq!(rotated["remove_by_hand"].as_array().map(Vec::len), Some(1), "{rotated}");
    std::fs::write(&mounted, &new).expect("written");
    let mut running = running;
    running.signal(Signal::TERM).await;
    let running = Program::start(running.files, &[], Stdio::null()).await;
    let url = format!("http://{}/github/user", running.files.egress);
    assert_eq!(send(http().get(url).bearer_auth(&handles[0])).await.status, 200);
    simulator.stop().await;
}

/// A key that something still needs is not forgotten because somebody removed it too early.
#[tokio::test]
async fn a_server_does_not_take_keys_that_leave_something_unreadable() {
    let simulator = simulator(3600.0).await;
    let (running, _) = connected(&simulator, &Setup::default()).await;
    let key = running.files.home.path().join("sidekey.key");
    let old = std::fs::read_to_string(&key).expect("there");
    std::fs::write(&key, out(&sidekey(&["keys", "generate"]).await)).expect("written");
    let socket = running.files.data().join("admin.sock");
    let answer = crate::world::admin(&socket, "POST", "/v1/keys/reload", "").await;
    let problem = answer.json();
    assert_eq!((answer.status, &problem["type"]), (409, &"urn:sidekey:error:key-still-needed".into()), "{problem}");
    std::fs::write(&key, "changeme").expect("written");
    let answer = crate::world::admin(&socket, "POST", "/v1/keys/reload", "").await;
    let problem = answer.json();
    assert_eq!((answer.status, &problem["type"]), (422, &"urn:sidekey:error:keys-unreadable".into()), "{problem}");
    assert!(
        problem["detail"].as_str().is_some_and(|detail| detail.starts_with("store.keys[0]: is not a key")),
        "{problem}"
    );
    std::fs::write(&key, old).expect("written");
    assert_eq!(crate::world::admin(&socket, "POST", "/v1/keys/reload", "").await.status, 200);
    simulator.stop().await;
}

fn backup_of(running: &Program) -> PathBuf {
    running.files.home.path().join("backup.tar")
}

fn wipe(files: &Files) {
    std::fs::remove_dir_all(files.data()).expect("wiped");
}

/// Starts without waiting for readiness, since there is none to be had.
async fn start_unready(files: Files) -> Program {
    let config = files.config.to_str().expect("text").to_owned();
    let child = command(&["serve", "--config", &config]).stderr(Stdio::null()).spawn().expect("it starts");
    let program = Program { child, files };
    let url = format!("http://{}/livez", program.files.metrics);
    eventually("alive", async || http().get(&url).send().await.is_ok()).await;
    program
}

/// With a sentinel and without one, the store that comes back refreshes nothing with the tokens of then.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_backed_up_in_use_wiped_restored_and_refreshes_nothing_until_it_is_confirmed() {
    for sentinel in [None, Some("sentinel = \"elsewhere/sentinel\"\n")] {
        let simulator = simulator(4.0).await;
        let setup = Setup { tables: sentinel.unwrap_or_default().to_owned(), ..Setup::default() };
        let files = Files::write(&simulator.url(), &setup);
        std::fs::create_dir(files.home.path().join("elsewhere")).expect("made");
        let running = Program::start(files, &[], Stdio::null()).await;
        running.connect("github", "alice").await;
        let handle = running.handle("alice").await;
        let load = Load::begin(running.files.egress, std::slice::from_ref(&handle));
        load.is_under_way().await;
        let backup = backup_of(&running).display().to_string();
        let manifest = ask(&running, &["backup", &backup]).await;
        load.is_under_way().await;
        let failed = load.end().await;
        assert!(failed.is_empty(), "{failed:?}");
        let key = std::fs::read_to_string(running.files.home.path().join("sidekey.key")).expect("there");
        let archive = std::fs::read(&backup).expect("there");
        assert!(!archive.windows(20).any(|window| key.as_bytes().starts_with(window)), "no key is in it");
        // Life goes on: the refresh token of the backup is used up.
        let before = counters(&simulator).refreshes_ok;
        eventually("refreshed since", async || counters(&simulator).refreshes_ok >= before + 2).await;
        let mut running = running;
        running.signal(Signal::TERM).await;
        wipe(&running.files);
        let restored = ask(&running, &["restore", &backup]).await;
        assert_eq!((&restored["connections"], &restored["manifest"]), (&1.into(), &manifest), "{restored}");

        let before = counters(&simulator);
        let mut restored = start_unready(running.files).await;
        let ready = sidekey(&["probe", "ready", "--config", restored.config()]).await;
        assert_eq!(ready.status.code(), Some(1));
        let said = text(&ready.stderr);
        assert!(said.starts_with("not ready: sentinel: this store was restored at 2"), "{said}");
        let url = format!("http://{}/github/user", restored.files.egress);
        for _ in 0..8 {
            assert_eq!(send(http().get(&url).bearer_auth(&handle)).await.status, 503, "its token has expired");
            pause(Duration::from_millis(100)).await;
        }
        let forced = sidekey(&["refresh", "github", "--subject", "alice", "--config", restored.config()]).await;
        assert_eq!(forced.status.code(), Some(1), "{}", text(&forced.stdout));
        assert!(text(&forced.stdout).contains("not refreshed (held_back)"), "{}", text(&forced.stdout));
        let after = counters(&simulator);
        assert_eq!((after.refresh_attempts, after.reuse_detected), (before.refresh_attempts, 0), "nothing was sent");
        let status = ask(&restored, &["status"]).await;
        assert!(status["held_back"].as_str().is_some_and(|why| why.contains("store confirm")), "{status}");

        // A restart does not forget it.
        restored.signal(Signal::TERM).await;
        let restored = start_unready(restored.files).await;
        assert_eq!(counters(&simulator).refresh_attempts, before.refresh_attempts);
        let confirmed = ask(&restored, &["store", "confirm"]).await;
        assert!(confirmed["was_held_back"].as_str().is_some_and(|why| why.contains("restored")), "{confirmed}");
        eventually("it goes on", async || counters(&simulator).refresh_attempts > before.refresh_attempts).await;
        restored.ready().await;
        drop(restored);
        simulator.stop().await;
    }
}

/// What is restored must be whole, made with our keys, and never under a server's feet. Whatever is refused changes nothing.
#[tokio::test]
async fn a_backup_that_is_damaged_foreign_or_out_of_place_is_refused() {
    let simulator = simulator(3600.0).await;
    let (mut running, handles) = connected(&simulator, &Setup::default()).await;
    let backup = backup_of(&running);
    ask(&running, &["backup", &backup.display().to_string()]).await;
    let config = running.config().to_owned();
    let restore = async |file: &Path| {
        let answer = sidekey(&["restore", &file.display().to_string(), "--config", &config]).await;
        assert_eq!(answer.status.code(), Some(1), "{}", text(&answer.stdout));
        text(&answer.stderr)
    };
    assert!(restore(&backup).await.contains("a server runs on this store; stop it first"));
    running.signal(Signal::TERM).await;
    let good = std::fs::read(&backup).expect("there");
    let odd = running.files.home.path().join("odd.tar");
    let of = async |content: &[u8]| {
        std::fs::write(&odd, content).expect("written");
        restore(&odd).await
    };
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    assert!(of(b"").await.contains("it is empty"));
    assert!(of(b"not a backup").await.contains("it is damaged, or no backup"));
    assert!(of(&flipped(good.len() / 2)).await.contains("sidekey.db in it is damaged"));
    assert!(of(&good[..good.len() / 2]).await.contains("damaged"));
    let position = |words: &[u8]| good.windows(words.len()).position(|window| window == words).expect("there");
    assert!(of(&flipped(position(b"\"refreshes\": ") + 13)).await.contains("its manifest was changed, or is damaged"));
    let said = of(&flipped(position(b"sidekey-backup-1") + 15)).await;
    assert!(said.contains("it has the format") && said.contains("nothing was changed"), "{said}");
    // With other keys.
    let key = running.files.home.path().join("sidekey.key");
    let ours = std::fs::read(&key).expect("there");
    std::fs::write(&key, out(&sidekey(&["keys", "generate"]).await)).expect("written");
    let said = of(&good).await;
    assert!(said.contains("which is not in store.keys: put that key behind the first one"), "{said}");
    std::fs::write(&key, ours).expect("written");
    // A restore that was cut off keeps everybody from half of a store.
    let note = running.files.data().join("sidekey.restore-under-way");
    std::fs::write(&note, "sidekey.before-x").expect("written");
    let refused = sidekey(&["status", "--config", &config]).await;
    assert!(
        text(&refused.stderr).contains("was cut off; run `sidekey restore FILE` again"),
        "{}",
        text(&refused.stderr)
    );
    std::fs::remove_file(&note).expect("removed");
    // All is as it was.
    let running = Program::start(running.files, &[], Stdio::null()).await;
    let url = format!("http://{}/github/user", running.files.egress);
    assert_eq!(send(http().get(url).bearer_auth(&handles[0])).await.status, 200);
    simulator.stop().await;
}

/// The provider is really asked; the connection has no part in it.
#[tokio::test]
async fn a_failure_is_simulated_with_the_real_provider_and_nothing_changes() {
    let simulator = simulator(3600.0).await;
    let (running, handles) = connected(&simulator, &Setup::default()).await;
    let load = Load::begin(running.files.egress, &handles);
    load.is_under_way().await;
    let before = ask(&running, &["inspect", "github", "--subject", "alice"]).await;
    let counted = counters(&simulator);
    let simulated = ask(&running, &["simulate-failure", "github", "--subject", "alice"]).await;
    let after = counters(&simulator);
    assert_eq!(after.refresh_attempts, counted.refresh_attempts + 1, "the provider was asked");
    assert_eq!((after.reuse_detected, after.refreshes_ok), (0, counted.refreshes_ok));
    assert_eq!((&simulated["outcome"], &simulated["accepted"]), (&"dead".into(), &false.into()), "{simulated}");
    let would_be = &simulated["connection_would_be"];
    assert_eq!((&would_be["state"], &would_be["next_try_at"]), (&"needs_reauth".into(), &Value::Null), "{simulated}");
    let told = &simulated["callers_would_see"]["then"];
    assert_eq!(
        (&told["type"], &told["status"]),
        (&"urn:sidekey:error:needs-reauth".into(), &403.into()),
        "{simulated}"
    );
    let there = ask(&running, &["inspect", "github", "--subject", "alice"]).await;
    assert_eq!(there["connection"], before["connection"], "as it was");
    let metrics = send(http().get(format!("http://{}/metrics", running.files.metrics))).await.text();
    assert!(metrics.contains("sidekey_refreshes_total{outcome=\"dead\",provider=\"github\"} 0"), "no alert is set off");
    // Killed while the provider is slow: there is nothing to put back.
    simulator.add_fault(Fault::new("github", Endpoint::Refresh, FaultKind::DelayMs { ms: 3000 }));
    let mut simulating = command(&["simulate-failure", "github", "--subject", "alice", "--config", running.config()]);
    let mut simulating = simulating.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    eventually("asked again", async || counters(&simulator).refresh_attempts == counted.refresh_attempts + 2).await;
    let _ = simulating.kill().await;
    let there = ask(&running, &["inspect", "github", "--subject", "alice"]).await;
    assert_eq!(there["connection"], before["connection"], "as it was");
    load.is_under_way().await;
    let failed = load.end().await;
    assert!(failed.is_empty(), "{failed:?}");
    simulator.stop().await;
}

/// However many ask, and whoever else refreshes: one request to the provider.
#[tokio::test(flavor = "multi_thread")]
async fn refreshes_that_are_asked_for_are_shared_and_told() {
    let simulator = simulator(3600.0).await;
    let (running, handles) = connected(&simulator, &Setup::default()).await;
    simulator.add_fault(Fault::new("github", Endpoint::Refresh, FaultKind::DelayMs { ms: 2000 }).nth(1));
    let counted = counters(&simulator);
    let config = running.config().to_owned();
    let asked = (0..4).map(|_| {
        let config = config.clone();
        tokio::spawn(async move {
            out(&sidekey(&["refresh", "github", "--subject", "alice", "--verbose", "--config", &config]).await)
        })
    });
    let asked: Vec<_> = asked.collect();
    for one in asked {
        let said = one.await.expect("no panic");
        assert!(said.contains("alice at github, label default: refreshed in"), "{said}");
    }
    let after = counters(&simulator);
    assert_eq!((after.refresh_attempts, after.refreshes_ok), (counted.refresh_attempts + 1, counted.refreshes_ok + 1));
    let url = format!("http://{}/github/user", running.files.egress);
    assert_eq!(send(http().get(url).bearer_auth(&handles[0])).await.status, 200);
    // What happened is kept, and what is done from now on is followed.
    let mut following = command(&["audit", "--follow", "--operation", "refresh", "--json", "--config", &config]);
    let mut following = following.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(following.stdout.take().expect("piped")));
    let first = lines.next_line().await.expect("read").expect("there");
    assert!(first.contains("\"subject\":\"alice\""), "{first}");
    out(&sidekey(&["refresh", "github", "--user", "bob", "--config", &config]).await);
    let next = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await.expect("in time");
    let next = next.expect("read").expect("there");
    assert!(next.contains("\"subject\":\"bob\"") && next.contains("\"outcome\":\"ok\""), "{next}");
    let _ = following.kill().await;
    simulator.stop().await;
}

/// Asking costs no rotation; what does not work is named, and scripts see it.
#[tokio::test]
async fn connections_are_validated_without_using_up_refresh_tokens() {
    let simulator = simulator(3600.0).await;
    let (running, _) = connected(&simulator, &Setup::default()).await;
    running.connect("quickbooks", "alice").await;
    let counted = counters(&simulator).refresh_attempts;
    let answer = sidekey(&["validate-all", "--json", "--config", running.config()]).await;
    let found: Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    assert_eq!((&found["valid"], &found["invalid"], &found["unknown"]), (&4.into(), &0.into(), &0.into()), "{found}");
    let by: Vec<_> = found["connections"].as_array().expect("a list").iter().map(|one| &one["by"]).collect();
    assert!(by.contains(&&"asked".into()), "{found}");
    assert_eq!(counters(&simulator).refresh_attempts, counted, "nobody was refreshed to find out");
    // The user takes the grant back at the provider.
    simulator.revoke("github");
    let answer = sidekey(&["validate-all", "--provider", "github", "--json", "--config", running.config()]).await;
    assert_eq!(answer.status.code(), Some(4), "{}", text(&answer.stdout));
    let found: Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    assert_eq!((&found["valid"], &found["invalid"]), (&0.into(), &3.into()), "{found}");
    let shown = sidekey(&["validate-all", "--config", running.config()]).await;
    let said = text(&shown.stdout);
    assert_eq!(shown.status.code(), Some(4));
    assert!(said.contains("1 valid, 3 invalid, 0 unknown") && said.contains("FAIL"), "{said}");
    simulator.stop().await;
}

/// Exit code 3, and what there is instead.
#[tokio::test]
async fn what_is_named_and_not_there_is_told_apart() {
    let simulator = simulator(3600.0).await;
    let (running, _) = connected(&simulator, &Setup::default()).await;
    for (command, expected) in [
        (
            &["refresh", "github", "--subject", "alice", "--token", "bot"][..],
            "error: The grant of alice/github/default has no access token bot (leave out --token: the grant has one access token)\n",
        ),
        (
            &["validate-all", "--provider", "nope"],
            "error: Nobody has a connection to nope (`sidekey status` shows those there are)\n",
        ),
        (
            &["validate-all", "--provider", "github", "--subject", "dave"],
            "error: dave has no connection to github (`sidekey status` shows those there are)\n",
        ),
        (
            &["validate-all", "--subject", "dave"],
            "error: dave has no connection (`sidekey status` shows those there are)\n",
        ),
    ] {
        let answer = sidekey(&[command, &["--config", running.config()]].concat()).await;
        assert_eq!((answer.status.code(), &*text(&answer.stderr)), (Some(3), expected), "{command:?}");
    }
    simulator.stop().await;
}

/// A container has no place for a file: the archive goes through pipes, and whoever restores it looks at it all the same.
#[tokio::test]
async fn a_backup_goes_through_pipes_as_well() {
    let simulator = simulator(3600.0).await;
    let (mut running, _) = connected(&simulator, &Setup::default()).await;
    let config = running.config().to_owned();
    let odd = sidekey(&["backup", "-", "--json", "--config", &config]).await;
    assert_eq!(odd.status.code(), Some(2), "{}", text(&odd.stderr));
    assert!(odd.stdout.is_empty());
    let archive = sidekey(&["backup", "-", "--config", &config]).await;
    assert!(archive.status.success() && text(&archive.stderr).contains("keep the keys elsewhere"));
    running.signal(Signal::TERM).await;
    wipe(&running.files);
    let restore = async |input: &[u8]| {
        let mut command = command(&["restore", "-", "--json", "--config", &config]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_owned();
        // What is refused is not read to its end.
        let written = tokio::spawn(async move { drop(tokio::io::AsyncWriteExt::write_all(&mut stdin, &input).await) });
        let output = child.wait_with_output().await.expect("ended");
        written.await.expect("no panic");
        output
    };
    let cut = restore(&archive.stdout[..archive.stdout.len() / 2]).await;
    assert_eq!(cut.status.code(), Some(1));
    assert!(text(&cut.stderr).contains("nothing was changed"), "{}", text(&cut.stderr));
    let restored = restore(&archive.stdout).await;
    let told: Value = serde_json::from_slice(&restored.stdout).expect("JSON");
    assert_eq!(told["connections"], 3, "{told} {}", text(&restored.stderr));
    simulator.stop().await;
}
