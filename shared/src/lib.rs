//! What both roles of Autopack agree on: the pure domain, the facts of a git repository, the wire, and the few
//! things every process needs at run time. Imports no other member of the workspace.

pub mod domain;
pub mod repo;
pub mod runtime;
pub mod wire;
