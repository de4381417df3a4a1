//! The table of a lease.

use serde::{Deserialize, Serialize};

use super::machine::machine;
use super::{IllegalMove, UnknownState};

machine! {
    /// The life of a lease.
    LeaseState / LeaseEvent, "lease";
    states {
        /// Counted by the gate; its locks are being taken.
        Granting = "granting",
        /// A worker holds it.
        Held = "held",
        /// Given back.
        Released = "released" terminal,
        /// Its worker is gone.
        Expired = "expired" terminal,
        /// Taken away.
        Revoked = "revoked" terminal,
    }
    events {
        /// Its locks are taken.
        Hold = "hold",
        /// Its worker gave it back.
        Release = "release",
        /// Its worker is gone.
        Expire = "expire",
        /// It was taken away.
        Revoke = "revoke",
    }
    moves {
        Granting + Hold => Held;
        Granting + Revoke => Revoked;
        Held + Release => Released;
        Held + Expire => Expired;
        Held + Revoke => Revoked;
    }
}
