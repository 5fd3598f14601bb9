//! A small MCP client over streamable HTTP.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::processes::text;

/// A client of one MCP server.
pub struct McpClient {
    browser: Browser,
    url: String,
    requests: AtomicU64,
}

impl McpClient {
    /// Greets the server.
    pub async fn connect(server: &str) -> Result<Self, String> {
        let client = Self { browser: Browser::new()?, url: format!("{server}/mcp"), requests: AtomicU64::new(0) };
        let info = json!({ "name": "demo", "version": "1" });
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info });
        client.request("initialize", hello).await?;
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        client.post(&initialized).await?;
        Ok(client)
    }

    /// Calls a tool and reads its answer as JSON.
    pub async fn call_tool(&self, name: &str) -> Result<Value, String> {
        let result = self.request("tools/call", json!({ "name": name, "arguments": {} })).await?;
        let answer = result["content"][0]["text"].as_str().unwrap_or_default();
        if result["isError"] == json!(true) {
            return Err(answer.to_owned());
        }
        serde_json::from_str(answer).map_err(text)
    }

    async fn request(&self, method: &str, params: Value) -> Result<Value, String> {
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let answer: Value = serde_json::from_slice(&self.post(&request).await?).map_err(text)?;
        match answer.get("result") {
            Some(result) => Ok(result.clone()),
            None => Err(format!("{method}: {}", answer["error"])),
        }
    }

    async fn post(&self, message: &Value) -> Result<Vec<u8>, String> {
        let headers = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        let answer = self.browser.call("POST", &self.url, &headers, message.to_string().into_bytes()).await?;
        if answer.status < 300 { Ok(answer.body) } else { Err(format!("the MCP server answered {}", answer.status)) }
    }
}
