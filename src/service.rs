//! The middleware's service: thin, the work is done in the session and in the response future.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use http::{Request, Response};
use tower_service::Service;

use crate::context::Context;
use crate::future::{OpenRequest, ResponseFuture};
use crate::response::{DefaultErrorResponse, ErrorResponse};
use crate::session::LazySession;
use crate::transport::Carried;
use crate::visit::Visit;

/// Gives each request a session, and stores what the inner service changed in it.
///
/// Made by [`SessionLayer`](crate::SessionLayer), where everything is explained. Errors of the inner
/// service are passed on unchanged, and then nothing is stored.
#[derive(Clone)]
pub struct SessionService<S, E = DefaultErrorResponse> {
    inner: S,
    context: Arc<Context>,
    on_error: E,
}

impl<S: fmt::Debug, E> fmt::Debug for SessionService<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, E> SessionService<S, E> {
    pub(crate) fn new(inner: S, context: Arc<Context>, on_error: E) -> Self {
        Self {
            inner,
            context,
            on_error,
        }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the inner service out.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, E, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S, E>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    E: ErrorResponse<ResBody>,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S, ReqBody, ResBody, E>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let context = &self.context;
        let mut visit = None;
        if context.config.notes_visits {
            let noted;
            (request, noted) = Visit::note(request, &context.config);
            visit = Some(noted);
        }
        let carried = Carried::new(request.headers(), &context.config.carrier);
        let lazy = LazySession::new(Arc::clone(context), carried, visit);
        let outer = request.extensions_mut().insert(lazy.clone());
        if let Some(outer) = outer {
            context.check_outer(outer.context());
        }
        let open = OpenRequest::new(lazy);
        let on_error = self.on_error.clone();
        if context.config.eager {
            // The clone may not be ready; the one that is goes into the future. See
            // https://docs.rs/tower/latest/tower/trait.Service.html#be-careful-when-cloning-inner-services
            let clone = self.inner.clone();
            let ready = mem::replace(&mut self.inner, clone);
            ResponseFuture::loading(ready, request, open, on_error)
        } else {
            ResponseFuture::running(self.inner.call(request), open, on_error)
        }
    }
}
