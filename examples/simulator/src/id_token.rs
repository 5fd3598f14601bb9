//! ID tokens (OpenID Connect Core): who approved, signed. And bad ones on request.

use ring::hmac;
use serde_json::{Value, json};

use crate::clock;
use crate::jwt::{self, Keys};
use crate::rotation::{Issued, SignIn};
use crate::server::Call;
use crate::settings::{IdTokenTamper, Settings};
use crate::user;

/// How long an ID token is valid, in seconds.
const LIFETIME_S: u64 = 3600;

/// The ID token of a token reply, if it has one: at the exchange of a code whose scope has `openid`.
pub(crate) fn of(call: &Call, settings: &Settings, issued: &Issued) -> Option<String> {
    let sign_in = issued.sign_in.as_ref()?;
    let asked = issued.scope.split(' ').any(|scope| scope == "openid");
    if !asked || !call.profile.has_openid() || settings.id_token_tamper == IdTokenTamper::Missing {
        return None;
    }
    let claims = claims(issued, sign_in, &call.issuer(settings), settings.id_token_tamper);
    Some(signed(&claims, settings, &call.shared.keys))
}

fn claims(issued: &Issued, sign_in: &SignIn, issuer: &str, tamper: IdTokenTamper) -> Value {
    let mut issued_at = clock::now_ms() / 1000;
    if tamper == IdTokenTamper::Expired {
        issued_at = issued_at.saturating_sub(2 * LIFETIME_S);
    }
    let mut claims = json!({
        "iss": issuer,
        "sub": issued.user,
        "aud": sign_in.client_id,
        "exp": issued_at + LIFETIME_S,
        "iat": issued_at,
        "email": user::email(&issued.user),
        "name": issued.user,
    });
    if let Some(nonce) = &sign_in.nonce {
        claims["nonce"] = json!(nonce);
    }
    match tamper {
        IdTokenTamper::WrongAud => claims["aud"] = json!("another-client-id"),
        IdTokenTamper::WrongIss => claims["iss"] = json!("https://another-issuer.test"),
        IdTokenTamper::WrongNonce => claims["nonce"] = json!("another-nonce"),
        _ => {}
    }
    claims
}

fn signed(claims: &Value, settings: &Settings, keys: &Keys) -> String {
    let key = keys.published(settings.id_token_alg);
    let mut header = key.header();
    match settings.id_token_tamper {
        IdTokenTamper::AlgNone => {
            header["alg"] = json!("none");
            jwt::joined(&header, claims, |_| Vec::new())
        }
        IdTokenTamper::Hs256WithPublicKey => {
            header["alg"] = json!("HS256");
            let secret = hmac::Key::new(hmac::HMAC_SHA256, key.public_pem().as_bytes());
            jwt::joined(&header, claims, |message| hmac::sign(&secret, message).as_ref().to_vec())
        }
        // The header names the published key all the same.
        IdTokenTamper::OtherKey => {
            jwt::joined(&header, claims, |message| keys.other(settings.id_token_alg).sign(message))
        }
        _ => jwt::joined(&header, claims, |message| key.sign(message)),
    }
}
