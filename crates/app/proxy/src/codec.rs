//! The two HTTP/1.1 codecs. What is decided about a request lies above both, in `service` and
//! `exchange`; a codec reads it, sends it where it is told, and passes the answer on.

pub(crate) mod http2;
pub(crate) mod hyper;
pub(crate) mod own;

use std::str::FromStr;

/// Which one a process serves with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// Switchback's own, strict and small.
    #[default]
    Own,
    /// hyper's: the way back if the own one fails.
    Hyper,
}

/// The name is not `own` or `hyper`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no codec {0:?}: it is `own` or `hyper`")]
pub struct UnknownCodec(String);

impl FromStr for Codec {
    type Err = UnknownCodec;

    fn from_str(name: &str) -> Result<Self, UnknownCodec> {
        match name {
            "own" => Ok(Self::Own),
            "hyper" => Ok(Self::Hyper),
            other => Err(UnknownCodec(other.to_owned())),
        }
    }
}
