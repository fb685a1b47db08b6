//! Replacing the data plane's process by another one, without a gap.
//!
//! The new process does it all with the old one (see the proxy's handover); here it is started, and
//! waited for. It ends by itself when it cannot take over, and then nothing has changed.

use std::path::Path;
use std::time::Duration;

use switchback_ports::data_plane::admin::{Health, TAKE_OVER};
use tokio::time::Instant;

use crate::{Error, ProxyDataPlane};

/// How often it is looked whether the new process answers.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// What an upgrade came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgraded {
    /// The process before, as it was; it finishes what it could not hand over.
    pub from: Health,
    /// The process that serves now.
    pub to: Health,
    /// From the start of the new process to its first answer.
    pub took: Duration,
}

impl ProxyDataPlane {
    /// Has a new process take over from the one that runs: of `executable`, or of the program it is
    /// always started from. Returns when the new one serves. Whatever the error, the old one goes
    /// on as if nothing had been asked.
    pub async fn upgrade(&self, executable: Option<&Path>) -> Result<Upgraded, Error> {
        let _one_at_a_time = self.upgrading.try_lock().map_err(|_| Error::Upgrading)?;
        self.collect_children();
        let from = self.health().await.map_err(|source| self.silent(source))?;
        let (begun, said) = (Instant::now(), self.log_length());
        let executable = executable.unwrap_or(&self.options.executable);
        let pid = self.spawn(executable, Some(TAKE_OVER))?;
        loop {
            let answer = self.health().await;
            match &answer {
                Ok(to) if to.pid == pid => {
                    return Ok(Upgraded { from, to: to.clone(), took: begun.elapsed() });
                }
                Ok(_) | Err(_) => {}
            }
            if begun.elapsed() > self.options.upgrade_within {
                // Nothing that was reported as failed may happen later.
                self.kill(pid);
                return Err(match answer {
                    Ok(_) => Error::NotReady { within: self.options.upgrade_within },
                    Err(source) => self.silent(source),
                });
            }
            if let Some(status) = self.collect(pid) {
                return Err(Error::NotReplaced { status, last_words: self.last_words(said) });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
