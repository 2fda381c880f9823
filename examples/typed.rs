//! A value with a type and a key of its own, as an extractor.
//!
//! ```sh
//! cargo run --example typed
//! curl -c jar -b jar -X POST http://127.0.0.1:3000/dark
//! curl -b jar http://127.0.0.1:3000/
//! ```

use axum::Router;
use axum::routing::{get, post};
use cloakroom::{ConfigError, MemoryStore, SessionLayer, SessionValue, Typed};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Preferences {
    dark: bool,
    // Sessions stored before a field existed still decode.
    #[serde(default)]
    language: Option<String>,
}

impl SessionValue for Preferences {
    const KEY: &'static str = "preferences";
}

async fn show(preferences: Typed<Preferences>) -> String {
    let language = preferences.language.as_deref().unwrap_or("any language");
    format!(
        "{}, {language}\n",
        if preferences.dark { "dark" } else { "light" }
    )
}

async fn toggle(mut preferences: Typed<Preferences>) -> cloakroom::Result<String> {
    preferences.update(|preferences| preferences.dark = !preferences.dark)?;
    Ok(show(preferences).await)
}

fn app() -> Result<Router, ConfigError> {
    let layer = SessionLayer::builder(MemoryStore::new())
        .insecure_http()
        .build()?;
    Ok(Router::new()
        .route("/", get(show))
        .route("/dark", post(toggle))
        .layer(layer))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("open http://{}/", listener.local_addr()?);
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
    async fn a_preference_is_remembered() {
        let app = app().unwrap();
        let request = Request::post("/dark").body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let cookie = response.headers()[header::SET_COOKIE].clone();
        let request = Request::get("/")
            .header(header::COOKIE, cookie)
            .body(Body::empty());
        let response = app.oneshot(request.unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "dark, any language\n");
    }
}
