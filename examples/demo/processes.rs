//! The three processes and the directory that they live in.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::browser::Browser;

/// The subject that connects.
pub const SUBJECT: &str = "alice";

/// Everything that runs. Dropping it ends all processes and removes the directory.
pub struct World {
    /// Where browsers reach Sidekey.
    pub public: String,
    /// Where MCP servers reach Sidekey.
    pub egress: String,
    /// Metrics and probes of Sidekey.
    pub metrics: String,
    /// The simulated provider.
    pub simulator: String,
    /// The MCP server, as MCP clients reach it: through Sidekey.
    pub mcp: String,
    /// The directory of everything.
    pub directory: PathBuf,
    mcp_server: Option<TcpListener>,
    children: Vec<Child>,
    _home: tempfile::TempDir,
}

impl World {
    /// Starts the simulator and Sidekey.
    pub async fn start(access_lifetime: f64) -> Result<Self, String> {
        let home = tempfile::Builder::new().prefix("sidekey-demo-").tempdir().map_err(text)?;
        let directory = home.path().to_owned();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).map_err(text)?;
        let mut simulator = command("process:simulator");
        simulator.arg("--set").arg(format!("quickbooks.access_lifetime_s={access_lifetime}"));
        simulator.args(["--set", "quickbooks.realm_per_user=true"]);
        let (simulator, ready) = spawn_until_ready(simulator).await?;
        let url = ready["url"].as_str().ok_or("the simulator did not say where it is")?.to_owned();
        let [public, egress, metrics] = free_addresses()?;
        // Opened now, because Sidekey must know it; kept open, so that nobody else takes it.
        let mcp_server = TcpListener::bind("127.0.0.1:0").map_err(text)?;
        let upstream = mcp_server.local_addr().map_err(text)?;
        write_configuration(&directory, &url, [public, egress, metrics, upstream])?;
        let log = std::fs::File::create(directory.join("sidekey.log")).map_err(text)?;
        let mut sidekey = command("process:sidekey");
        sidekey.args(["serve", "--config"]).arg(directory.join("sidekey.toml")).stderr(log);
        let sidekey = configured(&mut sidekey).spawn().map_err(text)?;
        let world = Self {
            public: format!("http://{public}"),
            egress: format!("http://{egress}"),
            metrics: format!("http://{metrics}"),
            simulator: url,
            mcp: format!("http://{public}/accounting/mcp"),
            directory,
            mcp_server: Some(mcp_server),
            children: vec![simulator, sidekey],
            _home: home,
        };
        world.wait_until_ready().await?;
        Ok(world)
    }

    /// Starts the MCP server with what it needs: a base URL and, where a token is expected, a handle.
    pub async fn start_mcp_server(&mut self, handle: &str) -> Result<String, String> {
        let mut server = command("process:mcp-server");
        let listener = self.mcp_server.take().ok_or("the MCP server was started before")?;
        server.stdin(Stdio::from(OwnedFd::from(listener)));
        server.env("QUICKBOOKS_BASE_URL", format!("{}/quickbooks", self.egress)).env("QUICKBOOKS_TOKEN", handle);
        let (server, ready) = spawn_until_ready(server).await?;
        self.children.push(server);
        ready["url"].as_str().map(str::to_owned).ok_or_else(|| "the MCP server did not say where it is".to_owned())
    }

    /// Runs `sidekey ARGUMENTS --json` beside the running server, and reads its answer.
    pub async fn sidekey(&self, arguments: &[&str]) -> Result<Value, String> {
        let mut command = command("process:sidekey");
        command.args(arguments).arg("--json").arg("--config").arg(self.directory.join("sidekey.toml"));
        let output = configured(&mut command).output().await.map_err(text)?;
        if !output.status.success() {
            return Err(format!("sidekey {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr)));
        }
        serde_json::from_slice(&output.stdout).map_err(text)
    }

    /// What happened at the simulated provider.
    pub async fn ledger(&self) -> Result<Value, String> {
        let ledger = Browser::new()?.get(&format!("{}/control/ledger", self.simulator)).await?.json()?;
        Ok(ledger["profiles"]["quickbooks"].clone())
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.directory.join("sidekey.toml")
    }

    async fn wait_until_ready(&self) -> Result<(), String> {
        let browser = Browser::new()?;
        for _ in 0..200 {
            if browser.get(&format!("{}/readyz", self.metrics)).await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            pause(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(self.directory.join("sidekey.log")).unwrap_or_default();
        Err(format!("Sidekey did not become ready: {log}"))
    }

    /// Ends all processes in order, Sidekey by SIGTERM.
    pub async fn stop(mut self) {
        while let Some(mut child) = self.children.pop() {
            if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let _ = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
        }
    }
}

/// The simulator's process.
pub fn simulator(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    sidekey_simulator::command_line::main(std::iter::once("sidekey-simulator".into()).chain(arguments))
}

/// Waits a little.
#[expect(clippy::disallowed_methods, reason = "the demo lives in real time")]
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// An error as text.
pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn command(process: &str) -> Command {
    let program = std::env::current_exe().unwrap_or_else(|_| "demo".into());
    let mut command = Command::new(program);
    // Nothing is inherited but what programs need to run at all.
    command.arg(process).env_clear().kill_on_drop(true).stdin(Stdio::null());
    for name in ["PATH", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

fn configured(command: &mut Command) -> &mut Command {
    command.env(
        "QUICKBOOKS_CLIENT_SECRET",
        sidekey_simulator::Settings::of(sidekey_simulator::Profile::Quickbooks).client_secret,
    )
}

async fn spawn_until_ready(mut command: Command) -> Result<(Child, Value), String> {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(text)?;
    let output = child.stdout.take().ok_or("no output")?;
    let mut line = String::new();
    let mut output = BufReader::new(output);
    tokio::time::timeout(Duration::from_secs(10), output.read_line(&mut line)).await.map_err(text)?.map_err(text)?;
    Ok((child, serde_json::from_str(&line).map_err(text)?))
}

fn free_addresses() -> Result<[SocketAddr; 3], String> {
    let listeners: Result<Vec<_>, _> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let addresses: Result<Vec<_>, _> = listeners.map_err(text)?.iter().map(TcpListener::local_addr).collect();
    addresses.map_err(text)?.try_into().map_err(|_| "three ports".to_owned())
}

fn write_configuration(
    directory: &Path,
    simulator: &str,
    [public, egress, metrics, upstream]: [SocketAddr; 4],
) -> Result<(), String> {
    let client_id = sidekey_simulator::Settings::of(sidekey_simulator::Profile::Quickbooks).client_id;
    let config = format!(
        "provider_directory = \"providers\"\n\n\
         [public]\nlisten = \"{public}\"\n\n[egress]\nlisten = \"{egress}\"\n\n[metrics]\nlisten = \"{metrics}\"\n\n\
         [store]\ndirectory = \"data\"\nkeys = [\"file:sidekey.key\"]\n\n[logging]\nformat = \"text\"\nlevel = \"debug\"\n\n\
         [providers.quickbooks]\nclient_id = \"{client_id}\"\nclient_secret = \"env:QUICKBOOKS_CLIENT_SECRET\"\n\n\
         [issuer]\nidentity = \"quickbooks\"\n\n\
         [servers.accounting]\nupstream = \"http://{upstream}/mcp\"\nproviders = [\"quickbooks\"]\n\
         required = [\"quickbooks\"]\n"
    );
    // The bundled entry, with the simulator in the place of Intuit's hosts.
    let entry = format!(
        "extends = \"quickbooks\"\n\n[authorize]\nurl = \"{simulator}/quickbooks/authorize\"\n\n\
         [token]\nurl = \"{simulator}/quickbooks/token\"\n\n\
         [identity]\nissuer = \"{simulator}/quickbooks\"\njwks_url = \"{simulator}/quickbooks/jwks.json\"\n\n\
         [environments.production.apis.quickbooks]\norigin = \"{simulator}\"\nbase_path = \"/quickbooks/api\"\n"
    );
    let key = sidekey::store::keyring::generate_key(&sidekey::base::random::SystemRandom);
    std::fs::create_dir(directory.join("providers")).map_err(text)?;
    for (name, content) in
        [("sidekey.toml", config.as_str()), ("providers/quickbooks.toml", &entry), ("sidekey.key", key.expose())]
    {
        sidekey::base::files::create_private(&directory.join(name), content.as_bytes()).map_err(text)?;
    }
    Ok(())
}
