//! Limits of the issuer: whoever fails too often is slowed down, and nobody else at the same address is.

use std::time::Duration;

use serde_json::json;

use crate::client::{Answer, send};
use crate::front::{Front, REDIRECT_URI, Tokens, assert_oauth_error, registration};
use crate::issuer_support::{Stage, get, is_taken, post, redeem_as};

fn limits(failures: &str, registrations: &str) -> String {
    format!("[limits]\nfailures_per_address = \"{failures}\"\nregistrations_per_address = \"{registrations}\"\n")
}

/// Checks that an answer says how long to wait, and for how many.
fn assert_too_many(answer: &Answer, limit: u32) {
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert_eq!(answer.header("ratelimit-limit"), limit.to_string());
    assert_eq!(answer.header("ratelimit-remaining"), "0");
    let seconds: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!(seconds >= 1, "{seconds}");
    assert_eq!(answer.header("ratelimit-reset"), answer.header("retry-after"));
}

async fn bad_refresh(front: &Front) -> Answer {
    front.refresh("dyn_unknown", "x").await
}

#[tokio::test]
async fn failures_at_the_token_endpoint_are_limited_for_each_address() {
    let (stage, clock) = Stage::with_clock();
    let front = Stage { tables: limits("40/40m", "100/1m"), ..stage }.start().await;
    let tokens = front.authorized("alice").await;
    let client_id = front.register("A client").await;
    let code = front.code(&client_id, "alice").await;
    let mut refused = bad_refresh(&front).await;
    for _ in 0..40 {
        if refused.status == 429 {
            break;
        }
        assert_oauth_error(&refused, 401, "invalid_client");
        assert_eq!(refused.header("ratelimit-limit"), "40");
        let left: u32 = refused.header("ratelimit-remaining").parse().expect("a number");
        let next = bad_refresh(&front).await;
        if next.status != 429 {
            assert_eq!(next.header("ratelimit-remaining"), (left - 1).to_string());
        } else {
            assert_eq!(left, 0);
        }
        refused = next;
    }
    assert_too_many(&refused, 40);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    // Whoever does nothing wrong at the same address notices nothing.
    let next = Tokens::of(tokens.client_id.clone(), &front.refresh(&tokens.client_id, &tokens.refresh).await);
    assert!(is_taken(&front, &next.access).await);
    assert_eq!(front.redeem(&client_id, &code, &[]).await.status, 200);
    let revoke = [("client_id", &*tokens.client_id), ("token", &*next.access)];
    assert_eq!(front.post_form("/revoke", &revoke).await.status, 200);
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    clock.advance(Duration::from_secs(wait));
    assert_oauth_error(&bad_refresh(&front).await, 401, "invalid_client");
    assert_too_many(&bad_refresh(&front).await, 40);
    front.stop().await;
}

#[tokio::test]
async fn guesses_count_wherever_they_are_made() {
    let (stage, _clock) = Stage::with_clock();
    let front = Stage { tables: limits("6/1h", "100/1m"), ..stage }.start().await;
    let client_id = front.register("A client").await;
    for path in ["/token", "/revoke", "/introspect", "/oauth/token", "/oauth/revoke"] {
        let form = [("client_id", "dyn_unknown"), ("token", "x"), ("grant_type", "refresh_token")];
        assert_oauth_error(&front.post_form(path, &form).await, 401, "invalid_client");
    }
    assert_eq!(front.call("guess", "ping", json!({})).await.status, 401);
    for answer in [
        bad_refresh(&front).await,
        front.redeem(&client_id, "sk_ac_guess", &[]).await,
        front.call("guess", "ping", json!({})).await,
        get(&front, &front.authorize_url(&client_id, &[])).await,
    ] {
        assert_too_many(&answer, 6);
    }
    // What holds no credentials is still served.
    assert_eq!(get(&front, &front.world.public("/.well-known/oauth-authorization-server")).await.status, 200);
    front.stop().await;
}

/// The hash is slow on purpose, so it must not be computed for whoever fails all the time; who was right once is known.
#[tokio::test]
async fn an_address_that_fails_makes_nobody_compute_slow_hashes() {
    let secret = "correct horse battery staple";
    let hash = crate::issuer_clients::hash_of(secret).await;
    let (stage, clock) = Stage::with_clock();
    let mut tables = limits("20/20m", "100/1m");
    for id in ["known", "unseen"] {
        let lines = format!("name = \"Client\"\nredirect_uris = [\"{REDIRECT_URI}\"]\nsecret_hash = '{hash}'\n");
        tables.push_str(&format!("[clients.{id}]\n{lines}"));
    }
    let front = Stage { tables, ..stage }.start().await;
    let tokens = Tokens::of("known".to_owned(), &redeem_as(&front, "known", &client("known", secret), None).await);
    let refresh = async |id: &str, secret: &str, token: &str| {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        post(&front, "/token", &[form.as_slice(), &client(id, secret)].concat(), None).await
    };
    let mut answer = refresh("known", "a wrong secret", "x").await;
    for _ in 0..30 {
        answer = refresh("known", "a wrong secret", "x").await;
    }
    assert_too_many(&answer, 20);
    assert_eq!(refresh("known", secret, &tokens.refresh).await.status, 200, "the real one is not locked out");
    // Even what is right is not looked at: that would take the hash.
    assert_too_many(&refresh("unseen", secret, "x").await, 20);
    clock.advance(Duration::from_secs(60));
    assert_oauth_error(&refresh("unseen", secret, "x").await, 400, "invalid_grant");
    front.stop().await;
}

fn client<'a>(id: &'a str, secret: &'a str) -> [(&'a str, &'a str); 2] {
    [("client_id", id), ("client_secret", secret)]
}

#[tokio::test]
async fn registrations_are_limited_for_each_address() {
    let (stage, clock) = Stage::with_clock();
    let front = Stage { tables: limits("100/1m", "3/30m"), ..stage }.start().await;
    for left in [2, 1, 0] {
        let answer = front.post_json("/register", &registration("A client")).await;
        assert_eq!(answer.status, 201);
        assert_eq!((answer.header("ratelimit-limit"), answer.header("ratelimit-remaining")), ("3", &*left.to_string()));
    }
    for path in ["/register", "/oauth/register"] {
        let answer = front.post_json(path, &registration("A client")).await;
        assert_too_many(&answer, 3);
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    clock.advance(Duration::from_secs(600));
    assert_eq!(front.post_json("/register", &registration("A client")).await.status, 201);
    assert_eq!(front.post_json("/register", &registration("A client")).await.status, 429);
    front.stop().await;
}

#[tokio::test]
async fn bad_registrations_count_too() {
    let (stage, _clock) = Stage::with_clock();
    let front = Stage { tables: limits("100/1m", "2/1h"), ..stage }.start().await;
    for _ in 0..2 {
        assert_oauth_error(&front.post_json("/register", &json!({})).await, 400, "invalid_redirect_uri");
    }
    assert_too_many(&front.post_json("/register", &registration("A client")).await, 2);
    front.stop().await;
}

#[tokio::test]
async fn a_flood_of_registrations_drives_out_no_client_that_is_used() {
    let (stage, clock) = Stage::with_clock();
    let tables = "[issuer.registration]\nmax_clients = 5\nunused_retention = \"2d\"\n".to_owned();
    let front = Stage { tables, ..stage }.start().await;
    let tokens = front.authorized("alice").await;
    let mut registered = Vec::new();
    for number in 0..20 {
        registered.push(front.register(&format!("Client {number}")).await);
    }
    let is_known = async |id: &str| get(&front, &front.authorize_url(id, &[])).await.status == 200;
    for (number, id) in registered.iter().enumerate() {
        assert_eq!(is_known(id).await, number >= 15, "{number}: the newest five are kept");
    }
    assert!(is_known(&tokens.client_id).await);
    assert_eq!(front.refresh(&tokens.client_id, &tokens.refresh).await.status, 200);
    // What nobody uses is forgotten after a while; what was used is not.
    clock.advance(Duration::from_secs(2 * 86_400 + 120));
    crate::world::eventually("the unused are gone", async || !is_known(&registered[19]).await).await;
    assert!(is_known(&tokens.client_id).await);
    front.stop().await;
}

#[tokio::test]
async fn requests_of_one_grant_are_limited_and_those_of_others_are_not() {
    let (stage, clock) = Stage::with_clock();
    let tables = "[limits]\nfailures_per_address = \"1000/1m\"\nrequests_per_grant = \"3/3m\"\n".to_owned();
    let front = Stage { tables, ..stage }.start().await;
    let [alice, bob] = [front.authorized("alice").await, front.authorized("bob").await];
    for left in [2, 1, 0] {
        let answer = front.call(&alice.access, "ping", json!({})).await;
        assert_eq!((answer.status, answer.header("ratelimit-remaining")), (200, &*left.to_string()));
    }
    assert_too_many(&front.call(&alice.access, "ping", json!({})).await, 3);
    assert_eq!(front.call(&bob.access, "ping", json!({})).await.status, 200);
    clock.advance(Duration::from_secs(60));
    assert_eq!(front.call(&alice.access, "ping", json!({})).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn nobody_gets_another_address_by_saying_so() {
    let (stage, _clock) = Stage::with_clock();
    let front = Stage { tables: limits("2/1h", "100/1m"), ..stage }.start().await;
    let attempt = async |forwarded: &str| {
        let request = front.world.client.post(front.world.public("/token")).header("x-forwarded-for", forwarded);
        send(crate::client::form(request, &[("grant_type", "refresh_token"), ("client_id", "dyn_x")])).await.status
    };
    // Nobody is trusted, so the header is worth nothing.
    let statuses = [attempt("192.0.2.1").await, attempt("192.0.2.2").await, attempt("192.0.2.3").await];
    assert_eq!(statuses, [401, 401, 429]);
    front.stop().await;
}
