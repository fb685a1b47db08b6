//! The committed scenarios are what the control plane does.
//! `SWITCHBACK_REGENERATE=1 cargo test -p switchback-simulator --test scenarios` writes them anew.

use std::fs;
use std::path::Path;

use switchback_simulator::play;

#[test]
fn the_committed_scenarios_are_what_happens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut different = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        count += 1;
        let committed = fs::read_to_string(&path).expect("it can be read");
        let played = play(&committed).unwrap_or_else(|why| panic!("{name}: {why}"));
        if std::env::var_os("SWITCHBACK_REGENERATE").is_some() {
            fs::write(&path, &played).expect("it can be written");
        } else if played != committed {
            let line = played.lines().zip(committed.lines()).position(|(one, other)| one != other);
            different.push(format!("{name}, line {}", line.unwrap_or(0) + 1));
        }
    }
    assert!(count >= 30, "there are only {count} scenarios in {}", folder.display());
    let how = "SWITCHBACK_REGENERATE=1 cargo test -p switchback-simulator --test scenarios";
    assert!(different.is_empty(), "out of date: {different:?}; look at it, then: {how}");
}
