//! A small MCP client over streamable HTTP.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::browser::{Answer, Browser};
use crate::processes::text;

/// A client of one MCP server.
pub struct McpClient {
    http: Browser,
    url: String,
    token: Option<String>,
    requests: AtomicU64,
}

impl McpClient {
    /// Greets the server.
    pub async fn connect(url: &str, token: Option<&str>) -> Result<Self, String> {
        let client = Self::new(url, token)?;
        result(&client.greet().await?)?;
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        client.post(&initialized).await?.success()?;
        Ok(client)
    }

    /// Greets the server without a token: what it answers.
    pub async fn knock(url: &str) -> Result<Answer, String> {
        Self::new(url, None)?.greet().await
    }

    fn new(url: &str, token: Option<&str>) -> Result<Self, String> {
        let token = token.map(str::to_owned);
        Ok(Self { http: Browser::new()?, url: url.to_owned(), token, requests: AtomicU64::new(0) })
    }

    async fn greet(&self) -> Result<Answer, String> {
        let info = json!({ "name": "demo", "version": "1" });
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info });
        self.request("initialize", &hello).await
    }

    /// Calls a tool and reads its answer as JSON.
    pub async fn call_tool(&self, name: &str) -> Result<Value, String> {
        let result = result(&self.request("tools/call", &json!({ "name": name, "arguments": {} })).await?)?;
        let answer = result["content"][0]["text"].as_str().unwrap_or_default();
        if result["isError"] == json!(true) {
            return Err(answer.to_owned());
        }
        serde_json::from_str(answer).map_err(text)
    }

    async fn request(&self, method: &str, params: &Value) -> Result<Answer, String> {
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        self.post(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await
    }

    async fn post(&self, message: &Value) -> Result<Answer, String> {
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        headers.extend(authorization.as_ref().map(|value| ("authorization", value.as_str())));
        self.http.call("POST", &self.url, &headers, message.to_string().into_bytes()).await
    }
}

/// The result in an answer of JSON-RPC.
fn result(answer: &Answer) -> Result<Value, String> {
    let answer = answer.json()?;
    answer.get("result").cloned().ok_or_else(|| format!("the MCP server answered {}", answer["error"]))
}
