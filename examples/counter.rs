//! Counts the visits of each client: the code of the README.
//!
//! ```sh
//! cargo run --example counter
//! curl -c jar -b jar -X POST http://127.0.0.1:3000/   # again and again
//! ```

use axum::{Router, routing::post};
use cloakroom::{ConfigError, MemoryStore, Session, SessionLayer};

async fn visit(session: Session) -> cloakroom::Result<String> {
    let n = session.update("visits", |n: &mut u64| {
        *n += 1;
        *n
    })?;
    Ok(format!("visit {n}\n"))
}

fn app() -> Result<Router, ConfigError> {
    // Over https, `SessionLayer::new(MemoryStore::new())` is all it takes.
    let layer = SessionLayer::builder(MemoryStore::new())
        .insecure_http()
        .build()?;
    Ok(Router::new().route("/", post(visit)).layer(layer))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("POST to http://{}/", listener.local_addr()?);
    axum::serve(listener, app()?).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::{Request, header};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn each_client_is_counted_for_itself() {
        let app = app().unwrap();
        let visit = |cookie: Option<String>| {
            let mut request = Request::post("/");
            if let Some(cookie) = cookie {
                request = request.header(header::COOKIE, cookie);
            }
            let response = app.clone().oneshot(request.body(Body::empty()).unwrap());
            async {
                let response = response.await.unwrap();
                let cookie = response.headers().get(header::SET_COOKIE).map(|cookie| {
                    let pair = cookie.to_str().unwrap().split(';').next().unwrap();
                    pair.to_owned()
                });
                let body = response.into_body().collect().await.unwrap().to_bytes();
                (String::from_utf8(body.to_vec()).unwrap(), cookie)
            }
        };
        let (body, cookie) = visit(None).await;
        assert_eq!(body, "visit 1\n");
        assert!(cookie.is_some());
        let (body, unchanged) = visit(cookie.clone()).await;
        assert_eq!((&*body, unchanged), ("visit 2\n", None));
        assert_eq!(visit(cookie).await.0, "visit 3\n");
        assert_eq!(visit(None).await.0, "visit 1\n");
    }
}
