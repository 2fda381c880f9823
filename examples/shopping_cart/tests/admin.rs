//! The administrator, who ends anybody's sessions (S-57).

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use cloakroom::test_util::TestClock;
use cloakroom::{MemoryStore, SessionLayer};

use super::client::Browser;
use super::{ADA, GRACE, app, app_on, badge, register, with_cart};
use crate::accounts::Administrator;
use crate::app::Options;
use crate::vacate;

const ROOT: [(&str, &str); 2] = [("name", "root"), ("password", "root-4711")];
const FORMS: [&str; 3] = [
    "/admin/sign-out",
    "/admin/sign-out-user",
    "/admin/sign-out-everyone",
];

fn app_of_root(clock: &TestClock) -> Router {
    app_of_root_on(MemoryStore::new(), clock)
}

fn app_of_root_on(store: MemoryStore, clock: &TestClock) -> Router {
    let [(_, name), (_, password)] = ROOT.map(|(field, value)| (field, value.to_owned()));
    let options = Options {
        administrator: Some(Administrator { name, password }),
        ..Options::default()
    };
    let sessions = SessionLayer::builder(store).clock(clock.clone());
    crate::app::app(sessions, options)
}

async fn root(app: &Router) -> Browser {
    let mut root = Browser::new(app);
    root.post("/sign-in", &ROOT).await.sends_to("/");
    root
}

async fn id(browser: &mut Browser) -> String {
    let page = browser.get("/about-this-session").await;
    let (_, rest) = page
        .text
        .split_once("<dt>Id</dt> <dd><code>")
        .or_else(|| page.text.split_once("<dt>Id</dt><dd><code>"))
        .expect("the page shows the id");
    rest.split('<').next().unwrap_or_default().to_owned()
}

/// S-57.
#[tokio::test]
async fn nobody_but_the_administrator_finds_the_administration() {
    for app in [app(), app_of_root(&TestClock::new())] {
        let mut guest = with_cart(&app, "hat").await;
        let mut ada = Browser::new(&app);
        ada.post("/sign-in", &ADA).await;
        let page = ada.get("/account").await;
        page.hides("/admin");
        let device = id(&mut guest).await;
        for path in ["/admin", "/admin?user=ada"] {
            for browser in [&mut guest, &mut ada] {
                assert_eq!(browser.get(path).await.status, StatusCode::NOT_FOUND);
            }
        }
        for path in FORMS {
            let form = [("device", &*device), ("user", "ada")];
            assert_eq!(guest.post(path, &form).await.status, StatusCode::NOT_FOUND);
            let answer = ada.post_own(path, &form).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(badge(&guest.get("/").await), "1");
        assert_eq!(ada.get("/account").await.status, StatusCode::OK);
    }
}

/// S-57.
#[tokio::test]
async fn the_administrator_ends_one_session_all_of_a_user_and_those_of_everyone() {
    let app = app_of_root(&TestClock::new());
    let mut root = root(&app).await;
    root.get("/account").await.shows(r#"href="/admin""#);
    let mut grace = register(&app, "grace").await;
    let mut phone = Browser::new(&app);
    phone.post("/sign-in", &GRACE).await;
    let mut ada = Browser::new(&app);
    ada.post("/sign-in", &ADA).await;
    let mut guest = with_cart(&app, "hat").await;

    // Ids and nothing that would open a session.
    root.get("/admin").await.hides("last seen");
    let page = root.get("/admin?user=grace").await;
    assert_eq!(page.text.matches("last seen").count(), 2);
    for browser in [&mut grace, &mut phone] {
        page.shows(&id(browser).await);
    }
    for browser in [&root, &grace, &phone, &ada] {
        page.hides(browser.cookies().split_once('=').expect("a cookie").1);
    }
    root.get("/admin?user=nobody").await.shows("None.");

    let form = [("device", &*id(&mut phone).await)];
    root.post_own("/admin/sign-out", &form)
        .await
        .sends_to("/admin");
    root.get("/admin").await.shows("The session is ended.");
    phone
        .get("/account")
        .await
        .sends_to("/sign-in?next=/account");
    assert_eq!(grace.get("/account").await.status, StatusCode::OK);
    root.post_own("/admin/sign-out", &form).await;
    root.get("/admin").await.shows("It had ended already.");

    phone.post("/sign-in", &GRACE).await;
    root.post_own("/admin/sign-out-user", &[("user", "grace")])
        .await;
    root.get("/admin")
        .await
        .shows("grace is signed out everywhere.");
    for browser in [&mut grace, &mut phone] {
        browser
            .get("/account")
            .await
            .sends_to("/sign-in?next=/account");
    }
    assert_eq!(ada.get("/account").await.status, StatusCode::OK);

    // Not by mistake from the room in which they sit.
    root.post_own("/admin/sign-out-user", &[ROOT[0], ("user", "root")])
        .await
        .sends_to("/admin");
    root.get("/admin")
        .await
        .shows("root is signed out everywhere else.");

    let page = root.post_own("/admin/sign-out-everyone", &[]).await;
    page.shows("Everybody is signed out");
    for browser in [&mut root, &mut ada] {
        browser
            .get("/account")
            .await
            .sends_to("/sign-in?next=/account");
    }
    assert_eq!(badge(&guest.get("/").await), "0");
}

/// S-57, S-73.
#[tokio::test]
async fn administration_needs_a_fresh_sign_in() {
    let clock = TestClock::new();
    let app = app_of_root(&clock);
    let mut root = root(&app).await;
    let mut ada = Browser::new(&app);
    ada.post("/sign-in", &ADA).await;
    let form = [("device", &*id(&mut ada).await), ("user", "ada")];
    clock.advance(Duration::from_secs(601));
    root.get("/admin")
        .await
        .sends_to("/account/confirm?next=/admin");
    for path in FORMS {
        root.post_own(path, &form)
            .await
            .sends_to("/account/confirm");
    }
    assert_eq!(ada.get("/account").await.status, StatusCode::OK);

    root.get("/account/confirm?next=/admin")
        .await
        .shows(r#"name="next" value="/admin""#);
    root.post_own("/account/confirm", &[ROOT[1], ("next", "/admin")])
        .await
        .sends_to("/admin");
    root.get("/admin").await.shows("<h1>Administration</h1>");
    root.post_own("/admin/sign-out-user", &form)
        .await
        .sends_to("/admin");
    ada.get("/account").await.sends_to("/sign-in?next=/account");
}

/// S-57: sessions outlive the process, accounts do not.
#[tokio::test]
async fn whoever_had_the_administrator_s_name_before_is_signed_out() {
    let store = MemoryStore::new();
    let mut customer = register(&app_on(store.clone()), "root").await;
    assert_eq!(vacate(store.clone(), "root").await.ok(), Some(1));
    customer.move_to(&app_of_root_on(store, &TestClock::new()));
    assert_eq!(customer.get("/admin").await.status, StatusCode::NOT_FOUND);
    customer
        .get("/account")
        .await
        .sends_to("/sign-in?next=/account");
}

/// S-83.
#[tokio::test]
async fn the_forms_of_the_administration_are_for_its_own_page() {
    let app = app_of_root(&TestClock::new());
    let mut root = root(&app).await;
    let mut ada = Browser::new(&app);
    ada.post("/sign-in", &ADA).await;
    let token = ada.csrf_token().await;
    for path in FORMS {
        for token in ["", &*token] {
            let answer = root
                .post(path, &[("user", "ada"), ("csrf_token", token)])
                .await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        }
    }
    assert_eq!(ada.get("/account").await.status, StatusCode::OK);
}
