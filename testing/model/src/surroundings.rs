//! What the proxy's files name and the model does without, as types that have no value.

pub(crate) mod access_log {
    use switchback_domain::InstanceId;

    use crate::counters::Outcome;

    #[allow(dead_code, reason = "there are no records to tell it")]
    pub(crate) struct Ended {
        pub(crate) outcome: Option<Outcome>,
        pub(crate) why: &'static str,
        pub(crate) received: u64,
        pub(crate) sent: u64,
        pub(crate) retries: u32,
    }

    #[derive(Debug)]
    pub(crate) enum Record {}

    impl Record {
        pub(crate) fn answered(&mut self, _status: u16, _instance: &InstanceId) {
            match *self {}
        }

        pub(crate) fn ended(&mut self, _ended: Ended) {
            match *self {}
        }
    }
}

pub(crate) mod clock {
    use switchback_resilience::Moment;

    /// Time stands still.
    pub(crate) fn now() -> Moment {
        Moment::from_nanos(0)
    }
}

pub(crate) mod cohorts {
    use std::rc::Rc;
    use std::time::Instant;

    use crate::counters::Outcome;

    #[derive(Debug)]
    pub(crate) enum Part {}

    #[derive(Debug)]
    pub(crate) enum Enrolled {}

    #[derive(Debug)]
    pub(crate) enum Cohorts {}

    impl Enrolled {
        pub(crate) fn end(&self, _outcome: Outcome, _micros: u64) {
            match *self {}
        }
    }

    impl Cohorts {
        #[allow(clippy::unused_self, reason = "there is none")]
        pub(crate) fn arrive(
            self: &Rc<Self>,
            part: &Part,
            _at: Instant,
            _session: Option<u64>,
        ) -> Enrolled {
            match *part {}
        }
    }
}

pub(crate) mod compiled {
    use std::rc::Rc;
    use std::sync::Arc;

    use crate::cohorts::Part;
    use crate::counters::Counters;
    pub(crate) use crate::endpoint::{Endpoint, Visit};
    use crate::resilience::Breaker;

    /// The fields of a version that its tickets look at, and one instance.
    #[derive(Debug)]
    pub(crate) struct Arm {
        pub(crate) counters: Arc<Counters>,
        pub(crate) endpoints: [Arc<Endpoint>; 1],
        pub(crate) part: Option<Part>,
        pub(crate) breaker: Option<Breaker>,
    }

    pub(crate) type HeldArm = Rc<Arc<Arm>>;
}

pub(crate) mod resilience {
    use std::time::Duration;

    use crate::counters::Outcome;

    #[derive(Debug)]
    pub(crate) enum Breaker {}

    #[derive(Debug)]
    pub(crate) enum Permit {}

    impl Breaker {
        pub(crate) fn observe(&self, _outcome: Outcome, _is_probe: bool) {
            match *self {}
        }
    }

    impl Permit {
        pub(crate) fn ended(&self, _outcome: Outcome, _took: Duration) {
            match *self {}
        }
    }
}

pub(crate) mod upload {
    #[derive(Debug)]
    pub(crate) enum Upload {}

    impl Upload {
        pub(crate) fn body_bytes(&self) -> u64 {
            match *self {}
        }

        pub(crate) fn take_uncounted(&self) -> u64 {
            match *self {}
        }
    }
}
