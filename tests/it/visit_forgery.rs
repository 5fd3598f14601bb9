//! Whose decision about a client counts: that of the browser and the user who were shown the page, sent from that page.

use std::time::Duration;

use crate::client::{form, send};
use crate::front::{Front, decision, parameter};
use crate::front_support::{Special, assert_page, at_a_standstill};

#[tokio::test]
async fn a_decision_without_the_ticket_of_the_page_does_not_count() {
    let front = Front::start().await;
    let other = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    let page = visitor.consent(&front.authorize_url(&client_id, &[])).await;
    let good = decision(&page, "approve", &["notion"]);
    let foreign_client = other.register("A client").await;
    let foreign = other.visitor("alice").consent(&other.authorize_url(&foreign_client, &[])).await;
    let foreign = decision(&foreign, "approve", &["notion"]).remove(0).1;
    let ticket = good[0].1.clone();
    let middle = ticket.len() / 2;
    let flipped = if &ticket[middle..=middle] == "A" { "B" } else { "A" };
    let changed = format!("{}{flipped}{}", &ticket[..middle], &ticket[middle + 1..]);
    let url = front.world.public("/authorize");
    for bad in ["", "AAAA", "not base64!", &changed, &ticket[..ticket.len() - 4], &foreign] {
        let mut form = good.clone();
        bad.clone_into(&mut form[0].1);
        let answer = visitor.post(&url, &form).await;
        assert_page(&answer, 403, "Not our form", "The form was not made here, or was changed.");
    }
    let answer = visitor.post(&url, &good[1..]).await;
    assert_page(&answer, 403, "Not our form", "The form was not made here, or was changed.");
    let twice: Vec<_> = good.iter().chain(&good[..1]).cloned().collect();
    let answer = visitor.post(&url, &twice).await;
    assert_page(&answer, 403, "Not our form", "The form was not made here, or was changed.");
    assert_eq!(visitor.post(&url, &good).await.status, 303, "the genuine one is still good");
    other.stop().await;
    front.stop().await;
}

#[tokio::test]
async fn a_decision_counts_only_in_the_browser_and_for_the_client_that_it_was_shown_for() {
    let front = Front::start().await;
    let [first, second] = [front.register("First").await, front.register("Second").await];
    let url = front.world.public("/authorize");
    let mut visitor = front.visitor("alice");
    let page = visitor.consent(&front.authorize_url(&first, &[])).await;
    let of_first = visitor.cookies.clone();
    let (first_name, first_value) = of_first.iter().next().expect("a cookie");
    assert!(first_name.starts_with("sidekey_consent_"), "{first_name}");
    let mut other = front.visitor("mallory");
    let page_of_second = other.consent(&front.authorize_url(&second, &[])).await;
    let second_name = other.cookies.keys().next().expect("a cookie").clone();
    assert_ne!(*first_name, second_name, "each client has a cookie of its own");
    let (of_first_form, of_second_form) =
        (decision(&page, "approve", &["notion"]), decision(&page_of_second, "approve", &["notion"]));
    let cookies =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    for (pairs, fields, why) in [
        (cookies(&[]), &of_first_form, "no cookie"),
        (cookies(&[(&second_name, &other.cookies[&second_name])]), &of_first_form, "another client's"),
        (cookies(&[(first_name, &other.cookies[&second_name])]), &of_first_form, "another browser's"),
        (cookies(&[(first_name, first_value)]), &of_second_form, "the cookie of one client for the other"),
        (cookies(&[(&second_name, first_value)]), &of_second_form, "the same under the other's name"),
    ] {
        let request = form(front.world.client.post(&url), fields).header("cookie", pairs.join("; "));
        let answer = send(request.header("sec-fetch-site", "same-origin")).await;
        assert_page(&answer, 403, "Another browser", "The form belongs to another browser or another client");
        assert!(!answer.headers.contains_key("set-cookie"), "{why}");
    }
    assert_eq!(visitor.post(&url, &of_first_form).await.status, 303);
    front.stop().await;
}

#[tokio::test]
async fn a_page_can_be_looked_at_for_ten_minutes() {
    let (front, clock) = at_a_standstill(Special::default()).await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    let page = visitor.consent(&front.authorize_url(&client_id, &[])).await;
    let (url, form) = (front.world.public("/authorize"), decision(&page, "approve", &["notion"]));
    clock.advance(Duration::from_secs(599));
    assert_eq!(visitor.post(&url, &form).await.status, 303);
    clock.advance(Duration::from_secs(1));
    assert_page(&visitor.post(&url, &form).await, 403, "Too late", "The page was open for more than ten minutes.");
    front.stop().await;
}

#[tokio::test]
async fn a_page_that_was_shown_to_one_user_is_not_decided_by_another() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    let url = front.world.public("/authorize");
    let nobodys = visitor.consent(&front.authorize_url(&client_id, &[])).await;
    visitor.sign_in().await.page();
    let alices = visitor.consent(&front.authorize_url(&client_id, &[])).await;
    assert!(alices.text().contains("You are signed in as <strong>alice</strong>."), "{}", alices.text());
    "mallory".clone_into(&mut visitor.user);
    visitor.sign_in().await.page();
    let answer = visitor.post(&url, &decision(&alices, "approve", &["notion"])).await;
    assert_page(&answer, 403, "Another account", "Another account has signed in here meanwhile.");
    // A page that was shown to nobody names nobody: who approves it signs in with the provider once more.
    let signed_in = front.sign_ins("notion");
    let back = visitor.submit(&url, &decision(&nobodys, "approve", &["notion"])).await.away();
    assert_eq!(front.sign_ins("notion"), signed_in + 1);
    let code = parameter(&back, "code").expect("a code");
    assert_eq!(front.redeem(&client_id, &code, &[]).await.status, 200);
    assert_eq!(front.grants().await[0]["account"], "mallory");
    front.stop().await;
}

#[tokio::test]
async fn another_site_cannot_post_the_form() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    let page = visitor.consent(&front.authorize_url(&client_id, &[])).await;
    let (url, fields) = (front.world.public("/authorize"), decision(&page, "approve", &["notion"]));
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "none"),
    ] {
        let answer = visitor.fetch(form(front.world.client.post(&url), &fields).header(name, value)).await;
        assert_page(&answer, 403, "Not from here", "This request came from another site.");
        assert!(!answer.headers.contains_key("set-cookie"));
    }
    let own = form(front.world.client.post(&url), &fields).header("origin", front.world.public(""));
    assert_eq!(visitor.fetch(own).await.status, 303, "the form is still good");
    front.stop().await;
}

#[tokio::test]
async fn opening_an_address_approves_nothing() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    visitor.sign_in().await.page();
    let request = front.authorize_url(&client_id, &[]);
    let page = visitor.consent(&request).await;
    let fields = decision(&page, "approve", &["notion"]);
    let query: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
    let answer = visitor.get(&front.world.public(&format!("/authorize?{query}"))).await;
    assert_page(&answer, 400, "No client", "The request does not say which client it comes from.");
    let answer = visitor.get(&format!("{request}&{query}")).await;
    assert_eq!((answer.status, answer.header("location")), (200, ""), "it is asked again");
    assert!(answer.text().contains("value=\"approve\""));
    for method in [reqwest::Method::PUT, reqwest::Method::DELETE, reqwest::Method::PATCH] {
        let answer = visitor.fetch(form(front.world.client.request(method, &request), &fields)).await;
        assert_eq!(answer.status, 405, "{}", answer.text());
    }
    assert!(front.grants().await.is_empty());
    assert!(!visitor.cookies.keys().any(|name| name.starts_with("sidekey_visit_")), "{:?}", visitor.cookies);
    front.stop().await;
}

#[tokio::test]
async fn scripts_of_other_sites_cannot_read_pages_for_people() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    visitor.sign_in().await.page();
    let request = front.authorize_url(&client_id, &[]);
    for url in [&*request, &front.world.public("/account"), &front.world.public("/oauth/authorize")] {
        for method in [reqwest::Method::GET, reqwest::Method::OPTIONS, reqwest::Method::POST] {
            let asked = front.world.client.request(method, url).header("origin", "https://evil.example");
            let answer = visitor.fetch(asked.header("access-control-request-method", "POST")).await;
            let granted = answer.headers.keys().any(|name| name.as_str().starts_with("access-control-"));
            assert!(!granted, "{url}: {:?}", answer.headers);
            assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
        }
    }
    front.stop().await;
}
