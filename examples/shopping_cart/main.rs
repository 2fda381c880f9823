//! A small shop with real pages: products, a cart, preferences, accounts with devices and a checkout in
//! four steps, all kept in a session. It works without JavaScript and asks nothing of any other host.
//!
//! ```text
//! cargo run --example shopping_cart
//! ```
//!
//! prints the address to open. `-- --port N` listens elsewhere, Ctrl-C stops it. Carts end with the
//! process, unless they are kept in a file:
//!
//! ```text
//! cargo run --example shopping_cart --features sqlite -- --store sqlite:cart.db
//! ```
//!
//! `--admin NAME` makes an administrator, who can see and end all sessions at `/admin`.
//!
//! | To see | look at |
//! |---|---|
//! | the session layer, the layers around it, the routes | `app.rs` |
//! | adding to the cart so that parallel requests lose nothing | `handlers/goods.rs` |
//! | sign-in with a new token, "keep me signed in", sign-out | `handlers/account.rs` |
//! | "your devices", what needs a fresh sign-in, a changed password | `handlers/account.rs` |
//! | ending anybody's sessions | `handlers/admin.rs` |
//! | a page that learns of its session's end, and asks without using it | `handlers/session.rs`, `shop.js` |
//! | a session that turns up in another browser | `client.rs` |
//! | a message from elsewhere, which no session vouches for | `handlers/payment.rs`, `payments.rs` |
//! | a form in steps that remembers what was typed | `handlers/wizard.rs` |
//! | theme, language and currency | `preferences.rs`, `handlers/preferences.rs` |
//! | messages that are shown once, and what every page reads | `visitor.rs` |
//! | what the store is asked, at `/about-this-session` and in `Server-Timing` | `watched.rs` |
//! | what a cart and a checkout are, whoever keeps them | `cart.rs`, `checkout.rs` |
//! | the HTML; it is given all that it shows | `pages/` |
//! | the whole story as a test | `tests/` |

use std::error::Error as _;
use std::fmt;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::{AnyStore, Cleaner};
use tokio::net::TcpListener;

use self::accounts::{Administrator, DEMO, name_mistake};
use self::app::Options;
use self::payments::PaymentKey;

mod accounts;
mod app;
mod cart;
mod catalogue;
mod checkout;
mod client;
mod closing;
mod handlers;
mod pages;
mod payments;
mod preferences;
#[cfg(test)]
mod tests;
mod visitor;
mod watched;

const USAGE: &str = "\
Usage: shopping_cart [--port N] [--store URL] [--admin NAME]

  --port N      listen on this port of 127.0.0.1; 0 takes a free one (default: 3000)
  --store URL   where sessions are kept: memory: (the default), or, built with the feature of that
                name, sqlite:PATH, mysql://HOST, postgres://HOST or redis://HOST
  --admin NAME  who can see and end all sessions; the password is written to stderr (default: nobody)
  --help        say this

The variable PAYMENT_KEY (whsec_...) is what the payment provider signs with; without it, no provider is
believed.
";

#[tokio::main]
async fn main() -> ExitCode {
    // The log goes to stderr, so that stdout has the address alone.
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let args = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned());
    let done = match parse(args) {
        Ok(Command::Help) => io::stdout().write_all(USAGE.as_bytes()),
        Ok(Command::Serve { port, store, admin }) => serve(port, &store, admin).await,
        Err(mistake) => {
            complain(format_args!("{mistake}\n\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn complain(text: fmt::Arguments<'_>) {
    // If stderr is closed, nobody is left to tell.
    let _ = write!(io::stderr(), "shopping_cart: {text}");
}

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Serve {
        port: u16,
        store: String,
        admin: Option<String>,
    },
    Help,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut port = 3000;
    let mut store = "memory:".to_owned();
    let mut admin = None;
    while let Some(arg) = args.next() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (&*arg, None),
        };
        let mut value = || {
            let value = value.clone().or_else(|| args.next());
            value.ok_or_else(|| format!("{name} needs a value"))
        };
        match name {
            "--help" | "-h" => return Ok(Command::Help),
            "--port" => {
                let value = value()?;
                let number = value.parse();
                port = number.map_err(|_| format!("{value:?} is not a port (0 to 65535)"))?;
            }
            "--store" => store = value()?,
            "--admin" => {
                let name = value()?;
                // Everybody knows the demonstration's password.
                if name == DEMO.0 || name_mistake(&name).is_some() {
                    return Err(format!("{name:?} is no name for an administrator"));
                }
                admin = Some(name);
            }
            _ => return Err(format!("unknown argument {arg:?}")),
        }
    }
    Ok(Command::Serve { port, store, admin })
}

async fn serve(port: u16, store: &str, admin: Option<String>) -> io::Result<()> {
    let options = Options {
        administrator: admin.map(appoint).transpose()?,
        payment_key: payment_key()?,
        ..Options::default()
    };
    let store = AnyStore::connect(store).await.map_err(|error| {
        let why = error.source().map(ToString::to_string).unwrap_or_default();
        io::Error::other(format!("{error}: {why}"))
    })?;
    // Carts that expired are removed; a store that does so by itself has nothing left to remove.
    let _cleaner = Cleaner::new(store.clone()).spawn();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot listen on port {port}, try --port 0: {error}"),
            )
        })?;
    writeln!(io::stdout(), "http://{}", listener.local_addr()?)?;
    let closing = options.closing.clone();
    axum::serve(listener, app::app_with(store, options))
        .with_graceful_shutdown(async move {
            stopped().await;
            closing.begin();
        })
        .await
}

/// An administrator with a password that nobody knows but who reads stderr now.
fn appoint(name: String) -> io::Result<Administrator> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let password = URL_SAFE_NO_PAD.encode(random);
    writeln!(io::stderr(), "administrator: {name}, password: {password}")?;
    Ok(Administrator { name, password })
}

fn payment_key() -> io::Result<Option<PaymentKey>> {
    let Ok(text) = std::env::var("PAYMENT_KEY") else {
        return Ok(None);
    };
    let mistake = "PAYMENT_KEY is not whsec_ and 24 to 64 bytes in Base64";
    let key = PaymentKey::parse(&text);
    key.map(Some).ok_or_else(|| io::Error::other(mistake))
}

async fn stopped() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        tracing::error!(%error, "cannot wait for Ctrl-C");
    }
}
