//! The measured routes on this crate's layer.

use axum::Router;
use axum::routing::{get, post};
use cloakroom::store::SessionStore;
use cloakroom::{Result, Session, SessionLayer};

use crate::requests::{FILLS, SMALL, answer, large_keys, large_value};

async fn read(session: Session) -> Result<String> {
    Ok(answer(session.get("a")?.unwrap_or(7)))
}

async fn increment(session: Session) -> Result<String> {
    let n = session.update("visits", |n: &mut u64| {
        *n += 1;
        *n
    })?;
    Ok(answer(n))
}

async fn sign_in(session: Session) -> Result<String> {
    session.sign_in("ada")?;
    Ok(answer(7))
}

fn fill(session: &Session, large: usize) -> Result<()> {
    for key in SMALL {
        session.insert(key, 1)?;
    }
    for key in large_keys(large) {
        session.insert(key, large_value())?;
    }
    Ok(())
}

/// The routes on a layer with default settings, ready to be called.
pub(crate) fn application(store: impl SessionStore) -> Router {
    under(SessionLayer::new(store))
}

/// The routes under a layer, ready to be called.
pub(crate) fn under(layer: SessionLayer<impl SessionStore>) -> Router {
    let router = Router::new()
        .route("/plain", get(async || answer(7)))
        .route("/read", get(read))
        .route("/increment", post(increment))
        .route("/sign-in", post(sign_in));
    let filled = FILLS.into_iter().fold(router, |router, (path, large)| {
        let handler = async move |session: Session| fill(&session, large);
        router.route(path, post(handler))
    });
    filled.layer(layer).with_state(())
}
