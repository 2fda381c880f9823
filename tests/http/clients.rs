//! Sessions whose client is watched (S-85).

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use cloakroom::{ClientChange, OnClientChange, Session};
use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderValue, StatusCode};

use crate::support::{Client, Log, Seen, Server, Told};

fn agent(request: &Parts) -> String {
    let agent = request.headers.get(USER_AGENT);
    agent
        .map(|agent| agent.to_str().unwrap().to_owned())
        .unwrap_or_default()
}

type Changes = Arc<Mutex<Vec<ClientChange>>>;

/// A server that watches the browser's name, and what it noticed.
fn watching(decision: OnClientChange) -> (Server, Changes) {
    let changes = Changes::default();
    let noticed = Arc::clone(&changes);
    let decide = move |change: &ClientChange| {
        noticed.lock().unwrap().push(change.clone());
        decision
    };
    (Server::with(|b| b.watch_client(agent, decide)), changes)
}

async fn send(client: &Client, path: &str, agent: &'static str) -> Seen {
    let mut request = client.request(path);
    request
        .headers_mut()
        .insert(USER_AGENT, HeaderValue::from_static(agent));
    client.send(request).await.ok()
}

#[tokio::test]
async fn another_client_is_noticed_and_may_be_kept() {
    let (server, changes) = watching(OnClientChange::Keep);
    let client = server.client();
    send(&client, "/login", "Lynx").await;
    assert_eq!(send(&client, "/read", "Lynx").await.calls, "load");
    assert!(changes.lock().unwrap().is_empty());

    let log = Log::capture();
    let seen = send(&client, "/read", "Mosaic").await;
    assert_eq!(
        (seen.text(), &*seen.calls),
        (r#"["ada",null]"#, "load update")
    );
    assert!(log.take().contains("session comes from another client"));
    {
        let changes = changes.lock().unwrap();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].session, client.id());
        assert_eq!(changes[0].owner.as_deref(), Some("ada"));
    }
    // From now on it is the session's client, and the first one is another.
    assert_eq!(send(&client, "/read", "Mosaic").await.calls, "load");
    assert_eq!(changes.lock().unwrap().len(), 1);
    send(&client, "/read", "Lynx").await;
    assert_eq!(changes.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn another_client_may_be_refused_and_the_first_keeps_the_session() {
    let (server, _) = watching(OnClientChange::Refuse);
    let client = server.client();
    send(&client, "/login", "Lynx").await;
    let thief = client.twin();
    let seen = send(&thief, "/read", "Mosaic").await;
    assert_eq!((seen.text(), seen.told()), ("anonymous", Told::Vary));
    // What it writes goes into a session of its own.
    assert_eq!(send(&thief, "/write", "Mosaic").await.told(), Told::Cookie);
    assert_ne!(thief.id(), client.id());
    assert_eq!(send(&thief, "/read", "Mosaic").await.text(), "[null,1]");
    assert_eq!(
        send(&client, "/read", "Lynx").await.text(),
        r#"["ada",null]"#
    );
}

/// A header that anybody can send means nothing unless the application reads it.
#[tokio::test]
async fn a_forged_forwarded_header_has_no_effect() {
    for server in [Server::new(), watching(OnClientChange::Refuse).0] {
        let client = server.client();
        for address in ["198.51.100.1", "203.0.113.9"] {
            let mut request = client.request("/stepup");
            if client.token().is_none() {
                request = client.request("/login");
            }
            for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
                let address = HeaderValue::from_static(address);
                request.headers_mut().insert(name, address);
            }
            assert_eq!(client.send(request).await.status, 200);
        }
        assert_eq!(client.owner().await.as_deref(), Some("ada"));
    }
}

/// Off by default: nothing is read, noticed or stored.
#[tokio::test]
async fn clients_are_not_watched_unless_asked_for() {
    let client = Server::new().client();
    send(&client, "/write", "Lynx").await;
    assert_eq!(send(&client, "/read", "Mosaic").await.calls, "load");
    let data = client.record().await.unwrap().data;
    assert_eq!(&*data, br#"{"n":1}"#);
}

/// What is stored is a salted hash; it makes no session by itself, and stays with each kind of session.
#[tokio::test]
async fn a_fingerprint_is_stored_with_what_else_is_stored() {
    let (server, changes) = watching(OnClientChange::Keep);
    for path in ["/", "/read", "/logout"] {
        send(&server.client(), path, "Lynx").await;
    }
    server
        .client()
        .act(|s| s.insert("n", 1).and_then(|()| s.remove("n")).map(drop))
        .await
        .ok();
    assert_eq!(server.memory.len(), 0);
    let mut stored = Vec::new();
    for path in ["/write", "/login", "/write"] {
        let client = server.client();
        send(&client, path, "Lynx").await;
        client
            .look(|s| assert!(s.keys().iter().all(|key| key == "n")))
            .await;
        let data = client.record().await.unwrap().data;
        let text = String::from_utf8(data.to_vec()).unwrap();
        assert!(text.contains("cloakroom.client") && !text.contains("Lynx"));
        stored.push(text);
    }
    assert_ne!(stored[0], stored[2], "salted");

    // Also once the values of before were dropped, and in a new session.
    changes.lock().unwrap().clear();
    let drops: [fn(&Session) -> cloakroom::Result<()>; 3] = [
        |s| s.sign_in("ada").and_then(|()| s.sign_in("grace")),
        |s| s.clear().and(s.insert("n", 2)),
        |s| s.destroy().and(s.insert("n", 3)),
    ];
    for drop in drops {
        let client = server.client();
        client.act(|s| s.insert("n", 1)).await.ok();
        client.act(drop).await.ok();
        assert!(changes.lock().unwrap().is_empty());
        send(&client, "/read", "Mosaic").await;
        assert_eq!(changes.lock().unwrap().drain(..).count(), 1);
    }
}

/// A session that was cleared is watched on, also if the handle that cleared it knows no client.
#[tokio::test]
async fn clearing_the_values_does_not_forget_the_client() {
    type Clear = fn(Session) -> Pin<Box<dyn Future<Output = cloakroom::Result<()>> + Send>>;
    let clears: [Clear; 4] = [
        |s| Box::pin(async move { s.clear() }),
        |s| Box::pin(async move { s.insert("n", 1).and(s.clear()).and(s.insert("m", 1)) }),
        |s| {
            Box::pin(async move {
                s.clear()?;
                s.save().await?;
                s.insert("n", 1)
            })
        },
        |s| {
            Box::pin(async move {
                let again = s.reopen().await?;
                again.clear()?;
                again.save().await
            })
        },
    ];
    for clear in clears {
        let (server, _) = watching(OnClientChange::Refuse);
        let client = server.client();
        send(&client, "/login", "Lynx").await;
        let mut request = client.running(clear);
        let lynx = HeaderValue::from_static("Lynx");
        request.headers_mut().insert(USER_AGENT, lynx);
        client.send(request).await.ok();
        let thief = client.twin();
        assert_eq!(send(&thief, "/read", "Mosaic").await.text(), "anonymous");
    }
}

/// Also where another request's write comes between, and where the client is another one by now.
#[tokio::test]
async fn clearing_the_values_keeps_the_client_of_now() {
    let (server, changes) = watching(OnClientChange::Keep);
    let elsewhere = server.beside(|b| b);
    let client = server.client();
    send(&client, "/login", "Lynx").await;
    let other = client.twin_at(&elsewhere);
    let mut request = client.running(async move |s: Session| {
        other.act(|s| s.insert("m", 1)).await.ok();
        s.clear()
    });
    let mosaic = HeaderValue::from_static("Mosaic");
    request.headers_mut().insert(USER_AGENT, mosaic);
    client.send(request).await.ok();
    assert_eq!(changes.lock().unwrap().drain(..).count(), 1);
    send(&client, "/read", "Mosaic").await;
    assert!(changes.lock().unwrap().is_empty());
    send(&client, "/read", "Lynx").await;
    assert_eq!(changes.lock().unwrap().len(), 1);
}

/// A sign-in counts whatever the response says, and so does who signed in.
#[tokio::test]
async fn the_client_of_a_sign_in_whose_response_failed_is_noted() {
    for guest in [false, true] {
        let (server, _) = watching(OnClientChange::Refuse);
        let client = server.client();
        if guest {
            // From before clients were watched.
            let before = client.twin_at(&server.beside(|b| b));
            let seen = before.act(|s| s.insert("n", 1)).await.ok();
            client.take(&seen.headers);
        }
        let mut request = client.running(async |s: Session| {
            s.insert("n", 99)?;
            s.sign_in("ada")?;
            Ok::<_, cloakroom::Error>(StatusCode::INTERNAL_SERVER_ERROR)
        });
        let lynx = HeaderValue::from_static("Lynx");
        request.headers_mut().insert(USER_AGENT, lynx);
        client.send(request).await;
        let n = if guest { "1" } else { "null" };
        let expected = format!("[\"ada\",{n}]");
        assert_eq!(send(&client, "/read", "Lynx").await.text(), expected);
        let thief = client.twin();
        assert_eq!(send(&thief, "/read", "Mosaic").await.text(), "anonymous");
    }
}
