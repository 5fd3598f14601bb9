//! Settings that change while the server runs: noticed, checked, and taken over as a whole, or refused as a whole.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sidekey::portal::admin::{ConfigurationStatus, Outcome};

use crate::client::{http, send};
use crate::front::{Front, FrontSetup, assert_problem};
use crate::process::{Program, sidekey};
use crate::world::{Files, Setup, eventually, pause};

/// An edit is seen within this time, besides what reading it takes on a machine that is busy.
const VISIBLE: Duration = Duration::from_secs(1);
/// And within this time whatever else goes on.
const LATEST: Duration = Duration::from_secs(10);

/// Puts a text in the place of a file, at once.
fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(&new, path).expect("renamed");
}

/// Waits until something is seen: how long it took.
async fn soon(what: &str, mut asked: impl AsyncFnMut() -> bool) -> Duration {
    let begun = now();
    loop {
        if asked().await {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < LATEST, "it was not seen: {what}");
        pause(Duration::from_millis(10)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn status(front: &Front) -> Arc<ConfigurationStatus> {
    front.world.sidekey.reloads().status()
}

/// What clients saw.
#[derive(Default)]
struct Traffic {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: std::sync::Mutex<Vec<String>>,
}

impl Traffic {
    async fn repeat(self: Arc<Self>, what: &str, request: impl Fn(&reqwest::Client) -> reqwest::RequestBuilder) {
        let client = http();
        while !self.stop.load(Ordering::Relaxed) {
            pause(Duration::from_millis(10)).await;
            match request(&client).send().await {
                Ok(answer) if answer.status() == 200 => {
                    let text = answer.text().await;
                    match text {
                        Ok(_) => drop(self.answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => self.fail(format!("{what}: {error:?}")),
                    }
                }
                Ok(answer) => {
                    self.fail(format!("{what}: {} {}", answer.status(), answer.text().await.unwrap_or_default()))
                }
                Err(error) => self.fail(format!("{what}: {error:?}")),
            }
        }
    }

    /// Reads a stream of events for as long as there is traffic: how many came.
    async fn listen(self: Arc<Self>, url: String, access: String) -> usize {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"stream"}"#;
        let request = http().post(url).bearer_auth(access).header("content-type", "application/json").body(body);
        let mut answer = request.timeout(Duration::from_secs(600)).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let mut read = String::new();
        while !self.stop.load(Ordering::Relaxed) {
            match answer.chunk().await {
                Ok(Some(chunk)) => read.push_str(&String::from_utf8_lossy(&chunk)),
                ended => {
                    self.fail(format!("stream: {ended:?}"));
                    break;
                }
            }
        }
        let ids: Vec<usize> = read.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
        assert_eq!(ids, (0..ids.len()).collect::<Vec<_>>(), "none is missing");
        ids.len()
    }

    fn fail(&self, what: String) {
        self.failed.lock().expect("not poisoned").push(what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_edits_half_of_them_broken_disturb_nobody_and_each_good_one_is_seen() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    let handle = front.world.connected("quickbooks", "carol").await;
    let traffic = Arc::new(Traffic::default());
    let mut clients = Vec::new();
    for _ in 0..4 {
        let url = front.world.egress("/quickbooks/v3/company/0/companyinfo/0");
        let (caller, handle) = (Arc::clone(&traffic), handle.clone());
        clients.push(tokio::spawn(async move {
            caller.repeat("egress", |client| client.get(&url).bearer_auth(&handle)).await;
        }));
        let (caller, url, access) = (Arc::clone(&traffic), front.mcp(), tokens.access.clone());
        clients.push(tokio::spawn(async move {
            let body = r#"{"jsonrpc":"2.0","id":1,"method":"api","params":{"path":"/notion/v1/users/me"}}"#;
            let request = |client: &reqwest::Client| {
                client.post(&url).bearer_auth(&access).header("content-type", "application/json").body(body)
            };
            caller.repeat("mcp", request).await;
        }));
    }
    let stream = tokio::spawn(Arc::clone(&traffic).listen(front.mcp(), tokens.access.clone()));
    let file = front.world.files.config.clone();
    let original = std::fs::read_to_string(&file).expect("there")
        + "[limits]\nrequests_per_grant = \"1000000/1s\"\nrequests_per_subject = \"1000000/1s\"\n";
    put(&file, &original);
    let named = |name: &str| format!("{original}[portal]\nname = \"{name}\"\n");
    let account = front.world.public("/account");
    let shows = async |name: &str| send(http().get(&account)).await.text().contains(name);
    let (mut seen_after, mut reading) = (Vec::new(), Vec::new());
    let mut in_force = String::from("Sidekey");
    for edit in 0..25 {
        let broken = match edit % 5 {
            0 => "[portal\n".to_owned(),
            1 => named("x").replace("[portal]", "[portla]"),
            2 => named("x").replace("file:notion.secret", "file:none.secret"),
            3 => named("x").replace("providers = [\"notion\", \"github\"]", "providers = [\"notino\"]"),
            _ => String::new(),
        };
        put(&file, &broken);
        soon("a broken edit is refused", async || !status(&front).is_current).await;
        assert!(shows(&in_force).await, "{in_force} is still in force");
        in_force = format!("Place number {edit}.");
        put(&file, &named(&in_force));
        seen_after.push(soon(&in_force, async || shows(&in_force).await).await);
        // It is said once it is done.
        soon("it is said", async || status(&front).is_current && status(&front).problems.is_empty()).await;
        let begun = now();
        assert_eq!(front.world.sidekey.reloads().reload().await.outcome, Outcome::Unchanged);
        assert!(shows(&in_force).await);
        reading.push(begun.elapsed());
    }
    traffic.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no panic");
    }
    let events = stream.await.expect("no panic");
    assert!(events > 20, "{events}");
    let failed = traffic.failed.lock().expect("not poisoned").clone();
    let answered = traffic.answered.load(Ordering::Relaxed);
    assert!(failed.is_empty(), "{} of {answered} failed: {:#?}", failed.len(), &failed[..failed.len().min(5)]);
    assert!(answered > 500, "{answered}");
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (seen_after, reading) = (median(&mut seen_after), median(&mut reading));
    assert!(seen_after < VISIBLE + reading, "{seen_after:?}, and to read it takes {reading:?}");
    let again = front.world.sidekey.reloads().reload().await;
    assert_eq!((again.outcome, again.changes.len()), (Outcome::Unchanged, 0));
    front.stop().await;
}

/// Reads the settings again now: what it came to, and the problems in words, without the directory.
async fn reload(front: &Front) -> (Outcome, Vec<String>) {
    let answer = front.world.sidekey.reloads().reload().await;
    let home = format!("{}/", front.world.files.home.path().display());
    (answer.outcome, answer.problems.iter().map(|problem| problem.to_string().replace(&home, "")).collect())
}

#[tokio::test]
async fn what_is_taken_out_is_refused_and_works_again_once_it_is_back() {
    let client =
        "[clients.reporting]\nname = \"Reporting\"\nredirect_uris = [\"https://reports.example/cb\"]\n".to_owned();
    let front = Front::with(
        FrontSetup { tables: client.clone(), ..FrontSetup::default() },
        Arc::new(sidekey::base::clock::SystemClock),
    )
    .await;
    let tokens = front.authorized("alice").await;
    let handle = front.world.connected("quickbooks", "carol").await;
    front.world.connected("quickbooks", "dora").await;
    let file = front.world.files.config.clone();
    let original = std::fs::read_to_string(&file).expect("there");
    let path = "/quickbooks/v3/company/0/companyinfo/0";
    let without = |text: &str, table: &str| {
        let (before, rest) = text.split_once(table).expect("the table");
        let after = rest.find("\n[").map_or("", |at| &rest[at..]);
        format!("{before}{after}")
    };
    let revoke = async || {
        let answer = front.post_form("/revoke", &[("client_id", "reporting"), ("token", "at")]).await;
        answer.status
    };
    assert_eq!((front.world.call(&handle, path).await.status, revoke().await), (200, 200));
    // What a server holds for its user: without the server, nothing limits what is done with it.
    assert_eq!(front.whoami(&tokens.access).await.json()["status"], 200);
    let of_server = front.server.requests().last().expect("a request").headers["authorization"].clone();
    let of_server = of_server.to_str().expect("text").trim_start_matches("Bearer ").to_owned();
    let me = "/notion/v1/users/me";
    assert_eq!(front.world.call(&of_server, me).await.status, 200);

    put(&file, &without(&original, "[providers.quickbooks]"));
    assert_eq!(reload(&front).await, (Outcome::Applied, Vec::new()));
    assert_problem(&front.world.call(&handle, path).await, 404, "unknown-api");
    let ended = front.world.admin("POST", "/v1/disconnect", r#"{"subject":"dora","provider":"quickbooks"}"#).await;
    assert_eq!(ended.json()["revocation"], "queued", "the provider is told once it is known again");
    assert_eq!(front.world.connections("carol").await[0]["state"], "active", "it is kept");

    put(&file, &without(&original, "[servers.notes]"));
    assert_eq!(reload(&front).await, (Outcome::Applied, Vec::new()));
    assert_eq!(front.call(&tokens.access, "ping", serde_json::Value::Null).await.status, 404);
    assert_eq!(front.grants().await[0]["state"], "live", "it is kept");
    assert_problem(&front.world.call(&of_server, me).await, 401, "grant-over");

    put(
        &file,
        &original
            .replace("providers = [\"notion\", \"github\"]", "providers = [\"github\"]")
            .replace("required = [\"notion\"]", ""),
    );
    assert_eq!(reload(&front).await, (Outcome::Applied, Vec::new()));
    assert_problem(&front.world.call(&of_server, me).await, 403, "provider-not-picked");

    put(&file, &without(&original, "[clients.reporting]"));
    assert_eq!(reload(&front).await, (Outcome::Applied, Vec::new()));
    assert_eq!(revoke().await, 401);

    put(&file, &original);
    assert_eq!(reload(&front).await, (Outcome::Applied, Vec::new()));
    assert_eq!((front.world.call(&handle, path).await.status, revoke().await), (200, 200));
    assert_eq!(front.whoami(&tokens.access).await.json()["status"], 200);
    front.stop().await;
}

/// As Kubernetes has it: what a volume holds is swapped with one link.
#[tokio::test]
async fn a_secret_behind_a_link_that_is_swapped_is_used_for_the_next_refresh() {
    let world = crate::world::World::start().await;
    let home = world.files.home.path().to_owned();
    let volume = home.join("volume");
    let version = |name: &str, secret: &str| {
        std::fs::create_dir_all(volume.join(name)).expect("made");
        sidekey::base::files::create_private(&volume.join(name).join("secret"), secret.as_bytes()).expect("written");
        std::os::unix::fs::symlink(name, volume.join("..new")).expect("linked");
        std::fs::rename(volume.join("..new"), volume.join("..data")).expect("swapped");
    };
    let secret = std::fs::read_to_string(home.join("quickbooks.secret")).expect("there");
    version("..v1", &secret);
    std::os::unix::fs::symlink("..data/secret", volume.join("secret")).expect("linked");
    let text = std::fs::read_to_string(&world.files.config).expect("there");
    put(&world.files.config, &text.replace("file:quickbooks.secret", "file:volume/secret"));
    assert_eq!(world.sidekey.reloads().reload().await.outcome, Outcome::Applied);
    world.simulator.set("quickbooks", |settings| settings.access_lifetime_s = 1.0);
    let handle = world.connected("quickbooks", "alice").await;
    let path = "/quickbooks/v3/company/0/companyinfo/0";
    world.simulator.set("quickbooks", |settings| settings.client_secret = "rotated".to_owned());
    eventually("the former secret is refused", async || world.call(&handle, path).await.status == 503).await;
    version("..v2", "rotated");
    eventually("the new one is used", async || world.call(&handle, path).await.status == 200).await;
    let ledger = world.simulator.ledger();
    assert_eq!(ledger.profile("quickbooks").counters.code_exchanges, 1, "nobody connected again");
    world.stop().await;
}

#[tokio::test]
async fn each_bad_edit_is_refused_with_its_reason_and_changes_nothing() {
    let front = Front::start().await;
    let handle = front.world.connected("quickbooks", "carol").await;
    let file = front.world.files.config.clone();
    let original = std::fs::read_to_string(&file).expect("there");
    let home = front.world.files.home.path();
    let key = sidekey::store::keyring::generate_key(&sidekey::base::random::SystemRandom);
    sidekey::base::files::create_private(&home.join("other.key"), key.expose().as_bytes()).expect("written");
    sidekey::base::files::create_private(&home.join("no.key"), b"no key").expect("written");
    let certificate = "\n[public.tls]\ncertificate = \"no.key\"\nkey = \"file:no.key\"\n";
    let edits = [
        ("[store\n".to_owned(), "sidekey.toml:1:7: "),
        (format!("{original}[portal]\nnmae = \"x\"\n"), "portal.nmae: is not a known key (did you mean `name`?)"),
        (original.replace("file:github.secret", "file:none"), "providers.github.client_secret: cannot read none: "),
        (
            original.replace("\"file:sidekey.key\"", "\"file:other.key\""),
            "sidekey.toml: store.keys: stored values are sealed with keys that are not in store.keys: ",
        ),
        (format!("{original}{certificate}"), "sidekey.toml: public.tls: "),
        (
            original.replace("identity = \"notion\"", "identity = \"slack\""),
            "issuer.identity: \"slack\" is none of the [providers]",
        ),
    ];
    let in_force = status(&front).in_force_since.clone();
    for (text, expected) in edits {
        assert_ne!(text, original, "{expected}");
        put(&file, &text);
        let (outcome, problems) = reload(&front).await;
        assert_eq!(outcome, Outcome::Refused, "{expected}");
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:#?}");
        let now = status(&front);
        assert!(!now.is_current && now.refused_at.is_some() && now.problems.len() == problems.len(), "{now:?}");
        assert_eq!(now.in_force_since, in_force);
        assert_eq!(front.world.call(&handle, "/quickbooks/v3/company/0/companyinfo/0").await.status, 200, "{expected}");
        // What is sealed meanwhile is sealed with what is in force.
        front.world.connect("github", "dave").await;
    }
    put(&file, &original);
    assert_eq!(reload(&front).await, (Outcome::Unchanged, Vec::new()));
    assert!(status(&front).is_current && status(&front).refused_at.is_none());
    // A key may come in front and go again, as long as nothing needs it.
    put(&file, &original.replace("\"file:sidekey.key\"", "\"file:other.key\", \"file:sidekey.key\""));
    assert_eq!(reload(&front).await, (Outcome::Applied, Vec::new()));
    let resealed = front.world.admin("POST", "/v1/keys/reseal", "{}").await;
    assert_eq!(resealed.status, 200, "{}", resealed.text());
    put(&file, &original.replace("\"file:sidekey.key\"", "\"file:other.key\""));
    assert_eq!(reload(&front).await, (Outcome::Applied, Vec::new()));
    assert_eq!(front.world.call(&handle, "/quickbooks/v3/company/0/companyinfo/0").await.status, 200);
    front.stop().await;
}

/// Who opens a pipe waits for whoever writes into it, and a device has no end: neither must end all reading for good.
#[tokio::test]
async fn what_is_no_regular_file_is_refused_and_everything_goes_on() {
    let files = Files::write("http://127.0.0.1:9", &Setup::default());
    let mut running = Program::start(files, &[], Stdio::null()).await;
    let (config, home) = (running.config().to_owned(), running.files.home.path().to_owned());
    let metrics = format!("http://{}/metrics", running.files.metrics);
    let is_current = async |wanted: &str| {
        let metrics = send(http().get(&metrics)).await.text();
        metrics.lines().any(|line| line.strip_prefix("sidekey_config_current ") == Some(wanted))
    };
    let pipe = |at: &Path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, at, rustix::fs::FileType::Fifo, mode, 0).expect("made");
    };
    let (provider, secret, aside) =
        (home.join("providers/zzz.toml"), home.join("notion.secret"), home.join("notion.aside"));
    for kind in ["a named pipe", "a device"] {
        let expected = format!("it is {kind}, and only regular files are read; put one in its place, or remove it");
        for place in [&provider, &secret] {
            if *place == secret {
                std::fs::rename(&secret, &aside).expect("moved");
            }
            match kind {
                "a device" => std::os::unix::fs::symlink("/dev/zero", place).expect("linked"),
                _ => pipe(place),
            }
            soon("it is refused", async || is_current("0").await).await;
            let refused = sidekey(&["reload", "--config", &config]).await;
            assert_eq!(refused.status.code(), Some(2));
            let said = String::from_utf8_lossy(&refused.stderr);
            assert!(said.contains(&expected), "{said}");
            std::fs::remove_file(place).expect("removed");
            if *place == secret {
                std::fs::rename(&aside, &secret).expect("moved");
            }
            soon("it is in force again", async || is_current("1").await).await;
        }
    }
    pipe(&provider);
    soon("it is refused", async || is_current("0").await).await;
    let begun = now();
    let ended = running.signal(rustix::process::Signal::TERM).await;
    assert!(ended.success() && begun.elapsed() < LATEST, "{ended} after {:?}", begun.elapsed());
}
