//! A connection to one server, on which commands of the same moment go together.
//!
//! The driver writes each command as it gets it. Under load that is a system call for every few of them, here and at
//! the server, and tasks that wake each other for each. So what one session is asked for waits, if there are many, until
//! the thread that it is on has nothing else to do, and goes as one pipeline with what has come by then.

use std::future::poll_fn;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use redis::aio::ConnectionManager;
use redis::{Arg, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How many others must wait for answers for a command to wait for company. With fewer there is a processor idle, and
/// to hand a command to a task and its answer back takes longer than the system calls that it spares.
const CROWD: usize = 8;

/// How many commands go together, and then at once: the server has something to do while the next ones gather. Twice as
/// many, or half, made counting over HTTP slower.
const TOGETHER: usize = 12;

/// How many bytes a command may have that goes with others. Those who give up leave what they asked for to those who
/// wait with them; that shall not be much.
const SMALL: usize = 8 * 1024;

/// How a command goes.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// At once.
    Alone,
    /// With others, for whose answers it then waits, too: what takes the server no time.
    Together,
}

/// Clones share the connection, and what waits for it.
#[derive(Clone)]
pub(super) struct Connection {
    driver: ConnectionManager,
    /// Where the driver runs. Not where those who ask do, who may be on several runtimes, of which each can end.
    home: Option<Handle>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// How many wait for an answer.
    present: AtomicUsize,
    /// How often the connection was ended.
    quits: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    waiting: Vec<Waiting>,
    /// There is a task that will take them.
    is_gathering: bool,
}

struct Waiting {
    command: Cmd,
    answer: oneshot::Sender<Answer>,
}

/// What the server said, or the command if it was not sent.
type Answer = Result<RedisResult<Value>, Cmd>;

impl Connection {
    pub(super) fn new(driver: ConnectionManager) -> Self {
        Self {
            driver,
            home: Handle::try_current().ok(),
            shared: Arc::default(),
        }
    }

    /// What commands are sent through that must go one right after the other.
    pub(super) fn driver(&self) -> ConnectionManager {
        self.driver.clone()
    }

    /// What the server answers to a command, which may be on its way from now on. As with the driver, it may have been
    /// carried out although its caller gave up or got an error.
    pub(super) fn ask(&self, way: Way, command: Cmd) -> Asked<'_> {
        let present = Present::begin(&self.shared);
        let going = match self.wait(way, &present, command) {
            Ok(answer) => Going::Together(answer),
            Err(command) => Going::Alone(self.alone(command)),
        };
        Asked {
            connection: self,
            going,
            present,
        }
    }

    fn alone(&self, command: Cmd) -> Boxed<'static> {
        let mut driver = self.driver();
        Box::pin(async move { driver.send_packed_command(&command).await })
    }

    /// Ends the connection for an error, and hands that on. After a failover the address leads to another server, but
    /// the connection still to the one that was demoted; to end it is how to have it made anew. Of those who asked over
    /// one connection, one does it: the others would end the next.
    fn quit(&self, present: &Present<'_>, error: RedisError) -> Boxed<'static> {
        let (seen, relaxed) = (present.quits, Ordering::Relaxed);
        let quits = &self.shared.quits;
        let is_first = quits
            .compare_exchange(seen, seen + 1, relaxed, relaxed)
            .is_ok();
        let mut driver = self.driver();
        Box::pin(async move {
            if is_first {
                let _ = driver.send_packed_command(&redis::cmd("QUIT")).await;
            }
            Err(error)
        })
    }

    /// Leaves a command to a task that sends all that have come by then, or gives it back if it goes alone.
    fn wait(
        &self,
        way: Way,
        present: &Present<'_>,
        command: Cmd,
    ) -> Result<oneshot::Receiver<Answer>, Cmd> {
        let (Way::Together, true, Some(home)) = (way, present.is_in_a_crowd, &self.home) else {
            return Err(command);
        };
        if len(&command) > SMALL {
            return Err(command);
        }
        let (answer, answered) = oneshot::channel();
        let mut line = self.shared.line();
        line.waiting.push(Waiting { command, answer });
        let is_full = line.waiting.len() == TOGETHER;
        let full = is_full.then(|| line.take());
        let is_first = !is_full && !mem::replace(&mut line.is_gathering, true);
        drop(line);
        // Not before the line is free again: if the runtime has ended, so does the task, here.
        if let Some(full) = full {
            home.spawn(send(self.driver(), full));
        } else if is_first {
            let driver = self.driver();
            let mut gathering = Gathering(Some(Arc::clone(&self.shared)));
            home.spawn(async move {
                tokio::task::yield_now().await;
                send(driver, gathering.end()).await;
            });
        }
        Ok(answered)
    }
}

/// The answer to a command. By hand, since an `async fn` keeps what it is given besides what it makes of that, and all
/// that a request awaits is part of what is allocated for it.
#[must_use = "the answer is lost unless it is awaited"]
pub(super) struct Asked<'a> {
    connection: &'a Connection,
    going: Going,
    present: Present<'a>,
}

enum Going {
    Together(oneshot::Receiver<Answer>),
    /// In a box: the driver's future is large, and when there is much to do most go the other way.
    Alone(Boxed<'static>),
    /// The connection is ended, for an error.
    Quitting(Boxed<'static>),
}

pub(super) type Boxed<'a> = Pin<Box<dyn Future<Output = RedisResult<Value>> + Send + 'a>>;

impl Future for Asked<'_> {
    type Output = RedisResult<Value>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let connection = self.connection;
        loop {
            let answer = match &mut self.going {
                Going::Together(answer) => match ready!(Pin::new(answer).poll(context)) {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(command)) => {
                        self.going = Going::Alone(connection.alone(command));
                        continue;
                    }
                    Err(_) => Err(abandoned()),
                },
                Going::Alone(answer) => ready!(answer.as_mut().poll(context)),
                Going::Quitting(error) => return error.as_mut().poll(context),
            };
            match answer.and_then(Value::extract_error) {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) => {
                    self.going = Going::Quitting(connection.quit(&self.present, error));
                }
                answer => return Poll::Ready(answer),
            }
        }
    }
}

fn len(command: &Cmd) -> usize {
    let part = |part| match part {
        Arg::Simple(part) => <[u8]>::len(part),
        _ => 0,
    };
    command.args_iter().map(part).sum()
}

/// Sends commands as one, and hands out the answers. It ends, too, once all have given up.
async fn send(mut driver: ConnectionManager, mut batch: Batch) {
    let waiting = mem::take(&mut batch.0);
    let mut pipeline = Pipeline::with_capacity(waiting.len());
    let mut answers = Vec::with_capacity(waiting.len());
    for Waiting { command, answer } in waiting {
        if !answer.is_closed() {
            pipeline.add_command(command);
            answers.push(answer);
        }
    }
    if answers.is_empty() {
        return;
    }
    let values = {
        let mut values = pin!(driver.send_packed_commands(&pipeline, 0, answers.len()));
        let mut all_gone = pin!(async {
            for answer in &mut answers {
                answer.closed().await;
            }
        });
        poll_fn(|context| match values.as_mut().poll(context) {
            Poll::Ready(values) => Poll::Ready(Some(values)),
            Poll::Pending => all_gone.as_mut().poll(context).map(|()| None),
        })
        .await
    };
    // An answer that nobody waits for is not sent, which is as it should be.
    match values {
        Some(Ok(values)) => {
            for (answer, value) in answers.into_iter().zip(values) {
                let _ = answer.send(Ok(Ok(value)));
            }
        }
        Some(Err(error)) => {
            for answer in answers {
                let _ = answer.send(Ok(Err(error.clone())));
            }
        }
        None => {}
    }
}

/// The runtime of the connection ended before the answer came.
fn abandoned() -> RedisError {
    RedisError::from((
        ErrorKind::Io,
        "the runtime that the connection was made on has been shut down",
    ))
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        // It is whole after every statement, so a panic elsewhere does not matter to it.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of those who wait for an answer.
struct Present<'a> {
    shared: &'a Shared,
    is_in_a_crowd: bool,
    /// How often the connection had been ended.
    quits: usize,
}

impl<'a> Present<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let others = shared.present.fetch_add(1, Ordering::Relaxed);
        Self {
            shared,
            is_in_a_crowd: others >= CROWD,
            quits: shared.quits.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.shared.present.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Line {
    fn take(&mut self) -> Batch {
        // As many will come again.
        let next = Vec::with_capacity(self.waiting.len());
        Batch(mem::replace(&mut self.waiting, next))
    }
}

/// What goes together. If the task that was to send it has ended with its runtime, the commands are given back.
struct Batch(Vec<Waiting>);

impl Drop for Batch {
    fn drop(&mut self) {
        for Waiting { command, answer } in self.0.drain(..) {
            let _ = answer.send(Err(command));
        }
    }
}

/// That a task will send those who wait. If it ends before that, they get their commands back.
struct Gathering(Option<Arc<Shared>>);

impl Gathering {
    fn end(&mut self) -> Batch {
        let Some(shared) = self.0.take() else {
            return Batch(Vec::new());
        };
        let mut line = shared.line();
        line.is_gathering = false;
        line.take()
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        drop(self.end());
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use redis::aio::ConnectionManagerConfig;

    use super::*;

    /// Asks for all of them over a connection that is never made; says how many go together.
    async fn go_together(commands: impl IntoIterator<Item = (Way, Cmd)>) -> usize {
        let client = redis::Client::open("redis://127.0.0.1:9").unwrap();
        let config = ConnectionManagerConfig::new();
        let driver = ConnectionManager::new_lazy_with_config(client, config);
        let connection = Connection::new(driver.unwrap());
        let asked = commands.into_iter().map(|(way, command)| {
            let mut asked = Box::pin(connection.ask(way, command));
            let mut context = Context::from_waker(Waker::noop());
            assert!(asked.as_mut().poll(&mut context).is_pending());
            asked
        });
        let _asked: Vec<_> = asked.collect();
        connection.shared.line().waiting.len()
    }

    fn get(count: usize) -> impl Iterator<Item = (Way, Cmd)> {
        (0..count).map(|_| (Way::Together, Cmd::get("a")))
    }

    #[tokio::test]
    async fn few_commands_go_alone() {
        assert_eq!(go_together(get(CROWD)).await, 0);
        assert_eq!(go_together(get(CROWD + 2)).await, 2);
    }

    #[tokio::test]
    async fn as_many_as_are_enough_go_at_once() {
        let waiting = async |count| go_together(get(CROWD + count)).await;
        assert_eq!(waiting(TOGETHER - 1).await, TOGETHER - 1);
        assert_eq!(waiting(TOGETHER).await, 0);
        assert_eq!(waiting(TOGETHER + 2).await, 2);
    }

    #[tokio::test]
    async fn what_takes_long_goes_alone() {
        let set = |len: usize| (Way::Together, Cmd::set("a", vec![0; len]));
        assert_eq!(go_together(get(CROWD).chain([set(SMALL / 2)])).await, 1);
        assert_eq!(go_together(get(CROWD).chain([set(SMALL)])).await, 0);
        let list = (Way::Alone, Cmd::zrange("a", 0, -1));
        assert_eq!(go_together(get(CROWD).chain([list])).await, 0);
    }
}
