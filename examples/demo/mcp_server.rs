//! A small MCP server over streamable HTTP. It calls the QuickBooks API at a base URL and knows nothing of OAuth: where it
//! expects a token it was given something, by its caller or else by its environment, and it sends that.
//!
//! It writes down every byte that it receives, so that the demo can search it for tokens.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::processes::text;

struct Server {
    base_url: String,
    authorization: String,
    client: Browser,
    received: Mutex<Vec<u8>>,
}

/// The process: prints where it listens, serves until it is told to stop.
pub fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.map_err(text).and_then(|runtime| runtime.block_on(serve()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::failed(&error),
    }
}

#[expect(clippy::print_stdout, reason = "this is how the demo learns where it listens")]
async fn serve() -> Result<(), String> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let server = Arc::new(Server {
        base_url: variable("QUICKBOOKS_BASE_URL")?,
        authorization: format!("Bearer {}", variable("QUICKBOOKS_TOKEN")?),
        client: Browser::new()?,
        received: Mutex::default(),
    });
    std::env::args().for_each(|argument| server.record(argument.as_bytes()));
    std::env::vars().for_each(|(name, value)| server.record(format!("{name}={value}").as_bytes()));
    let router = Router::new()
        .route("/mcp", post(mcp))
        .route("/received", get(received).post(|| async { StatusCode::NO_CONTENT }))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&server), record_request))
        .with_state(server);
    // Its port was opened for it.
    let listener = std::net::TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(text)?);
    listener.set_nonblocking(true).map_err(text)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(text)?;
    println!("{}", json!({ "url": format!("http://{}", listener.local_addr().map_err(text)?) }));
    axum::serve(listener, router).await.map_err(text)
}

impl Server {
    fn record(&self, bytes: &[u8]) {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.extend_from_slice(bytes);
        received.push(b'\n');
    }

    async fn api(&self, authorization: &str, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        // Company 0: this server does not know which company its user connected.
        let url = format!("{}/v3/company/0/{path}", self.base_url);
        let headers = [("authorization", authorization), ("content-type", "application/json")];
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = self.client.call(method, &url, &headers, body).await?;
        self.record(format!("{:?}", answer.headers).as_bytes());
        self.record(&answer.body);
        if answer.status != 200 {
            return Err(format!("the API answered {}: {}", answer.status, answer.text()));
        }
        answer.json()
    }

    async fn tool(&self, authorization: &str, name: &str) -> Result<Value, String> {
        let get = |path| self.api(authorization, "GET", path, &Value::Null);
        match name {
            "company_info" => get("companyinfo/0").await,
            "list_invoices" => get("query?query=select%20*%20from%20Invoice").await,
            "create_invoice" => {
                let line = json!({ "Amount": 100.0, "DetailType": "SalesItemLineDetail" });
                let invoice = json!({ "Line": [line], "CustomerRef": { "value": "1" } });
                self.api(authorization, "POST", "invoice", &invoice).await
            }
            other => Err(format!("there is no tool {other}")),
        }
    }
}

const TOOLS: [&str; 3] = ["company_info", "list_invoices", "create_invoice"];

fn tool(name: &str) -> Value {
    json!({ "name": name, "description": name.replace('_', " "), "inputSchema": { "type": "object" } })
}

async fn record_request(
    State(server): State<Arc<Server>>,
    uri: Uri,
    headers: HeaderMap,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    server.record(uri.to_string().as_bytes());
    server.record(format!("{headers:?}").as_bytes());
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 1 << 20).await else { return StatusCode::BAD_REQUEST.into_response() };
    server.record(&body);
    next.run(axum::extract::Request::from_parts(parts, body.into())).await
}

/// All that this process has received so far.
async fn received(State(server): State<Arc<Server>>) -> Bytes {
    server.received.lock().unwrap_or_else(PoisonError::into_inner).clone().into()
}

async fn mcp(State(server): State<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(request) = serde_json::from_slice::<Value>(&body) else { return StatusCode::BAD_REQUEST.into_response() };
    let Some(id) = request.get("id") else { return StatusCode::ACCEPTED.into_response() };
    let result = match request["method"].as_str().unwrap_or_default() {
        "initialize" => json!({
            "protocolVersion": request["params"]["protocolVersion"],
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "quickbooks-demo", "version": "1" },
        }),
        "tools/list" => json!({ "tools": TOOLS.map(tool) }),
        "tools/call" => {
            let given = headers.get("authorization").and_then(|value| value.to_str().ok());
            let name = request["params"]["name"].as_str().unwrap_or_default();
            let called = server.tool(given.unwrap_or(&server.authorization), name).await;
            let (text, is_error) = match called {
                Ok(answer) => (answer.to_string(), false),
                Err(error) => (error, true),
            };
            json!({ "content": [{ "type": "text", "text": text }], "isError": is_error })
        }
        _ => {
            let error = json!({ "code": -32601, "message": "method not found" });
            return axum::Json(json!({ "jsonrpc": "2.0", "id": id, "error": error })).into_response();
        }
    };
    axum::Json(json!({ "jsonrpc": "2.0", "id": id, "result": result })).into_response()
}
