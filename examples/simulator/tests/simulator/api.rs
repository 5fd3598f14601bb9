//! The API: who is let in, what is answered, and the tools.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::request;
use crate::user::User;

const REALM: &str = "9341453172058817";

#[tokio::test]
async fn an_expired_token_is_refused_in_the_companys_way() {
    let cases = [
        ("quickbooks", "/fault/error/0/code", json!("3200"), "Bearer realm=\"Intuit\", error=\"invalid_token\""),
        ("github", "/message", json!("Bad credentials"), ""),
        ("github-oauth-app", "/message", json!("Bad credentials"), ""),
        ("microsoft", "/error/code", json!("InvalidAuthenticationToken"), "Bearer realm=\"\", error=\"invalid_token\""),
        (
            "google",
            "/error/status",
            json!("UNAUTHENTICATED"),
            "Bearer realm=\"https://accounts.google.com/\", error=\"invalid_token\"",
        ),
        ("notion", "/code", json!("unauthorized"), ""),
        (
            "gitlab",
            "/error",
            json!("invalid_token"),
            "Bearer realm=\"Protected by OAuth 2.0\", error=\"invalid_token\"",
        ),
        ("generic", "/error", json!("invalid_token"), "Bearer error=\"invalid_token\""),
    ];
    for (profile, pointer, code, challenge) in cases {
        let user = User::of(profile).await;
        let token = user.connect().await.access;
        assert!(user.accepts(&token).await, "{profile}");
        assert_eq!(user.simulator.expire(profile), 1);
        for token in [token.as_str(), "made-up"] {
            let answer = user.api("/echo", token).await;
            assert_eq!(answer.status, Some(401));
            assert_eq!(answer.json().pointer(pointer), Some(&code), "{profile}");
            assert_eq!(answer.header("www-authenticate"), challenge);
        }
        let counters = user.counters();
        assert_eq!((counters.api_calls, counters.api_calls_ok), (3, 1));
        assert_eq!((counters.api_calls_rejected, counters.api_calls_expired), (2, 1));
    }
}

#[tokio::test]
async fn quickbooks_checks_the_realm() {
    let user = User::of("quickbooks").await;
    let token = user.connect().await.access;
    let own = user.api(&format!("/v3/company/{REALM}/companyinfo/{REALM}"), &token).await;
    assert_eq!(own.json()["CompanyInfo"]["CompanyName"], "Sandbox Company_US_1");
    for path in [
        "/v3/company/123/companyinfo/123".to_owned(),
        "/v3/company/".to_owned(),
        format!("/v3/company/{REALM}/../123/companyinfo/123"),
        format!("/v3/company/{REALM}/%2e%2e/123"),
        format!("/v3/company/{REALM}%2F..%2F123/x"),
        "//v3/company/123".to_owned(),
    ] {
        let answer = user.api(&path, &token).await;
        assert_eq!(answer.status, Some(403), "{path}");
        assert_eq!(answer.json()["Fault"]["Error"][0]["code"], "3100");
    }
    assert_eq!(user.simulator.ledger().events_of("quickbooks", "api_wrong_realm").len(), 6);
    // Another company's grant reaches its own.
    user.simulator.set("quickbooks", |settings| settings.realm_id = "123".to_owned());
    let other = user.connect().await.access;
    assert_eq!(user.api("/v3/company/123/companyinfo/123", &other).await.status, Some(200));
    assert_eq!(user.api(&format!("/v3/company/{REALM}/x"), &other).await.status, Some(403));
}

#[tokio::test]
async fn quickbooks_answers() {
    let user = User::of("quickbooks").await;
    let token = user.connect().await.access;
    let query = |sql: &str| format!("/v3/company/{REALM}/query?query={sql}");
    let answer = user.api(&query("select%20*%20from%20Invoice"), &token).await;
    assert_eq!(answer.json()["QueryResponse"]["Invoice"].as_array().unwrap().len(), 2);
    let answer = user.api(&query("select+*+from+Customer"), &token).await;
    assert_eq!(answer.json()["QueryResponse"]["Customer"].as_array().unwrap().len(), 2);
    let path = format!("/v3/company/{REALM}/invoice");
    let answer = user.call("POST", &path, &token, r#"{"TotalAmt":12}"#).await;
    assert_eq!(answer.json()["Invoice"], json!({"TotalAmt": 12, "Id": "1001", "SyncToken": "0"}));
    // Tools are also below the company.
    let answer = user.api(&format!("/v3/company/{REALM}/status/429?retry_after=3"), &token).await;
    assert_eq!((answer.status, answer.header("retry-after")), (Some(429), "3"));
}

#[tokio::test]
async fn github_answers() {
    let user = User::of("github").await;
    let token = user.connect().await.access;
    assert_eq!(user.api("/user", &token).await.json()["login"], "octocat");
    let answer = user.api("/user/repos?page=2", &token).await;
    assert_eq!(answer.json().as_array().unwrap().len(), 2);
    let next = "<http://simulator.test/github/api/user/repos?page=3&per_page=2>; rel=\"next\"";
    assert!(answer.header("link").contains(next), "{}", answer.header("link"));
    let last = user.api("/user/repos?page=3", &token).await;
    assert!(!last.header("link").contains("next"));
    let scheme = format!("token {token}");
    let headers = [("authorization", scheme.as_str())];
    let to = user.simulator.address();
    assert_eq!(request(to, "GET", "/github/api/user", &headers, "").await.status, Some(200));
    // The other scheme is GitHub's alone, and two headers are none.
    let twice = [headers[0], headers[0]];
    assert_eq!(request(to, "GET", "/github/api/user", &twice, "").await.status, Some(401));
}

#[tokio::test]
async fn notion_gitlab_and_microsoft_answer() {
    let user = User::of("notion").await;
    let token = user.connect().await.access;
    assert_eq!(user.api("/v1/users/me", &token).await.json()["type"], "bot");
    assert_eq!(user.api("/v1/users", &token).await.json()["object"], "list");
    assert_eq!(user.call("POST", "/v1/search", &token, "{}").await.json()["results"].as_array().unwrap().len(), 2);
    let user = User::of("gitlab").await;
    let token = user.connect().await.access;
    assert_eq!(user.api("/api/v4/user", &token).await.json()["username"], "tanuki");
    let answer = user.api("/api/v4/projects", &token).await;
    assert!(answer.header("link").contains("/gitlab/api/api/v4/projects?page=2&per_page=2>; rel=\"next\""));
    let answer = user.api("/api/v4/projects/group%2Fproject", &token).await;
    assert_eq!(answer.json()["path_with_namespace"], "group/project");
    assert_eq!(user.api("/api/v4/projects/group/project", &token).await.status, Some(404));
    assert_eq!(user.api("/api/v4/projects/1/issues", &token).await.json()["method"], "GET");
    let answer = user.call("POST", "/api/v4/projects", &token, r#"{"name":"new"}"#).await;
    assert_eq!((answer.status, answer.json()["name"].clone()), (Some(201), json!("new")));
    let user = User::of("microsoft").await;
    let token = user.connect().await.access;
    assert_eq!(user.api("/v1.0/me", &token).await.json()["displayName"], "Adele Vance");
}

#[tokio::test]
async fn anything_else_is_echoed_raw() {
    let user = User::of("generic").await;
    let token = user.connect().await.access;
    let answer = user.call("PATCH", "/a%2Fb/../c;d?x=%20&y", &token, "hello").await.json();
    assert_eq!(answer["method"], "PATCH");
    assert_eq!(answer["path"], "/generic/api/a%2Fb/../c;d");
    assert_eq!(answer["api_path"], "/a%2Fb/../c;d");
    assert_eq!(answer["query"], "x=%20&y");
    assert_eq!(answer["headers"]["host"], "simulator.test");
    assert_eq!(answer["headers"]["authorization"], format!("sha256:{}", sha256(token.as_bytes())));
    assert_eq!(answer["body_bytes"], 5);
    assert_eq!(answer["body_sha256"], sha256(b"hello"));
    assert_eq!(answer["grant"], user.grant().id);
    assert!(!answer.to_string().contains(&token));
    assert!(user.grant().has_token(&sha256(token.as_bytes())));
}

#[tokio::test]
async fn tools_work() {
    let user = User::of("generic").await;
    let token = user.connect().await.access;
    let before = Instant::now();
    let answer = user.api("/sse?count=3&interval_ms=50", &token).await;
    assert!(before.elapsed().as_millis() >= 100);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.text().matches("event: tick\n").count(), 3);
    let answer = user.api("/chunks?count=4&interval_ms=1&size=1000", &token).await;
    assert_eq!(answer.body.len(), 4000);
    let body = "u".repeat(3_000_000);
    let answer = user.call("POST", "/upload", &token, &body).await;
    assert_eq!(answer.json(), json!({"bytes": 3_000_000, "sha256": sha256(body.as_bytes())}));
    let answer = user.api("/redirect?to=http%3A%2F%2Felsewhere.test%2F&status=307", &token).await;
    assert_eq!((answer.status, answer.header("location")), (Some(307), "http://elsewhere.test/"));
    let answer = user.api("/link?next=/items%3Fpage%3D2&help=https://docs.test/", &token).await;
    assert!(answer.header("link").contains("<http://simulator.test/generic/api/items?page=2>; rel=\"next\""));
    assert!(answer.header("link").contains("<https://docs.test/>; rel=\"help\""));
    assert_eq!(user.api("/status/418", &token).await.status, Some(418));
    assert_eq!(user.api("/status/100", &token).await.status, Some(400));
    let before = Instant::now();
    assert_eq!(user.api("/slow?ms=80", &token).await.json()["method"], "GET");
    assert!(before.elapsed().as_millis() >= 80);
}

#[tokio::test]
async fn streams_are_not_held_back() {
    let user = User::of("generic").await;
    let token = user.connect().await.access;
    for (path, piece) in [("sse?count=2", "event: tick"), ("chunks?count=2&size=9", "ccccccccc")] {
        let mut stream = TcpStream::connect(user.simulator.address()).await.unwrap();
        let head = format!(
            "GET /generic/api/{path}&interval_ms=60000 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut received = String::new();
        let mut buffer = [0; 1024];
        // The second piece is a minute away.
        while !received.contains(piece) {
            let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer));
            let length = read.await.unwrap().unwrap();
            assert!(length > 0, "{received}");
            received += &String::from_utf8_lossy(&buffer[..length]);
        }
    }
}

#[tokio::test]
async fn many_calls_at_once() {
    let user = Arc::new(User::of("generic").await);
    let token = user.connect().await.access;
    let mut calls = JoinSet::new();
    for _ in 0..600 {
        let (user, token) = (Arc::clone(&user), token.clone());
        calls.spawn(async move { user.api("/slow?ms=100", &token).await });
    }
    let mut answers = calls.join_all().await;
    answers.retain(|answer| answer.status != Some(200));
    assert!(answers.is_empty(), "{}: {:?} {:?}", answers.len(), answers[0].status, answers[0].error);
    let counters = user.counters();
    assert_eq!((counters.api_calls, counters.api_calls_ok), (600, 600));
    assert_eq!(user.grant().access_tokens[0].used_count, 600);
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
