//! MCP clients of both eras at a server that speaks stdio, over HTTP and through all of Sidekey.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Answer, send};
use crate::front::{Front, Tokens};
use crate::front_support::{Special, start};
use crate::wire::Wire;
use crate::world::{eventually, now};

const MODERN: &str = "2026-07-28";

async fn front(largest_message: &str) -> Front {
    let script = serde_json::to_string(include_str!("bridge_server.py")).expect("text");
    let tables = format!(
        "[servers.hub]\nproviders = [\"notion\"]\nrequired = [\"notion\"]\ncommand = [\"/usr/bin/env\", \"python3\", \"-S\", \"-E\", \"-c\", {script}]\n\
         [servers.hub.children]\nisolation = false\nlargest_message = \"{largest_message}\"\n"
    );
    start(Special { tables, ..Special::default() }).await
}

/// One client of a user.
struct Client<'a> {
    front: &'a Front,
    tokens: &'a Tokens,
    session: String,
}

impl<'a> Client<'a> {
    async fn begin(front: &'a Front, tokens: &'a Tokens) -> Self {
        let client = Self { front, tokens, session: String::new() };
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {} });
        let answer = client.post("initialize", params).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["result"]["serverInfo"]["name"], "bridged");
        let session = answer.headers["mcp-session-id"].to_str().expect("text").to_owned();
        Self { session, ..client }
    }

    fn request(&self, method: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        let request = self.front.world.client.request(method, self.front.world.public("/hub/mcp"));
        let request = request.bearer_auth(&self.tokens.access).header("content-type", "application/json");
        let request = request.header("accept", "application/json, text/event-stream");
        if self.session.is_empty() { request } else { request.header("mcp-session-id", &self.session) }
    }

    async fn post(&self, method: &str, params: Value) -> Answer {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        send(self.request("POST").body(body.to_string())).await
    }

    async fn call(&self, tool: &str, arguments: Value) -> Value {
        let answer = self.post("tools/call", json!({ "name": tool, "arguments": arguments })).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text = answer.json()["result"]["content"][0]["text"].as_str().map(str::to_owned);
        serde_json::from_str(&text.unwrap_or_else(|| panic!("{}", answer.text()))).expect("JSON")
    }

    /// Sends a request of which every byte of the answer is read.
    async fn wire(&self, method: &str, headers: &str, body: &str) -> Wire {
        let mut wire = Wire::connect(self.front.world.files.public).await;
        let (host, token, length) = (self.front.world.files.public, &self.tokens.access, body.len());
        let head = format!(
            "{method} /hub/mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
             accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n{headers}\r\n{body}"
        );
        wire.write(&head).await;
        wire
    }

    /// The head of a request whose body is yet to come.
    async fn begin_post(&self, body: &str) -> Wire {
        let mut wire = Wire::connect(self.front.world.files.public).await;
        let (host, token, session) = (self.front.world.files.public, &self.tokens.access, &self.session);
        let head = format!(
            "POST /hub/mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nmcp-session-id: {session}\r\n\
             accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n{body}\r\n\r\n"
        );
        wire.write(&head).await;
        wire
    }

    /// A call of the tool `wait`, in the newer era or in the session, of which the first event has arrived.
    async fn wait(&self, word: &str, is_modern: bool) -> Wire {
        let mut params = json!({ "name": "wait", "arguments": { "word": word }, "_meta": { "progressToken": word } });
        let headers = if is_modern {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
            format!("mcp-protocol-version: {MODERN}\r\nmcp-method: tools/call\r\nmcp-name: wait\r\n")
        } else {
            format!("mcp-session-id: {}\r\n", self.session)
        };
        let body = json!({ "jsonrpc": "2.0", "id": word, "method": "tools/call", "params": params }).to_string();
        let mut wire = self.wire("POST", &headers, &body).await;
        let head = wire.read_head().await;
        assert!(head.starts_with("http/1.1 200 ") && head.contains("content-type: text/event-stream\r\n"), "{head}");
        let event = wire.read_until("\n\n").await;
        assert!(event.contains(&format!("\"progressToken\":\"{word}\"")), "{event}");
        wire
    }
}

#[tokio::test]
async fn clients_of_both_eras_are_served_over_http() {
    let front = front("64KiB").await;
    let tokens = front.authorized_at("/hub/mcp", "alice").await;
    let client = Client::begin(&front, &tokens).await;

    // What came with the request and is not the message stays with Sidekey; the process has a handle of its own.
    let params = json!({ "name": "everything" });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
    let answer = send(client.request("POST").header("cookie", "canary").header("x-canary", "canary").body(body)).await;
    let text = answer.text().to_owned();
    assert!(!text.contains(&tokens.access) && !text.contains("canary") && text.contains("sidekey_h_"), "{text}");
    for (name, value) in
        [("cache-control", "no-store"), ("vary", "Authorization"), ("access-control-allow-origin", "*")]
    {
        assert_eq!(answer.headers[name], value);
    }
    assert!(answer.headers.contains_key("ratelimit-remaining") && !answer.headers.contains_key("mcp-session-id"));

    // Events arrive as they are said, and not with the answer.
    for is_modern in [false, true] {
        let mut wire = client.wait("first", is_modern).await;
        assert_eq!(client.call("go", json!({ "word": "first" })).await, true);
        let answer = wire.read_until("\n\n").await;
        assert!(answer.contains("\"id\":\"first\""), "{answer}");
        wire.read_until("0\r\n\r\n").await;
    }

    // Who hangs up in the newer era has cancelled, and in the older one it takes a message.
    drop(client.wait("hung up", true).await);
    assert_eq!(client.call("cancelled", json!({})).await, "hung up");
    let mut wire = client.wait("taken back", false).await;
    let cancel =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "taken back" } });
    assert_eq!(send(client.request("POST").body(cancel.to_string())).await.status, 202);
    assert_eq!(client.call("cancelled", json!({})).await, "taken back");
    wire.read_until("0\r\n\r\n").await;

    // What is news reaches who listens.
    let mut stream = client.wire("GET", &format!("mcp-session-id: {}\r\n", client.session), "").await;
    let head = stream.read_head().await;
    assert!(
        head.contains("content-type: text/event-stream\r\n") && head.contains("cache-control: no-store\r\n"),
        "{head}"
    );
    stream.read_until(":\n\n").await;
    assert_eq!(client.call("news", json!({})).await, true);
    stream.read_until("notifications/tools/list_changed").await;

    // As large as a message may be, and no larger.
    assert_eq!(client.call("echo", json!({ "text": "x".repeat(60_000) })).await, 60_000);
    let answer =
        client.post("tools/call", json!({ "name": "echo", "arguments": { "text": "x".repeat(66_000) } })).await;
    assert_eq!((answer.status, &answer.json()["type"]), (413, &json!("urn:sidekey:error:message-too-large")));

    // Errors of the bridge say what is wrong in JSON-RPC.
    let answer = send(client.request("POST").body("{")).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(-32700)));
    let answer = send(client.request("HEAD")).await;
    assert_eq!(
        (answer.status, &answer.headers["allow"]),
        (405, &"GET, POST, DELETE, OPTIONS".parse().expect("a value"))
    );

    // A session ends for good, with its streams, and is its user's alone.
    let bob_tokens = front.authorized_at("/hub/mcp", "bob").await;
    let bob = Client { front: &front, tokens: &bob_tokens, session: client.session.clone() };
    let unknown = json!("urn:sidekey:error:unknown-session");
    for method in ["POST", "GET", "DELETE"] {
        let answer = send(bob.request(method).body("{}")).await;
        assert_eq!((answer.status, &answer.json()["type"]), (404, &unknown), "{method}");
    }
    let bob = Client::begin(&front, &bob_tokens).await;
    let own = client.call("everything", json!({})).await;
    let his = bob.call("everything", json!({})).await;
    assert_ne!(own["pid"], his["pid"], "each user has a process");
    assert!(!his["lines"].to_string().contains("taken back"));
    assert_eq!(send(client.request("DELETE")).await.status, 200);
    stream.read_until("0\r\n\r\n").await;
    let answer = client.post("tools/list", json!({})).await;
    assert_eq!((answer.status, &answer.json()["type"]), (404, &unknown));

    // A grant that ends takes its streams along.
    let mut stream = bob.wire("GET", &format!("mcp-session-id: {}\r\n", bob.session), "").await;
    stream.read_until(":\n\n").await;
    let grants = front.grants().await;
    let grant = grants.last().expect("bob's")["id"].as_str().expect("text").to_owned();
    let revoked = front.world.admin("DELETE", &format!("/v1/grants/{grant}"), "").await;
    assert!(revoked.status < 300, "{}", revoked.text());
    stream.ends().await;

    // A stop does not wait for streams that nobody ends.
    let alice = Client::begin(&front, &tokens).await;
    let mut stream = alice.wire("GET", &format!("mcp-session-id: {}\r\n", alice.session), "").await;
    stream.read_until(":\n\n").await;
    let begun = now();
    front.stop().await;
    stream.read_until("0\r\n\r\n").await;
    assert!(now().since(begun) < Duration::from_secs(10));
}

/// One user does not fill the memory with bodies, announced or not, and is in nobody's way.
#[tokio::test]
async fn bodies_that_wait_take_up_so_much_and_no_more() {
    let front = front("16MiB").await;
    let tokens = front.authorized_at("/hub/mcp", "alice").await;
    let client = Client::begin(&front, &tokens).await;
    let bob_tokens = front.authorized_at("/hub/mcp", "bob").await;
    let bob = Client::begin(&front, &bob_tokens).await;
    // A call whose body has begun has all of its room.
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut wire = client.begin_post("content-length: 16777216\r\nexpect: 100-continue").await;
        assert!(wire.read_head().await.starts_with("http/1.1 100 "));
        waiting.push(wire);
    }
    let large = json!({ "text": "x".repeat(1 << 20) });
    let answer = client.post("tools/call", json!({ "name": "echo", "arguments": large })).await;
    assert_eq!((answer.status, &answer.json()["type"]), (503, &json!("urn:sidekey:error:too-much-at-once")));
    assert_eq!(
        (&answer.headers["retry-after"], &answer.headers["vary"]),
        (&"5".parse().expect("a value"), &"Authorization".parse().expect("a value"))
    );
    // A body that is not announced is refused where it becomes too large.
    let mut chunked = client.begin_post("transfer-encoding: chunked").await;
    chunked.write(&format!("5000\r\n{}\r\n", "x".repeat(0x5000))).await;
    assert!(chunked.read_head().await.starts_with("http/1.1 503 "));
    // What is small gets through, and so do others.
    assert_eq!(client.call("echo", json!({ "text": "x".repeat(1000) })).await, 1000);
    assert_eq!(bob.call("echo", large.clone()).await, 1 << 20);
    // Who hangs up gives back what he had.
    drop(waiting.pop());
    eventually("there is room again", async || {
        client.post("tools/call", json!({ "name": "echo", "arguments": large })).await.status == 200
    })
    .await;
}
