//! How a program is started with what it needs to reach its provider through Sidekey, and with nothing that it could steal:
//! what is wanted ([`plan`]), the files and variables ([`directory`], [`variables`], [`surroundings`]), and the program itself,
//! kept apart ([`confined`], [`own_user`]) and waited for ([`supervise`]).

pub mod bounds;
pub mod confined;
pub mod directory;
mod keyrings;
pub mod own_user;
pub mod plan;
mod removal;
mod sockets;
pub mod supervise;
pub mod surroundings;
pub mod variables;

/// Why a program cannot be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchError {
    /// What is asked for is impossible.
    Usage(String),
    /// It was tried and failed.
    Failed(String),
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Usage(message) | Self::Failed(message)) = self;
        formatter.write_str(message)
    }
}

impl std::error::Error for LaunchError {}

/// From here on the program alone has them: whoever reads what it writes sees when it is done.
pub fn let_go_of_streams() {
    if let Ok(nothing) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&nothing);
        let _ = nix::unistd::dup2_stdout(&nothing);
    }
}
