//! Clients: how they register, and how they prove who they are.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::front::{Front, REDIRECT_URI, Tokens, assert_oauth_error};
use crate::issuer_support::{Stage, basic, front, is_taken, post, redeem_as};

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
    let (key, long) = (crate::issuer_support::signer(), "a".repeat(101));
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
    let jwks = crate::issuer_support::key_set(&[&key]);
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
    let send = async |kind: &str, body: String| {
        let request = front.world.client.post(front.world.public("/register"));
        crate::client::send(request.header("content-type", kind).body(body)).await
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
        assert_oauth_error(&send("application/json", body.clone()).await, 400, "invalid_client_metadata");
    }
    let good = format!("{{{uris}}}");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
        assert_oauth_error(&send(kind, good.clone()).await, 415, "invalid_request");
    }
    assert_eq!(send("Application/JSON; charset=utf-8", good).await.status, 201);
    for method in ["GET", "PUT", "DELETE"] {
        let request = front.world.client.request(method.parse().expect("a method"), front.world.public("/register"));
        assert_eq!(crate::client::send(request).await.status, 405, "{method}");
    }
    front.stop().await;
}

#[tokio::test]
async fn nobody_registers_where_the_operator_switched_it_off() {
    let tables = "[issuer.registration]\nenabled = false\n".to_owned();
    let front = Stage { tables, ..Stage::default() }.start().await;
    let answer = front.post_json("/register", &crate::front::registration("A client")).await;
    assert_oauth_error(&answer, 400, "invalid_client_metadata");
    let metadata =
        crate::issuer_support::get(&front, &front.world.public("/.well-known/oauth-authorization-server")).await;
    assert_eq!(metadata.json().get("registration_endpoint"), None);
    front.stop().await;
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
    let fields = [
        ("client_id", &*id),
        ("client_assertion", "a.b.c"),
        ("client_assertion_type", crate::issuer_support::ASSERTION_TYPE),
    ];
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
