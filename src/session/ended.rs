//! Waiting for a session's end, for what outlives its request.

use std::time::Duration;

use super::Session;
use crate::clock::{Timestamp, scale};
use crate::commit::Stored;
use crate::context::Context;
use crate::id::SessionId;
use crate::token::Digest;

/// How often it is looked whether the request still writes its session, once that has another token.
const WRITING: Duration = Duration::from_millis(10);

impl Session {
    /// Waits until the session has ended for its client: for a WebSocket, an event stream or other work
    /// that outlives the request and must not outlive the session (ASVS 7.4.1).
    ///
    /// That is when it was destroyed or revoked, when it has expired, and when another request has
    /// replaced its token by [`sign_in`](Self::sign_in) or [`renew`](Self::renew): whoever holds the
    /// old token, perhaps a thief, is out, and the client itself connects again with the new one. A
    /// [periodic renewal](crate::SessionLayerBuilder::renew_every) is followed instead, unless its
    /// grace is over before the store is asked again.
    ///
    /// What is done through this layer and its clones is noticed at once, and what is done elsewhere
    /// within the [`recheck_interval`](crate::SessionLayerBuilder::recheck_interval) (and the time
    /// that the store takes to answer). A store that fails is asked again at that pace; if it has not
    /// come back by the time at which the session was last known to expire, the session has ended.
    /// Each failure is an [event](crate::SessionEvent::StoreFailed).
    ///
    /// Waiting is no use of the session: it expires as if nobody were there. It costs one timer, and
    /// one load of the record when it begins and at each interval. A session that is not stored has
    /// ended; one [without a store](crate::SessionLayer) ends by the clock alone.
    ///
    /// Make one future and poll it again and again, as here; a new one in each round of a loop asks
    /// the store each time.
    ///
    /// ```
    /// use cloakroom::Session;
    /// use std::pin::pin;
    ///
    /// # async fn next_message() -> Option<String> { None }
    /// async fn chat(session: Session) {
    ///     let mut ended = pin!(session.ended());
    ///     loop {
    ///         tokio::select! {
    ///             () = &mut ended => break,
    ///             message = next_message() => match message {
    ///                 Some(message) => println!("{message}"),
    ///                 None => break,
    ///             },
    ///         }
    ///     }
    /// }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap()
    /// #     .block_on(chat(cloakroom::test_util::session()));
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn ended(&self) {
        let Some(mut watch) = self.stored(Watch::new) else {
            return;
        };
        let context = &self.0.context;
        let mut place = context.endings.place(watch.id, self.owner());
        loop {
            let owner = self.owner();
            if place.owner() != owner.as_deref() {
                place = context.endings.place(watch.id, owner);
            }
            // Before the look, so that what happens during it is a reason for the next.
            let reason = place.reason();
            self.took_new_token(&mut watch);
            if let Some(wait) = watch.look(context).await {
                let _ = tokio::time::timeout(wait, reason).await;
                continue;
            }
            // The store may have its new token, and this request not yet the answer. Not in the line of
            // those who write: whoever keeps this future without polling it would hold up the response.
            while self.state().saving > 0 {
                tokio::time::sleep(WRITING).await;
            }
            if !self.took_new_token(&mut watch) {
                return;
            }
        }
    }

    /// Whether this request itself has given its session a new token meanwhile.
    fn took_new_token(&self, watch: &mut Watch) -> bool {
        let digest = self.stored(|stored| stored.digest);
        let new = digest.filter(|digest| *digest != watch.own);
        watch.own = new.unwrap_or(watch.own);
        new.is_some()
    }
}

/// What is known of a session whose end somebody waits for.
struct Watch {
    id: SessionId,
    /// The digest of the token that the client of this request has.
    own: Digest,
    /// The digest that has taken its place by periodic renewals.
    followed: Digest,
    expires: Timestamp,
}

impl Watch {
    fn new(stored: &Stored) -> Self {
        Self {
            id: stored.id(),
            own: stored.digest,
            followed: stored.digest,
            expires: stored.record.expires,
        }
    }

    /// Looks at the store; the time until the next look, unless the session has ended.
    async fn look(&mut self, context: &Context) -> Option<Duration> {
        if context.seal.is_whole() {
            // There is no store, and nobody but the clock ends it.
            let left = self.expires.saturating_since(context.now());
            return Some(left).filter(|left| !left.is_zero());
        }
        let load = async { Ok(context.store.load(self.id, context.now()).await?) };
        let loaded = context.deadline(load).await;
        let now = context.now();
        match loaded {
            Ok(Some(record)) => {
                let mut known = [self.own, self.followed].into_iter();
                if !record.is_live(context.config.limits_of(&record), now)
                    || !known.any(|digest| record.accepts(digest, now))
                {
                    return None;
                }
                self.followed = record.digest;
                self.expires = record.expires;
            }
            Ok(None) => return None,
            Err(_) if now < self.expires => {}
            Err(_) => return None,
        }
        let left = self.expires.saturating_since(now);
        Some(interval(context).min(left))
    }
}

/// The time between two looks: up to a quarter less than configured, so that those who began
/// together, as after a restart, do not stay together.
fn interval(context: &Context) -> Duration {
    let mut random = [0];
    // Without randomness they go in step, which does no harm.
    let _ = context.entropy.fill(&mut random);
    let part = 1.0 - f64::from(random[0]) / 1024.0;
    scale(context.config.recheck_interval, part)
}
