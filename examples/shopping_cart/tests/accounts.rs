//! Accounts: sign-in, passwords, and what they protect.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use cloakroom::MemoryStore;
use cloakroom::test_util::TestClock;

use super::client::Browser;
use super::{ADA, GRACE, app, app_by, app_on, badge, register, with_cart};

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
    let app = app_by(|sessions| sessions.clock(clock.clone()));
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
    let mut thief = grace.clone();
    grace
        .post_own("/account/confirm", &[GRACE[1]])
        .await
        .sends_to("/account");
    assert_ne!(grace.cookies(), thief.cookies());
    thief
        .get("/account")
        .await
        .sends_to("/sign-in?next=/account");
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

/// S-54, S-56.
#[tokio::test]
async fn a_closed_account_is_signed_out_everywhere() {
    let app = app();
    let mut here = register(&app, "grace").await;
    let mut phone = Browser::new(&app);
    phone.post("/sign-in", &GRACE).await;
    // Where a session goes on, or the next one begins, its cookie must stay.
    for path in ["/account/sign-out-others", "/sign-out", "/sign-in"] {
        let answer = here.post_own(path, &GRACE).await;
        assert!(!answer.headers.contains_key("clear-site-data"), "{path}");
        here.post("/sign-in", &GRACE).await;
    }
    let page = here.post_own("/account/close", &[]).await;
    page.shows("Your account is closed");
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

/// S-57: sessions outlive the process, accounts do not.
#[tokio::test]
async fn a_name_that_is_registered_again_after_a_restart_is_another_account() {
    let store = MemoryStore::new();
    let mut before = register(&app_on(store.clone()), "grace").await;
    before.post("/cart/add", &[("product", "hat")]).await;
    let app = app_on(store);
    let mut after = register(&app, "grace").await;
    before.move_to(&app);
    let page = before.get("/cart").await;
    page.shows(">grace</a>");
    assert_eq!(badge(&page), "1");
    before
        .get("/account")
        .await
        .sends_to("/sign-in?next=/account");
    before.get("/session/left").await.shows(r#""user":"grace""#);
    let page = after.get("/account").await;
    assert_eq!(page.text.matches("last seen").count(), 1);

    // The cart that is kept at the sign-out is not hers.
    before.post("/sign-out", &[]).await.sends_to("/");
    let mut phone = Browser::new(&app);
    assert_eq!(badge(&phone.submit("/sign-in", &GRACE).await), "0");

    for path in ["/register", "/sign-in"] {
        after.get(path).await.sends_to("/account");
    }
}

#[tokio::test]
async fn the_demonstration_is_signed_in_at_every_shop_on_the_store() {
    let store = MemoryStore::new();
    let mut ada = Browser::new(&app_on(store.clone()));
    ada.post("/sign-in", &ADA).await;
    let app = app_on(store);
    ada.move_to(&app);
    let mut phone = Browser::new(&app);
    phone.post("/sign-in", &ADA).await;
    let page = ada.get("/account").await;
    assert_eq!(page.text.matches("last seen").count(), 2);
    ada.post_own("/account/confirm", &[ADA[1]])
        .await
        .sends_to("/account");
}
