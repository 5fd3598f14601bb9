//! [`Store`] on the store's thread: each method hands over the work that the module of its table does.

use std::path::PathBuf;

use async_trait::async_trait;

use super::{SqliteStore, alternates, connections, flows, guard, handles, repair, revocations, schema, sealed};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::files;
use crate::model::connection::ConnectionKey;
use crate::model::flow::{ConnectLink, FlowId};
use crate::model::handle::HandleRecord;
use crate::model::names::{ProviderName, Subject};
use crate::store::keyring::KeyId;
use crate::store::record::{
    Alternate, Beginning, ConnectionRecord, FlowRecord, GuardRecord, Recapture, RefreshFailure, RefreshedTokens,
    RevocationRecord, WaitingRevocation,
};
use crate::store::reseal::{KeyUse, SealedPlace, SealedValue};
use crate::store::seal::Sealed;
use crate::store::{Store, StoreError, TakenFlow};

#[async_trait]
impl Store for SqliteStore {
    async fn put_connect_link(&self, digest: Digest, link: ConnectLink) -> Result<(), StoreError> {
        self.run(move |db| flows::put_link(db, &digest, &link)).await
    }

    async fn connect_link(&self, digest: Digest, now: Timestamp) -> Result<Option<ConnectLink>, StoreError> {
        self.run(move |db| flows::link(db, &digest, now)).await
    }

    async fn begin_flow(&self, link: Digest, flow: FlowRecord, now: Timestamp) -> Result<bool, StoreError> {
        self.run(move |db| flows::begin(db, &link, &flow, now)).await
    }

    async fn put_flow(&self, flow: FlowRecord) -> Result<(), StoreError> {
        self.run(move |db| flows::put(db, &flow)).await
    }

    async fn flow(&self, id: FlowId) -> Result<Option<FlowRecord>, StoreError> {
        self.run(move |db| flows::flow(db, id)).await
    }

    async fn take_flow(&self, id: FlowId, now: Timestamp) -> Result<TakenFlow, StoreError> {
        self.run(move |db| flows::take(db, id, now)).await
    }

    async fn connect(&self, tokens: Vec<ConnectionRecord>, now: Timestamp) -> Result<(), StoreError> {
        // These may be the only copies: a code works once.
        self.keep(move |keeper| keeper.run_at_any_cost(|db| connections::connect(db, &tokens, now))).await
    }

    async fn disconnect(
        &self,
        key: ConnectionKey,
        revocation: Option<String>,
        now: Timestamp,
    ) -> Result<Option<Vec<RevocationRecord>>, StoreError> {
        self.run(move |db| revocations::disconnect(db, &key, revocation.as_deref(), now)).await
    }

    async fn put_revocation(&self, revocation: RevocationRecord, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| revocations::put(db, &revocation, now)).await
    }

    async fn revocations_due(&self, now: Timestamp, limit: usize) -> Result<Vec<RevocationRecord>, StoreError> {
        self.run(move |db| revocations::due(db, now, limit)).await
    }

    async fn revocations_waiting(&self, subject: Option<Subject>) -> Result<Vec<WaitingRevocation>, StoreError> {
        self.run(move |db| revocations::waiting(db, subject.as_ref())).await
    }

    async fn postpone_revocation(&self, id: String, until: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| revocations::postpone(db, &id, until)).await
    }

    async fn finish_revocation(&self, id: String) -> Result<(), StoreError> {
        self.run(move |db| revocations::finish(db, &id)).await
    }

    async fn connection(&self, key: ConnectionKey) -> Result<Option<ConnectionRecord>, StoreError> {
        self.run(move |db| connections::by_key(db, &key)).await
    }

    async fn recapture(&self, key: ConnectionKey, change: Recapture) -> Result<Vec<String>, StoreError> {
        self.run(move |db| connections::recapture(db, &key, &change)).await
    }

    async fn connections(&self, subject: Option<Subject>) -> Result<Vec<ConnectionRecord>, StoreError> {
        self.run(move |db| connections::of_subject(db, subject.as_ref())).await
    }

    async fn connections_after(
        &self,
        after: Option<ConnectionKey>,
        prefix: String,
        limit: usize,
    ) -> Result<Vec<ConnectionRecord>, StoreError> {
        self.run(move |db| connections::after(db, after.as_ref(), &prefix, limit)).await
    }

    async fn count_connections(&self) -> Result<Vec<(String, String, i64)>, StoreError> {
        self.run(|db| connections::count(db)).await
    }

    async fn refresh_due(
        &self,
        until: Timestamp,
        limit: usize,
        except: Vec<ProviderName>,
    ) -> Result<Vec<ConnectionKey>, StoreError> {
        self.run(move |db| connections::due(db, until, limit, &except)).await
    }

    async fn next_refresh(&self) -> Result<Option<Timestamp>, StoreError> {
        self.run(|db| connections::next_due(db)).await
    }

    async fn begin_refresh(&self, id: String, generation: u64, begin: Beginning) -> Result<Option<u64>, StoreError> {
        // Nothing may be burnt that could not be replaced.
        self.keep(move |keeper| {
            keeper.prepare()?;
            let begun = keeper.run(|db| connections::begin_refresh(db, &id, generation, &begin));
            if begun.is_err() {
                let owner = id.clone();
                keeper.owe(owner, move |db| repair::forget_intent(db, &id, &begin.intent.attempt));
            }
            begun
        })
        .await
    }

    async fn complete_refresh(&self, id: String, generation: u64, tokens: RefreshedTokens) -> Result<bool, StoreError> {
        self.keep(move |keeper| {
            keeper.run_at_any_cost(|db| {
                let is_new = connections::complete_refresh(db, &id, generation, &tokens)?;
                // What was reported as failed a moment ago may have been written all the same.
                Ok(is_new || repair::holds(db, &id, &tokens)?)
            })
        })
        .await
    }

    async fn fail_refresh(&self, id: String, generation: u64, failure: RefreshFailure) -> Result<bool, StoreError> {
        self.keep(move |keeper| {
            let failed = keeper.run_at_any_cost(|db| connections::fail_refresh(db, &id, generation, &failure));
            if failed.is_err() {
                let owner = id.clone();
                keeper.owe(owner, move |db| connections::fail_refresh(db, &id, generation, &failure).map(|_| ()));
            }
            failed
        })
        .await
    }

    async fn postpone_refresh(&self, key: ConnectionKey, until: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| connections::postpone(db, &key, until)).await
    }

    async fn retry_operator_failures(&self, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| connections::retry_operator_failures(db, now)).await
    }

    async fn limit_waiting(&self, now: Timestamp, latest: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| connections::limit_waiting(db, now, latest)).await
    }

    async fn interrupted_refreshes(&self) -> Result<Vec<ConnectionRecord>, StoreError> {
        self.run(|db| connections::interrupted(db)).await
    }

    async fn sealed_by_others(
        &self,
        active: KeyId,
        after: Option<SealedPlace>,
        limit: usize,
    ) -> Result<Vec<SealedValue>, StoreError> {
        self.run(move |db| sealed::not_by(db, active, after, limit)).await
    }

    async fn replace_sealed(&self, place: SealedPlace, old: Sealed, new: Sealed) -> Result<bool, StoreError> {
        self.run(move |db| sealed::replace(db, place, &old, &new)).await
    }

    async fn key_use(&self) -> Result<Vec<KeyUse>, StoreError> {
        self.run(|db| sealed::key_use(db)).await
    }

    async fn guard(&self) -> Result<GuardRecord, StoreError> {
        self.run(|db| guard::read(db)).await
    }

    async fn announce_successor(&self, instance: String, refreshes: u64) -> Result<(), StoreError> {
        self.run(move |db| guard::announce_successor(db, &instance, refreshes)).await
    }

    async fn succeed(&self, instance: String) -> Result<(), StoreError> {
        self.run(move |db| guard::succeed(db, &instance)).await
    }

    async fn keep_alternate(&self, id: String, alternate: Alternate) -> Result<(), StoreError> {
        self.run(move |db| alternates::keep(db, &id, &alternate)).await
    }

    async fn alternates(&self, id: String) -> Result<Vec<Alternate>, StoreError> {
        self.run(move |db| alternates::of(db, &id)).await
    }

    async fn announce_grant_ends(&self, until: Timestamp) -> Result<Vec<(ConnectionKey, Timestamp)>, StoreError> {
        self.run(move |db| connections::announce_grant_ends(db, until)).await
    }

    async fn put_handle(&self, digest: Digest, handle: HandleRecord) -> Result<(), StoreError> {
        self.run(move |db| handles::put(db, &digest, &handle)).await
    }

    async fn handles(&self) -> Result<Vec<(Digest, HandleRecord)>, StoreError> {
        self.run(|db| handles::all(db)).await
    }

    async fn renew_handle(&self, id: String, expires_at: Timestamp) -> Result<bool, StoreError> {
        self.run(move |db| handles::renew(db, &id, expires_at)).await
    }

    async fn revoke_handle(&self, id: String, now: Timestamp) -> Result<bool, StoreError> {
        self.run(move |db| handles::revoke(db, &id, now)).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |db| {
            flows::sweep(db, now)?;
            handles::sweep(db, now)
        })
        .await
    }

    async fn snapshot(&self, into: PathBuf) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| StoreError::Failed(format!("{}: {error}", into.display()));
        files::create_private(&into, b"").map_err(failed)?;
        let Some(file) = self.file.clone() else {
            return self.run(move |db| schema::copy_to(db, &into)).await;
        };
        // On a connection of its own: the store's thread does not wait for it, and nobody waits for that thread.
        let copied = tokio::task::spawn_blocking(move || {
            schema::open_to_read(&file).and_then(|connection| schema::copy_to(&connection, &into))
        });
        let copied = copied.await.map_err(|error| StoreError::Failed(error.to_string()))?;
        copied.map_err(|error| StoreError::Failed(format!("it cannot be copied: {error}")))
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.keep(|keeper| {
            keeper.prepare()?;
            keeper.run(schema::probe)
        })
        .await
    }
}
