//! The end of a server: nobody who was let in is turned away, and streams end as streams do.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sidekey::telemetry::stopwatch::Stopwatch;
use sidekey_simulator::Options;

use crate::client::http;
use crate::process::Program;
use crate::wire::{Wire, head, raw_server};
use crate::world::{Files, Setup, eventually};

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

/// A stream by which a client only listens ends with the stop, as a body ends; an answer that comes as one is waited for.
#[tokio::test]
async fn a_stream_of_events_ends_cleanly_and_an_answer_is_waited_for() {
    let (front, listener, tokens) = raw_server().await;
    let mut listening = Wire::connect(front.world.files.public).await;
    listening.write(&head(&front, &tokens, "GET", "accept: text/event-stream\r\n")).await;
    let mut source = Wire::accept(&listener).await;
    source.read_head().await;
    source.write(&format!("{EVENTS}9\r\ndata: 1\n\n\r\n")).await;
    listening.read_until("data: 1\n\n").await;
    let mut asking = Wire::connect(front.world.files.public).await;
    asking.write(&head(&front, &tokens, "POST", "content-length: 2\r\n")).await;
    asking.write("{}").await;
    let mut answering = Wire::accept(&listener).await;
    answering.read_until("{}").await;
    answering.write(&format!("{EVENTS}9\r\ndata: 2\n\n\r\n")).await;
    asking.read_until("data: 2\n\n").await;

    let stopwatch = Stopwatch::start();
    let stop = tokio::spawn(front.stop());
    assert_eq!(
        listening.read_until("0\r\n\r\n").await,
        "\r\n0\r\n\r\n",
        "the end of the body, and not only of the connection"
    );
    listening.ends().await;
    source.ends().await;
    assert!(!stop.is_finished(), "somebody still waits for an answer");
    answering.write("9\r\ndata: 3\n\n\r\n0\r\n\r\n").await;
    asking.read_until("data: 3\n\n").await;
    assert_eq!(asking.read_until("0\r\n\r\n").await, "\r\n0\r\n\r\n");
    stop.await.expect("no panic");
    assert!(stopwatch.elapsed() < Duration::from_secs(10), "{:?}", stopwatch.elapsed());
}

/// Who waits for an answer that does not come until time is up learns that there is none.
#[tokio::test]
async fn an_answer_that_does_not_come_ends_with_the_time_for_the_stop() {
    let (front, listener, tokens) = raw_server().await;
    let text = std::fs::read_to_string(&front.world.files.config).expect("there");
    let drain = "[timeouts]\ndrain = \"1s\"\n";
    assert!(!text.contains("[timeouts]"), "{text}");
    std::fs::write(&front.world.files.config, format!("{text}{drain}")).expect("written");
    front.world.sidekey.reloads().reload().await;
    let mut asking = Wire::connect(front.world.files.public).await;
    asking.write(&head(&front, &tokens, "POST", "content-length: 2\r\n")).await;
    asking.write("{}").await;
    let mut answering = Wire::accept(&listener).await;
    answering.read_until("{}").await;
    answering.write(&format!("{EVENTS}9\r\ndata: 1\n\n\r\n")).await;
    asking.read_until("data: 1\n\n").await;
    let stop = tokio::spawn(front.stop());
    assert_eq!(asking.read_until("0\r\n\r\n").await, "\r\n0\r\n\r\n");
    stop.await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_fails_no_request_that_was_let_in() {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    let mut running = Program::start(Files::write(&simulator.url(), &Setup::default()), &[], Stdio::null()).await;
    running.connect("quickbooks", "alice").await;
    let handle = running.handle("alice").await;
    let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(std::sync::Mutex::new(Vec::new())));
    let clients: Vec<_> = (0..16)
        .map(|client| {
            let url = format!("http://{}/quickbooks/v3/company/0/slow?ms={}", running.files.egress, client * 5);
            let (handle, answered, failed) = (handle.clone(), Arc::clone(&answered), Arc::clone(&failed));
            tokio::spawn(async move {
                let client = http();
                // Until nobody answers anymore.
                while let Ok(answer) = client.get(&url).bearer_auth(&handle).send().await {
                    match (answer.status().as_u16(), answer.text().await) {
                        (200, Ok(_)) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        other => failed.lock().expect("not poisoned").push(format!("{other:?}")),
                    }
                }
            })
        })
        .collect();
    eventually("there is load", async || answered.load(Ordering::Relaxed) > 200).await;
    let status = running.signal(rustix::process::Signal::TERM).await;
    assert!(status.success(), "{status}");
    for client in clients {
        client.await.expect("no panic");
    }
    assert_eq!(*failed.lock().expect("not poisoned"), Vec::<String>::new());
    let arrived = simulator.ledger().profile("quickbooks").counters.api_calls;
    assert_eq!(arrived, answered.load(Ordering::Relaxed), "what has arrived was answered");
    simulator.stop().await;
}
