//! Makes the tables.

use tokio::task::JoinSet;
use tokio_postgres::types::Type;
use tokio_postgres::{IsolationLevel, Transaction};

use super::links::{Links, Param};
use super::problem::Problem;

/// The version of the tables in `postgres.sql`.
pub(super) const SCHEMA: i32 = 1;

impl Links {
    /// On a connection of its own: this takes more than one statement. They are all in one transaction, and
    /// none stays prepared after it, for the sake of poolers.
    pub(super) async fn migrate(&self) -> Result<(), Problem> {
        let (mut client, driver) = self.server.connect().await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(driver);
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::ReadCommitted)
            .start()
            .await?;
        // Of all instances, and for all tables, since `cloakroom_schema` is there for all.
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended('cloakroom_schema', 0))";
        transaction.batch_execute(lock).await?;
        if !self.is_migrated(&transaction).await? {
            self.make(&transaction).await?;
        }
        for statement in &self.statements {
            let check = format!("PREPARE cloakroom AS {statement}; DEALLOCATE cloakroom");
            let checked = transaction.batch_execute(&check).await;
            checked.map_err(|error| Problem::Changed(self.names.clone(), error))?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Whether the tables are there.
    async fn is_migrated(&self, transaction: &Transaction<'_>) -> Result<bool, Problem> {
        let exists = async |name: String| -> Result<bool, tokio_postgres::Error> {
            let exists = "SELECT to_regclass($1) IS NOT NULL";
            let name = (&name as Param<'_>, Type::TEXT);
            transaction
                .query_typed_one(exists, &[name])
                .await?
                .try_get(0)
        };
        let version = if exists(self.names.version()).await? {
            let version = format!(
                "SELECT version FROM {} WHERE \"table\" = $1",
                self.names.version()
            );
            let table = (&self.names.table as Param<'_>, Type::TEXT);
            transaction.query_typed_opt(&version, &[table]).await?
        } else {
            None
        };
        match version.map(|row| row.try_get(0)).transpose()? {
            Some(SCHEMA) => Ok(true),
            Some(version) => Err(Problem::Version(self.names.clone(), version)),
            None if exists(self.names.with("")).await? => Err(Problem::Foreign(self.names.clone())),
            None => Ok(false),
        }
    }

    /// Makes the tables.
    async fn make(&self, transaction: &Transaction<'_>) -> Result<(), Problem> {
        let encoding = transaction.query_typed_one("SHOW server_encoding", &[]);
        let encoding: String = encoding.await?.try_get(0)?;
        if encoding != "UTF8" {
            return Err(Problem::Encoding(encoding));
        }
        if let Some(schema) = &self.names.schema {
            // Even `IF NOT EXISTS` takes the right to make one.
            let exists = "SELECT to_regnamespace($1) IS NOT NULL";
            let name = (&format!("\"{schema}\"") as Param<'_>, Type::TEXT);
            let exists = transaction.query_typed_one(exists, &[name]).await?;
            if !exists.try_get::<_, bool>(0)? {
                let create = format!("CREATE SCHEMA \"{schema}\"");
                transaction.batch_execute(&create).await?;
            }
        }
        transaction.batch_execute(&self.names.tables()).await?;
        Ok(())
    }
}
