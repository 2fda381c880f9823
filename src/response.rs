//! The response in place of the handler's when a session fails.

use http::Response;
use http::header::WWW_AUTHENTICATE;

use crate::error::Error;

pub(crate) const MISSING_LAYER: &str = "no session layer is around this route: add \
     `.layer(SessionLayer::new(store))` to the router, after its routes and after every layer that \
     uses the session, since the last one added is the outermost";

/// Makes the response to a request whose session failed.
///
/// Implemented for closures `Fn(&Error) -> Response<B> + Clone`, so one can be passed to
/// [`SessionLayerBuilder::error_response`](crate::SessionLayerBuilder::error_response). Whatever makes
/// it, the [`Error`] is put into the response's extensions.
pub trait ErrorResponse<B>: Clone {
    /// The response for an error of the layer itself: the session could not be stored.
    fn respond(&self, error: &Error) -> Response<B>;

    /// The response in place of one that the inner service made of an error, such as a rejection of
    /// an extractor; `None` keeps that one.
    fn replace(&self, error: &Error) -> Option<Response<B>>;
}

impl<F, B> ErrorResponse<B> for F
where
    F: Fn(&Error) -> Response<B> + Clone,
{
    fn respond(&self, error: &Error) -> Response<B> {
        self(error)
    }

    fn replace(&self, error: &Error) -> Option<Response<B>> {
        Some(self(error))
    }
}

/// An empty response with [`Error::status`]: what a layer answers unless told otherwise.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct DefaultErrorResponse;

impl<B: Default> ErrorResponse<B> for DefaultErrorResponse {
    fn respond(&self, error: &Error) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = error.status();
        if let Some(challenge) = error.challenge() {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }

    fn replace(&self, _error: &Error) -> Option<Response<B>> {
        None
    }
}
