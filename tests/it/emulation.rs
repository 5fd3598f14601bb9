//! Servers that refresh tokens by themselves: they call the provider's token endpoint, and get their own handle back.

use serde_json::Value;

use crate::client::{Answer, form, send};
use crate::world::{Setup, World};

const TOKEN: &str = "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer";
const REVOKE: &str = "https://developer.api.intuit.com/v2/oauth2/tokens/revoke";
const COMPANY: &str = "https://quickbooks.api.intuit.com/v3/company/0/companyinfo/0";

/// QuickBooks, with alice connected; her handle; a client that has us as its proxy, without a credential.
async fn quickbooks() -> (World, String, reqwest::Client) {
    let world = World::of_real_hosts(Setup::default()).await;
    let handle = world.connected("quickbooks", "alice").await;
    let client = world.proxied("").await;
    (world, handle, client)
}

async fn refresh(client: &reqwest::Client, url: &str, token: &str) -> Answer {
    let fields = [("grant_type", "refresh_token"), ("refresh_token", token)];
    send(form(client.post(url).basic_auth("an-id", Some("a-secret")), &fields)).await
}

#[tokio::test]
async fn a_refresh_gives_the_handle_back_in_the_providers_shape() {
    let (world, handle, client) = quickbooks().await;
    let before = world.simulator.profile_counters("quickbooks");
    let answer = refresh(&client, TOKEN, &handle).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{}", answer.text());
    let tokens = answer.json();
    assert_eq!(
        (&tokens["access_token"], &tokens["refresh_token"]),
        (&Value::from(handle.as_str()), &handle.as_str().into())
    );
    assert_eq!((&tokens["expires_in"], &tokens["x_refresh_token_expires_in"]), (&3600.into(), &8_640_000.into()));
    assert!(tokens["token_type"].as_str().expect("a type").eq_ignore_ascii_case("bearer"));
    // And what it got works where it sends it next.
    let company = send(client.get(COMPANY).bearer_auth(tokens["access_token"].as_str().expect("a token"))).await;
    assert_eq!(company.status, 200, "{}", company.text());
    assert_eq!(world.simulator.profile_counters("quickbooks").refresh_attempts, before.refresh_attempts);
    world.stop().await;
}

/// The credential of the proxy will do: the server may hold any refresh token.
#[tokio::test]
async fn whoever_has_a_handle_for_the_proxy_needs_no_other() {
    let (world, handle, _) = quickbooks().await;
    let client = world.proxied(&format!("{handle}@")).await;
    let tokens = refresh(&client, TOKEN, "a-placeholder").await.json();
    assert_eq!(tokens["access_token"], handle);
    world.stop().await;
}

#[tokio::test]
async fn other_grants_say_how_to_connect() {
    let (world, handle, client) = quickbooks().await;
    let ask = async |fields: &[(&str, &str)]| send(form(client.post(TOKEN).bearer_auth(&handle), fields)).await;
    let code = ask(&[("grant_type", "authorization_code"), ("code", "c"), ("redirect_uri", "https://x.example")]).await;
    assert_eq!((code.status, &code.json()["error"]), (400, &"invalid_grant".into()), "{}", code.text());
    let description = code.json()["error_description"].as_str().expect("a description").to_owned();
    assert!(description.contains("sidekey connect quickbooks --subject"), "{description}");
    let client_credentials = ask(&[("grant_type", "client_credentials")]).await;
    assert_eq!(client_credentials.json()["error"], "unsupported_grant_type");
    assert_eq!(world.simulator.profile_counters("quickbooks").code_exchanges, 1, "that of the connection itself");
    world.stop().await;
}

#[tokio::test]
async fn nobodys_handle_is_an_invalid_grant() {
    let (world, handle, client) = quickbooks().await;
    for unknown in ["anything", &format!("{handle}x")] {
        let answer = refresh(&client, TOKEN, unknown).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &"invalid_grant".into()), "{unknown}");
    }
    let (id, other) = world.handle("alice").await;
    world.admin("DELETE", &format!("/v1/handles/{id}"), "").await;
    let answer = refresh(&client, TOKEN, &other).await;
    assert!(answer.text().contains("This handle was revoked"), "{}", answer.text());
    let (_, stranger) = world.handle("bob").await;
    let answer = refresh(&client, TOKEN, &stranger).await;
    assert!(answer.text().contains("sidekey connect quickbooks --subject bob"), "{}", answer.text());
    world.stop().await;
}

#[tokio::test]
async fn a_revocation_succeeds_and_ends_nothing() {
    let (world, handle, client) = quickbooks().await;
    let request = client.post(REVOKE).basic_auth("an-id", Some("a-secret")).header("content-type", "application/json");
    let answer = send(request.body(format!("{{\"token\":\"{handle}\"}}"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(send(client.get(COMPANY).bearer_auth(&handle)).await.status, 200);
    assert_eq!(world.connections("alice").await[0]["state"], "active");
    world.stop().await;
}

/// Who the user is, the provider itself says.
#[tokio::test]
async fn userinfo_is_an_api_call() {
    let (world, handle, client) = quickbooks().await;
    let url = "https://accounts.platform.intuit.com/v1/openid_connect/userinfo";
    let answer = send(client.get(url).bearer_auth(&handle)).await;
    assert_eq!((answer.status, &answer.json()["sub"]), (200, &"user-1".into()), "{}", answer.text());
    let elsewhere = send(client.get(url.replace("userinfo", "other")).bearer_auth(&handle)).await;
    assert_eq!(elsewhere.status, 403, "{}", elsewhere.text());
    world.stop().await;
}

#[tokio::test]
async fn github_gets_a_form_unless_it_asks_for_json() {
    let world = World::of_real_hosts(Setup::default()).await;
    let handle = world.connected("github", "alice").await;
    let client = world.proxied("").await;
    let url = "https://github.com/login/oauth/access_token";
    let answer = refresh(&client, url, &handle).await;
    assert!(answer.text().contains("access_token=") && answer.text().contains("sidekey_h_"), "{}", answer.text());
    let fields = [("grant_type", "refresh_token"), ("refresh_token", handle.as_str())];
    let answer = send(form(client.post(url).header("accept", "application/json"), &fields)).await;
    assert!(answer.json()["access_token"].as_str().expect("a token").ends_with(&handle));
    world.stop().await;
}

#[tokio::test]
async fn rules_hold_for_intercepted_calls_too() {
    let tables = "[providers.github.policy]\ndeny = [{ methods = [\"DELETE\"] }, { paths = [\"/user/emails\"] }]\n";
    let world = World::of_real_hosts(Setup { tables: tables.to_owned(), ..Setup::default() }).await;
    let handle = world.connected("github", "alice").await;
    let client = world.proxied(&format!("{handle}@")).await;
    assert_eq!(send(client.get("https://api.github.com/user")).await.status, 200);
    for request in [
        client.delete("https://api.github.com/repos/ada/one"),
        client.get("https://api.github.com/user/emails"),
        client.get("https://api.github.com/user/emails/x"),
    ] {
        let answer = send(request).await;
        assert_eq!((answer.status, &answer.json()["type"]), (403, &"urn:sidekey:error:denied-by-policy".into()));
    }
    assert_eq!(world.api_calls("github"), 1);
    world.stop().await;
}
