//! Requests at the token endpoint that are not clear, not for this endpoint, or not from who they say.

use serde_json::json;

use crate::client::send;
use crate::front::{REDIRECT_URI, Tokens, VERIFIER, assert_oauth_error};
use crate::issuer_support::{basic, front, post};

#[tokio::test]
async fn a_good_answer_holds_all_that_clients_look_for() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let code = front.code(&client_id, "alice").await;
    let first = front.redeem(&client_id, &code, &[]).await;
    let tokens = Tokens::of(client_id.clone(), &first);
    let second = front.refresh(&client_id, &tokens.refresh).await;
    for answer in [first, second] {
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
        assert_eq!(answer.header("content-type"), "application/json");
        let json = answer.json();
        assert_eq!(json.as_object().map(serde_json::Map::len), Some(5), "{json}");
        assert_eq!((&json["token_type"], &json["expires_in"]), (&json!("Bearer"), &json!(3600)));
        assert_eq!(json["scope"], "mcp");
    }
    front.stop().await;
}

#[tokio::test]
async fn other_grant_types_are_refused() {
    let front = front().await;
    let client_id = front.register("A client").await;
    for kind in [
        "password",
        "client_credentials",
        "implicit",
        "urn:ietf:params:oauth:grant-type:device_code",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "Authorization_Code",
        "authorization_code refresh_token",
    ] {
        let form = [("grant_type", kind), ("client_id", &client_id), ("username", "alice"), ("password", "x")];
        assert_oauth_error(&front.post_form("/token", &form).await, 400, "unsupported_grant_type");
    }
    for form in [vec![("client_id", &*client_id)], vec![("client_id", &*client_id), ("grant_type", "")]] {
        assert_oauth_error(&front.post_form("/token", &form).await, 400, "invalid_request");
    }
    front.stop().await;
}

#[tokio::test]
async fn no_parameter_may_be_there_twice_and_no_code_is_used_up_by_that() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let code = front.code(&client_id, "alice").await;
    let good = [
        ("grant_type", "authorization_code"),
        ("client_id", &*client_id),
        ("code", &*code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
    ];
    for (name, value) in good {
        for second in [value, "other", ""] {
            let form = [good.as_slice(), &[(name, second)]].concat();
            assert_oauth_error(&front.post_form("/token", &form).await, 400, "invalid_request");
        }
    }
    let unknown = [good.as_slice(), &[("x", "1"), ("x", "2")]].concat();
    assert_oauth_error(&front.post_form("/token", &unknown).await, 400, "invalid_request");
    assert_eq!(front.post_form("/token", &good).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn a_refresh_token_is_not_used_up_by_a_repeated_parameter() {
    let front = front().await;
    let tokens = front.authorized("alice").await;
    let good = [
        ("grant_type", "refresh_token"),
        ("client_id", &*tokens.client_id),
        ("refresh_token", &*tokens.refresh),
        ("scope", "mcp"),
    ];
    for (name, value) in good {
        let form = [good.as_slice(), &[(name, value)]].concat();
        assert_oauth_error(&front.post_form("/token", &form).await, 400, "invalid_request");
    }
    assert_eq!(front.post_form("/token", &good).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn a_client_says_who_it_is_in_one_way() {
    let front = front().await;
    let metadata = json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "client_secret_basic" });
    let registered = front.post_json("/register", &metadata).await.json();
    let text = |name: &str| registered[name].as_str().expect("there").to_owned();
    let (client_id, secret) = (text("client_id"), text("client_secret"));
    let header = basic(&client_id, &secret);
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", "x")];
    let with = |more: &[(&'static str, &str)]| {
        let more: Vec<(&str, String)> = more.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let mut form: Vec<(&str, String)> = refresh.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        form.extend(more);
        form
    };
    let send_form = async |form: Vec<(&str, String)>| {
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        post(&front, "/token", &form, Some(("authorization", &header))).await
    };
    for more in [
        vec![("client_id", "other")],
        vec![("client_secret", &*secret)],
        vec![("client_id", &*client_id), ("client_secret", &*secret)],
        vec![("client_assertion", "x"), ("client_assertion_type", crate::issuer_support::ASSERTION_TYPE)],
    ] {
        assert_oauth_error(&send_form(with(&more)).await, 400, "invalid_request");
    }
    // The same twice over is still one.
    assert_oauth_error(&send_form(with(&[("client_id", &client_id)])).await, 400, "invalid_grant");
    let twice = front.world.client.post(front.world.public("/token")).header("authorization", &header);
    let twice = twice.header("authorization", basic("other", "x"));
    assert_oauth_error(&send(crate::client::form(twice, &refresh)).await, 400, "invalid_request");
    front.stop().await;
}

#[tokio::test]
async fn an_unknown_client_is_told_so_and_can_register_anew() {
    let front = front().await;
    for id in ["dyn_unknown", "reporting", "x", &"x".repeat(10_000), "dyn_é", "../../etc/passwd", "' OR 1=1 --"] {
        let form = [("grant_type", "refresh_token"), ("client_id", id), ("refresh_token", "x")];
        let answer = front.post_form("/token", &form).await;
        assert_oauth_error(&answer, 401, "invalid_client");
        assert!(!answer.headers.contains_key("www-authenticate"), "it did not try with that header");
        let form = [("grant_type", "refresh_token"), ("refresh_token", "x")];
        let answer = post(&front, "/token", &form, Some(("authorization", &basic(&id.replace('%', ""), "x")))).await;
        assert_oauth_error(&answer, 401, "invalid_client");
        assert_eq!(answer.header("www-authenticate"), "Basic realm=\"sidekey\"");
    }
    for header in ["Bearer x", "Basic", "Basic !", "Basic bm9jb2xvbg==", "Digest x"] {
        let answer = post(&front, "/token", &[("grant_type", "refresh_token")], Some(("authorization", header))).await;
        assert_oauth_error(&answer, 401, "invalid_client");
    }
    for form in [vec![("grant_type", "refresh_token")], vec![("grant_type", "refresh_token"), ("client_id", "")]] {
        assert_oauth_error(&front.post_form("/token", &form).await, 400, "invalid_request");
    }
    front.stop().await;
}

#[tokio::test]
async fn no_kind_of_token_passes_for_another() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let unused = front.code(&client_id, "alice").await;
    let tokens = Tokens::of(client_id.clone(), &front.redeem(&client_id, &unused, &[]).await);
    let code = front.code(&client_id, "alice").await;
    for wrong in [&tokens.access, &tokens.refresh, "", "x", &"x".repeat(20_000), "é"] {
        let error = if wrong.is_empty() { "invalid_request" } else { "invalid_grant" };
        assert_oauth_error(&front.redeem(&client_id, wrong, &[]).await, 400, error);
    }
    for wrong in [&tokens.access, &code, "", "x", &"x".repeat(20_000), "é"] {
        let error = if wrong.is_empty() { "invalid_request" } else { "invalid_grant" };
        assert_oauth_error(&front.refresh(&client_id, wrong).await, 400, error);
    }
    for wrong in [&tokens.refresh, &code] {
        assert_eq!(front.call(wrong, "ping", json!({})).await.status, 401);
    }
    // None of this has cost anything.
    assert_eq!(front.redeem(&client_id, &code, &[]).await.status, 200);
    assert_eq!(front.refresh(&client_id, &tokens.refresh).await.status, 200);
    front.stop().await;
}
