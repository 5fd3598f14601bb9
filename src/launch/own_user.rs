//! A user for one program: no account, no groups, and shared with nobody.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use nix::unistd::{Uid, User};
use rustix::fs::{FlockOperation, flock};

use super::LaunchError;
use super::confined::{OURSELVES, confined};
use crate::base::files;

/// Numbers that neither distributions nor systemd give away.
const NUMBERS: std::ops::RangeInclusive<u32> = 60_706..=61_183;
/// For all Sidekeys of the machine.
const LOCKS: &str = "/run/sidekey";

/// A user that nobody else is while this is held.
pub struct OwnUser {
    /// Its number, and that of its group.
    pub number: u32,
    _lock: File,
}

impl OwnUser {
    /// Takes one.
    pub fn take() -> Result<Self, LaunchError> {
        let failed =
            |error: std::io::Error| LaunchError::Failed(format!("cannot take a user for the command: {error}"));
        // Not always the first one that is free: what the last program has left in public places is the next one's otherwise.
        let (first, all) = (*NUMBERS.start(), NUMBERS.end() - NUMBERS.start() + 1);
        let begin = std::process::id() % all;
        for number in (0..all).map(|step| first + (begin + step) % all) {
            let Some(user) = Self::hold(number).map_err(failed)? else { continue };
            let is_account = !matches!(User::from_uid(Uid::from_raw(number)), Ok(None));
            // What was left behind when a `run` was killed would be company.
            if !is_account && !users_of_processes().map_err(failed)?.contains(&number) {
                return Ok(user);
            }
        }
        let (first, last) = (NUMBERS.start(), NUMBERS.end());
        Err(LaunchError::Failed(format!("all users from {first} to {last} are taken; end some commands first")))
    }

    /// Nobody, if another Sidekey has it.
    fn hold(number: u32) -> std::io::Result<Option<Self>> {
        let locks = Path::new(LOCKS);
        files::private_directory(locks)?;
        let lock = files::open_private(&locks.join(format!("user-{number}")))?;
        Ok(flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(Self { number, _lock: lock }))
    }

    /// Ends what is left of one that a Sidekey had which was killed. The number may be another's by now, which is left alone.
    pub fn end_abandoned(number: u32, sidekey: &Path) {
        if NUMBERS.contains(&number)
            && let Ok(Some(user)) = Self::hold(number)
        {
            user.sweep_with(sidekey);
        }
    }

    /// Ends what is left of it.
    pub fn end_all(&self) {
        self.sweep_with(Path::new(OURSELVES));
    }

    /// The same by way of the Sidekey at `ourselves`.
    pub fn sweep_with(&self, ourselves: &Path) {
        // What is left may end the one that comes to end it, where Landlock does not forbid that, but not each time.
        const TRIES: usize = 100;
        let mut sweep = confined(ourselves);
        sweep.args(["--as", "sweeper", "--user", &self.number.to_string(), "--", "-"]);
        sweep.stdin(Stdio::null()).stdout(Stdio::null());
        let was_ended = |_: &usize| sweep.status().is_ok_and(|status| status.signal().is_some());
        let _ = (0..TRIES).take_while(was_ended).count();
    }
}

/// Their directories in `/proc` say something else of those that hide their memory.
fn users_of_processes() -> std::io::Result<BTreeSet<u32>> {
    let mut users = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")?.filter_map(Result::ok) {
        // One that is no process, or has ended meanwhile, has none.
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let of_process = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        users.extend(of_process.split_whitespace().filter_map(|number| number.parse::<u32>().ok()));
    }
    Ok(users)
}
