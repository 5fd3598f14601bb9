//! Companies that are described by files, and how strict they are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::client::{Answer, request};
use crate::user::{CHALLENGE, REDIRECT, User, VERIFIER, form};

/// What a good client sends where it differs from the usual.
struct Client {
    user: User,
    scope: &'static str,
    authorize: &'static [(&'static str, &'static str)],
    exchange: &'static [(&'static str, &'static str)],
}

impl Client {
    async fn of(profile: &'static str) -> Client {
        Client { user: User::of(profile).await, scope: "read", authorize: &[], exchange: &[] }
    }

    async fn authorize(&self, changes: &[(&str, &str)]) -> Answer {
        let client_id = self.user.simulator.settings(self.user.profile).client_id;
        let usual = [
            ("response_type", "code"),
            ("client_id", &client_id),
            ("redirect_uri", REDIRECT),
            ("scope", self.scope),
            ("state", "s"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        let wanted = usual.into_iter().chain(self.authorize.iter().copied());
        let kept = wanted.filter(|(name, _)| !changes.iter().any(|(other, _)| other == name));
        let all: Vec<_> = kept.chain(changes.iter().copied().filter(|(_, value)| !value.is_empty())).collect();
        request(
            self.user.simulator.address(),
            "GET",
            &format!("/{}/authorize?{}", self.user.profile, form(&all)),
            &[],
            "",
        )
        .await
    }

    async fn exchange(&self, without: &str) -> Answer {
        let code = self.authorize(&[]).await.redirected("code").expect("a code");
        let usual = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ];
        let all: Vec<_> =
            usual.into_iter().chain(self.exchange.iter().copied()).filter(|(name, _)| *name != without).collect();
        self.token("token", &all, true).await
    }

    /// A request with the client's secret, in the body or as Basic.
    async fn token(&self, endpoint: &str, parameters: &[(&str, &str)], in_body: bool) -> Answer {
        let settings = self.user.simulator.settings(self.user.profile);
        let (id, secret) = (settings.client_id.as_str(), settings.client_secret.as_str());
        let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
        let mut all = parameters.to_vec();
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
        if in_body {
            all.extend([("client_id", id), ("client_secret", secret)]);
        } else {
            headers.push(("authorization", &basic));
        }
        let target = format!("/{}/{endpoint}", self.user.profile);
        request(self.user.simulator.address(), "POST", &target, &headers, form(&all)).await
    }

    async fn api(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let target = format!("/{}/api{path}", self.user.profile);
        request(self.user.simulator.address(), method, &target, headers, "").await
    }

    fn access(&self) -> String {
        format!("Bearer {}", self.user.simulator.issue_grant(self.user.profile, "ada").0)
    }
}

fn error(answer: &Answer) -> Option<String> {
    answer.redirected("error")
}

#[tokio::test]
async fn parameters_that_a_company_insists_on() {
    let atlassian = Client {
        scope: "offline_access read:jira-work",
        authorize: &[("audience", "api.atlassian.com"), ("prompt", "consent")],
        ..Client::of("atlassian").await
    };
    assert!(atlassian.authorize(&[]).await.redirected("code").is_some());
    for lacking in ["audience", "prompt"] {
        assert_eq!(
            error(&atlassian.authorize(&[(lacking, "")]).await).as_deref(),
            Some("invalid_request"),
            "{lacking}"
        );
    }
    let tokens = atlassian.exchange("").await.json();
    assert!(tokens["refresh_token"].is_string() && tokens["expires_in"] == 3600, "{tokens}");
    let online = Client { scope: "read:jira-work", ..atlassian };
    assert!(online.exchange("").await.json().get("refresh_token").is_none(), "nobody asked for one");
}

#[tokio::test]
async fn scopes_are_separated_as_the_company_has_it() {
    let linear = Client::of("linear").await;
    assert!(linear.authorize(&[("scope", "read,write")]).await.redirected("code").is_some());
    assert_eq!(error(&linear.authorize(&[("scope", "read write")]).await).as_deref(), Some("invalid_scope"));
    let airtable = Client::of("airtable").await;
    assert_eq!(error(&airtable.authorize(&[("scope", "a,b")]).await).as_deref(), Some("invalid_scope"));
    let stripe = Client::of("stripe").await;
    assert_eq!(error(&stripe.authorize(&[]).await).as_deref(), Some("invalid_scope"), "they stand in the manifest");
}

#[tokio::test]
async fn a_challenge_may_be_required() {
    let airtable = Client::of("airtable").await;
    let without = [("code_challenge", ""), ("code_challenge_method", "")];
    assert_eq!(error(&airtable.authorize(&without).await).as_deref(), Some("invalid_request"));
}

#[tokio::test]
async fn a_callback_is_signed_over_all_of_it() {
    let shopify = Client { scope: "read_products", exchange: &[("expiring", "1")], ..Client::of("shopify").await };
    let location = shopify.authorize(&[]).await;
    let url = url::Url::parse(location.header("location")).unwrap();
    let mut pairs: Vec<String> = url.query().unwrap().split('&').map(str::to_owned).collect();
    let signature = pairs.pop().unwrap();
    pairs.sort();
    let secret = shopify.user.simulator.settings("shopify").client_secret;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let expected = ring::hmac::sign(&key, pairs.join("&").as_bytes());
    let expected: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(signature, format!("hmac={expected}"));
    assert_eq!(location.redirected("shop").as_deref(), Some("simulated.myshopify.com"));
    assert_eq!(shopify.exchange("expiring").await.json()["error"], "invalid_request");
    assert_eq!(shopify.exchange("").await.json()["refresh_token_expires_in"], 7_776_000);
}

#[tokio::test]
async fn clients_prove_who_they_are_in_the_one_way_there_is() {
    let parameters = [("grant_type", "refresh_token"), ("refresh_token", "x")];
    for (profile, in_body) in [("zoom", true), ("hubspot", false), ("box", false), ("xero", true), ("stripe", true)] {
        let client = Client::of(profile).await;
        let answer = client.token("token", &parameters, in_body).await;
        let refused = answer.json();
        assert_eq!(refused["error"], "invalid_client", "{profile}: {refused}");
    }
}

#[tokio::test]
async fn a_refresh_may_have_an_endpoint_of_its_own() {
    let figma = Client::of("figma").await;
    let refresh = figma.user.simulator.issue_grant("figma", "ada").1.unwrap();
    let with_type = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
    assert_eq!(figma.token("token", &with_type, false).await.status, Some(404));
    let reply = figma.token("refresh", &with_type[1..], false).await.json();
    assert!(reply["access_token"].is_string() && reply.get("refresh_token").is_none(), "{reply}");
}

#[tokio::test]
async fn calls_name_one_of_the_users_sites() {
    let xero = Client::of("xero").await;
    let token = xero.access();
    let authorization = ("authorization", token.as_str());
    let sites = async || xero.api("GET", "/connections", &[authorization]).await.json();
    assert_eq!(sites().await.as_array().map(Vec::len), Some(1));
    xero.user.simulator.set("xero", |settings| settings.sites = 2);
    let listed = sites().await;
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    let call = async |tenant: Option<&str>| {
        let headers: Vec<_> = [authorization].into_iter().chain(tenant.map(|id| ("xero-tenant-id", id))).collect();
        xero.api("GET", "/api.xro/2.0/Organisation", &headers).await.status
    };
    assert_eq!(call(listed[1]["tenantId"].as_str()).await, Some(200));
    assert_eq!((call(None).await, call(Some("another")).await), (Some(403), Some(403)));

    let atlassian = Client::of("atlassian").await;
    let token = atlassian.access();
    let call = async |path: &str| atlassian.api("GET", path, &[("authorization", &token)]).await.status;
    assert_eq!(call("/ex/jira/11223344-a1b2-3b33-c444-def123456789/rest/api/3/myself").await, Some(200));
    assert_eq!(call("/ex/jira/99887766-a1b2-3b33-c444-def123456789/rest/api/3/myself").await, Some(404));
    atlassian.user.simulator.expire("atlassian");
    for (path, status) in
        [("jira/x/rest/api/3", 401), ("confluence/x/wiki/api/v2/pages", 404), ("confluence/x/wiki/rest/a", 403)]
    {
        assert_eq!(call(&format!("/ex/{path}")).await, Some(status), "{path}");
    }
}

#[tokio::test]
async fn an_expired_token_and_a_dead_one_look_as_they_do_there() {
    let place = |answer: &Answer, pointer: &str| answer.json().pointer(pointer).cloned().unwrap_or(Value::Null);
    for (profile, method, path, status, pointer, expired, dead) in [
        ("zoom", "GET", "/v2/x", 401, "/message", "Access token is expired.", "Invalid access token."),
        ("figma", "GET", "/v1/x", 403, "/err", "Token expired", "Invalid token"),
        (
            "linear",
            "POST",
            "/graphql",
            400,
            "/errors/0/extensions/code",
            "AUTHENTICATION_ERROR",
            "AUTHENTICATION_ERROR",
        ),
        ("salesforce", "GET", "/services/x", 401, "/0/errorCode", "INVALID_SESSION_ID", "INVALID_SESSION_ID"),
        ("dropbox", "POST", "/2/x", 401, "/error/.tag", "expired_access_token", "invalid_access_token"),
        ("hubspot", "GET", "/x", 401, "/category", "EXPIRED_AUTHENTICATION", "INVALID_AUTHENTICATION"),
    ] {
        let client = Client::of(profile).await;
        let call = async |token: &str| client.api(method, path, &[("authorization", token)]).await;
        let token = client.access();
        client.user.simulator.expire(profile);
        let answer = call(&token).await;
        assert_eq!((answer.status, place(&answer, pointer)), (Some(status), expired.into()), "{profile}");
        let token = client.access();
        client.user.simulator.revoke(profile);
        assert_eq!(place(&call(&token).await, pointer), Value::from(dead), "{profile}");
    }
}

#[tokio::test]
async fn a_grant_is_given_back_in_the_one_way_there_is() {
    let zendesk = Client::of("zendesk").await;
    let token = zendesk.access();
    let address = zendesk.user.simulator.address();
    let bearer = [("authorization", token.as_str())];
    assert_eq!(request(address, "DELETE", "/zendesk/revoke", &bearer, "").await.status, Some(204));
    assert_eq!(request(address, "DELETE", "/zendesk/revoke", &[], "").await.status, Some(401));
    let hubspot = Client::of("hubspot").await;
    let (access, refresh) = hubspot.user.simulator.issue_grant("hubspot", "ada");
    let refresh = refresh.unwrap();
    let hint = ("token_type_hint", "refresh_token");
    assert_eq!(hubspot.token("revoke", &[("token", &refresh)], true).await.status, Some(400), "without its hint");
    hubspot.token("revoke", &[("token", &access), hint], true).await;
    assert_eq!(hubspot.user.simulator.profile_counters("hubspot").revokes, 0, "that is no refresh token");
    assert_eq!(hubspot.token("revoke", &[("token", &refresh), hint], true).await.status, Some(200));
    assert_eq!(hubspot.user.simulator.profile_counters("hubspot").revokes, 1);
    let headers = [("authorization", &*format!("Bearer {access}"))];
    assert_eq!(hubspot.api("GET", "/x", &headers).await.status, Some(200), "until its time is over");
}
