//! Children that end, say nonsense, or cannot be had.

use bytes::Bytes;

use super::*;
use crate::base::byte_budget::ByteBudget;

#[tokio::test]
async fn a_child_that_ends_fails_what_it_was_asked_and_another_is_started() {
    let mut scene = Scene::new();
    let (client, mut child) = in_time(scene.session("alice")).await;
    in_time(async {
        let called = call(&client, json!({ "id": 1, "method": "tools/call", "params": { "name": "x" } }));
        child.expect("tools/call").await;
        drop(child);
        let refusal = called.await.expect("answered").refusal().await;
        assert_eq!(refusal, (200, -32603, "server-ended".to_owned()));
        let called = call(&client, json!({ "id": 2, "method": "tools/list" }));
        let mut child = scene.child().await;
        child.introduce_older().await;
        let asked = child.expect("tools/list").await;
        child.answer(&asked, json!({ "tools": [] })).await;
        assert_eq!(called.await.expect("answered").json().await["id"], 2, "the session is still good");
    })
    .await;
}

#[tokio::test]
async fn nonsense_of_a_child_is_an_error_for_the_request_in_flight() {
    let mut scene = Scene::new();
    let (client, mut child) = in_time(scene.session("alice")).await;
    let overlong = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"{}\"}}", "x".repeat(5000));
    in_time(async {
        // With nobody waiting it is nobody's trouble.
        child.write("Server is listening").await;
        for nonsense in [
            "Server is listening",
            "{\"jsonrpc\":\"2.0\",",
            "[1]",
            r#"{"jsonrpc":"2.0","id":99,"result":{}}"#,
            &overlong,
        ] {
            let called = call(&client, json!({ "id": 1, "method": "tools/call", "params": { "name": "x" } }));
            let asked = child.expect("tools/call").await;
            child.write(nonsense).await;
            let refusal = called.await.expect("answered").refusal().await;
            assert_eq!(refusal, (200, -32603, "server-malformed".to_owned()), "{nonsense:.40}");
            // The right answer comes too late.
            child.answer(&asked, json!({ "content": [] })).await;
        }
        // Of several, the one that it names.
        let first = call(&client, json!({ "id": 1, "method": "tools/call", "params": { "name": "x" } }));
        let first_asked = child.expect("tools/call").await;
        let second = call(&client, json!({ "id": 2, "method": "tools/call", "params": { "name": "x" } }));
        let second_asked = child.expect("tools/call").await;
        child.write(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":", first_asked["id"])).await;
        assert_eq!(first.await.expect("answered").refusal().await.2, "server-malformed");
        child.answer(&second_asked, json!({ "content": [] })).await;
        assert_eq!(second.await.expect("answered").json().await["result"], json!({ "content": [] }));
        // The largest message that there may be.
        let called = call(&client, json!({ "id": 3, "method": "tools/list" }));
        let asked = child.expect("tools/list").await;
        let frame = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "text": "" } }).to_string().len();
        child.answer(&asked, json!({ "text": "y".repeat(LIMITS.largest_message - frame) })).await;
        assert!(called.await.expect("answered").json().await["result"]["text"].is_string());
    })
    .await;
}

#[tokio::test]
async fn a_child_that_cannot_be_had_is_said_to_be_so_with_the_time_to_come_back() {
    let scene = Scene::new();
    let client = Client { session: Some("s".to_owned()), ..scene.client("alice") };
    let retry_after = Duration::from_secs(7);
    for (why, status, kind, wait) in [
        (NoChild::AllBusy { retry_after }, 503, "server-busy", Some("7")),
        (NoChild::BackingOff { retry_after, why: "it was killed".to_owned() }, 503, "server-backing-off", Some("7")),
        (NoChild::CannotStart { why: "no such program".to_owned() }, 502, "server-cannot-start", None),
        (NoChild::Stopping, 503, "stopping", Some("5")),
    ] {
        *scene.stage.refuse.lock().expect("unpoisoned") = Some(why);
        for reply in [
            client.post(json!({ "id": 1, "method": "tools/list" })).await,
            scene.client("alice").modern(json!(1), "tools/list", json!({})).await,
        ] {
            assert_eq!(reply.headers.get("retry-after").map(|value| value.to_str().expect("text")), wait);
            assert_eq!(reply.refusal().await, (status, -32603, kind.to_owned()));
        }
    }
}

#[tokio::test]
async fn the_next_steps_are_in_the_message_that_users_see() {
    let scene = Scene::new();
    let why = NoChild::BackingOff { retry_after: Duration::from_secs(9), why: "it was killed by SIGKILL".to_owned() };
    *scene.stage.refuse.lock().expect("unpoisoned") = Some(why);
    let reply = scene.client("alice").modern(json!("x"), "tools/list", json!({})).await.json().await;
    assert_eq!(
        (&reply["id"], &reply["error"]["message"]),
        (
            &json!("x"),
            &json!(
                "The MCP server of this user ended too often: it was killed by SIGKILL. Try again in 9 seconds; \
                 Retry-After says so too."
            )
        )
    );
}

#[tokio::test]
async fn a_user_who_asks_for_too_much_at_once_is_told_to_come_back() {
    let mut scene = Scene::new();
    let (client, mut child) = in_time(scene.session("alice")).await;
    in_time(async {
        let mut calls = Vec::new();
        for id in 0..512 {
            calls.push(call(&client, json!({ "id": id, "method": "tools/list" })));
            child.expect("tools/list").await;
        }
        let reply = client.post(json!({ "id": "more", "method": "tools/list" })).await;
        assert_eq!(reply.headers["retry-after"], "5");
        assert_eq!(reply.refusal().await, (503, -32603, "too-many-calls".to_owned()));
        let mut streams = Vec::new();
        for _ in 0..64 {
            streams.push(client.send("GET", &[], "").await);
        }
        let reply = client.send("GET", &[], "").await;
        assert_eq!(reply.refusal().await, (503, -32603, "too-many-streams".to_owned()));
        for called in calls {
            called.abort();
        }
    })
    .await;
}

#[tokio::test]
async fn a_child_that_was_not_heard_of_in_time_is_given_up() {
    let clock = ManualClock::at(Timestamp::from_millis(0));
    let connector = Connector::new(Arc::new(clock.clone()));
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (stdout, stdin) = tokio::io::split(ours);
    let connecting = tokio::spawn(async move { connector.connect(key("alice"), LIMITS, stdout, stdin).await });
    in_time(async {
        while clock.sleepers() < 2 {
            tokio::task::yield_now().await;
        }
        clock.advance(LIMITS.handshake);
        assert_eq!(connecting.await.expect("over").err(), Some(NotConnected::TimedOut));
        // Its input is closed, which asks it to end.
        let mut said = BufReader::new(theirs).lines();
        while said.next_line().await.expect("readable").is_some() {}
    })
    .await;
}

#[tokio::test]
async fn a_child_in_use_is_not_retired() {
    let mut scene = Scene::new();
    let (client, mut child) = in_time(scene.session("alice")).await;
    in_time(async {
        let multiplexer = Arc::clone(&scene.stage.running.lock().await[&child.key]);
        multiplexer.unused().await;
        scene.clock.advance(Duration::from_secs(60));
        let called = call(&client, json!({ "id": 1, "method": "tools/list" }));
        let asked = child.expect("tools/list").await;
        let at = Timestamp::from_millis;
        assert_eq!(multiplexer.usage(), Usage { leases: 1, last_used: at(60_000) });
        assert!(!multiplexer.retire_if_unused_since(at(i64::MAX)));
        child.answer(&asked, json!({ "tools": [] })).await;
        called.await.expect("answered");
        multiplexer.unused().await;
        assert!(!multiplexer.retire_if_unused_since(at(59_999)) && multiplexer.lease().is_some());
        multiplexer.unused().await;
        assert!(multiplexer.retire_if_unused_since(at(60_000)));
        assert!(multiplexer.lease().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_batch_of_a_child_that_is_too_long_is_one_malformed_line() {
    let mut scene = Scene::new();
    let (client, mut child) = in_time(scene.session("alice")).await;
    let batch = |parts: usize, asked: &Value| {
        let mut parts = vec!["{\"jsonrpc\":\"2.0\",\"method\":\"n\"}".to_owned(); parts];
        parts.push(json!({ "jsonrpc": "2.0", "id": asked["id"], "result": {} }).to_string());
        format!("[{}]", parts.join(","))
    };
    in_time(async {
        let called = call(&client, json!({ "id": 1, "method": "tools/list" }));
        let asked = child.expect("tools/list").await;
        child.write(&batch(63, &asked)).await;
        assert_eq!(called.await.expect("answered").json().await["result"], json!({}));
        let called = call(&client, json!({ "id": 2, "method": "tools/list" }));
        let asked = child.expect("tools/list").await;
        child.write(&batch(64, &asked)).await;
        assert_eq!(called.await.expect("answered").refusal().await.2, "server-malformed");
    })
    .await;
}

#[tokio::test]
async fn a_child_that_writes_nothing_but_nonsense_is_given_up() {
    let mut scene = Scene::new();
    let (client, mut child) = in_time(scene.session("alice")).await;
    in_time(async {
        let multiplexer = Arc::clone(&scene.stage.running.lock().await[&child.key]);
        // Each is one line, however many messages it could hold.
        let zeros = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        for _ in 0..333 {
            child.write(&zeros(2000)).await;
            child.write(&zeros(64)).await;
            child.write("Server is listening").await;
        }
        // Its answer says that all before it was read.
        child.say(json!({ "id": "p", "method": "ping" })).await;
        assert_eq!(child.next().await["id"], "p", "999 are borne");
        let called = call(&client, json!({ "id": 1, "method": "tools/list" }));
        let asked = child.expect("tools/list").await;
        child.answer(&asked, json!({ "tools": [] })).await;
        assert_eq!(called.await.expect("answered").json().await["id"], 1);
        for _ in 0..1000 {
            child.write("Server is listening").await;
        }
        assert_eq!(multiplexer.over().await, Ending::GivenUp);
        assert!(multiplexer.lease().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_child_that_does_not_read_is_told_no_more_than_can_wait() {
    let mut scene = Scene::new();
    let (client, child) = in_time(scene.session("alice")).await;
    let notification = |length: usize| json!({ "method": "n", "params": { "data": "x".repeat(length) } });
    let not_reading = (503, -32603, "server-not-reading".to_owned());
    in_time(async {
        // So many fit into the pipe, one waits to be written, and one behind it.
        let line =
            json!({ "jsonrpc": "2.0", "method": "n", "params": { "data": "x".repeat(4000) } }).to_string() + "\n";
        for _ in 0..(1 << 20) / line.len() + 2 {
            assert_eq!(client.post(notification(4000)).await.status, StatusCode::ACCEPTED);
        }
        let waiting = call(&client, notification(4000));
        while scene.clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        let reply = client.post(notification(4000)).await;
        assert_eq!(reply.headers["retry-after"], "5");
        assert_eq!(reply.refusal().await, not_reading, "one of this size may wait");
        scene.clock.advance(Duration::from_secs(10));
        assert_eq!(waiting.await.expect("answered").refusal().await, not_reading, "and not for ever");
        drop(child);
    })
    .await;
}

#[tokio::test]
async fn notes_for_a_slow_client_hold_no_more_than_a_largest_message() {
    let mut scene = Scene::new();
    let (client, mut child) = in_time(scene.session("alice")).await;
    in_time(async {
        let params = json!({ "name": "x", "_meta": { "progressToken": "t" } });
        let called = call(&client, json!({ "id": 1, "method": "tools/call", "params": params }));
        let asked = child.expect("tools/call").await;
        let token = &asked["params"]["_meta"]["progressToken"];
        child.notify("notifications/progress", json!({ "progressToken": token, "progress": 0 })).await;
        let mut reply = called.await.expect("begun");
        for progress in 1..=5 {
            let params = json!({ "progressToken": token, "progress": progress, "message": "x".repeat(1900) });
            child.notify("notifications/progress", params).await;
        }
        child.answer(&asked, json!({ "content": [] })).await;
        child.say(json!({ "id": "p", "method": "ping" })).await;
        assert_eq!(child.next().await["id"], "p");
        let mut seen = Vec::new();
        while let Some(message) = reply.event().await {
            seen.push(message["params"]["progress"].clone());
        }
        assert_eq!(seen, [json!(0), json!(1), json!(2), json!(null)], "two fit, and the answer is not among them");
    })
    .await;
}

#[tokio::test]
async fn subscriptions_are_limited_in_number_and_length() {
    let mut scene = Scene::new();
    let (older, mut child) = in_time(scene.session("alice")).await;
    let newer = scene.client("alice");
    let too_many = (400, -32602, "too-many-subscriptions".to_owned());
    let odd = (400, -32602, "parameter".to_owned());
    in_time(async {
        let subscribe = |uri: String| json!({ "id": 1, "method": "resources/subscribe", "params": { "uri": uri } });
        let long = format!("a:{}", "x".repeat(2046));
        for number in 0..256 {
            let uri = if number == 0 { long.clone() } else { format!("a:{number}") };
            let called = call(&older, subscribe(uri));
            let asked = child.expect("resources/subscribe").await;
            child.answer(&asked, json!({})).await;
            assert_eq!(called.await.expect("answered").json().await["result"], json!({}));
        }
        assert_eq!(older.post(subscribe("a:256".to_owned())).await.refusal().await, too_many);
        assert_eq!(older.post(subscribe(format!("{long}x"))).await.refusal().await, odd);
        let listen = async |resources: Vec<String>| {
            let params = json!({ "notifications": { "resourceSubscriptions": resources } });
            newer.modern(json!(1), "subscriptions/listen", params).await
        };
        let many = |count: usize| (0..count).map(|number| format!("a:{number}")).collect::<Vec<_>>();
        assert_eq!(listen(many(257)).await.refusal().await, too_many);
        assert_eq!(listen(vec![format!("{long}x")]).await.refusal().await, odd);
        assert_eq!(listen(many(1)).await.status, StatusCode::OK);
        assert_eq!(listen(many(256)).await.status, StatusCode::OK);
    })
    .await;
}

/// A body that says when nobody holds it any longer.
struct Watched {
    text: Vec<u8>,
    _held: Arc<()>,
}

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

#[tokio::test]
async fn what_waits_for_a_child_that_does_not_read_is_held_once_and_counted() {
    let mut scene = Scene::new();
    let (client, mut child) = in_time(scene.session("alice")).await;
    in_time(async {
        // So many fit into the pipe, one waits to be written, and one behind it.
        let fill = json!({ "jsonrpc": "2.0", "method": "n", "params": { "data": "x".repeat(4000) } }).to_string();
        let count = (1 << 20) / (fill.len() + 1) + 2;
        for _ in 0..count {
            assert_eq!(client.send("POST", &[], fill.clone()).await.status, StatusCode::ACCEPTED);
        }
        let (budget, held) = (ByteBudget::new(1 << 20, 1 << 20), Arc::new(()));
        let mut room = budget.begin(client.called.grant.grant.authorization.user.subject.clone(), 1 << 20);
        room.reach(100_000).expect("room");
        let params = json!({ "name": "x", "arguments": { "data": "y".repeat(3000) } });
        let text = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
        let body = Bytes::from_owner(Watched { text: text.into_bytes(), _held: Arc::clone(&held) });
        let (asking, room): (_, MessageRoom) = (client.clone(), Arc::new(room));
        let called = tokio::spawn(async move { asking.send_in(Some(room), "POST", &[], body).await });
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(budget.held(), 100_000, "the line still waits");
        for _ in 0..count {
            child.expect("n").await;
        }
        let asked = child.expect("tools/call").await;
        while budget.held() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!called.is_finished(), "an answer may take long, and takes up no room");
        child.answer(&asked, json!({ "content": [] })).await;
        assert_eq!(called.await.expect("answered").json().await["id"], 1);
    })
    .await;
}
