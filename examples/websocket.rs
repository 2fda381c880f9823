//! A WebSocket that ends with its session.
//!
//! ```sh
//! cargo run --example websocket
//! ```
//!
//! Open the address in two tabs, sign in, and watch both: after "sign out" in one of them the other's socket
//! closes as well.

use std::pin::pin;

use axum::{
    Router,
    extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code},
    http::StatusCode,
    response::{Html, IntoResponse, Redirect, Response},
    routing::{any, get, post},
};
use cloakroom::store::SessionStore;
use cloakroom::{MemoryStore, Session, SessionLayer, SessionLayerBuilder};

/// The upgrade is an ordinary request with a session. What it may do is decided here, once, and holds
/// until the session ends.
///
/// Browsers let any site open a WebSocket to any other and send cookies along. `SameSite=Lax` keeps them
/// from foreign sites, not from other hosts of one's own domain: there, compare the `Origin` header too.
async fn connect(upgrade: WebSocketUpgrade, session: Session) -> Response {
    match session.owner() {
        Some(user) => upgrade.on_upgrade(async move |socket| echo(socket, &user, session).await),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

/// Says back what comes in.
async fn echo(mut socket: WebSocket, user: &str, session: Session) {
    // One future for the whole time: it keeps its own pace however much comes in.
    let mut ended = pin!(session.ended());
    loop {
        tokio::select! {
            // First, so that a client that never stops talking is no exception.
            biased;
            () = &mut ended => {
                let goodbye = CloseFrame {
                    code: close_code::POLICY,
                    reason: "the session has ended".into(),
                };
                // Whether it still listens or not.
                let _ = socket.send(Message::Close(Some(goodbye))).await;
                return;
            }
            message = socket.recv() => {
                let answer = match message {
                    Some(Ok(Message::Text(text))) => Utf8Bytes::from(format!("{user}: {text}")),
                    Some(Ok(_)) => continue, // Pings are answered by axum.
                    Some(Err(_)) | None => return,
                };
                if socket.send(Message::Text(answer)).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn sign_in(session: Session) -> cloakroom::Result<Redirect> {
    session.sign_in("ada")?; // Where a real one checks a password first.
    Ok(Redirect::to("/"))
}

async fn sign_out(session: Session) -> cloakroom::Result<Redirect> {
    session.destroy()?;
    Ok(Redirect::to("/"))
}

async fn page(session: Session) -> Html<&'static str> {
    Html(match session.owner() {
        None => "<form method=post action=/sign-in><button>sign in</button></form>",
        Some(_) => {
            "<form method=post action=/sign-out><button>sign out</button></form>
             <pre id=log></pre>
             <script>
               const log = text => document.getElementById('log').append(text + '\\n');
               const socket = new WebSocket('ws://' + location.host + '/ws');
               socket.onopen = () => { log('open'); socket.send('hello') };
               socket.onmessage = message => log(message.data);
               socket.onclose = event => log('closed: ' + event.reason);
             </script>"
        }
    })
}

fn layer<S: SessionStore>(store: S) -> SessionLayerBuilder<S> {
    // What another instance of the application does is noticed within 15 seconds; see
    // `recheck_interval`.
    SessionLayer::builder(store).insecure_http()
}

fn app<S: SessionStore>(layer: SessionLayer<S>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/ws", any(connect))
        .route("/sign-in", post(sign_in))
        .route("/sign-out", post(sign_out))
        .layer(layer)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("open http://{}/", listener.local_addr()?);
    axum::serve(listener, app(layer(MemoryStore::new()).build()?)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use axum::body::Body;
    use axum::http::{HeaderValue, Request, header};
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
    use tokio_tungstenite::tungstenite::{self, Message as Heard};
    use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
    use tower::ServiceExt as _;

    type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

    /// Two instances of the application on one store, the first of them on a port.
    struct Site {
        here: SessionLayer<MemoryStore>,
        elsewhere: SessionLayer<MemoryStore>,
        address: std::net::SocketAddr,
    }

    impl Site {
        async fn start(recheck_interval: Duration) -> Self {
            let store = MemoryStore::new();
            let build = || {
                layer(store.clone())
                    .recheck_interval(recheck_interval)
                    .build()
                    .unwrap()
            };
            let (here, elsewhere) = (build(), build());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let serving = axum::serve(listener, app(here.clone()));
            tokio::spawn(async move { serving.await });
            Self {
                here,
                elsewhere,
                address,
            }
        }

        async fn post(&self, path: &str, cookie: &str) -> String {
            let request = Request::post(path).header(header::COOKIE, cookie);
            let request = request.body(Body::empty()).unwrap();
            let response = app(self.here.clone()).oneshot(request).await.unwrap();
            let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
            cookie.split(';').next().unwrap().to_owned()
        }

        async fn open(&self, cookie: &str) -> Result<Socket, tungstenite::Error> {
            let mut request = format!("ws://{}/ws", self.address).into_client_request()?;
            let cookie = HeaderValue::from_str(cookie).unwrap();
            request.headers_mut().insert(header::COOKIE, cookie);
            connect_async(request).await.map(|(socket, _)| socket)
        }

        /// Signs in and says hello over a socket; returns the cookie as well.
        async fn connected(&self) -> (String, Socket) {
            let cookie = self.post("/sign-in", "").await;
            let mut socket = self.open(&cookie).await.unwrap();
            assert_eq!(hello(&mut socket).await, "ada: hello");
            (cookie, socket)
        }
    }

    async fn hello(socket: &mut Socket) -> String {
        socket.send(Heard::text("hello")).await.unwrap();
        let answer = socket.next().await.unwrap().unwrap();
        answer.into_text().unwrap().to_string()
    }

    /// Goes on talking until it is told goodbye, which has to come in less than `bound`.
    async fn end(mut socket: Socket, bound: Duration) -> String {
        let start = Instant::now();
        loop {
            let _ = socket.send(Heard::text("still there?")).await;
            match socket.next().await.expect("a goodbye").unwrap() {
                Heard::Text(_) => assert!(start.elapsed() < bound, "it goes on"),
                Heard::Close(Some(frame)) => return frame.reason.to_string(),
                other => panic!("{other:?}"),
            }
        }
    }

    /// S-61: at once, long before the store would be asked again.
    #[tokio::test]
    async fn a_socket_closes_with_its_session() {
        let site = Site::start(Duration::from_secs(3600)).await;
        let (cookie, one) = site.connected().await;
        let two = site.open(&cookie).await.unwrap();
        let (_, mut other) = site.connected().await;
        site.post("/sign-out", &cookie).await;
        for socket in [one, two] {
            let told = end(socket, Duration::from_secs(60)).await;
            assert_eq!(told, "the session has ended");
        }
        let refused = site.open(&cookie).await.unwrap_err();
        assert!(matches!(refused, tungstenite::Error::Http(response) if response.status() == 401));
        assert_eq!(hello(&mut other).await, "ada: hello");
    }

    /// S-61: within the interval, also for a client that never stops talking.
    #[tokio::test]
    async fn a_socket_closes_when_the_session_is_revoked_elsewhere() {
        let site = Site::start(Duration::from_millis(500)).await;
        let (_, socket) = site.connected().await;
        site.elsewhere.sessions().revoke_all("ada").await.unwrap();
        // The interval, and time for a machine under load.
        let told = end(socket, Duration::from_secs(20)).await;
        assert_eq!(told, "the session has ended");
    }

    #[tokio::test]
    async fn strangers_get_no_socket() {
        let site = Site::start(Duration::from_secs(3600)).await;
        let refused = site.open("id=nobody").await.unwrap_err();
        assert!(matches!(refused, tungstenite::Error::Http(response) if response.status() == 401));
    }
}
