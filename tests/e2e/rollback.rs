//! Going back when it is needed most: what serves is broken, or wants what another one has.

use switchback_domain::InstanceHealth;

use crate::site::{Site, wait_for};

#[test]
fn a_version_that_breaks_after_its_promotion_does_not_stand_in_the_way_back() {
    let site = Site::with("v2:die_after_ready=8s", |recipe| {
        recipe.set("strategy", "{type: rolling}");
        recipe.set("scale_down_delay", "100ms");
        recipe.set("drain_timeout", "1s");
        recipe.set("stop_timeout", "500ms");
    });
    site.up();
    site.deploy("v2").exits(0);
    let is_broken = || {
        let instances = site.service().instances;
        instances.iter().any(|instance| instance.report.health != InstanceHealth::Ready)
    };
    wait_for("v2 to break", is_broken);
    site.run(&["rollback", "web"]).exits(0);
    assert_eq!(site.stable(), "v1");
    site.serves(&["v1"]);
}

#[test]
fn a_service_that_wants_what_another_one_serves_is_refused_at_once() {
    let site = Site::started("");
    let text = site.recipe().text();
    let (head, web) = text.split_once("  web:").expect("the recipe has one service");
    // In the file nobody wants the same: `web` gives it up. But `web` was not deployed so.
    let moved = web.replacen("route: {", "route: {path_prefix: /web, ", 1);
    assert_ne!(moved, web, "{text}");
    site.write_config(&format!("{head}  web:{moved}\n  other:{web}"));
    site.run(&["lint"]).exits(0);
    let refused = site.run(&["deploy", "other", "--version", "v1", "--json"]).exits(78).json();
    assert!(refused["message"].as_str().is_some_and(|why| why.contains("both")), "{refused:#}");
    site.serves(&["v1"]);
}
