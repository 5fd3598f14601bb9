//! Request parameters as they came (RFC 6749 sections 3.1 and 3.2: none of them twice, and an empty one is as good as none).

use std::time::Duration;

/// The parameters of one request.
#[derive(Clone, Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

/// A parameter that is there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated;

impl Parameters {
    /// From a query or a form.
    pub fn from_form(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// From the members of a JSON object that are texts; `None` if it is none, or one is no text.
    pub fn from_json(body: &[u8]) -> Option<Self> {
        let object: crate::base::jws::StrictObject = serde_json::from_slice(body).ok()?;
        let pairs = object.0.into_iter().map(|(name, value)| Some((name, value.as_str()?.to_owned())));
        pairs.collect::<Option<_>>().map(Self)
    }

    /// The value of a parameter that may be there once.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Repeated> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Repeated),
            (value, None) => Ok(value.filter(|value| !value.is_empty())),
        }
    }

    /// All values of a parameter.
    pub fn all<'p>(&'p self, name: &'p str) -> impl Iterator<Item = &'p str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether any parameter but these is there twice.
    pub fn has_repeated(&self, except: &[&str]) -> bool {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names.retain(|name| !except.contains(name));
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `max-age` of a `Cache-Control` header, within bounds; nothing for `no-store` and `no-cache`.
pub fn freshness(cache_control: Option<&str>, shortest: Duration, usual: Duration, longest: Duration) -> Duration {
    let Some(text) = cache_control else { return usual };
    let mut directives = text.split(',').map(|directive| directive.trim().to_ascii_lowercase());
    if directives.clone().any(|directive| directive == "no-store" || directive == "no-cache") {
        return shortest;
    }
    let max_age = directives.find_map(|directive| directive.strip_prefix("max-age=")?.trim_matches('"').parse().ok());
    max_age.map_or(usual, Duration::from_secs).clamp(shortest, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_stand_there_once() {
        let parameters = Parameters::from_form(b"a=1&b=&c=x%20y&a2=1&c2=1&d=1&d=2");
        assert_eq!(parameters.one("a"), Ok(Some("1")));
        assert_eq!((parameters.one("b"), parameters.one("none")), (Ok(None), Ok(None)));
        assert_eq!(parameters.one("c"), Ok(Some("x y")));
        assert_eq!(parameters.one("d"), Err(Repeated));
        assert!(parameters.has_repeated(&[]) && !parameters.has_repeated(&["d"]));
        assert!(Parameters::from_json(br#"{"a":"1"}"#).is_some());
        for bad in [r#"{"a":1}"#, "[]", r#"{"a":"1","a":"2"}"#, "x"] {
            assert!(Parameters::from_json(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn caches_live_as_long_as_their_header_says_within_bounds() {
        let [shortest, usual, longest] = [60, 3600, 86_400].map(Duration::from_secs);
        let of = |text| freshness(text, shortest, usual, longest).as_secs();
        assert_eq!((of(None), of(Some("public")), of(Some("no-store"))), (3600, 3600, 60));
        assert_eq!(
            (of(Some("public, max-age=600")), of(Some("max-age=1")), of(Some("Max-Age=9999999"))),
            (600, 60, 86_400)
        );
    }
}
