//! Requests to the public listener that two servers could read differently, at MCP endpoints and at our own.

use crate::client::raw;
use crate::front::{Front, Tokens};

/// The two kinds of places: one that is passed on, one that is served here.
const PLACES: [&str; 2] = ["/notes/mcp", "/register"];

async fn assert_refused(front: &Front, tokens: &Tokens, lines: &str, body: &str) {
    let address = front.world.files.public;
    for place in PLACES {
        let request = format!(
            "POST {place} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n{lines}\r\n{body}",
            tokens.access
        );
        let answer = raw(address, request.as_bytes()).await;
        assert_eq!(answer.status, 400, "{place} {lines:?}: {}", answer.text());
        assert_eq!(answer.header("connection"), "close", "{place} {lines:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_body_ends_in_one_way() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    for lines in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 5\r\n",
        "content-length: +5\r\n",
        "content-length: -5\r\n",
        "content-length: 0x5\r\n",
        "content-length: 5 5\r\n",
        "content-length:\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: identity, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
    ] {
        assert_refused(&front, &tokens, lines, "0\r\n\r\n").await;
    }
    assert!(front.server.requests().is_empty());
    front.stop().await;
}

#[tokio::test]
async fn lines_end_in_one_way() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    for lines in [
        "x-a: b\n",
        "x-a: b\r\n folded\r\n",
        "x-a : b\r\n",
        ": empty\r\n",
        "x-a: b\0c\r\n",
        "x-a: b\rx-b: c\r\n",
        "no colon\r\n",
    ] {
        assert_refused(&front, &tokens, lines, "").await;
    }
    assert!(front.server.requests().is_empty());
    front.stop().await;
}

#[tokio::test]
async fn targets_are_plain_paths() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    let address = front.world.files.public;
    for target in [
        format!("http://{address}/notes/mcp"),
        format!("https://{address}/notes/mcp"),
        "http://evil.example/notes/mcp".to_owned(),
        "@evil.example/notes/mcp".to_owned(),
        "notes/mcp".to_owned(),
        "*".to_owned(),
        "\\notes\\mcp".to_owned(),
    ] {
        let request =
            format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n", tokens.access);
        let answer = raw(address, request.as_bytes()).await;
        assert_eq!(answer.status, 400, "{target}: {}", answer.text());
    }
    for target in [
        "/notes/../notes/mcp",
        "/notes/./mcp",
        "//notes/mcp",
        "/notes//mcp",
        "/notes/mcp/..",
        "/notes%2fmcp",
        "/notes/mcp%00",
        "/x/..;/notes/mcp",
    ] {
        let request =
            format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n", tokens.access);
        let answer = raw(address, request.as_bytes()).await;
        assert!(matches!(answer.status, 400 | 404), "{target}: {} {}", answer.status, answer.text());
    }
    assert!(front.server.requests().is_empty(), "{:?}", front.server.requests());
    front.stop().await;
}

#[tokio::test]
async fn old_and_unknown_versions_do_not_confuse() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    let address = front.world.files.public;
    for version in ["HTTP/1.2x", "HTTP/2.0", "HTTP/3", "HTTX/1.1", ""] {
        let request =
            format!("GET /notes/mcp {version}\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n", tokens.access);
        let answer = raw(address, request.as_bytes()).await;
        assert!(matches!(answer.status, 400 | 505), "{version}: {} {}", answer.status, answer.text());
    }
    let request = format!(
        "POST /notes/mcp HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        tokens.access
    );
    assert_eq!(raw(address, request.as_bytes()).await.status, 400);
    assert!(front.server.requests().is_empty());
    front.stop().await;
}

#[tokio::test]
async fn a_chunk_that_is_no_chunk_ends_the_request() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    let address = front.world.files.public;
    for body in ["zz\r\n{}\r\n0\r\n\r\n", "-2\r\n{}\r\n0\r\n\r\n", "ffffffffffffffffff\r\n{}", "2\r\n{}x\r\n0\r\n\r\n"]
    {
        for place in PLACES {
            let request = format!(
                "POST {place} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n{body}",
                tokens.access
            );
            let answer = raw(address, request.as_bytes()).await;
            assert_eq!(answer.status, 400, "{place} {body:?}: {}", answer.text());
        }
    }
    assert!(front.server.requests().is_empty());
    front.stop().await;
}
