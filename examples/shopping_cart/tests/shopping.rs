//! Looking around, the cart, preferences, and the whole story.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use cloakroom::MemoryStore;
use cloakroom::test_util::{Fault, FaultStore, Operation};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::client::{Answer, Browser};
use super::{ADA, ADDRESS, DELIVERY, PAYMENT, app, app_on, badge, with_cart};

/// S-52.
#[tokio::test]
async fn the_whole_story_from_the_first_look_to_the_sign_out() {
    let mut ada = Browser::new(&app());

    // A guest fills a cart.
    assert_eq!(badge(&ada.get("/").await), "0");
    let page = ada.submit("/cart/add", &[("product", "umbrella")]).await;
    page.shows("Umbrella is in your cart.");
    assert_eq!(badge(&page), "1");
    ada.get("/").await.hides("is in your cart");
    ada.post("/cart/add", &[("product", "umbrella")]).await;
    ada.post("/cart/add", &[("product", "hat")]).await;
    let page = ada
        .submit("/cart/quantity", &[("product", "flask"), ("quantity", "3")])
        .await;
    assert_eq!(badge(&page), "6");
    page.shows("€140.85");
    let page = ada.submit("/cart/remove", &[("product", "hat")]).await;
    page.shows("Felt hat is no longer in your cart.");
    page.shows("€108.85");
    let page = ada
        .submit("/cart/quantity", &[("product", "flask"), ("quantity", "0")])
        .await;
    page.shows("€49.00");

    // They like it dark.
    ada.post("/preferences", &[("theme", "dark"), ("back", "/cart")])
        .await
        .sends_to("/cart");
    ada.get("/cart").await.shows(r#"data-theme="dark""#);

    // Signing in keeps all that.
    let guest = ada.cookies();
    let page = ada.submit("/sign-in", &ADA).await;
    page.shows("Welcome, ada.");
    page.shows("Sign out");
    page.shows("€49.00");
    page.shows(r#"data-theme="dark""#);
    assert_ne!(ada.cookies(), guest);

    // The checkout says what is missing, keeps what is there, and can be walked back.
    ada.get("/checkout/address").await.hides("mistake");
    let page = ada
        .post(
            "/checkout/address",
            &[("name", "Ada Lovelace"), ("email", "ada")],
        )
        .await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.shows(r#"<p class="mistake" id="email-mistake">Please enter an address like"#);
    page.shows(r#"value="ada" autocomplete="email" required maxlength="100" autofocus"#);
    ada.get("/cart").await;
    ada.get("/checkout/address")
        .await
        .shows(r#"value="Ada Lovelace""#);
    let page = ada.submit("/checkout/address", &ADDRESS).await;
    page.shows("<h1>Delivery</h1>");
    let page = ada.submit("/checkout/delivery", &DELIVERY).await;
    page.shows("<h1>Payment</h1>");
    let page = ada.post("/checkout/payment", &[]).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.shows("Please choose how you pay.");
    ada.get("/checkout/address")
        .await
        .shows(r#"value="12 St James's Square""#);
    ada.get("/checkout/delivery")
        .await
        .shows(r#"value="express" required checked"#);
    let page = ada.submit("/checkout/payment", &PAYMENT).await;
    page.shows("<h1>Summary</h1>");
    page.shows("2 × Umbrella");
    page.shows("€58.90");

    // The order is shown once, and the cart is empty.
    ada.post("/checkout/summary", &[("seen", "5890 eur")])
        .await
        .sends_to("/checkout/thanks");
    let page = ada.get("/checkout/thanks").await;
    page.shows("<strong>1001</strong>");
    page.shows("€58.90");
    assert_eq!(badge(&page), "0");
    ada.get("/checkout/thanks").await.sends_to("/");

    // Signed out, she is nobody, and the old cookie opens nothing.
    ada.post("/cart/add", &[("product", "bag")]).await;
    let mut thief = ada.clone();
    assert_eq!(badge(&thief.get("/").await), "1");
    let page = ada.submit("/sign-out", &[]).await;
    page.shows("You are signed out.");
    page.shows(r#"data-theme="dark""#);
    for page in [page, thief.get("/").await] {
        page.shows(r#"href="/sign-in""#);
        page.hides("ada");
        assert_eq!(badge(&page), "0");
    }
}

/// S-68.
#[tokio::test]
async fn there_is_no_cookie_before_there_is_something_to_keep() {
    let mut browser = Browser::new(&app());
    for path in [
        "/",
        "/cart",
        "/sign-in",
        "/checkout/address",
        "/style.css",
        "/nowhere",
    ] {
        let page = browser.get(path).await;
        assert!(!page.headers.contains_key(SET_COOKIE), "{path}");
    }
    browser.post("/preferences", &[("theme", "auto")]).await;
    browser
        .post("/cart/remove", &[("product", "no-such-thing")])
        .await;
    assert_eq!(browser.cookies(), "");
    let answer = browser.post("/cart/add", &[("product", "hat")]).await;
    let cookie = answer.headers[SET_COOKIE].to_str().expect("ASCII");
    assert!(
        cookie.starts_with("id=") && cookie.contains("; HttpOnly"),
        "{cookie}"
    );
    assert!(!cookie.contains("Max-Age"), "{cookie}");
}

/// S-65. All requests have loaded the session before the first one changes it: the extractor is done with
/// the session when the form's last byte arrives.
#[tokio::test]
async fn adds_that_overlap_lose_nothing() {
    for parallel in [2, 32] {
        let mut browser = with_cart(&app(), "bag").await;
        let barrier = Arc::new(Barrier::new(parallel));
        let mut adds = JoinSet::new();
        for _ in 0..parallel {
            let mut browser = browser.clone();
            let barrier = Arc::clone(&barrier);
            adds.spawn(async move {
                let together = async move {
                    barrier.wait().await;
                };
                browser
                    .post_slowly("/cart/add", &[("product", "hat")], together)
                    .await
                    .status
            });
        }
        assert!(
            adds.join_all()
                .await
                .into_iter()
                .all(|status| status == StatusCode::SEE_OTHER)
        );
        assert_eq!(
            badge(&browser.get("/cart").await),
            (parallel + 1).to_string()
        );
    }
}

#[tokio::test]
async fn preferences_apply_at_once_and_are_given_up_again() {
    let mut browser = Browser::new(&app());
    browser.get("/").await.hides("data-theme");
    let form = |theme, language, currency, back| {
        [
            ("theme", theme),
            ("language", language),
            ("currency", currency),
            ("back", back),
        ]
    };
    let page = browser
        .submit(
            "/preferences",
            &form("dark", "german", "gbp", "/product/flask"),
        )
        .await;
    page.shows(r#"<html lang="de" data-theme="dark">"#);
    page.shows("<h1>Thermoskanne</h1>");
    page.shows("16,96\u{a0}£");
    browser
        .post("/cart/add", &[("product", "flask"), ("quantity", "2")])
        .await;
    let page = browser.get("/cart").await;
    page.shows("Thermoskanne ist im Korb.");
    page.shows("33,92\u{a0}£");
    let page = browser
        .submit("/preferences", &form("light", "english", "usd", "/cart"))
        .await;
    page.shows(r#"<html lang="en" data-theme="light">"#);
    page.shows("$43.90");
    let page = browser
        .submit("/preferences", &form("auto", "klingon", "shells", "/cart"))
        .await;
    page.hides("data-theme");
    page.shows("€39.90");
}

#[tokio::test]
async fn a_form_cannot_send_anybody_to_another_site() {
    let mut browser = Browser::new(&app());
    for back in [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "/sign-out",
        "/product/gramophone",
        "/product//evil.example",
        "",
    ] {
        browser
            .post("/preferences", &[("theme", "dark"), ("back", back)])
            .await
            .sends_to("/");
    }
}

#[tokio::test]
async fn the_session_shows_itself() {
    let app = app();
    let mut browser = Browser::new(&app);
    let page = browser.get("/about-this-session").await;
    page.shows("You have none.");
    assert!(!page.headers.contains_key("server-timing"));
    browser.post("/cart/add", &[("product", "hat")]).await;
    browser.get("/").await;
    let page = browser.get("/about-this-session").await;
    page.shows(r#"<dt>cart</dt><dd><code>{&quot;hat&quot;:1}</code></dd>"#);
    page.shows("<li><code>load</code>");
    let secret = browser.cookies();
    page.hides(secret.split_once('=').expect("a cookie").1);
    let timing = |page: &Answer| {
        let value = page.headers["server-timing"].to_str().expect("ASCII");
        let names = value
            .split(", ")
            .map(|part| part.split(';').next().unwrap_or_default());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(timing(&page), ["store-load"]);
    let answer = browser.post("/cart/add", &[("product", "bag")]).await;
    assert_eq!(timing(&answer), ["store-load", "store-update"]);
    let answer = browser.post("/sign-in", &ADA).await;
    assert_eq!(timing(&answer), ["store-load", "store-sign-in"]);
}

#[tokio::test]
async fn quantities_that_cannot_be_are_refused_next_to_the_field() {
    let mut browser = with_cart(&app(), "hat").await;
    for typed in [
        "-1",
        "100",
        "4294967297",
        "99999999999999999999999",
        "1.5",
        "many",
        "",
    ] {
        let form = [("product", "hat"), ("quantity", typed)];
        let page = browser.post("/cart/quantity", &form).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY, "{typed}");
        page.shows(r#"<p class="mistake" id="quantity-hat-mistake">"#);
        page.shows(&format!(r#"value="{typed}""#));
        assert_eq!(badge(&page), "1", "{typed}");
        let page = browser.post("/cart/add", &form).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY, "{typed}");
        page.shows(r#"<p class="mistake" id="quantity-mistake">"#);
    }
    let none = [("product", "hat"), ("quantity", "0")];
    let page = browser.post("/cart/add", &none).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn the_hundredth_of_a_kind_does_not_fit() {
    let mut browser = with_cart(&app(), "hat").await;
    browser
        .post("/cart/quantity", &[("product", "hat"), ("quantity", "99")])
        .await;
    let page = browser.submit("/cart/add", &[("product", "hat")]).await;
    page.shows("Your cart has 99 of Felt hat, which is all we have.");
    assert_eq!(badge(&page), "99");
}

#[tokio::test]
async fn unknown_products_and_pages_are_not_found() {
    let mut browser = Browser::new(&app());
    for path in ["/cart/add", "/cart/quantity", "/cart/remove"] {
        let page = browser
            .post(path, &[("product", "gramophone"), ("quantity", "1")])
            .await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{path}");
        page.shows("<h1>Not found</h1>");
    }
    assert_eq!(
        browser.get("/product/gramophone").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        browser.get("/cart/add").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test]
async fn files_cost_no_call_of_the_store() {
    let store = FaultStore::new(MemoryStore::new());
    let mut browser = with_cart(&app_on(store.clone()), "hat").await;
    // The first page takes the note out of the session.
    browser.get("/").await;
    store.reset_counts();
    for path in ["/style.css", "/shop.js", "/icon.svg", "/nowhere"] {
        browser.get(path).await;
    }
    assert_eq!(store.total_calls(), 0);
    browser.get("/").await;
    assert_eq!(store.total_calls(), 1);
}

/// S-71, S-72.
#[tokio::test]
async fn a_store_that_is_down_gives_a_friendly_page_and_loses_nothing() {
    let store = FaultStore::new(MemoryStore::new());
    let mut browser = with_cart(&app_on(store.clone()), "hat").await;
    store.always(Operation::Load, Fault::Fail);
    let page = browser.get("/cart").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    page.shows("It is not lost: please try again");
    store.heal();
    store.always(Operation::Update, Fault::Fail);
    let page = browser.post("/cart/add", &[("product", "hat")]).await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    page.shows("It is not lost: please try again");
    store.heal();
    assert_eq!(badge(&browser.get("/cart").await), "1");
}
