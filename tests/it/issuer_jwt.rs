//! Access tokens that are signed (RFC 9068): what they say, who can verify them, and that no other one is taken.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use sidekey::base::clock::ManualClock;
use sidekey::base::jws::{Algorithm, KeySet, Signer, generate_p256, verify};
use sidekey::base::secret::Secret;

use crate::front::{Front, Tokens};
use crate::issuer_support::{Stage, assert_dead, get, is_taken, restarted};
use crate::world::now;

/// A key that signs nothing but the tokens of these tests.
const RSA: &str = include_str!("keys/only-for-tests-rsa2048.pem");

fn p256() -> String {
    generate_p256().expect("a key").expose().to_owned()
}

fn signer(pem: &str) -> Signer {
    Signer::from_pem(&Secret::new(pem)).expect("a signer")
}

/// A front that signs with the first of these keys.
async fn start(keys: &[&str]) -> (Front, ManualClock) {
    let (stage, clock) = Stage::with_clock();
    let names: Vec<String> = (0..keys.len()).map(|number| format!("\"file:signing-{number}.pem\"")).collect();
    let issuer = format!("access_tokens = \"jwt\"\nsigning_keys = [{}]\n", names.join(", "));
    let files = keys.iter().enumerate();
    let files = files.map(|(number, key)| (format!("signing-{number}.pem"), (*key).to_owned())).collect();
    let tables = "[servers.other]\nupstream = \"http://127.0.0.1:9/mcp\"\nproviders = [\"notion\"]\n".to_owned();
    (Stage { issuer, files, tables, ..stage }.start().await, clock)
}

async fn published(front: &Front) -> Value {
    get(front, &front.world.public("/jwks.json")).await.json()
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).expect("a part");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test]
async fn a_signed_token_is_verified_with_the_published_keys() {
    for (pem, name, algorithm) in [(p256(), "ES256", Algorithm::Es256), (RSA.to_owned(), "RS256", Algorithm::Rs256)] {
        let (front, _clock) = start(&[&pem]).await;
        let tokens = front.authorized("alice").await;
        let keys = published(&front).await;
        assert_eq!(keys["keys"].as_array().map(Vec::len), Some(1));
        assert_eq!((&keys["keys"][0]["alg"], &keys["keys"][0]["use"]), (&json!(name), &json!("sig")));
        assert!(["d", "p", "q", "dp", "dq", "qi"].iter().all(|member| keys["keys"][0].get(*member).is_none()));
        let header = part(&tokens.access, 0);
        assert_eq!(header, json!({ "alg": name, "typ": "at+jwt", "kid": keys["keys"][0]["kid"] }));
        let set = KeySet::from_json(&keys).expect("a set");
        let verified = verify(&tokens.access, &set, &[algorithm]).expect("good");
        assert_eq!(verified.kind.as_deref(), Some("at+jwt"));
        let claims: Map<String, Value> = verified.claims;
        let names: Vec<&str> = claims.keys().map(String::as_str).collect();
        assert_eq!(names, ["iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti"]);
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!(front.world.public("")), &json!(front.mcp())));
        assert_eq!((&claims["client_id"], &claims["scope"]), (&json!(tokens.client_id), &json!("mcp")));
        assert_eq!(claims["sub"], front.grants().await[0]["subject"]);
        assert_eq!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(exp, iat)| exp - iat), Some(900));
        assert!(is_taken(&front, &tokens.access).await);
        let other = front.authorized("alice").await;
        assert_ne!(part(&other.access, 1)["jti"], claims["jti"]);
        let metadata = get(&front, &front.world.public("/.well-known/oauth-authorization-server")).await.json();
        assert_eq!(metadata["jwks_uri"], front.world.public("/jwks.json"));
        front.stop().await;
    }
}

#[tokio::test]
async fn a_signed_token_expires_and_can_be_taken_back() {
    let (front, clock) = start(&[&p256()]).await;
    let first = front.authorized("alice").await;
    clock.advance(Duration::from_secs(899));
    assert!(is_taken(&front, &first.access).await);
    clock.advance(Duration::from_secs(1));
    assert!(!is_taken(&front, &first.access).await);
    let second = Tokens::of(first.client_id.clone(), &front.refresh(&first.client_id, &first.refresh).await);
    let form = [("client_id", &*second.client_id), ("token", &*second.access)];
    assert_eq!(front.post_form("/revoke", &form).await.status, 200);
    assert!(!is_taken(&front, &second.access).await);
    let third = Tokens::of(first.client_id.clone(), &front.refresh(&first.client_id, &second.refresh).await);
    let form = [("client_id", &*third.client_id), ("token", &*third.refresh)];
    assert_eq!(front.post_form("/revoke", &form).await.status, 200);
    assert_dead(&front, &third).await;
    front.stop().await;
}

#[tokio::test]
async fn tokens_that_were_not_issued_here_are_refused() {
    let pem = p256();
    let (front, _clock) = start(&[&pem, RSA]).await;
    let tokens = front.authorized("alice").await;
    let (own, evil) = (signer(&pem), signer(&p256()));
    let (header, claims) = (part(&tokens.access, 0), part(&tokens.access, 1));
    let signature = tokens.access.rsplit_once('.').expect("parts").1;
    let public = own.public_jwk();
    let with_header = |members: Value| {
        let mut changed = header.clone();
        for (name, value) in members.as_object().expect("an object") {
            changed[name] = value.clone();
        }
        format!("{}.{}.{signature}", encoded(&changed), encoded(&claims))
    };
    let with_claim = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        changed
    };
    let sign = |claims: &Value| own.sign("at+jwt", claims).expect("signed").expose().to_owned();
    let hmac = |key: &[u8]| {
        let text = format!("{}.{}", encoded(&json!({ "alg": "HS256", "typ": "at+jwt" })), encoded(&claims));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, text.as_bytes())))
    };
    let duplicated = format!(
        "{}.{}.{signature}",
        encoded(&header),
        URL_SAFE_NO_PAD.encode(format!("{{\"sub\":\"root\",{}", &claims.to_string()[1..]))
    );
    let mut forged = vec![
        ("none", format!("{}.{}.", encoded(&json!({ "alg": "none" })), encoded(&claims))),
        ("None", with_header(json!({ "alg": "None" }))),
        ("no signature", format!("{}.{}.", encoded(&header), encoded(&claims))),
        ("HMAC with the public key", hmac(public.to_string().as_bytes())),
        ("HMAC with the point", hmac(public["x"].as_str().expect("there").as_bytes())),
        ("HMAC with nothing", hmac(b"")),
        ("another key", evil.sign("at+jwt", &claims).expect("signed").expose().to_owned()),
        ("no typ", with_header(json!({ "typ": null }))),
        ("an ID token", own.sign("JWT", &claims).expect("signed").expose().to_owned()),
        ("kid of a path", with_header(json!({ "kid": "../../../../dev/null" }))),
        ("kid of a URL", with_header(json!({ "kid": "https://evil.example/jwks.json" }))),
        ("kid of SQL", with_header(json!({ "kid": "x' UNION SELECT 'key" }))),
        ("jku", with_header(json!({ "jku": "https://evil.example/jwks.json" }))),
        ("x5u", with_header(json!({ "x5u": "https://evil.example/x" }))),
        ("jwk", with_header(json!({ "jwk": evil.public_jwk() }))),
        ("crit", with_header(json!({ "crit": ["exp"] }))),
        ("duplicate claims", duplicated),
        ("signature of another", format!("{}.{}.{}", encoded(&header), encoded(&claims), "A".repeat(86))),
        ("longer", format!("{}A", tokens.access)),
        ("one part too many", format!("{}.x", tokens.access)),
        ("padded", format!("{}=", tokens.access)),
        ("very long", format!("{}.{}.{}", "a".repeat(8000), "b".repeat(8000), "c".repeat(8000))),
    ];
    // With our own key even: what was never issued is not good.
    for (name, value) in [
        ("sub", json!("user:root")),
        ("aud", json!(front.world.public("/other/mcp"))),
        ("aud", json!([front.mcp(), "https://evil.example"])),
        ("iss", json!("https://evil.example")),
        ("exp", json!(now().as_seconds() + 86_400)),
        ("exp", json!((now().as_seconds() + 60).to_string())),
        ("exp", json!(1e300)),
        ("exp", json!(1_800_000_000.5)),
        ("scope", json!("mcp admin")),
        ("jti", json!("another")),
    ] {
        forged.push((name, sign(&with_claim(name, value))));
    }
    for (what, token) in forged {
        assert!(!is_taken(&front, &token).await, "{what}");
    }
    assert!(is_taken(&front, &tokens.access).await);
    front.stop().await;
}

#[tokio::test]
async fn a_signed_token_for_one_server_is_refused_at_its_sibling() {
    let (front, _clock) = start(&[&p256()]).await;
    let tokens = front.authorized("alice").await;
    let request = front.world.client.post(front.world.public("/other/mcp")).bearer_auth(&tokens.access);
    assert_eq!(crate::client::send(request.body("{}")).await.status, 401);
    front.stop().await;
}

#[tokio::test]
async fn a_new_key_signs_while_tokens_of_the_old_one_are_still_good() {
    let (old, new) = (p256(), p256());
    let (front, clock) = start(&[&old, &new]).await;
    let before = front.authorized("alice").await;
    let kid = |pem: &str| signer(pem).public_jwk()["kid"].clone();
    assert_eq!(part(&before.access, 0)["kid"], kid(&old));
    let both = |keys: &Value| {
        keys["keys"].as_array().expect("a list").iter().map(|key| key["kid"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(both(&published(&front).await), [kid(&old), kid(&new)]);
    let home = front.world.files.home.path();
    for (number, key) in [&new, &old].into_iter().enumerate() {
        std::fs::write(home.join(format!("signing-{number}.pem")), key).expect("written");
    }
    let front = restarted(front, Arc::new(clock.clone()), None).await;
    let keys = published(&front).await;
    assert_eq!(both(&keys), [kid(&new), kid(&old)]);
    assert!(is_taken(&front, &before.access).await, "signed with the old key");
    let after = Tokens::of(before.client_id.clone(), &front.refresh(&before.client_id, &before.refresh).await);
    assert_eq!(part(&after.access, 0)["kid"], kid(&new));
    let set = KeySet::from_json(&keys).expect("a set");
    for tokens in [&before, &after] {
        assert!(verify(&tokens.access, &set, &Algorithm::ALL).is_ok(), "whoever reads the keys can verify both");
        assert!(is_taken(&front, &tokens.access).await);
    }
    front.stop().await;
}

#[tokio::test]
async fn tokens_of_the_other_kind_stay_good_when_the_kind_is_changed() {
    let (stage, clock) = Stage::with_clock();
    let files = vec![("signing.pem".to_owned(), p256())];
    let front = Stage { files, ..stage }.start().await;
    let opaque = front.authorized("alice").await;
    let config = std::fs::read_to_string(&front.world.files.config).expect("there");
    let signing = "[issuer]\naccess_tokens = \"jwt\"\nsigning_keys = [\"file:signing.pem\"]\n";
    std::fs::write(&front.world.files.config, config.replace("[issuer]\n", signing)).expect("written");
    let front = restarted(front, Arc::new(clock.clone()), None).await;
    assert!(is_taken(&front, &opaque.access).await);
    let signed = Tokens::of(opaque.client_id.clone(), &front.refresh(&opaque.client_id, &opaque.refresh).await);
    assert!(signed.access.contains('.') && is_taken(&front, &signed.access).await);
    front.stop().await;
}
