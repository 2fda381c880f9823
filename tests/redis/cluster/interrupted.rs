//! What holds between two steps of an operation, and if it is dropped there.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use cloakroom::store::{Admission, SessionStore as _, SignIn, StoreError, Version, WhenFull};
use cloakroom::{RedisStore, SessionId};

use super::super::redis_cluster::RedisCluster;
use super::{at_most, chain, id, now, on, prefix, record, sign_in};

const MAX: usize = 3;

type Answer = Result<SignIn, StoreError>;

/// Goes on with a future until it has waited `times` times. Its answer, if it is done before.
async fn go_on<F: Future>(future: &mut Pin<Box<F>>, times: usize) -> Option<F::Output> {
    let mut waits = 0;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => {
            waits += 1;
            if waits > times {
                Poll::Ready(None)
            } else {
                Poll::Pending
            }
        }
    })
    .await
}

/// A session that signs in: one more than the limit, by the owner who has as many already.
struct Scene {
    store: RedisStore,
    /// Whether the session that signs in is there already.
    is_known: bool,
}

const NEW: u8 = 9;

impl Scene {
    async fn set(is_known: bool) -> Self {
        let store = on(RedisCluster::shared(), &prefix()).await;
        for n in 0..MAX {
            let n = u8::try_from(n).unwrap();
            assert_eq!(
                sign_in(&store, n, Admission::new(now())).await,
                SignIn::Done
            );
        }
        if is_known {
            let _ = store.create(id(NEW), &record(None), now()).await.unwrap();
        }
        Self { store, is_known }
    }

    /// That of the new session, which evicts the oldest of the others.
    fn sign_in(&self) -> Pin<Box<impl Future<Output = Answer> + use<>>> {
        let (store, is_known) = (self.store.clone(), self.is_known);
        Box::pin(async move {
            let mut new = record(Some("ada"));
            let expected = is_known.then_some(Version::FIRST);
            new.version = expected.map_or(Version::FIRST, Version::next);
            let admission = at_most(MAX, WhenFull::EvictOldest);
            store
                .sign_in(id(NEW), &new, expected, admission, now())
                .await
        })
    }

    /// Ada's sessions, as each of them says itself.
    async fn live(&self) -> Vec<SessionId> {
        let mut live = Vec::new();
        // The new one first: what is read later must fit to it.
        for n in [NEW, 0, 1, 2, 3, 4] {
            let found = self.store.load(id(n), now()).await.unwrap();
            if found.is_some_and(|record| record.owner.is_some()) {
                live.push(id(n));
            }
        }
        live
    }

    /// Nobody too many, and what is listed is what is there. Nobody was evicted for nothing.
    async fn is_sound(&self) {
        let mut live = self.live().await;
        assert!(live.len() == MAX, "{live:?}");
        let listed = self.store.list_by_owner("ada", now()).await.unwrap();
        let mut listed: Vec<_> = listed.into_iter().map(|(id, _)| id).collect();
        live.sort_unstable();
        listed.sort_unstable();
        assert_eq!(live, listed);
    }

    /// That no session is in the way of a revocation, and none comes after it.
    async fn can_be_revoked(&self) {
        self.store
            .delete_by_owner("ada", None, now())
            .await
            .unwrap();
        assert_eq!(self.live().await, []);
        let left = self.store.load(id(NEW), now()).await.unwrap();
        assert!(left.is_none_or(|left| self.is_known && left == record_before(&left)));
    }
}

/// A record of nobody's, as before a sign-in.
fn record_before(left: &cloakroom::store::Record) -> cloakroom::store::Record {
    let mut before = left.clone();
    (before.version, before.owner, before.authenticated) = (Version::FIRST, None, None);
    before
}

/// Calls `scene` for each wait of a sign-in, until it makes none any more.
async fn at_each_wait(mut scene: impl AsyncFnMut(Scene, usize) -> bool) {
    for is_known in [false, true] {
        let mut waits = 0;
        while scene(Scene::set(is_known).await, waits).await {
            waits += 1;
            assert!(waits < 200);
        }
        // The claim, a look, the claim again, the session, an end, and that it counts.
        assert!(waits >= 6, "only {waits} waits: are these all steps?");
    }
}

#[tokio::test]
async fn a_sign_in_that_is_dropped_happened_wholly_or_not_at_all() {
    at_each_wait(async |scene, waits| {
        let mut sign_in = scene.sign_in();
        let answer = go_on(&mut sign_in, waits).await;
        drop(sign_in);
        // What was sent is carried out before what is sent now over the same connections.
        scene.is_sound().await;
        // It can be done again, if it did not happen.
        let again = scene.sign_in().await.unwrap();
        match &answer {
            Some(done) => assert_eq!(*done.as_ref().unwrap(), SignIn::Done),
            None => assert!(
                !matches!(again, SignIn::Full | SignIn::Revoked),
                "{again:?}"
            ),
        }
        scene.is_sound().await;
        scene.can_be_revoked().await;
        answer.is_none()
    })
    .await;
}

/// S-60.
#[tokio::test]
async fn a_revocation_between_any_two_steps_of_a_sign_in_beats_it() {
    at_each_wait(async |scene, waits| {
        let mut sign_in = scene.sign_in();
        let answer = go_on(&mut sign_in, waits).await;
        let is_over = answer.is_some();
        scene.can_be_revoked().await;
        if !is_over {
            let answer = sign_in.await;
            let answer = answer.unwrap_or_else(|error| panic!("{}", chain(&error)));
            assert!(
                matches!(answer, SignIn::Revoked | SignIn::Done | SignIn::Gone),
                "{answer:?}"
            );
        }
        assert_eq!(scene.live().await, [], "after {waits} waits");
        assert_eq!(scene.store.list_by_owner("ada", now()).await.unwrap(), []);
        !is_over
    })
    .await;
}

/// S-59.
#[tokio::test]
async fn sign_ins_between_any_two_steps_of_another_keep_the_limit() {
    at_each_wait(async |scene, waits| {
        let mut first = scene.sign_in();
        let answer = go_on(&mut first, waits).await;
        for n in [3, 4] {
            let admission = at_most(MAX, WhenFull::EvictOldest);
            assert_eq!(sign_in(&scene.store, n, admission).await, SignIn::Done);
            scene.is_sound().await;
        }
        if answer.is_none() {
            assert_eq!(first.await.unwrap(), SignIn::Done);
            scene.is_sound().await;
        }
        let refused = sign_in(&scene.store, 5, at_most(MAX, WhenFull::Refuse)).await;
        assert_eq!(refused, SignIn::Full);
        scene.is_sound().await;
        scene.can_be_revoked().await;
        answer.is_none()
    })
    .await;
}

/// S-62.
#[tokio::test]
async fn a_session_that_ends_between_any_two_steps_of_its_sign_in_stays_ended() {
    at_each_wait(async |scene, waits| {
        let mut sign_in = scene.sign_in();
        let answer = go_on(&mut sign_in, waits).await;
        let was_there = scene.store.delete(id(NEW)).await.unwrap();
        if answer.is_none() {
            let answer = sign_in.await.unwrap();
            if was_there {
                assert!(matches!(answer, SignIn::Gone | SignIn::Done), "{answer:?}");
                assert!(scene.store.load(id(NEW), now()).await.unwrap().is_none());
            }
        }
        let others = scene.live().await.len();
        assert!((MAX - 1..=MAX).contains(&others));
        answer.is_none()
    })
    .await;
}

/// Also an update or a touch of a session that is in between finds it whole.
#[tokio::test]
async fn a_session_whose_sign_in_was_dropped_is_used_as_any_other() {
    at_each_wait(async |scene, waits| {
        let mut sign_in = scene.sign_in();
        let answer = go_on(&mut sign_in, waits).await;
        drop(sign_in);
        let touched = scene.store.touch(id(NEW), now(), now()).await.unwrap();
        let found = scene.store.load(id(NEW), now()).await.unwrap();
        assert_eq!(touched, found.is_some());
        if let Some(found) = found {
            let mut next = found.clone();
            next.version = found.version.next();
            let updated = scene
                .store
                .update(id(NEW), &next, found.version, now())
                .await
                .unwrap();
            assert_eq!(updated, cloakroom::store::Update::Done);
        }
        scene.is_sound().await;
        answer.is_none()
    })
    .await;
}

/// What happens to an entry without a session, while its session signs in after all.
async fn at_each_wait_of<F: Future>(of: impl Fn(RedisStore) -> F) {
    for waits in 0.. {
        let store = on(RedisCluster::shared(), &prefix()).await;
        assert_eq!(
            sign_in(&store, NEW, Admission::new(now())).await,
            SignIn::Done
        );
        assert!(store.delete(id(NEW)).await.unwrap());
        // So that it counts as stale.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut operation = Box::pin(of(store.clone()));
        let is_over = go_on(&mut operation, waits).await.is_some();
        let mut later = Admission::new(now());
        later.began = now().saturating_add(Duration::from_secs(60));
        assert_eq!(sign_in(&store, NEW, later).await, SignIn::Done);
        if !is_over {
            operation.await;
        }
        let is_live = store.load(id(NEW), now()).await.unwrap().is_some();
        let listed = store.list_by_owner("ada", now()).await.unwrap().len();
        assert_eq!(listed, usize::from(is_live), "after {waits} waits");
        if is_over {
            assert!(waits >= 3, "only {waits} waits: are these all steps?");
            return;
        }
    }
}

#[tokio::test]
async fn a_session_that_signs_in_between_any_two_steps_of_a_list_keeps_its_entry() {
    at_each_wait_of(async |store: RedisStore| {
        store.list_by_owner("ada", now()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_session_that_signs_in_between_any_two_steps_of_a_revocation_keeps_its_entry() {
    at_each_wait_of(async |store: RedisStore| {
        store.delete_by_owner("ada", None, now()).await.unwrap();
    })
    .await;
}
