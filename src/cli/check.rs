//! `sidekey check [FILE]`

use std::path::PathBuf;

use clap::Args;

use super::{CliError, load, say};

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
    Ok(())
}
