//! The shop as its visitors know it.

use axum::Router;
use cloakroom::store::SessionStore;
use cloakroom::{MemoryStore, SessionLayer, SessionLayerBuilder};

use self::client::{Answer, Browser};
use crate::app::{self, Options, app_with};
use crate::{Command, parse};

mod accounts;
mod admin;
mod checkout;
mod client;
mod cross_site;
mod devices;
mod pages;
mod sessions;
mod shopping;

const ADDRESS: [(&str, &str); 5] = [
    ("name", "Ada Lovelace"),
    ("email", "ada@example.com"),
    ("street", "12 St James's Square"),
    ("postcode", "SW1Y 4JH"),
    ("city", "London"),
];
const DELIVERY: [(&str, &str); 1] = [("delivery", "express")];
const PAYMENT: [(&str, &str); 1] = [("payment", "invoice")];
/// A hat, sent by express.
const HAT: [(&str, &str); 1] = [("seen", "4190 eur")];
const STEPS: [&str; 4] = [
    "/checkout/address",
    "/checkout/delivery",
    "/checkout/payment",
    "/checkout/summary",
];
const ADA: [(&str, &str); 2] = [("name", "ada"), ("password", "demo-password")];

async fn with_cart(app: &Router, product: &str) -> Browser {
    let mut browser = Browser::new(app);
    browser
        .post("/cart/add", &[("product", product)])
        .await
        .sends_to(&format!("/#{product}"));
    browser
}

fn app() -> Router {
    app_on(MemoryStore::new())
}

fn app_on(store: impl SessionStore) -> Router {
    app_with(store, Options::default())
}

/// The shop with other settings.
fn app_by(
    change: impl FnOnce(SessionLayerBuilder<MemoryStore>) -> SessionLayerBuilder<MemoryStore>,
) -> Router {
    let sessions = change(SessionLayer::builder(MemoryStore::new()));
    app::app(sessions, Options::default())
}

/// The number on the cart's badge.
#[track_caller]
fn badge(page: &Answer) -> &str {
    let (_, rest) = page
        .text
        .split_once(r#"class="badge">"#)
        .expect("the page has a badge");
    rest.split('<').next().unwrap_or_default()
}

async fn ready_to_confirm(app: &Router) -> Browser {
    let mut browser = with_cart(app, "hat").await;
    browser
        .post("/checkout/address", &ADDRESS)
        .await
        .sends_to("/checkout/delivery");
    browser
        .post("/checkout/delivery", &DELIVERY)
        .await
        .sends_to("/checkout/payment");
    browser
        .post("/checkout/payment", &PAYMENT)
        .await
        .sends_to("/checkout/summary");
    browser
}

const GRACE: [(&str, &str); 2] = [("name", "grace"), ("password", "cobol-1959")];

async fn register(app: &Router, name: &str) -> Browser {
    let mut browser = Browser::new(app);
    browser
        .post("/register", &[("name", name), ("password", "cobol-1959")])
        .await
        .sends_to("/");
    browser
}

#[test]
fn the_command_line_takes_a_port_a_store_and_an_administrator_and_refuses_the_rest() {
    let parse = |line: &str| parse(line.split_whitespace().map(str::to_owned));
    let serve = |port, store: &str| {
        let (store, admin) = (store.to_owned(), None);
        Ok(Command::Serve { port, store, admin })
    };
    assert_eq!(parse(""), serve(3000, "memory:"));
    assert_eq!(parse("--port 0"), serve(0, "memory:"));
    assert_eq!(parse("--port=8080"), serve(8080, "memory:"));
    assert_eq!(
        parse("--store sqlite:cart.db"),
        serve(3000, "sqlite:cart.db")
    );
    assert_eq!(parse("--store=memory: --port 1"), serve(1, "memory:"));
    assert_eq!(parse("--port 1 --help"), Ok(Command::Help));
    let Ok(Command::Serve { admin, .. }) = parse("--admin root") else {
        panic!("it is a name");
    };
    assert_eq!(admin.as_deref(), Some("root"));
    for line in [
        "--port",
        "--port x",
        "--port 65536",
        "--port -1",
        "--prot 1",
        "--store",
        "3000",
        "--admin",
        "--admin=",
        "--admin ada",
        "--admin <root>",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}
