//! An MCP client, a browser and an MCP server around a Sidekey: what the tests of journeys J2 and J3 share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sidekey::base::clock::{Clock, SystemClock};
use sidekey::base::digest::sha256_base64url;

use crate::client::{Answer, form, http, send};
use crate::world::{Setup, World, free_listener, pause, serve_at};

/// Where the clients of these tests are sent back to.
pub const REDIRECT_URI: &str = "http://127.0.0.1:33418/callback";
/// The same for clients that are sites on the web.
pub const WEB_REDIRECT_URI: &str = "https://client.example/callback";
/// A code verifier of RFC 7636.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// A Sidekey in front of the MCP server `notes`, whose users are who they are at Notion.
pub struct Front {
    pub world: World,
    pub server: McpServer,
}

/// How a front differs from the usual one.
#[derive(Default)]
pub struct FrontSetup {
    /// Further lines of `[issuer]`.
    pub issuer: &'static str,
    /// Further lines of `[servers.notes]`; `providers` and `required` are there already unless it names them.
    pub server: &'static str,
    /// Further tables.
    pub tables: String,
}

impl Front {
    pub async fn start() -> Self {
        Self::with(FrontSetup::default(), Arc::new(SystemClock)).await
    }

    pub async fn with(setup: FrontSetup, clock: Arc<dyn Clock>) -> Self {
        Self::around(McpServer::start().await, setup, clock).await
    }

    async fn around(server: McpServer, setup: FrontSetup, clock: Arc<dyn Clock>) -> Self {
        let FrontSetup { issuer, server: more, tables } = setup;
        let providers = match more.contains("providers =") {
            true => "",
            false => "providers = [\"notion\", \"github\"]\nrequired = [\"notion\"]\n",
        };
        let tables = format!(
            "[issuer]\nidentity = \"notion\"\n{issuer}\n[servers.notes]\nupstream = \"{}\"\n{providers}{more}\n{tables}",
            server.url
        );
        let world = World::with(Setup { tables, ..Setup::default() }, clock).await;
        server.set_egress(&world.egress(""));
        Self { world, server }
    }

    /// A front with a further server in the tables, which is at the same upstream.
    pub async fn with_one_upstream(setup: FrontSetup) -> Self {
        let server = McpServer::start().await;
        let tables = setup.tables.replace("UPSTREAM", &server.url);
        Self::around(server, FrontSetup { tables, ..setup }, Arc::new(SystemClock)).await
    }

    /// The MCP endpoint.
    pub fn mcp(&self) -> String {
        self.world.public("/notes/mcp")
    }

    /// Registers a public client of this name.
    pub async fn register(&self, name: &str) -> String {
        let answer = self.post_json("/register", &registration(name)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["client_id"].as_str().expect("there").to_owned()
    }

    pub async fn post_json(&self, path: &str, body: &Value) -> Answer {
        let request = self.world.client.post(self.world.public(path)).header("content-type", "application/json");
        send(request.body(body.to_string())).await
    }

    pub async fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        send(form(self.world.client.post(self.world.public(path)), fields)).await
    }

    /// The usual authorization request of a client, with some parameters changed (empty: left out).
    pub fn authorize_url(&self, client_id: &str, changes: &[(&str, &str)]) -> String {
        let (resource, challenge) = (self.mcp(), sha256_base64url(VERIFIER.as_bytes()));
        let mut parameters = BTreeMap::from([
            ("response_type", "code"),
            ("client_id", client_id),
            ("redirect_uri", REDIRECT_URI),
            ("state", "the state"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("resource", &resource),
        ]);
        parameters.extend(changes.iter().copied());
        parameters.retain(|_, value| !value.is_empty());
        let query: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        self.world.public(&format!("/authorize?{query}"))
    }

    /// Authorizes a client as a user of Notion who agrees to everything: the code.
    pub async fn code(&self, client_id: &str, user: &str) -> String {
        let mut browser = self.browser(user);
        let back = browser.authorize(&self.authorize_url(client_id, &[])).await;
        parameter(&back, "code").unwrap_or_else(|| panic!("{back}"))
    }

    pub fn browser(&self, user: &str) -> Browser {
        Browser::new(user)
    }

    /// Redeems a code in the usual way, with some parameters changed (empty: left out).
    pub async fn redeem(&self, client_id: &str, code: &str, changes: &[(&str, &str)]) -> Answer {
        let mut form = BTreeMap::from([
            ("grant_type", "authorization_code"),
            ("client_id", client_id),
            ("code", code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ]);
        form.extend(changes.iter().copied());
        let form: Vec<(&str, &str)> = form.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        self.post_form("/token", &form).await
    }

    pub async fn refresh(&self, client_id: &str, refresh_token: &str) -> Answer {
        let form = [("grant_type", "refresh_token"), ("client_id", client_id), ("refresh_token", refresh_token)];
        self.post_form("/token", &form).await
    }

    /// A user whose client is authorized.
    pub async fn authorized(&self, user: &str) -> Tokens {
        let client_id = self.register("A client").await;
        let code = self.code(&client_id, user).await;
        Tokens::of(client_id.clone(), &self.redeem(&client_id, &code, &[]).await)
    }

    /// Calls the MCP server with a JSON-RPC request.
    pub async fn call(&self, access_token: &str, method: &str, params: Value) -> Answer {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let request = self.world.client.post(self.mcp()).bearer_auth(access_token);
        send(request.header("content-type", "application/json").body(body.to_string())).await
    }

    /// Has the MCP server call Notion's API for who the user is there.
    pub async fn whoami(&self, access_token: &str) -> Answer {
        self.call(access_token, "api", json!({ "path": "/notion/v1/users/me" })).await
    }

    pub async fn grants(&self) -> Vec<Value> {
        let answer = self.world.admin("GET", "/v1/grants", "").await.json();
        answer["grants"].as_array().cloned().expect("a list")
    }

    pub async fn stop(self) {
        self.world.stop().await;
    }

    /// Stops, and leaves the files where they are as long as what is returned lives.
    pub async fn stop_but_keep(self) -> crate::world::Files {
        let crate::world::World { simulator, files, sidekey, .. } = self.world;
        sidekey.stop().await;
        simulator.stop().await;
        files
    }
}

/// What the token endpoint gave a client.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub client_id: String,
    pub access: String,
    pub refresh: String,
}

impl Tokens {
    pub fn of(client_id: String, answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{name}: {answer}")).to_owned();
        Self { client_id, access: text("access_token"), refresh: text("refresh_token") }
    }
}

/// Metadata of a public client.
pub fn registration(name: &str) -> Value {
    json!({ "client_name": name, "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none" })
}

/// A parameter in a URL's query.
pub fn parameter(url: &str, name: &str) -> Option<String> {
    let url = url::Url::parse(url).expect("a URL");
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Checks an OAuth error: status, code, and that it is JSON that nobody caches.
pub fn assert_oauth_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.json()["error"], code, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
}

/// Checks a problem: status and type.
pub fn assert_problem(answer: &Answer, status: u16, slug: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.json()["type"], format!("urn:sidekey:error:{slug}"), "{}", answer.text());
}

/// A browser without JavaScript: cookies, redirects, refreshes, forms.
#[derive(Clone)]
pub struct Browser {
    client: reqwest::Client,
    /// Who agrees at the provider.
    pub user: String,
    pub cookies: BTreeMap<String, String>,
    /// Values of cookies that it was told to forget.
    pub spent: Vec<String>,
}

/// Where a browser came to: a page, or an address that it was sent to and that is not fetched.
#[derive(Debug)]
pub enum Place {
    Page(String, Answer),
    Away(String),
}

impl Place {
    pub fn page(self) -> (String, Answer) {
        match self {
            Self::Page(url, answer) => (url, answer),
            Self::Away(url) => panic!("away at {url}"),
        }
    }

    pub fn away(self) -> String {
        match self {
            Self::Away(url) => url,
            Self::Page(url, answer) => panic!("at {url}: {} {}", answer.status, answer.text()),
        }
    }
}

impl Browser {
    /// The browser of somebody who agrees as `user` at providers.
    pub fn new(user: &str) -> Self {
        Self { client: http(), user: user.to_owned(), cookies: BTreeMap::new(), spent: Vec::new() }
    }

    /// Opens an address and follows where it leads, until a page wants something or it is the client's turn.
    pub async fn open(&mut self, url: &str) -> Place {
        let mut url = url.to_owned();
        for _ in 0..20 {
            if url.starts_with(REDIRECT_URI) || url.starts_with(WEB_REDIRECT_URI) {
                return Place::Away(url);
            }
            let answer = self.get(&url).await;
            match self.next(&url, &answer) {
                Some(next) => url = next,
                None => return Place::Page(url, answer),
            }
        }
        panic!("led around in circles: {url}");
    }

    pub async fn get(&mut self, url: &str) -> Answer {
        self.fetch(self.client.get(url)).await
    }

    /// Posts to a page of ours, as a form on it does, and follows.
    pub async fn submit(&mut self, url: &str, fields: &[(String, String)]) -> Place {
        let request =
            form(self.client.post(url), fields).header("sec-fetch-site", "same-origin").header("origin", "null");
        let answer = self.fetch(request).await;
        match self.next(url, &answer) {
            Some(next) => Box::pin(self.open(&next)).await,
            None => Place::Page(url.to_owned(), answer),
        }
    }

    async fn fetch(&mut self, request: reqwest::RequestBuilder) -> Answer {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = send(request.header("cookie", cookies.join("; "))).await;
        for cookie in answer.headers.get_all("set-cookie") {
            let text = cookie.to_str().expect("text");
            let (name, value) = text.split(';').next().and_then(|pair| pair.split_once('=')).expect("a pair");
            if text.contains("Max-Age=0") {
                self.spent.extend(self.cookies.remove(name));
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    fn next(&self, url: &str, answer: &Answer) -> Option<String> {
        let next = match answer.status {
            301..=308 => answer.header("location").to_owned(),
            _ => between(&answer.text(), "content=\"0;url=", "\"")?.replace("&amp;", "&"),
        };
        let mut next = url::Url::parse(url).and_then(|base| base.join(&next)).expect("a URL");
        if next.path().ends_with("/authorize") && next.port() != url::Url::parse(url).expect("a URL").port() {
            next.query_pairs_mut().append_pair("simulated_user", &self.user);
        }
        Some(next.into())
    }

    /// Opens an authorization request and agrees to everything: where the client is called back.
    pub async fn authorize(&mut self, url: &str) -> String {
        let (url, page) = match self.open(url).await {
            Place::Away(url) => return url,
            Place::Page(url, page) => (url, page),
        };
        assert_eq!(page.status, 200, "{}", page.text());
        let form = decision(&page, "approve", &["notion"]);
        self.submit(&own_path(&url, "/authorize"), &form).await.away()
    }
}

/// The fields of a consent page, with one decision, and these of the providers ticked.
pub fn decision(page: &Answer, decision: &str, providers: &[&str]) -> Vec<(String, String)> {
    let ticket = between(&page.text(), "name=\"ticket\" value=\"", "\"").unwrap_or_else(|| panic!("{}", page.text()));
    let mut form = vec![("ticket".to_owned(), ticket), ("decision".to_owned(), decision.to_owned())];
    form.extend(providers.iter().map(|provider| ("provider".to_owned(), (*provider).to_owned())));
    form
}

/// Another path of the same site.
pub fn own_path(url: &str, path: &str) -> String {
    url::Url::parse(url).and_then(|url| url.join(path)).expect("a URL").into()
}

pub fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(value, _)| value.to_owned())
}

/// An MCP server of sorts: it tells what it received, and calls APIs with the credential that it was given.
#[derive(Clone)]
pub struct McpServer {
    pub url: String,
    state: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    egress: String,
    requests: Vec<Received>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl McpServer {
    pub async fn start() -> Self {
        let listener = free_listener();
        let address = listener.local_addr().expect("bound");
        let server = Self { url: format!("http://{address}/mcp"), state: Arc::default() };
        let router = Router::new().fallback(serve).with_state(server.clone());
        serve_at(listener, router);
        server
    }

    pub fn set_egress(&self, url: &str) {
        url.clone_into(&mut self.state.lock().expect("a lock").egress);
    }

    pub fn requests(&self) -> Vec<Received> {
        self.state.lock().expect("a lock").requests.clone()
    }
}

/// `api`: calls the egress listener at `params.path`. `status`: answers with `params.status`, and `params.headers`.
/// `stream`: sends an event every 50 milliseconds for ever. `initialize`: opens the session `params.session`. Everything else: an empty result.
async fn serve(State(server): State<McpServer>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let received = Received { method, uri, headers: headers.clone(), body };
    let egress = {
        let mut state = server.state.lock().expect("a lock");
        state.requests.push(received);
        state.egress.clone()
    };
    let params = &request["params"];
    match request["method"].as_str() {
        Some("api") => {
            let url = format!("{egress}{}", params["path"].as_str().unwrap_or_default());
            let credential = headers.get("authorization").cloned().unwrap_or_else(|| "none".parse().expect("a value"));
            let answer = send(http().get(url).header("authorization", credential)).await;
            let result: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            axum::Json(json!({ "status": answer.status, "body": result })).into_response()
        }
        Some("status") => {
            let status = u16::try_from(params["status"].as_u64().unwrap_or(200)).expect("a status");
            let mut response = Response::builder().status(status).header("content-type", "application/json");
            for (name, value) in params["headers"].as_object().into_iter().flatten() {
                response = response.header(name, value.as_str().unwrap_or_default());
            }
            response.body(params["body"].to_string().into()).expect("a response")
        }
        Some("stream") => {
            let next = async |count: u64| {
                pause(std::time::Duration::from_millis(50)).await;
                let event = Bytes::from(format!("id: {count}\ndata: tick\n\n"));
                Some((Ok::<_, std::convert::Infallible>(event), count + 1))
            };
            let events = axum::body::Body::from_stream(futures_util::stream::unfold(0, next));
            ([("content-type", "text/event-stream")], events).into_response()
        }
        Some("initialize") => {
            let session = params["session"].as_str().unwrap_or_default().to_owned();
            ([("mcp-session-id", session)], axum::Json(json!({ "result": {} }))).into_response()
        }
        _ => axum::Json(json!({ "jsonrpc": "2.0", "id": request["id"], "result": {} })).into_response(),
    }
}
