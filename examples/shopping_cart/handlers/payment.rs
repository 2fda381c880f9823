//! Messages of the payment provider.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde::Deserialize;

use crate::handlers::Shop;

/// The address that the provider is given.
pub(crate) const PATH: &str = "/hooks/payment";

/// Whether a request may come from another origin: this address alone, to the byte, since each other one is
/// somebody's session.
pub(crate) fn is_exempt(method: &Method, uri: &Uri) -> bool {
    method == Method::POST && uri.path() == PATH
}

#[derive(Debug, Deserialize)]
struct Message {
    r#type: String,
    data: Payment,
}

#[derive(Debug, Deserialize)]
struct Payment {
    order: u32,
}

pub(crate) async fn hear(State(shop): State<Shop>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if !shop.payments.verify(&headers, &body) {
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(message) = serde_json::from_slice::<Message>(&body) else {
        return StatusCode::UNPROCESSABLE_ENTITY;
    };
    if message.r#type == "payment.succeeded" && shop.payments.note(message.data.order) {
        tracing::info!(number = message.data.order, "order paid");
    }
    StatusCode::NO_CONTENT
}
