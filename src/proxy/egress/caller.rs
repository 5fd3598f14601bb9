//! Who is calling: a handle in the place of the provider's token, or the fixed subject for callers without one.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use memchr::memmem;

use crate::base::clock::Timestamp;
use crate::issuer::Issuer;
use crate::model::connection::ConnectionKey;
use crate::model::handle::{self, HandleError, HandleRecord, MARKER};
use crate::model::names::{Label, ProviderName, Subject};
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
    /// The credential header is there twice.
    TwoCredentials,
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
    /// Our own address, which nearly every caller uses.
    pub usual: Option<String>,
}

impl OwnHosts {
    /// The one `Host` of a request, if it is ours. Loopback names and addresses are, with any port.
    pub fn check<'h>(&self, headers: &'h HeaderMap) -> Result<&'h str, CallerError> {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(CallerError::BadHost) };
        let host = host.to_str().map_err(|_| CallerError::BadHost)?;
        if self.usual.as_deref() == Some(host) {
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

impl Callers {
    fn of_handle(&self, presented: &str, provider: &ProviderName, now: Timestamp) -> Result<Caller, CallerError> {
        let digest = handle::digest(handle::without_prefix(presented));
        if let Some(record) = self.handles.get(&digest) {
            record.permits(provider, now).map_err(CallerError::Handle)?;
            return Ok(Caller { key: key_of(&record, provider), is_user: false });
        }
        let grant = self.issuer.grant_of_handle(&digest).ok_or(CallerError::UnknownHandle)?;
        if !grant.is_live(now) {
            return Err(CallerError::GrantOver);
        }
        grant.handle.permits(provider, now).map_err(|_| CallerError::ProviderNotPicked)?;
        Ok(Caller { key: key_of(&grant.handle, provider), is_user: true })
    }
}

fn key_of(record: &HandleRecord, provider: &ProviderName) -> ConnectionKey {
    ConnectionKey::new(record.subject.clone(), provider.clone(), record.label.clone())
}

/// Finds the connection that a request may use.
pub fn identify(
    headers: &HeaderMap,
    credential_header: &HeaderName,
    provider: &ProviderName,
    callers: &Callers,
    now: Timestamp,
) -> Result<Caller, CallerError> {
    if headers.get(SEC_FETCH_SITE).is_some_and(|site| site != "none") {
        return Err(CallerError::Browser);
    }
    let mut presented = None;
    for name in [&AUTHORIZATION, credential_header] {
        let mut values = headers.get_all(name).iter();
        let value = values.next();
        if values.next().is_some() {
            return Err(CallerError::TwoCredentials);
        }
        presented = presented.or_else(|| value.and_then(|value| handle_in(value.as_bytes())));
        if credential_header == AUTHORIZATION {
            break;
        }
    }
    if let Some(presented) = presented {
        return callers.of_handle(&presented, provider, now);
    }
    match &callers.fixed_subject {
        // A page in a browser sends no handle of its own accord, but it could lean on the fixed subject.
        Some(_) if headers.contains_key(ORIGIN) => Err(CallerError::Browser),
        Some(subject) => {
            let (subject, provider) = (subject.clone(), provider.clone());
            Ok(Caller { key: ConnectionKey::new(subject, provider, Label::default()), is_user: false })
        }
        None => Err(CallerError::NoHandle),
    }
}

/// The handle-shaped part of a credential: of `Bearer X`, `token X` and plain `X`, and of either half of `Basic`.
fn handle_in(value: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    let credential = memchr::memchr(b' ', text.as_bytes()).map_or(text, |space| text[space..].trim_ascii_start());
    if text.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic ")) {
        let decoded = STANDARD.decode(credential).ok()?;
        let pair = std::str::from_utf8(&decoded).ok()?;
        return pair.split(':').find(|half| is_handle_shaped(half.as_bytes())).map(|half| Cow::Owned(half.to_owned()));
    }
    is_handle_shaped(credential.as_bytes()).then_some(Cow::Borrowed(credential))
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
            usual: Some("127.0.0.1:8701".to_owned()),
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
        let beyond_loopback = OwnHosts { listed: Vec::new(), usual: None };
        let empty = HeaderMap::from_iter([(HOST, "".parse().expect("a value"))]);
        assert_eq!(beyond_loopback.check(&empty), Err(CallerError::BadHost));
        assert_eq!(check(&[]), Err(CallerError::BadHost));
        assert_eq!(check(&["localhost", "localhost"]), Err(CallerError::BadHost));
    }

    #[test]
    fn a_handle_is_found_where_a_token_goes() {
        let handle = format!("{MARKER}abc");
        for value in
            [format!("Bearer {handle}"), format!("bearer   {handle}"), format!("token {handle}"), handle.clone()]
        {
            assert_eq!(handle_in(value.as_bytes()).as_deref(), Some(handle.as_str()), "{value}");
        }
        for pair in [format!("x-access-token:{handle}"), format!("{handle}:x")] {
            assert_eq!(
                handle_in(format!("Basic {}", STANDARD.encode(&pair)).as_bytes()).as_deref(),
                Some(handle.as_str()),
                "{pair}"
            );
        }
        for other in ["Bearer placeholder", "", "Basic !!", "Bearer", "Basic", "abcdeéfgh", "é", "basié x"] {
            assert_eq!(handle_in(other.as_bytes()), None, "{other}");
        }
    }
}
