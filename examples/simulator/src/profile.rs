//! The companies that can be simulated, and what is fixed about each.
//!
//! Facts come from providers' public documentation; what a test may want to change is in
//! [`Settings`](crate::Settings) instead. Companies that need no logic of their own are files (`company`).

use std::fmt;

use crate::company::{self, Company};
use crate::random;

/// One simulated company. Its name is the first path segment of all its URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// QuickBooks Online: the realm arrives with the callback; the value rotates once a day.
    Quickbooks,
    /// A GitHub App's user tokens: eight hours, strictly single-use refresh.
    Github,
    /// A classic GitHub OAuth App: one access token that never expires, no refresh token.
    GithubOauthApp,
    /// Microsoft Entra and Graph: a new refresh token each time, old ones stay valid.
    Microsoft,
    /// Google Workspace: one refresh token for ever.
    Google,
    /// Notion: JSON token requests, no `expires_in`, reuse revokes the family.
    Notion,
    /// GitLab: a refresh repeats the redirect URI and kills the earlier access token.
    Gitlab,
    /// Slack: failures have status 200 and `ok: false`, and the token may also stand in a form field.
    Slack,
    /// Plain RFC 6749, to be bent by settings.
    Generic,
    /// One that is described by a file in `companies/`.
    Described(CompanyId),
}

/// Which of the companies that are described by files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CompanyId(usize);

impl CompanyId {
    fn company(self) -> &'static Company {
        &company::all()[self.0]
    }
}

impl fmt::Debug for CompanyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.company().name)
    }
}

impl Profile {
    /// Those with logic of their own.
    const BUILT_IN: [Profile; 9] = [
        Profile::Quickbooks,
        Profile::Github,
        Profile::GithubOauthApp,
        Profile::Microsoft,
        Profile::Google,
        Profile::Notion,
        Profile::Gitlab,
        Profile::Slack,
        Profile::Generic,
    ];

    /// Every profile.
    pub fn all() -> impl Iterator<Item = Profile> {
        let described = (0..company::all().len()).map(|number| Profile::Described(CompanyId(number)));
        Profile::BUILT_IN.into_iter().chain(described)
    }

    /// What its file says, where there is one.
    pub(crate) fn company(self) -> Option<&'static Company> {
        match self {
            Profile::Described(id) => Some(id.company()),
            _ => None,
        }
    }

    /// The name in paths, settings and the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Quickbooks => "quickbooks",
            Profile::Github => "github",
            Profile::GithubOauthApp => "github-oauth-app",
            Profile::Microsoft => "microsoft",
            Profile::Google => "google",
            Profile::Notion => "notion",
            Profile::Gitlab => "gitlab",
            Profile::Slack => "slack",
            Profile::Generic => "generic",
            Profile::Described(id) => &id.company().name,
        }
    }

    /// The profile of that name.
    pub fn from_name(name: &str) -> Option<Profile> {
        Profile::all().find(|profile| profile.name() == name)
    }

    /// Both kinds of GitHub app answer in GitHub's own way.
    pub(crate) fn is_github(self) -> bool {
        matches!(self, Profile::Github | Profile::GithubOauthApp)
    }

    /// Whether it speaks OpenID Connect: ID tokens, their keys, and `userinfo`.
    pub(crate) fn has_openid(self) -> bool {
        match self {
            Profile::Google | Profile::Microsoft | Profile::Quickbooks | Profile::Gitlab | Profile::Generic => true,
            Profile::Github | Profile::GithubOauthApp | Profile::Notion | Profile::Slack => false,
            Profile::Described(id) => id.company().issuer.is_some(),
        }
    }

    /// A new access token that looks like this company's.
    pub(crate) fn new_access_token(self) -> String {
        match self {
            Profile::Github => format!("ghu_{}", alphanumeric(40)),
            Profile::GithubOauthApp => format!("gho_{}", alphanumeric(40)),
            Profile::Google => format!("ya29.{}", random::characters(160)),
            Profile::Notion => format!("ntn_{}", alphanumeric(46)),
            Profile::Gitlab => random::hex_digits(64),
            Profile::Slack => format!("xoxb-{}", alphanumeric(50)),
            Profile::Quickbooks | Profile::Microsoft => random::characters(400),
            Profile::Generic => random::characters(43),
            Profile::Described(id) => company::value_like(&id.company().token.access),
        }
    }

    /// A new access token of the user's own, beside the app's.
    pub(crate) fn new_further_access_token(self) -> String {
        match self {
            Profile::Slack => format!("xoxp-{}", alphanumeric(50)),
            _ => self.new_access_token(),
        }
    }

    /// A new refresh token that looks like this company's.
    pub(crate) fn new_refresh_token(self) -> String {
        match self {
            Profile::Github | Profile::GithubOauthApp => format!("ghr_{}", alphanumeric(76)),
            Profile::Google => format!("1//0{}", random::characters(90)),
            Profile::Notion => format!("nrt_{}", alphanumeric(46)),
            Profile::Quickbooks => format!("AB11{}", alphanumeric(46)),
            Profile::Microsoft => format!("0.A{}", random::characters(300)),
            Profile::Gitlab => random::hex_digits(64),
            Profile::Slack => format!("xoxe-1-{}", alphanumeric(140)),
            Profile::Generic => random::characters(43),
            Profile::Described(id) => company::value_like(&id.company().token.refresh),
        }
    }

    /// A new authorization code.
    pub(crate) fn new_code(self) -> String {
        match self {
            Profile::Google => format!("4/0{}", random::characters(70)),
            _ => random::characters(43),
        }
    }
}

/// Tokens of some companies have neither `-` nor `_` after the prefix.
pub(crate) fn alphanumeric(length: usize) -> String {
    random::characters(length).replace(['-', '_'], "x")
}
