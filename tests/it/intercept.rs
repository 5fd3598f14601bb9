//! The ways in to the egress listener for servers that have their provider's host built in.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Answer, http, raw, read_answer, send};
use crate::upstream_certificates::{authority, issued};
use crate::world::{Setup, World, eventually};

const USER: &str = "https://api.github.com/user";

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, slug: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.json()["type"], format!("urn:sidekey:error:{slug}"), "{}", answer.text());
}

fn proxy_credential(handle: &str) -> String {
    format!("proxy-authorization: Basic {}\r\n", STANDARD.encode(format!("{handle}:")))
}

/// The world, and a handle of alice, who is connected to GitHub.
async fn github() -> (World, String) {
    let world = World::of_real_hosts(Setup::default()).await;
    let handle = world.connected("github", "alice").await;
    (world, handle)
}

#[tokio::test]
async fn a_tunnel_with_a_handle_needs_no_other() {
    let (world, handle) = github().await;
    for credential in [format!("{handle}@"), format!("{handle}:x@"), format!("x:{handle}@")] {
        let client = world.proxied(&credential).await;
        let answer = send(client.get(USER).bearer_auth("placeholder")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let echoed = send(world.proxied(&format!("{handle}@")).await.get("https://api.github.com/echo")).await.text();
    assert!(!echoed.contains(&handle) && !echoed.contains("proxy-authorization"), "{echoed}");
    world.stop().await;
}

#[tokio::test]
async fn in_a_tunnel_without_one_every_request_says_whose_it_is() {
    let (world, handle) = github().await;
    let client = world.proxied("").await;
    assert_refused(&send(client.get(USER)).await, 401, "handle-required");
    assert_eq!(send(client.get(USER).bearer_auth(&handle)).await.status, 200);
    assert_refused(&send(client.get(USER).bearer_auth(format!("{handle}x"))).await, 401, "unknown-handle");
    assert_eq!(world.api_calls("github"), 1);
    world.stop().await;
}

#[tokio::test]
async fn http_2_is_spoken_inside() {
    let (world, handle) = github().await;
    let (_, tcp) = world.tunnel("api.github.com:443", &proxy_credential(&handle)).await;
    let stream = world.tls(tcp, "api.github.com", &["h2", "http/1.1"]).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let ask = async |host: &str| {
        let request = http::Request::get(format!("https://{host}/user")).body(()).expect("a request");
        let mut client = client.clone().ready().await.expect("ready");
        let (answer, _) = client.send_request(request, true).expect("sent");
        answer.await.expect("an answer").status().as_u16()
    };
    assert_eq!(ask("api.github.com").await, 200);
    // A client that takes one connection for two hosts (RFC 9113 section 9.1.1) is sent away.
    assert_eq!(ask("api.notion.com").await, 421);
    assert_eq!(ask("api.github.com").await, 200);
    world.stop().await;
}

#[tokio::test]
async fn a_tunnel_with_a_bad_credential_is_refused() {
    let (world, handle) = github().await;
    let unknown = proxy_credential(&format!("{handle}x"));
    let foreign = format!("proxy-authorization: Basic {}\r\n", STANDARD.encode("user:password"));
    for headers in [unknown.as_str(), foreign.as_str(), "proxy-authorization: Bearer x\r\n"] {
        let (answer, _) = world.tunnel("api.github.com:443", headers).await;
        assert_refused(&answer, 407, "proxy-credential");
        assert_eq!(answer.header("proxy-authenticate"), "Basic realm=\"sidekey\"");
        assert_eq!(answer.header("connection"), "close");
    }
    let (id, other) = world.handle("alice").await;
    world.admin("DELETE", &format!("/v1/handles/{id}"), "").await;
    let (answer, _) = world.tunnel("api.github.com:443", &proxy_credential(&other)).await;
    assert_refused(&answer, 407, "proxy-credential");
    assert_eq!(answer.json()["detail"], "This handle was revoked.");
    world.stop().await;
}

/// A handle is revoked while its tunnel is open: the next request in it is refused.
#[tokio::test]
async fn a_tunnel_is_worth_no_more_than_its_handle() {
    let (world, _) = github().await;
    let (id, handle) = world.handle("alice").await;
    let client = world.proxied(&format!("{handle}@")).await;
    assert_eq!(send(client.get(USER)).await.status, 200);
    world.admin("DELETE", &format!("/v1/handles/{id}"), "").await;
    assert_refused(&send(client.get(USER)).await, 401, "revoked-handle");
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_was_led_here_is_known_by_the_name_in_tls() {
    let (world, handle) = github().await;
    for protocols in [&[][..], &["http/1.1"][..]] {
        let tcp = TcpStream::connect(world.files.egress).await.expect("connected");
        let mut stream = world.tls(tcp, "api.github.com", protocols).await.expect("TLS");
        let head = format!("GET /user HTTP/1.1\r\nhost: api.github.com\r\nauthorization: token {handle}");
        assert_eq!(world.ask(&mut stream, &head).await.status, 200);
        // Kept alive, and asked as a client that was led to our port may write it.
        let head = head.replace("host: api.github.com", &format!("host: API.github.com:{}", world.files.egress.port()));
        assert_eq!(world.ask(&mut stream, &head).await.status, 200);
    }
    world.stop().await;
}

/// Byte by byte, and as large as a post-quantum key share makes it.
#[tokio::test]
async fn a_client_hello_may_come_in_pieces() {
    let (world, handle) = github().await;
    let mut tcp = TcpStream::connect(world.files.egress).await.expect("connected");
    tcp.set_nodelay(true).expect("set");
    // A relay that passes on what a client says in single bytes.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let relay = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("accepted");
        let mut first = vec![0; 16 * 1024];
        let length = client.read(&mut first).await.expect("read");
        for byte in &first[..length] {
            tcp.write_all(&[*byte]).await.expect("written");
            tokio::task::yield_now().await;
        }
        let _ = tokio::io::copy_bidirectional(&mut client, &mut tcp).await;
        length
    });
    let client = TcpStream::connect(address).await.expect("connected");
    // Many protocols make the ClientHello as long as a post-quantum one.
    let names: Vec<String> = (0..60).map(|number| format!("protocol-number-{number:020}")).collect();
    let mut protocols: Vec<&str> = names.iter().map(String::as_str).collect();
    protocols.push("http/1.1");
    let mut stream = world.tls(client, "api.github.com", &protocols).await.expect("TLS");
    let head = format!("GET /user HTTP/1.1\r\nhost: api.github.com\r\nauthorization: Bearer {handle}");
    assert_eq!(world.ask(&mut stream, &head).await.status, 200);
    drop(stream);
    assert!(relay.await.expect("ended") > 1800);
    world.stop().await;
}

#[tokio::test]
async fn a_proxy_request_in_absolute_form_goes_out_over_tls() {
    let (world, handle) = github().await;
    let ask = |target: &str, headers: &str| {
        let host = target.split('/').nth(2).unwrap_or_default().to_owned();
        let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n");
        async move { raw(world.files.egress, request.as_bytes()).await }
    };
    assert_eq!(ask(USER, &proxy_credential(&handle)).await.status, 200);
    assert_eq!(ask(USER, &format!("authorization: Bearer {handle}\r\n")).await.status, 200);
    assert_refused(&ask(USER, "").await, 401, "handle-required");
    assert_refused(&ask(USER, &proxy_credential("user:password")).await, 407, "proxy-credential");
    let plain = ask("http://api.github.com/user", &proxy_credential(&handle)).await;
    assert_refused(&plain, 403, "plain-http");
    for elsewhere in ["http://evil.example/", "https://evil.example/", "https://api.github.com.evil.example/user"] {
        assert_refused(&ask(elsewhere, &proxy_credential(&handle)).await, 400, "odd-request-target");
    }
    assert_refused(&ask("https://api.github.com:8443/user", &proxy_credential(&handle)).await, 403, "host-not-listed");
    assert_eq!(ask("https://x@api.github.com/user", &proxy_credential(&handle)).await.status, 400);
    assert_eq!(world.api_calls("github"), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_handle_may_stand_in_the_base_url() {
    let (world, handle) = github().await;
    let answer = send(http().get(world.egress(&format!("/~{handle}/github/user")))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let path = format!("/~{handle}x/github/user");
    assert_refused(&send(http().get(world.egress(&path))).await, 401, "unknown-handle");
    assert_refused(&send(http().get(world.egress("/~nothing/github/user"))).await, 404, "unknown-api");
    assert_refused(&send(http().get(world.egress(&format!("/~{handle}")))).await, 404, "unknown-api");
    // Links lead back by the same way.
    let listed = send(http().get(world.egress(&format!("/~{handle}/github/user/repos?per_page=1")))).await;
    let next = listed.header("link").trim_start_matches('<').split('>').next().expect("a URL").to_owned();
    assert!(next.starts_with(&world.egress("/~")), "{next}");
    assert_eq!(send(http().get(&next)).await.status, 200, "{next}");
    let calls = world.simulator.api_calls();
    assert!(calls.iter().all(|call| !call.path.contains('~')), "{calls:?}");
    world.stop().await;
}

/// F-04: all ways in which tunnel, TLS and request may disagree.
#[tokio::test]
async fn tunnel_tls_and_host_must_agree() {
    let (world, handle) = github().await;
    world.connect("notion", "alice").await;
    let (github, notion) = ("api.github.com", "api.notion.com");
    for (tunnel, tls, host, is_good) in [
        (github, github, github, true),
        (github, github, notion, false),
        (github, notion, github, false),
        (github, notion, notion, false),
        (notion, github, github, false),
        (notion, github, notion, false),
        (github, github, "evil.example", false),
        (github, github, "api.github.com:8443", false),
    ] {
        let credential = proxy_credential(&handle);
        let (answer, tcp) = world.tunnel(&format!("{tunnel}:443"), &credential).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut stream = world.tls(tcp, tls, &["http/1.1"]).await.expect("TLS");
        let answer = world.ask(&mut stream, &format!("GET /user HTTP/1.1\r\nhost: {host}")).await;
        if is_good {
            assert_eq!(answer.status, 200, "{}", answer.text());
        } else {
            assert_refused(&answer, 421, "misdirected-request");
        }
    }
    assert_eq!((world.api_calls("github"), world.simulator.profile_counters("notion").api_calls_rejected), (1, 0));
    world.stop().await;
}

/// The second request on a connection that was good names another host.
#[tokio::test]
async fn every_request_of_a_connection_names_its_host() {
    let (world, handle) = github().await;
    let (_, tcp) = world.tunnel("api.github.com:443", &proxy_credential(&handle)).await;
    let mut stream = world.tls(tcp, "api.github.com", &["http/1.1"]).await.expect("TLS");
    assert_eq!(world.ask(&mut stream, "GET /user HTTP/1.1\r\nhost: api.github.com").await.status, 200);
    let other = world.ask(&mut stream, "GET /user HTTP/1.1\r\nhost: api.notion.com").await;
    assert_refused(&other, 421, "misdirected-request");
    for (host, status) in [("", 400), ("host: a\r\nhost: b", 400), ("host: a@api.github.com", 400)] {
        let (_, tcp) = world.tunnel("api.github.com:443", &proxy_credential(&handle)).await;
        let mut stream = world.tls(tcp, "api.github.com", &["http/1.1"]).await.expect("TLS");
        let head = format!("GET /user HTTP/1.1\r\naccept: */*{}{host}", if host.is_empty() { "" } else { "\r\n" });
        assert_eq!(world.ask(&mut stream, &head).await.status, status, "{host}");
    }
    assert_eq!(world.api_calls("github"), 1);
    world.stop().await;
}

/// F-02, F-03: no certificate is made for a host that is nobody's, however it is written.
#[tokio::test]
async fn other_hosts_are_refused() {
    let (world, handle) = github().await;
    let credential = proxy_credential(&handle);
    for target in [
        "evil.example:443",
        "evil-api.github.com:443",
        "api.github.com.evil.example:443",
        "xn--pi-gia.github.com:443",
        "140.82.121.6:443",
        "api.github.com:80",
        "api.github.com:8443",
    ] {
        let (answer, _) = world.tunnel(target, &credential).await;
        assert_refused(&answer, 403, "host-not-listed");
    }
    for odd in ["[api.github.com]:443", "api.github.com%00.evil:443", "api.github.com:443@evil", "api.github.com"] {
        let (answer, _) = world.tunnel(odd, &credential).await;
        assert_refused(&answer, 400, "bad-connect");
    }
    for good in ["API.GITHUB.COM:443", "api.github.com.:443"] {
        let (answer, _) = world.tunnel(good, &credential).await;
        assert_eq!(answer.status, 200, "{good}");
    }
    // The same by TLS alone.
    for name in ["evil.example", "sub.api.github.com", "140.82.121.6"] {
        let tcp = TcpStream::connect(world.files.egress).await.expect("connected");
        let error = world.tls(tcp, name, &[]).await.expect_err("refused");
        assert!(error.to_string().contains("UnrecognisedName"), "{name}: {error}");
    }
    assert_eq!(world.api_calls("github"), 0);
    world.stop().await;
}

/// F-05: a request for a tunnel has no body, and is no request for two servers to read in two ways.
#[tokio::test]
async fn requests_for_tunnels_are_plain() {
    let (world, _) = github().await;
    for lines in
        ["content-length: 5\r\n", "transfer-encoding: chunked\r\n", "host: evil.example\r\n", "bad header: x\r\n"]
    {
        let (answer, _) = world.tunnel("api.github.com:443", lines).await;
        assert_refused(&answer, 400, "bad-connect");
    }
    // What comes with the request belongs to the tunnel: it is no TLS, so the tunnel ends.
    let mut stream = TcpStream::connect(world.files.egress).await.expect("connected");
    let request = "CONNECT api.github.com:443 HTTP/1.1\r\nhost: api.github.com:443\r\n\r\nGET /user HTTP/1.1\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut received = String::new();
    let _ = stream.read_to_string(&mut received).await;
    assert_eq!(received, "HTTP/1.1 200 Connection established\r\n\r\n");
    world.stop().await;
}

/// F-17: what is not TLS in a tunnel to a provider ends it, and nothing leads clients past us.
#[tokio::test]
async fn a_tunnel_carries_tls_and_nothing_else() {
    let (world, handle) = github().await;
    for greeting in ["SSH-2.0-OpenSSH_9.2\r\n", "EHLO me\r\n", "GET /user HTTP/1.1\r\n\r\n", "\0\0\0\0"] {
        let (answer, mut stream) = world.tunnel("api.github.com:443", &proxy_credential(&handle)).await;
        assert_eq!(answer.status, 200);
        stream.write_all(greeting.as_bytes()).await.expect("sent");
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received).await;
        assert!(received.is_empty(), "{received:?}");
    }
    let metrics = || world.metrics();
    eventually("it is counted", async || metrics().await.contains("sidekey_refusals_total{error=\"no-tls\"} 4")).await;
    world.stop().await;
}

/// F-01, F-02: passed on unseen, only with a handle, only where it is listed or the handle says so, and never nearby.
#[tokio::test]
async fn blind_tunnels() {
    let near = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = near.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = near.accept().await {
            let mut received = [0; 5];
            let _ = stream.read_exact(&mut received).await;
            let _ = stream.write_all(&received.map(|byte| byte.to_ascii_uppercase())).await;
        }
    });
    let setup = Setup { egress: format!("tunnel_hosts = [\"{address}\", \"nowhere.invalid\"]\n"), ..Setup::default() };
    let world = World::of_real_hosts(setup).await;
    let (_, handle) = world.handle("alice").await;
    let (answer, mut stream) = world.tunnel(&address.to_string(), &proxy_credential(&handle)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    stream.write_all(b"hello").await.expect("sent");
    let mut received = [0; 5];
    stream.read_exact(&mut received).await.expect("received");
    assert_eq!(&received, b"HELLO");
    let (answer, _) = world.tunnel(&address.to_string(), "").await;
    assert_refused(&answer, 407, "proxy-credential");
    let (answer, _) = world.tunnel("nowhere.invalid:443", &proxy_credential(&handle)).await;
    assert_refused(&answer, 502, "tunnel-failed");
    let (answer, _) = world.tunnel("other.invalid:443", &proxy_credential(&handle)).await;
    assert_refused(&answer, 403, "host-not-listed");
    let anywhere = world.admin("POST", "/v1/handles", r#"{"subject":"alice","tunnels":true}"#).await.json();
    let anywhere = proxy_credential(anywhere["handle"].as_str().expect("a handle"));
    let (answer, _) = world.tunnel("other.invalid:443", &anywhere).await;
    assert_refused(&answer, 502, "tunnel-failed");
    for near in ["127.0.0.1:1", "169.254.169.254:80", "[::1]:22", "0.0.0.0:80", "[::ffff:127.0.0.1]:80"] {
        let (answer, _) = world.tunnel(near, &anywhere).await;
        assert_refused(&answer, 403, "forbidden-address");
    }
    world.stop().await;
}

/// F-07: nothing leads to our own listeners, even where an operator has listed them.
#[tokio::test]
async fn no_tunnel_leads_back_to_us() {
    let world =
        World::of_real_hosts(Setup { egress: "tunnel_hosts = [\"127.0.0.1:9\"]\n".to_owned(), ..Setup::default() })
            .await;
    let anywhere = world.admin("POST", "/v1/handles", r#"{"subject":"alice","tunnels":true}"#).await.json();
    let anywhere = proxy_credential(anywhere["handle"].as_str().expect("a handle"));
    for own in [world.files.public, world.files.egress, world.files.metrics] {
        let (answer, _) = world.tunnel(&own.to_string(), &anywhere).await;
        assert_refused(&answer, 403, "forbidden-address");
    }
    world.stop().await;
}

#[tokio::test]
async fn what_was_refused_can_be_asked_by_handle() {
    let (world, _) = github().await;
    let (id, handle) = world.handle("alice").await;
    let credential = proxy_credential(&handle);
    for _ in 0..2 {
        let (answer, _) = world.tunnel("registry.npmjs.org:443", &credential).await;
        assert_refused(&answer, 403, "host-not-listed");
    }
    let client = world.proxied(&format!("{handle}@")).await;
    let answer = send(client.get("https://api.notion.com/v1/users?secret=1")).await;
    assert_refused(&answer, 403, "not-connected");
    let refusals = world.admin("GET", &format!("/v1/refusals?handle={id}"), "").await.json();
    let told: Vec<[&Value; 5]> = refusals["refusals"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| ["host", "method", "path", "type", "count"].map(|key| &one[key]))
        .collect();
    let expected = serde_json::json!([
        ["registry.npmjs.org", "CONNECT", "", "urn:sidekey:error:host-not-listed", 2],
        ["api.notion.com", "GET", "/v1/users", "urn:sidekey:error:not-connected", 1],
    ]);
    assert_eq!(serde_json::to_value(&told).expect("JSON"), expected);
    world.stop().await;
}

/// Links and redirects stay as they are: whoever follows them comes here again.
#[tokio::test]
async fn nothing_is_rewritten_for_clients_that_mean_the_real_host() {
    let (world, handle) = github().await;
    let client = world.proxied(&format!("{handle}@")).await;
    let answer = send(client.get("https://api.github.com/user/repos?per_page=1")).await;
    assert!(answer.header("link").contains("<https://api.github.com/user/repos?page=2"), "{answer:?}");
    world.stop().await;
}

#[tokio::test]
async fn several_apis_at_one_host_are_told_apart_by_their_paths() {
    let world = World::of_real_hosts(Setup::default()).await;
    let handle = world.connected("google", "alice").await;
    let client = world.proxied(&format!("{handle}@")).await;
    for path in ["/calendar/v3/users/me/calendarList", "/drive/v3/files"] {
        let answer = send(client.get(format!("https://www.googleapis.com{path}"))).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    let answer = send(client.get("https://www.googleapis.com/youtube/v3/search")).await;
    assert_refused(&answer, 403, "path-not-allowed");
    world.stop().await;
}

/// The listener may have several addresses, and all are alike.
#[tokio::test]
async fn several_addresses() {
    let [one, two] = [crate::world::free_address(), crate::world::free_address()];
    let setup = Setup { egress: format!("listen = [\"{one}\", \"{two}\"]\n"), ..Setup::default() };
    let world = World::of_real_hosts(setup).await;
    let handle = world.connected("github", "alice").await;
    for address in [one, two] {
        let request = format!("GET /github/user HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {handle}\r\n\r\n");
        assert_eq!(raw(address, request.as_bytes()).await.status, 200);
    }
    world.stop().await;
}

/// A connection that says nothing does not hold up a stop.
#[tokio::test]
async fn a_silent_connection_ends_with_the_server() {
    let (world, _) = github().await;
    let mut silent = TcpStream::connect(world.files.egress).await.expect("connected");
    let mut half = TcpStream::connect(world.files.egress).await.expect("connected");
    half.write_all(b"CONN").await.expect("sent");
    tokio::time::timeout(Duration::from_secs(10), world.stop()).await.expect("it does not wait for them");
    assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn the_first_bytes_may_come_one_by_one() {
    let (world, handle) = github().await;
    let mut stream = TcpStream::connect(world.files.egress).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    let request =
        format!("CONNECT api.github.com:443 HTTP/1.1\r\nhost: api.github.com:443\r\n{}\r\n", proxy_credential(&handle));
    for byte in request.bytes() {
        stream.write_all(&[byte]).await.expect("sent");
        tokio::task::yield_now().await;
    }
    assert_eq!(read_answer(&mut stream).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn events_arrive_one_by_one_inside_too() {
    let (world, handle) = github().await;
    let client = world.proxied(&format!("{handle}@")).await;
    let request = client.get("https://api.github.com/sse?count=5&interval_ms=300");
    let stopwatch = sidekey::telemetry::stopwatch::Stopwatch::start();
    let mut answer = request.send().await.expect("an answer");
    let first = answer.chunk().await.expect("received").expect("an event");
    assert!(stopwatch.elapsed() < Duration::from_millis(1200), "the first event did not wait for the others");
    let mut text = first.to_vec();
    while let Some(chunk) = answer.chunk().await.expect("received") {
        text.extend_from_slice(&chunk);
    }
    assert_eq!(String::from_utf8(text).expect("text").matches("data:").count(), 5);
    world.stop().await;
}

/// A WebSocket inside: the token goes with the handshake, and then both sides say what they like.
#[tokio::test]
async fn websockets_are_spoken_inside() {
    let (issuer, trusted) = authority();
    let acceptor = issued(&issuer, &["quickbooks.api.intuit.com"], |_| {}).acceptor();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let (heads, mut head) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut read = vec![0; 8192];
            let length = stream.read(&mut read).await.expect("read");
            heads.send(String::from_utf8_lossy(&read[..length]).into_owned()).expect("awaited");
            let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            stream.write_all(switch.as_bytes()).await.expect("sent");
            while let Ok(length @ 1..) = stream.read(&mut read).await {
                let said: Vec<u8> = read[..length].iter().map(u8::to_ascii_uppercase).collect();
                stream.write_all(&said).await.expect("sent");
            }
        }
    });
    let setup = Setup { led: Some(("quickbooks.api.intuit.com", address, trusted)), ..Setup::default() };
    let world = World::of_real_hosts(setup).await;
    let handle = world.connected("quickbooks", "alice").await;
    let (_, tcp) = world.tunnel("quickbooks.api.intuit.com:443", &proxy_credential(&handle)).await;
    let mut stream = world.tls(tcp, "quickbooks.api.intuit.com", &["http/1.1"]).await.expect("TLS");
    let shake = "GET /v3/company/0/socket HTTP/1.1\r\nhost: quickbooks.api.intuit.com\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13";
    let answer = world.ask(&mut stream, shake).await;
    assert_eq!(answer.status, 101, "{}", answer.text());
    for said in [b"hello".as_slice(), b"again"] {
        stream.write_all(said).await.expect("sent");
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.expect("heard");
        assert_eq!(heard.to_vec(), said.to_ascii_uppercase());
    }
    let head = head.recv().await.expect("a handshake").to_ascii_lowercase();
    assert!(head.starts_with("get /v3/company/9341453172058817/socket "), "{head}");
    assert!(head.contains("authorization: bearer ") && !head.contains("sidekey_h_"), "{head}");
    drop(stream);
    world.stop().await;
}
