//! Arrows between crates point down only: core, ports and what adapters have in common, adapters,
//! app; the binary sees everything.
//!
//! Reads `cargo metadata`; the tables below are the rule, ARCHITECTURE.md says why.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Libraries that `core` may use: they hold values and algorithms, no clock, socket, file or dice.
const PURE: [&str; 10] = [
    "libm",
    "regex",
    "saphyr-parser",
    "schemars",
    "semver",
    "serde",
    "serde_json",
    "sha2",
    "siphasher",
    "thiserror",
];

/// Libraries that `ports` may use: what a trait and its in-memory fake need.
const PORTABLE: [&str; 6] = ["async-trait", "serde", "serde_json", "sha2", "thiserror", "tokio"];

/// The floor of the house a crate lives on, by its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Core,
    Ports,
    /// What adapters have in common that is no port.
    Http,
    Adapters,
    /// `app/api`: the records that both ends of the control plane's API speak.
    Api,
    App,
    Binary,
    Testing,
    Xtask,
}

impl Layer {
    fn of(folder: &str) -> Option<Self> {
        let parts: Vec<_> = folder.split('/').collect();
        match parts[..] {
            ["crates", "core", _] => Some(Self::Core),
            ["crates", "ports"] => Some(Self::Ports),
            ["crates", "http"] => Some(Self::Http),
            ["crates", "adapters", _] => Some(Self::Adapters),
            ["crates", "app", "api"] => Some(Self::Api),
            ["crates", "app", "cli"] => Some(Self::Binary),
            ["crates", "app", _] => Some(Self::App),
            ["testing", _] => Some(Self::Testing),
            ["xtask"] => Some(Self::Xtask),
            _ => None,
        }
    }

    /// Which crates of ours it may depend on.
    fn may_see(self) -> &'static [Self] {
        match self {
            Self::Core | Self::Ports | Self::Api => &[Self::Core],
            Self::Http => &[],
            Self::Adapters => &[Self::Core, Self::Ports, Self::Http],
            Self::App => &[Self::Core, Self::Ports, Self::Api],
            // The simulator is the control plane with other neighbours; for the measurement of many
            // services the journal is the one that ships.
            Self::Binary | Self::Testing => {
                &[Self::Core, Self::Ports, Self::Adapters, Self::Api, Self::App, Self::Testing]
            }
            // Benchmarks drive the real parts.
            Self::Xtask => &[Self::Core, Self::Ports, Self::Adapters, Self::App],
        }
    }

    /// Which libraries it may depend on; `None` is any.
    fn may_use(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Core => Some(&PURE),
            Self::Ports => Some(&PORTABLE),
            Self::Http
            | Self::Adapters
            | Self::Api
            | Self::App
            | Self::Binary
            | Self::Testing
            | Self::Xtask => None,
        }
    }
}

/// The arrows that point up or sideways.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cannot start cargo")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata failed: {}", complaint.trim());
    let metadata = serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON")?;
    violations(&metadata)
}

/// A crate of ours.
struct Member<'a> {
    name: &'a str,
    folder: &'a str,
    dependencies: &'a [Value],
}

fn violations(metadata: &Value) -> Result<Vec<String>> {
    let members = members(metadata)?;
    let mut found = Vec::new();
    for member in &members {
        match Layer::of(member.folder) {
            Some(layer) => found.extend(wrong_arrows(member, layer, &members)),
            None => found.push(format!(
                "{}: {} is in no layer; move it, or give it one in xtask/src/layers.rs",
                member.folder, member.name
            )),
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn members(metadata: &Value) -> Result<Vec<Member<'_>>> {
    let root = metadata["workspace_root"].as_str().context("no workspace_root")?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let mut found = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        let manifest = package["manifest_path"].as_str().context("a package without a place")?;
        let inner = manifest.strip_prefix(root).and_then(|path| path.strip_suffix("/Cargo.toml"));
        let folder = inner.with_context(|| format!("{manifest} is outside of {root}"))?;
        let folder = folder.trim_start_matches('/');
        let dependencies = package["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
        found.push(Member { name, folder, dependencies });
    }
    Ok(found)
}

fn wrong_arrows(member: &Member<'_>, layer: Layer, members: &[Member<'_>]) -> Vec<String> {
    let complain = |dependency: &Value| {
        let name = dependency["name"].as_str()?;
        let is_test_only = dependency["kind"].as_str() == Some("dev");
        let why = match members.iter().find(|other| other.name == name) {
            Some(other) => why_not_see(layer, Layer::of(other.folder)?, is_test_only),
            None => why_not_use(layer, name, is_test_only),
        }?;
        Some(format!("{}: {} depends on {name}: {why}", member.folder, member.name))
    };
    member.dependencies.iter().filter_map(complain).collect()
}

fn why_not_see(layer: Layer, other: Layer, is_test_only: bool) -> Option<String> {
    // Tests join real parts: a data plane is tested with the adapter that talks to it.
    let is_joined = layer == Layer::App && other == Layer::Adapters;
    let is_fine_in_tests = is_test_only && (is_joined || other == Layer::Testing);
    if is_fine_in_tests || layer.may_see().contains(&other) {
        return None;
    }
    let allowed: Vec<_> = layer.may_see().iter().map(|layer| format!("{layer:?}")).collect();
    let allowed = if allowed.is_empty() { "none of ours".to_owned() } else { allowed.join(", ") };
    Some(format!("{layer:?} may not see {other:?} (it may see {allowed})").to_lowercase())
}

fn why_not_use(layer: Layer, name: &str, is_test_only: bool) -> Option<String> {
    let list = layer.may_use()?;
    if is_test_only || list.contains(&name) {
        return None;
    }
    let layer = format!("{layer:?}").to_lowercase();
    Some(format!("not on the short list of {layer} ({})", list.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(folder: &str, name: &str, dependencies: &[(&str, Option<&str>)]) -> Value {
        let dependencies: Vec<_> =
            dependencies.iter().map(|(name, kind)| json!({"name": name, "kind": kind})).collect();
        let manifest_path = format!("/repo/{folder}/Cargo.toml");
        json!({"name": name, "manifest_path": manifest_path, "dependencies": dependencies})
    }

    fn house(extra: Value) -> Value {
        let usual = [
            package("crates/core/domain", "domain", &[("serde", None)]),
            package("crates/core/engine", "engine", &[("domain", None), ("proptest", Some("dev"))]),
            package("crates/ports", "ports", &[("domain", None), ("tokio", None)]),
            package("crates/http", "http", &[("hyper", None)]),
            package("crates/adapters/store", "store", &[("ports", None), ("rusqlite", None)]),
            package("crates/adapters/runtime", "runtime", &[("ports", None), ("rustix", None)]),
            package("crates/app/api", "api", &[("domain", None), ("hyper", None)]),
            package("crates/app/control", "control", &[("api", None), ("engine", None)]),
            package("crates/app/cli", "cli", &[("control", None), ("store", None)]),
            package("testing/testkit", "testkit", &[("ports", None)]),
            package("xtask", "xtask", &[("anyhow", None)]),
        ];
        let packages: Vec<_> = usual.into_iter().chain([extra]).collect();
        json!({"workspace_root": "/repo", "packages": packages})
    }

    fn complaints(extra: Value) -> Vec<String> {
        violations(&house(extra)).unwrap()
    }

    #[test]
    fn arrows_that_point_down_are_fine() {
        let fine = [
            package("crates/core/config", "x", &[("domain", None), ("schemars", None)]),
            package("crates/core/config", "x", &[("testkit", Some("dev"))]),
            package("crates/adapters/metrics", "x", &[("domain", None), ("ports", None)]),
            package("crates/adapters/metrics", "x", &[("http", None), ("hyper", None)]),
            package("crates/app/proxy", "x", &[("api", None), ("tokio", None)]),
            package("crates/app/proxy", "x", &[("store", Some("dev"))]),
            package("testing/scenarios", "x", &[("engine", None), ("testkit", None)]),
            package("testing/scale", "x", &[("control", None), ("store", None)]),
        ];
        for package in fine {
            assert_eq!(complaints(package), [""; 0]);
        }
    }

    #[test]
    fn each_arrow_that_points_up_or_sideways_is_named() {
        let wrong = [
            ("crates/core/config", "ports", None, "core may not see ports (it may see core)"),
            ("crates/core/config", "ports", Some("dev"), "core may not see ports"),
            ("crates/core/config", "tokio", None, "not on the short list of core"),
            ("crates/core/config", "rand", Some("build"), "not on the short list of core"),
            ("crates/ports", "store", None, "ports may not see adapters"),
            ("crates/ports", "hyper", None, "not on the short list of ports"),
            ("crates/ports", "http", None, "ports may not see http"),
            ("crates/http", "domain", None, "http may not see core (it may see none of ours)"),
            ("crates/adapters/metrics", "store", None, "adapters may not see adapters"),
            ("crates/adapters/metrics", "control", None, "adapters may not see app"),
            ("crates/app/proxy", "runtime", None, "app may not see adapters"),
            ("crates/app/proxy", "control", None, "app may not see app"),
        ];
        for (folder, dependency, kind, words) in wrong {
            let found = complaints(package(folder, "x", &[(dependency, kind)]));
            let start = format!("{folder}: x depends on {dependency}: {words}");
            assert!(found.len() == 1 && found[0].starts_with(&start), "{start}: {found:?}");
        }
    }

    #[test]
    fn a_crate_outside_the_house_is_named() {
        let found = complaints(package("crates/misc", "x", &[]));
        assert_eq!(
            found,
            ["crates/misc: x is in no layer; move it, or give it one in xtask/src/layers.rs"]
        );
    }

    #[test]
    fn this_repository_keeps_its_layers() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(check(root).unwrap(), [""; 0]);
    }
}
