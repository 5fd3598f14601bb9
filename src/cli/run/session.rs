//! The server that a program is brought to, and the handle that it has as long as it lives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use http::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::base::clock::{Clock, SystemClock};
use crate::cli::admin_client::ask_server;
use crate::cli::{CliError, runtime};
use crate::launch::plan::Plan;
use crate::model::connection::ConnectionKey;
use crate::portal::admin::{Addresses, CaAnswer, NewHandleAnswer, NewHandleRequest, RenewRequest, ServerAnswer};

/// So long the handle works without being renewed: it does not outlive a `run` that was killed by much.
const EXPIRES: &str = "10m";
/// So often it is renewed.
const RENEWED: Duration = Duration::from_secs(180);
/// After a failure it is tried again so soon, and so often: it still works meanwhile.
const TRIED_AGAIN: Duration = Duration::from_secs(30);
const TRIES: u32 = 5;

/// What is known of the server.
pub struct Server {
    /// Host and port where programs on this machine reach it.
    pub egress: String,
    /// The certificates that they must trust.
    pub certificates: String,
    /// The hosts that it stands for, separated by commas.
    pub hosts: String,
    socket: PathBuf,
}

impl Server {
    /// Asks the server behind the admin socket.
    pub fn find(socket: &Path) -> Result<Self, CliError> {
        runtime(1)?.block_on(async {
            let server: ServerAnswer = read(ask(socket, Method::GET, "/v1/server").await?)?;
            let ca: CaAnswer = read(ask(socket, Method::GET, "/v1/ca").await?)?;
            let egress = server.listens.as_ref().and_then(reachable_egress);
            let egress = egress.ok_or_else(|| CliError::Failed("the server has no egress listener".to_owned()))?;
            let hosts = ca.hosts.into_iter().collect::<Vec<_>>().join(",");
            Ok(Self { egress, certificates: ca.certificates_pem, hosts, socket: socket.to_owned() })
        })
    }

    /// What was captured when the subject connected to the recipe's provider.
    pub fn captured(&self, plan: &Plan<'_>) -> Result<BTreeMap<String, String>, CliError> {
        let Some((provider, _)) = plan.provider else { return Ok(BTreeMap::new()) };
        let query = serde_urlencoded::to_string([("subject", plan.subject.as_str())]).unwrap_or_default();
        let status = runtime(1)?.block_on(ask(&self.socket, Method::GET, &format!("/v1/status?{query}")))?;
        captured_in(&status, plan).ok_or_else(|| {
            let key = ConnectionKey::new(plan.subject.clone(), provider.clone(), plan.label.clone());
            let (subject, whose) = (&plan.subject, key.as_arguments());
            CliError::Failed(format!("{subject} is not connected to {provider}: `sidekey connect {whose}` does it"))
        })
    }
}

/// The captured values of the plan's connection in the answer of `GET /v1/status`; `None` if there is no such connection.
pub fn captured_in(status: &Value, plan: &Plan<'_>) -> Option<BTreeMap<String, String>> {
    let (provider, _) = plan.provider?;
    let connections = status["connections"].as_array()?;
    let connection = connections.iter().find(|connection| {
        connection["provider"] == provider.as_str()
            && connection["label"] == plan.label.as_str()
            && connection["token"].is_null()
    })?;
    let captured = connection["captured"].as_object().into_iter().flatten();
    Some(captured.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect())
}

/// Where programs on this machine reach the egress listener.
pub fn reachable_egress(listens: &Addresses) -> Option<String> {
    let mut address = *listens.egress.first()?;
    if address.ip().is_unspecified() {
        let port = address.port();
        address = (std::net::Ipv4Addr::LOCALHOST, port).into();
    }
    Some(address.to_string())
}

async fn ask(socket: &Path, method: Method, path: &str) -> Result<Value, CliError> {
    ask_server(socket, method, path, None::<&()>).await
}

fn read<T: DeserializeOwned>(answer: Value) -> Result<T, CliError> {
    serde_json::from_value(answer)
        .map_err(|error| CliError::Failed(format!("the server is of another version, it answers otherwise: {error}")))
}

/// A handle for one program.
pub struct Session {
    /// The handle.
    pub handle: String,
    id: String,
    socket: PathBuf,
}

impl Session {
    /// Has it issued.
    pub fn begin(server: &Server, plan: &Plan<'_>, tunnels: bool) -> Result<Self, CliError> {
        let request = NewHandleRequest {
            subject: plan.subject.clone(),
            providers: plan.providers.clone().map(|providers| providers.into_iter().collect()),
            label: Some(plan.label.clone()),
            expires: Some(EXPIRES.to_owned()),
            tunnels,
        };
        let asked = ask_server(&server.socket, Method::POST, "/v1/handles", Some(&request));
        let answer: NewHandleAnswer = read(runtime(1)?.block_on(asked)?)?;
        Ok(Self { handle: answer.handle, id: answer.id, socket: server.socket.clone() })
    }

    /// Renews it from time to time, and says so if the server goes away.
    pub fn keep(&self) -> Keeper {
        let (stop, stopped) = oneshot::channel();
        let (id, socket) = (self.id.clone(), self.socket.clone());
        let thread = std::thread::spawn(move || {
            if let Ok(runtime) = runtime(1) {
                runtime.block_on(async {
                    tokio::select! {
                        _ = stopped => {}
                        why = keep(&socket, &id) => {
                            complain(&why);
                        }
                    }
                });
            }
        });
        Keeper { stop, thread }
    }

    /// Ends it at once, and says what was refused if that is wanted.
    pub fn end(self, explain: bool) {
        let Ok(runtime) = runtime(1) else { return };
        runtime.block_on(async {
            if explain {
                match ask(&self.socket, Method::GET, &format!("/v1/refusals?handle={}", self.id)).await {
                    Ok(answer) => explained(&answer).iter().for_each(|line| complain(line)),
                    Err(_) => complain("what was refused is not known: the server has gone"),
                }
            }
            // Without a server nobody takes it, and it expires soon.
            let _ = ask(&self.socket, Method::DELETE, &format!("/v1/handles/{}", self.id)).await;
        });
    }
}

/// Renews a handle until it is stopped.
pub struct Keeper {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Stops.
    pub fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// Returns when the handle is of no use anymore, and why.
async fn keep(socket: &Path, id: &str) -> String {
    let gone = "error: the Sidekey server has ended: API calls of the command fail from now on".to_owned();
    let renew = async {
        let mut failures = 0;
        loop {
            SystemClock.sleep(if failures == 0 { RENEWED } else { TRIED_AGAIN }).await;
            let request = RenewRequest { expires: EXPIRES.to_owned() };
            let renewed = ask_server(socket, Method::POST, &format!("/v1/handles/{id}/renew"), Some(&request)).await;
            failures = if renewed.is_ok() { 0 } else { failures + 1 };
            if let (TRIES.., Err(error)) = (failures, renewed) {
                break format!("error: the command's handle cannot be renewed: {error}");
            }
        }
    };
    tokio::select! {
        why = renew => why,
        () = end_of_server(socket) => gone,
    }
}

/// Returns when the server has ended: a connection to it does, too.
async fn end_of_server(socket: &Path) {
    let Ok(mut connection) = UnixStream::connect(socket).await else { return };
    // One that has asked nothing yet would hold up a server that is told to stop.
    if connection.write_all(b"GET /v1/server HTTP/1.1\r\nhost: localhost\r\n\r\n").await.is_err() {
        return;
    }
    let mut answer = [0; 1024];
    while connection.read(&mut answer).await.is_ok_and(|length| length > 0) {}
}

/// One paragraph for each refusal.
fn explained(answer: &Value) -> Vec<String> {
    let refusals = answer["refusals"].as_array().map(Vec::as_slice).unwrap_or_default();
    if refusals.is_empty() {
        return vec!["nothing was refused".to_owned()];
    }
    let line = |refusal: &Value| {
        let text = |key: &str| refusal[key].as_str().unwrap_or_default().to_owned();
        let times = match refusal["count"].as_u64() {
            None | Some(1) => "once".to_owned(),
            Some(count) => format!("{count} times"),
        };
        let what = format!("{} {}{}", text("method"), text("host"), text("path"));
        format!("refused {times}: {what}: {}. {}\n  {}", text("type"), text("detail"), text("next_step"))
    };
    refusals.iter().map(line).collect()
}

#[expect(clippy::print_stderr, reason = "the program has the terminal; this is all that is said beside it")]
fn complain(line: &str) {
    eprintln!("sidekey: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_explained_one_by_one() {
        let answer = serde_json::json!({ "refusals": [{ "host": "a.example", "method": "CONNECT", "path": "",
            "type": "host-not-listed", "detail": "D.", "next_step": "N", "count": 3 }] });
        assert_eq!(explained(&answer), ["refused 3 times: CONNECT a.example: host-not-listed. D.\n  N"]);
        assert_eq!(explained(&serde_json::json!({ "refusals": [] })), ["nothing was refused"]);
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_this_machine() {
        let address = |text: &str| text.parse().expect("an address");
        let listens = |egress: &str| Addresses {
            public: address("127.0.0.1:1"),
            egress: vec![address(egress)],
            metrics: address("127.0.0.1:2"),
        };
        assert_eq!(reachable_egress(&listens("0.0.0.0:8701")).as_deref(), Some("127.0.0.1:8701"));
        assert_eq!(reachable_egress(&listens("[::]:8701")).as_deref(), Some("127.0.0.1:8701"));
        assert_eq!(reachable_egress(&listens("127.0.0.2:8701")).as_deref(), Some("127.0.0.2:8701"));
    }
}
