//! Which rollout is meant: an id, a service's active one, or the only active one.

use switchback_api::client::{Client, RolloutsQuery};
use switchback_api::{Problem, RolloutSummary, Status, code};
use switchback_domain::{EnvironmentName, ServiceName};

/// Whether an argument is a rollout's id rather than a service: `r` and a number.
pub(crate) fn is_rollout_id(text: &str) -> bool {
    let digits = text.strip_prefix('r').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The id of the active rollout that is meant.
pub(crate) async fn active(
    client: &Client,
    target: Option<&str>,
    environment: Option<&EnvironmentName>,
) -> Result<String, Problem> {
    match target {
        Some(id) if is_rollout_id(id) => Ok(id.to_owned()),
        _ => choose(&client.status(environment).await?, target),
    }
}

/// The id of the rollout that is meant, active or not: the active one if there is one, otherwise
/// the newest.
pub(crate) async fn newest(
    client: &Client,
    target: Option<&str>,
    environment: Option<&EnvironmentName>,
) -> Result<String, Problem> {
    if let Some(id) = target.filter(|text| is_rollout_id(text)) {
        return Ok(id.to_owned());
    }
    let query = RolloutsQuery {
        environment: environment.cloned(),
        service: target.map(service).transpose()?,
        limit: None,
    };
    let rollouts = client.rollouts(&query).await?;
    let chosen =
        rollouts.iter().find(|rollout| rollout.outcome.is_none()).or_else(|| rollouts.first());
    chosen.map(|rollout| rollout.id.clone()).ok_or_else(|| {
        let of = target.map(|name| format!(" of {name}")).unwrap_or_default();
        code::UNKNOWN_ROLLOUT.problem(format!("there has been no rollout{of} yet"))
    })
}

/// A service's name, checked.
pub(crate) fn service(text: &str) -> Result<ServiceName, Problem> {
    ServiceName::new(text).map_err(|error| {
        code::USAGE
            .problem(format!("{text:?} is neither a rollout (r12) nor a service: it {error}"))
            .hint("`switchback status` lists both")
    })
}

/// The active rollout in a status.
fn choose(status: &Status, target: Option<&str>) -> Result<String, Problem> {
    if let Some(name) = target {
        let name = service(name)?;
        if !status.services.iter().any(|service| service.key.service == name) {
            let known: Vec<_> = status.services.iter().map(|s| s.key.to_string()).collect();
            let problem =
                code::UNKNOWN_SERVICE.problem(format!("no service {name} was brought up"));
            return Err(match known.as_slice() {
                [] => problem.hint("`switchback up` brings the configured ones up"),
                _ => problem.hint(format!("there is {}", known.join(", "))),
            });
        }
    }
    let mut active = status.services.iter().filter_map(|service| service.rollout.as_ref());
    let meant =
        |rollout: &&RolloutSummary| target.is_none_or(|name| rollout.key.service.as_str() == name);
    let found: Vec<_> = active.by_ref().filter(meant).collect();
    match found.as_slice() {
        [only] => Ok(only.id.clone()),
        [] => {
            let of = target.map(|name| format!(" of {name}")).unwrap_or_default();
            Err(code::NO_ROLLOUT_CHOSEN
                .problem(format!("no rollout{of} is active"))
                .hint("`switchback history` lists the ended ones"))
        }
        several => Err(code::NO_ROLLOUT_CHOSEN
            .problem(format!("{} rollouts are active", several.len()))
            .hint("say which one:")
            .details(several.iter().map(|r| format!("{} {}", r.id, r.key)).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn ids_and_services_are_told_apart() {
        assert!(is_rollout_id("r12"));
        for text in ["r", "", "12", "r1x", "router"] {
            assert!(!is_rollout_id(text), "{text}");
        }
    }

    #[test]
    fn the_only_active_rollout_needs_no_name() {
        let mut status = samples::status();
        assert_eq!(choose(&status, None).unwrap(), "r12");
        assert_eq!(choose(&status, Some("api")).unwrap(), "r12");
        assert_eq!(choose(&status, Some("web")).unwrap_err().code, "SB0206");
        assert_eq!(choose(&status, Some("nope")).unwrap_err().code, "SB0209");
        assert_eq!(choose(&status, Some("No!")).unwrap_err().code, "SB0205");
        let other = RolloutSummary { id: "r13".to_owned(), ..samples::summary() };
        status.services[1].rollout = Some(other);
        let problem = choose(&status, None).unwrap_err();
        assert_eq!(problem.details, ["r12 production/api", "r13 production/api"]);
        status.services.iter_mut().for_each(|service| service.rollout = None);
        assert_eq!(choose(&status, None).unwrap_err().code, "SB0206");
    }
}
