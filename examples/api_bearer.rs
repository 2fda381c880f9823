//! An API whose clients keep their token themselves: no cookies, `Authorization: Bearer` instead.
//!
//! ```sh
//! cargo run --example api_bearer
//! ```
//!
//! Then, in another terminal, sign in and use the token that the response gives:
//!
//! ```sh
//! token=$(curl -s -D - -o /dev/null -d 'swordfish' http://127.0.0.1:3000/session |
//!     tr -d '\r' | sed -n 's/^session-token: //p')
//! curl -H "Authorization: Bearer $token" http://127.0.0.1:3000/notes -d 'Buy an umbrella'
//! curl -H "Authorization: Bearer $token" http://127.0.0.1:3000/notes
//! curl -H "Authorization: Bearer $token" http://127.0.0.1:3000/session -X DELETE
//! ```

use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use cloakroom::{ConfigError, MemoryStore, Session, SessionLayer};

type Result<T> = axum::response::Result<T>;

/// Stands for whatever checks who somebody is.
fn user_with_password(password: &str) -> Option<&'static str> {
    (password == "swordfish").then_some("ada")
}

async fn sign_in(session: Session, password: String) -> Result<StatusCode> {
    let user = user_with_password(&password).ok_or(StatusCode::UNAUTHORIZED)?;
    session.sign_in(user)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn sign_out(session: Session) -> Result<StatusCode> {
    session.destroy()?;
    Ok(StatusCode::NO_CONTENT)
}

async fn notes(session: Session) -> Result<Json<Vec<String>>> {
    session.owner().ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(Json(session.get("notes")?.unwrap_or_default()))
}

async fn add_note(session: Session, note: String) -> Result<StatusCode> {
    session.owner().ok_or(StatusCode::UNAUTHORIZED)?;
    session.update("notes", move |notes: &mut Vec<String>| {
        notes.push(note.clone());
    })?;
    Ok(StatusCode::CREATED)
}

fn app() -> std::result::Result<Router, ConfigError> {
    let layer = SessionLayer::builder(MemoryStore::new()).bearer().build()?;
    Ok(Router::new()
        .route("/session", post(sign_in).delete(sign_out))
        .route("/notes", get(notes).post(add_note))
        .layer(layer))
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("POST to http://{}/session", listener.local_addr()?);
    axum::serve(listener, app()?).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::{Method, Request, header};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    #[derive(Debug, PartialEq)]
    struct Answer {
        status: StatusCode,
        token: Option<String>,
        body: String,
    }

    async fn send(app: &Router, line: &str, token: Option<&str>, body: &'static str) -> Answer {
        let (method, path) = line.split_once(' ').unwrap();
        let method: Method = method.parse().unwrap();
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert!(!response.headers().contains_key(header::SET_COOKIE));
        let token = response.headers().get("session-token");
        let token = token.map(|token| token.to_str().unwrap().to_owned());
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer {
            status,
            token,
            body,
        }
    }

    #[tokio::test]
    async fn a_client_signs_in_and_out() {
        let app = app().unwrap();
        let refused = send(&app, "POST /session", None, "password").await;
        assert_eq!((refused.status.as_u16(), refused.token), (401, None));

        let signed_in = send(&app, "POST /session", None, "swordfish").await;
        assert_eq!(signed_in.status, 204);
        let token = signed_in.token.unwrap();
        let added = send(&app, "POST /notes", Some(&token), "Buy an umbrella").await;
        assert_eq!((added.status.as_u16(), added.token), (201, None));
        let notes = send(&app, "GET /notes", Some(&token), "").await;
        assert_eq!(notes.body, r#"["Buy an umbrella"]"#);

        let signed_out = send(&app, "DELETE /session", Some(&token), "").await;
        assert_eq!(signed_out.token.as_deref(), Some(""));
        for token in [Some(&*token), None] {
            let seen = send(&app, "GET /notes", token, "").await;
            assert_eq!(seen.status, 401);
        }
    }
}
