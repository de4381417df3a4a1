//! Many locks, and many who want one.

use autopack_supervisor::coordination::{CoordinationError, LockWish};

use super::{Cluster, held, locks, open, owner};

/// One that is refused is in nobody's way, and each is taken whole or not at all.
pub(super) async fn many_locks_are_taken_at_once(cluster: &impl Cluster) {
    let member = cluster.member("r-1").await;
    let (mine, theirs) = (owner("w-1", "s-1", 1), owner("w-2", "s-2", 1));
    open(&member, &mine).await;
    open(&member, &theirs).await;
    member.lock(&locks("r-7")[1..], &theirs).await.unwrap();
    member.lock(&locks("r-8"), &mine).await.unwrap();
    // More than fit into one transaction, of which one is taken, one is held already, and one's session is gone.
    let mut wishes: Vec<LockWish> = (0..100)
        .map(|n| LockWish {
            names: locks(&format!("r-{n}")).to_vec(),
            owner: if n % 2 == 0 { mine.clone() } else { theirs.clone() },
        })
        .collect();
    wishes[7].owner = mine.clone();
    wishes[9].owner = owner("w-3", "s-3", 1);
    let answers = member.lock_all(&wishes).await;
    assert_eq!(answers.len(), wishes.len());
    for (n, (answer, wish)) in answers.into_iter().zip(&wishes).enumerate() {
        let holders = [member.holder(&wish.names[0]).await.unwrap(), member.holder(&wish.names[1]).await.unwrap()];
        match n {
            7 => {
                assert_eq!(held(answer), "the workspace of run r-7");
                assert_eq!(holders, [None, Some(theirs.clone())]);
            }
            9 => {
                assert!(matches!(answer, Err(CoordinationError::Unavailable(_))));
                assert_eq!(holders, [None, None]);
            }
            _ => {
                answer.unwrap();
                assert_eq!(holders, [Some(wish.owner.clone()), Some(wish.owner.clone())]);
            }
        }
    }
    // Again, and the same lock for two: the first has it.
    assert!(member.lock_all(&wishes[..7]).await.iter().all(Result::is_ok));
    let both = [
        LockWish { names: locks("new").to_vec(), owner: theirs.clone() },
        LockWish { names: locks("new").to_vec(), owner: mine },
    ];
    let answers = member.lock_all(&both).await;
    assert!(answers[0].is_ok() && answers[1].is_err(), "{answers:?}");
    assert!(member.lock_all(&[]).await.is_empty());
    let names = member.lock_names().await.unwrap();
    let listed: Vec<_> = member.locks().await.unwrap().into_iter().map(|lock| lock.name).collect();
    assert_eq!((names.len(), names), (98 * 2 + 1 + 2, listed));
}

/// At the same moment, through one process or two where there may be two.
pub(super) async fn of_a_hundred_one_has_a_lock(cluster: &impl Cluster) {
    let members = [cluster.member("r-1").await, cluster.member("r-2").await];
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..100 {
        let (member, mine) = (members[n % 2].clone(), owner(&format!("w-{n}"), &format!("s-{n}"), 1));
        open(&member, &mine).await;
        asking.spawn(async move { member.lock(&locks("a"), &mine).await.map(|()| mine) });
    }
    let mut winner = None;
    while let Some(answer) = asking.join_next().await {
        match answer.unwrap() {
            Ok(mine) => assert_eq!(winner.replace(mine), None, "two have it"),
            refused => assert!(held(refused).contains("run a")),
        }
    }
    assert_eq!(members[0].holder(&locks("a")[0]).await.unwrap(), winner);
}
