//! The codec that hyper is: requests and responses as its types, bodies as its frames.

mod body;
mod caller;
mod connection;
mod flow;
mod grpc;
mod link;
mod request;
mod socket;
mod tunnel;

pub(crate) use body::{RequestBody, ResponseBody};
pub(crate) use caller::Caller;
pub(crate) use connection::{serve, serve_encrypted};
pub(crate) use flow::Flow;
pub(crate) use link::Link;
pub(crate) use request::answer;
pub(crate) use socket::{Socket, Watch};
