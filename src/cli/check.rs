//! `sidekey check [FILE]`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{CliError, load, say};
use crate::authority::{self, AuthorityError, Outlook};
use crate::base::clock::{Clock, SystemClock};
use crate::base::random::SystemRandom;
use crate::config::Settings;
use crate::store::seal::Sealer;

/// Arguments of `check`.
#[derive(Args)]
pub struct Arguments {
    /// The configuration file.
    #[arg(default_value = "sidekey.toml", env = "SIDEKEY_CONFIG")]
    file: PathBuf,
}

/// Says everything that is wrong.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let settings = load(&arguments.file)?;
    say(&format!("{} is valid", arguments.file.display()));
    for provider in settings.providers.values() {
        say(&format!("  {}: register the redirect URI {}", provider.name, provider.redirect_uri));
    }
    for server in settings.issuer.servers.values() {
        say(&format!("  {}: MCP clients add {}", server.name, server.resource));
    }
    let is_behind_proxy = settings.public_url.is_https() && settings.public.tls.is_none();
    if is_behind_proxy && settings.public.trusted_proxies.is_empty() && !settings.issuer.servers.is_empty() {
        say(
            "  note: TLS ends somewhere before Sidekey, so all clients seem to share one address and its limits; list that proxy in public.trusted_proxies",
        );
    }
    authority(&settings)
}

/// What clients that trust the local authority must know before the next start.
fn authority(settings: &Settings) -> Result<(), CliError> {
    let directory = settings.store_directory.join(authority::DIRECTORY_NAME);
    let sealer = Sealer::new(settings.keys.clone(), Arc::new(SystemRandom));
    let outlook = authority::outlook(&directory, &sealer, &settings.provider_hosts(), SystemClock.now());
    let outlook = match outlook {
        Err(AuthorityError::UnknownKey(_, id)) if settings.lost_keys.contains(&id.to_string()) => {
            say(&format!("  note: the local authority is sealed with key {id}, which is gone; nothing is intercepted"));
            return Ok(());
        }
        outlook => outlook.map_err(|error| CliError::Failed(error.to_string()))?,
    };
    match outlook {
        Outlook::NoHosts | Outlook::First | Outlook::Same(None) => {}
        Outlook::Same(Some(notice)) => say(&format!("  note: {notice}")),
        Outlook::New(hosts) if hosts.is_empty() => say(
            "  note: the local authority ends soon; the next start makes a new one, and all clients must take its bundle (`sidekey ca export`)",
        ),
        Outlook::New(hosts) => say(&format!(
            "  note: the local authority may not stand for {}; the next start makes a new one, and all clients must take its \
             bundle (`sidekey ca export`) within {}",
            Vec::from_iter(hosts.iter().map(String::as_str)).join(", "),
            humantime::format_duration(authority::OVERLAP)
        )),
    }
    Ok(())
}
