//! Where sessions are kept: the contract, and the stores that fulfil it.
//!
//! To use a store, give it to [`SessionLayer::new`](crate::SessionLayer::new). To write one,
//! implement [`SessionStore`] and run the conformance suite of the feature `test-util` over it, as
//! [the guide](crate::guide::writing_a_store) describes.

pub(crate) mod cached;
pub(crate) mod contract;
#[cfg(feature = "encrypted-store")]
pub(crate) mod encrypted;
pub(crate) mod erased;
#[cfg(feature = "memory")]
pub(crate) mod memory;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

#[cfg(feature = "test-util")]
pub(crate) mod fault;

#[cfg(feature = "test-util")]
pub mod conformance;

pub use self::contract::{Admission, Create, OwnerLimit, SessionStore, SignIn, Update, WhenFull};
pub use crate::clock::Timestamp;
pub use crate::data::Content;
pub use crate::error::StoreError;
pub use crate::expiry::ExpiryPolicy;
pub use crate::record::{Previous, Record, Version};
pub use crate::token::Digest;
