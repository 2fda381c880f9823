//! Sign-in, and what belongs to an account.

use std::time::SystemTime;

use cloakroom::{CsrfToken, SessionId};
use maud::{Markup, html};

use crate::accounts::DEMO;
use crate::checkout::Mistakes;
use crate::pages::goods::no_session;
use crate::pages::{Field, document, field, page};
use crate::preferences::{Preferences, Text};
use crate::visitor::{Ended, Visitor};

const PASSWORD: Text = Text("Password", "Passwort");

fn name_field(value: &str) -> Field<'_> {
    Field {
        name: "name",
        label: Text("Name", "Name"),
        kind: "text",
        autocomplete: "username",
        value,
    }
}

fn password_field<'a>(name: &'a str, label: Text, autocomplete: &'a str) -> Field<'a> {
    Field {
        name,
        label,
        kind: "password",
        autocomplete,
        value: "",
    }
}

/// The form, with the name that was typed before.
pub(crate) fn sign_in(
    visitor: &Visitor,
    name: &str,
    next: &str,
    ended: Option<Ended>,
    mistakes: &Mistakes,
) -> Markup {
    page(
        visitor,
        visitor.say("Sign in", "Anmelden"),
        "/sign-in",
        &html! {
            h1 { (visitor.say("Sign in", "Anmelden")) }
            @if let Some(ended) = ended { (no_session(visitor, ended)) }
            p {
                (visitor.say("This is a demonstration: you can be", "Dies ist eine Vorführung: Sie können"))
                " " code { (DEMO.0) } " "
                (visitor.say("with the password", "sein, mit dem Passwort"))
                " " code { (DEMO.1) } ", "
                (visitor.say("or", "oder")) " "
                a href="/register" { (visitor.say("open an account", "ein Konto eröffnen")) } "."
                @if visitor.items > 0 {
                    " " (visitor.say("What is in your cart stays there.", "Was im Korb ist, bleibt darin."))
                }
            }
            form.sheet method="post" action="/sign-in" {
                input type="hidden" name="next" value=(next);
                (field(visitor, &name_field(name), mistakes))
                (field(visitor, &password_field("password", PASSWORD, "current-password"), mistakes))
                (remember(visitor))
                p.actions { button { (visitor.say("Sign in", "Anmelden")) } }
            }
        },
    )
}

fn remember(visitor: &Visitor) -> Markup {
    html! {
        div.choice {
            input #remember name="remember" type="checkbox" value="yes";
            label for="remember" {
                (visitor.say("Keep me signed in for 30 days", "30 Tage angemeldet bleiben"))
            }
        }
    }
}

pub(crate) fn register(visitor: &Visitor, name: &str, mistakes: &Mistakes) -> Markup {
    page(
        visitor,
        visitor.say("Open an account", "Konto eröffnen"),
        "/register",
        &html! {
            h1 { (visitor.say("Open an account", "Konto eröffnen")) }
            p {
                (visitor.say(
                    "It lasts as long as this demonstration runs. Please do not use a password of yours.",
                    "Es besteht, solange diese Vorführung läuft. Bitte kein Passwort verwenden, das Sie anderswo haben.",
                ))
            }
            form.sheet method="post" action="/register" {
                (field(visitor, &name_field(name), mistakes))
                (field(visitor, &password_field("password", PASSWORD, "new-password"), mistakes))
                (remember(visitor))
                p.actions {
                    a href="/sign-in" { (visitor.say("I have one", "Ich habe eines")) }
                    button { (visitor.say("Open", "Eröffnen")) }
                }
            }
        },
    )
}

/// A session of the account.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) id: SessionId,
    pub(crate) name: String,
    pub(crate) signed_in: Option<SystemTime>,
    pub(crate) seen: SystemTime,
    /// The one that is looking.
    pub(crate) here: bool,
}

/// Goes into each form of a page that only its owner may send.
pub(crate) fn csrf(token: &CsrfToken) -> Markup {
    html! { input type="hidden" name=(CsrfToken::FIELD) value=(token); }
}

/// What an account's page shows.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) devices: Vec<Device>,
    /// How many there may be.
    pub(crate) max_devices: usize,
    /// A session of theirs came from another browser.
    pub(crate) is_warned: bool,
    pub(crate) is_administrator: bool,
    pub(crate) now: SystemTime,
}

pub(crate) fn account(
    visitor: &Visitor,
    token: &CsrfToken,
    account: &Account,
    mistakes: &Mistakes,
) -> Markup {
    let Account {
        devices,
        max_devices,
        now,
        ..
    } = account;
    let current = password_field(
        "current",
        Text("Password until now", "Bisheriges Passwort"),
        "current-password",
    );
    let new = password_field(
        "new",
        Text("New password", "Neues Passwort"),
        "new-password",
    );
    page(
        visitor,
        visitor.say("Your account", "Ihr Konto"),
        "/account",
        &html! {
            h1 { (visitor.say("Your account", "Ihr Konto")) }
            @if account.is_warned {
                p.away {
                    (visitor.say(
                        "One of your sessions was used in another browser than the one that you signed in \
                         with. We did not let it in. If it was not you, please sign out all others and \
                         change your password.",
                        "Eine Ihrer Sitzungen wurde in einem anderen Browser benutzt als dem, in dem Sie \
                         sich angemeldet haben. Wir haben ihn nicht eingelassen. Falls Sie das nicht waren, \
                         melden Sie bitte alle anderen ab und ändern Ihr Passwort.",
                    ))
                }
            }
            @if account.is_administrator {
                p { a href="/admin" { (visitor.say("Administration", "Verwaltung")) } }
            }
            section aria-labelledby="devices" {
                h2 #devices { (visitor.say("Your devices", "Ihre Geräte")) }
                p {
                    (visitor.say("You can be signed in on", "Sie können auf")) " " (max_devices) " "
                    (visitor.say(
                        "devices. One more signs out the one that signed in first.",
                        "Geräten angemeldet sein. Eines mehr meldet das ab, das sich zuerst angemeldet hat.",
                    ))
                }
                ul.devices {
                    @for device in devices {
                        (device_line(visitor, token, device, "/account/sign-out", *now))
                    }
                }
                @if devices.len() > 1 || account.is_warned {
                    form method="post" action="/account/sign-out-others" { (csrf(token))
                        button { (visitor.say("Sign out all others", "Alle anderen abmelden")) }
                    }
                }
            }
            section aria-labelledby="password" {
                h2 #password { (visitor.say("Change your password", "Passwort ändern")) }
                p {
                    (visitor.say(
                        "Your other devices will be signed out.",
                        "Ihre anderen Geräte werden abgemeldet.",
                    ))
                }
                form.sheet method="post" action="/account/password" { (csrf(token))
                    (field(visitor, &current, mistakes))
                    (field(visitor, &new, mistakes))
                    p.actions { button { (visitor.say("Change", "Ändern")) } }
                }
            }
            section aria-labelledby="close" {
                h2 #close { (visitor.say("Close your account", "Konto schließen")) }
                form method="post" action="/account/close" { (csrf(token))
                    button.quiet { (visitor.say("Close it", "Schließen")) }
                }
            }
        },
    )
}

/// A device, and a button of a form with this action to sign it out.
pub(crate) fn device_line(
    visitor: &Visitor,
    token: &CsrfToken,
    device: &Device,
    action: &str,
    now: SystemTime,
) -> Markup {
    html! {
        li {
            div {
                strong { (device.name) }
                @if device.here { " " span.badge { (visitor.say("this device", "dieses Gerät")) } }
                p {
                    (visitor.say("last seen", "zuletzt gesehen")) " " (ago(visitor, device.seen, now))
                    @if let Some(at) = device.signed_in {
                        ", " (visitor.say("signed in", "angemeldet")) " " (ago(visitor, at, now))
                    }
                }
            }
            @if !device.here {
                form method="post" action=(action) { (csrf(token))
                    button.quiet name="device" value=(device.id) {
                        (visitor.say("Sign out", "Abmelden")) span.hidden { " " (device.name) }
                    }
                }
            }
        }
    }
}

fn ago(visitor: &Visitor, at: SystemTime, now: SystemTime) -> String {
    let minutes = now.duration_since(at).unwrap_or_default().as_secs() / 60;
    let (number, english, german) = match minutes {
        0 => return visitor.say("just now", "gerade eben").to_owned(),
        1..60 => (minutes, "min ago", "min"),
        60..1440 => (minutes / 60, "h ago", "h"),
        _ => (minutes / 1440, "d ago", "Tagen"),
    };
    match visitor.preferences.language.tag() {
        "de" => format!("vor {number} {german}"),
        _ => format!("{number} {english}"),
    }
}

pub(crate) fn confirm(
    visitor: &Visitor,
    token: &CsrfToken,
    next: &str,
    mistakes: &Mistakes,
) -> Markup {
    page(
        visitor,
        visitor.say("Is it you?", "Sind Sie es?"),
        "/account/confirm",
        &html! {
            h1 { (visitor.say("Is it you?", "Sind Sie es?")) }
            p {
                (visitor.say(
                    "It is a while since you signed in. Please show your password once more, and then try again.",
                    "Ihre Anmeldung ist eine Weile her. Bitte geben Sie Ihr Passwort noch einmal ein, und versuchen Sie es dann erneut.",
                ))
            }
            form.sheet method="post" action="/account/confirm" { (csrf(token))
                input type="hidden" name="next" value=(next);
                (field(visitor, &password_field("password", PASSWORD, "current-password"), mistakes))
                p.actions {
                    a href="/account" { (visitor.say("Back", "Zurück")) }
                    button { (visitor.say("It is me", "Ich bin es")) }
                }
            }
        },
    )
}

/// The last page of an account.
pub(crate) fn goodbye(preferences: Preferences) -> Markup {
    farewell(
        preferences,
        Text("Your account is closed", "Ihr Konto ist geschlossen"),
        Text(
            "All your devices are signed out.",
            "Alle Ihre Geräte sind abgemeldet.",
        ),
    )
}

/// A page for when there is no session any more.
pub(crate) fn farewell(preferences: Preferences, title: Text, text: Text) -> Markup {
    let say = |text| preferences.language.say(text);
    let title = say(title);
    document(
        title,
        preferences,
        &html! {
            main #content {
                h1 { (title) }
                p { (say(text)) }
                p { a href="/" { (say(Text("To the shop", "Zum Laden"))) } }
            }
        },
    )
}
