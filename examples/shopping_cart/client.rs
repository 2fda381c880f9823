//! Which browser a request comes from: for the list of devices, and because a session that somebody is
//! signed in to stays in the browser where they signed in.

use std::cell::Cell;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use axum::middleware::Next;
use axum::response::Response;
use cloakroom::{ClientChange, OnClientChange};

use crate::accounts::Accounts;

tokio::task_local! {
    /// Whether the request's session was refused to its browser.
    static REFUSED: Cell<bool>;
}

/// Around the session layer, which decides when a handler asks for the session.
pub(crate) async fn remember(request: Request, next: Next) -> Response {
    REFUSED.scope(Cell::new(false), next.run(request)).await
}

pub(crate) fn is_refused() -> bool {
    REFUSED.try_with(Cell::get).unwrap_or_default()
}

/// A session that comes from another browser than before: its cookie was stolen, or its owner plays with the
/// developer tools. A password tells which. A guest's session opens nothing, and stays.
pub(crate) fn decide(change: &ClientChange, accounts: &Accounts) -> OnClientChange {
    let Some(owner) = &change.owner else {
        return OnClientChange::Keep;
    };
    accounts.warn(owner);
    // Outside of a request nobody asks.
    let _ = REFUSED.try_with(|refused| refused.set(true));
    OnClientChange::Refuse
}

/// Which browser it says it is, and on what. Good enough to know one's own devices again, and
/// without the version: an update must sign nobody out.
pub(crate) fn device(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or("");
    // Each of them also says that it is those below it.
    let browsers = [
        ("Edg/", "Edge"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ];
    let systems = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS", "Mac"),
        ("Linux", "Linux"),
    ];
    let find = |list: &[(&str, &'static str)]| {
        let found = list.iter().find(|(mark, _)| agent.contains(mark));
        found.map(|(_, name)| *name)
    };
    match (find(&browsers), find(&systems)) {
        (Some(browser), Some(system)) => format!("{browser}, {system}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_by_its_browser_and_its_system() {
        let name = |agent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, agent.parse().expect("a header's value"));
            device(&headers)
        };
        let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
        assert_eq!(name(firefox), "Firefox, Linux");
        let chrome = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                      Chrome/140.0.0.0 Safari/537.36";
        assert_eq!(name(chrome), "Chrome, Windows");
        let safari = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 \
                      (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1";
        assert_eq!(name(safari), "Safari, iPhone");
        assert_eq!(name("curl/8.5.0"), "curl");
        assert_eq!(device(&HeaderMap::new()), "?");
    }
}
