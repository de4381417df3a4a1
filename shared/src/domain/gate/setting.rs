//! What a command finds where it runs, as far as that decides what it shows: a baseline is of a command in its setting,
//! and excuses nothing that was run in another.

use std::collections::BTreeSet;

use serde::Serialize;

use super::GateCommand;
use crate::domain::ids::{Digest, Oid};
use crate::domain::sandbox::SandboxLevel;

/// The database that a command finds on the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseData {
    /// None.
    None,
    /// An empty one that nothing else has used.
    Own,
    /// The run's, with whatever builders have put there.
    OfTheRun,
}

/// Where a command runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The level of its sandbox, as measured; none where it runs as the worker's own user.
    pub sandbox: Option<SandboxLevel>,
    /// The names of the secrets that it finds.
    pub secrets: BTreeSet<String>,
    /// Whether the project's gate has secrets that it does not find.
    pub withheld: bool,
    /// The database that it finds on the base.
    pub data: BaseData,
    /// The commit whose lists say which ignored files are brought, where that is not the base itself.
    pub lists: Option<Oid>,
}

impl Setting {
    /// Why a failure of the base in this setting excuses none of a change, if it does not: it says more of the setting
    /// than of the base. Such a baseline is nobody else's either.
    #[must_use]
    pub const fn doubt(&self) -> Option<&'static str> {
        match self.data {
            BaseData::OfTheRun => Some("the base has only the run's database, which the change may have written to"),
            BaseData::None | BaseData::Own if self.withheld => {
                Some("the gate's secrets are withheld, since the phase brings commands of its own")
            }
            BaseData::None | BaseData::Own => None,
        }
    }

    /// Every setting that this may turn out to be on a worker: `sandbox` is the weakest that will do, and a worker may
    /// have no place for a database.
    #[must_use]
    pub fn on_any_worker(&self) -> Vec<Self> {
        let levels = [SandboxLevel::S0, SandboxLevel::S1, SandboxLevel::S2, SandboxLevel::S3];
        let levels: Vec<_> = match self.sandbox {
            None => vec![None],
            Some(weakest) => levels.into_iter().filter(|level| *level >= weakest).map(Some).collect(),
        };
        let data: &[BaseData] = match self.data {
            BaseData::Own => &[BaseData::Own, BaseData::None],
            BaseData::None => &[BaseData::None],
            BaseData::OfTheRun => &[BaseData::OfTheRun],
        };
        let each = levels.into_iter().flat_map(|sandbox| data.iter().map(move |data| (sandbox, *data)));
        each.map(|(sandbox, data)| Self { sandbox, data, ..self.clone() }).collect()
    }
}

/// Identifies a command in its setting: what was measured of the same is the same.
///
/// # Errors
/// Never: both are plain data.
pub fn command_digest(command: &GateCommand, setting: &Setting) -> Result<Digest, serde_json::Error> {
    Digest::of_json(&("gate/2", &command.run, command.report, &command.report_path, command.timeout, setting))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> GateCommand {
        serde_json::from_str(r#"{"name":"tests","run":"make test"}"#).unwrap()
    }

    fn setting() -> Setting {
        let secrets = BTreeSet::from(["db".to_owned()]);
        Setting { sandbox: Some(SandboxLevel::S2), secrets, withheld: false, data: BaseData::Own, lists: None }
    }

    #[test]
    fn what_was_measured_elsewhere_is_another_baseline() {
        let here = command_digest(&command(), &setting()).unwrap();
        assert_eq!(here, command_digest(&GateCommand { name: "other".to_owned(), ..command() }, &setting()).unwrap());
        let others = [
            Setting { secrets: BTreeSet::new(), ..setting() },
            Setting { secrets: BTreeSet::from(["db2".to_owned()]), ..setting() },
            Setting { sandbox: None, ..setting() },
            Setting { sandbox: Some(SandboxLevel::S3), ..setting() },
            Setting { data: BaseData::None, ..setting() },
            Setting { lists: Some(Oid::ZERO), ..setting() },
        ];
        for other in others {
            assert_ne!(here, command_digest(&command(), &other).unwrap(), "{other:?}");
        }
        let slower = GateCommand { timeout: 9, ..command() };
        assert_ne!(here, command_digest(&slower, &setting()).unwrap());
    }

    #[test]
    fn every_setting_that_it_may_turn_out_to_be_is_asked_for() {
        let all = setting().on_any_worker();
        let on = |sandbox, data| Setting { sandbox: Some(sandbox), data, ..setting() };
        assert_eq!(all.len(), 4);
        assert!(
            all.contains(&on(SandboxLevel::S3, BaseData::Own)) && all.contains(&on(SandboxLevel::S2, BaseData::None))
        );
        let bare = Setting { sandbox: None, data: BaseData::OfTheRun, ..setting() };
        assert_eq!(bare.on_any_worker(), [bare]);
    }

    #[test]
    fn what_says_more_of_the_setting_than_of_the_base_is_doubted() {
        for (data, withheld, doubted) in [
            (BaseData::None, false, false),
            (BaseData::Own, false, false),
            (BaseData::Own, true, true),
            (BaseData::OfTheRun, false, true),
        ] {
            assert_eq!(Setting { data, withheld, ..setting() }.doubt().is_some(), doubted, "{data:?} {withheld}");
        }
    }
}
