//! What all requests of a layer share.

use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::carrier::Carrier;
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::endings::Endings;
use crate::entropy::Entropy;
use crate::error::{Error, Result};
use crate::event::{Observer, SessionEvent};
use crate::queue::Queue;
use crate::seal::Seal;
use crate::store::erased::ErasedStore;

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) store: Arc<dyn ErasedStore>,
    pub(crate) config: Config,
    pub(crate) seal: Seal,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) queue: Queue,
    pub(crate) endings: Endings,
    pub(crate) observer: Observer,
    /// Another layer of the same name was noticed.
    pub(crate) doubled: Once,
    /// A `Secure` cookie was seen to be given over plain http.
    pub(crate) dropped: Once,
}

impl Context {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Says once if the layer `outer` around this one writes the same cookie: what is stored under the
    /// one is lost to the other.
    pub(crate) fn check_outer(&self, outer: &Self) {
        let name = self.config.carrier.name();
        if name == outer.config.carrier.name() {
            self.doubled.call_once(|| {
                tracing::error!(
                    target: "cloakroom",
                    "two session layers on `{name}` are around this route, and the client keeps the \
                     session of one of them: remove one"
                );
            });
        }
    }

    /// Says once that browsers drop the cookie.
    pub(crate) fn warn_of_plain_http(&self) {
        if let Carrier::Cookie(cookie) = &self.config.carrier
            && cookie.is_secure()
        {
            self.dropped.call_once(|| {
                tracing::warn!(
                    target: "cloakroom",
                    "a browser was given `{}` over plain http and drops it, since it is `Secure`: every \
                     request begins another session. Serve https, or build the layer with \
                     `insecure_http()` while you develop",
                    cookie.name()
                );
            });
        }
    }

    /// Tells of an event. No lock may be held.
    pub(crate) fn tell(&self, event: &SessionEvent) {
        self.observer.tell(event);
    }

    /// Tells of a failure of the store, and hands the result on.
    pub(crate) fn watched<T>(&self, done: Result<T>) -> Result<T> {
        if let Err(error) = &done
            && error.is_store()
        {
            let error = error.clone();
            self.tell(&SessionEvent::StoreFailed { error });
        }
        done
    }

    /// Runs work on the store, at most for the configured time (S-72).
    pub(crate) fn deadline<T, F>(&self, work: F) -> Deadline<'_, F>
    where
        F: Future<Output = Result<T>>,
    {
        Deadline {
            work,
            context: self,
            timer: None,
        }
    }
}

pin_project! {
    // By hand, since an `async fn` keeps what it is given twice: where it was given and where it is
    // pinned. All that a handler awaits is part of its own future.
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Deadline<'a, F> {
        #[pin]
        work: F,
        context: &'a Context,
        // In a box, since it takes more room than all the rest.
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<T, F: Future<Output = Result<T>>> Future for Deadline<'_, F> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<T>> {
        let this = self.project();
        if let Poll::Ready(done) = this.work.poll(cx) {
            return Poll::Ready(this.context.watched(done));
        }
        // A store in memory answers at once, and then no timer is set up.
        let time = this.context.config.store_timeout;
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        let late = || this.context.watched(Err(Error::timeout()));
        timer.as_mut().poll(cx).map(|()| late())
    }
}
