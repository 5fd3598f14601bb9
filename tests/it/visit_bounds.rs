//! A visit belongs to the browser that began it, for a quarter of an hour, and ends once. Nobody else's sign-in counts.

use std::time::Duration;

use crate::front::{Front, Place, parameter};
use crate::front_support::{Special, assert_page, at_a_standstill, visit_id};

#[tokio::test]
async fn a_visit_is_of_no_use_in_another_browser() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    front.world.simulator.set("notion", |settings| settings.deny_with = Some("access_denied".to_owned()));
    let (url, _) = visitor.approve(&front.authorize_url(&client_id, &[]), &[]).await.page();
    front.world.simulator.set("notion", |settings| settings.deny_with = None);
    let mut stranger = front.visitor("mallory");
    let theirs = front.register("Another client").await;
    stranger.approve(&front.authorize_url(&theirs, &[]), &[]).await.away();
    let known = stranger.cookies.clone();
    for answer in [
        stranger.get(&url).await,
        stranger.get(&format!("{url}/connect/notion")).await,
        stranger.post(&format!("{url}/finish"), &[]).await,
        stranger.post(&format!("{url}/cancel"), &[]).await,
    ] {
        assert_page(&answer, 403, "Another browser", "This visit was begun in another browser");
    }
    assert_eq!(stranger.cookies, known, "nothing was begun");
    let back = visitor.open(&format!("{url}/connect/notion")).await.away();
    assert!(parameter(&back, "code").is_some(), "it goes on where it was begun: {back}");
    front.stop().await;
}

#[tokio::test]
async fn forms_of_a_visit_come_from_its_own_pages() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    front.world.simulator.set("github", |settings| settings.deny_with = Some("access_denied".to_owned()));
    let (url, _) = visitor.approve(&front.authorize_url(&client_id, &[]), &["github"]).await.page();
    for form in ["finish", "cancel"] {
        for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("origin", "null")]
        {
            let request = front.world.client.post(format!("{url}/{form}")).header(name, value);
            let answer = visitor.fetch(request).await;
            assert_page(&answer, 403, "Not from here", "This request came from another site.");
        }
        assert_eq!(visitor.get(&format!("{url}/{form}")).await.status, 405, "nor by opening an address");
    }
    let back = visitor.submit(&format!("{url}/finish"), &[]).await.away();
    assert!(parameter(&back, "code").is_some(), "{back}");
    front.stop().await;
}

#[tokio::test]
async fn a_visit_ends_once_even_if_it_is_finished_twice_at_a_time() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    let callback = front.world.public("/callback/");
    let request = front.authorize_url(&client_id, &[]);
    let callback = visitor.approve_until(&request, &[], &callback).await.away();
    let returned = visitor.get(&callback).await;
    assert_eq!(returned.status, 303, "{}", returned.text());
    let url = front.world.public(returned.header("location"));
    let [mut first, mut second, mut third] = [visitor.clone(), visitor.clone(), visitor.clone()];
    let finish = format!("{url}/finish");
    let answers = tokio::join!(first.get(&url), second.get(&url), third.post(&finish, &[]));
    let answers = [answers.0, answers.1, answers.2];
    let codes = answers.iter().filter(|answer| answer.status == 200 && answer.text().contains("code=sk_")).count();
    let over = answers.iter().filter(|answer| answer.status == 404).count();
    assert_eq!((codes, over), (1, 2), "{answers:?}");
    assert_page(&visitor.get(&url).await, 404, "This visit is over", "It was finished already");
    front.stop().await;
}

#[tokio::test]
async fn a_visit_is_over_after_a_quarter_of_an_hour() {
    let (front, clock) = at_a_standstill(Special::default()).await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    front.world.simulator.set("notion", |settings| settings.deny_with = Some("access_denied".to_owned()));
    let (url, _) = visitor.approve(&front.authorize_url(&client_id, &[]), &[]).await.page();
    clock.advance(Duration::from_secs(899));
    assert_eq!(visitor.get(&url).await.status, 200);
    clock.advance(Duration::from_secs(1));
    for path in ["", "/connect/notion"] {
        let answer = visitor.get(&format!("{url}{path}")).await;
        assert_page(&answer, 404, "This visit is over", "It was finished already, it is older than fifteen minutes");
    }
    for id in ["0", &"0".repeat(32), &"0".repeat(5000), "..%2f..%2fauthorize"] {
        let answer = visitor.get(&front.world.public(&format!("/visit/{id}"))).await;
        assert_page(&answer, 404, "This visit is over", "It was finished already");
    }
    front.stop().await;
}

#[tokio::test]
async fn a_victim_who_signs_in_for_an_attackers_visit_gives_nothing_away() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let provider = format!("{}/notion/authorize", front.world.simulator.url());
    let mut attacker = front.visitor("mallory");
    let request = front.authorize_url(&client_id, &[]);
    let led = attacker.approve_until(&request, &[], &provider).await.away();
    // The victim uses Sidekey as well, and has approved something of her own.
    let mut victim = front.visitor("alice");
    let own = front.register("A good client").await;
    victim.approve_until(&front.authorize_url(&own, &[]), &[], &provider).await.away();
    let known = victim.cookies.clone();
    let led = led.replace("simulated_user=mallory", "simulated_user=alice");
    let callback = victim.open_until(&led, &front.world.public("/callback/")).await.away();
    let answer = victim.get(&callback).await;
    assert_page(&answer, 400, "Another browser", "This sign-in was begun in another browser");
    assert!(victim.cookies.keys().all(|name| known.contains_key(name)), "nobody is signed in: {:?}", victim.cookies);
    // The attacker knows code and state now, and has the cookies: they are used up.
    let answer = attacker.get(&callback).await;
    assert_page(&answer, 400, "Already done", "This sign-in came back once before");
    assert_eq!(front.world.simulator.ledger().profile("notion").counters.code_exchanges, 0);
    assert!(front.connections().await.is_empty() && front.grants().await.is_empty());
    assert!(!attacker.account().await.text().contains("signed in as"));
    front.stop().await;
}

#[tokio::test]
async fn a_victim_is_not_signed_in_as_the_attacker() {
    let front = Front::start().await;
    let callback = front.world.public("/callback/");
    let mut attacker = front.visitor("mallory");
    let url = front.world.public("/account/sign-in");
    let answer = attacker.post(&url, &[]).await;
    let led = attacker.next(&url, &answer).expect("it leads on");
    let led = attacker.open_until(&led, &callback).await.away();
    let mut victim = front.visitor("alice");
    victim.sign_in().await.page();
    let session = victim.cookies.clone();
    let answer = victim.get(&led).await;
    assert_page(&answer, 400, "Another browser", "This sign-in was begun in another browser");
    assert_eq!(victim.cookies, session);
    assert!(victim.account().await.text().contains("<strong>alice</strong>"));
    front.stop().await;
}

#[tokio::test]
async fn nothing_leads_to_a_provider_before_the_user_has_approved() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let provider = format!("{}/notion/authorize", front.world.simulator.url());
    let mut visitor = front.visitor("alice");
    let request = front.authorize_url(&client_id, &[]);
    let page = visitor.consent(&request).await;
    assert!(!page.text().contains(&provider), "{}", page.text());
    let names: Vec<&String> = visitor.cookies.keys().collect();
    assert!(names.len() == 1 && names[0].starts_with("sidekey_consent_"), "{names:?}");
    let mut states = Vec::new();
    for _ in 0..2 {
        let led = visitor.approve_until(&request, &[], &provider).await.away();
        states.push(parameter(&led, "state").expect("a state"));
    }
    assert!(states[0] != states[1] && states.iter().all(|state| state.len() >= 43), "{states:?}");
    let flows = visitor.cookies.keys().filter(|name| name.starts_with("sidekey_flow_")).count();
    assert_eq!(flows, 2, "each has a cookie of its own");
    assert_eq!(front.sign_ins("notion"), 0);
    front.stop().await;
}

#[tokio::test]
async fn visits_at_the_same_time_do_not_disturb_each_other() {
    let front = Front::start().await;
    let callback = front.world.public("/callback/");
    let mut visitor = front.visitor("alice");
    let mut begun = Vec::new();
    for name in ["First", "Second", "Third"] {
        let client_id = front.register(name).await;
        let request = front.authorize_url(&client_id, &[("state", name)]);
        let led = visitor.approve_until(&request, &[], &callback).await.away();
        begun.push((name, client_id, led));
    }
    let (_, _, given_up) = begun.remove(1);
    let mut visits = Vec::new();
    for (name, client_id, led) in begun.into_iter().rev() {
        let Place::Away(back) = visitor.open(&led).await else { panic!("{name}") };
        assert_eq!(parameter(&back, "state").as_deref(), Some(name));
        let code = parameter(&back, "code").expect("a code");
        assert_eq!(front.redeem(&client_id, &code, &[]).await.status, 200, "{name}");
        visits.push(name);
    }
    assert_eq!(visits, ["Third", "First"]);
    assert_eq!(front.grants().await.len(), 2);
    assert!(given_up.starts_with(&callback));
    front.stop().await;
}

#[tokio::test]
async fn a_visit_connects_only_what_was_approved() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    front.world.simulator.set("notion", |settings| settings.deny_with = Some("access_denied".to_owned()));
    let (url, _) = visitor.approve(&front.authorize_url(&client_id, &[]), &[]).await.page();
    let known = visitor.cookies.clone();
    for provider in ["github", "gitlab", "nobody", "NOTION", "..%2f..%2faccount"] {
        let answer = visitor.get(&format!("{url}/connect/{provider}")).await;
        assert_page(&answer, 404, "Nothing here", "There is no page at this address.");
    }
    assert_eq!(visitor.cookies, known, "no flow was begun");
    assert_eq!(visit_id(&url).len(), 32);
    front.stop().await;
}

#[tokio::test]
async fn looking_at_a_page_does_nothing() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    for path in [&*front.authorize_url(&client_id, &[]), &front.world.public("/account")] {
        let answer = crate::client::send(front.world.client.head(path)).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (405, ""), "{path}");
    }
    front.stop().await;
}
