//! Who is signed in, and routes for those alone.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use http::header::{LOCATION, VARY};
use http::{HeaderValue, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::error::Error;
use crate::response::{DefaultErrorResponse, ErrorResponse as _, MISSING_LAYER};
use crate::session::{LazySession, Session};

/// Somebody who is signed in: the session's owner and when they last proved who they are.
///
/// With axum it is an extractor: `async fn account(user: SignedIn)`. Without an owner the response is a
/// 401, or a redirect to the [`sign_in_page`](crate::SessionLayerBuilder::sign_in_page); for pages that
/// show something to everybody there is `Option<SignedIn>`. [`RequireSignedIn`] guards whole routes, and
/// [`FreshlySignedIn`](crate::FreshlySignedIn) asks for a recent sign-in.
///
/// ```
/// use axum::{Router, routing::get};
/// use cloakroom::{MemoryStore, SessionLayer, SignedIn};
///
/// async fn account(user: SignedIn) -> String {
///     format!("Hello {}", user.owner())
/// }
///
/// # use axum::{body::Body, http::Request};
/// # use tower::ServiceExt;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let app: Router = Router::new()
///     .route("/account", get(account))
///     .layer(SessionLayer::new(MemoryStore::new()));
/// let request = Request::get("/account").body(Body::empty()).unwrap();
/// assert_eq!(app.oneshot(request).await.unwrap().status(), 401);
/// # }
/// ```
#[derive(Clone)]
pub struct SignedIn {
    session: Session,
    owner: Arc<str>,
    at: SystemTime,
}

impl SignedIn {
    /// Who is signed in to a session; `None` if nobody is.
    #[must_use]
    pub fn of(session: &Session) -> Option<Self> {
        Some(Self {
            owner: session.owner()?,
            at: session.authenticated_at()?,
            session: session.clone(),
        })
    }

    /// The application's user id, as it was given to [`Session::sign_in`].
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// When they last signed in.
    #[must_use]
    pub fn authenticated_at(&self) -> SystemTime {
        self.at
    }

    /// Their session.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn")
            .field("owner", &self.owner)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// Why somebody was not let in.
pub(crate) enum Refusal {
    MissingLayer,
    Failed(Error),
    /// They look at a page, and are sent to the one where they can sign in.
    Redirect(HeaderValue),
}

/// Lets those in who are signed in, and did so within this time.
pub(crate) async fn admit(
    lazy: Option<LazySession>,
    within: Option<Duration>,
) -> Result<SignedIn, Refusal> {
    let lazy = lazy.ok_or(Refusal::MissingLayer)?;
    let session = lazy.load().await.map_err(Refusal::Failed)?;
    let error = match (SignedIn::of(&session), within) {
        (None, _) => Error::sign_in(),
        (Some(_), Some(time)) if !session.authenticated_within(time) => Error::step_up(time),
        (Some(user), _) => return Ok(user),
    };
    Err(match lazy.sign_in_location(&error) {
        Some(location) => Refusal::Redirect(location),
        None => Refusal::Failed(error),
    })
}

/// A redirect with `GET`, which depends on whether a page was asked for.
pub(crate) fn redirect<B: Default>(location: HeaderValue) -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// A body with a text, where it is one that the guard knows how to fill: axum's.
#[cfg_attr(not(feature = "axum"), expect(unused_variables, unused_mut))]
fn saying<B: Default + 'static>(text: &'static str) -> B {
    let mut body = B::default();
    #[cfg(feature = "axum")]
    if let Some(body) = (&mut body as &mut dyn std::any::Any).downcast_mut() {
        *body = axum_core::body::Body::from(text);
    }
    body
}

fn refuse<B: Default + 'static>(refusal: Refusal) -> Response<B> {
    match refusal {
        Refusal::MissingLayer => {
            tracing::error!("{MISSING_LAYER}");
            let mut response = Response::new(saying(MISSING_LAYER));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
        Refusal::Failed(error) => {
            let mut response = DefaultErrorResponse.respond(&error);
            response.extensions_mut().insert(error);
            response
        }
        Refusal::Redirect(location) => redirect(location),
    }
}

/// Lets only those through who are signed in: a [`Layer`] for routes, inside the
/// [`SessionLayer`](crate::SessionLayer).
///
/// 1. Without an owner the response is a 401, or a redirect to the
///    [`sign_in_page`](crate::SessionLayerBuilder::sign_in_page) for those who look at a page.
/// 2. [`within`](Self::within) asks for a recent sign-in as well (ASVS 7.5.3): else a 401 that says so
///    with `insufficient_user_authentication` (RFC 9470), or a redirect to the
///    [`step_up_page`](crate::SessionLayerBuilder::step_up_page).
/// 3. The inner service finds a [`SignedIn`] in the request's extensions.
/// 4. If the session cannot be loaded, nobody is let through (503).
///
/// axum's `route_layer` guards the routes that were added before it: those added after it are open to
/// everybody.
///
/// ```
/// use axum::{Router, routing::{get, post}};
/// use cloakroom::{MemoryStore, RequireSignedIn, SessionLayer};
/// use std::time::Duration;
///
/// # use axum::{body::Body, http::Request};
/// # use tower::ServiceExt;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cloakroom::ConfigError> {
/// let app: Router = Router::new()
///     .route("/password", post(async || "changed"))
///     .route_layer(RequireSignedIn::new().within(Duration::from_secs(300)))
///     .route("/account", get(async || "yours"))
///     .route_layer(RequireSignedIn::new())
///     .route("/login", get(async || "a form"))
///     .layer(SessionLayer::builder(MemoryStore::new()).sign_in_page("/login").build()?);
///
/// let request = Request::get("/account").header("accept", "text/html");
/// let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
/// assert_eq!(response.status(), 303);
/// assert_eq!(response.headers()["location"], "/login?next=/account");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "a layer does nothing until it is added"]
pub struct RequireSignedIn {
    within: Option<Duration>,
}

impl RequireSignedIn {
    /// Asks for somebody who is signed in.
    pub const fn new() -> Self {
        Self { within: None }
    }

    /// Asks for somebody who signed in at most this long ago.
    pub const fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }
}

impl<S> Layer<S> for RequireSignedIn {
    type Service = RequireSignedInService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireSignedInService {
            inner,
            within: self.within,
        }
    }
}

/// The service of [`RequireSignedIn`].
#[derive(Clone, Debug)]
pub struct RequireSignedInService<S> {
    inner: S,
    within: Option<Duration>,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RequireSignedInService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ResBody: Default + 'static,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = RequireSignedInFuture<S, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let lazy = request.extensions().get::<LazySession>().cloned();
        // The clone may not be ready; the one that is goes into the future. See
        // https://docs.rs/tower/latest/tower/trait.Service.html#be-careful-when-cloning-inner-services
        let clone = self.inner.clone();
        let ready = mem::replace(&mut self.inner, clone);
        RequireSignedInFuture {
            state: State::Asking {
                admit: Box::pin(admit(lazy, self.within)),
                inner: Some((ready, request)),
            },
        }
    }
}

type Admission = Pin<Box<dyn Future<Output = Result<SignedIn, Refusal>> + Send>>;

pin_project! {
    /// The response future of [`RequireSignedInService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct RequireSignedInFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        state: State<S, S::Future, ReqBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, ReqBody> {
        Asking {
            admit: Admission,
            inner: Option<(S, Request<ReqBody>)>,
        },
        Running {
            #[pin]
            inner: F,
        },
    }
}

impl<S, ReqBody, ResBody> Future for RequireSignedInFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Default + 'static,
{
    type Output = Result<Response<ResBody>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Asking { admit, inner } => match ready!(admit.as_mut().poll(cx)) {
                    Ok(user) => {
                        let (mut inner, mut request) = inner
                            .take()
                            .expect("the future is not polled after it was ready");
                        request.extensions_mut().insert(user);
                        State::Running {
                            inner: inner.call(request),
                        }
                    }
                    Err(refusal) => return Poll::Ready(Ok(refuse(refusal))),
                },
                StateProj::Running { inner } => return inner.poll(cx),
            };
            this.state.set(next);
        }
    }
}

impl<S, ReqBody> fmt::Debug for RequireSignedInFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireSignedInFuture")
            .finish_non_exhaustive()
    }
}
