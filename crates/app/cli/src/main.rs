//! The binary `switchback`: arguments, exit codes, composition root.
fn main() {}
