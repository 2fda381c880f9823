//! What the payment provider says. It signs as <https://www.standardwebhooks.com> describes: that is how it is
//! known, and not by a session.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// An old message must not be sent again by somebody who got hold of it.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// What the provider signs with.
#[derive(Clone)]
pub(crate) struct PaymentKey(Hmac<Sha256>);

impl PaymentKey {
    /// From `whsec_` and 24 to 64 bytes in Base64, as providers show it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let key = STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
        let fits = (24..=64).contains(&key.len());
        fits.then(|| Self(Hmac::new_from_slice(&key).expect("HMAC takes keys of any length")))
    }

    fn mac(&self, id: &[u8], timestamp: &[u8], body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in [id, b".", timestamp, b".", body] {
            mac.update(part);
        }
        mac
    }

    /// The header `webhook-signature` for a message.
    #[cfg(test)]
    pub(crate) fn sign(&self, id: &str, timestamp: &str, body: &str) -> String {
        let mac = self.mac(id.as_bytes(), timestamp.as_bytes(), body.as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The orders that were paid. A real shop's database keeps them.
pub(crate) struct Payments {
    key: Option<PaymentKey>,
    paid: Mutex<BTreeSet<u32>>,
}

impl Payments {
    /// Without a key there is no provider.
    pub(crate) fn new(key: Option<PaymentKey>) -> Self {
        Self {
            key,
            paid: Mutex::default(),
        }
    }

    /// Whether the provider has sent this, and just now.
    pub(crate) fn verify(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let header = |name: &str| headers.get(name).map_or(&b""[..], |value| value.as_bytes());
        let (Some(key), Some(time)) = (&self.key, time(header("webhook-timestamp"))) else {
            return false;
        };
        let now = SystemTime::now();
        let age = now
            .duration_since(time)
            .unwrap_or_else(|ahead| ahead.duration());
        if age > TOLERANCE {
            return false;
        }
        let mac = key.mac(header("webhook-id"), header("webhook-timestamp"), body);
        // There are several while the provider changes its key.
        header("webhook-signature")
            .split(|byte| *byte == b' ')
            .any(|signature| {
                let signature = signature.strip_prefix(b"v1,");
                let signature = signature.and_then(|text| STANDARD.decode(text).ok());
                // In constant time.
                signature.is_some_and(|signature| mac.clone().verify_slice(&signature).is_ok())
            })
    }

    /// Notes that an order was paid. Providers send a message again until they hear that it arrived.
    pub(crate) fn note(&self, order: u32) -> bool {
        self.with(|paid| paid.insert(order))
    }

    pub(crate) fn paid(&self) -> Vec<u32> {
        self.with(|paid| paid.iter().copied().collect())
    }

    fn with<R>(&self, work: impl FnOnce(&mut BTreeSet<u32>) -> R) -> R {
        work(&mut self.paid.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Payments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payments").finish_non_exhaustive()
    }
}

fn time(seconds: &[u8]) -> Option<SystemTime> {
    let seconds = std::str::from_utf8(seconds).ok()?.parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
