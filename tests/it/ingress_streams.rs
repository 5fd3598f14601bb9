//! What goes on for a while: events, uploads, upgraded connections, and their ends.

use crate::wire::{Wire, head, raw_server};

/// As chunked transfer coding carries it.
fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

#[tokio::test]
async fn events_arrive_one_by_one_and_unchanged() {
    let (front, listener, tokens) = raw_server().await;
    for method in ["GET", "POST"] {
        let more = "accept: text/event-stream\r\nlast-event-id: 41\r\ncontent-length: 0\r\n";
        let mut client = Wire::connect(front.world.files.public).await;
        client.write(&head(&front, &tokens, method, more)).await;
        let mut server = Wire::accept(&listener).await;
        let asked = server.read_head().await;
        assert!(asked.starts_with(&format!("{} /mcp http/1.1\r\n", method.to_ascii_lowercase())), "{asked}");
        assert!(asked.contains("last-event-id: 41\r\n"), "{asked}");
        server
            .write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        let answer = client.read_head().await;
        assert!(answer.starts_with("http/1.1 200 "), "{answer}");
        for header in
            ["content-type: text/event-stream\r\n", "x-accel-buffering: no\r\n", "cache-control: no-store\r\n"]
        {
            assert!(answer.contains(header), "{header}: {answer}");
        }
        // Each is read before the next one is written.
        for event in [
            "id: 42\ndata:\n\n",
            "retry: 3000\n\n",
            ": keep-alive\n\n",
            "event: message\r\nid: 43\r\ndata: {\"jsonrpc\":\"2.0\"}\r\n\r\n",
            "data: half of an eve",
            "nt\ndata:\u{e4}\n\n",
        ] {
            server.write(&chunk(event)).await;
            assert_eq!(client.read_until(event).await, format!("{:X}\r\n{event}", event.len()));
            client.read_until("\r\n").await;
        }
        server.write("0\r\n\r\n").await;
        assert_eq!(client.read_until("0\r\n\r\n").await, "0\r\n\r\n");
    }
    front.stop().await;
}

#[tokio::test]
async fn an_upload_is_passed_on_as_it_comes() {
    let (front, listener, tokens) = raw_server().await;
    let mut client = Wire::connect(front.world.files.public).await;
    let more = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
    client.write(&head(&front, &tokens, "POST", more)).await;
    client.write(&chunk("{\"first\":1,")).await;
    let mut server = Wire::accept(&listener).await;
    let asked = server.read_head().await;
    assert!(asked.contains("transfer-encoding: chunked\r\n") && !asked.contains("content-length"), "{asked}");
    server.read_until("{\"first\":1,").await;
    client.write(&chunk("\"second\":2}")).await;
    server.read_until("\"second\":2}").await;
    client.write("0\r\n\r\n").await;
    server.read_until("0\r\n\r\n").await;
    server.write("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
    let answer = client.read_head().await;
    assert!(answer.starts_with("http/1.1 202 "), "{answer}");
    front.stop().await;
}

#[tokio::test]
async fn an_answer_may_come_before_the_upload_is_complete() {
    let (front, listener, tokens) = raw_server().await;
    let mut client = Wire::connect(front.world.files.public).await;
    client.write(&head(&front, &tokens, "POST", "content-length: 1000\r\n")).await;
    client.write("begun").await;
    let mut server = Wire::accept(&listener).await;
    server.read_until("begun").await;
    server.write("HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlarge").await;
    let answer = client.read_head().await;
    assert!(answer.starts_with("http/1.1 413 "), "{answer}");
    client.read_until("large").await;
    front.stop().await;
}

#[tokio::test]
async fn a_websocket_carries_bytes_both_ways() {
    let (front, listener, tokens) = raw_server().await;
    let mut client = Wire::connect(front.world.files.public).await;
    let more = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: mcp\r\n";
    client.write(&head(&front, &tokens, "GET", more)).await;
    let mut server = Wire::accept(&listener).await;
    let asked = server.read_head().await;
    for header in
        ["upgrade: websocket\r\n", "connection: upgrade\r\n", "sec-websocket-key: ", "sec-websocket-protocol: mcp\r\n"]
    {
        assert!(asked.contains(header), "{header}: {asked}");
    }
    assert!(asked.contains("authorization: bearer sidekey_h_"), "{asked}");
    server
        .write(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nset-cookie: a=b\r\n\r\n",
        )
        .await;
    let answer = client.read_head().await;
    assert!(answer.starts_with("http/1.1 101 ") && answer.contains("sec-websocket-accept: s3pp"), "{answer}");
    assert!(!answer.contains("set-cookie"), "{answer}");
    for round in ["first", "second"] {
        client.write(&format!("{round} to the server;")).await;
        assert_eq!(server.read_until(";").await, format!("{round} to the server;"));
        server.write(&format!("{round} to the client;")).await;
        assert_eq!(client.read_until(";").await, format!("{round} to the client;"));
    }
    drop(client);
    server.ends().await;
    front.stop().await;
}

#[tokio::test]
async fn nothing_is_upgraded_without_a_token() {
    let (front, listener, _) = raw_server().await;
    let mut client = Wire::connect(front.world.files.public).await;
    let host = front.world.files.public;
    let upgrade = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    client.write(&format!("GET /raw/mcp HTTP/1.1\r\nhost: {host}\r\n{upgrade}\r\n\r\n")).await;
    let answer = client.read_head().await;
    assert!(answer.starts_with("http/1.1 401 "), "{answer}");
    let none = tokio::time::timeout(std::time::Duration::from_millis(100), listener.accept()).await;
    assert!(none.is_err(), "nobody came to the server");
    front.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_during_a_stream_takes_the_servers_connection_along() {
    let (front, listener, tokens) = raw_server().await;
    let mut client = Wire::connect(front.world.files.public).await;
    client.write(&head(&front, &tokens, "POST", "content-length: 2\r\n")).await;
    client.write("{}").await;
    let mut server = Wire::accept(&listener).await;
    server.read_until("{}").await;
    server.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    server.write(&chunk("data: 1\n\n")).await;
    client.read_until("data: 1\n\n").await;
    drop(client);
    // Nothing more is written: the end alone is what the server notices.
    server.ends().await;
    front.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_before_an_answer_takes_the_servers_connection_along() {
    let (front, listener, tokens) = raw_server().await;
    let mut client = Wire::connect(front.world.files.public).await;
    client.write(&head(&front, &tokens, "POST", "content-length: 2\r\n")).await;
    client.write("{}").await;
    let mut server = Wire::accept(&listener).await;
    server.read_until("{}").await;
    drop(client);
    server.ends().await;
    front.stop().await;
}

#[tokio::test]
async fn a_server_that_goes_away_during_a_stream_ends_it_for_the_client() {
    let (front, listener, tokens) = raw_server().await;
    let mut client = Wire::connect(front.world.files.public).await;
    client.write(&head(&front, &tokens, "GET", "")).await;
    let mut server = Wire::accept(&listener).await;
    server.read_head().await;
    server.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    server.write(&chunk("data: 1\n\n")).await;
    client.read_until("data: 1\n\n").await;
    drop(server);
    client.ends().await;
    front.stop().await;
}
