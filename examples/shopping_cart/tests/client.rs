//! A browser without a window: it keeps cookies as browsers do.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, COOKIE, HOST, LOCATION, SET_COOKIE, USER_AGENT};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::Response;
use cookie_store::CookieStore;
use http_body_util::{BodyExt, Full};
use tower::ServiceExt;
use url::Url;
use url::form_urlencoded::Serializer;

const ORIGIN: &str = "http://127.0.0.1:3000";

/// A clone is another window at first, with cookies of its own from then on: the same visitor's
/// parallel request, or a thief's.
#[derive(Clone)]
pub(super) struct Browser {
    app: Router,
    jar: CookieStore,
    /// What it says it is.
    agent: &'static str,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn location(&self) -> &str {
        self.headers
            .get(LOCATION)
            .map_or("", |path| path.to_str().expect("paths are ASCII"))
    }

    /// Panics, showing the page, unless it contains `text`.
    #[track_caller]
    pub(super) fn shows(&self, text: &str) {
        assert!(
            self.text.contains(text),
            "{text:?} is not in {} {}",
            self.status,
            self.text
        );
    }

    #[track_caller]
    pub(super) fn hides(&self, text: &str) {
        assert!(
            !self.text.contains(text),
            "{text:?} is in {} {}",
            self.status,
            self.text
        );
    }

    #[track_caller]
    pub(super) fn sends_to(&self, path: &str) {
        assert_eq!(
            (self.status, self.location()),
            (StatusCode::SEE_OTHER, path),
            "{}",
            self.text
        );
    }
}

impl Browser {
    pub(super) fn new(app: &Router) -> Self {
        Self {
            app: app.clone(),
            jar: CookieStore::default(),
            agent: "",
        }
    }

    /// Another process answers at the address.
    pub(super) fn move_to(&mut self, app: &Router) {
        self.app = app.clone();
    }

    /// The same cookies in a browser that says it is this one.
    pub(super) fn named(&self, agent: &'static str) -> Self {
        Self {
            agent,
            ..self.clone()
        }
    }

    pub(super) async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Body::empty()).await
    }

    /// What a page's script asks; the body may go on for ever.
    pub(super) async fn fetch(&mut self, method: Method, path: &str) -> Response {
        let headers = [("accept", "*/*"), ("sec-fetch-site", "same-origin")];
        self.request(method, path, &headers, Body::empty()).await
    }

    /// Sends a form, and stays where that leads.
    pub(super) async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.send(
            Method::POST,
            path,
            &[("sec-fetch-site", "same-origin")],
            encode(form).into(),
        )
        .await
    }

    /// Sends a form, and looks at the page that it redirects to.
    pub(super) async fn submit(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        let answer = self.post(path, form).await;
        assert_eq!(
            answer.status,
            StatusCode::SEE_OTHER,
            "{path} {}",
            answer.text
        );
        let path = answer
            .location()
            .split('#')
            .next()
            .unwrap_or_default()
            .to_owned();
        self.get(&path).await
    }

    /// Sends a form of the account's page, with the CSRF token that is on it.
    pub(super) async fn post_own(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        let token = self.csrf_token().await;
        let form = [form, &[("csrf_token", &*token)]].concat();
        self.post(path, &form).await
    }

    pub(super) async fn csrf_token(&mut self) -> String {
        let page = self.get("/account").await;
        let (_, rest) = page
            .text
            .split_once(r#"name="csrf_token" value=""#)
            .expect("the page has a token");
        rest.split('"').next().unwrap_or_default().to_owned()
    }

    /// Sends a form whose last byte arrives when `arrived` is ready.
    pub(super) async fn post_slowly(
        &mut self,
        path: &str,
        form: &[(&str, &str)],
        arrived: impl Future<Output = ()> + Send + 'static,
    ) -> Answer {
        let body = Full::from(encode(form)).with_trailers(async move {
            arrived.await;
            None::<Result<HeaderMap, Infallible>>
        });
        self.send(Method::POST, path, &[], Body::new(body)).await
    }

    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Answer {
        let html = [("accept", "text/html")];
        let headers = [&html[..], headers].concat();
        let response = self.request(method, path, &headers, body).await;
        let (parts, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .expect("the body is complete")
            .to_bytes();
        let text = String::from_utf8(body.into()).expect("pages are UTF-8");
        Answer {
            status: parts.status,
            headers: parts.headers,
            text,
        }
    }

    async fn request(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Response {
        let url = Url::parse(ORIGIN)
            .and_then(|url| url.join(path))
            .expect("a path");
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, url.authority())
            .header(USER_AGENT, self.agent)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        for (name, value) in self.jar.get_request_values(&url) {
            request = request.header(COOKIE, format!("{name}={value}"));
        }
        let request = request.body(body).expect("a well-formed request");
        let response = self
            .app
            .clone()
            .oneshot(request)
            .await
            .expect("the app cannot fail");
        for cookie in response.headers().get_all(SET_COOKIE) {
            let cookie = cookie.to_str().expect("our cookies are ASCII");
            self.jar
                .parse(cookie, &url)
                .expect("browsers accept our cookies");
        }
        response
    }

    /// The cookies as they would be sent.
    pub(super) fn cookies(&self) -> String {
        let url = Url::parse(ORIGIN).expect("a URL");
        let pairs: Vec<_> = self
            .jar
            .get_request_values(&url)
            .map(|(n, v)| format!("{n}={v}"))
            .collect();
        pairs.join("; ")
    }
}

fn encode(form: &[(&str, &str)]) -> String {
    Serializer::new(String::new()).extend_pairs(form).finish()
}
