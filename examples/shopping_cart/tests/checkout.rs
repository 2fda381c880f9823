//! The checkout in steps.

use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::client::Browser;
use super::{ADDRESS, DELIVERY, HAT, PAYMENT, STEPS, app, badge, ready_to_confirm, with_cart};

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
