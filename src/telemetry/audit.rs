//! The audit trail: one record for every OAuth operation, appended to a file and never changed. Who, what, at which
//! provider or MCP server, with what outcome and why; never a secret.
//!
//! Records are written by a thread of their own, so that no request waits for a disk. If the disk cannot keep up or fails,
//! operations go on and the log says how many records are missing.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tracing::error;

use crate::base::clock::{Clock, Timestamp};
use crate::base::files;
use crate::model::authorization::Authorization;
use crate::model::connection::ConnectionKey;
use crate::model::names::{Label, ProviderName, ServerName, Subject};

/// The file that records are appended to, in the store's directory.
pub const FILE_NAME: &str = "audit.jsonl";
/// A file of this size is put aside, and a new one begun.
const LARGEST: u64 = 16 * 1024 * 1024;
/// So many that were put aside are kept.
const KEPT: usize = 12;
/// So many records may wait to be written.
const QUEUE: usize = 8192;

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Record {
    /// When, in RFC 3339.
    pub time: String,
    /// What was done: `connect`, `refresh`, `disconnect`, `revoke`, `register`, `authorize`, `grant`, ...
    pub operation: String,
    /// How it ended.
    pub outcome: String,
    /// For whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// At which provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderName>,
    /// Which of several connections there; absent for the one that is called `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// At which MCP server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerName>,
    /// By or for which MCP client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// In which grant of an MCP client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// With which API key of a partner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// Why, or what else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Record {
    /// What was done, and how it ended.
    pub fn new(operation: &str, outcome: impl Into<String>) -> Self {
        Self { operation: operation.to_owned(), outcome: outcome.into(), ..Self::default() }
    }

    /// Something about what a user has approved.
    pub fn of_authorization(operation: &str, outcome: impl Into<String>, authorization: &Authorization) -> Self {
        Self {
            subject: Some(authorization.user.subject.clone()),
            server: Some(authorization.server.clone()),
            client: Some(authorization.client_id.clone()),
            ..Self::new(operation, outcome)
        }
    }

    /// Something about a connection.
    pub fn of_connection(operation: &str, outcome: impl Into<String>, key: &ConnectionKey) -> Self {
        let (subject, provider) = (Some(key.subject.clone()), Some(key.provider.clone()));
        let label = Some(key.label.clone()).filter(|label| *label != Label::default());
        Self { subject, provider, label, ..Self::new(operation, outcome) }
    }
}

/// Where records go.
pub struct Audit {
    queue: Mutex<Option<SyncSender<Record>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    missing: AtomicU64,
    clock: Arc<dyn Clock>,
}

impl Audit {
    /// Appends to the file in `directory`, which must be there.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>) -> std::io::Result<Arc<Self>> {
        let trail = Trail::open(directory)?;
        let (queue, records) = sync_channel(QUEUE);
        let writing = Arc::clone(&clock);
        let thread = std::thread::Builder::new().name("sidekey-audit".to_owned());
        let writer = thread.spawn(move || write_all(trail, &records, writing.as_ref()))?;
        let (queue, writer) = (Mutex::new(Some(queue)), Mutex::new(Some(writer)));
        Ok(Arc::new(Self { queue, writer, missing: AtomicU64::new(0), clock }))
    }

    /// Keeps nothing: for tests of parts.
    pub fn none(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { queue: Mutex::new(None), writer: Mutex::new(None), missing: AtomicU64::new(0), clock })
    }

    /// Appends a record. Never waits.
    pub fn record(&self, record: Record) {
        let record = Record { time: self.clock.now().to_string(), ..record };
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queue.as_ref() else { return };
        if let Err(TrySendError::Full(record) | TrySendError::Disconnected(record)) = queue.try_send(record) {
            let missing = self.missing.fetch_add(1, Ordering::Relaxed) + 1;
            error!(operation = "audit", about = record.operation, missing, "a record could not be kept");
        }
    }

    /// Waits until everything is written; later records are not kept.
    pub fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

fn write_all(mut trail: Trail, records: &Receiver<Record>, clock: &dyn Clock) {
    while let Ok(record) = records.recv() {
        let mut written = trail.append(&record, clock.now());
        // What came meanwhile shares the way to the disk.
        while let (Ok(()), Ok(record)) = (&written, records.try_recv()) {
            written = trail.append(&record, clock.now());
        }
        if let Err(error) = written.and_then(|()| trail.file.sync_data()) {
            error!(operation = "audit", %error, "the audit trail cannot be written");
        }
    }
}

struct Trail {
    path: PathBuf,
    file: File,
    size: u64,
    /// A record was written in part: by a process that was killed, or onto a full disk.
    is_torn: bool,
}

impl Trail {
    fn open(directory: &Path) -> std::io::Result<Self> {
        let path = directory.join(FILE_NAME);
        let file = files::append_private(&path)?;
        let size = file.metadata()?.len();
        let mut trail = Self { path, file, size, is_torn: false };
        trail.is_torn = trail.ends_within_a_line()?;
        Ok(trail)
    }

    fn append(&mut self, record: &Record, now: Timestamp) -> std::io::Result<()> {
        if !self.is_in_place()? {
            error!(operation = "audit", path = %self.path.display(), "the audit trail was removed or replaced; another one is begun");
            *self = Self::open(self.path.parent().unwrap_or(Path::new("")))?;
            let why = "the file was removed or replaced while Sidekey ran".to_owned();
            let gap = Record { time: now.to_string(), reason: Some(why), ..Record::new("audit", "begun_anew") };
            self.write(&gap, now)?;
        }
        self.write(record, now)
    }

    /// Whether what is written now is found where the trail is looked for.
    fn is_in_place(&self) -> std::io::Result<bool> {
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) => self.file.metadata().map(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, record: &Record, now: Timestamp) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        if self.is_torn {
            // Or this record would be lost with that one.
            line.insert(0, b'\n');
        }
        if self.size > 0 && self.size + line.len() as u64 > LARGEST {
            self.put_aside(now)?;
        }
        self.is_torn = true;
        self.file.write_all(&line)?;
        self.is_torn = false;
        self.size += line.len() as u64;
        Ok(())
    }

    fn ends_within_a_line(&self) -> std::io::Result<bool> {
        let Some(last) = self.size.checked_sub(1) else { return Ok(false) };
        let mut byte = [0];
        File::open(&self.path)?.read_exact_at(&mut byte, last)?;
        Ok(byte != *b"\n")
    }

    fn put_aside(&mut self, now: Timestamp) -> std::io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("")).to_owned();
        self.file.sync_data()?;
        std::fs::rename(&self.path, directory.join(format!("audit-{:015}.jsonl", now.as_millis())))?;
        let aside = put_aside_files(&directory)?;
        for old in aside.iter().rev().skip(KEPT) {
            std::fs::remove_file(old)?;
        }
        *self = Self::open(&directory)?;
        Ok(())
    }
}

/// Files that were put aside, the oldest first.
fn put_aside_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory)?.filter_map(Result::ok).map(|file| file.path()).collect();
    files.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("audit-") && name.ends_with(".jsonl")
    });
    files.sort();
    Ok(files)
}

/// All records in `directory`, the oldest first. A line that was cut off by a crash is left out.
pub fn read(directory: &Path, each: &mut dyn FnMut(Record)) -> std::io::Result<()> {
    Follower::new(directory).read(each)
}

/// Reads the trail, and what is appended to it later, also across files that are put aside.
pub struct Follower {
    directory: PathBuf,
    /// The file that is appended to, read so far, and what was read of a line that had no end yet.
    current: Option<(BufReader<File>, Vec<u8>)>,
    has_read_old_ones: bool,
}

impl Follower {
    /// Begins with the oldest record in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), current: None, has_read_old_ones: false }
    }

    /// All records that were appended since it was called last.
    pub fn read(&mut self, each: &mut dyn FnMut(Record)) -> std::io::Result<()> {
        if !self.has_read_old_ones {
            for path in put_aside_files(&self.directory)? {
                let mut file = (BufReader::new(File::open(path)?), Vec::new());
                read_lines(&mut file, each)?;
            }
            self.has_read_old_ones = true;
        }
        loop {
            if let Some(current) = &mut self.current {
                read_lines(current, each)?;
            }
            let path = self.directory.join(FILE_NAME);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            match &mut self.current {
                Some(current) if is_same(current.0.get_ref(), &file)? => return Ok(()),
                Some(current) => {
                    // It was put aside: what came between the look at it and that is still there.
                    read_lines(current, each)?;
                    self.current = Some((BufReader::new(file), Vec::new()));
                }
                None => self.current = Some((BufReader::new(file), Vec::new())),
            }
        }
    }
}

fn is_same(one: &File, other: &File) -> std::io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

fn read_lines((file, begun): &mut (BufReader<File>, Vec<u8>), each: &mut dyn FnMut(Record)) -> std::io::Result<()> {
    loop {
        let count = file.read_until(b'\n', begun)?;
        if count == 0 || !begun.ends_with(b"\n") {
            return Ok(());
        }
        if let Ok(record) = serde_json::from_slice(begun) {
            each(record);
        }
        begun.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;

    fn all(directory: &Path) -> Vec<String> {
        let mut outcomes = Vec::new();
        read(directory, &mut |record| outcomes.push(record.outcome)).expect("read");
        outcomes
    }

    #[test]
    fn records_are_appended_and_read_in_order() {
        let home = tempfile::tempdir().expect("a directory");
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::from_millis(0)));
        for outcome in ["one", "two"] {
            let audit = Audit::open(home.path(), Arc::clone(&clock)).expect("opened");
            audit.record(Record::new("connect", outcome));
            audit.close();
            audit.record(Record::new("connect", "too late"));
        }
        let text = std::fs::read_to_string(home.path().join(FILE_NAME)).expect("there");
        assert_eq!(
            text.lines().next(),
            Some(r#"{"time":"1970-01-01T00:00:00Z","operation":"connect","outcome":"one"}"#)
        );
        std::fs::write(home.path().join(FILE_NAME), format!("{text}{{\"time\":\"cut o")).expect("written");
        assert_eq!(all(home.path()), ["one", "two"]);
        let audit = Audit::open(home.path(), clock).expect("opened");
        audit.record(Record::new("connect", "three"));
        audit.close();
        assert_eq!(all(home.path()), ["one", "two", "three"], "what was cut off takes nothing along");
    }

    #[test]
    fn what_is_appended_later_is_followed_also_when_the_file_is_put_aside() {
        let home = tempfile::tempdir().expect("a directory");
        let (mut follower, mut found) = (Follower::new(home.path()), Vec::new());
        follower.read(&mut |record| found.push(record.outcome)).expect("nothing is there yet");
        let mut trail = Trail::open(home.path()).expect("opened");
        let mut append = |number: i64| {
            let at = Timestamp::from_millis(number);
            trail.append(&Record::new("refresh", number.to_string()), at).expect("written");
            trail.size = if number % 3 == 0 { LARGEST } else { trail.size };
        };
        for number in 0..10 {
            append(number);
            if number % 2 == 0 {
                follower.read(&mut |record| found.push(record.outcome)).expect("read");
            }
        }
        let path = home.path().join(FILE_NAME);
        let half = |text: &str| {
            let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("there");
            file.write_all(text.as_bytes()).expect("written");
        };
        half("{\"outcome\":");
        follower.read(&mut |record| found.push(record.outcome)).expect("read");
        half("\"x\"}\n");
        follower.read(&mut |record| found.push(record.outcome)).expect("read");
        assert_eq!(found, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "x"]);
    }

    #[test]
    fn a_large_file_is_put_aside_and_old_ones_go() {
        let home = tempfile::tempdir().expect("a directory");
        let mut trail = Trail::open(home.path()).expect("opened");
        for number in 0..20 {
            let at = Timestamp::from_millis(number);
            trail.size = LARGEST;
            trail.append(&Record::new("refresh", number.to_string()), at).expect("written");
        }
        assert_eq!(put_aside_files(home.path()).expect("read").len(), KEPT);
        let expected: Vec<String> = (7..20).map(|number| number.to_string()).collect();
        assert_eq!(all(home.path()), expected);
    }

    #[test]
    fn a_trail_that_is_taken_away_is_begun_anew_and_says_so() {
        let home = tempfile::tempdir().expect("a directory");
        let mut trail = Trail::open(home.path()).expect("opened");
        let path = home.path().join(FILE_NAME);
        let mut append = |outcome: &str| {
            let written = trail.append(&Record::new("connect", outcome), Timestamp::from_millis(0));
            (written.is_ok(), all(home.path()))
        };
        append("one");
        std::fs::remove_file(&path).expect("removed");
        let expected = |outcomes: &[&str]| (true, outcomes.iter().map(|outcome| (*outcome).to_owned()).collect());
        assert_eq!(append("two"), expected(&["begun_anew", "two"]));
        assert_eq!(append("three"), expected(&["begun_anew", "two", "three"]));
        // As programs do that keep logs small.
        std::fs::rename(&path, home.path().join("audit.jsonl.1")).expect("renamed");
        files::create_private(&path, b"").expect("made");
        assert_eq!(append("four"), expected(&["begun_anew", "four"]));
    }

    #[test]
    fn the_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().expect("a directory");
        let audit = Audit::open(home.path(), Arc::new(ManualClock::at(Timestamp::from_millis(0)))).expect("opened");
        audit.close();
        let mode = std::fs::metadata(home.path().join(FILE_NAME)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
