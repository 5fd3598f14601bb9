//! The bundled entry for Slack, behind its real host name.

use std::time::Duration;

use sidekey_simulator::Rotation;

use crate::client::{form, send};
use crate::upstream_support::{Reach, connected, world};
use crate::world::eventually;

#[tokio::test]
async fn a_bots_token_goes_where_the_handle_was() {
    let (world, _) = world(Reach::default()).await;
    let handle = connected(&world, "slack", "alice").await;
    let answer = world.call(&handle, "/slack/api/users.list").await;
    assert_eq!((answer.status, &answer.json()["ok"]), (200, &true.into()), "{}", answer.text());
    let fields = [("token", handle.as_str()), ("channel", "C1"), ("text", "hello")];
    let posted = send(form(world.client.post(world.egress("/slack/api/chat.postMessage")), &fields)).await;
    assert_eq!((posted.status, &posted.json()["ok"]), (200, &true.into()), "{}", posted.text());
    assert!(world.simulator.api_calls().iter().all(|call| call.accepted));
    let connections = world.connections("alice").await;
    assert_eq!(connections[0]["provider"], "slack", "{connections:?}");
    let ended = serde_json::json!({ "provider": "slack", "subject": "alice" }).to_string();
    assert_eq!(world.admin("POST", "/v1/disconnect", &ended).await.status, 200);
    eventually("it is revoked there too", async || world.simulator.profile_counters("slack").revokes == 1).await;
    world.stop().await;
}

#[tokio::test]
async fn with_rotation_a_token_is_replaced_before_it_expires() {
    let (world, clock) = world(Reach::default()).await;
    world.simulator.set("slack", |settings| {
        settings.rotation = Rotation::SingleUse;
        settings.access_lifetime_s = 43_200.0;
    });
    let handle = connected(&world, "slack", "alice").await;
    clock.advance(Duration::from_secs(13 * 3600));
    let answer = world.call(&handle, "/slack/api/auth.test").await;
    assert_eq!((answer.status, &answer.json()["ok"]), (200, &true.into()), "{}", answer.text());
    let counters = world.simulator.profile_counters("slack");
    assert_eq!((counters.refreshes_ok, counters.refreshes_rejected), (1, 0));
    world.stop().await;
}

/// `ok: false` is no token, whatever the status says.
#[tokio::test]
async fn a_refusal_with_status_200_ends_no_connection_that_is_not_dead() {
    let (world, clock) = world(Reach::default()).await;
    world.simulator.set("slack", |settings| {
        settings.rotation = Rotation::SingleUse;
        settings.access_lifetime_s = 43_200.0;
    });
    let handle = connected(&world, "slack", "alice").await;
    let secret = world.simulator.settings("slack").client_secret;
    world.simulator.set("slack", |settings| settings.client_secret = "another".to_owned());
    clock.advance(Duration::from_secs(13 * 3600));
    assert_eq!(world.call(&handle, "/slack/api/auth.test").await.status, 503);
    world.simulator.set("slack", |settings| settings.client_secret = secret);
    world.simulator.revoke("slack");
    clock.advance(Duration::from_secs(3600));
    assert_eq!(world.call(&handle, "/slack/api/auth.test").await.status, 403, "the user took it back");
    world.stop().await;
}
