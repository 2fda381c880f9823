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
//! | To see | look at |
//! |---|---|
//! | the session layer, the layers around it, the routes | `app.rs` |
//! | adding to the cart so that parallel requests lose nothing | `handlers/goods.rs` |
//! | sign-in with a new token, "keep me signed in", sign-out | `handlers/account.rs` |
//! | "your devices", what needs a fresh sign-in, a changed password | `handlers/account.rs` |
//! | a form in steps that remembers what was typed | `handlers/wizard.rs` |
//! | theme, language and currency | `preferences.rs`, `handlers/preferences.rs` |
//! | messages that are shown once, and what every page reads | `visitor.rs` |
//! | what the store is asked, at `/about-this-session` and in `Server-Timing` | `watched.rs` |
//! | what a cart and a checkout are, whoever keeps them | `cart.rs`, `checkout.rs` |
//! | the HTML; it is given all that it shows | `pages/` |
//! | the whole story as a test | `tests.rs` |

use std::error::Error as _;
use std::fmt;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::ExitCode;

use cloakroom::{AnyStore, Cleaner};
use tokio::net::TcpListener;

mod accounts;
mod app;
mod cart;
mod catalogue;
mod checkout;
mod handlers;
mod pages;
mod preferences;
#[cfg(test)]
mod tests;
mod visitor;
mod watched;

const USAGE: &str = "\
Usage: shopping_cart [--port N] [--store URL]

  --port N     listen on this port of 127.0.0.1; 0 takes a free one (default: 3000)
  --store URL  where sessions are kept: memory: (the default), or, built with the feature of that
               name, sqlite:PATH, mysql://HOST, postgres://HOST or redis://HOST
  --help       say this
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
        Ok(Command::Serve { port, store }) => serve(port, &store).await,
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
    Serve { port: u16, store: String },
    Help,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut port = 3000;
    let mut store = "memory:".to_owned();
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
            _ => return Err(format!("unknown argument {arg:?}")),
        }
    }
    Ok(Command::Serve { port, store })
}

async fn serve(port: u16, store: &str) -> io::Result<()> {
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
    axum::serve(listener, app::app_with(store))
        .with_graceful_shutdown(stopped())
        .await
}

async fn stopped() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        tracing::error!(%error, "cannot wait for Ctrl-C");
    }
}
