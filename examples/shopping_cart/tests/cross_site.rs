//! What comes from other sites.

use axum::body::Body;
use axum::http::header::SET_COOKIE;
use axum::http::{Method, StatusCode};

use super::client::Browser;
use super::{app, badge, with_cart};

/// S-81.
#[tokio::test]
async fn forms_of_other_sites_are_refused() {
    let mut browser = with_cart(&app(), "hat").await;
    let foreign: [&[_]; 3] = [
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
    ];
    for headers in foreign {
        for path in [
            "/cart/add",
            "/sign-in",
            "/sign-out",
            "/checkout/summary",
            "/preferences",
            "/account/close",
        ] {
            let answer = browser
                .send(Method::POST, path, headers, "product=hat".into())
                .await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {headers:?}");
            answer.shows("That came from another site");
            assert!(!answer.headers.contains_key(SET_COOKIE));
        }
    }
    assert_eq!(badge(&browser.get("/").await), "1");
    // A link from there is welcome.
    let page = browser
        .send(Method::GET, "/", foreign[0], Body::empty())
        .await;
    assert_eq!(badge(&page), "1");
}

/// S-81: every kind of request that a browser, old or new, makes for a page of any site. The sign-in is no
/// exception: else another site could sign a visitor in as somebody else.
#[tokio::test]
async fn unsafe_requests_of_other_origins_are_refused() {
    let here = "http://127.0.0.1:3000";
    let methods = ["GET", "HEAD", "OPTIONS", "POST", "TRACE", "FOO"];
    let sites = ["same-origin", "none", "same-site", "cross-site", "", "junk"];
    let elsewhere = ["https://evil.example", "null", "http://127.0.0.1:3001"];
    for path in ["/sign-in", "/cart/add"] {
        let app = app();
        for method in methods {
            for site in sites {
                for origin in ["", here].into_iter().chain(elsewhere) {
                    let headers = [("sec-fetch-site", site), ("origin", origin)];
                    let sent: Vec<_> = headers.into_iter().filter(|(_, v)| !v.is_empty()).collect();
                    let form = "name=ada&password=demo-password&product=hat";
                    let answer = Browser::new(&app)
                        .send(method.parse().unwrap(), path, &sent, form.into())
                        .await;
                    let is_safe = ["GET", "HEAD", "OPTIONS"].contains(&method);
                    let is_ours = match site {
                        "same-origin" | "none" => true,
                        // A browser of before 2023: the origin decides, and its absence is no browser.
                        "" => origin.is_empty() || origin == here,
                        _ => false,
                    };
                    let what = format!("{method} {path} {sent:?}");
                    let refused = answer.status == StatusCode::FORBIDDEN;
                    assert_eq!(refused, !is_safe && !is_ours, "{what}");
                    let has_effect = answer.headers.contains_key(SET_COOKIE);
                    assert_eq!(has_effect, method == "POST" && is_ours, "{what}");
                }
            }
        }
    }
}
