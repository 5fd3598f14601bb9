//! Who may call an MCP server: only who holds an access token for it.

use std::time::Duration;

use crate::client::{Answer, send};
use crate::front::{Front, Tokens, assert_oauth_error, assert_problem};
use crate::front_support::{Special, at_a_standstill, start};

/// The challenge of the server `notes`.
fn challenge(front: &Front) -> String {
    let metadata = front.world.public("/.well-known/oauth-protected-resource/notes/mcp");
    format!("Bearer resource_metadata=\"{metadata}\", scope=\"mcp\"")
}

/// The only `WWW-Authenticate`.
fn challenged(answer: &Answer) -> &str {
    assert_eq!(answer.headers.get_all("www-authenticate").iter().count(), 1, "{answer:?}");
    answer.header("www-authenticate")
}

fn assert_invalid_token(front: &Front, answer: &Answer, what: &str) {
    assert_eq!(answer.status, 401, "{what}: {}", answer.text());
    let expected = format!(
        "{}, error=\"invalid_token\", error_description=\"the access token is expired, revoked, or not for this server\"",
        challenge(front)
    );
    assert_eq!(challenged(answer), expected, "{what}");
    assert_problem(answer, 401, "invalid-token");
}

/// A request at the MCP endpoint with these headers.
async fn with(front: &Front, method: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = front.world.client.request(method.parse().expect("a method"), front.mcp());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request).await
}

#[tokio::test]
async fn every_method_without_a_token_is_challenged_in_one_header() {
    let front = Front::start().await;
    for method in ["POST", "GET", "DELETE", "HEAD"] {
        let answer = with(&front, method, &[("accept", "text/event-stream")]).await;
        assert_eq!(answer.status, 401, "{method}");
        assert_eq!(challenged(&answer), challenge(&front), "{method}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("vary"), "Authorization");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(answer.header("access-control-expose-headers").contains("WWW-Authenticate"));
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
        assert!(!answer.headers.contains_key("set-cookie"));
        match method {
            "HEAD" => assert!(answer.body.is_empty()),
            _ => assert_problem(&answer, 401, "token-required"),
        }
    }
    assert!(front.server.requests().is_empty());
    let metadata = send(front.world.client.get(front.world.public("/.well-known/oauth-protected-resource/notes/mcp")));
    assert_eq!(metadata.await.json()["resource"], front.mcp(), "the challenge leads to the right place");
    front.stop().await;
}

#[tokio::test]
async fn other_methods_are_not_spoken_here() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    let bearer = format!("Bearer {}", tokens.access);
    for method in ["PUT", "PATCH", "PROPFIND", "TRACE"] {
        let answer = with(&front, method, &[("authorization", &bearer)]).await;
        assert_problem(&answer, 405, "method-not-allowed");
        assert_eq!(answer.header("allow"), "GET, POST, DELETE, HEAD, OPTIONS");
    }
    assert!(front.server.requests().is_empty());
    front.stop().await;
}

#[tokio::test]
async fn preflights_are_answered_before_anybody_is_asked() {
    let allowed = "https://inspector.example";
    let public = "allowed_origins = [\"https://inspector.example\"]";
    let front = start(Special { public, ..Special::default() }).await;
    let asked = [("access-control-request-method", "POST"), ("access-control-request-headers", "authorization")];
    let answer = with(&front, "OPTIONS", &[&[("origin", allowed)], &asked[..]].concat()).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, POST, DELETE, OPTIONS"),
        (
            "access-control-allow-headers",
            "Authorization, Content-Type, Accept, MCP-Protocol-Version, Mcp-Session-Id, Mcp-Method, Mcp-Name, Last-Event-ID",
        ),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    let foreign = with(&front, "OPTIONS", &[&[("origin", "https://evil.example")], &asked[..]].concat()).await;
    assert_problem(&foreign, 403, "foreign-origin");
    assert!(front.server.requests().is_empty());
    front.stop().await;
}

#[tokio::test]
async fn no_other_secret_is_an_access_token() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let code = front.code(&client_id, "alice").await;
    let tokens = Tokens::of(client_id.clone(), &front.redeem(&client_id, &code, &[]).await);
    front.ping(&tokens.access).await;
    let handle = front.server.requests()[0].headers["authorization"].to_str().expect("text").replace("Bearer ", "");
    let fresh_code = front.code(&client_id, "alice").await;
    let issued = front.world.simulator.issued_values();
    let (of_provider, refresh_of_provider) = (&issued.access_tokens[0], &issued.refresh_tokens[0]);
    let (_, issued_handle) = front.world.handle("alice").await;
    let swapped = tokens.access.replace("sk_at_", "sk_rt_");
    let longer = format!("{}x", tokens.access);
    let long = "a".repeat(10_000);
    let mut bodies = Vec::new();
    for (what, token) in [
        ("refresh token", tokens.refresh.as_str()),
        ("code", &fresh_code),
        ("used code", &code),
        ("handle of the grant", &handle),
        ("handle of the operator", &issued_handle),
        ("token of the provider", of_provider),
        ("refresh token of the provider", refresh_of_provider),
        ("client id", &client_id),
        ("access token under another kind", &swapped),
        ("longer than it", &longer),
        ("shorter than it", &tokens.access[..tokens.access.len() - 1]),
        ("random", "sk_at_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("unsigned token", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9."),
        ("three points", "a.b.c"),
        ("long", &long),
        ("several words", "a b c"),
    ] {
        let answer = with(&front, "POST", &[("authorization", &format!("Bearer {token}"))]).await;
        assert_invalid_token(&front, &answer, what);
        bodies.push(answer.text());
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "nothing tells why: {bodies:?}");
    assert_eq!(front.server.requests().len(), 1, "nothing of it reached the server");
    let access_as_refresh = front.refresh(&client_id, &tokens.access).await;
    assert_oauth_error(&access_as_refresh, 400, "invalid_grant");
    front.stop().await;
}

#[tokio::test]
async fn what_says_nothing_about_who_it_is_is_only_challenged() {
    let front = Front::start().await;
    for value in ["", "Bearer", "Basic YWxpY2U6c2VjcmV0", "Digest x", "sk_at_alone", "Negotiate x"] {
        let answer = with(&front, "POST", &[("authorization", value)]).await;
        assert_problem(&answer, 401, "token-required");
        assert_eq!(challenged(&answer), challenge(&front), "{value}");
    }
    front.stop().await;
}

#[tokio::test]
async fn two_credentials_and_tokens_in_the_query_are_malformed() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    let good = format!("Bearer {}", tokens.access);
    for second in [&*good, "Bearer other", "Basic YTpi", ""] {
        let answer = with(&front, "POST", &[("authorization", &good), ("authorization", second)]).await;
        assert_problem(&answer, 400, "two-credentials");
        assert!(!answer.headers.contains_key("www-authenticate"));
    }
    for query in [
        format!("access_token={}", tokens.access),
        "access_token=".to_owned(),
        "a=b&Access_Token=x".to_owned(),
        "acc%65ss_token=x".to_owned(),
    ] {
        for authorization in ["", &good] {
            let request = front.world.client.post(format!("{}?{query}", front.mcp()));
            assert_problem(&send(request.header("authorization", authorization)).await, 400, "token-in-query");
        }
    }
    assert!(front.server.requests().is_empty());
    front.stop().await;
}

#[tokio::test]
async fn a_token_works_until_its_time_is_over() {
    let (front, clock) = at_a_standstill(Special::default()).await;
    let tokens = front.authorized("alice").await;
    clock.advance(Duration::from_secs(3599));
    assert_eq!(front.ping(&tokens.access).await.status, 200);
    clock.advance(Duration::from_secs(1));
    assert_invalid_token(&front, &front.ping(&tokens.access).await, "expired");
    assert_eq!(front.server.requests().len(), 1);
    let refreshed = Tokens::of(tokens.client_id.clone(), &front.refresh(&tokens.client_id, &tokens.refresh).await);
    assert_eq!(front.ping(&refreshed.access).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn a_token_that_was_taken_back_is_worth_nothing() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    assert_eq!(front.ping(&tokens.access).await.status, 200);
    let form = [("client_id", tokens.client_id.as_str()), ("token", &tokens.access)];
    assert_eq!(front.post_form("/revoke", &form).await.status, 200);
    assert_invalid_token(&front, &front.ping(&tokens.access).await, "revoked");
    assert_eq!(front.server.requests().len(), 1);
    front.stop().await;
}

#[tokio::test]
async fn a_token_is_good_at_one_server_of_one_sidekey_and_nowhere_else() {
    let [front, other] = [two_servers().await, two_servers().await];
    let tokens = front.authorized("alice").await;
    let second = front.authorized_at("/second/mcp", "alice").await;
    let at = async |front: &Front, path: &str, token: &str| {
        send(front.world.client.post(front.world.public(path)).bearer_auth(token)).await
    };
    assert_eq!(at(&front, "/notes/mcp", &tokens.access).await.status, 200);
    assert_eq!(at(&front, "/second/mcp", &second.access).await.status, 200);
    assert_invalid_token(&front, &at(&front, "/notes/mcp", &second.access).await, "of the second server");
    let answer = at(&front, "/second/mcp", &tokens.access).await;
    assert_problem(&answer, 401, "invalid-token");
    assert!(challenged(&answer).contains("/.well-known/oauth-protected-resource/second/mcp\""), "{answer:?}");
    assert_invalid_token(&other, &at(&other, "/notes/mcp", &tokens.access).await, "of another Sidekey");
    // Nor is it a handle.
    let api = front.world.call(&tokens.access, "/github/user").await;
    assert_problem(&api, 401, "handle-required");
    assert_eq!(front.server.requests().len(), 1);
    other.stop().await;
    front.stop().await;
}

async fn two_servers() -> Front {
    let listener = crate::world::free_listener();
    let address = listener.local_addr().expect("bound");
    let router = axum::Router::new().fallback(async || "{}");
    crate::world::serve_at(listener, router);
    let tables = format!("[servers.second]\nupstream = \"http://{address}/mcp\"\nproviders = [\"notion\"]\n");
    start(Special { tables, ..Special::default() }).await
}

#[tokio::test]
async fn a_missing_scope_is_named_together_with_all_that_are_needed() {
    let front = start(Special {
        issuer: "[issuer.scopes]\n\"notes:admin\" = { includes = [\"notes:read\", \"notes:write\"] }\n".to_owned(),
        server: "scopes = [\"notes:read\", \"notes:write\"]\noptional_scopes = [\"notes:admin\", \"notes:share\"]\n",
        ..Special::default()
    })
    .await;
    let with_scope = async |scope: &str| front.authorized_with("alice", &[("scope", scope)], &[]).await;
    let few = with_scope("notes:read notes:share").await;
    let answer = front.ping(&few.access).await;
    assert_problem(&answer, 403, "insufficient-scope");
    let metadata = front.world.public("/.well-known/oauth-protected-resource/notes/mcp");
    let expected = format!(
        "Bearer resource_metadata=\"{metadata}\", scope=\"notes:read notes:write\", error=\"insufficient_scope\", \
         error_description=\"the access token lacks a scope\""
    );
    assert_eq!(challenged(&answer), expected);
    assert!(front.server.requests().is_empty());
    for scope in ["notes:read notes:write", "notes:admin", "", "notes:read notes:admin"] {
        let tokens = with_scope(scope).await;
        assert_eq!(front.ping(&tokens.access).await.status, 200, "{scope}");
    }
    // A refresh may ask for less, and then less is what it gets.
    let all = with_scope("").await;
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", &all.client_id),
        ("refresh_token", &all.refresh),
        ("scope", "notes:write"),
    ];
    let narrowed = Tokens::of(all.client_id.clone(), &front.post_form("/token", &form).await);
    assert_problem(&front.ping(&narrowed.access).await, 403, "insufficient-scope");
    front.stop().await;
}

#[tokio::test]
async fn a_slash_at_the_end_makes_no_difference_and_no_redirect() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    for path in ["/notes/mcp", "/notes/mcp/", "/notes/mcp/?a=b", "/notes/mcp?a=b"] {
        let answer = send(front.world.client.post(front.world.public(path)).bearer_auth(&tokens.access)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    let seen: Vec<String> = front.server.requests().iter().map(|request| request.uri.to_string()).collect();
    assert_eq!(seen, ["/mcp", "/mcp", "/mcp?a=b", "/mcp?a=b"]);
    for path in ["/notes/mcp//", "/notes", "/notes/", "/notes/mcp/x", "/Notes/mcp", "/notes/%6dcp", "/mcp", "/"] {
        let answer = send(front.world.client.post(front.world.public(path)).bearer_auth(&tokens.access)).await;
        assert_eq!((answer.status, answer.header("location")), (404, ""), "{path}: {}", answer.text());
    }
    assert_eq!(front.server.requests().len(), 4);
    front.stop().await;
}
