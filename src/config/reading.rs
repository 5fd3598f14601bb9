//! What is said where the configuration itself cannot be read.

use std::io::{Error, ErrorKind};
use std::path::Path;

use crate::base::toml_document::Problem;

/// Why the file at `path` cannot be read, and what to do about it.
pub fn unreadable(path: &Path, error: &Error) -> Problem {
    let problem = Problem::of_file(path, format!("cannot read the configuration: {error}"));
    match error.kind() {
        ErrorKind::NotFound => problem.with_hint("`sidekey init` writes one to start from; --config says where it is"),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_no_file_is_told_to_write_one() {
        let said = |kind: ErrorKind| unreadable(Path::new("/s.toml"), &Error::from(kind)).to_string();
        assert!(
            said(ErrorKind::NotFound).ends_with("(`sidekey init` writes one to start from; --config says where it is)")
        );
        assert_eq!(said(ErrorKind::PermissionDenied), "/s.toml: cannot read the configuration: permission denied");
    }
}
