//! Attacks from inside a tunnel whose TLS ends here: what two servers could read differently is refused there as it is
//! outside, in HTTP/1.1 and in HTTP/2, and what is refused leaves no trace of a handle.

use std::process::Stdio;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sidekey_simulator::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::attacks_support::{Attacked, HOST, WAYS, Way, values};
use crate::client::{http, raw, read_answer, send};
use crate::process::Program;
use crate::real_hosts::{client_config, files};
use crate::world::{Setup, World, eventually};

/// F-06, H-01 to H-03: bodies that end in two ways, or in an odd one.
#[tokio::test]
async fn a_body_ends_in_one_way() {
    let attacked = Attacked::start().await;
    for lines in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: identity, chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: \x0bchunked\r\n",
        "transfer-encoding : chunked\r\n",
        "content-length: 5\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: +5\r\n",
        "content-length: -1\r\n",
        "content-length: 5,5\r\n",
        "content-length: 5, 5\r\n",
        "content-length: 0x5\r\n",
        "content-length: 5 5\r\n",
        "content-length:\r\n",
        "content-length: 18446744073709551616\r\n",
    ] {
        let request = format!("{}{lines}\r\n0\r\n\r\n", attacked.head(Way::Tunnel, "POST", "/a"));
        let mut caller = attacked.caller(Way::Tunnel).await;
        caller.write(request.as_bytes()).await;
        let received = caller.read_to_end().await;
        assert!(received.starts_with("HTTP/1.1 400 "), "{lines:?}: {received}");
        assert_eq!(received.matches("HTTP/1.1 ").count(), 1, "{lines:?}: {received}");
    }
    attacked.assert_untouched().await;
    attacked.world.stop().await;
}

/// F-06, H-04: what is no chunk ends the request, and nothing whole arrives.
#[tokio::test]
async fn a_chunk_that_is_no_chunk_ends_the_request() {
    let attacked = Attacked::start().await;
    let smuggled = attacked.head(Way::Tunnel, "GET", "/smuggled");
    for body in [
        "zz\r\n{}\r\n0\r\n\r\n".to_owned(),
        "-2\r\n{}\r\n0\r\n\r\n".to_owned(),
        "ffffffffffffffffff\r\n{}".to_owned(),
        "2\n{}\n0\n\n".to_owned(),
        format!("2\r\n{{}}{smuggled}\r\n0\r\n\r\n"),
        "2\r\n{}x\r\n0\r\n\r\n".to_owned(),
    ] {
        let request = format!("{}transfer-encoding: chunked\r\n\r\n{body}", attacked.head(Way::Tunnel, "POST", "/a"));
        let mut caller = attacked.caller(Way::Tunnel).await;
        caller.write(request.as_bytes()).await;
        let received = caller.read_to_end().await;
        assert!(received.is_empty() || received.starts_with("HTTP/1.1 400 "), "{body:?}: {received}");
        assert!(received.matches("HTTP/1.1 ").count() <= 1, "{body:?}: {received}");
    }
    attacked.assert_untouched().await;
    attacked.world.stop().await;
}

/// F-06, H-05 to H-07: versions and lines.
#[tokio::test]
async fn versions_and_lines_are_plain() {
    let attacked = Attacked::start().await;
    let head = attacked.head(Way::Tunnel, "GET", "/a");
    for version in ["HTTP/1.2x", "HTTP/2.0", "HTTP/3", "HTTX/1.1", "HTTP/1.1x", ""] {
        let request = format!("{}\r\n", head.replacen("HTTP/1.1", version, 1));
        let answer = attacked.raw(Way::Tunnel, request.as_bytes()).await;
        assert!(matches!(answer.status, 400 | 505), "{version}: {} {}", answer.status, answer.text());
    }
    for lines in [
        "x-a: b\n",
        "x-a: b\r\n folded\r\n",
        "x-a : b\r\n",
        ": empty\r\n",
        "x-a: b\0c\r\n",
        "x-a: b\rx-b: c\r\n",
        "no colon\r\n",
    ] {
        let answer = attacked.get(Way::Tunnel, "/a", lines).await;
        assert_eq!(answer.status, 400, "{lines:?}: {}", answer.text());
    }
    let old = head.replacen("HTTP/1.1", "HTTP/1.0", 1);
    let request = format!("{old}transfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(attacked.raw(Way::Tunnel, request.as_bytes()).await.status, 400);
    attacked.assert_untouched().await;
    attacked.world.stop().await;
}

/// F-06, H-08, H-10: what follows a request is its body, or the next request, and never both.
#[tokio::test]
async fn requests_are_never_merged() {
    let attacked = Attacked::start().await;
    for way in WAYS {
        let smuggled = format!("{}\r\n", attacked.head(way, "GET", "/smuggled"));
        let last = format!("{}connection: close\r\n\r\n", attacked.head(way, "GET", "/next"));
        // Refused before its body is read: the body is not the next request.
        for (path, more) in [("/a%00", ""), ("/a", "x_forwarded_for: v\r\n"), ("/a", "authorization: Bearer x\r\n")] {
            let head = attacked.head(way, "POST", path);
            let mut caller = attacked.caller(way).await;
            let request = format!("{head}{more}content-length: {}\r\n\r\n", smuggled.len());
            caller.write(request.as_bytes()).await;
            assert_eq!(caller.read_answer().await.status, 400, "{path} {more}");
            caller.write(smuggled.as_bytes()).await;
            // It is drained, or the connection has ended: a request of its own after it tells.
            caller.write(last.as_bytes()).await;
            let received = caller.read_to_end().await;
            assert!(!received.contains("/smuggled") && received.matches("HTTP/1.1 ").count() <= 1, "{received}");
            let arrived = attacked.api.take();
            assert!(arrived.iter().all(|request| request.starts_with("GET /next ")), "{arrived:?}");
        }
        // Two at once are two, in their order, or the second is not served.
        let mut caller = attacked.caller(way).await;
        caller.write(format!("{}\r\n{last}", attacked.head(way, "GET", "/first")).as_bytes()).await;
        let received = caller.read_to_end().await;
        let arrived = attacked.api.take();
        let paths: Vec<_> = arrived.iter().map(|request| request.split(' ').nth(1).expect("a path")).collect();
        assert!(paths == ["/first"] || paths == ["/first", "/next"], "{paths:?}");
        assert_eq!(received.matches("HTTP/1.1 200 ").count(), paths.len(), "{received}");
    }
    attacked.world.stop().await;
}

/// F-06, H-09: an upgrade is asked for WebSockets only, and nothing passes before it is granted.
#[tokio::test]
async fn an_upgrade_smuggles_nothing() {
    let attacked = Attacked::start().await;
    let smuggled = format!("{}\r\n", attacked.head(Way::Tunnel, "GET", "/smuggled"));
    for lines in [
        "connection: upgrade\r\nupgrade: foo\r\n",
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ] {
        let mut caller = attacked.caller(Way::Tunnel).await;
        caller.write(format!("{}{lines}\r\n{smuggled}", attacked.head(Way::Tunnel, "GET", "/a")).as_bytes()).await;
        let answer = caller.read_answer().await;
        assert!(matches!(answer.status, 200 | 400), "{lines:?}: {}", answer.status);
        drop(caller);
        let arrived = attacked.api.take();
        for request in &arrived {
            // Pipelined, it may be a request of its own, with a head and a token of its own; it is never part of another.
            assert_eq!(request.matches("HTTP/1.1\r\n").count(), 1, "{lines:?}: {arrived:?}");
            assert!(!request.contains(&attacked.handle), "{lines:?}: {arrived:?}");
            let upgrades = values(request, "upgrade");
            assert!(upgrades.is_empty() || upgrades == ["websocket"], "{lines:?}: {arrived:?}");
        }
    }
    attacked.world.stop().await;
}

/// F-06, H-12: more headers than anybody needs.
#[tokio::test]
async fn heads_are_bounded() {
    let attacked = Attacked::start().await;
    let many: String = (0..300).map(|number| format!("x-{number}: v\r\n")).collect();
    let long = format!("x-long: {}\r\n", "v".repeat(1_100_000));
    for lines in [many, long] {
        let mut caller = attacked.caller(Way::Tunnel).await;
        caller.write(format!("{}{lines}\r\n", attacked.head(Way::Tunnel, "GET", "/a")).as_bytes()).await;
        let received = caller.read_to_end().await;
        assert!(received.is_empty() || received.starts_with("HTTP/1.1 4"), "{}", received.len());
    }
    attacked.assert_untouched().await;
    attacked.world.stop().await;
}

/// Sends a request over HTTP/2; its status.
async fn ask(client: &h2::client::SendRequest<Bytes>, request: http::Request<()>) -> u16 {
    let mut client = client.clone().ready().await.expect("ready");
    let (answer, _) = client.send_request(request, true).expect("sent");
    // A stream that is reset is refused as well.
    answer.await.map_or(400, |answer| answer.status().as_u16())
}

/// D-03 to D-14 in HTTP/2, as far as it can say such things at all.
#[tokio::test]
async fn http_2_smuggles_nothing_either() {
    let attacked = Attacked::start().await;
    let client = attacked.http_2().await;
    let request = |method: &str, uri: &str| {
        let credential = format!("Bearer {}", attacked.handle);
        http::Request::builder().method(method).uri(uri).header("authorization", credential)
    };
    let url = |path: &str| format!("https://{HOST}{path}");
    let get = |path: &str| request("GET", &url(path));
    for (name, value) in [
        ("proxy-authorization", "Basic own-secret"),
        ("cookie", "session=own-secret"),
        ("x-api-key", "own-secret"),
        ("x-sidekey-subject", "own-secret"),
        ("x-forwarded-for", "own-secret"),
    ] {
        assert_eq!(ask(&client, get("/a").header(name, value).body(()).expect("one")).await, 200, "{name}");
        let [sent] = attacked.api.take().try_into().expect("exactly one");
        let [credential] = values(&sent, "authorization").try_into().expect("exactly one");
        assert!(attacked.tokens().iter().any(|token| credential == format!("Bearer {token}")), "{name}");
        assert!(!sent.contains("own-secret") && !sent.contains(&attacked.handle), "{name}: {sent}");
        assert_eq!(values(&sent, "host"), [HOST], "{name}: {sent}");
    }
    for (what, request) in [
        ("two credentials", get("/a").header("authorization", "Bearer own-secret")),
        ("token in the query", get("/a?access_token=own-secret")),
        ("odd name", get("/a").header("x_forwarded_for", "v")),
        ("odd name", get("/a").header("proxy_authorization", "v")),
        ("another Host", get("/a").header("host", "evil.example")),
        ("another Host", get("/a").header("host", format!("{HOST}:8443"))),
        ("two Hosts", get("/a").header("host", HOST).header("host", HOST)),
        ("dots", get("/v1/../admin")),
        ("dots", get("/v1/%2e%2e/admin")),
        ("encoded slash", get("/v1%2fadmin")),
        ("NUL", get("/v1/a%00")),
        ("empty segment", get("//admin")),
        ("another host", request("GET", "https://evil.example/a")),
        ("a user", request("GET", &format!("https://evil@{HOST}/a"))),
        ("another port", request("GET", &format!("https://{HOST}:8443/a"))),
        ("TRACE", request("TRACE", &url("/a"))),
        ("lower case", request("get", &url("/a"))),
    ] {
        let status = ask(&client, request.body(()).expect("a request")).await;
        assert!(matches!(status, 400 | 405 | 421), "{what}: {status}");
    }
    let host_twice_the_same = get("/a").header("host", HOST).body(()).expect("a request");
    assert_eq!(ask(&client, host_twice_the_same).await, 200);
    assert_eq!(attacked.api.take().len(), 1);
    attacked.assert_untouched().await;
    attacked.world.stop().await;
}

/// F-09: what is intercepted is sent to nobody who does not prove to be the host, and there is no way around that.
#[tokio::test]
async fn an_intercepted_call_goes_to_the_real_host_only() {
    let attacked = Attacked::with("other.example", "").await;
    let client = attacked.http_2().await;
    let credential = format!("Bearer {}", attacked.handle);
    let request = http::Request::get(format!("https://{HOST}/a")).header("authorization", credential);
    assert_eq!(ask(&client, request.body(()).expect("a request")).await, 502);
    let answer = attacked.get(Way::Tunnel, "/a", "").await;
    assert_eq!((answer.status, &answer.json()["type"]), (502, &"urn:sidekey:error:provider-certificate".into()));
    assert!(attacked.api.take().is_empty());
    attacked.world.stop().await;
}

/// F-11: a ClientHello is as long as clients make it, or ends the connection.
#[tokio::test]
async fn a_client_hello_is_bounded() {
    let world = World::of_real_hosts(Setup::default()).await;
    let mut stream = TcpStream::connect(world.files.egress).await.expect("connected");
    // A handshake message of 64 KiB in records of 16 KiB, of which only the beginning is looked at.
    let record = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff, 3, 3][..], &[0; 16 * 1024 - 6]].concat();
    for _ in 0..4 {
        if stream.write_all(&record).await.is_err() {
            break;
        }
    }
    let mut received = Vec::new();
    let _ = tokio::time::timeout(crate::attacks_support::PATIENCE, stream.read_to_end(&mut received))
        .await
        .expect("it ends");
    assert!(received.is_empty() || received[0] == 0x15, "{received:?}");
    world.stop().await;
}

/// F-15: a client that does not trust us is noticed, and gets nothing else.
#[tokio::test]
async fn clients_that_do_not_trust_us_are_counted() {
    let world = World::of_real_hosts(Setup::default()).await;
    let (answer, stream) = world.tunnel("api.github.com:443", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let config = client_config(&crate::process::certificates("another authority").authority);
    let name = rustls::pki_types::ServerName::try_from("api.github.com").expect("a name");
    let error = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect_err("refused");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    let metrics = format!("http://{}/metrics", world.files.metrics);
    let line = "sidekey_refusals_total{error=\"tls-handshake\"} 1";
    eventually("it is counted", async || send(http().get(&metrics)).await.text().contains(line)).await;
    world.stop().await;
}

/// A revocation is answered here however it is written: carried out, it would end the connection of everybody.
#[tokio::test]
async fn no_revocation_slips_through() {
    let world = World::of_real_hosts(Setup::default()).await;
    let handle = world.connected("slack", "alice").await;
    let calls = || world.simulator.profile_counters("slack");
    let before = calls();
    let client = world.proxied(&format!("{handle}@")).await;
    for path in ["/api/auth.revoke", "/api/auth%2Erevoke", "/api/Auth.Revoke", "/api/auth.revoke/"] {
        for method in ["GET", "POST", "HEAD", "PUT"] {
            let url = format!("https://slack.com{path}?token=xoxb-{handle}");
            let answer = send(client.request(method.parse().expect("one"), &url)).await;
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        }
        let url = world.egress(&format!("/slack{path}"));
        let answer = send(world.client.get(url).bearer_auth(&handle)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    assert_eq!((calls().api_calls, calls().revokes), (before.api_calls, before.revokes));
    assert_eq!(world.connections("alice").await[0]["state"], "active");
    world.stop().await;
}

/// F-18, D-34: no line of the log, and nothing that is told of refusals, holds a handle or a query.
#[tokio::test(flavor = "multi_thread")]
async fn no_handle_is_in_the_log_whichever_way_it_came() {
    let hosts = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let simulator = sidekey_simulator::start(Options { hosts, ..Options::default() }).await.expect("a simulator");
    let files = files(&simulator, &Setup { tables: "[logging]\nlevel = \"trace\"\n".to_owned(), ..Setup::default() });
    let log_path = files.home.path().join("log");
    let log = std::fs::File::create(&log_path).expect("made");
    let mut running = Program::start(files, &[], Stdio::from(log)).await;
    let handle = running.handle("alice").await;
    let secret = handle.trim_start_matches("sidekey_h_").to_owned();
    let egress = running.files.egress;
    let basic = STANDARD.encode(format!("{handle}:"));
    let credential = format!("proxy-authorization: Basic {basic}\r\n");
    let user = "https://api.github.com/user";
    for request in [
        format!("GET /~{handle}/github/user?secret=query-value-1 HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        format!("GET /~{handle}/nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        format!("GET /~{handle}/github/../x HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        format!("GET /~{handle}/github/user HTTP/1.1\r\nhost: evil.example\r\n\r\n"),
        format!("GET /~{handle}/github/user HTTP/1.1\r\nbad name: x\r\n\r\n"),
        format!("GET /github/user?token={handle} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        format!(
            "GET /github/x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {handle}\r\nx-{handle}: {handle}\r\n\r\n"
        ),
        format!("GET {user} HTTP/1.1\r\nhost: api.github.com\r\n{credential}\r\n"),
        format!("GET {user} HTTP/1.1\r\nhost: evil.example\r\n{credential}\r\n"),
        format!("GET http://{handle}@api.github.com/user HTTP/1.1\r\nhost: api.github.com\r\n\r\n"),
        format!("CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n{credential}\r\n"),
        format!("CONNECT {handle}@evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n{credential}\r\n"),
        format!("CONNECT api.github.com:443 HTTP/1.1\r\nbad name: x\r\n{credential}\r\n"),
    ] {
        let answer = raw(egress, request.as_bytes()).await;
        assert!(answer.status >= 400, "{request}: {}", answer.status);
        assert!(!answer.text().contains(&secret), "{request}: {}", answer.text());
    }
    let trusted = send(http().get(format!("http://{egress}/.well-known/sidekey/ca.pem"))).await;
    for protocol in ["h2", "http/1.1"] {
        let mut stream = TcpStream::connect(egress).await.expect("connected");
        stream
            .write_all(format!("CONNECT api.github.com:443 HTTP/1.1\r\n{credential}\r\n").as_bytes())
            .await
            .expect("sent");
        assert_eq!(read_answer(&mut stream).await.status, 200);
        let mut config = client_config(&trusted.text());
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = rustls::pki_types::ServerName::try_from("api.github.com").expect("a name");
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
        if protocol == "h2" {
            let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
            tokio::spawn(connection);
            let request = http::Request::get(format!("{user}?secret=query-value-1")).header("x-echo", &handle);
            let request = request.header("authorization", format!("token {handle}")).body(()).expect("a request");
            assert_eq!(ask(&client, request).await, 403);
        } else {
            let head = format!("GET /user?h={handle} HTTP/1.1\r\nhost: api.github.com\r\n{credential}\r\n");
            stream.write_all(head.as_bytes()).await.expect("sent");
            assert_eq!(read_answer(&mut stream).await.status, 403);
        }
    }
    let socket = running.files.data().join("admin.sock");
    let handles = crate::world::admin(&socket, "GET", "/v1/handles", "").await.json();
    let id = handles["handles"][0]["id"].as_str().expect("an id").to_owned();
    let told = crate::world::admin(&socket, "GET", &format!("/v1/refusals?handle={id}"), "").await.text();
    assert!(told.contains("\"/{handle}/github/user\""), "{told}");
    running.signal(rustix::process::Signal::TERM).await;
    eventually("the log is whole", async || std::fs::read(&log_path).is_ok_and(|log| log.len() > 5_000)).await;
    let log = std::fs::read_to_string(&log_path).expect("text");
    for (place, text) in [("the log", &log), ("the refusals", &told)] {
        for secret in [secret.as_str(), &basic[..40], "query-value-1"] {
            let at = text.find(secret).map(|at| &text[at.saturating_sub(300)..(at + 60).min(text.len())]);
            assert_eq!(at, None, "in {place}");
        }
    }
    simulator.stop().await;
}
