//! HTTP clients of Sidekey: callers and browsers, and the command line's way through the admin socket.

use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use serde_json::Value;

use crate::files::text;

/// A client that follows no redirects. Each process gets a new one: connections to the one before are dead.
#[expect(clippy::disallowed_methods, reason = "a client of Sidekey, not a part of it")]
pub fn client() -> Result<reqwest::Client, String> {
    builder(reqwest::Client::builder())
}

/// A client of the admin socket.
#[expect(clippy::disallowed_methods, reason = "a client of Sidekey, not a part of it")]
pub fn admin_client(socket: &Path) -> Result<reqwest::Client, String> {
    builder(reqwest::Client::builder().unix_socket(socket.to_owned()))
}

fn builder(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, String> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // An error means that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    // Nothing is encrypted here, so no roots need be read, which takes longer than many a process lives.
    let builder = builder.tls_certs_only([]).redirect(reqwest::redirect::Policy::none()).no_proxy();
    builder.timeout(Duration::from_secs(60)).build().map_err(text)
}

/// Asks the admin socket; anything but success is an error.
pub async fn ask(admin: &reqwest::Client, method: &str, path: &str, body: &Value) -> Result<Value, String> {
    let method = reqwest::Method::from_bytes(method.as_bytes()).map_err(text)?;
    let request = admin.request(method, format!("http://localhost{path}")).header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await.map_err(text)?;
    let (status, body) = (answer.status(), answer.bytes().await.map_err(text)?);
    match status.is_success() {
        true => serde_json::from_slice(&body).map_err(text),
        false => Err(format!("{path} answered {status}: {}", String::from_utf8_lossy(&body))),
    }
}
