//! Dynamic client registration (RFC 7591): what is registered, and what is not.

use serde_json::json;

use crate::client::send;
use crate::front::{Front, REDIRECT_URI, Tokens, assert_oauth_error, registration};
use crate::issuer_support::{Stage, front, get, key_set, signer};

#[tokio::test]
async fn a_registration_is_answered_with_what_was_registered() {
    let front = front().await;
    let uris = [REDIRECT_URI, "https://client.example/callback", "cursor://anysphere.cursor-mcp/oauth/callback"];
    let metadata = json!({
        "client_name": "Notes", "redirect_uris": uris, "token_endpoint_auth_method": "none",
        "application_type": "native", "grant_types": ["authorization_code", "refresh_token", "device_code"],
        "response_types": ["code"], "scope": "mcp", "client_uri": "https://client.example", "logo_uri": "http://10.0.0.1/x",
        "software_id": "x", "contacts": ["a@b.example"], "unknown": { "nested": [1, 2, 3] }, "tos_uri": null,
    });
    for path in ["/register", "/oauth/register"] {
        let answer = front.post_json(path, &metadata).await;
        assert_eq!((answer.status, answer.header("cache-control")), (201, "no-store"), "{}", answer.text());
        let json = answer.json();
        assert!(json["client_id"].as_str().is_some_and(|id| id.starts_with("dyn_")), "{json}");
        assert!(json["client_id_issued_at"].is_i64());
        assert_eq!((&json["client_name"], &json["redirect_uris"]), (&json!("Notes"), &json!(uris)));
        assert_eq!(json["token_endpoint_auth_method"], "none");
        assert_eq!(json["grant_types"], json!(["authorization_code", "refresh_token"]), "without what there is not");
        assert_eq!((&json["response_types"], &json["application_type"]), (&json!(["code"]), &json!("native")));
        for member in ["client_secret", "client_secret_expires_at", "registration_access_token", "unknown", "logo_uri"]
        {
            assert!(json.get(member).is_none(), "{member}: {json}");
        }
    }
    front.stop().await;
}

#[tokio::test]
async fn only_clients_with_a_secret_are_given_one() {
    let front = front().await;
    for (method, stored) in [
        (json!("client_secret_post"), "client_secret_post"),
        (json!("client_secret_basic"), "client_secret_basic"),
        (json!(null), "client_secret_basic"),
    ] {
        let metadata = json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": method });
        let json = front.post_json("/register", &metadata).await.json();
        assert_eq!(json["token_endpoint_auth_method"], stored);
        assert_eq!(json["client_secret_expires_at"], 0);
        let secret = json["client_secret"].as_str().expect("a secret");
        // Nothing in it is written differently in a URL: not every client encodes it for HTTP Basic.
        assert!(secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{secret}");
    }
    front.stop().await;
}

#[tokio::test]
async fn redirect_uris_that_lead_astray_are_not_registered() {
    let front = front().await;
    for uri in [
        "javascript:alert(1)",
        "javascript://app.example/%0aalert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "https://*.example/cb",
        "https://*/cb",
        "http://evil.example/cb",
        "http://127.0.0.1.evil.example/cb",
        "http://0.0.0.0/cb",
        "http://192.168.0.1/cb",
        "myapp:/cb",
        "com.example.app:/cb",
        "cursor://anysphere.cursor-mcp/other",
        "https://app.example/cb#fragment",
        "https://app.example/cb#",
        "https://user@app.example/cb",
        "https://user:password@app.example/cb",
        "https://app.example\\@evil.example",
        "https://app.example/../cb",
        "https://APP.example/cb",
        "//app.example/cb",
        "/cb",
        "",
        "https://",
        "https://app.example/c b",
        "https://app.example/\ncb",
        "urn:ietf:wg:oauth:2.0:oob",
    ] {
        // One bad one spoils the registration.
        let metadata = json!({ "redirect_uris": [REDIRECT_URI, uri], "token_endpoint_auth_method": "none" });
        let answer = front.post_json("/register", &metadata).await;
        assert_oauth_error(&answer, 400, "invalid_redirect_uri");
        let description = answer.json()["error_description"].as_str().expect("text").to_owned();
        assert!(description.starts_with("redirect_uris[1]: "), "{uri}: {description}");
    }
    let many: Vec<String> = (0..1000).map(|number| format!("https://app.example/{number}")).collect();
    for uris in [json!([]), json!(null), json!(many), json!(&many[..11])] {
        let answer = front.post_json("/register", &json!({ "redirect_uris": uris })).await;
        assert_oauth_error(&answer, 400, "invalid_redirect_uri");
    }
    let ten = json!({ "redirect_uris": many[..10], "token_endpoint_auth_method": "none" });
    assert_eq!(front.post_json("/register", &ten).await.status, 201);
    front.stop().await;
}

#[tokio::test]
async fn metadata_that_misleads_is_not_registered() {
    let front = front().await;
    let (key, long) = (signer(), "a".repeat(101));
    let private = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": "a", "y": "b", "d": "c" }] });
    for (member, value) in [
        ("client_name", json!("")),
        ("client_name", json!("   ")),
        ("client_name", json!(long)),
        ("client_name", json!("a\u{0}b")),
        ("client_name", json!("a\nb")),
        ("client_name", json!("\u{1b}[31mred")),
        ("client_name", json!("a\u{202e}b")),
        ("client_name", json!("a\u{200b}b")),
        ("client_name", json!("a\u{2066}b")),
        ("client_name", json!("Notion")),
        ("client_name", json!("  gitHUB ")),
        ("client_name", json!("sidekey")),
        ("client_name", json!(["x"])),
        ("redirect_uris", json!(REDIRECT_URI)),
        ("redirect_uris", json!([1])),
        ("response_types", json!(["token"])),
        ("response_types", json!("code")),
        ("grant_types", json!(["implicit"])),
        ("grant_types", json!(["client_credentials"])),
        ("grant_types", json!([])),
        ("token_endpoint_auth_method", json!("client_secret_jwt")),
        ("token_endpoint_auth_method", json!("tls_client_auth")),
        ("token_endpoint_auth_method", json!("")),
        ("token_endpoint_auth_method", json!("private_key_jwt")),
        ("scope", json!("\"")),
        ("scope", json!(1)),
    ] {
        let mut metadata = json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none" });
        metadata[member] = value;
        let answer = front.post_json("/register", &metadata).await;
        assert_oauth_error(&answer, 400, "invalid_client_metadata");
    }
    let jwks = key_set(&[&key]);
    for (member, value) in [
        ("jwks", private),
        ("jwks", json!({ "keys": [{ "kty": "oct", "k": "secret" }] })),
        ("jwks", json!({ "keys": [] })),
        ("jwks", json!("x")),
        ("jwks_uri", json!("http://client.example/jwks.json")),
        ("jwks_uri", json!("file:///etc/passwd")),
        ("jwks_uri", json!(format!("https://client.example/{}", "x".repeat(600)))),
    ] {
        let mut metadata = json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "private_key_jwt" });
        metadata[member] = value;
        assert_oauth_error(&front.post_json("/register", &metadata).await, 400, "invalid_client_metadata");
    }
    let both = json!({
        "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "private_key_jwt", "jwks": jwks,
        "jwks_uri": "https://client.example/jwks.json",
    });
    assert_oauth_error(&front.post_json("/register", &both).await, 400, "invalid_client_metadata");
    front.stop().await;
}

#[tokio::test]
async fn a_registration_is_a_small_json_object() {
    let front = front().await;
    let send_body = async |kind: &str, body: String| {
        let request = front.world.client.post(front.world.public("/register"));
        send(request.header("content-type", kind).body(body)).await
    };
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let uris = format!("\"redirect_uris\":[\"{REDIRECT_URI}\"]");
    for body in [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "\"x\"".to_owned(),
        "{".to_owned(),
        "\u{0}".to_owned(),
        deep,
        format!("{{{uris},{uris}}}"),
        format!("{{{uris},\"client_name\":\"a\",\"client_name\":\"b\"}}"),
        format!("{{{uris}}} trailing"),
        format!("{{{uris},\"x\":1e999}}"),
    ] {
        assert_oauth_error(&send_body("application/json", body.clone()).await, 400, "invalid_client_metadata");
    }
    let good = format!("{{{uris}}}");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
        assert_oauth_error(&send_body(kind, good.clone()).await, 415, "invalid_request");
    }
    assert_eq!(send_body("Application/JSON; charset=utf-8", good).await.status, 201);
    for method in ["GET", "PUT", "DELETE"] {
        let request = front.world.client.request(method.parse().expect("a method"), front.world.public("/register"));
        assert_eq!(send(request).await.status, 405, "{method}");
    }
    front.stop().await;
}

#[tokio::test]
async fn nobody_registers_where_the_operator_switched_it_off() {
    let tables = "[issuer.registration]\nenabled = false\n".to_owned();
    let front = Stage { tables, ..Stage::default() }.start().await;
    let answer = front.post_json("/register", &registration("A client")).await;
    assert_oauth_error(&answer, 400, "invalid_client_metadata");
    let metadata = get(&front, &front.world.public("/.well-known/oauth-authorization-server")).await;
    assert_eq!(metadata.json().get("registration_endpoint"), None);
    front.stop().await;
}

#[tokio::test]
async fn scopes_that_a_client_names_for_itself_keep_nothing_from_it() {
    let front = Front::start().await;
    let mut metadata = registration("A client");
    metadata["scope"] = "openid profile".into();
    let answer = front.post_json("/register", &metadata).await.json();
    assert_eq!(answer["scope"], "openid profile");
    let client_id = answer["client_id"].as_str().expect("there");
    let code = front.code(client_id, "alice").await;
    let tokens = Tokens::of(client_id.to_owned(), &front.redeem(client_id, &code, &[]).await);
    assert_eq!(front.whoami(&tokens.access).await.status, 200);
    front.stop().await;
}
