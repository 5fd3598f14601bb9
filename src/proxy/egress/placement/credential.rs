//! A credential as it stands in a header: in any scheme, and in either half of `Basic`.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode;

use super::super::caller::is_handle_shaped;
use crate::catalogue::entry::BasicHalf;

/// The two halves of `Basic`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What stands before the first colon.
    pub user: String,
    /// What stands after it.
    pub password: String,
}

impl Pair {
    /// One of the halves.
    pub fn half(&self, half: BasicHalf) -> &str {
        match half {
            BasicHalf::User => &self.user,
            BasicHalf::Password => &self.password,
        }
    }

    /// The other one.
    pub fn other(&self, half: BasicHalf) -> &str {
        match half {
            BasicHalf::User => &self.password,
            BasicHalf::Password => &self.user,
        }
    }
}

/// The pair in `Basic BASE64`. What clients send is taken as it comes: with or without padding, in either alphabet.
pub fn basic(value: &[u8]) -> Option<Pair> {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
    let value = value.trim_ascii();
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let standard = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    };
    let encoded: Vec<u8> = encoded.trim_ascii().iter().map(standard).collect();
    let decoded = String::from_utf8(LENIENT.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':').unwrap_or((decoded.as_str(), ""));
    Some(Pair { user: user.to_owned(), password: password.to_owned() })
}

/// The handles in a header value: of `Bearer X`, of any other scheme, of plain `X`, and of the halves of `Basic`.
pub fn handles(value: &[u8]) -> Vec<String> {
    if let Some(pair) = basic(value) {
        return [pair.user, pair.password].iter().filter_map(|half| handle(half.as_bytes())).collect();
    }
    let value = value.trim_ascii();
    let credential = memchr::memchr(b' ', value).map_or(value, |space| value[space..].trim_ascii_start());
    handle(credential).into_iter().collect()
}

/// A text that is a handle, perhaps percent-encoded.
pub fn handle(text: &[u8]) -> Option<String> {
    let decoded: Cow<'_, [u8]> = match is_handle_shaped(text) {
        true => Cow::Borrowed(text),
        false if memchr::memchr(b'%', text).is_some() => Cow::Owned(percent_decode(text).collect()),
        false => return None,
    };
    if !is_handle_shaped(&decoded) {
        return None;
    }
    String::from_utf8(decoded.into_owned()).ok()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;
    use crate::model::handle::MARKER;

    #[test]
    fn a_handle_is_found_in_any_scheme() {
        let handle = format!("ntn_{MARKER}abc");
        for value in [
            format!("Bearer {handle}"),
            format!("bearer   {handle}"),
            format!("token {handle}"),
            format!("DPoP {handle}"),
            format!("Bearer {}", handle.replace('_', "%5f")),
            handle.clone(),
        ] {
            assert_eq!(handles(value.as_bytes()), [handle.as_str()], "{value}");
        }
        for pair in [format!("x-access-token:{handle}"), format!("{handle}:x"), format!("a@b.c/token:{handle}")] {
            for encoded in [STANDARD.encode(&pair), URL_SAFE_NO_PAD.encode(&pair)] {
                assert_eq!(handles(format!("basic  {encoded}").as_bytes()), [handle.as_str()], "{pair}");
            }
        }
        let both = format!("Basic {}", STANDARD.encode(format!("{handle}:{handle}x")));
        assert_eq!(handles(both.as_bytes()), [handle.clone(), format!("{handle}x")]);
    }

    #[test]
    fn other_credentials_are_none() {
        for other in ["Bearer placeholder", "", "Basic !!", "Bearer", "Basic", "Basic ", "abcdeéfgh", "basié x"] {
            assert_eq!(handles(other.as_bytes()), Vec::<String>::new(), "{other}");
        }
        assert_eq!(handles(b"Bearer \xff\xfe"), Vec::<String>::new());
    }
}
