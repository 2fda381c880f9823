//! From the inner response to the one that leaves.

use std::fmt;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::commit::Occasion;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::response::ErrorResponse;
use crate::session::{Committed, Finish, LazySession, Session};
use crate::transport::{self, Notice};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pin_project! {
    /// The response future of [`SessionService`](crate::SessionService).
    ///
    /// Dropping it before it is ready drops the inner future and stores nothing more.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, ReqBody, ResBody, E>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        state: State<S, S::Future, ReqBody, ResBody>,
        request: OpenRequest,
        on_error: E,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, ReqBody, ResBody> {
        /// Eager: the session is loaded before the inner service sees the request.
        Loading {
            load: Boxed<Result<Session>>,
            inner: Option<(S, Request<ReqBody>)>,
        },
        Running {
            #[pin]
            inner: F,
        },
        Committing {
            commit: Boxed<Committed>,
            response: Option<Response<ResBody>>,
        },
    }
}

impl<S, ReqBody, ResBody, E> ResponseFuture<S, ReqBody, ResBody, E>
where
    S: Service<Request<ReqBody>>,
{
    pub(crate) fn running(inner: S::Future, request: OpenRequest, on_error: E) -> Self {
        Self {
            state: State::Running { inner },
            request,
            on_error,
        }
    }

    pub(crate) fn loading(
        inner: S,
        to: Request<ReqBody>,
        request: OpenRequest,
        on_error: E,
    ) -> Self {
        let lazy = request.lazy.clone();
        let load = Box::pin(async move { lazy.load().await });
        Self {
            state: State::Loading {
                load,
                inner: Some((inner, to)),
            },
            request,
            on_error,
        }
    }
}

impl<S, ReqBody, ResBody, E> Future for ResponseFuture<S, ReqBody, ResBody, E>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    E: ErrorResponse<ResBody>,
{
    type Output = Result<Response<ResBody>, S::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        let StateProj::Running { inner } = this.state.project() else {
            return self.poll_rest(cx);
        };
        let polled = inner.poll(cx);
        // Handed on as it is: a response that is taken out and put back is moved twice.
        if polled.is_pending() {
            return polled;
        }
        this.request.lazy.close();
        if !this.request.lazy.asked() {
            this.request.finished = true;
            return polled;
        }
        let response = ready!(polled)?;
        self.finish(response, cx)
    }
}

impl<S, ReqBody, ResBody, E> ResponseFuture<S, ReqBody, ResBody, E>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    E: ErrorResponse<ResBody>,
{
    /// Finishes a session that was asked for.
    // Apart, as `poll_rest` is.
    #[inline(never)]
    fn finish(
        mut self: Pin<&mut Self>,
        mut response: Response<ResBody>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Response<ResBody>, S::Error>> {
        let mut this = self.as_mut().project();
        let Some(commit) = this.request.finish(this.on_error, &mut response) else {
            return Poll::Ready(Ok(response));
        };
        let response = Some(response);
        this.state.set(State::Committing { commit, response });
        self.poll_rest(cx)
    }

    /// Before the inner service runs, or after it.
    // Apart: the future of a request that does not use its session has the rest alone to do.
    #[inline(never)]
    fn poll_rest(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Response<ResBody>, S::Error>> {
        let mut this = self.as_mut().project();
        match this.state.as_mut().project() {
            StateProj::Loading { load, inner } => match ready!(load.as_mut().poll(cx)) {
                Ok(session) => {
                    let (mut inner, mut request) = inner.take().expect(POLLED_AGAIN);
                    request.extensions_mut().insert(session);
                    let inner = inner.call(request);
                    this.state.set(State::Running { inner });
                    self.poll(cx)
                }
                Err(error) => {
                    this.request.lazy.close();
                    let mut response = respond(this.on_error, error);
                    this.request.seal(&mut response, &Notice::None);
                    Poll::Ready(Ok(response))
                }
            },
            // Not met here, since `poll` does that.
            StateProj::Running { .. } => self.poll(cx),
            StateProj::Committing { commit, response } => {
                let Committed { notice, error } = ready!(commit.as_mut().poll(cx));
                let mut response = response.take().expect(POLLED_AGAIN);
                if let Some(error) = error {
                    response = respond(this.on_error, error);
                }
                this.request.seal(&mut response, &notice);
                Poll::Ready(Ok(response))
            }
        }
    }
}

const POLLED_AGAIN: &str = "the future is not polled after it was ready";

fn respond<B>(on_error: &impl ErrorResponse<B>, error: Error) -> Response<B> {
    let mut response = on_error.respond(&error);
    response.extensions_mut().insert(error);
    response
}

/// Lets the layer's error response take the place of what the inner service made of a session's error.
fn replace<B>(on_error: &impl ErrorResponse<B>, response: &mut Response<B>) {
    if let Some(error) = response.extensions().get::<Error>()
        && let Some(mut other) = on_error.replace(error)
    {
        other.extensions_mut().insert(error.clone());
        *response = other;
    }
}

/// A request on its way. When it ends, in whatever manner, its session can no longer be changed.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    lazy: LazySession,
    /// The response is on its way, and its session closed.
    finished: bool,
}

impl OpenRequest {
    pub(crate) fn new(lazy: LazySession) -> Self {
        Self {
            lazy,
            finished: false,
        }
    }

    /// Finishes the session, unless there is something to be stored first.
    // Not part of the future around it: see `poll_rest`.
    #[inline(never)]
    fn finish<B>(
        &mut self,
        on_error: &impl ErrorResponse<B>,
        response: &mut Response<B>,
    ) -> Option<Boxed<Committed>> {
        // A handler that a session's error ended did not come to its end either.
        let failed = response.extensions().get::<Error>().is_some();
        let occasion = if failed || response.status().is_server_error() {
            Occasion::FailedResponse
        } else {
            Occasion::Response
        };
        replace(on_error, response);
        let session = self.lazy.loaded();
        match session.map_or(Finish::Done(Notice::None), |s| s.finish(occasion)) {
            Finish::Done(notice) => {
                self.seal(response, &notice);
                None
            }
            Finish::Commit(commit) => Some(commit),
        }
    }

    /// Nobody waits for the response any more, or there is none.
    #[cold]
    fn abandon(&self) {
        self.lazy.close();
        if let Some(session) = self.lazy.loaded() {
            session.close();
        }
    }

    fn seal<B>(&mut self, response: &mut Response<B>, notice: &Notice) {
        self.finished = true;
        let Context { config, seal, .. } = &**self.lazy.context();
        let error = response.extensions().get::<Error>();
        if error.is_some_and(|error| error.challenge().is_some()) {
            let has_page = config.sign_in_page.is_some() || config.step_up_page.is_some();
            transport::challenge(response.headers_mut(), &config.carrier, has_page);
        }
        if let Notice::Issue(..) = notice {
            self.lazy.check_scheme();
        }
        transport::write(response.headers_mut(), &config.carrier, seal, notice);
    }
}

impl Drop for OpenRequest {
    #[inline]
    fn drop(&mut self) {
        if !self.finished {
            self.abandon();
        }
    }
}

impl<S, ReqBody, ResBody, E> fmt::Debug for ResponseFuture<S, ReqBody, ResBody, E>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
