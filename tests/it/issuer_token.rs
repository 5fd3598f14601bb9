//! The token endpoint and codes: each is good once, for whom and for what it was issued, and not for long.

use std::time::Duration;

use serde_json::json;

use crate::client::{Answer, send};
use crate::front::{Front, REDIRECT_URI, Tokens, VERIFIER, assert_oauth_error};
use crate::issuer_support::{Stage, assert_dead, basic, front, is_taken, only_grant, post};

/// A client and a code of it.
async fn client_with_code(front: &Front) -> (String, String) {
    let client_id = front.register("A client").await;
    let code = front.code(&client_id, "alice").await;
    (client_id, code)
}

#[tokio::test]
async fn a_code_that_comes_again_ends_what_it_was_redeemed_for() {
    let front = front().await;
    let (client_id, code) = client_with_code(&front).await;
    let tokens = Tokens::of(client_id.clone(), &front.redeem(&client_id, &code, &[]).await);
    assert!(is_taken(&front, &tokens.access).await);
    assert_oauth_error(&front.redeem(&client_id, &code, &[]).await, 400, "invalid_grant");
    assert_dead(&front, &tokens).await;
    assert_eq!(only_grant(&front).await, ("ended".to_owned(), "code_replayed".to_owned()));
    front.stop().await;
}

#[tokio::test]
async fn a_replayed_code_ends_also_what_was_refreshed_since() {
    let front = front().await;
    let (client_id, code) = client_with_code(&front).await;
    let first = Tokens::of(client_id.clone(), &front.redeem(&client_id, &code, &[]).await);
    let second = Tokens::of(client_id.clone(), &front.refresh(&client_id, &first.refresh).await);
    // Even one that would not match in anything else.
    let replayed = front.redeem(&client_id, &code, &[("code_verifier", "")]).await;
    assert_oauth_error(&replayed, 400, "invalid_grant");
    assert_dead(&front, &first).await;
    assert_dead(&front, &second).await;
    front.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_redeemed_two_hundred_times_at_once_is_good_for_one() {
    let front = front().await;
    let (client_id, code) = client_with_code(&front).await;
    let answers = futures_util::future::join_all((0..200).map(|_| front.redeem(&client_id, &code, &[]))).await;
    let (good, bad): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((good.len(), bad.len()), (1, 199));
    for answer in &bad {
        assert_oauth_error(answer, 400, "invalid_grant");
    }
    // Somebody had a copy of the code, so what it was good for is over.
    assert_dead(&front, &Tokens::of(client_id, &good[0])).await;
    assert_eq!(only_grant(&front).await, ("ended".to_owned(), "code_replayed".to_owned()));
    front.stop().await;
}

#[tokio::test]
async fn a_code_is_good_for_a_minute() {
    for (seconds, status) in [(59, 200), (60, 400), (61, 400)] {
        let (stage, clock) = Stage::with_clock();
        let front = stage.start().await;
        let (client_id, code) = client_with_code(&front).await;
        clock.advance(Duration::from_secs(seconds));
        let answer = front.redeem(&client_id, &code, &[]).await;
        assert_eq!(answer.status, status, "{seconds} s: {}", answer.text());
        if status == 400 {
            assert_oauth_error(&answer, 400, "invalid_grant");
        }
        front.stop().await;
    }
}

#[tokio::test]
async fn the_operator_sets_how_long_a_code_is_good() {
    let (stage, clock) = Stage::with_clock();
    let front = Stage { issuer: "code_lifetime = \"5m\"\n".to_owned(), ..stage }.start().await;
    let client_id = front.register("A client").await;
    let [first, second] = [front.code(&client_id, "alice").await, front.code(&client_id, "alice").await];
    clock.advance(Duration::from_secs(299));
    assert_eq!(front.redeem(&client_id, &first, &[]).await.status, 200);
    clock.advance(Duration::from_secs(2));
    assert_oauth_error(&front.redeem(&client_id, &second, &[]).await, 400, "invalid_grant");
    front.stop().await;
}

#[tokio::test]
async fn another_client_can_neither_use_a_code_nor_use_it_up() {
    let front = front().await;
    let (client_id, code) = client_with_code(&front).await;
    let other = front.register("Another client").await;
    assert_oauth_error(&front.redeem(&other, &code, &[]).await, 400, "invalid_grant");
    let metadata = json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "client_secret_basic" });
    let confidential = front.post_json("/register", &metadata).await.json();
    let text = |name: &str| confidential[name].as_str().expect("there").to_owned();
    let header = basic(&text("client_id"), &text("client_secret"));
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &*code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
    ];
    let answer = post(&front, "/token", &form, Some(("authorization", &header))).await;
    assert_oauth_error(&answer, 400, "invalid_grant");
    assert_eq!(front.redeem(&client_id, &code, &[]).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn a_code_is_used_up_by_a_redirect_uri_that_differs() {
    let front = front().await;
    let client_id = front.register("A client").await;
    for uri in ["https://evil.example/", "http://127.0.0.1:33418/callback/", "http://127.0.0.1:1/callback", "x"] {
        let code = front.code(&client_id, "alice").await;
        let answer = front.redeem(&client_id, &code, &[("redirect_uri", uri)]).await;
        assert_oauth_error(&answer, 400, "invalid_grant");
        assert_oauth_error(&front.redeem(&client_id, &code, &[]).await, 400, "invalid_grant");
    }
    assert!(front.grants().await.is_empty());
    front.stop().await;
}

/// OAuth 2.1 asks for it no more: the verifier binds the code to who began.
#[tokio::test]
async fn the_redirect_uri_need_not_be_said_again() {
    let front = front().await;
    let (client_id, code) = client_with_code(&front).await;
    assert_eq!(front.redeem(&client_id, &code, &[("redirect_uri", "")]).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn a_code_is_used_up_by_a_verifier_that_does_not_match() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let challenge = sidekey::base::digest::sha256_base64url(VERIFIER.as_bytes());
    let (short, long) = ("a".repeat(42), "a".repeat(129));
    for verifier in ["", &short, &long, &"a".repeat(43), &challenge, &format!("{VERIFIER} "), &VERIFIER.to_uppercase()]
    {
        let code = front.code(&client_id, "alice").await;
        let answer = front.redeem(&client_id, &code, &[("code_verifier", verifier)]).await;
        assert_oauth_error(&answer, 400, "invalid_grant");
        assert_oauth_error(&front.redeem(&client_id, &code, &[]).await, 400, "invalid_grant");
    }
    assert!(front.grants().await.is_empty());
    front.stop().await;
}

#[tokio::test]
async fn a_code_is_for_its_resource() {
    let tables = "[servers.other]\nupstream = \"http://127.0.0.1:9/mcp\"\nproviders = [\"notion\"]\n".to_owned();
    let front = Stage { tables, ..Stage::default() }.start().await;
    let client_id = front.register("A client").await;
    let mcp = front.mcp();
    for (resource, status) in [
        (mcp.clone(), 200),
        (format!("{mcp}/"), 200),
        (front.world.public("/other/mcp"), 400),
        ("https://evil.example".to_owned(), 400),
        (format!("{mcp}#x"), 400),
    ] {
        let code = front.code(&client_id, "alice").await;
        let answer = front.redeem(&client_id, &code, &[("resource", &resource)]).await;
        assert_eq!(answer.status, status, "{resource}: {}", answer.text());
        if status == 400 {
            assert_oauth_error(&answer, 400, "invalid_target");
        }
    }
    front.stop().await;
}

#[tokio::test]
async fn the_endpoint_takes_posted_forms_only() {
    let front = front().await;
    let (client_id, code) = client_with_code(&front).await;
    let url = front.world.public("/token");
    let client = &front.world.client;
    for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH"] {
        let answer = send(client.request(method.parse().expect("a method"), &url)).await;
        assert_eq!((answer.status, answer.header("cache-control")), (405, "no-store"), "{method}");
        assert_eq!((answer.header("content-type"), answer.header("allow")), ("application/json", "POST"), "{method}");
    }
    let body = format!(
        "grant_type=authorization_code&client_id={client_id}&code={code}&redirect_uri={REDIRECT_URI}&code_verifier={VERIFIER}"
    );
    for kind in ["application/json", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded2", ""] {
        let mut request = client.post(&url).body(body.clone());
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        assert_oauth_error(&send(request).await, 415, "invalid_request");
    }
    let in_query = client.post(format!("{url}?{body}")).header("content-type", "application/x-www-form-urlencoded");
    assert_oauth_error(&send(in_query).await, 400, "invalid_request");
    let mixed = client.post(format!("{url}?client_id={client_id}"));
    let mixed = mixed.header("content-type", "application/x-www-form-urlencoded").body(body.clone());
    assert_oauth_error(&send(mixed).await, 400, "invalid_request");
    let good = client.post(&url).header("content-type", "application/x-www-form-urlencoded; charset=UTF-8").body(body);
    let answer = send(good).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{}", answer.text());
    front.stop().await;
}
