//! Certificates by ACME (RFC 8555), through `instant-acme`: one order at a time, to its end. What
//! comes of it is kept below the state directory, where the data plane reads it.
//!
//! When to order is not decided here.

mod client;
mod order;
mod roots;
mod shelf;

use std::path::PathBuf;

use async_trait::async_trait;
use switchback_domain::acme::AcmeSpec;
use switchback_ports::certificates::{Certificates, NotOrdered, Stage};
use switchback_resilience::{Failures, Validity};

use crate::shelf::Shelf;

/// Orders certificates, and keeps them, accounts and failures in a directory that is nobody
/// else's.
#[derive(Debug)]
pub struct AcmeCertificates {
    shelf: Shelf,
}

impl AcmeCertificates {
    /// Keeps everything in `directory`, which is made when it is needed.
    pub fn new(directory: PathBuf) -> Self {
        Self { shelf: Shelf::new(directory) }
    }
}

#[async_trait]
impl Certificates for AcmeCertificates {
    async fn kept(&self, spec: &AcmeSpec) -> Option<Validity> {
        self.shelf.certificate(spec)
    }

    async fn failures(&self, spec: &AcmeSpec) -> Failures {
        self.shelf.failures(spec)
    }

    async fn remember(&self, spec: &AcmeSpec, failures: &Failures) {
        self.shelf.remember(spec, failures);
    }

    async fn order(&self, spec: &AcmeSpec, stage: &dyn Stage) -> Result<Validity, NotOrdered> {
        order::order(&self.shelf, spec, stage).await
    }
}
