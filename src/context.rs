//! What all requests of a layer share.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::entropy::Entropy;
use crate::error::{Error, Result};
use crate::queue::Queue;
use crate::store::erased::ErasedStore;

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) store: Arc<dyn ErasedStore>,
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) queue: Queue,
}

impl Context {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Runs work on the store, at most for the configured time (S-72).
    pub(crate) async fn deadline<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        // A store in memory answers at once, and then no timer is set up.
        if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
            return done;
        }
        match tokio::time::timeout(self.config.store_timeout, work).await {
            Ok(done) => done,
            Err(_) => Err(Error::timeout()),
        }
    }
}
