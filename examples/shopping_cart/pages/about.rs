//! What a session is, seen from the inside.

use std::time::SystemTime;

use cloakroom::SessionId;
use maud::{Markup, html};

use crate::pages::page as frame;
use crate::visitor::Visitor;
use crate::watched::Asked;

#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) id: Option<SessionId>,
    pub(crate) created: Option<SystemTime>,
    pub(crate) expires: Option<SystemTime>,
    pub(crate) authenticated: Option<SystemTime>,
    pub(crate) values: Vec<(String, serde_json::Value)>,
    /// What the store was asked for this page before it was made.
    pub(crate) asked: Asked,
    /// How many sessions the user has, if there is one.
    pub(crate) devices: Option<usize>,
}

fn facts_of(visitor: &Visitor, facts: &Facts) -> Markup {
    html! {
        @if let Some(id) = facts.id {
            p {
                (visitor.say(
                    "The cookie holds this id, which is no secret, and a secret, which is not in the store: \
                     only its digest is.",
                    "Das Cookie enthält diese Nummer, die nicht geheim ist, und ein Geheimnis, von dem im \
                     Speicher nur der Hash liegt.",
                ))
            }
            dl.facts {
                dt { (visitor.say("Id", "Nummer")) } dd { code { (id) } }
                dt { (visitor.say("Begun", "Begonnen")) } dd { (time(facts.created)) }
                dt { (visitor.say("Ends", "Endet")) }
                dd {
                    (time(facts.expires)) " "
                    (visitor.say("unless it is used before", "wenn sie bis dahin nicht benutzt wird"))
                }
                dt { (visitor.say("Owner", "Inhaber")) }
                dd {
                    @match &visitor.user {
                        Some(user) => {
                            (user) ", " (visitor.say("signed in", "angemeldet")) " "
                            (time(facts.authenticated))
                        }
                        None => { (visitor.say("nobody is signed in", "niemand ist angemeldet")) }
                    }
                }
                @if let Some(devices) = facts.devices {
                    dt { (visitor.say("Sessions", "Sitzungen")) }
                    dd { (devices) " " (visitor.say("of this user", "hat dieser Nutzer")) }
                }
            }
        } @else {
            p {
                (visitor.say(
                    "You have none. It begins, and your browser gets a cookie, when there is something \
                     to remember.",
                    "Sie haben keine. Sie beginnt, und Ihr Browser bekommt ein Cookie, sobald es etwas zu \
                     merken gibt.",
                ))
            }
        }
    }
}

pub(crate) fn page(visitor: &Visitor, facts: &Facts) -> Markup {
    let title = visitor.say("About this session", "Über diese Sitzung");
    frame(
        visitor,
        title,
        "/about-this-session",
        &html! {
            h1 { (title) }
            (facts_of(visitor, facts))
            h2 { (visitor.say("What it holds", "Was sie enthält")) }
            @if facts.values.is_empty() {
                p { (visitor.say("Nothing.", "Nichts.")) }
            }
            dl.facts {
                @for (key, value) in &facts.values {
                    dt { (key) } dd { code { (value) } }
                }
            }
            h2 { (visitor.say("What the store was asked", "Was der Speicher gefragt wurde")) }
            ol {
                @for (operation, time) in &facts.asked {
                    li { code { (operation) } " " (format!("{:.3}", time.as_secs_f64() * 1000.0)) " ms" }
                }
            }
            p {
                (visitor.say(
                    "So far: changes are stored when the page is done. The header",
                    "Bis hierher: Änderungen werden gespeichert, wenn die Seite fertig ist. Die Kopfzeile",
                ))
                " " code { "Server-Timing" } " "
                (visitor.say(
                    "of every response has all of it; the developer tools of your browser draw it.",
                    "jeder Antwort enthält alles; die Entwicklerwerkzeuge Ihres Browsers zeichnen sie.",
                ))
            }
        },
    )
}

fn time(at: Option<SystemTime>) -> String {
    at.map(httpdate::fmt_http_date).unwrap_or_default()
}
