//! What else ends with a grant, and what an MCP server cannot do to a client's connection.

use serde_json::json;

use crate::front::{Front, Tokens, assert_oauth_error, decision, own_path, parameter};
use crate::front_support::{Special, start};
use crate::wire::{Wire, head, raw_server};

async fn end_all_grants(front: &Front) {
    for grant in front.grants().await {
        let id = grant["id"].as_str().expect("an id");
        assert_eq!(front.world.admin("DELETE", &format!("/v1/grants/{id}"), "").await.status, 204);
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_grant_that_it_was_opened_with() {
    let (front, listener, tokens) = raw_server().await;
    let mut client = Wire::connect(front.world.files.public).await;
    client.write(&head(&front, &tokens, "GET", "")).await;
    let mut server = Wire::accept(&listener).await;
    server.read_head().await;
    server.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    server.write("9\r\ndata: 1\n\n\r\n").await;
    client.read_until("data: 1\n\n").await;
    end_all_grants(&front).await;
    server.write("9\r\ndata: 2\n\n\r\n").await;
    let rest = client.read_to_end().await;
    assert!(!rest.contains("data: 2"), "{rest}");
    front.stop().await;
}

#[tokio::test]
async fn a_websocket_ends_with_the_grant_that_it_was_opened_with() {
    let (front, listener, tokens) = raw_server().await;
    let mut client = Wire::connect(front.world.files.public).await;
    let upgrade = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    client.write(&head(&front, &tokens, "GET", upgrade)).await;
    let mut server = Wire::accept(&listener).await;
    server.read_head().await;
    server.write("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
    client.read_head().await;
    client.write("one;").await;
    server.read_until("one;").await;
    end_all_grants(&front).await;
    client.write("two;").await;
    assert!(!server.read_to_end().await.contains("two"));
    front.stop().await;
}

#[tokio::test]
async fn a_server_does_not_switch_protocols_by_itself() {
    let (front, listener, tokens) = raw_server().await;
    let mut client = Wire::connect(front.world.files.public).await;
    client.write(&head(&front, &tokens, "GET", "")).await;
    let mut server = Wire::accept(&listener).await;
    server.read_head().await;
    server.write("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: x\r\n\r\nTUNNELLED").await;
    let answer = client.read_head().await;
    assert!(answer.starts_with("http/1.1 502 "), "{answer}");
    let body = client.read_until("}").await;
    assert!(body.contains("urn:sidekey:error:server-odd-answer") && !body.contains("TUNNELLED"), "{body}");
    front.stop().await;
}

#[tokio::test]
async fn a_server_speaks_for_itself_and_not_for_the_origin_it_is_at() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    let dangerous = [
        "alt-svc",
        "clear-site-data",
        "strict-transport-security",
        "proxy-authenticate",
        "set-cookie2",
        "refresh",
        "access-control-allow-credentials",
        "x-internal",
    ];
    let mut headers: serde_json::Map<_, _> = dangerous.iter().map(|name| ((*name).to_owned(), json!("x"))).collect();
    headers.insert("connection".to_owned(), json!("x-internal"));
    headers.insert("x-kept".to_owned(), json!("kept"));
    let params = json!({ "status": 200, "headers": headers, "body": {} });
    let answer = front.call(&tokens.access, "status", params).await;
    assert_eq!((answer.status, answer.header("x-kept")), (200, "kept"));
    for name in dangerous {
        assert!(!answer.headers.contains_key(name), "{name}: {:?}", answer.headers);
    }
    front.stop().await;
}

#[tokio::test]
async fn an_access_token_that_was_taken_back_is_not_given_again() {
    let front = Front::start().await;
    let first = front.authorized("alice").await;
    let second = Tokens::of(first.client_id.clone(), &front.refresh(&first.client_id, &first.refresh).await);
    let revoked = front.post_form("/revoke", &[("client_id", &second.client_id), ("token", &second.access)]).await;
    assert_eq!(revoked.status, 200);
    assert_oauth_error(&front.refresh(&first.client_id, &first.refresh).await, 400, "invalid_grant");
    assert_eq!(front.whoami(&second.access).await.status, 401, "it stays dead");
    let third = Tokens::of(second.client_id.clone(), &front.refresh(&second.client_id, &second.refresh).await);
    assert_eq!(front.whoami(&third.access).await.status, 200, "the grant lives");
    front.stop().await;
}

#[tokio::test]
async fn a_code_that_waits_ends_when_the_client_is_put_out() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut browser = front.browser("alice");
    let first = browser.authorize(&front.authorize_url(&client_id, &[])).await;
    let code = parameter(&first, "code").expect("a code");
    assert_eq!(front.redeem(&client_id, &code, &[]).await.status, 200);
    let second = browser.authorize(&front.authorize_url(&client_id, &[])).await;
    end_all_grants(&front).await;
    let code = parameter(&second, "code").expect("a code");
    assert_oauth_error(&front.redeem(&client_id, &code, &[]).await, 400, "invalid_grant");
    front.stop().await;
}

#[tokio::test]
async fn a_page_is_decided_about_once() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut browser = front.browser("alice");
    let (url, page) = browser.open(&front.authorize_url(&client_id, &[])).await.page();
    let (url, form) = (own_path(&url, "/authorize"), decision(&page, "deny", &[]));
    let back = browser.submit(&url, &form).await.away();
    assert_eq!(parameter(&back, "error").as_deref(), Some("access_denied"));
    let approve = decision(&page, "approve", &["notion"]);
    let (_, again) = browser.submit(&url, &approve).await.page();
    assert_eq!(again.status, 403);
    assert!(again.text().contains("<h1>Decided already</h1>"), "{}", again.text());
    front.stop().await;
}

#[tokio::test]
async fn who_signs_in_in_another_tab_can_still_approve_the_first_page() {
    let front = start(Special::default()).await;
    let client_id = front.register("A client").await;
    let mut browser = front.browser("alice");
    let url = front.authorize_url(&client_id, &[]);
    let (at, waiting) = browser.open(&url).await.page();
    browser.authorize(&url).await;
    let form = decision(&waiting, "approve", &["notion"]);
    let back = browser.submit(&own_path(&at, "/authorize"), &form).await.away();
    assert!(parameter(&back, "code").is_some(), "{back}");
    front.stop().await;
}

#[tokio::test]
async fn who_asks_only_to_come_back_gets_the_usual_scopes() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut browser = front.browser("alice");
    let back = browser.authorize(&front.authorize_url(&client_id, &[("scope", "offline_access")])).await;
    let code = parameter(&back, "code").expect("a code");
    let answer = front.redeem(&client_id, &code, &[]).await;
    assert_eq!(answer.json()["scope"], "mcp offline_access");
    front.stop().await;
}
