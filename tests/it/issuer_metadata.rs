//! What the issuer says about itself, that it is true, and who may read it.

use serde_json::{Value, json};

use crate::client::{Answer, send};
use crate::front::{Front, REDIRECT_URI, Tokens, assert_oauth_error, parameter};
use crate::issuer_support::{Stage, front, get};

const SERVER: &str = "/.well-known/oauth-authorization-server";
const RESOURCE: &str = "/.well-known/oauth-protected-resource";

async fn document(front: &Front, path: &str) -> Value {
    let answer = get(front, &front.world.public(path)).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{path}");
    assert_eq!(answer.header("cache-control"), "public, max-age=300", "{path}");
    answer.json()
}

async fn options(front: &Front, path: &str) -> Answer {
    let request = front.world.client.request(http::Method::OPTIONS, front.world.public(path));
    let request = request.header("origin", "https://evil.example").header("access-control-request-method", "POST");
    send(request.header("access-control-request-headers", "authorization, mcp-protocol-version")).await
}

#[tokio::test]
async fn the_metadata_says_what_there_is() {
    let server = "scopes = [\"mcp\"]\noptional_scopes = [\"write\"]\n".to_owned();
    let front = Stage { server, ..Stage::default() }.start().await;
    let issuer = front.world.public("");
    let methods = json!(["none", "client_secret_post", "client_secret_basic", "private_key_jwt"]);
    let algorithms = json!(["RS256", "PS256", "ES256"]);
    let expected = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "registration_endpoint": format!("{issuer}/register"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "introspection_endpoint": format!("{issuer}/introspect"),
        "jwks_uri": format!("{issuer}/jwks.json"),
        "scopes_supported": ["mcp", "offline_access", "write"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
        "introspection_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "private_key_jwt"],
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": true,
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    for path in [SERVER, "/.well-known/openid-configuration"] {
        assert_eq!(document(&front, path).await, expected, "{path}");
    }
    assert_eq!(document(&front, "/jwks.json").await, json!({ "keys": [] }), "nothing is signed");
    front.stop().await;
}

#[tokio::test]
async fn the_issuer_is_the_same_bytes_everywhere() {
    let front = front().await;
    let issuer = document(&front, SERVER).await["issuer"].clone();
    assert_eq!(issuer, front.world.public(""));
    assert_eq!(document(&front, RESOURCE).await["authorization_servers"], json!([issuer]));
    let client_id = front.register("A client").await;
    let back = front.browser("alice").authorize(&front.authorize_url(&client_id, &[])).await;
    assert_eq!(parameter(&back, "iss").map(Value::from), Some(issuer.clone()));
    let error = get(&front, &front.authorize_url(&client_id, &[("response_type", "token")])).await;
    assert_eq!(parameter(error.header("location"), "iss").map(Value::from), Some(issuer));
    front.stop().await;
}

#[tokio::test]
async fn what_is_not_offered_is_not_advertised() {
    let tables = "[issuer.registration]\nenabled = false\n[issuer.client_documents]\nenabled = false\n".to_owned();
    let front = Stage { tables, ..Stage::default() }.start().await;
    let metadata = document(&front, SERVER).await;
    assert_eq!(metadata.get("registration_endpoint"), None);
    assert_eq!(metadata["client_id_metadata_document_supported"], false);
    let url = front.authorize_url("https://client.example/client.json", &[]);
    assert_eq!(get(&front, &url).await.status, 400);
    front.stop().await;
}

#[tokio::test]
async fn a_resource_is_described_at_its_path_and_at_the_root() {
    let server = "scopes = [\"mcp\"]\noptional_scopes = [\"write\"]\n".to_owned();
    let front = Stage { server, ..Stage::default() }.start().await;
    let expected = json!({
        "resource": front.mcp(), "authorization_servers": [front.world.public("")], "scopes_supported": ["mcp"],
        "bearer_methods_supported": ["header"], "resource_name": "notes",
    });
    for path in ["/notes/mcp", "/notes/mcp/", "", "/"] {
        assert_eq!(document(&front, &format!("{RESOURCE}{path}")).await, expected, "{path}");
    }
    // It is where the challenge says.
    let challenge = front.call("x", "ping", json!({})).await.header("www-authenticate").to_owned();
    let url = format!("resource_metadata=\"{}\"", front.world.public(&format!("{RESOURCE}/notes/mcp")));
    assert!(challenge.starts_with("Bearer ") && challenge.contains(&url), "{challenge}");
    front.stop().await;
}

#[tokio::test]
async fn of_several_servers_each_has_its_own_document() {
    let tables =
        "[servers.other]\npath = \"/deep/er/x\"\nupstream = \"http://127.0.0.1:9/mcp\"\nscopes = [\"other\"]\n"
            .to_owned();
    let front = Stage { tables, ..Stage::default() }.start().await;
    let other = document(&front, &format!("{RESOURCE}/deep/er/x")).await;
    assert_eq!(
        (&other["resource"], &other["scopes_supported"]),
        (&json!(front.world.public("/deep/er/x")), &json!(["other"]))
    );
    assert_eq!(document(&front, &format!("{RESOURCE}/notes/mcp")).await["resource"], front.mcp());
    let root = document(&front, RESOURCE).await;
    assert_eq!(
        (&root["resource"], &root["scopes_supported"]),
        (&json!(front.world.public("")), &json!(["mcp", "other"]))
    );
    front.stop().await;
}

#[tokio::test]
async fn unknown_well_knowns_are_not_found() {
    let front = front().await;
    for path in [
        "/.well-known/",
        "/.well-known/x",
        "/.well-known/oauth-authorization-server/notes/mcp",
        "/.well-known/oauth-authorization-server/",
        "/.well-known/openid-configuration/notes/mcp",
        "/.well-known/oauth-protected-resource/other",
        "/.well-known/oauth-protected-resource/notes",
        "/.well-known/oauth-protected-resource/notes/mcp/x",
        "/.well-known/oauth-protected-resource/notes/mcp//",
        "/.well-known/oauth-protected-resource/NOTES/mcp",
        "/.well-known/oauth-protected-resource/..",
        "/.well-known/oauth-protected-resource/%2e%2e/%2e%2e",
        "/notes/mcp/.well-known/openid-configuration",
        "/notes/.well-known/oauth-authorization-server",
    ] {
        let url = front.world.public(path);
        for method in ["GET", "HEAD", "POST"] {
            let request = front.world.client.request(method.parse().expect("a method"), &url);
            let answer = send(request).await;
            assert!(matches!(answer.status, 404 | 405), "{method} {path}: {}", answer.status);
            assert!(method != "GET" || answer.status == 404, "{path}: {}", answer.status);
            assert!(!answer.headers.contains_key("location"), "{path}");
        }
    }
    front.stop().await;
}

#[tokio::test]
async fn documents_can_be_asked_for_with_head() {
    let front = front().await;
    for path in [SERVER, "/.well-known/openid-configuration", RESOURCE, "/jwks.json"] {
        let answer = send(front.world.client.head(front.world.public(path))).await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
    }
    front.stop().await;
}

#[tokio::test]
async fn every_method_grant_and_scope_that_is_advertised_works() {
    use crate::issuer_support::{ASSERTION_TYPE, assertion_claims, basic, key_set, redeem_as, signed, signer};
    let front = front().await;
    let metadata = document(&front, SERVER).await;
    let list = |name: &str| metadata[name].as_array().cloned().expect("a list");
    let key = signer();
    for method in list("token_endpoint_auth_methods_supported") {
        let mut registration = json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": method });
        if method == "private_key_jwt" {
            registration["jwks"] = key_set(&[&key]);
        }
        let registered = front.post_json("/register", &registration).await.json();
        let text = |name: &str| registered[name].as_str().unwrap_or_default().to_owned();
        let (id, secret) = (text("client_id"), text("client_secret"));
        let (header, assertion) = (basic(&id, &secret), signed(&key, &assertion_claims(&front, &id)));
        let (fields, header) = match method.as_str().expect("a name") {
            "none" => (vec![("client_id", &*id)], None),
            "client_secret_post" => (vec![("client_id", &*id), ("client_secret", &*secret)], None),
            "client_secret_basic" => (vec![], Some(("authorization", &*header))),
            "private_key_jwt" => {
                (vec![("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &*assertion)], None)
            }
            other => panic!("{other} is advertised"),
        };
        assert_eq!(redeem_as(&front, &id, &fields, header).await.status, 200, "{method}");
    }
    let client_id = front.register("A client").await;
    for scope in list("scopes_supported") {
        let scope = format!("mcp {}", scope.as_str().expect("a scope"));
        let back = front.browser("alice").authorize(&front.authorize_url(&client_id, &[("scope", &scope)])).await;
        let code = parameter(&back, "code").expect("a code");
        let tokens = Tokens::of(client_id.clone(), &front.redeem(&client_id, &code, &[]).await);
        assert_eq!(front.refresh(&client_id, &tokens.refresh).await.status, 200, "{scope}");
    }
    assert_eq!(list("grant_types_supported"), ["authorization_code", "refresh_token"], "both just worked");
    for method in ["client_secret_jwt", "self_signed_tls_client_auth", "attest_jwt_client_auth"] {
        let registration = json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": method });
        let answer = front.post_json("/register", &registration).await;
        assert_oauth_error(&answer, 400, "invalid_client_metadata");
    }
    front.stop().await;
}

#[tokio::test]
async fn pages_in_browsers_may_ask_whatever_is_for_programs() {
    let front = front().await;
    for path in [
        SERVER,
        "/.well-known/openid-configuration",
        RESOURCE,
        "/.well-known/oauth-protected-resource/notes/mcp",
        "/.well-known/unknown",
        "/jwks.json",
        "/token",
        "/register",
        "/revoke",
        "/introspect",
        "/oauth/token",
        "/oauth/register",
        "/oauth/revoke",
    ] {
        let preflight = options(&front, path).await;
        assert_eq!((preflight.status, preflight.body.len()), (204, 0), "{path}");
        assert_eq!(preflight.header("access-control-allow-methods"), "GET, POST, DELETE, OPTIONS", "{path}");
        let allowed = preflight.header("access-control-allow-headers").to_ascii_lowercase();
        for name in ["authorization", "content-type", "mcp-protocol-version", "mcp-session-id", "last-event-id"] {
            assert!(allowed.split(", ").any(|allowed| allowed == name), "{path} {name}: {allowed}");
        }
        let request = front.world.client.get(front.world.public(path)).header("origin", "https://evil.example");
        let posted = front.world.client.post(front.world.public(path)).header("origin", "https://evil.example");
        for answer in [preflight, send(request).await, send(posted).await] {
            assert_eq!(answer.header("access-control-allow-origin"), "*", "{path} {}", answer.status);
            assert!(!answer.headers.contains_key("access-control-allow-credentials"), "{path}");
            assert!(answer.header("access-control-expose-headers").contains("WWW-Authenticate"), "{path}");
        }
    }
    front.stop().await;
}

#[tokio::test]
async fn pages_in_browsers_may_not_read_what_is_for_people() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let authorize = front.authorize_url(&client_id, &[]);
    let path = authorize.strip_prefix(&front.world.public("")).expect("ours").to_owned();
    for path in [&*path, "/oauth/authorize", "/account", "/visit/x", "/callback/notion", "/connect/x"] {
        for method in ["OPTIONS", "GET", "POST"] {
            let request = front.world.client.request(method.parse().expect("a method"), front.world.public(path));
            let answer = send(request.header("origin", "https://evil.example").header("cookie", "a=b")).await;
            for name in ["access-control-allow-origin", "access-control-allow-credentials"] {
                assert!(!answer.headers.contains_key(name), "{method} {path}: {:?}", answer.headers);
            }
        }
    }
    front.stop().await;
}
