//! Who orders certificates from an authority and keeps them where the data plane reads them.
//!
//! When one is due is decided elsewhere (`core/resilience`); here it is done, once, to its end.

use async_trait::async_trait;
use switchback_domain::Timestamp;
use switchback_domain::acme::AcmeSpec;
use switchback_resilience::{Failures, Validity};

/// Why there is no new certificate. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotOrdered {
    /// What and why, in the authority's words where it has some.
    pub reason: String,
    /// Before when the authority does not want to be asked again, by the wall clock.
    pub not_before: Option<Timestamp>,
}

impl NotOrdered {
    /// For a reason that the authority does not know of.
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), not_before: None }
    }
}

/// A proof that a name leads here: what is answered to whoever asks for the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What the authority asks for.
    pub token: String,
    /// What it is to read.
    pub answer: String,
}

/// Shows proofs to the world.
#[async_trait]
pub trait Stage: Send + Sync {
    /// Returns when everybody who comes is shown these. The error is a sentence for people.
    async fn show(&self, proofs: &[Proof]) -> Result<(), String>;
}

/// Orders certificates and keeps them.
#[async_trait]
pub trait Certificates: Send + Sync {
    /// From when to when the certificate that is kept is good; `None` if there is none that can be
    /// used.
    async fn kept(&self, spec: &AcmeSpec) -> Option<Validity>;

    /// What has failed since the last success, also before a restart.
    async fn failures(&self, spec: &AcmeSpec) -> Failures;

    /// Remembers a failure beyond a restart. One that cannot be written is forgotten then.
    async fn remember(&self, spec: &AcmeSpec, failures: &Failures);

    /// Orders one, and puts it in the place of the one that was kept. The proofs that the
    /// authority asks for are put on the stage.
    async fn order(&self, spec: &AcmeSpec, stage: &dyn Stage) -> Result<Validity, NotOrdered>;
}
