//! The kernel's keyrings, in which programs keep secrets: whoever is started inherits one (`@s`), and every user has others, which
//! outlive its processes.

use keyutils::{Keyring, SpecialKeyring};
use nix::errno::Errno;

const TOO_MANY: &str = "cannot leave the session keyring: this user has as many keys as it may have. Raise kernel.keys.maxkeys and \
                        kernel.keys.maxbytes (sysctl)";

/// Leaves the session keyring of whoever started this, and with it what is in it, for a new and empty one.
pub(super) fn leave_session() -> Result<(), String> {
    match Keyring::join_anonymous_session().map_err(|error| Errno::from_raw(error.0)) {
        Ok(_) => Ok(()),
        // There are none in this kernel, or a filter forbids them (as in Docker): to the program as well, which inherits it.
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(Errno::EDQUOT) => Err(TOO_MANY.to_owned()),
        Err(error) => Err(format!("cannot leave the session keyring: {error}")),
    }
}

/// Empties what the last program of this user may have left for the next one. What cannot be reached from here, the program
/// cannot reach either.
pub(super) fn empty_those_of_user() {
    let of_user = [SpecialKeyring::User, SpecialKeyring::UserSession].map(Keyring::attach);
    let persistent = Keyring::attach(SpecialKeyring::Session).and_then(|mut session| session.attach_persistent());
    for mut keyring in of_user.into_iter().chain([persistent]).flatten() {
        let _ = keyring.clear();
    }
}
