//! Calls that race.

use std::panic::resume_unwind;
use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinHandle;

/// How many calls race, where many do.
pub(super) const RACERS: usize = 16;

/// How many times many calls race: a store that is wrong may be lucky once.
pub(super) const RACES: usize = 4;

/// How many times two calls race.
pub(super) const ROUNDS: usize = 32;

/// Runs two of different types at once. The second begins first, as a rule; which one that is changes
/// from round to round.
pub(super) async fn race<A: Send + 'static, B: Send + 'static>(
    round: usize,
    one: impl Future<Output = A> + Send + 'static,
    other: impl Future<Output = B> + Send + 'static,
) -> (A, B) {
    let start = Arc::new(Barrier::new(2));
    if round.is_multiple_of(2) {
        let (one, other) = (begin(&start, one), begin(&start, other));
        (end(one).await, end(other).await)
    } else {
        let (other, one) = (begin(&start, other), begin(&start, one));
        (end(one).await, end(other).await)
    }
}

/// Runs all at once, on as many threads as there are.
pub(super) async fn together<F>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let futures: Vec<_> = futures.into_iter().collect();
    let start = Arc::new(Barrier::new(futures.len()));
    let tasks: Vec<_> = futures.into_iter().map(|f| begin(&start, f)).collect();
    let mut outputs = Vec::new();
    for task in tasks {
        outputs.push(end(task).await);
    }
    outputs
}

/// Runs a future from when all others are there, too.
fn begin<F>(start: &Arc<Barrier>, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let start = Arc::clone(start);
    tokio::spawn(async move {
        start.wait().await;
        future.await
    })
}

/// The outcome of a task; its panic is passed on.
async fn end<T>(task: JoinHandle<T>) -> T {
    task.await
        .unwrap_or_else(|error| resume_unwind(error.into_panic()))
}
