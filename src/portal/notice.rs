//! What the next page says of what has just happened. It travels in a cookie that we sign, so that nothing need be stored and nobody
//! can have our pages say something.

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::cookies::{cookie, cookie_key, expire_cookie, set_cookie};
use super::{PublicState, icons};
use crate::base::clock::Timestamp;

const COOKIE: &str = "sidekey_notice";
/// A page follows at once.
const SECONDS: u64 = 60;

/// Something to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Whether all is well.
    pub is_good: bool,
    /// In a few words.
    pub title: String,
    /// What happened, and what to do next.
    pub text: String,
}

#[derive(Serialize, Deserialize)]
struct Sent {
    notice: Notice,
    expires_at: Timestamp,
}

impl Notice {
    /// Good news.
    pub fn good(title: impl Into<String>, text: impl Into<String>) -> Self {
        Self { is_good: true, title: title.into(), text: text.into() }
    }

    /// Something went wrong.
    pub fn bad(title: impl Into<String>, text: impl Into<String>) -> Self {
        Self { is_good: false, title: title.into(), text: text.into() }
    }

    /// As it stands on a page. Screen readers say what went wrong at once.
    pub fn show(&self) -> Markup {
        let role = if self.is_good { "status" } else { "alert" };
        html! {
            div.notice.good[self.is_good] role=(role) {
                (if self.is_good { icons::check() } else { icons::alert() })
                div { p { strong { (self.title) } } p { (self.text) } }
            }
        }
    }
}

/// Has the next page say it.
pub fn send(state: &PublicState, notice: Notice) -> HeaderValue {
    let expires_at = state.clock.now().plus(std::time::Duration::from_secs(SECONDS));
    let text = state.seals.seal(&Sent { notice, expires_at });
    set_cookie(COOKIE, &text, SECONDS, state.public_url.is_https())
}

/// What this page is to say, and the header that has no other page say it again.
pub fn take(state: &PublicState, headers: &HeaderMap) -> (Option<Notice>, Option<HeaderValue>) {
    let is_https = state.public_url.is_https();
    let Some(text) = cookie(headers, COOKIE, is_https) else { return (None, None) };
    let sent: Option<Sent> = state.seals.open(&text);
    let notice = sent.filter(|sent| sent.expires_at > state.clock.now()).map(|sent| sent.notice);
    (notice, expire_cookie(&cookie_key(COOKIE, is_https), is_https))
}

/// Signs what goes through cookies. Each kind of content has a shape of its own, so that none passes for another.
pub struct Seals(crate::base::digest::SigningKey);

impl Seals {
    /// With a key for this purpose alone.
    pub fn new(key: crate::base::digest::SigningKey) -> Self {
        Self(key)
    }

    /// Content and signature, fit for a cookie.
    pub fn seal<T: Serialize>(&self, content: &T) -> String {
        let json = serde_json::to_vec(content).expect("texts and numbers serialize");
        let signature = self.0.sign(&json);
        format!("{}.{}", URL_SAFE_NO_PAD.encode(&json), URL_SAFE_NO_PAD.encode(signature))
    }

    /// The content, if it was signed here.
    pub fn open<T: for<'de> Deserialize<'de>>(&self, text: &str) -> Option<T> {
        let (json, signature) = text.split_once('.')?;
        let (json, signature) = (URL_SAFE_NO_PAD.decode(json).ok()?, URL_SAFE_NO_PAD.decode(signature).ok()?);
        if !self.0.verify(&json, &signature) {
            return None;
        }
        serde_json::from_slice(&json).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::SigningKey;
    use crate::base::secret::SecretKey;

    #[test]
    fn only_what_was_sealed_here_is_opened() {
        let seals = |byte| Seals::new(SigningKey::derive(&SecretKey::new([byte; 32]), "pages"));
        let notice = Notice::bad("Not allowed", "Try again.");
        let text = seals(1).seal(&notice);
        assert_eq!(seals(1).open::<Notice>(&text), Some(notice));
        assert_eq!(seals(2).open::<Notice>(&text), None);
        assert!(seals(1).open::<Sent>(&text).is_none(), "another kind of content");
        let changed = text.replacen('e', "f", 1);
        for junk in ["", ".", "a.b", changed.as_str()] {
            assert_eq!(seals(1).open::<Notice>(junk), None, "{junk}");
        }
    }
}
