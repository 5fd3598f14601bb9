//! The simulator as a program: prints its URL as one line of JSON (and where the real host names are
//! played), runs until it is told to stop.

use std::error::Error;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Options, Profile, Settings, TlsIdentity, host_names, start};

const AFTER_HELP: &str = "\
While it runs:
  GET  /control/ledger                     what happened
  GET  /control/calls?profile=PROFILE      who called the APIs (DELETE forgets it)
  PUT  /control/settings/PROFILE           changes settings, given as a JSON object
  POST /control/faults                     has calls go wrong
  POST /control/expire/PROFILE?user=NAME   access tokens expire now; without user, everybody's
  POST /control/revoke/PROFILE             the users take their consent back
  POST /control/reset                      back to the start";

/// A simulated OAuth provider that keeps a ledger and misbehaves on request.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Print the names of the profiles, and end.
    #[arg(long)]
    list: bool,
    /// Change a setting, e.g. quickbooks.access_lifetime_s=3 (repeatable).
    #[arg(long, value_name = "PROFILE.SETTING=VALUE")]
    set: Vec<String>,
    /// Serve HTTPS with this certificate chain (PEM).
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Also play all companies behind their real host names, e.g. https://api.github.com/user, over HTTPS at this address.
    #[arg(long, requires = "hosts_ca", value_name = "ADDRESS")]
    hosts_listen: Option<SocketAddr>,
    /// Whose a host is that several profiles have, e.g. github-oauth-app (repeatable).
    #[arg(long, requires = "hosts_listen", value_name = "PROFILE")]
    prefer: Vec<String>,
    /// Where to write the certificate of the authority behind those (PEM).
    #[arg(long, requires = "hosts_listen", value_name = "FILE")]
    hosts_ca: Option<PathBuf>,
}

/// Runs the program with its arguments, the first one being its own name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    if arguments.list {
        Profile::all().for_each(|profile| println!("{}", profile.name()));
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(serve(arguments)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let authority_file = arguments.hosts_ca.clone();
    let simulator = start(options(arguments)?).await?;
    let mut line = json!({"url": simulator.url()});
    if let (Some(file), Some(pem), Some(address)) =
        (authority_file, simulator.hosts_authority(), simulator.hosts_address())
    {
        std::fs::write(&file, pem)?;
        line["hosts"] = json!({"address": address, "ca": file, "names": host_names()});
    }
    println!("{line}");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    simulator.stop().await;
    Ok(())
}

fn options(arguments: Arguments) -> Result<Options, Box<dyn Error>> {
    let tls = match (arguments.tls_certificate, arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsIdentity {
            certificate_pem: std::fs::read_to_string(certificate)?,
            key_pem: std::fs::read_to_string(key)?,
        }),
        _ => None,
    };
    let mut settings: Vec<(String, Settings)> = Vec::new();
    for assignment in &arguments.set {
        apply(&mut settings, assignment).map_err(|why| format!("--set {assignment}: {why}"))?;
    }
    Ok(Options { listen: arguments.listen, tls, hosts: arguments.hosts_listen, preferred: arguments.prefer, settings })
}

/// Applies one `profile.setting=value`. A value that is not JSON is a string.
fn apply(settings: &mut Vec<(String, Settings)>, assignment: &str) -> Result<(), String> {
    let (target, value) = assignment.split_once('=').ok_or("there is no =")?;
    let (name, field) = target.split_once('.').ok_or("there is no profile")?;
    let profile = Profile::from_name(name).ok_or("there is no such profile")?;
    let known = settings.iter().position(|(other, _)| other == name);
    let index = known.unwrap_or_else(|| {
        settings.push((name.to_owned(), Settings::of(profile)));
        settings.len() - 1
    });
    let text = || Value::String(value.to_owned());
    let parsed = serde_json::from_str(value).unwrap_or_else(|_| text());
    let settings = &mut settings[index].1;
    // A realm of digits is a number to JSON but text to the settings.
    let merged = settings.merge(&json!({field: parsed}));
    merged.or_else(|_| settings.merge(&json!({field: text()})))
}
