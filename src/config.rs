//! What a layer is told, and the check that it makes sense.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::carrier::Carrier;
use crate::clock::whole_millis_up;
use crate::cookie::{Attributes, SameSite, Template};
use crate::expiry::{ExpiryPolicy, Limits};
use crate::record::Record;
use crate::store::contract::{OwnerLimit, WhenFull};
use crate::token::{Namespace, TEXT_LEN};
use crate::watch::WatchClient;

/// What happens when a key that a handler read and then set was changed by a parallel request.
///
/// [`Session::update`](crate::Session::update) is not affected: its closure runs again on the newer
/// value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnConflict {
    /// The later commit decides that key; other keys are not disturbed.
    #[default]
    LastWriteWins,
    /// The later commit writes nothing, and its client gets 409.
    Reject,
}

/// The settings of a layer before they are checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) cookie_name: Option<String>,
    pub(crate) path: String,
    pub(crate) domain: Option<String>,
    pub(crate) same_site: SameSite,
    pub(crate) partitioned: bool,
    pub(crate) persistent: bool,
    pub(crate) insecure_http: bool,
    pub(crate) bearer: bool,
    /// Without a store: how much data a cookie of a name has room for.
    pub(crate) room: Option<fn(&str) -> usize>,
    pub(crate) idle_timeout: Duration,
    pub(crate) absolute_timeout: Duration,
    pub(crate) anonymous_timeout: Option<Duration>,
    pub(crate) renew_every: Option<Duration>,
    pub(crate) renewal_grace: Duration,
    pub(crate) touch_interval: Option<Duration>,
    pub(crate) store_timeout: Duration,
    pub(crate) recheck_interval: Duration,
    pub(crate) max_size: Option<usize>,
    pub(crate) on_conflict: OnConflict,
    pub(crate) eager: bool,
    pub(crate) max_sessions_per_owner: Option<(usize, WhenFull)>,
    pub(crate) sign_in_page: Option<String>,
    pub(crate) step_up_page: Option<String>,
    pub(crate) watch_client: Option<WatchClient>,
}

/// The largest value of `max_size`: what every store can hold in a row.
const MAX_SIZE_LIMIT: usize = 16 * 1024 * 1024;

const DEFAULT_MAX_SIZE: usize = 64 * 1024;

impl Default for Settings {
    fn default() -> Self {
        Self {
            cookie_name: None,
            path: "/".into(),
            domain: None,
            same_site: SameSite::Lax,
            partitioned: false,
            persistent: false,
            insecure_http: false,
            bearer: false,
            room: None,
            // NIST SP 800-63B, AAL2.
            idle_timeout: Duration::from_secs(60 * 60),
            absolute_timeout: Duration::from_secs(24 * 60 * 60),
            anonymous_timeout: None,
            renew_every: None,
            renewal_grace: Duration::ZERO,
            touch_interval: None,
            store_timeout: Duration::from_secs(5),
            recheck_interval: Duration::from_secs(15),
            max_size: None,
            on_conflict: OnConflict::LastWriteWins,
            eager: false,
            max_sessions_per_owner: None,
            sign_in_page: None,
            step_up_page: None,
            watch_client: None,
        }
    }
}

/// The settings of a layer, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) carrier: Carrier,
    pub(crate) namespace: Namespace,
    pub(crate) persistent: bool,
    pub(crate) limits: Limits,
    /// Those of sessions without an owner.
    pub(crate) anonymous_limits: Limits,
    pub(crate) renewal: Option<Renewal>,
    pub(crate) touch_interval: Option<u64>,
    pub(crate) store_timeout: Duration,
    pub(crate) recheck_interval: Duration,
    pub(crate) max_size: usize,
    pub(crate) on_conflict: OnConflict,
    pub(crate) eager: bool,
    pub(crate) owner_limit: Option<OwnerLimit>,
    /// There is a page for refusals or clients are watched, for which something is noted of each request.
    pub(crate) notes_visits: bool,
    pub(crate) sign_in_page: Option<String>,
    pub(crate) step_up_page: Option<String>,
    pub(crate) watch_client: Option<WatchClient>,
}

/// Periodic renewal of the token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal {
    pub(crate) every: Duration,
    pub(crate) grace: Duration,
}

impl Config {
    /// What a session lives by.
    pub(crate) fn limits_of(&self, record: &Record) -> Limits {
        self.limits(record.policy, record.owner.is_some())
    }

    /// The limits of a policy of a session's own, or else the layer's for sessions with or without an owner.
    pub(crate) fn limits(&self, own: Option<ExpiryPolicy>, owned: bool) -> Limits {
        match own {
            Some(policy) => policy.into(),
            None if owned => self.limits,
            None => self.anonymous_limits,
        }
    }

    /// How far the end of a session must move before the store is told, in milliseconds.
    pub(crate) fn touch_interval(&self, limits: Limits) -> u64 {
        self.touch_interval
            .unwrap_or_else(|| limits.idle().div_ceil(10))
    }

    /// Whether data of `size` bytes may replace data of `before` bytes: it fits, or it is what is
    /// left of data stored under a larger limit.
    pub(crate) fn allows(&self, size: usize, before: usize) -> bool {
        size <= self.max_size || size <= before
    }
}

impl Settings {
    pub(crate) fn check(self) -> Result<Config, ConfigError> {
        let carrier = self.carrier()?;
        self.check_times()?;
        for page in [&self.sign_in_page, &self.step_up_page]
            .into_iter()
            .flatten()
        {
            if !is_page(page) {
                return Err(ConfigError::Page { page: page.clone() });
            }
        }
        let max_size = self.max_size(&carrier)?;
        let owner_limit = self.max_sessions_per_owner.map(|(max, when_full)| {
            let max = NonZeroUsize::new(max).ok_or(ConfigError::NoSessions)?;
            Ok(OwnerLimit::new(max, when_full))
        });
        let owner_limit = owner_limit.transpose()?;
        Ok(Config {
            namespace: Namespace::new(carrier.name()),
            carrier,
            persistent: self.persistent,
            limits: ExpiryPolicy::new(self.idle_timeout, self.absolute_timeout).into(),
            anonymous_limits: ExpiryPolicy::new(
                self.idle_timeout,
                self.anonymous_timeout.unwrap_or(self.absolute_timeout / 2),
            )
            .into(),
            renewal: self.renew_every.map(|every| Renewal {
                every,
                grace: self.renewal_grace,
            }),
            touch_interval: self.touch_interval.map(whole_millis_up),
            store_timeout: self.store_timeout,
            recheck_interval: self.recheck_interval,
            max_size,
            on_conflict: self.on_conflict,
            eager: self.eager,
            owner_limit,
            notes_visits: self.watch_client.is_some()
                || self.sign_in_page.is_some()
                || self.step_up_page.is_some(),
            sign_in_page: self.sign_in_page,
            step_up_page: self.step_up_page,
            watch_client: self.watch_client,
        })
    }

    fn carrier(&self) -> Result<Carrier, ConfigError> {
        if self.bearer {
            return match self.cookie_setting() {
                Some(setting) => Err(ConfigError::CookieSetting { setting }),
                None => Ok(Carrier::Bearer),
            };
        }
        let attributes = self.attributes();
        check_cookie(&attributes, self.insecure_http)?;
        let name = attributes.name.clone();
        let cookie = Template::new(&attributes).ok_or(ConfigError::CookieName { name })?;
        Ok(Carrier::Cookie(Box::new(cookie)))
    }

    /// A setting that has a meaning for cookies alone.
    fn cookie_setting(&self) -> Option<&'static str> {
        let settings = [
            ("cookie_name", self.cookie_name.is_some()),
            ("path", self.path != "/"),
            ("domain", self.domain.is_some()),
            ("same_site", self.same_site != SameSite::Lax),
            ("partitioned", self.partitioned),
            ("persistent", self.persistent),
            ("insecure_http", self.insecure_http),
        ];
        let set = settings.into_iter().find(|(_, is_set)| *is_set);
        set.map(|(setting, _)| setting)
    }

    fn max_size(&self, carrier: &Carrier) -> Result<usize, ConfigError> {
        let room = self.room.map(|room| room(carrier.name()));
        let size = self.max_size.unwrap_or(room.unwrap_or(DEFAULT_MAX_SIZE));
        match room {
            Some(room) if size > room => Err(ConfigError::CookieRoom { size, room }),
            _ if size == 0 || size > MAX_SIZE_LIMIT => Err(ConfigError::MaxSize { size }),
            _ => Ok(size),
        }
    }

    fn attributes(&self) -> Attributes {
        let default_name = || {
            let name = match (self.insecure_http, &self.domain, &*self.path) {
                (true, ..) => "id",
                (false, None, "/") => "__Host-id",
                _ => "__Secure-id",
            };
            name.to_owned()
        };
        Attributes {
            name: self.cookie_name.clone().unwrap_or_else(default_name),
            path: self.path.clone(),
            domain: self.domain.clone(),
            secure: !self.insecure_http,
            same_site: self.same_site,
            partitioned: self.partitioned,
        }
    }

    fn check_times(&self) -> Result<(), ConfigError> {
        let named = [
            ("idle_timeout", Some(self.idle_timeout)),
            ("absolute_timeout", Some(self.absolute_timeout)),
            ("anonymous_timeout", self.anonymous_timeout),
            ("renew_every", self.renew_every),
            ("touch_interval", self.touch_interval),
            ("store_timeout", Some(self.store_timeout)),
            ("recheck_interval", Some(self.recheck_interval)),
        ];
        for (setting, duration) in named {
            // The crate counts in milliseconds.
            if duration.is_some_and(|duration| duration < Duration::from_millis(1)) {
                return Err(ConfigError::ZeroDuration { setting });
            }
        }
        if self.anonymous_timeout > Some(self.absolute_timeout) {
            return Err(ConfigError::AnonymousTimeout);
        }
        if self
            .touch_interval
            .is_some_and(|interval| interval >= self.idle_timeout)
        {
            return Err(ConfigError::TouchInterval);
        }
        match self.renew_every {
            None if self.renewal_grace > Duration::ZERO => Err(ConfigError::GraceWithoutRenewal),
            Some(every) if self.renewal_grace >= every => Err(ConfigError::GraceTooLong),
            _ => Ok(()),
        }
    }
}

fn check_cookie(cookie: &Attributes, insecure_http: bool) -> Result<(), ConfigError> {
    let Attributes {
        name,
        path,
        domain,
        secure,
        ..
    } = cookie;
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        return Err(ConfigError::CookieName { name: name.clone() });
    }
    // RFC 6265bis section 5.6: browsers ignore a name and value of more than 4096 bytes. The digest
    // writes the name's length in one byte.
    if name.len() > 255 || name.len() + TEXT_LEN >= 4096 {
        return Err(ConfigError::CookieTooLong {
            what: "name",
            limit: 255,
        });
    }
    if path.len() > 1024 {
        return Err(ConfigError::CookieTooLong {
            what: "path",
            limit: 1024,
        });
    }
    if !path.starts_with('/') || path.ends_with(' ') || !path.bytes().all(is_attribute_byte) {
        return Err(ConfigError::Path { path: path.clone() });
    }
    if let Some(domain) = domain {
        if domain.len() > 253 {
            return Err(ConfigError::CookieTooLong {
                what: "domain",
                limit: 253,
            });
        }
        if !is_domain(domain) {
            return Err(ConfigError::Domain {
                domain: domain.clone(),
            });
        }
    }
    // In order of length: of two prefixes that fit, the longer one is the one that browsers apply.
    for prefix in ["__Host-Http-", "__Http-", "__Secure-", "__Host-"] {
        let Some(start) = name.get(..prefix.len()) else {
            continue;
        };
        if !start.eq_ignore_ascii_case(prefix) {
            continue;
        }
        if start != prefix {
            return Err(ConfigError::PrefixSpelling {
                name: name.clone(),
                prefix,
            });
        }
        if !secure {
            return Err(ConfigError::PrefixNeedsSecure { prefix });
        }
        if prefix.starts_with("__Host-") && (domain.is_some() || path != "/") {
            return Err(ConfigError::HostPrefix { prefix });
        }
        break;
    }
    if !secure && cookie.same_site == SameSite::None {
        return Err(ConfigError::NeedsSecure {
            setting: "same_site(SameSite::None)",
        });
    }
    if !secure && cookie.partitioned {
        return Err(ConfigError::NeedsSecure {
            setting: "partitioned(true)",
        });
    }
    debug_assert_eq!(insecure_http, !secure);
    Ok(())
}

/// A token in the sense of RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// An av-octet of RFC 6265bis section 4.1.1.
fn is_attribute_byte(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && byte != b';'
}

/// Whether a redirect can lead to it and `?next=` can be added.
fn is_page(page: &str) -> bool {
    // Browsers take `//` and `/\\` for the beginning of a host's name.
    let path = |rest: &str| !rest.starts_with(['/', '\\']);
    let address = page.strip_prefix('/').is_some_and(path) || page.starts_with("https://");
    address
        && page
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// Whether browsers take a host's name: they refuse a top level, such as `com`.
fn is_domain(domain: &str) -> bool {
    let is_top_level = !domain.contains('.') && !domain.eq_ignore_ascii_case("localhost");
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    !is_top_level && domain.split('.').all(label)
}

/// A combination of settings that cannot work, found when the layer is built.
///
/// Each message says how to mend it, also as `Debug`.
///
/// ```
/// use cloakroom::{ConfigError, MemoryStore, SessionLayer};
///
/// let layer = SessionLayer::builder(MemoryStore::new())
///     .cookie_name("__Host-sid")
///     .domain("example.com")
///     .build();
/// let error = layer.unwrap_err();
/// assert!(matches!(error, ConfigError::HostPrefix { .. }));
/// assert!(error.to_string().contains("use the prefix `__Secure-`"));
/// assert_eq!(format!("{error:?}"), error.to_string());
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The cookie's name is empty or has a character that a cookie's name cannot have.
    #[non_exhaustive]
    CookieName {
        /// The name given.
        name: String,
    },
    /// A part of the cookie is longer than browsers keep.
    #[non_exhaustive]
    CookieTooLong {
        /// Which part.
        what: &'static str,
        /// The most bytes it may have.
        limit: usize,
    },
    /// The path does not begin with `/` or has a character that would end the attribute.
    #[non_exhaustive]
    Path {
        /// The path given.
        path: String,
    },
    /// The domain is not a host name.
    #[non_exhaustive]
    Domain {
        /// The domain given.
        domain: String,
    },
    /// A cookie prefix is not spelled as servers match it.
    #[non_exhaustive]
    PrefixSpelling {
        /// The name given.
        name: String,
        /// The prefix as it is spelled.
        prefix: &'static str,
    },
    /// Browsers refuse the name's prefix on a cookie without `Secure`.
    #[non_exhaustive]
    PrefixNeedsSecure {
        /// The prefix.
        prefix: &'static str,
    },
    /// Browsers refuse the name's prefix on a cookie with a domain or a path other than `/`.
    #[non_exhaustive]
    HostPrefix {
        /// The prefix.
        prefix: &'static str,
    },
    /// Browsers refuse the setting on a cookie without `Secure`.
    #[non_exhaustive]
    NeedsSecure {
        /// The setting.
        setting: &'static str,
    },
    /// A duration is less than a millisecond.
    #[non_exhaustive]
    ZeroDuration {
        /// The setting.
        setting: &'static str,
    },
    /// The address of a page to sign in at cannot be redirected to.
    #[non_exhaustive]
    Page {
        /// The address given.
        page: String,
    },
    /// Anonymous sessions would live longer than signed-in ones.
    AnonymousTimeout,
    /// The touch interval is not shorter than the idle timeout.
    TouchInterval,
    /// A grace is set, but no periodic renewal.
    GraceWithoutRenewal,
    /// The grace is not shorter than the renewal's period.
    GraceTooLong,
    /// An owner may have no session at all.
    NoSessions,
    /// The largest size of a session's data is zero or more than 16 MiB.
    #[non_exhaustive]
    MaxSize {
        /// The size given.
        size: usize,
    },
    /// The largest size of a session's data is more than its cookie has room for.
    #[non_exhaustive]
    CookieRoom {
        /// The size given.
        size: usize,
        /// The most that fits.
        room: usize,
    },
    /// A setting of cookies, though tokens travel without them.
    #[non_exhaustive]
    CookieSetting {
        /// The setting.
        setting: &'static str,
    },
    /// A key could be guessed.
    #[non_exhaustive]
    WeakKey {
        /// What is wrong with it.
        why: &'static str,
    },
}

/// The message: it is what is printed of an error that `main` returns.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CookieName { name } => write!(
                f,
                "`cookie_name({name:?})` cannot name a cookie: use letters, digits and !#$%&'*+-.^_`|~"
            ),
            Self::CookieTooLong { what, limit } => {
                write!(f, "the cookie's {what} is too long: use at most {limit} bytes")
            }
            Self::Path { path } => write!(
                f,
                "`path({path:?})` cannot be a cookie's path: begin with `/` and use printable ASCII, \
                 without `;` and not ending with a space"
            ),
            Self::Domain { domain } => write!(
                f,
                "`domain({domain:?})` is not a host name that browsers take: use one such as \
                 `example.com`, without scheme, port or a dot in front"
            ),
            Self::PrefixSpelling { name, prefix } => write!(
                f,
                "`cookie_name({name:?})` spells a cookie prefix in a way that servers do not \
                 recognise: write `{prefix}`"
            ),
            Self::PrefixNeedsSecure { prefix } => write!(
                f,
                "browsers refuse a `{prefix}` cookie over plain http: remove `cookie_name` or \
                 `insecure_http`"
            ),
            Self::HostPrefix { prefix } => write!(
                f,
                "browsers refuse a `{prefix}` cookie with a domain or a path other than `/`: remove \
                 `domain` and `path`, or use the prefix `__Secure-`"
            ),
            Self::NeedsSecure { setting } => write!(
                f,
                "browsers refuse `{setting}` over plain http: remove it or `insecure_http`"
            ),
            Self::ZeroDuration { setting } => {
                write!(f, "`{setting}` is less than a millisecond: give it a longer duration")
            }
            Self::Page { page } => write!(
                f,
                "{page:?} is no address of a page to sign in at: use a path such as `/login`, or one \
                 that begins with `https://`, in ASCII and without `#`"
            ),
            Self::AnonymousTimeout => f.write_str(
                "`anonymous_timeout` is longer than `absolute_timeout`: shorten the one or lengthen \
                 the other",
            ),
            Self::TouchInterval => f.write_str(
                "`touch_interval` is not shorter than `idle_timeout`, so sessions in use would end: \
                 make it a fraction of it, or remove it for a tenth",
            ),
            Self::GraceWithoutRenewal => f.write_str(
                "`renewal_grace` has no effect without periodic renewal: set `renew_every` or remove it",
            ),
            Self::GraceTooLong => f.write_str(
                "`renewal_grace` is not shorter than `renew_every`: a few seconds are enough for \
                 requests in flight",
            ),
            Self::NoSessions => f.write_str(
                "`max_sessions_per_owner(0, …)` lets nobody sign in: allow 1 or more, or remove it",
            ),
            Self::MaxSize { size } => write!(
                f,
                "`max_size({size})` is out of range: use 1 byte to 16 MiB (the default is 64 KiB)"
            ),
            Self::CookieRoom { size, room } => write!(
                f,
                "`max_size({size})` does not fit into a cookie, which has room for {room} bytes: use \
                 that or less, or a store"
            ),
            Self::CookieSetting { setting } => write!(
                f,
                "`{setting}` is for cookies, and `bearer` uses none: remove one of them"
            ),
            Self::WeakKey { why } => write!(
                f,
                "a key {why}: make one with `openssl rand -base64 32`, and keep it out of the source"
            ),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Settings)) -> Result<Config, ConfigError> {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.check()
    }

    fn named(name: &str) -> Result<Config, ConfigError> {
        check(|s| s.cookie_name = Some(name.into()))
    }

    fn name_of(change: impl FnOnce(&mut Settings)) -> String {
        check(change).unwrap().carrier.name().to_owned()
    }

    /// S-15, S-19: byte for byte.
    #[test]
    fn the_default_name_has_the_strongest_prefix_that_the_settings_allow() {
        assert_eq!(name_of(|_| ()), "__Host-id");
        assert_eq!(name_of(|s| s.path = "/shop".into()), "__Secure-id");
        assert_eq!(
            name_of(|s| s.domain = Some("example.com".into())),
            "__Secure-id"
        );
        assert_eq!(name_of(|s| s.insecure_http = true), "id");
    }

    /// S-18.
    #[test]
    fn impossible_cookies_are_refused() {
        let host = ConfigError::HostPrefix { prefix: "__Host-" };
        let with_name = |name: &'static str, change: fn(&mut Settings)| {
            check(|s| {
                s.cookie_name = Some(name.into());
                change(s);
            })
            .unwrap_err()
        };
        assert_eq!(
            with_name("__Host-id", |s| s.domain = Some("example.com".into())),
            host
        );
        assert_eq!(with_name("__Host-id", |s| s.path = "/a".into()), host);
        let http_host = ConfigError::HostPrefix {
            prefix: "__Host-Http-",
        };
        assert_eq!(
            with_name("__Host-Http-id", |s| s.path = "/a".into()),
            http_host
        );
        for (name, prefix) in [
            ("__Host-id", "__Host-"),
            ("__Secure-id", "__Secure-"),
            ("__Http-id", "__Http-"),
            ("__Host-Http-id", "__Host-Http-"),
        ] {
            let error = with_name(name, |s| s.insecure_http = true);
            assert_eq!(error, ConfigError::PrefixNeedsSecure { prefix });
            assert!(named(name).is_ok());
        }
        let none = check(|s| (s.insecure_http, s.same_site) = (true, SameSite::None));
        assert!(matches!(none, Err(ConfigError::NeedsSecure { .. })));
        let partitioned = check(|s| (s.insecure_http, s.partitioned) = (true, true));
        assert!(matches!(partitioned, Err(ConfigError::NeedsSecure { .. })));
    }

    /// S-19.
    #[test]
    fn a_prefix_in_another_case_is_refused() {
        for name in [
            "__HOST-id",
            "__host-id",
            "__secure-id",
            "__HTTP-id",
            "__Host-HTTP-id",
        ] {
            assert!(
                matches!(named(name), Err(ConfigError::PrefixSpelling { .. })),
                "{name}"
            );
        }
        assert!(named("Host__id").is_ok());
    }

    /// S-20.
    #[test]
    fn nothing_in_a_setting_can_end_its_attribute() {
        for byte in (0..=0x20u8).chain(*b"()<>@,;:\\\"/[]?={}\x7f") {
            let name = format!("a{}b", char::from(byte));
            assert!(
                matches!(named(&name), Err(ConfigError::CookieName { .. })),
                "{name:?}"
            );
        }
        for name in ["", "é", "a b"] {
            assert!(matches!(named(name), Err(ConfigError::CookieName { .. })));
        }
        for path in [
            "",
            "a",
            "/a;b",
            "/ ",
            "/a\r\nX: y",
            "/\u{e9}",
            "/a\tb",
            "/\x7f",
        ] {
            let error = check(|s| s.path = path.into());
            assert!(matches!(error, Err(ConfigError::Path { .. })), "{path:?}");
        }
        for domain in [
            "",
            ".example.com",
            "example.com.",
            "a;b",
            "a b",
            "a\r\nb",
            "-a",
            "a-",
            "a..b",
            "é.com",
            "com",
        ] {
            let error = check(|s| s.domain = Some(domain.into()));
            assert!(
                matches!(error, Err(ConfigError::Domain { .. })),
                "{domain:?}"
            );
        }
    }

    /// S-22.
    #[test]
    fn the_cookie_fits_what_browsers_keep() {
        assert!(named(&"n".repeat(255)).is_ok());
        assert!(matches!(
            named(&"n".repeat(256)),
            Err(ConfigError::CookieTooLong { .. })
        ));
        assert!(check(|s| s.path = format!("/{}", "p".repeat(1023))).is_ok());
        let long = check(|s| s.path = format!("/{}", "p".repeat(1024)));
        assert!(matches!(long, Err(ConfigError::CookieTooLong { .. })));
        let long = check(|s| s.domain = Some(format!("{}com", "d.".repeat(126))));
        assert!(matches!(long, Err(ConfigError::CookieTooLong { .. })));
    }

    #[test]
    fn durations_must_make_sense_together() {
        let second = Duration::from_secs(1);
        let zero: [fn(&mut Settings); 6] = [
            |s| s.anonymous_timeout = Some(Duration::ZERO),
            |s| s.idle_timeout = Duration::ZERO,
            |s| s.absolute_timeout = Duration::from_micros(999),
            |s| s.renew_every = Some(Duration::ZERO),
            |s| s.touch_interval = Some(Duration::ZERO),
            |s| s.store_timeout = Duration::ZERO,
        ];
        for change in zero {
            assert!(matches!(
                check(change),
                Err(ConfigError::ZeroDuration { .. })
            ));
        }
        let anonymous = check(|s| s.anonymous_timeout = Some(s.absolute_timeout + second));
        assert_eq!(anonymous.unwrap_err(), ConfigError::AnonymousTimeout);
        let touch = check(|s| (s.idle_timeout, s.touch_interval) = (second, Some(second)));
        assert_eq!(touch.unwrap_err(), ConfigError::TouchInterval);
        let lonely = check(|s| s.renewal_grace = second);
        assert_eq!(lonely.unwrap_err(), ConfigError::GraceWithoutRenewal);
        let long = check(|s| (s.renew_every, s.renewal_grace) = (Some(second), second));
        assert_eq!(long.unwrap_err(), ConfigError::GraceTooLong);
        let idle_beyond = check(|s| s.idle_timeout = s.absolute_timeout * 2);
        assert!(idle_beyond.is_ok());
        assert!(
            check(|s| (s.idle_timeout, s.absolute_timeout) = (Duration::MAX, Duration::MAX))
                .is_ok()
        );
    }

    #[test]
    fn an_owner_may_have_at_least_one_session() {
        let with = |max| check(|s| s.max_sessions_per_owner = Some((max, WhenFull::Refuse)));
        assert_eq!(with(0).unwrap_err(), ConfigError::NoSessions);
        assert!(with(1).is_ok());
    }

    #[test]
    fn a_page_to_sign_in_at_is_one_that_can_be_redirected_to() {
        for page in [
            "",
            "login",
            "/a b",
            "/a\r\nX: y",
            "/é",
            "/a#b",
            "//evil.example",
            "/\\evil.example",
            "javascript:x",
            "http://a/",
        ] {
            for change in [
                (|s, page| s.sign_in_page = page) as fn(&mut Settings, Option<String>),
                |s, page| s.step_up_page = page,
            ] {
                let error = check(|s| change(s, Some(page.into()))).unwrap_err();
                assert_eq!(error, ConfigError::Page { page: page.into() });
            }
        }
        for page in ["/login", "/login?a=1", "https://id.example.com/login"] {
            assert!(check(|s| s.sign_in_page = Some(page.into())).is_ok());
        }
    }

    #[test]
    fn the_size_limit_has_a_range() {
        for size in [0, MAX_SIZE_LIMIT + 1, usize::MAX] {
            assert_eq!(
                check(|s| s.max_size = Some(size)).unwrap_err(),
                ConfigError::MaxSize { size }
            );
        }
        assert!(check(|s| s.max_size = Some(MAX_SIZE_LIMIT)).is_ok());
    }
}
