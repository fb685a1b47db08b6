//! The data plane: sockets and connection pools around core/routing.
