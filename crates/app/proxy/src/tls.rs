//! TLS: certificates from files, by name, in the table that is swapped; sessions towards clients
//! and towards instances.
//!
//! Keys are read here and stay here: no table, report or log ever holds one.

mod accept;
mod book;
mod hosts;
mod material;
mod tickets;

pub(crate) use accept::{Misdirected, Session, accept};
pub(crate) use book::{Book, Listener, Loader, Mode, Upstream};
pub use tickets::TicketKeys;
