//! Who the user is: one account at one provider, however it says so, and nothing else.

use std::sync::Arc;

use sidekey::base::clock::{ManualClock, SystemClock};
use sidekey_simulator::{IdTokenAlg, IdTokenTamper, Options};

use crate::front::{Front, parameter};
use crate::front_support::{Special, assert_notice, on, restarted_at};
use crate::world::now;

const INTUIT: &str = "https://oauth.platform.intuit.com/op/v1";

/// A front whose users are who QuickBooks' ID tokens say.
async fn by_id_token() -> Front {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    simulator.set("quickbooks", |settings| settings.issuer = Some(INTUIT.to_owned()));
    let keys = format!("\n[identity]\njwks_url = \"{}/quickbooks/jwks.json\"\n", simulator.url());
    let special = Special {
        identity: Some("quickbooks"),
        server: "providers = [\"quickbooks\", \"github\"]\nrequired = [\"quickbooks\"]\n",
        entries: vec![("quickbooks", keys)],
        ..Special::default()
    };
    on(simulator, special, Arc::new(SystemClock)).await
}

/// A front whose users are who GitLab says when it is asked with their token.
async fn by_userinfo(path: &str) -> Front {
    let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
    let userinfo = format!("\n[userinfo]\nurl = \"{}{path}\"\ndisplay_name = \"/name\"\n", simulator.url());
    let special = Special {
        identity: Some("gitlab"),
        server: "providers = [\"gitlab\", \"github\"]\nrequired = [\"gitlab\"]\n",
        entries: vec![("gitlab", userinfo)],
        ..Special::default()
    };
    on(simulator, special, Arc::new(SystemClock)).await
}

/// The subject of a user who comes with a new browser and a new client.
async fn subject(front: &Front, user: &str) -> String {
    front.authorized_with(user, &[], &[]).await;
    front.newest_subject().await
}

#[tokio::test]
async fn the_same_account_is_the_same_subject_and_another_account_another() {
    for front in [Front::start().await, by_id_token().await, by_userinfo("/gitlab/userinfo").await] {
        let alice = subject(&front, "alice").await;
        assert!(alice.starts_with("user:") && alice.len() == 31, "{alice}");
        let bob = subject(&front, "bob").await;
        assert_ne!(alice, bob);
        assert_eq!(subject(&front, "alice").await, alice, "in another browser, for another client");
        assert_eq!(subject(&front, "bob").await, bob);
        let mut accounts: Vec<String> =
            front.grants().await.iter().map(|grant| grant["account"].as_str().expect("a name").to_owned()).collect();
        accounts.dedup();
        assert!(accounts[0].starts_with("alice") && accounts[1].starts_with("bob"), "{accounts:?}");
        assert_eq!(front.connections().await.len(), 2, "one connection for each");
        front.stop().await;
    }
}

/// Nobody is identified by a token that is not good, and the same user is by one that is.
async fn refuses_what_is_not_good(alg: IdTokenAlg) {
    let front = by_id_token().await;
    front.world.simulator.set("quickbooks", |settings| settings.id_token_alg = alg);
    for tamper in [
        IdTokenTamper::WrongAud,
        IdTokenTamper::WrongIss,
        IdTokenTamper::WrongNonce,
        IdTokenTamper::Expired,
        IdTokenTamper::AlgNone,
        IdTokenTamper::Hs256WithPublicKey,
        IdTokenTamper::OtherKey,
        IdTokenTamper::Missing,
    ] {
        front.world.simulator.set("quickbooks", |settings| settings.id_token_tamper = tamper);
        let mut visitor = front.visitor("alice");
        let (_, page) = visitor.sign_in().await.page();
        assert_notice(&page, "Nobody identified", "QuickBooks Online did not say who you are: ");
        assert!(!visitor.cookies.contains_key("sidekey_session"), "{tamper:?}: {:?}", visitor.cookies);
        assert!(front.connections().await.is_empty(), "{tamper:?}");
    }
    front.world.simulator.set("quickbooks", |settings| settings.id_token_tamper = IdTokenTamper::None);
    let (_, page) = front.visitor("alice").sign_in().await.page();
    assert!(page.text().contains("<strong>alice@example.test</strong>"), "{}", page.text());
    assert_eq!(front.connections().await.len(), 1);
    front.stop().await;
}

#[tokio::test]
async fn an_id_token_signed_with_rsa_must_be_good() {
    refuses_what_is_not_good(IdTokenAlg::Rs256).await;
}

#[tokio::test]
async fn an_id_token_signed_with_an_elliptic_curve_must_be_good() {
    refuses_what_is_not_good(IdTokenAlg::Es256).await;
}

#[tokio::test]
async fn in_a_visit_nobody_identified_is_told_inline_and_no_code_is_made() {
    let front = by_id_token().await;
    front.world.simulator.set("quickbooks", |settings| settings.id_token_tamper = IdTokenTamper::WrongNonce);
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    let (url, page) = visitor.approve(&front.authorize_url(&client_id, &[]), &[]).await.page();
    let notice = "QuickBooks Online did not say who you are: the ID token's `nonce` is missing or wrong.";
    let text = page.text();
    assert!(page.status == 200 && text.contains(notice), "{text}");
    assert!(front.connections().await.is_empty() && front.grants().await.is_empty());
    front.world.simulator.set("quickbooks", |settings| settings.id_token_tamper = IdTokenTamper::None);
    let back = visitor.open(&format!("{url}/connect/quickbooks")).await.away();
    assert!(parameter(&back, "code").is_some(), "{back}");
    front.stop().await;
}

#[tokio::test]
async fn an_id_token_of_another_sign_in_identifies_nobody() {
    // The nonce of one flow does not do for another: what an attacker got for himself is worth nothing elsewhere.
    let front = by_id_token().await;
    let provider = format!("{}/quickbooks/authorize", front.world.simulator.url());
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let mut visitor = front.visitor("alice");
        let url = front.world.public("/account/sign-in");
        let answer = visitor.post(&url, &[]).await;
        let led = visitor.next(&url, &answer).expect("it leads on");
        assert!(led.starts_with(&provider), "{led}");
        nonces.push(parameter(&led, "nonce").expect("a nonce"));
        let stolen = led.replace(&format!("nonce={}", nonces[nonces.len() - 1]), "nonce=another");
        assert_ne!(stolen, led);
        let (_, page) = visitor.open(&stolen).await.page();
        assert_notice(&page, "Nobody identified", "QuickBooks Online did not say who you are: ");
    }
    assert!(nonces[0] != nonces[1] && nonces.iter().all(|nonce| nonce.len() >= 43), "{nonces:?}");
    front.stop().await;
}

#[tokio::test]
async fn a_provider_that_does_not_say_who_it_is_identifies_nobody() {
    let front = by_userinfo("/gitlab/nothing").await;
    let mut visitor = front.visitor("alice");
    let (_, page) = visitor.sign_in().await.page();
    assert_notice(&page, "Nobody identified", "GitLab did not say who you are: 127.0.0.1 answered HTTP 404.");
    assert!(!visitor.cookies.contains_key("sidekey_session") && front.connections().await.is_empty());
    front.stop().await;
}

#[tokio::test]
async fn the_company_that_a_callback_names_is_nobody() {
    let front = by_id_token().await;
    // Both act for the same company.
    let [alice, bob] = [subject(&front, "alice").await, subject(&front, "bob").await];
    assert_ne!(alice, bob);
    let realms: Vec<_> =
        front.connections().await.iter().map(|connection| connection["captured"]["realm_id"].clone()).collect();
    assert_eq!(realms[0], realms[1]);
    // And a company that somebody writes into the address changes nothing about who it is.
    let mut visitor = front.visitor("bob");
    let url = front.world.public("/account/sign-in");
    let answer = visitor.post(&url, &[]).await;
    let led = visitor.next(&url, &answer).expect("it leads on");
    let callback = visitor.open_until(&led, &front.world.public("/callback/")).await.away();
    let changed = callback.replace("realmId=9341453172058817", "realmId=1111111111111111");
    assert_ne!(callback, changed);
    let (_, page) = visitor.open(&changed).await.page();
    assert_notice(&page, "Not the one that is connected", "QuickBooks Online answers for another realm_id");
    assert!(!visitor.cookies.contains_key("sidekey_session"));
    let realms_now = front.connections().await.iter().all(|connection| connection["captured"]["realm_id"] == realms[0]);
    assert!(realms_now);
    front.stop().await;
}

#[tokio::test]
async fn connecting_another_provider_signs_nobody_in_and_merges_nobody() {
    let front = Front::start().await;
    let mut subjects = Vec::new();
    // One account at GitHub, shared by two users of Notion.
    for user in ["alice", "bob"] {
        let mut visitor = front.visitor(user);
        visitor.sign_in().await.page();
        let session = visitor.cookies["sidekey_session"].clone();
        "octocat".clone_into(&mut visitor.user);
        let (_, page) = visitor.submit(&front.world.public("/account/connect/github"), &[]).await.page();
        assert!(page.text().contains(&format!("<strong>{user}</strong>")), "{}", page.text());
        assert_eq!(visitor.cookies["sidekey_session"], session);
        let client_id = front.register("A client").await;
        let back = visitor.approve(&front.authorize_url(&client_id, &[]), &["github"]).await.away();
        let code = parameter(&back, "code").expect("a code");
        assert_eq!(front.redeem(&client_id, &code, &[]).await.status, 200);
        subjects.push(front.newest_subject().await);
    }
    assert_ne!(subjects[0], subjects[1]);
    let connections = front.connections().await;
    let of = |subject: &str| connections.iter().filter(|connection| connection["subject"] == subject).count();
    assert_eq!((of(&subjects[0]), of(&subjects[1]), connections.len()), (2, 2, 4));
    front.stop().await;
}

#[tokio::test]
async fn another_account_at_the_provider_that_identifies_users_is_another_user() {
    let front = Front::start().await;
    let tokens = front.authorized("alice").await;
    let mut visitor = front.visitor("alice");
    visitor.sign_in().await.page();
    "bob".clone_into(&mut visitor.user);
    let (_, page) = visitor.submit(&front.world.public("/account/connect/notion"), &[]).await.page();
    assert!(page.text().contains("<strong>bob</strong>"), "{}", page.text());
    assert_eq!(front.whoami(&tokens.access).await.json()["body"]["name"], "alice", "alice's grant is still alice's");
    assert_eq!(front.connections().await.len(), 2);
    front.stop().await;
}

#[tokio::test]
async fn a_visit_that_has_to_sign_in_again_goes_on_for_the_same_user_only() {
    let front = by_userinfo("/gitlab/userinfo").await;
    let clock = ManualClock::at(now());
    let front = restarted_at(front, Arc::new(clock.clone())).await;
    let [first, second] = [front.register("First").await, front.register("Second").await];
    let mut visitor = front.visitor("alice");
    visitor.approve(&front.authorize_url(&first, &[]), &[]).await.away();
    front.die("gitlab", &clock).await;
    "bob".clone_into(&mut visitor.user);
    let (url, page) = visitor.approve(&front.authorize_url(&second, &[]), &[]).await.page();
    let text = page.text();
    assert!(
        page.status == 200 && text.contains("This is another account than the one that the visit was begun with."),
        "{text}"
    );
    assert!(text.contains("You are signed in as <strong>alice</strong>"), "{text}");
    let connections = front.connections().await;
    let active = connections.iter().filter(|connection| connection["state"] == "active").count();
    assert_eq!((connections.len(), active), (2, 1), "bob's account is bob's: {connections:?}");
    assert!(front.grants().await.is_empty());
    "alice".clone_into(&mut visitor.user);
    let back = visitor.open(&format!("{url}/connect/gitlab")).await.away();
    let code = parameter(&back, "code").expect("a code");
    assert_eq!(front.redeem(&second, &code, &[]).await.status, 200);
    assert_eq!(front.grants().await[0]["account"], "alice");
    front.stop().await;
}
