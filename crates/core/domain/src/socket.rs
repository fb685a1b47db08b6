//! Where a control socket lies: in its state directory, or in a short stand-in when that is deep.
//!
//! Pure: the path only. Who listens creates the directory (0700) and checks that it owns it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Longest path a Unix socket address holds on Linux, without its closing zero byte.
pub const SOCKET_PATH_MAX: usize = 107;

/// The socket `name` of a state directory: `<state_dir>/<name>.sock`, or, when that is longer than
/// a socket address can hold, `/tmp/switchback-<hash of state_dir>/<name>.sock`. Equal arguments
/// give equal paths, so pass an absolute directory. The stand-in directory is shared ground:
/// who listens there creates it with mode 0700 and refuses it when another user owns it.
pub fn socket_path(state_dir: &Path, name: &str) -> PathBuf {
    let file = format!("{name}.sock");
    let plain = state_dir.join(&file);
    if plain.as_os_str().len() <= SOCKET_PATH_MAX {
        return plain;
    }
    let digest = Sha256::digest(state_dir.as_os_str().as_encoded_bytes());
    let mut directory = "/tmp/switchback-".to_owned();
    for byte in digest.iter().take(8) {
        // Writing to a String cannot fail.
        let _ = write!(directory, "{byte:02x}");
    }
    PathBuf::from(directory).join(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_directory_gets_a_short_stand_in_of_its_own() {
        let shallow = Path::new("/var/lib/switchback");
        assert_eq!(socket_path(shallow, "proxy"), shallow.join("proxy.sock"));
        let deep = PathBuf::from(format!("/{}", "d".repeat(120)));
        let other = PathBuf::from(format!("/{}", "e".repeat(120)));
        let path = socket_path(&deep, "proxy");
        assert!(path.as_os_str().len() <= SOCKET_PATH_MAX, "{}", path.display());
        assert_eq!(path, socket_path(&deep, "proxy"));
        assert_ne!(path, socket_path(&other, "proxy"));
        assert_ne!(path, socket_path(&deep, "api"));
    }
}
