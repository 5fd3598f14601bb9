//! What a callback with a code must show besides: the values that were asked for, and the provider's signature.

use data_encoding::HEXLOWER_PERMISSIVE;
use url::form_urlencoded;

use super::{CallbackError, CallbackParameters};
use crate::base::digest::SigningKey;
use crate::catalogue::Provider;
use crate::catalogue::entry::CallbackSignature;

/// Checks both, where the entry declares them.
pub fn check(provider: &Provider, parameters: &CallbackParameters) -> Result<(), CallbackError> {
    let authorize = &provider.entry.authorize;
    if let Some(declared) = &authorize.callback_signature {
        let secret = provider.client.secret.as_ref().ok_or(CallbackError::BadSignature)?;
        check_signature(declared, &SigningKey::shared(secret), parameters)?;
    }
    for (parameter, expected) in &authorize.expected {
        if parameters.one(parameter)? != Some(expected) {
            return Err(CallbackError::NotAsExpected { parameter: parameter.clone() });
        }
    }
    Ok(())
}

/// Compares in a time that tells nothing about where they differ.
fn check_signature(
    declared: &CallbackSignature,
    key: &SigningKey,
    parameters: &CallbackParameters,
) -> Result<(), CallbackError> {
    let signature = parameters.one(&declared.parameter)?.unwrap_or_default();
    let signature = HEXLOWER_PERMISSIVE.decode(signature.as_bytes()).map_err(|_| CallbackError::BadSignature)?;
    if key.verify(signed_text(declared, parameters)?.as_bytes(), &signature) {
        Ok(())
    } else {
        Err(CallbackError::BadSignature)
    }
}

/// The other parameters, sorted by name and form-encoded. One that is there twice has no place in an order of names.
fn signed_text(declared: &CallbackSignature, parameters: &CallbackParameters) -> Result<String, CallbackError> {
    let is_signed = |name: &str| name != declared.parameter && declared.unsigned.iter().all(|other| other != name);
    let mut signed: Vec<&(String, String)> = parameters.0.iter().filter(|(name, _)| is_signed(name)).collect();
    signed.sort();
    if signed.windows(2).any(|pair| matches!(pair, [(one, _), (other, _)] if one == other)) {
        return Err(CallbackError::Malformed("a parameter is there twice"));
    }
    Ok(form_urlencoded::Serializer::new(String::new()).extend_pairs(signed).finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;

    /// What the shop platform that signs this way gives as example: its query, signed with `hush`.
    const EXAMPLE: &str = "code=0907a61c0c8d55e99db179b68161bc00&hmac=700e2dadb827fcc8609e9d5ce208b2e9cdaab9df07390d2cbca10d7c328fc4bf\
                           &shop=some-shop.myshopify.com&state=0.6784241404160823&timestamp=1337178173";

    fn parameters(query: &str) -> CallbackParameters {
        CallbackParameters(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    fn checked(query: &str) -> Result<(), CallbackError> {
        let declared = CallbackSignature { parameter: "hmac".to_owned(), unsigned: vec!["signature".to_owned()] };
        check_signature(&declared, &SigningKey::shared(&Secret::new("hush")), &parameters(query))
    }

    #[test]
    fn the_documented_example_is_good_in_any_order() {
        assert_eq!(checked(EXAMPLE), Ok(()));
        let turned: Vec<&str> = EXAMPLE.split('&').rev().collect();
        assert_eq!(checked(&turned.join("&")), Ok(()));
        assert_eq!(checked(&format!("{EXAMPLE}&signature=of-an-older-kind")), Ok(()));
        assert_eq!(checked(&EXAMPLE.replace("700e2dadb827fcc8", "700E2DADB827FCC8")), Ok(()));
    }

    #[test]
    fn what_was_changed_added_or_left_out_is_refused() {
        for bad in [
            EXAMPLE.replace("some-shop", "other-shop"),
            EXAMPLE.replace("hmac=700e", "hmac=800e"),
            EXAMPLE.replace("hmac=700e", "hmac=zzzz"),
            EXAMPLE.replace("hmac=", "other="),
            EXAMPLE.replace("&timestamp=1337178173", ""),
            format!("{EXAMPLE}&host=x"),
            "hmac=".to_owned(),
        ] {
            assert_eq!(checked(&bad), Err(CallbackError::BadSignature), "{bad}");
        }
        let twice = format!("{EXAMPLE}&shop=some-shop.myshopify.com");
        assert_eq!(checked(&twice), Err(CallbackError::Malformed("a parameter is there twice")));
    }

    #[test]
    fn values_are_signed_as_forms_write_them() {
        let key = SigningKey::shared(&Secret::new("hush"));
        let signature = HEXLOWER_PERMISSIVE.encode(&key.sign(b"code=a+b%2Fc%3D&host=aG9zdA%3D%3D"));
        assert_eq!(checked(&format!("host=aG9zdA==&code=a%20b/c=&hmac={signature}")), Ok(()));
    }
}
