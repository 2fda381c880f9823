//! Requests over HTTP on this machine: how many a second, over a number of connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::requests::filled;

pub(crate) const CONNECTIONS: usize = 32;

/// An application behind a port, and a session for each connection.
pub(crate) struct Server {
    address: SocketAddr,
    cookies: Vec<HeaderValue>,
}

impl Server {
    pub(crate) async fn start(app: Router) -> Self {
        let mut cookies = Vec::new();
        for _ in 0..CONNECTIONS {
            cookies.push(filled(&app, "/fill").await);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, cookies }
    }

    /// Requests a second, for so long.
    pub(crate) async fn rate(&self, method: &str, path: &str, time: Duration) -> f64 {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let clients: Vec<_> = self
            .cookies
            .iter()
            .map(|cookie| {
                let cookie = cookie.to_str().expect("text");
                let request =
                    format!("{method} {path} HTTP/1.1\r\nhost: a\r\ncookie: {cookie}\r\ncontent-length: 0\r\n\r\n");
                let (stop, done, address) = (Arc::clone(&stop), Arc::clone(&done), self.address);
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect(address).await.expect("it listens");
                    stream.set_nodelay(true).expect("a socket");
                    let mut buffer = Vec::with_capacity(4096);
                    while !stop.load(Ordering::Relaxed) {
                        stream.write_all(request.as_bytes()).await.expect("it is open");
                        read_response(&mut stream, &mut buffer).await;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        // Until connections and pools are open.
        tokio::time::sleep(time / 4).await;
        let (start, before) = (Instant::now(), done.load(Ordering::Relaxed));
        tokio::time::sleep(time).await;
        let count = done.load(Ordering::Relaxed) - before;
        let rate = count as f64 / start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.expect("every response is a success");
        }
        rate
    }
}

async fn read_response(stream: &mut TcpStream, buffer: &mut Vec<u8>) {
    buffer.clear();
    loop {
        let read = stream.read_buf(buffer).await.expect("it is open");
        assert!(read > 0, "the server closed the connection");
        let Some(head) = buffer.windows(4).position(|end| end == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&buffer[..head]).expect("ASCII");
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .and_then(|length| length.parse::<usize>().ok())
            .expect("a length");
        if buffer.len() == head + 4 + length {
            return;
        }
    }
}
