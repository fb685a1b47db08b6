//! What `resilience:` of a route means.

use std::time::Duration;

use switchback_config::parse;
use switchback_domain::resilience::{
    AdaptivePolicy, Balance, BreakerPolicy, Bulkhead, ClientKey, ClientRate, EjectionPolicy,
    Fallback, Rate, Resilience, RetryPolicy, StalePolicy, StaticAnswer, Timeouts,
};
use switchback_domain::{EnvironmentName, ServiceName, Weight};

const SAMPLE: &str = include_str!("../../../../tests/sample-configs/valid/resilience.yaml");

fn of(service: &str) -> Option<Resilience> {
    let document = parse(SAMPLE, "case").unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let environment = EnvironmentName::new("default").expect("a valid name");
    let environment = document.environment(&environment).expect("it is in the file");
    let service = environment.service(&ServiceName::new(service).expect("a valid name"));
    let route = service.expect("it is in the file").workload.route.clone();
    route.expect("it has a route").rules.resilience.map(|resilience| *resilience)
}

#[test]
fn every_word_is_read() {
    let seconds = Duration::from_secs;
    let millis = Duration::from_millis;
    let answer = StaticAnswer {
        status: 200,
        body: "[]".to_owned(),
        content_type: "application/json".to_owned(),
    };
    let expected = Resilience {
        timeouts: Timeouts {
            connect: Some(millis(500)),
            request_idle: Some(seconds(20)),
            response_idle: Some(Duration::from_mins(1)),
            total: Some(Duration::from_mins(2)),
        },
        balance: Balance {
            slow_start: seconds(45),
            ejection: Some(EjectionPolicy { failures: 3, base: seconds(10) }),
        },
        breaker: Some(BreakerPolicy {
            failures: 9,
            success_min: Weight::from_percent(80),
            requests_min: 50,
            open: seconds(2),
            open_max: seconds(30),
        }),
        bulkhead: Some(Bulkhead { requests: 100, pending: 20, pending_timeout: millis(500) }),
        adaptive: Some(AdaptivePolicy { initial: 50, min: 10, max: 300 }),
        rate: Some(Rate { requests: 600, per: Duration::from_mins(1), burst: 20 }),
        client_rate: Some(ClientRate {
            rate: Rate { requests: 5, per: seconds(1), burst: 5 },
            key: ClientKey::Header("x-api-key".to_owned()),
        }),
        retries: Some(RetryPolicy {
            attempts: 3,
            statuses: vec![502, 503],
            budget: Weight::from_percent(10),
            per_second_min: 5,
            backoff: millis(10),
            backoff_max: millis(100),
        }),
        fallback: Fallback {
            version: true,
            stale: Some(StalePolicy { max_age: Duration::from_mins(10), bytes: 256 << 10 }),
            answer: Some(answer),
        },
    };
    assert_eq!(of("api"), Some(expected));
}

#[test]
fn short_forms_take_the_defaults() {
    let short = of("short").expect("it is given");
    assert_eq!(short.balance, Balance { slow_start: Duration::ZERO, ejection: None });
    assert_eq!(short.breaker, Some(BreakerPolicy::default()));
    assert_eq!(short.adaptive, Some(AdaptivePolicy::default()));
    let rate = Rate { requests: 100, per: Duration::from_secs(1), burst: 100 };
    assert_eq!((short.rate, short.client_rate), (Some(rate), None));
    assert_eq!(short.retries, Some(RetryPolicy::default()));
    let max_age = Duration::from_secs(30);
    assert_eq!(short.fallback.stale, Some(StalePolicy { max_age, ..StalePolicy::default() }));
    assert_eq!(short.fallback.answer.expect("it is given").status, 503);
}

#[test]
fn what_asks_for_the_defaults_asks_for_nothing() {
    assert_eq!(of("nothing"), None, "such a release keeps the id it had without it");
}
