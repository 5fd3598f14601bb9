//! An MCP server behind us: for MCP clients a protected resource (RFC 9728), for us something to put a handle into.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::access_policy::AccessPolicy;
use crate::model::names::{Label, ProviderName, ServerName};
use crate::model::scope::{OFFLINE_ACCESS, ScopeSet};

pub use crate::model::stdio_server::StdioServer;

/// One MCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpServer {
    /// The key of its table.
    pub name: ServerName,
    /// Where its endpoint is on the public listener; begins with a slash and does not end with one.
    pub path: String,
    /// The canonical URI (RFC 8707): what clients ask tokens for, and the audience of those tokens.
    pub resource: String,
    /// Where requests go.
    pub upstream: Upstream,
    /// What the user may pick from.
    pub providers: BTreeSet<ProviderName>,
    /// The APIs that it uses, by provider; those of the others are all that are enabled.
    pub apis: BTreeMap<ProviderName, BTreeSet<String>>,
    /// Those of them without which the server is of no use.
    pub required: BTreeSet<ProviderName>,
    /// Which of several connections of its user it uses at a provider; at the others, the one that is called `default`.
    pub labels: BTreeMap<ProviderName, Label>,
    /// What every request needs, and what a client gets that asks for nothing.
    pub scopes: ScopeSet,
    /// What a client may ask for besides.
    pub optional_scopes: ScopeSet,
    /// Where the handle goes.
    pub handle: HandlePlacement,
    /// What may be done on its behalf at a provider, besides what is allowed to everybody.
    pub policies: BTreeMap<ProviderName, AccessPolicy>,
}

/// Where an MCP server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// At a host and port.
    Tcp {
        /// Whether over TLS.
        is_https: bool,
        /// Name or address, as in a URL.
        host: String,
        /// The port.
        port: u16,
        /// The path of the MCP endpoint.
        path: String,
    },
    /// At a Unix socket.
    Unix {
        /// The socket.
        socket: PathBuf,
        /// The path of the MCP endpoint.
        path: String,
    },
    /// Nowhere: a child process of ours for each user, which speaks on stdin and stdout.
    Stdio(Arc<StdioServer>),
}

impl Upstream {
    /// The path of the MCP endpoint there.
    pub fn path(&self) -> &str {
        match self {
            Self::Tcp { path, .. } | Self::Unix { path, .. } => path,
            Self::Stdio(_) => "/",
        }
    }

    /// `Host` of requests to it.
    pub fn authority(&self) -> String {
        match self {
            Self::Tcp { is_https: true, host, port: 443, .. } | Self::Tcp { is_https: false, host, port: 80, .. } => {
                host.clone()
            }
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
            Self::Unix { .. } | Self::Stdio(_) => "localhost".to_owned(),
        }
    }
}

/// Where the MCP server looks for the credential that it passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlePlacement {
    /// The request header.
    pub header: http::HeaderName,
    /// What stands before the handle: `Bearer `, and what the server expects its token to begin with.
    pub before: String,
}

impl Default for HandlePlacement {
    fn default() -> Self {
        Self { header: http::header::AUTHORIZATION, before: "Bearer ".to_owned() }
    }
}

impl McpServer {
    /// Which of several connections of its user it uses at a provider.
    pub fn label(&self, provider: &ProviderName) -> Label {
        self.labels.get(provider).cloned().unwrap_or_default()
    }

    /// All scopes that a client may be granted here.
    pub fn grantable_scopes(&self) -> ScopeSet {
        let mut scopes: ScopeSet = self.scopes.union(&self.optional_scopes).cloned().collect();
        scopes.insert(OFFLINE_ACCESS.to_owned());
        scopes
    }

    /// Whether a `resource` parameter names this server: clients may write scheme and host in capitals, and a slash at the
    /// end.
    pub fn is_named_by(&self, resource: &str) -> bool {
        let resource = resource.strip_suffix('/').unwrap_or(resource);
        if resource == self.resource {
            return true;
        }
        // Letters of scheme and host do not count, those of the path do.
        let path_at = self.resource.len() - self.path.len();
        match resource.split_at_checked(path_at) {
            Some((origin, path)) => path == self.path && origin.eq_ignore_ascii_case(&self.resource[..path_at]),
            None => false,
        }
    }
}

#[cfg(test)]
#[expect(missing_docs, reason = "for tests only")]
pub mod tests {
    use super::*;

    /// A server with two providers, of which `notion` is required.
    pub fn server(name: &str) -> McpServer {
        let provider = |name: &str| name.parse::<ProviderName>().expect("a name");
        McpServer {
            name: name.parse().expect("a name"),
            path: format!("/{name}/mcp"),
            resource: format!("https://sidekey.example/{name}/mcp"),
            upstream: Upstream::Unix { socket: "/run/x.sock".into(), path: "/mcp".to_owned() },
            providers: BTreeSet::from([provider("notion"), provider("github")]),
            apis: BTreeMap::new(),
            required: BTreeSet::from([provider("notion")]),
            labels: BTreeMap::new(),
            scopes: ScopeSet::from(["mcp".to_owned()]),
            optional_scopes: ScopeSet::from(["notes".to_owned()]),
            handle: HandlePlacement::default(),
            policies: BTreeMap::new(),
        }
    }

    #[test]
    fn resources_are_compared_with_care() {
        let server = server("notes");
        for same in [
            "https://sidekey.example/notes/mcp",
            "https://sidekey.example/notes/mcp/",
            "HTTPS://Sidekey.Example/notes/mcp",
        ] {
            assert!(server.is_named_by(same), "{same}");
        }
        for other in [
            "https://sidekey.example/notes/MCP",
            "https://sidekey.example",
            "https://sidekey.example/notes/mcp//",
            "https://sidekey.example/notes/mcp#x",
            "https://sidekey.example/notes/mcp?x=1",
            "/notes/mcp",
            "",
            "https://sidekey.example.evil/notes/mcp",
            "http://sidekey.example/notes/mcp",
        ] {
            assert!(!server.is_named_by(other), "{other}");
        }
    }
}
