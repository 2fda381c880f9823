//! Counts what happens to sessions, on the `metrics` facade: any exporter can collect it.
//!
//! ```sh
//! cargo run --example metrics
//! curl -c jar -b jar -X POST http://127.0.0.1:3000/sign-in
//! curl -b id=AZT7zR1ffKqG0000000000000000000000000000000000AA http://127.0.0.1:3000/   # a guess
//! curl http://127.0.0.1:3000/metrics
//! ```

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use cloakroom::{ConfigError, MemoryStore, Session, SessionEvent, SessionLayer};
use metrics::counter;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// One counter, with the event's name as its label: a fixed set. Ids and owners are for an audit
/// trail; as labels they would make a counter for each.
fn count(event: &SessionEvent) {
    counter!("session_events_total", "event" => event.name()).increment(1);
}

async fn home(session: Session) -> String {
    match session.owner() {
        Some(user) => format!("Hello {user}\n"),
        None => "Hello stranger\n".to_owned(),
    }
}

async fn sign_in(session: Session) -> cloakroom::Result<()> {
    session.sign_in("ada") // Where a real one checks a password first.
}

async fn sign_out(session: Session) -> cloakroom::Result<()> {
    session.destroy()
}

fn app() -> Result<Router, ConfigError> {
    let layer = SessionLayer::builder(MemoryStore::new())
        .insecure_http()
        .on_event(count)
        .build()?;
    Ok(Router::new()
        .route("/", get(home))
        .route("/sign-in", post(sign_in))
        .route("/sign-out", post(sign_out))
        .layer(layer))
}

/// What an exporter shows, such as that of Prometheus: here the recorder that is meant for tests.
async fn show(State(snapshotter): State<Snapshotter>) -> String {
    let mut lines = vec![];
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        if let DebugValue::Counter(n) = value {
            let labels = key.key().labels();
            let labels: Vec<_> = labels
                .map(|l| format!("{}={:?}", l.key(), l.value()))
                .collect();
            lines.push(format!(
                "{}{{{}}} {n}\n",
                key.key().name(),
                labels.join(",")
            ));
        }
    }
    lines.sort_unstable();
    lines.concat()
}

fn with_metrics(snapshotter: Snapshotter) -> Result<Router, ConfigError> {
    let metrics = Router::new().route("/metrics", get(show));
    Ok(app()?.merge(metrics.with_state(snapshotter)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!(
        "open http://{}/ and http://127.0.0.1:3000/metrics",
        listener.local_addr()?
    );
    axum::serve(listener, with_metrics(snapshotter)?).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::{Method, Request, header};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    /// S-84.
    #[test]
    fn sign_ins_and_guesses_are_counted() {
        let recorder = DebuggingRecorder::new();
        let app = with_metrics(recorder.snapshotter()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let send = |method: Method, path: &str, cookie: &str| {
            let request = Request::builder().method(method).uri(path);
            let request = request.header(header::COOKIE, cookie).body(Body::empty());
            let response = app.clone().oneshot(request.unwrap());
            metrics::with_local_recorder(&recorder, || runtime.block_on(response)).unwrap()
        };
        let signed_in = send(Method::POST, "/sign-in", "");
        let cookie = signed_in.headers()[header::SET_COOKIE].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        for _ in 0..2 {
            send(Method::GET, "/", &cookie);
        }
        for n in 100..150 {
            let guess = format!("id=AZT7zR1ffKqG{n}0000000000000000000000000000000AA");
            send(Method::GET, "/", &guess);
        }
        send(Method::POST, "/sign-out", &cookie);

        let shown = send(Method::GET, "/metrics", "").into_body().collect();
        let shown = runtime.block_on(shown).unwrap().to_bytes();
        let expected = "session_events_total{event=\"created\"} 1\n\
                        session_events_total{event=\"destroyed\"} 1\n\
                        session_events_total{event=\"loaded\"} 3\n\
                        session_events_total{event=\"signed_in\"} 1\n\
                        session_events_total{event=\"unknown\"} 50\n";
        assert_eq!(shown, expected);
    }
}
