//! What the company is called that a connection is for, where the provider tells it at an API only. It is for people to see:
//! nothing depends on it, so it is asked for when somebody wants to show it, once, and not for long.

use std::collections::BTreeSet;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use tracing::info;
use zeroize::Zeroizing;

use super::Dance;
use crate::base::http::Request;
use crate::base::secret::Secret;
use crate::base::shown::shown;
use crate::catalogue::Provider;
use crate::catalogue::entry::CompanyLookup;
use crate::catalogue::provider::Origin;
use crate::catalogue::template::{fill, variables};
use crate::model::connection::{Captured, ConnectionState, is_plain_segment};
use crate::store::record::{ConnectionRecord, Recapture};

/// The captured value that holds the name.
pub const COMPANY_NAME: &str = "company_name";
/// Somebody waits for the answer, and can do without.
const PATIENCE: Duration = Duration::from_secs(4);

impl Dance {
    /// The name of the company that a connection is for: what is known, or what the provider says now. `None` where neither
    /// says anything.
    pub async fn company(&self, record: &ConnectionRecord) -> Option<String> {
        if let Some(known) = record.captured.get(COMPANY_NAME) {
            return Some(known.clone());
        }
        let provider = self.provider(&record.key.provider)?;
        let declared = provider.entry.company.as_ref()?;
        // What is not finished belongs to those who choose.
        if record.state != ConnectionState::Active || !provider.is_finished(&record.captured) {
            return None;
        }
        let asked = async {
            let token = self.parts.vault.token_for(&record.key).await.ok()?;
            let is_same = token.connection_id == record.id;
            let request = request(provider, declared, &record.captured, token.access_token()).filter(|_| is_same)?;
            let reply = self.parts.http.send(request).await.ok().filter(|reply| reply.status.is_success())?;
            read(declared, &reply.body)
        };
        let name = tokio::select! {
            name = asked => name,
            () = self.parts.clock.sleep(PATIENCE) => None,
        };
        info!(operation = "company", connection = %record.key, outcome = if name.is_some() { "ok" } else { "unknown" });
        let name = name?;
        self.keep_company(record, &name).await;
        Some(name)
    }

    /// Keeps the name with the connection, so that it is not asked for again. If that fails it is.
    async fn keep_company(&self, record: &ConnectionRecord, name: &str) {
        let names = BTreeSet::from([COMPANY_NAME.to_owned()]);
        let values = Captured::from([(COMPANY_NAME.to_owned(), name.to_owned())]);
        let change =
            Recapture { id: record.id.clone(), names: names.clone(), before: Captured::new(), values: values.clone() };
        if let Ok(ids) = self.parts.store.recapture(record.key.clone(), change).await {
            self.parts.vault.recapture(&record.key, &ids, &names, &values);
        }
    }
}

/// `None` where a value is missing that the path names, or could be read as more than a segment.
fn request(provider: &Provider, declared: &CompanyLookup, captured: &Captured, token: &Secret) -> Option<Request> {
    let is_there = |name: &String| captured.get(name).is_some_and(|value| is_plain_segment(value));
    if !variables(&declared.path).iter().all(is_there) {
        return None;
    }
    let api = provider.apis.iter().find(|api| api.name == provider.entry.default_api)?;
    let Origin::Fixed(origin) = &api.origin else { return None };
    let path = fill(&declared.path, |name| captured.get(name).map(String::as_str));
    let mut bearer = HeaderValue::from_str(&Zeroizing::new(format!("Bearer {}", token.expose()))).ok()?;
    bearer.set_sensitive(true);
    let headers =
        HeaderMap::from_iter([(AUTHORIZATION, bearer), (ACCEPT, HeaderValue::from_static("application/json"))]);
    let url = format!("{}{}{path}", origin.origin(), api.base_path).parse().ok()?;
    Some(Request { method: Method::GET, url, headers, body: Zeroizing::default() })
}

fn read(declared: &CompanyLookup, body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let name = shown(body.pointer(&declared.name)?.as_str()?);
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_text_that_can_be_shown() {
        let declared = CompanyLookup { path: "/x".to_owned(), name: "/CompanyInfo/CompanyName".to_owned() };
        let of = |body: &str| read(&declared, body.as_bytes());
        assert_eq!(of(r#"{"CompanyInfo": {"CompanyName": "Rock Castle"}}"#).as_deref(), Some("Rock Castle"));
        assert_eq!(of("{\"CompanyInfo\": {\"CompanyName\": \"a\\u202eb\\n\"}}").as_deref(), Some("a b"));
        for nothing in [
            "",
            "[]",
            r#"{"CompanyInfo": {}}"#,
            r#"{"CompanyInfo": {"CompanyName": 7}}"#,
            r#"{"CompanyInfo": {"CompanyName": "  "}}"#,
        ] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }
}
