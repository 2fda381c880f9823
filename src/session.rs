//! What handlers touch. Knows the client's token, and nothing else of HTTP.

mod client;
mod csrf;
mod ended;
mod lazy;
mod state;

use std::borrow::Cow;
use std::fmt;
use std::mem;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::lazy::LazySession;
use self::lazy::find;
use self::state::{Lease, State};
use crate::changes::Change;
use crate::clock::Timestamp;
use crate::commit::{Actions, Draft, Occasion, Outcome, Plan, Stored};
use crate::config::OnConflict;
use crate::context::Context;
use crate::csrf::CSRF_KEY;
use crate::data::{self, Data, Held, Json, Key};
use crate::error::{Error, InvalidJson, NoJson, Result};
use crate::event::SessionEvent;
use crate::expiry::ExpiryPolicy;
use crate::id::SessionId;
use crate::transport::Notice;

/// A client's session: values by key, and who the client is.
///
/// Everything but [`save`](Self::save), [`reopen`](Self::reopen) and [`ended`](Self::ended) is synchronous. Changes are
/// recorded, and stored when the handler's response is ready; see [the guarantees](crate#guarantees).
/// Clones are cheap, and all of them see the same data.
///
/// Keys are text, values anything that serde can turn into JSON and back. Keys that begin with
/// `cloakroom.` are the crate's own: nobody sees them, and to use one is an error
/// ([`Error::is_invalid`]).
///
/// ```
/// # let session = cloakroom::test_util::session();
/// session.insert("theme", "dark")?;
/// assert_eq!(session.get::<String>("theme")?.as_deref(), Some("dark"));
///
/// let n = session.update("visits", |n: &mut u32| {
///     *n += 1;
///     *n
/// })?;
/// assert_eq!(n, 1);
///
/// assert_eq!(session.take::<String>("theme")?.as_deref(), Some("dark"));
/// assert_eq!(session.keys(), ["visits"]);
/// # Ok::<(), cloakroom::Error>(())
/// ```
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    context: Arc<Context>,
    /// Opened by `reopen`: there is no response that could carry a cookie.
    reopened: bool,
    /// Held by whoever is writing this session to the store.
    writing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// How often code of the application runs on a value that is changed meanwhile: a bound for code that
/// does so itself and would never come to an end.
const MAX_RUNS: u32 = 1000;

/// Makes a change and lets go of the state, then of the closures that are overwritten: what they hold
/// may use the session when it is dropped.
fn edit(mut state: MutexGuard<'_, State>, change: Change) {
    let overwritten = state.edit(change);
    drop(state);
    drop(overwritten);
}

/// The same for a change that the data shows already.
fn note(mut state: MutexGuard<'_, State>, change: Change) {
    let overwritten = state.draft.changes.push(change);
    drop(state);
    drop(overwritten);
}

fn check_key(key: &str) -> Result<()> {
    if data::is_reserved(key) {
        Err(Error::reserved(key.to_owned().into()))
    } else {
        Ok(())
    }
}

fn encode<T: Serialize>(key: &Key, value: &T) -> Result<Json> {
    let write = |out: &mut Vec<u8>| {
        serde_json::to_writer(&mut *out, value)?;
        data::check_value(out)
    };
    data::written(write).map_err(|error| Error::encode(key.clone(), NoJson::new::<T>(&error)))
}

fn decode<T: DeserializeOwned>(key: &str, json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| {
        let error = InvalidJson::new(&error).wanted::<T>();
        Error::decode(key.to_owned().into(), error)
    })
}

impl Session {
    /// A session that is not stored yet.
    fn new(context: &Arc<Context>, data: Data, began: Timestamp, reopened: bool) -> Self {
        Self(Arc::new(Inner {
            context: Arc::clone(context),
            reopened,
            writing: tokio::sync::Mutex::const_new(()),
            state: Mutex::new(State {
                draft: Draft::new(began),
                data,
                saving: 0,
                resets: 0,
                ends: 0,
                signs_in: false,
                client: None,
                is_new: true,
                owner: None,
                notice: Notice::None,
                closed: false,
            }),
        }))
    }

    /// The session with what a store has of it.
    // What is stored is moved to its place alone, and not as part of ever larger wholes.
    #[inline(always)]
    fn with(self, stored: Stored) -> Self {
        let mut state = self.state();
        state.owner = stored.record.owner.clone();
        state.is_new = false;
        state.draft.stored = Some(stored);
        drop(state);
        self
    }

    #[cfg(all(feature = "test-util", feature = "memory"))]
    pub(crate) fn empty(context: &Arc<Context>) -> Self {
        Self::new(context, Data::new(), context.now(), false)
    }

    /// The request came for it then, before it was loaded.
    fn begin(&self, began: Timestamp) {
        self.state().draft.began = began;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of the application runs under the lock, so a panic left the state whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.closed {
            Err(Error::committed())
        } else {
            Ok(state)
        }
    }

    /// The state, for changes to values.
    fn state_for_values(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.open_state()?;
        // What came after its end would be a session that no client has a token for.
        if self.0.reopened && state.draft.stored.is_none() {
            return Err(Error::gone());
        }
        Ok(state)
    }

    /// The value of a key; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::is_decode`] if the value is not a `T`, for instance after a deployment that changed
    /// the type. Other keys are not affected.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let held = self.hold(key)?;
        held.json().map(|json| decode(key, json)).transpose()
    }

    fn hold(&self, key: &str) -> Result<Held> {
        check_key(key)?;
        let mut state = self.state();
        self.note_read(&mut state, key);
        Ok(state.data.hold(key))
    }

    fn hold_to_change(&self, key: &str) -> Result<Held> {
        check_key(key)?;
        let mut state = self.state_for_values()?;
        self.note_read(&mut state, key);
        Ok(state.data.hold(key))
    }

    fn note_read(&self, state: &mut State, key: &str) {
        if self.0.context.config.on_conflict == OnConflict::Reject {
            state.draft.changes.note_read(key, state.data.get(key));
        }
    }

    /// Sets the value of a key. Setting the value it has is no change.
    ///
    /// Of parallel requests that set one key, the one that ends last decides it, whatever it read
    /// before (or is refused, see [`OnConflict`]); to build on the value that is there, use
    /// [`update`](Self::update).
    ///
    /// # Errors
    ///
    /// [`Error::is_encode`] if the value does not serialize, [`Error::is_too_large`] if the data
    /// would exceed [`max_size`](crate::SessionLayerBuilder::max_size), [`Error::is_committed`] once
    /// the response is on its way, [`Error::is_gone`] if this handle was [reopened](Self::reopen) and has ended the
    /// session. That is then as it was.
    #[doc(alias = "set")]
    pub fn insert(&self, key: impl Into<Cow<'static, str>>, value: impl Serialize) -> Result<()> {
        let key = key.into();
        check_key(&key)?;
        let json = encode(&key, &value)?;
        let mut state = self.state_for_values()?;
        let held = state.data.hold(&key);
        let before = held.json();
        if before != Some(&*json) {
            if let Err(error) = self.check_size(&state, &key, before, &json) {
                return Err(self.too_large(state, error));
            }
            state.data.replace(&held, key.clone(), json.clone());
            note(state, Change::Set(key, json));
        }
        Ok(())
    }

    fn check_size(
        &self,
        state: &State,
        key: &Key,
        before: Option<&[u8]>,
        json: &[u8],
    ) -> Result<()> {
        let size = state.data.encoded_len_with(key, before, json.len());
        let config = &self.0.context.config;
        if config.allows(size, state.data.encoded_len()) {
            Ok(())
        } else {
            Err(Error::too_large(size, config.max_size, Some(key.clone())))
        }
    }

    fn too_large(&self, state: MutexGuard<'_, State>, error: Error) -> Error {
        let session = state.draft.stored.as_ref().map(Stored::id);
        // The observer is code of the application.
        drop(state);
        let told = error.clone();
        let event = SessionEvent::TooLarge {
            session,
            error: told,
        };
        self.0.context.tell(&event);
        error
    }

    /// Changes the value of a key and stores the result; an absent one starts as `T::default()`.
    ///
    /// This is how to count, append and toggle: when a parallel request has changed the session
    /// meanwhile, the closure **runs again** on the newer value, so that no change is lost. It may
    /// run more than once, on values the handler has not seen, and what it returns is taken from a
    /// run on what this request sees. Let it do nothing but change the value; what it captures it must
    /// own, and clone if it gives it away. What must happen
    /// exactly once, such as placing an order, needs more than a return value: a key that makes the
    /// second try harmless.
    ///
    /// ```
    /// # let session = cloakroom::test_util::session();
    /// # let item = "umbrella".to_owned();
    /// let items = session.update("cart", move |cart: &mut Vec<String>| {
    ///     cart.push(item.clone());
    ///     cart.len()
    /// })?;
    /// assert_eq!(items, 1);
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`insert`](Self::insert), and [`Error::is_conflict`] if the closure
    /// itself changes the key; the session is then as it was.
    pub fn update<T, R>(
        &self,
        key: impl Into<Cow<'static, str>>,
        mut change: impl FnMut(&mut T) -> R + Send + 'static,
    ) -> Result<R>
    where
        T: Default + Serialize + DeserializeOwned,
    {
        let key = key.into();
        for _ in 0..MAX_RUNS {
            let held = self.hold_to_change(&key)?;
            let before = held.json();
            let value = before.map(|json| decode::<T>(&key, json));
            let mut value = value.transpose()?.unwrap_or_default();
            // Without the lock, so that the closure may use the session.
            let result = change(&mut value);
            let json = encode(&key, &value)?;
            let mut state = self.state_for_values()?;
            if !state.data.still_has(&key, &held) {
                continue;
            }
            if before == Some(&*json) {
                return Ok(result);
            }
            if let Err(error) = self.check_size(&state, &key, before, &json) {
                return Err(self.too_large(state, error));
            }
            state.data.replace(&held, key.clone(), json.clone());
            if state.draft.changes.decides(&key) {
                note(state, Change::Set(key, json));
            } else {
                let again = move |key: &Key, json: Option<&[u8]>| {
                    let value = json.map(|json| decode::<T>(key, json));
                    let mut value = value.transpose()?.unwrap_or_default();
                    change(&mut value);
                    encode(key, &value)
                };
                note(state, Change::Update(key, Box::new(again)));
            }
            return Ok(result);
        }
        Err(Error::contended())
    }

    /// Removes a key and returns its value: for what is shown once, such as a notice after a redirect.
    ///
    /// Of parallel requests each may be given the value, unless the layer's [`OnConflict`] says
    /// `Reject`.
    ///
    /// ```
    /// # let session = cloakroom::test_util::session();
    /// session.insert("notice", "Saved.")?; // before the redirect
    /// assert_eq!(session.take::<String>("notice")?.as_deref(), Some("Saved.")); // on the next page
    /// assert_eq!(session.take::<String>("notice")?, None);
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and [`Error::is_committed`] and [`Error::is_gone`] as for
    /// [`insert`](Self::insert); the value then stays.
    #[doc(alias = "flash")]
    #[doc(alias = "pop")]
    pub fn take<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        for _ in 0..MAX_RUNS {
            let held = self.hold_to_change(key)?;
            let Some(json) = held.json() else {
                return Ok(None);
            };
            let value = decode(key, json)?;
            let state = self.state_for_values()?;
            if state.data.still_has(key, &held) {
                edit(state, Change::Remove(key.to_owned().into()));
                return Ok(Some(value));
            }
        }
        Err(Error::contended())
    }

    /// Removes a key; whether it was there.
    ///
    /// # Errors
    ///
    /// [`Error::is_committed`] and [`Error::is_gone`] as for [`insert`](Self::insert).
    pub fn remove(&self, key: &str) -> Result<bool> {
        check_key(key)?;
        let state = self.state_for_values()?;
        let there = state.data.get(key).is_some();
        if there {
            edit(state, Change::Remove(key.to_owned().into()));
        }
        Ok(there)
    }

    /// Removes all keys. The session itself goes on, with its owner and another
    /// [CSRF token](Self::csrf_token); to end it, use [`destroy`](Self::destroy).
    ///
    /// # Errors
    ///
    /// [`Error::is_committed`] and [`Error::is_gone`] as for [`insert`](Self::insert), [`Error::is_random`] if
    /// the operating system gives no random bytes for that token.
    pub fn clear(&self) -> Result<()> {
        let mut state = self.state_for_values()?;
        if !state.data.is_empty() {
            let csrf = self.csrf_after_clear(&state)?;
            let overwritten = state.edit(Change::Clear);
            // Nothing of the application is overwritten.
            let _none = csrf.map(|json| state.edit(Change::Set(CSRF_KEY.into(), json)));
            drop(state);
            drop(overwritten);
        }
        Ok(())
    }

    /// Whether a key has a value.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.hold(key).is_ok_and(|held| held.json().is_some())
    }

    /// The keys that have values, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let state = self.state();
        state.data.own_keys().map(Cow::into_owned).collect()
    }

    /// How many keys have values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().data.own_keys().count()
    }

    /// Whether no key has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The session's public name; `None` until it is stored for the first time.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.state().draft.stored.as_ref().map(Stored::id)
    }

    /// Whether the client came without this session: it had none, or an earlier one was destroyed.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.state().is_new
    }

    /// When the session was first stored; `None` if it is not stored yet.
    #[must_use]
    pub fn created_at(&self) -> Option<SystemTime> {
        self.stored(|stored| stored.record.created.into())
    }

    /// When the session ends if it is not used again; `None` if it is not stored yet.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.stored(|stored| stored.record.expires.into())
    }

    /// Whether the client's token is the session's current one.
    fn has_current_token(&self) -> bool {
        let is_current = |stored: &Stored| stored.record.digest == stored.digest;
        self.stored(is_current).unwrap_or_default()
    }

    fn stored<T>(&self, get: impl FnOnce(&Stored) -> T) -> Option<T> {
        self.state().draft.stored.as_ref().map(get)
    }

    /// Who is signed in: what was given to [`sign_in`](Self::sign_in).
    ///
    /// Compare it as text, `session.owner().as_deref() == Some("ada")`. A page for signed-in users
    /// begins with:
    ///
    /// ```
    /// # use cloakroom::Session; use http::StatusCode;
    /// async fn account(session: Session) -> Result<String, StatusCode> {
    ///     let user = session.owner().ok_or(StatusCode::UNAUTHORIZED)?;
    ///     Ok(format!("Hello {user}"))
    /// }
    /// ```
    ///
    /// ```
    /// # let session = cloakroom::test_util::session();
    /// assert_eq!(session.owner(), None);
    /// session.sign_in("ada")?;
    /// assert_eq!(session.owner().as_deref(), Some("ada"));
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    #[must_use]
    pub fn owner(&self) -> Option<Arc<str>> {
        self.state().owner.clone()
    }

    /// When the owner last signed in; `None` for an anonymous session.
    #[must_use]
    pub fn authenticated_at(&self) -> Option<SystemTime> {
        let state = self.state();
        if state.draft.actions.sign_in.is_some() {
            return Some(self.0.context.now().into());
        }
        state
            .draft
            .stored
            .as_ref()?
            .record
            .authenticated
            .map(SystemTime::from)
    }

    /// Whether the owner signed in at most this long ago: before what a session that was left open must
    /// not do, such as changing the password (ASVS 7.5.1).
    ///
    /// `false` for an anonymous session. With axum see also
    /// [`FreshlySignedIn`](crate::FreshlySignedIn), and
    /// [`RequireSignedIn::within`](crate::RequireSignedIn::within) for whole routes.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let session = cloakroom::test_util::session();
    /// assert!(!session.authenticated_within(Duration::MAX));
    /// session.sign_in("ada")?;
    /// assert!(session.authenticated_within(Duration::from_secs(300)));
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    #[must_use]
    pub fn authenticated_within(&self, time: Duration) -> bool {
        let state = self.state();
        if state.draft.actions.sign_in.is_some() {
            return true;
        }
        let record = state.draft.stored.as_ref().map(|stored| &stored.record);
        record.is_some_and(|record| {
            // A clock that was set back makes no sign-in younger than it was (S-49).
            let now = self.0.context.now().max(record.seen);
            let at = record.authenticated;
            at.is_some_and(|at| at <= now && now.saturating_since(at) <= time)
        })
    }

    /// This request does not count as use of the session: it moves the session's end by nothing but a
    /// [`sign_in`](Self::sign_in), [`remember`](Self::remember) or [`forget`](Self::forget).
    ///
    /// For what a page does by itself while nobody looks, such as polling (NIST SP 800-63B section
    /// 5.2); [`NoTouch`](crate::NoTouch) marks whole routes.
    pub fn no_touch(&self) {
        self.state().draft.no_touch = true;
    }

    /// Gives the client a new token; the old one is dead at once, also for requests in flight.
    ///
    /// Call it when what the session may do changes: a role, a password, the start or end of acting
    /// for somebody else (OWASP Session Management, "Renew the Session ID After Any Privilege Level
    /// Change"). Values, id and age stay. A client without a session gets none.
    ///
    /// # Errors
    ///
    /// [`Error::is_committed`] once the response is on its way, and on a
    /// [reopened](Self::reopen) session.
    #[doc(alias = "regenerate")]
    #[doc(alias = "cycle_id")]
    #[doc(alias = "rotate")]
    pub fn renew(&self) -> Result<()> {
        let mut state = self.state_for_cookie()?;
        state.draft.actions.renew = true;
        Ok(())
    }

    /// The state, for operations that need a cookie to take effect.
    fn state_for_cookie(&self) -> Result<MutexGuard<'_, State>> {
        if self.0.reopened {
            Err(Error::committed())
        } else {
            self.open_state()
        }
    }

    /// Makes the session that of `owner`, the application's user id (1 to 255 bytes without
    /// NUL), who has just proved who they are; the client gets a new token and the old one is dead at once.
    ///
    /// There is no other way to set an owner, so an attacker's token can never become a signed-in
    /// one (ASVS 7.2.4). Call it at re-authentication as well (7.5.3): it notes the time and starts
    /// the absolute timeout anew. Values stay, such as a guest's cart, unless they belong to
    /// *another* owner: then they are dropped. What [`remember`](Self::remember) set for that owner, or
    /// in an earlier request for a guest, is dropped with them or without: nobody is kept signed in who
    /// did not ask for it. The [CSRF token](Self::csrf_token) is dropped in any case.
    ///
    /// ```
    /// # let session = cloakroom::test_util::session();
    /// session.insert("cart", ["umbrella"])?;
    /// session.sign_in("ada")?;
    /// assert!(session.contains("cart"));
    /// session.sign_in("grace")?;
    /// assert!(!session.contains("cart"));
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    ///
    /// *How* they proved it, with a password, a second factor or a passkey, is a value of yours: set it each time,
    /// and take its absence for the weakest.
    ///
    /// # If the response fails
    ///
    /// A sign-in counts also if the response is 5xx or made of an [`Error`]. Values that the request has set and not
    /// [saved](Self::save) are dropped then, those that say what the owner may *not* do as well: a
    /// `second_factor_pending` beside a sign-in is gone if the handler fails after it. So sign in when all is proven.
    /// Until then, who it may become is a value of the guest's session. What must be there with a sign-in is
    /// saved before it:
    ///
    /// ```
    /// # async fn proven(session: cloakroom::Session) -> cloakroom::Result<()> {
    /// // The password was right, and the second factor is now:
    /// if let Some(owner) = session.take::<String>("half_signed_in")? {
    ///     session.insert("method", "password and code")?;
    ///     session.save().await?;
    ///     session.sign_in(owner)?;
    /// }
    /// # Ok(())
    /// # }
    /// # let session = cloakroom::test_util::session();
    /// # session.insert("half_signed_in", "ada")?;
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(proven(session.clone()))?;
    /// # assert_eq!(session.owner().as_deref(), Some("ada"));
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] for an owner out of that range,
    /// [`Error::is_committed`] as for [`renew`](Self::renew).
    #[doc(alias = "login")]
    #[doc(alias = "log in")]
    #[doc(alias = "authenticate")]
    pub fn sign_in(&self, owner: impl Into<String>) -> Result<()> {
        let owner: Arc<str> = owner.into().into();
        if !(1..=255).contains(&owner.len()) || owner.contains('\0') {
            return Err(Error::invalid(
                "an owner has 1 to 255 bytes, none of them NUL",
            ));
        }
        let mut dropped = None;
        let mut state = self.state_for_cookie()?;
        if state.owner.as_ref().is_some_and(|before| *before != owner) {
            dropped = Some(state.reset());
            state.draft.actions.other_owner = true;
            state.draft.actions.policy = None;
        }
        // Also if this request does not see it: a parallel one may store it (S-40).
        let csrf = state.edit(Change::Remove(CSRF_KEY.into()));
        state.signs_in = true;
        state.owner = Some(Arc::clone(&owner));
        state.draft.actions.sign_in = Some(owner);
        drop(state);
        drop((dropped, csrf));
        Ok(())
    }

    /// Ends the session, as for a sign-out: it is deleted from the store, whatever status the
    /// response has, and the client drops its cookie.
    ///
    /// Requests in flight cannot bring it back. What is set after this goes into a new session
    /// under a new id, and the client gets that one's cookie instead of a removal.
    ///
    /// # Errors
    ///
    /// [`Error::is_committed`] once the response is on its way.
    #[doc(alias = "logout")]
    #[doc(alias = "log out")]
    #[doc(alias = "sign_out")]
    #[doc(alias = "flush")]
    pub fn destroy(&self) -> Result<()> {
        let mut state = self.open_state()?;
        let dropped = state.reset();
        state.ends += 1;
        state.owner = None;
        let ended = state.draft.stored.take().map(|stored| stored.id());
        let destroy = ended.or(state.draft.actions.destroy);
        state.draft.actions = Actions {
            destroy,
            ..Actions::default()
        };
        state.is_new = true;
        drop(state);
        drop(dropped);
        Ok(())
    }

    /// Keeps the session for `time` (at least a millisecond) instead of the layer's timeouts, and its
    /// cookie beyond the end of the browser: "keep me signed in".
    ///
    /// `time` is both the idle and the absolute limit, is stored with the session, and counts from
    /// the last [`sign_in`](Self::sign_in), or else from the session's creation. Browsers keep no
    /// cookie longer than 400 days.
    ///
    /// For somebody who signs in, call it in the request of the sign-in or later: what a guest asked for
    /// in an earlier request ends with the sign-in.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`] for less than a millisecond, [`Error::is_committed`] as for
    /// [`renew`](Self::renew).
    #[doc(alias = "remember me")]
    #[doc(alias = "keep me signed in")]
    #[doc(alias = "set_expiry")]
    pub fn remember(&self, time: Duration) -> Result<()> {
        if time < Duration::from_millis(1) {
            return Err(Error::invalid(
                "a session is remembered for at least a millisecond",
            ));
        }
        let mut state = self.state_for_cookie()?;
        // As it will be stored, in whole milliseconds.
        let time = Timestamp::from_millis(0).saturating_add(time);
        let time = time.saturating_since(Timestamp::from_millis(0));
        state.draft.actions.policy = Some(Some(ExpiryPolicy::new(time, time)));
        Ok(())
    }

    /// Takes [`remember`](Self::remember) back: the layer's timeouts count again, and the cookie ends
    /// with the browser's session.
    ///
    /// # Errors
    ///
    /// [`Error::is_committed`] as for [`renew`](Self::renew).
    pub fn forget(&self) -> Result<()> {
        self.state_for_cookie()?.draft.actions.policy = Some(None);
        Ok(())
    }

    /// Makes the changes so far durable now, instead of when the response is ready.
    ///
    /// A client whose session this creates or renews gets its cookie with the response.
    ///
    /// # Errors
    ///
    /// [`Error::is_store`] if the store fails or does not answer in time; whether the changes are
    /// stored is then unknown. [`Error::is_gone`] and [`Error::is_superseded`] if the session ended
    /// or was renewed meanwhile: the changes are dropped. [`Error::is_conflict`],
    /// [`Error::is_too_large`] and [`Error::is_decode`] if they do not fit what a parallel request
    /// has stored. [`Error::is_decode`] is also said of changes that were made while this was under way: those
    /// are dropped, and the ones before them stored. [`Error::is_full`] if a sign-in would exceed
    /// [`max_sessions_per_owner`](crate::SessionLayerBuilder::max_sessions_per_owner), [`Error::is_random`] if the
    /// operating system gives no random bytes for a token. [`Error::is_committed`] once the response is on its way.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, and after an error other than gone or superseded, the changes stay
    /// pending: they are tried again with the next `save` or when the response is ready. If they did
    /// reach the store, an [`update`](Self::update) then counts twice, and under
    /// [`OnConflict::Reject`] what was read and set may be refused for it. A [`renew`](Self::renew) or a
    /// [`sign_in`](Self::sign_in) is done once more, so that the client gets a token that is accepted; until then
    /// [`reopen`](Self::reopen) and [`ended`](Self::ended) take the session for one that has ended.
    ///
    /// Poll the future or drop it. While one is kept that nobody polls, whatever else would write the
    /// session waits for it: the end of this request until the
    /// [`store_timeout`](crate::SessionLayerBuilder::store_timeout), after which it is a 503, and so
    /// other requests of the client.
    pub async fn save(&self) -> Result<()> {
        let _saving = Saving::begin(self)?;
        let _writing = self.0.writing.lock().await;
        let mut lease = {
            let mut state = self.open_state()?;
            let _none = state.prepare(Occasion::Save);
            let plan = self.plan(&mut state, Occasion::Save);
            Lease::take(self, &mut state, plan, Occasion::Save)
        };
        let outcome = lease.commit().await;
        drop(lease);
        let outcome = outcome?;
        match outcome {
            Outcome::Gone => Err(Error::gone()),
            Outcome::Superseded => Err(Error::superseded()),
            _ => Ok(()),
        }
    }

    /// Opens the session again for a task that outlives the response: a stream, a WebSocket, a job.
    ///
    /// The handle is loaded afresh and has changes of its own, which only its
    /// [`save`](Self::save) stores; each `save` builds on what other requests have stored meanwhile.
    /// It cannot [`renew`](Self::renew), [`sign_in`](Self::sign_in) or
    /// [`remember`](Self::remember), since there is no response for the cookie.
    ///
    /// # Errors
    ///
    /// [`Error::is_gone`] if the session has never been stored, has ended, or was renewed by another
    /// request; [`Error::is_store`] if the store fails or does not answer in time;
    /// [`Error::is_invalid`] if there is no store.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn reopen(&self) -> Result<Self> {
        let context = &self.0.context;
        if context.seal.is_whole() {
            return Err(Error::invalid(
                "a session without a store ends with the response: nobody could write it later",
            ));
        }
        let token = self.stored(|stored| stored.token).ok_or_else(Error::gone)?;
        let mut ticket = token.into();
        let found = context.deadline(find(context, &mut ticket, true)).await?;
        found.ok_or_else(Error::gone)
    }

    /// From now on the session can only be read. Changes that nobody will store are dropped, since
    /// closures among them may hold the session.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let dropped = state.draft.changes.take();
        // Code of the application, which runs without the lock.
        drop(state);
        drop(dropped);
    }

    /// Commits what the handler did, and closes the session. The store is asked only if need be.
    pub(crate) fn finish(self, occasion: Occasion) -> Finish {
        let state = self.state();
        if state.saving > 0 {
            drop(state);
            return Finish::Commit(Box::pin(self.finish_later(occasion)));
        }
        match self.end(state, occasion) {
            ControlFlow::Break(notice) => Finish::Done(notice),
            ControlFlow::Continue(plan) => Finish::Commit(Box::pin(self.commit(plan, occasion))),
        }
    }

    /// Commits after a `save` in flight, which ends in its own time, unless nobody polls it.
    async fn finish_later(self, occasion: Occasion) -> Committed {
        let turn = async { Ok(self.0.writing.lock().await) };
        let _turn = match self.0.context.deadline(turn).await {
            Ok(turn) => turn,
            Err(error) => {
                self.close();
                return Committed {
                    notice: self.state().notice.clone(),
                    error: Some(error),
                };
            }
        };
        match self.end(self.state(), occasion) {
            ControlFlow::Break(notice) => Committed {
                notice,
                error: None,
            },
            ControlFlow::Continue(plan) => self.clone().commit(plan, occasion).await,
        }
    }

    /// Decides what is to be written, after which nothing can be changed. If that is nothing, all is
    /// done but what the client is told.
    fn end(
        &self,
        mut state: MutexGuard<'_, State>,
        occasion: Occasion,
    ) -> ControlFlow<Notice, Plan> {
        state.closed = true;
        let dropped = state.prepare(occasion);
        let plan = self.plan(&mut state, occasion);
        let mut without_effect = None;
        let next = if plan == Plan::Nothing {
            without_effect = state.draft.changes.take();
            ControlFlow::Break(mem::take(&mut state.notice))
        } else {
            ControlFlow::Continue(plan)
        };
        // Code of the application, which runs without the lock.
        drop(state);
        drop((dropped, without_effect));
        next
    }

    // In a box, as `finish` hands it out, and no larger than the 1032 bytes up to which glibc has a short
    // way: a larger one costs each commit several hundred instructions.
    async fn commit(self, plan: Plan, occasion: Occasion) -> Committed {
        let mut lease = Lease::take(&self, &mut self.state(), plan, occasion);
        let error = lease.commit().await.err();
        let notice = mem::take(&mut self.state().notice);
        Committed { notice, error }
    }

    /// Decides what is to be written of a state that is [prepared](State::prepare).
    fn plan(&self, state: &mut State, occasion: Occasion) -> Plan {
        let context = &self.0.context;
        state.draft.plan(&context.config, occasion, context.now())
    }
}

/// A `save` under way; it ends when this is dropped.
struct Saving<'a>(&'a Session);

impl<'a> Saving<'a> {
    fn begin(session: &'a Session) -> Result<Self> {
        session.open_state()?.saving += 1;
        Ok(Self(session))
    }
}

impl Drop for Saving<'_> {
    fn drop(&mut self) {
        self.0.state().saving -= 1;
    }
}

/// What a commit leaves to be said to the client.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) notice: Notice,
    pub(crate) error: Option<Error>,
}

/// How a session is finished.
pub(crate) enum Finish {
    Done(Notice),
    Commit(Pin<Box<dyn Future<Output = Committed> + Send>>),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Session")
            .field("id", &state.draft.stored.as_ref().map(Stored::id))
            .field("owner", &state.owner)
            .field("len", &state.data.own_keys().count())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "test-util", feature = "memory"))]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_commit_is_allocated_in_the_short_way() {
        let session = crate::test_util::session();
        let commit = session.commit(Plan::Nothing, Occasion::Response);
        assert!(size_of_val(&commit) <= 1032, "{}", size_of_val(&commit));
    }
}
