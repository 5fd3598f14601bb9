//! Asks the running server through its admin socket, or, where none runs, the same routes in this process.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::stream::{BoxStream, StreamExt};
use http::{Method, Request};
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use super::{CliError, load};
use crate::base::file_mark::FileMark;
use crate::config::{Settings, places};
use crate::server::{Environment, StartError, World};

/// Asks one question. The answer is JSON; `Null` where there is none.
pub fn ask(config: &Path, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Value, CliError> {
    Admin::open(config)?.ask(method, path, body)
}

/// Whoever answers: the server, or this process.
pub struct Admin {
    runtime: Runtime,
    way: Way,
}

enum Way {
    Server(PathBuf),
    InProcess(Box<(World, Router)>),
}

/// An answer that is too large for memory.
pub type Pieces = BoxStream<'static, Result<bytes::Bytes, String>>;

impl Admin {
    /// Finds out whether a server runs. One that does is asked whatever is wrong with the file by now.
    pub fn open(config: &Path) -> Result<Self, CliError> {
        match places(config) {
            Ok(places) if is_served(&places.admin_socket)? => Self::at(places.admin_socket),
            _ => Self::of(&load(config)?),
        }
    }

    /// The server that listens there, if it answers at all.
    fn at(socket: PathBuf) -> Result<Self, CliError> {
        let runtime = super::runtime(1)?;
        let asked = runtime.block_on(async {
            tokio::time::timeout(FIRST_ANSWER, over_socket(&socket, Method::GET, "/v1/server", Vec::new())).await
        });
        match asked {
            Ok(Ok(_)) => Ok(Self { runtime, way: Way::Server(socket) }),
            Ok(Err(SocketError::NobodyThere)) => Err(gone(&socket)),
            Ok(Err(SocketError::Failed(why))) => Err(CliError::Failed(why)),
            Err(_) => Err(CliError::Failed(format!(
                "the server that listens on {} does not answer within {} seconds; its log may say why",
                socket.display(),
                FIRST_ANSWER.as_secs()
            ))),
        }
    }

    /// The same for a configuration that was read already.
    fn of(settings: &Settings) -> Result<Self, CliError> {
        if is_served(&settings.admin_socket)? {
            return Self::at(settings.admin_socket.clone());
        }
        is_nobodys(&settings.origin.file, &settings.admin_socket)?;
        let runtime = super::runtime(1)?;
        let failed = |error: StartError| CliError::Failed(error.to_string());
        let way = runtime.block_on(async {
            let world = World::compose(settings, Environment::system(settings).map_err(failed)?).await;
            let world = world.map_err(failed)?;
            let router = world.admin(settings, None, None);
            Ok::<_, CliError>(Way::InProcess(Box::new((world, router))))
        })?;
        Ok(Self { runtime, way })
    }

    /// Whether a server answers.
    pub fn is_served(&self) -> bool {
        matches!(self.way, Way::Server(_))
    }

    /// Has this process be the one that may refresh, where no server runs: the sentinel must know it.
    pub fn admit(&self) -> Result<(), CliError> {
        let Way::InProcess(world) = &self.way else { return Ok(()) };
        let admitted = self.runtime.block_on(world.0.vault.admit_store());
        admitted.map_err(|error| CliError::Failed(error.to_string()))
    }

    /// Asks one question. The answer is JSON; `Null` where there is none.
    pub fn ask(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Value, CliError> {
        self.runtime.block_on(self.asked(method, path, body))
    }

    /// The same, for several at a time.
    pub async fn asked(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Value, CliError> {
        let body = body.map(serde_json::to_vec).transpose().map_err(|error| CliError::Failed(error.to_string()))?;
        let body = body.unwrap_or_default();
        let (status, mut pieces) = match &self.way {
            Way::Server(socket) => match over_socket(socket, method, path, body).await {
                Ok(answer) => answer,
                Err(SocketError::NobodyThere) => return Err(gone(socket)),
                Err(SocketError::Failed(why)) => return Err(CliError::Failed(why)),
            },
            Way::InProcess(world) => in_process(&world.1, method, path, body).await?,
        };
        understand(status, &whole(&mut pieces).await.map_err(CliError::Failed)?)
    }

    /// Asks for something large, and hands it over piece by piece.
    pub fn fetch(&self, path: &str, mut take: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<(), CliError> {
        self.runtime.block_on(async {
            let (status, mut pieces) = match &self.way {
                Way::Server(socket) => match over_socket(socket, Method::GET, path, Vec::new()).await {
                    Ok(answer) => answer,
                    Err(SocketError::NobodyThere) => return Err(gone(socket)),
                    Err(SocketError::Failed(why)) => return Err(CliError::Failed(why)),
                },
                Way::InProcess(world) => in_process(&world.1, Method::GET, path, Vec::new()).await?,
            };
            if status != 200 {
                return understand(status, &whole(&mut pieces).await.map_err(CliError::Failed)?).map(|_| ());
            }
            while let Some(piece) = pieces.next().await {
                take(&piece.map_err(CliError::Failed)?).map_err(|error| CliError::Failed(error.to_string()))?;
            }
            Ok(())
        })
    }

    /// The threads of this command.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

impl Drop for Admin {
    /// What a provider has granted reaches the disk, and what was done the audit trail.
    fn drop(&mut self) {
        if let Way::InProcess(world) = &self.way {
            world.0.vault.stop();
            self.runtime.block_on(world.0.vault.settled());
            world.0.audit.close();
        }
    }
}

/// A server that is well answers a simple question in much less.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// Whether somebody listens there.
pub fn is_served(socket: &Path) -> Result<bool, CliError> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    match UnixStream::connect(socket) {
        Ok(_) => Ok(true),
        Err(error) if [NotFound, ConnectionRefused].contains(&error.kind()) => Ok(false),
        Err(error) => Err(CliError::Failed(format!(
            "{}: {error}; only whoever may use the server's admin socket can ask it",
            socket.display()
        ))),
    }
}

/// To act without the server that goes by this very file would be to act on another store, or beside it.
pub fn is_nobodys(config: &Path, socket: &Path) -> Result<(), CliError> {
    if !FileMark::is_set(config) {
        return Ok(());
    }
    Err(CliError::Failed(format!(
        "a server runs with {} and does not listen on {}: it is stopping, or store.directory or admin.socket was changed since it \
         started, or the socket was removed. Wait, undo that, or restart the server",
        config.display(),
        socket.display()
    )))
}

fn gone(socket: &Path) -> CliError {
    CliError::Failed(format!("no server listens on {}; `sidekey serve` starts one", socket.display()))
}

async fn whole(pieces: &mut Pieces) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    while let Some(piece) = pieces.next().await {
        answer.extend_from_slice(&piece?);
    }
    Ok(answer)
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
    let asked = async {
        let (status, mut pieces) = over_socket(socket, method, path, body.unwrap_or_default()).await?;
        Ok((status, whole(&mut pieces).await.map_err(SocketError::Failed)?))
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok((status, answer))) => understand(status, &answer),
        Ok(Err(SocketError::NobodyThere)) => Err(gone(socket)),
        Ok(Err(SocketError::Failed(why))) => Err(CliError::Failed(why)),
        Err(_) => Err(CliError::Failed("the server does not answer".to_owned())),
    }
}

#[expect(clippy::disallowed_methods, reason = "a client for our own socket, not for the network")]
async fn over_socket(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> Result<(u16, Pieces), SocketError> {
    let failed = |error: reqwest::Error| SocketError::Failed(told(&error));
    // Reqwest wants a TLS configuration even for a socket without TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().unix_socket(socket.to_owned()).no_proxy();
    let client = client.build().map_err(failed)?;
    let request =
        client.request(method, format!("http://localhost{path}")).header("content-type", "application/json").body(body);
    match request.send().await {
        Ok(answer) => {
            let status = answer.status().as_u16();
            let pieces = futures_util::stream::try_unfold(answer, async |mut answer| {
                let piece = answer.chunk().await.map_err(|error| told(&error))?;
                Ok(piece.map(|piece| (piece, answer)))
            });
            Ok((status, pieces.boxed()))
        }
        Err(error) if error.is_connect() => Err(SocketError::NobodyThere),
        Err(error) => Err(failed(error)),
    }
}

fn told(error: &reqwest::Error) -> String {
    format!("the admin socket: {error}")
}

async fn in_process(router: &Router, method: Method, path: &str, body: Vec<u8>) -> Result<(u16, Pieces), CliError> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(Body::from(body)).map_err(|error| CliError::Failed(error.to_string()))?;
    let Ok(answer) = router.clone().oneshot(request).await;
    let status = answer.status().as_u16();
    let pieces = answer.into_body().into_data_stream().map(|piece| piece.map_err(|error| error.to_string()));
    Ok((status, pieces.boxed()))
}

fn understand(status: u16, answer: &[u8]) -> Result<Value, CliError> {
    let value: Value = serde_json::from_slice(answer).unwrap_or(Value::Null);
    if (200..300).contains(&status) {
        return Ok(value);
    }
    if value["detail"].is_string() {
        return Err(CliError::Refused(Box::new(value)));
    }
    Err(CliError::Failed(format!("the server answered {status}: {}", String::from_utf8_lossy(answer))))
}
