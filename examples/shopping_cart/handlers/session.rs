//! What a page asks about its own session. All of it is for scripts: without them the next click tells.
//!
//! Nothing limits how many event streams are open at once, and each holds a connection: a shop on the internet
//! limits them for each session, or in its proxy.

use std::convert::Infallible;
use std::future::ready;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use cloakroom::SignedIn;
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;

use crate::handlers::{Answer, Shop};
use crate::visitor::USER;

#[derive(Debug, Serialize)]
pub(crate) struct Left {
    user: String,
    seconds: u64,
}

/// How long the session lasts unless it is used. The page asks each minute, which is no use of it.
pub(crate) async fn left(user: SignedIn) -> Answer<Json<Left>> {
    let end = user.session().expires_at();
    let left = end.and_then(|end| end.duration_since(SystemTime::now()).ok());
    Ok(Json(Left {
        user: user.session().get(USER)?.unwrap_or_default(),
        seconds: left.unwrap_or_default().as_secs(),
    }))
}

/// Somebody is there and wants to stay: this one is use.
pub(crate) async fn stay(_: SignedIn) -> StatusCode {
    StatusCode::NO_CONTENT
}

/// One event, as soon as the session has ended or has another token: signed out elsewhere, expired, or
/// confirmed in another tab.
pub(crate) async fn events(
    user: SignedIn,
    State(shop): State<Shop>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ended = async move {
        tokio::select! {
            () = user.session().ended() => Some(Ok(Event::default().data("ended"))),
            // The shop would wait for the end of this response. The browser connects to the next one.
            () = shop.closing.begun() => None,
        }
    };
    Sse::new(stream::once(ended).filter_map(ready)).keep_alive(KeepAlive::default())
}
