//! Sessions without a store: whole in the client's cookie.

use std::future::ready;

use crate::clock::Timestamp;
use crate::id::SessionId;
use crate::record::{Record, Version};
use crate::store::contract::{Admission, Create, SignIn, Update};
use crate::store::erased::{Answer, ErasedStore};

/// In the place of a store: sessions that live in their clients' cookies, encrypted.
///
/// Made by [`SessionLayer::stateless`](crate::SessionLayer::stateless), for small sites that keep a
/// theme, a language, a notice or who is signed in, and have no place to keep a session. Handlers see
/// no difference: data, owner and times are read from the cookie instead of a store, and whatever
/// changes them sends the cookie anew.
///
/// What holds:
///
/// * The client can neither read nor change its session: AES-256-GCM under a key derived for the
///   cookie's name.
/// * Idle and absolute timeout are checked on the server, by the times inside.
/// * Name and value stay below the 4096 bytes that browsers keep: about 2.5 KiB of data. A change
///   that would exceed it is refused at once
///   ([`Error::is_too_large`](crate::Error::is_too_large)).
///
/// What cannot, since nobody but the client has the session:
///
/// * **Nothing can be revoked.** [`destroy`](crate::Session::destroy) removes the cookie from the
///   client, but who has a copy of it is signed in until it expires: after a sign-out, a changed
///   password, or the end of the account. The same goes for the cookie before a
///   [`renew`](crate::Session::renew) or a [`sign_in`](crate::Session::sign_in), which shows what was
///   in it then: no more, but no less. Keep the timeouts short. Only removing the key from the
///   [`KeyRing`](crate::KeyRing) ends sessions, all of them.
/// * **Nothing can be counted on once.** An old cookie brings back what it held: a used voucher, a
///   count of attempts, a spent balance.
/// * **Updates can be lost.** Of parallel requests, the response that reaches the client last
///   decides the whole session. One that began before a sign-out can bring the session back.
/// * Sessions cannot be listed or limited, and cannot be changed once the response is on its way:
///   what a handler asks [`Sessions`](crate::Sessions) for is an error, as is
///   [`reopen`](crate::Session::reopen), and [`save`](crate::Session::save) makes nothing
///   durable, it only goes into the response. [`ended`](crate::Session::ended) knows the clock alone.
///
/// So of the settings, those that would need a store do not compile, nor does this:
///
/// ```compile_fail,E0599
/// # use cloakroom::{KeyRing, SessionLayer};
/// let layer = SessionLayer::stateless(KeyRing::generate().unwrap()).build().unwrap();
/// layer.sessions();
/// ```
///
/// ```compile_fail,E0599
/// # use cloakroom::{KeyRing, SessionLayer};
/// # use std::time::Duration;
/// SessionLayer::stateless(KeyRing::generate().unwrap()).renew_every(Duration::from_secs(60));
/// ```
///
/// If any of this matters, use a store; [`MemoryStore`](crate::MemoryStore) needs no setup.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Stateless;

/// Each write succeeds and is forgotten: what was written goes into the response.
impl ErasedStore for Stateless {
    fn create<'a>(&'a self, _: SessionId, _: &'a Record, _: Timestamp) -> Answer<'a, Create> {
        done(Create::Done)
    }

    fn load(&self, _: SessionId, _: Timestamp) -> Answer<'_, Option<Record>> {
        done(None)
    }

    fn update<'a>(
        &'a self,
        _: SessionId,
        _: &'a Record,
        _: Version,
        _: Timestamp,
    ) -> Answer<'a, Update> {
        done(Update::Done)
    }

    fn sign_in<'a>(
        &'a self,
        _: SessionId,
        _: &'a Record,
        _: Option<Version>,
        _: Admission,
        _: Timestamp,
    ) -> Answer<'a, SignIn> {
        done(SignIn::Done)
    }

    fn touch(&self, _: SessionId, _: Timestamp, _: Timestamp) -> Answer<'_, bool> {
        done(true)
    }

    fn delete(&self, _: SessionId) -> Answer<'_, bool> {
        done(true)
    }

    fn list_by_owner<'a>(
        &'a self,
        _: &'a str,
        _: Timestamp,
    ) -> Answer<'a, Vec<(SessionId, Record)>> {
        done(Vec::new())
    }

    fn delete_by_owner<'a>(
        &'a self,
        _: &'a str,
        _: Option<SessionId>,
        _: Timestamp,
    ) -> Answer<'a, usize> {
        done(0)
    }

    fn delete_all(&self) -> Answer<'_, usize> {
        done(0)
    }
}

fn done<'a, T: Send + 'a>(answer: T) -> Answer<'a, T> {
    Box::pin(ready(Ok(answer)))
}
