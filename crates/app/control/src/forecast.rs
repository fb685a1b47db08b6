//! Before a rollout begins: what its exact test can find in its time at the present traffic, and
//! what it cannot. Pure: the traffic is looked at by the API.

use std::time::Duration;

use switchback_analysis::Settings;
use switchback_analysis::plan::{Detectable, Plan, Step};
use switchback_domain::strategy::RolloutPolicy;
use switchback_domain::time::humane;
use switchback_domain::{ArmStats, Release, ReleaseId, ServiceKey, Weight};
use switchback_engine::{PlanStep, Service};
use switchback_ports::data_plane::Report;

use crate::{judging, trials};

/// How long the traffic is looked at: at ten requests a second it is known to a fifth or so.
pub(crate) const LOOK: Duration = Duration::from_secs(2);

/// A rollout's test, short of the traffic.
pub(crate) struct Forecast {
    service: ServiceKey,
    baseline: ReleaseId,
    steps: Vec<Step>,
    settings: Settings,
    /// How long times do not count.
    warm_up: Duration,
}

impl Forecast {
    /// `None` where nothing is tested: it is switched off, or nothing serves yet.
    pub(crate) fn of(
        service: &Service,
        release: &Release,
        policy: &RolloutPolicy,
        plan: &[PlanStep],
    ) -> Option<Self> {
        let baseline = service.stable()?.release.clone();
        let (steps, replicas) = climb(plan);
        let settings = trials::settings_of(policy, release, replicas)?;
        let warm_up = policy.exact_test.as_ref()?.warm_up;
        Some(Self { service: service.key.clone(), baseline, steps, settings, warm_up })
    }

    /// What there is to say without a look at the traffic.
    pub(crate) fn told_at_once(&self) -> Option<String> {
        let words = "no step waits at a share of the traffic: the test sees what passes by";
        self.steps.is_empty().then(|| words.to_owned())
    }

    /// In words, by two reports of the data plane.
    pub(crate) fn tell(&self, earlier: &Report, later: &Report, between: Duration) -> Vec<String> {
        if earlier.incarnation != later.incarnation {
            return vec!["unknown: the data plane began anew meanwhile".to_owned()];
        }
        let requests = self.accepted(later).saturating_sub(self.accepted(earlier));
        if requests == 0 {
            let looked = humane(LOOK);
            return vec![format!("nothing: no request came within {looked}, and they are needed")];
        }
        let rate = f64::from(u32::try_from(requests).unwrap_or(u32::MAX)) / between.as_secs_f64();
        let baseline = judging::arm(later, &self.service, &self.baseline);
        self.told(rate, &baseline)
    }

    fn accepted(&self, report: &Report) -> u64 {
        let own = report.arms.iter().filter(|arm| arm.arm.service == self.service);
        own.map(|arm| arm.stats.accepted).sum()
    }

    fn told(&self, requests_per_second: f64, baseline: &ArmStats) -> Vec<String> {
        let error_rate = baseline.error_rate().unwrap_or_default();
        let (history, steps, settings) = (&baseline.latency, &self.steps, &self.settings);
        let plan = Plan { requests_per_second, error_rate, history, steps, settings };
        let compared = after(steps, self.warm_up);
        let slowdown = Plan { steps: &compared, ..plan }.detectable().slowdown;
        let found = Detectable { slowdown, ..plan.detectable() };
        let shares = self.steps.iter().map(|step| {
            let (weight, duration) = (step.weight, humane(step.duration));
            format!("{weight} for {duration}")
        });
        let shares = shares.collect::<Vec<_>>().join(", ");
        let rate = short(requests_per_second);
        let errors = match found.error_rate {
            Some(least) => {
                let (least, usual) = (short(least * 100.0), short(error_rate * 100.0));
                format!("{least}% of its requests failing, or more (now: {usual}%)")
            }
            None => "no share of failing requests, not even all of them: too few come".to_owned(),
        };
        let slowness = match found.slowdown {
            Some(least) => format!("requests that take {} times as long, or longer", short(least)),
            None if history.count() == 0 => "no slowness: no time is known to compare".to_owned(),
            None => "no slowness, not even twentyfold: too few requests come".to_owned(),
        };
        let mut told = vec![
            format!("at some {rate} requests a second, {shares}, more often than not:"),
            errors,
            slowness,
        ];
        if self.settings.sticky {
            told.push("less than that: clients stay, and each one counts but once".to_owned());
        }
        told
    }
}

/// The time that a candidate spends at each share, and with how many instances it begins. What an
/// operator ends lasts as long as that takes: nothing is counted on.
fn climb(plan: &[PlanStep]) -> (Vec<Step>, u32) {
    let (mut weight, mut replicas) = (Weight::ZERO, None);
    let mut steps = Vec::new();
    for step in plan {
        let duration = match step {
            PlanStep::SetWeight(to) => {
                weight = *to;
                continue;
            }
            PlanStep::Scale { candidate, .. } => {
                replicas.get_or_insert(*candidate);
                continue;
            }
            PlanStep::Pause(Some(duration)) => *duration,
            PlanStep::Analysis(analysis) => analysis.duration,
            PlanStep::VerifyWayBack
            | PlanStep::Smoke(_)
            | PlanStep::Pause(None)
            | PlanStep::Approve
            | PlanStep::Hook(_)
            | PlanStep::Promote
            | PlanStep::DrainBaseline => continue,
        };
        if weight != Weight::ZERO && weight != Weight::ALL {
            steps.push(Step { weight, duration });
        }
    }
    (steps, replicas.unwrap_or_default())
}

/// The steps without their beginning.
fn after(steps: &[Step], mut beginning: Duration) -> Vec<Step> {
    let mut rest = |step: &Step| {
        let skipped = step.duration.min(beginning);
        beginning = beginning.saturating_sub(skipped);
        Step { duration: step.duration.saturating_sub(skipped), weight: step.weight }
    };
    steps.iter().map(&mut rest).collect()
}

/// Two figures, or all of a larger number.
fn short(number: f64) -> String {
    let decimals = match number {
        10.0.. => 0,
        1.0..10.0 => 1,
        0.1..1.0 => 2,
        _ => 4,
    };
    let text = format!("{number:.decimals$}");
    if decimals == 0 {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(steps: &[(u16, u64)]) -> Forecast {
        let step = |(percent, seconds): &(u16, u64)| Step {
            weight: Weight::from_percent(*percent),
            duration: Duration::from_secs(*seconds),
        };
        Forecast {
            service: ServiceKey::try_from("production/web".to_owned()).unwrap(),
            baseline: ReleaseId::from_stored("v1"),
            steps: steps.iter().map(step).collect(),
            settings: Settings::default(),
            warm_up: Duration::ZERO,
        }
    }

    fn baseline() -> ArmStats {
        let mut stats = ArmStats { responses: [0, 9_990, 0, 0, 10], ..ArmStats::default() };
        (0..10_000).for_each(|n| stats.latency.record(20_000 + n));
        stats
    }

    #[test]
    fn much_traffic_finds_more_than_little_and_none_finds_nothing() {
        let steps = forecast(&[(5, 60), (50, 60)]);
        let told = steps.told(1_000.0, &baseline());
        assert_eq!(
            told[0],
            "at some 1000 requests a second, 5% for 1m, 50% for 1m, more often than not:"
        );
        let least = |told: &[String]| told[1].split('%').next()?.parse::<f64>().ok();
        let much = least(&told).unwrap();
        let little = least(&steps.told(10.0, &baseline())).unwrap();
        assert!(0.1 < much && much < little && little < 20.0, "{much} {little}");
        assert!(told[1].ends_with("(now: 0.1%)") && told[2].contains("times as long"), "{told:?}");
        let hardly = steps.told(0.01, &baseline()).join("\n");
        assert!(hardly.contains("not even all of them") && hardly.contains("not even twenty"));
        let unknown = steps.told(10.0, &ArmStats::default()).join("\n");
        assert!(unknown.contains("no time is known"), "{unknown}");
        let (none, between) = (Report::default(), LOOK);
        assert!(steps.tell(&none, &none, between)[0].starts_with("nothing: no request"));
        let anew = Report { incarnation: "another".to_owned(), ..Report::default() };
        assert!(steps.tell(&none, &anew, between)[0].starts_with("unknown"));
        assert!(forecast(&[]).told_at_once().unwrap().starts_with("no step waits"));
    }

    #[test]
    fn times_are_not_compared_while_instances_are_warming_up() {
        let mut short = forecast(&[(5, 12)]);
        assert!(short.told(1_000.0, &baseline())[2].contains("times as long"));
        short.warm_up = Duration::from_secs(15);
        let told = short.told(1_000.0, &baseline());
        assert!(told[2].starts_with("no slowness"), "{told:?}");
        assert!(told[1].contains("of its requests failing, or more"), "errors count at once");
    }

    #[test]
    fn only_time_at_a_share_counts() {
        let wait = || PlanStep::Pause(Some(Duration::from_secs(9)));
        let to = |percent| PlanStep::SetWeight(Weight::from_percent(percent));
        let scale = |candidate| PlanStep::Scale { candidate, baseline: None };
        let plan =
            [scale(1), wait(), to(5), wait(), scale(3), PlanStep::Approve, wait(), to(100), wait()];
        let (steps, replicas) = climb(&plan);
        let shares: Vec<_> = steps.iter().map(|step| step.weight).collect();
        assert_eq!((shares, replicas), (vec![Weight::from_percent(5); 2], 1));
    }

    #[test]
    fn numbers_are_short() {
        let cases = [(1234.5, "1234"), (12.3, "12"), (2.04, "2"), (2.25, "2.2"), (0.123, "0.12")];
        for (number, text) in cases.into_iter().chain([(0.001_23, "0.0012"), (0.0, "0")]) {
            assert_eq!(short(number), text);
        }
    }
}
