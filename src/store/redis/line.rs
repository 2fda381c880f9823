//! A connection over which commands that are asked at about the same time go together.
//!
//! The driver (redis 1.8) writes each command as soon as it has it, and tokio runs the driver's task right
//! after the one that woke it. So a busy service wakes its server, and itself, for a command or a few, which costs
//! both of them more than the commands do. Here the first who asks has a task leave behind all that are ready to
//! run, and what these ask goes along. Nobody waits for a clock or for others' answers.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use redis::aio::{ConnectionLike as _, ConnectionManager};
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, oneshot};

#[derive(Clone)]
pub(super) struct Line {
    connection: ConnectionManager,
    /// To those who leave next; closed once they have left.
    next: Arc<Mutex<mpsc::UnboundedSender<Question>>>,
}

struct Question {
    command: Cmd,
    asker: oneshot::Sender<RedisResult<Value>>,
}

impl Line {
    pub(super) fn new(connection: ConnectionManager) -> Self {
        let (left, _) = mpsc::unbounded_channel();
        Self {
            connection,
            next: Arc::new(Mutex::new(left)),
        }
    }

    /// The answer to a command. Whoever stops waiting for it does not know whether it is carried out.
    pub(super) async fn ask(&self, command: Cmd) -> RedisResult<Value> {
        let (asker, answer) = oneshot::channel();
        self.queue(Question { command, asker });
        let ended = |_| RedisError::from((ErrorKind::Io, "the runtime that was to ask ended"));
        answer.await.map_err(ended)??.extract_error()
    }

    /// The answer to a command that must come right after another one.
    #[cfg(feature = "redis-cluster")]
    pub(super) async fn ask_after(&self, first: Cmd, command: Cmd) -> RedisResult<Value> {
        let mut both = Pipeline::with_capacity(2);
        both.add_command(first).add_command(command);
        let mut connection = self.connection.clone();
        let answers = connection.req_packed_commands(&both, 1, 1).await?;
        let answer = answers.into_iter().next().unwrap_or(Value::Nil);
        answer.extract_error()
    }

    fn queue(&self, question: Question) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(SendError(question)) = next.send(question) {
            let (sender, receiver) = mpsc::unbounded_channel();
            let _ = sender.send(question);
            *next = sender;
            tokio::spawn(leave(self.connection.clone(), receiver));
        }
    }
}

/// Sends what is in the queue once all tasks had their turn that are ready to run.
async fn leave(mut connection: ConnectionManager, mut queue: mpsc::UnboundedReceiver<Question>) {
    tokio::task::yield_now().await;
    queue.close();
    let (mut commands, mut askers) = (Pipeline::new(), Vec::new());
    while let Some(Question { command, asker }) = queue.recv().await {
        if !asker.is_closed() {
            commands.add_command(command);
            askers.push(asker);
        }
    }
    if askers.is_empty() {
        return;
    }
    let mut asked = pin!(connection.req_packed_commands(&commands, 0, askers.len()));
    let answers = poll_fn(|cx| {
        let answers = asked.as_mut().poll(cx).map(Some);
        // A server that is stuck keeps nothing that nobody waits for.
        let mut closed = askers.iter_mut().map(|asker| asker.poll_closed(cx));
        match answers.is_pending() && closed.all(|closed| closed.is_ready()) {
            true => Poll::Ready(None),
            false => answers,
        }
    });
    match answers.await {
        Some(Ok(answers)) => {
            for (asker, answer) in askers.into_iter().zip(answers) {
                let _ = asker.send(Ok(answer));
            }
        }
        Some(Err(error)) => {
            for asker in askers {
                let _ = asker.send(Err(error.clone()));
            }
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use redis::Client;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::super::patience;
    use super::*;

    fn line(port: u16) -> Line {
        let client = Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        Line::new(ConnectionManager::new_lazy_with_config(client, patience()).unwrap())
    }

    /// A server that agrees to everything, and what it reads at a time.
    async fn server() -> (u16, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (report, reports) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4096];
            loop {
                let n = client.read(&mut bytes).await.unwrap();
                let read = String::from_utf8_lossy(&bytes[..n]).into_owned();
                let commands = read.matches('*').count();
                let _ = report.send(read);
                let answers = "+OK\r\n".repeat(commands);
                client.write_all(answers.as_bytes()).await.unwrap();
            }
        });
        (port, reports)
    }

    async fn give_up(line: &Line, command: &str) {
        let mut asked = pin!(line.ask(redis::cmd(command)));
        poll_fn(|cx| {
            assert!(asked.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_asked_at_the_same_time_goes_together_but_for_what_nobody_waits_for() {
        let (port, mut reports) = server().await;
        let line = line(port);
        line.ask(redis::cmd("FIRST")).await.unwrap();
        while !reports.recv().await.unwrap().contains("FIRST") {}
        give_up(&line, "GIVEN-UP").await;
        let others = ["ONE", "TWO", "THREE"].map(|command| {
            let line = line.clone();
            tokio::spawn(async move { line.ask(redis::cmd(command)).await })
        });
        for other in others {
            assert_eq!(other.await.unwrap().unwrap(), Value::Okay);
        }
        let together = "*1\r\n$3\r\nONE\r\n*1\r\n$3\r\nTWO\r\n*1\r\n$5\r\nTHREE\r\n";
        assert_eq!(reports.recv().await.unwrap(), together);
    }

    #[test]
    fn a_runtime_that_ends_before_it_asked_stops_nobody() {
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap()
        };
        let (first, second) = (runtime(), runtime());
        let (line, mut reports) = second.block_on(async {
            let (port, reports) = server().await;
            (line(port), reports)
        });
        first.block_on(give_up(&line, "LOST"));
        drop(first);
        let answer = second.block_on(async {
            let answer = line.ask(redis::cmd("ASKED"));
            tokio::time::timeout(Duration::from_secs(10), answer).await
        });
        assert_eq!(answer.expect("it is asked").unwrap(), Value::Okay);
        let said = std::iter::from_fn(|| reports.try_recv().ok()).collect::<String>();
        assert!(said.contains("ASKED") && !said.contains("LOST"), "{said}");
    }
}
