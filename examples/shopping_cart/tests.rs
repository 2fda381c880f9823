//! The shop as its visitors know it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE};
use axum::http::{Method, StatusCode};
use cloakroom::MemoryStore;
use cloakroom::test_util::{Fault, FaultStore, Operation};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use self::client::{Answer, Browser};
use crate::app::app_with;
use crate::{Command, parse};

mod client;

const ADDRESS: [(&str, &str); 5] = [
    ("name", "Ada Lovelace"),
    ("email", "ada@example.com"),
    ("street", "12 St James's Square"),
    ("postcode", "SW1Y 4JH"),
    ("city", "London"),
];
const CHOICE: [(&str, &str); 2] = [("delivery", "express"), ("payment", "invoice")];
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
    ada.post("/theme", &[("theme", "dark"), ("back", "/cart")])
        .await
        .sends_to("/cart");
    ada.get("/cart").await.shows(r#"data-theme="dark""#);

    // Signing in keeps all that.
    let guest = ada.cookies();
    let page = ada.submit("/sign-in", &ADA).await;
    page.shows("Welcome, Ada.");
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
    page.shows("<h1>Delivery and payment</h1>");
    let page = ada
        .post("/checkout/delivery", &[("delivery", "express")])
        .await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.shows("Please choose how you pay.");
    page.shows(r#"value="express" required checked"#);
    ada.get("/checkout/address")
        .await
        .shows(r#"value="12 St James's Square""#);
    ada.get("/checkout/delivery")
        .await
        .shows(r#"value="express" required checked"#);
    let page = ada.submit("/checkout/delivery", &CHOICE).await;
    page.shows("<h1>Summary</h1>");
    page.shows("2 × Umbrella");
    page.shows("€58.90");

    // The order is shown once, and the cart is empty.
    ada.post("/checkout/summary", &[("total", "5890")])
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
        page.hides("Ada");
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
    browser.post("/theme", &[("theme", "auto")]).await;
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
                .post_slowly("/checkout/summary", &[("total", "4190")], arrived)
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
        .post("/checkout/delivery", &CHOICE)
        .await
        .sends_to("/checkout/summary");
    browser
}

#[tokio::test]
async fn a_confirmation_that_is_sent_twice_is_one_order() {
    let mut browser = ready_to_confirm(&app()).await;
    // A change of mind is no new order.
    browser
        .post("/checkout/delivery", &CHOICE)
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
                .post_slowly("/checkout/summary", &[("total", "4190")], together)
                .await
        });
    }
    for answer in clicks.join_all().await {
        answer.sends_to("/checkout/thanks");
    }
    // And once more, when the first one is done.
    browser
        .post("/checkout/summary", &[("total", "4190")])
        .await
        .sends_to("/checkout/thanks");
    browser
        .get("/checkout/thanks")
        .await
        .shows("<strong>1001</strong>");
    browser
        .post("/checkout/summary", &[("total", "4190")])
        .await
        .sends_to("/cart");
}

#[tokio::test]
async fn nobody_orders_for_another_total_than_they_saw() {
    let mut browser = ready_to_confirm(&app()).await;
    browser.post("/cart/add", &[("product", "hat")]).await;
    for seen in ["4190", "", "0", "a hat"] {
        let page = browser
            .submit("/checkout/summary", &[("total", seen)])
            .await;
        page.shows("Your cart has changed meanwhile.");
        page.shows("2 × Felt hat");
        assert_eq!(badge(&page), "2");
    }
}

#[tokio::test]
async fn steps_cannot_be_skipped() {
    let app = app();
    let mut browser = Browser::new(&app);
    for path in [
        "/checkout/address",
        "/checkout/delivery",
        "/checkout/summary",
    ] {
        browser.get(path).await.sends_to("/cart");
        browser.post(path, &[]).await.sends_to("/cart");
    }
    browser.get("/checkout/thanks").await.sends_to("/");
    browser = with_cart(&app, "hat").await;
    for path in ["/checkout/delivery", "/checkout/summary"] {
        browser.get(path).await.sends_to("/checkout/address");
        browser
            .post(path, &CHOICE)
            .await
            .sends_to("/checkout/address");
    }
    browser
        .post("/checkout/address", &ADDRESS)
        .await
        .sends_to("/checkout/delivery");
    browser
        .get("/checkout/summary")
        .await
        .sends_to("/checkout/delivery");
    browser
        .post("/checkout/summary", &[("total", "3200")])
        .await
        .sends_to("/checkout/delivery");
    browser
        .post("/checkout/delivery", &CHOICE)
        .await
        .sends_to("/checkout/summary");
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
    page.shows("Ada");
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
    let mut browser = with_cart(&app(), "hat").await;
    browser.post("/sign-in", &ADA).await.sends_to("/cart");
    let page = browser
        .submit(
            "/sign-in",
            &[("name", "grace"), ("password", "demo-password")],
        )
        .await;
    page.shows("Welcome, Grace.");
    assert_eq!(badge(&page), "0");
}

#[tokio::test]
async fn a_theme_is_set_at_once_and_given_up_again() {
    let mut browser = Browser::new(&app());
    browser.get("/").await.hides("data-theme");
    for theme in ["dark", "light"] {
        let page = browser
            .submit("/theme", &[("theme", theme), ("back", "/sign-in")])
            .await;
        page.shows(&format!(r#"data-theme="{theme}""#));
        page.shows("<h1>Sign in</h1>");
    }
    browser
        .submit("/theme", &[("theme", "auto"), ("back", "/")])
        .await
        .hides("data-theme");
}

#[tokio::test]
async fn a_theme_form_cannot_send_anybody_to_another_site() {
    let mut browser = Browser::new(&app());
    for back in [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "/sign-out",
        "",
    ] {
        browser
            .post("/theme", &[("theme", "dark"), ("back", back)])
            .await
            .sends_to("/");
    }
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
            "/theme",
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

#[tokio::test]
async fn what_is_typed_is_text_and_never_markup() {
    const EVIL: &str = r#""><script>alert('1')</script>"#;
    let mut browser = with_cart(&app(), "hat").await;
    let mut address = ADDRESS;
    address[0].1 = EVIL;
    let pages = [
        browser.submit("/checkout/address", &address).await,
        browser.get("/checkout/address").await,
        browser.submit("/checkout/delivery", &CHOICE).await,
        browser
            .submit("/checkout/summary", &[("total", "4190")])
            .await,
        browser
            .post("/sign-in", &[("name", EVIL), ("password", EVIL)])
            .await,
    ];
    for page in &pages {
        page.hides("<script");
    }
    for page in &pages[1..] {
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
    }
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
        browser.get("/gramophone").await.status,
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
        "/cart",
        "/sign-in",
        "/checkout/address",
        "/checkout/delivery",
        "/checkout/summary",
        "/nowhere",
        "/style.css",
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
        for inline in ["<script", "<style", " style=", " onclick="] {
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
    for path in ["/style.css", "/icon.svg", "/nowhere"] {
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
