//! What a browser makes of the default cookie. It takes `http://localhost` for a secure place, and
//! `http://127.0.0.1` for another site.

use axum::Router;
use axum::response::Html;
use axum::routing::{any, get};
use cloakroom::{MemoryStore, Session, SessionLayer};
use cloakroom_browser_tests::{Browser, Driver};
use tokio::net::TcpListener;

/// A site with sessions; its port.
async fn site() -> u16 {
    let sign_in = async |session: Session| {
        session.sign_in("ada")?;
        Ok::<_, cloakroom::Error>("welcome")
    };
    let who = async |session: Option<Session>| {
        session
            .and_then(|session| session.owner())
            .map_or("nobody".to_owned(), |owner| owner.as_ref().to_owned())
    };
    let sign_out = async |session: Session| {
        session.destroy()?;
        Ok::<_, cloakroom::Error>("goodbye")
    };
    let app = Router::new()
        .route("/sign-in", get(sign_in))
        .route("/who", any(who))
        .route("/sign-out", get(sign_out))
        .layer(SessionLayer::new(MemoryStore::new()));
    serve(app).await
}

async fn serve(app: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let port = listener.local_addr().expect("it has an address").port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

async fn signed_in(driver: &Driver, port: u16) -> Browser {
    let browser = driver.browser().await;
    browser
        .open(&format!("http://localhost:{port}/sign-in"))
        .await;
    browser.shows("welcome").await;
    browser
}

/// S-15, S-16, S-17, S-24.
#[tokio::test]
async fn the_browser_accepts_the_host_prefix_with_all_that_it_demands() {
    let (port, driver) = (site().await, Driver::start().await);
    let browser = signed_in(&driver, port).await;
    let cookie = browser.cookie("__Host-id").await.expect("it is kept");
    assert_eq!(cookie.secure(), Some(true));
    assert_eq!(cookie.http_only(), Some(true));
    assert_eq!(
        cookie.same_site().map(|site| site.to_string()).as_deref(),
        Some("Lax")
    );
    assert_eq!(cookie.path(), Some("/"));
    assert_eq!(cookie.domain(), Some("localhost"));
    assert_eq!(cookie.expires_datetime(), None);
    assert_eq!(browser.run("return document.cookie").await, "");
    browser.close().await;
}

/// S-25, S-52.
#[tokio::test]
async fn the_browser_drops_the_cookie_at_the_sign_out() {
    let (port, driver) = (site().await, Driver::start().await);
    let browser = signed_in(&driver, port).await;
    browser.open(&format!("http://localhost:{port}/who")).await;
    browser.shows("ada").await;
    browser
        .open(&format!("http://localhost:{port}/sign-out"))
        .await;
    assert_eq!(browser.cookie("__Host-id").await, None);
    browser.open(&format!("http://localhost:{port}/who")).await;
    browser.shows("nobody").await;
    browser.close().await;
}

/// S-17. Whoever follows a link from a mail or another site is still signed in; a form of another site is
/// sent without the cookie.
#[tokio::test]
async fn a_link_from_another_site_finds_the_session_and_a_form_does_not() {
    let (port, driver) = (site().await, Driver::start().await);
    let target = format!("http://localhost:{port}/who");
    let page = format!(
        r#"<a href="{target}">come in</a><form method="post" action="{target}"><button>send</button></form>"#
    );
    let elsewhere = serve(Router::new().route("/", get(async || Html(page)))).await;
    let elsewhere = format!("http://127.0.0.1:{elsewhere}/");

    let browser = signed_in(&driver, port).await;
    // Chrome sends young `Lax` cookies with posts as well if the attribute was left out, and only then.
    browser.open(&elsewhere).await;
    browser.follow("a").await;
    browser.shows("ada").await;
    browser.open(&elsewhere).await;
    browser.follow("button").await;
    browser.shows("nobody").await;
    browser.close().await;
}
