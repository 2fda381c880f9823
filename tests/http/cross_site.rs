//! tower-http's `CsrfLayer` around the session layer, as the crate's docs recommend.

use axum::body::Body;
use cloakroom::test_util::Operation;
use http::header::{COOKIE, HOST, ORIGIN};
use http::{Method, Request, StatusCode};
use tower::ServiceExt as _;
use tower_http::csrf::CsrfLayer;

use crate::support::{Server, Settings};

/// S-81: not even to sign in, or another site could sign a visitor in as somebody else.
#[tokio::test]
async fn unsafe_requests_of_other_sites_never_reach_the_session() {
    let server = Server::with(|b: Settings| b);
    let client = server.visitor().await;
    let app = server.router.clone().layer(CsrfLayer::new());
    let here = "https://shop.example.com";
    let sites = ["same-origin", "none", "same-site", "cross-site", "", "junk"];
    let origins = ["", here, "https://evil.example", "null"];
    let mut reached = 0;
    for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
        for path in ["/login", "/write"] {
            for (site, origin) in sites.into_iter().flat_map(|s| origins.map(|o| (s, o))) {
                let mut request = Request::builder().method(&method).uri(path);
                request = request.header(HOST, "shop.example.com");
                for (name, value) in [("sec-fetch-site", site), ("origin", origin)] {
                    if !value.is_empty() {
                        request = request.header(name, value);
                    }
                }
                let cookie = format!("__Host-id={}", client.the_token());
                let request = request.header(COOKIE, cookie).body(Body::empty());
                server.store.reset_counts();
                let response = app.clone().oneshot(request.unwrap()).await.unwrap();
                let is_ours = match site {
                    "same-origin" | "none" => true,
                    "" => origin.is_empty() || origin == here,
                    _ => false,
                };
                let passes = method == Method::GET || is_ours;
                let what = format!("{method} {path} {site:?} {origin:?}");
                assert_eq!(response.status() != StatusCode::FORBIDDEN, passes, "{what}");
                let loads = server.store.calls(Operation::Load);
                assert!(passes || loads == 0, "{what}");
                reached += loads;
            }
        }
    }
    assert!(reached > 0, "those of the site itself do");
}

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
