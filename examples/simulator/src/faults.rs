//! Faults that were asked for, and which one is due at a call. Doing it is `misbehave`'s part.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::profile::Profile;

/// A misbehaviour at certain calls to one endpoint of one profile.
///
/// As JSON, the kind's fields stand beside the others:
/// `{"profile":"quickbooks","endpoint":"refresh","nth":1,"kind":"status","status":503}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The profile's name, or `*` for all.
    pub profile: String,
    /// Calls to what.
    pub endpoint: Endpoint,
    /// From which call on, counted from 1 since the fault was added. None: from the next.
    #[serde(default)]
    pub nth: Option<u64>,
    /// How many calls it hits. None: one with `nth`, otherwise all.
    #[serde(default)]
    pub times: Option<u64>,
    /// What goes wrong.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// Any token request.
    Token,
    /// Token requests with a refresh token.
    Refresh,
    /// Token requests with a code.
    Code,
    /// The API.
    Api,
    /// Revocation.
    Revoke,
    /// The authorization endpoint.
    Authorize,
}

/// What goes wrong. "Commit" means: the request takes effect at the provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// Reset the connection as if the request had not been read; it counts nowhere.
    ResetBeforeReading,
    /// Read the request, do nothing, reset the connection.
    ResetNotCommitted,
    /// Commit, then reset before the status line.
    CommitThenReset,
    /// Commit, send the head of the reply, then reset.
    CommitThenResetAfterHeaders,
    /// Commit, send head and half of the body, then reset.
    CommitHalfBody,
    /// Commit, then answer with this status instead.
    CommitThenStatus {
        /// The status to answer with.
        status: u16,
    },
    /// Answer with this and do nothing.
    Status {
        /// The status to answer with.
        status: u16,
        /// The body; empty if not given.
        #[serde(default)]
        body: Option<String>,
        /// Its `Content-Type`; `text/plain` if not given.
        #[serde(default)]
        content_type: Option<String>,
        /// More headers, e.g. `Retry-After`.
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// Commit, then wait before answering.
    DelayMs {
        /// How long.
        ms: u64,
    },
    /// Wait, then commit (even if the client left), then answer.
    DelayBeforeCommit {
        /// How long.
        ms: u64,
    },
    /// Commit, then send the body slowly.
    Drip {
        /// How slowly; at least 1.
        bytes_per_second: u64,
    },
    /// Commit, then announce ten bytes more than are sent.
    WrongContentLength,
    /// Commit, then answer with a padded body of at least that size.
    HugeBody {
        /// How large.
        bytes: usize,
    },
    /// Redirect and do nothing.
    Redirect {
        /// Where to.
        to: String,
        /// The status, e.g. 302 or 307.
        #[serde(default = "found")]
        status: u16,
    },
    /// Commit, then change fields of the reply.
    BodyPatch {
        /// Fields to set.
        #[serde(default)]
        set: BTreeMap<String, Value>,
        /// Fields to remove.
        #[serde(default)]
        remove: Vec<String>,
    },
    /// An OAuth error in the profile's shape, and do nothing.
    Error {
        /// The `error` code, used as it is.
        error: String,
        /// Its description.
        #[serde(default)]
        description: Option<String>,
        /// The status; without it, the profile's usual one.
        #[serde(default)]
        status: Option<u16>,
    },
}

fn found() -> u16 {
    302
}

impl Fault {
    /// A fault that hits every call.
    pub fn new(profile: &str, endpoint: Endpoint, kind: FaultKind) -> Fault {
        Fault { profile: profile.to_owned(), endpoint, nth: None, times: None, kind }
    }

    /// The same, from the nth call on (counted from 1), and if not said otherwise only there.
    pub fn nth(self, nth: u64) -> Fault {
        Fault { nth: Some(nth), ..self }
    }

    /// The same, for so many calls.
    pub fn times(self, times: u64) -> Fault {
        Fault { times: Some(times), ..self }
    }

    /// Reads a fault; also one whose kind is an object of its own (`"kind":{"kind":…}`).
    pub(crate) fn from_json(mut value: Value) -> Result<Fault, String> {
        if let Some(fields) = value.as_object_mut()
            && let Some(Value::Object(kind)) = fields.get("kind").cloned()
        {
            fields.remove("kind");
            fields.extend(kind);
        }
        let fault: Fault = serde_json::from_value(value).map_err(|error| error.to_string())?;
        fault.check()?;
        Ok(fault)
    }

    /// What the type cannot say.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.profile != "*" && Profile::from_name(&self.profile).is_none() {
            return Err(format!("no profile {:?}", self.profile));
        }
        let status = match &self.kind {
            FaultKind::CommitThenStatus { status }
            | FaultKind::Status { status, .. }
            | FaultKind::Redirect { status, .. } => *status,
            FaultKind::Error { status, .. } => status.unwrap_or(400),
            _ => 200,
        };
        // A server cannot end an exchange with an informational status.
        if !(200..=999).contains(&status) {
            return Err(format!("no final status: {status}"));
        }
        Ok(())
    }
}

/// The faults asked for, each with its own count of calls.
#[derive(Default)]
pub(crate) struct ArmedFaults(Vec<ArmedFault>);

struct ArmedFault {
    fault: Fault,
    calls: u64,
    hits: u64,
}

impl ArmedFaults {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.0.push(ArmedFault { fault, calls: 0, hits: 0 });
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Counts a call and says what should go wrong with it. The fault added first wins.
    pub(crate) fn due(&mut self, profile: Profile, endpoint: Endpoint) -> Option<FaultKind> {
        let mut due = None;
        for armed in &mut self.0 {
            if !armed.fault.concerns(profile, endpoint) {
                continue;
            }
            armed.calls += 1;
            if due.is_none() && armed.strikes() {
                armed.hits += 1;
                due = Some(armed.fault.kind.clone());
            }
        }
        due
    }
}

impl Fault {
    fn concerns(&self, profile: Profile, endpoint: Endpoint) -> bool {
        let token_request = matches!(endpoint, Endpoint::Refresh | Endpoint::Code);
        (self.profile == "*" || self.profile == profile.name())
            && (self.endpoint == endpoint || self.endpoint == Endpoint::Token && token_request)
    }
}

impl ArmedFault {
    fn strikes(&self) -> bool {
        let limit = match (self.fault.times, self.fault.nth) {
            (Some(times), _) => times,
            (None, Some(_)) => 1,
            (None, None) => u64::MAX,
        };
        self.calls >= self.fault.nth.unwrap_or(1) && self.hits < limit
    }
}
