//! Loading a session when somebody asks for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::OnceCell;

use super::Session;
use crate::commit::Stored;
use crate::context::Context;
use crate::cookie::Candidates;
use crate::data::Data;
use crate::error::{Chain, Result};
use crate::token::Token;
use crate::transport::Carried;

/// A session that is loaded when somebody asks for it.
///
/// The layer puts one into the extensions of every request. Until [`load`](Self::load) is called
/// nothing is parsed and the store is not asked. Clones are cheap and share the session.
///
/// With axum, take [`Session`] in the handler instead: its extractor does this. In a plain Tower
/// service:
///
/// ```
/// use cloakroom::{LazySession, MemoryStore, SessionLayer};
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// async fn visit(request: Request<String>) -> cloakroom::Result<Response<String>> {
///     let lazy = request.extensions().get::<LazySession>().expect("the layer is there");
///     let session = lazy.load().await?;
///     let n = session.update("visits", |n: &mut u64| {
///         *n += 1;
///         *n
///     })?;
///     Ok(Response::new(format!("visit {n}")))
/// }
///
/// let service = ServiceBuilder::new()
///     .layer(SessionLayer::new(MemoryStore::new()))
///     .service_fn(visit);
/// let response = service.oneshot(Request::new(String::new())).await?;
/// assert_eq!(response.body(), "visit 1");
/// assert!(response.headers().contains_key("set-cookie"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LazySession(Arc<Pending>);

struct Pending {
    context: Arc<Context>,
    carried: Carried,
    loaded: OnceCell<Session>,
    /// Somebody asked, so the response depends on the session.
    asked: AtomicBool,
    /// The response is ready: what is loaded from now on can only be read.
    closed: AtomicBool,
}

impl LazySession {
    pub(crate) fn new(context: Arc<Context>, carried: Carried) -> Self {
        Self(Arc::new(Pending {
            context,
            carried,
            loaded: OnceCell::new(),
            asked: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }))
    }

    /// Loads the session: one call of the store however many ask; none if the client has no
    /// well-formed token.
    ///
    /// A client without a live session gets an empty one, which is stored once it has a value.
    ///
    /// # Errors
    ///
    /// [`Error::is_store`](crate::Error::is_store) if the store fails or does not answer in time; the next call tries again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn load(&self) -> Result<Session> {
        let Pending {
            context,
            carried,
            loaded,
            asked,
            closed,
        } = &*self.0;
        asked.store(true, Ordering::SeqCst);
        let session = loaded.get_or_try_init(|| load(context, carried)).await?;
        // In this order: `close` sets the flag first and looks for the session then, so that one of
        // the two sees the other.
        if closed.load(Ordering::SeqCst) {
            session.close();
        }
        Ok(session.clone())
    }

    /// Whether anybody asked for the session.
    pub(crate) fn asked(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// Ends the request; the session, if it was loaded.
    pub(crate) fn close(&self) -> Option<&Session> {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.loaded.get()
    }
}

impl fmt::Debug for LazySession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazySession")
            .field("loaded", &self.0.loaded.get())
            .finish()
    }
}

/// Finds the session of a request: that of its one live token (S-30).
async fn load(context: &Arc<Context>, carried: &Carried) -> Result<Session> {
    let candidates = carried.candidates(&context.config.cookie);
    if candidates.overflow() {
        tracing::warn!("request has too many session cookies; none is used");
        return Ok(Session::new(context, None, false));
    }
    let found = context.deadline(find_one(context, &candidates)).await?;
    Ok(Session::new(context, found, false))
}

/// Looks up the one live session among those that a request has tokens of.
async fn find_one(context: &Context, candidates: &Candidates) -> Result<Option<(Stored, Data)>> {
    let mut found: Option<(Stored, Data)> = None;
    for token in candidates.iter() {
        let Some(next) = find(context, *token).await? else {
            continue;
        };
        match &found {
            Some((first, _)) if first.id() != next.0.id() => {
                tracing::warn!("request has cookies of two live sessions; none is used");
                return Ok(None);
            }
            // A replaced token in its grace, besides the current one.
            Some(_) if next.0.record.digest != next.0.digest => {}
            _ => found = Some(next),
        }
    }
    Ok(found)
}

/// Looks up the live session that a token opens.
pub(super) async fn find(context: &Context, token: Token) -> Result<Option<(Stored, Data)>> {
    let now = context.now();
    let session = token.id();
    // Reported, and nobody's session (S-74).
    let damaged = |error: &(dyn std::error::Error + 'static)| {
        tracing::error!(%session, error = %Chain(error), "stored session is damaged");
    };
    let record = match context.store.load(session, now).await {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(None),
        Err(error) if error.is_corrupt() => {
            damaged(&error);
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let digest = token.digest(&context.config.namespace);
    // Checked here whatever the store did, so that its mistakes cannot open a session (S-47).
    if !record.accepts(digest, now) || !record.is_live(context.config.policy, now) {
        tracing::debug!(%session, "token is not accepted");
        return Ok(None);
    }
    match Data::parse(Arc::clone(&record.data)) {
        Ok(data) => {
            let stored = Stored {
                record,
                token,
                digest,
            };
            Ok(Some((stored, data)))
        }
        Err(error) => {
            damaged(&error);
            Ok(None)
        }
    }
}
