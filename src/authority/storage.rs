//! The file that authorities are kept in: certificates to be read, keys sealed for exactly these certificates.
//!
//! Whoever changes anything in it makes the key beside it unusable, and thereby the change known: nobody is led to trust
//! another root.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::AuthorityError;
use super::generation::Generation;
use super::issue::PrivateKey;
use crate::base::clock::Timestamp;
use crate::base::digest::sha256_base64url;
use crate::base::files;
use crate::base::secret::Secret;
use crate::store::seal::{Context, OpenError, Sealed, Sealer};

/// The file in the authority's directory.
pub const FILE_NAME: &str = "authority.json";
/// The file whose lock is held while the other is read and written.
const LOCK_NAME: &str = "lock";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    /// The oldest first.
    authorities: Vec<Kept>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    authority: Public,
    /// The intermediate's key in PKCS#8, sealed, in base64.
    sealed_key: String,
}

/// All but the key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Public {
    id: String,
    hosts: BTreeSet<String>,
    made_at: Timestamp,
    not_after: Timestamp,
    replaced_at: Option<Timestamp>,
    /// DER in base64, as the intermediate.
    root: String,
    intermediate: String,
}

/// The directory, held by this process until it is dropped.
pub struct Storage {
    path: PathBuf,
    lock: File,
}

impl Drop for Storage {
    fn drop(&mut self) {
        // Closing the file would not do while a child process that is just being started has it open too.
        let _ = self.lock.unlock();
    }
}

/// What was read.
pub struct Loaded {
    /// The oldest first.
    pub generations: Vec<Generation>,
    /// Whether another key than the one that seals now has sealed any.
    pub sealed_by_another: bool,
}

impl Storage {
    /// Waits until no other process holds the directory. It is made where it is missing.
    pub fn hold(directory: &Path) -> Result<Self, AuthorityError> {
        files::private_directory(directory).map_err(AuthorityError::Files)?;
        let lock = files::open_private(&directory.join(LOCK_NAME)).map_err(AuthorityError::Files)?;
        lock.lock().map_err(AuthorityError::Files)?;
        Ok(Self { path: directory.join(FILE_NAME), lock })
    }

    /// Reads what is there.
    pub fn load(&self, sealer: &Sealer) -> Result<Loaded, AuthorityError> {
        load(&self.path, sealer)
    }

    /// Replaces what is there; on the disk when it returns.
    pub fn save(&self, generations: &[Generation], sealer: &Sealer) -> Result<(), AuthorityError> {
        let authorities = generations.iter().map(|generation| keep(generation, sealer)).collect();
        let content = serde_json::to_vec_pretty(&Content { version: VERSION, authorities });
        let content = content.map_err(|error| AuthorityError::Files(io::Error::other(error)))?;
        files::replace_private(&self.path, &content).map_err(AuthorityError::Files)
    }
}

/// Whether another key than the one that seals now has sealed anything in a directory.
pub fn is_sealed_by_another(directory: &Path, sealer: &Sealer) -> Result<bool, AuthorityError> {
    let path = directory.join(FILE_NAME);
    if path.exists() { Ok(load(&path, sealer)?.sealed_by_another) } else { Ok(false) }
}

/// Reads what is kept in a directory, without changing or making anything.
pub fn look(directory: &Path, sealer: &Sealer) -> Result<Vec<Generation>, AuthorityError> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    files::private_directory(directory).map_err(AuthorityError::Files)?;
    Ok(load(&directory.join(FILE_NAME), sealer)?.generations)
}

fn load(path: &Path, sealer: &Sealer) -> Result<Loaded, AuthorityError> {
    match files::private_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Loaded { generations: Vec::new(), sealed_by_another: false });
        }
        checked => checked.map_err(AuthorityError::Files)?,
    }
    let text = std::fs::read(path).map_err(AuthorityError::Files)?;
    let damaged = |what: &str| AuthorityError::Damaged(path.to_owned(), what.to_owned());
    let content: Content = serde_json::from_slice(&text).map_err(|error| damaged(&error.to_string()))?;
    if content.version != VERSION {
        return Err(damaged(&format!("it has version {}, and this Sidekey knows version {VERSION}", content.version)));
    }
    let mut loaded = Loaded { generations: Vec::new(), sealed_by_another: false };
    for kept in content.authorities {
        let sealed = STANDARD.decode(&kept.sealed_key).map_err(|_| damaged("a key is not base64"))?;
        let sealed = Sealed::from_bytes(sealed);
        loaded.sealed_by_another |= sealed.key_id() != Some(sealer.active_key());
        let key =
            sealer.open(&context(&kept.authority, &digest(&kept.authority)), &sealed).map_err(|error| match error {
                OpenError::UnknownKey(id) => AuthorityError::UnknownKey(path.to_owned(), id),
                OpenError::Corrupt => damaged("a key does not open, or what stands beside it was changed"),
            })?;
        let key = STANDARD.decode(key.expose()).map(Zeroizing::new).map_err(|_| damaged("a key is not base64"))?;
        let key = PrivateKey::from_pkcs8(&key).map_err(|_| damaged("a key is not a key"))?;
        let certificate = |text: &String| STANDARD.decode(text).map(CertificateDer::from);
        let Public { id, hosts, made_at, not_after, replaced_at, root, intermediate } = kept.authority;
        let root = certificate(&root).map_err(|_| damaged("a certificate is not base64"))?;
        let intermediate = certificate(&intermediate).map_err(|_| damaged("a certificate is not base64"))?;
        loaded.generations.push(Generation { id, hosts, made_at, not_after, replaced_at, root, intermediate, key });
    }
    Ok(loaded)
}

fn keep(generation: &Generation, sealer: &Sealer) -> Kept {
    let public = Public {
        id: generation.id.clone(),
        hosts: generation.hosts.clone(),
        made_at: generation.made_at,
        not_after: generation.not_after,
        replaced_at: generation.replaced_at,
        root: STANDARD.encode(&generation.root),
        intermediate: STANDARD.encode(&generation.intermediate),
    };
    let key = Secret::new(STANDARD.encode(generation.key.as_pkcs8()));
    let sealed = sealer.seal(&context(&public, &digest(&public)), &key);
    Kept { sealed_key: STANDARD.encode(sealed.as_bytes()), authority: public }
}

fn digest(public: &Public) -> String {
    // Texts, numbers and lists of texts always serialize.
    sha256_base64url(&serde_json::to_vec(public).unwrap_or_default())
}

fn context<'a>(public: &'a Public, digest: &'a str) -> Context<'a> {
    Context {
        purpose: "authority",
        subject: digest,
        provider: "",
        record: &public.id,
        field: "intermediate_key",
        generation: 0,
    }
}
