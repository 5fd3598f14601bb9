//! The cookies of a visit, behind something that does TLS.

use crate::client::{form, send};
use crate::front::{Place, decision, own_path, parameter};
use crate::front_support::{Special, assert_page, start};

const NAMED: &str = "https://sidekey.example";

async fn behind_tls() -> (crate::front::Front, crate::front_support::Visitor) {
    let front = start(Special { top: "public_url = \"https://sidekey.example\"", ..Special::default() }).await;
    let mut visitor = front.visitor("alice");
    NAMED.clone_into(&mut visitor.named);
    (front, visitor)
}

#[tokio::test]
async fn every_cookie_is_bound_to_the_host() {
    let (front, mut visitor) = behind_tls().await;
    let client_id = front.register("A client").await;
    let request = front.authorize_url(&client_id, &[("resource", "https://sidekey.example/notes/mcp")]);
    let back = visitor.approve(&request, &["github"]).await.away();
    assert!(parameter(&back, "code").is_some(), "{back}");
    assert_eq!(parameter(&back, "iss").as_deref(), Some(NAMED));
    let mut kinds: Vec<&str> = Vec::new();
    for cookie in &visitor.set {
        let (name, attributes) = cookie.split_once('=').expect("a pair");
        let (_, attributes) = attributes.split_once("; ").expect("attributes");
        let words: Vec<&str> = attributes.split("; ").filter(|word| !word.starts_with("Max-Age=")).collect();
        assert_eq!(words, ["Path=/", "HttpOnly", "SameSite=Lax", "Secure"], "{cookie}");
        let kind = name.strip_prefix("__Host-sidekey_").unwrap_or_else(|| panic!("{cookie}"));
        kinds.push(kind.split('_').next().expect("one"));
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["consent", "flow", "session", "visit"]);
    let sent: Vec<String> = visitor.cookies.keys().filter(|name| name.contains("_flow_")).cloned().collect();
    assert!(sent.is_empty(), "flow cookies are removed once they are of no use: {sent:?}");
    front.stop().await;
}

#[tokio::test]
async fn a_cookie_without_the_prefix_is_not_ours() {
    let (front, mut visitor) = behind_tls().await;
    let client_id = front.register("A client").await;
    let request = front.authorize_url(&client_id, &[("resource", "https://sidekey.example/notes/mcp")]);
    let page = visitor.consent(&request).await;
    let bare = |visitor: &crate::front_support::Visitor| {
        let pairs =
            visitor.cookies.iter().map(|(name, value)| format!("{}={value}", name.trim_start_matches("__Host-")));
        pairs.collect::<Vec<_>>().join("; ")
    };
    let url = own_path(&request, "/authorize");
    let planted = form(front.world.client.post(&url), &decision(&page, "approve", &["notion"]));
    let answer = send(planted.header("cookie", bare(&visitor))).await;
    assert_page(&answer, 403, "Another browser", "The form belongs to another browser");
    visitor.sign_in().await.page();
    let account = send(front.world.client.get(own_path(&request, "/account")).header("cookie", bare(&visitor))).await;
    assert!(account.text().contains("Sign in with Notion") && !account.text().contains("alice"), "{}", account.text());
    assert!(visitor.account().await.text().contains("<strong>alice</strong>"));
    front.stop().await;
}

#[tokio::test]
async fn addresses_come_from_the_configuration_and_not_from_the_request() {
    let (front, mut visitor) = behind_tls().await;
    let provider = format!("{}/notion/authorize", front.world.simulator.url());
    let url = front.world.public("/account/sign-in");
    let request = form(front.world.client.post(&url), &[] as &[(&str, &str)]);
    let request = request.header("host", "evil.example").header("x-forwarded-host", "evil.example");
    let answer =
        visitor.fetch(request.header("forwarded", "host=evil.example").header("x-forwarded-proto", "http")).await;
    let led = visitor.next(&url, &answer).expect("it leads on");
    assert!(led.starts_with(&provider), "{led}");
    assert_eq!(parameter(&led, "redirect_uri").as_deref(), Some("https://sidekey.example/callback/notion"));
    assert!(!led.contains("evil") && !answer.text().contains("evil"), "{led}");
    match visitor.open(&led).await {
        Place::Page(_, account) => assert!(account.text().contains("<strong>alice</strong>"), "{}", account.text()),
        Place::Away(url) => panic!("{url}"),
    }
    front.stop().await;
}
