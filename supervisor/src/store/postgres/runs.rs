//! Projects, runs, leases.

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{QueryBuilder, query};

use autopack_shared::domain::ids::{ProjectId, RunId, Scope};
use autopack_shared::domain::record::{Counts, Lease, Project, Run, Tally};

use super::error::Subject;
use super::puts::Put;
use super::tx::{PostgresTx, integer, limit, living, natural, read_living, read_plain, text};
use crate::store::{RunFilter, Runs, StoreError, StoreResult, Tx as _, doc};

#[async_trait]
impl Runs for PostgresTx {
    async fn put_project(&mut self, project: &Project) -> StoreResult<()> {
        let sql =
            "INSERT INTO project (id, doc) VALUES ($1, $2::json) ON CONFLICT (id) DO UPDATE SET doc = excluded.doc";
        let subject = Subject::new("project", &project.id);
        self.write(&subject, query(sql).bind(project.id.as_str()).bind(doc::pack(project, &[])?)).await?;
        Ok(())
    }

    async fn project(&mut self, id: &ProjectId) -> StoreResult<Option<Project>> {
        let row = self.one(query("SELECT doc::text FROM project WHERE id = $1").bind(id.as_str())).await?;
        row.map(|row| read_plain(&row)).transpose()
    }

    async fn projects(&mut self) -> StoreResult<Vec<Project>> {
        self.all(query("SELECT doc::text FROM project ORDER BY id")).await?.iter().map(read_plain).collect()
    }

    async fn insert_run(&mut self, run: &Run) -> StoreResult<()> {
        let scope = Scope::Run(run.id.clone()).to_string();
        let subject = Subject::new("run", &run.id).in_run(&run.id);
        let fence =
            "INSERT INTO fence (scope, epoch, holder, granted_at) VALUES ($1, 1, 'created', autopack.instant($2))";
        self.write(&subject, query(fence).bind(&scope).bind(self.now().as_millis())).await?;
        self.one(query("SELECT autopack.fence_hold($1, 1)").bind(&scope)).await?;
        let sql = "INSERT INTO run (id, project, state, version, doc) VALUES ($1, $2, $3, $4, $5::json)";
        let sql = query(sql).bind(run.id.as_str()).bind(run.project.as_str()).bind(run.state.as_str());
        self.write(&subject, sql.bind(integer(run.version)).bind(living(run)?)).await?;
        Ok(())
    }

    async fn run(&mut self, id: &RunId) -> StoreResult<Option<Run>> {
        let row = self.one(query("SELECT doc::text, state, version FROM run WHERE id = $1").bind(id.as_str())).await?;
        row.map(|row| read_living(&row)).transpose()
    }

    async fn runs(&mut self, filter: &RunFilter) -> StoreResult<Vec<Run>> {
        let mut sql = QueryBuilder::new("SELECT doc::text, state, version FROM run WHERE TRUE");
        if let Some(project) = &filter.project {
            sql.push(" AND project = ").push_bind(project.as_str());
        }
        if !filter.states.is_empty() {
            let mut states = sql.push(" AND state IN (").separated(", ");
            filter.states.iter().for_each(|state| {
                states.push_bind(state.as_str());
            });
            sql.push(")");
        }
        sql.push(" ORDER BY seq DESC LIMIT ").push_bind(limit(filter.limit));
        self.all(sql.build()).await?.iter().map(read_living).collect()
    }

    async fn update_run(&mut self, run: &mut Run) -> StoreResult<()> {
        let subject = Subject::new("run", &run.id).in_run(&run.id);
        let put = Put::new("run", &run.id, run.id.as_str(), living(run)?, subject);
        self.put(put.living(run.state.as_str(), run.version)).await?;
        run.version += 1;
        Ok(())
    }

    async fn lock_gate(&mut self, project: &ProjectId) -> StoreResult<()> {
        self.writes()?;
        self.one(query("SELECT autopack.lock_gate($1)").bind(project.as_str())).await?;
        Ok(())
    }

    async fn insert_lease(&mut self, lease: &Lease) -> StoreResult<()> {
        let subject = Subject::new("lease", &lease.id).in_run(&lease.run).of("run", &lease.run).once(
            &["lease_active_once", "lease_workspace_once"],
            "an active lease of run",
            &lease.run,
        );
        let put = Put::new("lease+", &lease.run, lease.id.as_str(), living(lease)?, subject);
        self.put(put.living(lease.state.as_str(), lease.version).in_project(lease.project.as_str())).await
    }

    async fn active_leases(&mut self, project: Option<&ProjectId>) -> StoreResult<Vec<Lease>> {
        let sql = "SELECT doc::text, state, version FROM lease WHERE state IN ('granting', 'held') \
                   AND ($1 IS NULL OR project = $1) ORDER BY seq";
        self.all(query(sql).bind(project.map(ProjectId::as_str))).await?.iter().map(read_living).collect()
    }

    async fn leases(&mut self, run: &RunId) -> StoreResult<Vec<Lease>> {
        let sql = "SELECT doc::text, state, version FROM lease WHERE run_id = $1 ORDER BY seq";
        self.look(&["lease"], query(sql).bind(run.as_str())).await?.iter().map(read_living).collect()
    }

    async fn update_lease(&mut self, lease: &mut Lease) -> StoreResult<()> {
        let subject = Subject::new("lease", &lease.id).in_run(&lease.run);
        let put = Put::new("lease", &lease.run, lease.id.as_str(), living(lease)?, subject);
        self.put(put.living(lease.state.as_str(), lease.version)).await?;
        lease.version += 1;
        Ok(())
    }

    async fn peak_leases(&mut self, project: &ProjectId) -> StoreResult<u64> {
        // What a commit leaves behind counts, not the order of statements within it.
        let sql = "SELECT coalesce(max(active), 0)::bigint FROM (SELECT sum(change) OVER (ORDER BY commit_no) AS active \
                   FROM (SELECT commit_no, sum(change) AS change FROM lease_history WHERE project = $1 \
                   GROUP BY commit_no) AS commits) AS history";
        let row = self.one(query(sql).bind(project.as_str())).await?;
        row.map_or(Ok(0), |row| natural(&row, 0))
    }

    async fn census(&mut self) -> StoreResult<Vec<Tally>> {
        let sql = "SELECT 0::bigint AS noun, project, state, count(*) FROM run GROUP BY project, state \
                   UNION ALL SELECT 1::bigint, r.project, p.state, count(*) FROM phase p JOIN run r ON r.id = p.run_id \
                   GROUP BY r.project, p.state \
                   UNION ALL SELECT 2::bigint, project, state, count(*) FROM lease WHERE state IN ('granting', 'held') \
                   GROUP BY project, state ORDER BY 1, 2, 3";
        self.all(query(sql)).await?.iter().map(tally).collect()
    }
}

fn tally(row: &PgRow) -> StoreResult<Tally> {
    let nouns = [Counts::Runs, Counts::Phases, Counts::Leases];
    let noun = usize::try_from(natural(row, 0)?).ok().and_then(|at| nouns.get(at).copied());
    let noun = noun.ok_or_else(|| StoreError::Corrupt("a count of nothing".to_owned()))?;
    let (project, state) = (text(row, 1)?.to_owned(), text(row, 2)?.to_owned());
    Ok(Tally { noun, project, state, count: natural(row, 3)? })
}
