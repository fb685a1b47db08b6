//! The bundled test service and the load generator behind switchback demo.
