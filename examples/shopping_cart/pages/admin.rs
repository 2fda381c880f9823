//! Everybody's sessions. They are named by their public ids; nobody sees a token.

use std::time::SystemTime;

use cloakroom::CsrfToken;
use maud::{Markup, html};

use crate::pages::account::{Device, csrf, device_line, farewell};
use crate::pages::page as frame;
use crate::preferences::{Preferences, Text};
use crate::visitor::Visitor;

#[derive(Debug)]
pub(crate) struct Overview {
    /// Of all accounts.
    pub(crate) names: Vec<String>,
    /// Whose sessions are shown; empty for nobody's.
    pub(crate) user: String,
    pub(crate) devices: Vec<Device>,
    /// The numbers of the orders that were paid.
    pub(crate) paid: Vec<u32>,
    pub(crate) now: SystemTime,
}

pub(crate) fn page(visitor: &Visitor, token: &CsrfToken, overview: &Overview) -> Markup {
    let title = visitor.say("Administration", "Verwaltung");
    frame(
        visitor,
        title,
        "/admin",
        &html! {
            h1 { (title) }
            section aria-labelledby="accounts" {
                h2 #accounts { (visitor.say("Whose sessions?", "Wessen Sitzungen?")) }
                ul.names {
                    @for name in &overview.names {
                        li {
                            a href={ "/admin?user=" (name) }
                                aria-current=[(*name == overview.user).then_some("true")] { (name) }
                        }
                    }
                }
            }
            @if !overview.user.is_empty() { (sessions(visitor, token, overview)) }
            section aria-labelledby="everybody" {
                h2 #everybody { (visitor.say("Everybody", "Alle")) }
                p {
                    (visitor.say(
                        "Ends all sessions: those of guests with their carts, and yours.",
                        "Beendet alle Sitzungen: auch die der Gäste mit ihren Körben, und Ihre.",
                    ))
                }
                form method="post" action="/admin/sign-out-everyone" { (csrf(token))
                    button { (visitor.say("Sign everybody out", "Alle abmelden")) }
                }
            }
            section aria-labelledby="paid" {
                h2 #paid { (visitor.say("Orders that were paid", "Bezahlte Bestellungen")) }
                @if overview.paid.is_empty() {
                    p { (visitor.say("None so far.", "Noch keine.")) }
                } @else {
                    ul.names { @for number in &overview.paid { li { (number) } } }
                }
            }
        },
    )
}

fn sessions(visitor: &Visitor, token: &CsrfToken, overview: &Overview) -> Markup {
    let Overview {
        user, devices, now, ..
    } = overview;
    html! {
        section aria-labelledby="sessions" {
            h2 #sessions { (visitor.say("Sessions of", "Sitzungen von")) " " (user) }
            @if devices.is_empty() {
                p { (visitor.say("None.", "Keine.")) }
            } @else {
                ul.devices {
                    @for device in devices {
                        (device_line(visitor, token, device, "/admin/sign-out", *now))
                    }
                }
                form method="post" action="/admin/sign-out-user" { (csrf(token))
                    button name="user" value=(user) {
                        (visitor.say("Sign out everywhere", "Überall abmelden"))
                        span.hidden { ": " (user) }
                    }
                }
            }
        }
    }
}

/// After it there is no session to say it in.
pub(crate) fn everybody_left(preferences: Preferences) -> Markup {
    farewell(
        preferences,
        Text("Everybody is signed out", "Alle sind abgemeldet"),
        Text("You are, too.", "Auch Sie."),
    )
}
