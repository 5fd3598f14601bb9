//! A provider that nobody has heard of: one file is all that it takes.

use std::process::Stdio;

use sidekey_simulator::{ClientAuth, Options, RequestFormat, Rotation, Simulator};

use crate::client::{Answer, http, send};
use crate::process::{Program, out, sidekey};
use crate::world::{Files, Setup};

/// An accounting service that does not exist.
const LEDGERLY: &str = r#"
display_name = "Ledgerly"
documentation = "https://ledgerly.example/docs/oauth"
checked_on = "2026-11-21"
default_api = "ledgerly"
realm = ["book_id"]

[authorize]
url = "SIMULATOR/generic/authorize"
pkce = "required"
scopes = ["offline"]

[token]
url = "SIMULATOR/generic/token"
client_authentication = ["basic"]
request_format = "json"

[lifetime]
access = "1h"

[rotation]
model = "leeway"
grace = "5m"

[[post_connect]]
url = "SIMULATOR/generic/api/echo"
item_name = "/user"
capture = { book_id = "/realm" }

[revoke]
url = "SIMULATOR/generic/revoke"
client_authentication = "basic"
body = { token = "{refresh_token}" }

[api]
expired = [{ status = 401, www_authenticate_error = "invalid_token" }]
headers.always = { x-book = "{book_id}" }

[apis.ledgerly]
origin = "SIMULATOR"
base_path = "/generic/api"
paths = ["/v1/books/{book_id}/"]
scopes = ["books:read", "books:write"]
"#;

async fn simulator() -> Simulator {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    simulator.set("generic", |settings| {
        settings.realm_id = "book-7".to_owned();
        settings.client_auth = ClientAuth::Basic;
        settings.request_format = RequestFormat::Json;
        settings.pkce_required = true;
        settings.rotation = Rotation::Leeway;
        settings.grace_s = 300.0;
    });
    simulator
}

#[tokio::test]
async fn one_file_adds_a_provider() {
    let simulator = simulator().await;
    let setup = Setup { providers: vec![("ledgerly", LEDGERLY, "")], ..Setup::default() };
    let files = Files::write(&simulator.url(), &setup);
    let file = files.home.path().join("providers/ledgerly.toml");
    let linted = sidekey(&["providers", "lint", file.to_str().expect("text")]).await;
    assert!(out(&linted).contains("1 file: 0 errors"), "{}", out(&linted));
    let running = Program::start(files, &[], Stdio::null()).await;

    running.connect("ledgerly", "alice").await;
    let ledger = simulator.profile_ledger("generic");
    assert_eq!((ledger.counters.code_exchanges, ledger.grants.len()), (1, 1));
    assert_eq!(ledger.grants[0].scope, "offline books:read books:write");

    let handle = running.handle("alice").await;
    let call = async |path: &str| -> Answer {
        send(http().get(format!("http://{}{path}", running.files.egress)).bearer_auth(&handle)).await
    };
    let answer = call("/ledgerly/v1/books/0/invoices?page=2").await;
    let arrived = answer.json();
    assert_eq!((answer.status, &arrived["user"]), (200, &"user-1".into()), "{arrived}");
    assert_eq!(arrived["api_path"], "/v1/books/book-7/invoices");
    assert_eq!((&arrived["query"], &arrived["headers"]["x-book"]), (&"page=2".into(), &"book-7".into()));
    let refused = call("/ledgerly/v1/books/book-8/invoices").await;
    assert_eq!((refused.status, &refused.json()["type"]), (403, &"urn:sidekey:error:other-tenant".into()));

    assert_eq!(simulator.expire("generic"), 1);
    let later = call("/ledgerly/v1/books/book-7/invoices").await;
    assert_eq!(later.status, 200, "{}", later.text());
    assert_ne!(later.json()["token_id"], arrived["token_id"]);
    let counters = simulator.profile_counters("generic");
    assert_eq!((counters.refreshes_ok, counters.refreshes_rejected, counters.api_calls_expired), (1, 0, 1));

    let said = sidekey(&["disconnect", "ledgerly", "--subject", "alice", "--config", running.config()]).await;
    assert!(out(&said).starts_with("alice is disconnected from ledgerly"), "{}", out(&said));
    assert_eq!(simulator.profile_counters("generic").revokes, 1);
    let ended = call("/ledgerly/v1/books/book-7/invoices").await;
    assert_eq!((ended.status, &ended.json()["type"]), (403, &"urn:sidekey:error:not-connected".into()));
    drop(running);
    simulator.stop().await;
}
