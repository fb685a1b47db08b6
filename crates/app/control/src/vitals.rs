//! How one instance does, concluded from its process and its probes. Pure: results in, health out.

use std::time::Duration;

use switchback_domain::probe::{HealthChecks, ProbeResult};
use switchback_domain::seeded::bug;
use switchback_domain::{InstanceHealth, Timestamp};
use switchback_ports::runtime::{Instance, ProcessState};

/// Which of the three probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeRole {
    /// Has it come up?
    Startup,
    /// Does it live? If not, it is started again.
    Liveness,
    /// May it get requests?
    Readiness,
}

/// What must be done besides remembering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Advice {
    None,
    /// Liveness failed too often: start it again, for this reason.
    Restart(String),
}

/// Everything remembered about one instance's health.
#[derive(Debug, Clone)]
pub(crate) struct Vitals {
    health: InstanceHealth,
    /// Process restarts the rest was learned under: a new process starts from nothing.
    restarts: u32,
    started_up: bool,
    passes: u32,
    failures: u32,
    liveness_failures: u32,
    /// When the readiness probe began to pass without a break.
    healthy_since: Option<Timestamp>,
    reason: Option<String>,
    failed_probes: u64,
}

impl Vitals {
    /// An instance nothing is known about. `before` is what the journal says of it: an instance
    /// that was ready before the control plane restarted stays so until its probes say otherwise.
    pub(crate) fn new(
        checks: &HealthChecks,
        restarts: u32,
        before: Option<InstanceHealth>,
    ) -> Self {
        let was_ready = before == Some(InstanceHealth::Ready) || bug("born-ready");
        Self {
            health: if was_ready { InstanceHealth::Ready } else { InstanceHealth::Starting },
            restarts,
            started_up: checks.startup.is_none() || was_ready,
            passes: 0,
            failures: 0,
            liveness_failures: 0,
            healthy_since: None,
            reason: None,
            failed_probes: 0,
        }
    }

    pub(crate) fn health(&self) -> InstanceHealth {
        self.health
    }

    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Probes that failed after the instance had been ready once, and deaths of its process.
    pub(crate) fn failed_probes(&self) -> u64 {
        self.failed_probes
    }

    pub(crate) fn is_started_up(&self) -> bool {
        self.started_up
    }

    /// Takes in what the runtime says about the process.
    pub(crate) fn process(&mut self, checks: &HealthChecks, instance: &Instance) {
        if instance.restarts != self.restarts {
            let failed = self.failed_probes;
            *self = Self::new(checks, instance.restarts, None);
            self.failed_probes = failed + 1;
        }
        let exit = || instance.last_exit.clone().unwrap_or_else(|| "its process ended".to_owned());
        match &instance.process {
            ProcessState::Starting => self.down(InstanceHealth::Starting, None),
            ProcessState::Running { .. } => {
                let was_down = match self.health {
                    InstanceHealth::Exited
                    | InstanceHealth::CrashLoop
                    | InstanceHealth::Stopping => true,
                    InstanceHealth::Starting | InstanceHealth::Ready | InstanceHealth::Unready => {
                        false
                    }
                };
                if was_down {
                    self.down(InstanceHealth::Starting, Some(exit()));
                }
            }
            ProcessState::BackingOff { crash_loop: false, .. } | ProcessState::Lost => {
                self.down(InstanceHealth::Exited, Some(exit()));
            }
            ProcessState::BackingOff { crash_loop: true, .. } => {
                self.down(InstanceHealth::CrashLoop, Some(exit()));
            }
            ProcessState::Stopping => self.down(InstanceHealth::Stopping, None),
        }
    }

    fn down(&mut self, health: InstanceHealth, reason: Option<String>) {
        self.health = health;
        self.reason = reason.or_else(|| self.reason.take());
        (self.passes, self.failures, self.healthy_since) = (0, 0, None);
    }

    /// Takes in one probe's result.
    pub(crate) fn probed(
        &mut self,
        checks: &HealthChecks,
        role: ProbeRole,
        result: &ProbeResult,
        now: Timestamp,
    ) -> Advice {
        let alive = matches!(
            self.health,
            InstanceHealth::Starting | InstanceHealth::Ready | InstanceHealth::Unready
        );
        if !alive {
            return Advice::None;
        }
        match role {
            ProbeRole::Startup => {
                self.startup(checks, result);
                Advice::None
            }
            ProbeRole::Liveness => self.liveness(checks, result),
            ProbeRole::Readiness => {
                self.readiness(checks, result, now);
                Advice::None
            }
        }
    }

    fn startup(&mut self, checks: &HealthChecks, result: &ProbeResult) {
        let Some(probe) = &checks.startup else { return };
        if result.passed {
            self.passes += 1;
            if self.passes >= probe.healthy_after {
                (self.started_up, self.passes) = (true, 0);
            }
        } else {
            self.passes = 0;
            self.reason = Some(result.detail.clone());
        }
    }

    fn liveness(&mut self, checks: &HealthChecks, result: &ProbeResult) -> Advice {
        let Some(probe) = &checks.liveness else { return Advice::None };
        if result.passed {
            self.liveness_failures = 0;
            return Advice::None;
        }
        self.count_failed_probe();
        self.liveness_failures += 1;
        if self.liveness_failures < probe.unhealthy_after {
            return Advice::None;
        }
        self.liveness_failures = 0;
        Advice::Restart(format!("liveness: {}", result.detail))
    }

    fn readiness(&mut self, checks: &HealthChecks, result: &ProbeResult, now: Timestamp) {
        let probe = &checks.readiness;
        if result.passed {
            self.failures = 0;
            self.passes = self.passes.saturating_add(1);
            let since = *self.healthy_since.get_or_insert(now);
            let long_enough = now.since(since) >= checks.min_healthy_time;
            let was_ready = self.health == InstanceHealth::Unready;
            if self.passes >= probe.healthy_after && (long_enough || was_ready) {
                self.health = InstanceHealth::Ready;
                self.reason = None;
            } else if self.health == InstanceHealth::Starting {
                self.reason = Some(format!("{} (watching it for a while)", result.detail));
            }
            return;
        }
        self.count_failed_probe();
        (self.passes, self.healthy_since) = (0, None);
        self.failures += 1;
        if self.health != InstanceHealth::Ready {
            self.reason = Some(result.detail.clone());
        } else if self.failures >= probe.unhealthy_after {
            self.health = InstanceHealth::Unready;
            self.reason = Some(result.detail.clone());
        }
    }

    /// Failures while it still starts are no news.
    fn count_failed_probe(&mut self) {
        if self.health != InstanceHealth::Starting {
            self.failed_probes += 1;
        }
    }
}

/// How often to probe: as configured, but quickly while the answer is awaited.
pub(crate) fn pace(interval: Duration, health: InstanceHealth) -> Duration {
    /// Fast enough that waiting for readiness adds little to a rollout.
    const IMPATIENT: Duration = Duration::from_millis(250);
    if health == InstanceHealth::Ready { interval } else { interval.min(IMPATIENT) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{checks, instance};

    fn passed() -> ProbeResult {
        ProbeResult { passed: true, detail: "200 OK".to_owned() }
    }

    fn failed() -> ProbeResult {
        ProbeResult { passed: false, detail: "503 starting".to_owned() }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn ready_takes_passes_in_a_row_and_time() {
        let mut checks = checks();
        checks.readiness.healthy_after = 2;
        checks.min_healthy_time = Duration::from_millis(100);
        let mut vitals = Vitals::new(&checks, 0, None);
        let probed = |vitals: &mut Vitals, result, now| {
            vitals.probed(&checks, ProbeRole::Readiness, &result, at(now));
            vitals.health()
        };
        assert_eq!(probed(&mut vitals, passed(), 0), InstanceHealth::Starting);
        assert_eq!(probed(&mut vitals, failed(), 50), InstanceHealth::Starting);
        assert_eq!(probed(&mut vitals, passed(), 100), InstanceHealth::Starting);
        assert_eq!(probed(&mut vitals, passed(), 150), InstanceHealth::Starting);
        assert_eq!(probed(&mut vitals, passed(), 200), InstanceHealth::Ready);
    }

    #[test]
    fn ready_is_lost_after_failures_in_a_row_only() {
        let checks = checks();
        let mut vitals = Vitals::new(&checks, 0, Some(InstanceHealth::Ready));
        for _ in 0..2 {
            vitals.probed(&checks, ProbeRole::Readiness, &failed(), at(0));
        }
        vitals.probed(&checks, ProbeRole::Readiness, &passed(), at(0));
        assert_eq!(vitals.health(), InstanceHealth::Ready);
        for _ in 0..3 {
            vitals.probed(&checks, ProbeRole::Readiness, &failed(), at(0));
        }
        assert_eq!(vitals.health(), InstanceHealth::Unready);
        assert_eq!(vitals.reason(), Some("503 starting"));
        assert_eq!(vitals.failed_probes(), 5);
    }

    #[test]
    fn a_new_process_starts_from_nothing_and_counts_as_a_failure() {
        let checks = checks();
        let mut vitals = Vitals::new(&checks, 0, Some(InstanceHealth::Ready));
        let mut seen = instance();
        seen.process =
            ProcessState::BackingOff { next_start_in: Duration::ZERO, crash_loop: false };
        seen.last_exit = Some("exit code 3".to_owned());
        vitals.process(&checks, &seen);
        assert_eq!(vitals.health(), InstanceHealth::Exited);
        assert_eq!(vitals.reason(), Some("exit code 3"));
        seen.restarts = 1;
        seen.process = ProcessState::Running { pid: 7 };
        vitals.process(&checks, &seen);
        assert_eq!(vitals.health(), InstanceHealth::Starting);
        assert_eq!(vitals.failed_probes(), 1);
    }

    #[test]
    fn liveness_asks_for_a_restart() {
        let mut checks = checks();
        checks.liveness = Some(checks.readiness.clone());
        let mut vitals = Vitals::new(&checks, 0, Some(InstanceHealth::Ready));
        let advice: Vec<_> =
            (0..3).map(|_| vitals.probed(&checks, ProbeRole::Liveness, &failed(), at(0))).collect();
        assert_eq!(advice[..2], [Advice::None, Advice::None]);
        assert!(matches!(&advice[2], Advice::Restart(why) if why.contains("503")));
    }
}
