//! Several devices of one user.

use axum::http::StatusCode;
use tokio::task::JoinSet;

use super::client::{Answer, Browser};
use super::{ADA, GRACE, app, register};
use crate::app::MAX_DEVICES;

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

    let mut thief = here.clone();
    here.post_own("/account/sign-out-others", &[])
        .await
        .sends_to("/account");
    let page = here.get("/account").await;
    assert_eq!(page.text.matches("last seen").count(), 1);
    thief
        .get("/account")
        .await
        .sends_to("/sign-in?next=/account");
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

/// S-59.
#[tokio::test]
async fn a_sixth_device_signs_out_the_first() {
    let app = app();
    let mut devices = Vec::new();
    for _ in 0..=MAX_DEVICES {
        let mut device = Browser::new(&app);
        device.post("/sign-in", &ADA).await.sends_to("/");
        devices.push(device);
    }
    devices[0]
        .get("/account")
        .await
        .sends_to("/sign-in?next=/account");
    for device in &mut devices[1..] {
        let page = device.get("/account").await;
        page.shows("You can be signed in on 5 devices.");
        assert_eq!(page.text.matches("last seen").count(), MAX_DEVICES);
    }
}

/// S-59.
#[tokio::test]
async fn devices_that_sign_in_at_once_are_not_more_than_five() {
    let app = app();
    let mut arrivals = JoinSet::new();
    for _ in 0..4 * MAX_DEVICES {
        let mut device = Browser::new(&app);
        arrivals.spawn(async move {
            device.post("/sign-in", &ADA).await.sends_to("/");
            device
        });
    }
    let mut signed_in = 0;
    for mut device in arrivals.join_all().await {
        signed_in += usize::from(device.get("/account").await.status == StatusCode::OK);
    }
    assert_eq!(signed_in, MAX_DEVICES);
}
