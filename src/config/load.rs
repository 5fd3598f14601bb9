//! Reading `sidekey.toml`: shape first, then sense, then the secrets it refers to. Nothing stops at the first problem.

mod api;
mod front;
mod outbound;
mod policy;
mod portal;
mod stdio;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::base::address::Network;
use crate::base::safe_url::SafeUrl;
use crate::base::secret::Secret;
use crate::base::sources::Sources;
use crate::base::toml_document::{Document, Problem, join};
use crate::base::toml_schema::{Completeness, UNKNOWN_KEY, check, schema_of};
use crate::catalogue::load::SelectError;
use crate::catalogue::provider::Choice;
use crate::catalogue::recipe::Recipes;
use crate::catalogue::{Catalogue, Client, Provider, Selection, unverified};
use crate::config::file::{Addresses, ConfigFile, ProviderTable, TimeoutsTable};
use crate::config::key_sources::KeySources;
use crate::config::reading::unreadable;
use crate::config::restart;
use crate::config::secret_ref::SecretRef;
use crate::config::settings::{Egress, Origin, Public, Settings, Timeouts, Tls};
use crate::model::issuer_settings::Rates;
use crate::model::names::{ProviderName, Subject};
use crate::model::token_set::RefreshAhead;
use crate::model::tunnel_host::TunnelHost;
use crate::store::keyring::KeyRing;

/// What reading came to, and everything that was read for it.
pub struct Loaded {
    /// The settings, or all that is wrong.
    pub settings: Result<Settings, Vec<Problem>>,
    /// What to look at in order to notice a change.
    pub sources: Arc<Sources>,
}

/// Where the value of a variable is found.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads the file at `path` and everything it refers to.
pub fn load(path: &Path, environment: Variables<'_>) -> Result<Settings, Vec<Problem>> {
    load_beside(path, environment, None).settings
}

/// The same while a server runs with other settings. What only a restart can change is taken from these, and said in
/// [`Origin::needs_restart`]; the file must make sense with and without that.
pub fn load_beside(path: &Path, environment: Variables<'_>, running: Option<&Origin>) -> Loaded {
    let sources = Arc::new(Sources::default());
    let settings = match sources.read_to_string(path) {
        Ok(text) => Document::parse(path, &text).and_then(|document| {
            let settings = load_document(&document, environment, &sources)?;
            let written = settings.origin.value.clone();
            let Some((document, needs_restart)) = running.and_then(|running| restart::pinned(&document, running))
            else {
                return Ok(settings);
            };
            let settings = load_document(&document, environment, &sources).map_err(|problems| {
                let note = format!("as long as the server is not restarted: {}", needs_restart.join(", "));
                problems.into_iter().map(|problem| Problem { hint: Some(note.clone()), ..problem }).collect::<Vec<_>>()
            })?;
            Ok(Settings { origin: Origin { needs_restart, written, ..settings.origin }, ..settings })
        }),
        Err(error) => Err(vec![unreadable(path, &error)]),
    };
    Loaded { settings, sources }
}

/// The same for a text that was read already; relative paths in it start at the directory of `path`.
pub fn load_text(path: &Path, text: &str, environment: Variables<'_>) -> Result<Settings, Vec<Problem>> {
    load_document(&Document::parse(path, text)?, environment, &Arc::default())
}

fn load_document(
    document: &Document,
    environment: Variables<'_>,
    sources: &Arc<Sources>,
) -> Result<Settings, Vec<Problem>> {
    let mut problems = check(document, &schema_of::<ConfigFile>(), Completeness::Whole);
    let file = readable_part(document, &problems);
    let home = document.file.parent().unwrap_or(Path::new("")).to_owned();
    let mut loader = Loader { document, home, environment, sources, problems: Vec::new() };
    let settings = file.and_then(|file| loader.settings(&file));
    problems.append(&mut loader.problems);
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => {
            problems.sort();
            problems.dedup();
            Err(problems)
        }
    }
}

/// The file without what is malformed in it, so that the rest is checked for sense all the same.
fn readable_part(document: &Document, problems: &[Problem]) -> Option<ConfigFile> {
    let mut value = document.value.clone();
    for problem in problems {
        let mut keys: Vec<&str> = problem.key.split(['.', '[']).collect();
        // One key too many is nothing to the rest of its table.
        if problem.message == UNKNOWN_KEY && !problem.key.contains('[') {
            remove(&mut value, &keys);
            continue;
        }
        if keys.first().is_some_and(|table| ["providers", "clients", "servers"].contains(table)) {
            keys.truncate(2);
        }
        if keys.starts_with(&["api", "keys"]) {
            keys.truncate(3);
        }
        remove(&mut value, &keys);
    }
    serde_json::from_value(value).ok()
}

fn remove(value: &mut Value, keys: &[&str]) {
    match (value, keys) {
        (Value::Object(map), [last]) => {
            map.remove(*last);
        }
        (Value::Object(map), [first, rest @ ..]) => {
            if let Some(Value::Array(_)) = map.get(*first) {
                map.remove(*first);
            } else if let Some(inner) = map.get_mut(*first) {
                remove(inner, rest);
            }
        }
        _ => {}
    }
}

struct Loader<'a> {
    document: &'a Document,
    home: PathBuf,
    environment: Variables<'a>,
    sources: &'a Arc<Sources>,
    problems: Vec<Problem>,
}

impl Loader<'_> {
    fn settings(&mut self, file: &ConfigFile) -> Option<Settings> {
        let public_listen = self.address("public.listen", &file.public.listen);
        let egress = self.egress(file);
        let metrics_listen = self.address("metrics.listen", &file.metrics.listen);
        let tls = self.tls(file);
        let public_url = self.public_url(file, [public_listen, egress.as_ref().map(Egress::exposed), metrics_listen]);
        let keys = self.keys(file);
        let providers = self.providers(file, public_url.as_ref());
        let issuer = self.issuer(file, public_url.as_ref(), &providers);
        self.recipes(file);
        let outline = self.outline(file);
        let branding = self.branding(&file.portal);
        let api = self.api(&file.api, &providers);
        let networks = |networks: &[Network]| networks.iter().map(|network| network.0).collect();
        let document_networks = networks(&file.issuer.client_documents.allow_networks);
        let trusted_proxies = networks(&file.public.trusted_proxies);
        let allowed_origins = self.origins(&file.public.allowed_origins);
        let store_directory = self.home.join(&file.store.directory);
        let store_sentinel = self.sentinel(file, &store_directory);
        let admin_socket = match &file.admin.socket {
            Some(socket) => self.home.join(socket),
            None => store_directory.join("admin.sock"),
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Some(Settings {
            origin: Origin {
                file: self.document.file.clone(),
                value: self.document.value.clone(),
                written: self.document.value.clone(),
                needs_restart: Vec::new(),
                sources: Arc::clone(self.sources),
            },
            watch: file.reload.watch,
            public_url: public_url?,
            threads: file.threads.unwrap_or(processors),
            public: Public { listen: public_listen?, tls: tls?, allowed_origins, trusted_proxies },
            egress: egress?,
            admin_socket,
            metrics_listen: metrics_listen?,
            store_directory,
            store_sentinel,
            keys: keys?,
            key_sources: KeySources::new(&file.store.keys, &self.home),
            lost_keys: file.store.lost_keys.clone(),
            log_format: file.logging.format,
            log_level: file.logging.level,
            access_log: file.logging.access,
            refresh_ahead: RefreshAhead { buffer: file.refresh.ahead.0, largest_share: file.refresh.largest_share },
            grant_end_notice: file.refresh.grant_end_notice.0,
            timeouts: timeouts(&file.timeouts),
            providers,
            issuer: issuer?,
            document_networks,
            branding: branding?,
            api,
            outline,
            rates: Rates {
                failures_per_address: file.limits.failures_per_address,
                registrations_per_address: file.limits.registrations_per_address,
                requests_per_grant: file.limits.requests_per_grant,
                requests_per_subject: file.limits.requests_per_subject,
                requests_per_api_key: file.limits.requests_per_api_key,
            },
        })
    }

    fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(self.document.problem(key, message));
    }

    fn problem_with_hint(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(self.document.problem(key, message).with_hint(hint));
    }

    /// Whether the file has a table for this provider. What is wrong with that is said there, and not wherever it is named.
    fn declares_provider(&self, name: &str) -> bool {
        self.document.value["providers"].get(name).is_some()
    }

    fn address(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        text.parse().map_err(|_| self.problem(key, format!("{text:?} is not an address"))).ok()
    }

    /// All of a list, which holds at least one and none twice.
    fn addresses(&mut self, key: &str, listed: &Addresses) -> Option<Vec<SocketAddr>> {
        let found = listed.all();
        let is_repeated =
            |(index, address): (usize, &SocketAddr)| address.port() != 0 && found[..index].contains(address);
        if found.is_empty() {
            self.problem(key, "is empty; expected an address such as \"127.0.0.1:8701\"");
        } else if found.iter().enumerate().any(is_repeated) {
            self.problem(key, "holds an address twice");
        }
        (!found.is_empty()).then_some(found)
    }

    fn egress(&mut self, file: &ConfigFile) -> Option<Egress> {
        let listen = self.addresses("egress.listen", &file.egress.listen)?;
        let mut subject = None;
        if let Some(text) = &file.egress.subject {
            subject = self.parsed::<Subject>("egress.subject", text, Subject::EXPECTED);
            if let Some(exposed) = listen.iter().find(|listen| !listen.ip().is_loopback()) {
                self.problem_with_hint(
                    "egress.subject",
                    format!("a fixed subject is only allowed on a loopback address, and egress.listen is {exposed}"),
                    "listen on 127.0.0.1, or remove it and give every caller a handle",
                );
            }
        }
        let hosts = file.egress.hosts.iter().map(|host| host.to_lowercase()).collect();
        let mut tunnel_hosts = Vec::new();
        for (index, text) in file.egress.tunnel_hosts.iter().enumerate() {
            let key = format!("egress.tunnel_hosts[{index}]");
            tunnel_hosts.extend(self.parsed::<TunnelHost>(&key, text, TunnelHost::EXPECTED));
        }
        Some(Egress { listen, subject, hosts, tunnel_hosts, outbound: self.outbound(&file.egress) })
    }

    fn parsed<T: std::str::FromStr>(&mut self, key: &str, text: &str, expected: &str) -> Option<T> {
        text.parse().map_err(|_| self.problem(key, format!("{text:?} is not allowed here; expected {expected}"))).ok()
    }

    fn public_url(&mut self, file: &ConfigFile, listeners: [Option<SocketAddr>; 3]) -> Option<SafeUrl> {
        let [public, ..] = listeners;
        if let Some(url) = &file.public_url {
            if url.url().path() != "/" || url.url().query().is_some() {
                self.problem("public_url", "has a path; expected scheme, host and port only");
            }
            return Some(url.clone());
        }
        if listeners.iter().flatten().all(|address| address.ip().is_loopback()) {
            let scheme = if file.public.tls.is_some() { "https" } else { "http" };
            return format!("{scheme}://{}", public?).parse().ok();
        }
        self.problem_with_hint(
            "public_url",
            "is missing; it is required because not every listener is on a loopback address",
            "for example \"https://sidekey.example.com\"; redirect URIs are made from it",
        );
        None
    }

    /// `None` if it is wrong, `Some(None)` if there is none.
    fn tls(&mut self, file: &ConfigFile) -> Option<Option<Tls>> {
        let Some(table) = &file.public.tls else { return Some(None) };
        let path = self.home.join(&table.certificate);
        let certificate = self.sources.read_to_string(&path).map_err(|error| {
            self.problem("public.tls.certificate", format!("cannot read {}: {error}", path.display()))
        });
        let key = self.secret("public.tls.key", &table.key);
        Some(Some(Tls { certificate: certificate.ok()?, key: key? }))
    }

    fn secret(&mut self, key: &str, reference: &SecretRef) -> Option<Secret> {
        reference.read(&self.home, self.environment, self.sources).map_err(|why| self.problem(key, why)).ok()
    }

    /// A sentinel among what it watches over would be restored and copied along with it.
    fn sentinel(&mut self, file: &ConfigFile, store_directory: &Path) -> Option<PathBuf> {
        let path = file.store.sentinel.as_ref()?;
        if path.as_os_str().is_empty() {
            self.problem("store.sentinel", "is empty; expected the name of a file, or no such line");
            return None;
        }
        let path = self.home.join(path);
        if path.starts_with(store_directory) {
            let message = format!("lies in the store's directory {}", store_directory.display());
            self.problem_with_hint(
                "store.sentinel",
                message,
                "name a file that is not restored or copied together with the store",
            );
        }
        Some(path)
    }

    fn keys(&mut self, file: &ConfigFile) -> Option<KeyRing> {
        if file.store.keys.is_empty() {
            if !self.document.holds("store.keys") || self.document.value["store"]["keys"] == serde_json::json!([]) {
                self.problem_with_hint(
                    "store.keys",
                    "is missing; without a key nothing can be stored",
                    "make one with `sidekey keys generate`, keep it in a file of mode 0600, and write keys = [\"file:PATH\"]",
                );
            }
            return None;
        }
        let read = KeySources::new(&file.store.keys, &self.home).read(self.environment, self.sources);
        let wrong = |problems: Vec<(usize, String)>| {
            problems.into_iter().for_each(|(index, why)| self.problem(&format!("store.keys[{index}]"), why));
        };
        read.map_err(wrong).ok()
    }

    fn providers(&mut self, file: &ConfigFile, public_url: Option<&SafeUrl>) -> BTreeMap<ProviderName, Arc<Provider>> {
        let mut catalogue = Catalogue::bundled();
        if let Some(directory) = &file.provider_directory {
            self.problems.extend(catalogue.add_directory(&self.home.join(directory), self.sources));
        }
        let mut providers = BTreeMap::new();
        for (name, table) in &file.providers {
            let origin = public_url.map(SafeUrl::origin).unwrap_or_default();
            if let Some(provider) = self.provider(&catalogue, name, table, &origin) {
                providers.insert(provider.name.clone(), Arc::new(provider));
            }
        }
        self.check_segments(&providers);
        providers
    }

    fn provider(&mut self, catalogue: &Catalogue, name: &str, table: &ProviderTable, origin: &str) -> Option<Provider> {
        let path = join("providers", name);
        let provider_name: Option<ProviderName> = self.parsed(&path, name, ProviderName::EXPECTED);
        let client_id = match table.client_id.parse::<SecretRef>() {
            Ok(reference) => self.secret(&format!("{path}.client_id"), &reference).map(|id| id.expose().to_owned()),
            Err(_) => Some(table.client_id.clone()),
        };
        let secret = match &table.client_secret {
            Some(reference) => Some(self.secret(&format!("{path}.client_secret"), reference)?),
            None => None,
        };
        let selection = Selection {
            environment: table.environment.clone(),
            inputs: table.inputs.clone(),
            client_id: client_id.clone().unwrap_or_default(),
        };
        let entry_name = table.entry.as_deref().unwrap_or(name);
        let entry = match catalogue.select(entry_name, &selection) {
            Ok(entry) => entry,
            Err(errors) => {
                errors.into_iter().for_each(|error| self.select_error(&path, table, error));
                return None;
            }
        };
        let (name, client) = (provider_name?, Client { id: client_id?, secret });
        let redirect_uri = format!("{origin}{}", table.callback.of(name.as_str()));
        let choice = Choice {
            scopes: table.scopes.clone(),
            apis: table.apis.clone(),
            handle_prefix: table.handle_prefix.clone(),
        };
        let mut provider = Provider::new(name, entry, client, redirect_uri, &choice)
            .map_err(|(key, message)| self.problem(&format!("{path}.{key}"), message))
            .ok()?;
        if !table.accept_unverified {
            self.unverified(&path, entry_name, &provider);
        }
        provider.policy = table.policy.as_ref().map(|rules| self.policy(&format!("{path}.policy"), rules, &provider));
        Some(provider)
    }

    /// Tokens go only where somebody has looked, or where the operator says so.
    fn unverified(&mut self, path: &str, entry: &str, provider: &Provider) {
        let enabled = provider.apis.iter().map(|api| api.name.as_str());
        for (key, value) in unverified(&provider.entry, enabled) {
            let message = format!("the entry {entry:?} has its {key} ({value}) from memory: no source was read for it");
            let hint = "compare it with the provider's documentation, then set `accept_unverified = true` here";
            self.problems.push(self.document.key_problem(path, message).with_hint(hint));
        }
    }

    /// The server has no use for recipes, but whoever checks or starts it wants to know.
    fn recipes(&mut self, file: &ConfigFile) {
        if let Some(directory) = &file.recipe_directory {
            self.problems.extend(Recipes::bundled().add_directory(&self.home.join(directory), self.sources));
        }
    }

    fn select_error(&mut self, path: &str, table: &ProviderTable, error: SelectError) {
        match error {
            SelectError::UnknownEntry { message, hint } => {
                let key = if table.entry.is_some() { format!("{path}.entry") } else { path.to_owned() };
                let problem = self.document.key_problem(&key, message);
                self.problems.push(Problem { hint, ..problem });
            }
            SelectError::Choice { key, message } => self.problem(&format!("{path}.{key}"), message),
            SelectError::Entry(problem) => self.problems.push(problem),
        }
    }

    /// At the egress listener the first path segment names a provider or an API, so no name may stand for two.
    fn check_segments(&mut self, providers: &BTreeMap<ProviderName, Arc<Provider>>) {
        let mut taken: BTreeMap<&str, &ProviderName> = BTreeMap::new();
        for provider in providers.values() {
            for api in provider.apis.iter().filter(|api| api.name != provider.entry.default_api) {
                let other = taken
                    .insert(&api.name, &provider.name)
                    .or_else(|| providers.keys().find(|name| name.as_str() == api.name));
                if let Some(other) = other {
                    let key = format!("{}.apis", join("providers", provider.name.as_str()));
                    let message = format!("the name {:?} of an API is taken by the provider {other}", api.name);
                    self.problems.push(
                        self.document.problem(&key, message).with_hint("list other APIs, or leave one provider out"),
                    );
                }
            }
        }
    }
}

fn timeouts(table: &TimeoutsTable) -> Timeouts {
    Timeouts {
        connect: table.connect.0,
        read: table.read.0,
        write: table.write.0,
        token: table.token.0,
        drain: table.drain.0,
    }
}

#[cfg(test)]
mod tests;
