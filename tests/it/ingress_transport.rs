//! What an MCP server answers reaches the client as it is, except for what is between the server and us.

use std::path::Path;

use serde_json::{Value, json};
use sidekey_simulator::{Options, TlsIdentity};

use crate::client::{Answer, send};
use crate::front::{Front, assert_problem};
use crate::front_support::{Special, start};
use crate::wire::{Wire, head, raw_server};

/// Has the server answer in a certain way.
async fn answered(front: &Front, token: &str, status: u16, headers: Value, body: &Value) -> Answer {
    front.call(token, "status", json!({ "status": status, "headers": headers, "body": body })).await
}

#[tokio::test]
async fn statuses_and_bodies_of_the_server_are_its_own() {
    let front = Front::start().await;
    let token = front.authorized("alice").await.access;
    let body = json!({ "jsonrpc": "2.0", "error": { "code": -32022, "data": { "supported": ["2025-11-25"] } } });
    for status in [200, 202, 400, 402, 403, 404, 405, 406, 409, 410, 415, 422, 429, 500, 501, 503] {
        let answer = answered(&front, &token, status, json!({ "retry-after": "7", "allow": "POST" }), &body).await;
        assert_eq!((answer.status, answer.text()), (status, body.to_string()));
        assert_eq!((answer.header("retry-after"), answer.header("allow")), ("7", "POST"));
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(!answer.headers.contains_key("www-authenticate"));
    }
    front.stop().await;
}

#[tokio::test]
async fn headers_of_the_server_reach_the_client_except_for_what_is_not_for_it() {
    let front = Front::start().await;
    let token = front.authorized("alice").await.access;
    let headers = json!({
        "mcp-protocol-version": "2026-07-28",
        "mcp-param-region": "eu",
        "x-own": "kept",
        "x-accel-buffering": "no",
        "www-authenticate": "Bearer resource_metadata=\"https://evil.example/\"",
        "set-cookie": "session=1",
        "cache-control": "public, max-age=3600",
        "vary": "Accept",
        "access-control-allow-origin": "https://evil.example",
        "access-control-expose-headers": "X-Own",
    });
    for status in [200, 403, 500] {
        let answer = answered(&front, &token, status, headers.clone(), &json!({})).await;
        for (name, value) in [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-param-region", "eu"),
            ("x-own", "kept"),
            ("x-accel-buffering", "no"),
            ("cache-control", "no-store"),
            ("access-control-allow-origin", "*"),
            (
                "access-control-expose-headers",
                "WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version, Retry-After, RateLimit-Limit, \
                 RateLimit-Remaining, RateLimit-Reset",
            ),
        ] {
            let values: Vec<_> = answer.headers.get_all(name).iter().collect();
            assert_eq!(values, [value], "{status} {name}");
        }
        let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["Accept", "Authorization"]);
        for name in ["www-authenticate", "set-cookie"] {
            assert!(!answer.headers.contains_key(name), "{status} {name}");
        }
    }
    front.stop().await;
}

#[tokio::test]
async fn the_servers_quarrel_with_the_handle_is_not_the_clients() {
    let front = Front::start().await;
    let token = front.authorized("alice").await.access;
    let challenge = json!({ "www-authenticate": "Bearer error=\"invalid_token\"" });
    let answer = answered(&front, &token, 401, challenge, &json!({ "error": "who are you" })).await;
    assert_eq!((answer.status, answer.json()), (502, json!({ "error": "who are you" })));
    assert!(!answer.headers.contains_key("www-authenticate"));
    assert_eq!(front.ping(&token).await.status, 200, "the token is still good");
    front.stop().await;
}

#[tokio::test]
async fn redirects_of_the_server_are_passed_on_and_not_followed() {
    let front = Front::start().await;
    let token = front.authorized("alice").await.access;
    for status in [301, 302, 303, 307, 308] {
        let location = json!({ "location": front.server.url.replace("/mcp", "/elsewhere") });
        let answer = answered(&front, &token, status, location.clone(), &json!({})).await;
        assert_eq!((answer.status, &json!(answer.header("location"))), (status, &location["location"]));
    }
    assert_eq!(front.server.requests().len(), 5);
    assert!(front.server.requests().iter().all(|request| request.uri == "/mcp"));
    front.stop().await;
}

#[tokio::test]
async fn every_method_of_the_protocol_goes_through() {
    let front = Front::start().await;
    let token = front.authorized("alice").await.access;
    for method in ["POST", "GET", "DELETE", "HEAD"] {
        let request = front.world.client.request(method.parse().expect("a method"), front.mcp()).bearer_auth(&token);
        let answer = send(request).await;
        assert_eq!((answer.status, answer.header("vary")), (200, "Authorization"), "{method}");
        assert_eq!(front.server.requests().last().expect("one").method, method);
    }
    front.stop().await;
}

#[tokio::test]
async fn large_bodies_go_both_ways() {
    let front = Front::start().await;
    let token = front.authorized("alice").await.access;
    let large = "0123456789".repeat(150_000);
    let answer = answered(&front, &token, 200, json!({}), &json!(large)).await;
    assert_eq!((answer.status, answer.body.len()), (200, large.len() + 2));
    assert_eq!(answer.json(), json!(large));
    let seen = front.server.requests().remove(0);
    assert!(seen.body.len() > large.len() && seen.body.windows(20).any(|part| part == &large.as_bytes()[..20]));
    front.stop().await;
}

#[tokio::test]
async fn a_server_at_a_unix_socket_is_reached() {
    let home = tempfile::tempdir().expect("a directory");
    let socket = home.path().join("mcp.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("bound");
    let router = axum::Router::new().route(
        "/endpoint",
        axum::routing::post(async |headers: http::HeaderMap, body: String| {
            let text = |name: &str| headers[name].to_str().expect("text").to_owned();
            axum::Json(json!({ "host": text("host"), "authorization": text("authorization"), "body": body }))
        }),
    );
    tokio::spawn(async move { axum::serve(listener, router).await });
    let front =
        start(Special { tables: at("socket", &format!("unix:{}:/endpoint", path(&socket))), ..Special::default() });
    let front = front.await;
    let token = front.authorized_at("/socket/mcp", "alice").await.access;
    let request = front.world.client.post(front.world.public("/socket/mcp")).bearer_auth(&token).body("hello");
    let answer = send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    assert_eq!((&json["host"], &json["body"]), (&json!("localhost"), &json!("hello")));
    assert!(json["authorization"].as_str().expect("text").starts_with("Bearer sidekey_h_"));
    std::fs::remove_file(&socket).expect("removed");
    let request = front.world.client.post(front.world.public("/socket/mcp")).bearer_auth(&token);
    let again = send(request.body("hello")).await;
    assert!(again.status == 200 || again.status == 502, "an open connection may be used on: {}", again.text());
    front.stop().await;
}

fn path(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A further server.
fn at(name: &str, upstream: &str) -> String {
    format!("[servers.{name}]\nupstream = \"{upstream}\"\n")
}

#[tokio::test]
async fn a_server_that_does_not_prove_who_it_is_gets_nothing() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
    let certificate = certificate.self_signed(&key).expect("signed");
    let identity = TlsIdentity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
    let impostor =
        sidekey_simulator::start(Options { tls: Some(identity), ..Options::default() }).await.expect("started");
    let tables = at("impostor", &format!("{}/notion/api/mcp", impostor.url()));
    let front = start(Special { tables, ..Special::default() }).await;
    let token = front.authorized_at("/impostor/mcp", "alice").await.access;
    let answer =
        send(front.world.client.post(front.world.public("/impostor/mcp")).bearer_auth(&token).body("{}")).await;
    assert_problem(&answer, 502, "server-certificate");
    assert!(impostor.api_calls().is_empty(), "no handle was sent");
    front.stop().await;
    impostor.stop().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_to_be_unreachable() {
    let closed = crate::world::free_address();
    let tables = [at("closed", &format!("http://{closed}/mcp")), at("unknown", "https://nowhere.invalid/mcp")].concat();
    let front = start(Special { tables, ..Special::default() }).await;
    for path in ["/closed/mcp", "/unknown/mcp"] {
        let token = front.authorized_at(path, "alice").await.access;
        let answer = send(front.world.client.post(front.world.public(path)).bearer_auth(&token).body("{}")).await;
        assert_problem(&answer, 502, "server-unreachable");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!((answer.header("cache-control"), answer.header("vary")), ("no-store", "Authorization"));
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(
            !answer.text().contains(&closed.to_string()) && !answer.text().contains("nowhere"),
            "{}",
            answer.text()
        );
    }
    front.stop().await;
}

#[tokio::test]
async fn a_server_that_hangs_up_or_answers_with_nonsense_is_a_bad_gateway() {
    let (front, listener, tokens) = raw_server().await;
    for nonsense in ["", "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n12"] {
        let mut client = Wire::connect(front.world.files.public).await;
        client.write(&head(&front, &tokens, "POST", "content-length: 2\r\n")).await;
        client.write("{}").await;
        let mut server = Wire::accept(&listener).await;
        server.read_until("{}").await;
        server.write(nonsense).await;
        drop(server);
        let answer = client.read_head().await;
        assert!(answer.starts_with("http/1.1 502 "), "{nonsense:?}: {answer}");
        client.read_until("urn:sidekey:error:server-unreachable").await;
    }
    front.stop().await;
}
