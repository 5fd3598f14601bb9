//! Revocation (RFC 7009) and introspection (RFC 7662).

use serde_json::{Value, json};
use tracing::info;

use super::error::OAuthError;
use super::live::access_digest;
use super::parameters::Parameters;
use super::{Credentials, Issuer};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::model::client::ClientAuthentication;
use crate::model::grant::{EndReason, Grant};
use crate::model::issued_token::{self, Kind};
use crate::model::scope::{self, ScopeSet};

/// A token that was found, whatever kind it is.
struct Found {
    digest: Digest,
    grant: Grant,
    is_refresh: bool,
    is_replaced: bool,
    scopes: ScopeSet,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

impl Issuer {
    /// Takes a token back. One that is unknown is as good as taken back; `token_type_hint` tells nothing that the token
    /// does not.
    pub async fn revoke(&self, credentials: &Credentials, parameters: &Parameters) -> Result<(), OAuthError> {
        let token = one_token(parameters)?;
        let client = self.authenticate(credentials).await?;
        let Some(found) = self.find_token(token).await? else { return Ok(()) };
        if found.grant.authorization.client_id != client.id {
            return Err(OAuthError::UnauthorizedClient("the token was issued to another client"));
        }
        if found.is_refresh {
            self.end_grant(&found.grant.id, EndReason::RevokedByClient).await?;
        } else {
            self.live.forget_token(&found.digest);
            self.parts.store.end_access_token(found.digest).await?;
            info!(operation = "revoke", grant = found.grant.id, client = client.id, outcome = "access_token");
        }
        Ok(())
    }

    /// Says what a token is worth, to the client that holds it. Public clients cannot prove that they are that client.
    pub async fn introspect(&self, credentials: &Credentials, parameters: &Parameters) -> Result<Value, OAuthError> {
        let token = one_token(parameters)?;
        let client = self.authenticate(credentials).await?;
        if matches!(client.authentication, ClientAuthentication::None) {
            let why = "introspection is for clients that authenticate";
            return Err(OAuthError::InvalidClient { why, is_basic: false });
        }
        let now = self.parts.clock.now();
        let inactive = json!({ "active": false });
        let Some(found) = self.find_token(token).await? else { return Ok(inactive) };
        let authorization = &found.grant.authorization;
        let is_ended = self.live.grant(&found.grant.id).is_none_or(|live| !live.is_live(now));
        let is_foreign = authorization.client_id != client.id;
        if is_foreign || found.expires_at <= now || found.is_replaced || is_ended {
            return Ok(inactive);
        }
        let mut answer = json!({
            "active": true,
            "scope": scope::write(&found.scopes),
            "client_id": authorization.client_id,
            "iss": self.parts.settings.issuer,
            "sub": authorization.user.subject.as_str(),
            "aud": authorization.resource,
            "iat": found.issued_at.as_seconds(),
            "exp": found.expires_at.as_seconds(),
        });
        if !found.is_refresh {
            answer["token_type"] = "Bearer".into();
        }
        Ok(answer)
    }

    async fn find_token(&self, token: &str) -> Result<Option<Found>, OAuthError> {
        if let Some(digest) = issued_token::digest(Kind::Refresh, token) {
            let found = self.parts.store.refresh_token(digest).await?;
            return Ok(found.map(|(token, grant)| Found {
                digest,
                is_refresh: true,
                is_replaced: token.replaced_at.is_some(),
                scopes: grant.authorization.scopes.clone(),
                issued_at: token.issued_at,
                expires_at: token.expires_at,
                grant,
            }));
        }
        let found = access_digest(token).and_then(|digest| Some((digest, self.live.token(&digest)?)));
        Ok(found.map(|(digest, (live, token))| Found {
            digest,
            is_refresh: false,
            is_replaced: false,
            scopes: token.scopes,
            issued_at: token.issued_at,
            expires_at: token.expires_at,
            grant: live.grant.clone(),
        }))
    }
}

fn one_token(parameters: &Parameters) -> Result<&str, OAuthError> {
    if parameters.has_repeated(&[]) {
        return Err(super::parameters::Repeated.into());
    }
    parameters.one("token")?.ok_or_else(|| OAuthError::InvalidRequest("token is missing".to_owned()))
}
