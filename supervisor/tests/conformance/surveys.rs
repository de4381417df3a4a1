//! Surveys: asked once, given to one worker, forgotten.

use tokio::task::JoinSet;

use autopack_shared::domain::survey::{LIFE_SECONDS, Survey, SurveyAsk, SurveyFailure, SurveyState};
use autopack_supervisor::store::StoreError;

use crate::fixtures::*;
use crate::lab::Lab;
use crate::rows::{conflict, exists, missing};

const WORKERS: u64 = 16;

fn survey(id: &str, commit: u8) -> Survey {
    let ask = SurveyAsk {
        project: name("shop"),
        commit: oid(commit),
        branch: Some("main".to_owned()),
        since: None,
        deep: false,
        anchor: None,
    };
    Survey::new(name(id), ask, at(0)).unwrap()
}

pub(crate) async fn a_question_is_open_once(lab: &mut impl Lab) {
    let (mut first, same, other) = (survey("s-2", 1), survey("s-1", 1), survey("s-3", 2));
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.insert_survey(&first).await.unwrap();
    tx.insert_survey(&other).await.unwrap();
    assert_eq!(exists(tx.insert_survey(&same).await), format!("an open survey of {}", first.key));
    assert_eq!(tx.newest_survey(&first.key).await.unwrap(), Some(first.clone()));
    assert_eq!(tx.open_surveys().await.unwrap(), [first.clone(), other.clone()]);
    first.answer(Err(SurveyFailure { reason: "not_found".to_owned(), message: "gone \u{0} away".to_owned() }));
    tx.update_survey(&mut first).await.unwrap();
    assert_eq!(first.version, 1);
    tx.insert_survey(&same).await.unwrap();
    assert_eq!(tx.survey(&name("s-2")).await.unwrap(), Some(first.clone()));
    assert_eq!(tx.newest_survey(&first.key).await.unwrap(), Some(same.clone()));
    assert_eq!(tx.open_surveys().await.unwrap(), [other, same], "oldest first, and none that is answered");
    assert_eq!(tx.survey(&name("s-9")).await.unwrap(), None);
    assert_eq!(exists(tx.insert_survey(&survey("s-3", 9)).await), "survey s-3");
    tx.commit().await.unwrap();
}

pub(crate) async fn a_survey_is_given_to_one_worker(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.insert_survey(&survey("s-1", 1)).await.unwrap();
    tx.commit().await.unwrap();
    let mut workers = JoinSet::new();
    for n in 0..WORKERS {
        let store = lab.store();
        workers.spawn(async move {
            let mut mine = store.read().await.unwrap().open_surveys().await.unwrap().remove(0);
            let mut tx = store.tx(&[]).await.unwrap();
            let now = at(1);
            if !mine.is_free(now) {
                return false;
            }
            assert!(mine.claim(&name(&format!("w-{n}")), "s", now));
            match tx.update_survey(&mut mine).await {
                Ok(()) => tx.commit().await.is_ok(),
                Err(StoreError::Conflict { .. }) => false,
                Err(other) => panic!("{other}"),
            }
        });
    }
    let given = workers.join_all().await.into_iter().filter(|given| *given).count();
    assert_eq!(given, 1);
    let stored = lab.store().read().await.unwrap().survey(&name("s-1")).await.unwrap().unwrap();
    assert_eq!((stored.state, stored.claims.len(), stored.version), (SurveyState::Claimed, 1, 1));
}

pub(crate) async fn surveys_that_are_over_are_forgotten(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    let late = Survey { expires_at: at(0).plus_seconds(2 * LIFE_SECONDS), ..survey("s-2", 2) };
    tx.insert_survey(&survey("s-1", 1)).await.unwrap();
    tx.insert_survey(&late).await.unwrap();
    let end = at(0).plus_seconds(LIFE_SECONDS);
    assert_eq!(tx.drop_surveys(at(LIFE_SECONDS * 1000 - 1)).await.unwrap(), 0);
    assert_eq!(tx.drop_surveys(end).await.unwrap(), 1);
    assert_eq!(tx.open_surveys().await.unwrap(), std::slice::from_ref(&late));
    let mut gone = survey("s-1", 1);
    assert_eq!(missing(tx.update_survey(&mut gone).await), "survey s-1");
    let mut stale = late.clone();
    tx.update_survey(&mut late.clone()).await.unwrap();
    assert_eq!(conflict(tx.update_survey(&mut stale).await), ("survey s-2".to_owned(), 0));
    tx.insert_survey(&survey("s-1", 1)).await.unwrap();
    tx.commit().await.unwrap();
}
