//! Who has an account. A real shop keeps them in a database, and counts wrong tries. The owner of a session is
//! an account's random id and never its name, which somebody else may have at another shop on the same store,
//! or after a restart.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;

use password_auth::{generate_hash, verify_password};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use uuid::Builder;

use crate::cart::Cart;
use crate::preferences::Text;

/// An account that is there from the start, and shown on the sign-in page.
pub(crate) const DEMO: (&str, &str) = ("ada", "demo-password");

/// Not random: everybody has the password anyway, and a session of hers goes on at another shop on the same
/// store, and after a restart.
const DEMO_ID: &str = "c4b1cbb5-4f0e-4ad1-8a39-6f2f0d1b7e52";

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
    name: String,
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
    fn new(name: &str, hash: String) -> Self {
        Self {
            name: name.to_owned(),
            hash,
            cart: Cart::default(),
            is_administrator: false,
            is_warned: false,
        }
    }
}

#[derive(Debug, Default)]
struct Directory {
    accounts: HashMap<String, Account>,
    /// The id of each name.
    ids: BTreeMap<String, String>,
}

impl Directory {
    /// `false` if the name is taken.
    fn add(&mut self, id: &str, account: Account) -> bool {
        let free = !self.ids.contains_key(&account.name);
        if free {
            self.ids.insert(account.name.clone(), id.to_owned());
            self.accounts.insert(id.to_owned(), account);
        }
        free
    }
}

#[derive(Debug)]
pub(crate) struct Accounts {
    directory: Mutex<Directory>,
    hashing: Hashing,
    /// What passwords are compared with where there is no account.
    decoy: String,
}

impl Accounts {
    /// With the demonstration's account in it, and the administrator's if there is to be one.
    pub(crate) fn new(administrator: Option<&Administrator>) -> Self {
        let (name, password) = DEMO;
        let decoy = generate_hash(password);
        let mut directory = Directory::default();
        directory.add(DEMO_ID, Account::new(name, decoy.clone()));
        if let Some(Administrator { name, password }) = administrator {
            let mut account = Account::new(name, generate_hash(password));
            account.is_administrator = true;
            directory.add(&new_id(), account);
        }
        Self {
            directory: Mutex::new(directory),
            hashing: Hashing::default(),
            decoy,
        }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Directory) -> R) -> R {
        let directory = self.directory.lock();
        work(&mut directory.unwrap_or_else(PoisonError::into_inner))
    }

    /// What `work` makes of the account with this id, if this shop has it.
    fn of<R>(&self, id: &str, work: impl FnOnce(&mut Account) -> R) -> Option<R> {
        self.with(|directory| directory.accounts.get_mut(id).map(work))
    }

    /// Makes an account, and gives its id; `None` if the name is taken.
    pub(crate) async fn register(&self, name: &str, password: &str) -> Option<String> {
        let account = Account::new(name, self.hash(password).await);
        let id = new_id();
        self.with(|directory| directory.add(&id, account))
            .then_some(id)
    }

    /// The id of the account with this name and password. It takes as long for a name that nobody has, so
    /// that the time does not tell.
    pub(crate) async fn check(&self, name: &str, password: &str) -> Option<String> {
        let id = self.id(name).unwrap_or_default();
        self.check_password(&id, password).await.then_some(id)
    }

    /// Whether this is the account's password.
    pub(crate) async fn check_password(&self, id: &str, password: &str) -> bool {
        let hash = self.of(id, |account| account.hash.clone());
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoy.clone());
        let password = password.to_owned();
        let verify = move || verify_password(password, &hash).is_ok();
        self.hashing.run(verify).await && known
    }

    pub(crate) async fn set_password(&self, id: &str, password: &str) {
        let hash = self.hash(password).await;
        self.of(id, |account| account.hash = hash);
    }

    async fn hash(&self, password: &str) -> String {
        let password = password.to_owned();
        self.hashing.run(move || generate_hash(password)).await
    }

    pub(crate) fn id(&self, name: &str) -> Option<String> {
        self.with(|directory| directory.ids.get(name).cloned())
    }

    /// Whether it is an account of this shop.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.of(id, |_| ()).is_some()
    }

    pub(crate) fn is_administrator(&self, id: &str) -> bool {
        self.of(id, |account| account.is_administrator)
            .unwrap_or_default()
    }

    /// All names, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.with(|directory| directory.ids.keys().cloned().collect())
    }

    /// Remembers that a session of theirs came from another browser.
    pub(crate) fn warn(&self, id: &str) {
        self.of(id, |account| account.is_warned = true);
    }

    /// They have done what there is to do about it.
    pub(crate) fn calm(&self, id: &str) {
        self.of(id, |account| account.is_warned = false);
    }

    pub(crate) fn is_warned(&self, id: &str) -> bool {
        self.of(id, |account| account.is_warned).unwrap_or_default()
    }

    pub(crate) fn close(&self, id: &str) {
        self.with(|directory| {
            if let Some(account) = directory.accounts.remove(id) {
                directory.ids.remove(&account.name);
            }
        });
    }

    /// Keeps a cart for the next sign-in, wherever that is.
    pub(crate) fn keep_cart(&self, id: &str, cart: &Cart) {
        self.of(id, |account| account.cart.merge(cart));
    }

    pub(crate) fn take_cart(&self, id: &str) -> Cart {
        self.of(id, |account| std::mem::take(&mut account.cart))
            .unwrap_or_default()
    }
}

fn new_id() -> String {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the operating system has random numbers");
    let id = Builder::from_random_bytes(random).into_uuid();
    id.to_string()
}

/// Each hash takes a core and 19 MiB for a while, so there are never more at once than cores: others would be no
/// faster together, and a flood of sign-ins would take all memory.
#[derive(Debug)]
struct Hashing(Arc<Semaphore>);

impl Default for Hashing {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(cores)))
    }
}

impl Hashing {
    async fn run<R: Send + 'static>(&self, hash: impl FnOnce() -> R + Send + 'static) -> R {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        let permit = permit.expect("nobody closes it");
        // It is slow on purpose, and other requests go on meanwhile.
        let work = spawn_blocking(move || {
            // Here and not outside: the client may leave, and the work goes on.
            let _permit = permit;
            hash()
        });
        work.await.expect("hashing does not panic")
    }
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
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn an_account_opens_with_its_own_password_alone() {
        let accounts = Accounts::new(None);
        let id = accounts.register("grace", "cobol-1959").await;
        let id = id.expect("the name is free");
        assert_eq!(accounts.register("grace", "something else").await, None);
        let right = accounts.check("grace", "cobol-1959").await;
        assert_eq!(right.as_ref(), Some(&id));
        for (name, password) in [
            ("grace", "something else"),
            ("grace", DEMO.1),
            ("nobody", DEMO.1),
            ("", DEMO.1),
            (&id, "cobol-1959"),
            ("", ""),
        ] {
            assert_eq!(accounts.check(name, password).await, None, "{name}");
        }
        accounts.set_password(&id, "cobol-2023").await;
        assert!(!accounts.check_password(&id, "cobol-1959").await);
        assert!(accounts.check_password(&id, "cobol-2023").await);
        accounts.close(&id);
        assert!(!accounts.check_password(&id, "cobol-2023").await);
        assert_eq!(accounts.check("grace", "cobol-2023").await, None);
    }

    /// S-57.
    #[tokio::test]
    async fn whoever_takes_the_name_of_an_administrator_who_left_is_none() {
        let accounts = Accounts::new(Some(&Administrator {
            name: "root".into(),
            password: "cobol-1959".into(),
        }));
        let root = accounts.id("root").expect("there is one");
        assert!(accounts.is_administrator(&root));
        assert!(!accounts.is_administrator(DEMO_ID));
        assert_eq!(accounts.register("root", "guess-4711").await, None);
        accounts.close(&root);
        let id = accounts.register("root", "guess-4711").await;
        let id = id.expect("the name is free");
        assert_ne!(id, root);
        assert!(!accounts.is_administrator(&id));
        assert!(!accounts.is_administrator(&root));
        assert!(!accounts.is_administrator("root"));
    }

    #[tokio::test]
    async fn no_more_passwords_are_hashed_at_once_than_there_are_cores() {
        let hashing = Hashing::default();
        let cores = hashing.0.available_permits();
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let counters = Arc::new((running, most));
        let work = (0..4 * cores).map(|_| {
            let counters = Arc::clone(&counters);
            hashing.run(move || {
                let (running, most) = &*counters;
                most.fetch_max(1 + running.fetch_add(1, SeqCst), SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                running.fetch_sub(1, SeqCst);
            })
        });
        join_all(work).await;
        let most = counters.1.load(SeqCst);
        assert!((1..=cores).contains(&most), "{most} of {cores}");
    }

    #[tokio::test]
    async fn clients_that_leave_do_not_make_room_for_more_hashing() {
        let hashing = Hashing::default();
        let cores = hashing.0.available_permits();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let mut work = Box::pin(hashing.run(move || wait.recv()));
        assert!(work.as_mut().now_or_never().is_none());
        drop(work);
        assert_eq!(hashing.0.available_permits(), cores - 1);
        drop(go);
        let all = u32::try_from(cores).expect("a few");
        assert!(hashing.0.acquire_many(all).await.is_ok());
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
