//! What would happen if the refresh token of a connection were dead, found out without touching the connection.
//!
//! A shadow of it, in a vault of its own and a store in memory, has the same provider, registration and facts, and tokens that
//! are made up here and were never issued. Its refresh is a real one: the provider is asked, and what it answers is
//! judged by the same code. The connection itself, its records and its metrics have no part in it, so there is
//! nothing to put back, whenever this ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::forced::Forced;
use super::guard::Guard;
use super::{Parts, TokenError, Vault};
use crate::base::clock::Timestamp;
use crate::base::random;
use crate::base::secret::SecretKey;
use crate::model::connection::{ConnectionKey, ConnectionState};
use crate::model::names::Label;
use crate::store::Store;
use crate::store::keyring::KeyRing;
use crate::store::record::{ConnectionRecord, connection_context, field};
use crate::store::seal::Sealer;
use crate::store::sqlite::SqliteStore;
use crate::telemetry::audit::Audit;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// What would happen.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// The refresh, and what the provider said.
    pub refresh: Forced,
    /// How the connection would stand.
    pub state: ConnectionState,
    /// When it would be tried again.
    pub next_try: Option<Timestamp>,
    /// Until when callers would notice nothing, where that is known.
    pub unnoticed_until: Option<Timestamp>,
    /// What they would be told from then on; `None` where the provider has answered with tokens.
    pub told: Option<TokenError>,
}

/// What log lines about a shadow say in the place of its label.
const LABEL: &str = "simulated-failure";

impl Vault {
    /// Asks the provider with a refresh token that it never issued.
    pub async fn simulate_failure(&self, key: &ConnectionKey) -> Result<Simulated, TokenError> {
        let operator = |why: String| TokenError::Operator { reason: why };
        let store_failed = |error: crate::store::StoreError| operator(error.to_string());
        let record = self.parts.store.connection(key.clone()).await.map_err(store_failed)?;
        let record = record.ok_or(TokenError::NotConnected)?;
        let unnoticed_until = record.access_expires_at;
        let random = self.parts.random.as_ref();
        let ring = KeyRing::new(vec![SecretKey::new(random::bytes(random))]).expect("there is one");
        let sealer = Sealer::new(ring, Arc::clone(&self.parts.random));
        let store = Arc::new(SqliteStore::in_memory().map_err(store_failed)?);
        let shadow = self.shadow_record(record, &sealer);
        let shadow_key = shadow.key.clone();
        store.connect(vec![shadow], self.parts.clock.now()).await.map_err(store_failed)?;
        let vault = self.shadow_vault(&shadow_key, sealer, Arc::clone(&store)).map_err(operator)?;
        let refresh = vault.refresh_now(&shadow_key).await?;
        let after = store.connection(shadow_key.clone()).await.map_err(store_failed)?;
        let after = after.ok_or_else(|| operator("the shadow has gone".to_owned()))?;
        let told = vault.error_once_expired(&shadow_key, self.parts.clock.now());
        let told = told.filter(|_| refresh.result != super::RefreshResult::Refreshed);
        Ok(Simulated { refresh, state: after.state, next_try: after.refresh_due_at, unnoticed_until, told })
    }

    /// The same facts with tokens that nobody issued, as if nothing had ever gone wrong.
    fn shadow_record(&self, record: ConnectionRecord, sealer: &Sealer) -> ConnectionRecord {
        let random = self.parts.random.as_ref();
        let label: Label = LABEL.parse().expect("letters and a hyphen");
        let key = ConnectionKey { label, ..record.key.clone() };
        let (id, generation) = (random::identifier(random, "c_"), 1);
        let made_up = |field| sealer.seal(&connection_context(&key, &id, field, generation), &random::secret(random));
        ConnectionRecord {
            access_token: made_up(field::ACCESS_TOKEN),
            refresh_token: Some(made_up(field::REFRESH_TOKEN)),
            previous_refresh_token: None,
            state: ConnectionState::Active,
            trouble: None,
            intent: None,
            earlier_site: None,
            id,
            key,
            generation,
            ..record
        }
    }

    fn shadow_vault(&self, key: &ConnectionKey, sealer: Sealer, store: Arc<SqliteStore>) -> Result<Arc<Self>, String> {
        let provider = self.parts.providers.get(&key.provider).ok_or("the provider is no longer configured")?;
        let metrics = Metrics::new([&key.provider].into_iter()).map_err(|error| error.to_string())?;
        Ok(Self::new(Parts {
            store,
            sealer,
            providers: BTreeMap::from([(key.provider.clone(), Arc::clone(provider))]),
            http: Arc::clone(&self.parts.http),
            clock: Arc::clone(&self.parts.clock),
            random: Arc::clone(&self.parts.random),
            refresh_ahead: self.parts.refresh_ahead,
            grant_end_notice: self.parts.grant_end_notice,
            metrics: Arc::new(metrics),
            health: Arc::new(Health::default()),
            audit: Audit::none(Arc::clone(&self.parts.clock)),
            guard: Arc::new(Guard::default()),
        }))
    }
}
