//! The guide: how to use sessions, and why they behave as they do.
//!
//! | Page | For whom |
//! |---|---|
//! | [Quick start](quick_start) | from nothing to a working login |
//! | [Sessions in five minutes](basics) | those who never used them |
//! | [Which one](which) | those who wonder about signed cookies and JWTs |
//! | [Choosing a store](stores) | where sessions are kept, and how many fit |
//! | [Parallel requests](concurrency) | what is guaranteed, and what is not |
//! | [Expiry](expiry) | when a session ends |
//! | [Testing](testing) | tests of an application with sessions |
//! | [Moving over](migrating) | users of `tower-sessions` and `axum_session` |
//! | [Security](security) | what is done for you, and what is left to you |
//! | [Writing a store](writing_a_store) | those who keep sessions where no store here does |
//! | [Performance](performance) | what a session costs, beside what |
//! | [Behind proxies](proxies) | load balancers, caches, subdomains |
//! | [Troubleshooting](troubleshooting) | "my cookie does not come back" |

#[doc = include_str!("basics.md")]
pub mod basics {}

#[doc = include_str!("concurrency.md")]
pub mod concurrency {}

#[doc = include_str!("expiry.md")]
pub mod expiry {}

#[doc = include_str!("migrating.md")]
pub mod migrating {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("proxies.md")]
pub mod proxies {}

#[doc = include_str!("quick_start.md")]
pub mod quick_start {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("stores.md")]
pub mod stores {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("troubleshooting.md")]
pub mod troubleshooting {}

#[doc = include_str!("which.md")]
pub mod which {}

#[doc = include_str!("writing_a_store.md")]
pub mod writing_a_store {}
