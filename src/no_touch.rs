//! Routes whose requests do not count as use of the session.

use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use crate::session::LazySession;

/// Marks routes whose requests do not count as use of the session: polling, telemetry, whatever a
/// page does by itself while nobody looks (NIST SP 800-63B section 5.2). A user who walked away is
/// then signed out in time.
///
/// What such a request changes is stored, but moves the session's end only if it is a
/// [`sign_in`](crate::Session::sign_in), [`remember`](crate::Session::remember) or
/// [`forget`](crate::Session::forget). To decide it in a handler, call
/// [`Session::no_touch`](crate::Session::no_touch).
///
/// Put it inside the [`SessionLayer`](crate::SessionLayer); without one it does nothing.
///
/// ```
/// use axum::{Router, routing::get};
/// use cloakroom::{MemoryStore, NoTouch, Session, SessionLayer};
///
/// async fn unread(session: Session) -> cloakroom::Result<String> {
///     Ok(session.get::<u32>("unread")?.unwrap_or_default().to_string())
/// }
///
/// let app: Router = Router::new()
///     .route("/unread", get(unread))
///     .route_layer(NoTouch)
///     .route("/", get(async |_: Session| "this one counts"))
///     .layer(SessionLayer::new(MemoryStore::new()));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTouch;

impl<S> Layer<S> for NoTouch {
    type Service = NoTouchService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        NoTouchService { inner }
    }
}

/// The service of [`NoTouch`].
#[derive(Clone, Debug)]
pub struct NoTouchService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for NoTouchService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Some(lazy) = request.extensions().get::<LazySession>() {
            lazy.no_touch();
        }
        self.inner.call(request)
    }
}
