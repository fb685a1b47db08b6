//! The sections of the file, one file each: its keys, its defaults, its reading.

pub(crate) mod canary_document;
pub(crate) mod command;
pub(crate) mod config_file;
pub(crate) mod environment;
pub(crate) mod exact_test;
pub(crate) mod fallback;
pub(crate) mod health_check;
pub(crate) mod hook;
pub(crate) mod metric;
pub(crate) mod metric_template;
pub(crate) mod resilience;
pub(crate) mod rollback;
pub(crate) mod route;
pub(crate) mod route_acme;
pub(crate) mod route_affinity;
pub(crate) mod route_match;
pub(crate) mod route_rules;
pub(crate) mod route_tls;
pub(crate) mod service;
pub(crate) mod step;
pub(crate) mod strategy;
pub(crate) mod template;
pub(crate) mod trigger;
