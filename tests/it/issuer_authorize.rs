//! The authorization endpoint: who is redirected where, and what is refused.

use serde_json::json;

use crate::front::{Front, REDIRECT_URI};
use crate::issuer_support::{assert_page, assert_redirect, front, get};

/// A client that registered these redirect URIs.
async fn client_at(front: &Front, redirect_uris: &[&str]) -> String {
    let metadata = json!({
        "client_name": "A client", "redirect_uris": redirect_uris, "token_endpoint_auth_method": "none",
    });
    let answer = front.post_json("/register", &metadata).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["client_id"].as_str().expect("there").to_owned()
}

#[tokio::test]
async fn a_redirect_uri_that_differs_in_anything_is_not_redirected_to() {
    let front = front().await;
    let client_id = client_at(&front, &["https://app.example/cb", "https://app.example/with?q=1"]).await;
    let with = |uri: &str, more: &[(&str, &str)]| {
        let changes: Vec<_> = [("redirect_uri", uri)].into_iter().chain(more.iter().copied()).collect();
        front.authorize_url(&client_id, &changes)
    };
    for uri in ["https://app.example/cb", "https://app.example/with?q=1"] {
        assert_eq!(get(&front, &with(uri, &[])).await.status, 200, "{uri}");
        let refused = get(&front, &with(uri, &[("response_type", "token")])).await;
        let separator = if uri.contains('?') { "&" } else { "?" };
        assert!(refused.header("location").starts_with(&format!("{uri}{separator}error=")), "{uri}");
    }
    for uri in [
        "https://app.example/cb/",
        "https://app.example/cb/.",
        "https://app.example/cb/..",
        "https://app.example/./cb",
        "https://app.example/x/../cb",
        "https://app.example//cb",
        "https://app.example/cb%2F",
        "https://app.example/c%62",
        "https://app.example/cb%00",
        "https://app.example/cb?",
        "https://app.example/cb?x=1",
        "https://app.example/with?q=2",
        "https://app.example/with?q=1&r=2",
        "https://app.example/with",
        "https://app.example/cb#",
        "https://app.example/cb#x",
        "https://app.example/cb;x",
        "https://app.example/CB",
        "https://app.example/cb2",
        "https://app.example/c",
        "https://app.example/",
        "https://app.example",
        "HTTPS://app.example/cb",
        "https://APP.example/cb",
        "http://app.example/cb",
        "https://app.example:443/cb",
        "https://app.example:8443/cb",
        "https://app.example.:443/cb",
        "https://app.example./cb",
        "https://app.example@evil.example/cb",
        "https://app.example:x@evil.example/cb",
        "http://127.0.0.1:80@evil.example/cb",
        "https://user@app.example/cb",
        "https://app.example.evil.example/cb",
        "https://evil-app.example/cb",
        "https://evil.example/https://app.example/cb",
        "https://app%2eexample/cb",
        "https://app.example\\@evil.example/cb",
        "https:\\\\app.example/cb",
        "https:/app.example/cb",
        "//app.example/cb",
        "//evil.example",
        "/cb",
        "cb",
        "https://app.example/\tcb",
        "https://app.example/cb\n",
        " https://app.example/cb",
        "https://app.example/cb ",
        "https://аpp.example/cb",
        "https://app。example/cb",
        "https://app.example/cb\u{0}",
        "javascript:alert(1)//https://app.example/cb",
        "data:text/html,<script>alert(1)</script>",
        "https://app.example/cb,https://evil.example",
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "urn:ietf:wg:oauth:2.0:oob",
    ] {
        assert_page(&get(&front, &with(uri, &[])).await, uri);
        // Nor does an error lead there.
        assert_page(&get(&front, &with(uri, &[("response_type", "token")])).await, uri);
    }
    front.stop().await;
}

#[tokio::test]
async fn a_loopback_redirect_uri_is_good_with_any_port() {
    let front = front().await;
    let client_id = client_at(&front, &["http://127.0.0.1/cb", "http://[::1]:4000/cb"]).await;
    for uri in [
        "http://127.0.0.1/cb",
        "http://127.0.0.1:49152/cb",
        "http://127.0.0.1:1/cb",
        "http://127.0.0.1:65535/cb",
        "http://[::1]/cb",
        "http://[::1]:9/cb",
    ] {
        assert_eq!(get(&front, &front.authorize_url(&client_id, &[("redirect_uri", uri)])).await.status, 200, "{uri}");
    }
    for uri in [
        "http://127.0.0.1:1/other",
        "http://127.0.0.1:1/cb/",
        "http://127.0.0.1:1/cb?x",
        "http://127.0.0.1.evil.example/cb",
        "http://127.0.0.1:1@evil.example/cb",
        "http://localhost/cb",
        "http://localhost:49152/cb",
        "https://127.0.0.1/cb",
        "http://127.0.0.2/cb",
        "http://127.1/cb",
        "http://2130706433/cb",
        "http://0x7f000001/cb",
        "http://0.0.0.0/cb",
        "http://[::]/cb",
        "http://[0:0:0:0:0:0:0:1]/cb",
        "http://[::ffff:127.0.0.1]/cb",
        "http://127.0.0.1:/cb",
        "http://127.0.0.1:65536/cb",
        "http://127.0.0.1:+1/cb",
        "http://127.0.0.1:0x1/cb",
    ] {
        assert_page(&get(&front, &front.authorize_url(&client_id, &[("redirect_uri", uri)])).await, uri);
    }
    front.stop().await;
}

#[tokio::test]
async fn localhost_is_good_with_any_port_where_it_is_registered() {
    let front = front().await;
    let client_id = client_at(&front, &["http://localhost/callback"]).await;
    let url = |uri: &str| front.authorize_url(&client_id, &[("redirect_uri", uri)]);
    for uri in ["http://localhost/callback", "http://localhost:6274/callback"] {
        assert_eq!(get(&front, &url(uri)).await.status, 200, "{uri}");
    }
    for uri in ["http://127.0.0.1/callback", "http://LOCALHOST/callback", "http://localhost.evil.example/callback"] {
        assert_page(&get(&front, &url(uri)).await, uri);
    }
    front.stop().await;
}

#[tokio::test]
async fn a_private_use_redirect_uri_is_good_only_as_the_operator_listed_it() {
    let front = front().await;
    let uri = "cursor://anysphere.cursor-mcp/oauth/callback";
    let client_id = client_at(&front, &[uri, REDIRECT_URI]).await;
    let url = |uri: &str| front.authorize_url(&client_id, &[("redirect_uri", uri)]);
    let page = get(&front, &url(uri)).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("whichever program on this computer opens such addresses"), "{}", page.text());
    for other in ["cursor://anysphere.cursor-mcp/oauth/callback/", "cursor://evil/", "Cursor://anysphere.cursor-mcp/"] {
        assert_page(&get(&front, &url(other)).await, other);
    }
    front.stop().await;
}

#[tokio::test]
async fn without_a_certain_client_and_redirect_uri_nobody_is_redirected() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let good = front.authorize_url(&client_id, &[]);
    let twice = |name: &str, value: &str| format!("{good}&{name}={value}");
    for (what, url) in [
        ("no client", front.authorize_url("", &[])),
        ("unknown client", front.authorize_url("dyn_unknown", &[])),
        ("no client of ours", front.authorize_url("evil", &[])),
        ("client twice", twice("client_id", &client_id)),
        ("client and another", twice("client_id", "evil")),
        ("client and an empty one", twice("client_id", "")),
        ("no redirect URI", front.authorize_url(&client_id, &[("redirect_uri", "")])),
        ("redirect URI twice", twice("redirect_uri", "http%3A%2F%2F127.0.0.1%3A33418%2Fcallback")),
        ("redirect URI and another", twice("redirect_uri", "https%3A%2F%2Fevil.example%2F")),
        ("nothing at all", front.world.public("/authorize")),
        ("a long client", front.authorize_url(&"x".repeat(5000), &[])),
        ("a client of markup", front.authorize_url("<script>alert(1)</script>", &[])),
    ] {
        let answer = get(&front, &url).await;
        assert_page(&answer, what);
        assert!(!answer.text().contains("<script>"), "{what}");
    }
    front.stop().await;
}

#[tokio::test]
async fn pkce_with_s256_is_required() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let challenge = "a".repeat(43);
    for (what, changes) in [
        ("no challenge", [("code_challenge", ""), ("code_challenge_method", "S256")]),
        ("nothing", [("code_challenge", ""), ("code_challenge_method", "")]),
        ("plain", [("code_challenge", &*challenge), ("code_challenge_method", "plain")]),
        ("no method means plain", [("code_challenge", &*challenge), ("code_challenge_method", "")]),
        ("unknown method", [("code_challenge", &*challenge), ("code_challenge_method", "S512")]),
        ("small letters", [("code_challenge", &*challenge), ("code_challenge_method", "s256")]),
        ("too short", [("code_challenge", &challenge[..42]), ("code_challenge_method", "S256")]),
        ("too long", [("code_challenge", &*"a".repeat(44)), ("code_challenge_method", "S256")]),
        ("padded", [("code_challenge", &*format!("{}=", &challenge[..42])), ("code_challenge_method", "S256")]),
        ("not base64url", [("code_challenge", &*"+".repeat(43)), ("code_challenge_method", "S256")]),
    ] {
        let answer = get(&front, &front.authorize_url(&client_id, &changes)).await;
        assert_redirect(&front, &answer, "invalid_request", what);
    }
    front.stop().await;
}

#[tokio::test]
async fn only_codes_are_given_and_only_in_the_query() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let refused = async |changes: &[(&str, &str)], error: &str| {
        let answer = get(&front, &front.authorize_url(&client_id, changes)).await;
        assert_redirect(&front, &answer, error, &format!("{changes:?}"));
    };
    for kind in ["token", "id_token", "code token", "code id_token", "none", "CODE", "code code"] {
        refused(&[("response_type", kind)], "unsupported_response_type").await;
    }
    refused(&[("response_type", "")], "invalid_request").await;
    for mode in ["form_post", "fragment", "form_post.jwt", "query.jwt", "jwt", "web_message", "unknown"] {
        refused(&[("response_mode", mode)], "invalid_request").await;
    }
    refused(&[("request", "eyJhbGciOiJub25lIn0.e30.")], "request_not_supported").await;
    refused(&[("request_uri", "https://evil.example/request")], "request_uri_not_supported").await;
    let query = get(&front, &front.authorize_url(&client_id, &[("response_mode", "query")])).await;
    assert_eq!(query.status, 200);
    front.stop().await;
}
