//! Which sandbox a lease needs, and which workers have one: what a worker measured, against what the policy of the fork
//! commit asks for.

use autopack_shared::domain::record::{LeasePurpose, Phase, Run};
use autopack_shared::domain::run_file::BuilderSpec;
use autopack_shared::domain::sandbox::SandboxLevel;

use crate::coordination::Seated;
use crate::policy::PolicyInForce;

/// The weakest sandbox that a lease may run in; none where it starts no process, or may do without one.
pub(crate) fn needed(policy: &PolicyInForce, run: &Run, phase: &Phase, purpose: LeasePurpose) -> Option<SandboxLevel> {
    let starts = match purpose {
        LeasePurpose::Verify => !policy.gate_of(phase).is_empty(),
        LeasePurpose::Build => match &phase.spec.builder {
            BuilderSpec::Command { .. } | BuilderSpec::Agent { .. } => true,
            BuilderSpec::Llm { .. }
            | BuilderSpec::Patch { .. }
            | BuilderSpec::Landing { .. }
            | BuilderSpec::Remediation { .. } => false,
        },
    };
    (starts && !run.tainted).then(|| policy.config.policy.min_sandbox())
}

/// What a worker measured. What cannot be read is worth nothing, and neither is what has become weaker than it was.
pub(crate) fn level_of(seat: &Seated) -> SandboxLevel {
    if is_quarantined(seat) { SandboxLevel::S0 } else { seat.sandbox_level.parse().unwrap_or(SandboxLevel::S0) }
}

/// Whether a worker's sandboxes hold less than they did before.
pub(crate) const fn is_quarantined(seat: &Seated) -> bool {
    !seat.quarantine.is_empty()
}

/// Why no worker that is connected will do.
pub(crate) fn too_weak(seats: &[Seated], needed: SandboxLevel) -> Option<String> {
    let best = seats.iter().filter(|seat| !seat.draining).map(level_of).max()?;
    let quarantined = seats.iter().filter(|seat| is_quarantined(seat)).count();
    let besides = if quarantined > 0 { format!("; {quarantined} quarantined") } else { String::new() };
    (best < needed).then(|| {
        format!("it needs a sandbox of level {needed}, and the best of a worker that is connected is {best}{besides}")
    })
}
