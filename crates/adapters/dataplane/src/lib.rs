//! The control plane's hand on the data plane: start it, publish tables, read its counts.
