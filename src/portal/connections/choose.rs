//! Which of several sites a connection is for: a page of radio buttons, asked of the provider just now.

use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use tracing::error;

use crate::catalogue::Provider;
use crate::dance::{ChoiceError, Site};
use crate::issuer::parameters::Parameters;
use crate::model::connection::ConnectionKey;
use crate::portal::connections::card::label_field;
use crate::portal::{PublicState, icons, pages};
use crate::vault::TokenError;

/// Where a choice is made, and where it leads.
pub struct Paths {
    /// The form's action, which is also the page's address.
    pub action: String,
    /// Where the user came from.
    pub back: String,
}

/// The page. Where there is nothing to choose the browser goes back at once.
pub async fn page(state: &PublicState, provider: &Provider, key: &ConnectionKey, paths: &Paths) -> Response {
    let name = &provider.entry.display_name;
    match state.dance.sites(key).await {
        Ok(sites) if sites.is_empty() => pages::page(StatusCode::OK, "Nothing to choose", nothing(name, &paths.back)),
        Ok(sites) if sites.len() == 1 && sites[0].chosen => {
            (StatusCode::SEE_OTHER, [(LOCATION, paths.back.as_str())]).into_response()
        }
        Ok(sites) => match state.store.connection(key.clone()).await {
            Ok(there) => {
                let id = there.map(|there| there.id).unwrap_or_default();
                let content = form(name, &sites, key, &id, paths);
                pages::page_with_form(StatusCode::OK, "Which one is meant?", content)
            }
            Err(error) => refused(name, &ChoiceError::Store(error), &paths.back),
        },
        Err(error) => refused(name, &error, &paths.back),
    }
}

/// Carries out what a form says: for the connection about which it was shown, or not at all.
pub async fn carry_out(state: &PublicState, key: &ConnectionKey, form: &Parameters) -> Result<Site, ChoiceError> {
    let there = state.store.connection(key.clone()).await.map_err(ChoiceError::Store)?;
    match form.one(CONNECTION) {
        Ok(Some(shown)) if there.is_some_and(|there| there.id == shown) => {}
        _ => return Err(ChoiceError::Replaced),
    }
    state.dance.choose(key, form.one("site").ok().flatten().unwrap_or_default()).await
}

/// The field that says about which connection a form was shown: who uses the browser may change between showing and sending.
pub const CONNECTION: &str = "connection";

fn form(name: &str, sites: &[Site], key: &ConnectionKey, id: &str, paths: &Paths) -> Markup {
    html! {
        div.card-head { (icons::tile(name)) p { "Your account at " strong { (name) } " has access to several. Choose the one that may be used." } }
        form method="post" action=(paths.action) {
            (label_field(&key.label))
            input type="hidden" name=(CONNECTION) value=(id);
            fieldset {
                legend { "Sites at " (name) }
                @for site in sites {
                    label.choice {
                        input type="radio" name="site" value=(site.id) required checked[site.chosen];
                        span { (site.name) @if site.chosen { small { " in use now" } } }
                    }
                }
            }
            div.decisions {
                button type="submit" { "Use this one" }
                a.button.quiet href=(paths.back) { "Not now" }
            }
        }
    }
}

fn nothing(name: &str, back: &str) -> Markup {
    html! {
        p { "Your account at " (name) " has access to no site." }
        p.next { "Ask whoever manages it to give you access to one, or connect another account." }
        p { a.button href=(back) { "Back" } }
    }
}

/// One table: why a site cannot be chosen, and what to do next.
pub fn refused(name: &str, error: &ChoiceError, back: &str) -> Response {
    let (status, title, what, next) = match error {
        ChoiceError::NotConnected | ChoiceError::Token(TokenError::NotConnected) => {
            (StatusCode::NOT_FOUND, "Not connected", format!("There is no account at {name}."), "Connect one first.")
        }
        ChoiceError::NothingToChoose => {
            let what = format!("A connection to {name} is for the whole account.");
            (StatusCode::NOT_FOUND, "Nothing to choose", what, "Go back; nothing was changed.")
        }
        ChoiceError::Token(TokenError::NeedsReauth { .. }) => {
            let what = format!("{name} has ended this connection.");
            (StatusCode::CONFLICT, "Connect again first", what, "Go back and connect again; then choose.")
        }
        ChoiceError::Token(_) | ChoiceError::LookUp { .. } => {
            let what = format!("{name} did not say what there is to choose from.");
            (StatusCode::BAD_GATEWAY, "No answer", what, "Nothing was changed. Try again in a moment.")
        }
        ChoiceError::NotOffered => {
            let what = format!("{name} does not offer this one to your account.");
            (StatusCode::CONFLICT, "Not offered", what, "Go back and choose another one.")
        }
        ChoiceError::Replaced => {
            let what = format!("The connection to {name} was changed meanwhile.");
            (StatusCode::CONFLICT, "Changed meanwhile", what, "Go back and look at it again.")
        }
        ChoiceError::Store(failed) => {
            error!(operation = "choose", error = %failed, "a choice could not be stored");
            let what = "The choice could not be stored.".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, "Not stored", what, "Try again in a moment.")
        }
    };
    pages::message_with_way_back(status, title, &what, next, back)
}
