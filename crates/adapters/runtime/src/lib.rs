//! Where instances run: local processes under a supervising shim.
