//! `switchback.yaml` to validated specs: every mistake at once, with line, column and a hint.
//!
//! Pure: text in, values out. Reading files, also those that `config:` names, is the caller's.
//! Each section of the file owns its keys (a table, from which the JSON schema comes) and its
//! reading; mistakes are collected, never thrown.

mod diagnostic;
mod document;
mod duration;
mod quantity;
mod reader;
mod scalar;
mod schema;
mod section;
mod service;
mod starter;
mod suggest;
mod table;
mod value;
mod words;

pub use diagnostic::{Code, Diagnostic, Diagnostics};
pub use document::{Document, Environment, parse};
pub use duration::{DURATION_MAX, DurationError, parse_duration};
pub use schema::json_schema;
pub use section::environment::SERVICES_MAX;
pub use service::{ConfigSource, MissingContent, ServiceConfig};
pub use starter::{StarterService, starter};
pub use value::load::{DEPTH_MAX, NODES_MAX, TEXT_LENGTH_MAX};
pub use words::{SplitError, split_words};
