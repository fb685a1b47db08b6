//! The rollout state machine: state and event in, state and effects out.
