//! What a path, a file and a table's name can be.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Barrier};

use cloakroom::store::SessionStore as _;
use cloakroom::{SqliteStore, SqliteStoreBuilder};
use rusqlite::Connection;

use super::{NOW, chain, database, directory, id, record};

fn refused(builder: &SqliteStoreBuilder, path: &Path) -> String {
    let error = builder.open(path).unwrap_err();
    assert!(!error.is_corrupt());
    chain(&error)
}

fn open(path: &Path) -> String {
    refused(&SqliteStore::builder(), path)
}

/// A file with these tables.
fn with_tables(sql: &str) -> PathBuf {
    let path = database();
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    path
}

#[test]
fn a_path_that_cannot_be_a_database_is_refused_with_what_to_do() {
    let directory = directory();
    let error = open(&directory);
    assert!(
        error.contains("is a directory; name a file in it"),
        "{error}"
    );
    assert!(error.contains("unable to open database file"), "{error}");

    let error = open(&directory.join("none").join("sessions.db"));
    assert!(error.contains("does not exist; make it first"), "{error}");

    for path in ["", ":memory:"] {
        let error = open(Path::new(path));
        assert!(error.contains("in memory use `in_memory`"), "{error}");
    }

    let text = directory.join("notes.txt");
    fs::write(&text, "Dear diary, ".repeat(100)).unwrap();
    let error = open(&text);
    assert!(
        error.contains("notes.txt` is not an SQLite database"),
        "{error}"
    );
    assert_eq!(fs::read(&text).unwrap().len(), 1_200, "it is left alone");
}

#[test]
fn a_file_that_cannot_be_written_is_refused_with_what_to_do() {
    const PATH: &str = "CLOAKROOM_TEST_READ_ONLY";
    if let Some(path) = std::env::var_os(PATH) {
        let error = open(Path::new(&path));
        assert!(
            error.contains("needs the right to read and write"),
            "{error}"
        );
        return;
    }
    let path = database();
    drop(SqliteStore::open(&path).unwrap());
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    if File::options().write(true).open(&path).is_err() {
        let error = open(&path);
        assert!(
            error.contains("needs the right to read and write"),
            "{error}"
        );
    } else {
        // Root may write everything, so somebody else tries.
        let open_to_all = std::env::temp_dir().join(format!("cloakroom-{}", std::process::id()));
        fs::create_dir_all(&open_to_all).unwrap();
        let binary = open_to_all.join("test");
        fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
        let database = open_to_all.join("sessions.db");
        fs::copy(&path, &database).unwrap();
        let test = "opening::a_file_that_cannot_be_written_is_refused_with_what_to_do";
        let output = as_nobody(
            Command::new(binary)
                .args(["--exact", test])
                .env(PATH, database)
                .current_dir("/"),
        )
        .output()
        .unwrap();
        fs::remove_dir_all(open_to_all).unwrap();
        assert!(output.status.success(), "{output:?}");
        let ran = String::from_utf8_lossy(&output.stdout);
        assert!(ran.contains("1 passed"), "{ran}");
    }
}

#[cfg(unix)]
fn as_nobody(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt as _;
    command.uid(65_534)
}

#[cfg(not(unix))]
fn as_nobody(command: &mut Command) -> &mut Command {
    command
}

#[test]
fn a_table_of_somebody_else_is_refused_and_left_alone() {
    let path = with_tables("CREATE TABLE Sessions (id INTEGER)");
    let error = open(&path);
    let wanted = "has a table `sessions` already that cloakroom did not make; choose another name \
                  with `SqliteStoreBuilder::table`";
    assert!(error.contains(wanted), "{error}");
    let raw = Connection::open(&path).unwrap();
    let mode = raw.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
    assert_eq!(mode.unwrap(), "delete");
    drop(raw);
    let beside = SqliteStore::builder().table("web_sessions").open(&path);
    drop(beside.unwrap());
}

#[test]
fn a_schema_of_another_version_is_refused() {
    let path = database();
    drop(SqliteStore::open(&path).unwrap());
    let raw = Connection::open(&path).unwrap();
    for version in [0, 2] {
        raw.execute("UPDATE cloakroom_schema SET version = ?1", [version])
            .unwrap();
        let error = open(&path);
        let wanted = format!("has schema version {version}, and this release of cloakroom knows");
        assert!(error.contains(&wanted), "{error}");
        assert!(error.contains("use the release that made it"), "{error}");
    }
}

#[test]
fn tables_that_were_changed_are_refused() {
    let path = database();
    drop(SqliteStore::open(&path).unwrap());
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("ALTER TABLE sessions DROP COLUMN seen")
        .unwrap();
    let error = open(&path);
    assert!(error.contains("compare it with `sqlite.sql`"), "{error}");
    assert!(error.contains("seen"), "{error}");
}

/// S-77.
#[test]
fn a_name_that_is_none_for_a_table_is_refused() {
    let path = database();
    let long = "a".repeat(64);
    for name in [
        "", "a\"b", "a'b", "a b", "1a", "größe", "a;", "SQLite_x", &long,
    ] {
        for error in [
            refused(&SqliteStore::builder().table(name), &path),
            chain(&SqliteStore::builder().table(name).in_memory().unwrap_err()),
        ] {
            let wanted = format!("{name:?} is no name for a table; use 1 to 63 ASCII letters");
            assert!(error.contains(&wanted), "{error}");
        }
        assert!(!path.exists());
    }
    for name in ["a", "_", "select", &long[1..]] {
        drop(SqliteStore::builder().table(name).open(&path).unwrap());
    }
}

/// S-76.
#[tokio::test]
async fn stores_in_two_tables_of_a_file_share_nothing() {
    let path = database();
    let users = SqliteStore::open(&path).unwrap();
    let admins = SqliteStore::builder().table("admins").open(&path).unwrap();
    let _ = users
        .create(id(1), &record(Some("ada")), NOW)
        .await
        .unwrap();
    assert_eq!(admins.load(id(1), NOW).await.unwrap(), None);
    assert_eq!(admins.delete_by_owner("ada", None, NOW).await.unwrap(), 0);
    assert_eq!(admins.delete_all().await.unwrap(), 0);
    assert!(users.load(id(1), NOW).await.unwrap().is_some());
}

#[tokio::test]
async fn own_migrations_may_make_the_tables() {
    let path = with_tables(include_str!("../../src/store/sqlite.sql"));
    let store = SqliteStore::open(&path).unwrap();
    let _ = store.create(id(1), &record(None), NOW).await.unwrap();
    assert!(store.load(id(1), NOW).await.unwrap().is_some());
}

#[test]
fn many_can_open_a_new_file_at_once() {
    let directory = directory();
    for round in 0..50 {
        let path = directory.join(format!("{round}.db"));
        let start = Arc::new(Barrier::new(8));
        let threads = [(); 8].map(|()| {
            let (path, start) = (path.clone(), Arc::clone(&start));
            std::thread::spawn(move || {
                start.wait();
                SqliteStore::open(path).map(drop)
            })
        });
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_file_is_private_and_an_old_one_keeps_its_rights() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let path = database();
    let store = SqliteStore::open(&path).unwrap();
    let _ = store.create(id(1), &record(None), NOW).await.unwrap();
    let files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(files.len(), 3);
    for file in files {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{file:?}");
    }
    drop(store);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    drop(SqliteStore::open(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
}
