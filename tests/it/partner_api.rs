//! The HTTP API for partners: a whole journey with QuickBooks, who may do what, and every refusal to the letter.

use std::sync::Arc;

use serde_json::{Value, json};
use sidekey::base::clock::{ManualClock, SystemClock};
use sidekey::base::digest::sha256;
use sidekey::base::random::SystemRandom;
use sidekey::model::api_key::hash_text;
use sidekey::model::issued_token::{Kind, generate};
use sidekey::server::{self, Environment};
use sidekey_simulator::Options;

use crate::client::{Answer, http, send};
use crate::front_support::{Special, change_configuration};
use crate::world::{Files, Setup, World, now};

/// Where the partner's pages are.
const PAGE: &str = "https://app.example.com/integrations";

/// A Sidekey that a partner uses.
struct Partner {
    world: World,
    /// For QuickBooks and subjects that begin with `org-`.
    books: String,
    /// For everything.
    wide: String,
    /// For everything, until a moment ago.
    expired: String,
}

impl Partner {
    async fn start() -> Self {
        Self::with("").await
    }

    async fn with(tables: &str) -> Self {
        let key = || generate(Kind::ApiKey, &SystemRandom).expose().to_owned();
        let (books, wide, expired) = (key(), key(), key());
        let hash = |key: &str| hash_text(&sha256(key.as_bytes()));
        let tables = format!(
            "[api]\nreturn_to = [\"{PAGE}\"]\n\
             [api.keys.books]\nhash = \"{}\"\nproviders = [\"quickbooks\"]\nsubject_prefix = \"org-\"\n\
             [api.keys.wide]\nhash = \"{}\"\nexpires = \"2100-01-01\"\n\
             [api.keys.old]\nhash = \"{}\"\nexpires = \"2020-01-01\"\n{tables}",
            hash(&books),
            hash(&wide),
            hash(&expired)
        );
        let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
        let files = Files::write(&simulator.url(), &Setup { tables, ..Setup::default() });
        change_configuration(&files, "[providers.quickbooks]\n", "[providers.quickbooks]\ncallback = \"api\"\n");
        let settings = files.settings();
        let clock = Arc::new(SystemClock);
        let environment = Environment { clock, ..Environment::system(&settings).expect("an environment") };
        let sidekey = server::start(settings, environment).await.expect("it starts");
        Self { world: World { simulator, files, sidekey, client: http() }, books, wide, expired }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method: http::Method = method.parse().expect("a method");
        self.world.client.request(method, self.world.public(&format!("/api/v1{path}")))
    }

    async fn get(&self, key: &str, path: &str) -> Answer {
        send(self.request("GET", path).bearer_auth(key)).await
    }

    async fn post(&self, key: &str, path: &str, body: &Value) -> Answer {
        let request = self.request("POST", path).bearer_auth(key).header("content-type", "application/json");
        send(request.body(body.to_string())).await
    }

    /// A one-time URL for a subject at QuickBooks, that leads to the partner's page.
    async fn url(&self, subject: &str) -> String {
        let path = format!("/oauth/quickbooks/connect/{subject}");
        let answer = self.post(&self.books, &path, &json!({ "return_to": PAGE })).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["url"].as_str().expect("a URL").to_owned()
    }

    /// Opens a URL and agrees: the callback, and the cookies.
    async fn agreed(&self, url: &str) -> (String, String) {
        let begun = send(self.world.client.get(url)).await;
        assert_eq!(begun.status, 303, "{}", begun.text());
        let cookies: Vec<String> = begun
            .headers
            .get_all("set-cookie")
            .iter()
            .map(|value| value.to_str().expect("text").split(';').next().unwrap_or_default().to_owned())
            .collect();
        let agreed = send(self.world.client.get(begun.header("location"))).await;
        assert_eq!(agreed.status, 302, "{}", agreed.text());
        (agreed.header("location").to_owned(), cookies.join("; "))
    }

    /// The whole dance: where the browser ends.
    async fn connect(&self, subject: &str) -> String {
        let (callback, cookies) = self.agreed(&self.url(subject).await).await;
        let back = self.world.callback(&callback, &cookies).await;
        assert_eq!(back.status, 303, "{}", back.text());
        back.header("location").to_owned()
    }

    async fn status(&self, subject: &str) -> Value {
        let answer = self.get(&self.books, &format!("/oauth/quickbooks/status/{subject}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

fn assert_problem(answer: &Answer, status: u16, slug: &str, title: &str, detail: &str, next: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let expected = json!({
        "type": format!("urn:sidekey:error:{slug}"), "title": title, "status": status, "detail": detail, "next_step": next,
    });
    assert_eq!(answer.json(), expected);
}

fn assert_refused_key(answer: &Answer) {
    assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"sidekey\"");
    assert_problem(
        answer,
        401,
        "api-key-refused",
        "API key refused",
        "The request bears no API key that is good here.",
        "send Authorization: Bearer with a key that the operator has issued and that has not expired",
    );
}

fn assert_not_covered(answer: &Answer) {
    assert_problem(
        answer,
        403,
        "api-key-scope",
        "Not covered by the API key",
        "The API key is not for this provider or for this subject.",
        "use the key that is for it, or ask the operator to widen this one",
    );
}

fn assert_link_over(answer: &Answer) {
    assert_problem(
        answer,
        401,
        "connect-url-over",
        "This link is over",
        "It was used already, it is older than ten minutes, or it never was one; and nobody is signed in whom it is for.",
        "have the program that made it make a new one",
    );
    assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"sidekey\"");
}

#[tokio::test]
async fn a_partner_connects_a_company_sees_it_and_ends_it() {
    let partner = Partner::start().await;
    let before = partner.status("org-42").await;
    assert_eq!((&before["connected"], &before["state"]), (&json!(false), &json!("not_connected")));

    // A one-time URL, through which the browser goes to the provider and comes back by the path of the API.
    let body = json!({ "return_to": format!("{PAGE}/quickbooks?tab=2"), "apis": ["quickbooks"] });
    let made = partner.post(&partner.books, "/oauth/quickbooks/connect/org-42", &body).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let answer = made.json();
    let url = answer["url"].as_str().expect("a URL").to_owned();
    let token = url.strip_prefix(&partner.world.public("/api/v1/oauth/quickbooks/connect/org-42?token="));
    assert_eq!(token.map(str::len), Some(43), "{url}");
    assert_eq!(
        (&answer["provider"], &answer["subject"], &answer["label"]),
        (&json!("quickbooks"), &json!("org-42"), &json!("default"))
    );
    let begun = send(partner.world.client.get(&url)).await;
    assert_eq!(begun.status, 303);
    let asked: std::collections::BTreeMap<_, _> =
        url::Url::parse(begun.header("location")).expect("a URL").query_pairs().into_owned().collect();
    assert_eq!(asked["redirect_uri"], partner.world.public("/api/v1/oauth/quickbooks/callback"));
    let json_asked =
        partner.request("GET", url.split("/api/v1").nth(1).expect("a path")).header("accept", "application/json");
    assert_link_over(&send(json_asked).await);
    let (callback, cookies) = {
        let cookie = begun.header("set-cookie").split(';').next().expect("a pair").to_owned();
        let agreed = send(partner.world.client.get(begun.header("location"))).await;
        (agreed.header("location").to_owned(), cookie)
    };
    assert!(callback.starts_with(&partner.world.public("/api/v1/oauth/quickbooks/callback?")), "{callback}");
    let back = partner.world.callback(&callback, &cookies).await;
    assert_eq!(back.status, 303, "{}", back.text());
    let expected = format!("{PAGE}/quickbooks?tab=2&provider=quickbooks&subject=org-42&result=connected");
    assert_eq!(back.header("location"), expected);

    // How it stands, with the company's name, which was asked for once and is kept.
    let status = partner.status("org-42").await;
    for time in ["expires_at", "connected_at"] {
        assert!(status[time].as_str().is_some_and(|text| text.starts_with("20")), "{time}: {status}");
    }
    let expected = json!({
        "connected": true, "provider": "quickbooks", "system": "QuickBooks Online", "subject": "org-42",
        "label": "default", "state": "active", "reason": null, "realm_id": "9341453172058817",
        "company_name": "Sandbox Company_US_1", "account": status["account"], "choice_needed": false,
        "scopes": ["com.intuit.quickbooks.accounting"], "expires_at": status["expires_at"], "is_expired": false,
        "connected_at": status["connected_at"], "refreshed_at": null, "trouble": null,
    });
    assert_eq!(status, expected);
    partner.world.simulator.set("quickbooks", |settings| settings.realm_id = "1111111111111".to_owned());
    assert_eq!(partner.status("org-42").await["company_name"], "Sandbox Company_US_1");
    let listed = partner.get(&partner.books, "/oauth/connections").await.json();
    assert_eq!(listed, json!({ "connections": [expected], "next_cursor": null }));

    // Another company is not taken silently, and the page is told why.
    let other = partner.connect("org-42").await;
    assert_eq!(other, format!("{PAGE}?provider=quickbooks&subject=org-42&result=failed&error=other_realm"));
    partner.world.simulator.set("quickbooks", |settings| settings.realm_id = "9341453172058817".to_owned());

    // The same company again supersedes: there is one connection, a new one.
    let again = partner.connect("org-42").await;
    assert_eq!(again, format!("{PAGE}?provider=quickbooks&subject=org-42&result=connected"));
    assert_eq!(partner.world.connections("org-42").await.len(), 1);
    assert_eq!(partner.status("org-42").await["state"], "active");

    // The user refuses.
    partner.world.simulator.set("quickbooks", |settings| settings.deny_with = Some("access_denied".to_owned()));
    let denied = partner.connect("org-43").await;
    assert_eq!(denied, format!("{PAGE}?provider=quickbooks&subject=org-43&result=denied&error=denied"));
    partner.world.simulator.set("quickbooks", |settings| settings.deny_with = None);

    // It ends, here and there.
    let handle = partner.world.handle("org-42").await.1;
    let call = "/quickbooks/v3/company/0/companyinfo/0";
    assert_eq!(partner.world.call(&handle, call).await.status, 200);
    let ended = partner.post(&partner.books, "/oauth/quickbooks/disconnect/org-42", &json!({})).await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    let expected = json!({ "provider": "quickbooks", "subject": "org-42", "label": "default", "revocation": "done" });
    assert_eq!(ended.json(), expected);
    assert_ne!(partner.world.call(&handle, call).await.status, 200);
    assert_eq!(partner.status("org-42").await, partner_nothing("org-42"));
    let again = send(partner.request("POST", "/oauth/quickbooks/disconnect/org-42").bearer_auth(&partner.books)).await;
    assert_problem(
        &again,
        404,
        "unknown-connection",
        "Unknown connection",
        "org-42 has no connection to quickbooks with the label default.",
        "have the subject connect first",
    );
    partner.world.stop().await;
}

fn partner_nothing(subject: &str) -> Value {
    json!({
        "connected": false, "provider": "quickbooks", "system": "QuickBooks Online", "subject": subject,
        "label": "default", "state": "not_connected", "reason": null, "realm_id": null, "company_name": null,
        "account": null, "choice_needed": false, "scopes": null, "expires_at": null, "is_expired": false,
        "connected_at": null, "refreshed_at": null, "trouble": null,
    })
}

#[tokio::test]
async fn a_key_tells_nothing_about_what_it_does_not_cover() {
    let partner = Partner::start().await;
    partner.world.connect("quickbooks", "alice").await;
    partner.world.connect("github", "org-1").await;
    let unknown = generate(Kind::ApiKey, &SystemRandom).expose().to_owned();
    let token = generate(Kind::Access, &SystemRandom).expose().to_owned();
    let cut = partner.books[..partner.books.len() - 1].to_owned();
    let all = [
        ("GET", "/oauth/quickbooks/status/org-42"),
        ("GET", "/oauth/nowhere/status/org-42"),
        ("GET", "/oauth/quickbooks/status/%00"),
        ("POST", "/oauth/quickbooks/connect/org-42"),
        ("POST", "/oauth/quickbooks/disconnect/alice"),
        ("GET", "/oauth/quickbooks/sites/alice"),
        ("POST", "/oauth/quickbooks/sites/alice"),
        ("GET", "/oauth/connections"),
        ("GET", "/oauth/connections?limit=bad"),
    ];
    for (method, path) in all {
        for key in ["", &unknown, &partner.expired, &token, &cut, "sidekey_api_", "é"] {
            let mut request = partner.request(method, path);
            if !key.is_empty() {
                let value = http::HeaderValue::from_bytes(format!("Bearer {key}").as_bytes()).expect("a value");
                request = request.header("authorization", value);
            }
            assert_refused_key(&send(request).await);
        }
        let basic = partner.request(method, path).basic_auth(&partner.wide, Some(""));
        assert_refused_key(&send(basic).await);
        let twice = partner.request(method, path).bearer_auth(&partner.wide).bearer_auth(&partner.wide);
        assert_refused_key(&send(twice).await);
        let in_query = partner.request(method, &format!("{path}?access_token={}", partner.wide));
        assert_refused_key(&send(in_query).await);
    }
    // Neither whether a provider is configured nor whether a subject is connected.
    for (method, path) in [
        ("GET", "/oauth/quickbooks/status/alice"),
        ("GET", "/oauth/quickbooks/status/nobody"),
        ("GET", "/oauth/quickbooks/status/org"),
        ("GET", "/oauth/quickbooks/status/ORG-42"),
        ("GET", "/oauth/github/status/org-1"),
        ("GET", "/oauth/nowhere/status/org-1"),
        ("POST", "/oauth/github/connect/org-1"),
        ("POST", "/oauth/quickbooks/connect/alice"),
        ("POST", "/oauth/quickbooks/disconnect/alice"),
        ("POST", "/oauth/quickbooks/disconnect/nobody"),
        ("GET", "/oauth/quickbooks/sites/alice"),
        ("GET", "/oauth/connections?subject=alice"),
        ("GET", "/oauth/connections?provider=github"),
        ("GET", "/oauth/connections?provider=nowhere"),
    ] {
        assert_not_covered(&send(partner.request(method, path).bearer_auth(&partner.books)).await);
    }
    assert_eq!(partner.get(&partner.books, "/oauth/connections").await.json()["connections"], json!([]));
    assert_eq!(partner.world.connections("alice").await.len(), 1, "nothing was ended");
    let unknown = partner.get(&partner.wide, "/oauth/nowhere/status/org-1").await;
    assert_problem(
        &unknown,
        404,
        "unknown-provider",
        "Unknown provider",
        "No provider of this name is configured.",
        "correct the name, or ask the operator to add it to [providers]",
    );
    partner.world.stop().await;
}

#[tokio::test]
async fn connections_are_listed_page_by_page() {
    let partner = Partner::start().await;
    for subject in ["org-1", "org-2", "org-3", "zoe"] {
        partner.world.connect("quickbooks", subject).await;
    }
    partner.world.connect("github", "org-2").await;
    let names = |answer: &Answer| -> Vec<String> {
        let all = answer.json();
        let all = all["connections"].as_array().cloned().expect("a list");
        let name = |one: &Value, key: &str| one[key].as_str().expect("text").to_owned();
        all.iter().map(|one| format!("{} {}", name(one, "subject"), name(one, "provider"))).collect()
    };
    let mut seen = Vec::new();
    let mut path = "/oauth/connections?limit=2".to_owned();
    loop {
        let page = partner.get(&partner.wide, &path).await;
        assert_eq!(page.status, 200, "{}", page.text());
        seen.extend(names(&page));
        let Some(cursor) = page.json()["next_cursor"].as_str().map(str::to_owned) else { break };
        path = format!("/oauth/connections?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ["org-1 quickbooks", "org-2 github", "org-2 quickbooks", "org-3 quickbooks", "zoe quickbooks"]);
    let narrow = partner.get(&partner.books, "/oauth/connections").await;
    assert_eq!(names(&narrow), ["org-1 quickbooks", "org-2 quickbooks", "org-3 quickbooks"]);
    let one = partner.get(&partner.wide, "/oauth/connections?subject=org-2&provider=github&state=active").await;
    assert_eq!(names(&one), ["org-2 github"]);
    let none = partner.get(&partner.wide, "/oauth/connections?state=needs_reauth").await;
    assert_eq!(names(&none), Vec::<String>::new());
    partner.world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_said() {
    let partner = Partner::start().await;
    let next = "correct it and ask again; /api/v1/openapi.json says what is expected";
    let subject = "The subject in the path is not 1 to 128 of the characters A-Z a-z 0-9 . _ @ + : - and the first of them a letter or \
                   digit.";
    let provider = "The provider in the path is not 1 to 40 of the characters a-z 0-9 - beginning with a letter.";
    for (path, detail) in [
        ("/oauth/quickbooks/status/-x", subject),
        ("/oauth/quickbooks/status/a%20b", subject),
        ("/oauth/quickbooks/status/a%2Fb", subject),
        ("/oauth/quickbooks/status/%3Cscript%3E", subject),
        ("/oauth/Quick/status/org-1", provider),
        ("/oauth/quickbooks/status/%FF", "The path cannot be read."),
        ("/oauth/connections?limit=0", "`limit` is not between 1 and 200."),
        ("/oauth/connections?limit=201", "`limit` is not between 1 and 200."),
        ("/oauth/connections?cursor=x", "`cursor` is not one that a page has named."),
        (
            "/oauth/connections?state=sold",
            "The query is not as expected: `state`: unknown variant `sold`, expected one of `active`, `needs_reauth`, `not_connected`.",
        ),
        (
            "/oauth/connections?page=1",
            "The query is not as expected: unknown field `page`, expected one of `provider`, `subject`, `state`, `limit`, `cursor`.",
        ),
        (
            "/oauth/connections?limit=100000",
            "The query is not as expected: `limit`: number too large to fit in target type.",
        ),
        ("/oauth/connections?limit=1&limit=2", "The query is not as expected: duplicate field `limit`."),
    ] {
        let answer = partner.get(&partner.wide, path).await;
        assert_eq!(answer.json()["detail"], detail, "{path}");
        assert_problem(&answer, 400, "bad-request", "Bad request", detail, next);
    }
    for (path, body, detail) in [
        ("connect", "{", "The body is not as expected: EOF while parsing an object at line 1 column 1."),
        ("connect", "[]", "The body is not a JSON object."),
        (
            "connect",
            r#"{"lable": "x"}"#,
            "The body is not as expected: unknown field `lable`, expected one of `label`, `return_to`, `apis` at line 1 column 8.",
        ),
        (
            "connect",
            r#"{"label": "a b"}"#,
            "The body is not as expected: `label`: 1 to 40 of the characters A-Z a-z 0-9 . _ - at line 1 column 16.",
        ),
        ("connect", r#"{"apis": []}"#, "`apis` is not a choice of those that are enabled: quickbooks."),
        ("connect", r#"{"apis": ["payroll"]}"#, "`apis` is not a choice of those that are enabled: quickbooks."),
        ("sites", "", "The body is empty."),
        ("sites", "{}", "The body is not as expected: missing field `site` at line 1 column 2."),
        (
            "disconnect",
            r#"{"label": 7}"#,
            "The body is not as expected: `label`: invalid type: integer `7`, expected a string at line 1 column 11.",
        ),
    ] {
        let request = partner.request("POST", &format!("/oauth/quickbooks/{path}/org-1")).bearer_auth(&partner.wide);
        let answer = send(request.header("content-type", "application/json; charset=utf-8").body(body)).await;
        assert_eq!(answer.json()["detail"], detail, "{path} {body}");
        assert_problem(&answer, 400, "bad-request", "Bad request", detail, next);
    }
    for kind in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
        let request = partner.request("POST", "/oauth/quickbooks/connect/org-1").bearer_auth(&partner.wide);
        let answer = send(request.header("content-type", kind).body("{}")).await;
        assert_problem(
            &answer,
            415,
            "unsupported-media-type",
            "Unsupported media type",
            "The body is not announced as JSON.",
            "send Content-Type: application/json",
        );
    }
    let large = json!({ "label": "a".repeat(70_000) });
    let answer = partner.post(&partner.wide, "/oauth/quickbooks/connect/org-1", &large).await;
    assert_eq!((answer.status, &answer.json()["type"]), (413, &json!("urn:sidekey:error:body-too-large")));
    partner.world.stop().await;
}

/// All that an attacker may try with `return_to`, over the wire; what is allowed is tested beside the code.
#[tokio::test]
async fn browsers_are_led_to_listed_pages_and_nowhere_else() {
    let partner = Partner::start().await;
    let long = format!("{PAGE}/{}", "a".repeat(8192));
    for bad in [
        "",
        "/integrations",
        "//evil.example/integrations",
        "/\\evil.example",
        "https:evil.example",
        "/%09/evil.example",
        "/..//evil.example",
        "javascript:alert(1)",
        "https://app.example.com@evil.example/integrations",
        "https://app.example.com\\@evil.example/integrations",
        "https://evil.example/https://app.example.com/integrations",
        "https://app.example.com.evil.example/integrations",
        "https://app.example.com:8443/integrations",
        "https://app.example.com:443/integrations",
        "http://app.example.com/integrations",
        "HTTPS://APP.EXAMPLE.COM/integrations",
        "https://app.example.com/INTEGRATIONS",
        "https://app.example.com/integrations-of-others",
        "https://app.example.com/integrations/../admin",
        "https://app.example.com/integrations/%2e%2e/admin",
        "https://app.example.com/integrations/..%2f..%2fadmin",
        "https://app.example.com/integrations#@evil.example",
        "https://app.example.com/integrations?result=connected",
        "https://app.example.com/integrations\r\nlocation: https://evil.example",
        &partner.world.public("/account"),
        &long,
    ] {
        let body = json!({ "return_to": bad });
        let answer = partner.post(&partner.books, "/oauth/quickbooks/connect/org-1", &body).await;
        assert_problem(
            &answer,
            400,
            "return-to-refused",
            "Page to return to refused",
            "`return_to` is not one of the pages that browsers may be led to.",
            "send the full address of a page below one that the operator has listed in [api] return_to, without fragment, user name \
             or dot segments",
        );
    }
    // Without one, the browser ends on a page of ours.
    let made = partner.post(&partner.books, "/oauth/quickbooks/connect/org-1", &json!({})).await.json();
    let (callback, cookies) = partner.agreed(made["url"].as_str().expect("a URL")).await;
    let back = partner.world.callback(&callback, &cookies).await;
    assert_eq!((back.status, back.header("location")), (303, "/connected/quickbooks"));
    partner.world.stop().await;
}

/// A browser that sends no `Sec-Fetch-Site`.
const SAFARI_15: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/15.6 Safari/605.1.15";

/// Who is lured to a one-time URL of somebody else's must not have an account connected by that alone.
#[tokio::test]
async fn a_browser_that_comes_from_elsewhere_is_asked_first() {
    let partner = Partner::start().await;
    let open = async |url: &str, headers: &[(&str, &str)]| {
        let mut request = partner.world.client.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request).await
    };
    let url = partner.url("org-1").await;
    let token = url.split("token=").nth(1).expect("a token").to_owned();
    for headers in [
        &[("sec-fetch-site", "none")][..],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "cross-site"), ("referer", "https://evil.example/")],
        &[("sec-fetch-site", "cross-site"), ("referer", "https://app.example.com.evil.example/")],
        &[("sec-fetch-site", "cross-site"), ("referer", "http://app.example.com/")],
        &[("sec-fetch-site", "cross-site"), ("referer", "https://app.example.com:8443/")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "nonsense")],
        &[("referer", "https://evil.example/")],
        &[("referer", "")],
        &[("sec-purpose", "prefetch;prerender"), ("sec-fetch-site", "same-origin")],
        &[("purpose", "prefetch")],
        // Before version 16.4 Safari does not say where it comes from, and a page can keep it from sending a `Referer`.
        &[("user-agent", SAFARI_15), ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")],
        &[("user-agent", SAFARI_15)],
        &[("accept", "Text/HTML")],
        &[("accept", "*/*, text/html;q=0.1"), ("user-agent", "curl/8.5.0")],
    ] {
        let answer = open(&url, headers).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, format!("/connect/{token}").as_str()),
            "{headers:?}"
        );
        assert!(answer.header("set-cookie").is_empty(), "nothing has begun");
    }
    let page = send(partner.world.client.get(partner.world.public(&format!("/connect/{token}")))).await;
    assert!(page.status == 200 && page.text().contains("<dd>org-1</dd>"), "{}", page.text());
    // The page leads on, and to the partner's in the end.
    let begun = send(partner.world.client.post(partner.world.public(&format!("/connect/{token}")))).await;
    assert_eq!(begun.status, 303);
    let cookie = begun.header("set-cookie").split(';').next().expect("a pair").to_owned();
    let agreed = send(partner.world.client.get(begun.header("location"))).await;
    let back = partner.world.callback(agreed.header("location"), &cookie).await;
    assert_eq!(back.header("location"), format!("{PAGE}?provider=quickbooks&subject=org-1&result=connected"));

    for headers in [
        &[][..],
        &[("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "cross-site"), ("referer", "https://app.example.com/")],
        &[("sec-fetch-site", "same-site"), ("referer", "https://app.example.com/settings")],
        &[("referer", "https://app.example.com/")],
        &[("referer", "https://app.example.com/"), ("user-agent", SAFARI_15), ("accept", "text/html")],
        &[("accept", "application/json"), ("user-agent", "curl/8.5.0")],
    ] {
        let answer = open(&partner.url("org-2").await, headers).await;
        assert!(answer.header("location").starts_with(&partner.world.simulator.url()), "{headers:?}");
        assert!(answer.header("set-cookie").contains("sidekey_flow_"), "{headers:?}");
    }
    partner.world.stop().await;
}

#[tokio::test]
async fn a_url_is_for_one_subject_at_one_provider_and_works_once() {
    let partner = Partner::start().await;
    let url = partner.url("org-1").await;
    let asked = |url: String| send(partner.world.client.get(url).header("accept", "application/json"));
    let bare = url.split("?token=").next().expect("a path").to_owned();
    for bad in [
        url.replace("org-1", "org-2"),
        url.replace("/quickbooks/", "/github/"),
        url.replace("/quickbooks/", "/nowhere/"),
        bare.clone(),
        format!("{bare}?token="),
        format!("{bare}?token=x"),
        format!("{bare}?return_to={PAGE}"),
        format!("{}x", url),
    ] {
        assert_link_over(&asked(bad).await);
    }
    let malformed = asked(format!("{url}&x=1")).await;
    assert_eq!((malformed.status, &malformed.json()["type"]), (400, &json!("urn:sidekey:error:bad-request")));
    // People get a page.
    let page = send(partner.world.client.get(format!("{bare}?token=x")).header("accept", "text/html,*/*")).await;
    assert_eq!((page.status, page.header("content-type")), (401, "text/html; charset=utf-8"));
    assert!(
        page.text().contains("<h1>This link is over</h1>") && page.text().contains("begin again."),
        "{}",
        page.text()
    );
    // To look is not to use.
    let looked = send(partner.world.client.head(&url)).await;
    assert_eq!(looked.status, 405);
    assert_eq!(send(partner.world.client.get(&url)).await.status, 303);
    assert_link_over(&asked(url).await);
    // A link of the command line and this URL are one kind of thing: one use, whichever way.
    let url = partner.url("org-1").await;
    let token = url.split("token=").nth(1).expect("a token").to_owned();
    assert_eq!(send(partner.world.client.post(partner.world.public(&format!("/connect/{token}")))).await.status, 303);
    assert_link_over(&asked(url).await);
    partner.world.stop().await;
}

#[tokio::test]
async fn programs_are_told_in_json_how_a_callback_failed() {
    let partner = Partner::start().await;
    let begin_again = "Begin again where you came from: with a new connect link, or in your MCP client.";
    let (callback, cookies) = partner.agreed(&partner.url("org-1").await).await;
    let come = async |url: &str, cookies: &str| {
        let request = partner.world.client.get(url).header("accept", "application/json").header("cookie", cookies);
        send(request).await
    };
    let without = |name: &str, url: &str| {
        let mut url = url::Url::parse(url).expect("a URL");
        let kept: Vec<_> = url.query_pairs().into_owned().filter(|(key, _)| key != name).collect();
        url.query_pairs_mut().clear().extend_pairs(kept);
        url.to_string()
    };
    let forged = callback.replace("state=", "state=A");
    let answer = come(&forged, &cookies).await;
    assert_problem(&answer, 400, "invalid-state", "Not our sign-in", "This sign-in was not begun here.", begin_again);
    let answer = come(&without("state", &callback), &cookies).await;
    let what = "The address is incomplete: `state` is missing.";
    assert_problem(&answer, 400, "invalid-callback", "Not a sign-in", what, begin_again);
    let answer = come(&without("realmId", &callback), &cookies).await;
    let what = "The parameter realmId in QuickBooks Online's answer is missing.";
    assert_problem(&answer, 400, "invalid-callback", "Incomplete answer", what, begin_again);
    let answer = come(&callback, &cookies).await;
    let what = "This sign-in came back once before; nothing was done again.";
    let next = "If the connection is there, all is well. Otherwise begin again where you came from.";
    assert_problem(&answer, 400, "invalid-state", "Already done", what, next);
    // Without its cookie a callback leads nowhere, not even to the partner's page.
    let (callback, _) = partner.agreed(&partner.url("org-1").await).await;
    let answer = send(partner.world.client.get(&callback)).await;
    assert_eq!((answer.status, answer.header("location")), (400, ""));
    assert!(answer.text().contains("<h1>Another browser</h1>"), "{}", answer.text());
    // The same callback is answered at its other path.
    let (callback, cookies) = partner.agreed(&partner.url("org-1").await).await;
    let short = callback.replace("/api/v1/oauth/quickbooks/callback", "/callback/quickbooks");
    assert_ne!(short, callback);
    let back = partner.world.callback(&short, &cookies).await;
    assert_eq!(back.header("location"), format!("{PAGE}?provider=quickbooks&subject=org-1&result=connected"));
    for (method, status) in [("POST", 405), ("HEAD", 400)] {
        assert_eq!(send(partner.request(method, "/oauth/quickbooks/callback")).await.status, status, "{method}");
    }
    partner.world.stop().await;
}

#[tokio::test]
async fn other_methods_paths_and_origins() {
    let partner = Partner::start().await;
    for (method, path, allow) in [
        ("DELETE", "/oauth/quickbooks/status/org-1", "GET,HEAD"),
        ("POST", "/oauth/quickbooks/status/org-1", "GET,HEAD"),
        ("GET", "/oauth/quickbooks/disconnect/org-1", "POST"),
        ("PUT", "/oauth/quickbooks/connect/org-1", "GET,HEAD,POST"),
        ("PATCH", "/oauth/connections", "GET,HEAD"),
        ("POST", "/openapi.json", "GET,HEAD"),
    ] {
        let answer = send(partner.request(method, path).bearer_auth(&partner.wide)).await;
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
        assert_problem(
            &answer,
            405,
            "method-not-allowed",
            "Method not allowed",
            "This path is not used with that method.",
            "use one of those that the Allow header names",
        );
        let options = send(partner.request("OPTIONS", path).header("origin", "https://app.example.com")).await;
        assert_eq!((options.status, options.header("allow")), (204, allow));
    }
    for path in ["", "/oauth", "/oauth/quickbooks", "/oauth/quickbooks/status", "/oauth/quickbooks/status/a/b", "/x"] {
        let answer = partner.get(&partner.wide, path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        assert_problem(
            &answer,
            404,
            "not-found",
            "Nothing here",
            "There is nothing at this path.",
            "/api/v1/openapi.json has all paths",
        );
    }
    let head = send(partner.request("HEAD", "/oauth/quickbooks/status/org-1").bearer_auth(&partner.wide)).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    // Pages of other sites can neither send a key along nor read what comes.
    for path in ["/oauth/connections", "/openapi.json"] {
        for method in ["GET", "OPTIONS"] {
            let request = partner.request(method, path).header("origin", "https://app.example.com");
            let answer = send(request.header("access-control-request-method", "GET").bearer_auth(&partner.wide)).await;
            let cors = answer.headers.keys().filter(|name| name.as_str().starts_with("access-control-")).count();
            assert_eq!(cors, 0, "{method} {path}: {:?}", answer.headers);
        }
    }
    let answer = partner.get(&partner.wide, "/oauth/connections").await;
    assert_eq!((answer.header("cache-control"), answer.header("x-content-type-options")), ("no-store", "nosniff"));
    partner.world.stop().await;
}

#[tokio::test]
async fn each_key_has_its_own_limit_and_addresses_have_theirs() {
    let partner = Partner::with("[limits]\nrequests_per_api_key = \"3/1m\"\nfailures_per_address = \"2/1m\"\n").await;
    let path = "/oauth/connections";
    for remaining in ["2", "1", "0"] {
        let answer = partner.get(&partner.books, path).await;
        let headers = ["ratelimit-limit", "ratelimit-remaining"].map(|name| answer.header(name).to_owned());
        assert_eq!((answer.status, headers), (200, ["3".to_owned(), remaining.to_owned()]));
    }
    let wait = |answer: &Answer| answer.header("retry-after").parse::<u64>().expect("seconds");
    let answer = partner.get(&partner.books, path).await;
    let next = format!("try again in {} seconds; Retry-After and the RateLimit headers say so too", wait(&answer));
    let asked_too_often = "This was asked too often.";
    assert_problem(&answer, 429, "too-many-requests", "Too many requests", asked_too_often, &next);
    assert!((1..=20).contains(&wait(&answer)), "{}", wait(&answer));
    assert_eq!(partner.get(&partner.wide, path).await.status, 200, "keys do not disturb each other");
    for status in [401, 401, 429] {
        assert_eq!(partner.get("nonsense", path).await.status, status);
    }
    assert_eq!(partner.get(&partner.wide, path).await.status, 200, "who has a key is not held up by who guesses");
    let url = partner.world.public("/api/v1/oauth/quickbooks/connect/org-1?token=x");
    assert_eq!(send(partner.world.client.get(url)).await.status, 429, "guesses at URLs count too");
    partner.world.stop().await;
}

#[tokio::test]
async fn what_keys_do_is_written_down_and_operators_see_when() {
    let partner = Partner::start().await;
    partner.connect("org-42").await;
    partner.status("org-42").await;
    partner.get(&partner.books, "/oauth/quickbooks/status/alice").await;
    partner.get(&partner.expired, "/oauth/connections").await;
    partner.get(&partner.wide, "/oauth/connections").await;
    let keys = partner.world.admin("GET", "/v1/api-keys", "").await.json();
    let keys = keys["api_keys"].as_array().expect("a list");
    let name = |key: &Value| key["name"].as_str().expect("text").to_owned();
    assert_eq!(keys.iter().map(name).collect::<Vec<_>>(), ["books", "old", "wide"]);
    assert_eq!(
        keys[0],
        json!({
            "name": "books", "providers": ["quickbooks"], "subject_prefix": "org-", "expires_at": null, "state": "live",
            "last_used_at": keys[0]["last_used_at"],
        })
    );
    assert!(keys[0]["last_used_at"].is_string() && keys[2]["last_used_at"].is_string());
    let old = json!({
        "name": "old", "providers": null, "subject_prefix": null, "expires_at": "2020-01-01T00:00:00Z",
        "state": "expired", "last_used_at": null,
    });
    assert_eq!(keys[1], old);
    let data = partner.world.files.data();
    let Partner { world: World { simulator, files, sidekey, .. }, .. } = partner;
    sidekey.stop().await;
    let mut done = Vec::new();
    sidekey::telemetry::audit::read(&data, &mut |record| {
        let subject = record.subject.map_or_else(String::new, |subject| subject.to_string());
        let key = record.api_key.unwrap_or_default();
        done.push(format!("{} {} {subject} {key}", record.operation, record.outcome));
    })
    .expect("read");
    assert_eq!(
        done,
        [
            "api_connect ok org-42 books",
            "connect ok org-42 ",
            "api_status ok org-42 books",
            "api_status api-key-scope alice books",
            "api_call expired  old",
            "api_list ok  wide",
        ]
    );
    simulator.stop().await;
    drop(files);
}

/// What schemathesis sees from outside, seen from inside: every route is described, and every description has a route.
#[tokio::test]
async fn the_document_and_the_routes_say_the_same() {
    let partner = Partner::start().await;
    let answer = send(partner.request("GET", "/openapi.json")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let document = answer.json();
    let checked_in = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let checked_in: Value = serde_json::from_str(&std::fs::read_to_string(checked_in).expect("there")).expect("JSON");
    assert_eq!(document, checked_in);
    let paths = document["paths"].as_object().expect("paths");
    let code = include_str!("../../src/portal/api.rs");
    let routed: std::collections::BTreeSet<String> = code
        .split(".route(\"")
        .skip(1)
        .map(|rest| format!("/api/v1{}", rest.split('"').next().expect("a path")))
        .collect();
    assert_eq!(paths.keys().cloned().collect::<std::collections::BTreeSet<_>>(), routed);
    for (path, operations) in paths {
        let path = path.replace("{provider}", "quickbooks").replace("{subject}", "org-1");
        let path = path.strip_prefix("/api/v1").expect("below the API");
        let options = send(partner.request("OPTIONS", path)).await;
        let allowed: std::collections::BTreeSet<String> =
            options.header("allow").split(',').map(str::to_lowercase).filter(|method| method != "head").collect();
        let described = operations.as_object().expect("operations").keys().cloned().collect();
        assert_eq!(allowed, described, "{path}");
        for method in operations.as_object().expect("operations").keys() {
            let answer = send(partner.request(&method.to_uppercase(), path)).await;
            assert!(![404, 405].contains(&answer.status), "{method} {path}: {}", answer.status);
            let described = &operations[method]["responses"][answer.status.to_string()];
            assert!(described.is_object(), "{method} {path}: {} is not described", answer.status);
        }
    }
    partner.world.stop().await;
}

/// A user of MCP clients who is signed in needs no program to vouch for them.
#[tokio::test]
async fn a_user_who_is_signed_in_connects_by_the_same_path() {
    let special = Special { tables: format!("[api]\nreturn_to = [\"{PAGE}\"]\n"), ..Special::default() };
    let (front, _) = crate::front_support::at_a_standstill(special).await;
    let mut visitor = front.visitor("alice");
    visitor.sign_in().await.page();
    let subject = front.connections().await[0]["subject"].as_str().expect("text").to_owned();
    let url = front.world.public(&format!("/api/v1/oauth/github/connect/{subject}"));
    let answer = visitor.get(&format!("{url}?label=work&return_to={PAGE}")).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert!(answer.header("location").starts_with(&front.world.simulator.url()), "{}", answer.header("location"));
    // From another site's page they are asked first.
    let lured = visitor.client.get(&url).header("sec-fetch-site", "cross-site");
    let lured = visitor.fetch(lured).await;
    assert!(lured.status == 303 && lured.header("location").starts_with("/connect/"), "{}", lured.header("location"));
    let refused =
        visitor.client.get(format!("{url}?return_to=https://evil.example")).header("accept", "application/json");
    let refused = visitor.fetch(refused).await;
    assert_eq!((refused.status, &refused.json()["type"]), (400, &json!("urn:sidekey:error:return-to-refused")));
    // Nobody else's, and without being signed in nobody's.
    for (client, url) in [
        (visitor.clone(), front.world.public("/api/v1/oauth/github/connect/org-42")),
        (front.visitor("bob"), url.clone()),
    ] {
        let mut client = client;
        let request = client.client.get(url).header("accept", "application/json");
        assert_link_over(&client.fetch(request).await);
    }
    front.stop().await;
}

#[tokio::test]
async fn a_site_is_chosen_by_the_partner() {
    let partner = Partner::start().await;
    partner.connect("org-1").await;
    let nothing = partner.get(&partner.books, "/oauth/quickbooks/sites/org-1").await;
    assert_problem(
        &nothing,
        409,
        "nothing-to-choose",
        "Nothing to choose",
        "For org-1/quickbooks/default, there is nothing to choose at this provider.",
        "connections to this provider are for one thing only",
    );
    let unknown = partner.post(&partner.wide, "/oauth/quickbooks/sites/nobody", &json!({ "site": "x" })).await;
    assert_eq!((unknown.status, &unknown.json()["type"]), (409, &json!("urn:sidekey:error:nothing-to-choose")));
    partner.world.stop().await;
}

/// An access token that has run out and cannot be refreshed is said to be so.
#[tokio::test]
async fn a_dead_grant_is_shown_with_its_reason() {
    let clock = ManualClock::at(now());
    let key = generate(Kind::ApiKey, &SystemRandom).expose().to_owned();
    let tables = format!("[api.keys.a]\nhash = \"{}\"\n", hash_text(&sha256(key.as_bytes())));
    let world = World::with(Setup { tables, ..Setup::default() }, Arc::new(clock.clone())).await;
    world.connect("quickbooks", "org-1").await;
    world.simulator.revoke("quickbooks");
    clock.advance(std::time::Duration::from_secs(2 * 3600));
    let url = world.public("/api/v1/oauth/quickbooks/status/org-1");
    let status = async || send(world.client.get(&url).bearer_auth(&key)).await.json();
    crate::world::eventually("the connection has ended", async || status().await["state"] == "needs_reauth").await;
    let status = status().await;
    assert_eq!((&status["connected"], &status["is_expired"]), (&json!(false), &json!(true)), "{status}");
    assert!(status["reason"].as_str().is_some_and(|reason| reason.contains("invalid_grant")), "{status}");
    world.stop().await;
}

/// Revoking is taking out of the configuration; nothing is restarted, and the other keys go on.
#[tokio::test]
async fn a_key_that_is_taken_out_of_the_configuration_is_good_no_more() {
    let partner = Partner::start().await;
    assert_eq!(partner.get(&partner.wide, "/oauth/connections").await.status, 200);
    assert_eq!(partner.get(&partner.books, "/oauth/connections").await.status, 200);
    let (url, other) = (partner.url("org-1").await, partner.world.link("quickbooks", "org-1").await);
    let page = partner.world.public(&format!("/connect/{}", url.split("token=").nth(1).expect("a token")));
    assert_eq!(send(http().get(&page)).await.status, 200);
    let (callback, cookies) = partner.agreed(&partner.url("org-2").await).await;
    let ticket = cookies.split("; ").find(|cookie| cookie.contains("sidekey_link=")).expect("a ticket").to_owned();
    let again = async || {
        let request = http().post(partner.world.public("/connected/quickbooks/again"));
        send(request.header("cookie", &ticket)).await.status
    };
    assert_eq!(again().await, 200);
    let hash = |key: &str| hash_text(&sha256(key.as_bytes()));
    change_configuration(&partner.world.files, &hash(&partner.books), &hash("another key"));
    crate::world::eventually("the key is refused", async || {
        partner.get(&partner.books, "/oauth/connections").await.status == 401
    })
    .await;
    // Neither are the links that were made with it; those that were not are.
    assert_link_over(&send(http().get(&url).header("accept", "application/json")).await);
    for over in [send(http().get(&page)).await, send(http().post(&page)).await] {
        assert_eq!(over.status, 404);
        assert!(over.text().contains("This link is over"), "{}", over.text());
    }
    assert_eq!(send(http().get(&other)).await.status, 200);
    // Nor what such links have begun, or allow to be tried again.
    assert_eq!(again().await, 403);
    assert_eq!(partner.world.callback(&callback, &cookies).await.status, 303, "back to the partner, in vain");
    assert!(partner.world.connections("org-2").await.is_empty(), "nothing was connected");
    let keys = partner.world.admin("GET", "/v1/api-keys", "").await.json();
    assert!(keys["api_keys"][2]["last_used_at"].is_string(), "what is known of the others stays: {keys}");
    assert_eq!(partner.get(&partner.wide, "/oauth/connections").await.status, 200);
    partner.world.stop().await;
}
