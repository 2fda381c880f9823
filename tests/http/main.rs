//! What a client meets: the request's path from the `Cookie` header to the `Set-Cookie` header, in
//! process and, where the protocol matters, over loopback.
#![cfg(all(feature = "axum", feature = "memory"))]
#![allow(clippy::unwrap_used)]

#[path = "../support/nginx.rs"]
mod nginx;
#[path = "../support/mod.rs"]
mod support;

mod bearer;
mod clients;
mod cookies;
mod cross_site;
mod csrf;
mod ended;
mod events;
mod expiry;
mod extractors;
mod faults;
mod given_up;
mod hygiene;
#[cfg(all(feature = "signed", feature = "encrypted"))]
mod keys;
mod loading;
mod owners;
mod plan;
mod proxy;
mod races;
mod session;
mod signed_in;
#[cfg(feature = "encrypted")]
mod stateless;
mod wire;
