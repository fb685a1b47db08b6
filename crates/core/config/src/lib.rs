//! switchback.yaml to validated specs: every mistake at once, with line and column.
