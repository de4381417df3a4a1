//! Moving refs on the server: one atomic push that moves what is to move and the fence, each from where it was seen.
//! The server is the judge; what is known here may be old and costs at most another try.

use std::time::Duration;

use autopack_shared::domain::ids::{FencingToken, Oid};
use autopack_shared::repo::open::from_git;

use super::RemoteHub;
use super::listing::{Listing, refusal};
use crate::hub::names::{CLUSTER, FENCE};
use crate::hub::{HubError, RefName, fence};

/// Tries of one write. Each one that finds the refs elsewhere means that another supervisor's write succeeded.
const TRIES: u32 = 24;

/// The wait after the first try that lost; it grows with each.
const PAUSE: Duration = Duration::from_millis(10);

/// Refs in one push.
pub(super) const AT_ONCE: usize = 200;

/// One ref that is to move.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) name: RefName,
    pub(super) old: Option<Oid>,
    pub(super) new: Option<Oid>,
}

/// What to do, with the refs as they are.
#[derive(Debug)]
pub(super) enum Plan<T> {
    /// Nothing: it is as it should be, or not as the caller thought.
    Settled(T),
    /// Move these, all or none.
    Move(Vec<Move>, T),
}

/// How new the refs must be for a write to find that there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settle {
    /// Asked for now.
    Now,
    /// As for every read.
    Recently,
}

/// What keeps a ref from being made.
fn in_the_way(refs: &Listing, moves: &[Move]) -> Option<HubError> {
    moves.iter().filter(|step| step.old.is_none()).find_map(|step| refs.collision(step.name.as_str()))
}

impl RemoteHub {
    /// Moves refs under the fence. `plan` sees where the refs are; it is asked again when they were elsewhere.
    pub(super) fn write<T>(
        &self,
        token: FencingToken,
        settle: Settle,
        plan: impl Fn(&Listing) -> Result<Plan<T>, HubError>,
    ) -> Result<T, HubError> {
        let _turn = self.turn();
        let (mut refs, mut now) = match self.known() {
            Some(known) => (known, false),
            None => (self.read()?, true),
        };
        for round in 0..TRIES {
            let sure = now || (settle == Settle::Recently && self.is_recent(&refs));
            let planned = if refs.fence == Some(token) {
                plan(&refs)
            } else {
                Err(HubError::Fenced { token, current: refs.fence })
            };
            let (moves, outcome) = match planned {
                Ok(Plan::Move(moves, outcome)) => (moves, outcome),
                Ok(Plan::Settled(outcome)) if sure => return Ok(outcome),
                Err(error) if now => return Err(error),
                Ok(Plan::Settled(_)) | Err(_) => {
                    (refs, now) = (self.read()?, true);
                    continue;
                }
            };
            let Err(failed) = self.push(&refs, &moves, token) else { return Ok(outcome) };
            (refs, now) = (self.after(&refs, &moves, failed)?, true);
            std::thread::sleep(PAUSE * round);
        }
        Err(self.git.away(format!("others move its refs all the time ({TRIES} tries)")))
    }

    /// Raises the fence.
    pub(super) fn raise(&self, token: FencingToken) -> Result<(), HubError> {
        let _turn = self.turn();
        let mut refs = self.read()?;
        for round in 0..TRIES {
            match refs.fence {
                Some(current) if current > token => return Err(HubError::Fenced { token, current: Some(current) }),
                Some(current) if current == token => return Ok(()),
                Some(_) | None => {}
            }
            let Err(failed) = self.push(&refs, &[], token) else { return Ok(()) };
            refs = self.after(&refs, &[], failed)?;
            std::thread::sleep(PAUSE * round);
        }
        Err(self.git.away(format!("others move its fence all the time ({TRIES} tries)")))
    }

    /// Marks the hub as a cluster's, where it is nobody's.
    pub(super) fn mark(&self, cluster: &str) -> Result<(), HubError> {
        let _turn = self.turn();
        let mut refs = self.read()?;
        for round in 0..TRIES {
            match self.owner(&refs)? {
                Some(found) if found == cluster => return Ok(()),
                Some(found) => {
                    let (hub, ours) = (self.git.address().to_string(), cluster.to_owned());
                    return Err(HubError::Foreign { hub, found, ours });
                }
                None => {}
            }
            let mark = from_git(self.cache.repository()?.blob(fence::owner(cluster).as_bytes())?);
            let pushed = self.push_all(&[(CLUSTER, None, Some(mark))]);
            self.forget();
            let Err(failed) = pushed else { return Ok(()) };
            refs = self.read()?;
            if refs.tip(CLUSTER)?.is_none() {
                return Err(self.explain(failed));
            }
            std::thread::sleep(PAUSE * round);
        }
        Err(self.git.away(format!("others mark it all the time ({TRIES} tries)")))
    }

    /// Where the refs are after a push that did not go well, or was cut off: they alone say what became of it. Where
    /// nothing moved the push itself was at fault.
    fn after(&self, before: &Listing, moves: &[Move], failed: HubError) -> Result<Listing, HubError> {
        let found = self.read()?;
        let mut still = found.fence_blob()? == before.fence_blob()?;
        for step in moves {
            still &= found.tip(step.name.as_str())? == step.old;
        }
        if !still {
            return Ok(found);
        }
        Err(in_the_way(&found, moves).unwrap_or_else(|| self.explain(failed)))
    }

    /// One push: all or nothing, each ref from where it was seen, the fence among them.
    fn push(&self, refs: &Listing, moves: &[Move], token: FencingToken) -> Result<(), HubError> {
        let text = fence::marked(token, &self.writer, self.next());
        let mark = from_git(self.cache.repository()?.blob(text.as_bytes())?);
        let mut changes: Vec<(&str, Option<Oid>, Option<Oid>)> =
            moves.iter().map(|step| (step.name.as_str(), step.old, step.new)).collect();
        changes.push((FENCE, refs.fence_blob()?, Some(mark)));
        if let Err(failed) = self.push_all(&changes) {
            self.forget();
            return Err(failed);
        }
        self.learn(|known| {
            for (name, _, new) in &changes {
                known.moved(name, *new);
            }
            known.fence = Some(token);
        });
        Ok(())
    }

    /// Pushes changes of refs without looking at the fence.
    pub(super) fn push_all(&self, changes: &[(&str, Option<Oid>, Option<Oid>)]) -> Result<(), HubError> {
        let id = |oid: &Option<Oid>| oid.map_or_else(String::new, |oid| oid.to_string());
        let mut options = vec!["--porcelain".to_owned(), "--atomic".to_owned(), "--no-verify".to_owned()];
        options.extend(changes.iter().map(|(name, old, _)| format!("--force-with-lease={name}:{}", id(old))));
        let specs: Vec<String> = changes.iter().map(|(name, _, new)| format!("{}:{name}", id(new))).collect();
        let ended = self.git.talk("push", &options, &specs, self.options.carry)?;
        if ended.well {
            return Ok(());
        }
        Err(match refusal(&ended.answer) {
            Some((name, said)) => {
                let said = if ended.complaint.is_empty() { said } else { format!("{said}: {}", ended.complaint) };
                HubError::Refused { address: self.git.address().to_string(), name, said }
            }
            None => self.git.away(ended.complaint),
        })
    }

    /// Whether the server would move several refs at once or none: git itself asks, and does nothing.
    pub(super) fn is_atomic(&self) -> Result<(), HubError> {
        let blob = from_git(self.cache.repository()?.blob(b"probe\n")?);
        let spec = [format!("{blob}:refs/autopack/probe/{}", self.writer)];
        let ask = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
            self.git.talk("push", &options, &spec, self.options.talk)
        };
        if ask(&["--porcelain", "--dry-run", "--atomic"])?.well {
            return Ok(());
        }
        let plain = ask(&["--porcelain", "--dry-run"])?;
        Err(if plain.well {
            HubError::Unfit { address: self.git.address().to_string(), lacks: "does not take atomic pushes" }
        } else {
            self.git.away(plain.complaint)
        })
    }

    /// A push that got no answer to any of its parts may have met a server that cannot do what is asked.
    fn explain(&self, failed: HubError) -> HubError {
        if !matches!(failed, HubError::ServerAway { .. }) {
            return failed;
        }
        match self.is_atomic() {
            Err(unfit @ HubError::Unfit { .. }) => unfit,
            Ok(()) | Err(_) => failed,
        }
    }
}
