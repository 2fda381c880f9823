//! What a browser is told to forget at sign-out.

use http::{HeaderName, HeaderValue};

/// The header `Clear-Site-Data: "cookies", "storage"`: at sign-out the browser forgets all that the
/// site has kept with it, other cookies, local storage and service workers included (ASVS 14.3.1).
///
/// With axum return it beside the response; elsewhere put [`NAME`](Self::NAME) and
/// [`value`](Self::value) into the headers. Browsers obey it over https alone. It goes with
/// [`Session::destroy`](crate::Session::destroy), which ends the session on the server, and takes
/// nothing of its place. Do not send it with the cookie of a new session, which would be forgotten as
/// well, nor where other applications share the domain's cookies.
///
/// ```
/// use axum::response::{IntoResponse, Redirect};
/// use cloakroom::{ClearSiteData, Session};
///
/// async fn sign_out(session: Session) -> cloakroom::Result<impl IntoResponse> {
///     session.destroy()?;
///     Ok((ClearSiteData::new(), Redirect::to("/")))
/// }
///
/// assert_eq!(ClearSiteData::new().value(), "\"cookies\", \"storage\"");
/// assert_eq!(ClearSiteData::new().cache(true).value(), "\"cache\", \"cookies\", \"storage\"");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ClearSiteData {
    cache: bool,
}

impl ClearSiteData {
    /// The header's name.
    pub const NAME: HeaderName = HeaderName::from_static("clear-site-data");

    /// Cookies and storage.
    #[must_use]
    pub const fn new() -> Self {
        Self { cache: false }
    }

    /// Whether the browser's cache is cleared as well, for pages that were sent without `no-store`.
    /// Default: no, since some browsers take seconds for it and hold the response up.
    #[must_use]
    pub const fn cache(mut self, cache: bool) -> Self {
        self.cache = cache;
        self
    }

    /// The header's value.
    #[must_use]
    pub const fn value(self) -> HeaderValue {
        HeaderValue::from_static(if self.cache {
            "\"cache\", \"cookies\", \"storage\""
        } else {
            "\"cookies\", \"storage\""
        })
    }
}
