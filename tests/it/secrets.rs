//! No secret anywhere but sealed on disk: all journeys with the log at `trace`, then a search of every log line, metric,
//! page, error and store file for every secret there was.

use std::process::Stdio;

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
    let setup = Setup { tables: "[logging]\nlevel = \"trace\"\n".to_owned(), ..Setup::default() };
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
    for arguments in
        [vec!["status"], vec!["status", "--json"], vec!["handle", "list"], vec!["handle", "list", "--json"]]
    {
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
