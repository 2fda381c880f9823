//! tower-http's `CsrfLayer` around the session layer, as the crate's docs recommend.

use axum::body::Body;
use cloakroom::test_util::Operation;
use http::header::{COOKIE, HOST, ORIGIN};
use http::{Method, Request, StatusCode};
use tower::ServiceExt as _;
use tower_http::csrf::CsrfLayer;

use crate::support::{Server, Settings};

/// S-82: what is exempt is exempt by its exact path, and an origin is trusted as scheme, host and port.
/// What is refused does not reach the session.
#[tokio::test]
async fn exemptions_are_exact_and_what_is_refused_never_reaches_the_session() {
    let server = Server::with(|b: Settings| b);
    let client = server.visitor().await;
    let csrf = CsrfLayer::new()
        .with_insecure_bypass(|method, uri| method == Method::POST && uri.path() == "/hook/")
        .add_trusted_origin("https://partner.example")
        .unwrap();
    let app = server.router.clone().layer(csrf);
    let send = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::post(path).header(HOST, "shop.example.com");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let cookie = format!("__Host-id={}", client.the_token());
        let request = request.header(COOKIE, cookie).body(Body::empty());
        server.store.reset_counts();
        let response = app.clone().oneshot(request.unwrap()).await.unwrap();
        (response.status(), server.store.calls(Operation::Load))
    };

    let cross_site = [("sec-fetch-site", "cross-site")];
    // It is exempt, and not there.
    assert_eq!(
        send("/hook/", &cross_site).await,
        (StatusCode::NOT_FOUND, 0)
    );
    for path in [
        "/hook",
        "//hook/",
        "/Hook/",
        "/hook//",
        "/hook/x",
        "/hook/%2e%2e/write",
        "/hook/../write",
        "/%68ook/",
        "/write",
        "/write?/hook/",
    ] {
        assert_eq!(
            send(path, &cross_site).await,
            (StatusCode::FORBIDDEN, 0),
            "{path}"
        );
    }

    for (origin, expected) in [
        ("https://partner.example", (StatusCode::OK, 1)),
        ("https://shop.example.com", (StatusCode::OK, 1)),
        ("http://partner.example", (StatusCode::FORBIDDEN, 0)),
        ("https://partner.example:8443", (StatusCode::FORBIDDEN, 0)),
        ("https://partner.example:443", (StatusCode::FORBIDDEN, 0)),
        ("https://Partner.example", (StatusCode::FORBIDDEN, 0)),
        (
            "https://partner.example.evil.example",
            (StatusCode::FORBIDDEN, 0),
        ),
        ("https://partner.example/", (StatusCode::FORBIDDEN, 0)),
        ("https://sub.partner.example", (StatusCode::FORBIDDEN, 0)),
        ("null", (StatusCode::FORBIDDEN, 0)),
    ] {
        assert_eq!(
            send("/write", &[(ORIGIN.as_str(), origin)]).await,
            expected,
            "{origin}"
        );
    }
    let trusted = [cross_site[0], ("origin", "https://partner.example")];
    assert_eq!(send("/write", &trusted).await, (StatusCode::OK, 1));
    assert_eq!(client.value("n").await, Some(4));
}
