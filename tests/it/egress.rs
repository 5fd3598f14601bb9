//! Journey J4: what goes out to a provider, and what comes back.

use std::sync::Arc;

use serde_json::Value;
use sidekey::base::clock::SystemClock;
use sidekey_simulator::leaks::LeakSearch;

use crate::client::{raw, send};
use crate::world::{Setup, World};

/// The values of a header in the request as the provider received it.
fn received(echo: &Value, name: &str) -> Vec<String> {
    let pairs = echo["header_list"].as_array().expect("an echo");
    let values = pairs.iter().filter(|pair| pair[0].as_str().is_some_and(|sent| sent.eq_ignore_ascii_case(name)));
    values.map(|pair| pair[1].as_str().expect("text").to_owned()).collect()
}

#[tokio::test]
async fn token_and_company_are_filled_in() {
    let world = World::start().await;
    let handle = world.connected("quickbooks", "alice").await;
    for company in ["0", "realm_id", "{realm_id}", "%7Brealm_id%7D", "9341453172058817"] {
        let request = format!(
            "GET /quickbooks/v3/company/{company}/companyinfo/0 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {handle}\r\n\r\n"
        );
        let answer = raw(world.files.egress, request.as_bytes()).await;
        assert_eq!(answer.status, 200, "{company}: {}", answer.text());
        assert_eq!(answer.json()["CompanyInfo"]["Id"], "9341453172058817");
    }
    let counters = world.simulator.ledger().profile("quickbooks").counters.clone();
    assert_eq!((counters.api_calls, counters.api_calls_ok), (5, 5));
    world.stop().await;
}

#[tokio::test]
async fn exactly_one_credential_goes_out_and_nothing_of_the_callers_own() {
    let world = World::start().await;
    let handle = world.connected("quickbooks", "alice").await;
    let request = world.client.get(world.egress("/quickbooks/v3/company/0/echo?a=b%20c&d")).bearer_auth(&handle);
    let request = request
        .header("cookie", "session=1")
        .header("proxy-authorization", "Bearer x")
        .header("x-api-key", "k")
        .header("x-forwarded-for", "10.0.0.1")
        .header("x-forwarded-host", "evil.example")
        .header("forwarded", "for=10.0.0.1")
        .header("x-original-url", "/admin")
        .header("x-http-method-override", "DELETE")
        .header("x-sidekey-subject", "bob")
        .header("x-own", "kept")
        .header("user-agent", "server/1");
    let echo = send(request).await.json();
    let issued = world.simulator.ledger().profile("quickbooks").last_grant().expect("one").access_tokens[0].clone();
    assert_eq!(received(&echo, "authorization"), [format!("sha256:{}", issued.value_sha256)]);
    for gone in [
        "cookie",
        "proxy-authorization",
        "x-api-key",
        "x-forwarded-for",
        "x-forwarded-host",
        "forwarded",
        "x-original-url",
        "x-http-method-override",
        "x-sidekey-subject",
    ] {
        assert_eq!(received(&echo, gone), Vec::<String>::new(), "{gone}");
    }
    assert_eq!(
        (received(&echo, "x-own"), received(&echo, "user-agent")),
        (vec!["kept".to_owned()], vec!["server/1".to_owned()])
    );
    assert_eq!(received(&echo, "host"), [world.simulator.address().to_string()]);
    assert_eq!(received(&echo, "accept"), ["*/*"], "what the caller sent is not replaced by a default");
    assert_eq!(echo["path"], "/quickbooks/api/v3/company/9341453172058817/echo");
    assert_eq!(echo["query"], "a=b%20c&d");
    assert!(!echo.to_string().contains(&handle), "the handle has not left");
    world.stop().await;
}

#[tokio::test]
async fn default_headers_are_set_where_the_caller_sent_none() {
    let world = World::start().await;
    let handle = world.connected("notion", "alice").await;
    let echo = world.call(&handle, "/notion/v1/echo").await.json();
    assert_eq!(received(&echo, "notion-version"), ["2025-09-03"]);
    let request =
        world.client.get(world.egress("/notion/v1/echo")).bearer_auth(&handle).header("notion-version", "2022-06-28");
    assert_eq!(received(&send(request).await.json(), "notion-version"), ["2022-06-28"]);
    world.stop().await;
}

/// A `Connection` header names headers to be dropped; the injected one must not be among them.
#[tokio::test]
async fn connection_nominated_headers_do_not_take_the_token_along() {
    let world = World::start().await;
    let handle = world.connected("github", "alice").await;
    for nominated in
        ["Authorization", "close, authorization", ", authorization", "AUTHORIZATION", "x-our-identity", "host"]
    {
        let request = format!(
            "GET /github/echo HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {handle}\r\nconnection: {nominated}\r\nx-our-identity: me\r\n\r\n"
        );
        let answer = raw(world.files.egress, request.as_bytes()).await;
        if answer.status == 200 {
            let echo = answer.json();
            assert_eq!(received(&echo, "authorization").len(), 1, "{nominated}");
            assert!(received(&echo, "connection").is_empty(), "{nominated}");
        } else {
            // Nobody guesses what a request means that wants protected headers dropped.
            assert_eq!(
                (answer.status, answer.json()["type"].as_str()),
                (400, Some("urn:sidekey:error:malformed-request"))
            );
            assert!(nominated.contains("host") || nominated.to_lowercase().contains("authorization"), "{nominated}");
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn a_handle_works_where_a_token_goes() {
    let world = World::start().await;
    let handle = world.connected("github", "alice").await;
    let base64 = |text: String| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    for value in [
        format!("Bearer {handle}"),
        format!("bearer {handle}"),
        format!("token {handle}"),
        format!("Basic {}", base64(format!("x-access-token:{handle}"))),
        format!("Basic {}", base64(format!("{handle}:"))),
    ] {
        let answer = send(world.client.get(world.egress("/github/user")).header("authorization", &value)).await;
        assert_eq!(answer.status, 200, "{value}: {}", answer.text());
    }
    world.stop().await;
}

#[tokio::test]
async fn a_fixed_subject_serves_callers_without_a_handle_whatever_token_they_send() {
    let setup = Setup { fixed_subject: Some("org-42"), ..Setup::default() };
    let world = World::with(setup, Arc::new(SystemClock)).await;
    world.connect("quickbooks", "org-42").await;
    let url = world.egress("/quickbooks/v3/company/0/companyinfo/0");
    for request in [world.client.get(&url), world.client.get(&url).bearer_auth("placeholder")] {
        assert_eq!(send(request).await.status, 200);
    }
    // A handle goes first, and one that is no good never falls through to the fixed subject.
    let (id, handle) = world.handle("org-42").await;
    assert_eq!(send(world.client.get(&url).bearer_auth(&handle)).await.status, 200);
    assert_eq!(world.admin("DELETE", &format!("/v1/handles/{id}"), "").await.status, 204);
    for bad in [handle.as_str(), "sidekey_h_unknown", "prefix-sidekey_h_x"] {
        let answer = send(world.client.get(&url).bearer_auth(bad)).await;
        assert_eq!(answer.status, 401, "{}", answer.text());
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"sidekey\"");
    }
    world.stop().await;
}

#[tokio::test]
async fn each_subject_gets_its_own_token() {
    let world = World::start().await;
    let mut handles = Vec::new();
    for (number, subject) in ["alice", "bob", "carol"].into_iter().enumerate() {
        world.simulator.set("quickbooks", |settings| settings.realm_id = format!("100000000000{number}"));
        handles.push((format!("100000000000{number}"), world.connected("quickbooks", subject).await));
    }
    let calls = (0..300).map(|call| {
        let (realm, handle) = &handles[call % 3];
        let world = &world;
        async move {
            let answer = world.call(handle, "/quickbooks/v3/company/0/companyinfo/0").await;
            assert_eq!(answer.json()["CompanyInfo"]["Id"], *realm);
        }
    });
    futures_util::future::join_all(calls).await;
    world.stop().await;
}

#[tokio::test]
async fn links_lead_back_through_us() {
    let world = World::start().await;
    let handle = world.connected("github", "alice").await;
    let answer = world.call(&handle, "/github/user/repos").await;
    let base = world.egress("/github");
    assert!(answer.header("link").starts_with(&format!("<{base}/user/repos?")), "{}", answer.header("link"));
    let next = answer.header("link").trim_start_matches('<').split('>').next().expect("a URL").to_owned();
    assert_eq!(send(world.client.get(next).bearer_auth(&handle)).await.status, 200, "the link works");

    let api = format!("{}/github/api", world.simulator.url());
    let redirect =
        world.call(&handle, &format!("/github/redirect?status=302&to={}", urlencode(&format!("{api}/user")))).await;
    assert_eq!((redirect.status, redirect.header("location")), (302, format!("{base}/user").as_str()));
    let elsewhere = "https://elsewhere.example/x";
    let redirect = world.call(&handle, &format!("/github/redirect?status=307&to={}", urlencode(elsewhere))).await;
    assert_eq!((redirect.status, redirect.header("location")), (307, elsewhere), "passed on, not followed");
    world.stop().await;
}

fn urlencode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[tokio::test]
async fn an_encoded_slash_arrives_as_it_was_sent_where_the_route_opts_in() {
    let world = World::start().await;
    let handle = world.connected("gitlab", "alice").await;
    let answer = world.call(&handle, "/gitlab/api/v4/projects/group%2Fname/echo").await;
    assert_eq!(answer.json()["path"], "/gitlab/api/api/v4/projects/group%2Fname/echo");
    world.stop().await;
}

#[tokio::test]
async fn a_502_is_no_token_leak_and_names_the_provider() {
    let world = World::start().await;
    let handle = world.connected("quickbooks", "alice").await;
    let tokens = world.simulator.issued_values();
    let World { simulator, sidekey, client, files } = world;
    simulator.stop().await;
    let url = format!("http://{}/quickbooks/v3/company/0/companyinfo/0", files.egress);
    let answer = send(client.get(url).bearer_auth(&handle)).await;
    assert_eq!((answer.status, answer.json()["type"].as_str()), (502, Some("urn:sidekey:error:provider-unreachable")));
    assert_eq!(answer.json()["detail"], "The connection to quickbooks failed before it answered.");
    assert!(LeakSearch::new(tokens.access_tokens).find(&answer.body).is_empty());
    sidekey.stop().await;
}

#[tokio::test]
async fn answers_of_the_provider_pass_with_their_status_and_body() {
    let world = World::start().await;
    let handle = world.connected("github", "alice").await;
    for status in [200, 201, 204, 304, 400, 404, 409, 422, 429, 500, 503] {
        assert_eq!(world.call(&handle, &format!("/github/status/{status}")).await.status, status);
    }
    let metrics = world.metrics().await;
    for line in [
        "sidekey_api_requests_total{outcome=\"ok\",provider=\"github\"} 4",
        "sidekey_api_requests_total{outcome=\"client_error\",provider=\"github\"} 5",
        "sidekey_api_requests_total{outcome=\"server_error\",provider=\"github\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    world.stop().await;
}
