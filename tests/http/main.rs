//! What a client meets: the request's path from the `Cookie` header to the `Set-Cookie` header, in
//! process and, where the protocol matters, over loopback.
#![cfg(all(feature = "axum", feature = "memory"))]
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod cookies;
mod expiry;
mod extractors;
mod faults;
mod hygiene;
mod owners;
mod plan;
mod races;
mod session;
mod wire;
