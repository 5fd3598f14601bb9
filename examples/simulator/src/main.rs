//! The simulator as a program: prints its URL as one line of JSON, runs until it is told to stop.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use serde_json::{Value, json};
use sidekey_simulator::{Options, Profile, Settings, TlsIdentity, start};
use tokio::signal::unix::{SignalKind, signal};

/// A simulated OAuth provider that keeps a ledger and misbehaves on request.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Change a setting, e.g. quickbooks.access_lifetime_s=3 (repeatable).
    #[arg(long, value_name = "PROFILE.SETTING=VALUE")]
    set: Vec<String>,
    /// Serve HTTPS with this certificate chain (PEM).
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let simulator = start(options(arguments)?).await?;
    println!("{}", json!({"url": simulator.url()}));
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
    Ok(Options { listen: arguments.listen, tls, settings })
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
