//! How users appear: their accounts.

use crate::profile::Profile;
use crate::random;

/// A user's own account, when accounts are not shared.
pub(crate) fn own_realm(profile: Profile, shared: &str, user: &str) -> String {
    let named = format!("{shared}/{user}");
    match profile {
        // As long as a company's number.
        Profile::Quickbooks => format!("934145{:010}", random::number_of(&named)),
        _ => random::uuid_of(&named),
    }
}
