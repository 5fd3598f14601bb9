//! Searching for secrets where they must not be: raw, base64 in both alphabets at every alignment, hexadecimal,
//! percent-encoded.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;

/// A set of secrets in all the forms in which they could hide.
pub struct LeakSearch {
    needles: Vec<(usize, Vec<u8>)>,
}

/// Shorter texts would be found by chance.
const SHORTEST: usize = 8;

impl LeakSearch {
    /// A search for these secrets; those of fewer than eight characters are left out.
    pub fn new(secrets: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let secrets = secrets.into_iter().enumerate().filter(|(_, secret)| secret.as_ref().len() >= SHORTEST);
        let needles = secrets
            .flat_map(|(index, secret)| forms(secret.as_ref().as_bytes()).into_iter().map(move |form| (index, form)))
            .collect();
        Self { needles }
    }

    /// The positions, in the list of secrets, of all that are found in `haystack`.
    pub fn find(&self, haystack: &[u8]) -> Vec<usize> {
        let mut found: Vec<usize> = self
            .needles
            .iter()
            .filter(|(_, form)| memmem::find(haystack, form).is_some())
            .map(|(index, _)| *index)
            .collect();
        found.dedup();
        found
    }
}

fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = url::form_urlencoded::byte_serialize(secret).collect();
    let every_byte: String = secret.iter().map(|byte| format!("%{byte:02X}")).collect();
    let mut forms = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    forms.extend([percent.into_bytes(), every_byte.into_bytes()]);
    for alignment in 0..3 {
        let mut padded = vec![0; alignment];
        padded.extend_from_slice(secret);
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            // The first and last characters depend on the neighbours: what is between them does not.
            let encoded = engine.encode(&padded).into_bytes();
            let begin = if alignment == 0 { 0 } else { 4 };
            let end = encoded.len() - usize::from(padded.len() % 3 != 0);
            forms.push(encoded[begin..end].to_vec());
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secret = "AB11-secret/+value";
        let search = LeakSearch::new(["another-secret", secret, "short"]);
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let hiding = [
            format!("x{secret}y"),
            hex.clone(),
            hex.to_uppercase(),
            "a=AB11-secret%2F%2Bvalue".to_owned(),
            STANDARD.encode(secret),
            STANDARD.encode(format!("user:{secret}:tail")),
            STANDARD.encode(format!("us:{secret}")),
            STANDARD.encode(format!("u:{secret}, and more")),
        ];
        for text in hiding {
            assert_eq!(search.find(text.as_bytes()), [1], "{text}");
        }
        assert_eq!(search.find(b"AB11-secret/+valu"), [0_usize; 0]);
        assert_eq!(search.find(b"short"), [0_usize; 0]);
    }
}
