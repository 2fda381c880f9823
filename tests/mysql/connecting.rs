//! URLs, tables, rights and servers that are not as they should be, and many that start at once.

use std::process::Command;

use cloakroom::store::{Admission, Create, SessionStore as _, SignIn, Timestamp};
use cloakroom::{AnyStore, MysqlStore};
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts};
use tokio::task::{JoinSet, block_in_place};

use super::mysql_server::url;
use super::{
    MysqlServer, NOW, chain, client, client_of, eventually, id, number, record, run, server, store,
    table,
};

/// What `connect` says of a URL.
async fn refused(url: &str) -> String {
    chain(&MysqlStore::connect(url).await.unwrap_err())
}

/// S-77.
#[tokio::test]
async fn a_name_that_is_none_is_refused_before_it_reaches_the_server() {
    let long = "a".repeat(49);
    for name in [
        "", "1st", "a-b", "a b", "a`; --", "a'", "a\"", "a.b", "a//b", "\u{e4}", "a\0", &long,
    ] {
        let builder = MysqlStore::builder().table(name);
        let error = builder.connect(&server().url()).await.unwrap_err();
        let expected = format!("{name:?} is no name for a table; use 1 to 48 ASCII letters");
        assert!(chain(&error).contains(&expected), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_name_may_be_a_keyword_and_as_long_as_it_gets() {
    let longest = format!("{}{}", table(), "x".repeat(48))[..48].to_owned();
    for name in ["order", "select", &longest] {
        let store = store(name).await;
        let _ = store.create(id(1), &record(None), NOW).await.unwrap();
        assert!(store.load(id(1), NOW).await.unwrap().is_some());
        store.delete_by_owner("ada", None, NOW).await.unwrap();
        store.migrate().await.unwrap();
    }
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_without_showing_the_password() {
    for url in [
        "",
        "postgres://u:hunter2@h/db",
        "host=h user=u password=hunter2 x",
        "mysql://u:hunter2@h:port/db",
        "mysql://u:@?hunter2=x@h",
        "mysql://u:p@p/p?hunter2=x@h/db",
        "mysql://u:hunter2@h/db?colour=red",
        "mysql://h/db?password=hunter2",
    ] {
        let error = refused(url).await;
        assert!(error.contains("mysql://user:password@host"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let error = refused("mysql://u:p@h/db?colour=red").await;
    assert!(error.contains("parameter `colour'"), "{error}");
    let error = refused("mysql://u:hunter2@h").await;
    assert!(error.contains("names no database"), "{error}");
}

#[tokio::test]
async fn options_that_would_break_the_store_are_not_heeded() {
    let options = "client_found_rows=true&pool_min=0&pool_max=1";
    let store = super::store_at(&format!("{}?{options}", server().url()), &table()).await;
    for answer in [Create::Done, Create::Taken] {
        let created = store.create(id(1), &record(None), NOW).await.unwrap();
        assert_eq!(created, answer);
    }
}

#[tokio::test]
async fn an_unreachable_server_is_named() {
    let error = refused("mysql://u:hunter2@127.0.0.1:1/db").await;
    assert!(error.contains("server at `127.0.0.1:1`"), "{error}");
    assert!(error.contains("refused"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    let error = refused("mysql://u:hunter2@h/db?socket=/nowhere").await;
    assert!(error.contains("server at `/nowhere`"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_or_database_is_said_without_the_password() {
    let (_, locked) = user(&mut client().await, "IDENTIFIED BY 'right'").await;
    let with = |password: &str| locked.replace('@', &format!(":{password}@"));
    let error = refused(&with("hunter2")).await;
    assert!(error.contains("Access denied for user"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    MysqlStore::connect(&with("right")).await.unwrap();

    let error = refused(&server().url().replace("/mysql", "/nowhere")).await;
    assert!(error.contains("Unknown database 'nowhere'"), "{error}");
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = refused(&url(listener.local_addr().unwrap().port())).await;
    assert!(error.contains("within 5 s"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_old_is_refused() {
    let old = block_in_place(|| MysqlServer::start(&["--version=10.5.29-MariaDB"]));
    let error = refused(&old.url()).await;
    assert!(error.contains("`10.5.29-MariaDB`"), "{error}");
    assert!(error.contains("MySQL 8.0 or MariaDB 10.6"), "{error}");
}

#[tokio::test]
async fn without_its_tables_the_store_says_what_to_call() {
    let builder = MysqlStore::builder().table(table());
    let store = builder.connect(&server().url()).await.unwrap();
    let update = store
        .update(id(1), &record(None), record(None).version, NOW)
        .await;
    for error in [
        store.load(id(1), NOW).await.unwrap_err(),
        update.unwrap_err(),
    ] {
        let error = chain(&error);
        assert!(error.contains("call `MysqlStore::migrate`"), "{error}");
    }
    store.migrate().await.unwrap();
    assert_eq!(store.load(id(1), NOW).await.unwrap(), None);
}

/// A database of its own: most others have `cloakroom_schema` already.
async fn database(client: &mut Conn) -> (String, String) {
    let name = table().to_lowercase();
    run(client, &format!("CREATE DATABASE {name}")).await;
    let url = server().url().replace("/mysql", &format!("/{name}"));
    (name, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_start_at_once_make_the_tables_once() {
    let (_, url) = database(&mut client().await).await;
    let mut starting = JoinSet::new();
    for _ in 0..16 {
        let url = url.clone();
        starting.spawn(async move {
            let store = MysqlStore::connect(&url).await.unwrap();
            store.migrate().await.map_err(|error| chain(&error))?;
            // Nobody takes away what another one has begun to use.
            for n in 0..50 {
                let new = record(None);
                let update = store.update(id(n), &new, new.version, NOW).await;
                let _ = update.map_err(|error| chain(&error))?;
            }
            Ok(())
        });
    }
    let done = starting.join_all().await;
    assert_eq!(done, vec![Ok::<(), String>(()); 16]);
}

#[tokio::test]
async fn a_migration_that_ended_half_way_is_done_again() {
    let mut client = client().await;
    let (name, url) = database(&mut client).await;
    let parts = include_str!("../../src/store/mysql.sql").replace("DELIMITER //", "");
    let parts: Vec<_> = parts.split("//").collect();
    run(&mut client, &format!("USE {name}")).await;
    // Without the procedures that come last, and without the end.
    for part in &parts[..parts.len() / 2] {
        run(&mut client, part).await;
    }
    let store = MysqlStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    assert_eq!(store.delete_expired(NOW, 1).await.unwrap(), 0);
    let version = "SELECT version FROM cloakroom_schema";
    assert_eq!(number(&mut client, version).await, 1);
}

/// As the file is for those who run their own migrations.
#[tokio::test]
async fn the_command_line_client_can_run_the_file() {
    let mut client = client().await;
    let (name, url) = database(&mut client).await;
    for _ in 0..2 {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/mysql.sql");
        let done = Command::new("mariadb")
            .args(["--no-defaults", "--user=root", "--host=127.0.0.1", &name])
            .arg(format!("--port={}", server().port()))
            .stdin(std::fs::File::open(file).unwrap())
            .output()
            .expect("`mariadb` comes with the server");
        assert!(done.status.success(), "{done:?}");
    }
    // Nothing is left for it to make.
    let (user, _) = user(&mut client, "").await;
    run(
        &mut client,
        &format!("GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE ON {name}.* TO '{user}'@'%'"),
    )
    .await;
    let store = MysqlStore::connect(&url.replace("root@", &format!("{user}@"))).await;
    let store = store.unwrap();
    store.migrate().await.unwrap();
    let (ada, admission) = (record(Some("ada")), Admission::new(NOW));
    let done = store.sign_in(id(1), &ada, None, admission, NOW).await;
    assert_eq!(done.unwrap(), SignIn::Done);
}

#[tokio::test]
async fn a_store_that_its_url_names_has_its_tables() {
    let (_, url) = database(&mut client().await).await;
    let store = AnyStore::connect(&url).await.unwrap();
    let _ = store.create(id(1), &record(None), NOW).await.unwrap();
    assert!(store.load(id(1), NOW).await.unwrap().is_some());
    assert_eq!(format!("{store:?}"), "MysqlStore { .. }");
}

/// S-74: rows of a later release too.
#[tokio::test]
async fn tables_of_others_and_of_later_releases_are_left_alone() {
    let (mut client, foreign, later) = (client().await, table(), table());
    let migrate = async |table: &str| {
        let builder = MysqlStore::builder().table(table);
        let store = builder.connect(&server().url()).await.unwrap();
        chain(&store.migrate().await.unwrap_err())
    };
    store(&table()).await;
    run(&mut client, &format!("CREATE TABLE `{foreign}` (id INT)")).await;
    let error = migrate(&foreign).await;
    assert!(error.contains("that cloakroom did not make"), "{error}");

    store(&later).await;
    let update = format!("UPDATE cloakroom_schema SET version = 2 WHERE `table` = '{later}'");
    assert_eq!(run(&mut client, &update).await, 1);
    let error = migrate(&later).await;
    assert!(error.contains("has schema version 2"), "{error}");

    for damage in [
        "ALTER TABLE `t` DROP idle",
        "DROP TABLE `t`",
        "DROP PROCEDURE `t_sign_in`",
        "CREATE OR REPLACE PROCEDURE `t_update`(IN given_id BINARY(16)) BEGIN END",
    ] {
        let table = table();
        store(&table).await;
        let damage = damage.replace("`t", &format!("`{table}"));
        run(&mut client, &damage).await;
        let error = migrate(&table).await;
        assert!(
            error.contains("not as cloakroom made it"),
            "{damage}: {error}"
        );
    }
}

/// A user without rights, and the URL with which it connects.
async fn user(client: &mut Conn, identified: &str) -> (String, String) {
    let user = table().to_lowercase();
    run(client, &format!("CREATE USER '{user}'@'%' {identified}")).await;
    run(client, &format!("GRANT SELECT ON mysql.db TO '{user}'@'%'")).await;
    let url = server().url().replace("root@", &format!("{user}@"));
    (user, url)
}

#[tokio::test]
async fn a_user_without_the_rights_is_told_which() {
    let mut client = client().await;
    let (name, url) = database(&mut client).await;
    let (user, _) = user(&mut client, "").await;
    let url = url.replace("root@", &format!("{user}@"));
    let migrate = async |rights: &str| {
        let grant = format!("GRANT {rights} ON {name}.* TO '{user}'@'%'");
        run(&mut super::client().await, &grant).await;
        let store = MysqlStore::connect(&url).await.unwrap();
        store.migrate().await.map_err(|error| chain(&error))
    };
    for rights in ["SELECT", "CREATE, INSERT, UPDATE, DELETE"] {
        let error = migrate(rights).await.unwrap_err();
        assert!(error.contains("lacks a right on the table"), "{error}");
        assert!(error.contains("CREATE ROUTINE"), "{error}");
        assert!(error.contains("denied"), "{error}");
    }
    migrate("CREATE ROUTINE, ALTER ROUTINE, EXECUTE")
        .await
        .unwrap();

    let revoke = format!("REVOKE DELETE, EXECUTE ON {name}.* FROM '{user}'@'%'");
    run(&mut client, &revoke).await;
    let store = MysqlStore::connect(&url).await.unwrap();
    let first = record(None).version;
    let update = store.update(id(1), &record(None), first, NOW).await;
    for error in [store.delete(id(1)).await.unwrap_err(), update.unwrap_err()] {
        let error = chain(&error);
        assert!(error.contains("lacks a right on the table"), "{error}");
    }
}

/// The answer of a sign-in must come from what is there when it is its turn, also where transactions see
/// what was there when they began unless told otherwise (S-60).
#[tokio::test(flavor = "multi_thread")]
async fn the_modes_of_the_server_play_no_part() {
    let server = block_in_place(|| {
        MysqlServer::start(&[
            "--transaction-isolation=REPEATABLE-READ",
            "--autocommit=OFF",
            "--sql-mode=ANSI,HIGH_NOT_PRECEDENCE,SIMULTANEOUS_ASSIGNMENT",
            "--character-set-server=latin1",
        ])
    });
    let (mut client, table) = (client_of(&server).await, table());
    let store = super::store_at(&server.url(), &table).await;
    let mut long = record(None);
    long.owner = Some("\u{1F511}".repeat(64).into());
    let too_long = store.create(id(2), &long, NOW).await.unwrap_err();
    assert!(
        chain(&too_long).contains("too long"),
        "{}",
        chain(&too_long)
    );
    long.owner = Some("\u{1F511}".repeat(63).into());
    let _ = store.create(id(2), &long, NOW).await.unwrap();
    assert_eq!(store.load(id(2), NOW).await.unwrap(), Some(long));
    let mut short = record(None);
    short.expires = NOW;
    let _ = store.create(id(3), &short, Timestamp::from_millis(1)).await;
    let _ = store.create(id(3), &record(None), NOW).await.unwrap();
    assert_eq!(store.load(id(3), NOW).await.unwrap(), Some(record(None)));

    let zeros = "0".repeat(32);
    run(&mut client, "START TRANSACTION").await;
    let revoke = format!(
        "INSERT INTO `{table}_revoked` VALUES ('ada', X'{zeros}', {})",
        NOW.as_millis()
    );
    run(&mut client, &revoke).await;
    let waiting = tokio::spawn(async move {
        let (ada, admission) = (record(Some("ada")), Admission::new(NOW));
        store.sign_in(id(1), &ada, None, admission, NOW).await
    });
    let waits = format!(
        "SELECT COUNT(*) FROM information_schema.innodb_trx \
         WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE '%{table}%' \
         AND trx_isolation_level = 'READ COMMITTED'"
    );
    eventually("the sign-in waits for the revocation", async || {
        number(&mut client, &waits).await > 0
    })
    .await;
    run(&mut client, "COMMIT").await;
    assert_eq!(waiting.await.unwrap().unwrap(), SignIn::Revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_the_server_does_not_take_is_told_from_a_server_that_fails() {
    let server = block_in_place(|| MysqlServer::start(&["--max-allowed-packet=1M"]));
    let store = super::store_at(&server.url(), "sessions").await;
    let mut big = record(None);
    big.data = vec![b' '; 1 << 20].into();
    let error = chain(&store.create(id(1), &big, NOW).await.unwrap_err());
    assert!(error.contains("raise its `max_allowed_packet`"), "{error}");
    let mut client = client_of(&server).await;
    run(&mut client, "SET GLOBAL max_allowed_packet = 2 << 20").await;
    for _ in 0..10 {
        let _ = store.load(id(1), NOW).await.unwrap();
    }
    let store = super::store_at(&server.url(), "sessions").await;
    let _ = store.create(id(1), &big, NOW).await.unwrap();
    assert_eq!(store.load(id(1), NOW).await.unwrap(), Some(big));
}

/// With a certificate of an authority that the test makes.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_encrypted_and_its_server_known() {
    let folder = Certificates::make();
    let server = block_in_place(|| {
        MysqlServer::start(&[
            &format!("--ssl-cert={}", folder.file("server.pem")),
            &format!("--ssl-key={}", folder.file("server.key")),
            "--require-secure-transport=ON",
        ])
    });
    let error = refused(&format!("{}?require_ssl=true", server.url())).await;
    assert!(error.contains("certificate"), "{error}");
    let error = refused(&server.url()).await;
    assert!(error.contains("cannot connect"), "{error}");

    let with = |server_name: &'static str| {
        let roots = vec![std::path::PathBuf::from(folder.file("ca.pem")).into()];
        let ssl = SslOpts::default()
            .with_root_certs(roots)
            .with_danger_tls_hostname_override(Some(server_name));
        let opts = Opts::from_url(&server.url()).unwrap();
        MysqlStore::connect_with(OptsBuilder::from_opts(opts).ssl_opts(ssl).into())
    };
    let error = chain(&with("example.com").await.unwrap_err());
    assert!(error.contains("certificate"), "{error}");
    let store = with("db.internal").await.unwrap();
    store.migrate().await.unwrap();
    let _ = store.create(id(1), &record(None), NOW).await.unwrap();
    assert!(store.load(id(1), NOW).await.unwrap().is_some());
}

/// A folder of certificates, which the server's user can read.
struct Certificates(std::path::PathBuf);

impl Certificates {
    fn make() -> Self {
        let this = Self(std::env::temp_dir().join(format!("cloakroom-{}", table())));
        std::fs::create_dir(&this.0).unwrap();
        let authority = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                         -subj /CN=Test -keyout ca.key -out ca.pem";
        let server = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                      -subj /CN=db.internal -addext subjectAltName=DNS:db.internal \
                      -addext basicConstraints=critical,CA:FALSE \
                      -CA ca.pem -CAkey ca.key -keyout server.key -out server.pem";
        for command in [authority, server] {
            let made = Command::new("openssl")
                .args(command.split_whitespace())
                .current_dir(&this.0)
                .output()
                .expect("this test makes certificates: install `openssl`");
            assert!(made.status.success(), "{made:?}");
        }
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(this.file("server.key"), everybody).unwrap();
        this
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
