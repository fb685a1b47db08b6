//! The files: certificates with their keys, accounts, and what has failed. Each is replaced whole
//! or not at all, and read by its owner only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use switchback_domain::acme::AcmeSpec;
use switchback_domain::{Timestamp, certificate};
use switchback_resilience::{Failures, Validity};

/// What a failure looks like in its file.
#[derive(Debug, Serialize, Deserialize)]
struct Failed {
    count: u32,
    last_ms: u64,
    not_before_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shelf {
    directory: PathBuf,
}

impl Shelf {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The certificate that is kept, if it can be used.
    pub(crate) fn certificate(&self, spec: &AcmeSpec) -> Option<Validity> {
        validity(&fs::read(self.directory.join(spec.file_name())).ok()?)
    }

    /// Puts a certificate where the former one was, and forgets what has failed. The error is a
    /// sentence for people.
    pub(crate) fn keep(&self, spec: &AcmeSpec, chain: &str, key: &str) -> Result<Validity, String> {
        let content = format!("{}\n{}\n", chain.trim_end(), key.trim_end());
        let good = validity(content.as_bytes()).ok_or("what the authority sent is not PEM")?;
        self.replace(&spec.file_name(), content.as_bytes())?;
        // What has failed before is of no consequence any more; left over, it delays a renewal.
        let _ = fs::remove_file(self.failures_path(spec));
        Ok(good)
    }

    /// The account at the authority; `None` if there is none that can be read.
    pub(crate) fn account(&self, spec: &AcmeSpec) -> Option<instant_acme::AccountCredentials> {
        let content = fs::read(self.directory.join(spec.account_name())).ok()?;
        serde_json::from_slice(&content).ok()
    }

    /// Keeps an account.
    pub(crate) fn keep_account(
        &self,
        spec: &AcmeSpec,
        account: &instant_acme::AccountCredentials,
    ) -> Result<(), String> {
        let content = serde_json::to_vec(account).map_err(|error| error.to_string())?;
        self.replace(&spec.account_name(), &content)
    }

    /// What has failed since the last success.
    pub(crate) fn failures(&self, spec: &AcmeSpec) -> Failures {
        let read = || serde_json::from_slice(&fs::read(self.failures_path(spec)).ok()?).ok();
        read().map_or_else(Failures::default, |failed: Failed| Failures {
            count: failed.count,
            last: Timestamp::from_millis(failed.last_ms),
            not_before: Timestamp::from_millis(failed.not_before_ms),
        })
    }

    pub(crate) fn remember(&self, spec: &AcmeSpec, failures: &Failures) {
        let failed = Failed {
            count: failures.count,
            last_ms: failures.last.as_millis(),
            not_before_ms: failures.not_before.as_millis(),
        };
        // A disk that is full is told of by whoever needs it; this only makes a restart politer.
        if let Ok(content) = serde_json::to_vec(&failed) {
            let _ = self.replace(&failures_name(spec), &content);
        }
    }

    fn failures_path(&self, spec: &AcmeSpec) -> PathBuf {
        self.directory.join(failures_name(spec))
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<(), String> {
        let path = self.directory.join(name);
        self.try_replace(&path, content)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    fn try_replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let temporary = path.with_extension("new");
        // One that a crash has left may be anybody's to read.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(&self.directory)?.sync_all()
    }
}

fn failures_name(spec: &AcmeSpec) -> String {
    format!("{}.failed.json", spec.file_name())
}

/// From when to when the first certificate is good; `None` without one, or without a key.
fn validity(content: &[u8]) -> Option<Validity> {
    PrivateKeyDer::from_pem_slice(content).ok()?;
    let own = CertificateDer::pem_slice_iter(content).next()?.ok()?;
    let facts = certificate::facts(&own)?;
    let millis = |seconds: i64| {
        Timestamp::from_millis(u64::try_from(seconds).unwrap_or_default().saturating_mul(1000))
    };
    Some(Validity { from: millis(facts.not_before), until: millis(facts.not_after) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn spec() -> AcmeSpec {
        AcmeSpec {
            directory: "https://ca.test/dir".to_owned(),
            email: None,
            domains: vec!["a.test".to_owned()],
            authority: None,
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_certificate_is_kept_for_its_owner_alone_and_ends_what_has_failed() {
        let root = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(root.path().join("acme"));
        assert_eq!(shelf.certificate(&spec()), None);
        let failures = Failures::default().and(Timestamp::from_millis(5), None);
        shelf.remember(&spec(), &failures);
        assert_eq!(Shelf::new(root.path().join("acme")).failures(&spec()), failures);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        let kept = shelf.keep(&spec(), &chain, &key.serialize_pem()).unwrap();
        assert_eq!(shelf.certificate(&spec()), Some(kept));
        assert!(kept.from < kept.until);
        assert_eq!(shelf.failures(&spec()), Failures::default());
        let path = root.path().join("acme").join(spec().file_name());
        assert_eq!((mode(&root.path().join("acme")), mode(&path)), (0o700, 0o600));
        assert!(shelf.keep(&spec(), "no PEM", "at all").is_err());
        assert_eq!(shelf.certificate(&spec()), Some(kept), "the former one stays");
        fs::write(&path, chain).unwrap();
        assert_eq!(shelf.certificate(&spec()), None, "of no use without its key");
    }
}
