//! The data plane with real sockets on loopback: instances, clients and the proxy in one process,
//! except where the process itself is what is tested. The whole suite runs once with each codec.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::duplicate_mod, reason = "the same tests, for another codec")]

#[path = "."]
mod own_codec {
    pub(crate) const CODEC_NAME: &str = "own";

    mod attacks;
    mod failures;
    mod floods;
    mod frames;
    mod lifecycle;
    mod messages;
    mod modes;
    mod observing;
    mod resilience;
    mod steering;
    mod streams;
    mod strict;
    mod support;
    mod switching;
    mod trials;
    mod upgrade;
}

#[path = "."]
mod hyper_codec {
    pub(crate) const CODEC_NAME: &str = "hyper";

    mod failures;
    mod lifecycle;
    mod messages;
    mod modes;
    mod observing;
    mod ordered;
    mod pki;
    mod resilience;
    mod steering;
    mod support;
    mod switching;
    mod tls;
    mod upgrade;
}
