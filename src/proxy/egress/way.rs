//! By which way a request came, and what it names that way: a provider's host, or an API by the first segment of the
//! path. Where a request says twice what it is for, both must say the same.

use http::header::{HOST, PROXY_AUTHORIZATION};
use pingora::http::RequestHeader;

use super::super::intercept::{Arrival, Credential, credential};
use super::caller::{CallerError, OwnHosts, is_handle_shaped};
use super::refusal::Refusal;
use super::route::Hosts;
use super::target::{self, Target, TargetError};
use crate::base::host_name;
use crate::base::secret::Secret;
use crate::model::names::Label;

/// What a request names, and by which way.
pub struct Address<'r> {
    /// By which way.
    pub way: Way,
    /// Path and query: of the API's own host, or at our listener.
    pub target: Target<'r>,
    /// A handle that came along, but not in the place of a token.
    pub handle: Option<Secret>,
    /// Which of several connections the base URL names (`/NAME@LABEL`).
    pub label: Option<Label>,
}

/// A way to the egress listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The first segment of the path names the API.
    BaseUrl,
    /// The request was meant for this host of a provider.
    Host(String),
}

/// Reads a request's address. `raw` is its target as it was sent.
pub fn address<'r>(
    request: &RequestHeader,
    raw: &'r [u8],
    arrival: Option<&Arrival>,
    own_hosts: &OwnHosts,
    hosts: &Hosts,
) -> Result<Address<'r>, Refusal> {
    if let Some(arrival) = arrival {
        return intercepted(request, raw, arrival, hosts);
    }
    match absolute(raw) {
        Some(absolute) => proxied(request, &absolute?, hosts),
        None => base_url(request, raw, own_hosts),
    }
}

/// TLS ended here: what the tunnel was asked for, what TLS named and what the request names must be one host.
fn intercepted<'r>(
    request: &RequestHeader,
    raw: &'r [u8],
    arrival: &Arrival,
    hosts: &Hosts,
) -> Result<Address<'r>, Refusal> {
    let (name, port) = named_host(request)?;
    let is_port_of_host = |port| hosts.ports(&arrival.host).is_some_and(|ports| ports.contains(&port));
    let is_right_port = arrival.port.map_or_else(
        || port == DEFAULT_PORT || is_port_of_host(port) || arrival.listeners_port == Some(port),
        |asked| asked == port,
    );
    if arrival.is_misdirected || name != arrival.host || !is_right_port {
        return Err(Refusal::Misdirected);
    }
    let target = target::parse(raw).map_err(Refusal::Target)?;
    Ok(Address { way: Way::Host(name), target, handle: arrival.handle.clone(), label: None })
}

/// Absolute form (RFC 9112 section 3.2.2): the request of a client that has us as its proxy. `Host` must be there all the
/// same, and name the same host.
fn proxied<'r>(request: &RequestHeader, absolute: &Absolute<'r>, hosts: &Hosts) -> Result<Address<'r>, Refusal> {
    let default_port = if absolute.is_https { 443 } else { 80 };
    let named = host_name::with_port(absolute.authority, Some(default_port));
    let (name, port) = named.map_err(|_| Refusal::Caller(CallerError::BadHost))?;
    let ports = hosts.ports(&name).ok_or(Refusal::Target(TargetError::NotOriginForm))?;
    if !absolute.is_https {
        return Err(Refusal::PlainHttp);
    }
    if !ports.contains(&port) {
        return Err(Refusal::HostNotListed);
    }
    let mut hosts = request.headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let host = hosts.next().filter(|_| hosts.next().is_none());
    if host.and_then(|host| host_name::with_port(host, Some(default_port)).ok()) != Some((name.clone(), port)) {
        return Err(Refusal::Caller(CallerError::BadHost));
    }
    let target = target::parse(absolute.target).map_err(Refusal::Target)?;
    let mut credentials = request.headers.get_all(PROXY_AUTHORIZATION).iter();
    let handle = match (credentials.next().map(|value| credential(value.as_bytes())), credentials.next()) {
        (None, _) => None,
        (Some(Credential::Handle(handle)), None) => Some(handle),
        (Some(_), _) => return Err(Refusal::ProxyCredential(CallerError::UnknownHandle)),
    };
    Ok(Address { way: Way::Host(name), target, handle, label: None })
}

/// `/NAME/...` or `/NAME@LABEL/...`, or with a handle `/~HANDLE/NAME/...`.
fn base_url<'r>(request: &RequestHeader, raw: &'r [u8], own_hosts: &OwnHosts) -> Result<Address<'r>, Refusal> {
    own_hosts.check(&request.headers).map_err(Refusal::Caller)?;
    let mut target = target::parse(raw).map_err(Refusal::Target)?;
    let first = target.segments.first().and_then(|segment| segment.strip_prefix('~'));
    let handle = first.filter(|handle| is_handle_shaped(handle.as_bytes())).map(Secret::new);
    if handle.is_some() {
        target.segments.remove(0);
    }
    let label = match target.segments.first_mut() {
        Some(first) => take_label(first)?,
        None => None,
    };
    Ok(Address { way: Way::BaseUrl, target, handle, label })
}

/// Takes the label from the segment that names the API. Some clients encode the sign.
fn take_label(segment: &mut &str) -> Result<Option<Label>, Refusal> {
    let Some((api, label)) = segment.split_once('@').or_else(|| segment.split_once("%40")) else { return Ok(None) };
    let label = label.parse().map_err(|_| Refusal::BadLabel)?;
    *segment = api;
    Ok(Some(label))
}

const DEFAULT_PORT: u16 = 443;

/// The host that `Host` and `:authority` name, if they agree.
fn named_host(request: &RequestHeader) -> Result<(String, u16), Refusal> {
    let bad = Refusal::Caller(CallerError::BadHost);
    let authority = request.uri.authority().map(|authority| authority.as_str());
    let values = request.headers.get_all(HOST).iter().map(|value| value.to_str().unwrap_or_default());
    let mut named = None;
    for value in values.chain(authority) {
        let one = host_name::with_port(value, Some(DEFAULT_PORT)).map_err(|_| bad.clone())?;
        if named.get_or_insert_with(|| one.clone()) != &one {
            return Err(bad);
        }
    }
    let is_repeated = request.headers.get_all(HOST).iter().nth(1).is_some();
    named.filter(|_| !is_repeated).ok_or(bad)
}

/// A target in absolute form, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Absolute<'r> {
    is_https: bool,
    authority: &'r str,
    target: &'r [u8],
}

/// `None` if it does not begin with a scheme that proxies are asked for.
fn absolute(raw: &[u8]) -> Option<Result<Absolute<'_>, Refusal>> {
    let is = |scheme: &str| raw.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme.as_bytes()));
    let (is_https, length) = match (is("https://"), is("http://")) {
        (true, _) => (true, "https://".len()),
        (_, true) => (false, "http://".len()),
        _ => return None,
    };
    let rest = &raw[length..];
    let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    let authority = std::str::from_utf8(&rest[..end]).map_err(|_| Refusal::Caller(CallerError::BadHost));
    let target = if end == rest.len() { b"/".as_slice() } else { &rest[end..] };
    Some(authority.map(|authority| Absolute { is_https, authority, target }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stands_behind_the_name_of_an_api() {
        let take = |segment: &'static str| {
            let mut rest = segment;
            take_label(&mut rest).map(|label| (rest, label.map(|label| label.to_string())))
        };
        assert_eq!(take("quickbooks"), Ok(("quickbooks", None)));
        assert_eq!(take("quickbooks@branch-1"), Ok(("quickbooks", Some("branch-1".to_owned()))));
        assert_eq!(take("quickbooks%40branch"), Ok(("quickbooks", Some("branch".to_owned()))));
        for bad in ["quickbooks@", "quickbooks@a@b", "quickbooks@a%40b", "quickbooks@a%2fb", "quickbooks@ä", "@@"] {
            assert_eq!(take(bad), Err(Refusal::BadLabel), "{bad}");
        }
        assert_eq!(take("@branch"), Ok(("", Some("branch".to_owned()))), "which is no API");
    }

    #[test]
    fn an_absolute_target_is_taken_apart() {
        let part = |raw: &'static str| absolute(raw.as_bytes()).expect("absolute").expect("readable");
        let whole = part("HTTPS://Api.x.example:443/a?b");
        assert_eq!(whole, Absolute { is_https: true, authority: "Api.x.example:443", target: b"/a?b" });
        assert_eq!(part("http://a.example").target, b"/");
        assert_eq!(part("https://a.example?x").target, b"?x");
        assert_eq!(part("https://u@a.example/").authority, "u@a.example");
        for other in ["/a", "*", "ftp://a/", "https:/a", "a.example:443"] {
            assert!(absolute(other.as_bytes()).is_none(), "{other}");
        }
    }
}
