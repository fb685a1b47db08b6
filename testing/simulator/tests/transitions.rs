//! The committed table of phases and events is what simulations see.

use std::fs;
use std::path::Path;

use switchback_simulator::transitions_table;

#[test]
fn the_committed_table_is_what_simulations_see() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/transitions.md");
    let table = transitions_table();
    if std::env::var_os("SWITCHBACK_REGENERATE").is_some() {
        fs::write(&page, &table).expect("the folder is there");
    }
    let committed = fs::read_to_string(&page).unwrap_or_default();
    let how = "SWITCHBACK_REGENERATE=1 cargo test -p switchback-simulator --test transitions";
    assert!(committed == table, "docs/reference/transitions.md is out of date: {how}");
}
