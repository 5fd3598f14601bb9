//! Errors: none says more than it should, none is an accident, and nothing malformed gets further than that.

use serde_json::json;
use sidekey::base::random::{Random, SystemRandom};

use crate::client::{Answer, raw, send};
use crate::front::{Front, REDIRECT_URI, Tokens, VERIFIER, assert_oauth_error, assert_problem};
use crate::issuer_support::{Stage, front, get, is_taken};

const ENDPOINTS: [&str; 4] = ["/token", "/register", "/revoke", "/introspect"];

/// Checks that an answer holds nothing of our insides.
fn assert_clean(answer: &Answer, what: &str) {
    let text = answer.text();
    for inside in
        ["panicked", "src/", ".rs:", "SELECT", "sqlite", "rusqlite", "Backtrace", "/root", "/tmp", "Some(", "Err("]
    {
        assert!(!text.contains(inside), "{what}: {inside} in {text}");
    }
    assert!(answer.status < 500, "{what}: {} {text}", answer.status);
}

async fn send_body(front: &Front, path: &str, kind: &str, body: Vec<u8>) -> Answer {
    let request = front.world.client.post(front.world.public(path)).header("content-type", kind);
    send(request.body(body)).await
}

#[tokio::test]
async fn errors_are_json_with_a_code_and_a_sentence() {
    let front = front().await;
    for path in ["/token", "/revoke", "/introspect"] {
        for (form, status, error) in [
            (vec![("client_id", "dyn_x"), ("token", "x")], 401, "invalid_client"),
            (vec![("client_id", "a"), ("client_id", "b"), ("token", "x")], 400, "invalid_request"),
            (vec![("client_id", "a"), ("client_assertion", "x"), ("token", "x")], 400, "invalid_request"),
        ] {
            let answer = front.post_form(path, &form).await;
            assert_oauth_error(&answer, status, error);
            assert_clean(&answer, path);
            let json = answer.json();
            assert_eq!(json.as_object().map(serde_json::Map::len), Some(2), "{path}: {json}");
            let description = json["error_description"].as_str().expect("text");
            // RFC 6749 section 5.2 allows only these.
            let is_allowed = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
            assert!(!description.is_empty() && description.bytes().all(is_allowed), "{path}: {description}");
        }
    }
    front.stop().await;
}

#[tokio::test]
async fn json_is_taken_at_the_token_endpoint_only_if_the_operator_wants_it() {
    for accept in [false, true] {
        let issuer = format!("accept_json = {accept}\n");
        let front = Stage { issuer, ..Stage::default() }.start().await;
        let client_id = front.register("A client").await;
        let code = front.code(&client_id, "alice").await;
        let body = json!({
            "grant_type": "authorization_code", "client_id": client_id, "code": code, "redirect_uri": REDIRECT_URI,
            "code_verifier": VERIFIER,
        });
        let text = body.to_string();
        for bad in [
            "[]".to_owned(),
            "null".to_owned(),
            "x".to_owned(),
            String::new(),
            text.replacen("\"client_id\"", "\"client_id\":\"x\",\"client_id\"", 1),
            text.replacen(&format!("\"{code}\""), "1", 1),
            text.replacen(&format!("\"{code}\""), "[]", 1),
        ] {
            let answer = send_body(&front, "/token", "application/json", bad.into_bytes()).await;
            assert_oauth_error(&answer, if accept { 400 } else { 415 }, "invalid_request");
        }
        let answer = send_body(&front, "/token", "application/json; charset=utf-8", text.into_bytes()).await;
        if accept {
            let tokens = Tokens::of(client_id.clone(), &answer);
            assert!(is_taken(&front, &tokens.access).await);
            let form = [("client_id", &*client_id), ("token", &*tokens.access)];
            assert_eq!(front.post_form("/revoke", &form).await.status, 200, "a form is taken all the same");
        } else {
            assert_oauth_error(&answer, 415, "invalid_request");
        }
        let revoke = json!({ "client_id": client_id, "token": "x" }).to_string();
        let answer = send_body(&front, "/revoke", "application/json", revoke.into_bytes()).await;
        assert_oauth_error(&answer, 415, "invalid_request");
        front.stop().await;
    }
}

#[tokio::test]
async fn a_body_of_more_than_64_kib_is_not_read() {
    let front = front().await;
    for path in ENDPOINTS {
        for kind in ["application/json", "application/x-www-form-urlencoded"] {
            let answer = send_body(&front, path, kind, vec![b'a'; 64 * 1024 + 1]).await;
            assert_problem(&answer, 413, "body-too-large");
            let answer = send_body(&front, path, kind, vec![b'a'; 64 * 1024]).await;
            assert!(matches!(answer.status, 400 | 401 | 415), "{path} {kind}: {}", answer.status);
        }
    }
    let name = json!({ "client_name": "x".repeat(1 << 20), "redirect_uris": [REDIRECT_URI] });
    let request = front.world.client.post(front.world.public("/register")).header("content-type", "application/json");
    // It may be cut off while it still sends.
    if let Ok(answer) = request.body(name.to_string()).send().await {
        assert_eq!(answer.status().as_u16(), 413);
    }
    assert!(!front.register("A client").await.is_empty());
    front.stop().await;
}

/// Pseudo-random bodies of the kinds that parsers stumble over.
fn odd_bodies() -> Vec<Vec<u8>> {
    let pieces: [&[u8]; 28] = [
        b"client_id=",
        b"&",
        b"=",
        b"%",
        b"%00",
        b"%zz",
        b"%ff%fe",
        b"+",
        b"\xff\xfe",
        b"\0",
        b"\r\n",
        b"{",
        b"}",
        b"[",
        b"\"",
        b"\\u0000",
        b"\\ud800",
        b":",
        b",",
        b"grant_type=refresh_token",
        b"refresh_token=sk_rt_",
        b"client_assertion=",
        b"a.b.c",
        b"1e999",
        b"-0",
        b"null",
        "é𝄞".as_bytes(),
        b"dyn_",
    ];
    let random = SystemRandom;
    (0..150)
        .map(|_| {
            let mut bytes = [0; 24];
            random.fill(&mut bytes);
            let length = usize::from(bytes[0]) % bytes.len();
            bytes[..length].iter().flat_map(|byte| pieces[usize::from(*byte) % pieces.len()]).copied().collect()
        })
        .collect()
}

#[tokio::test]
async fn nothing_malformed_is_an_accident_at_the_endpoints_for_programs() {
    let front = front().await;
    for body in odd_bodies() {
        for path in ENDPOINTS {
            for kind in ["application/json", "application/x-www-form-urlencoded", "\u{e9}", "application/json;;=;"] {
                let answer = send_body(&front, path, kind, body.clone()).await;
                let what = format!("{path} {kind}: {}", String::from_utf8_lossy(&body));
                assert_clean(&answer, &what);
                assert!(answer.status >= 400 || path == "/revoke", "{what}: {}", answer.status);
            }
        }
    }
    assert!(!front.register("A client").await.is_empty(), "it still works");
    front.stop().await;
}

#[tokio::test]
async fn nothing_malformed_is_an_accident_in_addresses_and_headers() {
    let front = front().await;
    let host = front.world.files.public;
    for query in odd_bodies() {
        let query: String = query.iter().filter(|byte| byte.is_ascii_graphic()).map(|byte| char::from(*byte)).collect();
        for path in
            ["/authorize", "/.well-known/oauth-protected-resource/", "/callback/notion", "/visit/", "/jwks.json"]
        {
            let request =
                format!("GET {path}?{query} HTTP/1.1\r\nhost: {host}\r\ncookie: {query}\r\nconnection: close\r\n\r\n");
            assert_clean(&raw(host, request.as_bytes()).await, &request);
        }
        let request = format!(
            "POST /token HTTP/1.1\r\nhost: {host}\r\nauthorization: Basic {query}\r\ncontent-length: 0\r\n\
             content-type: {query}\r\nconnection: close\r\n\r\n"
        );
        assert_clean(&raw(host, request.as_bytes()).await, &request);
        let request = format!(
            "GET /notes/mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {query}\r\nconnection: close\r\n\r\n"
        );
        let answer = raw(host, request.as_bytes()).await;
        assert_clean(&answer, &request);
        assert!(matches!(answer.status, 400 | 401), "{request}: {}", answer.status);
    }
    front.stop().await;
}

#[tokio::test]
async fn pages_about_errors_show_nothing_that_the_request_brought_along() {
    let front = front().await;
    let markup = "<script>alert(1)</script>\"onload=\"x";
    for changes in [
        vec![("client_id", markup)],
        vec![("redirect_uri", markup)],
        vec![("state", markup), ("redirect_uri", "https://evil.example/")],
    ] {
        let answer = get(&front, &front.authorize_url("dyn_unknown", &changes)).await;
        assert_eq!(answer.status, 400);
        assert_clean(&answer, markup);
        assert!(!answer.text().contains("alert") && !answer.text().contains("evil.example"), "{}", answer.text());
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
        assert_eq!((answer.header("cache-control"), answer.header("referrer-policy")), ("no-store", "no-referrer"));
        assert_eq!(answer.header("x-frame-options"), "DENY");
    }
    front.stop().await;
}

/// 43 characters of base64url are 256 bits; each of them takes on most values over a few hundred tokens.
#[tokio::test]
async fn what_is_handed_out_cannot_be_guessed() {
    let front = front().await;
    let mut tokens = front.authorized("alice").await;
    let mut bodies = Vec::new();
    for _ in 0..100 {
        tokens = Tokens::of(tokens.client_id.clone(), &front.refresh(&tokens.client_id, &tokens.refresh).await);
        for (token, prefix) in [(&tokens.access, "sk_at_"), (&tokens.refresh, "sk_rt_")] {
            let body = token.strip_prefix(prefix).unwrap_or_else(|| panic!("{token}"));
            assert_eq!(body.len(), 43 + 4, "256 random bits and a checksum");
            bodies.push(body[..43].to_owned());
        }
    }
    // The last character carries four bits only.
    for at in 0..42 {
        let values: std::collections::BTreeSet<u8> = bodies.iter().map(|body| body.as_bytes()[at]).collect();
        assert!(values.len() > 45, "{at}: only {} values in {} tokens", values.len(), bodies.len());
    }
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 200);
    let code = front.code(&tokens.client_id, "alice").await;
    assert_eq!(code.strip_prefix("sk_ac_").map(str::len), Some(43 + 4));
    front.stop().await;
}
