//! Journey J6: ended here at once, and at the provider as soon as it listens.

use std::process::Stdio;

use sidekey_simulator::{Endpoint, Fault, FaultKind, Options};

use crate::client::{Answer, http, send};
use crate::process::{Program, out, sidekey};
use crate::world::{Files, Setup, World, eventually};

impl World {
    async fn disconnect(&self, provider: &str, subject: &str) -> Answer {
        let body = serde_json::json!({ "provider": provider, "subject": subject });
        self.admin("POST", "/v1/disconnect", &body.to_string()).await
    }

    fn revokes(&self, provider: &str) -> u64 {
        self.simulator.ledger().profile(provider).counters.revokes
    }
}

#[tokio::test]
async fn a_grant_is_given_back_in_each_providers_shape() {
    let world = World::start().await;
    for (provider, path) in [
        ("quickbooks", "/quickbooks/v3/company/0/companyinfo/0"),
        ("github", "/github/user/repos"),
        ("gitlab", "/gitlab/api/v4/projects"),
        ("notion", "/notion/v1/users/me"),
    ] {
        let handle = world.connected(provider, "alice").await;
        assert_eq!(world.call(&handle, path).await.status, 200, "{provider}");
        let answer = world.disconnect(provider, "alice").await;
        assert_eq!(
            (answer.status, &answer.json()["revocation"]),
            (200, &"done".into()),
            "{provider}: {}",
            answer.text()
        );
        assert_eq!(world.revokes(provider), 1, "{provider}");
        let refused = world.call(&handle, path).await;
        assert_eq!(refused.json()["type"], "urn:sidekey:error:not-connected", "{provider}");
    }
    assert!(world.connections("alice").await.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn what_is_not_there_cannot_be_disconnected() {
    let world = World::start().await;
    let answer = world.disconnect("quickbooks", "nobody").await;
    assert_eq!((answer.status, &answer.json()["type"]), (404, &"urn:sidekey:error:unknown-connection".into()));
    world.connect("quickbooks", "alice").await;
    assert_eq!(world.disconnect("quickbooks", "alice").await.status, 200);
    assert_eq!(world.disconnect("quickbooks", "alice").await.status, 404, "once");
    world.connect("quickbooks", "alice").await;
    assert_eq!(world.connections("alice").await[0]["state"], "active", "and connected anew");
    world.stop().await;
}

#[tokio::test]
async fn a_provider_that_does_not_listen_is_told_again_even_after_a_restart() {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    let down = FaultKind::Status { status: 503, body: None, content_type: None, headers: Default::default() };
    simulator.add_fault(Fault::new("quickbooks", Endpoint::Revoke, down));
    let files = Files::write(&simulator.url(), &Setup::default());
    let mut running = Program::start(files, &[], Stdio::null()).await;
    running.connect("quickbooks", "alice").await;
    let handle = running.handle("alice").await;
    let arguments = ["disconnect", "quickbooks", "--subject", "alice", "--config", running.config()];
    let said = out(&sidekey(&arguments).await);
    assert_eq!(
        said,
        "alice is disconnected from quickbooks; the provider could not be told yet; Sidekey keeps trying\n  \
         the provider's answer: HTTP 503\n"
    );
    let url = format!("http://{}/quickbooks/v3/company/0/companyinfo/0", running.files.egress);
    assert_eq!(send(http().get(url).bearer_auth(&handle)).await.status, 403, "here it is so at once");
    running.signal(rustix::process::Signal::KILL).await;
    simulator.clear_faults();
    let again = Program::start(running.files, &[], Stdio::null()).await;
    eventually("the grant is given back", async || simulator.ledger().profile("quickbooks").counters.revokes == 1)
        .await;
    drop(again);
    simulator.stop().await;
}

/// The provider counts both as one grant: what is given back late would be the new one.
#[tokio::test]
async fn a_connection_that_was_made_anew_is_not_ended_by_what_was_queued_before() {
    let world = World::start().await;
    let down = FaultKind::Status { status: 503, body: None, content_type: None, headers: Default::default() };
    world.simulator.add_fault(Fault::new("*", Endpoint::Revoke, down));
    for provider in ["quickbooks", "github"] {
        world.connect(provider, "alice").await;
        assert_eq!(world.disconnect(provider, "alice").await.json()["revocation"], "queued");
        world.connect(provider, "alice").await;
    }
    let waiting = async |query: &str| {
        let status = world.admin("GET", &format!("/v1/status{query}"), "").await.json();
        let waiting = status["revocations_waiting"].as_array().expect("a list").clone();
        assert!(waiting.iter().all(|one| one["attempts"].as_u64() >= Some(1) && one["since"].is_string()), "{status}");
        waiting.iter().map(|one| one["provider"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    for (query, expected) in
        [("", &["quickbooks", "github"][..]), ("?subject=alice", &["quickbooks", "github"]), ("?subject=bob", &[])]
    {
        assert_eq!(waiting(query).await, expected);
    }
    let said = sidekey(&["status", "--config", world.files.config.to_str().expect("text")]).await;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("revocations  2 the provider could not be told of yet"), "{said}");
    world.simulator.clear_faults();
    // GitHub takes back single tokens, so that the old ones are none of the new grant's business.
    eventually("what belongs to one token is given back", async || world.revokes("github") == 1).await;
    eventually("what may be the new grant is not", async || {
        let audit = std::fs::read_to_string(world.files.data().join("audit.jsonl")).expect("there");
        audit.contains("connected again meanwhile")
    })
    .await;
    assert_eq!(world.revokes("quickbooks"), 0);
    world.stop().await;
}

#[tokio::test]
async fn tokens_that_arrive_after_the_end_are_given_back_too() {
    let world = World::start().await;
    world.simulator.set("quickbooks", |settings| settings.access_lifetime_s = 1.0);
    world.simulator.add_fault(Fault::new("quickbooks", Endpoint::Refresh, FaultKind::DelayMs { ms: 1500 }));
    world.connect("quickbooks", "alice").await;
    let asked = || world.simulator.ledger().profile("quickbooks").counters.refresh_attempts;
    eventually("a refresh is under way", async || asked() == 1).await;
    assert_eq!(world.disconnect("quickbooks", "alice").await.status, 200);
    // The grant may be given back with what was known then; what the refresh brings is given back once more.
    assert_eq!(world.revokes("quickbooks"), 1);
    eventually("what came later is given back as well", async || world.revokes("quickbooks") == 2).await;
    assert!(world.connections("alice").await.is_empty(), "it does not come back");
    world.stop().await;
}
