//! Who is calling: a handle in the place of the provider's token, in the base URL, or as proxy credential; or the fixed
//! subject for callers without one.

use std::sync::{Arc, LazyLock};

use http::HeaderMap;
use http::header::{HOST, HeaderName, ORIGIN};
use memchr::memmem;

use crate::base::clock::Timestamp;
use crate::issuer::Issuer;
use crate::issuer::child_handles::ChildHandle;
use crate::issuer::live::LiveGrant;
use crate::model::connection::ConnectionKey;
use crate::model::handle::{self, HandleError, HandleRecord, MARKER};
use crate::model::names::{Label, ProviderName, ServerName, Subject};
use crate::vault::handles::HandleTable;

/// Why nobody is identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerError {
    /// `Host` is missing, repeated or malformed.
    BadHost,
    /// `Host` names somebody else: a page in a browser that was led here by DNS.
    ForeignHost,
    /// The request comes from a browser.
    Browser,
    /// No handle, and no fixed subject.
    NoHandle,
    /// A handle that we never issued.
    UnknownHandle,
    /// A handle that was good once, or is good elsewhere.
    Handle(HandleError),
    /// The handle of a grant that has ended.
    GrantOver,
    /// The user of the grant did not pick this provider.
    ProviderNotPicked,
}

/// Which values of `Host` are ours.
#[derive(Clone, Debug)]
pub struct OwnHosts {
    /// Further ones.
    pub listed: Vec<String>,
    /// Our own addresses, which nearly every caller uses.
    pub usual: Vec<String>,
}

impl OwnHosts {
    /// The one `Host` of a request, if it is ours. Loopback names and addresses are, with any port.
    pub fn check<'h>(&self, headers: &'h HeaderMap) -> Result<&'h str, CallerError> {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(CallerError::BadHost) };
        let host = host.to_str().map_err(|_| CallerError::BadHost)?;
        if self.usual.iter().any(|usual| usual == host) {
            return Ok(host);
        }
        let (name, port) = split_port(host).ok_or(CallerError::BadHost)?;
        let port_is_number = port.is_none_or(|port| port.parse::<u16>().is_ok());
        if !port_is_number || !is_host_name(name) {
            return Err(CallerError::BadHost);
        }
        let is_listed =
            || self.listed.iter().any(|own| own.eq_ignore_ascii_case(host) || own.eq_ignore_ascii_case(name));
        if is_loopback_name(name) || is_listed() { Ok(host) } else { Err(CallerError::ForeignHost) }
    }
}

fn split_port(host: &str) -> Option<(&str, Option<&str>)> {
    if host.starts_with('[') {
        let (name, rest) = host.split_at(host.find(']')? + 1);
        return if rest.is_empty() { Some((name, None)) } else { Some((name, Some(rest.strip_prefix(':')?))) };
    }
    match host.split_once(':') {
        Some((name, port)) => Some((name, Some(port))),
        None => Some((host, None)),
    }
}

fn is_host_name(name: &str) -> bool {
    let plain = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => plain(name),
    }
}

fn is_loopback_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name == "[::1]"
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who may call.
pub struct Callers {
    /// Handles that the operator issued.
    pub handles: Arc<HandleTable>,
    /// Handles of grants: the users of MCP clients.
    pub issuer: Arc<Issuer>,
    /// Whose connections callers without a handle use.
    pub fixed_subject: Option<Subject>,
}

/// Whose request it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The connection to use.
    pub key: ConnectionKey,
    /// Whether that of a user of an MCP client.
    pub is_user: bool,
}

/// Whose request it is, whatever it is for.
#[derive(Clone)]
pub enum Who {
    /// Whoever holds a handle that the operator issued.
    Handle(Arc<HandleRecord>),
    /// The user of an MCP client.
    User(Arc<LiveGrant>),
    /// A child process of ours, which acts for users of MCP clients.
    Child(Arc<ChildHandle>),
    /// The subject of callers without a handle.
    Fixed(Subject),
}

impl Callers {
    /// Whose a presented handle is, whether or not it is still in force.
    pub fn of_handle(&self, presented: &str) -> Result<Who, CallerError> {
        let digest = handle::digest(handle::without_prefix(presented));
        if let Some(record) = self.handles.get(&digest) {
            return Ok(Who::Handle(record));
        }
        let of_grant = self.issuer.grant_of_handle(&digest).map(Who::User);
        let of_child = || self.issuer.child_of_handle(&digest).map(Who::Child);
        let who = of_grant.or_else(of_child).ok_or(CallerError::UnknownHandle)?;
        // A server that was taken out of the configuration has no rules, so nobody may act in its place.
        let servers = &self.issuer.settings().servers;
        let is_there = who.server().is_none_or(|server| servers.contains_key(server));
        is_there.then_some(who).ok_or(CallerError::GrantOver)
    }
}

impl Who {
    /// Whether what identified the caller is in force, for whatever provider.
    pub fn check(&self, now: Timestamp) -> Result<(), CallerError> {
        match self {
            Self::Handle(record) => record.in_force(now).map_err(CallerError::Handle),
            Self::User(grant) => grant.is_live(now).then_some(()).ok_or(CallerError::GrantOver),
            Self::Child(child) => child.is_live(now).then_some(()).ok_or(CallerError::GrantOver),
            Self::Fixed(_) => Ok(()),
        }
    }

    /// The connection to use at one provider, where the request names this label, or none.
    pub fn at(&self, provider: &ProviderName, label: Option<&Label>, now: Timestamp) -> Result<Caller, CallerError> {
        self.check(now)?;
        match self {
            Self::Handle(record) => {
                record.permits(provider, now).map_err(CallerError::Handle)?;
                let label = record.labelled(label).map_err(CallerError::Handle)?;
                let key = ConnectionKey::new(record.subject.clone(), provider.clone(), label);
                Ok(Caller { key, is_user: false })
            }
            Self::User(grant) => {
                grant.handle.permits(provider, now).map_err(|_| CallerError::ProviderNotPicked)?;
                of_user(grant.grant.connection(provider), label)
            }
            Self::Child(child) => of_user(child.connection(provider).ok_or(CallerError::ProviderNotPicked)?, label),
            Self::Fixed(subject) => {
                let label = label.cloned().unwrap_or_default();
                Ok(Caller { key: ConnectionKey::new(subject.clone(), provider.clone(), label), is_user: false })
            }
        }
    }

    /// Whether tunnels to hosts that are not listed may be opened.
    pub fn tunnels(&self) -> bool {
        match self {
            Self::Handle(record) => record.tunnels,
            Self::Child(child) => child.scope.tunnels,
            Self::User(_) | Self::Fixed(_) => false,
        }
    }

    /// The id of the handle that was presented.
    pub fn handle_id(&self) -> Option<&str> {
        match self {
            Self::Handle(record) => Some(&record.id),
            Self::User(grant) => Some(&grant.handle.id),
            Self::Child(child) => Some(&child.id),
            Self::Fixed(_) => None,
        }
    }

    /// The MCP server in whose place the caller acts.
    pub fn server(&self) -> Option<&ServerName> {
        match self {
            Self::User(grant) => Some(&grant.grant.authorization.server),
            Self::Child(child) => Some(&child.scope.server),
            Self::Handle(_) | Self::Fixed(_) => None,
        }
    }
}

/// What the user approved was this connection, whatever others there are.
fn of_user(key: ConnectionKey, label: Option<&Label>) -> Result<Caller, CallerError> {
    match label {
        Some(label) if *label != key.label => Err(CallerError::Handle(HandleError::OtherLabel)),
        _ => Ok(Caller { key, is_user: true }),
    }
}

/// Finds out whose a request is: by the handle that was presented, wherever that was.
pub fn identify(headers: &HeaderMap, presented: Option<&str>, callers: &Callers) -> Result<Who, CallerError> {
    if headers.get(SEC_FETCH_SITE).is_some_and(|site| site != "none") {
        return Err(CallerError::Browser);
    }
    if let Some(presented) = presented {
        return callers.of_handle(presented);
    }
    match &callers.fixed_subject {
        // A page in a browser sends no handle of its own accord, but it could lean on the fixed subject.
        Some(_) if headers.contains_key(ORIGIN) => Err(CallerError::Browser),
        Some(subject) => Ok(Who::Fixed(subject.clone())),
        None => Err(CallerError::NoHandle),
    }
}

/// Whether a text looks like a handle, or holds one.
pub fn is_handle_shaped(bytes: &[u8]) -> bool {
    static MARKER_FINDER: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(MARKER));
    MARKER_FINDER.find(bytes).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &[&'static str]) -> Result<String, CallerError> {
        let mut headers = HeaderMap::new();
        hosts.iter().for_each(|host| {
            headers.append(HOST, host.parse().expect("a value"));
        });
        OwnHosts {
            listed: vec!["sidekey:8701".to_owned(), "proxy.pod".to_owned()],
            usual: vec!["127.0.0.1:8701".to_owned()],
        }
        .check(&headers)
        .map(str::to_owned)
    }

    #[test]
    fn our_own_hosts_are_loopback_and_what_is_listed() {
        for good in [
            "127.0.0.1:8701",
            "127.0.0.1",
            "localhost:1",
            "LOCALHOST",
            "[::1]:8701",
            "[::1]",
            "sidekey:8701",
            "proxy.pod:99",
        ] {
            assert_eq!(check(&[good]).as_deref(), Ok(good));
        }
        for foreign in
            ["evil.example", "evil.example:8701", "127.0.0.1.evil.example", "localhost.evil", "sidekey:1", "10.0.0.1"]
        {
            assert_eq!(check(&[foreign]), Err(CallerError::ForeignHost), "{foreign}");
        }
        for bad in ["a@b", "a/b", "[::1", "[::1]x", "", "a b", "localhost:", "localhost:99999", ":80"] {
            assert_eq!(check(&[bad]), Err(CallerError::BadHost), "{bad}");
        }
        let beyond_loopback = OwnHosts { listed: Vec::new(), usual: Vec::new() };
        let empty = HeaderMap::from_iter([(HOST, "".parse().expect("a value"))]);
        assert_eq!(beyond_loopback.check(&empty), Err(CallerError::BadHost));
        assert_eq!(check(&[]), Err(CallerError::BadHost));
        assert_eq!(check(&["localhost", "localhost"]), Err(CallerError::BadHost));
    }
}
