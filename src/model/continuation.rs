//! What happens once a browser has connected a provider. The dance carries it along and returns it; the portal acts on it.

use serde::{Deserialize, Serialize};

use crate::model::authorization::VisitId;
use crate::model::names::{Label, ProviderName};
use crate::model::return_to::ReturnTo;

/// Where a browser goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Continuation {
    /// Nowhere: a page says that it is done.
    Done,
    /// An MCP client waits for its code.
    Visit(VisitId),
    /// The user's own page.
    Account,
    /// The page that connects a provider, under this label: the user had to sign in first.
    Connect(ProviderName, Label),
    /// A page of a partner, which is told the result.
    Return(ReturnTo),
}
