//! The two sockets of a data plane, admin and handover: bound under other names first, so that a
//! successor can get ready while the one before it still answers.

use std::io;
use std::path::{Path, PathBuf};

use switchback_ports::data_plane::admin::HANDOVER_NAME;
use tokio::net::UnixListener;

use crate::admin;

/// What stands in the name of a socket until it is to be found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// Nobody else may start meanwhile.
    Bound,
    /// Another process has the name.
    Committed,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Doors {
    pub(crate) admin: UnixListener,
    pub(crate) handover: UnixListener,
    paths: [(PathBuf, PathBuf); 2],
}

impl Doors {
    /// Binds both, each with its permissions on. The error comes with the path it is about.
    pub(crate) fn bind(
        admin: &Path,
        state_dir: &Path,
        until: Until,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let extension = match until {
            Until::Bound => "tmp",
            Until::Committed => "next",
        };
        let handover = socket(state_dir);
        let bind = |path: &Path| {
            let unready = path.with_extension(extension);
            let bound = admin::bind(&unready, state_dir);
            bound.map(|listener| (listener, unready)).map_err(|error| (path.to_owned(), error))
        };
        let ((admin_listener, admin_unready), (handover_listener, handover_unready)) =
            (bind(admin)?, bind(&handover)?);
        Ok(Self {
            admin: admin_listener,
            handover: handover_listener,
            paths: [(admin_unready, admin.to_owned()), (handover_unready, handover)],
        })
    }

    /// Gives both their names. Whatever bore them belongs to a process that has the state
    /// directory no longer.
    pub(crate) fn open(&self) -> Result<(), (PathBuf, io::Error)> {
        for (unready, path) in &self.paths {
            std::fs::rename(unready, path).map_err(|error| (path.clone(), error))?;
        }
        Ok(())
    }
}

/// Where a data plane hands over.
pub(super) fn socket(state_dir: &Path) -> PathBuf {
    switchback_domain::socket_path(state_dir, HANDOVER_NAME)
}

/// Takes both names away: the next owner finds no socket rather than one that nobody answers.
pub(crate) fn remove(admin: &Path, state_dir: &Path) {
    for path in [admin, &socket(state_dir)] {
        let _ = std::fs::remove_file(path);
    }
}
