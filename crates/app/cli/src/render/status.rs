//! What runs now: control plane, data plane, and each service with its rollout and instances.

use switchback_api::{CertificateStatus, InstanceStatus, RolloutSummary, ServiceStatus, Status};

use crate::render::look::{Look, Tone, clean, health};
use crate::render::number::count;
use crate::render::outcome::versions;
use crate::render::progress::{stage, strategy};
use crate::render::table::{self, Cell, indented};
use crate::render::when;

/// Cells of a share's bar.
const BAR_CELLS: usize = 20;

/// The whole status.
pub(crate) fn lines(status: &Status, now_ms: u64, look: Look) -> Vec<String> {
    let mut lines = planes(status, look);
    lines.extend(status.certificates.iter().flat_map(|own| certificate(own, now_ms, look)));
    if status.services.is_empty() {
        lines.push("no service was brought up yet: `switchback up` does".to_owned());
    }
    for service in &status.services {
        lines.push(String::new());
        lines.extend(self::service(service, now_ms, look));
    }
    lines
}

/// One line each for control plane and data plane, and what is wrong with them.
fn planes(status: &Status, look: Look) -> Vec<String> {
    let control = &status.control;
    let plane = &status.data_plane;
    let dot = look.dot();
    let head = format!("{} {dot} {}", status.project, status.environment);
    let mut lines = vec![
        look.paint(Tone::Strong, &head),
        format!("control plane  pid {} {dot} life {}", control.pid, control.epoch),
    ];
    if let Some(why) = &control.degraded {
        let text = format!("  does not deploy at present: {}", clean(why));
        lines.push(look.paint(Tone::Bad, &text));
    }
    let pid = plane
        .pid
        .map_or_else(|| look.paint(Tone::Bad, "does not answer"), |pid| format!("pid {pid}"));
    let listening = if plane.listening.is_empty() {
        "listens nowhere".to_owned()
    } else {
        format!("listens on {}", plane.listening.join(", "))
    };
    lines.push(format!("data plane     {pid} {dot} table {} {dot} {listening}", plane.generation));
    if let Some(other) = plane.version.as_ref().filter(|version| **version != control.version) {
        let other = if other.is_empty() { "an older version" } else { &clean(other) };
        let command = "`switchback proxy upgrade` replaces it without a gap";
        let text = format!("  runs {other}, the control plane {}: {command}", control.version);
        lines.push(look.paint(Tone::Warn, &text));
    }
    if let Some(why) = &plane.error {
        lines.push(look.paint(Tone::Bad, &format!("  {}", clean(why))));
    }
    lines
}

/// How far a certificate is that is ordered, and why it is not there.
fn certificate(certificate: &CertificateStatus, now_ms: u64, look: Look) -> Vec<String> {
    let (names, dot) = (clean(&certificate.domains.join(", ")), look.dot());
    let stand = match certificate.ends_ms {
        None => look.paint(Tone::Bad, "not there yet: clients are refused"),
        Some(ends) if ends <= now_ms => look.paint(Tone::Bad, "has ended: clients refuse it"),
        Some(ends) => format!("good for {}", when::took(ends - now_ms)),
    };
    let next = match certificate.next_ms.checked_sub(now_ms).filter(|wait| *wait > 0) {
        None => "being ordered".to_owned(),
        Some(wait) => format!("next order in {}", when::took(wait)),
    };
    let mut lines = vec![format!("certificate    {names} {dot} {stand} {dot} {next}")];
    if let Some(why) = &certificate.error {
        let times = count(u64::from(certificate.failures), "time");
        let text = format!("  could not be had, {times}: {}", clean(why));
        lines.push(look.paint(Tone::Bad, &text));
    }
    lines
}

fn service(service: &ServiceStatus, now_ms: u64, look: Look) -> Vec<String> {
    let url = service.url.as_deref().unwrap_or_default();
    let head = look.paint(Tone::Strong, &service.key.to_string());
    let mut lines = vec![format!("{head}  {url}").trim_end().to_owned()];
    lines.push(match &service.stable {
        Some(stable) => format!(
            "  stable    {} (revision {}, release {}, promoted {})",
            stable.version,
            stable.revision,
            stable.release,
            when::ago(stable.promoted_ms, now_ms)
        ),
        None => "  stable    none yet".to_owned(),
    });
    lines.extend(operation(service, now_ms, look));
    lines.extend(shares(service, look));
    if let Some(rollout) = &service.rollout {
        lines.extend(rollout_lines(rollout, now_ms, look));
    }
    for queued in &service.queue {
        let versions = versions(queued, look);
        lines.push(format!("  queued    {} {} {versions}", queued.id, strategy(queued)));
    }
    lines.extend(indented(instances(&service.instances, look), 2));
    lines
}

/// What an operator has it do instead of serving.
fn operation(service: &ServiceStatus, now_ms: u64, look: Look) -> Option<String> {
    let of = service.operations.first().filter(|operation| operation.mode.is_some())?;
    let why = of.reason.as_deref().map(|why| format!(": {}", clean(why))).unwrap_or_default();
    let (text, by) = (clean(&of.text), clean(&of.by));
    let line = format!("  operator  {text}, by {by}, {}{why}", when::ago(of.at_ms, now_ms));
    Some(look.paint(Tone::Warn, &line))
}

fn shares(service: &ServiceStatus, look: Look) -> Vec<String> {
    if service.split.is_empty() {
        return vec![look.paint(Tone::Warn, "  serving   nobody: requests get no answer from it")];
    }
    let widest = service.split.iter().map(|share| share.version.as_str().len()).max().unwrap_or(0);
    let line = |share: &switchback_api::Share| {
        let bar = look.bar(share.weight, BAR_CELLS);
        format!(
            "  serving   {:<widest$}  {bar} {:>6}  {}",
            share.version, share.weight, share.release
        )
    };
    service.split.iter().map(line).collect()
}

fn rollout_lines(rollout: &RolloutSummary, now_ms: u64, look: Look) -> Vec<String> {
    let mut lines = vec![
        format!(
            "  rollout   {} {} {} by {}, {}",
            rollout.id,
            strategy(rollout),
            versions(rollout, look),
            clean(&rollout.by),
            when::ago(rollout.started_ms, now_ms)
        ),
        format!(
            "            {} {} {}, {} failed",
            stage(rollout),
            look.dot(),
            count(rollout.candidate_requests, "candidate request"),
            rollout.candidate_failed
        ),
    ];
    if let Some(waiting) = &rollout.waiting_for {
        let text = format!("            waits for {}", clean(waiting));
        lines.push(look.paint(Tone::Warn, &text));
    }
    lines
}

fn instances(instances: &[InstanceStatus], look: Look) -> Vec<String> {
    let headers = ["INSTANCE", "VERSION", "HEALTH", "RESTARTS", "PID", "ADDRESS", "REASON"];
    let rows: Vec<_> = instances.iter().map(instance).collect();
    table::lines(&headers, &rows, look)
}

fn instance(instance: &InstanceStatus) -> Vec<Cell> {
    let report = &instance.report;
    let (word, tone) = health(report.health);
    vec![
        Cell::text(report.id.as_str()),
        Cell::text(instance.version.as_str()),
        Cell::text(word).tone(tone),
        Cell::number(report.restarts),
        Cell::number(instance.pid.map(|pid| pid.to_string()).unwrap_or_default()),
        Cell::text(report.address.map(|address| address.to_string()).unwrap_or_default()),
        Cell::text(report.reason.as_deref().map(clean).unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn everything_that_matters_is_there() {
        let text = lines(&samples::status(), 61_000, Look::PLAIN).join("\n");
        let expected = "\
shop - production
control plane  pid 100 - life 3
data plane     pid 101 - table 3.17 - listens on 127.0.0.1:8080

production/api  http://127.0.0.1:8080/
  stable    v1 (revision 4, release 0a1b2c3d, promoted 1m ago)
  serving   v1  ###############.....    75%  0a1b2c3d
  serving   v2  #####...............    25%  4e5f6a7b
  rollout   r12 canary v1 -> v2 by anna, 1m ago
            Observing  step 3 of 8: weight 25% - 412 candidate requests, 21 failed
  INSTANCE                   VERSION  HEALTH      RESTARTS  PID  ADDRESS          REASON
  production.api.0a1b2c3d.0  v1       ready              0  200  127.0.0.1:40001
  production.api.4e5f6a7b.0  v2       crash loop         7                        exit code 1

production/web
  stable    none yet
  serving   nobody: requests get no answer from it";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_certificate_tells_how_long_it_is_good_or_why_it_is_not_there() {
        let mut status = samples::status();
        let good = CertificateStatus {
            domains: vec!["a.test".to_owned(), "b.test".to_owned()],
            directory: "https://ca.test/dir".to_owned(),
            ends_ms: Some(90 * 86_400_000),
            next_ms: 60 * 86_400_000,
            failures: 0,
            error: None,
        };
        let missing = CertificateStatus {
            ends_ms: None,
            next_ms: 181_000,
            failures: 2,
            error: Some("a.test: no such name (dns)".to_owned()),
            ..good.clone()
        };
        status.certificates = vec![good, missing];
        let text = lines(&status, 61_000, Look::PLAIN).join("\n");
        for expected in [
            "\ncertificate    a.test, b.test - good for 89d 23h - next order in 59d 23h\n",
            "\ncertificate    a.test, b.test - not there yet: clients are refused - next order in 2m 00s\n",
            "\n  could not be had, 2 times: a.test: no such name (dns)\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn what_an_operator_has_a_service_do_is_said_until_it_serves_again() {
        let mut status = samples::status();
        let isolated = switchback_api::OperationEntry {
            mode: Some(switchback_api::Mode::Isolated),
            text: "isolated".to_owned(),
            by: "anna".to_owned(),
            reason: Some("it leaks".to_owned()),
            at_ms: 1_000,
        };
        let serves = switchback_api::OperationEntry {
            mode: None,
            text: "serves".to_owned(),
            ..isolated.clone()
        };
        status.services[0].operations = vec![isolated.clone()];
        let text = lines(&status, 61_000, Look::PLAIN).join("\n");
        assert!(text.contains("\n  operator  isolated, by anna, 1m ago: it leaks\n"), "{text}");
        status.services[0].operations = vec![serves, isolated];
        let text = lines(&status, 61_000, Look::PLAIN).join("\n");
        assert!(!text.contains("operator"), "{text}");
    }

    #[test]
    fn a_data_plane_of_another_version_is_told_of() {
        let mut status = samples::status();
        for (version, words) in [("0.0.9", "  runs 0.0.9, the"), ("", "  runs an older version,")] {
            status.data_plane.version = Some(version.to_owned());
            let text = lines(&status, 61_000, Look::PLAIN).join("\n");
            assert!(text.contains(words) && text.contains("proxy upgrade"), "{text}");
        }
        status.data_plane.version = None;
        assert!(!lines(&status, 61_000, Look::PLAIN).join("\n").contains("proxy upgrade"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut status = samples::status();
        status.control.degraded = Some("the journal's disk is full".to_owned());
        status.data_plane.pid = None;
        status.data_plane.error = Some("127.0.0.1:8080 is in use".to_owned());
        let text = lines(&status, 61_000, Look::PLAIN).join("\n");
        assert!(text.contains("does not deploy at present: the journal's disk is full"));
        assert!(text.contains("data plane     does not answer"));
        assert!(text.contains("127.0.0.1:8080 is in use"));
    }
}
