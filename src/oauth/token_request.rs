//! Requests to the token endpoint (RFC 6749 sections 4.1.3 and 6), in the provider's own dialect.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::base::http::Request;
use crate::base::secret::Secret;
use crate::catalogue::entry::{BodyFormat, ClientAuthentication};
use crate::catalogue::{Provider, template};
use crate::model::names::TokenName;

/// Exchanges an authorization code.
pub fn exchange_code(provider: &Provider, code: &Secret, verifier: Option<&Secret>) -> Request {
    let mut parameters = Parameters::default();
    parameters.push("grant_type", "authorization_code");
    parameters.push("code", code.expose());
    parameters.push("redirect_uri", &provider.redirect_uri);
    if let Some(verifier) = verifier {
        parameters.push("code_verifier", verifier.expose());
    }
    if let Some(scopes) = provider.scopes_of_token(None) {
        parameters.push("scope", &scopes.join(&provider.entry.authorize.scope_separator));
    }
    parameters.push_declared(provider, &provider.entry.token.code_parameters);
    request(provider, provider.entry.token.url.clone(), parameters)
}

/// Refreshes one of the grant's access tokens; `None` for the first.
pub fn refresh(provider: &Provider, refresh_token: &Secret, token_name: Option<&TokenName>) -> Request {
    let token = &provider.entry.token;
    let mut parameters = Parameters::default();
    parameters.push("grant_type", "refresh_token");
    parameters.push("refresh_token", refresh_token.expose());
    if let Some(scopes) = provider.scopes_of_token(token_name) {
        parameters.push("scope", &scopes.join(&provider.entry.authorize.scope_separator));
    }
    parameters.push_declared(provider, &token.refresh_parameters);
    request(provider, token.refresh_url.clone().unwrap_or_else(|| token.url.clone()), parameters)
}

/// The parameters of a request to a provider.
#[derive(Default)]
pub(super) struct Parameters(Vec<(String, Zeroizing<String>)>);

impl Parameters {
    pub(super) fn push(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), Zeroizing::new(value.to_owned())));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push_declared(&mut self, provider: &Provider, declared: &std::collections::BTreeMap<String, String>) {
        for (name, value) in declared {
            let value_of = |name: &str| match name {
                "redirect_uri" => Some(provider.redirect_uri.as_str()),
                "client_id" => Some(provider.client.id.as_str()),
                _ => None,
            };
            self.push(name, &template::fill(value, value_of));
        }
    }

    pub(super) fn encode(&self, format: BodyFormat) -> Zeroizing<Vec<u8>> {
        let bytes = match format {
            BodyFormat::Form => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                self.0.iter().for_each(|(name, value)| {
                    form.append_pair(name, value);
                });
                form.finish().into_bytes()
            }
            BodyFormat::Json => {
                let map: serde_json::Map<_, _> =
                    self.0.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
                serde_json::to_vec(&map).expect("texts serialize")
            }
        };
        Zeroizing::new(bytes)
    }
}

fn request(provider: &Provider, url: crate::base::safe_url::SafeUrl, mut parameters: Parameters) -> Request {
    let token = &provider.entry.token;
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_TYPE, media_type(token.request_format));
    for (name, value) in &token.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    authenticate(provider, token.client_authentication.first().copied(), &mut headers, &mut parameters);
    Request { method: Method::POST, url, headers, body: parameters.encode(token.request_format) }
}

pub(super) fn media_type(format: BodyFormat) -> HeaderValue {
    HeaderValue::from_static(match format {
        BodyFormat::Form => "application/x-www-form-urlencoded",
        BodyFormat::Json => "application/json",
    })
}

/// RFC 6749 section 2.3.1. The name and the secret are form-encoded before they go into Basic.
pub(super) fn authenticate(
    provider: &Provider,
    declared: Option<ClientAuthentication>,
    headers: &mut HeaderMap,
    parameters: &mut Parameters,
) {
    let client = &provider.client;
    match (declared, &client.secret) {
        (Some(ClientAuthentication::Basic), Some(secret)) => {
            basic(headers, &encoded(&client.id), &encoded(secret.expose()));
        }
        (Some(ClientAuthentication::BasicSecretOnly), Some(secret)) => basic(headers, &encoded(secret.expose()), ""),
        (Some(ClientAuthentication::Body), Some(secret)) => {
            parameters.push("client_id", &client.id);
            parameters.push("client_secret", secret.expose());
        }
        // A public client names itself in the body (RFC 6749 section 3.2.1).
        _ => parameters.push("client_id", &client.id),
    }
}

/// What `application/x-www-form-urlencoded` leaves as it is.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

fn encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(utf8_percent_encode(text, FORM).to_string())
}

fn basic(headers: &mut HeaderMap, name: &str, password: &str) {
    let credentials = Zeroizing::new(format!("{name}:{password}"));
    let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(credentials.as_bytes())));
    let mut value = HeaderValue::from_str(&value).expect("base64 is a header value");
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::provider::tests::provider;

    fn body(request: &Request) -> &str {
        std::str::from_utf8(&request.body).expect("text")
    }

    #[test]
    fn basic_with_a_form() {
        let request = refresh(&provider("quickbooks"), &Secret::new("r/1+2"), None);
        assert_eq!(body(&request), "grant_type=refresh_token&refresh_token=r%2F1%2B2");
        // client-1 : s3cret/+ , each form-encoded
        assert_eq!(request.headers[AUTHORIZATION], format!("Basic {}", STANDARD.encode("client-1:s3cret%2F%2B")));
        assert!(request.headers[AUTHORIZATION].is_sensitive());
        assert_eq!(request.headers["x-include-refresh-token-hard-expires-in"], "true");
    }

    #[test]
    fn credentials_in_the_body_and_parameters_of_the_provider() {
        let request = refresh(&provider("gitlab"), &Secret::new("r"), None);
        assert_eq!(
            body(&request),
            "grant_type=refresh_token&refresh_token=r\
             &redirect_uri=https%3A%2F%2Fsidekey.example%2Fcallback%2Fgitlab&client_id=client-1&client_secret=s3cret%2F%2B"
        );
        assert!(!request.headers.contains_key(AUTHORIZATION));
    }

    #[test]
    fn json_where_the_provider_wants_it() {
        let request = exchange_code(&provider("notion"), &Secret::new("c\"1"), Some(&Secret::new("v")));
        assert_eq!(
            body(&request),
            "{\"grant_type\":\"authorization_code\",\"code\":\"c\\\"1\",\
             \"redirect_uri\":\"https://sidekey.example/callback/notion\",\"code_verifier\":\"v\"}"
        );
        assert_eq!(request.headers[CONTENT_TYPE], "application/json");
    }
}
