//! What all pages have in common.

use axum::body::Body;
use axum::http::Method;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::client::Browser;
use super::{ADDRESS, DELIVERY, HAT, PAYMENT, app, ready_to_confirm, with_cart};

#[tokio::test]
async fn what_is_typed_is_text_and_never_markup() {
    const EVIL: &str = r#""><script>alert('1')</script>"#;
    let mut browser = with_cart(&app(), "hat").await;
    let mut address = ADDRESS;
    address[0].1 = EVIL;
    browser.post("/checkout/address", &address).await;
    browser.post("/checkout/delivery", &DELIVERY).await;
    let pages = [
        browser.get("/checkout/address").await,
        browser.submit("/checkout/payment", &PAYMENT).await,
        browser.get("/about-this-session").await,
        browser.submit("/checkout/summary", &HAT).await,
        browser
            .post("/sign-in", &[("name", EVIL), ("password", EVIL)])
            .await,
    ];
    for page in &pages {
        page.hides("<script>");
        page.shows("&quot;&gt;&lt;script&gt;alert('1')&lt;/script&gt;");
    }
}

#[tokio::test]
async fn forms_that_no_page_sends_are_the_client_s_mistake() {
    let mut browser = Browser::new(&app());
    let huge = "x".repeat(20_000);
    let forms: [(&str, &[u8]); 4] = [
        ("/cart/add", b""),
        ("/cart/add", b"product=%ff%fe"),
        ("/cart/quantity", b"product=hat&product=bag&quantity=1"),
        ("/checkout/address", huge.as_bytes()),
    ];
    for (path, form) in forms {
        let answer = browser
            .send(Method::POST, path, &[], Body::from(form.to_vec()))
            .await;
        assert!(
            answer.status.is_client_error(),
            "{path} {} {}",
            answer.status,
            answer.text
        );
    }
    assert_eq!(browser.cookies(), "");
}

#[tokio::test]
async fn every_page_says_what_a_browser_may_do_with_it() {
    let mut browser = ready_to_confirm(&app()).await;
    let paths = [
        "/",
        "/product/hat",
        "/cart",
        "/sign-in",
        "/register",
        "/about-this-session",
        "/checkout/address",
        "/checkout/delivery",
        "/checkout/payment",
        "/checkout/summary",
        "/nowhere",
        "/style.css",
        "/shop.js",
        "/icon.svg",
    ];
    for path in paths {
        let page = browser.get(path).await;
        let csp = page.headers["content-security-policy"]
            .to_str()
            .expect("ASCII");
        assert!(
            csp.contains("default-src 'self'") && !csp.contains("unsafe"),
            "{path}"
        );
        assert_eq!(page.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(page.headers["referrer-policy"], "same-origin", "{path}");
        assert!(page.headers.contains_key(CONTENT_TYPE), "{path}");
        assert!(page.headers.contains_key(CACHE_CONTROL), "{path}");
        for inline in ["<script>", "<style", " style=", " onclick="] {
            page.hides(inline);
        }
        if page.headers[CONTENT_TYPE]
            .to_str()
            .is_ok_and(|kind| kind.starts_with("text/html"))
        {
            page.hides("http");
            page.shows(r#"<html lang="en""#);
        }
    }
}
