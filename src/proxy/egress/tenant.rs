//! The tenant where callers name it besides the path: in declared query parameters and headers.
//!
//! A placeholder becomes the connection's own value; another value is refused, as in a path.

use std::borrow::Cow;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::policy::{PolicyError, captured_value, means};
use crate::catalogue::Api;
use crate::catalogue::provider::Origin;
use crate::catalogue::template::variables;
use crate::model::connection::Captured;

/// The query with the tenant filled in.
pub fn query<'q>(api: &Api, query: &'q str, captured: &Captured) -> Result<Cow<'q, str>, PolicyError> {
    if api.fill.query.is_empty() {
        return Ok(Cow::Borrowed(query));
    }
    let mut out = String::with_capacity(query.len() + 32);
    // Some servers separate by semicolons too, and some do not tell upper from lower case: a tenant that only they would
    // see is judged all the same.
    for piece in query.split_inclusive(['&', ';']) {
        let (pair, separator) = match piece.strip_suffix(['&', ';']) {
            Some(pair) => (pair, &piece[pair.len()..]),
            None => (piece, ""),
        };
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // Some take spaces for nothing, and `name[]` for a list of that name.
        let decoded = percent_decode_str(name).decode_utf8_lossy().replace('+', " ");
        let decoded = decoded.split('[').next().unwrap_or_default().trim();
        match api.fill.query.iter().find(|(declared, _)| declared.eq_ignore_ascii_case(decoded)) {
            None => out.push_str(pair),
            Some((_, tenant)) => {
                let own = captured_value(captured, tenant)?;
                if !means(value, tenant, own) {
                    return Err(PolicyError::OtherTenant { name: tenant.clone() });
                }
                out.push_str(name);
                out.push('=');
                out.push_str(own);
            }
        }
        out.push_str(separator);
    }
    Ok(Cow::Owned(out))
}

/// The declared headers that the caller sent, with the tenant filled in: to be set in place of what was there.
pub fn headers(
    api: &Api,
    headers: &HeaderMap,
    captured: &Captured,
) -> Result<Vec<(HeaderName, HeaderValue)>, PolicyError> {
    let mut filled = Vec::new();
    for (name, tenant) in &api.fill.header {
        if !headers.contains_key(name) {
            continue;
        }
        let own = captured_value(captured, tenant)?;
        let is_own =
            |value: &HeaderValue| value.to_str().is_ok_and(|value| value == own || means(value.trim(), tenant, own));
        if !headers.get_all(name).iter().all(is_own) {
            return Err(PolicyError::OtherTenant { name: tenant.clone() });
        }
        let value = HeaderValue::from_str(own).map_err(|_| PolicyError::NotCaptured { name: tenant.clone() })?;
        filled.push((name.clone(), value));
    }
    Ok(filled)
}

/// Whether all is there that every call of the API needs, whatever its path: what the declared headers and the origin are made
/// from. The error is the name of what is missing.
pub fn needed(api: &Api, captured: &Captured) -> Result<(), String> {
    let origin = match &api.origin {
        Origin::Fixed(_) => None,
        Origin::Captured { template, .. } => Some(template),
    };
    let templates = api.always.iter().map(|(_, value)| value).chain(origin).filter(|text| text.contains('{'));
    let mut names = templates.flat_map(|text| variables(text));
    names.find(|name| !captured.contains_key(name)).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::entry::ApiEntry;
    use crate::catalogue::provider::tests::provider;

    const REALM: &str = "9341453172058817";

    fn api() -> Api {
        let declared = serde_json::json!({
            "origin": "https://api.example", "fill": { "query": { "realmid": "realm_id" }, "header": { "x-realm": "realm_id" } }
        });
        let declared: ApiEntry = serde_json::from_value(declared).expect("an API");
        let owner = provider("quickbooks");
        Api::prepare(&owner.name, "books", &declared, &owner.entry).expect("sound")
    }

    fn captured() -> Captured {
        Captured::from([("realm_id".to_owned(), REALM.to_owned())])
    }

    #[test]
    fn a_placeholder_in_the_query_becomes_the_connections_company() {
        for placeholder in ["0", "realm_id", "{realm_id}", "%7Brealm_id%7D", REALM] {
            assert_eq!(
                query(&api(), &format!("a=b&realmid={placeholder}&x;y"), &captured()).as_deref(),
                Ok(format!("a=b&realmid={REALM}&x;y").as_str()),
                "{placeholder}"
            );
        }
        assert_eq!(query(&api(), "a=b&&c", &captured()).as_deref(), Ok("a=b&&c"));
        assert_eq!(query(&api(), "a=b", &Captured::new()).as_deref(), Ok("a=b"));
    }

    /// Some servers drop spaces before a name, and read `name[]` as a list of that name.
    #[test]
    fn another_company_is_refused_under_any_spelling_of_the_parameter() {
        for name in ["+realmid", "%20realmid", "realmid%20", "realmid[]", "realmid%5B0%5D", "+RealmId[a]"] {
            let sent = format!("a=b&{name}=other");
            let found = query(&api(), &sent, &captured());
            assert!(matches!(found, Err(PolicyError::OtherTenant { .. })), "{name}: {found:?}");
        }
        assert_eq!(
            query(&api(), "realmids=other&x[realmid]=1", &captured()).as_deref(),
            Ok("realmids=other&x[realmid]=1")
        );
    }

    #[test]
    fn another_company_is_refused_in_any_spelling() {
        let other = || PolicyError::OtherTenant { name: "realm_id".to_owned() };
        for bad in
            ["realmid=1", "realmid=", "realmid", "realmid=0&realmid=1", "a;realmid=1", "REALMID=1", "r%65almid=1"]
        {
            assert_eq!(query(&api(), bad, &captured()), Err(other()), "{bad}");
        }
        let missing = Err(PolicyError::NotCaptured { name: "realm_id".to_owned() });
        assert_eq!(query(&api(), "realmid=0", &Captured::new()), missing);
    }

    #[test]
    fn a_captured_value_that_says_more_than_a_name_is_never_filled_in() {
        let asked = HeaderMap::from_iter([(HeaderName::from_static("x-realm"), HeaderValue::from_static("0"))]);
        let missing = PolicyError::NotCaptured { name: "realm_id".to_owned() };
        for value in ["", "a\r\nx-evil: b", "a\nb", "a\0", "\u{e4}", "a/../b", "a?b", "a#b", "a&b=c", "a%0d%0a", "a b"]
        {
            let captured = Captured::from([("realm_id".to_owned(), value.to_owned())]);
            assert_eq!(query(&api(), "realmid=0", &captured), Err(missing.clone()), "{value:?}");
            assert_eq!(headers(&api(), &asked, &captured), Err(missing.clone()), "{value:?}");
        }
    }

    #[test]
    fn a_header_names_the_tenant_like_a_path() {
        let name = HeaderName::from_static("x-realm");
        let sent = |values: &[&str]| {
            let mut sent = HeaderMap::new();
            values.iter().for_each(|value| {
                sent.append(name.clone(), value.parse().expect("a value"));
            });
            headers(&api(), &sent, &captured())
        };
        assert_eq!(sent(&[]), Ok(Vec::new()));
        let expected = Ok(vec![(name.clone(), HeaderValue::from_static(REALM))]);
        for good in [["0"], ["realm_id"], ["{realm_id}"], [REALM]] {
            assert_eq!(sent(&good), expected, "{good:?}");
        }
        let other = Err(PolicyError::OtherTenant { name: "realm_id".to_owned() });
        assert_eq!(sent(&["1"]), other);
        assert_eq!(sent(&["0", "1"]), other);
    }
}
