//! Locks of many sessions, a bounded number in one transaction. Where one of them cannot be had, or something changed
//! between look and transaction, the others are not held up: each is then asked for by itself.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::Txn;

use super::EtcdCoordinator;
use super::locks::Claim;
use crate::coordination::{CoordinationError, LockName, LockWish};

/// Keys that one transaction reads, compares or writes at most; etcd takes 128 unless it is told otherwise.
const OPS: usize = 120;

/// Keys of one wish besides its locks: its session.
const SESSION: usize = 1;

impl EtcdCoordinator {
    pub(super) async fn take_all(&self, wishes: &[LockWish]) -> Vec<Result<(), CoordinationError>> {
        let mut answers = Vec::with_capacity(wishes.len());
        for turn in turns(wishes) {
            match self.take_turn(turn).await {
                Ok(done) => answers.extend(done),
                // Nothing was taken, or nobody knows what was: asking again for the same is no obstacle.
                Err(error) => {
                    tracing::debug!(%error, wishes = turn.len(), "locks could not be taken together");
                    for wish in turn {
                        answers.push(self.take(&wish.names, &wish.owner).await);
                    }
                }
            }
        }
        answers
    }

    /// One look and one transaction for several wishes; those that cannot be had are left out of the transaction.
    async fn take_turn(&self, turn: &[LockWish]) -> Result<Vec<Result<(), CoordinationError>>, CoordinationError> {
        let mut keys: BTreeSet<String> = BTreeSet::from([self.incarnation.key().to_owned()]);
        for wish in turn {
            keys.insert(self.keys.worker(&wish.owner.worker));
            keys.extend(wish.names.iter().map(|name| self.keys.lock(name)));
        }
        let keys: Vec<String> = keys.into_iter().collect();
        let (_, found) = self.link.read(&keys).await?;
        let found: BTreeMap<&str, _> = keys.iter().map(String::as_str).zip(found).collect();
        let at = |key: &str| found.get(key).cloned().flatten();
        self.incarnation.check(&self.link, at(self.incarnation.key()).as_ref())?;
        let (mut guards, mut puts) = (vec![self.incarnation.guard()], Vec::new());
        let mut answers = Vec::with_capacity(turn.len());
        for wish in turn {
            let names: Vec<&LockName> = wish.names.iter().collect::<BTreeSet<_>>().into_iter().collect();
            let held: Vec<_> = names.iter().map(|name| at(&self.keys.lock(name))).collect();
            let session = at(&self.keys.worker(&wish.owner.worker));
            answers.push(self.claim(&names, &wish.owner, session.as_ref(), &held).map(|claim| {
                let Claim { guards: more, puts: writes } = claim;
                guards.extend(more);
                puts.extend(writes);
            }));
        }
        if puts.is_empty() || self.link.txn(Txn::new().when(guards).and_then(puts)).await?.succeeded() {
            return Ok(answers);
        }
        Err(CoordinationError::Unavailable("something changed in between".to_owned()))
    }
}

/// Wishes in turns, each of which fits into one transaction, however its keys fall together. No lock is wished for
/// twice in one turn: the second one has to find the first.
fn turns(wishes: &[LockWish]) -> Vec<&[LockWish]> {
    let mut turns = Vec::new();
    let (mut from, mut ops) = (0, 1);
    let mut names: BTreeSet<&LockName> = BTreeSet::new();
    for (at, wish) in wishes.iter().enumerate() {
        let more = wish.names.len() + SESSION;
        let again = wish.names.iter().any(|name| names.contains(name));
        if at > from && (ops + more > OPS || again) {
            turns.push(&wishes[from..at]);
            (from, ops) = (at, 1);
            names.clear();
        }
        ops += more;
        names.extend(&wish.names);
    }
    if from < wishes.len() {
        turns.push(&wishes[from..]);
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordination::LockOwner;

    fn wish(run: &str) -> LockWish {
        let owner = LockOwner { worker: "w".parse().unwrap(), session: "s".to_owned(), epoch: 1 };
        let run: autopack_shared::domain::ids::RunId = run.parse().unwrap();
        LockWish { names: vec![LockName::Run(run.clone()), LockName::Workspace(run)], owner }
    }

    #[test]
    fn a_turn_fits_into_one_transaction_and_has_no_lock_twice() {
        let sizes = |wishes: &[LockWish]| turns(wishes).iter().map(|turn| turn.len()).collect::<Vec<_>>();
        let many: Vec<LockWish> = (0..64).map(|n| wish(&format!("r{n}"))).collect();
        assert_eq!(sizes(&many), [39, 25]);
        assert!(sizes(&[]).is_empty());
        assert_eq!(sizes(&[wish("a"), wish("b"), wish("a")]), [2, 1]);
    }
}
