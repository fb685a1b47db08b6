//! Certificates that are ordered from an authority, as far as the data plane has to do with them:
//! it answers the authority, waits for the file, and says nothing in plain text meanwhile.

use hyper::Request;
use rustls::pki_types::CertificateDer;
use switchback_domain::acme::AcmeSpec;
use switchback_domain::route::{Maintenance, RouteMode};
use switchback_domain::tls::TlsSpec;
use switchback_domain::{ServiceKey, Split};
use switchback_ports::DataPlane;
use switchback_ports::data_plane::conformance::sample_route;

use super::pki::*;
use super::support::*;
use super::tls::{get_from, http1, route, table_of};

/// Chain and key in one file, as those are kept that were ordered.
fn deliver(pki: &Pki, file: &str, hosts: &[&str]) -> CertificateDer<'static> {
    let issued = pki.issue("issued", hosts, |_| {});
    let read = |name: &str| std::fs::read_to_string(pki.path(name)).unwrap();
    pki.write(file, &(read("issued.pem") + &read("issued.key")));
    issued
}

fn ordered(pki: &Pki, file: &str, domains: &[&str]) -> TlsSpec {
    let acme = AcmeSpec {
        directory: "https://ca.test/dir".to_owned(),
        email: None,
        domains: domains.iter().map(ToString::to_string).collect(),
        authority: None,
    };
    let (certificate, key) = (pki.path(file), pki.path(file));
    TlsSpec { certificate, key, acme: Some(acme), ..pki.spec("none") }
}

#[tokio::test]
async fn an_ordered_certificate_is_waited_for_without_a_word_in_plain_text() {
    let (proxy, listen, pki) = (Running::start().await, free_address(), Pki::new());
    pki.issue("b", &["b.test"], |_| {});
    let instance = version("v1").await;
    let other = route(listen, &["b.test"], pki.spec("b"));
    let config = pki.client(&["http/1.1"], None);
    let alone = vec![route(listen, &["a.test"], ordered(&pki, "one.pem", &["a.test"]))];
    proxy.plane.publish(&table_of(1, alone.clone(), instance)).await.unwrap();
    let refused = connect(listen, "a.test", &config).await.unwrap_err();
    assert!(refused.to_string().contains("AccessDenied"), "{refused}");
    let plain = client(listen).await.send_request(get_from("a.test")).await;
    assert!(plain.is_err(), "an encrypted address is one also without a certificate");
    let warnings = proxy.report().await.warnings;
    assert!(warnings.concat().contains("one.pem: it is being ordered"), "{warnings:?}");
    let routes = [alone, vec![other]].concat();
    proxy.plane.publish(&table_of(2, routes.clone(), instance)).await.unwrap();
    let served = http1(listen, "b.test", &config).await.send_request(get_from("b.test")).await;
    assert_eq!(read(served.unwrap()).await.0, 200, "the others are not concerned");
    let first = deliver(&pki, "one.pem", &["a.test"]);
    let shown = async || {
        let stream = connect(listen, "a.test", &pki.client(&[], None)).await.ok()?;
        Some(stream.get_ref().1.peer_certificates()?[0].clone())
    };
    eventually("the first one is shown", async || shown().await == Some(first.clone())).await;
    assert!(!proxy.report().await.warnings.concat().contains("one.pem"));
    // Another order for the same host: the former serves on until it is there.
    let mut routes = routes;
    routes[0].hosts.push("c.test".to_owned());
    routes[0].tls = Some(Box::new(ordered(&pki, "two.pem", &["a.test", "c.test"])));
    proxy.plane.publish(&table_of(3, routes, instance)).await.unwrap();
    assert_eq!(shown().await, Some(first));
    let second = deliver(&pki, "two.pem", &["a.test", "c.test"]);
    eventually("the second one is shown", async || shown().await == Some(second.clone())).await;
}

#[tokio::test]
async fn an_authority_is_answered_on_plain_addresses_before_anything_else() {
    let (proxy, listen, plain) = (Running::start().await, free_address(), free_address());
    let (pki, other) = (Pki::new(), free_address());
    pki.issue("a", &["a.test"], |_| {});
    let tls = TlsSpec { redirect_from: Some(plain), ..pki.spec("a") };
    let mut resting = sample_route(other, Split::none());
    resting.hosts = vec!["b.test".to_owned()];
    resting.service = ServiceKey::try_from("test/resting".to_owned()).unwrap();
    resting.steering.mode = RouteMode::Maintenance(Maintenance::default());
    let routes = vec![route(listen, &["a.test"], tls), resting];
    let mut table = table_of(1, routes, version("v1").await);
    table.challenges.insert("token".to_owned(), "token.thumb".to_owned());
    proxy.plane.publish(&table).await.unwrap();
    let asked = async |address, host: &str, token: &str| {
        let path = format!("/.well-known/acme-challenge/{token}");
        let request = Request::get(path).header("host", host).body(full("")).unwrap();
        read(client(address).await.send_request(request).await.unwrap()).await
    };
    for (address, host) in [(plain, "a.test"), (other, "b.test"), (plain, "nobody.test")] {
        assert_eq!(asked(address, host, "token").await, (200, "token.thumb".to_owned()), "{host}");
    }
    assert_eq!(asked(plain, "a.test", "another").await.0, 308);
    assert_eq!(asked(other, "b.test", "another").await.0, 503);
    let mut sender = http1(listen, "a.test", &pki.client(&["http/1.1"], None)).await;
    let mut request = get_from("a.test");
    *request.uri_mut() = "/.well-known/acme-challenge/token".parse().unwrap();
    let served = read(sender.send_request(request).await.unwrap()).await;
    assert_eq!(served, (200, "v1".to_owned()), "what comes encrypted is the service's");
    table.challenges.clear();
    table.generation = generation(2);
    proxy.plane.publish(&table).await.unwrap();
    assert_eq!(asked(plain, "a.test", "token").await.0, 308, "withdrawn");
}
