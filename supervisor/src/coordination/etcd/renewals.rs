//! Heartbeats of many sessions look at their keys together: a thousand workers send five hundred heartbeats a second, and
//! a look costs about the same for one key as for many. Each waits a moment for others that come at the same time, and
//! its answer is of a moment after it asked.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::KeyValue;
use tokio::sync::{mpsc, oneshot};

use autopack_shared::runtime::process::{OnError, Tasks, caught};

use super::link::Link;
use crate::coordination::CoordinationError;

/// How long the first one waits for others.
const GATHER: Duration = Duration::from_millis(20);

/// Keys of one look; etcd takes 128 operations in a transaction unless it is told otherwise.
const MOST: usize = 100;

/// Askers that may wait.
const QUEUE: usize = 4096;

type Answer = Result<Option<KeyValue>, String>;

/// Where keys are asked for.
pub(super) struct Renewals {
    ask: mpsc::Sender<(String, oneshot::Sender<Answer>)>,
    tasks: Tasks,
}

impl Drop for Renewals {
    fn drop(&mut self) {
        self.tasks.stop().cancel();
    }
}

impl Renewals {
    /// Starts looking. Ends with this value.
    pub(super) fn start(link: Arc<Link>) -> Self {
        let (ask, mut asked) = mpsc::channel(QUEUE);
        let tasks = Tasks::new();
        let stop = tasks.stop().clone();
        tasks.spawn("looks at sessions", OnError::Log, async move {
            let serving = async {
                // Who asked when it panicked hears that nobody answers, and asks again.
                while let Err(panic) = caught(Box::pin(serve(&link, &mut asked))).await {
                    tracing::error!(error = panic, "looks at sessions begin anew");
                }
            };
            stop.run_until_cancelled(serving).await;
            Ok::<_, Infallible>(())
        });
        Self { ask, tasks }
    }

    /// A linearizable read of one key, together with others.
    pub(super) async fn get(&self, key: String) -> Result<Option<KeyValue>, CoordinationError> {
        let (answer, answered) = oneshot::channel();
        let gone = || CoordinationError::Unavailable("nobody looks at sessions any more".to_owned());
        self.ask.send((key, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?.map_err(CoordinationError::Unavailable)
    }
}

async fn serve(link: &Link, asked: &mut mpsc::Receiver<(String, oneshot::Sender<Answer>)>) {
    let mut turn = Vec::with_capacity(MOST);
    while asked.recv_many(&mut turn, MOST).await > 0 {
        if turn.len() < MOST {
            tokio::time::sleep(GATHER).await;
            while turn.len() < MOST
                && let Ok(more) = asked.try_recv()
            {
                turn.push(more);
            }
        }
        let mut waiting: BTreeMap<String, Vec<oneshot::Sender<Answer>>> = BTreeMap::new();
        for (key, answer) in turn.drain(..) {
            waiting.entry(key).or_default().push(answer);
        }
        let keys: Vec<String> = waiting.keys().cloned().collect();
        let found = link.read(&keys).await.map(|(_, found)| found).map_err(|error| error.to_string());
        for (at, answers) in waiting.into_values().enumerate() {
            let answer = found.as_ref().map(|found| found.get(at).cloned().flatten()).map_err(Clone::clone);
            for waiter in answers {
                // Who no longer waits has given up by itself.
                let _gone = waiter.send(answer.clone());
            }
        }
    }
}
