//! What can be changed about a simulated company, and how each company starts.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::profile::Profile;

/// The changeable behaviour of one profile. Over HTTP: `GET`/`PUT /control/settings/P`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The only client that is known.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// How the client must authenticate at the token endpoint.
    pub client_auth: ClientAuth,
    /// How token requests must be encoded.
    pub request_format: RequestFormat,
    /// The account that the next authorization is for: QuickBooks' `realmId`, Notion's workspace.
    pub realm_id: String,
    /// Each user has an account of their own, derived from `realm_id` and the user's name.
    pub realm_per_user: bool,
    /// Who approves, unless the authorization request names another as `simulated_user`.
    pub user: String,
    /// Approve without asking. Otherwise a page with two forms.
    pub auto_approve: bool,
    /// Refuse every authorization with this OAuth error.
    pub deny_with: Option<String>,
    /// Add `iss` to the callback (RFC 9207).
    pub send_iss: bool,
    /// The value of `iss`, here and in ID tokens; without it, the profile's own URL.
    pub issuer: Option<String>,
    /// Refuse authorization requests without a code challenge.
    pub pkce_required: bool,
    /// How long a code can be exchanged, in seconds.
    pub code_lifetime_s: f64,
    /// How long an access token works, in seconds; 0 means for ever.
    pub access_lifetime_s: f64,
    /// How long an unused refresh token works, in seconds; 0 means for ever.
    pub refresh_lifetime_s: f64,
    /// How long a grant can be refreshed at all, in seconds; 0 means for ever.
    pub refresh_hard_lifetime_s: f64,
    /// What a refresh does to the refresh token.
    pub rotation: Rotation,
    /// With [`Rotation::Interval`]: the least time between two values, in seconds.
    pub interval_s: f64,
    /// How long a replaced value still works, in seconds. With [`Rotation::UntilSuccessor`] the
    /// upper limit, where 0 means none.
    pub grace_s: f64,
    /// A refresh kills the grant's earlier access tokens.
    pub kills_access: bool,
    /// What follows when a dead, replaced refresh token comes again.
    pub reuse: Reuse,
    /// With [`Reuse::RevokeFamily`]: access tokens die as well.
    pub revoke_access_on_reuse: bool,
    /// A new grant of the same user and realm kills the earlier one.
    pub one_grant: bool,
    /// Whether the reply to a refresh repeats a refresh token that did not change.
    pub refresh_reply_has_refresh_token: bool,
    /// Codes get a second token of the user's own beside the app's, under `authed_user` and with its own refresh token, as at
    /// Slack.
    pub user_token: bool,
    /// How many sites, organizations or the like of those that the company's file names the user has.
    pub sites: usize,
    /// How ID tokens are signed. There are some where the profile speaks OpenID Connect and the scope
    /// has `openid`.
    pub id_token_alg: IdTokenAlg,
    /// What is wrong with ID tokens.
    pub id_token_tamper: IdTokenTamper,
}

/// What a refresh does to the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// Nothing: one value for ever.
    Static,
    /// A new value at most once per `interval_s`; the old one works for `grace_s` more.
    Interval,
    /// A new value each time; the old one is dead at once.
    SingleUse,
    /// A new value each time; the old one works for `grace_s` more.
    Leeway,
    /// A new value each time; the old one works until the new one, or the access token that came with it, is first used.
    UntilSuccessor,
    /// A new value each time; old ones work until they expire.
    Overlap,
    /// There are no refresh tokens.
    None,
}

/// What follows when a dead, replaced refresh token comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// That call fails.
    Error,
    /// That call fails and the whole grant dies.
    RevokeFamily,
}

/// Where client id and secret must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// `Authorization: Basic`.
    Basic,
    /// `client_id` and `client_secret` in the body.
    Body,
    /// Either.
    BasicOrBody,
    /// `Authorization: Basic` with the secret as the user name, and no password and no client id.
    SecretAsUser,
    /// A public client: only `client_id` in the body.
    None,
}

/// How token requests must be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestFormat {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/json`.
    Json,
    /// Either.
    FormOrJson,
}

/// How ID tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdTokenAlg {
    /// With RSA, and always the same key.
    Rs256,
    /// With P-256, and a key made at the start.
    Es256,
}

/// What is wrong with ID tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdTokenTamper {
    /// Nothing.
    None,
    /// They are for another client.
    WrongAud,
    /// They come from another issuer.
    WrongIss,
    /// They answer another authorization request.
    WrongNonce,
    /// They expired an hour ago.
    Expired,
    /// They are not signed, and say so.
    AlgNone,
    /// They are signed by HMAC, with the PEM text of the public key as its secret.
    Hs256WithPublicKey,
    /// They are signed by a key that is not published, under the name of the one that is.
    OtherKey,
    /// There are none.
    Missing,
}

impl Settings {
    /// How a profile starts.
    pub fn of(profile: Profile) -> Settings {
        let plain = Settings::plain(profile);
        match profile {
            Profile::Quickbooks => Settings {
                realm_id: "9341453172058817".to_owned(),
                refresh_lifetime_s: 8_726_400.0,
                refresh_hard_lifetime_s: 157_680_000.0,
                rotation: Rotation::Interval,
                interval_s: 86_400.0,
                reuse: Reuse::RevokeFamily,
                ..plain
            },
            Profile::Github => Settings {
                user: "octocat".to_owned(),
                client_auth: ClientAuth::Body,
                access_lifetime_s: 28_800.0,
                refresh_lifetime_s: 15_897_600.0,
                kills_access: true,
                ..plain
            },
            Profile::GithubOauthApp => Settings {
                user: "octocat".to_owned(),
                client_auth: ClientAuth::Body,
                access_lifetime_s: 0.0,
                rotation: Rotation::None,
                ..plain
            },
            Profile::Microsoft => Settings {
                access_lifetime_s: 3599.0,
                refresh_lifetime_s: 7_776_000.0,
                rotation: Rotation::Overlap,
                ..plain
            },
            Profile::Google => Settings {
                access_lifetime_s: 3599.0,
                refresh_lifetime_s: 15_552_000.0,
                rotation: Rotation::Static,
                refresh_reply_has_refresh_token: false,
                ..plain
            },
            Profile::Notion => Settings {
                client_auth: ClientAuth::Basic,
                request_format: RequestFormat::Json,
                realm_id: "5b1c7a52-0000-4000-8000-73696d756c61".to_owned(),
                kills_access: true,
                reuse: Reuse::RevokeFamily,
                revoke_access_on_reuse: true,
                ..plain
            },
            Profile::Gitlab => {
                Settings { client_auth: ClientAuth::Body, access_lifetime_s: 7200.0, kills_access: true, ..plain }
            }
            // Token rotation is a choice of the app, and off until it is made.
            Profile::Slack => Settings {
                realm_id: "T0SIMULATED".to_owned(),
                access_lifetime_s: 0.0,
                rotation: Rotation::None,
                ..plain
            },
            Profile::Generic => plain,
            Profile::Described(_) => Settings::described(profile, plain),
        }
    }

    /// What a company's file says. The files are part of the program, and a test reads them all.
    fn described(profile: Profile, mut plain: Settings) -> Settings {
        if let Some(company) = profile.company()
            && let Err(reason) = plain.merge(&company.settings)
        {
            panic!("{}: settings: {reason}", company.name);
        }
        plain
    }

    fn plain(profile: Profile) -> Settings {
        let name = profile.name();
        Settings {
            client_id: format!("{name}-client-id"),
            client_secret: format!("{name}-client-secret-4f9d0b7c61e2"),
            client_auth: ClientAuth::BasicOrBody,
            request_format: RequestFormat::Form,
            realm_id: String::new(),
            realm_per_user: false,
            user: "user-1".to_owned(),
            auto_approve: true,
            deny_with: None,
            send_iss: false,
            issuer: None,
            pkce_required: false,
            code_lifetime_s: 600.0,
            access_lifetime_s: 3600.0,
            refresh_lifetime_s: 0.0,
            refresh_hard_lifetime_s: 0.0,
            rotation: Rotation::SingleUse,
            interval_s: 0.0,
            grace_s: 0.0,
            kills_access: false,
            reuse: Reuse::Error,
            revoke_access_on_reuse: false,
            one_grant: false,
            refresh_reply_has_refresh_token: true,
            user_token: false,
            sites: 1,
            id_token_alg: match profile {
                Profile::Generic => IdTokenAlg::Es256,
                _ => IdTokenAlg::Rs256,
            },
            id_token_tamper: IdTokenTamper::None,
        }
    }

    /// Replaces the fields that `changes` (a JSON object) names; all or none.
    ///
    /// # Errors
    /// When a field is unknown or its value does not fit.
    pub fn merge(&mut self, changes: &Value) -> Result<(), String> {
        let Value::Object(changes) = changes else {
            return Err("settings must be a JSON object".to_owned());
        };
        let mut merged = serde_json::to_value(&*self).map_err(|error| error.to_string())?;
        if let Value::Object(fields) = &mut merged {
            for (name, value) in changes {
                fields.insert(name.clone(), value.clone());
            }
        }
        *self = serde_json::from_value(merged).map_err(|error| error.to_string())?;
        Ok(())
    }
}
