//! Child processes of MCP servers that speak stdio: what they are told, what they may use, and when they end.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use serde_json::{Value, json};
use sidekey::base::digest::sha256_base64url;
use sidekey_simulator::{Options, Simulator};
use tokio::process::{Child, Command};

use crate::client::{Answer, form, http, send};
use crate::front::{Browser, REDIRECT_URI, Tokens, VERIFIER, parameter, registration};
use crate::run_support::{Caller, ORDINARY, binary, callers, give, is_root, keep_in_keyring};
use crate::world::{Files, Setup, admin, eventually, pause};

/// A Sidekey in front of the stdio server `hub`, as a process of its own.
struct Hub {
    simulator: Simulator,
    files: Files,
    sidekey: Child,
    log: PathBuf,
    /// An argument by which its children are recognized.
    mark: String,
}

impl Hub {
    async fn start(caller: Caller, children: &str) -> Self {
        let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
        let mark = format!("mark-{}", sidekey::base::random::identifier(&sidekey::base::random::SystemRandom, ""));
        let script = serde_json::to_string(include_str!("stdio_server.py")).expect("text");
        let tables = format!(
            "[issuer]\nidentity = \"notion\"\n[servers.hub]\nproviders = [\"notion\", \"github\"]\nrequired = [\"notion\"]\n\
             environment = {{ TEAM = \"t1\" }}\ncommand = [\"/usr/bin/env\", \"python3\", \"-S\", \"-E\", \"-c\", {script}, \"{mark}\"]\n\
             [servers.hub.children]\n{children}\n"
        );
        let files = Files::write(&simulator.url(), &Setup { tables, ..Setup::default() });
        let log = files.home.path().join("log");
        let file = std::fs::File::create(&log).expect("made");
        if is_root() && caller == Caller::Ordinary {
            give(files.home.path());
        }
        let sidekey = serving(caller, &files, file);
        let hub = Self { simulator, files, sidekey, log, mark };
        hub.ready().await;
        hub
    }

    /// Starts another server once the one before has ended.
    async fn serve_again(&mut self, caller: Caller) {
        let log = std::fs::File::options().append(true).open(&self.log).expect("there");
        self.sidekey = serving(caller, &self.files, log);
        self.ready().await;
    }

    async fn ready(&self) {
        let url = format!("http://{}/readyz", self.files.metrics);
        eventually("ready", async || http().get(&url).send().await.is_ok_and(|answer| answer.status() == 200)).await;
    }

    fn public(&self, path: &str) -> String {
        format!("http://{}{path}", self.files.public)
    }

    /// The access token of a client that a user has authorized.
    async fn token(&self, user: &str) -> String {
        let client = http();
        let registering = client.post(self.public("/register")).header("content-type", "application/json");
        let registered = send(registering.body(registration("A client").to_string())).await.json();
        let client_id = registered["client_id"].as_str().expect("there").to_owned();
        let challenge = sha256_base64url(VERIFIER.as_bytes());
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("response_type", "code"),
                ("client_id", &client_id),
                ("redirect_uri", REDIRECT_URI),
                ("state", "s"),
                ("code_challenge", &challenge),
                ("code_challenge_method", "S256"),
                ("resource", &self.public("/hub/mcp")),
            ])
            .finish();
        let back = Browser::new(user).authorize(&self.public(&format!("/authorize?{query}"))).await;
        let code = parameter(&back, "code").unwrap_or_else(|| panic!("{back}"));
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", &client_id),
            ("code", &code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ];
        let answer = send(form(client.post(self.public("/token")), &fields)).await;
        Tokens::of(client_id.clone(), &answer).access
    }

    /// Calls a tool as a client of the newer era.
    async fn ask(&self, token: &str, tool: &str, arguments: Value) -> Answer {
        send(self.tool_call(token, tool, arguments)).await
    }

    fn tool_call(&self, token: &str, tool: &str, arguments: Value) -> reqwest::RequestBuilder {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let params = json!({ "name": tool, "arguments": arguments, "_meta": meta });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let request = http().post(self.public("/hub/mcp")).bearer_auth(token);
        let request = request.header("content-type", "application/json").header("mcp-method", "tools/call");
        let request = request.header("accept", "application/json, text/event-stream").header("mcp-name", tool);
        request.header("mcp-protocol-version", "2026-07-28").body(body.to_string())
    }

    /// What a tool answers.
    async fn call(&self, token: &str, tool: &str, arguments: Value) -> Value {
        let answer = self.ask(token, tool, arguments).await;
        assert_eq!(answer.status, 200, "{}\n{}", answer.text(), self.log());
        let text = answer.json()["result"]["content"][0]["text"].as_str().map(str::to_owned);
        serde_json::from_str(&text.unwrap_or_else(|| panic!("{}", answer.text()))).expect("JSON")
    }

    async fn children(&self) -> Vec<Value> {
        let status = admin(&self.files.data().join("admin.sock"), "GET", "/v1/status", "").await.json();
        status["children"].as_array().cloned().expect("a list")
    }

    async fn metrics(&self) -> String {
        send(http().get(format!("http://{}/metrics", self.files.metrics))).await.text()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("there")
    }

    /// Processes that have this among their arguments.
    fn processes(&self, mark: &str) -> Vec<u32> {
        let processes = std::fs::read_dir("/proc").expect("there").filter_map(Result::ok);
        let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let has_mark = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
        };
        processes.filter(has_mark).collect()
    }

    async fn nothing_runs(&self) {
        eventually("no process of a child is left", async || self.processes(&self.mark).is_empty()).await;
    }

    async fn stop(&mut self) -> std::process::ExitStatus {
        let pid = self.sidekey.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("it runs"), rustix::process::Signal::TERM).expect("sent");
        tokio::time::timeout(Duration::from_secs(30), self.sidekey.wait()).await.expect("in time").expect("it ends")
    }
}

fn serving(caller: Caller, files: &Files, log: std::fs::File) -> Child {
    let mut command = Command::new(binary());
    command.args(["serve", "--config", files.config.to_str().expect("text")]).current_dir("/");
    command.env("CANARY", "canary-of-the-operator").env_remove("SIDEKEY_CONFIG");
    if is_root() && caller == Caller::Ordinary {
        command.uid(ORDINARY).gid(ORDINARY).env("HOME", files.home.path());
    }
    command.kill_on_drop(true).stdin(Stdio::null()).stderr(log).spawn().expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_is_told_nothing_of_others_and_ends_with_sidekey() {
    for caller in callers() {
        let mut hub = Hub::start(caller, "memory = \"512MiB\"\nprocesses = 40\nstop_grace = \"4s\"").await;
        let (alice, bob) = (hub.token("alice").await, hub.token("bob").await);
        let of_bob = hub.call(&bob, "facts", json!({})).await;
        let text = |facts: &Value, name: &str| facts["environment"][name].as_str().unwrap_or_default().to_owned();
        let home = hub.files.home.path();
        let path = |name: &str| home.join(name).display().to_string();
        let closed = [text(&of_bob, "HOME"), text(&of_bob, "TMPDIR"), path("sidekey.key"), path("data/sidekey.db")];
        let public = ["/tmp", "/var/tmp", "/dev/shm", "/", home.to_str().expect("text")];
        let public: Vec<&str> = public.into_iter().chain([closed[0].as_str()]).collect();
        let asked = json!({ "reads": closed, "writes": public });
        let of_alice = hub.call(&alice, "facts", asked).await;
        // Its own places, and no other.
        assert_eq!(of_alice["owns"], json!({ "HOME": true, "TMPDIR": true }), "{caller:?}");
        let any = |what: &str| of_alice[what].as_object().expect("a map").values().any(|value| value == true);
        assert!(!any("reads") && !any("writes"), "{caller:?}: {of_alice}");
        assert_eq!(of_alice["directory"], of_alice["environment"]["HOME"]);
        // Within them it moves and links files as any program does. What lies outside is open to everybody but for the bounds.
        let open = tempfile::tempdir_in("/var/tmp").expect("a directory");
        std::fs::set_permissions(open.path(), std::fs::Permissions::from_mode(0o777)).expect("opened");
        std::fs::write(open.path().join("theirs"), "x").expect("written");
        let moved = hub.call(&alice, "move", json!({ "outside": open.path() })).await;
        let expected = json!({ "own": [true, true, true, true], "others": [false, false, false, false] });
        assert_eq!(moved, expected, "{caller:?}");
        assert_ne!(text(&of_alice, "HOME"), text(&of_bob, "HOME"));
        // Three streams, and the directory of descriptors itself while it is read.
        assert_eq!(of_alice["descriptors"], json!([0, 1, 2, 3]), "{caller:?}");
        let environment = of_alice["environment"].to_string();
        for foreign in ["canary", "CARGO", "bob", "SIDEKEY_CONFIG", "admin.sock"] {
            assert!(!environment.contains(foreign), "{caller:?}: {foreign}: {environment}");
        }
        assert_eq!(text(&of_alice, "TEAM"), "t1");
        for limit in
            ["Max data size             536870912", "Max processes             40 ", "Max cpu time              3600 "]
        {
            assert!(of_alice["limits"].as_str().expect("text").contains(limit), "{limit}: {}", of_alice["limits"]);
        }
        if caller == Caller::Root {
            let users: BTreeSet<u64> = [&of_alice, &of_bob].iter().filter_map(|facts| facts["user"].as_u64()).collect();
            assert!(users.len() == 2 && users.iter().all(|user| (60_706..=61_183).contains(user)), "{users:?}");
        }
        // Its handle is for its user, and for what the user picked.
        let proxy = url::Url::parse(&text(&of_alice, "HTTPS_PROXY")).expect("a URL");
        let api = async |path: &str| {
            let request = http().get(format!("http://{}{path}", hub.files.egress)).bearer_auth(proxy.username());
            send(request).await
        };
        let who = api("/notion/v1/users/me").await;
        assert_eq!(who.status, 200, "{}", who.text());
        let calls = hub.simulator.api_calls();
        assert_eq!(calls.last().and_then(|call| call.user.clone()).as_deref(), Some("alice"));
        let other = api("/github/user").await;
        assert_eq!((other.status, other.json()["type"].as_str()), (403, Some("urn:sidekey:error:provider-not-picked")));
        // `sidekey status` and the metrics know them.
        let children = hub.children().await;
        let states: Vec<_> =
            children.iter().map(|child| (&child["server"], &child["state"], &child["providers"])).collect();
        let expected = (&json!("hub"), &json!("running"), &json!(["notion"]));
        assert_eq!(states, [expected, expected]);
        let config = hub.files.config.to_str().expect("text").to_owned();
        let mut shown = Command::new(binary());
        shown.args(["status", "--config", &config]);
        if is_root() && caller == Caller::Ordinary {
            shown.uid(ORDINARY);
        }
        let shown = String::from_utf8(shown.output().await.expect("it runs").stdout).expect("text");
        let lines: Vec<&str> = shown.lines().filter(|line| line.starts_with("p_")).collect();
        assert!(
            lines.len() == 2 && lines.iter().all(|line| line.contains("  hub  ") && line.contains("running")),
            "{shown}"
        );
        eventually("the metrics count them", async || {
            hub.metrics().await.contains("sidekey_children{server=\"hub\"} 2\n")
        })
        .await;
        let metrics = hub.metrics().await;
        assert!(metrics.contains("sidekey_child_starts_total{outcome=\"ok\",server=\"hub\"} 2"), "{metrics}");
        // What one has started and left behind ends as well.
        let seconds = format!("1000.{}", std::process::id());
        hub.call(&alice, "leave", json!({ "seconds": seconds })).await;
        // The kernel closes what an exec closes before it says what the program was called with.
        eventually("what it has started runs", async || hub.processes(&seconds).len() == 1).await;
        assert!(hub.stop().await.success());
        assert!(hub.processes(&hub.mark).is_empty() && hub.processes(&seconds).is_empty(), "{caller:?}");
        assert!(!PathBuf::from(text(&of_alice, "HOME")).exists(), "its directory is gone");
        // The handle that it had is of no use to anybody, and nobody has written it down.
        assert!(!hub.log().contains(proxy.username()));
        hub.simulator.stop().await;
    }
}

/// Others are sent there as soon as whoever belongs there is gone for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_listens_on_no_port_that_others_have() {
    for caller in callers() {
        let mut hub = Hub::start(caller, "stop_grace = \"2s\"").await;
        let alice = hub.token("alice").await;
        let somebody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = somebody.local_addr().expect("known").port();
        drop(somebody);
        let listened = hub.call(&alice, "listen", json!({ "ports": [0, port, 0] })).await;
        let forbidden = Errno::EACCES as i32;
        assert_eq!(listened, json!(["listens", forbidden, "listens"]), "{caller:?}");
        assert!(hub.stop().await.success());
        hub.simulator.stop().await;
    }
    // Without isolation it may do what Sidekey may.
    let mut hub = Hub::start(callers()[0], "isolation = false\nstop_grace = \"2s\"").await;
    let alice = hub.token("alice").await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    assert_eq!(hub.call(&alice, "listen", json!({ "ports": [port] })).await, json!(["listens"]));
    assert!(hub.stop().await.success());
    hub.simulator.stop().await;
}

/// Multipath TCP, SMC and rings get round what holds TCP to its ports.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_has_usual_sockets_alone() {
    use nix::libc::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, AF_VSOCK, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM};
    const MULTIPATH: i32 = 262;
    const SMC: (i32, i32) = (43, 256);
    let kinds = [
        ((AF_INET, SOCK_STREAM, 0), None),
        ((AF_INET6, SOCK_STREAM, 6), None),
        ((AF_INET, SOCK_DGRAM, 17), None),
        ((AF_UNIX, SOCK_STREAM, 0), None),
        ((AF_NETLINK, SOCK_RAW, 0), None),
        ((AF_INET, SOCK_STREAM, MULTIPATH), Some(Errno::EPROTONOSUPPORT)),
        ((AF_INET6, SOCK_STREAM, MULTIPATH), Some(Errno::EPROTONOSUPPORT)),
        ((AF_INET, SOCK_STREAM, SMC.1), Some(Errno::EPROTONOSUPPORT)),
        ((SMC.0, SOCK_STREAM, 0), Some(Errno::EAFNOSUPPORT)),
        ((AF_VSOCK, SOCK_STREAM, 0), Some(Errno::EAFNOSUPPORT)),
    ];
    let asked = kinds.map(|(kind, _)| kind);
    let expected = kinds.map(|(_, error)| error.map_or(json!("made"), |error| json!(error as i32)));
    for caller in callers() {
        let mut hub = Hub::start(caller, "stop_grace = \"2s\"").await;
        let alice = hub.token("alice").await;
        let found = hub.call(&alice, "sockets", json!({ "kinds": asked })).await;
        assert_eq!(found, json!({ "ring": Errno::ENOSYS as i32, "sockets": expected }), "{caller:?}");
        assert!(hub.stop().await.success());
        hub.simulator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_finds_no_keys_of_others() {
    if !keep_in_keyring("of-the-operator", "x") {
        return; // there are no keyrings here
    }
    for caller in callers() {
        let mut hub = Hub::start(caller, "stop_grace = \"2s\"").await;
        let (alice, bob) = (hub.token("alice").await, hub.token("bob").await);
        let look = ["of-the-operator", "of-alice", "of-bob"];
        let keys =
            async |token: &str, leave: &str| hub.call(token, "keys", json!({ "look": look, "leave": leave })).await;
        let all = json!(["session", "user", "user session"]);
        assert_eq!(keys(&alice, "of-alice").await, json!({ "found": [], "left": all }), "{caller:?}");
        assert_eq!(keys(&bob, "of-bob").await, json!({ "found": [], "left": all }), "{caller:?}");
        let kept = keys(&alice, "of-alice").await;
        assert_eq!(kept["found"].as_array().map(Vec::len), Some(3), "what is its own it does find: {caller:?}: {kept}");
        // The next one may be the same user as one that has ended.
        let before = hub.call(&alice, "facts", json!({})).await;
        hub.ask(&alice, "die", json!({})).await;
        let after = hub.call(&alice, "facts", json!({})).await;
        assert_ne!(before["environment"]["HTTPS_PROXY"], after["environment"]["HTTPS_PROXY"], "another process");
        assert_eq!(keys(&alice, "of-alice").await["found"], json!([]), "{caller:?}");
        assert!(hub.stop().await.success());
        hub.simulator.stop().await;
    }
}

/// Who hangs up is counted as such, and not as a failure of the server.
#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_is_no_failure_of_the_server() {
    let mut hub = Hub::start(callers()[0], "stop_grace = \"2s\"").await;
    let alice = hub.token("alice").await;
    hub.call(&alice, "facts", json!({})).await;
    tokio::time::timeout(Duration::from_secs(1), hub.ask(&alice, "hang", json!({}))).await.expect_err("no answer");
    let counted = |outcome: &str, count: u32| {
        format!("sidekey_mcp_requests_total{{outcome=\"{outcome}\",server=\"hub\"}} {count}\n")
    };
    eventually("it is counted", async || hub.metrics().await.contains(&counted("caller_gone", 1))).await;
    assert!(!hub.metrics().await.contains("outcome=\"failed\",server=\"hub\"} 1"), "{}", hub.metrics().await);
    assert!(hub.stop().await.success());
    hub.simulator.stop().await;
}

/// Who asks again at once is not faster than whoever looks after a child that is of no use anymore, and may be long in ending.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_at_once_waits_like_everybody() {
    let mut hub = Hub::start(callers()[0], "stop_grace = \"6s\"").await;
    for (user, tool, how) in
        [("alice", "die", "it was ended by signal 9"), ("bob", "mute", "it closed its standard output or input")]
    {
        let token = hub.token(user).await;
        for _ in 0..2 {
            let failed = hub.ask(&token, tool, json!({})).await;
            assert!(failed.text().contains("urn:sidekey:error:server-ended"), "{}", failed.text());
        }
        let refused = hub.ask(&token, "facts", json!({})).await;
        assert_eq!(refused.status, 503, "{tool}: {}", refused.text());
        let error = &refused.json()["error"];
        assert_eq!(error["data"]["type"], "urn:sidekey:error:server-backing-off", "{error}");
        eventually("it is known how it ended", async || {
            let refused = hub.ask(&token, "facts", json!({})).await;
            refused.status == 200 || refused.text().contains(how)
        })
        .await;
        assert!(hub.log().contains(&format!("\"how\":\"{how}\"")) || tool == "mute", "{}", hub.log());
        let started = hub.log().lines().filter(|line| line.contains("\"started\"") && line.contains(user)).count();
        assert!(started <= 3, "{started} for {user}: {}", hub.log());
    }
    assert!(hub.stop().await.success());
    hub.simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_fails_fails_its_call_alone() {
    let mut hub = Hub::start(callers()[0], "memory = \"96MiB\"\nstop_grace = \"2s\"").await;
    let (alice, bob) = (hub.token("alice").await, hub.token("bob").await);
    let before = hub.call(&alice, "facts", json!({})).await;
    let undisturbed = hub.call(&bob, "heard", json!({ "who": "bob" })).await;
    assert_eq!(undisturbed, json!(["bob"]));
    // Two are under way when it is killed: both fail, and say so.
    let (hanging, dying) = tokio::join!(hub.ask(&alice, "hang", json!({})), async {
        eventually("it has the other call", async || hub.children().await.iter().any(|child| child["requests"] == 1))
            .await;
        hub.ask(&alice, "die", json!({})).await
    });
    for failed in [hanging, dying] {
        assert_eq!(
            (failed.status, failed.json()["error"]["data"]["type"].as_str()),
            (200, Some("urn:sidekey:error:server-ended")),
            "{}",
            failed.text()
        );
    }
    let after = hub.call(&alice, "facts", json!({})).await;
    assert_ne!(before["environment"]["HTTPS_PROXY"], after["environment"]["HTTPS_PROXY"], "another process");
    // More memory than it may have: the call fails, and the child is not there for a while, which its user is told.
    let eaten = hub.ask(&alice, "eat", json!({ "bytes": 200 << 20 })).await;
    assert!(eaten.text().contains("urn:sidekey:error:server-ended"), "{}", eaten.text());
    eventually("it waits before it starts again", async || {
        let answer = hub.ask(&alice, "facts", json!({})).await;
        if answer.status == 200 {
            hub.ask(&alice, "die", json!({})).await;
            return false;
        }
        let wait: u64 = answer.header("retry-after").parse().unwrap_or_default();
        answer.status == 503
            && answer.json()["error"]["data"]["type"] == "urn:sidekey:error:server-backing-off"
            && (1..=600).contains(&wait)
    })
    .await;
    assert_eq!(
        hub.call(&bob, "heard", json!({ "who": "bob" })).await,
        json!(["bob", "bob"]),
        "the same process as before"
    );
    // Once it is gone, which is later than that its user is told.
    eventually("both are counted", async || {
        let metrics = hub.metrics().await;
        let crashes = metrics.lines().find(|line| line.starts_with("sidekey_child_ends_total{reason=\"crashed\""));
        crashes.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).is_some_and(|crashes| crashes >= 2)
    })
    .await;
    assert!(hub.log().contains("\"outcome\":\"crashed\"") && hub.log().contains("MemoryError"), "{}", hub.log());
    // What a child writes to standard error is there, but for what is secret.
    let handle = url::Url::parse(after["environment"]["HTTPS_PROXY"].as_str().expect("text")).expect("a URL");
    hub.call(&bob, "shout", json!({ "text": format!("the word is {} or ghp_16C7e42F292c6912E7710c838347Ae178B4a, over", handle.username()) })).await;
    eventually("it is logged", async || hub.log().contains("the word is [scrubbed] or [scrubbed], over")).await;
    assert!(!hub.log().contains(handle.username()) && !hub.log().contains("ghp_16C7"));
    assert!(hub.stop().await.success());
    hub.simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_ends_when_nobody_uses_it_and_when_its_grant_does() {
    let mut hub = Hub::start(callers()[0], "idle_stop = \"2s\"\nstop_grace = \"2s\"").await;
    let (alice, bob) = (hub.token("alice").await, hub.token("bob").await);
    hub.call(&alice, "heard", json!({ "who": "alice" })).await;
    // One that is in use is not idle, however long it takes.
    let hanging = async {
        let answer = hub.tool_call(&bob, "hang", json!({})).send().await.expect("it begins");
        // Streams of a grant that has ended are cut off.
        answer.text().await.unwrap_or_default()
    };
    let ended = async {
        eventually("bob's runs", async || hub.children().await.len() == 2).await;
        eventually("alice's is stopped", async || hub.children().await.len() == 1).await;
        assert!(hub.metrics().await.contains("sidekey_child_ends_total{reason=\"idle\",server=\"hub\"} 1"));
        pause(Duration::from_secs(2)).await;
        let children = hub.children().await;
        assert_eq!(children.len(), 1, "{children:?}");
        // The grant ends, and the process with it, whatever it is doing.
        let socket = hub.files.data().join("admin.sock");
        let subject = children[0]["subject"].as_str().expect("text");
        let grants = admin(&socket, "GET", "/v1/grants", "").await.json();
        let of_bob = grants["grants"].as_array().expect("a list").iter().find(|grant| grant["subject"] == subject);
        let id = of_bob.expect("there")["id"].as_str().expect("text").to_owned();
        assert_eq!(admin(&socket, "DELETE", &format!("/v1/grants/{id}"), "").await.status, 204);
        eventually("bob's is stopped", async || hub.children().await.is_empty()).await;
    };
    let (failed, ()) = tokio::join!(hanging, ended);
    assert!(!failed.contains("\"result\""), "{failed}");
    hub.nothing_runs().await;
    assert!(hub.metrics().await.contains("sidekey_child_ends_total{reason=\"grant_ended\",server=\"hub\"} 1"));
    assert_eq!(hub.ask(&bob, "facts", json!({})).await.status, 401);
    assert_eq!(hub.call(&alice, "heard", json!({ "who": "alice" })).await, json!(["alice"]), "it begins anew");
    // What was done is in the audit trail.
    assert!(hub.stop().await.success());
    let trail = std::fs::read_to_string(hub.files.data().join("audit.jsonl")).expect("there");
    for (operation, outcome) in
        [("start_child", "ok"), ("end_child", "idle"), ("end_child", "grant_ended"), ("end_child", "shutdown")]
    {
        let is_it = |line: &str| line.contains(&format!("\"operation\":\"{operation}\",\"outcome\":\"{outcome}\""));
        assert!(trail.lines().any(is_it), "{operation} {outcome}: {trail}");
    }
    hub.simulator.stop().await;
}

/// However deep it is, and at no cost to the server.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_child_has_written_goes_away() {
    for caller in callers() {
        let mut hub = Hub::start(caller, "stop_grace = \"2s\"").await;
        let alice = hub.token("alice").await;
        let facts = hub.call(&alice, "facts", json!({})).await;
        let home = PathBuf::from(facts["environment"]["HOME"].as_str().expect("text"));
        // It may take so long that the answer becomes a stream.
        let nested = hub.ask(&alice, "nest", json!({ "depth": 4_000 })).await;
        assert!(nested.text().contains("true"), "{}", nested.text());
        let used =
            || std::fs::read_dir(format!("/proc/{}/fd", hub.sidekey.id().expect("it runs"))).expect("there").count();
        let before = used();
        hub.ask(&alice, "die", json!({})).await;
        let mut most = before;
        let directory = home.parent().expect("a parent");
        eventually("its directory is gone", async || {
            most = most.max(used());
            !directory.exists()
        })
        .await;
        assert!(most < before + 20, "{caller:?}: {before} descriptors, then {most}");
        assert!(!hub.log().contains("cannot be removed"), "{}", hub.log());
        assert!(hub.stop().await.success());
        hub.simulator.stop().await;
    }
}

/// What a start that was killed has left is removed by the next one; what others use, or made, is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_has_left_goes_away() {
    for caller in callers() {
        let mut hub = Hub::start(caller, "stop_grace = \"2s\"").await;
        let alice = hub.token("alice").await;
        let facts = hub.call(&alice, "facts", json!({})).await;
        let home = PathBuf::from(facts["environment"]["HOME"].as_str().expect("text"));
        hub.call(&alice, "nest", json!({ "depth": 50 })).await;
        hub.sidekey.kill().await.expect("killed");
        hub.nothing_runs().await;
        let left = home.parent().expect("a parent");
        assert!(left.exists());
        let place = left.parent().expect("a parent");
        let [used, foreign] = ["used", "foreign"].map(|name| {
            let directory = tempfile::Builder::new().prefix(&format!("sidekey-run-{name}-")).tempdir_in(place);
            let directory = directory.expect("made");
            if is_root() && caller == Caller::Ordinary {
                give(directory.path());
            }
            directory
        });
        let owner = std::fs::File::create(used.path().join("owner")).expect("made");
        rustix::fs::flock(&owner, rustix::fs::FlockOperation::LockExclusive).expect("locked");
        hub.serve_again(caller).await;
        eventually("it is gone", async || !left.exists()).await;
        assert!(used.path().join("owner").exists() && foreign.path().is_dir(), "{caller:?}");
        assert!(hub.stop().await.success());
        hub.simulator.stop().await;
    }
}

/// What a process has started and left behind goes with the namespace, or, as root, with the next start.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_child_has_left_running_ends_too() {
    for caller in callers() {
        let mut hub = Hub::start(caller, "stop_grace = \"2s\"").await;
        let alice = hub.token("alice").await;
        let seconds = format!("2000.{}", std::process::id());
        hub.call(&alice, "leave", json!({ "seconds": seconds })).await;
        eventually("what it has started runs", async || hub.processes(&seconds).len() == 1).await;
        hub.sidekey.kill().await.expect("killed");
        hub.nothing_runs().await;
        hub.serve_again(caller).await;
        eventually("it has ended", async || hub.processes(&seconds).is_empty()).await;
        assert!(hub.stop().await.success());
        hub.simulator.stop().await;
    }
}

/// Where children cannot be kept apart, Sidekey says so and does not start.
#[tokio::test]
async fn without_isolation_nothing_starts() {
    let home = tempfile::tempdir().expect("a directory");
    let program = home.path().join("sidekey");
    std::fs::write(&program, "#!/bin/sh\necho 'error: no such thing here, or use --no-isolation' >&2\nexit 1\n")
        .expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("opened");
    let start = async |isolation: &str| {
        let tables = format!(
            "[issuer]\nidentity = \"notion\"\n[servers.hub]\ncommand = [\"true\"]\n[servers.hub.children]\n{isolation}\n"
        );
        let files = Files::write("http://127.0.0.1:1", &Setup { tables, ..Setup::default() });
        let settings = files.settings();
        let system = sidekey::server::Environment::system(&settings).expect("an environment");
        let environment = sidekey::server::Environment { sidekey: program.clone(), ..system };
        let started = sidekey::server::start(settings, environment).await;
        (started, files)
    };
    let (refused, _files) = start("").await;
    let why = refused.err().expect("refused").to_string();
    assert_eq!(
        why,
        "servers.hub: its child processes cannot be kept apart: no such thing here, or use isolation = false in \
         [servers.NAME.children]"
    );
    let (started, _files) = start("isolation = false").await;
    started.unwrap_or_else(|error| panic!("{error}")).stop().await;
}
