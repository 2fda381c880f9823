//! The connections, which come back by themselves.

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};
use std::{io, mem};

use tokio::sync::{Notify, OnceCell, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Row, Statement};

use super::problem::{Problem, Refusal};
use super::sql::{Names, OPERATIONS, Operation, statements};
use super::{PostgresStoreBuilder, tls};
use crate::error::StoreError;

/// How long to wait until a server has let us in, if the configuration does not say.
const CONNECT: Duration = Duration::from_secs(5);

/// How long to wait for a host that has vanished without a word, if the configuration does not say.
const VANISHED: Duration = Duration::from_secs(10);

/// Pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(super) type Param<'a> = &'a (dyn ToSql + Sync);

/// The connections, each looked after by a task.
pub(super) struct Links {
    pub(super) names: Names,
    pub(super) statements: [String; OPERATIONS],
    /// Whether statements are prepared, and kept on a connection.
    prepares: bool,
    pub(super) server: Server,
    links: Vec<watch::Receiver<State>>,
    next: AtomicUsize,
    /// Until when the last batch of expired sessions reached, if more may follow.
    swept: Mutex<Option<SystemTime>>,
    /// End when this is dropped, and their connections with them.
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
enum State {
    /// Broke, and is about to be made anew.
    Connecting,
    Up(Arc<Link>),
    /// Could not be made, and is tried again from time to time.
    Down(Arc<Problem>),
}

impl State {
    fn is_up(&self) -> bool {
        matches!(self, Self::Up(link) if !link.client.is_closed())
    }
}

struct Link {
    client: Client,
    prepared: [OnceCell<Statement>; OPERATIONS],
    /// Told when the server refused to write.
    refused: Arc<Notify>,
}

impl Links {
    pub(super) async fn connect(
        builder: &PostgresStoreBuilder,
        mut config: Config,
    ) -> Result<Self, Problem> {
        builder.names.check()?;
        let tls = builder.trust.connector(&mut config)?;
        if config.get_application_name().is_none() {
            config.application_name("cloakroom");
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(VANISHED);
        }
        // What waits for a lock has to see what was done under it. A pooler would not pass this on.
        if !builder.transaction_pooling {
            let options = config.get_options().unwrap_or_default();
            let options = format!(r"{options} -c default_transaction_isolation=read\ committed");
            config.options(options.trim_start());
        }
        let server = Server { config, tls };

        // The first one shows whether it works at all.
        let mut first = Some(server.connect().await?);
        let mut tasks = JoinSet::new();
        let links = (0..builder.connections.max(1)).map(|_| {
            let (sender, state) = watch::channel(State::Connecting);
            tasks.spawn(look_after(server.clone(), first.take(), sender));
            state
        });
        Ok(Self {
            names: builder.names.clone(),
            statements: statements(&builder.names),
            prepares: !builder.transaction_pooling,
            links: links.collect(),
            server,
            next: AtomicUsize::new(0),
            swept: Mutex::new(None),
            _tasks: tasks,
        })
    }

    pub(super) async fn execute(
        &self,
        operation: Operation,
        params: &[Param<'_>],
    ) -> Result<u64, StoreError> {
        let (link, statement) = self.prepare(operation).await?;
        let done = match statement {
            Some(statement) => link.client.execute(&statement, params).await,
            None => {
                let params = typed(operation, params);
                link.client
                    .execute_typed(self.sql(operation), &params)
                    .await
            }
        };
        done.map_err(|error| self.failed(&link, error))
    }

    pub(super) async fn query(
        &self,
        operation: Operation,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let (link, statement) = self.prepare(operation).await?;
        let rows = match statement {
            Some(statement) => link.client.query(&statement, params).await,
            None => {
                let params = typed(operation, params);
                link.client.query_typed(self.sql(operation), &params).await
            }
        };
        rows.map_err(|error| self.failed(&link, error))
    }

    pub(super) async fn query_one(
        &self,
        operation: Operation,
        params: &[Param<'_>],
    ) -> Result<Row, StoreError> {
        let rows = self.query(operation, params).await?;
        let row = rows.into_iter().next();
        row.ok_or_else(|| StoreError::new(Problem::Answer))
    }

    pub(super) fn take_swept(&self) -> Option<SystemTime> {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        swept.take()
    }

    pub(super) fn set_swept(&self, until: SystemTime) {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        *swept = Some(until);
    }

    fn sql(&self, operation: Operation) -> &str {
        &self.statements[operation as usize]
    }

    /// A connection that works, as far as one can know, and the statement on it if they are prepared.
    async fn prepare(
        &self,
        operation: Operation,
    ) -> Result<(Arc<Link>, Option<Statement>), StoreError> {
        loop {
            let link = self.link().await.map_err(StoreError::new)?;
            if !self.prepares {
                return Ok((link, None));
            }
            let prepared = link.prepared[operation as usize].get_or_try_init(async || {
                let types = operation.types();
                link.client.prepare_typed(self.sql(operation), &types).await
            });
            match prepared.await {
                // Nothing was carried out yet: another connection will do.
                _ if link.client.is_closed() => {}
                Ok(statement) => {
                    let statement = statement.clone();
                    return Ok((link, Some(statement)));
                }
                Err(error) => return Err(self.failed(&link, error)),
            }
        }
    }

    fn failed(&self, link: &Link, error: tokio_postgres::Error) -> StoreError {
        if is_missing(&error) {
            return StoreError::new(Problem::NotMigrated(self.names.clone(), error));
        }
        match error.as_db_error() {
            Some(refusal) => {
                if *refusal.code() == SqlState::READ_ONLY_SQL_TRANSACTION {
                    link.refused.notify_one();
                }
                StoreError::new(Refusal::from(refusal))
            }
            None => StoreError::new(error),
        }
    }

    /// The next connection that is up, or else about to be.
    async fn link(&self) -> Result<Arc<Link>, Arc<Problem>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let links =
            (0..self.links.len()).map(|n| &self.links[first.wrapping_add(n) % self.links.len()]);
        let mut about_to_be = None;
        let mut problem = None;
        for link in links {
            match &*link.borrow() {
                State::Up(up) if !up.client.is_closed() => return Ok(Arc::clone(up)),
                State::Up(_) | State::Connecting => about_to_be = Some(link.clone()),
                State::Down(why) => problem = Some(Arc::clone(why)),
            }
        }
        if let Some(mut link) = about_to_be {
            let state = link
                .wait_for(|state| state.is_up() || matches!(state, State::Down(_)))
                .await;
            match state.as_deref() {
                Ok(State::Up(link)) => return Ok(Arc::clone(link)),
                Ok(State::Down(why)) => problem = Some(Arc::clone(why)),
                Ok(State::Connecting) | Err(_) => {}
            }
        }
        Err(problem.unwrap_or_else(|| Arc::new(Problem::Stopped)))
    }
}

/// The parameters as a statement that is not prepared takes them.
fn typed<'a>(operation: Operation, params: &[Param<'a>]) -> Vec<(Param<'a>, Type)> {
    params.iter().copied().zip(operation.types()).collect()
}

/// Where the connections lead.
#[derive(Clone)]
pub(super) struct Server {
    config: Config,
    tls: tls::Connector,
}

/// A connection, and what it needs to be polled for.
type Connected = (Client, Driver);
type Driver = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

impl Server {
    pub(super) async fn connect(&self) -> Result<Connected, Problem> {
        let config = &self.config;
        let limit = config.get_connect_timeout().copied().unwrap_or(CONNECT);
        let hosts = u32::try_from(config.get_hosts().len().max(1)).unwrap_or(u32::MAX);
        // Without TLS the connector is `Copy`.
        #[allow(clippy::clone_on_copy)]
        let connecting = config.connect(self.tls.clone());
        match timeout(limit.saturating_mul(hosts), connecting).await {
            Ok(Ok((client, connection))) => Ok((client, Box::pin(connection))),
            Ok(Err(error)) => Err(self.refused(error)),
            Err(_) => Err(Problem::Silent(self.to_string())),
        }
    }

    fn refused(&self, error: tokio_postgres::Error) -> Problem {
        // Of the network or of the server. The driver does not say what belongs to TLS.
        let is_plain =
            |cause: &(dyn StdError + 'static)| cause.is::<io::Error>() || cause.is::<DbError>();
        let requires_tls = self.config.get_ssl_mode() == SslMode::Require;
        if tls::is_certificate(&error) {
            Problem::Certificate(self.to_string(), error)
        } else if requires_tls && !error.source().is_some_and(is_plain) {
            Problem::Encryption(self.to_string(), error)
        } else if error.code() == Some(&SqlState::PROTOCOL_VIOLATION) {
            // So poolers answer to `options`.
            Problem::Pooler(self.to_string(), error)
        } else {
            Problem::Connect(self.to_string(), error)
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        for (n, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            let port = ports.get(n).or(ports.first()).unwrap_or(&5432);
            match host {
                Host::Tcp(host) => write!(f, "{comma}{host}:{port}")?,
                #[cfg(unix)]
                Host::Unix(folder) => write!(f, "{comma}{}:{port}", folder.display())?,
            }
        }
        Ok(())
    }
}

/// Keeps a connection up, until it is aborted.
async fn look_after(server: Server, mut first: Option<Connected>, sender: watch::Sender<State>) {
    let mut pause = FIRST_PAUSE;
    let mut is_lost = false;
    loop {
        let connected = match first.take() {
            Some(first) => Ok(first),
            None => server.connect().await,
        };
        match connected {
            Ok((client, driver)) => {
                if mem::take(&mut is_lost) {
                    tracing::info!(target: "cloakroom", %server, "connection to PostgreSQL is back");
                }
                let since = Instant::now();
                let refused = Arc::new(Notify::new());
                sender.send_replace(State::Up(Arc::new(Link {
                    client,
                    prepared: Default::default(),
                    refused: Arc::clone(&refused),
                })));
                if let Some(ended) = use_up(driver, &refused).await {
                    sender.send_replace(State::Connecting);
                    is_lost = true;
                    log_lost(&server, ended.as_ref().err().map(|error| error as _));
                }
                if since.elapsed() > LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                    continue;
                }
            }
            Err(problem) => {
                if !mem::replace(&mut is_lost, true) {
                    log_lost(&server, Some(&problem));
                }
                sender.send_if_modified(|state| {
                    let is_down = !state.is_up();
                    if is_down {
                        *state = State::Down(Arc::new(problem));
                    }
                    is_down
                });
            }
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How the connection ended, or `None` once it should be replaced. It then goes on without being looked
/// after, until nobody uses it.
async fn use_up(mut driver: Driver, refused: &Notify) -> Option<Result<(), tokio_postgres::Error>> {
    let mut refused = pin!(refused.notified());
    let ended = poll_fn(|cx| match driver.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => refused.as_mut().poll(cx).map(|()| None),
    });
    let ended = ended.await;
    if ended.is_none() {
        tokio::spawn(driver);
    }
    ended
}

fn log_lost(server: &Server, error: Option<&(dyn StdError + 'static)>) {
    tracing::warn!(target: "cloakroom", %server, error, "connection to PostgreSQL is lost");
}

/// Three quarters of it to all of it, so that not all instances come back in the same moment.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0];
    // Without random bytes they do, which is no harm.
    let _ = getrandom::fill(&mut random);
    pause - pause / 4 * u32::from(random[0]) / 255
}

/// Whether a table or a function is not there.
fn is_missing(error: &tokio_postgres::Error) -> bool {
    [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_OBJECT,
    ]
    .iter()
    .any(|missing| error.code() == Some(missing))
}
