//! A message that is shown once: after a form, redirect to the page that says what it did.
//!
//! ```sh
//! cargo run --example flash
//! curl -c jar -b jar -L -d name=umbrella http://127.0.0.1:3000/   # "umbrella is on the peg."
//! curl -c jar -b jar http://127.0.0.1:3000/                       # nothing to say
//! ```

use axum::response::Redirect;
use axum::{Form, Router, routing::get};
use cloakroom::{ConfigError, MemoryStore, Session, SessionLayer};
use serde::{Deserialize, Serialize};

const FLASH: &str = "flash";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Message {
    Good(String),
    Bad(String),
}

/// Leaves a message for the next page. There may be some already, from a form in another tab: `update`
/// adds to them, whichever request ends first.
fn flash(session: &Session, message: Message) -> cloakroom::Result<()> {
    session.update(FLASH, move |messages: &mut Vec<Message>| {
        messages.push(message.clone());
    })
}

#[derive(Deserialize)]
struct Hang {
    #[serde(default)]
    name: String,
}

async fn hang(session: Session, Form(form): Form<Hang>) -> cloakroom::Result<Redirect> {
    let message = match form.name.trim() {
        "" => Message::Bad("There is nothing to hang up.".to_owned()),
        name => Message::Good(format!("{name} is on the peg.")),
    };
    flash(&session, message)?;
    // 303, so that reloading the next page does not send the form again.
    Ok(Redirect::to("/"))
}

async fn page(session: Session) -> cloakroom::Result<String> {
    let mut text = String::new();
    for message in session.take::<Vec<Message>>(FLASH)?.unwrap_or_default() {
        text += &match message {
            Message::Good(message) => format!("✓ {message}\n"),
            Message::Bad(message) => format!("✗ {message}\n"),
        };
    }
    Ok(text + "What would you like to hang up?\n")
}

fn app() -> Result<Router, ConfigError> {
    let layer = SessionLayer::builder(MemoryStore::new())
        .insecure_http()
        .build()?;
    Ok(Router::new().route("/", get(page).post(hang)).layer(layer))
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

    async fn hang(app: &Router, cookie: &str, name: &str) -> Option<String> {
        let request = Request::post("/")
            .header(header::COOKIE, cookie)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(format!("name={name}")));
        let response = app.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.headers()[header::LOCATION], "/");
        let cookie = response
            .headers()
            .get(header::SET_COOKIE)?
            .to_str()
            .unwrap();
        Some(cookie.split(';').next().unwrap().to_owned())
    }

    async fn look(app: &Router, cookie: &str) -> String {
        let request = Request::get("/")
            .header(header::COOKIE, cookie)
            .body(Body::empty());
        let response = app.clone().oneshot(request.unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn each_message_is_shown_once_and_in_order() {
        let app = app().unwrap();
        let cookie = hang(&app, "", "umbrella").await.expect("a session begins");
        hang(&app, &cookie, "").await;
        let question = "What would you like to hang up?\n";
        let first = look(&app, &cookie).await;
        let said = "✓ umbrella is on the peg.\n✗ There is nothing to hang up.\n";
        assert_eq!(first, format!("{said}{question}"));
        assert_eq!(look(&app, &cookie).await, question);
    }
}
