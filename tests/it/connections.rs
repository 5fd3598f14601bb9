//! The page of connections: on the user's own page, in a visit, and where a one-time link has led. Each refusal with its exact
//! status and what it says.

use std::sync::Arc;
use std::time::Duration;

use sidekey::base::clock::SystemClock;

use crate::client::{Answer, send};
use crate::front::{Front, parameter};
use crate::front_support::{
    Special, Visitor, assert_notice, assert_page, at_a_standstill, cards, change_configuration, on, restarted, start,
};
use crate::world::{Setup, World};

/// GitLab with a second and a third API, of which the server uses the first two.
async fn with_several_apis() -> Front {
    let api = |name: &str| {
        format!(
            "[apis.{name}]\norigin = \"https://gitlab.example\"\npaths = [\"/{name}/\"]\nscopes = [\"write_{name}\"]\n"
        )
    };
    let server =
        "providers = [\"notion\", \"gitlab\"]\nrequired = [\"notion\"]\napis = { gitlab = [\"gitlab\", \"wiki\"] }\n";
    let entries = vec![("gitlab", format!("{}{}", api("wiki"), api("snippets")))];
    let enabled = "[providers.gitlab]\napis = [\"gitlab\", \"wiki\", \"snippets\"]\n";
    // The enabled APIs come with the second start: the server may not name them before.
    let front = start(Special {
        server: "providers = [\"notion\", \"gitlab\"]\nrequired = [\"notion\"]\n",
        entries,
        ..Special::default()
    })
    .await;
    restarted(front, |files| {
        change_configuration(files, "[providers.gitlab]\n", enabled);
        change_configuration(files, "providers = [\"notion\", \"gitlab\"]\nrequired = [\"notion\"]\n", server);
    })
    .await
}

async fn signed_in(front: &Front, user: &str) -> Visitor {
    let mut visitor = front.visitor(user);
    visitor.sign_in().await.page();
    visitor
}

fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Begins to connect on the user's own page: where the provider is asked.
async fn asked_at(front: &Front, visitor: &mut Visitor, provider: &str) -> String {
    let url = front.world.public(&format!("/account/connect/{provider}"));
    visitor.submit_until(&url, &[], &front.world.simulator.url()).await.away()
}

fn scopes(url: &str) -> Vec<String> {
    parameter(url, "scope").unwrap_or_default().split(' ').map(str::to_owned).collect()
}

/// The same address with other scopes, as where a user unticks some.
fn with_scopes(url: &str, scopes: &[&str]) -> String {
    let mut url = url::Url::parse(url).expect("a URL");
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().filter(|(name, _)| name != "scope").collect();
    url.query_pairs_mut().clear().extend_pairs(pairs).append_pair("scope", &scopes.join(" "));
    url.into()
}

#[tokio::test]
async fn what_the_server_names_is_asked_for_and_its_chips_say_what_became_of_it() {
    let front = with_several_apis().await;
    let mut visitor = signed_in(&front, "alice").await;
    let [gitlab, _] = cards_of(&visitor.account().await);
    assert!(gitlab.contains("Not connected") && gitlab.contains("<span>Wiki</span>"), "{gitlab}");
    assert!(!gitlab.contains("Snippets") && !gitlab.contains("allowed"), "{gitlab}");
    let asked = asked_at(&front, &mut visitor, "gitlab").await;
    assert_eq!(scopes(&asked), ["read_api", "read_user", "read_repository", "write_wiki"], "never those of all APIs");
    visitor.open(&with_scopes(&asked, &["read_api", "read_user", "read_repository"])).await.page();
    let [gitlab, _] = cards_of(&visitor.account().await);
    assert!(chip(&gitlab, "Wiki").contains("left out by you"), "{gitlab}");
    assert!(chip(&gitlab, "GitLab").contains("allowed"), "{gitlab}");
    front.stop().await;
}

#[tokio::test]
async fn what_a_server_comes_to_need_is_missing_until_it_is_asked_for() {
    let front = with_several_apis().await;
    let mut visitor = signed_in(&front, "alice").await;
    let asked = asked_at(&front, &mut visitor, "gitlab").await;
    visitor.open(&asked).await.page();
    let from = "gitlab = [\"gitlab\", \"wiki\"]";
    let front =
        restarted(front, |files| change_configuration(files, from, "gitlab = [\"gitlab\", \"snippets\"]")).await;
    let [gitlab, _] = cards_of(&visitor.account().await);
    assert!(chip(&gitlab, "Snippets").contains("not asked for yet"), "{gitlab}");
    assert!(gitlab.contains("More is needed than you were asked for before. Connect again to add it."), "{gitlab}");
    // A visit asks for it before it goes on, and what was granted before stays.
    let client_id = front.register("A client").await;
    let provider = format!("{}/gitlab/authorize", front.world.simulator.url());
    let asked = visitor.approve_until(&front.authorize_url(&client_id, &[]), &["gitlab"], &provider).await.away();
    let wanted = ["read_api", "read_user", "read_repository", "write_snippets", "write_wiki"];
    assert_eq!(scopes(&asked), wanted);
    let back = visitor.open(&asked).await.away();
    assert!(parameter(&back, "code").is_some(), "{back}");
    let [gitlab, _] = cards_of(&visitor.account().await);
    assert!(chip(&gitlab, "Snippets").contains("allowed"), "{gitlab}");
    front.stop().await;
}

#[tokio::test]
async fn what_was_unticked_does_not_hold_up_a_visit() {
    let front = with_several_apis().await;
    let mut visitor = signed_in(&front, "alice").await;
    let asked = asked_at(&front, &mut visitor, "gitlab").await;
    visitor.open(&with_scopes(&asked, &["read_api", "read_user", "read_repository"])).await.page();
    let client_id = front.register("A client").await;
    let back = visitor.approve(&front.authorize_url(&client_id, &[]), &["gitlab"]).await.away();
    assert!(parameter(&back, "code").is_some(), "{back}");
    front.stop().await;
}

#[tokio::test]
async fn an_administrator_who_must_agree_first_is_told_apart() {
    let entries =
        ["notion", "gitlab"].map(|name| (name, "[errors]\nadmin_consent = [\"consent_required\"]\n".to_owned()));
    let server = "providers = [\"notion\", \"gitlab\"]\nrequired = [\"notion\"]\n";
    let front = start(Special { server, entries: entries.to_vec(), ..Special::default() }).await;
    let mut visitor = signed_in(&front, "alice").await;
    front.world.simulator.set("gitlab", |settings| settings.deny_with = Some("consent_required".to_owned()));
    let url = front.world.public("/account/connect/gitlab");
    let (at, page) = visitor.submit(&url, &[]).await.page();
    assert_eq!(at, front.world.public("/account"));
    let what = "GitLab wants an administrator of your organization to agree first (consent_required). \
                Ask the administrator to approve this app there, then connect again.";
    assert_notice(&page, "An administrator must agree", what);
    assert!(!visitor.account().await.text().contains("role=\"alert\""), "it is said once");
    front.world.simulator.set("notion", |settings| settings.deny_with = Some("consent_required".to_owned()));
    let client_id = front.register("A client").await;
    let mut other = front.visitor("bob");
    let (_, page) = other.approve(&front.authorize_url(&client_id, &[]), &[]).await.page();
    assert_notice(&page, "That did not work.", &what.replace("GitLab", "Notion"));
    front.stop().await;
}

#[tokio::test]
async fn another_company_is_told_on_the_page_and_can_stand_beside_the_first() {
    let server = "providers = [\"notion\", \"quickbooks\"]\nrequired = [\"notion\"]\n";
    let front = start(Special { server, ..Special::default() }).await;
    let mut visitor = signed_in(&front, "alice").await;
    let url = front.world.public("/account/connect/quickbooks");
    let (_, page) = visitor.submit(&url, &[]).await.page();
    assert!(
        page.text().contains("role=\"status\"") && page.text().contains("QuickBooks Online is connected."),
        "{}",
        page.text()
    );
    front.world.simulator.set("quickbooks", |settings| settings.realm_id = "1111111111111".to_owned());
    let (_, page) = visitor.submit(&url, &[]).await.page();
    let what = "QuickBooks Online answers for another realm_id (1111111111111) than the one that is connected \
                (9341453172058817). The connection was left as it is: disconnect it first if the other one is meant. \
                That is done on your account page, or by the operator.";
    assert_notice(&page, "Not the one that is connected", what);
    let (_, page) = visitor.submit(&url, &fields(&[("label", "branch"), ("new", "yes")])).await.page();
    let [_, quickbooks] = cards_of(&page);
    assert!(quickbooks.contains("<p class=\"label\">branch</p>"), "{quickbooks}");
    assert!(quickbooks.contains("Connected as <strong>9341453172058817</strong>"), "{quickbooks}");
    assert!(quickbooks.contains("Connected as <strong>1111111111111</strong>"), "{quickbooks}");
    let (_, page) = visitor.submit(&url, &fields(&[("label", "branch"), ("new", "yes")])).await.page();
    assert_notice(
        &page,
        "This name is taken.",
        "You have an account called branch there already. Choose another name.",
    );
    let (_, page) = visitor.submit(&url, &fields(&[("label", "no such / name"), ("new", "yes")])).await.page();
    assert_notice(&page, "Not a name for an account.", "It must have 1 to 40 of the characters");
    // Each ends by itself.
    let disconnect = front.world.public("/account/disconnect/quickbooks");
    let asked = visitor.get(&format!("{disconnect}?label=branch")).await;
    assert!(
        asked.text().contains("<h1>Disconnect QuickBooks Online?</h1>") && asked.text().contains(" (branch)"),
        "{}",
        asked.text()
    );
    // A form that was shown about another connection, or about none, ends nothing.
    for shown in [&[("label", "branch")][..], &[("label", "branch"), ("connection", "c_other")]] {
        assert_eq!(visitor.post(&disconnect, &fields(shown)).await.status, 404, "{shown:?}");
    }
    let shown = Visitor::shown_connection(&asked);
    let meant = [fields(&[("label", "branch")]), vec![shown.clone()]].concat();
    let doubled = [fields(&[("label", "branch"), ("label", "zzz")]), vec![shown]].concat();
    assert_eq!(visitor.post(&disconnect, &doubled).await.status, 404, "which of the two is meant?");
    let (_, page) = visitor.submit(&disconnect, &meant).await.page();
    assert!(
        page.text().contains("QuickBooks Online is disconnected.") && !page.text().contains("1111111111111"),
        "{}",
        page.text()
    );
    assert!(page.text().contains("9341453172058817"), "the other one is there");
    assert_eq!(visitor.get(&format!("{disconnect}?label=branch")).await.status, 404, "there is none to ask about");
    front.stop().await;
}

#[tokio::test]
async fn who_comes_back_late_to_the_own_page_is_told_so_there() {
    let server = "providers = [\"notion\", \"github\"]\nrequired = [\"notion\"]\n";
    let (front, clock) = at_a_standstill(Special { server, ..Special::default() }).await;
    let mut visitor = signed_in(&front, "alice").await;
    let late = |minutes: u64| Duration::from_secs(minutes * 60);
    let connect = front.world.public("/account/connect/github");
    let callback = visitor.submit_until(&connect, &[], &front.world.public("/callback/")).await.away();
    clock.advance(late(11));
    let (at, page) = visitor.open(&callback).await.page();
    assert_eq!(at, front.world.public("/account"));
    assert_notice(&page, "Too late", "This sign-in was begun more than ten minutes ago. You can try it again here.");
    let callback = visitor.submit_until(&connect, &[], &front.world.public("/callback/")).await.away();
    clock.advance(late(15));
    assert_page(&visitor.get(&callback).await, 400, "Too late", "This sign-in was begun more than ten minutes ago.");
    front.stop().await;
}

#[tokio::test]
async fn steps_are_for_who_is_signed_in_and_for_forms_of_ours() {
    let front = Front::start().await;
    let mut stranger = front.visitor("mallory");
    for path in ["/account", "/account/connect/github", "/account/disconnect/github", "/account/choose/github"] {
        let answer = stranger.get(&front.world.public(path)).await;
        assert_page(&answer, 200, "Your account", "Sign in to see which accounts are connected");
        assert!(answer.text().contains("Sign in with Notion"), "{path}: {}", answer.text());
    }
    for path in ["/connected/github/choose", "/connected/notion/choose"] {
        let answer = stranger.get(&front.world.public(path)).await;
        assert_page(
            &answer,
            403,
            "This link is over",
            "It was used more than fifteen minutes ago, or in another browser.",
        );
    }
    let over = stranger.post(&front.world.public("/connected/github/again"), &[]).await;
    assert_page(&over, 403, "This link is over", "It was used more than fifteen minutes ago, or in another browser.");
    let mut visitor = signed_in(&front, "alice").await;
    for path in [
        "/account/connect/github",
        "/account/disconnect/github",
        "/account/choose/github",
        "/connected/github/again",
        "/connected/github/choose",
    ] {
        for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
            let request = front.world.client.post(front.world.public(path)).header(name, value);
            let answer = visitor.fetch(request).await;
            assert_page(&answer, 403, "Not from here", "This request came from another site.");
        }
    }
    for path in ["/account/choose/github", "/account/disconnect/github", "/account/disconnect/notion?label=%2f"] {
        let answer = visitor.get(&front.world.public(path)).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
    }
    let nothing = visitor.get(&front.world.public("/account/choose/notion")).await;
    assert_page(&nothing, 404, "Nothing to choose", "A connection to Notion is for the whole account.");
    front.stop().await;
}

#[tokio::test]
async fn what_a_page_says_cannot_be_put_into_its_mouth() {
    let front = Front::start().await;
    let mut visitor = signed_in(&front, "alice").await;
    for forged in ["eyJub3RpY2UiOnt9fQ.AAAA", "junk", "."] {
        visitor.cookies.insert("sidekey_notice".to_owned(), forged.to_owned());
        let text = visitor.account().await.text();
        assert!(
            text.contains("signed in as") && !text.contains("role=\"alert\"") && !text.contains("role=\"status\""),
            "{text}"
        );
    }
    front.stop().await;
}

#[tokio::test]
async fn a_browser_that_used_up_a_link_may_go_on_for_a_quarter_of_an_hour() {
    let clock = sidekey::base::clock::ManualClock::at(crate::world::now());
    let world = World::with(Setup::default(), Arc::new(clock.clone())).await;
    world.simulator.set("notion", |settings| settings.deny_with = Some("access_denied".to_owned()));
    let link = world.link("notion", "org-42").await;
    let begun = send(world.client.post(&link)).await;
    let cookies: Vec<String> = begun.headers.get_all("set-cookie").iter().map(pair).collect();
    let flow = (begun.header("location").to_owned(), String::new());
    let callback = world.callback_url(&flow).await.0;
    let denied = world.callback(&callback, &cookies.join("; ")).await;
    let text = denied.text();
    assert_eq!(denied.status, 400, "{text}");
    assert!(
        text.contains("<h1>Not allowed</h1><p>Notion reports that access was not granted (access_denied).</p>"),
        "{text}"
    );
    assert!(text.contains("<form method=\"post\" action=\"/connected/notion/again\">"), "{text}");
    world.simulator.set("notion", |settings| settings.deny_with = None);
    let again = |cookies: String| world.client.post(world.public("/connected/notion/again")).header("cookie", cookies);
    let page = send(again(cookies.join("; "))).await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.text().contains("On to Notion"), "{}", page.text());
    let other =
        send(world.client.post(world.public("/connected/github/again")).header("cookie", cookies.join("; "))).await;
    assert_page(&other, 403, "This link is over", "It was used more than fifteen minutes ago, or in another browser.");
    // What is made meanwhile prolongs nothing.
    clock.advance(Duration::from_secs(500));
    let page = send(again(cookies.join("; "))).await;
    let mut later: Vec<String> = page.headers.get_all("set-cookie").iter().map(pair).collect();
    let text = page.text();
    let url =
        text.split("href=\"").skip(1).find(|rest| rest.contains("state=")).and_then(|rest| rest.split('"').next());
    let url = url.expect("a way to the provider").replace("&amp;", "&");
    let callback = world.callback_url(&(url, String::new())).await.0;
    let made = world.callback(&callback, &later.join("; ")).await;
    assert_eq!(made.header("location"), "/connected/notion", "{}", made.text());
    later = made.headers.get_all("set-cookie").iter().map(pair).collect();
    assert_eq!(send(again(later.join("; "))).await.status, 200);
    clock.advance(Duration::from_secs(400));
    let over = send(again(later.join("; "))).await;
    assert_page(&over, 403, "This link is over", "It was used more than fifteen minutes ago, or in another browser.");
    let over = send(again(cookies.join("; "))).await;
    assert_page(&over, 403, "This link is over", "It was used more than fifteen minutes ago, or in another browser.");
    world.stop().await;
}

#[tokio::test]
async fn signing_in_takes_nothing_away_from_what_was_granted() {
    let simulator = sidekey_simulator::start(sidekey_simulator::Options::default()).await.expect("a simulator");
    let entry = format!(
        "\n[userinfo]\nurl = \"{}/gitlab/userinfo\"\n[apis.wiki]\norigin = \"https://gitlab.example\"\n\
         paths = [\"/wiki/\"]\nscopes = [\"write_wiki\"]\n",
        simulator.url()
    );
    let server = "providers = [\"gitlab\"]\nrequired = [\"gitlab\"]\n";
    let special = Special { identity: Some("gitlab"), server, entries: vec![("gitlab", entry)], ..Special::default() };
    let front = on(simulator, special, Arc::new(SystemClock)).await;
    let enabled = "[providers.gitlab]\napis = [\"gitlab\", \"wiki\"]\n";
    let front = restarted(front, |files| change_configuration(files, "[providers.gitlab]\n", enabled)).await;
    signed_in(&front, "alice").await;
    let before = front.connections().await;
    assert!(before[0]["scopes"].to_string().contains("write_wiki"), "{before:?}");
    let from = "required = [\"gitlab\"]\n";
    let to = format!("{from}apis = {{ gitlab = [\"gitlab\"] }}\n");
    let front = restarted(front, |files| change_configuration(files, from, &to)).await;
    let mut visitor = signed_in(&front, "alice").await;
    assert!(visitor.account().await.text().contains("You are signed in as"));
    let after = front.connections().await;
    assert_eq!(after[0]["connected_at"], before[0]["connected_at"], "another browser, and fewer scopes asked for");
    assert_eq!((after.len(), &after[0]["scopes"]), (1, &before[0]["scopes"]));
    front.stop().await;
}

#[tokio::test]
async fn the_operators_name_picture_and_colour_are_served_by_us() {
    let front = start(Special {
        tables: "[portal]\nname = \"Example Corp\"\naccent = \"#0b5d3b\"\n".to_owned(),
        ..Special::default()
    })
    .await;
    let mut visitor = front.visitor("alice");
    let page = visitor.account().await;
    assert!(
        page.text().contains("<title>Your account · Example Corp</title>") && !page.text().contains("Sidekey"),
        "{}",
        page.text()
    );
    assert!(!page.text().contains("<img") && !page.header("content-security-policy").contains("img-src"));
    let style = visitor.get(&front.world.public("/assets/sidekey.css")).await.text();
    assert!(style.contains(":root { --accent: #0b5d3b; --on-accent: #ffffff; }"), "{style}");
    assert_page(
        &visitor.get(&front.world.public("/assets/logo")).await,
        404,
        "Nothing here",
        "There is no page at this address.",
    );
    let svg = "<svg xmlns=\"http://www.w3.org/2000/svg\"></svg>";
    let front = restarted(front, |files| {
        std::fs::write(files.home.path().join("logo.svg"), svg).expect("written");
        change_configuration(files, "[portal]\n", "[portal]\nlogo = \"logo.svg\"\n");
    })
    .await;
    let page = visitor.account().await;
    assert!(page.text().contains("<img src=\"/assets/logo\" alt=\"\""), "{}", page.text());
    assert_eq!(page.headers.get_all("content-security-policy").iter().count(), 1, "several would all have to allow it");
    assert!(page.header("content-security-policy").contains("style-src 'self'; img-src 'self';"));
    let logo = visitor.get(&front.world.public("/assets/logo")).await;
    assert_eq!((logo.status, logo.text().as_str(), logo.header("content-type")), (200, svg, "image/svg+xml"));
    assert_eq!(logo.header("x-content-type-options"), "nosniff");
    assert_eq!(logo.header("content-security-policy"), "default-src 'none'; style-src 'unsafe-inline'; sandbox");
    front.stop().await;
}

/// A link is good for connecting, and for nothing that was there before.
#[tokio::test]
async fn a_link_neither_shows_nor_changes_what_is_connected_already() {
    let world = World::start().await;
    world.connect("notion", "org-42").await;
    let link = world.link("notion", "org-42").await;
    let begun = send(world.client.post(&link)).await;
    let cookies: Vec<String> = begun.headers.get_all("set-cookie").iter().map(pair).collect();
    let page = world.client.get(world.public("/connected/notion")).header("cookie", cookies.join("; "));
    let page = send(page).await.text();
    assert!(!page.contains("Connected") && !page.contains("Disconnect"), "{page}");
    for request in [
        world.client.get(world.public("/connected/notion/choose")),
        world.client.post(world.public("/connected/notion/choose")),
    ] {
        let answer = send(request.header("cookie", cookies.join("; "))).await;
        let over = "It was used more than fifteen minutes ago, or in another browser.";
        assert_page(&answer, 403, "This link is over", over);
    }
    // Once it has connected, the same browser sees what it has made.
    let flow = (begun.header("location").to_owned(), String::new());
    let done = world.callback(&world.callback_url(&flow).await.0, &cookies.join("; ")).await;
    assert_eq!(done.status, 303, "{}", done.text());
    let ticket = done.headers.get_all("set-cookie").iter().map(pair).find(|cookie| cookie.contains("sidekey_link"));
    let page = world.client.get(world.public("/connected/notion")).header("cookie", ticket.clone().expect("a ticket"));
    let page = send(page).await.text();
    assert!(page.contains("<h1>Notion is connected</h1>") && page.contains("Connected as"), "{page}");
    // And no longer than it is there.
    world.connect("notion", "org-42").await;
    let page = world.client.get(world.public("/connected/notion")).header("cookie", ticket.expect("a ticket"));
    assert!(!send(page).await.text().contains("Connected as"));
    world.stop().await;
}

#[tokio::test]
async fn who_only_looks_has_nothing_done_where_a_link_has_led() {
    let world = World::start().await;
    for path in ["/connected/notion", "/connected/notion/choose"] {
        let answer = send(world.client.head(world.public(path))).await;
        assert_eq!(answer.status, 405, "{path}");
    }
    world.stop().await;
}

/// Two people share a browser: what the first began is not stored under the first while the second is signed in.
#[tokio::test]
async fn what_one_user_began_is_not_ended_under_another() {
    let server = "providers = [\"notion\", \"github\"]\nrequired = [\"notion\"]\n";
    let front = start(Special { server, ..Special::default() }).await;
    let mut visitor = signed_in(&front, "alice").await;
    let connect = front.world.public("/account/connect/github");
    let callback = visitor.submit_until(&connect, &[], &front.world.public("/callback/")).await.away();
    visitor.post(&front.world.public("/account/sign-out"), &[]).await;
    visitor.user = "bob".to_owned();
    visitor.sign_in().await.page();
    let (at, page) = visitor.open(&callback).await.page();
    assert_eq!(at, front.world.public("/account"));
    assert_notice(&page, "Another browser", "This sign-in was begun in another browser, or cookies were removed");
    let connections = front.connections().await;
    assert!(connections.iter().all(|connection| connection["provider"] != "github"), "{connections:?}");
    front.stop().await;
}

fn pair(cookie: &http::HeaderValue) -> String {
    cookie.to_str().expect("text").split(';').next().expect("a pair").to_owned()
}

fn cards_of<const COUNT: usize>(page: &Answer) -> [String; COUNT] {
    let text = page.text();
    cards::<COUNT>(&text).map(str::to_owned)
}

/// One chip of a card.
fn chip<'c>(card: &'c str, name: &str) -> &'c str {
    let found = card.split("<li class=\"chip").find(|chip| chip.contains(&format!("<span>{name}</span>")));
    found.unwrap_or_else(|| panic!("no chip {name}: {card}"))
}
