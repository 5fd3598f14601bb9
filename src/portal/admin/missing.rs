//! What was named and is not there, and what might be meant.

use std::collections::BTreeSet;

use super::{AdminState, Failure};
use crate::base::problem_details::ProblemDetails;
use crate::base::toml_schema::did_you_mean;
use crate::model::connection::ConnectionKey;
use crate::model::names::{ProviderName, Subject, TokenName};
use crate::store::record::ConnectionRecord;

/// There is no such connection; what might be meant is said.
pub(super) async fn unknown_connection(state: &AdminState, key: &ConnectionKey) -> Failure {
    let all = state.store.connections(None).await.unwrap_or_default();
    let of_subject: Vec<&ConnectionKey> =
        all.iter().map(|record| &record.key).filter(|known| known.subject == key.subject).collect();
    let labels: BTreeSet<&str> =
        of_subject.iter().filter(|known| known.provider == key.provider).map(|known| known.label.as_str()).collect();
    let providers: BTreeSet<&str> = of_subject.iter().map(|known| known.provider.as_str()).collect();
    let tokens: Vec<&str> = of_subject
        .iter()
        .filter(|known| known.with_token(None) == key.with_token(None))
        .filter_map(|known| known.token.as_ref().map(TokenName::as_str))
        .collect();
    if let (Some(token), true) = (&key.token, labels.contains(key.label.as_str())) {
        return unknown_token(key, token, &tokens);
    }
    let next = if !labels.is_empty() {
        format!("give --label: there are {}", Vec::from_iter(labels).join(", "))
    } else if state.dance.provider(&key.provider).is_none() && !providers.contains(key.provider.as_str()) {
        return unknown_provider(state, &key.provider);
    } else if !providers.is_empty() {
        format!("{} is connected to {}", key.subject, Vec::from_iter(providers).join(", "))
    } else {
        match similar_subject(&all, &key.subject) {
            Some(similar) => format!("did you mean `{similar}`?"),
            None => "`sidekey status` shows the connections there are".to_owned(),
        }
    };
    Failure(ProblemDetails::new(
        "unknown-connection",
        404,
        "Unknown connection",
        format!("{} has no connection to {} with the label {}.", key.subject, key.provider, key.label),
        next,
    ))
}

/// The connection is there, and its grant has no such access token.
fn unknown_token(key: &ConnectionKey, token: &TokenName, tokens: &[&str]) -> Failure {
    let next = match tokens {
        [] => "leave out --token: the grant has one access token".to_owned(),
        tokens => format!("leave out --token for the first, or give one of {}", tokens.join(", ")),
    };
    let detail = format!("The grant of {} has no access token {token}.", key.with_token(None));
    Failure(ProblemDetails::new("unknown-connection", 404, "Unknown connection", detail, next))
}

pub(super) fn similar_subject(all: &[ConnectionRecord], subject: &Subject) -> Option<String> {
    did_you_mean(subject.as_str(), all.iter().map(|record| record.key.subject.as_str())).map(str::to_owned)
}

pub(super) fn unknown_provider(state: &AdminState, name: &ProviderName) -> Failure {
    let next = match did_you_mean(name.as_str(), state.dance.provider_names().map(ProviderName::as_str)) {
        Some(similar) => format!("did you mean `{similar}`?"),
        None => format!("add [providers.{name}] to the configuration, or correct the name"),
    };
    Failure(ProblemDetails::new(
        "unknown-provider",
        404,
        "Unknown provider",
        format!("No provider {name} is configured."),
        next,
    ))
}
