//! Where an MCP client waits for the browser to come back: a port of this machine (RFC 8252 section 7.3).

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::Query;
use axum::routing::get;
use tokio::sync::mpsc;

use crate::processes::text;

/// The parameters that the browser brings.
type Parameters = BTreeMap<String, String>;

/// A client that waits.
pub struct Callback {
    /// Where.
    pub redirect_uri: String,
    brought: mpsc::Receiver<Parameters>,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Callback {
    /// Waits on a free port.
    pub async fn listen() -> Result<Self, String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(text)?;
        let redirect_uri = format!("http://{}/callback", listener.local_addr().map_err(text)?);
        let (sender, brought) = mpsc::channel(1);
        let arrived = get(move |Query(parameters): Query<Parameters>| async move {
            let _ = sender.send(parameters).await;
            "You can close this page."
        });
        let router = Router::new().route("/callback", arrived);
        Ok(Self { redirect_uri, brought, serving: tokio::spawn(async move { axum::serve(listener, router).await }) })
    }

    /// What the browser has brought, if it was here.
    pub fn brought(&mut self) -> Option<Parameters> {
        self.brought.try_recv().ok()
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
