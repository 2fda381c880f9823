//! Sign-in.

use maud::{Markup, html};

use crate::pages::{Field, field, page};
use crate::visitor::{DEMO_PASSWORD, Visitor};

/// The form. `refused` is the name that came with a wrong password; which of the two is wrong is
/// nobody's business.
pub(crate) fn sign_in(visitor: &Visitor, refused: Option<&str>) -> Markup {
    let name = Field {
        name: "name",
        label: "Name",
        kind: "text",
        autocomplete: "username",
        value: refused.unwrap_or_default(),
        mistake: None,
        autofocus: refused.is_none(),
    };
    let password = Field {
        name: "password",
        label: "Password",
        kind: "password",
        autocomplete: "current-password",
        value: "",
        mistake: refused.map(|_| "Name or password is not right."),
        autofocus: refused.is_some(),
    };
    page(
        visitor,
        "Sign in",
        "/sign-in",
        &html! {
            h1 { "Sign in" }
            p {
                "This is a demonstration. Sign in as " code { "ada" } " or " code { "grace" }
                " with the password " code { (DEMO_PASSWORD) } "."
                @if visitor.items > 0 { " What is in your cart stays there." }
            }
            form.sheet method="post" action="/sign-in" {
                (field(&name))
                (field(&password))
                div.choice {
                    input #remember name="remember" type="checkbox" value="yes";
                    label for="remember" { "Keep me signed in for 30 days" }
                }
                p.actions { button { "Sign in" } }
            }
        },
    )
}
