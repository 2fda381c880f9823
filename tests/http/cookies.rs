//! The `Cookie` header as clients and attackers send it, and the `Set-Cookie` header as browsers take
//! it, over the whole stack.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use cloakroom::{MemoryStore, SameSite, Session, SessionLayer, SessionLayerBuilder};
use cookie_store::CookieStore;
use http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use proptest::prelude::*;
use tower::ServiceExt as _;
use url::Url;

use crate::support::{Log, Seen, Server, SetCookie, Settings, Told, bytes_of, id_of};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A request with these `Cookie` lines, byte for byte.
async fn send(server: &Server, path: &str, lines: &[&[u8]]) -> Seen {
    let mut request = Request::get(path).body(Body::empty()).unwrap();
    for line in lines {
        request
            .headers_mut()
            .append(COOKIE, HeaderValue::from_bytes(line).unwrap());
    }
    server.send(request).await
}

async fn read(server: &Server, line: impl AsRef<[u8]>) -> Seen {
    send(server, "/read", &[line.as_ref()]).await.ok()
}

/// A token that is well-formed and was never given out.
fn unknown_token() -> String {
    use base64::Engine as _;
    let mut bytes = [0; 36];
    getrandom::fill(&mut bytes).unwrap();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// S-06.
#[tokio::test]
async fn a_malformed_token_is_anonymous_and_costs_no_store_call() {
    let server = Server::new();
    let token = server.visitor().await.the_token();
    let hex: String = bytes_of(&token)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let at = |i: usize, text: &str| [&token[..i], text, &token[i + 1..]].concat();
    let malformed = [
        String::new(),
        " ".into(),
        "=".into(),
        "0".into(),
        "-1".into(),
        "{}".into(),
        "true".into(),
        "null".into(),
        "deleted".into(),
        "undefined".into(),
        "' OR 1=1 --".into(),
        "../../etc/passwd".into(),
        id_of(&token).to_string(),
        hex,
        token[..47].into(),
        token[1..].into(),
        format!("{token}A"),
        format!("{token}="),
        format!("{token}=="),
        format!("={token}"),
        format!("{token}{token}"),
        format!("\"{token}\""),
        format!("'{token}'"),
        format!("s:{token}"),
        format!("{token}.signature"),
        at(0, "+"),
        at(20, "/"),
        at(20, "="),
        at(20, "%41"),
        at(20, " "),
        at(20, "\t"),
        at(20, "."),
        at(47, "="),
        at(46, "é"),
        "A".repeat(47),
        "A".repeat(49),
        "=".repeat(48),
        "A".repeat(10_000),
    ];
    for value in malformed {
        let seen = read(&server, format!("__Host-id={value}")).await;
        assert_eq!(
            (seen.text(), &*seen.calls, seen.told()),
            ("anonymous", "", Told::Vary),
            "{value}"
        );
    }
    assert_eq!(
        read(&server, format!("__Host-id={token}")).await.text(),
        "[null,1]"
    );
}

/// S-06: a token has one spelling. No other character at any place opens the session.
#[tokio::test]
async fn no_neighbour_of_a_live_token_authenticates() {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let server = Server::new();
    let token = server.visitor().await.the_token().into_bytes();
    for at in 0..token.len() {
        for other in ALPHABET.iter().filter(|other| **other != token[at]) {
            let mut neighbour = token.clone();
            neighbour[at] = *other;
            let seen = read(&server, [b"__Host-id=", &*neighbour].concat()).await;
            assert_eq!(seen.text(), "anonymous");
        }
    }
}

/// S-09.
#[tokio::test]
async fn a_digest_read_out_of_the_store_is_no_token() {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let client = Server::new().visitor().await;
    let server = &client.server;
    let id = client.id();
    let digest = *client.record().await.unwrap().digest.as_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let with_id = |secret: &[u8]| [id.as_bytes(), secret].concat();
    let attempts: [Vec<u8>; 9] = [
        URL_SAFE_NO_PAD.encode(with_id(&digest[..20])).into(),
        URL_SAFE_NO_PAD.encode(with_id(&digest[12..])).into(),
        URL_SAFE_NO_PAD.encode(with_id(&digest)).into(),
        URL_SAFE_NO_PAD.encode(digest).into(),
        STANDARD.encode(digest).into(),
        hex.clone().into(),
        hex[..48].into(),
        format!("{id}{hex}").into(),
        // Raw, as far as a header can carry it.
        digest.iter().map(|byte| byte | 0x80).collect(),
    ];
    for attempt in attempts {
        let seen = read(server, [b"__Host-id=", &*attempt].concat()).await;
        assert_eq!(seen.text(), "anonymous");
    }
}

/// S-11: the token is read from the `Cookie` header and nowhere else.
#[tokio::test]
async fn a_token_anywhere_but_in_the_session_cookie_is_not_looked_at() {
    let server = Server::new();
    let token = server.visitor().await.the_token();
    let header = |name: HeaderName, value: String| {
        let request = Request::post("/read").header(name, value);
        request.body(axum::body::Body::empty()).unwrap()
    };
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let mut with_form = Request::post("/read").header(form[0].0, form[0].1);
    with_form = with_form.header("content-length", token.len() + 3);
    let requests = [
        Request::get(format!("/read?sid={token}&id={token}&__Host-id={token}"))
            .body(axum::body::Body::empty())
            .unwrap(),
        with_form
            .body(axum::body::Body::from(format!("id={token}")))
            .unwrap(),
        header(AUTHORIZATION, format!("Bearer {token}")),
        header(HeaderName::from_static("x-session"), token.clone()),
        header(HeaderName::from_static("__host-id"), token.clone()),
        header(SET_COOKIE, format!("__Host-id={token}")),
        header(
            HeaderName::from_static("cookie2"),
            format!("__Host-id={token}"),
        ),
        header(
            COOKIE,
            format!("id={token}; sid={token}; session={token}; __Secure-id={token}"),
        ),
        header(COOKIE, token.clone()),
    ];
    for request in requests {
        let shown = format!("{request:?}");
        let seen = server.send(request).await.ok();
        assert_eq!((seen.text(), &*seen.calls), ("anonymous", ""), "{shown}");
    }
    let path = server.client().get(&format!("/read/{token}")).await;
    assert_eq!((path.status, &*path.calls), (StatusCode::NOT_FOUND, ""));
}

/// S-13, S-15, S-16, S-17, S-19, S-24: cookie and removal, with all defaults.
#[tokio::test]
async fn the_default_cookie_has_the_safe_attributes_and_no_others() {
    let client = Server::new().client();
    let created = client.get("/write").await;
    let removed = client.get("/logout").await;
    for seen in [&created, &removed] {
        assert!(seen.headers[SET_COOKIE].is_sensitive());
        assert_eq!(seen.cookie().unwrap().name, "__Host-id");
    }
    let created = created.cookie().unwrap();
    assert_eq!(created.token.len(), 48);
    assert_eq!(
        created.attributes,
        ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]
    );
    let removed = removed.cookie().unwrap().attributes;
    let expires = "Expires=Thu, 01 Jan 1970 00:00:00 GMT";
    assert_eq!(
        removed,
        [
            expires,
            "HttpOnly",
            "Max-Age=0",
            "Path=/",
            "SameSite=Lax",
            "Secure"
        ]
    );
}

/// S-15, S-16, S-17, S-24: an age takes the place of nothing.
#[tokio::test]
async fn a_persistent_cookie_has_the_same_attributes() {
    let server = Server::with(|b| b.persistent(true));
    let cookie = server.client().get("/write").await.ok().cookie().unwrap();
    assert_eq!(
        cookie.attributes,
        [
            "HttpOnly",
            "Max-Age=3600",
            "Path=/",
            "SameSite=Lax",
            "Secure"
        ]
    );
}

/// S-17: `SameSite` is written on every cookie, as configured.
#[tokio::test]
async fn same_site_is_always_written() {
    for (same_site, written) in [
        (SameSite::Strict, "SameSite=Strict"),
        (SameSite::Lax, "SameSite=Lax"),
        (SameSite::None, "SameSite=None"),
    ] {
        let client = Server::with(|b| b.same_site(same_site)).client();
        for path in ["/write", "/login", "/logout"] {
            let cookie = client.get(path).await.ok().cookie().unwrap();
            assert!(
                cookie.attributes.iter().any(|a| a == written),
                "{path} {cookie:?}"
            );
        }
    }
}

/// S-18: plain http is for development, and says so in the cookie's name.
#[tokio::test]
async fn insecure_http_has_a_name_of_its_own_and_no_secure() {
    let cookie = Server::with(SessionLayerBuilder::insecure_http)
        .client()
        .get("/write")
        .await
        .cookie()
        .unwrap();
    assert_eq!(cookie.name, "id");
    assert_eq!(cookie.attributes, ["HttpOnly", "Path=/", "SameSite=Lax"]);
}

/// S-21: whatever a handler does, one session cookie leaves, and the others stay.
#[tokio::test]
async fn a_response_has_one_session_cookie_and_all_of_the_applications() {
    type Work = fn(&Session) -> cloakroom::Result<()>;
    let rows: [(Work, Told); 4] = [
        (|s| s.insert("a", 1), Told::Cookie),
        (
            |s| {
                s.insert("a", 1)
                    .and(s.renew())
                    .and(s.renew())
                    .and(s.sign_in("ada"))
            },
            Told::Cookie,
        ),
        (
            |s| {
                s.renew()
                    .and(s.destroy())
                    .and(s.insert("a", 1))
                    .and(s.renew())
            },
            Told::Cookie,
        ),
        (
            |s| {
                s.insert("a", 1)
                    .and(s.renew())
                    .and(s.renew())
                    .and(s.destroy())
            },
            Told::Removal,
        ),
    ];
    for (work, told) in rows {
        let client = Server::with(|b| b.persistent(true)).visitor().await;
        client.server.clock.advance(Duration::from_secs(600));
        let seen = client.act(move |s| {
            work(s).map(|()| {
                let by_hand = "__Host-id=by-hand; Path=/; Secure";
                let lines = ["own1=a; Path=/", by_hand, "own2=b; Path=/", by_hand];
                axum::response::AppendHeaders(lines.map(|line| (SET_COOKIE, line)))
            })
        });
        let seen = seen.await.ok();
        assert_eq!(seen.told(), told);
        assert_ne!(seen.cookie().unwrap().token, "by-hand");
        let lines: Vec<_> = seen.headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[..2], ["own1=a; Path=/", "own2=b; Path=/"]);
    }
}

/// S-23: never beyond 400 days, whatever is configured or remembered.
#[tokio::test]
async fn the_age_of_a_cookie_is_at_most_400_days() {
    for age in [3_650 * DAY, Duration::MAX] {
        let server = Server::with(|b| b.persistent(true).idle_timeout(age).absolute_timeout(age));
        let configured = server.client().get("/write").await.ok().cookie().unwrap();
        let remember = move |s: &Session| s.insert("a", 1).and(s.remember(age));
        let remembered = Server::new()
            .client()
            .act(remember)
            .await
            .ok()
            .cookie()
            .unwrap();
        for cookie in [configured, remembered] {
            assert_eq!(cookie.max_age(), Some(34_560_000));
            assert!(!cookie.attributes.iter().any(|a| a.starts_with("Expires")));
        }
    }
}

/// S-23, S-24: the age of a persistent cookie is what the server has left for the session.
#[tokio::test]
async fn the_age_of_a_cookie_is_what_the_server_will_honour() {
    let hour = Duration::from_secs(3600);
    let server = Server::with(|b| {
        b.persistent(true)
            .absolute_timeout(3 * hour)
            .anonymous_timeout(3 * hour)
    });
    let client = server.visitor().await;
    let left = async || {
        let expires = client.record().await.unwrap().expires;
        expires.saturating_since(server.clock.now())
    };
    // What the browser has left of the cookie that it was sent last.
    let mut kept = left().await;
    for (wait, sent) in [(50, true), (1, false), (49, true), (50, true), (29, false)] {
        let wait = wait * Duration::from_secs(60) + Duration::from_millis(700);
        server.clock.advance(wait);
        kept -= wait;
        let cookie = client.get("/write").await.ok().cookie();
        assert_eq!(cookie.is_some(), sent, "{wait:?}");
        if let Some(age) = cookie.and_then(|cookie| cookie.max_age()) {
            kept = Duration::from_secs(age);
        }
        let left = left().await;
        assert!(left <= hour);
        assert!(
            kept <= left && left - kept < Duration::from_secs(1),
            "{kept:?} of {left:?}"
        );
    }
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(
        client.get("/write").await.ok().cookie().unwrap().max_age(),
        Some(3600)
    );
    assert_eq!(client.value("n").await, Some(1), "a session of its own");
}

/// What browsers check by a cookie's name and attributes (RFC 6265bis section 5.7).
fn browser_accepts(line: &str) -> bool {
    let SetCookie {
        name, attributes, ..
    } = SetCookie::read(line);
    let name = name.to_ascii_lowercase();
    let has = |attribute: &str| attributes.iter().any(|a| a == attribute);
    let domain = attributes.iter().any(|a| a.starts_with("Domain="));
    let secure = has("Secure");
    let needs_secure = name.starts_with("__secure-") || has("SameSite=None") || has("Partitioned");
    let host = name.starts_with("__host-");
    (secure || !needs_secure) && (!host || (secure && has("Path=/") && !domain))
}

/// S-25: by the rules of a browser's jar.
#[tokio::test]
async fn the_removal_cookie_really_removes_the_cookie() {
    let configurations: [fn(Settings) -> Settings; 8] = [
        |b| b,
        |b| b.domain("example.com"),
        |b| b.path("/shop"),
        |b| b.domain("shop.example.com").path("/shop/cart"),
        |b| b.cookie_name("sid").persistent(true),
        |b| b.cookie_name("__Host-Http-sid").same_site(SameSite::Strict),
        |b| b.same_site(SameSite::None).partitioned(true),
        |b| b.insecure_http(),
    ];
    let url = Url::parse("https://shop.example.com/shop/cart/1").unwrap();
    for (row, configuration) in configurations.into_iter().enumerate() {
        let server = Server::with(configuration);
        let created = send(&server, "/write", &[]).await.ok();
        let line = created.headers[SET_COOKIE].to_str().unwrap();
        assert!(browser_accepts(line), "{line}");
        let mut jar = CookieStore::default();
        jar.parse("own=1; Path=/shop; Secure", &url).unwrap();
        jar.parse(line, &url).unwrap();
        let sent: Vec<_> = jar
            .get_request_values(&url)
            .map(|(n, v)| format!("{n}={v}"))
            .collect();
        assert_eq!(sent.len(), 2, "{row}");

        let removed = send(&server, "/logout", &[sent.join("; ").as_bytes()])
            .await
            .ok();
        assert_eq!(removed.calls, "load delete", "{row}");
        let line = removed.headers[SET_COOKIE].to_str().unwrap();
        assert!(browser_accepts(line), "{line}");
        jar.parse(line, &url).unwrap();
        assert_eq!(
            jar.get_request_values(&url).collect::<Vec<_>>(),
            [("own", "1")],
            "{row}"
        );
    }
}

/// S-26.
#[tokio::test]
async fn what_a_proxy_says_about_the_scheme_changes_no_attribute() {
    let server = Server::new();
    let expected = server
        .client()
        .get("/write")
        .await
        .cookie()
        .unwrap()
        .attributes;
    for (name, value) in [
        ("x-forwarded-proto", "http"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-ssl", "off"),
        ("x-url-scheme", "http"),
        ("front-end-https", "off"),
        ("forwarded", "proto=http"),
        ("origin", "http://shop.example.com"),
        ("host", "shop.example.com:80"),
    ] {
        let client = server.client();
        let mut request = client.request("/write");
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
        let cookie = client.send(request).await.ok().cookie().unwrap();
        assert_eq!(
            (&*cookie.name, &cookie.attributes),
            ("__Host-id", &expected),
            "{name}: {value}"
        );
    }
}

/// S-27, S-28, S-29, S-32, S-34: in each line `GOOD` and `EVIL` are two live tokens. The second column
/// says whether the good one's session is found; the evil one's never may be.
#[tokio::test]
async fn only_the_exact_name_and_value_count() {
    let table: &[(&[u8], bool)] = &[
        (b"__Host-id=GOOD", true),
        (b" \t__Host-id=GOOD \t", true),
        (b"a=b;__Host-id=GOOD;c=d", true),
        (b"__Host-id=GOOD; \xe2\x80\x80__Host-id=EVIL", true),
        (b"__Host-id=GOOD; \xc2\xa0__Host-id=EVIL", true),
        (b"__Host-id=GOOD; \xa0__Host-id=EVIL", true),
        (b"__Host-id=GOOD; \xc2\x85__Host-id=EVIL", true),
        (b"\xe2\x80\x80__Host-id=EVIL", false),
        (b"\xc2\xa0__Host-id=EVIL", false),
        (b"\x85__Host-id=EVIL", false),
        (b"__Host-id\xc2\xa0=EVIL", false),
        (b"__Host-id=\xc2\xa0EVIL", false),
        (b"%5F%5FHost-id=EVIL", false),
        (b"__Host-id=GOOD; __%48ost-id=EVIL", true),
        (b"__Host%2Did=EVIL", false),
        (b"=__Host-id=EVIL", false),
        (b"__Host-id", false),
        (b"__Host-id;=EVIL", false),
        (b"..Host-id=EVIL", false),
        (b"  Host-id=EVIL", false),
        (b"__HOST-id=EVIL", false),
        (b"__host-ID=EVIL", false),
        (b"__Host-id[]=EVIL", false),
        (b"__Host-id2=EVIL", false),
        (b"x__Host-id=EVIL", false),
        (b"$Version=1; $Path=/; __Host-id=GOOD", true),
        (b"$Version=\"1\"; __Host-id=\"EVIL\"; $Path=\"/\"", false),
        (b"a=\xe9; __Host-id=GOOD", true),
        (b"a=\xff\xfe\x80; __Host-id=GOOD; b=\xc3", true),
        (b"__Host-id=\"GOOD\"", false),
        (b"__Host-id=\"GOOD", false),
        (b"__Host-id=", false),
        (b"__Host-id==EVIL", false),
        (
            b"__Host-id=GOOD; __Host-id=; __Host-id=\"\"; __Host-id",
            true,
        ),
        (b";;;=;;__Host-id=GOOD;;=", true),
        (b"a=\"; __Host-id=GOOD; b=\"", true),
        (b"__Host-id=EVIL,__Host-id=EVIL", false),
        (b"a=b, __Host-id=EVIL", false),
        (b"a=__Host-id=EVIL", false),
    ];
    let server = Server::new();
    let (good, evil) = (server.client(), server.client());
    good.act(|s| s.insert("n", 1)).await.ok();
    evil.act(|s| s.insert("n", 666)).await.ok();
    for (line, found) in table {
        let mut bytes = vec![];
        let mut rest = *line;
        while let [first, tail @ ..] = rest {
            if let Some(tail) = rest.strip_prefix(b"GOOD") {
                bytes.extend_from_slice(good.the_token().as_bytes());
                rest = tail;
            } else if let Some(tail) = rest.strip_prefix(b"EVIL") {
                bytes.extend_from_slice(evil.the_token().as_bytes());
                rest = tail;
            } else {
                bytes.push(*first);
                rest = tail;
            }
        }
        let expected = if *found { "[null,1]" } else { "anonymous" };
        let seen = read(&server, bytes).await;
        assert_eq!(
            (seen.text(), seen.told()),
            (expected, Told::Vary),
            "{}",
            line.escape_ascii()
        );
    }
}

/// S-30, S-31: several cookies of the session's name, in one line or in several.
#[tokio::test]
async fn of_several_session_cookies_the_one_live_one_counts() {
    let server = Server::new();
    let live = server.visitor().await.the_token();
    let other = server.visitor().await.the_token();
    let stale = {
        let client = server.visitor().await;
        let token = client.the_token();
        client.get("/logout").await.ok();
        token
    };
    let unknown: Vec<_> = (0..4).map(|_| unknown_token()).collect();
    let (live, other, stale) = (&*live, &*other, &*stale);
    let [a, b, c, d] = [&*unknown[0], &*unknown[1], &*unknown[2], &*unknown[3]];
    // The tokens in the order sent, the answer, and how many of them are looked up.
    let table: [(&[&str], bool, usize); 11] = [
        (&[live], true, 1),
        (&[live, stale], true, 2),
        (&[stale, live], true, 2),
        (&[live, live], true, 1),
        (&[live, "malformed", live], true, 1),
        (&[a, b, c, live], true, 4),
        (&[live, a, b, c], true, 4),
        (&[live, other], false, 2),
        (&[other, stale, live], false, 3),
        (&[a, b, c, d, live], false, 0),
        (&[live, a, b, c, d], false, 0),
    ];
    for (tokens, found, loads) in table {
        let pairs: Vec<_> = tokens
            .iter()
            .map(|token| format!("__Host-id={token}"))
            .collect();
        let one_line = pairs.join("; ");
        let lines: Vec<_> = pairs.iter().map(String::as_bytes).collect();
        for lines in [&[one_line.as_bytes()][..], &lines] {
            let seen = send(&server, "/read", lines).await.ok();
            let expected = if found { "[null,1]" } else { "anonymous" };
            assert_eq!(
                (seen.text(), seen.told()),
                (expected, Told::Vary),
                "{tokens:?}"
            );
            assert_eq!(seen.calls, vec!["load"; loads].join(" "), "{tokens:?}");
        }
    }
}

/// S-30: a cookie that a sibling host has planted beside the user's own must not lead the user's
/// changes into a session that its planter can open.
#[tokio::test]
async fn a_change_with_two_live_sessions_goes_to_neither() {
    let server = Server::new();
    let (mine, planted) = (server.visitor().await, server.visitor().await);
    let line = format!(
        "__Host-id={}; __Host-id={}",
        planted.the_token(),
        mine.the_token()
    );
    let seen = send(&server, "/login", &[line.as_bytes()]).await.ok();
    assert_eq!(
        (&*seen.calls, seen.told()),
        ("load load sign_in", Told::Cookie)
    );
    for client in [mine, planted] {
        assert_eq!(client.get("/read").await.text(), "[null,1]");
    }
}

/// S-30: a token in its grace besides its successor is not a second session, and the successor counts.
#[tokio::test]
async fn a_token_and_its_successor_are_one_session() {
    let minute = Duration::from_secs(60);
    let server = Server::with(|b| {
        b.persistent(true)
            .renew_every(20 * minute)
            .renewal_grace(10 * minute)
    });
    for successor_first in [true, false] {
        let client = server.visitor().await;
        let old = client.the_token();
        server.clock.advance(20 * minute);
        client.get("/read").await.ok();
        let new = client.the_token();
        let mut pairs = [&old, &new].map(|token| format!("__Host-id={token}"));
        if successor_first {
            pairs.reverse();
        }
        let line = pairs.join("; ");
        // The cookie's age is renewed, which it is not for a client that has the old token alone.
        server.clock.advance(7 * minute);
        let seen = read(&server, &line).await;
        assert_eq!(
            (&*seen.calls, seen.told()),
            ("load load update", Told::Cookie)
        );
        assert_eq!(seen.cookie().unwrap().token, new);
        let seen = send(&server, "/login", &[line.as_bytes()]).await.ok();
        assert_eq!(id_of(&seen.cookie().unwrap().token), id_of(&old));
        // Neither of the two opens what came of it.
        assert_eq!(read(&server, &line).await.text(), "anonymous");
        let line = format!("{line}; __Host-id={}", seen.cookie().unwrap().token);
        assert_eq!(read(&server, line).await.text(), r#"["ada",1]"#);
    }
}

/// S-33: bounded work and at most four lookups, whatever is sent.
#[tokio::test]
async fn a_huge_cookie_header_costs_little_and_never_an_error() {
    let server = Server::new();
    let token = server.visitor().await.the_token();
    let live = format!("; __Host-id={token}");
    let fill = |part: &str, size: usize| part.repeat(size / part.len() + 1);
    for size in [8 << 10, 16 << 10, 64 << 10, 400 << 10, 1 << 20] {
        let distinct: String = std::iter::repeat_with(unknown_token)
            .take(size / 60)
            .map(|token| format!("__Host-id={token}; "))
            .collect();
        let junk = [
            (fill("x", size), true),
            (fill("a=b; ", size), true),
            (fill(";", size), true),
            (fill("=", size), true),
            (fill("__Host-id=; ", size), true),
            (fill("__Host-id", size), true),
            (fill("__Host-id=x; ", size), true),
            (fill(&format!("__Host-id={token}; "), size), true),
            (fill(" \t", size), true),
            (fill("\u{e9}=\u{a0}; ", size), true),
            (distinct, false),
        ];
        for (junk, found) in junk {
            let start = Instant::now();
            let seen = read(&server, junk.clone() + &live).await;
            // A thousand times what it takes, so that only a quadratic reader fails.
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{} bytes",
                junk.len()
            );
            assert!(seen.calls.len() <= "load load load load".len());
            let expected = if found { "[null,1]" } else { "anonymous" };
            assert_eq!(seen.text(), expected, "{size} of {:.20}", junk);
        }
    }
    let pairs: String = (0..10_000).map(|i| format!("c{i}={i}; ")).collect();
    assert_eq!(read(&server, pairs + &live[2..]).await.text(), "[null,1]");
    let lines = vec![&b"a=b"[..]; 5_000];
    let lines = [&lines[..], &[&live.as_bytes()[2..]]].concat();
    assert_eq!(send(&server, "/read", &lines).await.ok().text(), "[null,1]");
}

/// S-35: strict adoption.
#[tokio::test]
async fn a_token_that_the_server_did_not_issue_is_never_adopted() {
    let server = Server::new();
    for path in ["/write", "/login"] {
        let sent = unknown_token();
        let client = server.holding(&sent);
        assert_eq!(client.get(path).await.ok().told(), Told::Cookie);
        assert_ne!(client.the_token(), sent);
        assert_ne!(client.id(), id_of(&sent));
        assert!(server.record(&sent).await.is_none());
        assert!(!server.holding(&sent).is_known().await);
    }
    // The same with a live session's id and a made-up secret.
    let client = server.visitor().await;
    let mut sent = client.the_token();
    sent.replace_range(24.., &unknown_token()[24..]);
    let attacker = server.holding(&sent);
    assert_eq!(attacker.get("/write").await.ok().told(), Told::Cookie);
    assert_ne!(attacker.id(), client.id());
    assert_eq!(client.value("n").await, Some(1));
}

/// S-76: a token holds under its own cookie's name.
#[tokio::test]
async fn the_token_of_one_layer_means_nothing_to_another_on_the_same_store() {
    let user = Server::new();
    let admin = user.beside(|b| b.cookie_name("__Host-admin"));
    let client = user.client();
    client.get("/login").await.ok();
    let token = client.the_token();
    let seen = read(&admin, format!("__Host-admin={token}")).await;
    assert_eq!((seen.text(), &*seen.calls), ("anonymous", "load"));
    let seen = read(&admin, format!("__Host-id={token}")).await;
    assert_eq!((seen.text(), &*seen.calls), ("anonymous", ""));
    let seen = send(
        &admin,
        "/logout",
        &[format!("__Host-admin={token}").as_bytes()],
    )
    .await
    .ok();
    assert_eq!(seen.told(), Told::Vary);
    assert_eq!(client.owner().await.as_deref(), Some("ada"));
}

/// S-20: found by the property below.
#[test]
fn a_path_that_browsers_would_read_otherwise_is_refused() {
    for path in ["/ ", "/shop ", "/shop\t", "/shop ; "] {
        let store = cloakroom::MemoryStore::new();
        let error = cloakroom::SessionLayer::builder(store)
            .path(path)
            .build()
            .err();
        assert!(
            matches!(error, Some(cloakroom::ConfigError::Path { .. })),
            "{path:?}"
        );
    }
}

fn hostile() -> impl Strategy<Value = String> {
    const INJECTIONS: &[&str] = &[
        "; Domain=evil",
        "\r\nSet-Cookie: a=b",
        "\n",
        "\0",
        ",",
        "=",
        " ",
        "\u{a0}",
        "\"",
    ];
    let harmless = "[a-zA-Z0-9_./-]{0,20}";
    prop_oneof![
        4 => harmless.prop_map(String::from),
        2 => (harmless, prop::sample::select(INJECTIONS), harmless)
            .prop_map(|(a, b, c)| a + b + &c),
        1 => any::<String>(),
        1 => "\\PC{0,40}",
    ]
}

fn any_name() -> impl Strategy<Value = Option<String>> {
    const PREFIXES: &[&str] = &[
        "",
        "__Host-",
        "__Secure-",
        "__Http-",
        "__Host-Http-",
        "__HOST-",
        "__host-http-",
    ];
    let prefixed = (prop::sample::select(PREFIXES), hostile());
    prop::option::of(prefixed.prop_map(|(prefix, name)| prefix.to_owned() + &name))
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(8_000)
    })]

    /// S-18, S-20: whatever the settings are, they are refused, or the header is one cookie with
    /// exactly the attributes asked for, which browsers take.
    #[test]
    fn no_setting_can_smuggle_anything_into_the_header(
        name in any_name(),
        path in prop::option::of(hostile().prop_map(|path| format!("/{path}"))),
        domain in prop::option::of(hostile()),
        same_site in prop::sample::select(&[SameSite::Strict, SameSite::Lax, SameSite::None][..]),
        partitioned in any::<bool>(),
        insecure in prop::bool::weighted(0.2),
    ) {
        let store = cloakroom::MemoryStore::new();
        let mut builder = cloakroom::SessionLayer::builder(store);
        builder = builder.same_site(same_site).partitioned(partitioned);
        let mut expected = vec!["HttpOnly".to_owned(), format!("SameSite={same_site:?}")];
        expected.push(format!("Path={}", path.as_deref().unwrap_or("/")));
        if let Some(name) = &name {
            builder = builder.cookie_name(name);
        }
        if let Some(path) = &path {
            builder = builder.path(path);
        }
        if let Some(domain) = &domain {
            builder = builder.domain(domain);
            expected.push(format!("Domain={domain}"));
        }
        if partitioned {
            expected.push("Partitioned".into());
        }
        if insecure {
            builder = builder.insecure_http();
        } else {
            expected.push("Secure".into());
        }
        expected.sort_unstable();
        let Ok(layer) = builder.build() else { return Ok(()) };

        let service = tower::ServiceBuilder::new().layer(layer).service_fn(
            async |request: Request<()>| {
                let lazy = request.extensions().get::<cloakroom::LazySession>().unwrap();
                lazy.load().await?.insert("a", 1)?;
                Ok::<_, cloakroom::Error>(http::Response::new(()))
            },
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let request = Request::new(());
        let response = runtime.block_on(tower::ServiceExt::oneshot(service, request)).unwrap();
        let lines: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
        prop_assert_eq!(lines.len(), 1);
        let line = lines[0].to_str().unwrap();
        let cookie = SetCookie::read(line);
        prop_assert_eq!(&cookie.attributes, &expected);
        prop_assert_eq!(cookie.token.len(), 48);
        if let Some(name) = name {
            prop_assert_eq!(&cookie.name, &name);
        }
        prop_assert!(browser_accepts(line), "{}", line);
        prop_assert!(cookie.name.len() + cookie.token.len() < 4096);
        // The same in the eyes of another parser.
        let parsed = cookie_store::RawCookie::parse(line.to_owned()).unwrap();
        prop_assert_eq!(parsed.name_value(), (&*cookie.name, &*cookie.token));
        prop_assert_eq!(parsed.path(), path.as_deref().or(Some("/")));
        prop_assert_eq!(parsed.domain(), domain.as_deref());
        prop_assert_eq!(parsed.http_only(), Some(true));
        prop_assert_eq!(parsed.secure(), (!insecure).then_some(true));
        prop_assert_eq!(parsed.partitioned(), partitioned.then_some(true));
    }
}

/// The sign-in under the inner layer would be lost to the outer one's cookie.
#[tokio::test]
async fn two_layers_with_one_cookie_around_a_route_are_an_error_in_the_log() {
    let server = Server::new();
    let twice = |name: &'static str| {
        let settings = SessionLayer::builder(server.store.clone()).cookie_name(name);
        let router = server.router.clone().layer(settings.build().unwrap());
        Server {
            router,
            ..server.clone()
        }
    };
    for (name, expected) in [("__Host-id", 1), ("__Host-admin", 0)] {
        let outer = twice(name);
        let log = Log::capture();
        for _ in 0..3 {
            outer.client().get("/read").await.ok();
        }
        let log = log.take();
        let said = log.matches("two session layers on `__Host-id`").count();
        assert_eq!(said, expected, "{log}");
    }
}

/// Whoever develops on a second machine sees a new session with every request, and no error anywhere.
#[tokio::test]
async fn a_secure_cookie_over_plain_http_is_a_warning_in_the_log_once() {
    let store = MemoryStore::new();
    let app = |layer: SessionLayer<MemoryStore>| {
        let begin = async |session: Session| session.insert("a", 1);
        Router::new().route("/", post(begin)).layer(layer)
    };
    let secure = app(SessionLayer::new(store.clone()));
    let insecure = SessionLayer::builder(store.clone()).insecure_http().build();
    let insecure = app(insecure.unwrap());
    let bearer = app(SessionLayer::builder(store).bearer().build().unwrap());
    let send = async |app: &Router, origin: &str| {
        let request = Request::post("/").header("host", "192.168.0.7:3000");
        let request = request.header("origin", origin).body(Body::empty());
        let response = app.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    };
    for (app, origin, expected) in [
        (&secure, "https://192.168.0.7:3000", 0),
        (&insecure, "http://192.168.0.7:3000", 0),
        (&bearer, "http://192.168.0.7:3000", 0),
        (&secure, "http://192.168.0.7:3000", 1),
        // Said once.
        (&secure, "http://192.168.0.7:3000", 0),
    ] {
        let log = Log::capture();
        for _ in 0..3 {
            send(app, origin).await;
        }
        let log = log.take();
        let said = log.matches("drops it, since it is `Secure`").count();
        assert_eq!(said, expected, "{origin}: {log}");
        assert_eq!(log.contains("insecure_http()"), expected == 1);
    }
}
