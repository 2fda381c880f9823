//! Signed and encrypted tokens: what was not made with a key of the ring is refused before the store
//! is asked.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cloakroom::{KeyRing, MemoryStore, SessionEvent, SessionLayer};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderValue, Request};

use crate::support::{Client, Log, Seen, Server, Settings, Told, bytes_of};

const OLD: &str = "k3Vw8ZrT1nXq6JmB0yHs5LcD9fGpQa2E";
const NEW: &str = "Wq7Lx2Nf9Rb4Tz6Kd1Vh8Yc3Mj5Ps0Ga";

fn ring(key: &str) -> KeyRing {
    KeyRing::new(key).unwrap()
}

type Form = fn(Settings, KeyRing) -> Settings;

const FORMS: [(&str, Form); 2] = [
    ("signed", |settings, keys| settings.signed(keys)),
    ("encrypted", |settings, keys| settings.encrypted(keys)),
];

fn server(form: Form) -> Server {
    Server::with(|settings| form(settings, ring(NEW)))
}

async fn read(server: &Server, line: impl AsRef<[u8]>) -> Seen {
    let line = HeaderValue::from_bytes(line.as_ref()).unwrap();
    let request = Request::get("/read").header(COOKIE, line);
    let request = request.body(axum::body::Body::empty()).unwrap();
    server.send(request).await.ok()
}

/// The value is no session: nothing is looked up, nothing removed, and a write begins a session.
async fn is_shed(server: &Server, value: &str) {
    let seen = read(server, format!("__Host-id={value}")).await;
    assert_eq!(
        (seen.text(), &*seen.calls, seen.told()),
        ("anonymous", "", Told::Vary),
        "{value}"
    );
}

/// S-84.
#[tokio::test]
async fn a_forged_value_is_told() {
    for (name, form) in FORMS {
        let events = Arc::<Mutex<Vec<&str>>>::default();
        let told = Arc::clone(&events);
        let observe = move |event: &SessionEvent| told.lock().unwrap().push(event.name());
        let server = Server::with(|settings| form(settings, ring(NEW)).on_event(observe));
        let client = server.visitor().await;
        let value = client.token().unwrap();
        let other = if value.ends_with('A') { 'E' } else { 'A' };
        let forged = format!("{}{other}", &value[..value.len() - 1]);
        events.lock().unwrap().clear();
        read(&server, format!("__Host-id={forged}")).await;
        assert_eq!(*events.lock().unwrap(), ["forged"], "{name}");
    }
}

#[tokio::test]
async fn a_session_lives_under_a_sealed_token() {
    for (name, form) in FORMS {
        let client = server(form).client();
        let created = client.get("/write").await.ok();
        assert_eq!((&*created.calls, created.told()), ("create", Told::Cookie));
        // S-13.
        assert!(created.headers[SET_COOKIE].is_sensitive());
        let value = client.the_token();
        assert_eq!(value.len(), if name == "signed" { 80 } else { 86 });

        let read = client.get("/read").await.ok();
        assert_eq!((&*read.calls, read.text()), ("load", "[null,1]"));
        let written = client.get("/write").await.ok();
        assert_eq!(
            (&*written.calls, written.told()),
            ("load update", Told::Vary)
        );
        // S-36.
        let anonymous = client.twin();
        client.get("/login").await.ok();
        assert_ne!(client.the_token(), value);
        assert_eq!(client.get("/read").await.text(), r#"["ada",2]"#);
        assert_eq!(anonymous.get("/read").await.text(), "anonymous");
        // S-52.
        let replay = client.twin();
        assert_eq!(client.get("/logout").await.ok().told(), Told::Removal);
        assert_eq!(replay.get("/read").await.text(), "anonymous");
    }
}

/// S-79, S-06: every neighbour of a live value, and everything that was not made here.
#[tokio::test]
async fn a_forged_value_costs_no_store_call() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    for (_, form) in FORMS {
        let server = server(form);
        let client = server.visitor().await;
        let value = client.the_token();
        for at in 0..value.len() {
            let mut forged = value.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            is_shed(&server, std::str::from_utf8(&forged).unwrap()).await;
        }
        let bytes = bytes_of(&value);
        let plain = server
            .beside(|settings| settings)
            .visitor()
            .await
            .the_token();
        let other_key = server.beside(|settings| form(settings, KeyRing::generate().unwrap()));
        let forged = [
            String::new(),
            // No way back to the unsigned form, neither of this session nor of a live one.
            URL_SAFE_NO_PAD.encode(&bytes[..36]),
            plain.clone(),
            format!("{plain}{}", &value[48..]),
            format!("{}{plain}", "A".repeat(value.len() - 48)),
            URL_SAFE_NO_PAD.encode(vec![0; bytes.len()]),
            value[..value.len() - 1].into(),
            value[1..].into(),
            format!("{value}="),
            format!("{value}A"),
            format!("\"{value}\""),
            other_key.visitor().await.the_token(),
        ];
        for value in forged {
            is_shed(&server, &value).await;
        }
        for (_, other_form) in FORMS
            .into_iter()
            .filter(|(_, other)| *other as usize != form as usize)
        {
            let other = server.beside(|settings| other_form(settings, ring(NEW)));
            is_shed(&server, &other.visitor().await.the_token()).await;
        }
        assert_eq!(client.get("/read").await.text(), "[null,1]");
    }
}

/// S-35: what a forged value brings along is not adopted.
#[tokio::test]
async fn a_write_under_a_forged_value_begins_another_session() {
    for (_, form) in FORMS {
        let server = server(form);
        let client = server.client();
        let sent = Server::with(|settings| form(settings, ring(OLD)))
            .visitor()
            .await
            .the_token();
        client.keep(&format!("__Host-id={sent}; Path=/; Secure"));
        let seen = client.get("/write").await.ok();
        assert_eq!((&*seen.calls, seen.told()), ("create", Told::Cookie));
        assert_ne!(client.the_token(), sent);
    }
}

/// S-79: the old key is accepted until it is removed, and what is made anew is made with the new one.
#[tokio::test]
async fn keys_are_replaced_without_losing_sessions() {
    for (_, form) in FORMS {
        let before = Server::with(|settings| form(settings, ring(OLD)));
        let with = |keys| before.beside(|settings| form(settings, keys));
        let both = with(ring(NEW).accept(OLD).unwrap());
        let after = with(ring(NEW));
        let at = |client: &Client, server: &Server| client.twin_at(server);

        let client = before.visitor().await;
        assert_eq!(at(&client, &both).get("/read").await.text(), "[null,1]");
        is_shed(&after, &client.the_token()).await;

        let renewed = at(&client, &both);
        renewed.get("/login").await.ok();
        is_shed(&before, &renewed.the_token()).await;
        let renewed = at(&renewed, &after);
        assert_eq!(renewed.get("/read").await.text(), r#"["ada",1]"#);
    }
}

/// S-76: the same keys on the same store, under another name.
#[tokio::test]
async fn a_value_holds_under_its_own_cookies_name() {
    for (_, form) in FORMS {
        let user = server(form);
        let admin = user.beside(|settings| form(settings.cookie_name("__Host-admin"), ring(NEW)));
        let client = user.client();
        client.get("/login").await.ok();
        let seen = read(&admin, format!("__Host-admin={}", client.the_token())).await;
        assert_eq!((seen.text(), &*seen.calls), ("anonymous", ""));
    }
}

/// S-30: at most four distinct values are verified, and only those that verify are looked up.
#[tokio::test]
async fn forged_values_beside_a_live_one() {
    for (_, form) in FORMS {
        let server = server(form);
        let live = server.visitor().await.the_token();
        let other = server.visitor().await.the_token();
        let forged: Vec<_> = "ABCD"
            .chars()
            .map(|c| c.to_string().repeat(live.len()))
            .collect();
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| forged[i].as_str());
        let table: [(&[&str], bool, &str); 7] = [
            (&[&live], true, "load"),
            (&[a, &live], true, "load"),
            (&[&live, a, b, c], true, "load"),
            (&[a, b, c, &live, &live, "x"], true, "load"),
            (&[&live, a, b, c, d], false, ""),
            (&[a, b, c, d], false, ""),
            (&[&live, &other], false, "load load"),
        ];
        for (values, found, calls) in table {
            let pairs: Vec<_> = values
                .iter()
                .map(|value| format!("__Host-id={value}"))
                .collect();
            let seen = read(&server, pairs.join("; ")).await;
            let expected = if found { "[null,1]" } else { "anonymous" };
            assert_eq!((seen.text(), &*seen.calls), (expected, calls), "{values:?}");
        }
    }
}

/// S-33: a header full of forged values is read, not verified.
#[tokio::test]
async fn ten_thousand_forged_values_cost_little() {
    for (_, form) in FORMS {
        let server = server(form);
        let live = server.visitor().await.the_token();
        let pairs: String = (0..10_000)
            .map(|i| format!("__Host-id={i:0width$}; ", width = live.len()))
            .collect();
        let start = Instant::now();
        let seen = read(&server, format!("{pairs}__Host-id={live}")).await;
        assert_eq!((seen.text(), &*seen.calls), ("anonymous", ""));
        let same = format!("__Host-id={}; ", "A".repeat(live.len())).repeat(10_000);
        let seen = read(&server, format!("{same}__Host-id={live}")).await;
        assert_eq!((seen.text(), &*seen.calls), ("[null,1]", "load"));
        // Far more than it takes, so that only work without a bound fails.
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

/// S-22.
#[tokio::test]
async fn the_longest_cookie_still_fits() {
    for (_, form) in FORMS {
        let name = "n".repeat(255);
        let server = Server::with(|settings| form(settings.cookie_name(&name), ring(NEW)));
        let cookie = server.client().get("/write").await.ok().cookie().unwrap();
        assert!(cookie.name.len() + cookie.token.len() < 4096);
    }
}

/// S-03: sealing takes no random bytes that could fail once the session is stored.
#[tokio::test]
async fn a_session_that_is_stored_is_always_told_to_its_client() {
    for (_, form) in FORMS {
        let left = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(1));
        let server = Server::with(|settings| {
            form(settings, ring(NEW)).entropy(move |bytes| {
                let take = |left: usize| left.checked_sub(1);
                let order = std::sync::atomic::Ordering::SeqCst;
                match left.fetch_update(order, order, take) {
                    Ok(_) => getrandom::fill(bytes).map_err(std::io::Error::other),
                    Err(_) => Err(std::io::Error::other("no random bytes")),
                }
            })
        });
        let client = server.client();
        assert_eq!(client.get("/write").await.ok().told(), Told::Cookie);
        let seen = client.get("/login").await;
        assert_eq!((seen.status.as_u16(), seen.told()), (503, Told::Vary));
        assert_eq!(client.get("/read").await.text(), "[null,1]");
    }
}

/// S-10: neither keys nor tokens, whatever is logged or shown.
#[tokio::test]
async fn keys_and_tokens_show_nowhere() {
    for (_, form) in FORMS {
        let log = Log::capture();
        let server = server(form);
        let client = server.visitor().await;
        let value = client.the_token();
        read(&server, format!("__Host-id={}", "A".repeat(value.len()))).await;
        client.get("/login").await.ok();
        let signed_in = client.the_token();
        client.get("/logout").await.ok();
        let settings = SessionLayer::builder(MemoryStore::new()).signed(ring(NEW));
        let shown = format!(
            "{settings:?} {:?} {:?}",
            ring(NEW),
            settings.clone().build()
        );
        let said = log.take() + &shown;
        assert!(said.contains("not made with a key"), "{said}");
        for secret in [NEW, &value, &signed_in, &value[..48], &signed_in[..48]] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}
