//! What clients do that is not asked of them, and when they leave.

use super::*;

#[tokio::test]
async fn a_client_of_the_newer_era_that_hangs_up_has_cancelled() {
    let mut scene = Scene::new();
    let (_older, mut child) = in_time(scene.session("alice")).await;
    let client = scene.client("alice");
    in_time(async {
        let called = modern_call(&client, json!(1), "tools/call", json!({ "name": "slow" }));
        let asked = child.expect("tools/call").await;
        called.abort();
        let cancelled = child.expect("notifications/cancelled").await;
        assert_eq!(cancelled["params"], json!({ "requestId": asked["id"] }));
        // Its late answer is nobody's, and no trouble.
        let other = modern_call(&client, json!(1), "tools/call", json!({ "name": "quick" }));
        let other_asked = child.expect("tools/call").await;
        child.answer(&asked, json!({ "content": ["late"] })).await;
        child.answer(&other_asked, json!({ "content": ["right"] })).await;
        assert_eq!(other.await.expect("answered").json().await["result"]["content"], json!(["right"]));
    })
    .await;
}

#[tokio::test]
async fn a_client_of_the_older_era_cancels_by_saying_so_and_not_by_hanging_up() {
    let mut scene = Scene::new();
    let (client, mut child) = in_time(scene.session("alice")).await;
    let (other, _) = {
        let initialized = scene.client("alice").initialize("2025-11-25").await;
        (Client { session: Some(initialized.1), ..client.clone() }, ())
    };
    in_time(async {
        let called = call(&client, json!({ "id": 5, "method": "tools/call", "params": { "name": "slow" } }));
        let asked = child.expect("tools/call").await;
        // The same id in another session is another request.
        let cancel = json!({ "method": "notifications/cancelled", "params": { "requestId": 5, "reason": "bored" } });
        assert_eq!(other.post(cancel.clone()).await.status, StatusCode::ACCEPTED);
        assert_eq!(client.post(cancel).await.status, StatusCode::ACCEPTED);
        let cancelled = child.expect("notifications/cancelled").await;
        assert_eq!(cancelled["params"], json!({ "requestId": asked["id"], "reason": "bored" }));
        assert!(called.await.expect("over").event().await.is_none(), "what is cancelled is not answered");
        child.answer(&asked, json!({})).await;
        let called = call(&client, json!({ "id": 6, "method": "tools/call", "params": { "name": "slow" } }));
        let asked = child.expect("tools/call").await;
        called.abort();
        let pinged = call(&client, json!({ "id": 7, "method": "tools/list" }));
        let next = child.next().await;
        assert_eq!(next["method"], "tools/list", "the child goes on with what it began");
        child.answer(&asked, json!({ "content": ["late"] })).await;
        child.answer(&next, json!({ "tools": [] })).await;
        assert_eq!(pinged.await.expect("answered").json().await["id"], 7);
        // A session that is ended takes along what it asked.
        let called = call(&client, json!({ "id": 8, "method": "tools/call", "params": { "name": "slow" } }));
        let asked = child.expect("tools/call").await;
        let mut stream = client.send("GET", &[], "").await;
        assert_eq!(client.send("DELETE", &[], "").await.status, StatusCode::OK);
        assert_eq!(child.expect("notifications/cancelled").await["params"], json!({ "requestId": asked["id"] }));
        assert!(called.await.expect("over").event().await.is_none());
        assert!(stream.event().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_long_says_that_it_is_still_there() {
    let mut scene = Scene::new();
    let (client, mut child) = in_time(scene.session("alice")).await;
    in_time(async {
        let called = call(&client, json!({ "id": 1, "method": "tools/call", "params": { "name": "slow" } }));
        let asked = child.expect("tools/call").await;
        while scene.clock.sleepers() < 1 {
            tokio::task::yield_now().await;
        }
        scene.clock.advance(Duration::from_secs(15));
        let mut reply = called.await.expect("begun");
        assert_eq!(reply.headers["content-type"], "text/event-stream");
        assert_eq!(reply.headers["x-accel-buffering"], "no");
        child.answer(&asked, json!({ "content": [] })).await;
        assert_eq!(reply.event().await.expect("answered")["id"], 1);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_message_of_a_client_is_refused_before_any_child_is_started() {
    let mut scene = Scene::new();
    let client = scene.client("alice");
    let session = Client { session: Some("s".to_owned()), ..client.clone() };
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let refused = |status: u16, code: i64, kind: &str| (status, code, kind.to_owned());
    for (headers, body, expected) in [
        (vec![("content-type", "text/plain")], ping, refused(415, -32600, "content-type")),
        (vec![("accept", "application/json")], ping, refused(406, -32600, "not-acceptable")),
        (vec![("accept", "text/event-stream, application/json;q=0")], ping, refused(406, -32600, "not-acceptable")),
        (vec![], "{", refused(400, -32700, "not-a-message")),
        (vec![], "3", refused(400, -32600, "not-a-message")),
        (vec![], r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, refused(400, -32600, "not-a-message")),
        (vec![], r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, refused(400, -32600, "not-a-message")),
        (vec![], "[]", refused(400, -32600, "not-a-message")),
        (vec![], r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":3}}"#, refused(400, -32602, "parameter")),
        (
            vec![],
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#,
            refused(400, -32600, "not-a-message"),
        ),
    ] {
        assert_eq!(session.send("POST", &headers, body).await.refusal().await, expected, "{headers:?} {body}");
    }
    for accept in ["*/*", "application/*, text/*;q=0.1", "Application/JSON; q=1, text/event-stream"] {
        assert_eq!(session.send("POST", &[("accept", accept)], ping).await.status, StatusCode::OK, "{accept}");
    }
    // Before there is a session.
    let required = refused(400, -32600, "session-required");
    assert_eq!(client.send("POST", &[], ping).await.refusal().await, required);
    assert_eq!(client.send("GET", &[], "").await.refusal().await, required);
    assert_eq!(client.send("DELETE", &[], "").await.refusal().await, required);
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    assert_eq!(client.send("POST", &[], initialize).await.refusal().await, refused(400, -32602, "parameter"));
    // Methods of the other era.
    for (version, method, allowed) in [
        (Some(MODERN), "GET", "POST, OPTIONS"),
        (Some(MODERN), "DELETE", "POST, OPTIONS"),
        (None, "HEAD", "GET, POST, DELETE, OPTIONS"),
    ] {
        let reply = Client { version, ..session.clone() }.send(method, &[], "").await;
        assert_eq!((reply.status.as_u16(), reply.headers["allow"].to_str().expect("text")), (405, allowed));
        assert_eq!(reply.refusal().await, refused(405, -32600, "method-not-allowed"));
    }
    // The newer era.
    let modern = Client { version: Some(MODERN), ..client.clone() };
    assert_eq!(modern.send("POST", &[], ping).await.refusal().await, refused(400, -32602, "parameter"));
    let meta = json!({ meta::VERSION: MODERN, meta::CAPABILITIES: {} });
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "_meta": meta } }).to_string();
    let mismatch = refused(400, -32020, "header-mismatch");
    assert_eq!(modern.send("POST", &[], list.clone()).await.refusal().await, mismatch, "Mcp-Method is missing");
    assert_eq!(client.send("POST", &[], list).await.refusal().await, mismatch, "MCP-Protocol-Version is missing");
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert_eq!(modern.send("POST", &[], notification).await.status, StatusCode::ACCEPTED);
    let future = Client { version: Some("2030-01-01"), ..client };
    let unsupported = future.send("POST", &[], notification).await;
    assert_eq!(unsupported.status, StatusCode::BAD_REQUEST);
    let error = unsupported.json().await["error"].clone();
    assert_eq!((&error["code"], &error["data"]["requested"]), (&json!(-32022), &json!("2030-01-01")));
    assert_eq!(error["data"]["supported"][0], MODERN);
    // The same for what it asks, in a session or not: it does not know what the newest revision wants.
    for client in
        [future, Client { version: Some("2030-01-01"), ..session.clone() }, Client { version: Some("x"), ..session }]
    {
        assert_eq!(client.send("POST", &[], ping).await.refusal().await, refused(400, -32022, ""));
        assert_eq!(client.send("POST", &[], initialize).await.refusal().await, refused(400, -32022, ""));
    }
    assert!(scene.children.try_recv().is_err());
}

#[tokio::test]
async fn no_stream_is_opened_once_sidekey_stops() {
    let mut scene = Scene::new();
    let (older, _child) = in_time(scene.session("alice")).await;
    let mut stream = older.send("GET", &[], "").await;
    scene.bridge.end_streams();
    assert!(in_time(stream.event()).await.is_none());
    let stopping = (503, -32603, "stopping".to_owned());
    assert_eq!(older.send("GET", &[], "").await.refusal().await, stopping);
    let newer = scene.client("alice");
    let listening = newer.modern(json!(1), "subscriptions/listen", json!({ "notifications": {} }));
    assert_eq!(in_time(listening).await.refusal().await, stopping);
}
