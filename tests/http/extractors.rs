//! The edges that an application touches: extractors and rejections, the layer around axum routers and
//! plain Tower services, and the responses in place of errors.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request as AxumRequest};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cloakroom::store::{
    Admission, Create, Record, SessionStore, SignIn, StoreError, Timestamp, Update, Version,
};
use cloakroom::test_util::{Fault, Operation};
use cloakroom::{
    DefaultErrorResponse, Error, LazySession, MemoryStore, OnConflict, RequireSignedIn, Session,
    SessionId, SessionLayer, SessionLayerBuilder, SessionRejection, SessionService, SessionValue,
    Sessions, Typed,
};
use http::header::{CONTENT_TYPE, SET_COOKIE, VARY};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use serde::{Deserialize, Serialize};
use tower::{Layer as _, Service as _, ServiceBuilder, ServiceExt as _, service_fn};

use crate::support::{Client, Seen, Server, SetCookie, Settings, Told};

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Theme(String);

impl SessionValue for Theme {
    const KEY: &'static str = "theme";
}

/// A server with these routes instead of the usual ones.
pub(crate) fn routed(routes: Router, settings: impl FnOnce(Settings) -> Settings) -> Server {
    let server = Server::new();
    let builder = SessionLayer::builder(server.store.clone()).clock(server.clock.clone());
    let router = routes.layer(settings(builder).build().unwrap());
    Server { router, ..server }
}

/// One store call, however many ask for the session, and in whatever form.
#[tokio::test]
async fn all_extractors_of_a_request_share_one_load() {
    async fn guard(lazy: LazySession, request: AxumRequest, next: Next) -> Response {
        let (one, other) = tokio::join!(lazy.load(), lazy.load());
        one.unwrap().insert("guard", 1).unwrap();
        assert_eq!(other.unwrap().get::<u64>("guard").unwrap(), Some(1));
        next.run(request).await
    }

    async fn handler(
        session: Session,
        again: Session,
        known: Option<Session>,
        lazy: LazySession,
        mut theme: Typed<Theme>,
    ) -> cloakroom::Result<Json<Vec<String>>> {
        assert!(known.is_some());
        theme.update(|theme| theme.0.push('!'))?;
        again.insert("handler", 1)?;
        assert_eq!(lazy.load().await?.keys(), session.keys());
        Ok(Json(session.keys()))
    }

    let routes = Router::new()
        .route("/", post(handler))
        .layer(from_fn(guard));
    let server = routed(
        routes.route("/new", post(async |s: Session| s.insert("n", 1))),
        |b| b,
    );
    let client = server.client();
    client.get("/new").await.ok();
    let seen = client.get("/").await.ok();
    assert_eq!((&*seen.calls, seen.told()), ("load update", Told::Vary));
    assert_eq!(seen.text(), r#"["guard","handler","n","theme"]"#);
}

/// S-80: no store call and no `Vary` for the one of the request.
#[tokio::test]
async fn the_sessions_of_the_layer_are_an_extractor_that_does_not_ask_for_the_one_of_the_request() {
    let end = async |sessions: Sessions| {
        let ended = sessions.revoke_all("ada").await?;
        Ok::<_, Error>(ended.to_string())
    };
    let others = async |session: Session, sessions: Sessions| {
        let ended = sessions.revoke_others(&session).await?;
        Ok::<_, Error>(ended.to_string())
    };
    let routes = Router::new()
        .route("/in", post(async |s: Session| s.sign_in("ada")))
        .route("/nothing", post(async |_: Sessions| ()))
        .route("/others", post(others))
        .route("/end", post(end));
    let server = routed(routes, |b| b);
    let (one, another) = (server.client(), server.client());
    one.get("/in").await.ok();
    another.get("/in").await.ok();
    let seen = one.get("/nothing").await.ok();
    assert_eq!((&*seen.calls, seen.told()), ("", Told::Nothing));
    assert_eq!(one.get("/others").await.ok().text(), "1");
    let seen = another.get("/end").await.ok();
    assert_eq!((seen.text(), seen.told()), ("1", Told::Nothing));
    assert!(server.memory.is_empty());
}

#[tokio::test]
async fn an_optional_session_is_there_for_clients_that_have_one() {
    let handler = async |session: Option<Session>| match session {
        Some(session) => format!("welcome back, {:?}", session.keys()),
        None => "hello".to_owned(),
    };
    let routes = Router::new().route("/", post(handler));
    let server = routed(
        routes.route("/new", post(async |s: Session| s.insert("n", 1))),
        |b| b,
    );
    let client = server.client();
    let seen = client.get("/").await.ok();
    assert_eq!(
        (seen.text(), &*seen.calls, seen.told()),
        ("hello", "", Told::Vary)
    );
    client.get("/new").await.ok();
    assert_eq!(client.get("/").await.ok().text(), r#"welcome back, ["n"]"#);
    server.clock.advance(Duration::from_secs(3600));
    assert_eq!(client.get("/").await.ok().text(), "hello");
    // An outage is not "no session".
    server.store.always(Operation::Load, Fault::Fail);
    assert_eq!(
        client.get("/").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn a_route_without_the_layer_says_what_is_missing() {
    let routes = Router::new()
        .route("/session", post(async |_: Session| ()))
        .route("/option", post(async |_: Option<Session>| ()))
        .route("/lazy", post(async |_: LazySession| ()))
        .route("/typed", post(async |_: Typed<Theme>| ()))
        .route("/sessions", post(async |_: Sessions| ()))
        .route("/guarded", post(async || ()).layer(RequireSignedIn::new()));
    let server = Server {
        router: routes,
        ..Server::new()
    };
    for path in [
        "/session",
        "/option",
        "/lazy",
        "/typed",
        "/sessions",
        "/guarded",
    ] {
        let seen = server.client().get(path).await;
        assert_eq!(seen.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(
            seen.text()
                .contains("add `.layer(SessionLayer::new(store))`"),
            "{}",
            seen.text()
        );
    }
}

#[tokio::test]
async fn a_rejection_is_a_type_with_a_status_and_a_text() {
    async fn inspect(
        session: Result<Session, SessionRejection>,
        theme: Result<Typed<Theme>, SessionRejection>,
    ) -> String {
        let describe = |rejection: SessionRejection| {
            assert!(!rejection.to_string().is_empty());
            let failed = matches!(&rejection, SessionRejection::Failed(error) if error.is_decode());
            let cause = std::error::Error::source(&rejection).is_some();
            format!(
                "{} {} {failed} {cause}",
                rejection.status().as_u16(),
                rejection.body_text()
            )
        };
        let session = session.map_or_else(describe, |_| "session".into());
        format!(
            "{session}, {}",
            theme.map_or_else(describe, |_| "theme".into())
        )
    }

    let routes = Router::new()
        .route("/", post(inspect))
        .route("/bad", post(async |s: Session| s.insert("theme", 7)))
        .route("/plain", post(async |_: Typed<Theme>| ()));
    let bare = Server {
        router: routes.clone(),
        ..Server::new()
    };
    let seen = bare.client().get("/").await.ok();
    assert!(
        seen.text().starts_with("500 no session layer"),
        "{}",
        seen.text()
    );

    let client = routed(routes, |b| b).client();
    assert_eq!(client.get("/").await.ok().text(), "session, theme");
    client.get("/bad").await.ok();
    let seen = client.get("/").await.ok();
    assert_eq!(seen.text(), "session, 500 Internal Server Error true true");
    let seen = client.get("/plain").await;
    assert_eq!(
        (seen.status, seen.text()),
        (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
    );
    assert!(seen.error().is_decode());
    client.server.store.always(Operation::Load, Fault::Fail);
    let expected = "503 Service Unavailable false true, 503 Service Unavailable false true";
    assert_eq!(client.get("/").await.text(), expected);
}

/// The client of a handler's `?` sees a status, never internals.
#[tokio::test]
async fn an_error_of_a_handler_is_a_plain_response() {
    let client = Server::new().visitor().await;
    let seen = client.act(|s| s.get::<bool>("n").map(|_| ())).await;
    assert_eq!(
        (seen.status, seen.text()),
        (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
    );
    assert_eq!(seen.headers[CONTENT_TYPE], "text/plain; charset=utf-8");
    assert!(seen.error().is_decode());
    assert_eq!(seen.told(), Told::Vary);
}

/// `error_response` makes the response of the layer's own errors and of those that handlers and
/// extractors made of theirs; the error goes along in the extensions.
#[tokio::test]
async fn the_applications_error_page_replaces_every_response_to_an_error() {
    fn page(error: &Error) -> Response {
        let headers = [("own-page", "yes")];
        (
            error.status(),
            headers,
            Html(format!("<h1>Sorry</h1>{error}")),
        )
            .into_response()
    }

    let server = Server::with(|b| b.error_response(page));
    let client = server.visitor().await;
    let check = |seen: &Seen, status: u16, text: &str| {
        assert_eq!(seen.status, status);
        assert_eq!(seen.headers["own-page"], "yes");
        assert_eq!(seen.text(), format!("<h1>Sorry</h1>{text}"));
        assert_eq!(seen.error().to_string(), text);
        assert_eq!(seen.told(), Told::Vary);
    };
    // Of a handler.
    let seen = client.act(|s| s.get::<bool>("n").map(|_| ())).await;
    check(
        &seen,
        500,
        "the session's value of `n` does not decode as the type asked for",
    );
    // Of an extractor, and of the commit.
    for operation in [Operation::Load, Operation::Update] {
        server.store.inject(operation, 1, Fault::Fail);
        check(
            &client.get("/write").await,
            503,
            "the session could not be read or stored",
        );
    }
    // A status that a handler chose itself is its own affair.
    let seen = client.get("/boom").await;
    assert_eq!(
        (seen.status, seen.text()),
        (StatusCode::INTERNAL_SERVER_ERROR, "")
    );
    assert!(seen.extensions.get::<Error>().is_none());

    // What the replaced response had to say about the session is still said.
    let seen = client
        .act(|s| s.renew().and(s.get::<bool>("n").map(|_| ())))
        .await;
    assert_eq!(
        (seen.status, seen.told()),
        (StatusCode::INTERNAL_SERVER_ERROR, Told::Cookie)
    );
    assert!(client.is_known().await);

    let rejecting = Server::with(|b| b.on_conflict(OnConflict::Reject).error_response(page));
    let client = rejecting.visitor().await;
    let other = client.twin();
    let seen = client.run(async move |s: Session| {
        s.get::<u64>("n")?;
        other.get("/write").await.ok();
        s.insert("n", 7)
    });
    let text = "`n` was changed by a parallel request after this one read it";
    check(&seen.await, 409, text);
}

#[tokio::test]
async fn the_default_error_response_is_empty_and_carries_the_error() {
    let client = Server::new().visitor().await;
    client
        .server
        .store
        .inject(Operation::Update, 1, Fault::Fail);
    let seen = client.get("/write").await;
    assert_eq!(
        (seen.status, seen.text()),
        (StatusCode::SERVICE_UNAVAILABLE, "")
    );
    assert!(seen.error().is_store());
    assert!(seen.headers.get(CONTENT_TYPE).is_none());
}

/// S-76: each layer has its own sessions, and its own cookie in the response.
#[tokio::test]
async fn nested_layers_with_names_of_their_own_share_a_store() {
    /// Takes the outer layer's session aside before the inner layer puts its own in the way.
    #[derive(Clone)]
    struct Shop(LazySession);

    async fn aside(shop: LazySession, mut request: AxumRequest, next: Next) -> Response {
        request.extensions_mut().insert(Shop(shop));
        next.run(request).await
    }

    async fn both(admin: Session, Extension(shop): Extension<Shop>) -> cloakroom::Result<()> {
        shop.0.load().await?.insert("where", "shop")?;
        admin.insert("where", "admin")
    }

    async fn which(admin: Session, Extension(shop): Extension<Shop>) -> cloakroom::Result<String> {
        let shop = shop.0.load().await?.get::<String>("where")?;
        Ok(format!("{:?} {shop:?}", admin.get::<String>("where")?))
    }

    let server = Server::new();
    let layer = |name: &str| {
        SessionLayer::builder(server.store.clone())
            .clock(server.clock.clone())
            .cookie_name(name)
            .build()
            .unwrap()
    };
    let router = Router::new()
        .route("/both", post(both))
        .route("/which", post(which))
        .route(
            "/admin",
            post(async |admin: Session| admin.insert("where", "admin")),
        )
        .layer(layer("__Host-admin"))
        .layer(from_fn(aside))
        .layer(layer("__Host-shop"));

    let request = |path: &str, cookies: &str| {
        Request::post(path)
            .header("cookie", cookies)
            .body(Body::empty())
            .unwrap()
    };
    let cookies = |response: &Response| -> Vec<SetCookie> {
        let lines = response.headers().get_all(SET_COOKIE).into_iter();
        lines
            .map(|line| SetCookie::read(line.to_str().unwrap()))
            .collect()
    };
    let response = router.clone().oneshot(request("/both", "")).await.unwrap();
    let [admin, shop] = &cookies(&response)[..] else {
        panic!("two cookies: {response:?}")
    };
    assert_eq!((&*admin.name, &*shop.name), ("__Host-admin", "__Host-shop"));
    assert_eq!(response.headers().get_all(VARY).iter().count(), 1);
    assert_eq!(server.memory.len(), 2);

    let asked = |cookies: String| {
        let router = router.clone();
        async move {
            let response = router.oneshot(request("/which", &cookies)).await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            String::from_utf8(body.to_vec()).unwrap()
        }
    };
    let (a, s) = (&*admin.token, &*shop.token);
    let right = asked(format!("__Host-admin={a}; __Host-shop={s}"));
    assert_eq!(right.await, r#"Some("admin") Some("shop")"#);
    let crossed = asked(format!("__Host-admin={s}; __Host-shop={a}"));
    assert_eq!(crossed.await, "None None");

    let response = router.clone().oneshot(request("/admin", "")).await.unwrap();
    let names: Vec<_> = cookies(&response)
        .into_iter()
        .map(|cookie| cookie.name)
        .collect();
    assert_eq!(
        names,
        ["__Host-admin"],
        "the outer session was not asked for"
    );
}

/// For services that cannot wait: the loaded session stands beside the lazy one, and every request pays.
#[tokio::test]
async fn an_eager_layer_loads_before_the_inner_service_runs() {
    let server = Server::new();
    let builder = SessionLayer::builder(server.store.clone()).clock(server.clock.clone());
    let layer = builder.eager().build().unwrap();
    let service = ServiceBuilder::new()
        .layer(layer)
        .service_fn(async |request: Request<Body>| {
            let session = request.extensions().get::<Session>().unwrap().clone();
            let lazy = request.extensions().get::<LazySession>().unwrap();
            let n = session.update("n", |n: &mut u64| {
                *n += 1;
                *n
            })?;
            assert_eq!(lazy.load().await?.get::<u64>("n")?, Some(n));
            Ok::<_, Error>(Response::new(Body::from(n.to_string())))
        });
    let client = server.client();
    let ask = async |calls: u64| {
        server.store.reset_counts();
        let response = service.clone().oneshot(client.request("/")).await.unwrap();
        client.take(response.headers());
        assert_eq!(server.store.total_calls(), calls);
        response
    };
    assert_eq!(ask(1).await.status(), 200);
    let body = ask(2).await.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "2");

    server.store.inject(Operation::Load, 1, Fault::Fail);
    let response = ask(1).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.extensions().get::<Error>().unwrap().is_store());
    assert_eq!(response.headers()[VARY], "Cookie");
    assert_eq!(server.memory.len(), 1);

    // With axum: every route depends on the session now.
    let client = Server::with(SessionLayerBuilder::eager).visitor().await;
    let seen = client.get("/").await.ok();
    assert_eq!((&*seen.calls, seen.told()), ("load", Told::Vary));
}

#[tokio::test]
async fn the_inner_service_can_be_reached_and_taken_out() {
    #[derive(Clone, Debug, PartialEq)]
    struct Inner(u8);

    let layer = SessionLayer::new(MemoryStore::new());
    assert!(layer.store().is_empty());
    let mut service: SessionService<Inner> = layer.layer(Inner(1));
    assert_eq!(service.get_ref(), &Inner(1));
    service.get_mut().0 = 2;
    assert_eq!(service.into_inner(), Inner(2));
}

/// The service that was ready is the one that is called, eager or not.
#[tokio::test]
async fn the_ready_service_is_called_and_not_its_clone() {
    struct Ready(bool);

    impl Clone for Ready {
        fn clone(&self) -> Self {
            Self(false)
        }
    }

    impl tower::Service<Request<Body>> for Ready {
        type Response = Response;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response, Infallible>>;

        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Infallible>> {
            self.0 = true;
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            assert!(
                std::mem::take(&mut self.0),
                "called without having been ready"
            );
            std::future::ready(Ok(Response::default()))
        }
    }

    let lazy = SessionLayer::new(MemoryStore::new());
    let eager = SessionLayer::builder(MemoryStore::new())
        .eager()
        .build()
        .unwrap();
    for layer in [lazy, eager] {
        let mut service = layer.layer(Ready(false));
        for _ in 0..2 {
            let response = service
                .ready()
                .await
                .unwrap()
                .call(Request::default())
                .await
                .unwrap();
            assert_eq!(response.status(), 200);
        }
    }
}

/// Any body that has a default, also where axum is not.
#[tokio::test]
async fn the_layer_works_with_any_body() {
    async fn answer<B: Default>(request: Request<B>) -> Result<http::Response<B>, Infallible> {
        let lazy = request.extensions().get::<LazySession>().unwrap();
        lazy.load().await.unwrap().insert("n", 1).unwrap();
        Ok(http::Response::new(request.into_body()))
    }

    async fn through<B: Default + 'static>(body: B) -> http::Response<B> {
        let layer: SessionLayer<_, DefaultErrorResponse> = SessionLayer::new(MemoryStore::new());
        layer
            .layer(service_fn(answer::<B>))
            .oneshot(Request::new(body))
            .await
            .unwrap()
    }

    assert!(through(()).await.headers().contains_key(SET_COOKIE));
    assert_eq!(through("text".to_owned()).await.body(), "text");
    assert!(
        through(Full::<axum::body::Bytes>::default())
            .await
            .headers()
            .contains_key(SET_COOKIE)
    );
    assert!(
        through(Empty::<axum::body::Bytes>::new())
            .await
            .headers()
            .contains_key(SET_COOKIE)
    );
}

/// The plan is made when the head leaves: who comes later may look.
#[tokio::test]
async fn a_session_that_is_loaded_after_the_head_can_only_be_read() {
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let handler = async move |lazy: LazySession| drop(keep.lock().unwrap().replace(lazy));
    let routes = Router::new()
        .route("/", post(handler))
        .route("/new", post(async |s: Session| s.insert("n", 1)));
    let client = routed(routes, |b| b).client();
    client.get("/new").await.ok();
    let seen = client.get("/").await.ok();
    assert_eq!((&*seen.calls, seen.told()), ("", Told::Nothing));
    let lazy = kept.lock().unwrap().take().unwrap();
    let session = lazy.load().await.unwrap();
    assert_eq!(session.get::<u64>("n").unwrap(), Some(1));
    assert!(session.insert("n", 2).unwrap_err().is_committed());
    let session = session.reopen().await.unwrap();
    session.insert("n", 2).unwrap();
    session.save().await.unwrap();
    let record = client.record().await.unwrap();
    assert_eq!(&*record.data, br#"{"n":2}"#);
}

/// `load` may be dropped, and asked again.
#[tokio::test]
async fn a_load_that_is_given_up_or_fails_can_be_tried_again() {
    let routes = Router::new()
        .route("/new", post(async |s: Session| s.insert("n", 1)))
        .route(
            "/",
            post(async |lazy: LazySession| {
                assert!(lazy.load().await.unwrap_err().is_store());
                let given_up = tokio::time::timeout(Duration::from_millis(1), lazy.load());
                assert!(given_up.await.is_err());
                lazy.load().await?.update("n", |n: &mut u64| *n += 1)
            }),
        );
    let client = routed(routes, |b| b).client();
    client.get("/new").await.ok();
    client.server.store.inject(Operation::Load, 1, Fault::Fail);
    client.server.store.inject(Operation::Load, 2, Fault::Hang);
    assert_eq!(client.get("/").await.ok().calls, "load load load update");
}

/// A router is a layer's natural place, also where routes fall through.
#[tokio::test]
async fn fallbacks_and_other_methods_have_sessions_too() {
    let fallback = async |s: Session| s.insert("lost", 1).map(|()| StatusCode::NOT_FOUND);
    let routes = Router::new()
        .route("/", get(async || "only get"))
        .fallback(fallback);
    let client = routed(routes, |b| b).client();
    let seen = client.get("/nowhere").await;
    assert_eq!(
        (seen.status, seen.told()),
        (StatusCode::NOT_FOUND, Told::Cookie)
    );
    let seen = client.get("/").await;
    assert_eq!(
        (seen.status, seen.told()),
        (StatusCode::METHOD_NOT_ALLOWED, Told::Nothing)
    );
}

/// A store need not be `Clone` to be a layer's: the layer shares it.
#[tokio::test]
async fn a_store_that_cannot_be_cloned_makes_a_layer_that_can() {
    struct Single(MemoryStore);

    impl SessionStore for Single {
        async fn create(
            &self,
            id: SessionId,
            record: &Record,
            now: Timestamp,
        ) -> Result<Create, StoreError> {
            self.0.create(id, record, now).await
        }

        async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
            self.0.load(id, now).await
        }

        async fn update(
            &self,
            id: SessionId,
            record: &Record,
            expected: Version,
            now: Timestamp,
        ) -> Result<Update, StoreError> {
            self.0.update(id, record, expected, now).await
        }

        async fn touch(
            &self,
            id: SessionId,
            expires: Timestamp,
            now: Timestamp,
        ) -> Result<bool, StoreError> {
            self.0.touch(id, expires, now).await
        }

        async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
            self.0.delete(id).await
        }

        async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
            self.0.delete_expired(now, limit).await
        }

        async fn list_by_owner(
            &self,
            owner: &str,
            now: Timestamp,
        ) -> Result<Vec<(SessionId, Record)>, StoreError> {
            self.0.list_by_owner(owner, now).await
        }

        async fn delete_by_owner(
            &self,
            owner: &str,
            keep: Option<SessionId>,
            now: Timestamp,
        ) -> Result<usize, StoreError> {
            self.0.delete_by_owner(owner, keep, now).await
        }

        async fn sign_in(
            &self,
            id: SessionId,
            record: &Record,
            expected: Option<Version>,
            admission: Admission,
            now: Timestamp,
        ) -> Result<SignIn, StoreError> {
            self.0.sign_in(id, record, expected, admission, now).await
        }

        async fn delete_all(&self) -> Result<usize, StoreError> {
            self.0.delete_all().await
        }
    }

    let server = Server::new().under(SessionLayer::builder(Single(MemoryStore::new())));
    let client: Client = server.client();
    client.get("/write").await.ok();
    assert_eq!(client.get("/read").await.text(), "[null,1]");
}
