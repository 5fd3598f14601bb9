//! The token endpoint (RFC 6749 section 3.2): codes and refresh tokens become tokens.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{info, warn};

use super::error::OAuthError;
use super::live::{LiveGrant, access_digest};
use super::parameters::Parameters;
use super::{Credentials, Issuer};
use crate::base::clock::Timestamp;
use crate::base::digest::{Digest, sha256, sha256_base64url};
use crate::base::random;
use crate::base::secret::Secret;
use crate::model::authorization::{Authorization, PendingCode};
use crate::model::client::Client;
use crate::model::grant::{AccessToken, EndReason, Grant, RefreshToken};
use crate::model::handle;
use crate::model::issued_token::{self, Kind};
use crate::model::issuer_settings::AccessTokenFormat;
use crate::model::scope::{self, OFFLINE_ACCESS, ScopeSet};
use crate::store::issuer::{GrantRecord, NewTokens, Rotation, handle_context, reply_context};
use crate::telemetry::audit::Record;

/// A good answer (RFC 6749 section 5.1).
pub struct TokenAnswer {
    /// `access_token`
    pub access_token: Secret,
    /// `refresh_token`
    pub refresh_token: Secret,
    /// `expires_in`
    pub expires_in: Duration,
    /// `scope`
    pub scopes: ScopeSet,
}

impl TokenAnswer {
    /// As it goes over the wire.
    pub fn to_json(&self) -> Vec<u8> {
        let answer = json!({
            "access_token": self.access_token.expose(),
            "token_type": "Bearer",
            "expires_in": self.expires_in.as_secs(),
            "scope": scope::write(&self.scopes),
            "refresh_token": self.refresh_token.expose(),
        });
        answer.to_string().into_bytes()
    }
}

/// Tokens that were made and are not kept yet.
struct Made {
    access_token: Secret,
    refresh_token: Secret,
    tokens: NewTokens,
}

/// What the answer to a refresh was, for its repetition.
#[derive(Serialize, Deserialize)]
struct Reply {
    access_token: String,
    refresh_token: String,
    scope: String,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

impl Issuer {
    /// Answers a request at the token endpoint.
    pub async fn token(&self, credentials: &Credentials, parameters: &Parameters) -> Result<TokenAnswer, OAuthError> {
        if parameters.has_repeated(&["resource"]) {
            return Err(super::parameters::Repeated.into());
        }
        let client = self.authenticate(credentials).await?;
        match parameters.one("grant_type")? {
            Some("authorization_code") => self.redeem(&client, parameters).await,
            Some("refresh_token") => self.refresh(&client, parameters).await,
            Some(_) => Err(OAuthError::UnsupportedGrantType),
            None => Err(OAuthError::InvalidRequest("grant_type is missing".to_owned())),
        }
    }

    async fn redeem(&self, client: &Arc<Client>, parameters: &Parameters) -> Result<TokenAnswer, OAuthError> {
        const NOT_GOOD: OAuthError = OAuthError::InvalidGrant("the code is unknown, expired or used");
        let code = parameters.one("code")?.ok_or_else(|| OAuthError::InvalidRequest("code is missing".to_owned()))?;
        let digest = issued_token::digest(Kind::Code, code).ok_or(NOT_GOOD)?;
        let stored = self.parts.store.code(digest).await?.ok_or(NOT_GOOD)?;
        // Another client must neither use it nor use it up.
        if stored.pending.authorization.client_id != client.id {
            return Err(OAuthError::InvalidGrant("the code was issued to another client"));
        }
        let now = self.parts.clock.now();
        if let Some(redeemed) = stored.used {
            // OAuth 2.1 section 4.1.3: somebody has a copy of it, so what it was redeemed for is not safe either.
            self.parts.store.burn_code(digest, now).await?;
            if let Some(grant_id) = redeemed {
                warn!(operation = "token", client = client.id, grant = grant_id, "a code came again");
                self.end_grant(&grant_id, EndReason::CodeReplayed).await?;
            }
            return Err(NOT_GOOD);
        }
        let pending = stored.pending;
        if pending.expires_at <= now {
            return Err(NOT_GOOD);
        }
        if let Err(error) = self.check_redemption(&pending, parameters) {
            self.parts.store.burn_code(digest, now).await?;
            return Err(error);
        }
        self.make_grant(digest, pending, now).await?.ok_or(NOT_GOOD)
    }

    async fn make_grant(
        &self,
        code: Digest,
        pending: PendingCode,
        now: Timestamp,
    ) -> Result<Option<TokenAnswer>, OAuthError> {
        let random = self.parts.random.as_ref();
        let grant = Grant {
            id: random::identifier(random, "g_"),
            authorization: pending.authorization,
            created_at: now,
            expires_at: now.plus(self.parts.settings.grant_lifetime),
            ended: None,
        };
        let handle = handle::generate(random);
        let subject = &grant.authorization.user.subject;
        let record = GrantRecord {
            handle_digest: handle::digest(handle.expose()),
            handle: self.parts.sealer.seal(&handle_context(subject, &grant.id), &handle),
            grant: grant.clone(),
        };
        let scopes = grant.authorization.scopes.clone();
        let made = self.make_tokens(&grant, scopes.clone(), now)?;
        let live = Arc::new(LiveGrant::new(grant, handle));
        // Known here before it is durable, though nobody has a token of it yet: a replay of the code that comes in between
        // then finds what it must end.
        self.live.add_grant(record.handle_digest, Arc::clone(&live));
        let handle_digest = record.handle_digest;
        let redeemed = self.parts.store.redeem_code(code, record, made.tokens.clone(), now).await;
        if !matches!(redeemed, Ok(true)) {
            self.live.remove_grant(&handle_digest, &live.grant.id);
        }
        if !redeemed? {
            // Of two that came together the other one was first.
            if let Some(Some(other)) = self.parts.store.code(code).await?.and_then(|stored| stored.used) {
                self.end_grant(&other, EndReason::CodeReplayed).await?;
            }
            return Ok(None);
        }
        info!(
            operation = "grant", grant = live.grant.id, client = live.grant.authorization.client_id,
            subject = %live.grant.authorization.user.subject, server = %live.grant.authorization.server,
        );
        self.note(&live.grant, "grant", "ok");
        self.publish(&made);
        Ok(Some(self.answer(made, scopes)))
    }

    async fn refresh(&self, client: &Arc<Client>, parameters: &Parameters) -> Result<TokenAnswer, OAuthError> {
        const NOT_GOOD: OAuthError = OAuthError::InvalidGrant("the refresh token is unknown, expired or revoked");
        let presented = parameters.one("refresh_token")?;
        let presented = presented.ok_or_else(|| OAuthError::InvalidRequest("refresh_token is missing".to_owned()))?;
        let digest = issued_token::digest(Kind::Refresh, presented).ok_or(NOT_GOOD)?;
        let (token, grant) = self.parts.store.refresh_token(digest).await?.ok_or(NOT_GOOD)?;
        if grant.authorization.client_id != client.id {
            return Err(OAuthError::InvalidGrant("the refresh token was issued to another client"));
        }
        let now = self.parts.clock.now();
        // Of a server that is elsewhere by now, new tokens would be refused as well.
        let server = self.server(&grant.authorization.server);
        let is_there = server.is_some_and(|server| server.resource == grant.authorization.resource);
        if token.expires_at <= now || !grant.is_live(now) || !is_there {
            return Err(NOT_GOOD);
        }
        let scopes = narrowed(&grant.authorization.scopes, parameters)?;
        self.check_resource(&grant.authorization, parameters)?;
        let live = self.live.grant(&grant.id).ok_or(NOT_GOOD)?;
        if live.has_ended() {
            return Err(NOT_GOOD);
        }
        if self.end_if_gone(&live).await {
            return Err(OAuthError::InvalidGrant(
                "a provider that is needed has ended the connection; authorize again",
            ));
        }
        let made = self.make_tokens(&grant, scopes.clone(), now)?;
        let reply = Reply {
            access_token: made.access_token.expose().to_owned(),
            refresh_token: made.refresh_token.expose().to_owned(),
            scope: scope::write(&scopes),
            issued_at: now,
            expires_at: made.tokens.access.1.expires_at,
        };
        let context_subject = grant.authorization.user.subject.clone();
        let context = reply_context(&context_subject, &grant.id);
        let text = Secret::new(serde_json::to_string(&reply).expect("texts and numbers serialize"));
        let sealed = self.parts.sealer.seal(&context, &text);
        let grace = self.parts.settings.refresh_grace;
        match self.parts.store.rotate(digest, made.tokens.clone(), sealed, now, grace).await? {
            Rotation::Rotated => {
                self.publish(&made);
                self.note(&grant, "refresh_grant", "rotated");
                info!(operation = "refresh_grant", grant = grant.id, client = client.id, outcome = "rotated");
                Ok(self.answer(made, scopes))
            }
            Rotation::Repeated(sealed) => {
                let text = self.parts.sealer.open(&context, &sealed).map_err(|_| NOT_GOOD)?;
                self.note(&grant, "refresh_grant", "repeated");
                let reply: Reply = serde_json::from_str(text.expose()).map_err(|_| NOT_GOOD)?;
                info!(operation = "refresh_grant", grant = grant.id, client = client.id, outcome = "repeated");
                Ok(self.repeat(&grant, reply, now))
            }
            Rotation::Reused => {
                warn!(operation = "refresh_grant", grant = grant.id, client = client.id, outcome = "reused");
                self.end_grant(&grant.id, EndReason::RefreshTokenReused).await?;
                Err(OAuthError::InvalidGrant("the refresh token was used before; all tokens of the grant are revoked"))
            }
            Rotation::Refused => Err(NOT_GOOD),
        }
    }

    /// What is said again at the token endpoint must be what was said before.
    fn check_redemption(&self, pending: &PendingCode, parameters: &Parameters) -> Result<(), OAuthError> {
        if let Some(redirect_uri) = parameters.one("redirect_uri")?
            && redirect_uri != pending.redirect_uri.as_str()
        {
            return Err(OAuthError::InvalidGrant("redirect_uri differs from the one of the authorization request"));
        }
        let verifier = parameters.one("code_verifier")?;
        let verifier = verifier.ok_or(OAuthError::InvalidGrant("code_verifier is missing"))?;
        if !is_verifier(verifier) || sha256_base64url(verifier.as_bytes()) != pending.code_challenge {
            return Err(OAuthError::InvalidGrant("code_verifier does not match the challenge"));
        }
        self.check_resource(&pending.authorization, parameters)
    }

    fn check_resource(&self, authorization: &Authorization, parameters: &Parameters) -> Result<(), OAuthError> {
        let same = |asked: &str| {
            let server = self.server(&authorization.server);
            server.is_some_and(|server| server.resource == authorization.resource && server.is_named_by(asked))
        };
        if parameters.all("resource").filter(|asked| !asked.is_empty()).all(same) {
            Ok(())
        } else {
            Err(OAuthError::InvalidTarget("the grant is for another resource"))
        }
    }

    fn make_tokens(&self, grant: &Grant, scopes: ScopeSet, now: Timestamp) -> Result<Made, OAuthError> {
        let random = self.parts.random.as_ref();
        let settings = &self.parts.settings;
        let access = AccessToken {
            grant_id: grant.id.clone(),
            issued_at: now,
            expires_at: now.plus(settings.access_token_lifetime).min(grant.expires_at),
            scopes,
        };
        let refresh = RefreshToken {
            grant_id: grant.id.clone(),
            issued_at: now,
            expires_at: now.plus(settings.refresh_token_lifetime).min(grant.expires_at),
            replaced_at: None,
        };
        let access_token = match &settings.access_tokens {
            AccessTokenFormat::Opaque => issued_token::generate(Kind::Access, random),
            AccessTokenFormat::Jwt(signers) => {
                let claims = json!({
                    "iss": settings.issuer,
                    "sub": grant.authorization.user.subject.as_str(),
                    "aud": grant.authorization.resource,
                    "client_id": grant.authorization.client_id,
                    "scope": scope::write(&access.scopes),
                    "iat": now.as_seconds(),
                    "exp": access.expires_at.as_seconds(),
                    "jti": random::secret(random).expose(),
                });
                let signer = signers.first().ok_or_else(|| OAuthError::InvalidRequest("no signing key".to_owned()))?;
                signer.sign("at+jwt", &claims).map_err(OAuthError::InvalidRequest)?
            }
        };
        let refresh_token = issued_token::generate(Kind::Refresh, random);
        let digest = |token: &Secret| sha256(token.expose().as_bytes());
        let tokens = NewTokens { access: (digest(&access_token), access), refresh: (digest(&refresh_token), refresh) };
        Ok(Made { access_token, refresh_token, tokens })
    }

    fn note(&self, grant: &Grant, operation: &str, outcome: &str) {
        let record = Record::of_authorization(operation, outcome, &grant.authorization);
        self.parts.audit.record(Record { grant: Some(grant.id.clone()), ..record });
    }

    fn publish(&self, made: &Made) {
        let (digest, token) = &made.tokens.access;
        self.live.add_token(*digest, token.clone());
    }

    fn answer(&self, made: Made, scopes: ScopeSet) -> TokenAnswer {
        let access = &made.tokens.access.1;
        TokenAnswer {
            expires_in: access.expires_at.since(access.issued_at),
            access_token: made.access_token,
            refresh_token: made.refresh_token,
            scopes,
        }
    }

    fn repeat(&self, grant: &Grant, reply: Reply, now: Timestamp) -> TokenAnswer {
        let scopes = scope::parse(&reply.scope).unwrap_or_default();
        // The one who rotated may not have published it yet.
        if let Some(digest) = access_digest(&reply.access_token) {
            let (issued_at, expires_at) = (reply.issued_at, reply.expires_at);
            let token = AccessToken { grant_id: grant.id.clone(), scopes: scopes.clone(), issued_at, expires_at };
            self.live.add_token(digest, token);
        }
        TokenAnswer {
            access_token: Secret::new(reply.access_token),
            refresh_token: Secret::new(reply.refresh_token),
            expires_in: reply.expires_at.since(now),
            scopes,
        }
    }
}

/// RFC 7636 section 4.1.
fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

/// The scopes that a refresh asks for: at most those granted (RFC 6749 section 6). `offline_access` may be left out or
/// added, since every grant can be refreshed.
fn narrowed(granted: &ScopeSet, parameters: &Parameters) -> Result<ScopeSet, OAuthError> {
    let Some(text) = parameters.one("scope")? else { return Ok(granted.clone()) };
    let asked = scope::parse(text).ok_or(OAuthError::InvalidScope("scope is malformed"))?;
    if asked.iter().all(|scope| scope == OFFLINE_ACCESS || granted.contains(scope)) {
        Ok(asked)
    } else {
        Err(OAuthError::InvalidScope("the scope is more than was granted"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifiers_are_those_of_rfc_7636() {
        assert!(is_verifier(&"a".repeat(43)) && is_verifier(&"-._~".repeat(32)));
        for bad in [String::new(), "a".repeat(42), "a".repeat(129), format!("{} ", "a".repeat(43)), "é".repeat(30)] {
            assert!(!is_verifier(&bad), "{bad}");
        }
    }
}
