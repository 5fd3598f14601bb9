//! What MCP clients see: the issuer, its clients, and the MCP servers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use serde_json::Value;
use url::Url;

use super::Loader;
use crate::base::jws::{KeySet, Signer};
use crate::base::safe_url::{SafeUrl, is_loopback};
use crate::base::secret::Secret;
use crate::base::toml_document::join;
use crate::catalogue::Provider;
use crate::config::file::{AccessTokens, ClientTable, ConfigFile, HandleScheme, ServerTable};
use crate::model::access_policy::AccessPolicy;
use crate::model::client::{Client, ClientAuthentication, ClientKeys, ClientKind, SecretVerifier, plain_name};
use crate::model::issuer_settings::{AccessTokenFormat, DocumentSettings, IssuerSettings, RegistrationSettings};
use crate::model::names::{Label, ProviderName, ServerName};
use crate::model::redirect_uri::{RedirectPolicy, RedirectUri};
use crate::model::scope::{ScopeMeaning, ScopeSet, Scopes, is_scope};
use crate::model::server::{HandlePlacement, McpServer, Upstream};

type Providers = BTreeMap<ProviderName, Arc<Provider>>;

/// Codes, and answers to refreshes, are of use for a moment only.
const LONGEST_MOMENT: Duration = Duration::from_secs(600);

/// First path segments of our own.
const OWN_SEGMENTS: [&str; 17] = [
    ".well-known",
    "authorize",
    "token",
    "register",
    "revoke",
    "introspect",
    "jwks.json",
    "oauth",
    "visit",
    "connect",
    "connected",
    "callback",
    "account",
    "assets",
    "api",
    "metrics",
    "admin",
];

impl Loader<'_> {
    pub(super) fn issuer(
        &mut self,
        file: &ConfigFile,
        public_url: Option<&SafeUrl>,
        providers: &Providers,
    ) -> Option<IssuerSettings> {
        let table = &file.issuer;
        let identity = self.identity(file, providers);
        let access_tokens = self.access_tokens(file);
        for (key, duration) in
            [("issuer.code_lifetime", table.code_lifetime), ("issuer.refresh_grace", table.refresh_grace)]
        {
            if duration.0 > LONGEST_MOMENT {
                self.problem(key, format!("{duration} is too long; expected at most 10m"));
            }
        }
        let issuer = public_url.map(SafeUrl::origin).unwrap_or_default();
        let scopes = self.scopes(file);
        let servers = self.servers(file, &issuer, providers);
        let policy = redirect_policy(file, &issuer);
        let clients = self.clients(file, &policy);
        let pinned = self.pinned_documents(file);
        let usual = if table.access_tokens == AccessTokens::Jwt { 15 * 60 } else { 3600 };
        Some(IssuerSettings {
            issuer,
            identity: identity?,
            servers,
            access_tokens: access_tokens?,
            access_token_lifetime: table.access_token_lifetime.map_or(Duration::from_secs(usual), |text| text.0),
            refresh_token_lifetime: table.refresh_token_lifetime.0,
            grant_lifetime: table.grant_lifetime.0,
            refresh_grace: table.refresh_grace.0,
            code_lifetime: table.code_lifetime.0,
            accept_json: table.accept_json,
            redirect_policy: policy,
            scopes,
            clients,
            reserved_names: reserved_names(providers, file),
            registration: RegistrationSettings {
                // Without a server there is nothing to register for.
                enabled: table.registration.enabled && !file.servers.is_empty(),
                max_clients: table.registration.max_clients,
                unused_retention: table.registration.unused_retention.0,
            },
            documents: DocumentSettings { enabled: table.client_documents.enabled, pinned },
        })
    }

    /// `None` if it is wrong, `Some(None)` if there is none and none is needed.
    fn identity(&mut self, file: &ConfigFile, providers: &Providers) -> Option<Option<ProviderName>> {
        let Some(name) = &file.issuer.identity else {
            if file.servers.is_empty() {
                return Some(None);
            }
            self.problem_with_hint(
                "issuer.identity",
                "is missing; without it nobody knows whose connections an MCP client may use",
                "name the provider whose account identifies users, such as identity = \"NAME\" for [providers.NAME]",
            );
            return None;
        };
        let found = providers.iter().find(|(known, _)| known.as_str() == name);
        let Some((name, provider)) = found else {
            if !self.declares_provider(name) {
                self.problem("issuer.identity", format!("{name:?} is none of the [providers]"));
            }
            return None;
        };
        let Some(identity) = &provider.entry.identity else {
            self.problem_with_hint(
                "issuer.identity",
                format!("the entry of {name} does not say how it identifies users"),
                "choose another provider, or give the entry an [identity] table (docs/providers.md)",
            );
            return None;
        };
        let missing = match identity.source {
            crate::catalogue::entry::IdentitySource::IdToken if identity.jwks_url.is_none() => {
                Some("identity.jwks_url")
            }
            crate::catalogue::entry::IdentitySource::Userinfo if provider.entry.userinfo.is_none() => {
                Some("[userinfo]")
            }
            _ => None,
        };
        if let Some(missing) = missing {
            self.problem("issuer.identity", format!("the entry of {name} has no {missing}"));
            return None;
        }
        Some(Some(name.clone()))
    }

    fn access_tokens(&mut self, file: &ConfigFile) -> Option<AccessTokenFormat> {
        let mut signers = Vec::new();
        for (index, reference) in file.issuer.signing_keys.iter().enumerate() {
            let key = format!("issuer.signing_keys[{index}]");
            let Some(pem) = self.secret(&key, reference) else { continue };
            match Signer::from_pem(&pem) {
                Ok(signer) => signers.push(Arc::new(signer)),
                Err(why) => self.problem(&key, why),
            }
        }
        match file.issuer.access_tokens {
            AccessTokens::Opaque => Some(AccessTokenFormat::Opaque),
            AccessTokens::Jwt if file.issuer.signing_keys.is_empty() => {
                self.problem_with_hint(
                    "issuer.signing_keys",
                    "is missing; JWTs are signed",
                    "make one with `sidekey keys generate --signing`, keep it in a file of mode 0600, and write signing_keys = [\"file:PATH\"]",
                );
                None
            }
            AccessTokens::Jwt => {
                (signers.len() == file.issuer.signing_keys.len()).then(|| AccessTokenFormat::Jwt(signers))
            }
        }
    }

    fn scopes(&mut self, file: &ConfigFile) -> Scopes {
        let mut scopes = BTreeMap::new();
        for (scope, table) in &file.issuer.scopes {
            let key = join("issuer.scopes", scope);
            self.scope_set(&key, std::slice::from_ref(scope));
            self.scope_set(&format!("{key}.includes"), &table.includes);
            let meaning = ScopeMeaning { description: table.description.clone(), includes: table.includes.clone() };
            scopes.insert(scope.clone(), meaning);
        }
        Scopes(scopes)
    }

    fn scope_set(&mut self, key: &str, scopes: &[String]) -> ScopeSet {
        for odd in scopes.iter().filter(|scope| !is_scope(scope)) {
            self.problem(
                key,
                format!("{odd:?} is not a scope; expected printable ASCII without spaces, quotes and backslashes"),
            );
        }
        scopes.iter().cloned().collect()
    }

    fn servers(
        &mut self,
        file: &ConfigFile,
        issuer: &str,
        providers: &Providers,
    ) -> BTreeMap<ServerName, Arc<McpServer>> {
        let mut servers: BTreeMap<ServerName, Arc<McpServer>> = BTreeMap::new();
        for (name, table) in &file.servers {
            let Some(server) = self.server(name, table, issuer, providers, file) else { continue };
            if let Some(other) = servers.values().find(|other| other.path == server.path) {
                let key = format!("{}.path", join("servers", name));
                self.problem(&key, format!("{:?} is the path of the server {} already", server.path, other.name));
            }
            servers.insert(server.name.clone(), Arc::new(server));
        }
        servers
    }

    fn server(
        &mut self,
        name: &str,
        table: &ServerTable,
        issuer: &str,
        providers: &Providers,
        file: &ConfigFile,
    ) -> Option<McpServer> {
        let key = join("servers", name);
        let server_name = self.parsed::<ServerName>(&key, name, ServerName::EXPECTED);
        let path = table.path.clone().unwrap_or_else(|| format!("/{name}/mcp"));
        let path = self.server_path(&format!("{key}.path"), &path);
        let upstream = self.upstream(&key, table, file);
        let mut picked = BTreeSet::new();
        for (index, provider) in table.providers.iter().enumerate() {
            match providers.keys().find(|known| known.as_str() == provider) {
                Some(known) => {
                    picked.insert(known.clone());
                }
                None if self.declares_provider(provider) => {}
                None => {
                    let message = format!("{provider:?} is none of the [providers]");
                    self.problem(&format!("{key}.providers[{index}]"), message);
                }
            }
        }
        let mut required = BTreeSet::new();
        for (index, provider) in table.required.iter().enumerate() {
            match picked.iter().find(|known| known.as_str() == provider) {
                Some(known) => {
                    required.insert(known.clone());
                }
                None if table.providers.contains(provider) => {}
                None => {
                    let message = format!("{provider:?} is not in `providers` of this server");
                    self.problem(&format!("{key}.required[{index}]"), message);
                }
            }
        }
        let scopes = self.scope_set(&format!("{key}.scopes"), &table.scopes);
        let optional_scopes = self.scope_set(&format!("{key}.optional_scopes"), &table.optional_scopes);
        let handle = self.handle_placement(&key, table);
        let policies = self.policies(&key, table, providers);
        let apis = self.apis_of_server(&key, table, providers);
        let labels = self.labels(&key, table, &picked);
        let path = path?;
        Some(McpServer {
            name: server_name?,
            resource: format!("{issuer}{path}"),
            path,
            upstream: upstream?,
            providers: picked,
            apis,
            required,
            labels,
            scopes,
            optional_scopes,
            handle: handle?,
            policies,
        })
    }

    pub(super) fn network_upstream(&mut self, key: &str, text: &str, allow_insecure: bool) -> Option<Upstream> {
        match upstream(text, allow_insecure) {
            Ok(upstream) => Some(upstream),
            Err((message, hint)) => {
                self.problem_with_hint(&format!("{key}.upstream"), message, hint);
                None
            }
        }
    }

    fn apis_of_server(
        &mut self,
        key: &str,
        table: &ServerTable,
        providers: &Providers,
    ) -> BTreeMap<ProviderName, BTreeSet<String>> {
        let mut apis = BTreeMap::new();
        for (name, wanted) in &table.apis {
            let key = join(&format!("{key}.apis"), name);
            if !table.providers.contains(name) {
                self.problem(&key, format!("{name:?} is not in `providers` of this server"));
            } else if let Some((name, provider)) = providers.iter().find(|(known, _)| known.as_str() == name) {
                for (index, api) in wanted.iter().enumerate() {
                    self.check_api(&format!("{key}[{index}]"), api, provider);
                }
                apis.insert(name.clone(), wanted.iter().cloned().collect());
            }
        }
        apis
    }

    /// What is not enabled is neither asked for nor reachable.
    fn check_api(&mut self, key: &str, api: &str, provider: &Provider) {
        if provider.apis.iter().any(|enabled| enabled.name == api) {
            return;
        }
        if provider.entry.apis.contains_key(api) {
            let hint = format!("list it in `apis` of [{}] too", join("providers", provider.name.as_str()));
            self.problem_with_hint(key, format!("{api:?} is not enabled at {}", provider.name), hint);
        } else {
            let known: Vec<&String> = provider.entry.apis.keys().collect();
            self.problem(key, format!("{api:?} is not an API of {}; it has {known:?}", provider.name));
        }
    }

    fn labels(
        &mut self,
        key: &str,
        table: &ServerTable,
        picked: &BTreeSet<ProviderName>,
    ) -> BTreeMap<ProviderName, Label> {
        let mut labels = BTreeMap::new();
        for (name, label) in &table.labels {
            let key = join(&format!("{key}.labels"), name);
            if !table.providers.contains(name) {
                self.problem(&key, format!("{name:?} is not in `providers` of this server"));
            }
            match (label.parse(), picked.iter().find(|known| known.as_str() == name)) {
                (Ok(label), Some(name)) => drop(labels.insert(name.clone(), label)),
                (Err(expected), _) => self.problem(&key, format!("{label:?} is not a label: expected {expected}")),
                (Ok(_), None) => {}
            }
        }
        labels
    }

    fn policies(
        &mut self,
        key: &str,
        table: &ServerTable,
        providers: &Providers,
    ) -> BTreeMap<ProviderName, AccessPolicy> {
        let mut policies = BTreeMap::new();
        for (name, rules) in &table.policy {
            let key = join(&format!("{key}.policy"), name);
            if !table.providers.contains(name) {
                self.problem(&key, format!("{name:?} is not in `providers` of this server"));
            } else if let Some((name, provider)) = providers.iter().find(|(known, _)| known.as_str() == name) {
                policies.insert(name.clone(), self.policy(&key, rules, provider));
            }
        }
        policies
    }

    fn server_path(&mut self, key: &str, path: &str) -> Option<String> {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let plain = |segment: &&str| {
            !segment.is_empty()
                && !segment.starts_with('.')
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        };
        if !path.starts_with('/') || !segments.iter().all(plain) || path.len() > 200 {
            let hint = "write it like \"/notes/mcp\": plain segments, no slash at the end";
            self.problem_with_hint(key, format!("{path:?} cannot be the path of an MCP endpoint"), hint);
            return None;
        }
        if segments.first().is_some_and(|first| OWN_SEGMENTS.contains(first)) {
            self.problem(key, format!("{path:?} begins with a segment that Sidekey uses itself"));
            return None;
        }
        Some(path.to_owned())
    }

    fn handle_placement(&mut self, key: &str, table: &ServerTable) -> Option<HandlePlacement> {
        let header = table.handle.header.to_ascii_lowercase().parse::<http::HeaderName>();
        let allowed = header.ok().filter(|header| {
            use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING, UPGRADE};
            ![CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING, UPGRADE].contains(header)
                && !header.as_str().starts_with("mcp-")
        });
        let Some(header) = allowed else {
            let message = format!("{:?} cannot hold a handle", table.handle.header);
            self.problem(&format!("{key}.handle.header"), message);
            return None;
        };
        let prefix = &table.handle.prefix;
        if prefix.len() > 64 || !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
            let message =
                format!("{prefix:?} cannot stand before a handle; expected at most 64 of A-Z a-z 0-9 - . _ ~");
            self.problem(&format!("{key}.handle.prefix"), message);
            return None;
        }
        let scheme = if table.handle.scheme == HandleScheme::Bearer { "Bearer " } else { "" };
        Some(HandlePlacement { header, before: format!("{scheme}{prefix}") })
    }

    fn clients(&mut self, file: &ConfigFile, policy: &RedirectPolicy) -> Vec<Client> {
        let client = |(id, table): (&String, &ClientTable)| self.client(id, table, policy);
        file.clients.iter().filter_map(client).collect()
    }

    fn client(&mut self, id: &str, table: &ClientTable, policy: &RedirectPolicy) -> Option<Client> {
        let key = join("clients", id);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if id.is_empty() || id.len() > 64 || !id.bytes().all(plain) || id.starts_with("dyn_") {
            let expected = "expected 1 to 64 of the characters A-Z a-z 0-9 _ -, not beginning with dyn_";
            self.problem(&key, format!("{id:?} cannot be a client id; {expected}"));
        }
        let name = plain_name(&table.name).map(str::to_owned);
        if name.is_none() {
            self.problem(
                &format!("{key}.name"),
                "is empty, longer than 100 characters, or not all of it would be shown",
            );
        }
        let mut redirect_uris = Vec::new();
        for (index, uri) in table.redirect_uris.iter().enumerate() {
            match RedirectUri::register(uri, policy) {
                Ok(uri) => redirect_uris.push(uri),
                Err(why) => self.problem(&format!("{key}.redirect_uris[{index}]"), why),
            }
        }
        let authentication = self.client_authentication(&key, table)?;
        let scopes = table.scopes.as_ref().map(|scopes| self.scope_set(&format!("{key}.scopes"), scopes));
        let (id, name) = (id.to_owned(), name?);
        Some(Client { id, kind: ClientKind::Static, name, redirect_uris, authentication, scopes })
    }

    fn client_authentication(&mut self, key: &str, table: &ClientTable) -> Option<ClientAuthentication> {
        match (&table.secret_hash, &table.jwks) {
            (None, None) => Some(ClientAuthentication::None),
            (Some(_), Some(_)) => {
                self.problem(
                    &format!("{key}.jwks"),
                    "goes with no `secret_hash`: a client has one way to authenticate",
                );
                None
            }
            (Some(hash), None) => {
                if !PasswordHash::new(hash).is_ok_and(|hash| hash.algorithm.as_str().starts_with("argon2")) {
                    self.problem_with_hint(
                        &format!("{key}.secret_hash"),
                        "is not an argon2 hash",
                        "`sidekey clients hash` prints one; the secret itself never stands here",
                    );
                    return None;
                }
                Some(ClientAuthentication::Secret(SecretVerifier::Argon2(Secret::new(hash))))
            }
            (None, Some(path)) => {
                let key = format!("{key}.jwks");
                match self.json_file(path).and_then(|set| KeySet::from_json(&set).map(|keys| (set, keys))) {
                    Ok((set, keys)) if !keys.is_empty() => {
                        Some(ClientAuthentication::PrivateKeyJwt(ClientKeys::Inline(set)))
                    }
                    Ok(_) => {
                        self.problem(&key, "holds no key of use (RSA, or EC on P-256)");
                        None
                    }
                    Err(why) => {
                        self.problem(&key, why);
                        None
                    }
                }
            }
        }
    }

    fn json_file(&self, path: &std::path::Path) -> Result<Value, String> {
        let path = self.home.join(path);
        let text =
            self.sources.read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn pinned_documents(&mut self, file: &ConfigFile) -> BTreeMap<String, String> {
        let mut pinned = BTreeMap::new();
        let Some(directory) = &file.issuer.client_documents.pinned else { return pinned };
        const KEY: &str = "issuer.client_documents.pinned";
        let directory = self.home.join(directory);
        let mut paths = match self.sources.list(&directory) {
            Ok(paths) => paths,
            Err(error) => {
                self.problem(KEY, format!("cannot read {}: {error}", directory.display()));
                return pinned;
            }
        };
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        for path in paths {
            match self.json_file(&path) {
                Ok(document) => match document["client_id"].as_str() {
                    Some(url) => {
                        pinned.insert(url.to_owned(), document.to_string());
                    }
                    None => self.problem(KEY, format!("{} has no client_id", path.display())),
                },
                Err(why) => self.problem(KEY, why),
            }
        }
        pinned
    }

    pub(super) fn origins(&mut self, texts: &[String]) -> Vec<String> {
        for (index, text) in texts.iter().enumerate() {
            let is_origin = Url::parse(text).is_ok_and(|url| {
                matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == *text
            });
            if !is_origin {
                let key = format!("public.allowed_origins[{index}]");
                self.problem(
                    &key,
                    format!(
                        "{text:?} is not an origin; expected scheme, host and port only, such as \"https://a.example\""
                    ),
                );
            }
        }
        texts.to_vec()
    }
}

fn redirect_policy(file: &ConfigFile, own_origin: &str) -> RedirectPolicy {
    let issuer = &file.issuer;
    let own_origin = own_origin.to_owned();
    let (private, allow_loopback) = (issuer.private_redirect_uris.clone(), issuer.loopback_redirect_uris);
    RedirectPolicy { private, allow_loopback, own_origin }
}

/// Names under which a client that registers itself could pass for somebody that users trust.
fn reserved_names(providers: &Providers, file: &ConfigFile) -> Vec<String> {
    let mut names = vec!["sidekey".to_owned()];
    names.extend(file.portal.name.as_ref().map(|name| name.to_lowercase()));
    names.extend(file.clients.values().map(|client| client.name.to_lowercase()));
    for provider in providers.values() {
        let display = provider.entry.display_name.to_lowercase();
        names.extend(display.split(' ').next().map(str::to_owned));
        names.push(display);
        names.push(provider.name.to_string());
    }
    names.sort();
    names.dedup();
    names
}

type Wrong = (String, &'static str);

fn upstream(text: &str, allow_insecure: bool) -> Result<Upstream, Wrong> {
    if let Some(rest) = text.strip_prefix("unix:") {
        let (socket, path) = rest.split_once(':').unwrap_or((rest, "/mcp"));
        if !socket.starts_with('/') || !is_upstream_path(path) {
            let hint = "write it like \"unix:/run/notes.sock:/mcp\"";
            return Err((format!("{text:?} is not a Unix socket and a path"), hint));
        }
        return Ok(Upstream::Unix { socket: socket.into(), path: path.to_owned() });
    }
    let hint =
        "write it like \"http://127.0.0.1:3000/mcp\", \"https://notes.example/mcp\" or \"unix:/run/notes.sock:/mcp\"";
    let odd = || (format!("{text:?} is not the URL of an MCP endpoint"), hint);
    let url = Url::parse(text).map_err(|_| odd())?;
    let bare =
        url.username().is_empty() && url.password().is_none() && url.fragment().is_none() && url.query().is_none();
    let is_https = url.scheme() == "https";
    let (true, Some(host), Some(port)) =
        (bare && (is_https || url.scheme() == "http"), url.host_str(), url.port_or_known_default())
    else {
        return Err(odd());
    };
    if !is_upstream_path(url.path()) {
        return Err(odd());
    }
    if !is_https && !is_loopback(&url) && !allow_insecure {
        let hint = "use https, or say insecure_upstream = true if nobody else can read that network";
        return Err((format!("{text:?} would send handles over http to another machine"), hint));
    }
    Ok(Upstream::Tcp { is_https, host: host.to_owned(), port, path: url.path().to_owned() })
}

fn is_upstream_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte))
}

#[cfg(test)]
mod tests;
