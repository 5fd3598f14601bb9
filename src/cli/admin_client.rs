//! Asks the running server through its admin socket, or, where none runs, the same routes in this process.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::Value;
use tower::ServiceExt;

use super::{CliError, load};
use crate::config::Settings;
use crate::server::{Environment, World};

/// Asks one question. The answer is JSON; `Null` where there is none.
pub fn ask(config: &Path, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Value, CliError> {
    let settings = load(config)?;
    let body = match body {
        Some(body) => serde_json::to_vec(body).map_err(|error| CliError::Failed(error.to_string()))?,
        None => Vec::new(),
    };
    super::runtime(1)?.block_on(async {
        let (status, answer) = match over_socket(&settings.admin_socket, method.clone(), path, body.clone()).await {
            Err(SocketError::NobodyThere) => in_process(&settings, method, path, body).await?,
            Err(SocketError::Failed(why)) => return Err(CliError::Failed(why)),
            Ok(answer) => answer,
        };
        understand(status, &answer)
    })
}

/// Why there is no answer.
pub enum SocketError {
    /// Nobody listens.
    NobodyThere,
    /// Somebody does, but did not answer.
    Failed(String),
}

/// What only needs a look, or a line on the disk, is answered in this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the server that listens there, and nobody else. The answer is JSON; `Null` where there is none.
pub async fn ask_server(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<Value, CliError> {
    let body = body.map(serde_json::to_vec).transpose().map_err(|error| CliError::Failed(error.to_string()))?;
    let asked = over_socket(socket, method, path, body.unwrap_or_default());
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok((status, answer))) => understand(status, &answer),
        Ok(Err(SocketError::NobodyThere)) => {
            Err(CliError::Failed(format!("no server listens on {} anymore", socket.display())))
        }
        Ok(Err(SocketError::Failed(why))) => Err(CliError::Failed(why)),
        Err(_) => Err(CliError::Failed("the server does not answer".to_owned())),
    }
}

#[expect(clippy::disallowed_methods, reason = "a client for our own socket, not for the network")]
async fn over_socket(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>), SocketError> {
    let failed = |error: reqwest::Error| SocketError::Failed(format!("the admin socket: {error}"));
    // Reqwest wants a TLS configuration even for a socket without TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().unix_socket(socket.to_owned()).no_proxy();
    let client = client.build().map_err(failed)?;
    let request =
        client.request(method, format!("http://localhost{path}")).header("content-type", "application/json").body(body);
    match request.send().await {
        Ok(answer) => Ok((answer.status().as_u16(), answer.bytes().await.map_err(failed)?.to_vec())),
        Err(error) if error.is_connect() => Err(SocketError::NobodyThere),
        Err(error) => Err(failed(error)),
    }
}

async fn in_process(
    settings: &Settings,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(u16, Vec<u8>), CliError> {
    let failed = |why: String| CliError::Failed(why);
    let environment = Environment::system(settings).map_err(|error| failed(error.to_string()))?;
    let world = World::compose(settings, environment).await.map_err(|error| failed(error.to_string()))?;
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(Body::from(body)).map_err(|error| failed(error.to_string()))?;
    let Ok(answer) = world.admin(settings, None).oneshot(request).await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.map_err(|error| failed(error.to_string()))?;
    Ok((status, body.to_bytes().to_vec()))
}

fn understand(status: u16, answer: &[u8]) -> Result<Value, CliError> {
    let value: Value = serde_json::from_slice(answer).unwrap_or(Value::Null);
    if (200..300).contains(&status) {
        return Ok(value);
    }
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let (detail, next_step) = (text("detail"), text("next_step"));
    Err(CliError::Failed(if detail.is_empty() {
        format!("the server answered {status}: {}", String::from_utf8_lossy(answer))
    } else {
        format!("{} ({next_step})", detail.trim_end_matches('.'))
    }))
}
