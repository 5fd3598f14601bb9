//! The table of bundled providers in `docs/providers.md`, made from their files.

use crate::catalogue::entry::{Cascade, Entry, IdentitySource, RotationModel};
use crate::catalogue::lint::inherited_example;
use crate::catalogue::{Catalogue, Selection};

const BEGIN: &str = "<!-- bundled providers: begin (made by `make schema`) -->\n";
const END: &str = "<!-- bundled providers: end -->\n";

fn table() -> String {
    let catalogue = Catalogue::bundled();
    let mut text = "\n| entry | what | APIs (the default one first) | refresh tokens | disconnecting ends | says who the user is | from memory | checked |\n\
                    |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for name in catalogue.names() {
        let example: Selection = inherited_example(&catalogue, name);
        let entry = catalogue.select(name, &example).expect("a bundled entry is sound");
        text.push_str(&row(name, &entry));
    }
    text.push('\n');
    text
}

fn row(name: &str, entry: &Entry) -> String {
    let code = |text: &String| format!("`{text}`");
    let others = entry.apis.keys().filter(|api| **api != entry.default_api);
    let apis: Vec<String> = std::iter::once(&entry.default_api).chain(others).map(code).collect();
    let recall: Vec<String> = entry.trust.recall.iter().map(code).collect();
    let identity = entry.identity.as_ref().map_or("no", |identity| match identity.source {
        IdentitySource::IdToken => "ID token",
        IdentitySource::Userinfo => "user info",
        IdentitySource::TokenResponse => "token reply",
    });
    let (name, apis, recall) = (code(&name.to_owned()), apis.join(", "), recall.join(", "));
    let (rotation, ends) = (rotation(entry), ends(entry));
    let (shown, checked_on) = (&entry.display_name, &entry.checked_on);
    format!("| {name} | {shown} | {apis} | {rotation} | {ends} | {identity} | {recall} | {checked_on} |\n")
}

fn rotation(entry: &Entry) -> &'static str {
    match entry.rotation.model {
        RotationModel::None => "none",
        RotationModel::Static => "stay the same",
        RotationModel::Interval => "change now and then",
        RotationModel::SingleUse => "work once",
        RotationModel::Leeway => "work once, and again for a while",
        RotationModel::UntilSuccessor => "work until the next one does",
        RotationModel::Overlap => "new each time, old ones stay",
        RotationModel::Optional => "stay or work once, as an administrator chose",
    }
}

fn ends(entry: &Entry) -> &'static str {
    match entry.revoke.as_ref().map(|call| call.cascades) {
        None | Some(Some(Cascade::AllAppsOfUser)) => "nothing there",
        Some(Some(Cascade::Token)) => "the token",
        Some(Some(Cascade::RefreshTokenOnly)) => "the refresh token",
        Some(Some(Cascade::Grant)) => "the grant",
        Some(None) => "what the provider makes of it",
    }
}

/// Regenerated with `make schema`.
#[test]
fn the_table_of_bundled_providers_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/providers.md");
    let document = std::fs::read_to_string(path).expect("docs/providers.md");
    let (before, rest) = document.split_once(BEGIN).expect("a mark where the table begins");
    let (found, after) = rest.split_once(END).expect("a mark where it ends");
    let current = table();
    if std::env::var_os("SIDEKEY_WRITE_SCHEMA").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{current}{END}{after}")).expect("written");
    } else {
        assert!(found == current, "the table in docs/providers.md is stale: run `make schema`");
    }
}
