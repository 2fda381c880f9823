//! What comes from other sites.

use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::header::{SET_COOKIE, VARY};
use axum::http::{Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloakroom::MemoryStore;
use cloakroom::test_util::FaultStore;

use super::client::{Answer, Browser};
use super::{ADA, app, badge, with_cart};
use crate::accounts::Administrator;
use crate::app::{Options, app_with};
use crate::payments::PaymentKey;

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

const HOOK: &str = "/hooks/payment";
const PAID: &str = r#"{"type":"payment.succeeded","data":{"order":1001}}"#;

fn key(byte: u8) -> PaymentKey {
    let text = format!("whsec_{}", STANDARD.encode([byte; 32]));
    PaymentKey::parse(&text).expect("a key")
}

fn seconds(at: SystemTime) -> String {
    let time = at.duration_since(SystemTime::UNIX_EPOCH);
    time.expect("after 1970").as_secs().to_string()
}

async fn say(app: &Router, time: &str, signature: &str, body: &str) -> Answer {
    let headers = [
        ("sec-fetch-site", "cross-site"),
        ("origin", "https://pay.example"),
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", time),
        ("webhook-signature", signature),
    ];
    let body = body.to_owned().into();
    let mut provider = Browser::new(app);
    provider.send(Method::POST, HOOK, &headers, body).await
}

/// S-82: the one address that other origins may send to is exempt to the byte, and no origin is trusted.
#[tokio::test]
async fn one_address_alone_is_open_to_other_origins() {
    let mut browser = with_cart(&app(), "hat").await;
    let mut send = async |method: Method, path: &str, headers: &[(&str, &str)]| {
        let answer = browser.send(method, path, headers, Body::empty()).await;
        answer.status
    };
    let foreign: [&[_]; 2] = [
        &[("sec-fetch-site", "cross-site")],
        &[("origin", "https://evil.example")],
    ];
    for headers in foreign {
        // Let through, and not believed.
        let heard = send(Method::POST, HOOK, headers).await;
        assert_eq!(heard, StatusCode::UNAUTHORIZED);
        for path in [
            "/hooks",
            "/hooks/",
            "/hooks/payment/",
            "//hooks/payment",
            "/hooks//payment",
            "/Hooks/payment",
            "/hooks/Payment",
            "/hooks/payments",
            "/hooks/payment/x",
            "/hooks/payment/%2e%2e/x",
            "/hooks/payment/../../cart/add",
            "/hooks/payment%2f",
            "/hooks/%70ayment",
            "/hooks/payment;x",
            "/cart/add",
            "/cart/add?/hooks/payment",
        ] {
            let refused = send(Method::POST, path, headers).await;
            assert_eq!(refused, StatusCode::FORBIDDEN, "{path}");
        }
        let refused = send(Method::PUT, HOOK, headers).await;
        assert_eq!(refused, StatusCode::FORBIDDEN);
    }
    for origin in [
        "https://127.0.0.1",
        "http://127.0.0.1",
        "http://127.0.0.1:80",
        "http://localhost:3000",
        "http://127.0.0.1:3000.evil.example",
    ] {
        let refused = send(Method::POST, "/cart/add", &[("origin", origin)]).await;
        assert_eq!(refused, StatusCode::FORBIDDEN, "{origin}");
    }
    // The same shop over https is another origin to a browser, which says so.
    let headers = [
        ("sec-fetch-site", "cross-site"),
        ("origin", "https://127.0.0.1:3000"),
    ];
    let refused = send(Method::POST, "/cart/add", &headers).await;
    assert_eq!(refused, StatusCode::FORBIDDEN);
}

/// S-82: what is exempt must prove by itself who sent it.
#[tokio::test]
async fn the_payment_provider_is_known_by_its_signature_alone() {
    let store = FaultStore::new(MemoryStore::new());
    let (name, password) = ("root".to_owned(), "root-4711".to_owned());
    let options = Options {
        administrator: Some(Administrator { name, password }),
        payment_key: Some(key(1)),
        ..Options::default()
    };
    let app = app_with(store.clone(), options);
    let now = SystemTime::now();
    let time = seconds(now);
    let good = key(1).sign("msg_1", &time, PAID);

    let other_key = key(2).sign("msg_1", &time, PAID);
    let other_id = key(1).sign("msg_2", &time, PAID);
    let bare = good.trim_start_matches("v1,");
    let body = PAID.replace("1001", "1002");
    for (time, signature, body) in [
        (&*time, "", PAID),
        (&time, "v1,", PAID),
        (&time, bare, PAID),
        (&time, &other_key, PAID),
        (&time, &other_id, PAID),
        (&time, &good, &body),
        ("", &good, PAID),
        ("soon", &good, PAID),
    ] {
        let answer = say(&app, time, signature, body).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{signature}");
    }
    // What was good once is not for ever, nor what comes from the future.
    let hour = Duration::from_secs(3600);
    for time in [seconds(now - hour), seconds(now + hour)] {
        let signature = key(1).sign("msg_1", &time, PAID);
        let answer = say(&app, &time, &signature, PAID).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }

    // Heard twice, also while the provider changes its key.
    for signature in [&good, &format!("{other_key} {good}")] {
        let answer = say(&app, &time, signature, PAID).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert!(!answer.headers.contains_key(VARY));
    }
    assert_eq!(store.total_calls(), 0);
    let mut root = Browser::new(&app);
    let form = [("name", "root"), ("password", "root-4711")];
    root.post("/sign-in", &form).await;
    let page = root.get("/admin").await;
    page.shows("<li>1001</li>");
    page.hides("1002");

    // A session proves nothing here, and without a key there is no provider.
    let mut ada = Browser::new(&app);
    ada.post("/sign-in", &ADA).await;
    let answer = ada.post(HOOK, &[]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let answer = say(&self::app(), &time, &good, PAID).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}
