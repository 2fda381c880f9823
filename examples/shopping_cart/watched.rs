//! A store that writes down what it is asked, so that the shop can show it: a page for learning, and
//! the header `Server-Timing`, which browsers' developer tools draw.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use cloakroom::SessionId;
use cloakroom::store::{
    Admission, Create, Record, SessionStore, SignIn, StoreError, Timestamp, Update, Version,
};

/// What the store was asked during a request.
pub(crate) type Asked = Vec<(&'static str, Duration)>;

tokio::task_local! {
    static ASKED: RefCell<Asked>;
}

/// What the store was asked in this request so far.
pub(crate) fn asked() -> Asked {
    ASKED
        .try_with(|asked| asked.borrow().clone())
        .unwrap_or_default()
}

/// Around the session layer, which asks the store for the last time when the handler is done.
pub(crate) async fn watch(request: Request, next: Next) -> Response {
    let watched = async {
        let response = next.run(request).await;
        (response, asked())
    };
    let (mut response, asked) = ASKED.scope(RefCell::default(), watched).await;
    if !asked.is_empty() {
        let value = HeaderValue::from_str(&server_timing(&asked));
        let value = value.expect("names and numbers");
        response.headers_mut().insert("server-timing", value);
    }
    response
}

/// See <https://www.w3.org/TR/server-timing/>.
fn server_timing(asked: &Asked) -> String {
    let mut text = String::new();
    for (operation, time) in asked {
        let comma = if text.is_empty() { "" } else { ", " };
        let milliseconds = time.as_secs_f64() * 1000.0;
        // A `String` takes what is written to it.
        let _ = write!(text, "{comma}store-{operation};dur={milliseconds:.3}");
    }
    text
}

#[derive(Clone, Debug)]
pub(crate) struct Watched<S>(pub(crate) S);

async fn timed<R>(operation: &'static str, work: impl Future<Output = R>) -> R {
    let began = Instant::now();
    let result = work.await;
    let time = began.elapsed();
    // Outside of a request, as in the cleaner, nobody looks.
    let _ = ASKED.try_with(|asked| asked.borrow_mut().push((operation, time)));
    result
}

impl<S: SessionStore> SessionStore for Watched<S> {
    async fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        timed("create", self.0.create(id, record, now)).await
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        timed("load", self.0.load(id, now)).await
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        timed("update", self.0.update(id, record, expected, now)).await
    }

    async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        let work = self.0.sign_in(id, record, expected, admission, now);
        timed("sign-in", work).await
    }

    async fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        timed("touch", self.0.touch(id, expires, now)).await
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        timed("delete", self.0.delete(id)).await
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        timed("delete-expired", self.0.delete_expired(now, limit)).await
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        timed("list-by-owner", self.0.list_by_owner(owner, now)).await
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let work = self.0.delete_by_owner(owner, keep, now);
        timed("delete-by-owner", work).await
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        timed("delete-all", self.0.delete_all()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_written_as_browsers_read_them() {
        let asked = vec![
            ("load", Duration::from_micros(1250)),
            ("update", Duration::from_millis(3)),
        ];
        let text = server_timing(&asked);
        assert_eq!(text, "store-load;dur=1.250, store-update;dur=3.000");
    }
}
