//! Where the browser is sent (RFC 6749 section 4.1.1, RFC 7636 section 4.3).

use url::Url;

use crate::base::digest::sha256_base64url;
use crate::base::secret::Secret;
use crate::catalogue::Provider;

/// The authorization request for `state`, with a PKCE challenge if there is a verifier.
pub fn authorize_url(provider: &Provider, state: &str, verifier: Option<&Secret>) -> Url {
    let authorize = &provider.entry.authorize;
    let mut url = authorize.url.url().clone();
    let mut query = url.query_pairs_mut();
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", &provider.client.id)
        .append_pair("redirect_uri", &provider.redirect_uri)
        .append_pair("state", state);
    if !provider.scopes.is_empty() {
        query.append_pair(&authorize.scope_parameter, &provider.scopes.join(&authorize.scope_separator));
    }
    for (parameter, scopes) in &authorize.other_scopes {
        query.append_pair(parameter, &scopes.join(&authorize.scope_separator));
    }
    if let Some(verifier) = verifier {
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
        let url = authorize_url(&google, "the state", Some(&verifier));
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
        let url = authorize_url(&provider("notion"), "s", None);
        assert!(!url.as_str().contains("scope=") && !url.as_str().contains("code_challenge"), "{url}");
    }
}
