//! A connection to one server, on which commands that are given at the same time go together.
//!
//! The driver writes each command as it gets it. Under load that is a system call for every few of them, here and at
//! the server, and tasks that wake each other for each. So a command that is not alone waits until this process has
//! nothing else to do, which is no time at all if it is idle, and goes as one pipeline with those that have come by then.

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use redis::aio::ConnectionManager;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Value};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How many others must wait for answers for a command to wait for company. With fewer there is a processor idle, and
/// to hand a command to a task and its answer back takes longer than the system calls that it spares.
const CROWD: usize = 8;

/// Clones share the connection, and what waits for it.
#[derive(Clone)]
pub(super) struct Connection {
    driver: ConnectionManager,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// How many wait for an answer.
    asking: AtomicUsize,
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
    answer: oneshot::Sender<RedisResult<Value>>,
}

impl Connection {
    pub(super) fn new(driver: ConnectionManager) -> Self {
        Self {
            driver,
            shared: Arc::default(),
        }
    }

    /// What commands are sent through that must go at once, or one right after the other.
    pub(super) fn driver(&self) -> ConnectionManager {
        self.driver.clone()
    }

    /// What the server answers to a command. As with the driver, a command may have been carried out although its
    /// caller gave up or got an error.
    pub(super) async fn ask(&self, command: Cmd) -> RedisResult<Value> {
        let asking = Asking::begin(&self.shared);
        let answer = match self.wait(&asking, command) {
            Ok(answered) => answered.await.unwrap_or_else(|_| Err(abandoned())),
            Err(command) => {
                let mut driver = self.driver();
                // In a box: its future is large, and when there is much to do most go the other way.
                Box::pin(async move { driver.send_packed_command(&command).await }).await
            }
        };
        answer?.extract_error()
    }

    /// Leaves a command to a task that sends all that have come by then. Gives it back if there are too few, or there is
    /// no runtime to have a task in.
    fn wait(
        &self,
        asking: &Asking<'_>,
        command: Cmd,
    ) -> Result<oneshot::Receiver<RedisResult<Value>>, Cmd> {
        if !asking.is_in_a_crowd {
            return Err(command);
        }
        let mut line = self.shared.line();
        let runtime = match line.is_gathering {
            true => None,
            false => match Handle::try_current() {
                Ok(runtime) => Some(runtime),
                Err(_) => return Err(command),
            },
        };
        let (answer, answered) = oneshot::channel();
        line.waiting.push(Waiting { command, answer });
        line.is_gathering = true;
        drop(line);
        if let Some(runtime) = runtime {
            let driver = self.driver();
            let gathering = Gathering(Some(Arc::clone(&self.shared)));
            // Not before the line is free again: if the runtime is being shut down, the task ends here.
            runtime.spawn(async move {
                tokio::task::yield_now().await;
                send(driver, gathering.end()).await;
            });
        }
        Ok(answered)
    }
}

/// Sends commands as one, and hands out the answers. It ends, too, when nobody waits for one any more: a server
/// that does not answer is not to be waited for by more and more tasks.
async fn send(mut driver: ConnectionManager, waiting: Vec<Waiting>) {
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
                let _ = answer.send(Ok(value));
            }
        }
        Some(Err(error)) => {
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
        None => {}
    }
}

fn abandoned() -> RedisError {
    RedisError::from((
        ErrorKind::Io,
        "the runtime that was about to send the command has been shut down",
    ))
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        // It is whole after every statement, so a panic elsewhere does not matter to it.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for an answer.
struct Asking<'a> {
    shared: &'a Shared,
    is_in_a_crowd: bool,
}

impl<'a> Asking<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let others = shared.asking.fetch_add(1, Ordering::Relaxed);
        Self {
            shared,
            is_in_a_crowd: others >= CROWD,
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.shared.asking.fetch_sub(1, Ordering::Relaxed);
    }
}

/// That a task will send those who wait. If it ends before that, as with its runtime, they are told.
struct Gathering(Option<Arc<Shared>>);

impl Gathering {
    fn end(mut self) -> Vec<Waiting> {
        self.take()
    }

    fn take(&mut self) -> Vec<Waiting> {
        let Some(shared) = self.0.take() else {
            return Vec::new();
        };
        let mut line = shared.line();
        line.is_gathering = false;
        // As many will come again.
        let next = Vec::with_capacity(line.waiting.len());
        mem::replace(&mut line.waiting, next)
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.take();
    }
}
