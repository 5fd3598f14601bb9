//! What surrounds a program that is started: the variables that it inherits, what it must not see, and what it must not change.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::base::files;
use crate::config::Outline;

/// What the caller has set, without what is secret or leads to somebody who does what the program must not.
pub fn inherited(outline: &Outline, all: bool) -> BTreeMap<OsString, OsString> {
    const OTHERS: [&str; 3] = ["ALL_PROXY", "all_proxy", "SIDEKEY_CONFIG"];
    const DOORS: [&str; 3] = ["DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR"];
    let is_dropped = |name: &OsStr| {
        let secrets = outline.secret_variables.iter().map(String::as_str);
        let doors = if all { &[] } else { DOORS.as_slice() };
        secrets.chain(OTHERS).chain(doors.iter().copied()).any(|dropped| name == dropped)
    };
    std::env::vars_os().filter(|(name, _)| !is_dropped(name)).collect()
}

/// A user of its own has no home but this.
pub fn own_home(environment: &mut BTreeMap<OsString, OsString>, directory: &Path) {
    environment.retain(|name, _| !name.to_string_lossy().starts_with("XDG_"));
    let own: [(&str, OsString); 4] = [
        ("HOME", directory.join("home").into()),
        ("TMPDIR", directory.join("tmp").into()),
        ("USER", "sidekey".into()),
        ("LOGNAME", "sidekey".into()),
    ];
    environment.extend(own.map(|(name, value)| (name.into(), value)));
}

/// The directory of [`place_of_siblings`] in the store's.
pub const SIBLINGS: &str = "runs";

/// Where programs of the same user have their directories: in the store's, which none of them sees, so that each sees its own and no
/// other. Where the store is somebody else's there is no such place.
pub fn place_of_siblings(outline: &Outline) -> Option<PathBuf> {
    let place = outline.store_directory.join(SIBLINGS);
    files::private_directory(&outline.store_directory).and_then(|()| files::private_directory(&place)).ok()?;
    Some(place)
}

/// What a program of the same user must not see: secrets, and the sockets of whoever would start something for it elsewhere.
pub fn hidden(outline: &Outline) -> Vec<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let mut paths = vec![outline.store_directory.clone(), outline.admin_socket.clone()];
    paths.extend(outline.secret_files.iter().cloned());
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let named = ["SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "SCREENDIR"].into_iter().filter_map(variable);
    let tmux = variable("TMUX_TMPDIR").map(|directory| directory.join(format!("tmux-{user}")));
    // The socket, and two numbers.
    let in_tmux = std::env::var("TMUX").ok().and_then(|text| text.split(',').next().map(PathBuf::from));
    let docker = std::env::var("DOCKER_HOST").ok().and_then(|url| url.strip_prefix("unix://").map(PathBuf::from));
    let sockets = [
        "/tmp/.X11-unix",
        "/run/docker.sock",
        "/run/containerd",
        "/run/podman",
        "/run/dbus",
        "/run/screen",
        "/tmp/screens",
        "/run/libvirt",
        "/run/incus",
        "/var/lib/incus/unix.socket",
        "/var/lib/lxd/unix.socket",
        "/var/snap/lxd/common/lxd/unix.socket",
    ];
    let of_user = [
        format!("/run/user/{user}"),
        format!("/tmp/tmux-{user}"),
        format!("/tmp/zellij-{user}"),
        format!("/tmp/emacs{user}"),
    ];
    let in_home = variable("HOME")
        .into_iter()
        .flat_map(|home| [".screen", ".docker/run", ".docker/desktop", ".colima"].map(|name| home.join(name)));
    let doors = named.chain(tmux).chain(in_tmux).chain(docker).chain(in_home);
    let doors = doors.chain(sockets.map(PathBuf::from)).chain(of_user.map(PathBuf::from));
    // Whatever a variable says, the program needs these.
    let needed = [std::env::current_dir().unwrap_or_default(), std::env::temp_dir()];
    paths.extend(doors.filter(|door| door.is_absolute() && !needed.iter().any(|needed| needed.starts_with(door))));
    paths
}

/// What it must not change.
pub fn kept(outline: &Outline) -> Vec<PathBuf> {
    outline.decisive.iter().cloned().chain(std::env::current_exe()).collect()
}

/// For a child of a server: nothing of what the server was started with but what says where programs are and how people write, and
/// what a recipe asks for.
pub fn plain<'a>(asked: impl Iterator<Item = &'a str>) -> BTreeMap<OsString, OsString> {
    const NAMES: [&str; 4] = ["PATH", "LANG", "LANGUAGE", "TZ"];
    let asked: Vec<&str> = asked.chain(NAMES).collect();
    let is_kept = |name: &OsStr| asked.iter().any(|kept| name == *kept) || name.as_encoded_bytes().starts_with(b"LC_");
    std::env::vars_os().filter(|(name, _)| is_kept(name)).collect()
}
