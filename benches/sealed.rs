//! What a key ring costs and spares: one request that reads its session, through the whole layer on
//! a store in memory, with a token as it is, signed and encrypted; live ones, and forged ones.
//!
//! ```sh
//! cargo bench --bench sealed --features signed,encrypted
//! ```
//!
//! Prints the fastest of many rounds, which on a busy machine is the one least disturbed. Without
//! `--bench`, as under `cargo test`, each case runs once.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::{Duration, Instant};

use cloakroom::{KeyRing, LazySession, MemoryStore, SessionLayer, SessionLayerBuilder};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderValue, Request, Response};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

type Builder = SessionLayerBuilder<MemoryStore>;

async fn visit(request: Request<String>) -> Result<Response<String>, Infallible> {
    let lazy = request.extensions().get::<LazySession>();
    let session = lazy.expect("the layer is there").load().await;
    let session = session.expect("memory does not fail");
    if request.uri().path() == "/write" {
        session.insert("n", 1).expect("it fits");
    }
    Ok(Response::new(session.len().to_string()))
}

fn measure(form: impl FnOnce(Builder) -> Builder, rounds: u32, name: &str) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().expect("a runtime");
    let layer = form(SessionLayer::builder(MemoryStore::new())).build();
    let layer = layer.expect("the settings fit together");
    let service = ServiceBuilder::new()
        .layer(layer)
        .service(service_fn(visit));

    let send = |request| {
        let Ok(response) = runtime.block_on(service.clone().oneshot(request));
        response
    };

    let first = Request::get("/write").body(String::new());
    let first = send(first.expect("a request"));
    let line = first.headers()[SET_COOKIE].to_str().expect("ASCII");
    let live = line.split(';').next().expect("a pair").to_owned();
    // The token's last character but two, so that length and letters are right.
    let mut forged = live.clone();
    let at = forged.len() - 3;
    let other = if forged[at..].starts_with('A') {
        "B"
    } else {
        "A"
    };
    forged.replace_range(at..=at, other);

    for (which, pair, expected) in [("live", live, "1"), ("forged", forged, "0")] {
        let pair = HeaderValue::try_from(pair).expect("a header");
        let mut best = Duration::MAX;
        for _ in 0..rounds {
            let start = Instant::now();
            for _ in 0..rounds {
                let request = Request::get("/read").header(COOKIE, pair.clone());
                let response = black_box(send(request.body(String::new()).expect("a request")));
                assert_eq!(response.body(), expected);
            }
            best = best.min(start.elapsed() / rounds);
        }
        println!("{name:>9} {which:>6}: {best:?}");
    }
}

fn main() {
    let rounds = if std::env::args().any(|arg| arg == "--bench") {
        1_000
    } else {
        1
    };
    let keys = || KeyRing::generate().expect("random bytes");
    measure(|builder| builder, rounds, "plain");
    measure(|builder| builder.signed(keys()), rounds, "signed");
    measure(|builder| builder.encrypted(keys()), rounds, "encrypted");
}
