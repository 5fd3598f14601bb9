//! The program `one_refresh` on a store of its own: made ready, killed, and looked at.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sidekey::base::clock::{Clock, ManualClock};
use sidekey::base::digest::sha256;
use sidekey::base::random::SystemRandom;
use sidekey::model::connection::ConnectionKey;
use sidekey::model::names::Label;
use sidekey::server::{self, Environment};
use sidekey::store::Store;
use sidekey::store::record::{ConnectionRecord, field};
use sidekey::store::seal::{Sealed, Sealer};
use sidekey::store::sqlite::SqliteStore;
use sidekey_simulator::{Grant, Options, Rotation, Simulator};
use tokio::process::{Child, Command};

use crate::client::http;
use crate::process::certificates;
use crate::world::{Files, Setup, World, eventually, now};

/// Calls that change a file.
pub const WRITING: [&str; 8] =
    ["pwrite64", "fsync", "fdatasync", "ftruncate", "fallocate", "fchown", "unlink", "rename"];

/// What the provider does with a refresh token that was used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// It goes on working.
    Overlap,
    /// It is dead.
    SingleUse,
}

/// A provider, and a store with connections that are all due for a refresh, and none of which has expired.
pub struct Bed {
    pub simulator: Simulator,
    files: Files,
}

/// A copy of that store, for one run.
pub struct Case {
    home: tempfile::TempDir,
    key: ConnectionKey,
    program: PathBuf,
    arguments: Vec<String>,
}

/// What a store says about a connection, with its tokens opened.
pub struct Found {
    pub record: ConnectionRecord,
    access_token: String,
    refresh_token: String,
}

const PROVIDER: &str = "quickbooks";
/// Access tokens live for an hour and are due five minutes before: these have two minutes left.
const AGE: Duration = Duration::from_secs(3480);

impl Bed {
    pub async fn make(rule: Rule, connections: usize) -> Self {
        let simulator = sidekey_simulator::start(Options::default()).await.expect("a simulator");
        let (rotation, model) = match rule {
            Rule::Overlap => (Rotation::Overlap, "overlap"),
            Rule::SingleUse => (Rotation::SingleUse, "single_use"),
        };
        simulator.set(PROVIDER, |settings| settings.rotation = rotation);
        let files = Files::write(&simulator.url(), &Setup::default());
        files.declare_rotation(PROVIDER, model);
        std::fs::write(files.home.path().join("roots.pem"), certificates("localhost").authority).expect("written");
        let settings = files.settings();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(now().minus(AGE)));
        let environment = Environment { clock, ..Environment::system(&settings).expect("an environment") };
        let sidekey = server::start(settings, environment).await.expect("it starts");
        let world = World { simulator, files, sidekey, client: http() };
        for number in 0..connections {
            world.connect(PROVIDER, &subject(number)).await;
        }
        let World { simulator, files, sidekey, .. } = world;
        sidekey.stop().await;
        // The last task that was aborted closes it: files that are copied must not vanish meanwhile.
        eventually("nobody owns the store", async || is_free(files.home.path())).await;
        Self { simulator, files }
    }

    /// A copy for a run that refreshes this connection.
    pub fn case(&self, number: usize) -> Case {
        // In memory: a process that is killed leaves the same files behind on any disk, and hundreds of runs sync thousands
        // of times.
        let home = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        copy(self.files.home.path(), home.path());
        let (program, subject) = (program(), subject(number));
        let arguments = ["sidekey.toml", subject.as_str(), PROVIDER].map(str::to_owned).into();
        let provider = PROVIDER.parse().expect("a name");
        let key = ConnectionKey::new(subject.parse().expect("a subject"), provider, Label::default());
        Case { home, key, program, arguments }
    }

    /// Looks into the store, with this process as its owner, once the provider is done with all that it was sent.
    pub async fn look(&self, case: &Case) -> Found {
        self.simulator.settled().await.expect("it can be reached");
        let store = SqliteStore::open(&case.home.path().join("data")).expect("the store opens");
        let record = store.connection(case.key.clone()).await.expect("it can be read").expect("it is there");
        let sealer = Sealer::new(self.files.settings().keys, Arc::new(SystemRandom));
        let open = |field, sealed: &Sealed| {
            let opened = sealer.open(&record.seal_context(field), sealed);
            opened.unwrap_or_else(|error| panic!("{field} is {error}")).expose().to_owned()
        };
        let access_token = open(field::ACCESS_TOKEN, &record.access_token);
        let refresh_token = open(field::REFRESH_TOKEN, record.refresh_token.as_ref().expect("there"));
        if let Some(previous) = &record.previous_refresh_token {
            open(field::PREVIOUS_REFRESH_TOKEN, previous);
        }
        Found { record, access_token, refresh_token }
    }

    /// The grant that these tokens belong to, and whether the provider has answered a refresh of it. Both tokens came with
    /// the same reply.
    pub fn grant(&self, found: &Found) -> Grant {
        let ledger = self.simulator.ledger();
        let (access, refresh) = (hash(&found.access_token), hash(&found.refresh_token));
        let grant = ledger.grant_of_token(&access).expect("an access token of this provider");
        let access = grant.access_tokens.iter().find(|token| token.value_sha256 == access).expect("there");
        let refresh = grant.refresh_tokens.iter().find(|token| token.value_sha256 == refresh);
        let refresh = refresh.expect("a refresh token of the same grant");
        assert_eq!(access.issued_by, refresh.parent, "both tokens came with the same reply");
        grant.clone()
    }

    pub async fn stop(self) {
        self.simulator.stop().await;
    }
}

impl Found {
    pub fn is_refreshed(&self) -> bool {
        self.record.generation > 1
    }
}

impl Case {
    /// The same, to do something else: the program with other arguments, or the real one.
    pub fn doing(self, is_real: bool, arguments: &[&str]) -> Self {
        let program = if is_real { PathBuf::from(env!("CARGO_BIN_EXE_sidekey")) } else { self.program };
        Self { program, arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(), ..self }
    }

    pub fn subject(&self) -> &str {
        self.key.subject.as_str()
    }

    pub fn database(&self) -> PathBuf {
        self.home.path().join("data/sidekey.db")
    }

    /// Runs the program to its end.
    pub async fn run(&self) {
        let mut command = self.command(&self.program);
        let output = command.args(&self.arguments).output().await.expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs it under strace with these options.
    pub async fn traced(&self, options: &[&str]) -> ExitStatus {
        self.spawn_traced(options).wait().await.expect("it ends")
    }

    /// The same without waiting. Once strace is killed, the program goes on without it.
    pub fn spawn_traced(&self, options: &[&str]) -> Child {
        let mut strace = self.command(Path::new("strace"));
        strace.args(options).args(["-qq", "-o", "trace"]).arg(&self.program).args(&self.arguments);
        strace.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace is installed (`make setup`)")
    }

    /// Runs it, to be killed when one of its threads begins this call for the nth time. Whether it was.
    pub async fn is_killed(&self, call: &str, when: usize, options: &[&str]) -> bool {
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={when}"));
        let status = self.traced(&[options, &["-e", &trace, "-e", &inject]].concat()).await;
        assert!(status.success() || status.signal() == Some(9), "{call} {when}: {status}");
        !status.success()
    }

    /// Whether no program owns the store.
    pub fn is_free(&self) -> bool {
        is_free(self.home.path())
    }

    /// What strace wrote.
    pub fn trace(&self) -> String {
        std::fs::read_to_string(self.home.path().join("trace")).expect("there")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // There are system calls enough without reading all roots of the machine.
        command.env("SSL_CERT_FILE", "roots.pem").env_remove("SSL_CERT_DIR").env_remove("SIDEKEY_CONFIG");
        command.current_dir(self.home.path()).kill_on_drop(true).stdin(Stdio::null());
        command
    }
}

fn is_free(home: &Path) -> bool {
    let lock = std::fs::File::open(home.join("data/sidekey.lock")).expect("there");
    lock.try_lock().is_ok()
}

fn subject(number: usize) -> String {
    format!("subject-{number}")
}

/// Cargo builds the examples before it runs tests.
fn program() -> PathBuf {
    let directory = Path::new(env!("CARGO_BIN_EXE_sidekey")).parent().expect("a directory");
    directory.join("examples/one_refresh")
}

fn hash(token: &str) -> String {
    hex(&sha256(token.as_bytes()))
}

/// As the simulator's ledger writes digests.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Copies a directory, modes included.
fn copy(from: &Path, to: &Path) {
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).expect("chmod");
    for entry in std::fs::read_dir(from).expect("listed") {
        let (source, target) = {
            let entry = entry.expect("an entry");
            (entry.path(), to.join(entry.file_name()))
        };
        if source.is_dir() {
            std::fs::create_dir(&target).expect("made");
            copy(&source, &target);
        } else {
            std::fs::copy(&source, &target).expect("copied");
        }
    }
}
