//! The directory of one run: configuration, provider files, key, and the store that outlives every process.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use sidekey::base::files::create_private;
use sidekey::base::random::SystemRandom;
use sidekey::store::keyring::{KeyRing, generate_key, parse_key};
use sidekey_simulator::{Profile, Settings};

use crate::models::Model;

/// The profile that each simulator plays: plain RFC 6749.
pub const PROFILE: &str = "generic";

/// The files, and the addresses in them.
pub struct Files {
    /// Where API calls go.
    pub egress: SocketAddr,
    /// Probes.
    pub metrics: SocketAddr,
    /// The key that seals the store.
    pub keys: KeyRing,
    home: tempfile::TempDir,
}

impl Files {
    /// Writes everything that a Sidekey with these providers needs: rule and root URL of each.
    pub fn write(providers: &[(Model, String)]) -> Result<Self, String> {
        let home = tempfile::Builder::new().prefix("sidekey-chaos-").tempdir().map_err(text)?;
        let key = generate_key(&SystemRandom);
        let keys = parse_key(&key).map_err(text)?;
        let [public, egress, metrics] = free_addresses()?;
        let settings = Settings::of(Profile::Generic);
        let mut config = format!(
            "provider_directory = \"providers\"\n\n[public]\nlisten = \"{public}\"\n\n[egress]\nlisten = \"{egress}\"\n\n\
             [metrics]\nlisten = \"{metrics}\"\n\n[store]\nkeys = [\"file:sidekey.key\"]\n\n[logging]\nformat = \"text\"\n"
        );
        std::fs::create_dir(home.path().join("providers")).map_err(text)?;
        for (model, url) in providers {
            let name = model.provider();
            config.push_str(&format!(
                "\n[providers.{name}]\nclient_id = \"{}\"\nclient_secret = \"file:client.secret\"\n",
                settings.client_id
            ));
            std::fs::write(home.path().join(format!("providers/{name}.toml")), entry(*model, url)).map_err(text)?;
        }
        let private = [
            ("sidekey.toml", config.as_str()),
            ("sidekey.key", key.expose()),
            ("client.secret", &settings.client_secret),
        ];
        for (name, content) in private {
            create_private(&home.path().join(name), content.as_bytes()).map_err(text)?;
        }
        let keys = KeyRing::new(vec![keys]).ok_or("no key")?;
        Ok(Self { egress, metrics, keys, home })
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.home.path().join("sidekey.toml")
    }

    /// The store's directory.
    pub fn store(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.store().join("admin.sock")
    }

    /// What all processes logged, one after the other.
    pub fn log(&self) -> PathBuf {
        self.home.path().join("sidekey.log")
    }

    /// Leaves the directory where it is, for whoever looks into a failure.
    pub fn keep(self) -> PathBuf {
        self.home.keep()
    }
}

fn entry(model: Model, url: &str) -> String {
    let name = model.provider();
    format!(
        "display_name = \"{name}\"\nchecked_on = \"2026-11-21\"\ndefault_api = \"{name}\"\n\n\
         [authorize]\nurl = \"{url}/{PROFILE}/authorize\"\npkce = \"supported\"\n\n\
         [token]\nurl = \"{url}/{PROFILE}/token\"\nclient_authentication = [\"basic\"]\n\n{}\n\
         [api]\nexpired = [{{ status = 401 }}]\n\n\
         [apis.{name}]\norigin = \"{url}\"\nbase_path = \"/{PROFILE}/api\"\n",
        model.entry()
    )
}

/// Addresses that every one of the processes can listen on: below the ports that outgoing connections are given, or one
/// of those could take an address between two processes.
fn free_addresses() -> Result<[SocketAddr; 3], String> {
    let first = 10_000 + std::process::id().wrapping_mul(1009) % 20_000;
    let free = (first..32_000).filter_map(|port| {
        let listener = TcpListener::bind(("127.0.0.1", u16::try_from(port).ok()?)).ok()?;
        listener.local_addr().ok()
    });
    let addresses: Vec<SocketAddr> = free.take(3).collect();
    addresses.try_into().map_err(|_| "three free ports".to_owned())
}

/// An error as text.
pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
