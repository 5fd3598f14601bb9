//! Tokens in other places than a header of their own: the stand-in is found there, the token goes there, and nothing else
//! leaves.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::{Answer, form, http, raw, send};
use crate::world::{Setup, World};

const AUTH_TEST: &str = "https://slack.com/api/auth.test";

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, slug: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.json()["type"], format!("urn:sidekey:error:{slug}"), "{}", answer.text());
}

#[tokio::test]
async fn a_form_field_or_a_parameter_holds_the_token_where_the_api_takes_it_there() {
    let world = World::of_real_hosts(Setup::default()).await;
    let handle = format!("xoxb-{}", world.connected("slack", "alice").await);
    let client = world.proxied("").await;
    let in_form = |url: &str, token: &str| send(form(client.post(url.to_owned()), &[("a", "b c"), ("token", token)]));
    let whole = [
        in_form(AUTH_TEST, &handle).await,
        send(client.get(format!("{AUTH_TEST}?token={handle}&x=y"))).await,
        send(client.get(AUTH_TEST).bearer_auth(&handle)).await,
    ];
    for answer in whole {
        assert_eq!(answer.json()["ok"], true, "{}", answer.text());
    }
    assert_eq!(world.simulator.profile_counters("slack").api_calls_rejected, 0);
    // A placeholder there gets the token of whoever asked for the tunnel.
    let tunnel = world.proxied(&format!("{handle}@")).await;
    let answer = send(form(tunnel.post(AUTH_TEST), &[("token", "xoxb-placeholder")])).await;
    assert_eq!(answer.json()["ok"], true, "{}", answer.text());
    // Too much to be searched, and no handle elsewhere.
    let large = "x".repeat(70_000);
    let answer = send(form(client.post(AUTH_TEST), &[("token", handle.as_str()), ("text", &large)])).await;
    assert_refused(&answer, 413, "body-too-large-for-placement");
    let answer = send(form(client.post(AUTH_TEST).bearer_auth(&handle), &[("text", &large)])).await;
    assert_eq!(answer.json()["ok"], true, "{}", answer.text());
    // A second handle, or the same one where it does not belong.
    let (_, other) = world.handle("alice").await;
    let answer = send(form(client.post(AUTH_TEST).bearer_auth(&other), &[("token", handle.as_str())])).await;
    assert_refused(&answer, 400, "two-handles");
    let answer = send(form(client.post(AUTH_TEST), &[("token", handle.as_str()), ("text", &handle)])).await;
    assert_refused(&answer, 403, "handle-would-leave");
    world.stop().await;
}

/// A client that waits to be asked for its body, and one that sends it in chunks.
#[tokio::test]
async fn bodies_that_are_read_first_may_come_in_any_way() {
    let world = World::of_real_hosts(Setup::default()).await;
    let handle = world.connected("slack", "alice").await;
    let body = format!("token={handle}");
    let head = "POST /slack/api/auth.test HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                content-type: application/x-www-form-urlencoded\r\n";
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let answer = raw(world.files.egress, chunked.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut stream = tokio::net::TcpStream::connect(world.files.egress).await.expect("connected");
    let waiting = format!("{head}content-length: {}\r\nexpect: 100-continue\r\n\r\n", body.len());
    stream.write_all(waiting.as_bytes()).await.expect("sent");
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.expect("asked");
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"ok\":true"), "{answer}");
    assert_eq!(world.simulator.profile_counters("slack").api_calls_rejected, 0);
    world.stop().await;
}

/// A handle in a body, in whatever pieces it comes, never arrives: neither it nor what follows.
#[tokio::test]
async fn a_handle_in_a_body_does_not_arrive() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = upstream.local_addr().expect("bound");
    let entry = format!(
        "display_name = \"Echo\"\nchecked_on = \"2026-11-21\"\ndefault_api = \"echo\"\n\
         [authorize]\nurl = \"SIMULATOR/generic/authorize\"\npkce = \"supported\"\n\
         [token]\nurl = \"SIMULATOR/generic/token\"\nclient_authentication = [\"body\"]\n\
         [rotation]\nmodel = \"static\"\n[apis.echo]\norigin = \"http://{address}\"\n"
    );
    let setup = Setup { providers: vec![("echo", entry.leak(), "")], ..Setup::default() };
    let world = World::with(setup, std::sync::Arc::new(sidekey::base::clock::SystemClock)).await;
    let handle = world.connected("echo", "alice").await;
    let received = tokio::spawn(async move {
        let mut all = Vec::new();
        for _ in 0..3 {
            let (mut stream, _) = upstream.accept().await.expect("accepted");
            let mut one = Vec::new();
            let _ = stream.read_to_end(&mut one).await;
            all.push(String::from_utf8_lossy(&one).into_owned());
        }
        all
    });
    let secret = handle.trim_start_matches("sidekey_h_").to_owned();
    let (begin, end) = handle.split_at(6);
    for pieces in [vec![handle.as_str()], vec![begin, end], vec!["sidekey_h", "_", &secret]] {
        let mut stream = tokio::net::TcpStream::connect(world.files.egress).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        let head = format!(
            "POST /echo/x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {handle}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        for piece in pieces {
            stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await.expect("sent");
            crate::world::pause(std::time::Duration::from_millis(30)).await;
        }
        let answer = crate::client::read_answer(&mut stream).await;
        assert_refused(&answer, 403, "handle-would-leave");
    }
    for request in received.await.expect("ended") {
        assert!(request.starts_with("POST /x HTTP/1.1\r\n"), "{request}");
        assert!(!request.contains(&secret) && !request.ends_with("0\r\n\r\n"), "{request}");
    }
    world.stop().await;
}

#[tokio::test]
async fn the_handle_has_the_look_of_the_providers_tokens() {
    let world = World::of_real_hosts(Setup::default()).await;
    world.connect("google", "alice").await;
    let body = r#"{"subject":"alice","providers":["google"]}"#;
    let handle = world.admin("POST", "/v1/handles", body).await.json()["handle"].as_str().expect("there").to_owned();
    assert!(handle.starts_with("ya29.") && handle.contains("sidekey_h_"), "{handle}");
    let answer = send(http().get(world.egress("/google/calendar/v3/users/me/calendarList")).bearer_auth(&handle)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    world.stop().await;
}
