//! The CSRF token of a session.

use super::state::State;
use super::{Session, note};
use crate::changes::Change;
use crate::csrf::{CSRF_KEY, CsrfSecret, CsrfToken};
use crate::data::{Json, Key};
use crate::error::{Error, Result};
use crate::event::SessionEvent;

impl Session {
    /// The token that the application's own pages send back with what they change: a synchronizer
    /// token (OWASP CSRF Prevention).
    ///
    /// 1. The session's secret is made when it is first asked for, and stored with the session: a page
    ///    with a token gives a client without a session one.
    /// 2. It is the session's own and lives as long as that, renewals included. [`sign_in`](Self::sign_in),
    ///    [`clear`](Self::clear) and [`destroy`](Self::destroy) drop it, so what was on a page from before
    ///    is refused afterwards.
    /// 3. Each call masks it anew. All the results verify.
    /// 4. Requests that run at once and come with one cookie make one and the same secret, so each of
    ///    their pages verifies. Those that come *without* a cookie get a session each, and the browser
    ///    keeps the last one: a page of another is refused, as is one whose response, and with
    ///    it the session, was not stored. The exception is a first page at the very
    ///    moment of a periodic renewal: of two that come with the old and the new token, the one stored
    ///    first holds.
    ///
    /// Check it with [`verify_csrf`](Self::verify_csrf), or with axum by the extractors
    /// [`CsrfForm`](crate::CsrfForm) and [`CsrfHeader`](crate::CsrfHeader).
    ///
    /// This is a second line: the first are `SameSite` and the origin check of tower-http's `CsrfLayer`,
    /// which need no token.
    ///
    /// ```
    /// # let session = cloakroom::test_util::session();
    /// let (one, another) = (session.csrf_token()?, session.csrf_token()?);
    /// assert_ne!(one.as_str(), another.as_str());
    /// session.verify_csrf(one.as_str())?;
    /// session.verify_csrf(another.as_str())?;
    ///
    /// session.sign_in("ada")?;
    /// assert!(session.verify_csrf(one.as_str()).unwrap_err().is_csrf());
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::is_random`] if the operating system gives no random bytes; if a secret must be made also
    /// as [`insert`](Self::insert).
    pub fn csrf_token(&self) -> Result<CsrfToken> {
        let secret = match self.csrf_secret() {
            Some(secret) => secret,
            None => self.make_csrf_secret()?,
        };
        secret.mask(&self.0.context.entropy)
    }

    /// Checks what a page sent back: in a form field or a header. A cookie or the URL would not do:
    /// browsers send the one by themselves, and the other ends up in logs and `Referer`.
    ///
    /// The comparison takes the same time wherever they differ.
    ///
    /// # Errors
    ///
    /// [`Error::is_csrf`], whose status is 403, unless `sent` is a token of this session. That is told
    /// ([`SessionEvent::CsrfRefused`]).
    pub fn verify_csrf(&self, sent: &str) -> Result<()> {
        match self.csrf_secret() {
            Some(secret) if secret.matches(sent) => Ok(()),
            _ => {
                let session = self.id();
                self.0.context.tell(&SessionEvent::CsrfRefused { session });
                Err(Error::csrf())
            }
        }
    }

    fn csrf_secret(&self) -> Option<CsrfSecret> {
        let state = self.state();
        state.data.get(CSRF_KEY).and_then(CsrfSecret::from_json)
    }

    /// The secret that takes the place of a stored session's. Left out, it would be derived from the
    /// client's token again.
    pub(super) fn csrf_after_clear(&self, state: &State) -> Result<Option<Json>> {
        if state.draft.stored.is_none() || state.data.get(CSRF_KEY).is_none() {
            return Ok(None);
        }
        let secret = CsrfSecret::random(&self.0.context.entropy)?;
        Ok(Some(secret.to_json()))
    }

    fn make_csrf_secret(&self) -> Result<CsrfSecret> {
        let mut state = self.state_for_values()?;
        let secret = match &state.draft.stored {
            // What could be made before a sign-in is not made again after it (S-40).
            Some(stored) if !state.signs_in => CsrfSecret::of(&stored.token),
            _ => CsrfSecret::random(&self.0.context.entropy)?,
        };
        let json = secret.to_json();
        let before = state.data.get(CSRF_KEY);
        self.check_size(&state, &CSRF_KEY.into(), before, &json)?;
        state.data.set(CSRF_KEY.into(), json.clone());
        let change = if state.draft.changes.decides(CSRF_KEY) {
            Change::Set(CSRF_KEY.into(), json)
        } else {
            // A secret that is stored by then stays: pages show it already.
            let keep = move |_: &Key, stored: Option<&[u8]>| {
                let stored = stored.filter(|stored| CsrfSecret::from_json(stored).is_some());
                Ok(stored.map_or_else(|| json.clone(), Json::from))
            };
            Change::Update(CSRF_KEY.into(), Box::new(keep))
        };
        note(state, change);
        Ok(secret)
    }
}
