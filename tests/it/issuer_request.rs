//! The parameters of authorization requests: repeated ones, resources, scopes, state, and what every answer holds.

use serde_json::json;

use crate::client::send;
use crate::front::{Place, REDIRECT_URI, Tokens, decision, own_path, parameter};
use crate::issuer_support::{Stage, assert_redirect, front, get};

const OTHER_SERVER: &str =
    "[servers.other]\nupstream = \"http://127.0.0.1:9/mcp\"\nproviders = [\"notion\"]\nrequired = [\"notion\"]\n";

#[tokio::test]
async fn no_parameter_may_be_there_twice() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let good = front.authorize_url(&client_id, &[("scope", "mcp"), ("prompt", "consent"), ("nonce", "n")]);
    assert_eq!(get(&front, &good).await.status, 200);
    let parsed = url::Url::parse(&good).expect("a URL");
    let pairs =
        parsed.query_pairs().filter(|(name, _)| !["client_id", "redirect_uri", "state", "resource"].contains(&&**name));
    for (name, value) in pairs {
        for second in [&*value, "other", ""] {
            let mut url = parsed.clone();
            url.query_pairs_mut().append_pair(&name, second);
            assert_redirect(&front, &get(&front, url.as_str()).await, "invalid_request", &format!("{name}={second}"));
        }
    }
    let answer = get(&front, &format!("{good}&state=other")).await;
    let location = answer.header("location");
    assert_eq!(parameter(location, "error").as_deref(), Some("invalid_request"), "{location}");
    assert_eq!(parameter(location, "state"), None, "of two, none is the state");
    front.stop().await;
}

#[tokio::test]
async fn an_empty_parameter_is_as_good_as_none() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let empty = format!("{}&scope=&prompt=&response_mode=&request=&request_uri=", front.authorize_url(&client_id, &[]));
    assert_eq!(get(&front, &empty).await.status, 200);
    let without_state = format!("{}&state=", front.authorize_url(&client_id, &[("state", ""), ("scope", "unknown")]));
    let location = get(&front, &without_state).await.header("location").to_owned();
    assert_eq!(parameter(&location, "state"), None, "{location}");
    front.stop().await;
}

#[tokio::test]
async fn unknown_parameters_are_left_alone() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let url = front.authorize_url(&client_id, &[("ui_locales", "de"), ("access_type", "offline"), ("x", "<y>")]);
    assert_eq!(get(&front, &url).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn a_resource_is_one_of_the_servers() {
    let front = Stage { tables: OTHER_SERVER.to_owned(), ..Stage::default() }.start().await;
    let client_id = front.register("A client").await;
    let mcp = front.mcp();
    let other = front.world.public("/other/mcp");
    for good in [mcp.clone(), format!("{mcp}/"), mcp.replacen("http", "HTTP", 1)] {
        let answer = get(&front, &front.authorize_url(&client_id, &[("resource", &good)])).await;
        assert_eq!(answer.status, 200, "{good}");
    }
    for bad in [
        "https://evil.example/notes/mcp".to_owned(),
        "/notes/mcp".to_owned(),
        "notes".to_owned(),
        front.world.public(""),
        front.world.public("/"),
        front.world.public("/notes"),
        front.world.public("/NOTES/MCP"),
        format!("{mcp}#fragment"),
        format!("{mcp}?query=1"),
        format!("{mcp}/deeper"),
        format!("{mcp}//"),
        format!("{mcp} "),
        mcp.replace("127.0.0.1", "localhost"),
        mcp.replace("http://", "https://"),
        mcp.replace("http://", "http://user@"),
        format!("{mcp} {other}"),
    ] {
        let answer = get(&front, &front.authorize_url(&client_id, &[("resource", &bad)])).await;
        assert_redirect(&front, &answer, "invalid_target", &bad);
    }
    front.stop().await;
}

#[tokio::test]
async fn one_authorization_is_for_one_resource() {
    let front = Stage { tables: OTHER_SERVER.to_owned(), ..Stage::default() }.start().await;
    let client_id = front.register("A client").await;
    let good = front.authorize_url(&client_id, &[]);
    let also = |path: &str| format!("{good}&resource={}", front.world.public(path).replace(':', "%3A"));
    assert_redirect(&front, &get(&front, &also("/other/mcp")).await, "invalid_target", "two servers");
    assert_eq!(get(&front, &also("/notes/mcp/")).await.status, 200, "the same twice");
    let none = get(&front, &front.authorize_url(&client_id, &[("resource", "")])).await;
    assert_redirect(&front, &none, "invalid_target", "none, and two servers");
    front.stop().await;
}

#[tokio::test]
async fn a_client_that_names_no_resource_means_the_only_server() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let back = front.browser("alice").authorize(&front.authorize_url(&client_id, &[("resource", "")])).await;
    let tokens =
        Tokens::of(client_id.clone(), &front.redeem(&client_id, &parameter(&back, "code").expect("one"), &[]).await);
    assert_eq!(front.call(&tokens.access, "ping", json!({})).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn a_token_for_one_server_is_refused_at_its_sibling() {
    let front = Stage { tables: OTHER_SERVER.to_owned(), ..Stage::default() }.start().await;
    let tokens = front.authorized("alice").await;
    assert_eq!(front.call(&tokens.access, "ping", json!({})).await.status, 200);
    let sibling = front.world.client.post(front.world.public("/other/mcp")).bearer_auth(&tokens.access);
    let answer = send(sibling.header("content-type", "application/json").body("{}")).await;
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert!(answer.header("www-authenticate").contains("error=\"invalid_token\""), "{:?}", answer.headers);
    front.stop().await;
}

#[tokio::test]
async fn scopes_are_those_of_the_server() {
    let server = "scopes = [\"mcp\"]\noptional_scopes = [\"notes:write\"]\n".to_owned();
    let front = Stage { server, ..Stage::default() }.start().await;
    let client_id = front.register("A client").await;
    for (asked, granted) in
        [("", "mcp"), ("mcp notes:write", "mcp notes:write"), ("mcp offline_access", "mcp offline_access")]
    {
        let back = front.browser("alice").authorize(&front.authorize_url(&client_id, &[("scope", asked)])).await;
        let answer = front.redeem(&client_id, &parameter(&back, "code").expect("one"), &[]).await;
        assert_eq!((answer.status, answer.json()["scope"].as_str()), (200, Some(granted)), "{asked}");
    }
    for bad in ["unknown", "mcp unknown", "MCP", "*", "openid", "mcp\nnotes:write", "\"", "é", &"x ".repeat(70)] {
        let answer = get(&front, &front.authorize_url(&client_id, &[("scope", bad)])).await;
        assert_redirect(&front, &answer, "invalid_scope", bad);
    }
    front.stop().await;
}

#[tokio::test]
async fn a_client_gets_no_scope_that_the_operator_did_not_give_it() {
    let server = "scopes = [\"mcp\"]\noptional_scopes = [\"notes:write\"]\n".to_owned();
    let tables = format!("[clients.narrow]\nname = \"N\"\nredirect_uris = [\"{REDIRECT_URI}\"]\nscopes = [\"mcp\"]\n");
    let front = Stage { server, tables, ..Stage::default() }.start().await;
    let url = |client_id: &str, scope: &str| front.authorize_url(client_id, &[("scope", scope)]);
    assert_eq!(get(&front, &url("narrow", "mcp offline_access")).await.status, 200);
    assert_redirect(&front, &get(&front, &url("narrow", "mcp notes:write")).await, "invalid_scope", "not registered");
    // What a client said of itself binds nobody: some register a default before they know what the server offers.
    let metadata = json!({
        "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none", "scope": "mcp",
    });
    let client_id = front.post_json("/register", &metadata).await.json()["client_id"].as_str().expect("one").to_owned();
    assert_eq!(get(&front, &url(&client_id, "mcp notes:write")).await.status, 200);
    front.stop().await;
}

#[tokio::test]
async fn state_comes_back_as_it_was() {
    let front = front().await;
    let client_id = front.register("A client").await;
    for state in ["a b+c%20&=?#/\\\"'<script>", "é€𝄞", "\u{0}\r\nSet-Cookie: x=y", " ", &"s".repeat(4096)] {
        let url = front.authorize_url(&client_id, &[("state", state), ("response_type", "token")]);
        let answer = get(&front, &url).await;
        assert_eq!(answer.status, 303, "{state}");
        assert_eq!(parameter(answer.header("location"), "state").as_deref(), Some(state));
        assert!(!answer.headers.contains_key("set-cookie"), "{state}");
    }
    let mut browser = front.browser("alice");
    let state = "a b+c%20&=?#/\\\"'<script>é";
    let back = browser.authorize(&front.authorize_url(&client_id, &[("state", state)])).await;
    assert_eq!(parameter(&back, "state").as_deref(), Some(state));
    let long = get(&front, &front.authorize_url(&client_id, &[("state", &"s".repeat(4097))])).await;
    assert_eq!(long.status, 303);
    assert_eq!(parameter(long.header("location"), "error").as_deref(), Some("invalid_request"));
    assert_eq!(parameter(long.header("location"), "state"), None);
    front.stop().await;
}

#[tokio::test]
async fn a_denial_is_told_with_state_and_issuer() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let mut browser = front.browser("alice");
    let (url, page) = browser.open(&front.authorize_url(&client_id, &[])).await.page();
    let place = browser.submit(&own_path(&url, "/authorize"), &decision(&page, "deny", &[])).await;
    let Place::Away(back) = place else { panic!("{place:?}") };
    assert_eq!(parameter(&back, "error").as_deref(), Some("access_denied"));
    assert_eq!(parameter(&back, "state").as_deref(), Some("the state"));
    assert_eq!(parameter(&back, "iss"), Some(front.world.public("")));
    assert_eq!(parameter(&back, "code"), None);
    assert!(front.grants().await.is_empty());
    front.stop().await;
}

#[tokio::test]
async fn nothing_is_shown_where_the_client_wants_no_page() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let url = front.authorize_url(&client_id, &[("prompt", "none")]);
    assert_redirect(&front, &get(&front, &url).await, "login_required", "nobody is signed in");
    let mut browser = front.browser("alice");
    browser.authorize(&front.authorize_url(&client_id, &[])).await;
    let answer = browser.get(&url).await;
    assert_redirect(&front, &answer, "interaction_required", "anybody could claim to be a client on this computer");
    for contradiction in ["none consent", "none login", "none select_account"] {
        let url = front.authorize_url(&client_id, &[("prompt", contradiction)]);
        assert_redirect(&front, &get(&front, &url).await, "invalid_request", contradiction);
    }
    front.stop().await;
}

#[tokio::test]
async fn the_fallback_address_is_the_same_endpoint() {
    let front = front().await;
    let client_id = front.register("A client").await;
    let url = front.authorize_url(&client_id, &[]).replace("/authorize?", "/oauth/authorize?");
    let back = front.browser("alice").authorize(&url).await;
    assert!(parameter(&back, "code").is_some(), "{back}");
    front.stop().await;
}
