//! The administrator, who ends anybody's sessions (S-57).

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use cloakroom::test_util::TestClock;
use cloakroom::{MemoryStore, SessionLayer};

use super::client::Browser;
use super::{ADA, GRACE, app, app_on, badge, register, with_cart};
use crate::accounts::Administrator;
use crate::app::{MAX_DEVICES, Options, app_with};

const ROOT: [(&str, &str); 2] = [("name", "root"), ("password", "root-4711")];
const FORMS: [&str; 3] = [
    "/admin/sign-out",
    "/admin/sign-out-user",
    "/admin/sign-out-everyone",
];

fn app_of_root(clock: &TestClock) -> Router {
    let sessions = SessionLayer::builder(MemoryStore::new()).clock(clock.clone());
    crate::app::app(sessions, options_of_root())
}

fn options_of_root() -> Options {
    let [(_, name), (_, password)] = ROOT.map(|(field, value)| (field, value.to_owned()));
    Options {
        administrator: Some(Administrator { name, password }),
        ..Options::default()
    }
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

/// A customer who has registered the administrator's name at another shop on the same store, and the
/// administrator.
async fn namesakes(is_first: bool) -> (Router, Browser, Router, Browser) {
    let store = MemoryStore::new();
    let open = || app_with(store.clone(), options_of_root());
    let other = app_on(store.clone());
    let early = (!is_first).then(open);
    let customer = register(&other, "root").await;
    let app = early.unwrap_or_else(open);
    let root = root(&app).await;
    (other, customer, app, root)
}

/// S-57: shops that share a store do not share their accounts.
#[tokio::test]
async fn whoever_registers_the_administrator_s_name_at_another_shop_is_not_the_administrator() {
    for is_first in [true, false] {
        let (_, mut customer, app, mut root) = namesakes(is_first).await;
        let device = id(&mut root).await;
        let token = customer.csrf_token().await;
        customer.move_to(&app);
        customer.get("/").await.shows(">root</a>");
        for path in ["/admin", "/admin?user=root"] {
            let page = customer.get(path).await;
            assert_eq!(page.status, StatusCode::NOT_FOUND, "{path}");
        }
        let form = [
            ("csrf_token", &*token),
            ("device", &*device),
            ("user", "root"),
        ];
        for path in FORMS {
            let answer = customer.post(path, &form).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(root.get("/admin").await.status, StatusCode::OK);
    }
}

/// S-57.
#[tokio::test]
async fn the_administrator_s_account_is_out_of_reach_of_their_name_at_another_shop() {
    for is_first in [true, false] {
        let (_, mut customer, app, mut root) = namesakes(is_first).await;
        let (hers, device) = (id(&mut customer).await, id(&mut root).await);
        let token = customer.csrf_token().await;
        customer.move_to(&app);
        customer
            .get("/account")
            .await
            .sends_to("/sign-in?next=/account");
        customer.get("/sign-in").await.shows("<h1>Sign in</h1>");
        let form = [
            ("csrf_token", &*token),
            ("device", &*device),
            ("password", "cobol-1959"),
            ("current", "cobol-1959"),
            ("new", "cobol-2023"),
        ];
        for path in [
            "/account/confirm",
            "/account/sign-out",
            "/account/sign-out-others",
            "/account/password",
            "/account/close",
        ] {
            let answer = customer.post(path, &form).await;
            answer.sends_to("/sign-in?next=/account");
        }
        let page = customer
            .post("/sign-in", &[ROOT[0], ("password", "cobol-1959")])
            .await;
        page.shows("Name or password is not right.");

        // Nor is there anything of theirs in the account.
        let page = root.get("/account").await;
        assert_eq!(page.text.matches("last seen").count(), 1);
        root.get("/admin?user=root").await.hides(&hers);
        root.post("/sign-out", &[]).await;
        root.post("/sign-in", &ROOT).await.sends_to("/");
        assert_eq!(root.get("/admin").await.status, StatusCode::OK);
    }
}

/// S-57, S-59.
#[tokio::test]
async fn what_becomes_of_an_account_at_one_shop_does_not_reach_its_name_at_another() {
    let (other, mut customer, _, mut root) = namesakes(false).await;
    for _ in 0..MAX_DEVICES {
        let mut device = Browser::new(&other);
        let form = [ROOT[0], ("password", "cobol-1959")];
        device.post("/sign-in", &form).await.sends_to("/");
        customer = device;
    }
    customer
        .post_own("/account/sign-out-others", &[])
        .await
        .sends_to("/account");
    let page = customer.post_own("/account/close", &[]).await;
    page.shows("Your account is closed");
    assert_eq!(root.get("/admin").await.status, StatusCode::OK);

    let mut customer = register(&other, "root").await;
    root.post_own("/admin/sign-out-user", &[("user", "root")])
        .await
        .sends_to("/admin");
    assert_eq!(customer.get("/account").await.status, StatusCode::OK);
    // The administrator of all sessions ends theirs, too.
    let form = [("device", &*id(&mut customer).await)];
    root.post_own("/admin/sign-out", &form)
        .await
        .sends_to("/admin");
    customer
        .get("/account")
        .await
        .sends_to("/sign-in?next=/account");
}

/// S-57.
#[tokio::test]
async fn nobody_of_a_name_that_no_account_has_can_be_signed_out() {
    let app = app_of_root(&TestClock::new());
    let mut root = root(&app).await;
    for user in ["nobody", ""] {
        let answer = root
            .post_own("/admin/sign-out-user", &[("user", user)])
            .await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{user}");
    }
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
