//! What Pingora's errors mean for both listeners.

use pingora::{Error, ErrorSource, ErrorType};

/// Why a request could not be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The caller's request is not well-formed.
    Malformed,
    /// The other side was too slow.
    TimedOut,
    /// The other side does not prove who it is.
    Certificate,
    /// The proxy on the way does not let us through.
    Proxy,
    /// A mistake of ours.
    Internal,
    /// The other side is not there, or hung up.
    Unreachable,
}

impl Failure {
    /// What an error means, if it is not one of ours that is known already.
    pub fn of(error: &Error) -> Self {
        // A header that `Connection` names and that cannot be left out, or a chunk that is none.
        if *error.esource() == ErrorSource::Downstream {
            return Self::Malformed;
        }
        match error.etype() {
            ErrorType::ConnectTimedout
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout
            | ErrorType::TLSHandshakeTimedout => Self::TimedOut,
            ErrorType::InvalidCert | ErrorType::TLSHandshakeFailure | ErrorType::TLSWantX509Lookup => Self::Certificate,
            ErrorType::ConnectProxyFailure => Self::Proxy,
            ErrorType::InternalError => Self::Internal,
            _ => Self::Unreachable,
        }
    }
}

/// Whether whoever is at the other end does not read anymore.
pub fn is_gone(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed)
}

/// The same, of the caller.
pub fn is_caller_gone(error: &Error) -> bool {
    *error.esource() == ErrorSource::Downstream && is_gone(error)
}
