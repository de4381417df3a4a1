//! The hub on real repositories.
