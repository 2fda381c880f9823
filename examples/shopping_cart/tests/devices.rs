//! Several devices of one user.

use axum::http::StatusCode;

use super::client::{Answer, Browser};
use super::{ADA, GRACE, app, register};

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
