//! `sidekey ca ...`

use std::io::{IsTerminal, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use http::Method;

use super::{CliError, CommonArguments, ConfigArgument, admin_client, say};
use crate::authority::bundle;
use crate::portal::admin::CaAnswer;

/// What to do with the local authority.
#[derive(Subcommand)]
pub enum Command {
    /// Write the certificates that clients must trust.
    Export(ExportArguments),
    /// Show which authorities there are, and what they may stand for.
    Show(CommonArguments),
}

/// Arguments of `ca export`.
#[derive(Args)]
pub struct ExportArguments {
    /// Where to; absent means standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Put the roots of the system beside ours, for programs that trust one file and nothing else.
    #[arg(long)]
    with_system_roots: bool,
    /// How they are written.
    #[arg(long, value_enum, default_value_t = Format::Pem)]
    format: Format,
    #[command(flatten)]
    config: ConfigArgument,
}

/// How certificates are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// All of them, as text.
    Pem,
    /// A trust store for Java with the password `changeit`, in which the roots of the system are always too.
    Pkcs12,
    /// The newest one alone, in binary.
    Der,
}

/// Runs `ca ...`.
pub fn run(command: &Command) -> Result<(), CliError> {
    match command {
        Command::Export(arguments) => export(arguments),
        Command::Show(arguments) => show(arguments),
    }
}

fn export(arguments: &ExportArguments) -> Result<(), CliError> {
    if arguments.format == Format::Der && arguments.with_system_roots {
        return Err(CliError::Usage("--format der holds one certificate; take pem or pkcs12".to_owned()));
    }
    let to_terminal = arguments.out.is_none() && std::io::stdout().is_terminal();
    if to_terminal && arguments.format != Format::Pem {
        return Err(CliError::Usage("this format is not for a terminal; give --out FILE".to_owned()));
    }
    let answer = ask(&arguments.config)?.1;
    let pem = answer.certificates_pem;
    if pem.is_empty() {
        return Err(CliError::Failed(answer.trouble.unwrap_or_else(|| {
            "there is no local authority: it is made for the hosts of the configured providers, and none has a name"
                .to_owned()
        })));
    }
    let content = match arguments.format {
        Format::Pem if arguments.with_system_roots => bundle::pem_with_system_roots(&pem).map(String::into_bytes),
        Format::Pem => Ok(pem.into_bytes()),
        Format::Pkcs12 => bundle::java_trust_store(&pem),
        Format::Der => {
            bundle::certificates(&pem).map(|all| all.last().map(|newest| newest.to_vec()).unwrap_or_default())
        }
    };
    let content = content.map_err(CliError::Failed)?;
    let written = match &arguments.out {
        Some(path) => write(path, &content).map_err(|error| format!("{}: {error}", path.display())),
        None => std::io::stdout().write_all(&content).map_err(|error| error.to_string()),
    };
    written.map_err(CliError::Failed)
}

/// Everybody may read it. It is replaced as a whole, since programs may be reading it.
fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(&new)?;
    file.write_all(content)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    std::fs::rename(&new, path)
}

fn show(arguments: &CommonArguments) -> Result<(), CliError> {
    let (json, answer) = ask(&arguments.config)?;
    if arguments.json {
        say(&json);
        return Ok(());
    }
    if let Some(trouble) = &answer.trouble {
        say(trouble);
    } else if answer.roots.is_empty() {
        say("no local authority; it is made for the hosts of the configured providers");
    }
    for root in &answer.roots {
        let role = if root.is_current { "current" } else { "former" };
        say(&format!("{}  {role}  until {}  sha256 {}", root.id, root.used_until, root.sha256));
        say(&format!("  may stand for {}", Vec::from_iter(root.hosts.iter().map(String::as_str)).join(", ")));
    }
    if let Some(notice) = &answer.notice {
        say(notice);
    }
    Ok(())
}

fn ask(config: &ConfigArgument) -> Result<(String, CaAnswer), CliError> {
    let answer = admin_client::ask(&config.config, Method::GET, "/v1/ca", None::<&()>)?;
    let json = answer.to_string();
    let answer = serde_json::from_value(answer).map_err(|error| CliError::Failed(error.to_string()))?;
    Ok((json, answer))
}
