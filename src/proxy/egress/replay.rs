//! A token that an API calls expired before its time: another one is got, and the request sent again, once.

use http::{HeaderMap, StatusCode};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use tracing::debug;

use super::{Context, Egress, expiry};

/// An answer whose body is looked at as it passes.
pub struct Doubtful {
    status: StatusCode,
    headers: HeaderMap,
    is_past_expiry: bool,
    /// What came of it so far.
    pub body: Vec<u8>,
}

/// Longer bodies are no error messages.
pub const LONGEST_ERROR: usize = 64 * 1024;
/// What Pingora is told when a request is to be sent again.
pub const REPLAY: ErrorType = ErrorType::Custom("token replaced");

impl Egress {
    /// If the API calls the token expired, gets another one and has the request sent again: once, and only if all of it is
    /// still at hand. Otherwise the answer goes to the caller as it is, and the next request has the other token.
    pub(super) async fn replace_expired(
        &self,
        session: &mut Session,
        response: &ResponseHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        let (Some(route), Some(admitted), Some(key)) = (&context.route, &mut context.admitted, &context.key) else {
            return Ok(());
        };
        let (declared, token) = (&route.api.common, &admitted.token);
        let is_past_expiry = token.is_past_expiry(self.parts.clock.now());
        match expiry::judge_head(declared, response.status, &response.headers, is_past_expiry) {
            expiry::Head::Good => return Ok(()),
            expiry::Head::BodyTells => {
                let (status, headers) = (response.status, response.headers.clone());
                context.doubtful = Some(Doubtful { status, headers, is_past_expiry, body: Vec::new() });
                return Ok(());
            }
            expiry::Head::Expired => {}
        }
        let Some(other) = self.parts.vault.replacement(key, token).await else { return Ok(()) };
        let is_upgrade = session.req_header().headers.contains_key(http::header::UPGRADE);
        if context.replayed || is_upgrade || session.as_ref().retry_buffer_truncated() {
            return Ok(());
        }
        debug!(operation = "api_call", request = %context.request, provider = %route.api.provider, outcome = "replayed", generation = other.generation);
        admitted.token = other;
        context.replayed = true;
        Err(Error::new(REPLAY))
    }

    /// Takes note of a body that says that the token has expired: it is too late for this request, not for the next.
    pub(super) fn judge_body(&self, context: &mut Context) {
        let (Some(doubtful), Some(route)) = (context.doubtful.take(), &context.route) else { return };
        let Doubtful { status, headers, is_past_expiry, body } = doubtful;
        let is_expired = expiry::judge_body(&route.api.common, status, &headers, is_past_expiry, &body);
        if let (true, Some(key), Some(admitted)) = (is_expired, &context.key, &context.admitted) {
            self.parts.vault.mark_expired(key, &admitted.token);
        }
    }
}
