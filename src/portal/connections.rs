//! The connections of one user as pages show them: a card for each provider, a row for each account there, a chip for each of its
//! APIs. What is shown is found out here; [`card`] draws it, [`choose`] and [`disconnect`] are steps of their own.

pub mod card;
pub mod choose;
pub mod disconnect;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::PublicState;
use crate::base::clock::Timestamp;
use crate::base::shown::shown;
use crate::catalogue::Provider;
use crate::model::connection::{Captured, ConnectionKey};
use crate::model::names::{Label, ProviderName, Subject};
use crate::oauth::scopes::{self, ApiStanding};
use crate::store::StoreError;
use crate::store::record::ConnectionRecord;
use crate::vault::Standing;

/// What a page shows of one provider.
pub struct Bucket {
    /// Which.
    pub provider: Arc<Provider>,
    /// Whether one cannot go on without it.
    pub is_required: bool,
    /// What it is needed for.
    pub apis: Vec<String>,
    /// The accounts that are connected there.
    pub rows: Vec<Row>,
}

/// One account at a provider.
pub struct Row {
    /// What it is found by.
    pub key: ConnectionKey,
    /// Its record's name.
    pub id: String,
    /// How it stands.
    pub status: Status,
    /// How its APIs stand.
    pub chips: Vec<Chip>,
    /// Whose account it is, where the provider says.
    pub account: Option<String>,
    /// Since when it is connected.
    pub since: Timestamp,
}

/// How a connection stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It works.
    Connected,
    /// It works, but the provider could not be asked for the next token.
    Troubled {
        /// Whether somebody must do something about it: not the user.
        needs_operator: bool,
    },
    /// It is there, but nobody has said yet which site it is for.
    Unchosen,
    /// It has ended.
    Ended {
        /// What the provider said.
        reason: String,
    },
}

/// One API of a provider.
pub struct Chip {
    /// What people call it.
    pub name: String,
    /// How it stands.
    pub standing: ApiStanding,
}

impl Bucket {
    /// What pages call the provider.
    pub fn name(&self) -> &str {
        &self.provider.entry.display_name
    }
}

impl Row {
    /// Whether something that was never asked for is missing.
    pub fn lacks_something(&self) -> bool {
        self.chips.iter().any(|chip| chip.standing == ApiStanding::Missing)
    }
}

/// What to show of a provider: all accounts of the subject there, or the one with this label.
pub async fn bucket(
    state: &PublicState,
    provider: &Arc<Provider>,
    subject: Option<&Subject>,
    only: Option<&Label>,
    apis: Option<&BTreeSet<String>>,
) -> Result<Bucket, StoreError> {
    let is_wanted = |name: &str| apis.is_none_or(|apis| apis.contains(name));
    let apis: Vec<String> =
        provider.apis.iter().filter(|api| is_wanted(&api.name)).map(|api| api.name.clone()).collect();
    let mut rows = Vec::new();
    if let Some(subject) = subject {
        let records = state.store.connections(Some(subject.clone())).await?;
        let shown = |record: &&ConnectionRecord| {
            let key = &record.key;
            key.provider == provider.name && key.token.is_none() && only.is_none_or(|label| *label == key.label)
        };
        for record in records.iter().filter(shown) {
            rows.extend(row(state, provider, record, &apis).await);
        }
    }
    // The one without a name of its own comes first.
    rows.sort_by_key(|row| row.key.label != Label::default());
    Ok(Bucket { provider: Arc::clone(provider), is_required: false, apis, rows })
}

async fn row(state: &PublicState, provider: &Provider, record: &ConnectionRecord, apis: &[String]) -> Option<Row> {
    let status = match state.vault.standing(&record.key).await {
        Standing::Missing => return None,
        Standing::Dead { reason } => Status::Ended { reason },
        Standing::Unchosen => Status::Unchosen,
        Standing::Usable => match &record.trouble {
            Some(trouble) => Status::Troubled { needs_operator: trouble.needs_operator },
            None => Status::Connected,
        },
    };
    Some(Row {
        key: record.key.clone(),
        id: record.id.clone(),
        status,
        chips: chips(provider, apis, |api| scopes::standing(provider, api, record.held())),
        account: record.account.clone().or_else(|| named(provider, &record.captured)),
        since: record.connected_at,
    })
}

/// The APIs of a provider, each with how it stands.
pub fn chips(provider: &Provider, apis: &[String], standing: impl Fn(&str) -> ApiStanding) -> Vec<Chip> {
    let chip = |api: &String| Chip { name: api_name(provider, api), standing: standing(api) };
    apis.iter().map(chip).collect()
}

/// What people call an API: what the entry says, or else its own name with a capital. The only API of a provider is called as the
/// provider is.
fn api_name(provider: &Provider, api: &str) -> String {
    let declared = provider.entry.apis.get(api).and_then(|api| api.display_name.clone());
    declared.unwrap_or_else(|| {
        if api == provider.name.as_str() {
            return provider.entry.display_name.clone();
        }
        let mut letters = api.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
    })
}

/// What came with the grant and says whose it is: a name, or else what tells one company from another.
fn named(provider: &Provider, captured: &Captured) -> Option<String> {
    let name = captured.iter().find(|(name, _)| name.ends_with("_name")).map(|(_, value)| value);
    name.or_else(|| provider.entry.realm.iter().find_map(|name| captured.get(name))).map(|name| shown(name))
}

/// Whether the connection that a user has there lacks an API that it was never asked for.
pub async fn lacks_something(
    state: &PublicState,
    key: &ConnectionKey,
    apis: Option<&BTreeSet<String>>,
) -> Result<bool, StoreError> {
    let Some(provider) = state.dance.provider(&key.provider) else { return Ok(false) };
    let Some(record) = state.store.connection(key.clone()).await? else { return Ok(false) };
    let enabled = provider.apis.iter().map(|api| api.name.as_str());
    let mut wanted = enabled.filter(|name| apis.is_none_or(|apis| apis.contains(*name)));
    Ok(wanted.any(|api| scopes::standing(provider, api, record.held()) == ApiStanding::Missing))
}

/// A provider by what stands in an address.
pub fn find<'s>(state: &'s PublicState, name: &str) -> Option<&'s Arc<Provider>> {
    let name = name.parse::<ProviderName>().ok()?;
    state.dance.provider(&name)
}

/// A label by what stands in a form or an address; the usual one where nothing does.
pub fn label(text: Option<&str>) -> Option<Label> {
    match text.map(str::trim) {
        None | Some("") => Some(Label::default()),
        Some(text) => text.parse().ok(),
    }
}
