//! Which client an id stands for.

use std::collections::HashMap;
use std::sync::Arc;

use super::Parts;
use super::client_document::{DocumentError, Documents};
use crate::model::client::{
    Client, ClientAuthentication, ClientKeys, ClientKind, RegisteredMethod, Registration, SecretVerifier,
};
use crate::store::StoreError;
use crate::store::issuer::IssuerStore;

/// Finds clients.
pub struct Clients {
    fixed: HashMap<String, Arc<Client>>,
    pub(super) documents: Documents,
    store: Arc<dyn IssuerStore>,
}

/// Why there is no client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// Nobody registered this id.
    Unknown,
    /// The id is a URL, and what is there is no use.
    Document(DocumentError),
    /// The store failed.
    Store(StoreError),
}

/// What ids of clients that registered themselves begin with.
pub const DYNAMIC_PREFIX: &str = "dyn_";

impl Clients {
    pub fn new(parts: &Parts) -> Self {
        let fixed = parts.settings.clients.iter().map(|client| (client.id.clone(), Arc::new(client.clone())));
        Self { fixed: fixed.collect(), documents: Documents::new(parts), store: Arc::clone(&parts.store) }
    }

    /// The same under other settings.
    pub fn under(&self, parts: &Parts) -> Self {
        Self { documents: self.documents.under(parts), ..Self::new(parts) }
    }

    /// The client of this id, if it has been here before: a client that comes with a code or a token has. Nothing is fetched,
    /// so nobody can have us fetch things by asking for tokens.
    pub async fn known(&self, id: &str) -> Result<Arc<Client>, ClientError> {
        match id.starts_with("https://") {
            true => self.documents.known(id).await.ok_or(ClientError::Unknown),
            false => self.find(id).await,
        }
    }

    /// The client of this id.
    pub async fn find(&self, id: &str) -> Result<Arc<Client>, ClientError> {
        if let Some(client) = self.fixed.get(id) {
            return Ok(Arc::clone(client));
        }
        if id.starts_with("https://") {
            return self.documents.client(id).await.map_err(ClientError::Document);
        }
        if !id.starts_with(DYNAMIC_PREFIX) || id.len() > 64 {
            return Err(ClientError::Unknown);
        }
        let registration = self.store.client(id.to_owned()).await.map_err(ClientError::Store)?;
        registration.map(|registration| Arc::new(registered(id, registration))).ok_or(ClientError::Unknown)
    }
}

fn registered(id: &str, registration: Registration) -> Client {
    let keys = match (&registration.jwks, &registration.jwks_uri) {
        (Some(keys), _) => Some(ClientKeys::Inline(keys.clone())),
        (None, Some(url)) => url.parse().ok().map(ClientKeys::Url),
        (None, None) => None,
    };
    let authentication = match (registration.method, registration.secret_digest, keys) {
        (RegisteredMethod::ClientSecretBasic | RegisteredMethod::ClientSecretPost, Some(digest), _) => {
            ClientAuthentication::Secret(SecretVerifier::Sha256(digest))
        }
        (RegisteredMethod::PrivateKeyJwt, _, Some(keys)) => ClientAuthentication::PrivateKeyJwt(keys),
        _ => ClientAuthentication::None,
    };
    Client {
        id: id.to_owned(),
        kind: ClientKind::Dynamic,
        name: registration.name,
        redirect_uris: registration.redirect_uris,
        authentication,
        // What a client says of itself limits nobody: asking decides, and the user does.
        scopes: None,
    }
}
