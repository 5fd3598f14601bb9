//! `sidekey run` and `sidekey env`: what a program gets, and what comes through it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use rustix::process::Signal;

use crate::process::out;
use crate::run_support::{Caller, Place, callers, running};
use crate::world::{admin, eventually};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The variables that a text of lines `NAME=value` sets.
fn variables(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

/// The names in the first column of a table of a document.
fn documented(heading: &str) -> BTreeSet<String> {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/run.md")).expect("there");
    let section = document.split(heading).nth(1).expect("the section").split("\n##").next().expect("a section");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| row.split('|').nth(1).expect("a column").split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_the_documented_variables_and_no_secret_ones() {
    for caller in callers() {
        let place = Place::of(caller).await;
        let mut command = place.sidekey(&["run", "--subject", "alice", "--", "env"]);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("OTHER", "kept").env("NODE_OPTIONS", "--trace-warnings");
        command.env("ALL_PROXY", "socks5://nowhere").env("SSH_AUTH_SOCK", "/nowhere").env("SIDEKEY_CONFIG", "/nowhere");
        let given = variables(&out(&command.output().await.expect("it runs")));
        let mut expected = documented("## What is set");
        expected.extend(["PATH", "OTHER"].map(str::to_owned));
        if caller == Caller::Root {
            expected.extend(documented("### A user of its own"));
        }
        assert_eq!(given.keys().cloned().collect::<BTreeSet<_>>(), expected, "{caller:?}");
        let proxy = format!(":x@{}", place.files.egress);
        assert!(given["HTTPS_PROXY"].starts_with("http://sidekey_h_") && given["HTTPS_PROXY"].ends_with(&proxy));
        for name in ["HTTP_PROXY", "https_proxy", "http_proxy"] {
            assert_eq!(given[name], given["HTTPS_PROXY"]);
        }
        assert_eq!(given["OTHER"], "kept");
        assert!(given["NODE_OPTIONS"].starts_with("--trace-warnings --require "), "{}", given["NODE_OPTIONS"]);
        let directory = std::path::Path::new(&given["SSL_CERT_FILE"]).parent().expect("a directory").to_owned();
        assert!(!directory.exists(), "it is removed with the program");
        place.server_is_gone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_exit_codes_pass_through_untouched() {
    for caller in callers() {
        let place = Place::of(caller).await;
        let mut sidekey =
            running(place.sidekey(&["run", "--subject", "alice", "--", "sh", "-c", "cat; printf done; exit 7"]));
        sidekey.go_on().await;
        assert_eq!(sidekey.line().await, "");
        drop(sidekey.input);
        assert_eq!(sidekey.lines.next_line().await.expect("text").as_deref(), Some("done"));
        assert_eq!(sidekey.lines.next_line().await.expect("text"), None);
        assert_eq!(sidekey.child.wait().await.expect("it ends").code(), Some(7), "{caller:?}");

        let both = place.run(&[], "echo out; echo err >&2").await;
        assert_eq!((text(&both.stdout), text(&both.stderr)), ("out\n".to_owned(), "err\n".to_owned()), "{caller:?}");
        // Whoever reads its output sees its end when the program closes it, not when it ends.
        let mut closing = place.start(&[], "exec >&-; read line");
        assert_eq!(closing.lines.next_line().await.expect("text"), None, "{caller:?}");
        closing.go_on().await;
        assert_eq!(closing.code().await, Some(0));

        let killed = place.run(&[], "kill -KILL $$").await;
        assert_eq!(killed.status.code(), Some(137), "{caller:?}");
        let absent = place.sidekey(&["run", "--subject", "alice", "--", "nonesuch"]).output().await.expect("it runs");
        assert_eq!(absent.status.code(), Some(127), "{caller:?}");
        assert!(text(&absent.stderr).contains("nonesuch: there is no such command"), "{}", text(&absent.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_program() {
    for caller in callers() {
        let place = Place::of(caller).await;
        for (signal, name) in
            [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"), (Signal::USR1, "USR1")]
        {
            let script = format!("trap 'echo got {name}; exit 3' {name}; echo ready; while :; do sleep 0.05; done");
            let mut sidekey = place.start(&[], &script);
            assert_eq!(sidekey.line().await, "ready");
            sidekey.signal(signal);
            assert_eq!(sidekey.line().await, format!("got {name}"), "{caller:?}");
            assert_eq!(sidekey.code().await, Some(3));
        }
        let mut dying = place.start(&[], "echo ready; exec sleep 1000");
        assert_eq!(dying.line().await, "ready");
        dying.signal(Signal::TERM);
        assert_eq!(dying.code().await, Some(128 + 15), "{caller:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_reaches_its_provider_by_its_real_name() {
    for caller in callers() {
        let place = Place::of(caller).await;
        let curl =
            "curl -sS -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer anything' https://api.github.com/user";
        let answer = place.run(&[], curl).await;
        assert_eq!(text(&answer.stdout), "200", "{caller:?}: {}", text(&answer.stderr));
        let python = "import urllib.request as r; print(r.urlopen(r.Request('https://api.github.com/user')).status)";
        let python =
            place.sidekey(&["run", "--subject", "alice", "--", "/usr/bin/env", "python3", "-c", python]).output().await;
        let python = python.expect("it runs");
        assert_eq!(text(&python.stdout), "200\n", "{caller:?}: {}", text(&python.stderr));
        // Node.js 20: its fetch knows no proxies, https brings no agent, http2 is another client.
        let script = r#"
            const https = require('node:https'), http2 = require('node:http2');
            const url = 'https://api.github.com/user';
            const get = () => new Promise((done, failed) =>
              https.get(url, { headers: { 'user-agent': 'x' } }, (answer) => (answer.resume(), answer.on('end', () => done(answer.statusCode)))).on('error', failed));
            const h2 = () => new Promise((done, failed) => {
              const session = http2.connect('https://api.github.com').on('error', failed);
              const stream = session.request({ ':path': '/user' }).on('response', (headers) => done(headers[':status']));
              stream.on('error', failed).on('end', () => session.close()).resume();
            });
            (async () => {
              const large = await fetch(url, { method: 'POST', body: 'x'.repeat(300000) });
              await large.arrayBuffer();
              const both = await Promise.all([fetch(url), fetch(url)]);
              await Promise.all(both.map((answer) => answer.text()));
              console.log([large.status > 0, ...both.map((answer) => answer.status), await get(), await h2()].join(' '));
            })().catch((error) => { console.log(error, error.cause); process.exitCode = 1; });
        "#;
        let mut node = place.sidekey(&["run", "--subject", "alice", "--", "node", "-e", script]);
        let answer = node.output().await.expect("it runs");
        assert_eq!(text(&answer.stdout).trim(), "true 200 200 200 200", "{caller:?}: {}", text(&answer.stderr));
        assert_eq!(text(&answer.stderr), "", "{caller:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_ends_with_its_program() {
    for caller in callers() {
        let place = Place::of(caller).await;
        let mut other = place.start(&[], "echo ready; read line");
        assert_eq!(other.line().await, "ready");
        let mut sidekey = place.start(&["--provider", "github"], "echo $HTTPS_PROXY; read line");
        let proxy = sidekey.line().await;
        let live = |handles: Vec<serde_json::Value>| {
            handles.into_iter().filter(|handle| handle["revoked_at"].is_null()).collect::<Vec<_>>()
        };
        let handles = live(place.handles().await);
        assert_eq!(handles.len(), 2);
        let own = handles.iter().find(|handle| handle["providers"] == serde_json::json!(["github"])).expect("there");
        assert_eq!((own["tunnels"].as_bool(), own["subject"].as_str()), (Some(true), Some("alice")));
        assert!(own["expires_at"].is_string(), "it does not outlive a `run` that was killed");
        let renewal = format!("/v1/handles/{}/renew", own["id"].as_str().expect("an id"));
        let renewed = admin(&place.socket(), "POST", &renewal, "{\"expires\":\"20m\"}").await;
        assert_eq!(renewed.status, 204, "{}", renewed.text());
        let later = live(place.handles().await).into_iter().find(|handle| handle["id"] == own["id"]).expect("there");
        assert!(later["expires_at"].as_str() > own["expires_at"].as_str(), "{later} {own}");
        sidekey.go_on().await;
        assert_eq!(sidekey.code().await, Some(0));
        assert_eq!(live(place.handles().await).len(), 1);
        let call = tokio::process::Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_connect}", "--proxy", &proxy, "https://api.github.com/user"])
            .output()
            .await
            .expect("it runs");
        assert_eq!(text(&call.stdout), "407", "{}", text(&call.stderr));

        let renewed = admin(&place.socket(), "POST", &renewal, "{\"expires\":\"10m\"}").await;
        assert_eq!(renewed.status, 404, "what was revoked stays so");
        other.go_on().await;
        assert_eq!(other.code().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_handle_stands_in_a_command_line() {
    let caller = callers()[0];
    let place = Place::of(caller).await;
    let mut sidekey = place.start(&["--recipe", "quickbooks"], "echo $QUICKBOOKS_REFRESH_TOKEN; read line");
    let handle = sidekey.line().await;
    assert!(handle.contains("sidekey_h_"), "{handle}");
    let mut seen = 0;
    for entry in std::fs::read_dir("/proc").expect("there").filter_map(Result::ok) {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        seen += usize::from(line.windows(8).any(|word| word == b"sidekey\0"));
        assert!(!line.windows(handle.len()).any(|word| word == handle.as_bytes()), "{}", text(&line));
    }
    assert!(seen > 0, "sidekey itself was seen");
    sidekey.go_on().await;
    assert_eq!(sidekey.code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipe_fills_in_what_was_captured() {
    for caller in callers() {
        let place = Place::of(caller).await;
        let answer = place.run(&["--recipe", "quickbooks"], "env | grep ^QUICKBOOKS_").await;
        let given = variables(&out(&answer));
        let captured = place.simulator.ledger().profile("quickbooks").grants.len();
        assert_eq!(captured, 2, "alice and bob are connected");
        assert!(given["QUICKBOOKS_REALM_ID"].bytes().all(|byte| byte.is_ascii_digit()), "{given:?}");
        assert_eq!(given["QUICKBOOKS_ENVIRONMENT"], "production");
        assert!(given["QUICKBOOKS_REFRESH_TOKEN"].contains("sidekey_h_"));
        let unknown = place.run(&["--recipe", "quickboks"], "true").await;
        assert_eq!(unknown.status.code(), Some(2));
        assert!(text(&unknown.stderr).contains("did you mean `quickbooks`?"), "{}", text(&unknown.stderr));
        let nobody =
            place.sidekey(&["run", "--recipe", "quickbooks", "--subject", "carol", "--", "true"]).output().await;
        let nobody = text(&nobody.expect("it runs").stderr);
        assert!(nobody.contains("carol is not connected to quickbooks"), "{nobody}");
        let command = ["run", "--recipe", "quickbooks", "--subject", "alice", "--label", "branch", "--", "true"];
        let branch = text(&place.sidekey(&command).output().await.expect("it runs").stderr);
        assert!(branch.contains("`sidekey connect quickbooks --subject alice --label branch` does it"), "{branch}");
        let whom = place.sidekey(&["run", "--", "true"]).output().await.expect("it runs");
        assert!(text(&whom.stderr).contains("--subject"), "{}", text(&whom.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_explained() {
    let place = Place::of(callers()[0]).await;
    let script = "curl -sS https://unlisted.example/; true";
    let strict = place.run(&["--strict", "--explain"], script).await;
    let said = text(&strict.stderr);
    assert!(said.contains("sidekey: refused once: CONNECT unlisted.example"), "{said}");
    let nothing = place.run(&["--explain"], "true").await;
    assert_eq!(text(&nothing.stderr), "sidekey: nothing was refused\n");
    assert_eq!(text(&nothing.stdout), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_environment_works_by_itself() {
    let place = Place::of(Caller::Ordinary).await;
    let mut server = place.start(&[], "echo ready; read line");
    assert_eq!(server.line().await, "ready");
    let directory = place.files.home.path().join("mounted");
    let directory = directory.to_str().expect("text");
    let print = |options: &[&str]| {
        let arguments = [&["env", "--subject", "alice", "--files", directory], options].concat();
        let mut command = place.sidekey(&arguments);
        async move { out(&command.output().await.expect("it runs")) }
    };
    let shell = print(&["--write", directory, "--issue"]).await;
    let script = format!("{shell}\ncurl -sS -o /dev/null -w '%{{http_code}}' https://api.github.com/user");
    let call = |script: String| async move {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null());
        let answer = command.output().await.expect("it runs");
        (text(&answer.stdout), text(&answer.stderr))
    };
    assert_eq!(call(script).await, ("200".to_owned(), String::new()));
    // Without a handle of its own it refers to one.
    let handle = print(&["--format", "json", "--issue"]).await;
    let handle: serde_json::Value = serde_json::from_str(&handle).expect("JSON");
    let proxy = handle["HTTPS_PROXY"].as_str().expect("set").to_owned();
    let handle = proxy.trim_start_matches("http://").split(':').next().expect("a name").to_owned();
    let shell = print(&[]).await;
    assert!(!shell.contains("sidekey_h_"), "{shell}");
    let script = format!(
        "SIDEKEY_HANDLE={handle}\n{shell}\ncurl -sS -o /dev/null -w '%{{http_code}}' https://api.github.com/user"
    );
    assert_eq!(call(script).await, ("200".to_owned(), String::new()));
    let pod = print(&["--format", "kubernetes", "--recipe", "github", "--egress", "sidekey:8701"]).await;
    assert!(pod.starts_with("- name: SIDEKEY_HANDLE\n"), "{pod}");
    assert!(pod.contains("- name: GITHUB_PERSONAL_ACCESS_TOKEN\n  value: \"$(SIDEKEY_HANDLE)\""), "{pod}");
    assert!(pod.contains("http://$(SIDEKEY_HANDLE):x@sidekey:8701"), "{pod}");
    let dotenv = print(&["--format", "dotenv"]).await;
    let names: BTreeSet<_> = variables(&dotenv).into_keys().collect();
    assert_eq!(names, documented("## What is set"));
    server.go_on().await;
    assert_eq!(server.code().await, Some(0));
    eventually("gone", async || !place.socket().exists()).await;
}
