//! Clients that prove who they are with a signed assertion (RFC 7523).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::client::Answer;
use crate::front::{Front, REDIRECT_URI, Tokens, assert_oauth_error, decision, own_path, parameter};
use crate::issuer_support::{
    ASSERTION_TYPE, Stage, assertion_claims, front, is_taken, key_set, post, redeem_as, signed, signer,
};
use crate::world::now;

/// A client that registered these keys.
async fn registered(front: &Front, jwks: &Value) -> String {
    let metadata = json!({
        "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "private_key_jwt", "jwks": jwks,
    });
    let answer = front.post_json("/register", &metadata).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let json = answer.json();
    assert_eq!((&json["jwks"], json.get("client_secret")), (jwks, None));
    json["client_id"].as_str().expect("there").to_owned()
}

/// A refresh that will fail with `invalid_grant` if the client is believed.
async fn try_out(front: &Front, client_id: &str, assertion: &str) -> Answer {
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", "x"),
        ("client_id", client_id),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", assertion),
    ];
    front.post_form("/token", &form).await
}

#[tokio::test]
async fn a_client_that_signs_gets_tokens() {
    let front = front().await;
    let key = signer();
    let id = registered(&front, &key_set(&[&key])).await;
    let first = signed(&key, &assertion_claims(&front, &id));
    let fields = [("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &*first)];
    let tokens = Tokens::of(id.clone(), &redeem_as(&front, &id, &fields, None).await);
    assert!(is_taken(&front, &tokens.access).await);
    let second = signed(&key, &assertion_claims(&front, &id));
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &*tokens.refresh),
        ("client_id", &*id),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", &*second),
    ];
    let tokens = Tokens::of(id.clone(), &front.post_form("/token", &form).await);
    let third = signed(&key, &assertion_claims(&front, &id));
    let form = [("token", &*tokens.access), ("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &*third)];
    let known = front.post_form("/introspect", &form).await.json();
    assert_eq!((&known["active"], &known["client_id"]), (&json!(true), &json!(id)), "{known}");
    front.stop().await;
}

#[tokio::test]
async fn an_assertion_may_name_the_issuer_or_the_token_endpoint() {
    let front = front().await;
    let key = signer();
    let id = registered(&front, &key_set(&[&key])).await;
    for audience in
        [json!(front.world.public("")), json!(front.world.public("/token")), json!([front.world.public("")])]
    {
        let mut claims = assertion_claims(&front, &id);
        claims["aud"] = audience;
        assert_oauth_error(&try_out(&front, &id, &signed(&key, &claims)).await, 400, "invalid_grant");
    }
    front.stop().await;
}

#[tokio::test]
async fn an_assertion_is_good_once() {
    let front = front().await;
    let key = signer();
    let id = registered(&front, &key_set(&[&key])).await;
    let assertion = signed(&key, &assertion_claims(&front, &id));
    assert_oauth_error(&try_out(&front, &id, &assertion).await, 400, "invalid_grant");
    assert_oauth_error(&try_out(&front, &id, &assertion).await, 401, "invalid_client");
    // Nor is the same `jti` in another one.
    let mut claims = assertion_claims(&front, &id);
    claims["jti"] = json!("the same");
    assert_oauth_error(&try_out(&front, &id, &signed(&key, &claims)).await, 400, "invalid_grant");
    claims["exp"] = json!(claims["exp"].as_i64().expect("a number") + 1);
    assert_oauth_error(&try_out(&front, &id, &signed(&key, &claims)).await, 401, "invalid_client");
    // Another client's `jti` is its own.
    let other = registered(&front, &key_set(&[&key])).await;
    let mut claims = assertion_claims(&front, &other);
    claims["jti"] = json!("the same");
    assert_oauth_error(&try_out(&front, &other, &signed(&key, &claims)).await, 400, "invalid_grant");
    front.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_used_many_times_at_once_is_good_once() {
    let front = front().await;
    let key = signer();
    let id = registered(&front, &key_set(&[&key])).await;
    let assertion = signed(&key, &assertion_claims(&front, &id));
    let answers = futures_util::future::join_all((0..50).map(|_| try_out(&front, &id, &assertion))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 400).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 401).count(), 49);
    front.stop().await;
}

#[tokio::test]
async fn assertions_that_say_something_else_are_refused() {
    let front = front().await;
    let key = signer();
    let id = registered(&front, &key_set(&[&key])).await;
    let other = registered(&front, &key_set(&[&key])).await;
    let (issuer, seconds) = (front.world.public(""), now().as_seconds());
    for (claim, value) in [
        ("aud", json!("https://evil.example")),
        ("aud", json!(format!("{issuer}/"))),
        ("aud", json!([issuer, "https://evil.example"])),
        ("aud", json!([])),
        ("aud", json!(null)),
        ("aud", json!(front.mcp())),
        ("iss", json!(other)),
        ("iss", json!(issuer)),
        ("iss", json!(null)),
        ("sub", json!(other)),
        ("sub", json!("alice")),
        ("sub", json!(null)),
        ("exp", json!(seconds - 31)),
        ("exp", json!(seconds + 3600)),
        ("exp", json!(null)),
        ("exp", json!((seconds + 60).to_string())),
        ("exp", json!(1e300)),
        ("exp", json!(-1)),
        ("iat", json!(seconds + 120)),
        ("iat", json!("now")),
        ("nbf", json!(seconds + 120)),
        ("nbf", json!("later")),
        ("jti", json!(null)),
        ("jti", json!("")),
        ("jti", json!(1)),
    ] {
        let mut claims = assertion_claims(&front, &id);
        claims[claim] = value.clone();
        let answer = try_out(&front, &id, &signed(&key, &claims)).await;
        assert_eq!(answer.status, 401, "{claim} {value}: {}", answer.text());
        assert_oauth_error(&answer, 401, "invalid_client");
    }
    front.stop().await;
}

#[tokio::test]
async fn assertions_that_the_client_did_not_sign_are_refused() {
    let front = front().await;
    let (key, evil) = (signer(), signer());
    let id = registered(&front, &key_set(&[&key])).await;
    let claims = assertion_claims(&front, &id);
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let good = signed(&key, &claims);
    let (signed_part, signature) = good.rsplit_once('.').expect("parts");
    let kid = key.public_jwk()["kid"].clone();
    let with_header = |header: &Value| format!("{}.{}.{signature}", encode(header), encode(&claims));
    let mut changed = claims.clone();
    changed["exp"] = json!(now().as_seconds() + 500);
    for (what, assertion) in [
        ("another key", signed(&evil, &claims)),
        ("no signature", format!("{signed_part}.")),
        ("unsigned", format!("{}.{}.", encode(&json!({ "alg": "none" })), encode(&claims))),
        ("HMAC", with_header(&json!({ "alg": "HS256", "kid": kid }))),
        ("its own key", {
            let header = json!({ "alg": "ES256", "jwk": evil.public_jwk() });
            let signed = signed(&evil, &claims);
            format!("{}.{}", encode(&header), signed.split_once('.').expect("parts").1)
        }),
        ("other claims", format!("{}.{}.{signature}", good.split('.').next().expect("a header"), encode(&changed))),
        ("critical extension", with_header(&json!({ "alg": "ES256", "kid": kid, "crit": ["x"] }))),
        ("nothing", "x".to_owned()),
        ("dots", "..".to_owned()),
        ("a lot", format!("{}.{}.{}", "a".repeat(9000), "b".repeat(9000), "c".repeat(9000))),
    ] {
        let answer = try_out(&front, &id, &assertion).await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        assert_oauth_error(&answer, 401, "invalid_client");
    }
    assert_oauth_error(&try_out(&front, &id, &good).await, 400, "invalid_grant");
    front.stop().await;
}

#[tokio::test]
async fn a_client_that_signs_proves_itself_in_no_other_way() {
    let front = front().await;
    let key = signer();
    let id = registered(&front, &key_set(&[&key])).await;
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", "x"), ("client_id", &*id)];
    let with = |more: &[(&'static str, &'static str)]| [refresh.as_slice(), more].concat();
    assert_oauth_error(&post(&front, "/token", &with(&[]), None).await, 401, "invalid_client");
    assert_oauth_error(&post(&front, "/token", &with(&[("client_secret", "x")]), None).await, 401, "invalid_client");
    let header = crate::issuer_support::basic(&id, "x");
    assert_oauth_error(
        &post(&front, "/token", &refresh, Some(("authorization", &header))).await,
        401,
        "invalid_client",
    );
    let assertion = signed(&key, &assertion_claims(&front, &id));
    for kind in ["", "x", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"] {
        let form = [refresh.as_slice(), &[("client_assertion", &assertion), ("client_assertion_type", kind)]].concat();
        assert_oauth_error(&post(&front, "/token", &form, None).await, 400, "invalid_request");
    }
    front.stop().await;
}

#[tokio::test]
async fn a_client_of_the_operators_signs_with_a_key_from_a_file() {
    let (first, second, evil) = (signer(), signer(), signer());
    let tables = format!(
        "[clients.reporting]\nname = \"Reporting\"\nredirect_uris = [\"{REDIRECT_URI}\"]\njwks = \"reporting.jwks.json\"\n"
    );
    let files = vec![("reporting.jwks.json".to_owned(), key_set(&[&first, &second]).to_string())];
    let front = Stage { tables, files, ..Stage::default() }.start().await;
    for key in [&first, &second] {
        let assertion = signed(key, &assertion_claims(&front, "reporting"));
        assert_oauth_error(&try_out(&front, "reporting", &assertion).await, 400, "invalid_grant");
    }
    let assertion = signed(&evil, &assertion_claims(&front, "reporting"));
    assert_oauth_error(&try_out(&front, "reporting", &assertion).await, 401, "invalid_client");
    let mut browser = front.browser("alice");
    let (url, page) = browser.open(&front.authorize_url("reporting", &[])).await.page();
    assert!(page.text().contains("the operator of this Sidekey"), "{}", page.text());
    let back = browser.submit(&own_path(&url, "/authorize"), &decision(&page, "approve", &["notion"])).await.away();
    assert!(parameter(&back, "code").is_some(), "{back}");
    front.stop().await;
}
