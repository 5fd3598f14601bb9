//! How one provider is drawn: a card, with a row for each account, and in it how its APIs stand.

use maud::{Markup, html};

use super::{Bucket, Chip, Row, Status, chips};
use crate::base::clock::Timestamp;
use crate::model::names::{Label, ProviderName};
use crate::oauth::scopes::ApiStanding;
use crate::portal::{branding, icons};

/// On which page a card stands: its forms lead to where that page goes on.
#[derive(Clone, Copy)]
pub enum Place<'p> {
    /// The user's own page.
    Account,
    /// A visit.
    Visit(&'p str),
    /// The page that a one-time link has led to.
    Link,
}

impl Place<'_> {
    /// Where a step is taken.
    pub fn step(self, step: &str, provider: &ProviderName) -> String {
        match self {
            Self::Account => format!("/account/{step}/{provider}"),
            Self::Visit(id) => format!("/visit/{id}/{step}/{provider}"),
            Self::Link => format!("/connected/{provider}/{step}"),
        }
    }
}

/// The card of a provider. `may_add` says whether further accounts can be connected.
pub fn card(bucket: &Bucket, place: Place<'_>, may_add: bool) -> Markup {
    let id = format!("provider-{}", bucket.provider.name);
    let is_account = matches!(place, Place::Account);
    html! {
        section.card aria-labelledby=(id) {
            div.card-head {
                (icons::tile(bucket.name()))
                @if is_account { h3 id=(id) { (bucket.name()) } } @else { h2 id=(id) { (bucket.name()) } }
                @if bucket.is_required { span.tag { "Required" } }
            }
            @for row in &bucket.rows { (account(bucket, row, place)) }
            @if bucket.rows.is_empty() { (nobody(bucket, place)) }
            @if may_add && !bucket.rows.is_empty() { (another(bucket, place)) }
        }
    }
}

fn account(bucket: &Bucket, row: &Row, place: Place<'_>) -> Markup {
    let several = bucket.rows.len() > 1 || row.key.label != Label::default();
    html! {
        div.account {
            @if several { p.label { (row.key.label) } }
            (status(bucket, row))
            (chip_list(bucket.name(), &row.chips))
            div.actions { (actions(bucket, row, place)) }
        }
    }
}

fn status(bucket: &Bucket, row: &Row) -> Markup {
    let name = bucket.name();
    html! {
        @match &row.status {
            Status::Connected | Status::Troubled { .. } => {
                p.status.good { (icons::check()) span { "Connected" (whose(row)) @if row.account.is_some() { "," } " " (since(row.since)) } }
            }
            Status::Unchosen => {
                p.status.bad { (icons::alert()) span { "Almost done" (whose(row)) } }
                p.why { "Choose which of your sites at " (name) " is meant. Until then it cannot be used." }
            }
            Status::Ended { .. } => {
                p.status.bad { (icons::alert()) span { "Needs your attention" (whose(row)) } }
            }
        }
        @match &row.status {
            Status::Troubled { needs_operator: true } => {
                p.why { "It cannot be renewed just now. There is nothing for you to do: the operator of " (branding::current().name) " must look into it." }
            }
            Status::Troubled { needs_operator: false } => {
                p.why { (name) " did not answer when it was last asked. It is asked again by itself." }
            }
            Status::Ended { reason } => {
                p.why { (name) " has ended this connection (" (reason) "). Connect again to go on using it." }
            }
            Status::Connected if row.lacks_something() => {
                p.why { "More is needed than you were asked for before. Connect again to add it." }
            }
            Status::Connected | Status::Unchosen => {}
        }
    }
}

fn whose(row: &Row) -> Markup {
    html! { @if let Some(account) = &row.account { " as " strong { (account) } } }
}

fn actions(bucket: &Bucket, row: &Row, place: Place<'_>) -> Markup {
    let (provider, label) = (&bucket.provider.name, &row.key.label);
    let needs_user = matches!(row.status, Status::Ended { .. }) || row.lacks_something();
    let can_choose = !bucket.provider.entry.post_connect.is_empty() && !matches!(row.status, Status::Ended { .. });
    let unchosen = row.status == Status::Unchosen;
    html! {
        @if can_choose {
            a.button.quiet[!unchosen] href={ (place.step("choose", provider)) (query(label)) } {
                @if unchosen { "Choose a site" } @else { "Choose another site" }
                (for_whom(bucket, label))
            }
        }
        (connect(bucket, label, place, "Connect again", !needs_user))
        @if matches!(place, Place::Account) {
            a.button.quiet href={ (place.step("disconnect", provider)) (query(label)) } { "Disconnect" (for_whom(bucket, label)) }
        }
    }
}

/// Nothing is connected there.
fn nobody(bucket: &Bucket, place: Place<'_>) -> Markup {
    html! {
        div.account {
            p.status.none { (icons::ring()) span { "Not connected" } }
            (chip_list(bucket.name(), &chips(&bucket.provider, &bucket.apis, |_| ApiStanding::Unknown)))
            div.actions { (connect(bucket, &Label::default(), place, "Connect", false)) }
        }
    }
}

/// Leads to the provider. In a visit it is a link, for its pages lead on by themselves as well.
fn connect(bucket: &Bucket, label: &Label, place: Place<'_>, text: &str, quiet: bool) -> Markup {
    let provider = &bucket.provider.name;
    let target = match place {
        Place::Link => place.step("again", provider),
        _ => place.step("connect", provider),
    };
    html! {
        @if matches!(place, Place::Visit(_)) {
            a.button.quiet[quiet] href=(target) { (text) (for_whom(bucket, label)) }
        } @else {
            form method="post" action=(target) {
                (label_field(label))
                button class=[quiet.then_some("quiet")] type="submit" { (text) (for_whom(bucket, label)) }
            }
        }
    }
}

/// Another account at the same provider, under a name of its own. It folds without any script.
fn another(bucket: &Bucket, place: Place<'_>) -> Markup {
    let provider = &bucket.provider.name;
    let (field, hint) = (format!("label-{provider}"), format!("hint-{provider}"));
    html! {
        details {
            summary { "Connect another account" span.unseen { " at " (bucket.name()) } }
            form method="post" action=(place.step("connect", provider)) {
                input type="hidden" name="new" value="yes";
                label for=(field) { "A name for it" }
                input.text type="text" id=(field) name="label" required maxlength="40" pattern="[A-Za-z0-9._\\-]+"
                    autocomplete="off" autocapitalize="none" spellcheck="false" aria-describedby=(hint);
                p.hint id=(hint) { "Letters, digits, dots and dashes, such as " em { "work" } " or " em { "branch-2" } "." }
                button type="submit" { "Connect" span.unseen { " another account at " (bucket.name()) } }
            }
        }
    }
}

fn chip_list(name: &str, chips: &[Chip]) -> Markup {
    html! {
        // Where there is one thing to use, and no more to say of it, its name says nothing new.
        @if !chips.iter().all(|chip| chip.name == name && matches!(chip.standing, ApiStanding::Unknown | ApiStanding::Granted)) {
            ul.chips aria-label={ "What " (name) " is used for" } { @for chip in chips { (draw(chip)) } }
        }
    }
}

fn draw(chip: &Chip) -> Markup {
    let (class, icon, text) = match chip.standing {
        ApiStanding::Granted => ("chip granted", Some(icons::check()), "allowed"),
        ApiStanding::Missing => ("chip missing", Some(icons::ring()), "not asked for yet"),
        ApiStanding::Unticked => ("chip unticked", Some(icons::dash()), "left out by you"),
        ApiStanding::Unknown => ("chip", None, ""),
    };
    html! {
        li class=(class) {
            @if let Some(icon) = icon { (icon) }
            span { (chip.name) }
            @if !text.is_empty() { span.chip-state { (text) } }
        }
    }
}

/// What a button is about, for those who do not see where it stands.
fn for_whom(bucket: &Bucket, label: &Label) -> Markup {
    html! {
        span.unseen { " " (bucket.name()) @if *label != Label::default() { " (" (label) ")" } }
    }
}

/// How a form names a label; the usual one by nothing.
pub fn label_field(label: &Label) -> Markup {
    html! { @if *label != Label::default() { input type="hidden" name="label" value=(label); } }
}

/// How an address names a label; the usual one by nothing.
pub fn query(label: &Label) -> String {
    if *label == Label::default() { String::new() } else { format!("?label={label}") }
}

/// A day, as people write it.
pub fn since(moment: Timestamp) -> Markup {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let text = moment.to_string();
    let day = || {
        let mut parts = text.split('T').next()?.split('-');
        let (year, month, day) = (parts.next()?, parts.next()?.parse::<usize>().ok()?, parts.next()?);
        Some(format!("{} {} {year}", day.trim_start_matches('0'), MONTHS.get(month.checked_sub(1)?)?))
    };
    html! { "since " time datetime=(text) { (day().unwrap_or_else(|| text.clone())) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_as_people_write_them() {
        let text = since(Timestamp::from_millis(1_783_296_000_000)).into_string();
        assert_eq!(text, "since <time datetime=\"2026-07-06T00:00:00Z\">6 July 2026</time>");
    }
}
