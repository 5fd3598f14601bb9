//! Where the browser is sent (RFC 6749 section 4.1.1, RFC 7636 section 4.3).

use std::collections::BTreeMap;

use url::Url;

use crate::base::digest::sha256_base64url;
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::catalogue::entry::IdentitySource;

/// What is asked of one browser at one time.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// `state`.
    pub state: &'a str,
    /// The PKCE verifier, where one is used.
    pub verifier: Option<&'a Secret>,
    /// What the provider is asked for.
    pub scopes: &'a [String],
    /// The same in parameters of their own.
    pub other_scopes: &'a BTreeMap<String, Vec<String>>,
    /// Set where the provider is to say who the user is: `nonce`, for providers with ID tokens.
    pub sign_in_nonce: Option<&'a str>,
}

/// The authorization request.
pub fn authorize_url(provider: &Provider, question: &Question<'_>) -> Url {
    let identity = provider.entry.identity.as_ref().filter(|_| question.sign_in_nonce.is_some());
    let mut scopes = question.scopes.to_vec();
    for scope in identity.into_iter().flat_map(|identity| &identity.scopes) {
        if !scopes.contains(scope) {
            scopes.push(scope.clone());
        }
    }
    let authorize = &provider.entry.authorize;
    let mut url = authorize.url.url().clone();
    let mut query = url.query_pairs_mut();
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", &provider.client.id)
        .append_pair("redirect_uri", &provider.redirect_uri)
        .append_pair("state", question.state);
    if !scopes.is_empty() {
        query.append_pair(&authorize.scope_parameter, &scopes.join(&authorize.scope_separator));
    }
    if let Some(nonce) = question.sign_in_nonce
        && identity.is_some_and(|identity| identity.source == IdentitySource::IdToken)
    {
        query.append_pair("nonce", nonce);
    }
    for (parameter, scopes) in question.other_scopes {
        query.append_pair(parameter, &scopes.join(&authorize.scope_separator));
    }
    if let Some(verifier) = question.verifier {
        query
            .append_pair("code_challenge", &sha256_base64url(verifier.expose().as_bytes()))
            .append_pair("code_challenge_method", "S256");
    }
    for (name, value) in &authorize.parameters {
        query.append_pair(name, value);
    }
    drop(query);
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::provider::tests::provider;

    #[test]
    fn asks_for_a_code_with_everything_declared() {
        let google = provider("google");
        let verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        let question = Question {
            state: "the state",
            verifier: Some(&verifier),
            scopes: &provider("google").scopes,
            other_scopes: &BTreeMap::new(),
            sign_in_nonce: None,
        };
        let url = authorize_url(&google, &question);
        assert_eq!(
            url.as_str(),
            "https://accounts.google.com/o/oauth2/v2/auth?response_type=code&client_id=client-1\
             &redirect_uri=https%3A%2F%2Fsidekey.example%2Fcallback%2Fgoogle&state=the+state\
             &scope=openid+email+https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcalendar\
             &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256\
             &access_type=offline&include_granted_scopes=true&prompt=consent"
        );
    }

    #[test]
    fn leaves_out_what_there_is_none_of() {
        let url = authorize_url(
            &provider("notion"),
            &Question { state: "s", verifier: None, scopes: &[], other_scopes: &BTreeMap::new(), sign_in_nonce: None },
        );
        assert!(!url.as_str().contains("scope=") && !url.as_str().contains("code_challenge"), "{url}");
    }

    #[test]
    fn a_sign_in_asks_for_what_tells_who_it_is() {
        let scopes = provider("quickbooks").scopes;
        let question = Question {
            state: "s",
            verifier: None,
            scopes: &scopes,
            other_scopes: &BTreeMap::new(),
            sign_in_nonce: Some("n-1"),
        };
        let url = authorize_url(&provider("quickbooks"), &question);
        assert!(url.as_str().contains("&nonce=n-1"), "{url}");
        assert!(url.as_str().contains("scope=com.intuit.quickbooks.accounting+openid+"), "{url}");
        let question = Question { scopes: &[], ..question };
        assert!(!authorize_url(&provider("notion"), &question).as_str().contains("nonce"), "it has no ID tokens");
    }
}
