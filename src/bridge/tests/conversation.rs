//! What goes through: requests, answers, progress and what was not asked for, in both eras on either side.

use super::*;

#[tokio::test]
async fn a_session_begins_is_used_and_ends() {
    let mut scene = Scene::new();
    let (client, mut child) = in_time(scene.session("alice")).await;
    assert_eq!(scene.sessions.0.lock().expect("unpoisoned").len(), 1);
    assert_eq!(client.post(json!({ "method": "notifications/initialized" })).await.status, StatusCode::ACCEPTED);
    let ping = client.post(json!({ "id": "p", "method": "ping" })).await.json().await;
    assert_eq!(ping, json!({ "jsonrpc": "2.0", "id": "p", "result": {} }));
    let params = json!({ "name": "add", "arguments": { "text": "größe\n", "number": 1.50 } });
    let called = call(&client, json!({ "id": "mine", "method": "tools/call", "params": params }));
    let asked = in_time(child.expect("tools/call")).await;
    assert_eq!(asked["params"], params, "what a tool is called with is not touched");
    assert!(asked["id"].is_u64(), "the id is ours");
    child.answer(&asked, json!({ "content": [], "extra": [1, 2.0] })).await;
    let answer = in_time(called).await.expect("answered").json().await;
    assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": "mine", "result": { "content": [], "extra": [1, 2.0] } }));
    assert_eq!(client.send("DELETE", &[], "").await.status, StatusCode::OK);
    assert!(scene.sessions.0.lock().expect("unpoisoned").is_empty());
}

#[tokio::test]
async fn clients_of_both_eras_share_a_child_and_meet_in_nothing() {
    let mut scene = Scene::new();
    let (older, mut child) = in_time(scene.session("alice")).await;
    let newer = scene.client("alice");
    let with_progress = json!({ "name": "slow", "_meta": { "progressToken": 1 } });
    // The same ids and the same tokens, on purpose.
    let first = call(&older, json!({ "id": 1, "method": "tools/call", "params": with_progress }));
    let first_asked = in_time(child.expect("tools/call")).await;
    let second = modern_call(&newer, json!(1), "tools/call", with_progress.clone());
    let second_asked = in_time(child.expect("tools/call")).await;
    assert_ne!(first_asked["id"], second_asked["id"]);
    let tokens = [&first_asked, &second_asked].map(|asked| asked["params"]["_meta"].clone());
    assert_eq!(
        tokens[1],
        json!({ "progressToken": second_asked["id"] }),
        "an older child is told nothing of the envelope"
    );
    assert_ne!(tokens[0], tokens[1]);
    for (asked, progress) in [(&second_asked, 2), (&first_asked, 1)] {
        let token = asked["params"]["_meta"]["progressToken"].clone();
        child.notify("notifications/progress", json!({ "progressToken": token, "progress": progress })).await;
    }
    child.answer(&second_asked, json!({ "content": ["second"] })).await;
    child.answer(&first_asked, json!({ "content": ["first"] })).await;
    let (mut first, mut second) = (in_time(first).await.expect("begun"), in_time(second).await.expect("begun"));
    for (reply, number) in [(&mut first, 1), (&mut second, 2)] {
        let progress = in_time(reply.event()).await.expect("progress");
        assert_eq!(progress["params"], json!({ "progressToken": 1, "progress": number }));
    }
    let answer = in_time(first.event()).await.expect("an answer");
    assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": ["first"] } }));
    let answer = in_time(second.event()).await.expect("an answer");
    let server = json!({ meta::SERVER: { "name": "scripted", "version": "7" } });
    assert_eq!(answer["result"], json!({ "content": ["second"], "resultType": "complete", "_meta": server }));
    assert!(in_time(first.event()).await.is_none() && in_time(second.event()).await.is_none());
    assert!(scene.children.try_recv().is_err(), "one child was enough");
}

#[tokio::test]
async fn an_older_child_is_discovered_by_newer_clients() {
    let mut scene = Scene::new();
    let client = scene.client("alice");
    let discovered = modern_call(&client, json!("d"), "server/discover", json!({}));
    in_time(async {
        let mut child = scene.child().await;
        child.introduce_older().await;
        let result = discovered.await.expect("answered").json().await["result"].clone();
        assert_eq!(result["supportedVersions"][0], MODERN);
        assert_eq!(result["capabilities"]["tools"], json!({}));
        assert_eq!((&result["resultType"], &result["ttlMs"]), (&json!("complete"), &json!(0)));
        // An unknown method is a 404 in this era, and an error of the tool's own is none of HTTP.
        for (code, status) in [(-32601, 404), (-32602, 400), (-32001, 200)] {
            let asked = modern_call(&client, json!(1), "tools/list", json!({}));
            let message = child.expect("tools/list").await;
            child.say(json!({ "id": message["id"], "error": { "code": code, "message": "?" } })).await;
            let reply = asked.await.expect("answered");
            assert_eq!(reply.status.as_u16(), status);
            assert_eq!(reply.json().await["error"], json!({ "code": code, "message": "?" }));
        }
    })
    .await;
}

#[tokio::test]
async fn a_child_of_both_eras_is_spoken_to_in_that_of_its_client() {
    let mut scene = Scene::new();
    let (older, newer) = (scene.client("alice"), scene.client("alice"));
    let initialized = {
        let older = older.clone();
        tokio::spawn(async move { older.initialize("2025-11-25").await })
    };
    in_time(async {
        // Which era it speaks is found out with the first child, and that is kept for newer clients.
        let mut modern_child = scene.child().await;
        modern_child.introduce_newer().await;
        let mut older_child = scene.child().await;
        assert_eq!(older_child.key.opening, Opening::Handshake);
        older_child.introduce_older().await;
        let (result, session) = initialized.await.expect("initialized");
        assert_eq!(result["protocolVersion"], "2025-06-18", "no newer than the child");
        let older = Client { session: Some(session), ..older };
        let called = modern_call(&newer, json!("n"), "tools/call", json!({ "name": "x" }));
        let asked = modern_child.expect("tools/call").await;
        assert_eq!(
            asked["params"]["_meta"][meta::CAPABILITIES],
            json!({ "sampling": {} }),
            "the client's own envelope"
        );
        let interim = json!({ "resultType": "input_required", "inputRequests": {}, "requestState": "s" });
        modern_child.answer(&asked, interim.clone()).await;
        assert_eq!(called.await.expect("answered").json().await["result"], interim, "the client is asked, not we");
        let called = call(&older, json!({ "id": 1, "method": "tools/call", "params": { "name": "x" } }));
        let asked = older_child.expect("tools/call").await;
        assert_eq!(asked["params"], json!({ "name": "x" }));
        older_child.answer(&asked, json!({ "content": [] })).await;
        assert_eq!(called.await.expect("answered").json().await["result"], json!({ "content": [] }));
        // The next user's older client gets the right child at once.
        let bob = scene.client("bob");
        let initialized = tokio::spawn(async move { bob.initialize("2025-11-25").await });
        let mut child = scene.child().await;
        assert_eq!(child.key.opening, Opening::Handshake);
        child.introduce_older().await;
        initialized.await.expect("initialized");
    })
    .await;
}

#[tokio::test]
async fn a_child_of_the_newer_era_alone_serves_older_clients_too() {
    let mut scene = Scene::new();
    let client = scene.client("alice");
    let initialized = {
        let client = client.clone();
        tokio::spawn(async move { client.initialize("2025-06-18").await })
    };
    in_time(async {
        let mut child = scene.child().await;
        child.introduce_newer().await;
        let mut refusing = scene.child().await;
        let asked = refusing.expect("initialize").await;
        let data = json!({ "supported": [MODERN] });
        refusing.say(json!({ "id": asked["id"], "error": { "code": -32022, "message": "?", "data": data } })).await;
        let (result, session) = initialized.await.expect("initialized");
        assert_eq!((&result["protocolVersion"], &result["serverInfo"]["version"]), (&json!("2025-06-18"), &json!("8")));
        let client = Client { session: Some(session), ..client };
        let called = call(&client, json!({ "id": 1, "method": "tools/call", "params": { "name": "x" } }));
        let asked = child.expect("tools/call").await;
        assert_eq!(asked["params"]["_meta"], era::own_meta());
        child.answer(&asked, json!({ "resultType": "input_required", "inputRequests": {} })).await;
        let refusal = called.await.expect("answered").refusal().await;
        assert_eq!(refusal, (200, -32603, "server-needs-input".to_owned()));
        // What the older era subscribes to one by one is one subscription in the newer one.
        let subscribe = json!({ "id": 2, "method": "resources/subscribe", "params": { "uri": "a:1" } });
        assert_eq!(client.post(subscribe).await.json().await["result"], json!({}));
        let listening = child.expect("subscriptions/listen").await;
        assert_eq!(listening["params"]["notifications"]["resourceSubscriptions"], json!(["a:1"]));
        child.expect("notifications/cancelled").await;
        let mut stream = client.send("GET", &[], "").await;
        let own = json!({ "uri": "a:1", "_meta": { meta::SUBSCRIPTION: listening["id"] } });
        child.notify("notifications/resources/updated", own).await;
        let told = stream.event().await.expect("told");
        assert_eq!(told["params"], json!({ "uri": "a:1" }), "the subscription was ours");
    })
    .await;
}

#[tokio::test]
async fn a_child_that_says_nothing_to_what_it_does_not_know_is_asked_in_the_older_way() {
    let mut scene = Scene::new();
    let client = scene.client("alice");
    let initialized = tokio::spawn(async move { client.initialize("2025-06-18").await });
    in_time(async {
        let mut child = scene.child().await;
        child.expect("server/discover").await;
        // It waits on the clock for the handshake and for the silence.
        while scene.clock.sleepers() < 2 {
            tokio::task::yield_now().await;
        }
        scene.clock.advance(Duration::from_secs(5));
        child.introduce_older().await;
        initialized.await.expect("initialized");
        // Known from now on.
        let bob = scene.client("bob");
        let initialized = tokio::spawn(async move { bob.initialize("2025-06-18").await });
        let mut child = scene.child().await;
        let asked = child.expect("initialize").await;
        let result = json!({ "protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": { "name": "n" } });
        child.answer(&asked, result).await;
        assert_eq!(initialized.await.expect("initialized").0["protocolVersion"], "2024-11-05");
    })
    .await;
}

#[tokio::test]
async fn what_a_child_asks_for_is_refused_but_for_a_ping() {
    let mut scene = Scene::new();
    let (_client, mut child) = in_time(scene.session("alice")).await;
    child.say(json!({ "id": "a", "method": "sampling/createMessage", "params": {} })).await;
    child.say(json!({ "id": 7, "method": "ping" })).await;
    let refused = in_time(child.next()).await;
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!("a"), &json!(-32601)));
    assert_eq!(in_time(child.next()).await, json!({ "jsonrpc": "2.0", "id": 7, "result": {} }));
}

#[tokio::test]
async fn news_reach_those_who_listen_and_subscriptions_outlive_a_child() {
    let mut scene = Scene::new();
    let (older, mut child) = in_time(scene.session("alice")).await;
    let newer = scene.client("alice");
    in_time(async {
        let mut stream = older.send("GET", &[("accept", "text/event-stream"), ("last-event-id", "5")], "").await;
        let filter = json!({ "notifications": { "toolsListChanged": true, "resourceSubscriptions": ["a:1"] } });
        let mut listening = newer.modern(json!("l"), "subscriptions/listen", filter).await;
        let acknowledged = listening.event().await.expect("acknowledged");
        assert_eq!(acknowledged["params"]["_meta"][meta::SUBSCRIPTION], "l");
        assert_eq!(child.expect("resources/subscribe").await["params"], json!({ "uri": "a:1" }));
        child.notify("notifications/tools/list_changed", json!({})).await;
        assert_eq!(listening.event().await.expect("told")["method"], "notifications/tools/list_changed");
        assert_eq!(stream.event().await.expect("told")["method"], "notifications/tools/list_changed");
        // The child is stopped because it is idle: neither stream holds it.
        let child_key = child.key.clone();
        let multiplexer = Arc::clone(&scene.stage.running.lock().await[&child_key]);
        multiplexer.unused().await;
        assert!(multiplexer.retire_if_unused_since(Timestamp::from_millis(0)));
        multiplexer.close();
        assert_eq!(multiplexer.over().await, Ending::Closed);
        let again = call(&older, json!({ "id": 1, "method": "tools/list" }));
        let mut child = scene.child().await;
        child.introduce_older().await;
        assert_eq!(child.expect("resources/subscribe").await["params"], json!({ "uri": "a:1" }));
        let asked = child.expect("tools/list").await;
        child.answer(&asked, json!({ "tools": [] })).await;
        assert_eq!(again.await.expect("answered").status, StatusCode::OK);
        child.notify("notifications/resources/updated", json!({ "uri": "a:1" })).await;
        let told = listening.event().await.expect("told");
        assert_eq!(told["params"], json!({ "uri": "a:1", "_meta": { meta::SUBSCRIPTION: "l" } }));
        // Who no longer listens, for him nothing is watched.
        drop(listening);
        child.expect("resources/unsubscribe").await;
    })
    .await;
}

/// A client may have several, and is told nothing twice (streamable HTTP, multiple connections).
#[tokio::test]
async fn of_several_streams_of_a_session_one_has_the_news() {
    let mut scene = Scene::new();
    let (client, mut child) = in_time(scene.session("alice")).await;
    in_time(async {
        let accept = [("accept", "text/event-stream")];
        let mut first = client.send("GET", &accept, "").await;
        let mut second = client.send("GET", &accept, "").await;
        child.notify("notifications/tools/list_changed", json!({})).await;
        assert_eq!(second.event().await.expect("told")["method"], "notifications/tools/list_changed");
        drop(second);
        child.notify("notifications/prompts/list_changed", json!({})).await;
        assert_eq!(
            first.event().await.expect("told")["method"],
            "notifications/prompts/list_changed",
            "and not the other"
        );
    })
    .await;
}

#[tokio::test]
async fn log_messages_reach_those_who_wait_and_want_them() {
    let mut scene = Scene::new();
    let (older, mut child) = in_time(scene.session("alice")).await;
    let newer = scene.client("alice");
    in_time(async {
        let set = call(&older, json!({ "id": 1, "method": "logging/setLevel", "params": { "level": "error" } }));
        let asked = child.expect("logging/setLevel").await;
        assert_eq!(asked["params"], json!({ "level": "error" }));
        child.answer(&asked, json!({})).await;
        assert_eq!(set.await.expect("answered").json().await["result"], json!({}));
        let first = call(&older, json!({ "id": 2, "method": "tools/call", "params": { "name": "x" } }));
        let first_asked = child.expect("tools/call").await;
        let wanted = json!({ "name": "x", "_meta": { meta::LOG_LEVEL: "info" } });
        let second = modern_call(&newer, json!(3), "tools/call", wanted);
        // The child is told of the lower level before it is asked.
        assert_eq!(child.expect("logging/setLevel").await["params"], json!({ "level": "info" }));
        let second_asked = child.expect("tools/call").await;
        let third = modern_call(&newer, json!(4), "tools/call", json!({ "name": "x" }));
        let third_asked = child.expect("tools/call").await;
        child.notify("notifications/message", json!({ "level": "info", "data": "quiet" })).await;
        child.notify("notifications/message", json!({ "level": "error", "data": "loud" })).await;
        for asked in [&first_asked, &second_asked, &third_asked] {
            child.answer(asked, json!({ "content": [] })).await;
        }
        let (mut first, mut second) = (first.await.expect("begun"), second.await.expect("begun"));
        assert_eq!(first.event().await.expect("told")["params"]["data"], "loud");
        assert_eq!(first.event().await.expect("answered")["id"], 2);
        assert_eq!(second.event().await.expect("told")["params"]["data"], "quiet");
        assert_eq!(second.event().await.expect("told")["params"]["data"], "loud");
        assert_eq!(second.event().await.expect("answered")["id"], 3);
        assert_eq!(third.await.expect("answered").json().await["id"], 4, "it asked for no log messages");
    })
    .await;
}

#[tokio::test]
async fn a_batch_is_answered_message_by_message() {
    let mut scene = Scene::new();
    let (client, mut child) = in_time(scene.session("alice")).await;
    let client = Client { version: Some("2025-03-26"), ..client };
    let batch = json!([
        { "jsonrpc": "2.0", "id": 1, "method": "tools/list" },
        { "jsonrpc": "2.0", "method": "notifications/initialized" },
        { "jsonrpc": "2.0", "id": 2, "method": "ping" },
    ]);
    let mut reply = in_time(client.post(batch.clone())).await;
    assert_eq!(in_time(reply.event()).await.expect("an answer"), json!({ "jsonrpc": "2.0", "id": 2, "result": {} }));
    let asked = in_time(child.expect("tools/list")).await;
    child.answer(&asked, json!({ "tools": [] })).await;
    assert_eq!(in_time(reply.event()).await.expect("an answer")["result"], json!({ "tools": [] }));
    assert!(in_time(reply.event()).await.is_none());
    // What belongs to a part comes before its answer.
    let slow = json!({ "name": "slow", "_meta": { "progressToken": "p" } });
    let mut reply =
        in_time(client.post(json!([{ "jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": slow }]))).await;
    let asked = in_time(child.expect("tools/call")).await;
    let token = asked["params"]["_meta"]["progressToken"].clone();
    child.notify("notifications/progress", json!({ "progressToken": token, "progress": 1 })).await;
    child.answer(&asked, json!({ "content": [] })).await;
    let progress = in_time(reply.event()).await.expect("progress");
    assert_eq!(progress["params"], json!({ "progressToken": "p", "progress": 1 }));
    let answer = in_time(reply.event()).await.expect("an answer");
    assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": 3, "result": { "content": [] } }));
    assert!(in_time(reply.event()).await.is_none());
    let newer = Client { version: Some("2025-06-18"), ..client };
    assert_eq!(newer.post(batch).await.refusal().await, (400, -32600, "not-a-message".to_owned()));
}
