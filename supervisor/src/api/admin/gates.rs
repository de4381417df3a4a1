//! What gates have learned, for operators: flaky tests, and baselines, which can be measured again.

use std::collections::BTreeMap;

use autopack_shared::domain::audit::AuditDraft;
use autopack_shared::domain::gate::Measured;
use autopack_shared::domain::ids::Oid;
use autopack_shared::domain::record::Principal;
use autopack_shared::wire::pb;

use super::operate::{CHAIN, reason_of};
use crate::api::Core;
use crate::error::Error;
use crate::store::gates::{FLAKY, FlakyTest};

/// Flaky tests that are listed where no number is asked for.
const LISTED: u32 = 100;

impl Core {
    /// Flaky tests of the project.
    pub(super) async fn flaky_tests(&self, call: &pb::FlakyTestsRequest) -> Result<pb::FlakyTestsResponse, Error> {
        let limit = if call.limit == 0 { LISTED } else { call.limit.min(FLAKY) };
        let found = self.store.read().await?.flaky_tests(&self.project, limit).await?;
        Ok(pb::FlakyTestsResponse { tests: found.into_iter().map(flaky).collect() })
    }

    /// What is known of a base, and forgotten if that is asked.
    pub(super) async fn baselines(
        &self,
        call: pb::BaselinesRequest,
        principal: Principal,
    ) -> Result<pb::BaselinesResponse, Error> {
        let base: Oid = call.base.parse()?;
        let found = self.store.read().await?.baselines(&self.project, base).await?;
        if call.forget {
            let mut tx = self.store.tx(&[]).await?;
            tx.append_audit(AuditDraft {
                chain: CHAIN.to_owned(),
                actor: principal,
                op: "baseline.forget".to_owned(),
                object_type: "baseline".to_owned(),
                object_id: format!("{}/{base}", self.project),
                before: None,
                after: None,
                fence: None,
                digests: BTreeMap::new(),
                reason: reason_of(&call.reason),
                request: BTreeMap::new(),
            })
            .await?;
            tx.drop_baselines(&self.project, base).await?;
            tx.commit().await?;
        }
        Ok(pb::BaselinesResponse { baselines: found.into_iter().map(baseline).collect() })
    }
}

fn flaky(test: FlakyTest) -> pb::FlakyTest {
    pb::FlakyTest {
        command: test.command,
        test: test.test,
        count: test.count,
        first_seen_ms: test.first_seen.as_millis(),
        last_seen_ms: test.last_seen.as_millis(),
        last_run: test.last_run.to_string(),
    }
}

fn baseline(known: Measured) -> pb::Baseline {
    pb::Baseline {
        command: known.command.to_string(),
        code: known.baseline.code,
        failing: known.baseline.failing.into_iter().collect(),
        flaky: known.baseline.flaky.into_iter().collect(),
        tests: known.baseline.ran.len() as u64,
        whole: known.baseline.whole,
    }
}
