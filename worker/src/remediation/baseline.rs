//! Mends `baseline_policy_drift`: writes a baseline policy that protects and allows nothing by itself.

use super::Draft;
use super::tree::Tree;

/// Where the baseline policy stands.
pub const BASELINE_POLICY: &str = "config/baseline_policy.yaml";

const TEXT: &str = "\
# Baseline policy: where automatic changes to this repository need a person.
#
# This file is the least a repository declares. Autopack's own rules come on top of it and win where they are
# stricter; `autopack policy explain PATH` prints which rule a path falls under. Changes to this file always need an
# elevated approval.
version: 1

# Changes below these paths need an approval.
protected:
  - .github/**
  - config/**
  - docs/**
  - tests/**

# Nothing is approved without a person because of this file. Paths where small changes may go ahead are named in the
# [policy] section of autopack.toml.
auto_approve: []
";

pub(super) fn draft(tree: &Tree) -> Draft {
    let mut draft = Draft::default();
    if tree.root().exists(BASELINE_POLICY) {
        draft.note(BASELINE_POLICY, "already there");
    } else {
        draft.write(BASELINE_POLICY, TEXT.as_bytes().to_owned());
    }
    draft
}
