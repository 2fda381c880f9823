//! A form in steps: each answer is kept, steps cannot be skipped, and going back shows what was typed.
//!
//! ```sh
//! cargo run --example wizard
//! curl -c jar -b jar -L -d value=Ada http://127.0.0.1:3000/name      # leads to the next question
//! curl -c jar -b jar -L -d value=London http://127.0.0.1:3000/city   # and to the summary
//! curl -c jar -b jar http://127.0.0.1:3000/name                      # back: "Ada" is still there
//! ```

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Form, Router, routing::get};
use cloakroom::{ConfigError, MemoryStore, SessionLayer, SessionValue, Typed};
use serde::{Deserialize, Serialize};

/// What has been answered so far. One key: its parts belong together.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Answers {
    name: String,
    city: String,
}

impl SessionValue for Answers {
    const KEY: &'static str = "wizard";
}

/// The questions, in order.
const STEPS: [&str; 2] = ["name", "city"];

impl Answers {
    fn of(&mut self, step: &str) -> Option<&mut String> {
        match step {
            "name" => Some(&mut self.name),
            "city" => Some(&mut self.city),
            _ => None,
        }
    }

    fn first_open(&self) -> Option<&'static str> {
        let open = [&self.name, &self.city].map(String::is_empty);
        let mut steps = STEPS.into_iter().zip(open);
        steps.find_map(|(step, open)| open.then_some(step))
    }

    /// Whether a step may be shown: all before it are answered.
    fn reaches(&self, step: &str) -> bool {
        let open = self.first_open();
        STEPS
            .into_iter()
            .take_while(|before| *before != step)
            .all(|before| Some(before) != open)
    }
}

async fn ask(answers: Typed<Answers>, Path(step): Path<String>) -> Response {
    if !answers.reaches(&step) {
        return Redirect::to(answers.first_open().unwrap_or("summary")).into_response();
    }
    match answers.into_inner().of(&step) {
        Some(typed) => format!("Your {step}? [{typed}]\n").into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[derive(Deserialize)]
struct Answer {
    value: String,
}

async fn answer(
    mut answers: Typed<Answers>,
    Path(step): Path<String>,
    Form(Answer { value }): Form<Answer>,
) -> cloakroom::Result<Response> {
    if !answers.reaches(&step) {
        return Ok(Redirect::to(answers.first_open().unwrap_or("summary")).into_response());
    }
    answers.update(move |answers| {
        if let Some(answer) = answers.of(&step) {
            value.trim().clone_into(answer);
        }
    })?;
    let next = answers.first_open().unwrap_or("summary");
    Ok(Redirect::to(next).into_response())
}

async fn summary(answers: Typed<Answers>) -> Response {
    match answers.first_open() {
        Some(step) => Redirect::to(step).into_response(),
        None => format!("{} from {}\n", answers.name, answers.city).into_response(),
    }
}

/// Done: the answers go where they belong, and out of the session.
async fn submit(mut answers: Typed<Answers>) -> cloakroom::Result<Response> {
    if answers.first_open().is_some() {
        return Ok(Redirect::to("/summary").into_response());
    }
    answers.remove()?;
    Ok("thank you\n".into_response())
}

fn app() -> Result<Router, ConfigError> {
    let layer = SessionLayer::builder(MemoryStore::new())
        .insecure_http()
        .build()?;
    Ok(Router::new()
        .route("/", get(async || Redirect::to("/name")))
        .route("/{step}", get(ask).post(answer))
        .route("/summary", get(summary).post(submit))
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

    /// A client that keeps its cookie.
    struct Client {
        app: Router,
        cookie: String,
    }

    impl Client {
        fn new() -> Self {
            let app = app().unwrap();
            Self {
                app,
                cookie: String::new(),
            }
        }

        /// The page that comes of it, or where that is.
        async fn send(&mut self, request: http::request::Builder, body: &str) -> String {
            let request = request
                .header(header::COOKIE, &self.cookie)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Body::from(body.to_owned()));
            let response = self.app.clone().oneshot(request.unwrap()).await.unwrap();
            if let Some(cookie) = response.headers().get(header::SET_COOKIE) {
                let cookie = cookie.to_str().unwrap();
                cookie
                    .split(';')
                    .next()
                    .unwrap()
                    .clone_into(&mut self.cookie);
            }
            if let Some(path) = response.headers().get(header::LOCATION) {
                return format!("-> {}", path.to_str().unwrap());
            }
            let body = response.into_body().collect().await.unwrap().to_bytes();
            String::from_utf8(body.to_vec()).unwrap()
        }

        async fn get(&mut self, path: &str) -> String {
            self.send(Request::get(path), "").await
        }

        async fn post(&mut self, path: &str, body: &str) -> String {
            self.send(Request::post(path), body).await
        }
    }

    #[tokio::test]
    async fn answers_are_kept_until_the_end() {
        let mut client = Client::new();
        assert_eq!(client.get("/name").await, "Your name? []\n");
        assert_eq!(client.post("/name", "value=Ada").await, "-> city");
        assert_eq!(client.get("/name").await, "Your name? [Ada]\n");
        assert_eq!(client.post("/city", "value=London").await, "-> summary");
        assert_eq!(client.get("/summary").await, "Ada from London\n");
        assert_eq!(client.post("/summary", "").await, "thank you\n");
        assert_eq!(client.get("/name").await, "Your name? []\n");
    }

    #[tokio::test]
    async fn steps_are_not_skipped_and_empty_answers_are_none() {
        let mut client = Client::new();
        assert_eq!(client.get("/city").await, "-> name");
        assert_eq!(client.post("/city", "value=London").await, "-> name");
        assert_eq!(client.post("/name", "value=+").await, "-> name");
        assert_eq!(client.get("/summary").await, "-> name");
        assert_eq!(client.post("/summary", "").await, "-> /summary");
    }

    #[tokio::test]
    async fn a_step_that_nobody_knows_is_not_found() {
        let mut client = Client::new();
        client.post("/name", "value=Ada").await;
        client.post("/city", "value=London").await;
        assert_eq!(client.get("/shoe-size").await, "");
    }
}
