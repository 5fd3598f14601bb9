//! When a user is not asked again: only where it is certain who the client is, and only for what was approved before.

use crate::front::{Front, Place, REDIRECT_URI, decision, parameter, registration};
use crate::front_support::{REPORTING, REPORTS, Special, at_a_standstill, change_configuration, restarted, start};

/// A client document, as the operator keeps copies of them.
fn pinned(home: &std::path::Path, name: &str, redirect_uri: &str) -> String {
    let client_id = format!("https://{name}.example/client.json");
    let document = serde_json::json!({
        "client_id": client_id, "client_name": name, "redirect_uris": [redirect_uri],
        "token_endpoint_auth_method": "none",
    });
    std::fs::write(home.join(format!("{name}.json")), document.to_string()).expect("written");
    client_id
}

/// Whether the user is asked.
async fn is_asked(visitor: &mut crate::front_support::Visitor, url: &str) -> bool {
    match visitor.open(url).await {
        Place::Page(_, page) => {
            assert!(page.status == 200 && page.text().contains("value=\"approve\""), "{}", page.text());
            true
        }
        Place::Away(back) => {
            assert!(parameter(&back, "code").is_some(), "{back}");
            false
        }
    }
}

#[tokio::test]
async fn a_client_that_is_certain_to_be_itself_is_approved_once() {
    let home = tempfile::tempdir().expect("a directory");
    let site = pinned(home.path(), "site", "https://site.example/cb");
    let issuer = format!("[issuer.client_documents]\npinned = \"{}\"\n", home.path().display());
    let front = start(Special { issuer, tables: REPORTING.to_owned(), ..Special::default() }).await;
    let mut visitor = front.visitor("alice");
    let of_site = front.authorize_url(&site, &[("redirect_uri", "https://site.example/cb")]);
    for url in [front.reporting(&[]), of_site] {
        assert!(visitor.approve(&url, &["github"]).await.away().contains("code="));
        let answer = visitor.get(&url).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        let back = answer.header("location");
        assert!(parameter(back, "code").is_some() && parameter(back, "iss").is_some(), "{back}");
        assert_eq!(parameter(back, "state").as_deref(), Some("the state"));
    }
    // What was approved is approved for this user only.
    let mut other = front.visitor("bob");
    other.sign_in().await.page();
    assert!(is_asked(&mut other, &front.reporting(&[])).await);
    assert!(is_asked(&mut front.visitor("alice"), &front.reporting(&[])).await, "a browser that nobody signed in to");
    front.stop().await;
}

#[tokio::test]
async fn a_client_that_anybody_could_claim_to_be_is_approved_every_time() {
    let home = tempfile::tempdir().expect("a directory");
    let program = pinned(home.path(), "program", "http://127.0.0.1/callback");
    let issuer = format!("[issuer.client_documents]\npinned = \"{}\"\n", home.path().display());
    let local = format!("[clients.local]\nname = \"Local\"\nredirect_uris = [\"{REDIRECT_URI}\"]\n");
    let private =
        "[clients.private]\nname = \"P\"\nredirect_uris = [\"cursor://anysphere.cursor-mcp/oauth/callback\"]\n";
    let front = start(Special { issuer, tables: format!("{local}{private}"), ..Special::default() }).await;
    let on_loopback = front.register("On loopback").await;
    let mut on_the_web = registration("On the web");
    on_the_web["redirect_uris"] = serde_json::json!(["https://self.example/cb"]);
    let on_the_web =
        front.post_json("/register", &on_the_web).await.json()["client_id"].as_str().expect("one").to_owned();
    let mut visitor = front.visitor("alice");
    for (client, redirect_uri) in [
        (on_loopback.as_str(), REDIRECT_URI),
        (&on_the_web, "https://self.example/cb"),
        ("local", REDIRECT_URI),
        ("private", "cursor://anysphere.cursor-mcp/oauth/callback"),
        (&program, REDIRECT_URI),
    ] {
        let url = front.authorize_url(client, &[("redirect_uri", redirect_uri)]);
        for _ in 0..2 {
            assert!(visitor.approve(&url, &[]).await.away().contains("code="), "{client}");
        }
        let silent = front.authorize_url(client, &[("redirect_uri", redirect_uri), ("prompt", "none")]);
        let answer = visitor.get(&silent).await;
        let error = parameter(answer.header("location"), "error");
        assert_eq!(error.as_deref(), Some("interaction_required"), "{client}: {}", answer.text());
    }
    front.stop().await;
}

#[tokio::test]
async fn a_silent_request_is_never_answered_with_a_page() {
    let front = start(Special { tables: REPORTING.to_owned(), ..Special::default() }).await;
    let silent = front.reporting(&[("prompt", "none")]);
    let attackers = front.register("Free games").await;
    let attackers = front.authorize_url(&attackers, &[("prompt", "none")]);
    let mut visitor = front.visitor("alice");
    let outcome = async |visitor: &mut crate::front_support::Visitor, url: &str| {
        let answer = visitor.get(url).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        let back = answer.header("location").to_owned();
        assert_eq!(parameter(&back, "state").as_deref(), Some("the state"), "{back}");
        assert_eq!(parameter(&back, "iss"), Some(front.world.public("")), "{back}");
        (parameter(&back, "error"), parameter(&back, "code").is_some())
    };
    let refused = |error: &str| (Some(error.to_owned()), false);
    assert_eq!(outcome(&mut visitor, &silent).await, refused("login_required"));
    visitor.sign_in().await.page();
    assert_eq!(outcome(&mut visitor, &silent).await, refused("interaction_required"));
    visitor.approve(&front.reporting(&[]), &["github"]).await.away();
    assert_eq!(outcome(&mut visitor, &silent).await, (None, true));
    assert_eq!(outcome(&mut visitor, &attackers).await, refused("interaction_required"), "of another client");
    let both = front.reporting(&[("prompt", "none consent")]);
    assert_eq!(outcome(&mut visitor, &both).await, refused("invalid_request"));
    let mut other = front.visitor("bob");
    other.sign_in().await.page();
    assert_eq!(outcome(&mut other, &silent).await, refused("interaction_required"), "of another user");
    front.stop().await;
}

#[tokio::test]
async fn a_client_can_have_the_user_asked_again() {
    let front = start(Special { tables: REPORTING.to_owned(), ..Special::default() }).await;
    let mut visitor = front.visitor("alice");
    visitor.approve(&front.reporting(&[]), &["github"]).await.away();
    assert!(!is_asked(&mut visitor, &front.reporting(&[])).await);
    let page = visitor.consent(&front.reporting(&[("prompt", "consent")])).await;
    assert!(page.text().contains("You are signed in as <strong>alice</strong>."), "{}", page.text());
    for prompt in ["login", "select_account", "consent login"] {
        let page = visitor.consent(&front.reporting(&[("prompt", prompt)])).await;
        assert!(page.text().contains("You will sign in with Notion next."), "{prompt}: {}", page.text());
    }
    front.stop().await;
}

#[tokio::test]
async fn having_to_sign_in_again_means_that_the_provider_is_asked() {
    let front = start(Special { tables: REPORTING.to_owned(), ..Special::default() }).await;
    let mut visitor = front.visitor("alice");
    visitor.approve(&front.reporting(&[]), &[]).await.away();
    assert_eq!(front.sign_ins("notion"), 1);
    "bob".clone_into(&mut visitor.user);
    let page = visitor.consent(&front.reporting(&[("prompt", "login")])).await;
    let url = front.world.public("/authorize");
    let back = visitor.submit(&url, &decision(&page, "approve", &[])).await;
    let Place::Away(back) = back else { panic!("{back:?}") };
    assert_eq!(front.sign_ins("notion"), 2);
    let code = parameter(&back, "code").expect("a code");
    assert_eq!(front.redeem("reporting", &code, &[("redirect_uri", REPORTS)]).await.status, 200);
    assert_eq!(front.grants().await[0]["account"], "bob");
    front.stop().await;
}

#[tokio::test]
async fn what_was_not_approved_before_is_asked_for() {
    let other = "[clients.reporting]\nname = \"Reporting\"\n\
         redirect_uris = [\"https://reports.example/cb\", \"https://reports.example/other\"]\n";
    let second = "[servers.second]\nupstream = \"http://127.0.0.1:9/mcp\"\n";
    let front = start(Special {
        server: "optional_scopes = [\"notes:read\", \"notes:write\"]\n",
        tables: format!("{other}{second}"),
        ..Special::default()
    })
    .await;
    let mut visitor = front.visitor("alice");
    let first = front.reporting(&[("scope", "mcp notes:read")]);
    visitor.approve(&first, &[]).await.away();
    assert!(is_asked(&mut visitor, &first).await, "about the account that was left out, too");
    visitor.approve(&first, &["github"]).await.away();
    for (changes, asked) in [
        (vec![("scope", "mcp notes:read")], false),
        (vec![("scope", "mcp")], false),
        (vec![], false),
        (vec![("scope", "mcp notes:write")], true),
        (vec![("scope", "mcp notes:read notes:write")], true),
        (vec![("redirect_uri", "https://reports.example/other")], true),
        (vec![("resource", front.world.public("/second/mcp").leak() as &str)], true),
    ] {
        assert_eq!(is_asked(&mut visitor, &front.reporting(&changes)).await, asked, "{changes:?}");
    }
    front.stop().await;
}

#[tokio::test]
async fn a_server_that_has_come_to_need_more_asks_again() {
    let front = start(Special { tables: REPORTING.to_owned(), ..Special::default() }).await;
    let mut visitor = front.visitor("alice");
    visitor.approve(&front.reporting(&[]), &[]).await.away();
    let front = restarted(front, |files| {
        change_configuration(files, "required = [\"notion\"]", "required = [\"notion\", \"github\"]");
    })
    .await;
    visitor.client = front.world.client.clone();
    assert!(is_asked(&mut visitor, &front.reporting(&[])).await);
    let silent = visitor.get(&front.reporting(&[("prompt", "none")])).await;
    assert_eq!(parameter(silent.header("location"), "error").as_deref(), Some("interaction_required"));
    front.stop().await;
}

#[tokio::test]
async fn a_client_that_has_another_name_is_asked_about_again() {
    let front = start(Special { tables: REPORTING.to_owned(), ..Special::default() }).await;
    let mut visitor = front.visitor("alice");
    visitor.approve(&front.reporting(&[]), &[]).await.away();
    let front = restarted(front, |files| change_configuration(files, "\"Reporting\"", "\"Reporting and more\"")).await;
    visitor.client = front.world.client.clone();
    let page = visitor.consent(&front.reporting(&[])).await;
    assert!(page.text().contains("<dd>Reporting and more</dd>"), "{}", page.text());
    front.stop().await;
}

#[tokio::test]
async fn a_client_that_was_revoked_is_asked_about_again() {
    let front = start(Special { tables: REPORTING.to_owned(), ..Special::default() }).await;
    let mut visitor = front.visitor("alice");
    let back = visitor.approve(&front.reporting(&[]), &[]).await.away();
    let code = parameter(&back, "code").expect("a code");
    assert_eq!(front.redeem("reporting", &code, &[("redirect_uri", REPORTS)]).await.status, 200);
    let id = front.grants().await[0]["id"].as_str().expect("an id").to_owned();
    let revoked = visitor.post(&front.world.public(&format!("/account/grants/{id}/revoke")), &[]).await;
    assert_eq!((revoked.status, revoked.header("location")), (303, "/account"));
    assert!(is_asked(&mut visitor, &front.reporting(&[])).await);
    front.stop().await;
}

#[tokio::test]
async fn what_was_approved_is_connected_again_but_not_silently() {
    let server = "providers = [\"notion\", \"gitlab\"]\nrequired = [\"notion\"]\n";
    let (front, clock) = at_a_standstill(Special { server, tables: REPORTING.to_owned(), ..Special::default() }).await;
    let mut visitor = front.visitor("alice");
    visitor.approve(&front.reporting(&[]), &["gitlab"]).await.away();
    front.die("gitlab", &clock).await;
    let silent = visitor.get(&front.reporting(&[("prompt", "none")])).await;
    assert_eq!(parameter(silent.header("location"), "error").as_deref(), Some("interaction_required"));
    let asked = front.sign_ins("gitlab");
    let back = visitor.open(&front.reporting(&[])).await.away();
    assert!(parameter(&back, "code").is_some(), "{back}");
    assert_eq!(front.sign_ins("gitlab"), asked + 1, "the provider was needed, the approval was not");
    front.stop().await;
}

#[tokio::test]
async fn nobody_is_redirected_for_a_request_that_is_no_good() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    visitor.sign_in().await.page();
    let changes = [("prompt", "none"), ("redirect_uri", "https://evil.example/cb")];
    let answer = visitor.get(&front.authorize_url(&client_id, &changes)).await;
    assert_eq!((answer.status, answer.header("location")), (400, ""), "{}", answer.text());
    front.stop().await;
}
