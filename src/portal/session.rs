//! Browsers whose user is known: the provider that identifies users said so in this browser.

use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue};

use super::PublicState;
use super::cookies::{cookie, cookie_key, expire_cookie, set_cookie};
use crate::issuer::visit::SESSION_LIFETIME;
use crate::model::authorization::User;
use crate::store::StoreError;

/// The cookie's name, without prefix.
pub const SESSION_COOKIE: &str = "sidekey_session";

/// Who is signed in.
pub async fn user(state: &PublicState, headers: &HeaderMap) -> Result<Option<User>, StoreError> {
    state.issuer.signed_in(present(state, headers)).await
}

/// Signs the browser in: always with a new cookie, so that one which somebody planted is worth nothing.
pub async fn sign_in(state: &PublicState, headers: &HeaderMap, user: User) -> Result<HeaderValue, StoreError> {
    let secret = state.issuer.sign_in(user, present(state, headers)).await?;
    Ok(set_cookie(SESSION_COOKIE, secret.expose(), SESSION_LIFETIME.as_secs(), state.public_url.is_https()))
}

/// Signs the browser out.
pub async fn sign_out(state: &PublicState, headers: &HeaderMap, answer: &mut HeaderMap) -> Result<(), StoreError> {
    state.issuer.sign_out(present(state, headers)).await?;
    let is_https = state.public_url.is_https();
    if let Some(expired) = expire_cookie(&cookie_key(SESSION_COOKIE, is_https), is_https) {
        answer.append(SET_COOKIE, expired);
    }
    Ok(())
}

fn present(state: &PublicState, headers: &HeaderMap) -> Option<String> {
    cookie(headers, SESSION_COOKIE, state.public_url.is_https())
}

/// What people are shown of a user.
pub fn shown(user: &User) -> &str {
    user.account.as_deref().unwrap_or(user.subject.as_str())
}
