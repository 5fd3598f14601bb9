//! Bodies stream both ways: nothing is collected, nothing waits for the end.

use std::time::Duration;

use sidekey::base::digest::sha256;
use sidekey_simulator::{Endpoint, Fault, FaultKind};

use crate::client::{http, send};
use crate::world::{World, eventually};

#[tokio::test]
async fn events_arrive_one_by_one() {
    let world = World::start().await;
    let handle = world.connected("github", "alice").await;
    let request = world.client.get(world.egress("/github/sse?count=5&interval_ms=300")).bearer_auth(&handle);
    let stopwatch = sidekey::telemetry::stopwatch::Stopwatch::start();
    let mut answer = request.send().await.expect("an answer");
    let first = answer.chunk().await.expect("received").expect("an event");
    assert!(stopwatch.elapsed() < Duration::from_millis(1200), "the first event did not wait for the others");
    let mut text = first.to_vec();
    while let Some(chunk) = answer.chunk().await.expect("received") {
        text.extend_from_slice(&chunk);
    }
    assert!(stopwatch.elapsed() >= Duration::from_millis(1200), "the last one came at its time");
    assert_eq!(String::from_utf8(text).expect("text").matches("data:").count(), 5);
    world.stop().await;
}

#[tokio::test]
async fn a_large_upload_arrives_whole() {
    let world = World::start().await;
    let handle = world.connected("github", "alice").await;
    let body: Vec<u8> = (0..20_000_000_u32).map(|number| ((number * 31) >> 7) as u8).collect();
    let digest: String = sha256(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = send(http().post(world.egress("/github/upload")).bearer_auth(&handle).body(body)).await;
    assert_eq!(
        (answer.json()["bytes"].as_u64(), answer.json()["sha256"].as_str()),
        (Some(20_000_000), Some(digest.as_str()))
    );
    world.stop().await;
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let world = World::start().await;
    let handle = world.connected("github", "alice").await;
    let answer = world.call(&handle, "/github/chunks?count=200&interval_ms=0&size=50000").await;
    assert_eq!((answer.status, answer.body.len()), (200, 10_000_000));
    world.stop().await;
}

/// Whoever hangs up, before the answer or in the middle of it, is no failure of the provider's.
#[tokio::test]
async fn who_hangs_up_is_no_failure_of_the_provider() {
    let world = World::start().await;
    let handle = world.connected("github", "alice").await;
    let slow = world.client.get(world.egress("/github/sse?count=100&interval_ms=200")).bearer_auth(&handle);
    let mut answer = slow.send().await.expect("an answer");
    answer.chunk().await.expect("received").expect("an event");
    drop(answer);
    let delayed = FaultKind::DelayMs { ms: 5000 };
    world.simulator.add_fault(Fault::new("github", Endpoint::Api, delayed));
    let waiting = world.client.get(world.egress("/github/user")).bearer_auth(&handle);
    waiting.timeout(Duration::from_millis(500)).send().await.expect_err("no answer in time");
    let counted = |outcome: &str, count: u32| {
        format!("sidekey_api_requests_total{{outcome=\"{outcome}\",provider=\"github\"}} {count}\n")
    };
    eventually("both are counted", async || world.metrics().await.contains(&counted("caller_gone", 2))).await;
    assert!(world.metrics().await.contains(&counted("failed", 0)), "{}", world.metrics().await);
    world.stop().await;
}
