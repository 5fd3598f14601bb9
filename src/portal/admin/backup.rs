//! A backup: everything that is stored, as it is at one moment, in one archive.
//!
//! First in it is a manifest that says what the archive holds; it is signed with the key that seals, so that a file which was
//! damaged, changed or made by somebody else is known for that before anything is restored. No key is in it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;

use super::{AdminState, Failure};
use crate::authority;
use crate::base::digest::Sha256;
use crate::base::files;
use crate::store::sqlite::SCHEMA_VERSION;
use crate::store::{StoreError, sqlite};
use crate::telemetry::audit::Record;

/// What the signing key of manifests is for.
pub const PURPOSE: &str = "backup manifest";
/// The name of the manifest in the archive.
pub const MANIFEST: &str = "manifest.json";
/// The name of the database in the archive.
pub const DATABASE: &str = sqlite::FILE_NAME;
/// What [`Manifest::format`] says.
pub const FORMAT: &str = "sidekey-backup-1";

/// What an archive holds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// Which Sidekey made it.
    pub sidekey: String,
    /// The version of the database's schema.
    pub schema: usize,
    /// When, in RFC 3339.
    pub taken_at: String,
    /// Which store it is of.
    pub store_id: String,
    /// Its epoch: how many refreshes were ever begun.
    pub refreshes: u64,
    /// Ids of the keys that its values are sealed with: a restore needs them all.
    pub keys: Vec<String>,
    /// The id of the key that has signed this.
    pub signed_by: String,
    /// All files behind the manifest, in their order.
    pub files: Vec<FileOfBackup>,
    /// HMAC-SHA-256, in base64, of the manifest with an empty text here.
    pub signature: String,
}

/// A file in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FileOfBackup {
    /// Its name, relative to the store's directory.
    pub name: String,
    /// How many bytes it has.
    pub size: u64,
    /// SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// What is signed.
    pub fn signed_text(&self) -> Vec<u8> {
        let unsigned = Self { signature: String::new(), ..self.clone() };
        serde_json::to_vec(&unsigned).expect("texts and numbers serialize")
    }
}

/// `GET /v1/backup`
pub(super) async fn take(State(state): State<AdminState>) -> Result<Response, Failure> {
    let failed = |error: io::Error| Failure::from(StoreError::Failed(format!("no backup can be made: {error}")));
    let place = Place::new(&state.store_directory).map_err(failed)?;
    let guard = state.store.guard().await?;
    // The keys first: a value that is sealed meanwhile is sealed by the first of them.
    let mut keys: Vec<String> = state.store.key_use().await?.iter().map(|used| used.id.to_string()).collect();
    let active = state.sealer.active_key();
    keys.push(active.to_string());
    keys.sort();
    keys.dedup();
    state.store.snapshot(place.database()).await?;
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        sidekey: env!("CARGO_PKG_VERSION").to_owned(),
        schema: SCHEMA_VERSION,
        taken_at: state.clock.now().to_string(),
        store_id: guard.store_id,
        refreshes: guard.refreshes,
        keys,
        signed_by: active.to_string(),
        files: Vec::new(),
        signature: String::new(),
    };
    let (directory, signer) = (state.store_directory.as_ref().clone(), state.sealer.signing_key(PURPOSE));
    let packed = tokio::task::spawn_blocking(move || {
        let sign = |text: &[u8]| STANDARD.encode(signer.sign(text));
        pack(&place, &directory, manifest, &sign)
    });
    let packed = packed.await.unwrap_or_else(|error| Err(io::Error::other(error.to_string())));
    let archive = packed.map_err(failed)?;
    state.audit.record(Record::new("backup", "taken"));
    let body = Body::from_stream(ReaderStream::new(tokio::fs::File::from_std(archive)));
    Ok(([(CONTENT_TYPE, "application/x-tar")], body).into_response())
}

/// Where the snapshot lies until it is packed. Whatever was left there by a process that was killed is removed.
struct Place(PathBuf);

impl Place {
    fn new(store: &Path) -> io::Result<Self> {
        let place = store.join("sidekey.backup");
        match std::fs::remove_dir_all(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => files::private_directory(&place)?,
        }
        Ok(Self(place))
    }

    fn database(&self) -> PathBuf {
        self.0.join(DATABASE)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The archive, in a file that has no name anymore: it is gone with whoever reads it.
fn pack(place: &Place, store: &Path, mut manifest: Manifest, sign: &dyn Fn(&[u8]) -> String) -> io::Result<File> {
    let mut contents = vec![(DATABASE.to_owned(), File::open(place.database())?)];
    let kept = Path::new(authority::DIRECTORY_NAME).join(authority::FILE_NAME);
    match File::open(store.join(&kept)) {
        Ok(file) => contents.push((kept.display().to_string(), file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    for (name, file) in &mut contents {
        let (size, sha256) = measure(file)?;
        file.seek(SeekFrom::Start(0))?;
        manifest.files.push(FileOfBackup { name: name.clone(), size, sha256 });
    }
    manifest.signature = sign(&manifest.signed_text());
    let path = place.0.join("archive");
    let archive = files::open_private(&path)?;
    std::fs::remove_file(&path)?;
    let mut archive = tar::Builder::new(archive);
    let text = serde_json::to_vec_pretty(&manifest)?;
    archive.append_data(&mut header(text.len() as u64), MANIFEST, text.as_slice())?;
    for (entry, (name, file)) in manifest.files.iter().zip(contents) {
        archive.append_data(&mut header(entry.size), name, file.take(entry.size))?;
    }
    let mut archive = archive.into_inner()?;
    archive.seek(SeekFrom::Start(0))?;
    Ok(archive)
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header
}

fn measure(file: &mut File) -> io::Result<(u64, String)> {
    let mut digest = Sha256::new();
    let (mut size, mut buffer) = (0, vec![0; 64 * 1024]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((size, digest.finish_hex()));
        }
        digest.update(&buffer[..count]);
        size += count as u64;
    }
}
