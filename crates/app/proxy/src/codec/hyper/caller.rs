//! Who is at the other end of a client's connection.

use crate::service::Entry;
use crate::tls::Session;

/// See the module.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) entry: Entry,
    /// What was agreed on; `None` in plain text.
    pub(crate) session: Option<Session>,
}

impl Caller {
    /// Somebody who speaks plain text.
    pub(crate) fn plain(entry: Entry) -> Self {
        Self { entry, session: None }
    }
}
