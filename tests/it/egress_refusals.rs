//! Every refusal of the egress listener: status, type and words.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sidekey::base::clock::{ManualClock, SystemClock};

use crate::client::{Answer, raw, read_answer, send};
use crate::world::{Setup, World, now};

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, slug: &str, title: &str, detail: &str, next_step: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let expected = json!({
        "type": format!("urn:sidekey:error:{slug}"), "title": title, "status": status, "detail": detail, "next_step": next_step,
    });
    assert_eq!(answer.json(), expected);
}

const PATH: &str = "/quickbooks/v3/company/0/companyinfo/0";
const HANDLE_HINT: &str =
    "issue a handle (`sidekey handle issue --subject S`) and use it where the provider's token would be";

struct Caller {
    world: World,
    handle: String,
}

impl Caller {
    async fn new() -> Self {
        let world = World::start().await;
        let handle = world.connected("quickbooks", "alice").await;
        Self { world, handle }
    }

    /// Sends a head with the handle, and any other lines.
    async fn raw(&self, request_line: &str, headers: &str) -> Answer {
        let request = format!("{request_line}\r\n{headers}authorization: Bearer {}\r\n\r\n", self.handle);
        raw(self.world.files.egress, request.as_bytes()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.raw(&format!("GET {path} HTTP/1.1"), "host: 127.0.0.1\r\n").await
    }

    /// Nothing of all this has reached the provider.
    async fn nothing_was_sent(self) {
        assert_eq!(self.world.simulator.ledger().profile("quickbooks").counters.api_calls, 0);
        self.world.stop().await;
    }
}

#[tokio::test]
async fn methods_that_apis_do_not_use() {
    let caller = Caller::new().await;
    for method in ["TRACE", "get", "PROPFIND", "PRI", &"A".repeat(300)] {
        let answer = caller.raw(&format!("{method} {PATH} HTTP/1.1"), "host: localhost\r\n").await;
        if answer.header("content-type") == "application/problem+json" {
            let detail = "APIs are called with the methods in the Allow header.";
            assert_problem(&answer, 405, "method-not-allowed", "Method not allowed", detail, "use one of them");
            assert_eq!(answer.header("allow"), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        } else {
            assert!(matches!(answer.status, 400 | 405), "{method}: {}", answer.status);
        }
    }
    let answer = caller.raw("CONNECT quickbooks.api.intuit.com:443 HTTP/1.1", "host: localhost\r\n").await;
    assert!(matches!(answer.status, 400 | 405), "{}", answer.text());
    caller.nothing_was_sent().await;
}

#[tokio::test]
async fn odd_request_targets() {
    let caller = Caller::new().await;
    let next = "send a plain, normalized path; percent-encode what does not belong into one";
    let (form, odd) = (
        "it is not a path that begins with a single slash",
        "it contains a character that must be percent-encoded, or a fragment",
    );
    let (dots, empty, encoding) = (
        "it contains a dot segment",
        "it contains an empty path segment",
        "it contains percent-encoding that servers read in different ways",
    );
    for (target, why) in [
        ("@evil/v1", form),
        ("evil:80/v1", form),
        ("v1/a", form),
        ("\\v1\\a", form),
        (";/v1", form),
        ("?x=/v1", form),
        ("*", form),
        ("//admin", form),
        ("http://127.0.0.1/quickbooks/v3/company/0/x", form),
        ("https://quickbooks.api.intuit.com/v3/company/0/x", form),
        ("/quickbooks/v3/../admin", dots),
        ("/quickbooks/v3/%2e%2e/admin", dots),
        ("/quickbooks/v3/.%2e/", dots),
        ("/quickbooks/v3/..%2f", dots),
        ("/quickbooks/v3/..;/", dots),
        ("/quickbooks/v3/company/0/.", dots),
        ("/quickbooks/v3/company/0/..", dots),
        ("/quickbooks/v3/%252e%252e%252f", encoding),
        ("/quickbooks/v3/%5c..", encoding),
        ("/quickbooks/v3/%c0%ae", encoding),
        ("/quickbooks/v3/%u002e", encoding),
        ("/quickbooks/v3/a%00", encoding),
        ("/quickbooks/v3//..//admin", empty),
        ("/quickbooks//v3/company/0/x", empty),
        ("/quickbooks/v3/company/0/ok#/../admin", odd),
        ("/quickbooks/v3/company/0/a?x#y", odd),
        ("/quickbooks/v3/company/0/..\\", odd),
        ("/quickbooks/v3/company/0/a\"b", odd),
    ] {
        let answer = caller.get(target).await;
        if answer.header("content-type") == "application/problem+json" {
            let detail = format!("The request target is refused because {why}.");
            assert_problem(&answer, 400, "odd-request-target", "Odd request target", &detail, next);
        } else {
            // What is not HTTP at all is refused before we see it.
            assert_eq!(answer.status, 400, "{target}: {}", answer.text());
        }
    }
    caller.nothing_was_sent().await;
}

/// Pingora encodes blanks before anybody looks: what was judged is what goes out.
#[tokio::test]
async fn blanks_go_out_as_they_were_judged() {
    let caller = Caller::new().await;
    for (sent, arrived) in [("echo/a b", "echo/a%20b"), ("echo/a\tb", "echo/a%09b")] {
        let answer = caller.get(&format!("/quickbooks/v3/company/0/{sent}")).await;
        if answer.status == 200 {
            let path = answer.json()["api_path"].as_str().expect("an echo").to_owned();
            assert_eq!(path, format!("/v3/company/9341453172058817/{arrived}"));
        } else {
            assert_eq!(answer.json()["type"], "urn:sidekey:error:odd-request-target");
        }
    }
    caller.world.stop().await;
}

#[tokio::test]
async fn an_api_that_is_not_there() {
    let caller = Caller::new().await;
    for path in ["/", "/admin", "/quickbook/v3", "/metrics", "/QUICKBOOKS/v3/company/0/x", "/quickbooks%2Fv3"] {
        assert_problem(
            &caller.get(path).await,
            404,
            "unknown-api",
            "Unknown API",
            "The first path segment is not the name of a configured provider or of one of its enabled APIs.",
            "see [providers] in the configuration; a base URL is this address with /NAME behind it",
        );
    }
    caller.nothing_was_sent().await;
}

#[tokio::test]
async fn hosts_that_are_not_ours() {
    let caller = Caller::new().await;
    let line = format!("GET {PATH} HTTP/1.1");
    for host in ["evil.example", "evil.example:8701", "quickbooks.api.intuit.com", "127.0.0.1.evil.example"] {
        assert_problem(
            &caller.raw(&line, &format!("host: {host}\r\n")).await,
            403,
            "foreign-host",
            "Foreign Host header",
            "The Host header does not name this listener.",
            "use a loopback address in the base URL, or list the name in egress.hosts",
        );
    }
    for headers in ["", "host: a/b\r\n", "host: localhost\r\nhost: localhost\r\n", "host: a@b\r\n", "host: [::1\r\n"] {
        let answer = caller.raw(&line, headers).await;
        if answer.header("content-type") == "application/problem+json" {
            let detail = "The Host header is missing, repeated or malformed.";
            assert_problem(&answer, 400, "bad-host", "Bad Host header", detail, "send exactly one");
        } else {
            assert_eq!(answer.status, 400, "{headers:?}");
        }
    }
    caller.nothing_was_sent().await;
}

#[tokio::test]
async fn browsers() {
    let setup = Setup { fixed_subject: Some("alice"), ..Setup::default() };
    let world = World::with(setup, Arc::new(SystemClock)).await;
    let handle = world.connected("quickbooks", "alice").await;
    let detail = "This listener serves MCP servers; a web page must not use somebody's connections.";
    let next = "call it from a program, without Origin and Sec-Fetch-Site headers";
    for site in ["cross-site", "same-origin", "same-site"] {
        for request in [world.client.get(world.egress(PATH)), world.client.get(world.egress(PATH)).bearer_auth(&handle)]
        {
            let answer = send(request.header("sec-fetch-site", site)).await;
            assert_problem(&answer, 403, "browser-request", "Browser request", detail, next);
        }
    }
    let answer = send(world.client.get(world.egress(PATH)).header("origin", "https://evil.example")).await;
    assert_problem(&answer, 403, "browser-request", "Browser request", detail, next);
    let answer =
        send(world.client.request(reqwest::Method::OPTIONS, world.egress(PATH)).header("origin", "null")).await;
    assert_problem(&answer, 403, "browser-request", "Browser request", detail, next);
    assert_eq!(world.simulator.ledger().profile("quickbooks").counters.api_calls, 0);
    let answer =
        send(world.client.get(world.egress(PATH)).header("origin", "http://localhost").bearer_auth(&handle)).await;
    assert_eq!(answer.status, 200, "a program with a handle may send an Origin");
    world.stop().await;
}

#[tokio::test]
async fn callers_without_a_good_handle() {
    let clock = ManualClock::at(now());
    let world = World::with(Setup::default(), Arc::new(clock.clone())).await;
    world.connect("quickbooks", "alice").await;
    let call = async |handle: &str| world.call(handle, PATH).await;
    let url = world.egress(PATH);
    let none = "The request holds no handle, and no fixed subject is configured.";
    assert_problem(&send(world.client.get(&url)).await, 401, "handle-required", "Handle required", none, HANDLE_HINT);
    assert_problem(&call("placeholder").await, 401, "handle-required", "Handle required", none, HANDLE_HINT);
    let unknown = call("sidekey_h_0000000000000000000000000000000000000000000").await;
    assert_problem(
        &unknown,
        401,
        "unknown-handle",
        "Unknown handle",
        "This handle was never issued here.",
        HANDLE_HINT,
    );
    assert_eq!(unknown.header("www-authenticate"), "Bearer realm=\"sidekey\"");

    let (id, revoked) = world.handle("alice").await;
    assert_eq!(world.admin("DELETE", &format!("/v1/handles/{id}"), "").await.status, 204);
    assert_problem(
        &call(&revoked).await,
        401,
        "revoked-handle",
        "Revoked handle",
        "This handle was revoked.",
        HANDLE_HINT,
    );

    let short = json!({ "subject": "alice", "expires": "1h" }).to_string();
    let short = world.admin("POST", "/v1/handles", &short).await.json()["handle"].as_str().expect("one").to_owned();
    assert_eq!(call(&short).await.status, 200);
    clock.advance(Duration::from_secs(3600));
    assert_problem(
        &call(&short).await,
        401,
        "expired-handle",
        "Expired handle",
        "The time of this handle is over.",
        HANDLE_HINT,
    );

    let other = json!({ "subject": "alice", "providers": ["github"] }).to_string();
    let other = world.admin("POST", "/v1/handles", &other).await.json()["handle"].as_str().expect("one").to_owned();
    assert_problem(
        &call(&other).await,
        403,
        "handle-for-other-provider",
        "Handle for another provider",
        "This handle does not reach quickbooks.",
        "issue one that does: `sidekey handle issue --subject S --provider quickbooks`",
    );
    world.stop().await;
}

#[tokio::test]
async fn two_credentials_and_tokens_in_the_query() {
    let caller = Caller::new().await;
    let line = format!("GET {PATH} HTTP/1.1");
    assert_problem(
        &caller.raw(&line, "host: localhost\r\nAuthorization: Bearer x\r\n").await,
        400,
        "two-credentials",
        "Two credentials",
        "A place of the token is there more than once, in several spellings, or beside another one in use.",
        "send one handle in one place",
    );
    assert_problem(
        &caller.get(&format!("{PATH}?access_token=x")).await,
        400,
        "token-in-query",
        "Token in the query",
        "The query holds an access_token parameter; the token is put into a header.",
        "leave it out",
    );
    caller.nothing_was_sent().await;
}

#[tokio::test]
async fn paths_beyond_the_policy() {
    let caller = Caller::new().await;
    for path in
        ["/quickbooks/v2/company/0/x", "/quickbooks/", "/quickbooks/v3/company", "/quickbooks/v3/company/0/{other}"]
    {
        assert_problem(
            &caller.get(path).await,
            403,
            "path-not-allowed",
            "Path not allowed",
            "This path is not among those that may be called at quickbooks.",
            "compare it with `paths` in the provider's entry",
        );
    }
    for realm in ["9341453172058818", "{other}", "null"] {
        assert_problem(
            &caller.get(&format!("/quickbooks/v3/company/{realm}/companyinfo/1")).await,
            403,
            "other-tenant",
            "Another tenant",
            "The request names another realm_id than the one that subject alice connected.",
            "send 0 or {realm_id} in its place and it is filled in, or disconnect and connect the other one",
        );
    }
    assert_problem(
        &caller.get("/quickbooks/v3/company/0/a%2Fb").await,
        400,
        "encoded-slash",
        "Encoded slash",
        "An encoded slash (%2F) is not allowed in this path.",
        "see `encoded_slash_paths` in the provider's entry",
    );
    caller.nothing_was_sent().await;
}

#[tokio::test]
async fn handles_and_names_that_must_not_leave() {
    let caller = Caller::new().await;
    let line = format!("GET {PATH} HTTP/1.1");
    let leaves = "A handle stands in the request outside the place of the token; it must never reach a provider.";
    let next = "put it where the provider's token would be, and nowhere else";
    let header = format!("host: localhost\r\nx-echo: {}\r\n", caller.handle);
    for answer in [
        caller.raw(&line, &header).await,
        caller.get(&format!("{PATH}?h={}", caller.handle)).await,
        caller.get(&format!("/quickbooks/v3/company/0/{}", caller.handle)).await,
    ] {
        assert_problem(&answer, 403, "handle-would-leave", "Handle would leave", leaves, next);
    }
    for name in ["x_forwarded_for", "X_Sidekey_Session", "proxy_authorization"] {
        assert_problem(
            &caller.raw(&line, &format!("host: localhost\r\n{name}: v\r\n")).await,
            400,
            "odd-header-name",
            "Odd header name",
            "A header name with an underscore could be taken for a protected one.",
            "write it with hyphens, or leave it out",
        );
    }
    caller.nothing_was_sent().await;
}

#[tokio::test]
async fn subjects_without_a_usable_connection() {
    let world = World::start().await;
    let (_, handle) = world.handle("bob").await;
    assert_problem(
        &world.call(&handle, PATH).await,
        403,
        "not-connected",
        "Not connected",
        "There is no connection of subject bob to quickbooks.",
        "connect it: `sidekey connect quickbooks --subject bob`",
    );
    world.stop().await;
}

/// What two servers would read differently is refused, and the connection ends.
#[tokio::test]
async fn bodies_framed_in_two_ways() {
    let caller = Caller::new().await;
    let line = "POST /quickbooks/v3/company/0/invoice HTTP/1.1";
    for framing in [
        "content-length: 2\r\ntransfer-encoding: chunked\r\n",
        "content-length: 2\r\ncontent-length: 2\r\n",
        "content-length: 2, 2\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: identity, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "x: y\nz: w\r\n",
    ] {
        let answer = caller.raw(line, &format!("host: localhost\r\n{framing}")).await;
        assert_eq!(answer.status, 400, "{framing:?}: {}", answer.text());
    }
    caller.nothing_was_sent().await;
}

#[tokio::test]
async fn credentials_that_are_no_text() {
    let caller = Caller::new().await;
    let mut request = format!("GET {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: abcde").into_bytes();
    request.extend_from_slice(b"\xc3\xa9fgh\r\n\r\n");
    let answer = raw(caller.world.files.egress, &request).await;
    assert_eq!((answer.status, answer.json()["type"].as_str()), (401, Some("urn:sidekey:error:handle-required")));
    caller.nothing_was_sent().await;
}

#[tokio::test]
async fn a_refused_request_with_a_body_does_not_confuse_the_next_one() {
    use tokio::io::AsyncWriteExt;
    let caller = Caller::new().await;
    let mut stream = tokio::net::TcpStream::connect(caller.world.files.egress).await.expect("connected");
    let smuggled = format!("GET {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n", caller.handle);
    let request = format!("POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", smuggled.len());
    stream.write_all(request.as_bytes()).await.expect("sent");
    assert_eq!(read_answer(&mut stream).await.status, 404);
    let _ = stream.write_all(smuggled.as_bytes()).await;
    caller.nothing_was_sent().await;
}
