//! The whole bridge on pipes in memory: clients on one side, and on the other children that a test plays itself.

mod clients;
mod conversation;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::era::{MODERN, meta};
use super::*;
use crate::base::clock::{ManualClock, SystemClock, Timestamp};
use crate::base::random::SystemRandom;
use crate::base::secret::Secret;
use crate::issuer::{Called, MessageRoom};
use crate::model::authorization::{Authorization, User};
use crate::model::grant::Grant;
use crate::model::server::tests::server;

/// The key of a user's child.
pub fn key(subject: &str) -> ChildKey {
    ChildKey {
        server: "notes".parse().expect("a name"),
        subject: subject.parse().expect("a subject"),
        providers: BTreeSet::new(),
        labels: BTreeMap::new(),
        opening: Opening::Newest,
    }
}

const LIMITS: Limits = Limits { handshake: Duration::from_secs(3600), largest_message: 4096 };

/// What the end of the pipes is that a child has.
struct Child {
    key: ChildKey,
    said: Lines<BufReader<ReadHalf<DuplexStream>>>,
    out: WriteHalf<DuplexStream>,
}

impl Child {
    /// The next message to it.
    async fn next(&mut self) -> Value {
        let line = self.said.next_line().await.expect("readable").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    /// The next message, which is about this.
    async fn expect(&mut self, method: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["method"], method, "{message}");
        message
    }

    async fn write(&mut self, line: &str) {
        self.out.write_all(line.as_bytes()).await.expect("written");
        self.out.write_all(b"\n").await.expect("written");
    }

    async fn say(&mut self, message: Value) {
        let mut message = message;
        message["jsonrpc"] = json!("2.0");
        self.write(&message.to_string()).await;
    }

    async fn answer(&mut self, asked: &Value, result: Value) {
        self.say(json!({ "id": asked["id"], "result": result })).await;
    }

    async fn notify(&mut self, method: &str, params: Value) {
        self.say(json!({ "method": method, "params": params })).await;
    }

    /// Answers in the older era, as a server that knows no other.
    async fn introduce_older(&mut self) {
        let asked = self.next().await;
        let asked = if asked["method"] == "server/discover" {
            self.say(json!({ "id": asked["id"], "error": { "code": -32601, "message": "?" } })).await;
            self.expect("initialize").await
        } else {
            asked
        };
        assert_eq!(asked["params"]["capabilities"], json!({}), "nothing is declared that could not be served");
        let capabilities = json!({ "tools": {}, "logging": {}, "resources": { "subscribe": true } });
        let server = json!({ "name": "scripted", "version": "7" });
        let version = "2025-06-18";
        let result = json!({ "protocolVersion": version, "capabilities": capabilities, "serverInfo": server });
        self.answer(&asked, result).await;
        self.expect("notifications/initialized").await;
    }

    /// Answers in the newer era.
    async fn introduce_newer(&mut self) {
        let asked = self.expect("server/discover").await;
        assert_eq!(asked["params"]["_meta"][meta::VERSION], MODERN);
        let result = json!({ "supportedVersions": [MODERN], "capabilities": { "tools": {} }, "resultType": "complete",
            "ttlMs": 0, "cacheScope": "private", "_meta": { meta::SERVER: { "name": "scripted", "version": "8" } } });
        self.answer(&asked, result).await;
        let listening = self.expect("subscriptions/listen").await;
        assert_eq!(listening["params"]["notifications"]["toolsListChanged"], true);
    }
}

/// Starts children for the bridge, and hands a test their ends of the pipes.
struct Stage {
    connector: Connector,
    running: tokio::sync::Mutex<BTreeMap<ChildKey, Arc<Multiplexer>>>,
    started: mpsc::UnboundedSender<Child>,
    refuse: Mutex<Option<NoChild>>,
}

#[async_trait]
impl Children for Stage {
    async fn child(&self, key: &ChildKey, _grant: &Arc<LiveGrant>) -> Result<Lease, NoChild> {
        if let Some(refusal) = self.refuse.lock().expect("unpoisoned").clone() {
            return Err(refusal);
        }
        let mut running = self.running.lock().await;
        if let Some(lease) = running.get(key).and_then(Multiplexer::lease) {
            return Ok(lease);
        }
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (said, out) = tokio::io::split(theirs);
        let child = Child { key: key.clone(), said: BufReader::new(said).lines(), out };
        self.started.send(child).expect("the test runs");
        let (stdout, stdin) = tokio::io::split(ours);
        let connected = self.connector.connect(key.clone(), LIMITS, stdout, stdin).await;
        let multiplexer = connected.map_err(|why| NoChild::CannotStart { why: format!("{why:?}") })?;
        let lease = multiplexer.lease();
        running.insert(key.clone(), multiplexer);
        lease.ok_or(NoChild::Stopping)
    }
}

/// Sessions are the issuer's; here they are only counted.
#[derive(Default)]
struct Counted(Mutex<BTreeSet<Vec<u8>>>);

#[async_trait]
impl SessionOwners for Counted {
    async fn begin(&self, _server: &ServerName, id: &[u8], _subject: &Subject) -> bool {
        self.0.lock().expect("unpoisoned").insert(id.to_vec())
    }

    async fn end(&self, _server: &ServerName, id: &[u8]) {
        self.0.lock().expect("unpoisoned").remove(id);
    }
}

/// A bridge, and the children that it starts.
struct Scene {
    bridge: Arc<Bridge>,
    stage: Arc<Stage>,
    children: mpsc::UnboundedReceiver<Child>,
    sessions: Arc<Counted>,
    clock: ManualClock,
}

impl Scene {
    fn new() -> Self {
        let clock = ManualClock::at(Timestamp::from_millis(0));
        let connector = Connector::new(Arc::new(clock.clone()));
        let (started, children) = mpsc::unbounded_channel();
        let (running, refuse) = (tokio::sync::Mutex::default(), Mutex::default());
        let stage = Arc::new(Stage { connector: connector.clone(), running, started, refuse });
        let sessions = Arc::new(Counted::default());
        let bridge = Arc::new(Bridge {
            children: Arc::clone(&stage) as Arc<dyn Children>,
            connector,
            sessions: Arc::clone(&sessions) as Arc<dyn SessionOwners>,
            clock: Arc::new(clock.clone()),
            random: Arc::new(SystemRandom),
        });
        Self { bridge, stage, children, sessions, clock }
    }

    /// The child that is started next.
    async fn child(&mut self) -> Child {
        self.children.recv().await.expect("a child")
    }

    fn client(&self, subject: &str) -> Client {
        Client { bridge: Arc::clone(&self.bridge), called: called(subject), session: None, version: None }
    }

    /// A client of the older era and its session, with the child that it caused to be started.
    async fn session(&mut self, subject: &str) -> (Client, Child) {
        let mut client = self.client(subject);
        let opening = client.clone();
        let initialized = tokio::spawn(async move { opening.initialize("2025-11-25").await });
        let mut child = self.child().await;
        child.introduce_older().await;
        client.session = Some(initialized.await.expect("initialized").1);
        (client, child)
    }
}

fn called(subject: &str) -> Called {
    let server = Arc::new(server("notes"));
    let authorization = Authorization {
        user: User { subject: subject.parse().expect("a subject"), account: None },
        client_id: "c".to_owned(),
        client_name: "Client".to_owned(),
        server: server.name.clone(),
        resource: server.resource.clone(),
        scopes: server.scopes.clone(),
        providers: server.providers.clone(),
        labels: BTreeMap::new(),
    };
    let at = Timestamp::from_millis;
    let (created_at, expires_at) = (at(0), at(i64::MAX));
    let grant = Grant { id: "g".to_owned(), authorization, created_at, expires_at, ended: None };
    let grant = LiveGrant::new(grant, Secret::new("h".to_owned()));
    Called { grant: Arc::new(grant), server }
}

/// Somebody who asks.
#[derive(Clone)]
struct Client {
    bridge: Arc<Bridge>,
    called: Called,
    session: Option<String>,
    version: Option<&'static str>,
}

/// An answer: its head, and what comes in it.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    rest: String,
}

impl Client {
    async fn send(&self, method: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        self.send_in(None, method, headers, body).await
    }

    /// Sends what has taken up this room.
    async fn send_in(
        &self,
        room: Option<MessageRoom>,
        method: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri("/notes/mcp");
        let mut usual = vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        usual.retain(|(name, _)| !headers.iter().any(|(other, _)| other == name));
        usual.extend(self.session.as_deref().map(|session| ("mcp-session-id", session)));
        usual.extend(self.version.map(|version| ("mcp-protocol-version", version)));
        for (name, value) in usual.iter().chain(headers).filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let mut request = request.extension(self.called.clone()).body(body.into()).expect("a request");
        room.map(|room| request.extensions_mut().insert(room));
        let (head, body) = self.bridge.call(request).await.into_parts();
        Reply { status: head.status, headers: head.headers, body, rest: String::new() }
    }

    /// A message in the older era.
    async fn post(&self, message: Value) -> Reply {
        let mut message = message;
        if message.is_object() {
            message["jsonrpc"] = json!("2.0");
        }
        self.send("POST", &[], message.to_string()).await
    }

    /// A request of the newer era, with the headers that belong to it.
    async fn modern(&self, id: Value, method: &str, params: Value) -> Reply {
        let mut params = params;
        params["_meta"][meta::VERSION] = json!(MODERN);
        params["_meta"][meta::CLIENT] = json!({ "name": "test", "version": "1" });
        params["_meta"][meta::CAPABILITIES] = json!({ "sampling": {} });
        let name = params["name"].as_str().or(params["uri"].as_str()).unwrap_or_default().to_owned();
        let headers = [("mcp-protocol-version", MODERN), ("mcp-method", method), ("mcp-name", &name)];
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.send("POST", &headers, message.to_string()).await
    }

    /// The result of `initialize`, and the session.
    async fn initialize(&self, version: &str) -> (Value, String) {
        let params = json!({ "protocolVersion": version, "capabilities": { "sampling": {} }, "clientInfo": {} });
        let reply = self.post(json!({ "id": 0, "method": "initialize", "params": params })).await;
        assert_eq!(reply.status, StatusCode::OK);
        let session = reply.headers["mcp-session-id"].to_str().expect("text").to_owned();
        (reply.json().await["result"].clone(), session)
    }
}

impl Reply {
    /// The message that an answer is which is no stream.
    async fn json(self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        let body = self.body.collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&body).expect("JSON")
    }

    /// The next message of a stream; nothing at its end.
    async fn event(&mut self) -> Option<Value> {
        assert_eq!(self.headers["content-type"], "text/event-stream");
        loop {
            if let Some((event, rest)) = self.rest.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.rest = rest;
                match event.strip_prefix("event: message\ndata: ") {
                    Some(message) => return Some(serde_json::from_str(message).expect("JSON")),
                    None => assert!(event.starts_with(':'), "{event}"),
                }
                continue;
            }
            let frame = self.body.frame().await?.expect("a frame").into_data().expect("data");
            self.rest.push_str(std::str::from_utf8(&frame).expect("text"));
        }
    }

    async fn refusal(self) -> (u16, i64, String) {
        let status = self.status.as_u16();
        let error = self.json().await["error"].clone();
        let kind = error["data"]["type"].as_str().unwrap_or_default().replace("urn:sidekey:error:", "");
        (status, error["code"].as_i64().expect("a code"), kind)
    }
}

/// A tool call under way.
fn call(client: &Client, message: Value) -> tokio::task::JoinHandle<Reply> {
    let client = client.clone();
    tokio::spawn(async move { client.post(message).await })
}

fn modern_call(client: &Client, id: Value, method: &'static str, params: Value) -> tokio::task::JoinHandle<Reply> {
    let client = client.clone();
    tokio::spawn(async move { client.modern(id, method, params).await })
}

/// Real time: a test that would wait for ever fails instead.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let clock = SystemClock;
    tokio::select! {
        done = future => done,
        () = crate::base::clock::Clock::sleep(&clock, Duration::from_secs(20)) => panic!("nothing happened for 20 s"),
    }
}
