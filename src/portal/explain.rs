//! What is said when a dance did not end well: one table, of what happened, and of what to do next.

use axum::http::StatusCode;
use axum::response::Response;
use tracing::error;

use super::notice::Notice;
use super::pages;
use crate::base::shown::shown;
use crate::dance::CallbackError;

/// What a page says.
pub struct Explanation {
    /// The status of a page that says nothing else.
    pub status: StatusCode,
    /// In a few words.
    pub title: &'static str,
    /// What happened.
    pub what: String,
    /// What to do next.
    pub next: String,
}

impl Explanation {
    /// A page that says nothing else.
    pub fn page(&self) -> Response {
        pages::message(self.status, self.title, &self.what, &self.next)
    }

    /// Said on the page that the user comes back to.
    pub fn notice(&self) -> Notice {
        Notice::bad(self.title, self.inline())
    }

    /// In one line.
    pub fn inline(&self) -> String {
        format!("{} {}", self.what, self.next)
    }
}

/// How to begin again, for a browser that is led nowhere.
pub const ELSEWHERE: &str = "Begin again where you came from: with a new connect link, or in your MCP client.";
/// The same for a browser that is back where it can.
pub const HERE: &str = "You can try it again here.";

/// The table. `again` says how to begin again.
pub fn explain(provider: &str, error: &CallbackError, again: &str) -> Explanation {
    let status = match error {
        CallbackError::Registration { .. } | CallbackError::ProviderDown { .. } => StatusCode::BAD_GATEWAY,
        CallbackError::NotIdentified { .. } => StatusCode::BAD_GATEWAY,
        CallbackError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        CallbackError::OtherRealm { .. } | CallbackError::SiteGone { .. } => StatusCode::CONFLICT,
        _ => StatusCode::BAD_REQUEST,
    };
    let (title, what, next): (_, String, &str) = match error {
        CallbackError::Malformed(why) => ("Not a sign-in", format!("The address is incomplete: {why}."), again),
        CallbackError::ForgedState => ("Not our sign-in", "This sign-in was not begun here.".into(), again),
        CallbackError::ExpiredState => ("Too late", "This sign-in was begun more than ten minutes ago.".into(), again),
        CallbackError::AlreadyUsed => (
            "Already done",
            "This sign-in came back once before; nothing was done again.".into(),
            "If the connection is there, all is well. Otherwise begin again where you came from.",
        ),
        CallbackError::OtherBrowser => (
            "Another browser",
            "This sign-in was begun in another browser, or cookies were removed meanwhile.".into(),
            "Begin again where you came from, and stay in the same browser.",
        ),
        CallbackError::OtherProvider => ("Another provider", "This sign-in belongs to another provider.".into(), again),
        CallbackError::WrongIssuer => {
            ("Another issuer", format!("The answer does not come from {provider}; it was not used."), again)
        }
        CallbackError::BadSignature => {
            ("Not signed", format!("The answer does not bear the signature of {provider}; it was not used."), again)
        }
        CallbackError::NotAsExpected { parameter } => {
            let what = format!("The parameter {parameter} in {provider}'s answer is not what was asked for.");
            ("Another answer", what, again)
        }
        CallbackError::Denied { code } => {
            let said = code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
            let what = format!("{provider} reports that access was not granted{said}.");
            ("Not allowed", what, again)
        }
        CallbackError::AdminConsent { code } => {
            let said = code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
            let what = format!("{provider} wants an administrator of your organization to agree first{said}.");
            let next = "Ask the administrator to approve this app there, then connect again.";
            ("An administrator must agree", what, next)
        }
        CallbackError::BadCapture { parameter, missing } => {
            let what = if *missing { "is missing" } else { "looks wrong" };
            ("Incomplete answer", format!("The parameter {parameter} in {provider}'s answer {what}."), again)
        }
        CallbackError::OtherRealm { name, connected, chosen } => {
            let (chosen, connected) = (shown(chosen), shown(connected));
            let differs = format!(
                "{provider} answers for another {name} ({chosen}) than the one that is connected ({connected})."
            );
            let what =
                format!("{differs} The connection was left as it is: disconnect it first if the other one is meant.");
            ("Not the one that is connected", what, "That is done on your account page, or by the operator.")
        }
        CallbackError::SiteGone { name, connected } => {
            let differs =
                format!("This account at {provider} does not have the {name} that is connected ({connected}).");
            let what =
                format!("{differs} The connection was left as it is: disconnect it first if another one is meant.");
            ("Not the one that is connected", what, "That is done on your account page, or by the operator.")
        }
        CallbackError::CodeRefused { summary } => {
            ("Not accepted", format!("{provider} did not accept its own code: {summary}."), again)
        }
        CallbackError::NotIdentified { summary } => (
            "Nobody identified",
            format!("{provider} did not say who you are: {summary}."),
            "Try again; if it stays, the operator must check how this provider identifies users.",
        ),
        CallbackError::Registration { summary } => (
            "Registration refused",
            format!("{provider} does not accept Sidekey's registration: {summary}."),
            "The operator must check client id, client secret and redirect URI.",
        ),
        CallbackError::ProviderDown { summary } => {
            ("No answer", format!("{provider} could not complete the sign-in: {summary}."), again)
        }
        CallbackError::Store(error) => {
            error!(operation = "connect", %error, "a granted connection could not be stored");
            let next = "Tell the operator, then begin again where you came from.";
            ("Not stored", "Sidekey could not store the connection.".into(), next)
        }
    };
    Explanation { status, title, what, next: next.to_owned() }
}

/// The last part of the problem's type, for programs.
pub fn slug(error: &CallbackError) -> &'static str {
    match error {
        CallbackError::ForgedState
        | CallbackError::ExpiredState
        | CallbackError::AlreadyUsed
        | CallbackError::OtherBrowser
        | CallbackError::OtherProvider => "invalid-state",
        CallbackError::Malformed(_)
        | CallbackError::WrongIssuer
        | CallbackError::BadSignature
        | CallbackError::NotAsExpected { .. }
        | CallbackError::BadCapture { .. } => "invalid-callback",
        CallbackError::Denied { .. } | CallbackError::AdminConsent { .. } => "access-denied",
        CallbackError::OtherRealm { .. } | CallbackError::SiteGone { .. } => "other-realm",
        CallbackError::CodeRefused { .. } => "code-refused",
        CallbackError::NotIdentified { .. } | CallbackError::ProviderDown { .. } => "provider-failed",
        CallbackError::Registration { .. } => "registration-refused",
        CallbackError::Store(_) => "store-failed",
    }
}
