//! What may be called, and the path that goes out: allow-listed prefixes, and the tenant filled in.

use percent_encoding::percent_decode_str;

use super::target::{Target, has_encoded_slash};
use super::tenant;
use crate::catalogue::Api;
use crate::catalogue::provider::{PathPrefix, PathSegment};
use crate::model::connection::{Captured, is_plain_segment};

/// Why a path is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// No allowed prefix fits.
    NotAllowed,
    /// The path names another tenant than the connection's.
    OtherTenant {
        /// The name of the captured value.
        name: String,
    },
    /// The connection lacks the value that the path needs.
    NotCaptured {
        /// Its name.
        name: String,
    },
    /// A rule of the operator refuses it.
    Denied {
        /// Which: a key of the configuration.
        key: String,
    },
    /// An encoded slash where none is allowed.
    EncodedSlash,
}

/// Whether a path may be one of the API's, whoever calls: the first thing that tells the APIs at one host apart.
pub fn may_be_allowed(api: &Api, segments: &[&str]) -> bool {
    api.paths.iter().any(|prefix| literals_fit(prefix, segments))
}

/// The path and query to send, for `segments` of `target` below the API's base path.
pub fn outgoing(api: &Api, target: &Target<'_>, segments: &[&str], captured: &Captured) -> Result<String, PolicyError> {
    let filled = allowed(&api.paths, segments, captured)?;
    let with_encoded_slash = |(_, segment): &(usize, &&str)| target.is_encoded && has_encoded_slash(segment);
    for (index, _) in segments.iter().enumerate().filter(with_encoded_slash) {
        let opted_in = |prefix: &PathPrefix| prefix.0.len() <= index && fill(prefix, segments, captured).is_ok();
        if !api.encoded_slash_paths.iter().any(opted_in) {
            return Err(PolicyError::EncodedSlash);
        }
    }
    let query_length = target.query.map_or(0, |query| query.len() + 1);
    let filled_length: usize = filled.iter().map(|(_, value)| value.len()).sum();
    let path_length: usize = segments.iter().map(|segment| segment.len() + 1).sum();
    let mut path = String::with_capacity(api.base_path.len() + path_length + filled_length + query_length + 1);
    path.push_str(&api.base_path);
    for (index, segment) in segments.iter().enumerate() {
        path.push('/');
        path.push_str(filled.iter().find(|(at, _)| *at == index).map_or(*segment, |(_, value)| value));
    }
    if segments.is_empty() {
        path.push('/');
    }
    if let Some(query) = target.query {
        path.push('?');
        path.push_str(&tenant::query(api, query, captured)?);
    }
    // Whatever was not filled in by now is no placeholder of ours, and braces do not belong into a path.
    let bytes = path.as_bytes();
    let end_of_path = memchr::memchr(b'?', bytes).unwrap_or(bytes.len());
    let has_braces = memchr::memchr2(b'{', b'}', &bytes[..end_of_path]).is_some();
    if has_braces { Err(PolicyError::NotAllowed) } else { Ok(path) }
}

type Filled<'c> = Vec<(usize, &'c str)>;

/// The first prefix that fits; where one fits but for its tenant, that is the answer.
fn allowed<'c>(prefixes: &[PathPrefix], segments: &[&str], captured: &'c Captured) -> Result<Filled<'c>, PolicyError> {
    let mut refusal = PolicyError::NotAllowed;
    for prefix in prefixes {
        match fill(prefix, segments, captured) {
            Ok(filled) => return Ok(filled),
            Err(PolicyError::NotAllowed) => {}
            Err(specific) => refusal = specific,
        }
    }
    Err(refusal)
}

/// Matches a prefix and collects what is to be filled in at which segment.
fn fill<'c>(prefix: &PathPrefix, segments: &[&str], captured: &'c Captured) -> Result<Filled<'c>, PolicyError> {
    if !literals_fit(prefix, segments) {
        return Err(PolicyError::NotAllowed);
    }
    let mut filled = Filled::new();
    for (index, (declared, segment)) in prefix.0.iter().zip(segments).enumerate() {
        if let PathSegment::Captured(name) = declared {
            let value = captured_value(captured, name)?;
            if !means(segment, name, value) {
                return Err(PolicyError::OtherTenant { name: name.clone() });
            }
            filled.push((index, value));
        }
    }
    Ok(filled)
}

/// The connection's value, if it has one that can stand in a target.
pub fn captured_value<'c>(captured: &'c Captured, name: &str) -> Result<&'c str, PolicyError> {
    let value = captured.get(name).filter(|value| is_plain_segment(value));
    value.map(String::as_str).ok_or_else(|| PolicyError::NotCaptured { name: name.to_owned() })
}

fn literals_fit(prefix: &PathPrefix, segments: &[&str]) -> bool {
    let fits = |(declared, segment): (&PathSegment, &&str)| match declared {
        PathSegment::Literal(literal) => literal == segment,
        PathSegment::Captured(_) => true,
    };
    segments.len() >= prefix.0.len() && prefix.0.iter().zip(segments).all(fits)
}

/// Whether a segment stands for the connection's own value: a placeholder (`0`, the name, the name in braces), or the
/// value itself; raw or percent-encoded.
pub fn means(segment: &str, name: &str, value: &str) -> bool {
    if segment == "0" || segment == value {
        return true;
    }
    let decoded = percent_decode_str(segment).decode_utf8_lossy();
    let in_braces = decoded.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    decoded == "0" || decoded == name || in_braces == Some(name) || decoded == value
}

#[cfg(test)]
mod tests {
    use super::super::target::parse;
    use super::*;
    use crate::catalogue::provider::tests::provider;

    const REALM: &str = "9341453172058817";

    fn captured(value: &str) -> Captured {
        Captured::from([("realm_id".to_owned(), value.to_owned())])
    }

    fn sent(provider_name: &str, target: &str) -> Result<String, PolicyError> {
        let provider = provider(provider_name);
        let target = parse(target.as_bytes()).expect("a good target");
        outgoing(&provider.apis[0], &target, &target.segments[1..], &captured(REALM))
    }

    #[test]
    fn placeholders_become_the_connections_company() {
        for placeholder in ["0", "realm_id", "{realm_id}", "%7Brealm_id%7D", "%7brealm%5fid%7d", "%30", REALM] {
            assert_eq!(
                sent("quickbooks", &format!("/quickbooks/v3/company/{placeholder}/query?query=a%20b")).as_deref(),
                Ok("/v3/company/9341453172058817/query?query=a%20b"),
                "{placeholder}"
            );
        }
    }

    #[test]
    fn another_company_is_refused() {
        let other = Err(PolicyError::OtherTenant { name: "realm_id".to_owned() });
        for realm in ["9341453172058818", "00", "934145317205881", "{realm}", "null", "REALM_ID"] {
            assert_eq!(sent("quickbooks", &format!("/quickbooks/v3/company/{realm}/x")), other, "{realm}");
        }
    }

    #[test]
    fn only_allowed_prefixes_are_reached() {
        for path in [
            "/quickbooks",
            "/quickbooks/",
            "/quickbooks/v3",
            "/quickbooks/v3/company",
            "/quickbooks/v2/company/0/x",
            "/quickbooks/V3/company/0/x",
            "/quickbooks/%76%33/company/0/x",
            "/quickbooks/v3/company/0/{x}",
        ] {
            assert_eq!(sent("quickbooks", path), Err(PolicyError::NotAllowed), "{path}");
        }
        assert_eq!(sent("github", "/github").as_deref(), Ok("/"));
        assert_eq!(sent("github", "/github/").as_deref(), Ok("/"));
        assert_eq!(sent("github", "/github/user?a=b").as_deref(), Ok("/user?a=b"));
    }

    #[test]
    fn an_encoded_slash_passes_only_where_a_route_opts_in() {
        assert_eq!(
            sent("gitlab", "/gitlab/api/v4/projects/group%2Fname/issues").as_deref(),
            Ok("/api/v4/projects/group%2Fname/issues")
        );
        for path in ["/gitlab/api/v4%2Fprojects/x", "/gitlab/api/v4/search/a%2fb", "/gitlab/api%2fv4/projects/x"] {
            let refused = sent("gitlab", path).expect_err("refused");
            assert!(matches!(refused, PolicyError::EncodedSlash | PolicyError::NotAllowed), "{path}: {refused:?}");
        }
        assert_eq!(sent("quickbooks", "/quickbooks/v3/company/0/a%2Fb"), Err(PolicyError::EncodedSlash));
    }

    #[test]
    fn a_captured_value_that_is_no_segment_is_never_filled_in() {
        let quickbooks = provider("quickbooks");
        let target = parse(b"/quickbooks/v3/company/0/x").expect("good");
        let missing = Err(PolicyError::NotCaptured { name: "realm_id".to_owned() });
        for value in ["", "..", "a/b", "a?b", "a#b", "a&b\r\n", "a%2fb", "ä", "{realm_id}"] {
            let filled = outgoing(&quickbooks.apis[0], &target, &target.segments[1..], &captured(value));
            assert_eq!(filled, missing, "{value:?}");
        }
        assert_eq!(outgoing(&quickbooks.apis[0], &target, &target.segments[1..], &Captured::new()), missing);
    }
}
