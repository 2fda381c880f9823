//! Tokens in headers instead of a cookie, for clients of an API.

use std::time::Duration;

use axum::body::Body;
use axum::response::AppendHeaders;
use cloakroom::test_util::{Fault, Operation};
use cloakroom::{ConfigError, MemoryStore, SameSite, Session, SessionLayer};
use http::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use crate::support::{Handler, Seen, Server, Settings};

const SESSION_TOKEN: HeaderName = HeaderName::from_static("session-token");

fn server() -> Server {
    Server::with(Settings::bearer)
}

fn request(path: &str, lines: &[(HeaderName, &str)]) -> Request<Body> {
    let mut request = Request::post(path).body(Body::empty()).unwrap();
    for (name, line) in lines {
        let line = HeaderValue::from_str(line).unwrap();
        request.headers_mut().append(name, line);
    }
    request
}

/// A client that keeps the token it is given, as the documentation says.
#[derive(Clone)]
struct Api {
    server: Server,
    token: Option<String>,
}

impl Api {
    fn new(server: &Server) -> Self {
        let server = server.clone();
        Self {
            server,
            token: None,
        }
    }

    async fn visitor(server: &Server) -> Self {
        let mut client = Self::new(server);
        client.get("/write").await.ok();
        client
    }

    async fn get(&mut self, path: &str) -> Seen {
        self.send(request(path, &[])).await
    }

    async fn act(&mut self, work: fn(&Session) -> cloakroom::Result<()>) -> Seen {
        let mut request = request("/act", &[]);
        let handler = Handler::new(move |session| std::future::ready(work(&session)));
        request.extensions_mut().insert(handler);
        self.send(request).await
    }

    async fn send(&mut self, mut request: Request<Body>) -> Seen {
        if let Some(token) = &self.token {
            let line = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
            request.headers_mut().insert(AUTHORIZATION, line);
        }
        let seen = self.server.send(request).await;
        match told(&seen.headers) {
            Told::Token(token) => self.token = Some(token),
            Told::Removal => self.token = None,
            Told::Nothing | Told::Vary => {}
        }
        seen
    }
}

#[derive(Debug, PartialEq)]
enum Told {
    Nothing,
    Vary,
    Token(String),
    Removal,
}

/// Reads the session's headers, which must fit together (S-80); never a cookie (S-11).
fn told(headers: &HeaderMap) -> Told {
    assert!(!headers.contains_key(SET_COOKIE));
    let all = |name| {
        let lines = headers.get_all(name).iter();
        lines.map(|line| line.to_str().unwrap()).collect::<Vec<_>>()
    };
    let vary = all(VARY);
    assert!(vary.iter().all(|line| *line != "Cookie"));
    let vary = vary.contains(&"Authorization");
    match (vary, &*all(CACHE_CONTROL), &*all(SESSION_TOKEN)) {
        (false, _, []) => Told::Nothing,
        (true, cache, []) if !cache.contains(&"no-store") => Told::Vary,
        (true, ["no-store"], [""]) => Told::Removal,
        (true, ["no-store"], [token]) => Told::Token((*token).to_owned()),
        mixed => panic!("headers that do not fit together: {mixed:?}"),
    }
}

/// S-11, S-13, S-36, S-52, S-80.
#[tokio::test]
async fn a_session_lives_in_headers() {
    let server = server();
    let mut client = Api::new(&server);
    assert_eq!(told(&client.get("/").await.ok().headers), Told::Nothing);
    let seen = client.get("/read").await.ok();
    assert_eq!(
        (seen.text(), told(&seen.headers)),
        ("anonymous", Told::Vary)
    );

    let seen = client.get("/write").await.ok();
    assert!(matches!(told(&seen.headers), Told::Token(_)));
    assert!(seen.headers[SESSION_TOKEN].is_sensitive());
    assert_eq!(client.token.as_ref().unwrap().len(), 48);
    let seen = client.get("/write").await.ok();
    assert_eq!(
        (&*seen.calls, told(&seen.headers)),
        ("load update", Told::Vary)
    );

    let mut anonymous = client.clone();
    let seen = client.get("/login").await.ok();
    assert!(matches!(told(&seen.headers), Told::Token(_)));
    assert_eq!(client.get("/read").await.text(), r#"["ada",2]"#);
    assert_eq!(anonymous.get("/read").await.text(), "anonymous");

    let mut replay = client.clone();
    let seen = client.get("/logout").await.ok();
    assert_eq!(told(&seen.headers), Told::Removal);
    assert!(seen.headers[SESSION_TOKEN].is_sensitive());
    assert_eq!(replay.get("/read").await.text(), "anonymous");
}

/// S-06, S-11: what is read is one `Authorization` line of the scheme `Bearer`.
#[tokio::test]
async fn the_credentials_are_read_as_their_standards_say() {
    let server = server();
    let live = Api::visitor(&server).await.token.unwrap();
    let other = Api::visitor(&server).await.token.unwrap();
    let table: &[(&[&str], bool)] = &[
        (&["Bearer LIVE"], true),
        (&["bearer LIVE"], true),
        (&["BEARER LIVE"], true),
        (&["bEaReR    LIVE"], true),
        (&["Bearer\tLIVE"], false),
        (&["BearerLIVE"], false),
        (&["Bearer=LIVE"], false),
        (&["Bearer LIVE="], false),
        (&["Bearer \"LIVE\""], false),
        (&["Bearer LIVE, Bearer LIVE"], false),
        (&["Bearer LIVE,"], false),
        (&["Basic LIVE"], false),
        (&["Bearers LIVE"], false),
        (&["Token LIVE"], false),
        (&["LIVE"], false),
        (&["Bearer"], false),
        (&["Bearer "], false),
        (&[""], false),
        // Which of two lines counts, a proxy in front may see differently.
        (&["Bearer LIVE", "Bearer LIVE"], false),
        (&["Bearer LIVE", "Bearer OTHER"], false),
        (&["Bearer LIVE", "Basic eA=="], false),
        (&["Basic eA==", "Bearer LIVE"], false),
    ];
    for (lines, found) in table {
        let with = |line: &&str| line.replace("LIVE", &live).replace("OTHER", &other);
        let lines: Vec<_> = lines.iter().map(with).collect();
        let lines: Vec<_> = lines.iter().map(|line| (AUTHORIZATION, &**line)).collect();
        let seen = server.send(request("/read", &lines)).await.ok();
        let expected = if *found {
            ("[null,1]", "load")
        } else {
            ("anonymous", "")
        };
        assert_eq!((seen.text(), &*seen.calls), expected, "{lines:?}");
        assert_eq!(told(&seen.headers), Told::Vary);
    }
}

/// S-11: one way or the other, never both; S-76: on the same store neither opens the other's.
#[tokio::test]
async fn a_cookie_is_not_looked_at_and_its_token_is_none_here() {
    let server = server();
    let cookies = server.beside(|settings| settings);
    let bearer = Api::visitor(&server).await.token.unwrap();
    let cookie = cookies.visitor().await.the_token();
    let as_cookie = |token: &str| (COOKIE, format!("__Host-id={token}"));
    let as_bearer = |token: &str| (AUTHORIZATION, format!("Bearer {token}"));
    let named = |token: &str| (COOKIE, format!("Authorization: Bearer={token}"));
    let table = [
        (&server, as_cookie(&bearer), "anonymous", ""),
        (&server, as_cookie(&cookie), "anonymous", ""),
        (&server, named(&bearer), "anonymous", ""),
        (&server, as_bearer(&cookie), "anonymous", "load"),
        (&server, as_bearer(&bearer), "[null,1]", "load"),
        (&cookies, as_bearer(&bearer), "anonymous", ""),
        (&cookies, as_bearer(&cookie), "anonymous", ""),
        (&cookies, as_cookie(&bearer), "anonymous", "load"),
        (&cookies, as_cookie(&cookie), "[null,1]", "load"),
    ];
    for (server, (name, line), text, calls) in table {
        let seen = server
            .send(request("/read", &[(name.clone(), &line)]))
            .await
            .ok();
        assert_eq!((seen.text(), &*seen.calls), (text, calls), "{name}: {line}");
    }
    for (name, token) in [("session-token", &bearer), ("x-session", &bearer)] {
        let name = HeaderName::from_static(name);
        let seen = server.send(request("/read", &[(name, token)])).await.ok();
        assert_eq!((seen.text(), &*seen.calls), ("anonymous", ""));
    }
}

/// S-35.
#[tokio::test]
async fn a_token_that_the_server_did_not_issue_is_not_adopted() {
    let server = server();
    let mut client = Api::new(&server);
    let sent = "A".repeat(48);
    client.token = Some(sent.clone());
    let seen = client.get("/write").await.ok();
    assert_eq!(seen.calls, "load create");
    assert_ne!(client.token.unwrap(), sent);
}

/// S-51: no token where a cookie without an age would not be sent either.
#[tokio::test]
async fn use_and_remembering_send_no_token_again() {
    let server = server();
    let mut client = Api::new(&server);
    client
        .act(|s| s.insert("n", 1).and(s.remember(Duration::from_secs(600))))
        .await
        .ok();
    for path in ["/read", "/write"] {
        server.clock.advance(Duration::from_secs(120));
        let seen = client.get(path).await.ok();
        assert_eq!(told(&seen.headers), Told::Vary, "{path}: {}", seen.calls);
    }
    // The end was moved all the same, to the limit that counts from the beginning.
    server.clock.advance(Duration::from_secs(359));
    assert_eq!(client.get("/read").await.text(), "[null,2]");
    server.clock.advance(Duration::from_secs(2));
    assert_eq!(client.get("/read").await.text(), "anonymous");
}

/// S-80: what the handler says does not make the token public, and its other headers stay.
#[tokio::test]
async fn the_layer_has_the_last_word_on_its_headers() {
    let server = server();
    let mut client = Api::new(&server);
    let mut request = request("/act", &[]);
    let handler = Handler::new(|session: Session| {
        session.insert("n", 1).unwrap();
        std::future::ready(AppendHeaders([
            ("session-token", "by hand"),
            ("session-token", "twice"),
            ("cache-control", "public, max-age=60"),
            ("cdn-cache-control", "max-age=60"),
            ("vary", "accept-encoding"),
            ("x-other", "stays"),
        ]))
    });
    request.extensions_mut().insert(handler);
    let seen = client.send(request).await.ok();
    assert!(matches!(told(&seen.headers), Told::Token(_)));
    assert_ne!(client.token.as_deref(), Some("by hand"));
    assert!(!seen.headers.contains_key("cdn-cache-control"));
    assert_eq!(seen.headers["x-other"], "stays");
    let vary: Vec<_> = seen.headers.get_all(VARY).iter().collect();
    assert_eq!(vary, ["accept-encoding", "Authorization"]);
}

#[test]
fn settings_of_cookies_are_refused() {
    type Change = fn(Builder) -> Builder;
    type Builder = cloakroom::SessionLayerBuilder<MemoryStore>;
    let table: [(Change, &str); 7] = [
        (|b| b.cookie_name("sid"), "cookie_name"),
        (|b| b.path("/shop"), "path"),
        (|b| b.domain("example.com"), "domain"),
        (|b| b.same_site(SameSite::Strict), "same_site"),
        (|b| b.partitioned(true), "partitioned"),
        (|b| b.persistent(true), "persistent"),
        (|b| b.insecure_http(), "insecure_http"),
    ];
    for (change, name) in table {
        let error = change(SessionLayer::builder(MemoryStore::new()).bearer())
            .build()
            .unwrap_err();
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
        assert!(matches!(error, ConfigError::CookieSetting { setting, .. } if setting == name));
    }
}

/// S-71: a client keeps its token while the store is down.
#[tokio::test]
async fn a_store_that_is_down_takes_no_token_away() {
    let server = server();
    let mut client = Api::visitor(&server).await;
    server.store.inject(Operation::Load, 1, Fault::Fail);
    let seen = client.get("/read").await;
    assert_eq!(
        (seen.status.as_u16(), told(&seen.headers)),
        (503, Told::Vary)
    );
    assert_eq!(client.get("/read").await.text(), "[null,1]");
}

#[tokio::test]
async fn a_session_can_be_loaded_before_the_handler() {
    let server = Server::with(|settings| settings.bearer().eager());
    let mut client = Api::visitor(&server).await;
    assert_eq!(client.get("/read").await.text(), "[null,1]");
}

/// S-79.
#[cfg(all(feature = "signed", feature = "encrypted"))]
#[tokio::test]
async fn tokens_in_headers_can_be_signed_and_encrypted() {
    use cloakroom::KeyRing;
    type Form = fn(Settings, KeyRing) -> Settings;
    let forms: [Form; 2] = [|b, keys| b.signed(keys), |b, keys| b.encrypted(keys)];
    for form in forms {
        let server = Server::with(|b| form(b.bearer(), KeyRing::generate().unwrap()));
        let mut client = Api::visitor(&server).await;
        assert_eq!(client.get("/read").await.text(), "[null,1]");
        let mut token = client.token.clone().unwrap();
        let last = if token.ends_with('A') { "B" } else { "A" };
        token.replace_range(token.len() - 1.., last);
        client.token = Some(token);
        let seen = client.get("/read").await.ok();
        assert_eq!((seen.text(), &*seen.calls), ("anonymous", ""));
    }
}
