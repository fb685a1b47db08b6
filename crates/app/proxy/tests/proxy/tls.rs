//! TLS with real handshakes: which certificate, who may come in, what instances are told, and what
//! becomes of files that are broken or replaced while requests run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::date_time_ymd;
use rustls::{ClientConfig, HandshakeKind};
use switchback_domain::Split;
use switchback_domain::tls::{Identity, TlsSpec, UpstreamProtocol, UpstreamSpec, UpstreamTls};
use switchback_ports::DataPlane;
use switchback_ports::data_plane::Error;
use switchback_ports::data_plane::conformance::sample_route;
use switchback_routing::{Route, Table};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::lifecycle;
use super::pki::*;
use super::support::*;

/// A route for these hosts, to `v1`.
pub(crate) fn route(listen: SocketAddr, hosts: &[&str], tls: TlsSpec) -> Route {
    let hosts = hosts.iter().map(ToString::to_string).collect();
    Route { hosts, tls: Some(Box::new(tls)), ..sample_route(listen, Split::all(release("v1"))) }
}

pub(crate) fn table_of(counter: u64, routes: Vec<Route>, instance: SocketAddr) -> Table {
    let arms = vec![arm("v1", &[instance])];
    Table { generation: generation(counter), routes, arms, ..Table::default() }
}

/// An instance that tells what it was told: `header=value`, `-` when it was not there.
async fn telling(header: &'static str) -> SocketAddr {
    instance(move |request: Request<hyper::body::Incoming>| async move {
        let told = request.headers().get(header).map_or("-", |value| value.to_str().unwrap());
        Response::new(full(format!("{header}={told}")))
    })
    .await
}

pub(crate) async fn http1(
    listen: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> SendRequest<Body> {
    let stream = connect(listen, name, config).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

pub(crate) fn get_from(host: &str) -> Request<Body> {
    Request::get("/x?y=z").header("host", host).body(full("")).unwrap()
}

#[tokio::test]
async fn the_name_chooses_the_certificate() {
    let (proxy, listen, pki) = (Running::start().await, free_address(), Pki::new());
    let exact = pki.issue("exact", &["a.test"], |_| {});
    let wild = pki.issue("wild", &["*.b.test"], |_| {});
    let routes = vec![
        route(listen, &["a.test"], pki.spec("exact")),
        route(listen, &["*.b.test"], pki.spec("wild")),
    ];
    proxy.plane.publish(&table_of(1, routes, version("v1").await)).await.unwrap();
    for (name, expected) in [("a.test", &exact), ("x.b.test", &wild), ("A.TEST", &exact)] {
        let stream = connect(listen, name, &pki.client(&["http/1.1"], None)).await.unwrap();
        assert_eq!(&stream.get_ref().1.peer_certificates().unwrap()[0], expected, "{name}");
    }
    // Whoever asks for another name is shown the first certificate, and does not take it.
    let stranger = connect(listen, "c.test", &pki.client(&[], None)).await;
    assert!(stranger.unwrap_err().to_string().contains("not valid for name"));
    for (offered, agreed) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let stream = connect(listen, "a.test", &pki.client(offered, None)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes));
    }
}

#[tokio::test]
async fn plain_requests_are_sent_on_and_encrypted_ones_are_told_of() {
    let (proxy, listen, plain) = (Running::start().await, free_address(), free_address());
    let pki = Pki::new();
    pki.issue("a", &["a.test"], |_| {});
    let tls =
        TlsSpec { redirect_from: Some(plain), hsts: Duration::from_hours(24), ..pki.spec("a") };
    let routes = vec![route(listen, &["a.test"], tls)];
    let instance = telling("x-forwarded-proto").await;
    proxy.plane.publish(&table_of(1, routes, instance)).await.unwrap();
    let mut sender = http1(listen, "a.test", &pki.client(&["http/1.1"], None)).await;
    let mut request = get_from("a.test");
    request.headers_mut().insert("x-forwarded-proto", "http".parse().unwrap());
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["strict-transport-security"], "max-age=86400");
    assert_eq!(read(response).await.1, "x-forwarded-proto=https");
    let response = client(plain).await.send_request(get_from("A.test:80")).await.unwrap();
    assert_eq!(response.status(), 308);
    let expected = format!("https://a.test:{}/x?y=z", listen.port());
    assert_eq!(response.headers()["location"], expected);
    assert_eq!(ask(plain, get_from("other.test")).await.0, 404, "no other host is sent there");
}

#[tokio::test]
async fn who_a_client_is_comes_from_its_certificate_only() {
    let (proxy, listen, pki) = (Running::start().await, free_address(), Pki::new());
    let elsewhere = Pki::new();
    pki.issue("a", &["a.test", "open.test"], |_| {});
    pki.issue("alice", &[], |_| {});
    elsewhere.issue("mallory", &[], |_| {});
    let required = TlsSpec { clients: Some(pki.clients(true)), ..pki.spec("a") };
    let routes =
        vec![route(listen, &["a.test"], required), route(listen, &["open.test"], pki.spec("a"))];
    let header = "x-client-cert-subject";
    proxy.plane.publish(&table_of(1, routes, telling(header).await)).await.unwrap();
    let mut sender = http1(listen, "a.test", &pki.client(&[], Some("alice"))).await;
    let mut claiming = get_from("a.test");
    claiming.headers_mut().insert(header, "CN=root".parse().unwrap());
    let told = read(sender.send_request(claiming).await.unwrap()).await.1;
    assert_eq!(told, format!("{header}=O=Example\\, Inc,CN=alice"));
    // In TLS 1.3 a client hears of the refusal after its own handshake.
    for config in [pki.client(&[], None), elsewhere_client(&pki, &elsewhere)] {
        let came_in = match connect(listen, "a.test", &config).await {
            Ok(mut stream) => stream.read(&mut [0; 16]).await.is_ok(),
            Err(_) => false,
        };
        assert!(!came_in);
    }
    // Through the open door, nobody gets to where a certificate is asked for.
    let config = pki.client(&[], None);
    let mut sender = http1(listen, "open.test", &config).await;
    let mut claiming = get_from("open.test");
    claiming.headers_mut().insert(header, "CN=root".parse().unwrap());
    let told = read(sender.send_request(claiming).await.unwrap()).await;
    assert_eq!(told, (200, format!("{header}=-")));
    assert_eq!(sender.send_request(get_from("a.test")).await.unwrap().status(), 421);
}

/// A client with a certificate of another authority, that trusts this one.
fn elsewhere_client(pki: &Pki, elsewhere: &Pki) -> Arc<ClientConfig> {
    for end in ["pem", "key"] {
        let foreign = elsewhere.path(&format!("mallory.{end}"));
        pki.write(&format!("mallory.{end}"), &std::fs::read_to_string(foreign).unwrap());
    }
    pki.client(&[], Some("mallory"))
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_refused_whole_and_the_old_table_serves_on() {
    let (proxy, listen, pki) = (Running::start().await, free_address(), Pki::new());
    pki.issue("good", &["a.test"], |_| {});
    pki.issue("other", &["a.test"], |_| {});
    pki.issue("expired", &["a.test"], |params| params.not_after = date_time_ymd(2020, 1, 1));
    pki.issue("early", &["a.test"], |params| params.not_before = date_time_ymd(3000, 1, 1));
    pki.issue("elsewhere", &["b.test"], |_| {});
    pki.write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    pki.write("empty.pem", "");
    let instance = version("v1").await;
    let good = vec![route(listen, &["a.test"], pki.spec("good"))];
    proxy.plane.publish(&table_of(1, good, instance)).await.unwrap();
    let with = |change: &dyn Fn(&mut TlsSpec)| {
        let mut spec = pki.spec("good");
        change(&mut spec);
        vec![route(listen, &["a.test"], spec)]
    };
    let cases = [
        (with(&|spec| spec.key = pki.path("other.key")), "it is not the key"),
        (with(&|spec| *spec = pki.spec("expired")), "expired"),
        (with(&|spec| *spec = pki.spec("early")), "not good yet"),
        (with(&|spec| *spec = pki.spec("elsewhere")), "not for a.test"),
        (with(&|spec| spec.certificate = pki.path("garbage.pem")), "garbage.pem"),
        (with(&|spec| spec.certificate = pki.path("empty.pem")), "no certificate in it"),
        (with(&|spec| spec.certificate = pki.path("nowhere.pem")), "nowhere.pem: No such file"),
        (with(&|spec| spec.key = pki.path("good.pem")), "no private key"),
        (with(&|spec| spec.key = pki.path("")), "not a file"),
    ];
    let config = pki.client(&["http/1.1"], None);
    for (routes, reason) in cases {
        let bad = table_of(2, routes, instance);
        for refused in [
            proxy.plane.check(&bad).await.unwrap_err(),
            proxy.plane.publish(&bad).await.unwrap_err(),
        ] {
            assert!(matches!(refused, Error::Refused(_)));
            let told = refused.to_string();
            assert!(told.contains(reason) && told.contains("test/sample"), "{told}");
        }
        let mut sender = http1(listen, "a.test", &config).await;
        let served = read(sender.send_request(get_from("a.test")).await.unwrap()).await;
        assert_eq!(served, (200, "v1".to_owned()), "after {reason}");
    }
    assert_eq!(proxy.report().await.generation, generation(1));
}

#[tokio::test]
async fn certificates_are_replaced_under_load_and_broken_ones_are_not_taken() {
    let (proxy, listen, pki) = (Running::start().await, free_address(), Pki::new());
    pki.issue("a", &["a.test"], |_| {});
    let routes = vec![route(listen, &["a.test"], pki.spec("a"))];
    let table = table_of(1, routes, version("v1").await);
    proxy.plane.publish(&table).await.unwrap();
    let config = pki.client(&["http/1.1"], None);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (config, stop) = (Arc::clone(&config), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut sender = http1(listen, "a.test", &config).await;
                    for _ in 0..20 {
                        sender.ready().await.unwrap();
                        let response = sender.send_request(get_from("a.test")).await.unwrap();
                        assert_eq!(read(response).await, (200, "v1".to_owned()));
                    }
                }
            })
        })
        .collect();
    let shown = async || {
        let stream = connect(listen, "a.test", &pki.client(&[], None)).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    for _ in 0..2 {
        let renewed = pki.issue("a", &["a.test"], |_| {});
        eventually("the new certificate is shown", async || shown().await == renewed).await;
    }
    let last = shown().await;
    pki.write("a.pem", "not a certificate any more");
    let warned = async || {
        let warnings = proxy.report().await.warnings;
        warnings.iter().any(|line| line.contains("a.pem") && line.contains("stays in force"))
    };
    eventually("the broken file is warned of", warned).await;
    assert_eq!(shown().await, last);
    let elsewhere = pki.issue("a", &["b.test"], |_| {});
    let lacking = async || proxy.report().await.warnings.concat().contains("not for a.test");
    eventually("one for another host is warned of", lacking).await;
    assert_ne!(shown().await, elsewhere);
    pki.write("a.pem", "not a certificate any more");
    eventually("the broken file is warned of again", warned).await;
    // A broken file holds up no shift of traffic.
    let next = Table { generation: generation(2), ..table };
    proxy.plane.publish(&next).await.unwrap();
    assert!(warned().await, "still");
    let mended = pki.issue("a", &["a.test"], |_| {});
    eventually("the mended one is shown", async || shown().await == mended).await;
    assert!(!warned().await);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn after_a_restart_what_can_be_served_is_and_no_key_lies_anywhere() {
    let (listen, pki) = (free_address(), Pki::new());
    let proxy = Running::start().await;
    pki.issue("a", &["a.test"], |_| {});
    pki.issue("b", &["b.test"], |_| {});
    let routes =
        vec![route(listen, &["a.test"], pki.spec("a")), route(listen, &["b.test"], pki.spec("b"))];
    proxy.plane.publish(&table_of(1, routes, version("v1").await)).await.unwrap();
    let report = format!("{:?}", proxy.report().await);
    let directory = proxy.stop().await;
    let saved = std::fs::read_to_string(directory.path().join("proxy-table.json")).unwrap();
    let secret = std::fs::read_to_string(pki.path("a.key")).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    assert!(!saved.contains(secret) && !report.contains(secret));
    pki.write("b.pem", "");
    let proxy = Running::start_in(directory).await;
    let config = pki.client(&["http/1.1"], None);
    let mut sender = http1(listen, "a.test", &config).await;
    let served = read(sender.send_request(get_from("a.test")).await.unwrap()).await;
    assert_eq!(served, (200, "v1".to_owned()));
    let warnings = proxy.report().await.warnings;
    assert!(warnings.iter().any(|line| line.contains("b.pem")), "{warnings:?}");
}

/// How a client came in that asked once; `None` when it was not let in.
async fn handshake(listen: SocketAddr, config: &Arc<ClientConfig>) -> Option<HandshakeKind> {
    let mut stream = connect(listen, "a.test", config).await.ok()?;
    let request = b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    // The ticket comes with the answer.
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    stream.get_ref().1.handshake_kind()
}

#[tokio::test]
async fn a_client_comes_back_without_a_full_handshake_but_not_past_a_new_demand() {
    let (proxy, listen, pki) = (Running::start().await, free_address(), Pki::new());
    pki.issue("a", &["a.test"], |_| {});
    let instance = version("v1").await;
    let publish = async |counter, tls| {
        let table = table_of(counter, vec![route(listen, &["a.test"], tls)], instance);
        proxy.plane.publish(&table).await.unwrap();
    };
    publish(1, pki.spec("a")).await;
    let config = pki.client(&["http/1.1"], None);
    let kind = async || handshake(listen, &config).await;
    assert_eq!(kind().await, Some(HandshakeKind::Full));
    assert_eq!(kind().await, Some(HandshakeKind::Resumed));
    // Renewed, on every worker: tickets outlive a certificate.
    pki.issue("a", &["a.test"], |_| {});
    publish(2, TlsSpec { hsts: Duration::from_secs(1), ..pki.spec("a") }).await;
    assert_eq!(kind().await, Some(HandshakeKind::Resumed));
    publish(3, TlsSpec { clients: Some(pki.clients(true)), ..pki.spec("a") }).await;
    assert_eq!(kind().await, None, "without a certificate there is no way back in");
}

#[tokio::test]
async fn a_tunnel_goes_through_tls() {
    let (proxy, listen, pki) = (Running::start().await, free_address(), Pki::new());
    pki.issue("a", &["a.test"], |_| {});
    let echo = raw_instance(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert!(head.to_lowercase().contains("upgrade: websocket"), "{head}");
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
            upgrade: websocket\r\n\r\n";
        stream.write_all(switch).await.unwrap();
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    let routes = vec![route(listen, &["a.test"], pki.spec("a"))];
    proxy.plane.publish(&table_of(1, routes, echo)).await.unwrap();
    let mut sender = http1(listen, "a.test", &pki.client(&["http/1.1"], None)).await;
    let mut request = get_from("a.test");
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    for size in [1, 100_000] {
        let sent = vec![b'x'; size];
        tunnel.write_all(&sent).await.unwrap();
        let mut back = vec![0; size];
        tunnel.read_exact(&mut back).await.unwrap();
        assert_eq!(sent, back);
    }
}

/// An instance that answers `v1` over TLS to whoever shows a certificate.
async fn encrypted_instance(pki: &Pki, protocol: UpstreamProtocol) -> SocketAddr {
    let (roots, spec) = (pki.clients(true).authority, pki.spec("inner"));
    let acceptor = server(&roots, &spec);
    raw_instance(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            match protocol {
                UpstreamProtocol::Http1 => {
                    let service = hyper::service::service_fn(|_| async {
                        Ok::<_, std::convert::Infallible>(Response::new(full("v1")))
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                }
                UpstreamProtocol::H2c => {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        let mut body = respond.send_response(Response::new(()), false).unwrap();
                        body.send_data("v1".into(), true).unwrap();
                    }
                }
            }
        }
    })
    .await
}

fn server(authority: &str, spec: &TlsSpec) -> tokio_rustls::TlsAcceptor {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let read = |path: &str| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(read(authority).remove(0)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(read(&spec.certificate), PrivateKeyDer::from_pem_file(&spec.key).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config).into()
}

#[tokio::test]
async fn instances_prove_themselves_and_so_does_the_data_plane() {
    let (proxy, pki) = (Running::start().await, Pki::new());
    pki.issue("inner", &["orders.internal"], |_| {});
    pki.issue("proxy", &[], |_| {});
    let identity = Identity { certificate: pki.path("proxy.pem"), key: pki.path("proxy.key") };
    let mut counter = 0;
    let mut status = async |protocol, name: &str, identity: Option<Identity>| {
        let listen = free_address();
        counter += 1;
        let instance = encrypted_instance(&pki, protocol).await;
        let tls =
            UpstreamTls { authority: pki.path("ca.pem"), server_name: name.to_owned(), identity };
        let mut arm = arm(&format!("v{counter}"), &[instance]);
        arm.upstream = UpstreamSpec { protocol, tls: Some(tls) };
        let split = Split::all(arm.id.release.clone());
        let table = table(counter, listen, vec![arm], split);
        proxy.plane.publish(&table).await.unwrap();
        ask(listen, get("/")).await.0
    };
    let known = "orders.internal";
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::H2c] {
        assert_eq!(status(protocol, known, Some(identity.clone())).await, 200, "{protocol:?}");
        assert_eq!(status(protocol, "other.internal", Some(identity.clone())).await, 502);
        assert_eq!(status(protocol, known, None).await, 502, "it showed nothing of itself");
    }
}

#[tokio::test]
async fn a_client_resumes_its_tls_session_after_an_upgrade() {
    let directory = tempfile::tempdir().unwrap();
    let (plane, listen, pki) = (lifecycle::plane(directory.path()), free_address(), Pki::new());
    plane.ensure_started().await.unwrap();
    pki.issue("a", &["a.test"], |_| {});
    let mut table = single(1, listen, "v1", &[version("v1").await]);
    table.routes[0].hosts = vec!["a.test".to_owned()];
    table.routes[0].tls = Some(Box::new(pki.spec("a")));
    plane.publish(&table).await.unwrap();
    let config = pki.client(&["http/1.1"], None);
    assert_eq!(handshake(listen, &config).await, Some(HandshakeKind::Full));
    for _ in 0..2 {
        plane.upgrade(None).await.unwrap();
        assert_eq!(handshake(listen, &config).await, Some(HandshakeKind::Resumed));
    }
    plane.stop().await.unwrap();
}
