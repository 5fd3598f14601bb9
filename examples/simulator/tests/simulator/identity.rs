//! Who the user is: ID tokens, userinfo, and what GitHub and Notion say instead.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Value, json};
use sidekey_simulator::{IdTokenAlg, IdTokenTamper};

use crate::client::{Answer, request};
use crate::user::{User, tokens};

const WITH_OPENID: [&str; 5] = ["google", "microsoft", "quickbooks", "gitlab", "generic"];
const AS_ALICE: [(&str, &str); 3] = [("scope", "openid email"), ("simulated_user", "alice"), ("nonce", "some-nonce")];

/// The reply to the exchange of a code that was asked for with these changes.
async fn exchanged(user: &User, changes: &[(&str, &str)]) -> Answer {
    let code = user.authorize(changes).await.redirected("code").unwrap();
    user.exchange(&code, &[]).await
}

/// An ID token in its parts.
struct Parts {
    header: Value,
    claims: Value,
    signed: String,
    signature: Vec<u8>,
}

fn parts(token: &str) -> Parts {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let read = |part: &str| serde_json::from_slice(&decoded(part)).unwrap();
    Parts { header: read(header), claims: read(claims), signed: signed.to_owned(), signature: decoded(signature) }
}

async fn id_token(user: &User) -> Parts {
    parts(exchanged(user, &AS_ALICE).await.json()["id_token"].as_str().unwrap())
}

/// The published key that the header names.
async fn key_of(user: &User, header: &Value) -> Value {
    let answer = user.get(&format!("/{}/jwks.json", user.profile)).await;
    let keys = answer.json()["keys"].clone();
    keys.as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).unwrap().clone()
}

fn verifies(key: &Value, token: &Parts) -> bool {
    let number = |name: &str| decoded(key[name].as_str().unwrap());
    let message = token.signed.as_bytes();
    match (key["alg"].as_str().unwrap(), key["kty"].as_str().unwrap()) {
        ("ES256", "EC") => {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point(key)).verify(message, &token.signature).is_ok()
        }
        ("RS256", "RSA") => RsaPublicKeyComponents { n: number("n"), e: number("e") }
            .verify(&RSA_PKCS1_2048_8192_SHA256, message, &token.signature)
            .is_ok(),
        other => panic!("{other:?}"),
    }
}

fn point(key: &Value) -> Vec<u8> {
    let number = |name: &str| decoded(key[name].as_str().unwrap());
    [vec![4], number("x"), number("y")].concat()
}

fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

#[tokio::test]
async fn an_id_token_says_who_approved() {
    for profile in WITH_OPENID {
        let user = User::of(profile).await;
        let token = id_token(&user).await;
        let issued_at = token.claims["iat"].as_u64().unwrap();
        assert!(issued_at.abs_diff(user.simulator.ledger().at_ms / 1000) < 60);
        assert_eq!(
            token.claims,
            json!({
                "iss": format!("http://simulator.test/{profile}"), "sub": "alice", "aud": format!("{profile}-client-id"),
                "exp": issued_at + 3600, "iat": issued_at, "email": "alice@example.test", "name": "alice",
                "nonce": "some-nonce",
            })
        );
        let alg = if profile == "generic" { "ES256" } else { "RS256" };
        assert_eq!(token.header["alg"], alg, "{profile}");
        assert!(verifies(&key_of(&user, &token.header).await, &token), "{profile}");
    }
}

#[tokio::test]
async fn there_is_one_only_where_it_is_due() {
    let user = User::of("generic").await;
    let without = exchanged(&user, &[("scope", "openidx read")]).await;
    assert!(without.json().get("id_token").is_none());
    let with = exchanged(&user, &[("scope", "read openid")]).await;
    let token = parts(with.json()["id_token"].as_str().unwrap());
    assert!(token.claims.get("nonce").is_none(), "none was sent");
    assert!(user.refresh(&tokens(&with).refresh).await.json().get("id_token").is_none());
    for profile in ["github", "github-oauth-app", "notion"] {
        let user = User::of(profile).await;
        assert!(exchanged(&user, &AS_ALICE).await.json().get("id_token").is_none());
        assert_eq!(user.get(&format!("/{profile}/jwks.json")).await.status, Some(404));
        assert_eq!(user.get(&format!("/{profile}/userinfo")).await.status, Some(404));
    }
}

#[tokio::test]
async fn issuer_and_algorithm_can_be_chosen() {
    let user = User::of("generic").await;
    for (alg, name) in [(IdTokenAlg::Rs256, "RS256"), (IdTokenAlg::Es256, "ES256")] {
        user.simulator.set("generic", |settings| {
            settings.id_token_alg = alg;
            settings.issuer = Some("https://issuer.test".to_owned());
        });
        let token = id_token(&user).await;
        assert_eq!((&token.header["alg"], &token.claims["iss"]), (&json!(name), &json!("https://issuer.test")));
        assert!(verifies(&key_of(&user, &token.header).await, &token));
    }
    // Another simulator's tokens are not this one's.
    let other = id_token(&User::of("generic").await).await;
    let own = id_token(&user).await;
    assert_ne!(own.header["kid"], other.header["kid"]);
    assert!(!verifies(&key_of(&user, &own.header).await, &other));
}

#[tokio::test]
async fn a_wrong_claim_is_the_only_thing_wrong() {
    let user = User::of("google").await;
    let good = id_token(&user).await.claims;
    for (tamper, claim) in
        [(IdTokenTamper::WrongAud, "aud"), (IdTokenTamper::WrongIss, "iss"), (IdTokenTamper::WrongNonce, "nonce")]
    {
        user.simulator.set("google", |settings| settings.id_token_tamper = tamper);
        let token = id_token(&user).await;
        assert!(verifies(&key_of(&user, &token.header).await, &token));
        for (name, value) in good.as_object().unwrap() {
            let may_differ = [claim, "iat", "exp"].contains(&name.as_str());
            assert!(may_differ || token.claims[name] == *value, "{tamper:?}: {name}");
        }
        assert_ne!(token.claims[claim], good[claim]);
    }
    user.simulator.set("google", |settings| settings.id_token_tamper = IdTokenTamper::Expired);
    let token = id_token(&user).await;
    assert!(verifies(&key_of(&user, &token.header).await, &token));
    assert!(token.claims["exp"].as_u64().unwrap() + 3000 < user.simulator.ledger().at_ms / 1000);
    user.simulator.set("google", |settings| settings.id_token_tamper = IdTokenTamper::Missing);
    assert!(exchanged(&user, &AS_ALICE).await.json().get("id_token").is_none());
}

#[tokio::test]
async fn signatures_can_be_bad() {
    for alg in [IdTokenAlg::Es256, IdTokenAlg::Rs256] {
        let user = User::of("generic").await;
        let tampered = async |tamper| {
            user.simulator.set("generic", |settings| {
                settings.id_token_alg = alg;
                settings.id_token_tamper = tamper;
            });
            let token = id_token(&user).await;
            let key = key_of(&user, &token.header).await;
            assert_eq!(token.claims["sub"], "alice");
            (token, key)
        };
        let (token, key) = tampered(IdTokenTamper::OtherKey).await;
        assert!(token.header["alg"] == key["alg"] && !verifies(&key, &token));
        let (token, _) = tampered(IdTokenTamper::AlgNone).await;
        assert!(token.header["alg"] == "none" && token.signature.is_empty());
        let (token, key) = tampered(IdTokenTamper::Hs256WithPublicKey).await;
        assert_eq!((token.header["alg"].as_str(), token.signature.len()), (Some("HS256"), 32));
        if alg == IdTokenAlg::Es256 {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, p256_pem(&key).as_bytes());
            hmac::verify(&secret, token.signed.as_bytes(), &token.signature).unwrap();
        }
    }
}

fn p256_pem(key: &Value) -> String {
    let start = STANDARD.decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE").unwrap();
    // The start already has the point's first byte.
    let encoded = STANDARD.encode([&start, &point(key)[1..]].concat());
    let (first, second) = encoded.split_at(64);
    format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n")
}

#[tokio::test]
async fn userinfo_names_the_owner_of_a_live_token() {
    for profile in WITH_OPENID {
        let user = User::of(profile).await;
        let target = format!("/{profile}/userinfo");
        let to = user.simulator.address();
        let held = tokens(&exchanged(&user, &AS_ALICE).await);
        let bearer = format!("Bearer {}", held.access);
        let headers = [("authorization", bearer.as_str())];
        let answer = request(to, "GET", &target, &headers, "").await;
        assert_eq!(answer.json(), json!({"sub": "alice", "email": "alice@example.test", "name": "alice"}));
        assert_eq!(user.get(&target).await.status, Some(401));
        user.simulator.expire(profile);
        assert_eq!(request(to, "GET", &target, &headers, "").await.status, Some(401));
        assert_eq!(user.counters().api_calls, 0, "it is not the API");
    }
}

#[tokio::test]
async fn github_gives_each_user_a_number() {
    for profile in ["github", "github-oauth-app"] {
        let user = User::of(profile).await;
        let mut ids = Vec::new();
        for name in ["alice", "bob", "alice"] {
            let held = tokens(&exchanged(&user, &[("simulated_user", name)]).await);
            let answer = user.api("/user", &held.access).await.json();
            assert_eq!((answer["login"].as_str(), answer["name"].as_str()), (Some(name), Some(name)));
            ids.push(answer["id"].as_u64().unwrap());
        }
        assert!(ids[0] == ids[2] && ids[0] != ids[1]);
    }
}

#[tokio::test]
async fn notion_names_the_owner_in_token_replies() {
    let user = User::of("notion").await;
    let mut ids = Vec::new();
    for name in ["alice", "bob", "alice"] {
        let exchange = exchanged(&user, &[("simulated_user", name)]).await;
        let refresh = user.refresh(&tokens(&exchange).refresh).await;
        for reply in [exchange.json(), refresh.json()] {
            let owner = &reply["owner"];
            assert_eq!((owner["type"].as_str(), owner["user"]["object"].as_str()), (Some("user"), Some("user")));
            assert_eq!(owner["user"]["name"], name);
            ids.push(owner["user"]["id"].as_str().unwrap().to_owned());
        }
    }
    assert!(ids[0] == ids[1] && ids[0] == ids[4] && ids[0] != ids[2]);
    assert_eq!(ids[0].split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
}
