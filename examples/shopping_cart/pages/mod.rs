//! The pages: they show what they are given, and know nothing of sessions. maud escapes all that is
//! written into them.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::catalogue::Product;
use crate::visitor::{Theme, Visitor};

pub(crate) mod account;
pub(crate) mod goods;
pub(crate) mod wizard;

/// Where a visitor can be when they choose a theme.
pub(crate) const PATHS: [&str; 6] = [
    "/",
    "/cart",
    "/sign-in",
    "/checkout/address",
    "/checkout/delivery",
    "/checkout/summary",
];

const SHOP: &str = "The Peg";

/// A page that needs no session, so that it can be shown when there is none to be had.
pub(crate) fn message(title: &str, text: &str) -> Markup {
    document(
        title,
        None,
        &html! {
            header.top { (brand()) }
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
        visitor.theme,
        &html! {
            a.skip href="#content" { "Skip to the content" }
            header.top {
                (brand())
                nav aria-label="Shop" {
                    a.cart-link href="/cart" {
                        "Cart " span.badge { (visitor.items) }
                    }
                    @if let Some(user) = visitor.user {
                        form method="post" action="/sign-out" {
                            span.who { (user.name) }
                            button.quiet { "Sign out" }
                        }
                    } @else {
                        a href="/sign-in" { "Sign in" }
                    }
                }
            }
            @if let Some(note) = &visitor.note {
                p.note role="status" { (note) }
            }
            main #content { (content) }
            footer { (theme_form(visitor.theme, path)) }
        },
    )
}

fn document(title: &str, theme: Option<Theme>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-theme=[theme.map(Theme::value)] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content=(theme.map_or("light dark", Theme::value));
                title { (title) " · " (SHOP) }
                link rel="icon" href="/icon.svg";
                link rel="stylesheet" href="/style.css";
            }
            body { (body) }
        }
    }
}

fn brand() -> Markup {
    html! { a.brand href="/" { (SHOP) span { "for rainy days" } } }
}

fn theme_form(theme: Option<Theme>, path: &str) -> Markup {
    let offers = [
        (None, "Automatic"),
        (Some(Theme::Light), "Light"),
        (Some(Theme::Dark), "Dark"),
    ];
    html! {
        form.themes method="post" action="/theme" {
            input type="hidden" name="back" value=(path);
            span #theme-label { "Theme" }
            div role="group" aria-labelledby="theme-label" {
                @for (offer, name) in offers {
                    button name="theme" value=(offer.map_or("auto", Theme::value))
                        aria-pressed=(offer == theme) { (name) }
                }
            }
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
    label: &'a str,
    kind: &'a str,
    autocomplete: &'a str,
    value: &'a str,
    mistake: Option<&'a str>,
    autofocus: bool,
}

fn field(field: &Field<'_>) -> Markup {
    let Field {
        name,
        label,
        kind,
        autocomplete,
        value,
        mistake,
        autofocus,
    } = *field;
    let mistake_id = mistake.map(|_| format!("{name}-mistake"));
    html! {
        div.field {
            label for=(name) { (label) }
            input #(name) name=(name) type=(kind) value=(value) autocomplete=(autocomplete) required
                maxlength=(crate::checkout::MAX_LEN) autofocus[autofocus]
                aria-invalid=[mistake.map(|_| "true")] aria-describedby=[mistake_id.as_deref()];
            @if let (Some(mistake), Some(id)) = (mistake, &mistake_id) {
                p.mistake id=(id) { (mistake) }
            }
        }
    }
}
