//! Several access tokens of one grant: each goes to its own API, and each is refreshed by itself.

use std::sync::Arc;

use sidekey::base::clock::SystemClock;
use sidekey_simulator::{AccessToken, ApiCall, Endpoint, Fault, FaultKind};

use crate::world::{Setup, World, eventually};

/// As at Slack: the reply to a code carries a second token of the user, with a refresh token of its own.
const CHAT: &str = r#"
display_name = "Chat"
checked_on = "2026-11-21"
default_api = "bot"
[authorize]
url = "SIMULATOR/generic/authorize"
pkce = "supported"
scopes = ["chat"]
[token]
url = "SIMULATOR/generic/token"
client_authentication = ["basic"]
[[token.response.more_tokens]]
name = "user"
access_token = "/authed_user/access_token"
refresh_token = "/authed_user/refresh_token"
expires_in = "/authed_user/expires_in"
[rotation]
model = "single_use"
[revoke]
url = "SIMULATOR/generic/revoke"
client_authentication = "basic"
body = { token = "{refresh_token}" }
[apis.bot]
origin = "SIMULATOR"
base_path = "/generic/api"
[apis.people]
origin = "SIMULATOR"
base_path = "/generic/api"
token = "user"
"#;

/// As at Microsoft: one refresh token, and an access token for each resource.
const OFFICE: &str = r#"
display_name = "Office"
checked_on = "2026-11-21"
default_api = "graph"
[authorize]
url = "SIMULATOR/generic/authorize"
pkce = "supported"
scopes = ["offline", "graph.read"]
[token]
url = "SIMULATOR/generic/token"
client_authentication = ["basic"]
[rotation]
model = "overlap"
multi_resource = true
[apis.graph]
origin = "SIMULATOR"
base_path = "/generic/api"
[apis.lists]
origin = "SIMULATOR"
base_path = "/generic/api"
token = "lists"
scopes = ["lists.read", "lists.write"]
"#;

async fn world(name: &'static str, entry: &'static str, apis: &'static str) -> World {
    let setup = Setup { providers: vec![(name, entry, apis)], ..Setup::default() };
    let world = World::with(setup, Arc::new(SystemClock)).await;
    world.simulator.set("generic", |settings| {
        settings.user_token = name == "chat";
        if name == "office" {
            settings.rotation = sidekey_simulator::Rotation::Overlap;
        }
    });
    world
}

/// Which access token the last call carried.
fn token_of_last_call(world: &World) -> AccessToken {
    let calls: Vec<ApiCall> = world.simulator.api_calls();
    let call = calls.last().expect("a call");
    let number = usize::try_from(call.generation.expect("a token of ours")).expect("small");
    let ledger = world.simulator.ledger();
    let grant = ledger.profile("generic").grants.iter().find(|grant| Some(&grant.id) == call.grant.as_ref());
    grant.expect("there").access_tokens[number - 1].clone()
}

#[tokio::test]
async fn each_of_two_tokens_in_a_reply_goes_to_its_own_api_and_is_refreshed_by_its_own_refresh_token() {
    let world = world("chat", CHAT, "apis = [\"bot\", \"people\"]").await;
    world.simulator.set("generic", |settings| settings.access_lifetime_s = 2.0);
    let handle = world.connected("chat", "alice").await;
    for _ in 0..3 {
        let before = world.simulator.ledger().profile("generic").counters.refreshes_ok;
        assert_eq!(world.call(&handle, "/bot/x").await.status, 200);
        assert_eq!(token_of_last_call(&world).part, None);
        assert_eq!(world.call(&handle, "/people/x").await.status, 200);
        assert_eq!(token_of_last_call(&world).part.as_deref(), Some("user"));
        eventually("both are refreshed", async || {
            world.simulator.ledger().profile("generic").counters.refreshes_ok >= before + 2
        })
        .await;
    }
    let counters = world.simulator.ledger().profile("generic").counters.clone();
    assert_eq!((counters.refreshes_rejected, counters.reuse_detected, counters.api_calls_rejected), (0, 0, 0));
    let status = world.connections("alice").await;
    let tokens: Vec<_> = status.iter().map(|connection| connection["token"].as_str()).collect();
    assert_eq!(tokens, [None, Some("user")]);
    world.stop().await;
}

#[tokio::test]
async fn one_refresh_token_gets_an_access_token_for_each_resource() {
    let world = world("office", OFFICE, "apis = [\"graph\", \"lists\"]").await;
    world.simulator.set("generic", |settings| settings.access_lifetime_s = 2.0);
    let handle = world.connected("office", "alice").await;
    for _ in 0..3 {
        let before = world.simulator.ledger().profile("generic").counters.refreshes_ok;
        assert_eq!(world.call(&handle, "/graph/x").await.status, 200);
        assert_eq!(token_of_last_call(&world).scope, "offline graph.read");
        assert_eq!(world.call(&handle, "/lists/x").await.status, 200);
        assert_eq!(token_of_last_call(&world).scope, "lists.read lists.write");
        eventually("both are refreshed", async || {
            world.simulator.ledger().profile("generic").counters.refreshes_ok >= before + 2
        })
        .await;
    }
    assert_eq!(world.simulator.ledger().profile("generic").counters.refreshes_rejected, 0);
    world.stop().await;
}

#[tokio::test]
async fn a_token_that_cannot_be_refreshed_does_not_stop_the_other() {
    let world = world("office", OFFICE, "apis = [\"graph\", \"lists\"]").await;
    let refusal = FaultKind::Error { error: "temporarily_unavailable".to_owned(), description: None, status: None };
    world.simulator.add_fault(Fault::new("generic", Endpoint::Refresh, refusal));
    let handle = world.connected("office", "alice").await;
    assert_eq!(world.call(&handle, "/graph/x").await.status, 200);
    let answer = world.call(&handle, "/lists/x").await;
    assert_eq!((answer.status, answer.json()["type"].as_str()), (503, Some("urn:sidekey:error:token-unavailable")));
    assert_eq!(world.call(&handle, "/graph/x").await.status, 200);
    world.simulator.clear_faults();
    eventually("it recovers", async || world.call(&handle, "/lists/x").await.status == 200).await;
    world.stop().await;
}

#[tokio::test]
async fn connecting_again_and_disconnecting_concern_all_tokens_of_a_grant() {
    let world = world("chat", CHAT, "apis = [\"bot\", \"people\"]").await;
    let handle = world.connected("chat", "alice").await;
    world.connect("chat", "alice").await;
    assert_eq!(world.connections("alice").await.len(), 2, "the earlier ones were replaced");
    for path in ["/bot/x", "/people/x"] {
        assert_eq!(world.call(&handle, path).await.status, 200, "{path}");
        let second = world.simulator.ledger().profile("generic").grants[1].id.clone();
        assert_eq!(world.simulator.api_calls().last().expect("a call").grant.as_deref(), Some(second.as_str()));
    }
    let body = serde_json::json!({"provider": "chat", "subject": "alice"}).to_string();
    let answer = world.admin("POST", "/v1/disconnect", &body).await;
    assert_eq!((answer.status, answer.json()["revocation"].as_str()), (200, Some("done")));
    for path in ["/bot/x", "/people/x"] {
        assert_eq!(world.call(&handle, path).await.status, 403, "{path}");
    }
    assert!(world.connections("alice").await.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn only_the_tokens_of_enabled_apis_are_kept() {
    let world = world("chat", CHAT, "apis = [\"bot\"]").await;
    world.connect("chat", "alice").await;
    assert_eq!(world.connections("alice").await.len(), 1);
    world.stop().await;
}
