//! Which of several sites, tenants or organizations a connection is for.
//!
//! The provider is asked with the connection's own token, right after it was granted and whenever a page shows the choice;
//! nothing of its replies is kept but the values of the site that was chosen. [`look_up`](super::look_up) says what is asked
//! and what follows from it. A look-up that fails loses nothing: the connection is kept, unfinished, and asked again later.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tracing::{info, warn};

use super::look_up::{self, Decision, Item};
use super::{CallbackError, ChoiceError, Dance};
use crate::base::backoff::RETRY_WAITS;
use crate::base::http::HttpError;
use crate::base::secret::Secret;
use crate::catalogue::Provider;
use crate::catalogue::entry::Lookup;
use crate::catalogue::uses::{Uses, only_of};
use crate::model::connection::{Captured, ConnectionKey};
use crate::store::StoreError;
use crate::store::record::{ConnectionRecord, Recapture};
use crate::telemetry::audit::Record;

/// One of the sites that a connection may be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// What a page calls it: made from the captured values, the same on every day.
    pub id: String,
    /// What to show; somebody else's text, in one line.
    pub name: String,
    /// The values that say which it is.
    pub captured: Captured,
    /// Whether the connection is for this one.
    pub chosen: bool,
}

/// What a new connection has of its look-ups.
pub(super) struct FirstLook {
    /// The values of its site, as far as they are known.
    pub values: Captured,
    /// For a connection whose site is not known: that of the connection before it.
    pub earlier: Option<Captured>,
}

/// Why a look-up brings nothing.
#[derive(Debug)]
struct Failed {
    why: String,
    /// Whether the access token was refused.
    is_token: bool,
}

/// A browser waits for it.
const PATIENCE: Duration = Duration::from_secs(15);

impl Dance {
    /// The sites that a connection may be for, asked for just now. Where there is nothing to choose among, it is chosen.
    pub async fn sites(self: &Arc<Self>, key: &ConnectionKey) -> Result<Vec<Site>, ChoiceError> {
        let (provider, record, items) = self.offered_sites(key).await?;
        let mut captured = record.captured.clone();
        if !provider.is_finished(&captured) {
            let realm = realm_of_look_ups(&provider);
            let earlier = record.earlier_site.clone().unwrap_or_default();
            if let Decision::For(item) = look_up::decide(&items, &realm, &earlier) {
                self.keep_site(&provider, key, &record, &item, "there was nothing to choose").await?;
                captured.extend(item.captured);
            }
        }
        Ok(items.into_iter().map(|item| site(&provider, item, &captured)).collect())
    }

    /// Has a connection be for this site from now on, which may be another one than before.
    pub async fn choose(self: &Arc<Self>, key: &ConnectionKey, id: &str) -> Result<Site, ChoiceError> {
        let chosen = self.choose_offered(key, id).await;
        if let Err(error) = &chosen {
            let reason = Some(error.to_string());
            self.parts.audit.record(Record { reason, ..Record::of_connection("choose", error.word(), key) });
        }
        chosen
    }

    async fn choose_offered(self: &Arc<Self>, key: &ConnectionKey, id: &str) -> Result<Site, ChoiceError> {
        let (provider, record, items) = self.offered_sites(key).await?;
        let item = items.into_iter().find(|item| look_up::id(&item.captured, &provider.looked_up) == id);
        let item = item.ok_or(ChoiceError::NotOffered)?;
        self.keep_site(&provider, key, &record, &item, "chosen").await?;
        let captured = item.captured.clone();
        Ok(site(&provider, item, &captured))
    }

    /// What the provider offers now, and the connection as it stands.
    async fn offered_sites(
        &self,
        key: &ConnectionKey,
    ) -> Result<(Arc<Provider>, ConnectionRecord, Vec<Item>), ChoiceError> {
        let provider = self.provider(&key.provider).cloned().ok_or(ChoiceError::NotConnected)?;
        if provider.entry.post_connect.is_empty() {
            return Err(ChoiceError::NothingToChoose);
        }
        let vault = &self.parts.vault;
        let mut token = vault.token_for(key).await.map_err(ChoiceError::Token)?;
        let mut items = self.look_up(&provider, token.access_token(), &Captured::new()).await;
        if items.as_ref().is_err_and(|failed| failed.is_token)
            && let Some(another) = vault.replacement(key, &token).await
        {
            token = another;
            items = self.look_up(&provider, token.access_token(), &Captured::new()).await;
        }
        let items = items.map_err(|failed| ChoiceError::LookUp { summary: failed.why })?;
        let record = self.parts.store.connection(key.clone()).await.map_err(ChoiceError::Store)?;
        let record = record.filter(|record| record.id == token.connection_id).ok_or(ChoiceError::Replaced)?;
        Ok((provider, record, items))
    }

    /// Stores the values of a site, and puts them into use. In a task of its own: whoever asked may go away, and what is
    /// changed in the store must be changed in memory.
    async fn keep_site(
        self: &Arc<Self>,
        provider: &Provider,
        key: &ConnectionKey,
        record: &ConnectionRecord,
        item: &Item,
        how: &str,
    ) -> Result<(), ChoiceError> {
        let names = names_of_look_ups(provider);
        let (before, values) = (only_of(&record.captured, &names), item.captured.clone());
        let change = Recapture { id: record.id.clone(), names: names.clone(), before, values: values.clone() };
        let (dance, key_of_task, under_way) = (Arc::clone(self), key.clone(), self.parts.vault.work_under_way());
        let task = tokio::spawn(async move {
            let _under_way = under_way;
            let ids = dance.parts.store.recapture(key_of_task.clone(), change).await.map_err(ChoiceError::Store)?;
            dance.parts.vault.recapture(&key_of_task, &ids, &names, &values);
            if ids.is_empty() { Err(ChoiceError::Replaced) } else { Ok(()) }
        });
        let failed = |error: tokio::task::JoinError| Err(ChoiceError::Store(StoreError::Failed(error.to_string())));
        task.await.unwrap_or_else(failed)?;
        let told: Vec<String> = only_of(&item.captured, &provider.looked_up)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let reason = Some(format!("{how}: {}", told.join(" ")));
        info!(
            operation = "choose", provider = %key.provider, subject = %key.subject, label = %key.label, outcome = "ok",
        );
        self.parts.audit.record(Record { reason, ..Record::of_connection("choose", "ok", key) });
        Ok(())
    }

    /// Looks for the site of a connection that was just granted. Never another one than that of the connection before it.
    pub(super) async fn first_look(
        &self,
        provider: &Provider,
        key: &ConnectionKey,
        access_token: &Secret,
    ) -> Result<FirstLook, CallbackError> {
        if provider.entry.post_connect.is_empty() {
            return Ok(FirstLook { values: Captured::new(), earlier: None });
        }
        let before = self.parts.store.connection(key.clone()).await.map_err(CallbackError::Store)?;
        let earlier = before.map(|record| earlier_site(provider, &record)).unwrap_or_default();
        let unfinished = |earlier: Captured| FirstLook { values: Captured::new(), earlier: Some(earlier) };
        let items = match self.look_up(provider, access_token, &earlier).await {
            Ok(items) => items,
            Err(failed) => {
                warn!(operation = "look_up", connection = %key, error = failed.why, "connected, but not finished");
                return Ok(unfinished(earlier));
            }
        };
        match look_up::decide(&items, &realm_of_look_ups(provider), &earlier) {
            Decision::For(item) => Ok(FirstLook { values: item.captured, earlier: None }),
            Decision::Open => Ok(unfinished(earlier)),
            Decision::Gone { name, connected, offered: Some(chosen) } => {
                Err(CallbackError::OtherRealm { name, connected, chosen })
            }
            Decision::Gone { name, connected, offered: None } => Err(CallbackError::SiteGone { name, connected }),
        }
    }

    /// All that the look-ups offer. One that only people would see the result of may fail.
    async fn look_up(&self, provider: &Provider, token: &Secret, earlier: &Captured) -> Result<Vec<Item>, Failed> {
        let uses = Uses::of(&provider.entry);
        let mut offers = Vec::new();
        for declared in &provider.entry.post_connect {
            let known = only_of(earlier, declared.capture.keys());
            if !declared.repeat && known.len() == declared.capture.len() {
                let name = known.values().cloned().collect::<Vec<_>>().join(", ");
                offers.push(vec![Item { name, captured: known }]);
                continue;
            }
            let is_needed = declared.capture.keys().any(|name| uses.needs(name));
            match self.offered_by(provider, declared, token).await {
                Ok(items) if is_needed || items.len() == 1 => offers.push(items),
                Err(failed) if is_needed => return Err(failed),
                Ok(_) => {}
                Err(failed) => warn!(operation = "look_up", provider = %provider.name, error = failed.why),
            }
        }
        Ok(look_up::together(offers))
    }

    async fn offered_by(&self, provider: &Provider, declared: &Lookup, token: &Secret) -> Result<Vec<Item>, Failed> {
        let failed = |why: &str| Failed { why: why.to_owned(), is_token: false };
        tokio::select! {
            asked = self.ask_for_items(provider, declared, token) => asked,
            () = self.parts.clock.sleep(PATIENCE) => Err(failed("it took too long")),
        }
    }

    /// One try, and one more where that may help: looking changes nothing.
    async fn ask_for_items(&self, provider: &Provider, declared: &Lookup, token: &Secret) -> Result<Vec<Item>, Failed> {
        let mut waits = RETRY_WAITS.iter().take(1);
        loop {
            let request = look_up::request(declared, token);
            let request =
                request.ok_or_else(|| Failed { why: "the token fits into no header".to_owned(), is_token: false })?;
            let reply = self.parts.http.send(request).await;
            let is_passing = match &reply {
                Ok(reply) => look_up::is_passing(reply.status),
                Err(HttpError::NotSent(_) | HttpError::Ambiguous(_)) => true,
            };
            if let Some(wait) = waits.next().filter(|_| is_passing) {
                self.parts.clock.sleep(*wait).await;
                continue;
            }
            let reply = reply.map_err(|error| Failed { why: error.to_string(), is_token: false })?;
            let is_token = reply.status == StatusCode::UNAUTHORIZED;
            return look_up::read(&provider.entry, declared, &reply).map_err(|why| Failed { why, is_token });
        }
    }
}

fn site(provider: &Provider, item: Item, captured: &Captured) -> Site {
    let Item { name, captured: of_site } = item;
    let is_same = |name: &String| of_site.get(name) == captured.get(name);
    let mut names = of_site.keys().filter(|name| provider.looked_up.is_empty() || provider.looked_up.contains(*name));
    let chosen = names.all(is_same);
    Site { id: look_up::id(&of_site, &provider.looked_up), name, captured: of_site, chosen }
}

fn names_of_look_ups(provider: &Provider) -> BTreeSet<String> {
    provider.entry.post_connect.iter().flat_map(|declared| declared.capture.keys().cloned()).collect()
}

/// The values that say which company, workspace or site it is, and that look-ups bring.
fn realm_of_look_ups(provider: &Provider) -> Vec<&String> {
    let realm: Vec<&String> = provider.entry.realm.iter().filter(|name| provider.looked_up.contains(*name)).collect();
    // Where the entry does not say what tells one site from another, all that calls need does.
    if realm.is_empty() { provider.looked_up.iter().collect() } else { realm }
}

/// What a connection is for; where that is not known, what the one before it was for.
pub(super) fn earlier_site(provider: &Provider, record: &ConnectionRecord) -> Captured {
    let own = only_of(&record.captured, &names_of_look_ups(provider));
    if provider.is_finished(&record.captured) { own } else { record.earlier_site.clone().unwrap_or(own) }
}
