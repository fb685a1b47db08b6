//! The memory of one life of the control plane: lost in a crash, except for what the journal has.

use std::collections::{BTreeMap, BTreeSet};

use switchback_domain::{
    Epoch, Generation, InstanceHealth, InstanceId, InstanceReport, ReleaseId, Timestamp,
};
use switchback_engine::{RolloutId, Service};

use crate::plane::Table;

/// One life of the control plane.
pub(crate) struct Control {
    pub(crate) epoch: Epoch,
    pub(crate) up: bool,
    pub(crate) service: Service,
    /// The newest table that was published.
    pub(crate) sent: Option<Table>,
    /// The newest table that the data plane said it serves.
    pub(crate) served: Option<Table>,
    /// What the engine was told last, in this life.
    pub(crate) told: BTreeMap<ReleaseId, Vec<InstanceReport>>,
    /// Looks at instances that are planned already.
    pub(crate) looks: BTreeSet<ReleaseId>,
    /// About what the judge was asked, and since when.
    pub(crate) judging: Option<(RolloutId, usize, Timestamp)>,
    /// Whether the judge's next look is planned already.
    pub(crate) judge_is_awake: bool,
}

impl Control {
    pub(crate) fn new(epoch: Epoch, service: Service) -> Self {
        Self {
            epoch,
            up: true,
            service,
            sent: None,
            served: None,
            told: BTreeMap::new(),
            looks: BTreeSet::new(),
            judging: None,
            judge_is_awake: false,
        }
    }

    /// The table that should be served: the engine's split over the instances it knows as ready
    /// and wants to keep.
    pub(crate) fn wanted_table(&self) -> Table {
        let mut endpoints = BTreeSet::new();
        for (release, pool) in &self.service.pools {
            for report in &pool.instances {
                let ordinal = ordinal_of(&report.id);
                if report.health == InstanceHealth::Ready && ordinal < pool.desired {
                    endpoints.insert((release.clone(), ordinal));
                }
            }
        }
        let last = self.sent.as_ref().map(|table| table.generation);
        let generation =
            last.map_or_else(|| Generation::first(self.epoch), |last| last.next_in(self.epoch));
        let traffic = &self.service.traffic;
        Table { generation, shift: traffic.shift, split: traffic.split.clone(), endpoints }
    }

    /// The published table, if the data plane is known to serve it.
    pub(crate) fn settled_table(&self) -> Option<&Table> {
        self.sent.as_ref().filter(|sent| self.served.as_ref() == Some(sent))
    }
}

fn ordinal_of(id: &InstanceId) -> u32 {
    id.as_str().rsplit('.').next().and_then(|text| text.parse().ok()).unwrap_or(u32::MAX)
}
