//! Fetching what strangers named: only from the public Internet, without detours, little, quickly, and not all at once.

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use sidekey::telemetry::stopwatch::Stopwatch;

use crate::document_server::{DocumentServer, Reply};
use crate::front::{Front, assert_oauth_error};
use crate::issuer_support::{Stage, assert_page, front, get};
use crate::world::{eventually, pause};

async fn start() -> (DocumentServer, Front) {
    let server = DocumentServer::start();
    let front = Stage { documents: server.client(), ..Stage::default() }.start().await;
    (server, front)
}

async fn authorize(front: &Front, client_id: &str) -> crate::client::Answer {
    get(front, &front.authorize_url(client_id, &[])).await
}

#[tokio::test]
async fn addresses_of_this_machine_are_not_connected_to() {
    let front = front().await;
    let everywhere = TcpListener::bind("0.0.0.0:0").expect("bound");
    let port = everywhere.local_addr().expect("bound").port();
    let mut listeners = vec![everywhere];
    listeners.extend(TcpListener::bind(("::1", port)));
    let mut hosts: Vec<String> =
        ["127.0.0.1", "127.0.0.2", "0.0.0.0", "localhost", "[::1]", "[::]", "[::ffff:7f00:1]", "[::7f00:1]"]
            .map(str::to_owned)
            .to_vec();
    // Connecting a datagram socket sends nothing; it tells the address that this machine would use.
    let probe = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    hosts.extend(probe.ok().map(|address| address.ip().to_string()));
    for listener in &listeners {
        listener.set_nonblocking(true).expect("set");
    }
    for host in hosts {
        let id = format!("https://{host}:{port}/client.json");
        assert_page(&authorize(&front, &id).await, &host);
        let form = [("grant_type", "refresh_token"), ("refresh_token", "x"), ("client_id", &*id)];
        assert_oauth_error(&front.post_form("/token", &form).await, 401, "invalid_client");
        for listener in &listeners {
            let accepted = listener.accept().map(|(_, peer)| peer);
            assert!(accepted.is_err(), "{host}: {accepted:?}");
        }
    }
    front.stop().await;
}

#[tokio::test]
async fn special_addresses_are_refused_at_once() {
    let front = front().await;
    let whole = Stopwatch::start();
    for host in [
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::]",
        "[2001::1]",
        "[2001:db8::1]",
        "[2606:4700::5efe:7f00:1]",
        "[fc00::1]",
        "[fd00::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[100::1]",
    ] {
        assert_page(&authorize(&front, &format!("https://{host}/client.json")).await, host);
    }
    assert!(whole.elapsed() < Duration::from_secs(2), "nothing was waited for: {:?}", whole.elapsed());
    front.stop().await;
}

#[tokio::test]
async fn an_id_that_is_not_a_plain_url_is_not_fetched() {
    let (server, front) = start().await;
    let good = server.publish("/client.json", &[]);
    let [origin, port] = [server.url(""), server.url("").rsplit(':').next().expect("a port").to_owned()];
    for id in [
        origin.clone(),
        format!("{origin}/"),
        format!("{good}#"),
        format!("{good}#fragment"),
        format!("{origin}/./client.json"),
        format!("{origin}/x/../client.json"),
        format!("{origin}/%2e/client.json"),
        format!("{origin}/%2E%2E/client.json"),
        format!("https://LOCALHOST:{port}/client.json"),
        format!("https://user@localhost:{port}/client.json"),
        format!("https://user:password@localhost:{port}/client.json"),
        format!("HTTPS://localhost:{port}/client.json"),
        format!("http://localhost:{port}/client.json"),
        format!("https:/localhost:{port}/client.json"),
        format!("https://localhost:{port}\\client.json"),
        format!("https://localhost:{port}/client.json "),
        format!("https://localhost:{port}/client\t.json"),
        format!("https://127.1:{port}/client.json"),
        format!("https://2130706433:{port}/client.json"),
        format!("https://0x7f.1:{port}/client.json"),
        format!("https://0177.0.0.1:{port}/client.json"),
        format!("https://ⓛocalhost:{port}/client.json"),
        format!("{good}?{}", "x".repeat(600)),
    ] {
        assert_page(&authorize(&front, &id).await, &id);
    }
    assert_eq!(server.requests(), [""; 0]);
    assert_eq!(authorize(&front, &good).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn answers_that_are_no_document_are_no_use_and_not_remembered() {
    let (server, front) = start().await;
    let path = "/client.json";
    let good = server.document(path, &[]);
    let id = server.url(path);
    server.publish("/elsewhere.json", &[("client_id", id.clone().into())]);
    let body = || good.to_string().into_bytes();
    let padded = |length: usize| {
        let mut body = body();
        body.resize(length, b' ');
        body
    };
    let redirect =
        |status: u16| Reply::new(status, "application/json", body()).with("location", &server.url("/elsewhere.json"));
    let mut bad: Vec<(String, Reply)> =
        [301, 302, 303, 307, 308].map(|status| (status.to_string(), redirect(status))).into();
    for status in [201, 203, 204, 206, 304, 401, 403, 404, 410, 429, 500, 503] {
        bad.push((status.to_string(), Reply::new(status, "application/json", body())));
    }
    for kind in
        ["", "text/html", "text/plain", "text/json", "application/octet-stream", "application/jsonx", "image/svg+json"]
    {
        bad.push((format!("type {kind}"), Reply::new(200, kind, body())));
    }
    bad.push(("too large".to_owned(), Reply::new(200, "application/json", padded(5 * 1024 + 1))));
    bad.push(("far too large".to_owned(), Reply::new(200, "application/json", padded(10 << 20))));
    // Ten kilobytes of zeros, compressed.
    let compressed = Reply::new(200, "application/json", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03".to_vec());
    bad.push(("compressed".to_owned(), compressed.with("content-encoding", "gzip")));
    for (what, reply) in bad {
        server.put(path, reply);
        assert_page(&authorize(&front, &id).await, &what);
    }
    assert!(server.requests().iter().all(|asked| asked == path), "nobody was followed anywhere");
    server.put(path, Reply::new(200, "application/oauth-client+json; charset=utf-8", padded(5 * 1024)));
    assert_eq!(authorize(&front, &id).await.status, 200, "as large as it may be");
    front.stop().await;
}

#[tokio::test]
async fn a_site_that_drips_is_left_after_five_seconds() {
    let (server, front) = start().await;
    let mut reply = Reply::json(&server.document("/client.json", &[]));
    reply.drips = true;
    server.put("/client.json", reply);
    let stopwatch = Stopwatch::start();
    assert_page(&authorize(&front, &server.url("/client.json")).await, "drips");
    let elapsed = stopwatch.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(7)).contains(&elapsed), "{elapsed:?}");
    front.stop().await;
}

#[tokio::test]
async fn a_site_that_does_not_prove_who_it_is_is_no_use() {
    let server = DocumentServer::start();
    let id = server.publish("/client.json", &[]);
    // The networks are allowed, but the certificate is by nobody whom this machine trusts.
    let tables = "[issuer.client_documents]\nallow_networks = [\"127.0.0.0/8\", \"::1/128\"]\n".to_owned();
    let front = Stage { tables, ..Stage::default() }.start().await;
    let page = authorize(&front, &id).await;
    assert_page(&page, "untrusted");
    assert!(page.text().contains("Client not reachable"), "{}", page.text());
    // And one that says nothing at all.
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let id = format!("https://localhost:{}/client.json", silent.local_addr().expect("bound").port());
    let stopwatch = Stopwatch::start();
    assert_page(&authorize(&front, &id).await, "silent");
    assert!(stopwatch.elapsed() < Duration::from_secs(5), "{:?}", stopwatch.elapsed());
    assert_eq!(server.requests(), [""; 0]);
    front.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_documents_are_fetched_at_a_time() {
    let (server, front) = start().await;
    let ids: Vec<String> = (0..70).map(|number| server.publish(&format!("/{number}.json"), &[])).collect();
    server.set_held(true);
    let front = std::sync::Arc::new(front);
    let fetches: Vec<_> = ids
        .into_iter()
        .map(|id| {
            let front = std::sync::Arc::clone(&front);
            tokio::spawn(async move { authorize(&front, &id).await.status })
        })
        .collect();
    eventually("64 are waiting", async || server.open().0 == 64).await;
    pause(Duration::from_millis(200)).await;
    assert_eq!(server.open(), (64, 64), "and no more");
    server.set_held(false);
    let statuses = futures_util::future::join_all(fetches).await;
    assert!(statuses.into_iter().all(|status| status.expect("it ends") == 200));
    assert!(server.open().1 <= 64, "{:?}", server.open());
    std::sync::Arc::into_inner(front).expect("ours alone").stop().await;
}
