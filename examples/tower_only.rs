//! Sessions without axum: a plain Tower service on hyper.
//!
//! The service finds a `LazySession` in the request's extensions and loads it.
//!
//! ```sh
//! cargo run --example tower_only
//! curl -c jar -b jar http://127.0.0.1:3000/   # again and again
//! ```

use std::convert::Infallible;

use cloakroom::{ConfigError, LazySession, MemoryStore, SessionLayer};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tower::{Service, ServiceBuilder};

async fn visit<B>(request: Request<B>) -> cloakroom::Result<Response<Full<Bytes>>> {
    let lazy = request
        .extensions()
        .get::<LazySession>()
        .expect("the layer is around this service");
    let session = lazy.load().await?;
    let n = session.update("visits", |n: &mut u64| {
        *n += 1;
        *n
    })?;
    Ok(Response::new(format!("visit {n}\n").into()))
}

/// What axum does for `?` in a handler: an error becomes a plain response.
async fn respond<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(visit(request).await.unwrap_or_else(|error| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = error.status();
        response
    }))
}

type Answer = Response<Full<Bytes>>;

fn service<B: Send + 'static>() -> Result<
    impl Service<Request<B>, Response = Answer, Error = Infallible, Future: Send> + Clone,
    ConfigError,
> {
    let layer = SessionLayer::builder(MemoryStore::new())
        .insecure_http()
        .build()?;
    Ok(ServiceBuilder::new().layer(layer).service_fn(respond))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("open http://{}/", listener.local_addr()?);
    let service = TowerToHyperService::new(service()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("connection ended: {error}");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;
    use http_body_util::{BodyExt as _, Empty};
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn a_plain_service_has_sessions() {
        let service = service::<Empty<Bytes>>().unwrap();
        let first = service
            .clone()
            .oneshot(Request::new(Empty::new()))
            .await
            .unwrap();
        let mut request = Request::new(Empty::new());
        request
            .headers_mut()
            .insert(header::COOKIE, first.headers()[header::SET_COOKIE].clone());
        let second = service.oneshot(request).await.unwrap();
        let body = second.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "visit 2\n");
    }
}
