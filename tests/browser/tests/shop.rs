//! The shop in a browser: what its visitors do and see.

#[path = "../../support/postgres_server.rs"]
mod postgres_server;
#[path = "../../support/redis_server.rs"]
mod redis_server;
#[path = "../../support/server.rs"]
mod server;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use cloakroom_browser_tests::{Browser, Driver, Shop};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use self::postgres_server::PostgresServer;
use self::redis_server::RedisServer;

async fn add(browser: &Browser, shop: &Shop, product: &str) {
    browser.open(&shop.page("/")).await;
    browser.follow(&format!("#{product} button")).await;
}

async fn badge(browser: &Browser) -> String {
    browser
        .find(".badge")
        .await
        .text()
        .await
        .expect("it has a text")
}

async fn register(browser: &Browser, shop: &Shop, name: &str) {
    browser.open(&shop.page("/register")).await;
    browser.fill("#name", name).await;
    browser.fill("#password", "correct horse").await;
    browser.follow(".sheet button").await;
}

async fn sign_in(browser: &Browser, shop: &Shop, name: &str) {
    browser.open(&shop.page("/sign-in")).await;
    browser.fill("#name", name).await;
    browser.fill("#password", "correct horse").await;
    browser.follow(".sheet button").await;
}

/// Chooses in one of the lists at the foot of the page; that applies at once.
async fn prefer(browser: &Browser, list: &str, value: &str) {
    let page = browser.find("html").await;
    let css = format!("select[name={list}] option[value={value}]");
    browser
        .find(&css)
        .await
        .click()
        .await
        .expect("it can be chosen");
    browser.leave(&page).await;
}

async fn fill_address(browser: &Browser) {
    for (field, text) in [
        ("#name", "Ada Lovelace"),
        ("#email", "ada@example.com"),
        ("#street", "12 St James's Square"),
        ("#postcode", "SW1Y 4JH"),
        ("#city", "London"),
    ] {
        browser.fill(field, text).await;
    }
}

async fn to_the_summary(browser: &Browser, shop: &Shop) {
    browser.open(&shop.page("/checkout/address")).await;
    fill_address(browser).await;
    browser.follow(".sheet button").await;
    browser
        .find("#express")
        .await
        .click()
        .await
        .expect("it is a choice");
    browser.follow(".sheet button").await;
    browser
        .find("#invoice")
        .await
        .click()
        .await
        .expect("it is a choice");
    browser.follow(".sheet button").await;
}

#[tokio::test]
async fn the_whole_story_from_the_first_look_to_the_sign_out() {
    let (shop, driver) = (Shop::start("memory:"), Driver::start().await);
    let browser = driver.browser().await;

    // A guest looks around; there is no cookie before there is something to keep (S-68).
    browser.open(&shop.page("/")).await;
    browser.follow("#flask a").await;
    assert_eq!(browser.path().await, "/product/flask");
    browser.shows("Three quarters of a litre").await;
    assert_eq!(browser.cookie("id").await, None);

    // Two flasks and an umbrella.
    browser.fill("#quantity", "2").await;
    browser.follow(".product button").await;
    browser.shows("Flask is in your cart.").await;
    add(&browser, &shop, "umbrella").await;
    assert_eq!(badge(&browser).await, "3");
    browser.follow(".cart-link").await;
    browser.shows("€64.40").await;
    let page = browser.find("html").await;
    browser.fill("#quantity-flask", "1\n").await;
    browser.leave(&page).await;
    browser.shows("€44.45").await;

    // An account; the cart comes along.
    register(&browser, &shop, "ada-l").await;
    browser.shows("Welcome, ada-l.").await;
    browser.shows("€44.45").await;

    // The checkout keeps what was typed, and says what is missing.
    browser.follow("a.button").await;
    fill_address(&browser).await;
    browser.fill("#postcode", "1").await;
    browser.follow(".sheet button").await;
    browser
        .shows("Please enter 3 to 10 letters or digits.")
        .await;
    let focus = browser.run("return document.activeElement.id").await;
    assert_eq!(focus, json!("postcode"));
    to_the_summary(&browser, &shop).await;
    browser.shows("€54.35").await;
    browser.follow("main form button").await;
    browser.shows("Thank you!").await;
    assert_eq!(badge(&browser).await, "0");
    // Shown once.
    browser
        .0
        .refresh()
        .await
        .expect("the page is asked for again");
    assert_eq!(browser.path().await, "/");

    browser.follow(".top form button").await;
    browser.shows("You are signed out.").await;
    browser.shows("Sign in").await;
    browser.close().await;
}

/// S-65. Both forms are sent at one moment, which the tabs have agreed upon.
#[tokio::test]
async fn two_tabs_that_add_at_the_same_moment_lose_nothing() {
    let (shop, driver) = (Shop::start("memory:"), Driver::start().await);
    let browser = driver.browser().await;
    add(&browser, &shop, "bag").await;
    let first = browser.0.window().await.expect("there is a tab");
    let second = browser
        .0
        .new_window(true)
        .await
        .expect("there is room")
        .handle;
    for round in 1..=5 {
        let now = browser
            .run("return Date.now()")
            .await
            .as_u64()
            .expect("a number");
        for (tab, product) in [(&first, "hat"), (&second, "scarf")] {
            browser
                .0
                .switch_to_window(tab.clone())
                .await
                .expect("it is open");
            browser.open(&shop.page("/")).await;
            browser
                .run(&format!(
                    "const form = document.querySelector('#{product} button');\
                     setTimeout(() => form.click(), Math.max(0, {now} + 1500 - Date.now()));"
                ))
                .await;
        }
        for tab in [&first, &second] {
            browser
                .0
                .switch_to_window(tab.clone())
                .await
                .expect("it is open");
            browser
                .until("document.querySelector('.note') !== null || location.hash !== ''")
                .await;
        }
        browser.open(&shop.page("/cart")).await;
        assert_eq!(badge(&browser).await, (1 + 2 * round).to_string());
    }
    browser.close().await;
}

#[tokio::test]
async fn the_back_button_shows_each_step_as_it_was_left() {
    let (shop, driver) = (Shop::start("memory:"), Driver::start().await);
    let browser = driver.browser().await;
    add(&browser, &shop, "hat").await;
    to_the_summary(&browser, &shop).await;
    assert_eq!(browser.path().await, "/checkout/summary");
    for (path, script) in [
        (
            "/checkout/payment",
            "document.querySelector('#invoice').checked",
        ),
        (
            "/checkout/delivery",
            "document.querySelector('#express').checked",
        ),
        (
            "/checkout/address",
            "document.querySelector('#city').value === 'London'",
        ),
    ] {
        browser.0.back().await.expect("there is a page before");
        browser
            .until(&format!(
                "location.pathname === '{path}' && document.readyState === 'complete'"
            ))
            .await;
        browser.until(script).await;
    }
    // A change of mind on the way forward.
    browser.follow(".sheet button").await;
    browser
        .find("#pickup")
        .await
        .click()
        .await
        .expect("it is a choice");
    browser.follow(".sheet button").await;
    browser.follow(".sheet button").await;
    browser.shows("Pick up at our counter").await;
    browser.shows("€32.00").await;
    browser.close().await;
}

/// S-55, S-58, S-61: without a click, and long before the page would ask by itself.
#[tokio::test]
async fn a_page_that_is_signed_out_elsewhere_changes_by_itself() {
    let (mut shop, driver) = (Shop::start("memory:"), Driver::start().await);
    let (here, there) = (driver.browser().await, driver.browser().await);
    register(&here, &shop, "grace").await;
    sign_in(&there, &shop, "grace").await;
    there.open(&shop.page("/account")).await;
    assert_eq!(there.count(".devices li").await, 2);
    there.shows("this device").await;

    here.open(&shop.page("/account")).await;
    here.shows("Chrome, Linux").await;
    let page = there.find("html").await;
    let start = Instant::now();
    here.follow(".devices button").await;
    here.shows("The device is signed out.").await;
    assert_eq!(here.count(".devices li").await, 1);

    there.leave(&page).await;
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(there.path().await, "/sign-in");
    there.shows("You were away for a while").await;
    here.shows("Your devices").await;

    // They come back to where they were; and pages that listen do not hold the shop up.
    there.fill("#name", "grace").await;
    there.fill("#password", "correct horse").await;
    there.follow(".sheet button").await;
    assert_eq!(there.path().await, "/account");
    assert!(shop.stop());
    there.close().await;
    here.close().await;
}

/// S-55.
#[tokio::test]
async fn without_scripts_a_sign_out_elsewhere_is_seen_with_the_next_click() {
    let (shop, driver) = (Shop::start("memory:"), Driver::start().await);
    let here = driver.browser().await;
    let there = driver.browser_without_scripts().await;
    register(&here, &shop, "grace").await;
    there.open(&shop.page("/sign-in?next=/account")).await;
    there.fill("#name", "grace").await;
    there.fill("#password", "correct horse").await;
    let press = async |css: &str| {
        let button = there.find(css).await;
        button.click().await.expect("it can be seen");
    };
    press(".sheet button").await;
    there.source_has("this device").await;

    here.open(&shop.page("/account")).await;
    here.follow(".devices button").await;
    here.shows("The device is signed out.").await;
    press(".who").await;
    there.source_has("You were away for a while").await;
    there.close().await;
    here.close().await;
}

/// S-16, S-17, S-24.
#[tokio::test]
async fn the_browser_keeps_the_cookie_as_the_crate_means_it() {
    let (shop, driver) = (Shop::start("memory:"), Driver::start().await);
    let browser = driver.browser().await;
    add(&browser, &shop, "hat").await;
    let cookie = browser
        .cookie("id")
        .await
        .expect("there is something to keep");
    assert_eq!(cookie.http_only(), Some(true));
    assert_eq!(
        cookie.same_site().map(|site| site.to_string()).as_deref(),
        Some("Lax")
    );
    assert_eq!(cookie.path(), Some("/"));
    assert_eq!(cookie.domain(), Some("127.0.0.1"));
    assert_eq!(cookie.expires_datetime(), None);
    assert_eq!(browser.run("return document.cookie").await, json!(""));

    // "Keep me signed in" outlives the browser.
    register(&browser, &shop, "grace").await;
    browser.follow(".top form button").await;
    browser.open(&shop.page("/sign-in")).await;
    browser
        .find("#remember")
        .await
        .click()
        .await
        .expect("it is a choice");
    browser.fill("#name", "grace").await;
    browser.fill("#password", "correct horse").await;
    browser.follow(".sheet button").await;
    let cookie = browser.cookie("id").await.expect("she is signed in");
    assert!(cookie.expires_datetime().is_some());
    browser.close().await;
}

/// S-36.
#[tokio::test]
async fn a_stolen_cookie_is_worthless_after_the_sign_in() {
    let (shop, driver) = (Shop::start("memory:"), Driver::start().await);
    let (browser, thief) = (driver.browser().await, driver.browser().await);
    add(&browser, &shop, "hat").await;
    let stolen = browser
        .cookie("id")
        .await
        .expect("there is something to keep");
    thief.open(&shop.page("/style.css")).await;
    thief
        .0
        .add_cookie(stolen)
        .await
        .expect("it is a cookie of this site");
    thief.open(&shop.page("/cart")).await;
    assert_eq!(badge(&thief).await, "1");

    register(&browser, &shop, "grace").await;
    thief.open(&shop.page("/cart")).await;
    assert_eq!(badge(&thief).await, "0");
    thief.hides("grace").await;
    browser.open(&shop.page("/cart")).await;
    assert_eq!(badge(&browser).await, "1");
    thief.close().await;
    browser.close().await;
}

#[tokio::test]
async fn preferences_are_remembered() {
    let (shop, driver) = (Shop::start("memory:"), Driver::start().await);
    let browser = driver.browser().await;
    browser.open(&shop.page("/")).await;
    prefer(&browser, "theme", "dark").await;
    prefer(&browser, "language", "german").await;
    prefer(&browser, "currency", "gbp").await;
    for path in ["/", "/product/hat", "/cart"] {
        browser.open(&shop.page(path)).await;
        let paper = browser
            .run("return getComputedStyle(document.body).backgroundColor")
            .await;
        assert_eq!(paper, json!("rgb(21, 25, 28)"), "{path}");
    }
    browser.shows("Ihr Korb").await;
    browser.open(&shop.page("/product/hat")).await;
    browser.shows("27,20").await;
    browser.close().await;
}

#[tokio::test]
async fn the_shop_works_without_scripts() {
    let (shop, driver) = (Shop::start("memory:"), Driver::start().await);
    let browser = driver.browser_without_scripts().await;
    browser.open(&shop.page("/")).await;
    browser
        .find("#hat button")
        .await
        .click()
        .await
        .expect("a button");
    browser.source_has("Felt hat is in your cart.").await;
    browser
        .find("select[name=theme] option[value=dark]")
        .await
        .click()
        .await
        .expect("a choice");
    // The button that scripts make superfluous.
    browser
        .find("#preferences button")
        .await
        .click()
        .await
        .expect("it can be seen");
    browser.source_has("data-theme=\"dark\"").await;
    browser.close().await;
}

#[tokio::test]
async fn a_cart_in_a_file_outlives_the_shop() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("sqlite:{}", folder.path().join("cart.db").display());
    let driver = Driver::start().await;
    let browser = driver.browser().await;
    let mut shop = Shop::start(&store);
    let port = shop.port();
    add(&browser, &shop, "boots").await;
    shop.kill();

    let mut shop = Shop::start_at(port, &store);
    add(&browser, &shop, "hat").await;
    assert_eq!(badge(&browser).await, "2");
    // The browser's connection is open and idle.
    assert!(shop.stop());

    let shop = Shop::start_at(port, &store);
    browser.open(&shop.page("/cart")).await;
    browser.shows("Rubber boots").await;
    assert_eq!(badge(&browser).await, "2");
    browser.close().await;
}

#[tokio::test]
async fn two_shops_on_one_postgresql_serve_one_visitor() {
    two_shops_serve_one_visitor(&PostgresServer::start().url()).await;
}

#[tokio::test]
async fn two_shops_on_one_redis_serve_one_visitor() {
    two_shops_serve_one_visitor(&RedisServer::start(&[]).url()).await;
}

/// S-55, S-65. As behind a load balancer: cookies know no ports, so the browser takes both for one site.
async fn two_shops_serve_one_visitor(store: &str) {
    let (one, two) = (Shop::start(store), Shop::start(store));
    let driver = Driver::start().await;
    let browser = driver.browser().await;
    add(&browser, &one, "boots").await;

    let cookie = browser.cookie("id").await.expect("the cart is kept");
    let mut adding = JoinSet::new();
    for n in 0..20 {
        let shop = if n % 2 == 0 { &one } else { &two };
        let cookie = format!("id={}", cookie.value());
        adding.spawn(add_by_hand(shop.port(), cookie, "hat"));
    }
    for status in adding.join_all().await {
        assert_eq!(status, "HTTP/1.1 303 See Other");
    }
    browser.open(&two.page("/cart")).await;
    assert_eq!(badge(&browser).await, "21");

    browser.open(&one.page("/sign-in")).await;
    browser.fill("#name", "ada").await;
    browser.fill("#password", "demo-password").await;
    browser.follow(".sheet button").await;
    browser.open(&two.page("/account")).await;
    browser.shows("Your devices").await;
    assert_eq!(badge(&browser).await, "21");

    browser.follow("form[action='/sign-out'] button").await;
    browser.open(&one.page("/account")).await;
    assert_eq!(browser.path().await, "/sign-in");
    browser.close().await;
}

/// The status with which the shop answers to a browser's form.
async fn add_by_hand(port: u16, cookie: String, product: &str) -> String {
    let form = format!("product={product}");
    let request = format!(
        "POST /cart/add HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\
         Sec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{form}",
        form.len()
    );
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    let mut stream = stream.expect("the shop listens");
    let sent = stream.write_all(request.as_bytes()).await;
    sent.expect("the shop reads");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer).await;
    read.expect("the shop answers");
    answer.lines().next().unwrap_or_default().to_owned()
}

/// No page is wider than the window, every field has a name, and the pages can be looked at: they are
/// left in the target folder as pictures.
#[tokio::test]
async fn pages_fit_a_phone_and_a_desk() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&folder).expect("a folder");
    let (shop, driver) = (Shop::start("memory:"), Driver::start().await);
    let browser = driver.browser().await;
    register(&browser, &shop, "grace").await;
    for product in ["umbrella", "hat", "flask"] {
        add(&browser, &shop, product).await;
    }
    to_the_summary(&browser, &shop).await;
    for theme in ["light", "dark"] {
        browser.open(&shop.page("/cart")).await;
        prefer(&browser, "theme", theme).await;
        for (device, width, height) in [("desk", 1200, 1000), ("phone", 390, 844)] {
            browser
                .0
                .set_window_size(width, height)
                .await
                .expect("it has a size");
            for (name, path) in [
                ("list", "/"),
                ("product", "/product/umbrella"),
                ("cart", "/cart"),
                ("account", "/account"),
                ("confirm", "/account/confirm"),
                ("address", "/checkout/address"),
                ("delivery", "/checkout/delivery"),
                ("summary", "/checkout/summary"),
                ("about", "/about-this-session"),
                ("nowhere", "/nowhere"),
            ] {
                browser.open(&shop.page(path)).await;
                browser.until("document.readyState === 'complete'").await;
                let wide = browser
                    .run("return document.documentElement.scrollWidth - innerWidth")
                    .await;
                assert!(wide.as_i64() <= Some(0), "{path} on a {device}: {wide}");
                let nameless = "return [...document.querySelectorAll('input, select')].filter(field => \
                     field.type !== 'hidden' && !field.labels.length && !field.ariaLabel).length";
                assert_eq!(browser.run(nameless).await, json!(0), "{path}");
                let picture = browser.0.screenshot().await.expect("a picture");
                let file = folder.join(format!("{name}-{device}-{theme}.png"));
                std::fs::write(file, picture).expect("the folder can be written");
            }
        }
    }
    browser.close().await;
}
