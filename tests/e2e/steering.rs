//! Clients that stay with their version while a canary grows, through the whole product.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::commands::{quick, site};
use crate::recipe::free_address;
use crate::site::{Site, wait_for};

/// Two rungs that wait for somebody's word.
const RUNGS: &str = "{type: canary, steps: [\
{set_weight: 20}, approve, {set_weight: 60}, approve, {set_weight: 100}]}";

/// One answer: the version, and the cookie it sets.
fn ask(address: std::net::SocketAddr, header: &str) -> (String, Option<String>) {
    let mut stream = TcpStream::connect(address).expect("the data plane listens");
    let request = format!("GET / HTTP/1.1\r\nhost: web.test\r\n{header}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let field = |name: &str| {
        let mut lines = answer.lines().take_while(|line| !line.is_empty());
        lines.find_map(|line| {
            let (own, value) = line.split_once(": ")?;
            own.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let version = field("x-version").unwrap_or_else(|| panic!("no version: {answer}"));
    let cookie = field("set-cookie").and_then(|set| Some(set.split(';').next()?.to_owned()));
    (version, cookie)
}

/// Waits until the rollout waits for a word at this weight.
fn waits_at(site: &Site, percent: &str) {
    wait_for("a rung that waits for approval", || {
        let rollout = site.service().rollout;
        rollout.is_some_and(|rollout| {
            rollout.waiting_for.is_some() && rollout.weight.to_string() == percent
        })
    });
}

#[test]
fn a_client_keeps_its_version_while_the_canary_grows_and_never_moves_back() {
    let preview = free_address();
    let site = site(|recipe| {
        quick(recipe);
        let address = recipe.address;
        recipe.set("strategy", RUNGS);
        recipe.set(
            "route",
            format!(
                "{{listen: \"{address}\", session_affinity: {{cookie: sb-user}}, \
                 version_header: true, preview: {{listen: \"{preview}\"}}}}"
            ),
        );
    });
    let deploy = site.spawn_deploy("v2");
    waits_at(&site, "20%");
    assert_eq!(ask(preview, "").0, "v2", "whoever looks at the next version sees it");
    assert_eq!(ask(site.address(), "x-switchback-version: v2\r\n").0, "v2");
    let mut clients: Vec<(String, String)> = (0..60)
        .map(|n| {
            let cookie = format!("sb-user=client-{n}");
            (ask(site.address(), &format!("cookie: {cookie}\r\n")).0, cookie)
        })
        .collect();
    let on_new = |clients: &[(String, String)]| {
        clients.iter().filter(|(version, _)| version == "v2").count()
    };
    let first = on_new(&clients);
    assert!((1..40).contains(&first), "a fifth of 60 is not {first}");
    for (next, percent) in [(Some("60%"), "20%"), (None, "60%")] {
        for (version, cookie) in &clients {
            let now = ask(site.address(), &format!("cookie: {cookie}\r\n")).0;
            assert_eq!(now, *version, "at {percent} it stays");
        }
        site.run(&["promote", "web"]).exits(0);
        match next {
            Some(next) => waits_at(&site, next),
            None => wait_for("the promotion", || site.stable() == "v2"),
        }
        let before = on_new(&clients);
        for (version, cookie) in &mut clients {
            let now = ask(site.address(), &format!("cookie: {cookie}\r\n")).0;
            assert!(*version == now || now == "v2", "{cookie} moved back to {now}");
            *version = now;
        }
        assert!(on_new(&clients) > before, "more of them than {before}");
    }
    assert_eq!(on_new(&clients), clients.len());
    deploy.wait().exits(0);
}
