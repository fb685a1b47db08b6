//! Certificates that are ordered: which are wanted, how far each is, and the task beside the driver
//! that orders what is due, one after the other. When one is due is decided in `core/resilience`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use switchback_api::CertificateStatus;
use switchback_domain::Timestamp;
use switchback_domain::acme::AcmeSpec;
use switchback_domain::time::humane;
use switchback_engine::{Rollout, Service};
use switchback_ports::certificates::{NotOrdered, Proof, Stage};
use switchback_ports::crash_point;
use switchback_resilience::{Failures, Validity, order_due};

use crate::clock;
use crate::driver::{Driver, Links};
use crate::hands::Handle;
use crate::record::{Deed, ITSELF};

/// Between two looks at what is wanted and due: files and configurations change, and so may the
/// wall clock.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the data plane may take to answer an authority.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
const SHOWN_LOOK: Duration = Duration::from_millis(5);

/// How far an order is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stand {
    kept: Option<Validity>,
    failures: Failures,
    /// What the last attempt failed for, if it was made in this life of the control plane.
    error: Option<String>,
    due: Timestamp,
}

/// What the driver knows of them.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    stands: BTreeMap<AcmeSpec, Stand>,
    /// Somebody wants another attempt now.
    is_hurried: bool,
}

/// What is to be kept in order.
struct Wanted {
    specs: BTreeSet<AcmeSpec>,
    /// Whether an authority that comes by would be answered.
    is_reachable: bool,
    is_hurried: bool,
}

impl Driver {
    /// The orders of all versions that serve, and of those that come: theirs are to be there when
    /// they do.
    fn wanted_certificates(&mut self) -> Wanted {
        let services = self.book.services().values();
        let specs: BTreeSet<_> = services.flat_map(|service| orders_of(service)).cloned().collect();
        self.certificates.stands.retain(|spec, _| specs.contains(spec));
        let is_hurried = std::mem::take(&mut self.certificates.is_hurried);
        Wanted { specs, is_reachable: self.publisher.serves_plain(), is_hurried }
    }

    /// Has what failed tried again now, but for what an authority has said.
    pub(crate) fn hurry_certificates(&mut self) {
        self.certificates.is_hurried = true;
    }

    /// Every ordered certificate at a glance.
    pub(crate) fn certificate_statuses(&self) -> Vec<CertificateStatus> {
        let status = |(spec, stand): (&AcmeSpec, &Stand)| CertificateStatus {
            domains: spec.domains.clone(),
            directory: spec.directory.clone(),
            ends_ms: stand.kept.map(|kept| kept.until.as_millis()),
            next_ms: stand.due.as_millis(),
            failures: stand.failures.count,
            error: stand.error.clone(),
        };
        self.certificates.stands.iter().map(status).collect()
    }

    /// Writes what came of an order into the audit.
    fn ordered(&mut self, spec: &AcmeSpec, renewed: bool, result: &Result<Validity, NotOrdered>) {
        let verb = if renewed { "renewed" } else { "obtained" };
        let text = match result {
            Ok(kept) => {
                let now = Timestamp::from_millis(clock::wall_ms());
                let days = kept.until.since(now).as_secs() / 86_400;
                let names = spec.names();
                format!("certificate for {names} {verb} from {}, {days} days", spec.directory)
            }
            Err(why) => format!("certificate for {} not {verb}: {why}", spec.names()),
        };
        let deed = Deed { by: ITSELF.to_owned(), text, failed: result.is_err() };
        // One that cannot be written now is told of by `status`; the certificate is there.
        let _ = self.book.note_deed(deed);
    }
}

fn orders_of(service: &Service) -> impl Iterator<Item = &AcmeSpec> {
    let stable = service.stable().map(|stable| &stable.release);
    let coming = service.rollout.as_ref().map(Rollout::candidate);
    let releases = stable.into_iter().chain(coming).filter_map(|id| service.releases.get(id));
    let specs = releases.filter_map(|release| release.workload.route.as_ref()?.tls.as_ref());
    specs.filter_map(|tls| tls.acme.as_ref())
}

/// Keeps all wanted certificates in order, until the driver ends.
pub(crate) async fn keep_certificates(links: Links, handle: Handle) {
    let mut keeper = Keeper { links, handle, known: HashMap::new() };
    while let Some(wanted) = keeper.handle.ask(Driver::wanted_certificates).await {
        for spec in &wanted.specs {
            keeper.look_after(spec, &wanted).await;
        }
        keeper.known.retain(|spec, _| wanted.specs.contains(spec));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What is remembered between two looks.
#[derive(Debug, Clone)]
struct Known {
    /// Spreads certificates of the same age.
    random: u32,
    error: Option<String>,
    told: Option<Stand>,
}

struct Keeper {
    links: Links,
    handle: Handle,
    known: HashMap<AcmeSpec, Known>,
}

impl Keeper {
    async fn look_after(&mut self, spec: &AcmeSpec, wanted: &Wanted) {
        let certificates = self.links.certificates.clone();
        let mut failures = certificates.failures(spec).await;
        if wanted.is_hurried && failures.count > 0 {
            failures = failures.forgiven();
            certificates.remember(spec, &failures).await;
        }
        let stand = self.stand(spec, certificates.kept(spec).await, failures);
        let is_due = stand.due.as_millis() <= clock::wall_ms();
        self.tell(spec, stand.clone()).await;
        if is_due && wanted.is_reachable {
            self.order(spec, &stand).await;
        }
    }

    fn stand(&mut self, spec: &AcmeSpec, kept: Option<Validity>, failures: Failures) -> Stand {
        let known = self.known.entry(spec.clone()).or_insert_with(|| Known {
            random: rand::random(),
            error: None,
            told: None,
        });
        let due = order_due(kept.as_ref(), &failures, known.random);
        Stand { kept, failures, error: known.error.clone(), due }
    }

    async fn tell(&mut self, spec: &AcmeSpec, stand: Stand) {
        if let Some(known) = self.known.get_mut(spec)
            && known.told.as_ref() != Some(&stand)
        {
            known.told = Some(stand.clone());
            let spec = spec.clone();
            self.handle.ask(move |driver| driver.certificates.stands.insert(spec, stand)).await;
        }
    }

    async fn order(&mut self, spec: &AcmeSpec, stand: &Stand) {
        crash_point("before certificate order");
        let stage = Proscenium { handle: self.handle.clone() };
        let result = self.links.certificates.order(spec, &stage).await;
        crash_point("after certificate order");
        self.handle.ask(|driver| driver.publisher.withdraw_proofs()).await;
        let failures = match &result {
            Ok(_) => Failures::default(),
            Err(why) => {
                let now = Timestamp::from_millis(clock::wall_ms());
                let failures = stand.failures.and(now, why.not_before);
                self.links.certificates.remember(spec, &failures).await;
                failures
            }
        };
        if let Some(known) = self.known.get_mut(spec) {
            known.error = result.as_ref().err().map(ToString::to_string);
        }
        let kept = result.as_ref().ok().copied().or(stand.kept);
        let next = self.stand(spec, kept, failures);
        self.tell(spec, next).await;
        let (spec, renewed) = (spec.clone(), stand.kept.is_some());
        self.handle.ask(move |driver| driver.ordered(&spec, renewed, &result)).await;
    }
}

/// Shows proofs through the data plane, in every worker of every process of its.
struct Proscenium {
    handle: Handle,
}

#[async_trait]
impl Stage for Proscenium {
    async fn show(&self, proofs: &[Proof]) -> Result<(), String> {
        let shown = proofs.to_vec();
        self.handle.ask(move |driver| driver.publisher.prove(shown)).await;
        let deadline = tokio::time::Instant::now() + SHOWN_WITHIN;
        loop {
            let shown = proofs.to_vec();
            match self.handle.ask(move |driver| driver.publisher.proves(&shown)).await {
                Some(true) => return Ok(()),
                None => return Err("the control plane ends".to_owned()),
                Some(false) => {}
            }
            if tokio::time::Instant::now() > deadline {
                let within = humane(SHOWN_WITHIN);
                return Err(format!("the data plane did not take the proof within {within}"));
            }
            tokio::time::sleep(SHOWN_LOOK).await;
        }
    }
}
