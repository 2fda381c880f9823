//! The routes, and the layers around them.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::middleware::{from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cloakroom::store::{SessionStore, WhenFull};
use cloakroom::{NoTouch, SessionLayer, SessionLayerBuilder};
use tower_http::csrf::{CsrfLayer, ProtectionError};
use tower_http::trace::{DefaultMakeSpan, DefaultOnResponse, TraceLayer};
use tracing::Level;

use crate::accounts::{Accounts, Administrator};
use crate::checkout::OrderNumbers;
use crate::closing::Closing;
use crate::handlers::{Shop, about, account, admin, goods, payment, preferences, session, wizard};
use crate::payments::{PaymentKey, Payments};
use crate::watched::{Watched, watch};
use crate::{client, pages};

/// On how many devices somebody can be signed in.
pub(crate) const MAX_DEVICES: usize = 5;

/// What the shop is told when it opens.
#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) administrator: Option<Administrator>,
    pub(crate) payment_key: Option<PaymentKey>,
    pub(crate) closing: Closing,
}

/// The shop, with its sessions in this store.
pub(crate) fn app_with(store: impl SessionStore, options: Options) -> Router {
    // `Watched` shows what the store is asked; `SessionLayer::builder(store)` is all that is needed.
    app(SessionLayer::builder(Watched(store)), options)
}

pub(crate) fn app<S: SessionStore>(sessions: SessionLayerBuilder<S>, options: Options) -> Router {
    let customers = Arc::new(Accounts::new(options.administrator.as_ref()));
    let watched = Arc::clone(&customers);
    let sessions = sessions
        // This example is opened at http://127.0.0.1, where curl and Safari refuse cookies that are
        // `Secure`. In production serve https and delete this line: whoever can read a cookie on its
        // way is signed in.
        .insecure_http()
        .sign_in_page("/sign-in")
        .step_up_page("/account/confirm")
        .max_sessions_per_owner(MAX_DEVICES, WhenFull::EvictOldest)
        .watch_client(
            |request| client::device(&request.headers),
            move |change| client::decide(change, &watched),
        )
        .error_response(session_failed)
        .build()
        .expect("these settings fit together");
    let shop = Shop {
        accounts: customers,
        numbers: Arc::new(OrderNumbers::default()),
        payments: Arc::new(Payments::new(options.payment_key)),
        sessions: sessions.sessions(),
        closing: options.closing,
    };

    Router::new()
        .merge(shopping())
        .merge(accounts())
        .merge(checkout())
        .merge(administration())
        .merge(own_session())
        // From here on nobody asks for the session, so it costs nothing.
        .route(payment::PATH, post(payment::hear))
        .with_state(shop)
        .merge(files())
        .fallback(async || not_found())
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(16 * 1024))
        .layer(sessions)
        .layer(from_fn(client::remember))
        .layer(from_fn(watch))
        // Outside of the session: what another site sends never reaches it. No other origin is trusted.
        .layer(
            CsrfLayer::new()
                .with_insecure_bypass(payment::is_exempt)
                .with_rejection_response(cross_site),
        )
        .layer(map_response(security_headers))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(DefaultMakeSpan::new().level(Level::INFO))
                .on_response(DefaultOnResponse::new().level(Level::INFO)),
        )
}

fn shopping() -> Router<Shop> {
    Router::new()
        .route("/", get(goods::list))
        .route("/product/{slug}", get(goods::product))
        .route("/cart", get(goods::cart))
        .route("/cart/add", post(goods::add))
        .route("/cart/quantity", post(goods::set_quantity))
        .route("/cart/remove", post(goods::remove))
        .route("/preferences", post(preferences::choose))
        .route("/about-this-session", get(about::page))
}

fn accounts() -> Router<Shop> {
    let sign_in = get(account::sign_in_form).post(account::sign_in);
    let register = get(account::register_form).post(account::register);
    let confirm = get(account::confirm_form).post(account::confirm);
    Router::new()
        .route("/sign-in", sign_in)
        .route("/sign-out", post(account::sign_out))
        .route("/register", register)
        .route("/account", get(account::account))
        .route("/account/confirm", confirm)
        .route("/account/sign-out", post(account::sign_out_device))
        .route("/account/sign-out-others", post(account::sign_out_others))
        .route("/account/password", post(account::change_password))
        .route("/account/close", post(account::close_account))
}

fn checkout() -> Router<Shop> {
    let address = get(wizard::address).post(wizard::save_address);
    let delivery = get(wizard::delivery).post(wizard::save_delivery);
    let payment = get(wizard::payment).post(wizard::save_payment);
    let summary = get(wizard::summary).post(wizard::confirm);
    Router::new()
        .route("/checkout/address", address)
        .route("/checkout/delivery", delivery)
        .route("/checkout/payment", payment)
        .route("/checkout/summary", summary)
        .route("/checkout/thanks", get(wizard::thanks))
}

fn administration() -> Router<Shop> {
    Router::new()
        .route("/admin", get(admin::page))
        .route("/admin/sign-out", post(admin::sign_out_session))
        .route("/admin/sign-out-user", post(admin::sign_out_user))
        .route("/admin/sign-out-everyone", post(admin::sign_out_everyone))
}

/// What the script of a page asks about the page's session.
fn own_session() -> Router<Shop> {
    Router::new()
        .route("/session/left", get(session::left))
        .route("/session/events", get(session::events))
        // Pages ask by themselves: somebody who has left the room must be signed out in time.
        .route_layer(NoTouch)
        .route("/session/stay", post(session::stay))
}

fn files() -> Router {
    let css = || file("text/css; charset=utf-8", include_str!("style.css"));
    let js = || file("text/javascript; charset=utf-8", include_str!("shop.js"));
    let icon = || file("image/svg+xml", include_str!("icon.svg"));
    Router::new()
        .route("/style.css", get(css))
        .route("/shop.js", get(js))
        .route("/icon.svg", get(icon))
}

async fn file(content_type: &'static str, content: &'static str) -> impl IntoResponse {
    (
        [
            (CONTENT_TYPE, content_type),
            (CACHE_CONTROL, "public, max-age=300"),
        ],
        content,
    )
}

/// The page in place of the handler's when a session could not be read or stored.
fn session_failed(error: &cloakroom::Error) -> Response {
    let status = error.status();
    let advice = match status {
        StatusCode::UNAUTHORIZED => "Please sign in first.",
        StatusCode::SERVICE_UNAVAILABLE => {
            "We cannot get at your cart just now. It is not lost: please try again in a moment."
        }
        StatusCode::FORBIDDEN => {
            "This form is not of your session any more. Please open the page again."
        }
        StatusCode::CONFLICT => {
            "Something changed in another window. Please go back and try again."
        }
        StatusCode::PAYLOAD_TOO_LARGE => "That was more than we can keep for you.",
        _ => "Something went wrong on our side. Please try again.",
    };
    message(status, "Sorry!", advice)
}

fn cross_site(_: ProtectionError) -> Response {
    message(
        StatusCode::FORBIDDEN,
        "That came from another site",
        "We did nothing, in case it was not you. Please use the forms of this shop.",
    )
}

pub(crate) fn not_found() -> Response {
    message(
        StatusCode::NOT_FOUND,
        "Not found",
        "We have no such page or product.",
    )
}

async fn wrong_method() -> Response {
    message(
        StatusCode::METHOD_NOT_ALLOWED,
        "Nothing to see here",
        "This address takes a form. Please begin at the shop's first page.",
    )
}

fn message(status: StatusCode, title: &str, text: &str) -> Response {
    (status, pages::message(title, text)).into_response()
}

async fn security_headers(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, HeaderValue); 3] = [
        (
            HeaderName::from_static("content-security-policy"),
            HeaderValue::from_static(
                "default-src 'self'; object-src 'none'; base-uri 'none'; \
                 form-action 'self'; frame-ancestors 'none'",
            ),
        ),
        (
            HeaderName::from_static("x-content-type-options"),
            HeaderValue::from_static("nosniff"),
        ),
        (
            HeaderName::from_static("referrer-policy"),
            HeaderValue::from_static("same-origin"),
        ),
    ];
    response.headers_mut().extend(HEADERS);
    // Pages are made for one visitor: after a sign-out "back" must not bring them up again.
    response
        .headers_mut()
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
