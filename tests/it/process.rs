//! The real program: start, stop, crash, and how other processes talk to it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sidekey::base::file_mark::FileMark;
use sidekey_simulator::{Options, Simulator, TlsIdentity};
use tokio::process::{Child, Command};

use crate::client::{http, send};
use crate::upstream_support::Identity;
use crate::world::{Files, Setup, eventually, pause};

/// A started program; killed when dropped.
pub struct Program {
    pub child: Child,
    pub files: Files,
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidekey"));
    command.args(arguments).kill_on_drop(true).stdin(Stdio::null()).env_remove("SIDEKEY_CONFIG");
    command
}

/// Runs a command to its end.
pub async fn sidekey(arguments: &[&str]) -> Output {
    command(arguments).output().await.expect("it runs")
}

pub fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Program {
    /// Starts `sidekey serve` and waits until it is ready.
    pub async fn start(files: Files, environment: &[(&str, &str)], log: Stdio) -> Self {
        let config = files.config.to_str().expect("text").to_owned();
        let mut serve = command(&["serve", "--config", &config]);
        let child = serve.envs(environment.iter().copied()).stderr(log).spawn().expect("it starts");
        let program = Self { child, files };
        program.ready().await;
        program
    }

    pub async fn ready(&self) {
        let url = format!("http://{}/readyz", self.files.metrics);
        eventually("ready", async || http().get(&url).send().await.is_ok_and(|answer| answer.status() == 200)).await;
    }

    pub fn config(&self) -> &str {
        self.files.config.to_str().expect("text")
    }

    pub async fn signal(&mut self, signal: rustix::process::Signal) -> std::process::ExitStatus {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("it runs"), signal).expect("sent");
        tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await.expect("in time").expect("it ends")
    }

    /// Connects a subject with the command line and a browser.
    pub async fn connect(&self, provider: &str, subject: &str) {
        let answer = sidekey(&["connect", provider, "--subject", subject, "--json", "--config", self.config()]).await;
        let link: serde_json::Value = serde_json::from_str(&out(&answer)).expect("JSON");
        let client = http();
        let begun = send(client.post(link["url"].as_str().expect("a URL"))).await;
        let cookie = begun.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
        let agreed = send(client.get(begun.header("location"))).await;
        let done = send(client.get(agreed.header("location")).header("cookie", cookie)).await;
        assert_eq!(done.status, 303, "{}", done.text());
    }

    pub async fn handle(&self, subject: &str) -> String {
        out(&sidekey(&["handle", "issue", "--subject", subject, "--config", self.config()]).await).trim().to_owned()
    }

    async fn call(&self, handle: &str) -> u16 {
        let url = format!("http://{}/quickbooks/v3/company/0/companyinfo/0", self.files.egress);
        match http().get(url).bearer_auth(handle).send().await {
            Ok(answer) => answer.status().as_u16(),
            Err(_) => 0,
        }
    }
}

async fn simulator(lifetime: f64) -> Simulator {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    simulator.set("quickbooks", |settings| settings.access_lifetime_s = lifetime);
    simulator
}

async fn program(simulator: &Simulator) -> Program {
    Program::start(Files::write(&simulator.url(), &Setup::default()), &[], Stdio::null()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_it_comes_back_with_its_connections() {
    let simulator = simulator(2.0).await;
    let mut running = program(&simulator).await;
    running.connect("quickbooks", "alice").await;
    let handle = running.handle("alice").await;
    for round in 0..5 {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let (stop, answered, handle) = (Arc::clone(&stop), Arc::clone(&answered), handle.clone());
                let url = format!("http://{}/quickbooks/v3/company/0/companyinfo/0", running.files.egress);
                tokio::spawn(async move {
                    let client = http();
                    while !stop.load(Ordering::Relaxed) {
                        if client.get(&url).bearer_auth(&handle).send().await.is_ok_and(|answer| answer.status() == 200)
                        {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        eventually("there is load", async || answered.load(Ordering::Relaxed) > 20).await;
        pause(Duration::from_millis(250 * round)).await;
        running.child.kill().await.expect("killed");
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await.expect("no panic");
        }
        running = Program::start(running.files, &[], Stdio::null()).await;
        eventually("the connection works", async || running.call(&handle).await == 200).await;
    }
    let ledger = simulator.ledger();
    let quickbooks = ledger.profile("quickbooks");
    assert_eq!((quickbooks.counters.code_exchanges, quickbooks.grants.len()), (1, 1), "nothing was reconnected");
    assert_eq!(quickbooks.counters.reuse_detected, 0);
    let status = out(&sidekey(&["status", "--config", running.config()]).await);
    assert!(status.contains("\nalice    quickbooks  default  active"), "{status}");
    running.signal(rustix::process::Signal::TERM).await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_is_under_way_and_takes_no_longer() {
    let simulator = simulator(3600.0).await;
    let mut running = program(&simulator).await;
    running.connect("quickbooks", "alice").await;
    let handle = running.handle("alice").await;
    let url = format!("http://{}/quickbooks/v3/company/0/slow?ms=1500", running.files.egress);
    let slow = tokio::spawn(async move { send(http().get(url).bearer_auth(handle)).await.status });
    eventually("the slow call has arrived", async || simulator.ledger().profile("quickbooks").counters.api_calls == 1)
        .await;
    let stopwatch = sidekey::telemetry::stopwatch::Stopwatch::start();
    let status = running.signal(rustix::process::Signal::TERM).await;
    assert!(status.success(), "{status}");
    assert_eq!(slow.await.expect("no panic"), 200);
    assert!(stopwatch.elapsed() < Duration::from_secs(8), "{:?}", stopwatch.elapsed());
    assert!(!running.files.data().join("admin.sock").exists());
    simulator.stop().await;
}

#[tokio::test]
async fn sighup_and_the_command_have_the_configuration_read_where_nobody_watches_it() {
    let simulator = simulator(3600.0).await;
    let setup = Setup { tables: "[reload]\nwatch = false\n".to_owned(), ..Setup::default() };
    let mut running = Program::start(Files::write(&simulator.url(), &setup), &[], Stdio::null()).await;
    let config = running.config().to_owned();
    let command = async |words: &[&str]| sidekey(&[words, &["--config", &config]].concat()).await;
    let original = std::fs::read_to_string(&config).expect("there");
    let account = format!("http://{}/account", running.files.public);
    let shows = async |name: &str| send(http().get(&account)).await.text().contains(name);
    assert!(out(&command(&["config", "diff"]).await).starts_with("no difference"));
    std::fs::write(&config, format!("threads = 7\n{original}[portal]\nname = \"Elsewhere Ltd\"\n")).expect("written");
    let diff = out(&command(&["config", "diff"]).await);
    assert_eq!(diff, "+ portal.name = \"Elsewhere Ltd\"\n+ threads = 7  needs a restart\n");
    assert!(!shows("Elsewhere Ltd").await, "nobody asked for it");
    let pid = running
        .child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw)
        .expect("it runs");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("sent");
    eventually("it is in force", async || shows("Elsewhere Ltd").await).await;
    assert!(running.child.try_wait().expect("asked").is_none(), "it still runs");
    let status = out(&command(&["status"]).await);
    assert!(status.contains("\n             needs a restart: threads\n"), "{status}");
    assert_eq!(out(&command(&["reload"]).await), "nothing has changed since the last time\nneeds a restart: threads\n");

    // What is wrong is said, and what was in force still is.
    std::fs::write(&config, format!("{original}[portal]\nnmae = \"Nowhere\"\n")).expect("written");
    let place =
        format!("{config}:{}:1: portal.nmae: is not a known key (did you mean `name`?)", original.lines().count() + 2);
    for words in [["reload"].as_slice(), &["config", "diff"], &["check"]] {
        let refused = match words {
            ["check"] => sidekey(&["check", &config]).await,
            words => command(words).await,
        };
        assert_eq!(refused.status.code(), Some(2), "{words:?}");
        assert_eq!(errors(&refused), format!("error: {place}\n1 problem found\n"), "{words:?}");
    }
    assert!(shows("Elsewhere Ltd").await);
    // Whatever is wrong with the file, the server that runs is asked.
    let syntax_error = format!("{original}[portal");
    for wrong in [std::fs::read_to_string(&config).expect("there"), syntax_error] {
        std::fs::write(&config, &wrong).expect("written");
        let status = out(&command(&["status"]).await);
        assert!(status.contains("config       refused, ") && status.contains(&config), "{status}");
        for probe in ["live", "ready"] {
            assert_eq!(command(&["probe", probe]).await.status.code(), Some(0), "{probe}");
        }
    }
    let metrics = format!("http://{}/metrics", running.files.metrics);
    let metrics = send(http().get(&metrics)).await.text();
    for line in ["sidekey_config_current 0", "sidekey_config_reloads_total{outcome=\"refused\"} 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    std::fs::write(&config, &original).expect("written");
    assert_eq!(out(&command(&["reload"]).await), "- portal.name = \"Elsewhere Ltd\"\n");
    let json: serde_json::Value = serde_json::from_str(&out(&command(&["status", "--json"]).await)).expect("JSON");
    assert_eq!((&json["configuration"]["is_current"], json["configuration"].get("problems")), (&true.into(), None));
    let trail = out(&command(&["audit", "--json"]).await);
    let reloads: Vec<serde_json::Value> = trail
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter(|record| record["operation"] == "reload")
        .collect();
    let outcomes: Vec<_> = reloads.iter().map(|record| record["outcome"].as_str().expect("text")).collect();
    assert_eq!(outcomes, ["applied", "refused", "applied"]);
    running.signal(rustix::process::Signal::TERM).await;
    let nobody = command(&["reload"]).await;
    assert_eq!(nobody.status.code(), Some(1), "{}", errors(&nobody));
    simulator.stop().await;
}

#[tokio::test]
async fn keys_are_explained_and_every_kind_of_file_is_checked() {
    let files = Files::write("http://127.0.0.1:9", &Setup::default());
    let config = files.config.to_str().expect("text");
    let explained = out(&sidekey(&["config", "explain", "store.keys", "--config", config]).await);
    let line = std::fs::read_to_string(config)
        .expect("there")
        .lines()
        .position(|line| line.starts_with("keys"))
        .expect("there");
    assert_eq!(
        explained,
        format!(
            "store.keys\n  The keys that seal what is stored: the first one seals, all of them open. A file may hold several, one a line. Required.\n  expects: a list\n  \
             value:   [\"file:sidekey.key\"] ({config}:{})\n  a change takes effect with a reload\n",
            line + 1
        )
    );
    let json = out(&sidekey(&["config", "explain", "threads", "--json", "--config", config]).await);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["key"], &json["needs_restart"]), (&"threads".into(), &"they are started once".into()));
    let unknown = sidekey(&["config", "explain", "store.kesy", "--config", config]).await;
    assert_eq!(unknown.status.code(), Some(2));
    assert_eq!(errors(&unknown), "error: \"kesy\" is not a key of [store] (did you mean `store.keys`?)\n");

    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let entry = write("acme.toml", "extends = \"github\"\n");
    assert!(out(&sidekey(&["check", &entry]).await).contains("acme.toml is valid (a provider file)"));
    let recipe = write("tool.toml", "command = 7\n");
    let refused = sidekey(&["check", &recipe]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        errors(&refused).contains("tool.toml:1:11: command: 7 is not allowed here; expected "),
        "{}",
        errors(&refused)
    );
    let odd = write("odd.toml", "extends = \"github\"\n[token]\nulr = \"https://a.example\"\n");
    let all = sidekey(&["check", directory.path().to_str().expect("text")]).await;
    assert_eq!(all.status.code(), Some(2));
    assert!(
        errors(&all).contains("tool.toml:1:11:") && errors(&all).contains("odd.toml:3:1: token.ulr:"),
        "{}",
        errors(&all)
    );
    let linted = sidekey(&["providers", "lint", &odd]).await;
    assert!(String::from_utf8_lossy(&linted.stdout).contains("odd.toml:3:1: token.ulr: is not a known key"));
}

/// A probe that fails because of an edit would have a server ended that is well, and that could not start again.
#[tokio::test]
async fn an_edit_that_went_wrong_fails_no_probe() {
    let simulator = simulator(3600.0).await;
    let mut running = program(&simulator).await;
    let config = running.config().to_owned();
    let original = std::fs::read_to_string(&config).expect("there");
    let probe = async |what: &str| command(&["probe", what, "--config", &config]).output().await.expect("it runs");
    let metrics = format!("listen = \"{}\"", running.files.metrics);
    assert!(original.contains(&metrics), "{original}");
    for wrong in [
        format!("garbage = = [\n{original}"),
        format!("{original}\n[["),
        original.replace(&metrics, "listen = \"127.0.0.1:9\""),
    ] {
        std::fs::write(&config, &wrong).expect("written");
        for what in ["live", "ready"] {
            let answer = probe(what).await;
            assert_eq!(answer.status.code(), Some(0), "{what}: {}\n{wrong}", errors(&answer));
        }
    }
    // Without anything to go by it is asked where servers usually are, and says so.
    std::fs::remove_file(&config).expect("removed");
    let answer = probe("live").await;
    assert!([Some(0), Some(1)].contains(&answer.status.code()), "{}", errors(&answer));
    assert!(
        errors(&answer).contains("cannot read the configuration")
            && errors(&answer).contains("; the usual is taken for it\n")
    );
    std::fs::write(&config, &original).expect("written");
    running.signal(rustix::process::Signal::TERM).await;
    assert_eq!(probe("live").await.status.code(), Some(1));
    simulator.stop().await;
}

/// What takes a restart to come into force has commands look elsewhere before: they must not act on another store meanwhile.
#[tokio::test]
async fn commands_do_not_act_beside_the_server_that_goes_by_the_file() {
    let simulator = simulator(3600.0).await;
    let mut running = program(&simulator).await;
    running.connect("quickbooks", "alice").await;
    let (config, home) = (running.config().to_owned(), running.files.home.path().to_owned());
    let original = std::fs::read_to_string(&config).expect("there");
    let elsewhere = format!("{original}\n[admin]\nsocket = \"other.sock\"\n");
    let moved = original.replace("[store]\n", "[store]\ndirectory = \"data2\"\n");
    assert_ne!(moved, original);
    for (edited, socket) in [(moved, "data2/admin.sock"), (elsewhere, "other.sock")] {
        // As editors do it: another file takes the place of this one.
        let next = home.join("next.toml");
        std::fs::write(&next, &edited).expect("written");
        std::fs::rename(&next, &config).expect("replaced");
        let expected = format!(
            "error: a server runs with {config} and does not listen on {}: it is stopping, or store.directory or admin.socket was \
             changed since it started, or the socket was removed. Wait, undo that, or restart the server\n",
            home.join(socket).display()
        );
        eventually("the server has read it", async || FileMark::is_set(config.as_ref())).await;
        for words in [
            &["status"][..],
            &["handle", "issue", "--subject", "bob"],
            &["disconnect", "quickbooks", "--subject", "alice"],
            &["reload"],
        ] {
            let answer = sidekey(&[words, &["--config", &config]].concat()).await;
            assert_eq!((answer.status.code(), errors(&answer)), (Some(1), expected.clone()), "{words:?}");
        }
        let answer = sidekey(&["doctor", "--config", &config]).await;
        assert!(
            String::from_utf8_lossy(&answer.stdout).contains("FAIL  store"),
            "{}",
            String::from_utf8_lossy(&answer.stdout)
        );
        assert!(!home.join("data2").exists());
    }
    std::fs::write(&config, &original).expect("written");
    assert!(out(&sidekey(&["status", "--config", &config]).await).contains("\nalice    quickbooks  default  active"));
    running.signal(rustix::process::Signal::TERM).await;
    simulator.stop().await;
}

#[tokio::test]
async fn one_process_owns_the_store_and_the_others_ask_it() {
    let simulator = simulator(3600.0).await;
    let mut running = program(&simulator).await;
    let second = sidekey(&["serve", "--config", running.config()]).await;
    assert_eq!(second.status.code(), Some(1));
    assert!(errors(&second).contains("another sidekey process owns"), "{}", errors(&second));
    running.connect("quickbooks", "alice").await;
    let text = out(&sidekey(&["status", "--config", running.config()]).await);
    assert!(text.contains("\nalice    quickbooks  default  active"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&out(
            &sidekey(&["status", "--json", "--subject", "alice", "--config", running.config()]).await
        ))
        .expect("JSON");
    assert_eq!(json["connections"][0]["has_refresh_token"], true);
    let nobody = out(&sidekey(&["status", "--subject", "nobody", "--config", running.config()]).await);
    assert!(nobody.contains("\nno such connections"), "{nobody}");
    // Without a server the same questions are answered from the store itself.
    running.signal(rustix::process::Signal::TERM).await;
    let text = out(&sidekey(&["status", "--config", running.config()]).await);
    assert!(text.contains("\nalice    quickbooks  default  active"), "{text}");
    let handle = running.handle("alice").await;
    let listed = out(&sidekey(&["handle", "list", "--config", running.config()]).await);
    assert!(
        listed.contains("alice    any label  all providers  does not expire") && !listed.contains(&handle),
        "{listed}"
    );
    let id = listed.lines().nth(1).and_then(|line| line.split_whitespace().next()).expect("an id").to_owned();
    assert_eq!(
        out(&sidekey(&["handle", "revoke", &id, "--config", running.config()]).await),
        format!("revoked {id}\n")
    );
    let listed = out(&sidekey(&["handle", "list", "--config", running.config()]).await);
    assert!(listed.contains("  revoked now"), "{listed}");
    simulator.stop().await;
}

#[tokio::test]
async fn a_command_line_that_asks_for_the_impossible_is_answered_clearly() {
    let simulator = simulator(3600.0).await;
    let running = program(&simulator).await;
    for (arguments, code, message) in [
        (
            vec!["connect", "quickboks", "--subject", "a"],
            3,
            "No provider quickboks is configured (did you mean `quickbooks`?)",
        ),
        (vec!["connect", "quickbooks", "--subject", "a b"], 2, "invalid value 'a b' for '--subject"),
        (vec!["handle", "issue", "--subject", "a", "--expires", "soon"], 2, "invalid value 'soon' for '--expires"),
        (vec!["handle", "issue", "--subject", "a", "--expires", "0d"], 1, "`expires` is over at once"),
        (vec!["handle", "issue", "--subject", "a", "--provider", "nobody"], 3, "No provider nobody is configured (add"),
        (vec!["handle", "revoke", "h_unknown"], 3, "There is no such handle (`sidekey handle list`"),
        (vec!["handle", "revoke", "../x"], 2, "an id looks like"),
    ] {
        let output = sidekey(&[arguments.as_slice(), &["--config", running.config()]].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", errors(&output));
        assert!(errors(&output).contains(message), "{arguments:?}: {}", errors(&output));
    }
    for (arguments, detail) in [
        (
            vec!["connect", "quickbooks", "--json"],
            "the following required arguments were not provided: --subject <SUBJECT>",
        ),
        (vec!["statsu", "--json"], "unrecognized subcommand 'statsu' tip: some similar subcommands exist:"),
    ] {
        let output = sidekey(&arguments).await;
        let problem: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
        let told = problem["detail"].as_str().expect("text");
        assert!(output.status.code() == Some(2) && told.starts_with(detail), "{told}");
    }
    simulator.stop().await;
}

#[tokio::test]
async fn init_writes_what_check_and_serve_accept_and_overwrites_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("new");
    let path = |name: &str| directory.join(name).to_str().expect("text").to_owned();
    out(&sidekey(&["init", directory.to_str().expect("text")]).await);
    for name in ["sidekey.toml", "sidekey.key"] {
        assert_eq!(mode(Path::new(&path(name))), 0o600, "{name}");
    }
    assert_eq!(mode(&directory), 0o700);
    assert!(out(&sidekey(&["check", &path("sidekey.toml")]).await).contains("is valid"));
    let key = std::fs::read(path("sidekey.key")).expect("there");
    let again = sidekey(&["init", directory.to_str().expect("text")]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(errors(&again).contains("exists already; nothing was written"));
    assert_eq!(std::fs::read(path("sidekey.key")).expect("there"), key);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[tokio::test]
async fn everything_that_is_created_is_private_under_any_umask() {
    let simulator = simulator(3600.0).await;
    let running = program(&simulator).await;
    running.connect("quickbooks", "alice").await;
    assert_eq!(mode(&running.files.data()), 0o700);
    for entry in std::fs::read_dir(running.files.data()).expect("there") {
        let path = entry.expect("an entry").path();
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    simulator.stop().await;
}

#[tokio::test]
async fn a_start_that_cannot_succeed_names_the_remedy() {
    let files = Files::write("http://127.0.0.1:1", &Setup::default());
    let config = files.config.to_str().expect("text").to_owned();
    let serve = async || sidekey(&["serve", "--config", &config]).await;
    let key = files.home.path().join("sidekey.key");
    let good = std::fs::read(&key).expect("there");
    for (content, mode, code, message) in [
        (b"c2hvcnQ=".as_slice(), 0o600, 2, "store.keys[0]: is not a key: expected 32 random bytes"),
        (
            b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            0o600,
            2,
            "is not a random key; make one with `sidekey keys generate`",
        ),
        (b"changeme", 0o600, 2, "is not a key"),
        (&good, 0o604, 2, "everybody on this machine may use it; to mend it: chmod 600"),
    ] {
        std::fs::write(&key, content).expect("written");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).expect("chmod");
        let output = serve().await;
        assert_eq!(output.status.code(), Some(code), "{}", errors(&output));
        assert!(errors(&output).contains(message), "{}", errors(&output));
        assert!(!errors(&output).contains("c2hvcnQ"), "the key is not repeated");
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).expect("chmod");
    std::fs::create_dir(files.data()).expect("made");
    std::fs::set_permissions(files.data(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let output = serve().await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("has mode 0755, so others may use it; to mend it: chmod 700"),
        "{}",
        errors(&output)
    );
    std::fs::set_permissions(files.data(), std::fs::Permissions::from_mode(0o700)).expect("chmod");
    let taken = std::net::TcpListener::bind(files.egress).expect("a port");
    let output = serve().await;
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("egress.listen: cannot listen on"), "{}", errors(&output));
    drop(taken);
    let output = sidekey(&["check", "/nonexistent.toml"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("`sidekey init` writes one to start from"), "{}", errors(&output));
}

/// The admin socket is never put in the place of something else, or of another server's.
#[tokio::test]
async fn what_stands_in_the_place_of_the_admin_socket_is_left_alone() {
    let files = Files::write(
        "http://127.0.0.1:1",
        &Setup { tables: "[admin]\nsocket = \"precious\"\n".to_owned(), ..Setup::default() },
    );
    let (config, precious) = (files.config.to_str().expect("text").to_owned(), files.home.path().join("precious"));
    std::fs::write(&precious, "data").expect("written");
    let output = sidekey(&["serve", "--config", &config]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("there is something else; name another path"), "{}", errors(&output));
    assert_eq!(std::fs::read_to_string(&precious).expect("there"), "data");
    std::fs::remove_file(&precious).expect("removed");
    let other = std::os::unix::net::UnixListener::bind(&precious).expect("bound");
    let output = sidekey(&["serve", "--config", &config]).await;
    assert!(errors(&output).contains("another process listens there"), "{}", errors(&output));
    drop(other);
    let running = Program::start(files, &[], Stdio::null()).await;
    assert!(out(&sidekey(&["status", "--config", running.config()]).await).contains("\nno connections"));
}

/// The one who asked may hang up: either nothing was done, or the handle is revoked for callers as it is in the store.
#[tokio::test]
async fn a_revocation_that_nobody_waits_for_is_done_wholly_or_not_at_all() {
    use tokio::io::AsyncWriteExt;
    let simulator = simulator(3600.0).await;
    let running = program(&simulator).await;
    running.connect("quickbooks", "alice").await;
    for round in 0..30_u64 {
        let answer =
            out(&sidekey(&["handle", "issue", "--subject", "alice", "--json", "--config", running.config()]).await);
        let issued: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        let (id, handle) = (issued["id"].as_str().expect("there"), issued["handle"].as_str().expect("there"));
        let mut admin =
            tokio::net::UnixStream::connect(running.files.data().join("admin.sock")).await.expect("connected");
        let request = format!("DELETE /v1/handles/{id} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        admin.write_all(request.as_bytes()).await.expect("sent");
        pause(Duration::from_micros(100 * round)).await;
        drop(admin);
        let stored = rusqlite::Connection::open(running.files.data().join("sidekey.db")).expect("opens");
        // What was begun may still be on its way to the disk.
        pause(Duration::from_millis(20)).await;
        eventually(&format!("caller and store agree in round {round}"), async || {
            let revoked_at: Option<i64> = stored
                .query_row("SELECT revoked_at FROM handles WHERE id = ?1", [id], |row| row.get(0))
                .expect("there");
            (running.call(handle).await == 200) == revoked_at.is_none()
        })
        .await;
    }
    simulator.stop().await;
}

/// A wrong key opens nothing, and says which key is wanted.
#[tokio::test]
async fn a_lost_key_is_reported_and_destroys_nothing() {
    let simulator = simulator(3600.0).await;
    let mut running = program(&simulator).await;
    running.connect("quickbooks", "alice").await;
    let handle = running.handle("alice").await;
    running.signal(rustix::process::Signal::TERM).await;
    let key = running.files.home.path().join("sidekey.key");
    let good = std::fs::read(&key).expect("there");
    std::fs::write(&key, out(&sidekey(&["keys", "generate"]).await)).expect("written");
    let refused = sidekey(&["serve", "--config", running.config()]).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = errors(&refused);
    assert!(said.contains("sealed with keys that are not in store.keys: ") && said.contains(" (2 values)"), "{said}");
    let id = said.split("store.lost_keys = [\"").nth(1).and_then(|rest| rest.split('"').next()).expect("its id");
    let config = std::fs::read_to_string(&running.files.config).expect("there");
    let given_up = config.replacen("[store]\n", &format!("[store]\nlost_keys = [\"{id}\"]\n"), 1);
    std::fs::write(&running.files.config, given_up).expect("written");
    let mut running = Program::start(running.files, &[], Stdio::null()).await;
    let url = format!("http://{}/quickbooks/v3/company/0/companyinfo/0", running.files.egress);
    let answer = send(http().get(url).bearer_auth(&handle)).await;
    assert_eq!((answer.status, answer.json()["type"].as_str()), (503, Some("urn:sidekey:error:operator-needed")));
    assert!(answer.text().contains("which is not configured; add it to store.keys"), "{}", answer.text());
    let status = out(&sidekey(&["status", "--config", running.config()]).await);
    assert!(
        status.contains("  unreadable  ")
            && status.contains(&format!("sealed with key {id}, which is not in store.keys; put it back")),
        "{status}"
    );
    let keys = out(&sidekey(&["keys", "status", "--config", running.config()]).await);
    assert!(keys.contains(&format!("{id}  2       is given up")), "{keys}");
    running.signal(rustix::process::Signal::TERM).await;
    std::fs::write(&key, good).expect("written");
    std::fs::write(&running.files.config, config).expect("written");
    let running = Program::start(running.files, &[], Stdio::null()).await;
    assert_eq!(running.call(&handle).await, 200, "with the key back, all is there");
    simulator.stop().await;
}

pub struct Certificates {
    pub authority: String,
    certificate: String,
    key: String,
}

impl Certificates {
    pub fn identity(&self) -> Identity {
        Identity { certificate: self.certificate.clone(), key: self.key.clone() }
    }
}

/// A certificate for `name` by an authority of its own.
pub fn certificates(name: &str) -> Certificates {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).expect("signed");
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).expect("parameters").signed_by(&key, &issuer).expect("signed");
    Certificates { authority: authority_certificate.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
}

#[tokio::test]
async fn a_provider_must_prove_who_it_is() {
    for (name, trusted, expected) in [("localhost", true, 200), ("localhost", false, 502), ("other.example", true, 502)]
    {
        let made = certificates(name);
        let identity = TlsIdentity { certificate_pem: made.certificate, key_pem: made.key };
        let secure =
            sidekey_simulator::start(Options { tls: Some(identity), ..Options::default() }).await.expect("a simulator");
        let plain = simulator(3600.0).await;
        // The dance runs over the plain one; the API calls go to the one with TLS.
        let files = Files::write(&plain.url(), &Setup::default());
        let entry = files.home.path().join("providers/quickbooks.toml");
        let text = std::fs::read_to_string(&entry).expect("there");
        let origin = format!("origin = \"https://localhost:{}\"", secure.address().port());
        std::fs::write(&entry, text.replace(&format!("origin = \"{}\"", plain.url()), &origin)).expect("written");
        let authority = files.home.path().join("authority.pem");
        std::fs::write(&authority, if trusted { made.authority } else { certificates("x").authority })
            .expect("written");
        let environment = [("SSL_CERT_FILE", authority.to_str().expect("text"))];
        let running = Program::start(files, &environment, Stdio::null()).await;
        running.connect("quickbooks", "alice").await;
        let handle = running.handle("alice").await;
        let url = format!("http://{}/quickbooks/v3/company/0/companyinfo/0", running.files.egress);
        let answer = send(http().get(url).bearer_auth(&handle)).await;
        // The token was issued by the other simulator, so a call that arrives is refused there, and once more after the
        // refresh that the refusal brings about.
        let arrived = secure.ledger().profile("quickbooks").counters.api_calls;
        if expected == 200 {
            assert_eq!((answer.status, arrived), (401, 2), "{}", answer.text());
        } else {
            assert_eq!((answer.status, arrived), (502, 0), "{name} {trusted}: nothing was sent");
            assert_eq!(answer.json()["type"], "urn:sidekey:error:provider-certificate");
        }
        secure.stop().await;
        plain.stop().await;
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a client that trusts the certificate made for this test")]
async fn the_public_listener_serves_tls() {
    let made = certificates("localhost");
    let simulator = simulator(3600.0).await;
    let files = Files::write(&simulator.url(), &Setup::default());
    let text = std::fs::read_to_string(&files.config).expect("there");
    let url = format!("https://localhost:{}", files.public.port());
    let tls = "tls = { certificate = \"cert.pem\", key = \"file:key.pem\" }\n[egress]";
    let text = format!("public_url = \"{url}\"\n{}", text.replacen("[egress]", tls, 1));
    std::fs::write(&files.config, text).expect("written");
    std::fs::write(files.home.path().join("cert.pem"), made.certificate).expect("written");
    sidekey::base::files::create_private(&files.home.path().join("key.pem"), made.key.as_bytes()).expect("written");
    let running = Program::start(files, &[], Stdio::null()).await;
    http();
    let root = reqwest::Certificate::from_pem(made.authority.as_bytes()).expect("a certificate");
    let client = reqwest::Client::builder().tls_certs_only([root]).redirect(reqwest::redirect::Policy::none());
    let client = client.no_proxy().build().expect("a client");
    let answer =
        sidekey(&["connect", "quickbooks", "--subject", "alice", "--json", "--config", running.config()]).await;
    let link: serde_json::Value = serde_json::from_str(&out(&answer)).expect("JSON");
    let begun = send(client.post(link["url"].as_str().expect("a URL"))).await;
    let cookie = begun.header("set-cookie");
    assert!(cookie.starts_with("__Host-sidekey_flow_") && cookie.ends_with("; Secure"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let agreed = send(http().get(begun.header("location"))).await;
    assert!(
        agreed.header("location").starts_with(&format!("{url}/callback/quickbooks?")),
        "{}",
        agreed.header("location")
    );
    let done = send(client.get(agreed.header("location")).header("cookie", cookie)).await;
    assert_eq!(done.status, 303, "{}", done.text());

    // A renewed certificate is shown to the next connection, without a restart; the one that is there goes on.
    let renewed = certificates("localhost");
    std::fs::write(running.files.home.path().join("cert.pem"), renewed.certificate).expect("written");
    std::fs::write(running.files.home.path().join("key.pem"), renewed.key).expect("written");
    let root = reqwest::Certificate::from_pem(renewed.authority.as_bytes()).expect("a certificate");
    let new = reqwest::Client::builder().tls_certs_only([root]).no_proxy().build().expect("a client");
    eventually("the renewed certificate", async || new.get(&url).send().await.is_ok()).await;
    assert_eq!(send(client.get(&url)).await.status, 404, "on the same connection as before");
    simulator.stop().await;
}
