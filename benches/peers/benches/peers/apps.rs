//! The measured routes on the peers' layers, each as its documentation sets it up.
//!
//! All of them get the same cookie flags (`Secure`, `HttpOnly`, `SameSite=Lax`, the prefix `__Host-`,
//! not signed) and one hour of idle time, and their own defaults otherwise. axum_session binds a session
//! to address and user agent by default, which the others do not: that is off.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use axum_session::{DatabasePool, SessionConfig, SessionLayer, SessionStore};
use redis::aio::ConnectionManager;
use redis::{AsyncCommands as _, Script, SetExpiry, SetOptions};

use crate::requests::{FILLS, SMALL, answer, large_keys, large_value};

/// Of one release of tower-sessions: its stores for servers are made for an earlier one than the last.
macro_rules! tower_sessions_application {
    ($name:ident, $release:ident) => {
        pub(crate) fn $name<S>(store: S) -> Router
        where
            S: $release::SessionStore + Clone + 'static,
        {
            use $release::session::Error;
            use $release::{Expiry, Session, SessionManagerLayer, cookie::SameSite};

            async fn read(session: Session) -> String {
                answer(session.get("a").await.expect("it is there").unwrap_or(7))
            }
            async fn increment(session: Session) -> String {
                let n: u64 = session.get("visits").await.expect("a number").unwrap_or(0);
                session.insert("visits", n + 1).await.expect("it fits");
                answer(n + 1)
            }
            async fn sign_in(session: Session) -> String {
                session.cycle_id().await.expect("the store answers");
                session.insert("user", "ada").await.expect("it fits");
                answer(7)
            }
            async fn fill(session: &Session, large: usize) -> Result<(), Error> {
                for key in SMALL {
                    session.insert(key, 1).await?;
                }
                for key in large_keys(large) {
                    session.insert(&key, large_value()).await?;
                }
                Ok(())
            }

            let router = Router::new()
                .route("/plain", get(async || answer(7)))
                .route("/read", get(read))
                .route("/increment", post(increment))
                .route("/sign-in", post(sign_in));
            let filled = FILLS.into_iter().fold(router, |router, (path, large)| {
                let handler = async move |session: Session| {
                    fill(&session, large).await.expect("the store answers");
                };
                router.route(path, post(handler))
            });
            let layer = SessionManagerLayer::new(store)
                .with_name("__Host-id")
                .with_same_site(SameSite::Lax)
                .with_expiry(Expiry::OnInactivity(time::Duration::hours(1)));
            filled.layer(layer).with_state(())
        }
    };
}

tower_sessions_application!(tower_sessions, tower_sessions);
tower_sessions_application!(tower_sessions_for_stores, tower_sessions_for_stores);

/// With `None` its sessions are in memory; with a database they are there as well.
pub(crate) async fn axum_session<P>(database: Option<P>) -> Router
where
    P: DatabasePool + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    type Session<P> = axum_session::Session<P>;

    let config = SessionConfig::default()
        .with_lifetime(time::Duration::hours(1))
        .with_max_age(None)
        .with_secure(true)
        .with_prefix_with_host(true)
        .with_ip_and_user_agent(false);
    let store = SessionStore::<P>::new(database, config).await;

    let router = Router::new()
        .route("/plain", get(async || answer(7)))
        .route(
            "/read",
            get(async |session: Session<P>| answer(session.get("a").unwrap_or(7))),
        )
        .route(
            "/increment",
            post(async |session: Session<P>| {
                let n = session.get::<u64>("visits").unwrap_or(0) + 1;
                session.set("visits", n);
                answer(n)
            }),
        )
        .route(
            "/sign-in",
            post(async |session: Session<P>| {
                session.renew();
                session.set("user", "ada");
                answer(7)
            }),
        );
    let filled = FILLS.into_iter().fold(router, |router, (path, large)| {
        let handler = async move |session: Session<P>| {
            for key in SMALL {
                session.set(key, 1);
            }
            for key in large_keys(large) {
                session.set(&key, large_value());
            }
        };
        router.route(path, post(handler))
    });
    filled
        .layer(SessionLayer::new(store.expect("the database answers")))
        .with_state(())
}

/// How a handler without sessions stores what it counts in Redis.
#[derive(Clone, Copy)]
pub(crate) enum Stored {
    /// Whatever is there.
    Set,
    /// If what is there begins as what was loaded did, so that no update is lost: in a script, as servers before
    /// Redis 8.4 and Valkey 8.1 do that.
    Swapped,
}

/// No sessions, but what any layer has to ask Redis for: a value, which is not looked into, and to count also
/// to store one until some time.
pub(crate) fn redis_alone(connection: ConnectionManager, stored: Stored) -> Router {
    const KEY: &str = "alone";
    const LIKE_A_SESSION: [u8; 110] = [b'.'; 110];
    const VERSION: &[u8] = LIKE_A_SESSION.first_chunk::<9>().expect("it is longer");
    const SWAP: &str = "if redis.call('GETRANGE', KEYS[1], '0', '8') == ARGV[1] then \
                            redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3]) return 1 \
                        end \
                        return 0";

    #[derive(Clone)]
    struct Redis {
        connection: ConnectionManager,
        swap: Option<Arc<Script>>,
    }

    impl Redis {
        async fn load(&mut self) -> String {
            let found: Option<Vec<u8>> = self.connection.get(KEY).await.expect("it runs");
            answer(found.map_or(0, |found| found.len() as u64))
        }

        async fn fill(&mut self) {
            let options = SetOptions::default().with_expiration(SetExpiry::PXAT(in_an_hour()));
            let set = self.connection.set_options(KEY, &LIKE_A_SESSION, options);
            let (): () = set.await.expect("it runs");
        }

        async fn store(&mut self) {
            let Some(swap) = &self.swap else {
                return self.fill().await;
            };
            let mut call = swap.key(KEY);
            call.arg(VERSION).arg(&LIKE_A_SESSION).arg(in_an_hour());
            let swapped: u8 = call
                .invoke_async(&mut self.connection)
                .await
                .expect("it runs");
            assert_eq!(swapped, 1);
        }
    }

    let swap = matches!(stored, Stored::Swapped).then(|| Arc::new(Script::new(SWAP)));
    Router::new()
        .route(
            "/fill",
            post(async |State(mut redis): State<Redis>| redis.fill().await),
        )
        .route("/plain", get(async || answer(7)))
        .route(
            "/read",
            get(async |State(mut redis): State<Redis>| redis.load().await),
        )
        .route(
            "/increment",
            post(async |State(mut redis): State<Redis>| {
                let found = redis.load().await;
                redis.store().await;
                found
            }),
        )
        .with_state(Redis { connection, swap })
}

/// In milliseconds since 1970.
fn in_an_hour() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let in_an_hour = now.expect("it is later than 1970") + Duration::from_secs(3600);
    u64::try_from(in_an_hour.as_millis()).expect("it is not so late")
}
