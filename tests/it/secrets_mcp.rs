//! No token, code, cookie or handle of journeys J2 and J3 in any log line, metric or file, and none of the client's in
//! what the MCP server receives.

use std::process::Stdio;

use serde_json::json;
use sidekey::base::digest::sha256_base64url;
use sidekey_simulator::Options;
use sidekey_simulator::leaks::LeakSearch;

use crate::client::{form, http, send};
use crate::front::{Browser, McpServer, REDIRECT_URI, Tokens, VERIFIER, parameter};
use crate::process::{Program, out, sidekey};
use crate::secrets::leaks;
use crate::world::{Files, Setup};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_the_issuer_hands_out_is_written_down() {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    let server = McpServer::start().await;
    let tables = format!(
        "[logging]\nlevel = \"trace\"\n[issuer]\nidentity = \"notion\"\n[issuer.registration]\nenabled = true\n\
         [servers.notes]\nupstream = \"{}\"\nproviders = [\"notion\"]\n",
        server.url
    );
    let files = Files::write(&simulator.url(), &Setup { tables, ..Setup::default() });
    let public = format!("http://{}", files.public);
    server.set_egress(&format!("http://{}", files.egress));
    let log_path = files.home.path().join("log");
    let log = std::fs::File::create(&log_path).expect("made");
    let mut running = Program::start(files, &[], Stdio::from(log)).await;
    let client = http();
    let mut secrets: Vec<String> = Vec::new();

    // A client with a secret, a browser, a code, tokens.
    let metadata = json!({ "client_name": "A client", "redirect_uris": [REDIRECT_URI] });
    let registering = client.post(format!("{public}/register")).header("content-type", "application/json");
    let registered = send(registering.body(metadata.to_string())).await.json();
    let text = |name: &str| registered[name].as_str().expect("there").to_owned();
    let (client_id, client_secret) = (text("client_id"), text("client_secret"));
    let mut browser = Browser::new("alice");
    let challenge = sha256_base64url(VERIFIER.as_bytes());
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("response_type", "code"),
            ("client_id", &client_id),
            ("redirect_uri", REDIRECT_URI),
            ("state", "a-state-that-only-the-client-may-know"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ])
        .finish();
    let back = browser.authorize(&format!("{public}/authorize?{query}")).await;
    let code = parameter(&back, "code").expect("a code");
    let token = async |fields: &[(&str, &str)]| {
        let credentials = [("client_id", client_id.as_str()), ("client_secret", client_secret.as_str())];
        send(form(client.post(format!("{public}/token")), &[fields, &credentials].concat())).await
    };
    let redeem = [("grant_type", "authorization_code"), ("code", &code), ("code_verifier", VERIFIER)];
    let first = Tokens::of(client_id.clone(), &token(&redeem).await);
    let second = token(&[("grant_type", "refresh_token"), ("refresh_token", &first.refresh)]).await;
    let second = Tokens::of(client_id.clone(), &second);

    // Calls that go through, and some that do not.
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "api", "params": { "path": "/notion/v1/users/me" } });
    for bearer in [&first.access, &second.access, &second.refresh, &code] {
        let request = client.post(format!("{public}/notes/mcp")).bearer_auth(bearer);
        send(request.header("content-type", "application/json").body(call.to_string())).await;
    }
    send(client.get(format!("{public}/notes/mcp?access_token={}", first.access))).await;
    // All of it again: a code, and a refresh token that was replaced.
    assert_eq!(token(&redeem).await.status, 400);
    assert_eq!(token(&[("grant_type", "refresh_token"), ("refresh_token", &first.refresh)]).await.status, 400);
    let listed = out(&sidekey(&["grants", "list", "--config", running.config()]).await);
    assert!(listed.contains("code_replayed"), "{listed}");

    let received = server.requests();
    assert_eq!(received.len(), 2, "only good tokens get there");
    let handle = received[0].headers["authorization"].to_str().expect("text").trim_start_matches("Bearer ").to_owned();
    secrets.extend([first.access, first.refresh, second.access, second.refresh, code, client_secret]);
    let search = LeakSearch::new(&secrets);
    let all_received = format!("{received:?}");
    assert_eq!(leaks(&search, &secrets, all_received.as_bytes()), Vec::<String>::new(), "at the MCP server");
    secrets.push(handle);
    secrets.push("a-state-that-only-the-client-may-know".to_owned());
    secrets.push(VERIFIER.to_owned());
    secrets.extend(browser.cookies.values().cloned());
    secrets.extend(browser.spent.iter().cloned());
    assert!(secrets.len() >= 12, "cookies of consent, visit, flow and session are among them: {}", secrets.len());

    let search = LeakSearch::new(&secrets);
    let metrics = send(client.get(format!("http://{}/metrics", running.files.metrics))).await.body;
    let told = [metrics, listed.into_bytes()].concat();
    assert_eq!(leaks(&search, &secrets, &told), Vec::<String>::new(), "in metrics and answers of the command line");
    // The visit is kept as it is, and with it the state: it is no credential of ours.
    let sealed: Vec<String> = secrets.iter().filter(|secret| !secret.starts_with("a-state")).cloned().collect();
    for stopped in [false, true] {
        if stopped {
            running.signal(rustix::process::Signal::TERM).await;
        }
        let log = std::fs::read(&log_path).expect("there");
        assert!(log.len() > 2_000 && memchr::memmem::find(&log, b"mcp_call").is_some(), "the log says what happened");
        assert_eq!(leaks(&search, &secrets, &log), Vec::<String>::new(), "in the log");
        let search = LeakSearch::new(&sealed);
        for entry in std::fs::read_dir(running.files.data()).expect("there") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let content = std::fs::read(&path).expect("readable");
                assert_eq!(leaks(&search, &sealed, &content), Vec::<String>::new(), "in {}", path.display());
            }
        }
    }
    simulator.stop().await;
}
