//! The consent form's ticket: the request that a page shows, sealed into the form of that page, so that nothing need be
//! kept before the user decides and nothing can be changed on the way.
//!
//! The ticket is bound to a cookie of the browser that was shown the page; the cookie's name is made from the client's id,
//! so that what one client's page brought about does not serve another's. Together they are the form's CSRF protection.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::Issuer;
use crate::base::clock::Timestamp;
use crate::base::digest::{Digest, sha256};
use crate::base::random;
use crate::base::secret::Secret;
use crate::model::authorization::AuthorizationRequest;
use crate::model::names::Subject;
use crate::store::StoreError;
use crate::store::seal::{Context, Sealed};

/// How long a page may be looked at.
pub const LIFETIME: Duration = Duration::from_secs(600);

const CONTEXT: Context<'static> =
    Context { purpose: "consent", subject: "", provider: "", record: "", field: "ticket", generation: 0 };

#[derive(Serialize, Deserialize)]
struct Ticket {
    request: AuthorizationRequest,
    subject: Option<Subject>,
    sign_in_again: bool,
    browser_binding: Digest,
    issued_at: Timestamp,
}

/// What a page was shown for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What the client asks for.
    pub request: AuthorizationRequest,
    /// Who is signed in in the browser.
    pub subject: Option<Subject>,
    /// Whether the client asks that the user sign in once more.
    pub sign_in_again: bool,
}

/// Why a decision does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsentError {
    /// The ticket is not ours, or was changed.
    Forged,
    /// The page was looked at for too long.
    Expired,
    /// The cookie is missing or another one: another browser, another client's page, or another site.
    OtherBrowser,
    /// Somebody else has signed in meanwhile.
    OtherUser,
    /// It was decided about before.
    Decided,
}

/// The name of the cookie that goes with the pages of one client, without prefix.
pub fn cookie_name(client_id: &str) -> String {
    let digest = sha256(client_id.as_bytes());
    format!("sidekey_consent_{}", data_encoding::HEXLOWER.encode(&digest[..8]))
}

impl Issuer {
    /// A ticket for the form, and the value of the cookie that it is bound to: the browser's present one, or a new one.
    pub fn consent_ticket(&self, shown: Shown, present_cookie: Option<String>) -> (String, Secret) {
        let present = present_cookie.filter(|value| value.len() == 43).map(Secret::new);
        let cookie = present.unwrap_or_else(|| random::secret(self.parts.random.as_ref()));
        let Shown { request, subject, sign_in_again } = shown;
        let ticket = Ticket {
            request,
            subject,
            sign_in_again,
            browser_binding: sha256(cookie.expose().as_bytes()),
            issued_at: self.parts.clock.now(),
        };
        let text = Secret::new(serde_json::to_string(&ticket).expect("plain data serializes"));
        let sealed = self.parts.sealer.seal(&CONTEXT, &text);
        (URL_SAFE_NO_PAD.encode(sealed.as_bytes()), cookie)
    }

    /// Uses up a ticket that [`Issuer::consented`] found good; `false` if that was done before: one page, one decision.
    pub async fn use_ticket(&self, ticket: &str) -> Result<bool, StoreError> {
        let until = self.parts.clock.now().plus(LIFETIME);
        self.parts.store.use_assertion(sha256(ticket.as_bytes()), until).await
    }

    /// What a ticket's page was shown for, if it comes from the browser and the user that it was made for.
    pub fn consented(
        &self,
        ticket: &str,
        subject: Option<&Subject>,
        cookie: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Shown, ConsentError> {
        let sealed = URL_SAFE_NO_PAD.decode(ticket).map_err(|_| ConsentError::Forged)?;
        let text = self.parts.sealer.open(&CONTEXT, &Sealed::from_bytes(sealed)).map_err(|_| ConsentError::Forged)?;
        let ticket: Ticket = serde_json::from_str(text.expose()).map_err(|_| ConsentError::Forged)?;
        if self.parts.clock.now() >= ticket.issued_at.plus(LIFETIME) {
            return Err(ConsentError::Expired);
        }
        // Compared as digests, so that the time it takes tells nothing about the value.
        let presented = cookie(&cookie_name(&ticket.request.client_id)).map(|value| sha256(value.as_bytes()));
        if presented != Some(ticket.browser_binding) {
            return Err(ConsentError::OtherBrowser);
        }
        // Who has signed in since, in another tab perhaps, was not named on the page: this visit signs in by itself.
        let is_for_nobody = ticket.subject.is_none();
        if !is_for_nobody && ticket.subject.as_ref() != subject {
            return Err(ConsentError::OtherUser);
        }
        let Ticket { request, subject, sign_in_again, .. } = ticket;
        Ok(Shown { request, subject, sign_in_again: sign_in_again || is_for_nobody })
    }
}
