//! One function for each kind of bytes that come from outside: each takes any, and must neither
//! panic nor take for ever. The targets in `fuzz/` and this crate's own test call them.
//!
//! Not here: HTTP, whose targets lie beside the codec (`switchback_proxy::fuzzing`).

use serde::Serialize;
use serde::de::DeserializeOwned;
use switchback_api::{CommandRequest, DeployRequest, OperationRequest, RollbackRequest, UpRequest};
use switchback_domain::Timestamp;
use switchback_engine::{Event, Service, outstanding, step, violations};
use switchback_routing::{Router, Table};

/// When the events of [`journal`] happen.
const NOW: Timestamp = Timestamp::from_millis(1_000_000);

/// A configuration file: a document whose environments can be asked for, or mistakes with places.
///
/// # Panics
///
/// When the code under test breaks its promise; that is what this is for.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match switchback_config::parse(&text, "switchback.yaml") {
        Ok(document) => {
            for name in document.environments() {
                if let Err(mistakes) = document.environment(name) {
                    assert!(!mistakes.is_empty(), "refused without a reason");
                }
            }
        }
        Err(mistakes) => assert!(!mistakes.is_empty(), "refused without a reason"),
    }
}

/// A route table, as the data plane is given it: refused, or compiled.
///
/// # Panics
///
/// When the code under test breaks its promise; that is what this is for.
pub fn route_table(bytes: &[u8]) {
    let Ok(table) = serde_json::from_slice::<Table>(bytes) else { return };
    is_read_back(&table);
    // A refusal has its reason in its text.
    match Router::new(&table) {
        Ok(router) => drop(router),
        Err(invalid) => assert!(!invalid.to_string().is_empty()),
    }
}

/// A snapshot and, after a zero byte, an event: what the journal decodes, and what follows.
///
/// # Panics
///
/// When the code under test breaks its promise; that is what this is for.
pub fn journal(bytes: &[u8]) {
    let middle = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (snapshot, event) = bytes.split_at(middle);
    let event = serde_json::from_slice::<Event>(event.get(1..).unwrap_or_default());
    let Ok(service) = serde_json::from_slice::<Service>(snapshot) else { return };
    let _ = (outstanding(&service), violations(&service));
    let Ok(event) = event else { return };
    if let Ok(transition) = step(&service, &event, NOW) {
        let _ = violations(&transition.service);
    }
}

/// The body of a call of the control plane's API.
///
/// # Panics
///
/// When the code under test breaks its promise; that is what this is for.
pub fn api_body(bytes: &[u8]) {
    decode::<DeployRequest>(bytes);
    decode::<CommandRequest>(bytes);
    decode::<RollbackRequest>(bytes);
    decode::<OperationRequest>(bytes);
    decode::<UpRequest>(bytes);
}

fn decode<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(bytes) {
        is_read_back(&value);
    }
}

/// What was understood can be written down and is understood the same again.
fn is_read_back<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_vec(value).expect("it was read from JSON");
    let again: T = serde_json::from_slice(&text).expect("it was just written");
    assert_eq!(&again, value);
}
