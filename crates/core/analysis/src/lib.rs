//! Outcomes in, verdict and evidence out.
