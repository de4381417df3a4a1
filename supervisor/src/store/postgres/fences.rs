//! Epochs, the incarnation and the store's own id.

use async_trait::async_trait;
use sqlx::query;

use autopack_shared::domain::ids::Scope;

use super::error::Subject;
use super::tx::{PostgresTx, maybe_text, natural, text};
use crate::store::{Fences, StoreError, StoreResult, Tx as _};

fn no_cluster() -> StoreError {
    StoreError::Corrupt("the cluster row is missing".to_owned())
}

#[async_trait]
impl Fences for PostgresTx {
    async fn incarnation(&mut self) -> StoreResult<u32> {
        let row = self.one(query("SELECT incarnation FROM cluster")).await?.ok_or_else(no_cluster)?;
        u32::try_from(natural(&row, 0)?).map_err(|_| StoreError::Corrupt("the incarnation is out of range".to_owned()))
    }

    async fn set_incarnation(&mut self, incarnation: u32) -> StoreResult<()> {
        let sql = "UPDATE cluster SET incarnation = $1 WHERE incarnation <= $1";
        let subject = Subject::new("cluster", "incarnation");
        if self.write(&subject, query(sql).bind(i64::from(incarnation))).await? == 0 {
            return Err(StoreError::IllegalMove(format!("the incarnation may not fall to {incarnation}")));
        }
        self.place.1 = incarnation;
        Ok(())
    }

    async fn cluster_id(&mut self) -> StoreResult<String> {
        let row = self.one(query("SELECT cluster_id FROM cluster")).await?.ok_or_else(no_cluster)?;
        Ok(text(&row, 0)?.to_owned())
    }

    async fn coordination(&mut self) -> StoreResult<Option<String>> {
        let row = self.one(query("SELECT coordination FROM cluster")).await?.ok_or_else(no_cluster)?;
        Ok(maybe_text(&row, 0)?.map(str::to_owned))
    }

    async fn set_coordination(&mut self, from: Option<&str>, to: &str) -> StoreResult<bool> {
        let sql = query("UPDATE cluster SET coordination = $1 WHERE coordination IS NOT DISTINCT FROM $2")
            .bind(to)
            .bind(from);
        Ok(self.write(&Subject::new("cluster", "coordination"), sql).await? == 1)
    }

    async fn epoch(&mut self, scope: &Scope) -> StoreResult<Option<u64>> {
        let sql = query("SELECT epoch FROM fence WHERE scope = $1").bind(scope.to_string());
        self.one(sql).await?.map(|row| natural(&row, 0)).transpose()
    }

    async fn bump(&mut self, scope: &Scope, holder: &str) -> StoreResult<u64> {
        self.writes()?;
        let sql = query("SELECT autopack.fence_bump($1, $2, $3)").bind(scope.to_string()).bind(holder);
        let epoch = self.number(sql.bind(self.now().as_millis())).await?;
        u64::try_from(epoch).map_err(|_| StoreError::Corrupt(format!("epoch {epoch} of {scope}")))
    }
}
