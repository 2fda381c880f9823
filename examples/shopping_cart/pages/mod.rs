//! The pages: they show what they are given, and know nothing of sessions. maud escapes all that is
//! written into them.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::catalogue::{self, Product};
use crate::checkout::Mistakes;
use crate::preferences::{Currency, Language, Preferences, Text, Theme};
use crate::visitor::Visitor;

pub(crate) mod about;
pub(crate) mod account;
pub(crate) mod admin;
pub(crate) mod goods;
pub(crate) mod wizard;

/// Where a visitor can be when they choose their preferences, besides the products' pages.
const PATHS: [&str; 12] = [
    "/",
    "/cart",
    "/sign-in",
    "/register",
    "/account",
    "/account/confirm",
    "/admin",
    "/checkout/address",
    "/checkout/delivery",
    "/checkout/payment",
    "/checkout/summary",
    "/about-this-session",
];

/// One of our own pages: a form must not be able to send anybody elsewhere. What the page was asked, behind
/// a `?`, is not taken along.
pub(crate) fn back(path: &str) -> &str {
    let path = path.split('?').next().unwrap_or_default();
    let product = path.strip_prefix("/product/");
    let known =
        PATHS.contains(&path) || product.is_some_and(|slug| catalogue::find(slug).is_some());
    if known { path } else { "/" }
}

const SHOP: &str = "The Peg";

/// A page that needs no session, so that it can be shown when there is none to be had.
pub(crate) fn message(title: &str, text: &str) -> Markup {
    document(
        title,
        Preferences::default(),
        &html! {
            header.top { (brand("for rainy days")) }
            main #content {
                h1 { (title) }
                p { (text) }
                p { a href="/" { "To the shop" } }
            }
        },
    )
}

fn page(visitor: &Visitor, title: &str, path: &str, content: &Markup) -> Markup {
    document(
        title,
        visitor.preferences,
        &html! {
            a.skip href="#content" { (visitor.say("Skip to the content", "Zum Inhalt")) }
            header.top {
                (brand(visitor.say("for rainy days", "für Regentage")))
                nav aria-label=(visitor.say("Shop", "Laden")) {
                    a.cart-link href="/cart" {
                        (visitor.say("Cart", "Korb")) " " span.badge { (visitor.items) }
                    }
                    @if let Some(user) = &visitor.user {
                        a.who href="/account" { (user) }
                        form method="post" action="/sign-out" {
                            button.quiet { (visitor.say("Sign out", "Abmelden")) }
                        }
                    } @else {
                        a href="/sign-in" { (visitor.say("Sign in", "Anmelden")) }
                    }
                }
            }
            @if let Some(note) = &visitor.note {
                p.note role="status" { (note) }
            }
            @if let Some(user) = &visitor.user { (ending(visitor, user)) }
            main #content { (content) }
            footer {
                (preferences_form(visitor, path))
                p {
                    a href="/about-this-session" {
                        (visitor.say("About this session", "Über diese Sitzung"))
                    }
                }
            }
        },
    )
}

/// For the script: whose page it is, and what it says before the session ends.
fn ending(visitor: &Visitor, user: &str) -> Markup {
    html! {
        div.note #ending role="alert" data-user=(user) hidden {
            (visitor.say(
                "You have not been here for a while, and will be signed out within two minutes.",
                "Sie waren eine Weile nicht hier und werden in spätestens zwei Minuten abgemeldet.",
            ))
            " "
            button type="button" { (visitor.say("Stay signed in", "Angemeldet bleiben")) }
        }
    }
}

fn document(title: &str, preferences: Preferences, body: &Markup) -> Markup {
    let Preferences {
        theme, language, ..
    } = preferences;
    html! {
        (DOCTYPE)
        html lang=(language.tag()) data-theme=[theme.map(Theme::value)] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content=(theme.map_or("light dark", Theme::value));
                title { (title) " · " (SHOP) }
                link rel="icon" href="/icon.svg";
                link rel="stylesheet" href="/style.css";
                script src="/shop.js" defer {}
            }
            body { (body) }
        }
    }
}

fn brand(claim: &str) -> Markup {
    html! { a.brand href="/" { (SHOP) span { (claim) } } }
}

fn preferences_form(visitor: &Visitor, path: &str) -> Markup {
    let Preferences {
        theme,
        language,
        currency,
    } = visitor.preferences;
    let automatic = visitor.say("Automatic", "Automatisch");
    html! {
        form.preferences #preferences method="post" action="/preferences" data-apply {
            input type="hidden" name="back" value=(path);
            label {
                (visitor.say("Theme", "Farben")) " "
                select name="theme" {
                    option value="auto" { (automatic) }
                    @for offer in Theme::ALL {
                        option value=(offer.value()) selected[theme == Some(offer)] {
                            (visitor.text(offer.name()))
                        }
                    }
                }
            }
            label {
                (visitor.say("Language", "Sprache")) " "
                select name="language" {
                    @for offer in Language::ALL {
                        option value=(offer.value()) lang=(offer.tag()) selected[offer == language] {
                            (offer.name())
                        }
                    }
                }
            }
            label {
                (visitor.say("Currency", "Währung")) " "
                select name="currency" {
                    @for offer in Currency::ALL {
                        option value=(offer.value()) selected[offer == currency] {
                            (offer.value().to_uppercase())
                        }
                    }
                }
            }
            button.quiet { (visitor.say("Apply", "Übernehmen")) }
        }
    }
}

fn picture(product: &Product) -> Markup {
    html! {
        svg.picture viewBox="0 0 64 64" aria-hidden="true" { (PreEscaped(product.picture)) }
    }
}

/// A text field with its label, and what is wrong with it.
struct Field<'a> {
    name: &'a str,
    label: Text,
    kind: &'a str,
    autocomplete: &'a str,
    value: &'a str,
}

fn field(visitor: &Visitor, field: &Field<'_>, mistakes: &Mistakes) -> Markup {
    let Field {
        name,
        label,
        kind,
        autocomplete,
        value,
    } = *field;
    let mistake = mistakes.of(name);
    let mistake_id = mistake.map(|_| format!("{name}-mistake"));
    html! {
        div.field {
            label for=(name) { (visitor.text(label)) }
            input #(name) name=(name) type=(kind) value=(value) autocomplete=(autocomplete) required
                maxlength=(crate::checkout::MAX_LEN) autofocus[mistakes.first() == Some(name)]
                aria-invalid=[mistake.map(|_| "true")] aria-describedby=[mistake_id.as_deref()];
            @if let (Some(mistake), Some(id)) = (mistake, &mistake_id) {
                p.mistake id=(id) { (visitor.text(mistake)) }
            }
        }
    }
}
