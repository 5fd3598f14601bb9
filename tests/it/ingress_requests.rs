//! What of a request reaches an MCP server, whose requests are counted together, and which pages may call at all.

use sidekey_simulator::leaks::LeakSearch;

use crate::client::{raw, send};
use crate::front::{Front, Received, assert_problem};
use crate::front_support::{Special, start};

fn received(request: &Received, name: &str) -> Vec<String> {
    let values = request.headers.get_all(name).iter();
    values.map(|value| value.to_str().expect("text").to_owned()).collect()
}

#[tokio::test]
async fn what_was_meant_for_us_does_not_go_on() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    let ours = [
        ("cookie", "session=1"),
        ("proxy-authorization", "Bearer x"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-user", "admin"),
        ("forwarded", "for=10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("x-client-cert", "c"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("x-sidekey-subject", "bob"),
        ("x_forwarded_for", "10.0.0.1"),
        ("x-sidekey_subject", "bob"),
        ("mcp_session_id", "s"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "cors"),
    ];
    let kept = [
        ("user-agent", "client/1"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "=?base64?w6Q=?="),
        ("mcp-param-region", "eu"),
        ("last-event-id", "7"),
        ("x-own", "kept"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let own = front.world.public("");
    let mut request = front.world.client.post(front.mcp()).bearer_auth(&tokens.access).header("origin", &own);
    for (name, value) in ours.iter().chain(&kept) {
        request = request.header(*name, *value);
    }
    assert_eq!(send(request.body("{\"method\":\"ping\"}")).await.status, 200);
    let requests = front.server.requests();
    let seen = &requests[0];
    for (name, _) in ours {
        assert_eq!(received(seen, name), Vec::<String>::new(), "{name}");
    }
    assert_eq!(received(seen, "origin"), Vec::<String>::new());
    for (name, value) in kept {
        assert_eq!(received(seen, name), [value], "{name}");
    }
    assert_eq!(received(seen, "host"), [front.server.url.replace("http://", "").replace("/mcp", "")]);
    assert_eq!(
        (seen.method.as_str(), seen.uri.to_string().as_str(), &*seen.body),
        ("POST", "/mcp", &b"{\"method\":\"ping\"}"[..])
    );
    front.stop().await;
}

#[tokio::test]
async fn the_server_sees_a_handle_and_no_token() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    for name in ["authorization", "Authorization", "AUTHORIZATION"] {
        let value = format!("bearer  {} ", tokens.access);
        let answer = send(front.world.client.post(front.mcp()).header(name, value).body("{}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    front.whoami(&tokens.access).await;
    let mut secrets = vec![tokens.access.clone(), tokens.refresh.clone()];
    let issued = front.world.simulator.issued_values();
    secrets.extend(issued.access_tokens.iter().chain(&issued.refresh_tokens).cloned());
    let search = LeakSearch::new(&secrets);
    for request in front.server.requests() {
        let credentials = received(&request, "authorization");
        assert_eq!(credentials.len(), 1);
        assert!(credentials[0].starts_with("Bearer sidekey_h_"), "{credentials:?}");
        let found = search.find(format!("{request:?}").as_bytes());
        assert!(found.is_empty(), "{found:?}: {request:?}");
    }
    front.stop().await;
}

#[tokio::test]
async fn naming_a_header_in_connection_takes_nothing_out() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    let address = front.world.files.public;
    for connection in ["Authorization", "close, authorization", "Mcp-Session-Id", "host", "keep-alive, x-own"] {
        let request = format!(
            "POST /notes/mcp HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nconnection: {connection}\r\n\
             content-length: 2\r\n\r\n{{}}",
            tokens.access
        );
        let answer = raw(address, request.as_bytes()).await;
        let seen = front.server.requests();
        match answer.status {
            200 => {
                let credentials = received(seen.last().expect("one"), "authorization");
                assert!(credentials.len() == 1 && credentials[0].starts_with("Bearer sidekey_h_"), "{connection}");
                assert!(
                    !received(seen.last().expect("one"), "connection")
                        .iter()
                        .any(|value| value.contains("uthorization"))
                );
            }
            _ => assert_problem(&answer, 400, "malformed-request"),
        }
    }
    front.stop().await;
}

#[tokio::test]
async fn a_request_names_the_host_that_it_is_for() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    let address = front.world.files.public;
    let ask = async |target: &str, hosts: &[&str]| {
        let hosts: String = hosts.iter().map(|host| format!("host: {host}\r\n")).collect();
        let bearer = &tokens.access;
        let request =
            format!("POST {target} HTTP/1.1\r\n{hosts}authorization: Bearer {bearer}\r\ncontent-length: 2\r\n\r\n{{}}");
        raw(address, request.as_bytes()).await
    };
    let own = address.to_string();
    assert_eq!(ask("/notes/mcp", &[&own]).await.status, 200);
    for hosts in [
        vec!["evil.example"],
        vec!["127.0.0.1"],
        vec!["127.0.0.1:1"],
        vec!["localhost"],
        vec!["0.0.0.0"],
        vec!["127.0.0.1.evil.example"],
    ] {
        let answer = ask("/notes/mcp", &hosts).await;
        assert_problem(&answer, 403, "foreign-host");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    for (target, hosts) in [
        ("/notes/mcp", vec![]),
        ("/notes/mcp", vec![""]),
        ("/notes/mcp", vec!["a@b"]),
        ("/notes/mcp", vec![own.as_str(), own.as_str()]),
        ("/notes/mcp", vec![own.as_str(), "evil.example"]),
        (&*format!("http://{own}/notes/mcp"), vec![own.as_str()]),
        ("http://evil.example/notes/mcp", vec![own.as_str()]),
        ("*", vec![own.as_str()]),
    ] {
        let answer = ask(target, &hosts).await;
        assert!(matches!(answer.status, 400 | 403), "{target} {hosts:?}: {} {}", answer.status, answer.text());
    }
    for page in ["/authorize", "/account", "/.well-known/oauth-authorization-server", "/register", "/token"] {
        assert_problem(&ask(page, &["evil.example"]).await, 403, "foreign-host");
    }
    assert_eq!(front.server.requests().len(), 1);
    front.stop().await;
}

#[tokio::test]
async fn pages_of_other_sites_may_not_call() {
    let public = "allowed_origins = [\"https://inspector.example\"]";
    let front = start(Special { public, ..Special::default() }).await;
    let tokens = front.authorized("alice").await;
    let from = async |origins: &[&str]| {
        let mut request = front.world.client.post(front.mcp()).bearer_auth(&tokens.access);
        for origin in origins {
            request = request.header("origin", *origin);
        }
        send(request.body("{}")).await
    };
    let own = front.world.public("");
    for good in [vec![], vec![own.as_str()], vec!["https://inspector.example"]] {
        assert_eq!(from(&good).await.status, 200, "{good:?}");
    }
    for bad in [
        vec!["https://evil.example"],
        vec!["null"],
        vec![""],
        vec!["https://inspector.example.evil.example"],
        vec!["http://inspector.example"],
        vec!["https://inspector.example:444"],
        vec!["http://localhost"],
        vec![own.as_str(), "https://evil.example"],
    ] {
        let answer = from(&bad).await;
        assert_problem(&answer, 403, "foreign-origin");
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{bad:?}");
    }
    assert_eq!(front.server.requests().len(), 3);
    front.stop().await;
}

#[tokio::test]
async fn a_refused_upload_is_answered_and_the_connection_ends() {
    let front = Front::start().await;
    let address = front.world.files.public;
    // The body would be taken for the next request if the connection went on.
    let inner = "GET /notes/mcp HTTP/1.1\r\nhost: smuggled\r\n\r\n";
    let length = inner.len();
    let request = format!("POST /notes/mcp HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n{inner}");
    let answer = raw(address, request.as_bytes()).await;
    assert_problem(&answer, 401, "token-required");
    assert_eq!(answer.header("connection"), "close", "{answer:?}");
    let large = send(front.world.client.post(front.world.public("/register")).body(vec![b'a'; 70_000])).await;
    assert_problem(&large, 413, "body-too-large");
    assert!(front.server.requests().is_empty());
    front.stop().await;
}

#[tokio::test]
async fn what_is_for_operators_is_not_served_here() {
    let front = Front::start().await;
    for path in [
        "/metrics",
        "/livez",
        "/readyz",
        "/v1/status",
        "/v1/grants",
        "/v1/handles",
        "/admin",
        "/debug",
        "/notion/v1/users/me",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let request = front.world.client.request(method.parse().expect("a method"), front.world.public(path));
            let answer = send(request).await;
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
        }
    }
    front.stop().await;
}
