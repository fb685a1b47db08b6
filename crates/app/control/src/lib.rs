//! The control plane: driver loop, HTTP API.
