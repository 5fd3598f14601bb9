//! Disconnecting has a step of its own: what will happen is said before it happens.

use axum::http::StatusCode;
use axum::response::Response;
use maud::html;

use super::{Bucket, Row};
use crate::model::grant::Grant;
use crate::model::names::Label;
use crate::portal::connections::card::label_field;
use crate::portal::connections::choose::CONNECTION;
use crate::portal::{branding, icons, pages};

/// Asks whether it is meant.
pub fn page(bucket: &Bucket, row: &Row, grants: &[Grant], back: &str) -> Response {
    let name = bucket.name();
    let clients: Vec<&str> = grants.iter().map(|grant| grant.authorization.client_name.as_str()).collect();
    let content = html! {
        div.card-head {
            (icons::tile(name))
            p {
                strong { (name) }
                @if row.key.label != Label::default() { " (" (row.key.label) ")" }
                @if let Some(account) = &row.account { ", connected as " strong { (account) } }
            }
        }
        ul {
            li { (branding::current().name) " forgets its access to this account at once, and tells " (name) " so." }
            @if !clients.is_empty() { li { "It will be missing in: " (clients.join(", ")) "." } }
            li { "Nothing at " (name) " itself is changed or deleted. You can connect again at any time." }
        }
        div.decisions {
            form method="post" action={ "/account/disconnect/" (bucket.provider.name) } {
                (label_field(&row.key.label))
                input type="hidden" name=(CONNECTION) value=(row.id);
                button.danger type="submit" { "Disconnect" span.unseen { " " (name) } }
            }
            a.button.quiet href=(back) { "Keep it" }
        }
    };
    pages::page_with_form(StatusCode::OK, &format!("Disconnect {name}?"), content)
}
