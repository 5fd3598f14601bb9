//! `sidekey check [FILE or DIRECTORY]`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::providers::lint::{self, Report};
use super::{CliError, load, say};
use crate::authority::{self, AuthorityError, Outlook};
use crate::base::clock::{Clock, SystemClock};
use crate::base::files;
use crate::base::random::SystemRandom;
use crate::base::sources::Sources;
use crate::base::toml_document::{Document, Problem};
use crate::base::toml_schema::schema_of;
use crate::catalogue::entry::Entry;
use crate::catalogue::lint::Severity;
use crate::catalogue::recipe::{Recipe, Recipes};
use crate::config::Settings;
use crate::config::file::ConfigFile;
use crate::store::seal::Sealer;

/// Arguments of `check`.
#[derive(Args)]
pub struct Arguments {
    /// The configuration, a provider file, a recipe, or a directory of such files: which it is, is seen by what is in it.
    #[arg(default_value = "sidekey.toml", env = "SIDEKEY_CONFIG")]
    file: PathBuf,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// What is to be known about a file in which nothing is wrong.
#[derive(Serialize)]
struct Checked {
    file: String,
    kind: Kind,
    /// What is to be registered at each provider.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    redirect_uris: BTreeMap<String, String>,
    /// What MCP clients are to add, by server.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    servers: BTreeMap<String, String>,
    /// What deserves a look.
    notes: Vec<String>,
}

impl Checked {
    fn new(file: String, kind: Kind) -> Self {
        Self { file, kind, redirect_uris: BTreeMap::new(), servers: BTreeMap::new(), notes: Vec::new() }
    }

    fn show(&self) {
        let kind = match self.kind {
            Kind::Configuration => "",
            Kind::ProviderFile => " (a provider file)",
            Kind::Recipe => " (a recipe)",
        };
        say(&format!("{} is valid{kind}", self.file));
        let uris = self.redirect_uris.iter();
        uris.for_each(|(provider, uri)| say(&format!("  {provider}: register the redirect URI {uri}")));
        self.servers.iter().for_each(|(server, url)| say(&format!("  {server}: MCP clients add {url}")));
        self.notes.iter().for_each(|note| say(&format!("  note: {note}")));
    }
}

/// Says everything that is wrong, here and in all files that are referred to.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let files = lint::files_of(&arguments.file)?;
    if files.is_empty() {
        return Err(CliError::Usage(format!("{} holds no file that ends in .toml", arguments.file.display())));
    }
    let (mut problems, mut good) = (Vec::new(), Vec::new());
    // Provider files of one directory may extend each other: they are looked at together.
    let of_kind = |kind: Kind| files.iter().filter(move |file| Kind::of(file) == kind).cloned().collect::<Vec<_>>();
    let (entries, recipes) = (of_kind(Kind::ProviderFile), of_kind(Kind::Recipe));
    for file in of_kind(Kind::Configuration) {
        match configuration(&file) {
            Ok(checked) => good.push(checked),
            Err(CliError::Config(found)) => problems.extend(found),
            Err(other) => return Err(other),
        }
    }
    problems.extend(provider_files(&entries, &mut good));
    for file in &recipes {
        let found = Recipes::bundled().add_file(file, &Sources::default());
        if found.is_empty() {
            good.push(Checked::new(file.display().to_string(), Kind::Recipe));
        }
        problems.extend(found);
    }
    match arguments.json {
        true if problems.is_empty() => say(&json!({ "valid": true, "files": good }).to_string()),
        true => {}
        false => good.iter().for_each(Checked::show),
    }
    if problems.is_empty() { Ok(()) } else { Err(CliError::Config(problems)) }
}

/// What a file is meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Configuration,
    ProviderFile,
    Recipe,
}

impl Kind {
    /// By most of the keys at the top of it; one that cannot be read, or says nothing, is a configuration.
    fn of(file: &Path) -> Self {
        let text = files::read_to_string(file).unwrap_or_default();
        let document = Document::parse(file, &text).map(|document| document.value).unwrap_or_default();
        let keys: Vec<&String> = document.as_object().into_iter().flat_map(|map| map.keys()).collect();
        let known = |schema: Value| keys.iter().filter(|key| schema["properties"].get(key.as_str()).is_some()).count();
        let extends = usize::from(document.get("extends").is_some());
        let kinds = [
            (Self::Recipe, known(schema_of::<Recipe>())),
            (Self::ProviderFile, known(schema_of::<Entry>()) + extends),
            (Self::Configuration, known(schema_of::<ConfigFile>())),
        ];
        kinds.into_iter().max_by_key(|(_, count)| *count).map_or(Self::Configuration, |(kind, _)| kind)
    }
}

/// The same words as those of `providers lint`; what only deserves a look is said and is no problem.
fn provider_files(files: &[PathBuf], good: &mut Vec<Checked>) -> Vec<Problem> {
    let today = SystemClock.now().as_seconds().div_euclid(86_400);
    let mut problems = Vec::new();
    for Report { file, findings } in lint::of_files(files, today) {
        let (errors, notes): (Vec<_>, Vec<_>) =
            findings.into_iter().partition(|finding| finding.severity == Severity::Error);
        if errors.is_empty() {
            let notes = notes.into_iter().map(|note| note.problem.to_string()).collect();
            good.push(Checked { notes, ..Checked::new(file, Kind::ProviderFile) });
        }
        problems.extend(errors.into_iter().map(|error| error.problem));
    }
    problems
}

fn configuration(file: &Path) -> Result<Checked, CliError> {
    let settings = load(file)?;
    // Those that no provider uses yet are looked at too.
    let directory = settings.origin.written["provider_directory"].as_str();
    let directory = directory.map(|directory| file.parent().unwrap_or(Path::new("")).join(directory));
    let entries = directory.map(|directory| lint::files_of(&directory)).transpose()?.unwrap_or_default();
    let problems = provider_files(&entries, &mut Vec::new());
    if !problems.is_empty() {
        return Err(CliError::Config(problems));
    }
    let mut checked = Checked::new(file.display().to_string(), Kind::Configuration);
    let providers = settings.providers.values();
    checked.redirect_uris =
        providers.map(|provider| (provider.name.to_string(), provider.redirect_uri.to_string())).collect();
    let servers = settings.issuer.servers.values();
    checked.servers = servers.map(|server| (server.name.to_string(), server.resource.clone())).collect();
    let is_behind_proxy = settings.public_url.is_https() && settings.public.tls.is_none();
    if is_behind_proxy && settings.public.trusted_proxies.is_empty() && !settings.issuer.servers.is_empty() {
        checked.notes.push(
            "TLS ends somewhere before Sidekey, so all clients seem to share one address and its limits; list that proxy in public.trusted_proxies".to_owned(),
        );
    }
    checked.notes.extend(authority(&settings)?);
    Ok(checked)
}

/// What clients that trust the local authority must know before the next start.
fn authority(settings: &Settings) -> Result<Option<String>, CliError> {
    let directory = settings.store_directory.join(authority::DIRECTORY_NAME);
    let sealer = Sealer::new(settings.keys.clone(), Arc::new(SystemRandom));
    let outlook = authority::outlook(&directory, &sealer, &settings.provider_hosts(), SystemClock.now());
    let outlook = match outlook {
        Err(AuthorityError::UnknownKey(_, id)) if settings.lost_keys.contains(&id.to_string()) => {
            let note = format!("the local authority is sealed with key {id}, which is gone; nothing is intercepted");
            return Ok(Some(note));
        }
        outlook => outlook.map_err(|error| CliError::Failed(error.to_string()))?,
    };
    Ok(match outlook {
        Outlook::NoHosts | Outlook::First | Outlook::Same(None) => None,
        Outlook::Same(Some(notice)) => Some(notice.to_string()),
        Outlook::New(hosts) if hosts.is_empty() => Some(
            "the local authority ends soon; the next start makes a new one, and all clients must take its bundle (`sidekey ca export`)".to_owned(),
        ),
        Outlook::New(hosts) => Some(format!(
            "the local authority may not stand for {}; the next start makes a new one, and all clients must take its \
             bundle (`sidekey ca export`) within {}",
            Vec::from_iter(hosts.iter().map(String::as_str)).join(", "),
            humantime::format_duration(authority::OVERLAP)
        )),
    })
}
