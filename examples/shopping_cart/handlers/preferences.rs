//! Theme, language and currency.

use axum::Form;
use axum::response::Redirect;
use cloakroom::Typed;
use serde::Deserialize;

use crate::handlers::Answer;
use crate::pages;
use crate::preferences::{Currency, Language, Preferences, Theme};

#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(crate) struct Choice {
    theme: String,
    language: String,
    currency: String,
    /// The page that the form was on.
    back: String,
}

pub(crate) async fn choose(
    mut preferences: Typed<Preferences>,
    Form(form): Form<Choice>,
) -> Answer<Redirect> {
    let chosen = Preferences {
        theme: Theme::ALL.into_iter().find(|x| x.value() == form.theme),
        language: find(Language::ALL, Language::value, &form.language),
        currency: find(Currency::ALL, Currency::value, &form.currency),
    };
    // All three came with the form, so this is not an `update`. Who likes it as it is gets no session.
    if *preferences != chosen {
        preferences.set(chosen)?;
    }
    Ok(Redirect::to(pages::back(&form.back)))
}

fn find<T: Copy + Default, const N: usize>(
    offers: [T; N],
    value: impl Fn(T) -> &'static str,
    chosen: &str,
) -> T {
    let mut offers = offers.into_iter();
    offers
        .find(|offer| value(*offer) == chosen)
        .unwrap_or_default()
}
