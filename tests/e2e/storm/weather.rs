//! What comes over a site meanwhile: its data plane is replaced again and again, its control plane
//! dies, also in the middle of that, and instances die of which there are others.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::site::{Site, wait_for};

const UPGRADES_MIN: u32 = 20;
/// Instances of the version that die, one at a time.
const INSTANCES: usize = 3;
/// The storm is to last for as long as the rollouts do.
const CALM: Duration = Duration::from_millis(150);

/// What has come over it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Toll {
    /// Upgrades that succeeded, by the command's own word.
    pub(super) upgrades: u32,
    pub(super) control_deaths: u32,
    pub(super) instance_deaths: u32,
}

/// Rages until it is over, and has been enough. Who holds `raging` has a control plane meanwhile.
pub(super) fn rages(site: &Site, mortal: &str, raging: &Mutex<()>, over: &AtomicBool) -> Toll {
    let (mut toll, mut failed) = (Toll::default(), 0);
    while !over.load(Ordering::Relaxed) || toll.upgrades < UPGRADES_MIN {
        let ended = site.run(&["proxy", "upgrade"]);
        if ended.code == 0 {
            toll.upgrades += 1;
        } else {
            // The one whose control plane died in the middle of it may still be on its way.
            failed += 1;
            assert!(failed <= toll.control_deaths, "{ended:#?}");
        }
        match toll.upgrades % 6 {
            2 => {
                let _raging = raging.lock().expect("nobody panics with it");
                kill_in_mid_upgrade(site);
                toll.control_deaths += 1;
            }
            0 | 4 => {
                kill_one_of(site, mortal);
                toll.instance_deaths += 1;
            }
            _ => {}
        }
        // sleep: the weather is not always bad.
        thread::sleep(CALM);
    }
    toll
}

/// Kills the control plane when it may just have begun to replace the data plane.
fn kill_in_mid_upgrade(site: &Site) {
    let asked = site.spawn(&["proxy", "upgrade"]);
    // sleep: the moment shall be none that is awaited.
    thread::sleep(CALM / 5);
    site.kill9_control();
    site.up();
    let _ = asked.wait();
}

/// Kills an instance when all of its version are there.
fn kill_one_of(site: &Site, version: &str) {
    let mut alive = Vec::new();
    wait_for("all instances", || {
        alive = site.instances(version);
        alive.len() == INSTANCES
    });
    site.kill9(alive[0].pid);
}
