//! Which routes may share an address when some of them are encrypted.

use std::net::SocketAddr;

use switchback_domain::tls::TlsSpec;
use switchback_routing::{Invalid, Route};

use super::support::*;

fn encrypted(service: &str, hosts: &[&str], certificate: &str) -> Route {
    let tls = TlsSpec {
        certificate: certificate.to_owned(),
        key: "key.pem".to_owned(),
        acme: None,
        clients: None,
        redirect_from: Some("127.0.0.1:80".parse().unwrap()),
        hsts: std::time::Duration::ZERO,
    };
    Route { tls: Some(Box::new(tls)), ..route(service, hosts, "/") }
}

#[test]
fn an_address_is_encrypted_for_all_or_for_none() {
    let routes = vec![encrypted("a", &["a.test"], "a"), route("b", &["b.test"], "/")];
    let refused = table(routes).check().unwrap_err();
    assert!(matches!(&refused, Invalid::TlsDiffers { listen: at, .. } if *at == listen()));
    let routes = vec![encrypted("a", &["a.test"], "a"), encrypted("b", &["b.test"], "b")];
    assert_eq!(table(routes.clone()).check(), Ok(()));
    let plain: SocketAddr = "127.0.0.1:80".parse().unwrap();
    let addresses: Vec<_> = routes[0].addresses().collect();
    assert_eq!(addresses, [listen(), plain], "the redirect's is listened on too");
}

#[test]
fn a_host_has_one_certificate() {
    let mut other = encrypted("b", &["a.test"], "b");
    other.path_prefix = "/b".to_owned();
    let refused = table(vec![encrypted("a", &["a.test"], "a"), other.clone()]).check();
    assert!(matches!(refused, Err(Invalid::TlsDiffers { host, .. }) if host == "a.test"));
    other.tls = encrypted("a", &[], "a").tls;
    assert_eq!(table(vec![encrypted("a", &["a.test"], "a"), other]).check(), Ok(()));
}

#[test]
fn nobody_is_sent_on_from_an_encrypted_address() {
    let mut looping = encrypted("b", &["b.test"], "b");
    looping.tls.as_mut().unwrap().redirect_from = Some(listen());
    let refused = table(vec![encrypted("a", &["a.test"], "a"), looping]).check();
    assert!(matches!(refused, Err(Invalid::TlsDiffers { .. })), "{refused:?}");
}
