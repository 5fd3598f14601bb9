//! The consent page: what it says, and whose decision counts.

use sidekey_simulator::{Endpoint, Fault, FaultKind};

use crate::front::{Front, REDIRECT_URI, decision, parameter, registration};
use crate::front_support::{REPORTING, Special, assert_page, start};

/// The policy of a page whose forms lead to pages of our own.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// And of one without forms.
const POLICY_WITHOUT_FORMS: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HOSTILE: &str = "\"onx='{{7*7}}<script>alert(1)</script>";

#[tokio::test]
async fn the_page_says_who_asks_for_what_and_where_it_leads() {
    let front = start(Special {
        issuer: "[issuer.scopes]\nmcp = { description = \"read and write notes\" }\n".to_owned(),
        server: "providers = [\"gitlab\", \"notion\"]\nrequired = [\"notion\"]\n",
        ..Special::default()
    })
    .await;
    let client_id = front.register("Notes for Claude").await;
    let page = front.visitor("alice").consent(&front.authorize_url(&client_id, &[])).await;
    let text = page.text();
    for shown in [
        "<h1>Allow Notes for Claude to use notes?</h1>",
        "<dt>Client</dt><dd>Notes for Claude</dd>",
        "<dd class=\"warning\">nobody: this client registered itself under this name</dd>",
        "<dt>Sends you back to</dt><dd>127.0.0.1:33418</dd>",
        "<p class=\"warning\">It leads to a program on this computer. Any program here could claim to be this client.</p>",
        "<code>mcp</code>: read and write notes",
        "<strong>Notion</strong> (required)",
        "<strong>GitLab</strong><br><small>read_api, read_user, read_repository</small>",
        "You will sign in with Notion next.",
    ] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    assert!(!text.contains("other_account"), "nobody is signed in");
    assert!(!text.contains("<script"), "{text}");
    front.stop().await;
}

#[tokio::test]
async fn a_client_that_the_operator_knows_comes_without_warnings() {
    let front = start(Special { tables: REPORTING.to_owned(), ..Special::default() }).await;
    let page = front.visitor("alice").consent(&front.reporting(&[])).await;
    let text = page.text();
    assert!(text.contains("<dt>Vouched for by</dt><dd>the operator of this Sidekey</dd>"), "{text}");
    assert!(text.contains("<dt>Sends you back to</dt><dd>reports.example</dd>"), "{text}");
    assert!(!text.contains("warning"), "{text}");
    front.stop().await;
}

#[tokio::test]
async fn the_page_has_one_form_and_it_leads_to_us() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let page = front.visitor("alice").consent(&front.authorize_url(&client_id, &[])).await;
    let text = page.text();
    assert_eq!(text.matches("<form").count(), 1, "{text}");
    assert!(text.contains("<form method=\"post\" action=\"/authorize\">"), "{text}");
    assert!(!text.contains("formaction") && !text.contains("http-equiv"), "{text}");
    assert!(text.contains("<input type=\"hidden\" name=\"provider\" value=\"notion\">"), "required: {text}");
    assert!(text.contains("<input type=\"checkbox\" checked disabled>"), "required: {text}");
    assert!(text.contains("<input type=\"checkbox\" name=\"provider\" value=\"github\" checked>"), "{text}");
    front.stop().await;
}

#[tokio::test]
async fn pages_cannot_be_framed_nor_led_elsewhere() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    let consent = visitor.consent(&front.authorize_url(&client_id, &[])).await;
    let leaving = visitor.post(&front.world.public("/authorize"), &decision(&consent, "deny", &[])).await;
    let account = visitor.account().await;
    let bad = visitor.get(&front.world.public("/authorize?client_id=nobody")).await;
    let pages = [
        (&consent, 200, POLICY),
        (&leaving, 200, POLICY_WITHOUT_FORMS),
        (&account, 200, POLICY),
        (&bad, 400, POLICY_WITHOUT_FORMS),
    ];
    for (page, status, policy) in pages {
        assert_eq!(page.status, status, "{}", page.text());
        assert_eq!(page.header("content-security-policy"), policy);
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(page.header(name), value, "{name}");
        }
        for name in ["content-security-policy", "x-frame-options"] {
            assert_eq!(page.headers.get_all(name).iter().count(), 1, "{name}");
        }
        assert!(!page.headers.contains_key("access-control-allow-origin"), "no page is for scripts of other sites");
    }
    front.stop().await;
}

#[tokio::test]
async fn denying_is_told_to_the_client_from_a_page_of_ours() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    let page = visitor.consent(&front.authorize_url(&client_id, &[])).await;
    let url = front.world.public("/authorize");
    let answer = visitor.post(&url, &decision(&page, "deny", &["notion"])).await;
    assert_eq!((answer.status, answer.header("location")), (200, ""));
    assert!(answer.text().contains("<a class=\"leave\" href=\"http://127.0.0.1:33418/callback?"), "{}", answer.text());
    let back = visitor.next(&url, &answer).expect("it leads on");
    assert!(back.starts_with(REDIRECT_URI), "{back}");
    for (name, value) in [
        ("error", Some("access_denied")),
        ("error_description", Some("the user denied the request")),
        ("state", Some("the state")),
        ("iss", Some(front.world.public("").as_str())),
        ("code", None),
    ] {
        assert_eq!(parameter(&back, name).as_deref(), value, "{name}");
    }
    let none = visitor.post(&url, &decision(&page, "perhaps", &[])).await;
    assert_page(&none, 400, "No decision", "The form came without a decision.");
    assert!(front.grants().await.is_empty());
    front.stop().await;
}

#[tokio::test]
async fn no_form_is_ever_answered_with_a_redirect_that_repeats_it() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    let mut visitor = front.visitor("alice");
    let page = visitor.consent(&front.authorize_url(&client_id, &[])).await;
    let url = front.world.public("/authorize");
    let approved = visitor.post(&url, &decision(&page, "approve", &["notion"])).await;
    assert_eq!(approved.status, 303, "{}", approved.text());
    let visit = approved.header("location").to_owned();
    assert!(visit.starts_with("/visit/"), "{visit}");
    let again = visitor.post(&url, &decision(&page, "deny", &[])).await;
    assert!(again.status == 403 && again.text().contains("Decided already"), "{}", again.text());
    let page = visitor.consent(&front.authorize_url(&client_id, &[])).await;
    let mut statuses = vec![visitor.post(&url, &decision(&page, "deny", &[])).await.status];
    for path in [
        &*format!("{visit}/finish"),
        &format!("{visit}/cancel"),
        "/account/sign-in",
        "/account/connect/github",
        "/account/sign-out",
    ] {
        statuses.push(visitor.post(&front.world.public(path), &[]).await.status);
    }
    assert_eq!(statuses, [200, 409, 200, 200, 200, 303]);
    front.stop().await;
}

#[tokio::test]
async fn hostile_text_is_shown_as_text() {
    let front = Front::start().await;
    let answer = front.post_json("/register", &registration(HOSTILE)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let client_id = answer.json()["client_id"].as_str().expect("text").to_owned();
    let mut visitor = front.visitor("alice");
    let page = visitor.consent(&front.authorize_url(&client_id, &[("state", HOSTILE)])).await;
    let text = page.text();
    assert!(text.contains("&quot;onx='{{7*7}}&lt;script&gt;alert(1)&lt;/script&gt;"), "{text}");
    assert!(!text.contains("<script") && !text.contains("\"onx"), "{text}");
    let url = front.world.public("/authorize");
    let leaving = visitor.post(&url, &decision(&page, "deny", &[])).await;
    assert!(!leaving.text().contains("<script") && !leaving.text().contains("\"onx"), "{}", leaving.text());
    let back = visitor.next(&url, &leaving).expect("it leads on");
    assert_eq!(parameter(&back, "state").as_deref(), Some(HOSTILE), "returned as it came");
    // A scope that nobody knows is not repeated.
    let refused = visitor.get(&front.authorize_url(&client_id, &[("scope", "<script>alert(1)</script>")])).await;
    assert_eq!(parameter(refused.header("location"), "error").as_deref(), Some("invalid_scope"));
    assert!(!refused.header("location").contains("alert") && !refused.text().contains("alert"));
    let bad = visitor.get(&front.world.public("/authorize?client_id=%3Cscript%3Ealert(1)%3C%2Fscript%3E")).await;
    assert!(bad.status == 400 && !bad.text().contains("alert"), "{}", bad.text());
    front.stop().await;
}

#[tokio::test]
async fn hostile_words_of_a_provider_are_not_repeated() {
    let front = Front::start().await;
    let client_id = front.register("A client").await;
    for (error, shown) in [("access_denied", " (access_denied)."), ("<svg onload=alert(1)>", "not granted.")] {
        let kind = FaultKind::Error { error: error.to_owned(), description: Some(HOSTILE.to_owned()), status: None };
        front.world.simulator.add_fault(Fault::new("notion", Endpoint::Authorize, kind).nth(1));
        let (url, page) = front.visitor("alice").approve(&front.authorize_url(&client_id, &[]), &[]).await.page();
        let text = page.text();
        assert!(url.contains("/visit/") && !url.contains('?'), "{url}");
        assert!(text.contains("Notion reports that access was not granted") && text.contains(shown), "{text}");
        for absent in ["<script", "alert(1)", "7*7", "<svg o", "onload"] {
            assert!(!text.contains(absent), "{absent}: {text}");
        }
        assert_eq!((page.status, page.header("content-security-policy")), (200, POLICY));
        front.world.simulator.clear_faults();
    }
    front.stop().await;
}
