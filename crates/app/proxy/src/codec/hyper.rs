//! The codec that hyper is: requests and responses as its types, bodies as its frames.

mod body;
mod connection;
mod link;
mod request;
mod socket;
mod tunnel;

pub(crate) use connection::serve;
pub(crate) use link::Link;
