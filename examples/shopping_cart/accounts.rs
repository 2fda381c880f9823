//! Who has an account. A real shop keeps them in a database, and counts wrong tries.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use password_auth::{generate_hash, verify_password};
use tokio::task::spawn_blocking;

use crate::cart::Cart;
use crate::preferences::Text;

/// An account that is there from the start, and shown on the sign-in page.
pub(crate) const DEMO: (&str, &str) = ("ada", "demo-password");

/// Who may see and end everybody's sessions.
#[derive(Clone)]
pub(crate) struct Administrator {
    pub(crate) name: String,
    pub(crate) password: String,
}

/// NIST SP 800-63B 3.1.1.2 asks for this many characters and for no rules of composition.
pub(crate) const MIN_PASSWORD: usize = 8;

#[derive(Clone, Debug)]
struct Account {
    /// Argon2id with a salt of its own.
    hash: String,
    /// What was in the cart at the last sign-out.
    cart: Cart,
    /// Kept with the account and not beside it: whoever registers a name that became free is nobody.
    is_administrator: bool,
    /// A session of theirs came from another browser.
    is_warned: bool,
}

impl Account {
    fn new(hash: String) -> Self {
        Self {
            hash,
            cart: Cart::default(),
            is_administrator: false,
            is_warned: false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Accounts(Mutex<HashMap<String, Account>>);

impl Accounts {
    /// With the demonstration's account in it, and the administrator's if there is to be one.
    pub(crate) fn new(administrator: Option<&Administrator>) -> Self {
        let (name, password) = DEMO;
        let mut accounts =
            HashMap::from([(name.to_owned(), Account::new(generate_hash(password)))]);
        if let Some(Administrator { name, password }) = administrator {
            let mut account = Account::new(generate_hash(password));
            account.is_administrator = true;
            accounts.insert(name.clone(), account);
        }
        Self(Mutex::new(accounts))
    }

    fn with<R>(&self, work: impl FnOnce(&mut HashMap<String, Account>) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes an account; `false` if the name is taken.
    pub(crate) async fn register(&self, name: &str, password: &str) -> bool {
        let account = Account::new(hash(password).await);
        let name = name.to_owned();
        self.with(|accounts| {
            let free = !accounts.contains_key(&name);
            if free {
                accounts.insert(name, account);
            }
            free
        })
    }

    /// Whether this is the account's password. It takes as long for a name that nobody has, so that
    /// the time does not tell.
    pub(crate) async fn check(&self, name: &str, password: &str) -> bool {
        let hash = self.with(|accounts| {
            let account = accounts.get(name).or_else(|| accounts.get(DEMO.0));
            account.map(|account| account.hash.clone())
        });
        let known = self.with(|accounts| accounts.contains_key(name));
        let Some(hash) = hash else { return false };
        let password = password.to_owned();
        // It is slow on purpose, and other requests go on meanwhile.
        let right = spawn_blocking(move || verify_password(password, &hash).is_ok()).await;
        known && right.unwrap_or(false)
    }

    pub(crate) async fn set_password(&self, name: &str, password: &str) {
        let hash = hash(password).await;
        self.with(|accounts| {
            if let Some(account) = accounts.get_mut(name) {
                account.hash = hash;
            }
        });
    }

    pub(crate) fn is_administrator(&self, name: &str) -> bool {
        self.with(|accounts| {
            let account = accounts.get(name);
            account.is_some_and(|account| account.is_administrator)
        })
    }

    /// All names, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.with(|accounts| accounts.keys().cloned().collect());
        names.sort();
        names
    }

    /// Remembers that a session of theirs came from another browser.
    pub(crate) fn warn(&self, name: &str) {
        self.set_warned(name, true);
    }

    /// They have done what there is to do about it.
    pub(crate) fn calm(&self, name: &str) {
        self.set_warned(name, false);
    }

    fn set_warned(&self, name: &str, is_warned: bool) {
        self.with(|accounts| {
            if let Some(account) = accounts.get_mut(name) {
                account.is_warned = is_warned;
            }
        });
    }

    pub(crate) fn is_warned(&self, name: &str) -> bool {
        self.with(|accounts| accounts.get(name).is_some_and(|account| account.is_warned))
    }

    pub(crate) fn close(&self, name: &str) {
        self.with(|accounts| accounts.remove(name));
    }

    /// Keeps a cart for the next sign-in, wherever that is.
    pub(crate) fn keep_cart(&self, name: &str, cart: &Cart) {
        self.with(|accounts| {
            if let Some(account) = accounts.get_mut(name) {
                account.cart.merge(cart);
            }
        });
    }

    pub(crate) fn take_cart(&self, name: &str) -> Cart {
        self.with(|accounts| {
            let account = accounts.get_mut(name);
            account.map(|account| std::mem::take(&mut account.cart))
        })
        .unwrap_or_default()
    }
}

async fn hash(password: &str) -> String {
    let password = password.to_owned();
    let hash = spawn_blocking(move || generate_hash(password)).await;
    hash.expect("hashing does not panic")
}

/// What is wrong with the name or the password of a new account.
pub(crate) fn name_mistake(name: &str) -> Option<Text> {
    let fits = (2..=30).contains(&name.chars().count());
    let plain = name.chars().all(|c| c.is_alphanumeric() || c == '-');
    (!fits || !plain).then_some(Text(
        "Please choose 2 to 30 letters, digits or hyphens.",
        "Bitte 2 bis 30 Buchstaben, Ziffern oder Bindestriche wählen.",
    ))
}

pub(crate) fn password_mistake(password: &str) -> Option<Text> {
    (password.chars().count() < MIN_PASSWORD).then_some(Text(
        "Please choose at least 8 characters.",
        "Bitte mindestens 8 Zeichen wählen.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_account_opens_with_its_own_password_alone() {
        let accounts = Accounts::new(None);
        assert!(accounts.register("grace", "cobol-1959").await);
        assert!(!accounts.register("grace", "something else").await);
        assert!(accounts.check("grace", "cobol-1959").await);
        for (name, password) in [
            ("grace", "something else"),
            ("grace", DEMO.1),
            ("nobody", DEMO.1),
            ("", ""),
        ] {
            assert!(!accounts.check(name, password).await, "{name}");
        }
        accounts.set_password("grace", "cobol-2023").await;
        assert!(!accounts.check("grace", "cobol-1959").await);
        assert!(accounts.check("grace", "cobol-2023").await);
        accounts.close("grace");
        assert!(!accounts.check("grace", "cobol-2023").await);
    }

    /// S-57.
    #[tokio::test]
    async fn whoever_takes_the_name_of_an_administrator_who_left_is_none() {
        let accounts = Accounts::new(Some(&Administrator {
            name: "root".into(),
            password: "cobol-1959".into(),
        }));
        assert!(accounts.is_administrator("root"));
        assert!(!accounts.is_administrator(DEMO.0));
        assert!(!accounts.register("root", "guess-4711").await);
        accounts.close("root");
        assert!(accounts.register("root", "guess-4711").await);
        assert!(!accounts.is_administrator("root"));
    }

    #[test]
    fn names_and_passwords_of_new_accounts_are_looked_at() {
        for name in ["ada-lovelace", "Åse", "x1"] {
            assert_eq!(name_mistake(name), None, "{name}");
        }
        for name in ["", "a", "a b", "<b>", "x\0y", &"x".repeat(31)] {
            assert!(name_mistake(name).is_some(), "{name}");
        }
        assert!(password_mistake("1234567").is_some());
        assert!(password_mistake("correct horse").is_none());
    }
}
