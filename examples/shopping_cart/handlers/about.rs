//! The session shows itself.

use axum::extract::State;
use cloakroom::Session;
use maud::Markup;

use crate::handlers::{Answer, Shop};
use crate::pages;
use crate::pages::about::Facts;
use crate::visitor::Visitor;
use crate::watched::asked;

pub(crate) async fn page(session: Session, State(shop): State<Shop>) -> Answer<Markup> {
    let visitor = Visitor::of(&session)?;
    let mut values = Vec::new();
    for key in session.keys() {
        let value: Option<serde_json::Value> = session.get(&key)?;
        values.push((key, value.unwrap_or_default()));
    }
    let asked = asked();
    let devices = match session.owner() {
        Some(owner) => Some(shop.sessions.list(&owner).await?.len()),
        None => None,
    };
    let facts = Facts {
        id: session.id(),
        created: session.created_at(),
        expires: session.expires_at(),
        authenticated: session.authenticated_at(),
        values,
        asked,
        devices,
    };
    Ok(pages::about::page(&visitor, &facts))
}
