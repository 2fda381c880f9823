//! Reads of one session by many clients: this crate's PostgreSQL store beside a default pool of sqlx.
//!
//! ```text
//! cd benches/peers && cargo bench --bench postgres_reads
//! ```
//!
//! The pool reads the same columns of a table of the same form, in the simplest way that its
//! documentation shows. Both take turns in one run; only the ratio says something.

#[path = "../../../tests/support/postgres_server.rs"]
mod postgres_server;
#[path = "../../../tests/support/server.rs"]
mod server;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cloakroom::store::{Digest, Record, SessionStore, Timestamp};
use cloakroom::{PostgresStore, SessionId};
use sqlx::PgPool;

use self::postgres_server::PostgresServer;

const CLIENTS: u8 = 64;
const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() {
    let server = PostgresServer::start();
    let store = PostgresStore::connect(&server.url())
        .await
        .expect("it runs");
    store.migrate().await.expect("the table can be made");
    let pool = PgPool::connect(&server.url()).await.expect("it runs");
    let table =
        "CREATE TABLE plain (id bytea PRIMARY KEY, version bigint NOT NULL, digest bytea NOT NULL,
                 expires bigint NOT NULL, data bytea NOT NULL)";
    sqlx::query(table).execute(&pool).await.expect("a table");
    let mut record = Record::new(Digest::from_bytes([7; 32]), now(), Timestamp::MAX);
    record.data = br#"{"a":1,"b":1,"c":1,"d":1,"visits":1}"#.as_slice().into();
    for client in 0..CLIENTS {
        let created = store.create(id(client), &record, now()).await;
        let _done = created.expect("it is stored");
        sqlx::query("INSERT INTO plain VALUES ($1, 1, $2, $3, $4)")
            .bind(id(client).as_bytes().as_slice())
            .bind(record.digest.as_bytes().as_slice())
            .bind(i64::MAX)
            .bind(&*record.data)
            .execute(&pool)
            .await
            .expect("a row");
    }

    let store = Arc::new(store);
    let ours = async |client| {
        let found = store.load(id(client), now()).await.expect("it is read");
        assert!(found.is_some());
    };
    let theirs = async |client| {
        let id = id(client);
        let row = sqlx::query_as::<_, (i64, Vec<u8>, i64, Vec<u8>)>(
            "SELECT version, digest, expires, data FROM plain WHERE id = $1 AND expires > $2",
        )
        .bind(id.as_bytes().as_slice())
        .bind(i64::try_from(now().as_millis()).expect("before the year 9999"));
        let found = row.fetch_optional(&pool).await.expect("it is read");
        assert!(found.is_some());
    };
    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (ours, theirs) = (rate(&ours).await, rate(&theirs).await);
        rates.push((ours, theirs));
        ratios.push(ours / theirs);
    }
    ratios.sort_by(f64::total_cmp);
    println!("reads a second by {CLIENTS} clients, ours and through the pool: {rates:.0?}");
    println!(
        "| PostgreSQL, reads by {CLIENTS} clients beside a default sqlx pool | {:.1} |",
        ratios[ROUNDS / 2]
    );
}

/// Operations a second of many clients at once. They share a thread, as the tasks of `join_all` do.
async fn rate<F: Future<Output = ()>>(operation: &impl Fn(u8) -> F) -> f64 {
    let start = Instant::now();
    let clients = (0..CLIENTS).map(|client| async move {
        let mut count = 0_u64;
        while start.elapsed() < ROUND {
            operation(client).await;
            count += 1;
        }
        count
    });
    let counts = futures_util::future::join_all(clients).await;
    counts.iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64()
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn id(client: u8) -> SessionId {
    SessionId::from_bytes([client; 16])
}
