//! Values with a type and a key of their own.

use std::ops::Deref;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::session::Session;

/// A type that is kept in sessions under a key of its own.
///
/// ```
/// use cloakroom::{SessionValue, Typed};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Default, Serialize, Deserialize)]
/// struct Preferences {
///     dark: bool,
/// }
///
/// impl SessionValue for Preferences {
///     const KEY: &'static str = "preferences";
/// }
///
/// # let session = cloakroom::test_util::session();
/// let mut preferences = Typed::<Preferences>::new(&session)?;
/// assert!(!preferences.dark);
/// preferences.update(|p| p.dark = true)?;
/// assert!(preferences.dark);
/// assert!(session.contains("preferences"));
/// # Ok::<(), cloakroom::Error>(())
/// ```
pub trait SessionValue: Default + Serialize + DeserializeOwned {
    /// The key that the value is kept under.
    const KEY: &'static str;
}

/// A session's value of a type: read through `Deref`, changed with [`update`](Self::update).
///
/// With axum it is an extractor: `async fn handler(cart: Typed<Cart>)`. An absent value reads as
/// `T::default()` and is not stored until it is changed.
#[derive(Debug)]
pub struct Typed<T> {
    session: Session,
    value: T,
}

impl<T: SessionValue> Typed<T> {
    /// The value of this type in a session.
    ///
    /// # Errors
    ///
    /// As [`Session::get`].
    pub fn new(session: &Session) -> Result<Self> {
        let value = session.get(T::KEY)?.unwrap_or_default();
        Ok(Self {
            session: session.clone(),
            value,
        })
    }

    /// Changes the value, as [`Session::update`] does: the closure may run more than once.
    ///
    /// # Errors
    ///
    /// As [`Session::update`].
    pub fn update<R>(&mut self, change: impl FnMut(&mut T) -> R + Send + 'static) -> Result<R> {
        let result = self.session.update(T::KEY, change)?;
        self.value = self.session.get(T::KEY)?.unwrap_or_default();
        Ok(result)
    }

    /// Sets the value, as [`Session::insert`] does: of parallel requests the last one decides it.
    ///
    /// # Errors
    ///
    /// As [`Session::insert`].
    pub fn set(&mut self, value: T) -> Result<()> {
        self.session.insert(T::KEY, &value)?;
        self.value = value;
        Ok(())
    }

    /// Removes the value; it then reads as `T::default()`.
    ///
    /// # Errors
    ///
    /// As [`Session::remove`].
    pub fn remove(&mut self) -> Result<()> {
        self.session.remove(T::KEY)?;
        self.value = T::default();
        Ok(())
    }

    /// The session that the value is in.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Takes the value out of the handle; it stays in the session.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Typed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
