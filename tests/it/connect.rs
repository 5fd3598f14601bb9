//! Journey J1, and everything that may go wrong in it.

use std::sync::Arc;
use std::time::Duration;

use sidekey::base::clock::{ManualClock, SystemClock};
use sidekey::base::digest::SigningKey;
use sidekey::base::secret::Secret;
use sidekey_simulator::{Endpoint, Fault, FaultKind, Profile, Settings};

use crate::client::{Answer, send};
use crate::world::{Setup, World, now};

fn assert_refused(answer: &Answer, status: u16, title: &str, what: &str) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert!(text.contains(&format!("<h1>{title}</h1><p>{what}")), "{text}");
}

/// A query with one parameter changed or removed.
fn changed(url: &str, name: &str, value: Option<&str>) -> String {
    let mut url = url::Url::parse(url).expect("a URL");
    let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().filter(|(key, _)| key != name).collect();
    pairs.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    url.query_pairs_mut().clear().extend_pairs(pairs);
    url.into()
}

#[tokio::test]
async fn a_subject_connects_and_the_company_is_remembered() {
    let world = World::start().await;
    let link = world.link("quickbooks", "alice").await;
    let page = send(world.client.get(&link)).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("<dd>alice</dd>") && page.text().contains("Continue to QuickBooks Online"));
    assert_eq!(send(world.client.get(&link)).await.status, 200, "looking consumes nothing");
    let begun = send(world.client.post(&link)).await;
    assert_eq!(begun.status, 303);
    assert_refused(&send(world.client.post(&link)).await, 404, "This link is over", "It was used already");
    let cookie = begun.header("set-cookie").to_owned();
    assert!(cookie.ends_with("; Path=/; Max-Age=900; HttpOnly; SameSite=Lax"), "{cookie}");
    let provider = url::Url::parse(begun.header("location")).expect("a URL");
    let asked: std::collections::BTreeMap<_, _> = provider.query_pairs().into_owned().collect();
    assert_eq!(asked["redirect_uri"], world.public("/callback/quickbooks"));
    assert_eq!((asked["response_type"].as_str(), asked["code_challenge_method"].as_str()), ("code", "S256"));
    assert_eq!(asked["scope"], "com.intuit.quickbooks.accounting");
    let (callback, _) = world.callback_url(&(provider.to_string(), String::new())).await;
    let done = world.callback(&callback, cookie.split(';').next().expect("a pair")).await;
    assert_eq!((done.status, done.header("location")), (303, "/connected/quickbooks"));
    let result = send(world.client.get(world.public("/connected/quickbooks"))).await;
    assert!(result.status == 200 && result.text().contains("QuickBooks Online is connected"));
    let connections = world.connections("alice").await;
    assert_eq!(connections.len(), 1);
    assert_eq!((&connections[0]["state"], &connections[0]["generation"]), (&"active".into(), &1.into()));
    assert_eq!(connections[0]["captured"]["realm_id"], "9341453172058817");
    assert_eq!(world.simulator.ledger().profile("quickbooks").counters.code_exchanges_ok, 1);
    world.stop().await;
}

#[tokio::test]
async fn every_bundled_simulated_provider_connects() {
    let world = World::start().await;
    for provider in ["quickbooks", "github", "gitlab", "notion"] {
        world.connect(provider, "alice").await;
    }
    assert_eq!(world.connections("alice").await.len(), 4);
    world.stop().await;
}

#[tokio::test]
async fn pages_load_nothing_from_elsewhere_and_cannot_be_framed() {
    let world = World::start().await;
    let link = world.link("quickbooks", "alice").await;
    for url in [
        link.clone(),
        world.public("/connected/quickbooks"),
        world.public("/nowhere"),
        world.public("/callback/quickbooks"),
    ] {
        let page = send(world.client.get(&url)).await;
        let policy = page.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; style-src 'self'; base-uri 'none'; form-action "),
            "{url}: {policy}"
        );
        assert!(policy.ends_with("frame-ancestors 'none'"), "{url}: {policy}");
        assert_eq!(page.header("x-frame-options"), "DENY");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert!(!page.text().contains("<script") && !page.text().contains("://"), "{}", page.text());
    }
    let policy = send(world.client.get(&link)).await.header("content-security-policy").to_owned();
    let provider = world.simulator.url();
    assert!(policy.contains(&format!("form-action 'self' https: {provider};")), "{policy}");
    let style = send(world.client.get(world.public("/assets/sidekey.css"))).await;
    assert_eq!((style.status, style.header("content-type")), (200, "text/css; charset=utf-8"));
    world.stop().await;
}

#[tokio::test]
async fn another_site_cannot_begin_a_dance() {
    let world = World::start().await;
    let link = world.link("quickbooks", "alice").await;
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("origin", "null")] {
        let answer = send(world.client.post(&link).header(name, value)).await;
        assert_refused(&answer, 403, "Not from here", "This request came from another site.");
    }
    let origin = world.public("");
    assert_eq!(send(world.client.post(&link).header("origin", origin)).await.status, 303, "the link is still good");
    world.stop().await;
}

#[tokio::test]
async fn malformed_callbacks_are_400_and_reflect_nothing() {
    let world = World::start().await;
    let begun = world.begin("quickbooks", "alice").await;
    let (good, cookie) = world.callback_url(&begun).await;
    let long = "A".repeat(60_000);
    let (state, code) = ("`state` is missing", "both `code` and `error` are missing");
    let twice = "a parameter is there twice";
    for (url, why) in [
        (world.public("/callback/quickbooks"), state),
        (changed(&good, "state", None), state),
        (changed(&good, "state", Some("")), state),
        (changed(&good, "code", None), code),
        (format!("{good}&code=again"), twice),
        (format!("{good}&state=again"), twice),
        (changed(&good, "state", Some(&long)), "a parameter is too long"),
        (world.public("/callback/quickbooks?error=access_denied"), state),
    ] {
        let answer = world.callback(&url, &cookie).await;
        assert_refused(&answer, 400, "Not a sign-in", &format!("The address is incomplete: {why}."));
    }
    for state in ["forged", "%ff%fe", "<script>alert(1)</script>", "AAAA"] {
        let url = world.public(&format!("/callback/quickbooks?code=x&state={state}"));
        let answer = world.callback(&url, &cookie).await;
        assert_refused(&answer, 400, "Not our sign-in", "This sign-in was not begun here.");
        assert!(!answer.text().contains("script>"));
    }
    for method in [reqwest::Method::POST, reqwest::Method::HEAD, reqwest::Method::PUT] {
        assert_eq!(send(world.client.request(method, &good).header("cookie", &cookie)).await.status, 400);
    }
    assert_eq!(send(world.client.get(world.public("/callback/nobody?code=a&state=b"))).await.status, 404);
    assert_eq!(world.simulator.ledger().profile("quickbooks").counters.code_exchanges, 0);
    assert_eq!(world.callback(&good, &cookie).await.status, 303, "none of it used up the flow");
    world.stop().await;
}

#[tokio::test]
async fn a_callback_in_another_browser_is_refused_and_burns_the_state() {
    let world = World::start().await;
    let (good, cookie) = world.callback_url(&world.begin("quickbooks", "alice").await).await;
    let (_, other_cookie) = world.begin("quickbooks", "mallory").await;
    let answer = world.callback(&good, &other_cookie).await;
    assert_refused(&answer, 400, "Another browser", "This sign-in was begun in another browser");
    let answer = world.callback(&good, &cookie).await;
    assert_refused(&answer, 400, "Already done", "This sign-in came back once before");
    assert!(world.connections("alice").await.is_empty());
    assert_eq!(world.simulator.ledger().profile("quickbooks").counters.code_exchanges, 0);
    world.stop().await;
}

#[tokio::test]
async fn a_callback_at_another_providers_path_is_refused() {
    let world = World::start().await;
    let (good, cookie) = world.callback_url(&world.begin("quickbooks", "alice").await).await;
    let answer = world.callback(&good.replace("/callback/quickbooks", "/callback/github"), &cookie).await;
    assert_refused(&answer, 400, "Another provider", "This sign-in belongs to another provider.");
    assert_eq!(world.simulator.ledger().profile("github").counters.code_exchanges, 0, "the code went nowhere");
    world.stop().await;
}

#[tokio::test]
async fn a_company_that_is_missing_or_odd_is_refused() {
    let world = World::start().await;
    for (realm, what) in [
        (None, "is missing"),
        (Some(""), "is missing"),
        (Some("123"), "looks wrong"),
        (Some("9341453172058817x"), "looks wrong"),
        (Some("../../admin"), "looks wrong"),
        (Some("9341453172058817\r\nx: y"), "looks wrong"),
    ] {
        let (good, cookie) = world.callback_url(&world.begin("quickbooks", "alice").await).await;
        let answer = world.callback(&changed(&good, "realmId", realm), &cookie).await;
        assert_refused(
            &answer,
            400,
            "Incomplete answer",
            &format!("The parameter realmId in QuickBooks Online's answer {what}."),
        );
    }
    assert!(world.connections("alice").await.is_empty());
    assert_eq!(world.simulator.ledger().profile("quickbooks").counters.code_exchanges, 0);
    world.stop().await;
}

#[tokio::test]
async fn a_user_who_does_not_agree_is_told_so() {
    let world = World::start().await;
    world.simulator.set("quickbooks", |settings| settings.deny_with = Some("access_denied".to_owned()));
    let (denied, cookie) = world.callback_url(&world.begin("quickbooks", "alice").await).await;
    let answer = world.callback(&denied, &cookie).await;
    assert_refused(
        &answer,
        400,
        "Not allowed",
        "QuickBooks Online reports that access was not granted (access_denied).",
    );
    // What is no code is not shown.
    let (denied, cookie) = world.callback_url(&world.begin("quickbooks", "alice").await).await;
    let hostile =
        changed(&changed(&denied, "error", Some("<svg onload=x>")), "error_description", Some("<svg onload=y>"));
    let answer = world.callback(&hostile, &cookie).await;
    assert_refused(&answer, 400, "Not allowed", "QuickBooks Online reports that access was not granted.");
    assert!(!answer.text().contains("svg"));
    world.stop().await;
}

#[tokio::test]
async fn the_issuer_is_checked_when_it_is_sent_and_required_where_declared() {
    let authorize = vec![
        ("github", "issuer = 'https://github.example'"),
        ("gitlab", "issuer = 'https://gitlab.example'\nissuer_required = true"),
    ];
    let world = World::with(Setup { authorize, ..Setup::default() }, Arc::new(SystemClock)).await;
    let wrong = "The answer does not come from";
    for (provider, issuer, status) in [
        ("github", Some("https://github.example"), 303),
        ("github", Some("https://evil.example"), 400),
        ("github", None, 303),
        ("gitlab", Some("https://gitlab.example"), 303),
        ("gitlab", None, 400),
    ] {
        let (good, cookie) = world.callback_url(&world.begin(provider, "alice").await).await;
        let answer = world.callback(&changed(&good, "iss", issuer), &cookie).await;
        assert_eq!(answer.status, status, "{provider} {issuer:?}: {}", answer.text());
        if status == 400 {
            assert_refused(&answer, 400, "Another issuer", wrong);
        }
    }
    world.stop().await;
}

/// A callback, signed as the entry in the next test says.
fn signed(url: &str, secret: &str) -> String {
    let mut pairs: Vec<(String, String)> =
        url::Url::parse(url).expect("a URL").query_pairs().into_owned().filter(|(name, _)| name != "hmac").collect();
    pairs.sort();
    let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let signature = SigningKey::shared(&Secret::new(secret)).sign(text.as_bytes());
    changed(url, "hmac", Some(&data_encoding::HEXLOWER.encode(&signature)))
}

#[tokio::test]
async fn an_answer_that_is_not_signed_or_for_another_shop_is_refused_where_declared() {
    let more = "expected = { shop = 'acme.example' }\ncallback_signature = { parameter = 'hmac' }";
    let setup = Setup { authorize: vec![("github", more)], ..Setup::default() };
    let world = World::with(setup, Arc::new(SystemClock)).await;
    let secret = Settings::of(Profile::Github).client_secret;
    let not_signed = (400, "Not signed", "The answer does not bear the signature of GitHub; it was not used.");
    let other = (400, "Another answer", "The parameter shop in GitHub's answer is not what was asked for.");
    let acme = |good: &str| changed(good, "shop", Some("acme.example"));
    type Change<'c> = &'c dyn Fn(&str) -> String;
    let cases: [(Change<'_>, _); 6] = [
        (&|good| acme(good), not_signed),
        (&|good| signed(&acme(good), "another secret"), not_signed),
        (&|good| changed(&signed(&acme(good), &secret), "shop", Some("evil.example")), not_signed),
        (&|good| changed(&signed(&acme(good), &secret), "added", Some("1")), not_signed),
        (&|good| signed(&changed(good, "shop", Some("evil.example")), &secret), other),
        (&|good| signed(good, &secret), other),
    ];
    for (change, (status, title, what)) in cases {
        let (good, cookie) = world.callback_url(&world.begin("github", "alice").await).await;
        assert_refused(&world.callback(&change(&good), &cookie).await, status, title, what);
    }
    assert_eq!(world.simulator.ledger().profile("github").counters.code_exchanges, 0, "no code was used");
    let (good, cookie) = world.callback_url(&world.begin("github", "alice").await).await;
    assert_eq!(world.callback(&signed(&acme(&good), &secret), &cookie).await.status, 303);
    world.stop().await;
}

#[tokio::test]
async fn a_sign_in_takes_ten_minutes_at_most() {
    let clock = ManualClock::at(now());
    let world = World::with(Setup::default(), Arc::new(clock.clone())).await;
    let link = world.link("quickbooks", "alice").await;
    let (good, cookie) = world.callback_url(&world.begin("quickbooks", "alice").await).await;
    clock.advance(Duration::from_secs(601));
    assert_refused(&send(world.client.get(&link)).await, 404, "This link is over", "It was used already, it is older");
    assert_refused(&send(world.client.post(&link)).await, 404, "This link is over", "It was used already, it is older");
    let answer = world.callback(&good, &cookie).await;
    assert_refused(&answer, 400, "Too late", "This sign-in was begun more than ten minutes ago.");
    world.stop().await;
}

#[tokio::test]
async fn of_many_identical_callbacks_one_exchanges_the_code() {
    let world = World::start().await;
    let (good, cookie) = world.callback_url(&world.begin("quickbooks", "alice").await).await;
    let callbacks = (0..20).map(|_| world.callback(&good, &cookie));
    let mut statuses: Vec<_> =
        futures_util::future::join_all(callbacks).await.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!((statuses[0], statuses[1], statuses.len()), (303, 400, 20), "{statuses:?}");
    assert_eq!(world.simulator.ledger().profile("quickbooks").counters.code_exchanges, 1);
    world.stop().await;
}

#[tokio::test]
async fn dances_at_the_same_time_do_not_disturb_each_other() {
    let world = World::start().await;
    let mut flows = Vec::new();
    for subject in ["a", "b", "c", "d", "e"] {
        flows.push(world.begin("quickbooks", subject).await);
    }
    let all_cookies = flows.iter().map(|(_, cookie)| cookie.as_str()).collect::<Vec<_>>().join("; ");
    for flow in flows.iter().rev() {
        let (callback, _) = world.callback_url(flow).await;
        assert_eq!(world.callback(&callback, &all_cookies).await.status, 303);
    }
    for subject in ["a", "b", "c", "d", "e"] {
        assert_eq!(world.connections(subject).await.len(), 1, "{subject}");
    }
    world.stop().await;
}

#[tokio::test]
async fn what_the_provider_says_of_the_code_decides_the_status() {
    let world = World::start().await;
    let fault = |error: &str, status| {
        let kind = FaultKind::Error { error: error.to_owned(), description: None, status: Some(status) };
        Fault::new("quickbooks", Endpoint::Code, kind).nth(1)
    };
    let unavailable =
        FaultKind::Status { status: 503, body: None, content_type: None, headers: std::collections::BTreeMap::new() };
    for (fault, status, title, what) in [
        (
            fault("invalid_grant", 400),
            400,
            "Not accepted",
            "QuickBooks Online did not accept its own code: HTTP 400 with error invalid_grant.",
        ),
        (
            fault("invalid_client", 401),
            502,
            "Registration refused",
            "QuickBooks Online does not accept Sidekey's registration: HTTP 401 with error invalid_client.",
        ),
        (
            Fault::new("quickbooks", Endpoint::Code, unavailable).nth(1),
            502,
            "No answer",
            "QuickBooks Online could not complete the sign-in: HTTP 503.",
        ),
        (
            Fault::new("quickbooks", Endpoint::Code, FaultKind::CommitThenReset).nth(1),
            502,
            "No answer",
            "QuickBooks Online could not complete the sign-in: no complete reply",
        ),
    ] {
        world.simulator.add_fault(fault);
        let (good, cookie) = world.callback_url(&world.begin("quickbooks", "alice").await).await;
        assert_refused(&world.callback(&good, &cookie).await, status, title, what);
        world.simulator.clear_faults();
    }
    assert!(world.connections("alice").await.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn reconnecting_supersedes() {
    let world = World::start().await;
    let handle = world.connected("quickbooks", "alice").await;
    world.connect("quickbooks", "alice").await;
    assert_eq!(world.connections("alice").await.len(), 1);
    assert_eq!(world.simulator.ledger().profile("quickbooks").counters.code_exchanges, 2);
    assert_eq!(world.call(&handle, "/quickbooks/v3/company/0/companyinfo/0").await.status, 200);
    world.stop().await;
}

/// What came with the connection to this provider.
fn captured_of<'c>(connections: &'c [serde_json::Value], provider: &str) -> &'c serde_json::Value {
    let found = connections.iter().find(|connection| connection["provider"] == provider);
    &found.expect("connected")["captured"]
}

#[tokio::test]
async fn a_connection_is_not_replaced_by_one_for_another_company() {
    let world = World::start().await;
    // The company stands in the callback of one provider, and in the token reply of the other.
    for (provider, name, path, exchanges) in [
        ("quickbooks", "realm_id", "/quickbooks/v3/company/0/companyinfo/0", 1),
        ("notion", "workspace_id", "/notion/v1/users/me", 2),
    ] {
        let handle = world.connected(provider, "alice").await;
        let before = world.connections("alice").await;
        let held = captured_of(&before, provider)[name].as_str().expect("captured").to_owned();
        world.simulator.set(provider, |settings| settings.realm_id = "1111111111111".to_owned());
        let callback = world.callback_url(&world.begin(provider, "alice").await).await;
        let refused = world.callback(&callback.0, &callback.1).await;
        let what = format!(
            "answers for another {name} (1111111111111) than the one that is connected ({held}). \
             The connection was left as it is: disconnect it first if the other one is meant."
        );
        assert_eq!(refused.status, 409, "{}", refused.text());
        assert!(refused.text().contains("<h1>Not the one that is connected</h1>"), "{}", refused.text());
        assert!(refused.text().contains(&what), "{}", refused.text());
        assert_eq!(world.simulator.ledger().profile(provider).counters.code_exchanges, exchanges, "{provider}");
        assert_eq!(world.connections("alice").await, before);
        assert_eq!(world.call(&handle, path).await.status, 200, "{provider}: the old one serves");
        // Another subject may have the other company, and so may the same one once the old connection has ended.
        world.connect(provider, "bob").await;
        let body = serde_json::json!({ "provider": provider, "subject": "alice" });
        assert_eq!(world.admin("POST", "/v1/disconnect", &body.to_string()).await.status, 200);
        world.connect(provider, "alice").await;
        assert_eq!(captured_of(&world.connections("alice").await, provider)[name], "1111111111111");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_company_that_was_written_into_the_address_changes_nothing() {
    let world = World::start().await;
    world.connect("quickbooks", "alice").await;
    let good = world.callback_url(&world.begin("quickbooks", "alice").await).await;
    let tampered = changed(&good.0, "realmId", Some("1111111111111"));
    assert_eq!(world.callback(&tampered, &good.1).await.status, 409, "whoever wrote it there");
    assert_eq!(world.callback(&good.0, &good.1).await.status, 400, "the state is used up");
    assert_eq!(world.connections("alice").await[0]["captured"]["realm_id"], "9341453172058817");
    world.stop().await;
}

#[tokio::test]
async fn a_foreign_host_cannot_reach_the_pages() {
    let world = World::start().await;
    let answer = send(world.client.get(world.public("/connected/quickbooks")).header("host", "evil.example")).await;
    assert_eq!((answer.status, answer.json()["type"].as_str()), (403, Some("urn:sidekey:error:foreign-host")));
    world.stop().await;
}

#[tokio::test]
async fn the_public_listener_shows_no_other_plane() {
    let world = World::start().await;
    for path in ["/metrics", "/livez", "/readyz", "/v1/status", "/v1/handles", "/"] {
        assert_eq!(send(world.client.get(world.public(path))).await.status, 404, "{path}");
    }
    let large = vec![b'a'; 70_000];
    let answer = send(world.client.post(world.public("/connect/x")).body(large)).await;
    assert_eq!((answer.status, answer.json()["type"].as_str()), (413, Some("urn:sidekey:error:body-too-large")));
    world.stop().await;
}
