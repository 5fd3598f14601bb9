//! Clients whose id is the URL of a document (Client ID Metadata Documents): what the document says counts, for as long as
//! it says so.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sidekey::base::clock::ManualClock;

use crate::document_server::{DocumentServer, Reply};
use crate::front::{Front, Tokens, WEB_REDIRECT_URI, assert_oauth_error, decision, own_path, parameter};
use crate::issuer_support::{Stage, assert_page, get, is_taken, restarted};

async fn start() -> (DocumentServer, Front, ManualClock) {
    let server = DocumentServer::start();
    let (stage, clock) = Stage::with_clock();
    let front = Stage { documents: server.client(), ..stage }.start().await;
    (server, front, clock)
}

async fn status(front: &Front, client_id: &str) -> u16 {
    get(front, &front.authorize_url(client_id, &[])).await.status
}

/// The names of the clients that consent pages show.
async fn is_shown(front: &Front, client_id: &str, name: &str) -> bool {
    let page = get(front, &front.authorize_url(client_id, &[])).await;
    assert_eq!(page.status, 200, "{}", page.text());
    page.text().contains(name)
}

#[tokio::test]
async fn a_document_makes_a_client() {
    let (server, front, _clock) = start().await;
    let id = server.publish("/client.json", &[]);
    let mut browser = front.browser("alice");
    let (url, page) = browser.open(&front.authorize_url(&id, &[])).await.page();
    let text = page.text();
    for shown in ["A documented client", "Vouched for by", "<dd>localhost</dd>", "127.0.0.1:33418"] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    assert!(!text.contains("registered itself"), "{text}");
    let back = browser.submit(&own_path(&url, "/authorize"), &decision(&page, "approve", &["notion"])).await.away();
    let code = parameter(&back, "code").expect("a code");
    let tokens = Tokens::of(id.clone(), &front.redeem(&id, &code, &[]).await);
    assert!(is_taken(&front, &tokens.access).await);
    assert_eq!(front.refresh(&id, &tokens.refresh).await.status, 200);
    assert_eq!(server.requests(), ["/client.json"], "once for all of that");
    front.stop().await;
}

#[tokio::test]
async fn what_is_not_understood_in_a_document_is_left_alone() {
    let (server, front, _clock) = start().await;
    let id = server.publish(
        "/client.json",
        &[
            ("grant_types", json!(["authorization_code", "urn:ietf:params:oauth:grant-type:device_code", "x"])),
            ("response_types", json!(["code", "token"])),
            ("token_endpoint_auth_method", json!(null)),
            ("redirect_uris", json!([7, "myapp:/cb", "http://127.0.0.1/callback", "https://evil.example/#x"])),
            ("logo_uri", json!("https://169.254.169.254/latest/meta-data")),
            ("unknown", json!({ "nested": [1] })),
            ("application_type", json!("native")),
        ],
    );
    let back = front.browser("alice").authorize(&front.authorize_url(&id, &[])).await;
    assert!(parameter(&back, "code").is_some(), "{back}");
    let left_out = front.authorize_url(&id, &[("redirect_uri", "myapp:/cb")]);
    assert_page(&get(&front, &left_out).await, "what may not be registered is not registered");
    front.stop().await;
}

#[tokio::test]
async fn a_document_that_describes_no_client_is_no_use_and_not_remembered() {
    let (server, front, _clock) = start().await;
    let (url, path) = (server.url("/client.json"), "/client.json");
    let private = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": "a", "y": "b", "d": "c" }] });
    let keyed = json!("private_key_jwt");
    for changes in [
        vec![("client_id", json!(null))],
        vec![("client_id", json!(format!("{url}/")))],
        vec![("client_id", json!(format!("{url}?")))],
        vec![("client_id", json!(url.replace("localhost", "LOCALHOST")))],
        vec![("client_id", json!(url.replace("https", "http")))],
        vec![("client_id", json!(server.url("/other.json")))],
        vec![("client_id", json!([url]))],
        vec![("client_name", json!(null))],
        vec![("client_name", json!("a\u{202e}b"))],
        vec![("client_name", json!("x".repeat(101)))],
        vec![("redirect_uris", json!(null))],
        vec![("redirect_uris", json!([]))],
        vec![("redirect_uris", json!(["javascript:alert(1)", "http://evil.example/"]))],
        vec![("redirect_uris", json!("http://127.0.0.1:33418/callback"))],
        vec![("client_secret", json!("x"))],
        vec![("client_secret_expires_at", json!(0))],
        vec![("token_endpoint_auth_method", json!("client_secret_post"))],
        vec![("token_endpoint_auth_method", json!("client_secret_basic"))],
        vec![("token_endpoint_auth_method", json!("client_secret_jwt"))],
        vec![("token_endpoint_auth_method", json!("unknown"))],
        vec![("token_endpoint_auth_method", keyed.clone())],
        vec![("token_endpoint_auth_method", keyed.clone()), ("jwks", private)],
        vec![("token_endpoint_auth_method", keyed.clone()), ("jwks", json!({ "keys": [] }))],
        vec![("token_endpoint_auth_method", keyed.clone()), ("jwks_uri", json!("http://localhost/jwks.json"))],
        vec![("token_endpoint_auth_method", keyed), ("jwks_uri", json!("file:///etc/passwd"))],
    ] {
        server.publish(path, &changes);
        assert_page(&get(&front, &front.authorize_url(&url, &[])).await, &format!("{changes:?}"));
    }
    let good = server.document(path, &[]).to_string();
    for body in ["", "null", "[]", "x", &good[1..], &good.replacen('{', "{\"client_name\":\"Another\",", 1)] {
        server.put(path, Reply::new(200, "application/json", body.into()));
        assert_page(&get(&front, &front.authorize_url(&url, &[])).await, body);
    }
    server.publish(path, &[]);
    assert_eq!(status(&front, &url).await, 200, "it is good at once when the document is");
    front.stop().await;
}

#[tokio::test]
async fn a_document_is_kept_as_long_as_it_says() {
    for (header, seconds) in
        [("", 3600), ("max-age=600", 600), ("no-store", 60), ("max-age=1", 60), ("max-age=99999999", 86_400)]
    {
        let (server, front, clock) = start().await;
        let id = server.url("/client.json");
        let publish = |name: &str| {
            let reply = Reply::json(&server.document("/client.json", &[("client_name", json!(name))]));
            server.put("/client.json", if header.is_empty() { reply } else { reply.with("cache-control", header) });
        };
        publish("First name");
        assert!(is_shown(&front, &id, "First name").await);
        publish("Second name");
        clock.advance(Duration::from_secs(seconds - 1));
        assert!(is_shown(&front, &id, "First name").await, "{header}");
        clock.advance(Duration::from_secs(1));
        assert!(is_shown(&front, &id, "Second name").await, "{header}");
        assert_eq!(server.requests().len(), 2, "{header}");
        front.stop().await;
    }
}

#[tokio::test]
async fn the_last_good_copy_serves_while_the_site_does_not() {
    let (server, front, clock) = start().await;
    let id = server.publish("/client.json", &[]);
    assert_eq!(status(&front, &id).await, 200);
    let broken = Reply::new(200, "application/json", b"{}".to_vec());
    for (what, reply) in [("an error", Reply::new(503, "text/html", Vec::new())), ("nonsense", broken)] {
        server.put("/client.json", reply);
        clock.advance(Duration::from_secs(86_400));
        assert_eq!(status(&front, &id).await, 200, "{what}");
    }
    server.set_down(true);
    clock.advance(Duration::from_secs(86_400));
    let back = front.browser("alice").authorize(&front.authorize_url(&id, &[])).await;
    let code = parameter(&back, "code").expect("a code");
    assert_eq!(front.redeem(&id, &code, &[]).await.status, 200, "it hangs up");
    // After a restart too, and long after.
    clock.advance(Duration::from_secs(86_400));
    let front = restarted(front, Arc::new(clock.clone()), server.client()).await;
    assert_eq!(status(&front, &id).await, 200);
    assert_page(&get(&front, &front.authorize_url(&server.url("/new.json"), &[])).await, "one that was never seen");
    server.set_down(false);
    server.publish("/client.json", &[("client_name", json!("A new name"))]);
    clock.advance(Duration::from_secs(60));
    assert!(is_shown(&front, &id, "A new name").await, "it is asked again after a minute");
    front.stop().await;
}

#[tokio::test]
async fn the_operators_own_copies_are_not_fetched() {
    let server = DocumentServer::start();
    let id = server.publish("/client.json", &[("client_name", json!("From the site"))]);
    let pinned = server.document("/client.json", &[("client_name", json!("From the operator"))]);
    for enabled in [true, false] {
        let tables = format!("[issuer.client_documents]\nenabled = {enabled}\npinned = \"client-documents\"\n");
        let files = vec![("client-documents/a.json".to_owned(), pinned.to_string())];
        let front = Stage { tables, files, documents: server.client(), ..Stage::default() }.start().await;
        assert!(is_shown(&front, &id, "From the operator").await);
        let back = front.browser("alice").authorize(&front.authorize_url(&id, &[])).await;
        assert!(parameter(&back, "code").is_some(), "{back}");
        front.stop().await;
    }
    assert_eq!(server.requests(), [""; 0]);
}

#[tokio::test]
async fn a_code_keeps_what_it_was_issued_for_when_the_document_changes() {
    let (server, front, clock) = start().await;
    let short = |changes: &[(&str, serde_json::Value)]| {
        let reply = Reply::json(&server.document("/client.json", changes)).with("cache-control", "max-age=60");
        server.put("/client.json", reply);
    };
    short(&[]);
    let id = server.url("/client.json");
    let code = front.code(&id, "alice").await;
    let stolen = front.code(&id, "alice").await;
    short(&[("redirect_uris", json!(["https://evil.example/cb"]))]);
    clock.advance(Duration::from_secs(59));
    assert_eq!(status(&front, &id).await, 200, "still the old document");
    clock.advance(Duration::from_millis(500));
    let answer = front.redeem(&id, &stolen, &[("redirect_uri", "https://evil.example/cb")]).await;
    assert_oauth_error(&answer, 400, "invalid_grant");
    let tokens = Tokens::of(id.clone(), &front.redeem(&id, &code, &[]).await);
    assert!(is_taken(&front, &tokens.access).await);
    clock.advance(Duration::from_secs(60));
    assert_page(&get(&front, &front.authorize_url(&id, &[])).await, "the new document has no such redirect URI");
    front.stop().await;
}

#[tokio::test]
async fn a_client_that_changed_is_approved_anew() {
    let (server, front, clock) = start().await;
    let id = server.publish("/client.json", &[]);
    let url = front.authorize_url(&id, &[("redirect_uri", WEB_REDIRECT_URI)]);
    let mut browser = front.browser("alice");
    let (at, page) = browser.open(&url).await.page();
    let everything = decision(&page, "approve", &["notion", "github"]);
    let back = browser.submit(&own_path(&at, "/authorize"), &everything).await.away();
    assert!(parameter(&back, "code").is_some(), "{back}");
    let again = browser.get(&url).await;
    assert_eq!(again.status, 303, "the same client of the same user");
    assert!(parameter(again.header("location"), "code").is_some());
    server.publish("/client.json", &[("client_name", json!("Your bank"))]);
    clock.advance(Duration::from_secs(3600));
    let page = browser.get(&url).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Your bank"), "{}", page.text());
    front.stop().await;
}
