//! Real HTTP/1.1 and HTTP/2 over loopback, for what a request in process cannot show.

use axum::body::Body;
use http::Request;
use http::header::COOKIE;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::Server;

/// A connection to the server, for one request.
async fn connect(server: &Server, http2: bool) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = TowerToHyperService::new(server.router.clone());
    tokio::spawn(async move {
        let io = TokioIo::new(listener.accept().await.unwrap().0);
        if http2 {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.serve_connection(io, service).await
        } else {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(io, service)
                .await
        }
    });
    TcpStream::connect(address).await.unwrap()
}

/// S-31: a proxy may have split the header, and HTTP/1.1 servers must put up with it.
#[tokio::test]
async fn a_session_is_found_in_the_second_cookie_line_of_http_1() {
    let server = Server::new();
    let token = server.visitor().await.the_token();
    for (first, second) in [
        ("a=1; b=2".to_owned(), format!("__Host-id={token}")),
        (format!("__Host-id={token}"), "a=1".to_owned()),
        (
            "a=\u{e9}".to_owned(),
            format!("b=2; __Host-id={token}; c=3"),
        ),
    ] {
        let mut stream = connect(&server, false).await;
        let request = format!(
            "GET /read HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Cookie: {first}\r\ncookie: {second}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\n[null,1]"), "{response}");
        assert!(response.contains("\r\nvary: Cookie\r\n"), "{response}");
    }
}

/// S-31: HTTP/2 sends each cookie as a field of its own (RFC 9113 section 8.2.3).
#[tokio::test]
async fn a_session_is_found_among_the_crumbs_of_http_2() {
    let server = Server::new();
    let token = server.visitor().await.the_token();
    let crumbs = [
        "a=1".to_owned(),
        format!("__Host-id={token}"),
        "b=2".to_owned(),
    ];
    for first in 0..crumbs.len() {
        let io = TokioIo::new(connect(&server, true).await);
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .unwrap();
        tokio::spawn(connection);
        let mut request = Request::get("http://localhost/read")
            .body(Body::empty())
            .unwrap();
        for crumb in crumbs.iter().cycle().skip(first).take(crumbs.len()) {
            request.headers_mut().append(COOKIE, crumb.parse().unwrap());
        }
        let response = client.send_request(request).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.version()),
            (200, http::Version::HTTP_2)
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "[null,1]");
    }
}
