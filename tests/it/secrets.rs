//! No secret anywhere but sealed on disk: all journeys with the log at `trace`, then a search of every log line, metric,
//! page, error and store file for every secret there was.

use std::process::Stdio;

use sidekey::base::digest::sha256;
use sidekey::base::random::SystemRandom;
use sidekey::model::api_key::hash_text;
use sidekey::model::issued_token::{Kind, generate};
use sidekey_simulator::leaks::LeakSearch;
use sidekey_simulator::{Endpoint, Fault, FaultKind, Options};

use crate::client::{http, raw, send};
use crate::process::{Program, out, sidekey};
use crate::world::{Files, Setup, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_anywhere_but_sealed_on_disk() {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    for profile in ["quickbooks", "github", "notion", "gitlab"] {
        simulator.set(profile, |settings| settings.access_lifetime_s = 1.0);
    }
    let api_key = generate(Kind::ApiKey, &SystemRandom).expose().to_owned();
    let hash = hash_text(&sha256(api_key.as_bytes()));
    let api = format!("[api]\nreturn_to = [\"https://app.example.com/\"]\n[api.keys.partner]\nhash = \"{hash}\"\n");
    let setup = Setup { tables: format!("[logging]\nlevel = \"trace\"\naccess = true\n{api}"), ..Setup::default() };
    let files = Files::write(&simulator.url(), &setup);
    let log_path = files.home.path().join("log");
    let log = std::fs::File::create(&log_path).expect("made");
    let mut running = Program::start(files, &[], Stdio::from(log)).await;
    let mut seen: Vec<u8> = Vec::new();
    let mut secrets: Vec<String> = Vec::new();

    // J1, also with everything that goes wrong in it.
    let client = http();
    for provider in ["quickbooks", "github", "notion", "gitlab"] {
        let answer =
            sidekey(&["connect", provider, "--subject", "alice", "--json", "--config", running.config()]).await;
        let link: serde_json::Value = serde_json::from_str(&out(&answer)).expect("JSON");
        let link = link["url"].as_str().expect("a URL").to_owned();
        let page = send(client.get(&link)).await;
        let begun = send(client.post(&link)).await;
        let cookie = begun.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
        let agreed = send(client.get(begun.header("location"))).await;
        let callback = agreed.header("location").to_owned();
        let done = send(client.get(&callback).header("cookie", &cookie)).await;
        assert_eq!(done.status, 303, "{}", done.text());
        let again = send(client.get(&callback).header("cookie", &cookie)).await;
        let elsewhere = send(client.get(format!("{callback}&code=twice"))).await;
        for answer in [page, done, again, elsewhere] {
            seen.extend_from_slice(format!("{:?}", answer.headers).as_bytes());
            seen.extend_from_slice(&answer.body);
        }
        secrets.push(link.rsplit('/').next().expect("a token").to_owned());
        secrets.push(cookie.split('=').nth(1).expect("a value").to_owned());
        let state = url::Url::parse(&callback).expect("a URL");
        secrets.extend(state.query_pairs().filter(|(name, _)| name == "state").map(|(_, value)| value.into_owned()));
    }
    // A partner does the same, well and badly.
    secrets.push(api_key.clone());
    let public = |path: &str| format!("http://{}/api/v1/oauth/{path}", running.files.public);
    let body = r#"{"return_to": "https://app.example.com/done"}"#;
    let made = client.post(public("quickbooks/connect/org-1")).bearer_auth(&api_key);
    let made = send(made.header("content-type", "application/json").body(body)).await;
    let url = made.json()["url"].as_str().expect("a URL").to_owned();
    let begun = send(client.get(&url)).await;
    let cookie = begun.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
    let agreed = send(client.get(begun.header("location"))).await;
    let done = send(client.get(agreed.header("location")).header("cookie", &cookie)).await;
    assert!(done.header("location").starts_with("https://app.example.com/done?"), "{}", done.text());
    let again = send(client.get(agreed.header("location")).header("accept", "application/json")).await;
    let over = send(client.get(&url).header("accept", "application/json")).await;
    let mut answers = vec![done, again, over];
    let bad = format!("{}x", &api_key[..api_key.len() - 1]);
    for key in [&api_key, &bad] {
        for path in ["quickbooks/status/org-1", "connections", "quickbooks/sites/org-1", "connections?cursor=x", "x"] {
            answers.push(send(client.get(public(path)).bearer_auth(key)).await);
        }
        answers.push(send(client.get(public(&format!("quickbooks/status/org-1?label={key}"))).bearer_auth(key)).await);
        answers.push(send(client.post(public("quickbooks/disconnect/org-1")).bearer_auth(key)).await);
    }
    for answer in answers {
        seen.extend_from_slice(format!("{:?}", answer.headers).as_bytes());
        seen.extend_from_slice(&answer.body);
    }
    secrets.push(url.split("token=").nth(1).expect("a token").to_owned());
    secrets.push(cookie.split('=').nth(1).expect("a value").to_owned());
    let listed = sidekey(&["api-keys", "list", "--config", running.config()]).await;
    assert!(
        out(&listed).contains("partner  all providers  all subjects  live  ends never  used 20"),
        "{}",
        out(&listed)
    );
    seen.extend_from_slice(out(&listed).as_bytes());

    let handle = running.handle("alice").await;
    secrets.push(handle.clone());

    // J4 and J5: calls, refusals, refreshes, failing refreshes.
    let egress = |path: &str| format!("http://{}{path}", running.files.egress);
    for path in [
        "/quickbooks/v3/company/0/companyinfo/0?secret=query-value-1234567",
        "/quickbooks/v3/company/1/companyinfo/0",
        "/github/user/repos",
        "/github/status/500",
        "/notion/v1/users/me",
        "/gitlab/api/v4/projects/a%2Fb",
        "/nowhere",
    ] {
        let answer = send(client.get(egress(path)).bearer_auth(&handle)).await;
        seen.extend_from_slice(format!("{:?}", answer.headers).as_bytes());
        seen.extend_from_slice(&answer.body);
    }
    secrets.push("query-value-1234567".to_owned());
    let in_url = format!("/~{handle}/github/user");
    seen.extend_from_slice(format!("{:?}", send(client.get(egress(&in_url))).await.headers).as_bytes());
    let odd =
        format!("GET /github/../x HTTP/1.1\r\nhost: a b\r\nauthorization: Bearer {handle}\r\nx: {handle}\r\n\r\n");
    seen.extend_from_slice(&raw(running.files.egress, odd.as_bytes()).await.body);
    eventually("refreshes", async || {
        let ledger = simulator.ledger();
        ["quickbooks", "github", "gitlab"].iter().all(|profile| ledger.profile(profile).counters.refreshes_ok >= 2)
    })
    .await;
    let echo = FaultKind::Error {
        error: simulator.issued_values().refresh_tokens[0].clone(),
        description: Some(simulator.issued_values().refresh_tokens[0].clone()),
        status: Some(400),
    };
    simulator.add_fault(Fault::new("quickbooks", Endpoint::Refresh, echo));
    simulator.add_fault(Fault::new("github", Endpoint::Refresh, FaultKind::CommitHalfBody));
    eventually("a refresh fails", async || {
        let status = out(&sidekey(&["status", "--json", "--config", running.config()]).await);
        status.matches("last_error").count() >= 2
    })
    .await;
    for arguments in [
        vec!["status"],
        vec!["status", "--json"],
        vec!["handle", "list"],
        vec!["handle", "list", "--json"],
        vec!["connections", "export"],
        vec!["connections", "export", "--format", "csv"],
        vec!["audit"],
        vec!["inspect", "quickbooks", "--subject", "alice"],
        vec!["inspect", "quickbooks", "--subject", "alice", "--json"],
        vec!["simulate-failure", "quickbooks", "--subject", "alice", "--verbose"],
        vec!["simulate-failure", "quickbooks", "--subject", "alice", "--json"],
    ] {
        seen.extend_from_slice(
            out(&sidekey(&[arguments.as_slice(), &["--config", running.config()]].concat()).await).as_bytes(),
        );
    }
    for path in ["/metrics", "/readyz", "/livez"] {
        seen.extend_from_slice(&send(client.get(format!("http://{}{path}", running.files.metrics))).await.body);
    }
    let issued = simulator.issued_values();
    assert!(issued.access_tokens.len() >= 8 && issued.codes.len() >= 4);
    secrets.extend([issued.access_tokens, issued.refresh_tokens, issued.codes, issued.client_secrets].concat());
    secrets
        .push(std::fs::read_to_string(running.files.home.path().join("sidekey.key")).expect("there").trim().to_owned());
    let search = LeakSearch::new(&secrets);

    // While it runs, and once more when it has stopped and the write-ahead log is folded in.
    for stopped in [false, true] {
        if stopped {
            running.signal(rustix::process::Signal::TERM).await;
        }
        let log = std::fs::read(&log_path).expect("there");
        assert!(log.len() > 5_000, "the log is at trace level: {}", log.len());
        for path in ["/connect/{token}", "/callback/{provider}", "/{handle}/github/user"] {
            let line = format!("\"path\":\"{path}\"");
            assert!(memchr::memmem::find(&log, line.as_bytes()).is_some(), "{path} is in the access log");
        }
        assert_eq!(leaks(&search, &secrets, &log), Vec::<String>::new(), "in the log");
        for entry in std::fs::read_dir(running.files.data()).expect("there") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let content = std::fs::read(&path).expect("readable");
                assert_eq!(leaks(&search, &secrets, &content), Vec::<String>::new(), "in {}", path.display());
            }
        }
    }
    assert_eq!(
        leaks(&search, &secrets, &seen),
        Vec::<String>::new(),
        "in pages, errors, metrics, answers of the command line"
    );
    simulator.stop().await;
}

/// What was found, with a little of the surroundings.
pub fn leaks(search: &LeakSearch, secrets: &[String], haystack: &[u8]) -> Vec<String> {
    let around = |secret: &String| {
        let at = haystack.windows(secret.len()).position(|window| window == secret.as_bytes()).unwrap_or(0);
        String::from_utf8_lossy(&haystack[at.saturating_sub(200)..(at + 60).min(haystack.len())]).into_owned()
    };
    search.find(haystack).into_iter().map(|index| around(&secrets[index])).collect()
}

#[tokio::test]
async fn the_search_finds_what_is_planted() {
    let secrets = vec!["a-secret-that-was-planted".to_owned()];
    let search = LeakSearch::new(&secrets);
    assert_eq!(leaks(&search, &secrets, b"log line with a-secret-that-was-planted in it").len(), 1);
}
