//! `Mcp-Session-Id` authenticates nobody: a session is of use to the user who began it, and to nobody else.

use serde_json::{Value, json};

use crate::client::{Answer, send};
use crate::front::{Front, Tokens, assert_problem};
use crate::front_support::{Special, restarted, start};

/// Has the server open a session of this id.
async fn initialize(front: &Front, token: &str, session: &str) -> Answer {
    front.call(token, "initialize", json!({ "session": session })).await
}

async fn in_session(front: &Front, method: &str, token: &str, sessions: &[&str]) -> Answer {
    let mut request = front.world.client.request(method.parse().expect("a method"), front.mcp()).bearer_auth(token);
    for session in sessions {
        request = request.header("mcp-session-id", *session);
    }
    send(request.body("{}")).await
}

#[tokio::test]
async fn a_session_is_its_users_alone() {
    let front = Front::start().await;
    let [alice, bob] = [front.authorized("alice").await, front.authorized("bob").await];
    let begun = initialize(&front, &alice.access, "s-1").await;
    assert_eq!((begun.status, begun.header("mcp-session-id")), (200, "s-1"));
    assert_eq!(begun.header("access-control-expose-headers").matches("Mcp-Session-Id").count(), 1);
    let seen = front.server.requests().len();
    for method in ["POST", "GET", "DELETE", "HEAD"] {
        let answer = in_session(&front, method, &bob.access, &["s-1"]).await;
        assert_eq!(answer.status, 404, "{method}");
        if method != "HEAD" {
            assert_problem(&answer, 404, "unknown-session");
        }
    }
    assert_eq!(front.server.requests().len(), seen, "nothing of it reached the server");
    for method in ["POST", "GET", "DELETE"] {
        assert_eq!(in_session(&front, method, &alice.access, &["s-1"]).await.status, 200, "{method}");
        assert_eq!(front.server.requests().last().expect("one").headers["mcp-session-id"], "s-1");
    }
    front.stop().await;
}

#[tokio::test]
async fn an_unknown_session_is_not_there() {
    let front = Front::start().await;
    let alice = front.authorized("alice").await;
    initialize(&front, &alice.access, "s-1").await;
    let seen = front.server.requests().len();
    for sessions in [&["s-2"][..], &["S-1"], &["s-1 x"], &[""], &["s-1", "s-2"], &["s-2", "s-1"], &["s-1,s-2"]] {
        let answer = in_session(&front, "POST", &alice.access, sessions).await;
        assert_problem(&answer, 404, "unknown-session");
        let problem = answer.json();
        assert_eq!(problem["detail"], "There is no such session of this user at this server.");
        assert_eq!((answer.header("vary"), answer.header("access-control-allow-origin")), ("Authorization", "*"));
        // A client tells an answer of the server by this.
        assert_eq!((&problem["jsonrpc"], answer.header("content-type")), (&Value::Null, "application/problem+json"));
    }
    assert_eq!(front.server.requests().len(), seen);
    front.stop().await;
}

#[tokio::test]
async fn a_session_id_alone_opens_nothing() {
    let front = Front::start().await;
    let alice = front.authorized("alice").await;
    initialize(&front, &alice.access, "s-1").await;
    let request = front.world.client.post(front.mcp()).header("mcp-session-id", "s-1");
    assert_problem(&send(request).await, 401, "token-required");
    assert_problem(&in_session(&front, "POST", "sk_at_x", &["s-1"]).await, 401, "invalid-token");
    assert_eq!(front.server.requests().len(), 1);
    front.stop().await;
}

#[tokio::test]
async fn another_client_of_the_same_user_may_go_on_with_a_session() {
    let front = Front::start().await;
    let [first, second] = [front.authorized("alice").await, front.authorized("alice").await];
    initialize(&front, &first.access, "s-1").await;
    assert_eq!(in_session(&front, "POST", &second.access, &["s-1"]).await.status, 200);
    let refreshed = Tokens::of(first.client_id.clone(), &front.refresh(&first.client_id, &first.refresh).await);
    assert_eq!(in_session(&front, "POST", &refreshed.access, &["s-1"]).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn sessions_outlive_a_restart() {
    let front = Front::start().await;
    let [alice, bob] = [front.authorized("alice").await, front.authorized("bob").await];
    assert_eq!(initialize(&front, &alice.access, "s-1").await.status, 200);
    let front = restarted(front, |_| {}).await;
    assert_eq!(in_session(&front, "POST", &alice.access, &["s-1"]).await.status, 200);
    assert_problem(&in_session(&front, "POST", &bob.access, &["s-1"]).await, 404, "unknown-session");
    assert_problem(&initialize(&front, &bob.access, "s-1").await, 502, "session-mix-up");
    front.stop().await;
}

#[tokio::test]
async fn a_server_that_gives_two_users_one_session_is_stopped() {
    let front = Front::start().await;
    let [alice, bob] = [front.authorized("alice").await, front.authorized("bob").await];
    assert_eq!(initialize(&front, &alice.access, "s-1").await.status, 200);
    let mixed = initialize(&front, &bob.access, "s-1").await;
    assert_problem(&mixed, 502, "session-mix-up");
    assert!(!mixed.headers.contains_key("mcp-session-id") && mixed.json()["result"].is_null(), "{mixed:?}");
    assert_eq!(initialize(&front, &alice.access, "s-1").await.status, 200, "to its own user it may say it again");
    assert_eq!(initialize(&front, &bob.access, "s-2").await.status, 200);
    assert_eq!(in_session(&front, "POST", &bob.access, &["s-2"]).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn a_session_is_one_of_its_own_server() {
    let listener = crate::world::free_listener();
    let address = listener.local_addr().expect("bound");
    let router = axum::Router::new().fallback(async || ([("mcp-session-id", "s-1")], "{}"));
    crate::world::serve_at(listener, router);
    let tables = format!("[servers.second]\nupstream = \"http://{address}/mcp\"\n");
    let front = start(Special { tables, ..Special::default() }).await;
    let alice = front.authorized("alice").await;
    initialize(&front, &alice.access, "s-1").await;
    let url = front.world.public("/second/mcp");
    let at_second = front.authorized_at("/second/mcp", "alice").await;
    let at_second_as_bob = front.authorized_at("/second/mcp", "bob").await;
    let ask = async |tokens: &Tokens| {
        send(front.world.client.post(&url).bearer_auth(&tokens.access).header("mcp-session-id", "s-1")).await
    };
    assert_problem(&ask(&at_second).await, 404, "unknown-session");
    // The same id there is another session, which may be somebody else's.
    let begun = send(front.world.client.post(&url).bearer_auth(&at_second_as_bob.access)).await;
    assert_eq!((begun.status, begun.header("mcp-session-id")), (200, "s-1"));
    assert_eq!(ask(&at_second_as_bob).await.status, 200);
    assert_problem(&ask(&at_second).await, 404, "unknown-session");
    front.stop().await;
}
