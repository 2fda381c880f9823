//! Sign-in with a password, pages for those who are signed in, a password change that asks for a fresh
//! sign-in, and sign-out.
//!
//! ```sh
//! cargo run --example login
//! ```
//!
//! Open <http://127.0.0.1:3000> and sign in as `ada` with the password `correct horse`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use cloakroom::{
    ClearSiteData, ConfigError, CsrfForm, CsrfToken, FreshlySignedIn, MemoryStore, RequireSignedIn,
    Session, SessionLayer, Sessions, SignedIn, local_path,
};
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;
use tower_http::csrf::CsrfLayer;

/// Accounts: a slow, salted hash (Argon2id) for each name. A real application also counts wrong tries.
#[derive(Clone)]
struct Accounts {
    hashes: Arc<Mutex<HashMap<String, String>>>,
    /// Checked for names that do not exist, so that the time taken does not tell which do.
    nobody: String,
}

impl Accounts {
    fn with(name: &str, password: &str) -> Self {
        let hashes = [(name.to_owned(), password_auth::generate_hash(password))];
        Self {
            hashes: Arc::new(Mutex::new(hashes.into())),
            nobody: password_auth::generate_hash("nobody's password"),
        }
    }

    async fn check(&self, name: &str, password: String) -> bool {
        let hash = {
            let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
            hashes.get(name).cloned()
        };
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        // It takes some milliseconds of processor time: not on the threads that serve requests.
        let check = move || password_auth::verify_password(password, &hash).is_ok();
        tokio::task::spawn_blocking(check).await.unwrap_or(false) && known
    }

    async fn set(&self, name: &str, password: String) {
        let hash = move || password_auth::generate_hash(password);
        if let Ok(hash) = tokio::task::spawn_blocking(hash).await {
            let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
            hashes.insert(name.to_owned(), hash);
        }
    }
}

#[derive(Clone)]
struct App {
    accounts: Accounts,
    sessions: Sessions,
}

fn page(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { (title) } }
            body { h1 { (title) } (content) }
        }
    }
}

fn csrf_field(token: &CsrfToken) -> Markup {
    html! { input type="hidden" name=(CsrfToken::FIELD) value=(token); }
}

/// For everybody.
async fn home(user: Option<SignedIn>) -> Markup {
    let content = match user {
        Some(user) => {
            html! { p { "Hello " (user.owner()) ". " a href="/account" { "Your account" } } }
        }
        None => html! { p { a href="/login" { "Sign in" } } },
    };
    page("Home", &content)
}

#[derive(Default, Deserialize)]
struct Next {
    #[serde(default)]
    next: String,
}

async fn login_page(token: CsrfToken, Query(Next { next }): Query<Next>) -> Markup {
    login_form(&token, &next, None)
}

fn login_form(token: &CsrfToken, next: &str, mistake: Option<&str>) -> Markup {
    let content = html! {
        @if let Some(mistake) = mistake { p role="alert" { (mistake) } }
        form method="post" action="/login" {
            (csrf_field(token))
            input type="hidden" name="next" value=(next);
            p { label { "Name " input name="name" autocomplete="username"; } }
            p { label { "Password " input name="password" type="password" autocomplete="current-password"; } }
            button { "Sign in" }
        }
    };
    page("Sign in", &content)
}

#[derive(Deserialize)]
struct Credentials {
    name: String,
    password: String,
    #[serde(default)]
    next: String,
}

async fn login(
    State(app): State<App>,
    session: Session,
    CsrfForm(form): CsrfForm<Credentials>,
) -> cloakroom::Result<Response> {
    if !app.accounts.check(&form.name, form.password).await {
        let again = login_form(
            &session.csrf_token()?,
            &form.next,
            Some("That is not right."),
        );
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, again).into_response());
    }
    // The client gets a new token, and so does whoever is asked to sign in again.
    session.sign_in(form.name)?;
    session.insert("method", "password")?;
    // Anybody can make a link to this page: never elsewhere.
    let next = local_path(&form.next).unwrap_or("/account");
    Ok(Redirect::to(next).into_response())
}

async fn account(user: SignedIn, token: CsrfToken) -> Markup {
    let content = html! {
        p { "You are " (user.owner()) "." }
        p { a href="/password" { "Change the password" } }
        form method="post" action="/logout" {
            (csrf_field(&token))
            button { "Sign out" }
        }
    };
    page("Your account", &content)
}

/// Five minutes after the sign-in this page asks for another one.
async fn password_page(_: FreshlySignedIn<300>, token: CsrfToken) -> Markup {
    let content = html! {
        form method="post" action="/password" {
            (csrf_field(&token))
            p { label { "New password " input name="password" type="password" autocomplete="new-password"; } }
            button { "Change" }
        }
    };
    page("Change the password", &content)
}

#[derive(Deserialize)]
struct NewPassword {
    password: String,
}

async fn change_password(
    State(app): State<App>,
    user: FreshlySignedIn<300>,
    CsrfForm(form): CsrfForm<NewPassword>,
) -> cloakroom::Result<Redirect> {
    app.accounts.set(user.owner(), form.password).await;
    // Whoever else is signed in with the old password is so no longer; this session gets a new token.
    app.sessions.revoke_others(user.session()).await?;
    Ok(Redirect::to("/account"))
}

async fn logout(session: Session, _: CsrfForm<()>) -> cloakroom::Result<impl IntoResponse> {
    session.destroy()?;
    Ok((ClearSiteData::new(), Redirect::to("/")))
}

/// Pages that somebody signed in has seen are not shown again by the Back button after the sign-out.
async fn no_store(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert("cache-control", "no-store".parse().expect("a header"));
    response
}

fn app() -> Result<Router, ConfigError> {
    let layer = SessionLayer::builder(MemoryStore::new())
        // This example is opened over plain http. In production serve https and delete this line.
        .insecure_http()
        .sign_in_page("/login")
        .build()?;
    Ok(routes(layer))
}

fn routes(layer: SessionLayer<MemoryStore>) -> Router {
    let state = App {
        accounts: Accounts::with("ada", "correct horse"),
        sessions: layer.sessions(),
    };
    Router::new()
        .route("/account", get(account))
        .route("/password", get(password_page).post(change_password))
        .route("/logout", post(logout))
        // Also for a route that is added later and forgets to ask.
        .route_layer(RequireSignedIn::new())
        .route_layer(middleware::map_response(no_store))
        .route("/", get(home))
        .route("/login", get(login_page).post(login))
        .with_state(state)
        .layer(layer)
        // What another site sends does not reach the session.
        .layer(CsrfLayer::new())
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
    use std::time::Duration;

    use super::*;
    use axum::body::Body;
    use axum::http::{HeaderMap, Method, Request, header};
    use cloakroom::test_util::TestClock;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    struct Browser {
        app: Router,
        cookie: Option<String>,
    }

    struct Page {
        status: StatusCode,
        headers: HeaderMap,
        text: String,
    }

    impl Page {
        fn location(&self) -> &str {
            assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.text);
            self.headers[header::LOCATION].to_str().unwrap()
        }

        /// The token in its form, as it stands in the HTML.
        fn token(&self) -> &str {
            let (_, rest) = self
                .text
                .split_once("name=\"csrf_token\" value=\"")
                .unwrap();
            rest.split_once('"').unwrap().0
        }
    }

    impl Browser {
        fn new(app: &Router) -> Self {
            let (app, cookie) = (app.clone(), None);
            Self { app, cookie }
        }

        async fn send(&mut self, method: Method, path: &str, form: String) -> Page {
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::ACCEPT, "text/html")
                .header("sec-fetch-site", "same-origin")
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            if let Some(cookie) = &self.cookie {
                request = request.header(header::COOKIE, cookie);
            }
            let request = request.body(Body::from(form)).unwrap();
            let response = self.app.clone().oneshot(request).await.unwrap();
            if let Some(cookie) = response.headers().get(header::SET_COOKIE) {
                let cookie = cookie.to_str().unwrap();
                let kept = (!cookie.contains("Max-Age=0")).then(|| cookie.split(';').next());
                self.cookie = kept.flatten().map(str::to_owned);
            }
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Page {
                status: parts.status,
                headers: parts.headers,
                text: String::from_utf8(body.to_vec()).unwrap(),
            }
        }

        async fn get(&mut self, path: &str) -> Page {
            self.send(Method::GET, path, String::new()).await
        }

        /// Opens a page and submits its form.
        async fn submit(&mut self, page: &str, action: &str, form: &str) -> Page {
            let token = self.get(page).await.token().to_owned();
            let form = format!("{form}&csrf_token={token}");
            self.send(Method::POST, action, form).await
        }

        async fn sign_in(&mut self, page: &str, password: &str, next: &str) -> Page {
            let form = format!("name=ada&password={password}&next={next}");
            self.submit(page, "/login", &form).await
        }
    }

    #[tokio::test]
    async fn from_sign_in_to_sign_out() {
        let mut browser = Browser::new(&app().unwrap());
        let asked = browser.get("/account").await;
        assert_eq!(asked.location(), "/login?next=/account");
        let wrong = browser.sign_in("/login", "wrong", "/account").await;
        assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);

        let guest = browser.cookie.clone();
        let signed_in = browser.sign_in("/login", "correct horse", "/account").await;
        assert_eq!(signed_in.location(), "/account");
        assert_ne!(browser.cookie, guest, "a new token");
        assert!(browser.get("/").await.text.contains("Hello ada"));

        let stolen = browser.cookie.clone();
        let signed_out = browser.submit("/account", "/logout", "").await;
        assert_eq!(signed_out.location(), "/");
        assert_eq!(
            signed_out.headers["clear-site-data"],
            "\"cookies\", \"storage\""
        );
        assert_eq!(browser.cookie, None);
        browser.cookie = stolen;
        assert_eq!(
            browser.get("/account").await.location(),
            "/login?next=/account"
        );
    }

    #[tokio::test]
    async fn a_form_without_its_token_does_nothing() {
        let mut browser = Browser::new(&app().unwrap());
        let form = "name=ada&password=correct horse";
        let forged = browser.send(Method::POST, "/login", form.into()).await;
        assert_eq!(forged.status, StatusCode::FORBIDDEN);
        browser.sign_in("/login", "correct horse", "").await;
        for path in ["/logout", "/password"] {
            let form = "password=mallory".to_owned();
            let forged = browser.send(Method::POST, path, form).await;
            assert_eq!(forged.status, StatusCode::FORBIDDEN);
        }
        assert_eq!(browser.get("/account").await.status, StatusCode::OK);
    }

    #[tokio::test]
    async fn nobody_is_sent_elsewhere_after_the_sign_in() {
        for next in [
            "https://evil.example/",
            "//evil.example/",
            "/%5Cevil.example/",
        ] {
            let mut browser = Browser::new(&app().unwrap());
            let page = browser.sign_in("/login", "correct horse", next).await;
            assert_eq!(page.location(), "/account");
        }
    }

    #[tokio::test]
    async fn a_password_change_asks_for_a_fresh_sign_in_and_ends_other_sessions() {
        let clock = TestClock::new();
        let layer = SessionLayer::builder(MemoryStore::new())
            .insecure_http()
            .sign_in_page("/login")
            .clock(clock.clone());
        let app = routes(layer.build().unwrap());
        let (mut browser, mut other) = (Browser::new(&app), Browser::new(&app));
        browser.sign_in("/login", "correct horse", "").await;
        other.sign_in("/login", "correct horse", "").await;
        clock.advance(Duration::from_secs(301));
        let login = browser.get("/password").await;
        assert_eq!(login.location(), "/login?next=/password");
        let again = browser
            .sign_in("/login?next=/password", "correct horse", "/password")
            .await;
        assert_eq!(again.location(), "/password");
        let changed = browser
            .submit("/password", "/password", "password=new")
            .await;
        assert_eq!(changed.location(), "/account");
        assert_eq!(browser.get("/account").await.status, StatusCode::OK);
        assert_eq!(other.get("/account").await.status, StatusCode::SEE_OTHER);
        let old = other.sign_in("/login", "correct horse", "").await;
        assert_eq!(old.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(
            other.sign_in("/login", "new", "").await.location(),
            "/account"
        );
    }
}
