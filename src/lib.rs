//! HTTP sessions for [Tower](https://docs.rs/tower) and [axum](https://docs.rs/axum).
//!
//! HTTP forgets; a session remembers: who is signed in, a cart, preferences, the steps of a form. You
//! hand your state in at the cloakroom and walk away with a ticket: the cookie.
//!
//! ```
//! use axum::{Router, routing::post};
//! use cloakroom::{MemoryStore, Session, SessionLayer};
//!
//! async fn visit(session: Session) -> cloakroom::Result<String> {
//!     let n = session.update("visits", |n: &mut u64| {
//!         *n += 1;
//!         *n
//!     })?;
//!     Ok(format!("visit {n}"))
//! }
//!
//! let app: Router = Router::new()
//!     .route("/", post(visit))
//!     .layer(SessionLayer::new(MemoryStore::new()));
//! ```
//!
//! The [`guide`] begins with a [quick start](guide::quick_start), and goes on to
//! [what a session is](guide::basics), [stores](guide::stores) and [security](guide::security).
//!
//! # How it works
//!
//! [`SessionLayer`] puts a [`LazySession`] into the extensions of every request. The extractor
//! [`Session`] (or [`LazySession::load`]) reads the client's cookie and loads the session from the
//! [store](store::SessionStore): one await. From then on everything is synchronous: `get`, `insert`,
//! `update`, `sign_in`, `destroy` … record what is to change. When the handler's response is ready,
//! the changes are stored in one step, and only then does the response leave, with a cookie if the
//! client needs one. A handler that does not ask for the session costs no store call and no parsing.
//!
//! # Guarantees
//!
//! * **No lost update.** Every write is a compare-and-swap on the session's version. If a parallel
//!   request was faster, the recorded changes are done again on its data: different keys never
//!   disturb each other, and 64 parallel [`Session::update`]s of one counter count to 64.
//! * **A logout sticks.** A write never creates a session, so a slow request that ends after
//!   [`Session::destroy`] changes nothing and gets no cookie.
//! * **Renewal is one step.** [`Session::sign_in`] and [`Session::renew`] replace the token by one
//!   compare-and-swap on one record; nothing can be lost half-way, and requests in flight with the
//!   old token write nothing into the signed-in session.
//! * **Only digests at rest.** The store holds SHA-256 of the token's secret, bound to the session's
//!   id and the cookie's name. Who reads the store cannot make a cookie of what it holds.
//! * **A store that is down is a 503.** The client keeps its cookie, and nothing is announced that was
//!   not stored.
//!
//! What a response says and stores, by what the handler did:
//!
//! | After the handler | Store | Response |
//! |---|---|---|
//! | session never asked for | – | unchanged |
//! | nothing changed | –, or `touch` once the end has moved by a tenth of the idle timeout | `Vary: Cookie` |
//! | changed | `update`, or `create` for a new session that has a value | `Vary`; cookie if new, or if a persistent one's age changed |
//! | [`renew`](Session::renew), periodic renewal | `update` with a new secret | cookie |
//! | [`sign_in`](Session::sign_in) | `sign_in`: the same, or a new session | cookie |
//! | [`destroy`](Session::destroy) | `delete` | removal cookie |
//! | ended, revoked or renewed elsewhere meanwhile | –, changes dropped | no cookie |
//! | response is 5xx, or made of an [`Error`] | changes of values dropped; `destroy`, `renew`, `sign_in` carried out | as above |
//! | store failed | – | the error response: 503 |
//!
//! A cookie always comes with `Cache-Control: no-store`.
//!
//! Other ways for a token to travel, all chosen when the layer is built:
//! [`bearer`](SessionLayerBuilder::bearer) sends it in headers, for clients of an API; `signed` and
//! `encrypted` shed forged ones before the store is asked; and `SessionLayer::stateless` keeps the
//! whole session in the cookie, without a store and with what follows from that.
//!
//! [`Sessions`] lists and ends sessions from outside of their requests; a [`Cleaner`] removes expired
//! ones from stores that do not do so by themselves.
//!
//! # Who is signed in
//!
//! [`SignedIn`] is who, [`FreshlySignedIn`] who proved it lately, and [`RequireSignedIn`] guards whole
//! routes; others get a 401 or are sent to the
//! [`sign_in_page`](SessionLayerBuilder::sign_in_page). [`NoTouch`] marks routes that do not count as use,
//! [`ClearSiteData`] lets the browser forget at sign-out. A [`CsrfToken`] proves that a form is the
//! application's own: [`Session::csrf_token`].
//!
//! # What it does not do
//!
//! It checks no passwords, and not where a request comes from; for the latter put tower-http's
//! `CsrfLayer` beside it, as `examples/shopping_cart` does.
//!
//! # Features
//!
//! | Feature | Default | Gives |
//! |---|---|---|
//! | `axum` | yes | extractors and rejections, on `axum-core` alone |
//! | `encrypted` | no | encrypted tokens, and `Stateless` sessions in the cookie itself |
//! | `encrypted-store` | no | `EncryptedStore`: data that the database cannot read |
//! | `memory` | yes | [`MemoryStore`] |
//! | `mysql` | no | `MysqlStore`: a MySQL or MariaDB server |
//! | `postgres` | no | `PostgresStore`: a PostgreSQL server, on a few pipelined connections |
//! | `postgres-tls` | no | the same, encrypted, with rustls |
//! | `redis` | no | `RedisStore`: a Redis or Valkey server |
//! | `redis-cluster` | no | the same on a cluster |
//! | `redis-tls` | no | TLS to both, with rustls |
//! | `signed` | no | signed tokens: a forged one costs no call of the store |
//! | `sqlite` | no | `SqliteStore`: a file or memory, in this process; builds SQLite in |
//! | `test-util` | no | the store conformance suite, a store that fails on demand, a clock to move |
//!
//! # Log
//!
//! [Events](SessionEvent) go to `tracing` under the target `cloakroom`: a damaged record or a failed
//! store at `error`, dropped changes of a renewed token, ambiguous cookies and lost connections at
//! `warn`, sign-ins, ended sessions and connections that are back at `info`, refused tokens at `debug`.
//! Tokens, digests, values and owners are in none of them. [`SessionLayerBuilder::on_event`] shows them
//! to the application as well.
#![cfg_attr(docsrs, feature(doc_cfg))]
// The documentation links to what only other features have; with all of them every link is checked.
#![cfg_attr(
    not(all(
        feature = "axum",
        feature = "encrypted",
        feature = "encrypted-store",
        feature = "memory",
        feature = "mysql",
        feature = "postgres",
        feature = "redis",
        feature = "signed",
        feature = "sqlite",
        feature = "test-util"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]
// In the library alone; tests and examples may.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)
)]

#[cfg(any(
    feature = "memory",
    feature = "mysql",
    feature = "postgres",
    feature = "redis",
    feature = "sqlite"
))]
mod any;
#[cfg(feature = "axum")]
mod axum;
mod base64url;
mod carrier;
mod changes;
mod cleaner;
mod clear_site_data;
mod clock;
mod commit;
mod config;
mod context;
mod cookie;
mod csrf;
mod data;
mod endings;
mod entropy;
mod error;
mod event;
mod expiry;
mod future;
mod guard;
pub mod guide;
mod id;
#[cfg(any(feature = "signed", feature = "encrypted"))]
mod keys;
mod layer;
mod no_touch;
mod queue;
mod record;
mod response;
mod seal;
mod service;
mod session;
mod sessions;
#[cfg(feature = "encrypted")]
mod stateless;
pub mod store;
mod token;
mod transport;
mod typed;
mod visit;
mod watch;

#[cfg(any(
    feature = "memory",
    feature = "mysql",
    feature = "postgres",
    feature = "redis",
    feature = "sqlite"
))]
pub use self::any::AnyStore;
#[cfg(feature = "axum")]
pub use self::axum::{
    CsrfForm, CsrfFormRejection, CsrfHeader, FreshlySignedIn, SessionRejection, SignInRejection,
};
pub use self::cleaner::{Cleaner, CleanerHandle};
pub use self::clear_site_data::ClearSiteData;
pub use self::config::{ConfigError, OnConflict};
pub use self::cookie::SameSite;
pub use self::csrf::CsrfToken;
pub use self::error::{Error, Result};
pub use self::event::SessionEvent;
pub use self::future::ResponseFuture;
pub use self::guard::{RequireSignedIn, RequireSignedInFuture, RequireSignedInService, SignedIn};
pub use self::id::{InvalidSessionId, SessionId};
#[cfg(any(feature = "signed", feature = "encrypted"))]
pub use self::keys::KeyRing;
pub use self::layer::{SessionLayer, SessionLayerBuilder};
pub use self::no_touch::{NoTouch, NoTouchService};
pub use self::response::{DefaultErrorResponse, ErrorResponse};
pub use self::service::SessionService;
pub use self::session::{LazySession, Session};
pub use self::sessions::{SessionInfo, Sessions};
#[cfg(feature = "encrypted")]
pub use self::stateless::Stateless;
pub use self::store::cached::CachedStore;
pub use self::store::contract::WhenFull;
#[cfg(feature = "encrypted-store")]
pub use self::store::encrypted::{DataKeys, EncryptedStore};
#[cfg(feature = "memory")]
pub use self::store::memory::{MemoryStore, MemoryStoreBuilder};
#[cfg(feature = "mysql")]
pub use self::store::mysql::{MysqlStore, MysqlStoreBuilder};
#[cfg(feature = "postgres")]
pub use self::store::postgres::{PostgresStore, PostgresStoreBuilder};
#[cfg(feature = "redis")]
pub use self::store::redis::RedisStore;
#[cfg(feature = "sqlite")]
pub use self::store::sqlite::{SqliteStore, SqliteStoreBuilder, Synchronous};
pub use self::typed::{SessionValue, Typed};
pub use self::visit::local_path;
pub use self::watch::{ClientChange, OnClientChange};

/// Means for testing an application or a store (feature `test-util`).
#[cfg(feature = "test-util")]
pub mod test_util {
    pub use crate::clock::TestClock;
    pub use crate::store::fault::{Fault, FaultStore, Operation, Pause};

    /// An empty session of a client without one, for testing code that takes a
    /// [`Session`](crate::Session). It is stored, and has an id, after
    /// [`save`](crate::Session::save).
    ///
    /// ```
    /// let session = cloakroom::test_util::session();
    /// session.sign_in("ada")?;
    /// assert_eq!(session.owner().as_deref(), Some("ada"));
    /// # Ok::<(), cloakroom::Error>(())
    /// ```
    #[cfg(feature = "memory")]
    #[must_use]
    pub fn session() -> crate::session::Session {
        crate::layer::SessionLayer::new(crate::store::memory::MemoryStore::new()).empty_session()
    }
}

/// Ways in for the fuzz targets in `fuzz/`.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    /// How many tokens a `Cookie` header carries.
    pub fn cookie_header(lines: &[&[u8]], name: &str) -> usize {
        let fits = |value: &[u8]| crate::seal::Seal::Plain.fits(value);
        crate::cookie::Candidates::read(
            lines.iter().copied(),
            &memchr::memmem::Finder::new(name),
            fits,
        )
        .iter()
        .count()
    }

    #[cfg(all(feature = "signed", feature = "encrypted"))]
    fn sealing(form: u8) -> crate::seal::Seal {
        use crate::seal::Form;
        let keys = crate::keys::KeyRing::new("7Qm2ZJx0vN5cT8rLwYp4Hd6UaKe1GsBf");
        let keys = keys.expect("a key like any other");
        let form = match form % 3 {
            0 => Form::Signed(keys),
            1 => Form::Encrypted(keys),
            _ => Form::Whole(keys),
        };
        form.seal("__Host-id")
    }

    /// A token's value in one of three forms; the last one needs a record that decodes.
    #[cfg(all(feature = "signed", feature = "encrypted"))]
    pub fn seal(form: u8, token: &[u8; 36], record: &[u8]) -> Option<String> {
        let seal = sealing(form);
        let mut ticket = crate::seal::Ticket::from(crate::token::Token::from_bytes(token));
        if seal.is_whole() {
            ticket.record = Some(Box::new(crate::record::Record::decode(record).ok()?));
        }
        let mut value = String::new();
        seal.write(&ticket, &mut value);
        Some(value)
    }

    /// The token in a value, if it opens.
    #[cfg(all(feature = "signed", feature = "encrypted"))]
    pub fn unseal(form: u8, value: &[u8]) -> Option<[u8; 36]> {
        let seal = sealing(form);
        let ticket = seal.open(value)?;
        let mut made = String::new();
        seal.write(&ticket, &mut made);
        assert_eq!(made.as_bytes(), value, "opened what was not made");
        Some(ticket.token.to_bytes())
    }

    /// A session's data, encoded again if it decodes.
    pub fn data(bytes: &[u8]) -> Option<std::sync::Arc<[u8]>> {
        use crate::data::{Content, Data};

        let data = Data::parse(bytes.into()).ok()?;
        let encoded = data.encode();
        // Kept in memory, it is read as far as a key, and changed there: that comes to the same.
        let keys = data.keys().take(8).map(std::borrow::Cow::into_owned);
        for key in keys.chain(["m".to_owned()]) {
            let kept = Content::written(encoded.clone());
            let mut kept = Data::parse(kept).expect("it was written here");
            let held = kept.hold(&key);
            assert_eq!(held.json(), data.get(&key));
            let json = || b"0".as_slice().into();
            kept.replace(&held, key.clone().into(), json());
            let mut data = data.clone();
            data.set(key.into(), json());
            assert_eq!(kept.encode(), data.encode());
            assert_eq!(kept.encoded_len(), data.encoded_len());
        }
        Some(encoded)
    }
}

#[cfg(all(doctest, feature = "axum", feature = "memory"))]
#[doc = include_str!("../README.md")]
struct Readme;
