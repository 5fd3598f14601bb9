//! What the issuer says about itself (RFC 8414, OpenID Connect Discovery) and about the MCP servers (RFC 9728).

use serde_json::{Value, json};

use super::Issuer;
use crate::base::jws::Algorithm;
use crate::model::client::RegisteredMethod;
use crate::model::issuer_settings::AccessTokenFormat;
use crate::model::scope::{OFFLINE_ACCESS, ScopeSet};
use crate::model::server::McpServer;

/// Where protected resource metadata is, before the resource's own path.
pub const PROTECTED_RESOURCE: &str = "/.well-known/oauth-protected-resource";

impl Issuer {
    /// RFC 8414 section 2, and what OpenID Connect Discovery asks for besides: older clients look there.
    pub fn metadata(&self) -> Value {
        let settings = &self.parts.settings;
        let endpoint = |path: &str| format!("{}{path}", settings.issuer);
        let methods: Vec<&str> = RegisteredMethod::ALL.iter().map(|(name, _)| *name).collect();
        let with_proof: Vec<&str> = methods.iter().copied().filter(|name| *name != "none").collect();
        let algorithms: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
        let mut scopes: ScopeSet = settings.servers.values().flat_map(|server| server.grantable_scopes()).collect();
        scopes.insert(OFFLINE_ACCESS.to_owned());
        let signs_with = match &settings.access_tokens {
            AccessTokenFormat::Opaque => vec![Algorithm::Es256.name()],
            AccessTokenFormat::Jwt(signers) => signers.iter().map(|signer| signer.algorithm().name()).collect(),
        };
        let mut document = json!({
            "issuer": settings.issuer,
            "authorization_endpoint": endpoint("/authorize"),
            "token_endpoint": endpoint("/token"),
            "revocation_endpoint": endpoint("/revoke"),
            "introspection_endpoint": endpoint("/introspect"),
            "jwks_uri": endpoint("/jwks.json"),
            "scopes_supported": scopes,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": methods,
            "token_endpoint_auth_signing_alg_values_supported": algorithms,
            "revocation_endpoint_auth_methods_supported": methods,
            "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
            "introspection_endpoint_auth_methods_supported": with_proof,
            "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
            "authorization_response_iss_parameter_supported": true,
            "client_id_metadata_document_supported": settings.documents.enabled || !settings.documents.pinned.is_empty(),
            "request_parameter_supported": false,
            "request_uri_parameter_supported": false,
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": signs_with,
        });
        if settings.registration.enabled {
            document["registration_endpoint"] = endpoint("/register").into();
        }
        document
    }

    /// The public keys that access tokens are signed with; empty where they are not signed.
    pub fn key_set(&self) -> Value {
        let keys: Vec<&Value> = match &self.parts.settings.access_tokens {
            AccessTokenFormat::Opaque => Vec::new(),
            AccessTokenFormat::Jwt(signers) => signers.iter().map(|signer| signer.public_jwk()).collect(),
        };
        json!({ "keys": keys })
    }

    /// RFC 9728 section 2 for the server at `path`, or at the root form: the only server's document, or, of several, one
    /// that names what they have in common.
    pub fn protected_resource(&self, path: &str) -> Option<Value> {
        let servers = &self.parts.settings.servers;
        if path.is_empty() || path == "/" {
            let mut all = servers.values();
            return match (all.next(), all.next()) {
                (Some(only), None) => Some(self.resource_document(&only.resource, &only.scopes, only.name.as_str())),
                (Some(_), Some(_)) => {
                    let scopes: ScopeSet = servers.values().flat_map(|server| server.scopes.clone()).collect();
                    Some(self.resource_document(&self.parts.settings.issuer, &scopes, "MCP servers"))
                }
                (None, _) => None,
            };
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let server = servers.values().find(|server| server.path == path)?;
        Some(self.resource_document(&server.resource, &server.scopes, server.name.as_str()))
    }

    fn resource_document(&self, resource: &str, scopes: &ScopeSet, name: &str) -> Value {
        json!({
            "resource": resource,
            "authorization_servers": [self.parts.settings.issuer],
            "scopes_supported": scopes,
            "bearer_methods_supported": ["header"],
            "resource_name": name,
        })
    }

    /// Where the metadata of a server is.
    pub fn resource_metadata_url(&self, server: &McpServer) -> String {
        format!("{}{PROTECTED_RESOURCE}{}", self.parts.settings.issuer, server.path)
    }
}
