//! Sessions seen from outside of their requests: to list them, and to end them.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::data::{self, Data};
use crate::error::{Error, InvalidJson, Result, StoreError};
use crate::event::{Observer, SessionEvent};
use crate::id::SessionId;
use crate::record::Record;
use crate::session::Session;

/// Lists and ends sessions: for "your devices" pages, for changed passwords, for administrators.
///
/// With axum it is an extractor, and elsewhere [`SessionLayer::sessions`](crate::SessionLayer::sessions)
/// makes it. Cloning is cheap. What it ends is ended for good: neither a request in flight nor a sign-in
/// under way brings it back, but see [`revoke_everyone`](Self::revoke_everyone).
///
/// It sees all sessions of the store, whatever layer and cookie name they were begun under, and tells
/// owners apart by their ids alone. Give owners of different kinds a prefix, such as `admin:1` and
/// `customer:1`, or each kind a store with a table or prefix of its own.
///
/// ```
/// use axum::{Router, routing::post};
/// use cloakroom::{MemoryStore, Session, SessionLayer, Sessions};
///
/// /// The password was changed: this device stays signed in, the others do not.
/// async fn password_changed(session: Session, sessions: Sessions) -> cloakroom::Result<String> {
///     let others = sessions.revoke_others(&session).await?;
///     Ok(format!("{others} other devices were signed out"))
/// }
///
/// # use axum::{body::Body, http::Request};
/// # use tower::ServiceExt;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let app: Router = Router::new()
///     .route("/password", post(password_changed))
///     .layer(SessionLayer::new(MemoryStore::new()));
/// # let request = Request::post("/password").body(Body::empty()).unwrap();
/// # assert_eq!(app.oneshot(request).await.unwrap().status(), 200);
/// # }
/// ```
///
/// Outside of a request:
///
/// ```
/// use cloakroom::{MemoryStore, SessionLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> cloakroom::Result<()> {
/// let layer = SessionLayer::new(MemoryStore::new());
/// let sessions = layer.sessions();
///
/// // The account was disabled:
/// assert_eq!(sessions.revoke_all("ada").await?, 0);
/// assert!(sessions.list("ada").await?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sessions(Arc<Context>);

impl Sessions {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        Self(Arc::clone(context))
    }

    /// The live sessions of an owner, the last used one first.
    ///
    /// # Errors
    ///
    /// [`Error::is_store`] if the store fails or does not answer in time; [`Error::is_invalid`] if
    /// [there is none](crate::SessionLayer::stateless).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn list(&self, owner: &str) -> Result<Vec<SessionInfo>> {
        self.check_store()?;
        let now = self.0.now();
        let config = &self.0.config;
        let list = async { Ok(self.0.store.list_by_owner(owner, now).await?) };
        let mut list = self.0.deadline(list).await?;
        list.retain(|(_, record)| record.is_live(config.limits_of(record), now));
        list.sort_by_key(|(id, record)| (std::cmp::Reverse(record.seen), *id));
        Ok(list
            .into_iter()
            .map(|(id, record)| SessionInfo {
                id,
                record,
                observer: self.0.observer.clone(),
            })
            .collect())
    }

    /// Ends a session; whether it was there.
    ///
    /// An id is no secret and proves nothing. One that a client sent, as from a "your devices" page,
    /// must first be found in the [`list`](Self::list) of who is signed in, or anybody could end
    /// anybody's session.
    ///
    /// # Errors
    ///
    /// [`Error::is_store`] if the store fails or does not answer in time; whether the session has
    /// ended is then unknown. [`Error::is_invalid`] if [there is no
    /// store](crate::SessionLayer::stateless).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the session may have ended or not, those who wait for
    /// [its end](Session::ended) may learn of it only when they look again by themselves, and there is no
    /// event.
    pub async fn revoke(&self, id: SessionId) -> Result<bool> {
        self.check_store()?;
        let revoke = async { Ok(self.0.store.delete(id).await?) };
        let revoked = self.0.deadline(revoke).await;
        // Also after a failure, which may be that of the answer alone.
        self.0.endings.look(id);
        let revoked = revoked?;
        if revoked {
            self.0.tell(&SessionEvent::Revoked { session: id });
        }
        Ok(revoked)
    }

    /// Ends all sessions of an owner, as when the account is disabled; how many it was.
    ///
    /// If the request's own is among them, what else it changes goes with that, and its client keeps the cookie. To
    /// leave a notice, [`destroy`](Session::destroy) it as well, and then insert: that begins another.
    ///
    /// A sign-in of that owner by a request that has come for its session already fails to take effect
    /// ([`SessionEvent::SignInRevoked`]), also one by the request that calls this. A request has come for its
    /// session when that is loaded, and with axum when a handler gets it or a
    /// [`LazySession`](crate::LazySession): so before a password is looked at. A request that signs
    /// in itself, as after a password reset, does it the other way round:
    ///
    /// ```
    /// use cloakroom::{Session, Sessions};
    ///
    /// async fn password_was_reset(session: Session, sessions: Sessions) -> cloakroom::Result<()> {
    ///     session.sign_in("ada")?;
    ///     sessions.revoke_others(&session).await?;
    ///     Ok(())
    /// }
    /// # let layer = cloakroom::SessionLayer::new(cloakroom::MemoryStore::new());
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # password_was_reset(cloakroom::test_util::session(), layer.sessions()).await.unwrap();
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// As [`revoke`](Self::revoke); some sessions may have ended.
    ///
    /// # Cancel safety
    ///
    /// As [`revoke`](Self::revoke): if the future is dropped, any of the sessions may have ended.
    pub async fn revoke_all(&self, owner: &str) -> Result<usize> {
        self.check_store()?;
        self.revoke_but(owner, None).await
    }

    /// Ends all other sessions of a session's owner, as when the password changed, and gives this
    /// one a new token (ASVS 7.4.3); how many it was. Without an owner it does nothing.
    ///
    /// # Errors
    ///
    /// As [`revoke_all`](Self::revoke_all), and as [`Session::renew`] and, for a session that is not
    /// stored yet, [`Session::save`]: then nothing was revoked.
    ///
    /// # Cancel safety
    ///
    /// As [`revoke_all`](Self::revoke_all); the session has its new token from when the response is ready.
    pub async fn revoke_others(&self, session: &Session) -> Result<usize> {
        self.check_store()?;
        let Some(owner) = session.owner() else {
            return Ok(0);
        };
        if session.id().is_some() {
            session.renew()?;
        } else {
            // Signed in by this request: it needs an id to be spared, and its token is new.
            session.save().await?;
        }
        self.revoke_but(&owner, session.id()).await
    }

    /// Nobody shall believe that a session was ended which nobody can end.
    fn check_store(&self) -> Result<()> {
        if self.0.seal.is_whole() {
            return Err(Error::invalid(
                "sessions without a store are known to their clients alone: nobody can list or end them",
            ));
        }
        Ok(())
    }

    async fn revoke_but(&self, owner: &str, keep: Option<SessionId>) -> Result<usize> {
        let now = self.0.now();
        let revoke = async { Ok(self.0.store.delete_by_owner(owner, keep, now).await?) };
        let revoked = self.0.deadline(revoke).await;
        self.0.endings.look_for(owner);
        let count = revoked?;
        let owner = owner.into();
        self.0.tell(&SessionEvent::OwnerRevoked {
            owner,
            kept: keep,
            count,
        });
        Ok(count)
    }

    /// Ends all sessions of everybody; how many it was.
    ///
    /// A client that is just signing in and had no stored session before is not stopped, unlike with
    /// [`revoke_all`](Self::revoke_all): where nobody may come in, close the sign-in first.
    ///
    /// A large store takes its time: this is not bound by
    /// [`store_timeout`](crate::SessionLayerBuilder::store_timeout).
    ///
    /// # Errors
    ///
    /// As [`revoke_all`](Self::revoke_all).
    ///
    /// # Cancel safety
    ///
    /// As [`revoke_all`](Self::revoke_all).
    pub async fn revoke_everyone(&self) -> Result<usize> {
        self.check_store()?;
        let revoked = self.0.store.delete_all().await.map_err(Error::from);
        self.0.endings.look_all();
        let count = self.0.watched(revoked)?;
        self.0.tell(&SessionEvent::AllRevoked { count });
        Ok(count)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

/// A session in a list: when it began and was used, and its values. Neither token nor digest (ASVS
/// 7.5.2).
#[derive(Clone)]
pub struct SessionInfo {
    id: SessionId,
    record: Record,
    observer: Observer,
}

impl SessionInfo {
    /// The session's public name, to revoke it by.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// When it was first stored.
    #[must_use]
    pub fn created_at(&self) -> SystemTime {
        self.record.created.into()
    }

    /// When its owner last signed in.
    #[must_use]
    pub fn authenticated_at(&self) -> Option<SystemTime> {
        self.record.authenticated.map(SystemTime::from)
    }

    /// When it was last used, to within the
    /// [touch interval](crate::SessionLayerBuilder::touch_interval).
    #[must_use]
    pub fn last_seen_at(&self) -> SystemTime {
        self.record.seen.into()
    }

    /// When it ends unless it is used again.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.record.expires.into()
    }

    /// The value of a key in that session, such as the browser's name that the application noted at
    /// sign-in.
    ///
    /// # Errors
    ///
    /// [`Error::is_decode`] if the value is not a `T`, [`Error::is_store`] if the data is damaged.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        if data::is_reserved(key) {
            return Ok(None);
        }
        let data = Data::parse(self.record.data.clone());
        let data = data.map_err(|error| {
            let error = Error::from(StoreError::corrupt(error));
            self.observer.tell(&SessionEvent::Corrupt {
                session: self.id,
                error: error.clone(),
            });
            error
        })?;
        let Some(json) = data.get(key) else {
            return Ok(None);
        };
        let value = serde_json::from_slice(json).map_err(|error| {
            let error = InvalidJson::new(&error).wanted::<T>();
            Error::decode(key.to_owned().into(), error)
        });
        value.map(Some)
    }
}

impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
