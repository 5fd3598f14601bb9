//! The access log: one line for every request, with who and what, and without anything that opens something.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use sidekey_simulator::Options;

use crate::client::{http, send};
use crate::process::{Program, out, sidekey};
use crate::world::{Files, Setup, eventually};

/// A program that writes its log into a file, at this level, with this line in `[logging]`.
async fn logging(simulator: &str, line: &str) -> (Program, PathBuf) {
    let tables = format!(
        "[logging]\n{line}\n[issuer]\nidentity = \"notion\"\n[servers.notes]\nupstream = \"http://127.0.0.1:9/mcp\"\nproviders = [\"notion\"]\n"
    );
    let files = Files::write(simulator, &Setup { tables, ..Setup::default() });
    let log = files.home.path().join("log");
    let file = std::fs::File::create(&log).expect("made");
    (Program::start(files, &[], Stdio::from(file)).await, log)
}

/// The lines of the access log so far.
fn lines(log: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).expect("text");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    lines.filter(|line: &Value| line["operation"] == "access").collect()
}

/// The only line about this path at this listener.
fn about<'a>(lines: &'a [Value], listener: &str, path: &str) -> &'a Value {
    let fits = |line: &&Value| line["listener"] == listener && line["path"] == path;
    let found: Vec<_> = lines.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{listener} {path}: {lines:#?}");
    found[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_one_line_that_says_who_and_what_and_gives_nothing_away() {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    let (running, log) = logging(&simulator.url(), "access = true").await;
    let public = |path: &str| format!("http://{}{path}", running.files.public);
    let egress = |path: &str| format!("http://{}{path}", running.files.egress);
    running.connect("quickbooks", "alice").await;
    let handle = running.handle("alice").await;
    let client = http();
    let path = "/quickbooks/v3/company/0/companyinfo/0";
    assert_eq!(send(client.get(egress(&format!("{path}?a=b"))).bearer_auth(&handle)).await.status, 200);
    let in_url = format!("/~{handle}/github/user");
    assert_eq!(send(client.get(egress(&in_url))).await.status, 403);
    assert_eq!(send(client.post(public("/notes/mcp")).body("{}")).await.status, 401);
    assert_eq!(send(client.get(public("/a-page-with/a-secret-name"))).await.status, 404);
    let form = client.post(public("/token")).header("content-type", "application/x-www-form-urlencoded");
    assert!(send(form.body("grant_type=none")).await.status >= 400);
    eventually("all are written", async || lines(&log).len() == 7).await;
    let lines = lines(&log);

    // The dance: the link reads as its route, and what came back in the query is not there.
    let begun = about(&lines, "public", "/connect/{token}");
    assert_eq!((&begun["method"], &begun["status"]), (&"POST".into(), &303.into()));
    let back = about(&lines, "public", "/callback/{provider}");
    assert_eq!((&back["method"], &back["status"], &back["address"]), (&"GET".into(), &303.into(), &"127.0.0.1".into()));

    let call = about(&lines, "egress", path);
    for (field, expected) in [
        ("level", Value::from("INFO")),
        ("method", "GET".into()),
        ("status", 200.into()),
        ("provider", "quickbooks".into()),
        ("subject", "alice".into()),
        ("label", "default".into()),
        ("generation", 1.into()),
        ("received", 0.into()),
        ("address", "127.0.0.1".into()),
    ] {
        assert_eq!(call[field], expected, "{field}: {call}");
    }
    assert!(call["sent"].as_u64().is_some_and(|sent| sent > 10), "{call}");
    assert!(call["duration_ms"].is_u64(), "{call}");
    let listed = out(&sidekey(&["handle", "list", "--config", running.config()]).await);
    let row = listed.lines().nth(1).unwrap_or_default();
    assert!(row.starts_with(call["handle"].as_str().expect("an id")), "{listed}");

    // A handle in the base URL, and the refusal with the same request in its own line.
    let refused = about(&lines, "egress", "/{handle}/github/user");
    assert_eq!(refused["status"], 403);
    let text = std::fs::read_to_string(&log).expect("text");
    let same = text.lines().filter(|line| line.contains(refused["request"].as_str().expect("a name")));
    assert!(same.clone().count() == 2 && same.clone().any(|line| line.contains("\"not-connected\"")), "{text}");

    let mcp = about(&lines, "public", "/notes/mcp");
    assert_eq!((&mcp["status"], &mcp["server"]), (&401.into(), &"notes".into()));
    assert_eq!(about(&lines, "public", "/token")["received"], 15);
    // What is no page of ours is not named.
    let missing = lines.iter().find(|line| line["status"] == 404).expect("a line");
    assert!(missing.get("path").is_none() && !text.contains("a-secret-name"), "{missing}");

    let mut requests: Vec<_> = lines.iter().map(|line| line["request"].as_str().expect("a name")).collect();
    requests.sort_unstable();
    requests.dedup();
    assert_eq!(requests.len(), 7, "each request has a name of its own");
    assert!(!text.contains(&handle) && !text.contains("state=") && !text.contains("a=b"), "{text}");
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_it_requests_are_lines_for_those_who_look_closely() {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    for (line, level) in [("level = \"info\"", None), ("level = \"debug\"", Some("DEBUG"))] {
        let (mut running, log) = logging(&simulator.url(), line).await;
        let url = format!("http://{}/notes/mcp", running.files.public);
        assert_eq!(send(http().post(url)).await.status, 401);
        running.signal(rustix::process::Signal::TERM).await;
        let levels: Vec<_> =
            lines(&log).iter().map(|line| line["level"].as_str().expect("a level").to_owned()).collect();
        assert_eq!(levels, level.into_iter().collect::<Vec<_>>(), "{line}");
    }
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_switched_on_and_off_while_all_goes_on() {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    let (running, log) = logging(&simulator.url(), "access = false").await;
    let ask = async || {
        let url = format!("http://{}/notes/mcp", running.files.public);
        assert_eq!(send(http().post(url)).await.status, 401);
    };
    let original = std::fs::read_to_string(&running.files.config).expect("there");
    let set = async |to: &str| {
        std::fs::write(&running.files.config, original.replace("access = false", to)).expect("written");
        let answer = sidekey(&["reload", "--config", running.config()]).await;
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    };
    ask().await;
    set("access = true").await;
    ask().await;
    eventually("the second is written", async || !lines(&log).is_empty()).await;
    set("access = false").await;
    ask().await;
    set("access = true").await;
    ask().await;
    eventually("the fourth is written", async || lines(&log).len() >= 2).await;
    assert_eq!(lines(&log).len(), 2, "the first and the third are not");
    simulator.stop().await;
}
