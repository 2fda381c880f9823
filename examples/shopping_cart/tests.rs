//! The shop as its visitors know it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use axum::http::{Method, StatusCode};
use cloakroom::test_util::{Fault, FaultStore, Operation, TestClock};
use cloakroom::{MemoryStore, SessionLayer};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use self::client::{Answer, Browser};
use crate::app::{self, app_with};
use crate::{Command, parse};

mod client;

const ADDRESS: [(&str, &str); 5] = [
    ("name", "Ada Lovelace"),
    ("email", "ada@example.com"),
    ("street", "12 St James's Square"),
    ("postcode", "SW1Y 4JH"),
    ("city", "London"),
];
const DELIVERY: [(&str, &str); 1] = [("delivery", "express")];
const PAYMENT: [(&str, &str); 1] = [("payment", "invoice")];
/// A hat, sent by express.
const HAT: [(&str, &str); 1] = [("seen", "4190 eur")];
const STEPS: [&str; 4] = [
    "/checkout/address",
    "/checkout/delivery",
    "/checkout/payment",
    "/checkout/summary",
];
const ADA: [(&str, &str); 2] = [("name", "ada"), ("password", "demo-password")];

async fn with_cart(app: &Router, product: &str) -> Browser {
    let mut browser = Browser::new(app);
    browser
        .post("/cart/add", &[("product", product)])
        .await
        .sends_to(&format!("/#{product}"));
    browser
}

fn app() -> Router {
    app_with(MemoryStore::new())
}

/// The number on the cart's badge.
#[track_caller]
fn badge(page: &Answer) -> &str {
    let (_, rest) = page
        .text
        .split_once(r#"class="badge">"#)
        .expect("the page has a badge");
    rest.split('<').next().unwrap_or_default()
}

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
async fn what_another_window_adds_during_the_confirmation_stays_in_the_cart() {
    let mut browser = ready_to_confirm(&app()).await;
    let mut window = browser.clone();
    let (loaded, added) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let confirmation = {
        let mut browser = browser.clone();
        let (loaded, added) = (Arc::clone(&loaded), Arc::clone(&added));
        tokio::spawn(async move {
            let arrived = async move {
                loaded.wait().await;
                added.wait().await;
            };
            browser
                .post_slowly("/checkout/summary", &HAT, arrived)
                .await
        })
    };
    loaded.wait().await;
    window.post("/cart/add", &[("product", "flask")]).await;
    added.wait().await;
    confirmation
        .await
        .expect("no panic")
        .sends_to("/checkout/thanks");
    let page = browser.get("/checkout/thanks").await;
    page.shows("1 × Felt hat");
    assert_eq!(badge(&page), "1");
    browser.get("/cart").await.shows("Flask");
}

async fn ready_to_confirm(app: &Router) -> Browser {
    let mut browser = with_cart(app, "hat").await;
    browser
        .post("/checkout/address", &ADDRESS)
        .await
        .sends_to("/checkout/delivery");
    browser
        .post("/checkout/delivery", &DELIVERY)
        .await
        .sends_to("/checkout/payment");
    browser
        .post("/checkout/payment", &PAYMENT)
        .await
        .sends_to("/checkout/summary");
    browser
}

#[tokio::test]
async fn a_confirmation_that_is_sent_twice_is_one_order() {
    let mut browser = ready_to_confirm(&app()).await;
    // A change of mind is no new order.
    browser
        .post("/checkout/payment", &PAYMENT)
        .await
        .sends_to("/checkout/summary");
    let barrier = Arc::new(Barrier::new(2));
    let mut clicks = JoinSet::new();
    for _ in 0..2 {
        let mut browser = browser.clone();
        let barrier = Arc::clone(&barrier);
        clicks.spawn(async move {
            let together = async move {
                barrier.wait().await;
            };
            browser
                .post_slowly("/checkout/summary", &HAT, together)
                .await
        });
    }
    for answer in clicks.join_all().await {
        answer.sends_to("/checkout/thanks");
    }
    // And once more, when the first one is done.
    browser
        .post("/checkout/summary", &HAT)
        .await
        .sends_to("/checkout/thanks");
    browser
        .get("/checkout/thanks")
        .await
        .shows("<strong>1001</strong>");
    browser
        .post("/checkout/summary", &HAT)
        .await
        .sends_to("/cart");
}

#[tokio::test]
async fn nobody_orders_for_another_total_than_they_saw() {
    let mut browser = ready_to_confirm(&app()).await;
    browser.post("/cart/add", &[("product", "hat")]).await;
    for seen in ["4190 eur", "7390 usd", "", "0", "a hat"] {
        let page = browser.submit("/checkout/summary", &[("seen", seen)]).await;
        page.shows("Your cart has changed meanwhile.");
        page.shows("2 × Felt hat");
        assert_eq!(badge(&page), "2");
    }
}

#[tokio::test]
async fn steps_cannot_be_skipped() {
    let app = app();
    let mut browser = Browser::new(&app);
    for path in STEPS {
        browser.get(path).await.sends_to("/cart");
        browser.post(path, &[]).await.sends_to("/cart");
    }
    browser.get("/checkout/thanks").await.sends_to("/");
    browser = with_cart(&app, "hat").await;
    let forms: [&[_]; 4] = [&ADDRESS, &DELIVERY, &PAYMENT, &HAT];
    for done in 0..3 {
        let open = STEPS[done];
        for (path, form) in STEPS.into_iter().zip(forms).skip(done + 1) {
            browser.get(path).await.sends_to(open);
            browser.post(path, form).await.sends_to(open);
        }
        browser
            .post(open, forms[done])
            .await
            .sends_to(STEPS[done + 1]);
    }
    // A step that is spoilt afterwards closes those behind it.
    browser.post("/checkout/address", &[("name", "Ada")]).await;
    browser
        .get("/checkout/summary")
        .await
        .sends_to("/checkout/address");
}

/// S-36.
#[tokio::test]
async fn signing_in_keeps_the_cart_and_kills_the_old_cookie() {
    let mut ada = with_cart(&app(), "hat").await;
    let mut thief = ada.clone();
    let page = ada.submit("/sign-in", &ADA).await;
    assert_eq!(badge(&page), "1");
    page.shows(">ada</a>");
    let page = thief.get("/").await;
    page.shows(r#"href="/sign-in""#);
    assert_eq!(badge(&page), "0");
    // Nor does the thief's answer take her cookie away.
    assert!(!page.headers.contains_key(SET_COOKIE));
}

#[tokio::test]
async fn a_wrong_password_keeps_the_name_and_changes_nothing() {
    let mut browser = with_cart(&app(), "hat").await;
    let before = browser.cookies();
    for name in ["ada", "nobody"] {
        let page = browser
            .post("/sign-in", &[("name", name), ("password", "guess-4711")])
            .await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
        page.shows("Name or password is not right.");
        page.shows(&format!(r#"value="{name}""#));
        page.hides("guess-4711");
        page.hides("Sign out");
    }
    assert_eq!(browser.cookies(), before);
}

#[tokio::test]
async fn only_who_asks_for_it_is_remembered() {
    let max_age = async |form: &[(&str, &str)]| {
        let answer = Browser::new(&app()).post("/sign-in", form).await;
        let cookie = answer.headers[SET_COOKIE].to_str().expect("ASCII");
        let (_, rest) = cookie.split_once("; Max-Age=")?;
        rest.split(';').next()?.parse::<u32>().ok()
    };
    assert_eq!(max_age(&ADA).await, None);
    let [name, password] = ADA;
    let days = 30 * 24 * 60 * 60;
    let age = max_age(&[name, password, ("remember", "yes")])
        .await
        .expect("the cookie lasts");
    assert!((days - 60..=days).contains(&age), "{age}");
}

#[tokio::test]
async fn somebody_else_who_signs_in_does_not_get_the_cart() {
    let app = app();
    register(&app, "grace").await;
    let mut browser = with_cart(&app, "hat").await;
    browser.post("/sign-in", &ADA).await.sends_to("/cart");
    let page = browser.submit("/sign-in", &GRACE).await;
    page.shows("Welcome, grace.");
    assert_eq!(badge(&page), "0");
}

const GRACE: [(&str, &str); 2] = [("name", "grace"), ("password", "cobol-1959")];

async fn register(app: &Router, name: &str) -> Browser {
    let mut browser = Browser::new(app);
    browser
        .post("/register", &[("name", name), ("password", "cobol-1959")])
        .await
        .sends_to("/");
    browser
}

#[tokio::test]
async fn an_account_is_opened_once_and_its_password_is_never_shown() {
    let app = app();
    let mut grace = with_cart(&app, "hat").await;
    for (form, advice) in [
        (
            [("name", "g"), ("password", "cobol-1959")],
            "2 to 30 letters",
        ),
        (
            [("name", "grace"), ("password", "short-1")],
            "at least 8 characters",
        ),
        (
            [("name", "ada"), ("password", "cobol-1959")],
            "This name is taken.",
        ),
    ] {
        let page = grace.post("/register", &form).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
        page.shows(advice);
        page.shows(&format!("value=\"{}\"", form[0].1));
        page.hides(form[1].1);
        page.hides("Sign out");
    }
    let page = grace.submit("/register", &GRACE).await;
    page.shows("Welcome, grace.");
    assert_eq!(badge(&page), "1");
    for path in ["/register", "/sign-in"] {
        grace.get(path).await.sends_to("/account");
    }
    let mut other = Browser::new(&app);
    let page = other.submit("/sign-in", &GRACE).await;
    page.shows("Welcome, grace.");
}

#[tokio::test]
async fn the_cart_of_the_last_sign_out_joins_that_of_the_guest() {
    let app = app();
    let mut grace = register(&app, "grace").await;
    grace.post("/cart/add", &[("product", "bag")]).await;
    grace.post("/sign-out", &[]).await;
    assert_eq!(badge(&grace.get("/").await), "0");

    let mut elsewhere = with_cart(&app, "hat").await;
    let page = elsewhere.submit("/sign-in", &GRACE).await;
    assert_eq!(badge(&page), "2");
    page.shows("Canvas bag");
    page.shows("Felt hat");
    // What was taken along is not there a second time.
    let mut third = Browser::new(&app);
    assert_eq!(badge(&third.submit("/sign-in", &GRACE).await), "0");
}

/// The device's button, as a form.
fn device_of(page: &Answer) -> String {
    let (_, rest) = page
        .text
        .split_once(r#"name="device" value=""#)
        .expect("there is another device");
    rest.split('"').next().unwrap_or_default().to_owned()
}

/// S-55, S-58.
#[tokio::test]
async fn a_device_is_listed_and_signed_out_from_another_one() {
    let app = app();
    let mut here = register(&app, "grace").await;
    let mut phone = Browser::new(&app);
    phone.post("/sign-in", &GRACE).await;
    let mut tablet = Browser::new(&app);
    tablet.post("/sign-in", &GRACE).await;

    let page = here.get("/account").await;
    assert_eq!(page.text.matches("last seen").count(), 3);
    assert_eq!(page.text.matches("this device").count(), 1);
    for secret in [here.cookies(), phone.cookies(), tablet.cookies()] {
        page.hides(secret.split_once('=').expect("a cookie").1);
    }

    let device = device_of(&page);
    here.post_own("/account/sign-out", &[("device", &device)])
        .await
        .sends_to("/account");
    let page = here.get("/account").await;
    page.shows("The device is signed out.");
    assert_eq!(page.text.matches("last seen").count(), 2);
    // The most recently seen one came first.
    tablet
        .get("/account")
        .await
        .sends_to("/sign-in?next=/account");
    assert_eq!(phone.get("/account").await.status, StatusCode::OK);

    here.post_own("/account/sign-out-others", &[])
        .await
        .sends_to("/account");
    let page = here.get("/account").await;
    assert_eq!(page.text.matches("last seen").count(), 1);
    phone
        .get("/account")
        .await
        .sends_to("/sign-in?next=/account");
    phone
        .get("/sign-in")
        .await
        .shows("You were away for a while");
}

/// S-58.
#[tokio::test]
async fn nobody_signs_out_the_device_of_somebody_else() {
    let app = app();
    let mut ada = Browser::new(&app);
    ada.post("/sign-in", &ADA).await;
    let mut other = Browser::new(&app);
    other.post("/sign-in", &ADA).await;
    let device = device_of(&ada.get("/account").await);

    let mut grace = register(&app, "grace").await;
    for device in [&*device, "", "00000000-0000-0000-0000-000000000000", "'"] {
        let answer = grace
            .post_own("/account/sign-out", &[("device", device)])
            .await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{device}");
    }
    assert_eq!(other.get("/account").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_account_is_for_those_who_are_signed_in() {
    let app = app();
    let mut guest = Browser::new(&app);
    for path in [
        "/account/confirm",
        "/account/sign-out",
        "/account/sign-out-others",
        "/account/password",
        "/account/close",
    ] {
        guest.post(path, &[]).await.sends_to("/sign-in");
    }
    guest
        .get("/account")
        .await
        .sends_to("/sign-in?next=/account");
    assert_eq!(guest.cookies(), "");
    // And then they are where they wanted to go.
    guest
        .get("/sign-in?next=/account")
        .await
        .shows(r#"name="next" value="/account""#);
    let there = |next| [ADA[0], ADA[1], ("next", next)];
    guest
        .post("/sign-in", &there("/account"))
        .await
        .sends_to("/account");
    for next in ["https://evil.example/", "//evil.example", "/sign-out"] {
        Browser::new(&app)
            .post("/sign-in", &there(next))
            .await
            .sends_to("/");
    }
}

/// S-40, S-83.
#[tokio::test]
async fn the_forms_of_an_account_are_for_its_own_pages() {
    let app = app();
    let mut grace = register(&app, "grace").await;
    let mut ada = Browser::new(&app);
    ada.post("/sign-in", &ADA).await;
    let hers = grace.csrf_token().await;
    let others = ada.csrf_token().await;
    for token in ["", &*others, "AAAA"] {
        for path in [
            "/account/confirm",
            "/account/sign-out-others",
            "/account/password",
            "/account/close",
        ] {
            let answer = grace.post(path, &[("csrf_token", token)]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {token}");
        }
    }
    let path = format!("/account/close?csrf_token={hers}");
    let answer = grace.post(&path, &[]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(grace.get("/account").await.status, StatusCode::OK);
    // Each page has another spelling of it, and both hold.
    let again = grace.csrf_token().await;
    assert_ne!(again, hers);
    for token in [hers, again] {
        grace
            .post("/account/sign-out-others", &[("csrf_token", &token)])
            .await
            .sends_to("/account");
    }
}

/// S-37, S-58, S-73.
#[tokio::test]
async fn what_could_hurt_asks_for_the_password_again_after_a_while() {
    let clock = TestClock::new();
    let layer = SessionLayer::builder(MemoryStore::new()).clock(clock.clone());
    let app = app::app(layer);
    let mut grace = register(&app, "grace").await;
    let mut phone = Browser::new(&app);
    phone.post("/sign-in", &GRACE).await;
    clock.advance(Duration::from_secs(601));
    for path in [
        "/account/sign-out",
        "/account/sign-out-others",
        "/account/close",
    ] {
        grace.post_own(path, &[]).await.sends_to("/account/confirm");
    }
    assert_eq!(phone.get("/account").await.status, StatusCode::OK);

    let wrong = grace
        .post_own("/account/confirm", &[("password", "guess")])
        .await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    wrong.shows("This is not your password.");
    let before = grace.cookies();
    grace
        .post_own("/account/confirm", &[GRACE[1]])
        .await
        .sends_to("/account");
    assert_ne!(grace.cookies(), before);
    grace
        .post_own("/account/sign-out-others", &[])
        .await
        .sends_to("/account");
    phone
        .get("/account")
        .await
        .sends_to("/sign-in?next=/account");
}

/// S-38, S-55.
#[tokio::test]
async fn a_new_password_signs_the_other_devices_out() {
    let app = app();
    let mut here = register(&app, "grace").await;
    let mut thief = here.clone();
    let mut phone = Browser::new(&app);
    phone.post("/sign-in", &GRACE).await;

    let refused = here
        .post_own(
            "/account/password",
            &[("current", "guess"), ("new", "fortran")],
        )
        .await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    refused.shows("This is not your password.");
    refused.shows("at least 8 characters");
    assert_eq!(phone.get("/account").await.status, StatusCode::OK);

    here.post_own(
        "/account/password",
        &[("current", GRACE[1].1), ("new", "cobol-2023")],
    )
    .await
    .sends_to("/account");
    here.get("/account").await.shows("Your password is changed");
    for gone in [&mut phone, &mut thief] {
        gone.get("/account")
            .await
            .sends_to("/sign-in?next=/account");
    }
    let page = phone.post("/sign-in", &GRACE).await;
    page.shows("Name or password is not right.");
    let page = phone
        .submit("/sign-in", &[GRACE[0], ("password", "cobol-2023")])
        .await;
    page.shows("Welcome, grace.");
}

/// S-56.
#[tokio::test]
async fn a_closed_account_is_signed_out_everywhere() {
    let app = app();
    let mut here = register(&app, "grace").await;
    let mut phone = Browser::new(&app);
    phone.post("/sign-in", &GRACE).await;
    let page = here.post_own("/account/close", &[]).await;
    page.shows("Your account is closed");
    // S-54.
    assert_eq!(page.headers["clear-site-data"], r#""cookies", "storage""#);
    for browser in [&mut here, &mut phone] {
        browser
            .get("/account")
            .await
            .sends_to("/sign-in?next=/account");
    }
    let page = phone.post("/sign-in", &GRACE).await;
    page.shows("Name or password is not right.");
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
async fn an_order_is_in_the_currency_that_was_confirmed() {
    let mut browser = ready_to_confirm(&app()).await;
    browser.post("/preferences", &[("currency", "gbp")]).await;
    // The page with the price in euros is still open in another window.
    let page = browser.submit("/checkout/summary", &HAT).await;
    page.shows("Your cart has changed meanwhile.");
    page.shows("£35.62");
    browser
        .post("/checkout/summary", &[("seen", "3562 gbp")])
        .await
        .sends_to("/checkout/thanks");
    browser.post("/preferences", &[("currency", "usd")]).await;
    browser.get("/checkout/thanks").await.shows("£35.62");
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
async fn a_session_that_is_over_says_so_kindly() {
    let app = app();
    let mut browser = with_cart(&app, "hat").await;
    let mut away = browser.clone();
    browser.post("/sign-out", &[]).await;
    for path in ["/cart", "/sign-in"] {
        away.get(path).await.shows("You were away for a while");
        Browser::new(&app).get(path).await.hides("You were away");
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

#[tokio::test]
async fn files_cost_no_call_of_the_store() {
    let store = FaultStore::new(MemoryStore::new());
    let mut browser = with_cart(&app_with(store.clone()), "hat").await;
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
    let mut browser = with_cart(&app_with(store.clone()), "hat").await;
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

#[test]
fn the_command_line_takes_a_port_and_a_store_and_refuses_the_rest() {
    let parse = |line: &str| parse(line.split_whitespace().map(str::to_owned));
    let serve = |port, store: &str| {
        let store = store.to_owned();
        Ok(Command::Serve { port, store })
    };
    assert_eq!(parse(""), serve(3000, "memory:"));
    assert_eq!(parse("--port 0"), serve(0, "memory:"));
    assert_eq!(parse("--port=8080"), serve(8080, "memory:"));
    assert_eq!(
        parse("--store sqlite:cart.db"),
        serve(3000, "sqlite:cart.db")
    );
    assert_eq!(parse("--store=memory: --port 1"), serve(1, "memory:"));
    assert_eq!(parse("--port 1 --help"), Ok(Command::Help));
    for line in [
        "--port",
        "--port x",
        "--port 65536",
        "--port -1",
        "--prot 1",
        "--store",
        "3000",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}
