//! What `route:` means beside where requests come in.

use std::time::Duration;

use switchback_config::parse;
use switchback_domain::route::{
    Affinity, Conditions, LogFormat, Maintenance, Mirror, Observation, PathMatch, PauseLimits,
    Preview, RouteRules, TextMatch, VersionHeader,
};
use switchback_domain::{EnvironmentName, ServiceName, Weight};

const ROUTES: &str = include_str!("../../../../tests/sample-configs/valid/routes.yaml");

fn rules(environment: &str, service: &str) -> RouteRules {
    let document = parse(ROUTES, "case").unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let environment = EnvironmentName::new(environment).expect("a valid name");
    let environment = document.environment(&environment).expect("it is in the file");
    let service = environment.service(&ServiceName::new(service).expect("a valid name"));
    let route = service.expect("it is in the file").workload.route.clone();
    route.expect("it has a route").rules
}

fn exact(text: &str) -> TextMatch {
    TextMatch::Exact(text.to_owned())
}

#[test]
fn matches_are_read_in_full() {
    let rules = rules("production", "api");
    let [first, second, third] = rules.matches.as_slice() else { panic!("{:?}", rules.matches) };
    assert_eq!(first.path, Some(PathMatch::Prefix("/api/v2".to_owned())));
    assert_eq!(first.when.methods, ["GET", "HEAD"]);
    assert_eq!(second.path, Some(PathMatch::Exact("/api/health".to_owned())));
    assert_eq!(second.when, Conditions::default());
    assert_eq!(third.path, Some(PathMatch::Regex("/api/v[0-9]+/items/[^/]+".to_owned())));
    let headers: Vec<_> = third.when.headers.iter().collect();
    let [(language, regex), (client, prefix), (debug, absent)] = headers.as_slice() else {
        panic!("{headers:?}")
    };
    assert_eq!([language, client, debug], [&"accept-language", &"x-client", &"x-debug"]);
    assert_eq!(**regex, TextMatch::Regex("de(-.*)?".to_owned()));
    assert_eq!(**prefix, TextMatch::Prefix("mobile/".to_owned()));
    assert_eq!(**absent, TextMatch::Present(false));
    assert_eq!(third.when.cookies["theme"], exact("dark"));
    assert_eq!(third.when.query.len(), 2);
    let source: Vec<_> = third.when.source.iter().map(ToString::to_string).collect();
    assert_eq!(source, ["10.0.0.0/8", "2001:db8::/32", "127.0.0.1/32"]);
    assert_eq!(rules.to_candidate[0].when.headers["canary"], exact("true"));
    assert_eq!(rules.to_candidate[1].when.source.len(), 1);
}

#[test]
fn the_rest_is_read_with_its_defaults() {
    let rules = rules("production", "api");
    let max_age = Duration::from_hours(24);
    let own = Affinity::OwnCookie { name: "cohort".to_owned(), max_age };
    assert_eq!(rules.affinity, Some(own));
    let network = "10.0.0.0/8".parse().expect("a network");
    let header = VersionHeader { header: "x-version".to_owned(), source: vec![network] };
    assert_eq!(rules.version_header, Some(header));
    let preview = Preview {
        listen: Some("127.0.0.1:8090".parse().expect("an address")),
        hosts: vec!["preview.example.com".to_owned()],
    };
    assert_eq!(rules.preview, Some(preview));
    let fraction = Weight::from_basis_points(1250).expect("a weight");
    assert_eq!(rules.mirror, Some(Mirror { fraction, unsafe_methods: false }));
    let page = "<h1>Back soon</h1>".to_owned();
    let retry_after = Duration::from_mins(5);
    assert_eq!(rules.maintenance, Some(Maintenance { page, retry_after }));
    assert_eq!(rules.pause, Some(PauseLimits { deadline: Duration::from_secs(10), cap: 500 }));
}

#[test]
fn short_forms_take_the_defaults() {
    let internal = rules("production", "internal");
    let header = internal.version_header.expect("it is given").header;
    assert_eq!(header, "x-switchback-version");
    assert_eq!(internal.mirror.expect("it is given").fraction, Weight::from_percent(5));
    let web = rules("production", "web");
    assert_eq!(web.affinity, Some(Affinity::SourceIp));
    assert_eq!(web.version_header.expect("it is given").header, "x-web-version");
    let maintenance = Maintenance { page: String::new(), retry_after: Duration::from_mins(1) };
    assert_eq!(web.maintenance, Some(maintenance));
    assert_eq!(web.pause, Some(PauseLimits { deadline: Duration::from_secs(30), cap: 1000 }));
    let legacy = rules("production", "legacy");
    assert_eq!(legacy.version_header, None);
    assert_eq!(legacy.observation, Observation::default());
    let sampled = Weight::from_basis_points(50).expect("a weight");
    assert_eq!(internal.observation.trace_sample(), sampled);
    assert_eq!(internal.observation.access_log, Some(LogFormat::Json));
    assert_eq!(web.observation.trace_sample(), Weight::from_percent(1));
    assert_eq!(legacy.affinity, Some(Affinity::Cookie("JSESSIONID".to_owned())));
}

#[test]
fn an_overlay_says_the_same_in_another_way() {
    let rules = rules("staging", "api");
    assert_eq!(rules.affinity, Some(Affinity::Header("x-user".to_owned())));
    let preview = rules.preview.expect("it is given");
    assert_eq!(preview.hosts, ["next.staging.example.com"]);
    assert!(preview.listen.is_some(), "what the overlay does not say stays");
}
