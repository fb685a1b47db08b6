//! What the swap of tables and the drain of versions are made of. The files that say
//! `crate::sync` are run by the model in `testing/model` as they stand, on stand-ins of the same
//! names that try every interleaving; so they take nothing of the kind from anywhere else.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use arc_swap::{ArcSwap, Cache};
pub(crate) use tokio::sync::{mpsc, oneshot};
