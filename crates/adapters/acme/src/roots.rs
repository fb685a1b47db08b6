//! Who vouches for an authority's server: those of a file, or those that the system trusts.

use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A bundle of all public authorities has 250 KiB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Where systems keep their bundle: Debian and Arch, Fedora, SUSE, Alpine and macOS.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Reads them. The error is a sentence for people.
pub(crate) fn roots(authority: Option<&str>) -> Result<RootCertStore, String> {
    if let Some(path) = authority {
        return read(Path::new(path), true);
    }
    let named = env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = BUNDLES.into_iter().map(PathBuf::from).find(|path| path.is_file());
    let bundle = named.or(known).ok_or(
        "this system has no list of public authorities: install `ca-certificates`, or set `ca_file`",
    )?;
    // One that this library does not take is no reason to trust none of the others.
    read(&bundle, false)
}

fn read(path: &Path, strict: bool) -> Result<RootCertStore, String> {
    let wrong = |reason: String| format!("cannot use {}: {reason}", path.display());
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut content))
        .map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for found in CertificateDer::pem_slice_iter(&content) {
        let added = found
            .map_err(|error| error.to_string())
            .and_then(|found| roots.add(found).map_err(|error| error.to_string()));
        if let Err(reason) = added
            && strict
        {
            return Err(wrong(reason));
        }
    }
    if roots.is_empty() { Err(wrong("there is no authority in it".to_owned())) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let text = path.to_string_lossy().into_owned();
        let said = || roots(Some(&text)).unwrap_err();
        assert!(said().starts_with(&format!("cannot use {text}: ")), "{}", said());
        std::fs::write(&path, "nothing").unwrap();
        assert!(said().contains("there is no authority in it"), "{}", said());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&path, broken).unwrap();
        assert!(roots(Some(&text)).is_err());
    }
}
