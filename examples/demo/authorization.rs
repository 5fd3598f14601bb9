//! How an MCP client gets its tokens. It knows the URL of the MCP server and nothing else, and asks its way from there:
//! RFC 9728 (which authorization server), RFC 8414 (its endpoints), RFC 7591 (a client id), then a code with PKCE for this
//! one resource (RFC 7636, 8707, 9207).

use serde_json::{Value, json};
use sidekey::base::digest::sha256_base64url;
use sidekey::base::random::{SystemRandom, secret};

use crate::browser::Browser;
use crate::callback::Callback;
use crate::mcp_client::McpClient;
use crate::page::between;
use crate::processes::text;

/// What a client has in the end, and how it came by it.
pub struct Authorization {
    /// Where the MCP server's 401 sent it.
    pub resource_metadata: String,
    /// Where the authorization server named there says what it offers.
    pub server_metadata: String,
    /// Where it was registered.
    pub registration_endpoint: String,
    /// Where the browser was sent.
    pub authorization_endpoint: String,
    /// Where it redeemed the code.
    pub token_endpoint: String,
    /// The id that it was registered under.
    pub client_id: String,
    /// What the user was asked.
    pub question: String,
    /// Where the browser came back to.
    pub redirect_uri: String,
    /// The code that the browser brought.
    pub code: String,
    /// What the client shows the MCP server.
    pub access_token: String,
    /// What it gets new ones with.
    pub refresh_token: String,
}

/// Gets tokens for the MCP server at `server`; the user of `browser` approves.
pub async fn authorize(server: &str, client_name: &str, browser: &Browser) -> Result<Authorization, String> {
    let http = Browser::new()?;
    let refused = McpClient::knock(server).await?;
    let challenge = refused.headers.get("www-authenticate").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let resource_metadata = between(challenge, "resource_metadata=\"", "\"").filter(|_| refused.status == 401);
    let resource_metadata = resource_metadata.ok_or_else(|| format!("{server} does not say whom to ask"))?.to_owned();
    let resource = http.get(&resource_metadata).await?.json()?;
    expect(&resource, "resource", server)?;
    let issuer = member(&resource["authorization_servers"], 0)?;
    let server_metadata = format!("{issuer}/.well-known/oauth-authorization-server");
    let metadata = http.get(&server_metadata).await?.json()?;
    expect(&metadata, "issuer", &issuer)?;
    let endpoint = |name: &str| member(&metadata, name);
    let registration_endpoint = endpoint("registration_endpoint")?;
    let authorization_endpoint = endpoint("authorization_endpoint")?;
    let token_endpoint = endpoint("token_endpoint")?;

    let mut callback = Callback::listen().await?;
    let redirect_uri = callback.redirect_uri.clone();
    let client = json!({
        "client_name": client_name,
        "redirect_uris": [redirect_uri],
        "token_endpoint_auth_method": "none",
    });
    let json = [("content-type", "application/json")];
    let registered = http.call("POST", &registration_endpoint, &json, client.to_string().into_bytes()).await?.json()?;
    let client_id = member(&registered, "client_id")?;

    let (state, verifier) = (secret(&SystemRandom), secret(&SystemRandom));
    let challenge = sha256_base64url(verifier.expose().as_bytes());
    let parameters = [
        ("response_type", "code"),
        ("client_id", &client_id),
        ("redirect_uri", &redirect_uri),
        ("state", state.expose()),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("resource", server),
    ];
    let url = url::Url::parse_with_params(&authorization_endpoint, parameters).map_err(text)?;
    let page = browser.get(url.as_str()).await?;
    let question = between(&page.text(), "<h1>", "</h1>").unwrap_or_default().to_owned();
    let end = browser.press(&page, "approve").await?;
    let brought = callback.brought().ok_or_else(|| format!("the browser stayed at {}: {}", end.url, end.text()))?;
    let brought = json!(brought);
    expect(&brought, "state", state.expose())?;
    expect(&brought, "iss", &issuer)?;

    let code = member(&brought, "code")?;
    let parameters = [
        ("grant_type", "authorization_code"),
        ("client_id", &client_id),
        ("code", &code),
        ("redirect_uri", &redirect_uri),
        ("code_verifier", verifier.expose()),
        ("resource", server),
    ];
    let tokens = http.post_form(&token_endpoint, &parameters).await?.json()?;
    let (access_token, refresh_token) = (member(&tokens, "access_token")?, member(&tokens, "refresh_token")?);
    Ok(Authorization {
        resource_metadata,
        server_metadata,
        registration_endpoint,
        authorization_endpoint,
        token_endpoint,
        client_id,
        question,
        redirect_uri,
        code,
        access_token,
        refresh_token,
    })
}

fn member(value: &Value, place: impl serde_json::value::Index + std::fmt::Display) -> Result<String, String> {
    let text = value.get(&place).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| format!("there is no {place} in {value}"))
}

fn expect(value: &Value, name: &str, expected: &str) -> Result<(), String> {
    match value[name] == expected {
        true => Ok(()),
        false => Err(format!("{name} is {} and not {expected}", value[name])),
    }
}
