//! Every refusal of the bridge: one table of HTTP status, JSON-RPC code, sentence and next step. `docs/errors.md` explains
//! each. Clients of MCP show the message of a JSON-RPC error to their user, so it says all; programs find the same in `data`.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use serde_json::value::RawValue;

use super::NoChild;
use super::era::{HANDSHAKE, MODERN};
use super::message::{self, Outcome, raw};
use super::multiplexer::Failure;
use crate::base::problem_details::ProblemDetails;

/// Why a message is not passed on, or not answered by the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The body is not declared to be JSON.
    ContentType,
    /// The client does not accept what it may be answered with.
    NotAcceptable,
    /// The body is no JSON.
    NotJson,
    /// It is JSON, and no message that a client may send here.
    NotAMessage(&'static str),
    /// The method is not one of those of this era.
    Method {
        /// Those that are.
        allowed: &'static str,
    },
    /// There is no session id.
    NoSession,
    /// The revision is unknown.
    Version {
        /// As it was asked for.
        requested: String,
    },
    /// A header says something else than the body, or is missing.
    HeaderMismatch(&'static str),
    /// `_meta` lacks what the newer era requires.
    NoEnvelope,
    /// A parameter that is needed here is missing or odd.
    Parameter(&'static str),
    /// There are too many streams of this user.
    TooManyStreams,
    /// A session or subscription asks to know of too many resources.
    TooManyResources,
    /// There is no child.
    NoChild(NoChild),
    /// The child did not answer.
    Failed(Failure),
}

impl Refusal {
    /// The slug of the error type.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::ContentType => "content-type",
            Self::NotAcceptable => "not-acceptable",
            Self::NotJson | Self::NotAMessage(_) => "not-a-message",
            Self::Method { .. } => "method-not-allowed",
            Self::NoSession => "session-required",
            Self::Version { .. } => "protocol-version",
            Self::HeaderMismatch(_) => "header-mismatch",
            Self::NoEnvelope | Self::Parameter(_) => "parameter",
            Self::TooManyStreams => "too-many-streams",
            Self::TooManyResources => "too-many-subscriptions",
            Self::NoChild(NoChild::AllBusy { .. }) => "server-busy",
            Self::NoChild(NoChild::BackingOff { .. }) => "server-backing-off",
            Self::NoChild(NoChild::CannotStart { .. }) => "server-cannot-start",
            Self::NoChild(NoChild::Stopping) => "stopping",
            Self::Failed(Failure::Ended) => "server-ended",
            Self::Failed(Failure::Malformed) => "server-malformed",
            Self::Failed(Failure::NeedsInput) => "server-needs-input",
            Self::Failed(Failure::TooMany) => "too-many-calls",
            Self::Failed(Failure::NotReading) => "server-not-reading",
        }
    }

    /// Whether the operator should know.
    pub fn is_our_trouble(&self) -> bool {
        matches!(
            self,
            Self::NoChild(NoChild::AllBusy { .. } | NoChild::BackingOff { .. } | NoChild::CannotStart { .. })
                | Self::Failed(Failure::Ended | Failure::Malformed | Failure::NotReading)
        )
    }

    /// When it is worth trying again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NoChild(NoChild::AllBusy { retry_after } | NoChild::BackingOff { retry_after, .. }) => {
                Some(*retry_after)
            }
            Self::NoChild(NoChild::Stopping)
            | Self::Failed(Failure::TooMany | Failure::NotReading)
            | Self::TooManyStreams => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// The code of the JSON-RPC error.
    fn code(&self) -> i64 {
        match self {
            Self::NotJson => -32700,
            Self::ContentType | Self::NotAcceptable | Self::NotAMessage(_) | Self::Method { .. } | Self::NoSession => {
                -32600
            }
            Self::NoEnvelope | Self::Parameter(_) | Self::TooManyResources => -32602,
            Self::HeaderMismatch(_) => -32020,
            Self::Version { .. } => -32022,
            Self::TooManyStreams | Self::NoChild(_) | Self::Failed(_) => -32603,
        }
    }

    /// What happened and what to do.
    pub fn problem(&self) -> ProblemDetails {
        let again = "try again; a call that changes something may have been carried out";
        let operator = "the operator must look into the log, which has what the server wrote";
        let seconds = self.retry_after().unwrap_or_default().as_secs().max(1);
        let later = format!("try again in {seconds} seconds; Retry-After says so too");
        let (status, title, detail, next): (u16, &'static str, String, String) = match self {
            Self::ContentType => (
                415,
                "Not declared as JSON",
                "A message is sent as application/json.".into(),
                "send Content-Type: application/json".into(),
            ),
            Self::NotAcceptable => (
                406,
                "Not acceptable",
                "An answer may be JSON or a stream of events.".into(),
                "send Accept: application/json, text/event-stream".into(),
            ),
            Self::NotJson => (400, "Not JSON", "The body is not JSON.".into(), "send one JSON-RPC 2.0 message".into()),
            Self::NotAMessage(what) => {
                (400, "Not a message", (*what).into(), "send one JSON-RPC 2.0 request or notification".into())
            }
            Self::Method { allowed } => (
                405,
                "Method not allowed",
                "This era of the protocol does not use the method.".into(),
                format!("use {allowed}"),
            ),
            Self::NoSession => (
                400,
                "Session required",
                "The request names no session.".into(),
                "initialize first, and send the Mcp-Session-Id that comes back".into(),
            ),
            Self::Version { .. } => (
                400,
                "Unsupported protocol version",
                "The revision of the protocol is not known here.".into(),
                format!("use one of {MODERN}, {}", HANDSHAKE.join(", ")),
            ),
            Self::HeaderMismatch(header) => (
                400,
                "Header mismatch",
                format!("The header {header} is missing, there twice, or says something else than the body."),
                "send what the body says".into(),
            ),
            Self::NoEnvelope => (
                400,
                "Envelope missing",
                "params._meta lacks the protocol version or the client's capabilities.".into(),
                "send io.modelcontextprotocol/protocolVersion and io.modelcontextprotocol/clientCapabilities in it".into(),
            ),
            Self::Parameter(what) => (400, "Invalid params", (*what).into(), "correct the parameters".into()),
            Self::TooManyStreams => {
                (503, "Too many streams", "This user has too many streams open at this server.".into(), later)
            }
            Self::TooManyResources => (
                400,
                "Too many subscriptions",
                "A session, or a subscription, may ask for changes of 256 resources.".into(),
                "unsubscribe from some first, or ask for fewer".into(),
            ),
            Self::NoChild(NoChild::AllBusy { .. }) => (
                503,
                "All busy",
                "As many processes of MCP servers run as may, and none of them is idle.".into(),
                later,
            ),
            Self::NoChild(NoChild::BackingOff { why, .. }) => (
                503,
                "MCP server is not started again yet",
                format!("The MCP server of this user ended too often: {why}."),
                later,
            ),
            Self::NoChild(NoChild::CannotStart { why }) => {
                (502, "MCP server does not start", format!("The MCP server could not be started: {why}."), operator.into())
            }
            Self::NoChild(NoChild::Stopping) => (503, "Stopping", "Sidekey is about to stop.".into(), later),
            Self::Failed(Failure::Ended) => {
                (200, "MCP server ended", "The MCP server ended before it answered.".into(), again.into())
            }
            Self::Failed(Failure::Malformed) => (
                200,
                "Malformed output",
                "The MCP server wrote something that is no message, and the answer may have been in it.".into(),
                "tell its maker that it must write nothing but messages to standard output; the operator finds more in \
                 the log"
                    .into(),
            ),
            Self::Failed(Failure::NeedsInput) => (
                200,
                "Input needed",
                "The MCP server asks for input in a way that this client does not know.".into(),
                format!("use a client that speaks {MODERN}"),
            ),
            Self::Failed(Failure::TooMany) => {
                (503, "Too many calls", "Too many calls of this user are being answered.".into(), later)
            }
            Self::Failed(Failure::NotReading) => (
                503,
                "MCP server does not read",
                "The MCP server does not read what it is sent, and no more may wait for it.".into(),
                later,
            ),
        };
        ProblemDetails::new(self.slug(), status, title, detail, next)
    }

    /// The status to answer with.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.problem().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The message to answer a request with; `null` where it could not be read.
    pub fn message(&self, id: Option<&RawValue>) -> Vec<u8> {
        let problem = self.problem();
        let text = format!("{} {}.", problem.detail, first_in_capitals(&problem.next_step));
        let error = match self {
            // What clients look at to find a revision that both sides know.
            Self::Version { requested } => {
                let supported: Vec<&str> = [MODERN].into_iter().chain(HANDSHAKE).collect();
                let data = json!({ "supported": supported, "requested": requested });
                json!({ "code": self.code(), "message": "Unsupported protocol version", "data": data })
            }
            _ => json!({ "code": self.code(), "message": text, "data": problem }),
        };
        message::response(id.unwrap_or(RawValue::NULL), Outcome::Error(&raw(&error)))
    }
}

fn first_in_capitals(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The HTTP status for an error that a child answered a client of the newer era with (2026-07-28, streamable HTTP).
pub fn status_of_error(code: i64) -> StatusCode {
    match code {
        -32601 => StatusCode::NOT_FOUND,
        -32700 | -32600 | -32602 | -32022..=-32020 => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}
