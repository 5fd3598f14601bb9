//! Clients with a secret, and without: how they prove who they are.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::front::{Front, REDIRECT_URI, Tokens, assert_oauth_error};
use crate::issuer_support::{ASSERTION_TYPE, Stage, basic, front, is_taken, post, redeem_as};

/// What `sidekey clients hash` makes of a secret.
pub async fn hash_of(secret: &str) -> String {
    let mut command = crate::process::command(&["clients", "hash"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(secret.as_bytes()).await.expect("written");
    let output = child.wait_with_output().await.expect("it ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// A client that registered itself to authenticate with a secret in this way: id and secret.
async fn registered(front: &Front, method: &str) -> (String, String) {
    let metadata = json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": method });
    let answer = front.post_json("/register", &metadata).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let json = answer.json();
    let text = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("{name}: {json}")).to_owned();
    (text("client_id"), text("client_secret"))
}

#[tokio::test]
async fn a_client_that_registered_a_secret_needs_it() {
    let front = front().await;
    for method in ["client_secret_post", "client_secret_basic"] {
        let (id, secret) = registered(&front, method).await;
        let header = basic(&id, &secret);
        let in_header = redeem_as(&front, &id, &[], Some(("authorization", &header))).await;
        let tokens = Tokens::of(id.clone(), &in_header);
        assert!(is_taken(&front, &tokens.access).await);
        let in_body = redeem_as(&front, &id, &[("client_id", &id), ("client_secret", &secret)], None).await;
        assert_eq!(in_body.status, 200, "{}", in_body.text());
        let longer = format!("{secret}x");
        for wrong in ["", "x", &secret[1..], &longer, &secret.to_uppercase()] {
            let fields = [("client_id", &*id), ("client_secret", wrong)];
            assert_oauth_error(&redeem_as(&front, &id, &fields, None).await, 401, "invalid_client");
            let header = basic(&id, wrong);
            let answer = redeem_as(&front, &id, &[], Some(("authorization", &header))).await;
            assert_oauth_error(&answer, 401, "invalid_client");
            assert_eq!(answer.header("www-authenticate"), "Basic realm=\"sidekey\"");
        }
        assert_oauth_error(&front.refresh(&id, &tokens.refresh).await, 401, "invalid_client");
    }
    front.stop().await;
}

#[tokio::test]
async fn a_failed_proof_uses_up_no_code() {
    let front = front().await;
    let (id, secret) = registered(&front, "client_secret_post").await;
    let code = front.code(&id, "alice").await;
    assert_oauth_error(&front.redeem(&id, &code, &[("client_secret", "wrong")]).await, 401, "invalid_client");
    assert_oauth_error(&front.redeem(&id, &code, &[]).await, 401, "invalid_client");
    assert_eq!(front.redeem(&id, &code, &[("client_secret", &secret)]).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn a_public_client_must_not_pretend_to_authenticate() {
    let front = front().await;
    let id = front.register("A client").await;
    let fields = [("client_id", &*id), ("client_secret", "x")];
    assert_oauth_error(&redeem_as(&front, &id, &fields, None).await, 401, "invalid_client");
    for pair in [basic(&id, "x"), basic(&id, "")] {
        let answer = redeem_as(&front, &id, &[], Some(("authorization", &pair))).await;
        assert_oauth_error(&answer, 401, "invalid_client");
        assert_eq!(answer.header("www-authenticate"), "Basic realm=\"sidekey\"");
    }
    let fields = [("client_id", &*id), ("client_assertion", "a.b.c"), ("client_assertion_type", ASSERTION_TYPE)];
    assert_oauth_error(&redeem_as(&front, &id, &fields, None).await, 401, "invalid_client");
    front.stop().await;
}

#[tokio::test]
async fn a_client_of_the_operators_uses_its_secret_in_either_way() {
    // Clients encode these for HTTP Basic, and the body does so anyway.
    let secret = "p%ss word+with/odd=signs&more";
    let tables = format!(
        "[clients.reporting]\nname = \"Reporting\"\nredirect_uris = [\"{REDIRECT_URI}\"]\nsecret_hash = '{}'\n\
         [clients.viewer]\nname = \"Viewer\"\nredirect_uris = [\"{REDIRECT_URI}\"]\n",
        hash_of(secret).await
    );
    let front = Stage { tables, ..Stage::default() }.start().await;
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let header = basic("reporting", &encode(secret));
    let answer = redeem_as(&front, "reporting", &[], Some(("authorization", &header))).await;
    let tokens = Tokens::of("reporting".to_owned(), &answer);
    assert!(is_taken(&front, &tokens.access).await);
    let fields = [("client_id", "reporting"), ("client_secret", secret)];
    assert_eq!(redeem_as(&front, "reporting", &fields, None).await.status, 200);
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", &*tokens.refresh)];
    let refresh: Vec<_> = refresh.iter().chain(&fields).copied().collect();
    assert_eq!(post(&front, "/token", &refresh, None).await.status, 200);
    for wrong in ["p%ss word+with/odd=signs&mor", "x", ""] {
        let fields = [("client_id", "reporting"), ("client_secret", wrong)];
        assert_oauth_error(&redeem_as(&front, "reporting", &fields, None).await, 401, "invalid_client");
    }
    // A public one is a client too.
    assert_eq!(redeem_as(&front, "viewer", &[("client_id", "viewer")], None).await.status, 200);
    let grants: Vec<Value> = front.grants().await;
    assert!(grants.iter().any(|grant| grant["client_name"] == "Reporting"), "{grants:?}");
    front.stop().await;
}
