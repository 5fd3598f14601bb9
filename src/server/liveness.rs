//! When a grant of ours is at its end because of what became of the connections behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::issuer::GrantLiveness;
use crate::model::grant::Grant;
use crate::model::names::ServerName;
use crate::model::server::McpServer;
use crate::vault::Vault;

/// A grant needs the connections to the providers that its server requires.
pub struct Connections {
    /// Knows which connections there are.
    pub vault: Arc<Vault>,
    /// What each server requires.
    pub servers: BTreeMap<ServerName, Arc<McpServer>>,
}

#[async_trait]
impl GrantLiveness for Connections {
    async fn is_gone(&self, grant: &Grant) -> bool {
        let Some(server) = self.servers.get(&grant.authorization.server) else { return false };
        for provider in server.required.intersection(&grant.authorization.providers) {
            if !self.vault.standing(&grant.connection(provider)).await.is_connected() {
                return true;
            }
        }
        false
    }
}
